"""Goldens of the losses: values and gradients, written from the papers with PyTorch, in double precision.

Run beside this file: `python losses.py` writes `losses.safetensors`. Needs torch and safetensors.
"""

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.manual_seed(13)
out = {}


def rand(*shape, scale=1.0):
    return (torch.randn(*shape) * scale).float().double()


def case(name, fn, inputs, **constants):
    leaves = {k: v.clone().requires_grad_(True) for k, v in inputs.items()}
    loss = fn(**leaves)
    grads = torch.autograd.grad(loss, list(leaves.values()))
    out[f"{name}.loss"] = loss.detach().float().reshape(1)
    for (k, v), g in zip(inputs.items(), grads):
        out[f"{name}.{k}"] = v.float().contiguous()
        out[f"{name}.d{k}"] = g.float().contiguous()
    for k, v in constants.items():
        out[f"{name}.{k}"] = v.clone() if v.dtype == torch.int64 else v.float().contiguous()


# Cross-entropy with label smoothing: q = (1 - eps) one-hot + eps / C.
logits, labels = rand(6, 9, scale=4.0), torch.tensor([0, 3, 8, 3, 5, 1])
for tag, eps in (("plain", 0.0), ("smooth", 0.1)):
    case(f"cross_entropy.{tag}", lambda logits: F.cross_entropy(logits, labels, label_smoothing=eps), {"logits": logits}, labels=labels)

# ICE, thesis eq. 6.5 with label smoothing; the query is not normalised.
f, p, y = rand(8, 12), rand(5, 12, scale=0.3), torch.tensor([0, 0, 1, 1, 2, 2, 4, 4])
case(
    "proxy_nce.ice",
    lambda f: F.cross_entropy(f @ p.T / 0.5, y, label_smoothing=0.1),
    {"f": f},
    p=p,
    labels=y,
)

# ICE, eq. 6.9: hardest positive of the other view against all negatives, cosine, tau 0.1.
f, m, y = rand(8, 12), rand(8, 12), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])


def hard_instance(f):
    s = F.normalize(f) @ F.normalize(m).T
    terms = []
    for i in range(len(f)):
        positives = s[i][y == y[i]]
        negatives = s[i][y != y[i]]
        logits = torch.cat([positives.min().reshape(1), negatives]) / 0.1
        terms.append(-F.log_softmax(logits, 0)[0])
    return torch.stack(terms).mean()


case("hard_instance.ice", hard_instance, {"f": f}, m=m, labels=y)

# ICE, eq. 6.10-6.12.
w = rand(8, 12)


def soft_instance(f, forward):
    log_p = F.log_softmax(F.normalize(f) @ F.normalize(m).T / 0.4, 1)
    log_q = F.log_softmax(F.normalize(w) @ F.normalize(w).T / 0.4, 1)
    if forward:
        return (log_q.exp() * (log_q - log_p)).sum(1).mean()
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


case("soft_instance.target_first", lambda f: soft_instance(f, True), {"f": f}, m=m, w=w)
case("soft_instance.printed", lambda f: soft_instance(f, False), {"f": f}, m=m, w=w)

# Batch-hard triplet (Hermans et al. 2017), Euclidean, not normalised: soft margin and margin.
f, y = rand(9, 6), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])


def triplet(f, margin):
    d = torch.cdist(f, f, compute_mode="donot_use_mm_for_euclid_dist")
    terms = []
    for i in range(len(f)):
        same = y == y[i]
        others = [j for j in range(len(f)) if same[j] and j != i]
        d_ap = torch.stack([d[i, j] for j in others]).max()
        d_an = d[i][~same].min()
        terms.append(F.softplus(d_ap - d_an) if margin is None else F.relu(d_ap - d_an + margin))
    return torch.stack(terms).mean()


case("triplet.soft", lambda f: triplet(f, None), {"f": f}, labels=y)
case("triplet.margin", lambda f: triplet(f, 0.3), {"f": f}, labels=y)
save_file(out, "losses.safetensors")
