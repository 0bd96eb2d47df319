"""Golden steps of Cluster-Contrast: contrast with a memory of cluster centroids, in three ways of updating it.

Text: methods.md 7.3 (Cluster-Contrast), 7.3b (camera-aware variant), 1.1 (GeM), section 9 (check); none of the five
texts has it. f = unit neck output of the batch, M = memory of unit centroids, y = pseudo label of an image.
  ce = cross-entropy over the logits f . M / .05 of all clusters, M as before the step, no label smoothing, batch mean
  memory, after the loss and from the same f; every update is M_y <- unit(.1 M_y + .9 x), .1 weighing the OLD:
    plain         one update for every image x = f, in batch order, each on the result of the one before
    hard          one update an identity, x = its image with the smallest f . M_y
    camera_aware  one update an identity: for every camera of the identity in the batch c = unit(mean of its f); for its
                  images s = 1 + f . c, d = 1 - f . M_y, h = s d / (s + d); x = the image of the largest h, all
                  cameras together
  camera_aware weighs the loss: H_y = base-2 entropy of the identity's cameras in the batch,
    w_y = n e^{H_y} / sum over the n identities of the batch of e^H, total = batch mean of w_y ce_i

Cases: plain, hard, camera_aware, all from the same state and batch; memory (no step): the memory at an epoch's begin.

Choices
  * hard and camera_aware measure f . M_y in the memory BEFORE the step. Since an identity is updated once a step and no
    identity touches another's row, measuring while updating gives the same. In plain, the logits too are those of the
    memory before the step (7.3: the update belongs to the backward pass).
  * updates take f as the loss saw it, not features after the optimiser step; f is detached. M has no gradient.
  * identities of the batch = the labels in it, however often; entropy and h count the images of the batch only (7.3b).
    The weights w have no gradient (they depend on cameras alone). The weighted mean divides by the number of images.
  * rows of M without an image in the batch stay as they are. M's rows are unit before the step (to float32 rounding)
    and f . M is not divided by their norm.
  * pooling is GeM, ( mean of max(x, 1e-6)^p )^(1/p), one learnable p = 3 for all channels. Clamped places have no
    gradient. p belongs to the optimiser like every parameter, weight decay included.
  * one fresh Adam, coupled weight decay on all trained parameters; no warm-up; one batch-norm group, train mode.
  * memory case: unit features, mean over a label, unit; outliers (-1) enter no row.

Network student: TinyNet with GeM, without classifier
  stem.conv Conv2d(3, 8, 3, stride 2, padding 1, no bias), stem.bn, ReLU
  body.conv Conv2d(8, 16, 3, stride 1, padding 1, no bias), body.bn, ReLU -> map 16 x 8 x 4
  pool GeM -> pooled (16); neck BatchNorm1d(16), bias 0 and frozen; feature = neck / |neck|

Tensors; CASE = plain, hard, camera_aware
PARAM = stem.conv.weight (8,3,3,3), stem.bn.{weight,bias,running_mean,running_var} (8), body.conv.weight (16,8,3,3),
        body.bn.{weight,bias,running_mean,running_var} (16), pool.p (1),
        neck.{weight,bias,running_mean,running_var} (16)
  CASE.batch.view1 (16,3,16,8); CASE.batch.labels, CASE.batch.cameras (16) int64
  CASE.before.student.PARAM, CASE.after.student.PARAM; CASE.grad.student.PARAM without running statistics, neck.bias
  CASE.before.memory.centroids, CASE.after.memory.centroids (6,16)
  CASE.hyper.{tau,momentum,gem_eps,lr,beta1,beta2,eps,weight_decay,bn_momentum} (1)
  CASE.loss.total, CASE.loss.ce (1): ce without the weights w, so both are equal but in camera_aware
  CASE.mid.student.{pooled,neck,feature} (16,16); CASE.mid.logits (16,6); CASE.mid.ce_image (16)
  hard, camera_aware: CASE.mid.identities (4) int64, rising; CASE.mid.chosen (4) int64, their image's place in the batch
  hard.mid.similarity (16): f . M_y; camera_aware.mid.{s,d,h} (16), camera_aware.mid.{entropy,identity_weight} (4),
  camera_aware.mid.image_weight (16)
memory: memory.batch.features (20,16) not unit; memory.batch.labels (20) int64; memory.after.memory.centroids (5,16)
"""
import copy
import math
import os

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)  # the order of sums, and with it the last bits, must not depend on the machine
FILE = os.path.splitext(os.path.abspath(__file__))[0] + ".safetensors"
CLUSTERS, TAU, MOMENTUM, GEM_EPS = 6, 0.05, 0.1, 1e-6
LR, BETAS, EPS, WEIGHT_DECAY, BN_MOMENTUM = 3.5e-4, (0.9, 0.999), 1e-8, 5e-4, 0.1


# ---- network

class GeM(nn.Module):
    def __init__(self, p=3.0):
        super().__init__()
        self.p = nn.Parameter(torch.tensor([p]))

    def forward(self, x):
        return x.clamp(min=GEM_EPS).pow(self.p).mean((2, 3)).pow(1 / self.p)


class ConvBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs, momentum=BN_MOMENTUM)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class TinyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body, self.pool = ConvBlock(3, 8, 2), ConvBlock(8, 16, 1), GeM()
        self.neck = nn.BatchNorm1d(16, momentum=BN_MOMENTUM)
        self.neck.bias.requires_grad_(False)

    def forward(self, images):
        pooled = self.pool(self.body(self.stem(images)))
        neck = self.neck(pooled)
        return {"pooled": pooled, "neck": neck, "feature": unit(neck)}


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def as_float32(x):
    """The float64 value of the float32 that the file will hold: a reader starts from exactly the same numbers."""
    return x.float().double()


def state(net):
    return {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}


def random_net():
    net = TinyNet()
    for name, value in state(net).items():
        if name.endswith("conv.weight"):
            value.normal_(0, math.sqrt(2 / value[0].numel()))
        elif name.endswith("weight"):
            value.normal_(1, 0.2)
        elif name.endswith("running_var"):
            value.copy_((0.2 * torch.randn_like(value)).exp())
        elif name not in ("neck.bias", "pool.p"):
            value.normal_(0, 0.1)
        value.copy_(as_float32(value))
    return net


def trainable(net):
    return {name: value for name, value in net.named_parameters() if value.requires_grad}


# ---- loss

def identity_weights(labels, cameras):
    """7.3b: entropy and weight of every identity of the batch, in the order of their labels."""
    entropy = []
    for y in labels.unique():
        share = torch.bincount(cameras[labels == y]).double() / (labels == y).sum()
        share = share[share > 0]
        entropy.append(-(share * share.log2()).sum())
    entropy = torch.stack(entropy)
    return entropy, len(entropy) * entropy.exp() / entropy.exp().sum()


def losses(net, batch, memory, case):
    output = net(batch["view1"])
    labels = batch["labels"]
    logits = output["feature"] @ memory.T / TAU
    image = F.cross_entropy(logits, labels, reduction="none")
    mid = {f"student.{key}": value for key, value in output.items()}
    mid.update({"logits": logits, "ce_image": image})
    total = image.mean()
    if case == "camera_aware":
        entropy, weights = identity_weights(labels, batch["cameras"])
        of_image = weights[torch.searchsorted(labels.unique(), labels)]
        total = (of_image * image).mean()
        mid.update({"entropy": entropy, "identity_weight": weights, "image_weight": of_image})
    return image.mean(), total, mid


# ---- memory

def moved(row, x):
    return unit(MOMENTUM * row + (1 - MOMENTUM) * x)


def update_plain(memory, f, batch, mid):
    memory = memory.clone()
    for x, y in zip(f, batch["labels"]):
        memory[y] = moved(memory[y], x)
    return memory


def choose(scores, labels):
    """The place in the batch of every identity's smallest score."""
    chosen = []
    for y in labels.unique():
        places = (labels == y).nonzero()[:, 0]
        order = scores[places].argsort()
        low, next_low = scores[places[order[:2]]]
        assert next_low - low > 1e-3 and next_low - low > 1e-3 * low.abs(), "two candidates too close to call"
        chosen.append(places[order[0]])
    return torch.stack(chosen)


def update_chosen(memory, f, labels, chosen):
    result = memory.clone()
    result[labels[chosen]] = moved(memory[labels[chosen]], f[chosen])
    return result


def update_hard(memory, f, batch, mid):
    labels = batch["labels"]
    similarity = (f * memory[labels]).sum(1)
    chosen = choose(similarity, labels)
    mid.update({"similarity": similarity, "identities": labels.unique(), "chosen": chosen})
    return update_chosen(memory, f, labels, chosen)


def update_camera_aware(memory, f, batch, mid):
    labels, cameras = batch["labels"], batch["cameras"]
    with_me = (labels[:, None] == labels[None]) & (cameras[:, None] == cameras[None])
    centres = unit(with_me.double() @ f / with_me.sum(1, keepdim=True))  # of each image's own identity and camera
    s, d = 1 + (f * centres).sum(1), 1 - (f * memory[labels]).sum(1)
    h = s * d / (s + d)
    chosen = choose(-h, labels)
    mid.update({"s": s, "d": d, "h": h, "identities": labels.unique(), "chosen": chosen})
    return update_chosen(memory, f, labels, chosen)


UPDATES = {"plain": update_plain, "hard": update_hard, "camera_aware": update_camera_aware}


def initial_memory(features, labels):
    return unit(torch.stack([unit(features)[labels == y].mean(0) for y in range(int(labels.max()) + 1)]))


# ---- step

def adam(parameters, gradients):
    """The optimiser's first step, and a check of it in closed form."""
    before = {name: value.detach().clone() for name, value in parameters.items()}
    torch.optim.Adam(parameters.values(), lr=LR, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY).step()
    smallest = math.inf
    for name, value in parameters.items():
        decayed = gradients[name] + WEIGHT_DECAY * before[name]
        assert torch.allclose(value, before[name] - LR * decayed / (decayed.abs() + EPS), atol=1e-12)
        smallest = min(smallest, decayed.abs().min().item())
    print(f"  smallest |gradient + decay| {smallest:.2e}")
    assert smallest > 1e-6, "a gradient this near to zero would give Adam a random sign in single precision"


def check_gradient(net, batch, memory, case, gradients):
    for key, place in (("body.conv.weight", (3, 2, 1, 0)), ("stem.bn.weight", (5,)), ("pool.p", (0,))):
        values = []
        for shift in (1e-6, -1e-6):
            changed = copy.deepcopy(net)
            changed.state_dict()[key][place] += shift
            values.append(losses(changed, batch, memory, case)[1].item())
        numeric, analytic = (values[0] - values[1]) / 2e-6, gradients[key][place].item()
        assert abs(numeric - analytic) < 1e-6 + 1e-5 * abs(analytic), (key, numeric, analytic)


def step_case(case, start, batch, memory, out):
    print(case)
    net = copy.deepcopy(start)
    out.update({f"{case}.batch.{key}": value for key, value in batch.items()})
    out.update({f"{case}.before.student.{key}": value for key, value in state(start).items()})
    hypers = {"tau": TAU, "momentum": MOMENTUM, "gem_eps": GEM_EPS, "lr": LR, "beta1": BETAS[0], "beta2": BETAS[1],
              "eps": EPS, "weight_decay": WEIGHT_DECAY, "bn_momentum": BN_MOMENTUM}
    out.update({f"{case}.hyper.{key}": torch.tensor([float(value)]) for key, value in hypers.items()})
    ce, total, mid = losses(net, batch, memory, case)
    total.backward()
    parameters = trainable(net)
    gradients = {name: value.grad.clone() for name, value in parameters.items()}
    check_gradient(start, batch, memory, case, gradients)
    for name, gradient in gradients.items():
        print(f"  {name:17s} gradient norm {gradient.norm().item():.3e}")
        assert gradient.norm() > 1e-3
    print(f"  ce {ce.item():.6f}  total {total.item():.6f}")
    after = UPDATES[case](memory, mid["student.feature"].detach(), batch, mid)
    absent = [y for y in range(CLUSTERS) if y not in batch["labels"]]
    assert torch.equal(after[absent], memory[absent]) and torch.allclose(after.norm(dim=1), torch.ones(CLUSTERS))
    adam(parameters, gradients)
    out[f"{case}.before.memory.centroids"], out[f"{case}.after.memory.centroids"] = memory, after
    out.update({f"{case}.after.student.{key}": value for key, value in state(net).items()})
    out.update({f"{case}.grad.student.{key}": value for key, value in gradients.items()})
    out.update({f"{case}.mid.{key}": value for key, value in mid.items()})
    out[f"{case}.loss.ce"], out[f"{case}.loss.total"] = ce.reshape(1), total.reshape(1)
    return mid


# ---- checks and data

def check_closed_forms():
    """methods.md section 9, GeM's special cases, and weights that even out."""
    e = torch.eye(3)
    one = {"labels": torch.tensor([1]), "cameras": torch.tensor([0])}
    for update in (update_plain, lambda m, f, b, mid: update_chosen(m, f, b["labels"], torch.tensor([0]))):
        assert torch.allclose(update(e, e[:1], one, {})[1], unit(0.9 * e[0] + 0.1 * e[1]))
    x = torch.rand(2, 4, 3, 3) + 0.1
    assert torch.allclose(GeM(1.0)(x), x.mean((2, 3)))
    assert torch.allclose(GeM(3.0)(x * 0 + 0.7), torch.full((2, 4), 0.7))
    assert torch.allclose(GeM(400.0)(x), x.amax((2, 3)), rtol=1e-2)
    labels = torch.tensor([0, 0, 0, 0, 2, 2, 2, 2])
    entropy, weights = identity_weights(labels, torch.tensor([0, 0, 1, 1, 3, 1, 3, 1]))
    assert torch.allclose(entropy, torch.ones(2)) and torch.allclose(weights, torch.ones(2))
    entropy, weights = identity_weights(labels, torch.tensor([0, 1, 2, 3, 1, 1, 1, 1]))
    assert torch.allclose(entropy, torch.tensor([2.0, 0.0])) and torch.allclose(weights.sum(), torch.tensor(2.0))
    assert torch.allclose(weights[0] / weights[1], torch.tensor(2.0).exp())


def memory_case(out):
    labels = torch.tensor([0, 3, 1, -1, 2, 2, 0, 4, 3, 1, 4, 2, -1, 0, 3, 2, 1, 4, 2, 0])
    features = as_float32(2 * torch.randn(6, 16)[labels] + torch.randn(20, 16))
    centroids = initial_memory(features, labels)
    assert torch.allclose(centroids[4], unit(unit(features[[7, 10, 17]]).sum(0)))
    out.update({"memory.batch.features": features, "memory.batch.labels": labels,
                "memory.after.memory.centroids": centroids})


def save(out):
    tensors = {k: v.detach() if v.dtype == torch.int64 else v.detach().float() for k, v in out.items()}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, FILE)  # a copy: two names may be one tensor


def main(seed=1):
    torch.manual_seed(seed)
    check_closed_forms()
    labels = torch.tensor([3, 0, 5, 2]).repeat_interleave(4)  # clusters 1 and 4 are not in the batch
    cameras = torch.tensor([0, 1, 2, 0, 1, 1, 1, 1, 2, 0, 2, 0, 3, 0, 3, 3])  # entropies 1.5, 0, 1, .811
    images = 0.6 * torch.randn(CLUSTERS, 3, 16, 8)[labels] + 0.8 * torch.randn(4, 3, 16, 8)[cameras]
    images = images + 0.8 * torch.randn_like(images)
    batch = {"view1": as_float32(images), "labels": labels, "cameras": cameras}
    net = random_net()
    features = copy.deepcopy(net)(batch["view1"])["feature"].detach()
    rows = torch.stack([features[labels == y].mean(0) if y in labels else torch.randn(16) for y in range(CLUSTERS)])
    # near the features, so that the loss is neither 0 nor saturated
    memory = as_float32(unit(unit(rows) + 0.45 * torch.randn(CLUSTERS, 16)))
    out = {}
    mids = {case: step_case(case, net, batch, memory, out) for case in UPDATES}
    differing = (mids["hard"]["chosen"] != mids["camera_aware"]["chosen"]).sum()
    print("chosen", mids["hard"]["chosen"].tolist(), mids["camera_aware"]["chosen"].tolist())
    assert differing >= 2 and not torch.equal(out["plain.after.memory.centroids"], out["hard.after.memory.centroids"])
    memory_case(out)
    save(out)


if __name__ == "__main__":
    main()
