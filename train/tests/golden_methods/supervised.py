"""Golden steps of the supervised strong baseline (Luo et al., "Bag of Tricks", 2019), with and without the centre loss.

Text and equations: methods.md 1.1 (neck, "strong baseline"), 1.5 (label smoothing), 1.6 (distances), 1.4 (schedules);
what neither has (margin .3, the centre loss and its optimiser, 120 epochs) is the public recipe's.
  step         L = CE + T
  step_centre  L = CE + T + w C, w = 5e-4
  CE  label-smoothed cross-entropy of the logits, q = .9 one-hot + .1 / C, batch mean
  T   batch-hard, mean over anchors of max(0, .3 + farthest of the same label - nearest of another), pooled feature
  C   mean over images of |pooled - centre of its label|^2, clamped to [1e-12, 1e12]
  network: Adam.  centres: plain SGD, lr .5, on their gradient of L divided by w, so on that of C:
      centre_y <- centre_y - .5 (2 / B) sum over y's images (centre_y - pooled)
                = centre_y - (n_y / B) (centre_y - mean of y's images)

Choices
  * neck (BNNeck): batch norm, bias 0 and frozen; T and C before it, classifier (no bias) after it.
  * C is a mean without the paper's factor 1/2 (the recipe's code). Both steps from one backward pass: the centres move
    towards the features the loss saw, before Adam's step. The centres are in no other optimiser, without decay.
  * centres of labels that are not in the batch do not move.
  * Euclidean distance, not normalised, clamped at 1e-12 before the root; the anchor is in its own positive mask (1.6).
  * one fresh Adam, 3.5e-4, coupled decay 5e-4 on all trained parameters, biases with the same rate and decay.
    The schedule's factor in the steps is 1.
  * one batch-norm group.
  * schedule, a factor to the rate of Adam, by 0-based epoch e; the centres' rate has no schedule. Default `factors`:
    (.1 (1 - e/10) + e/10 while e < 10, then 1) times .1^(number of milestones 40, 70 that are <= e): .1 at e = 0,
    .91 at 9, 1 at 10, .1 at 40, .01 at 70. Two others, not the default, with t = e + 1:
    factors_paper   the paper's: t/10 to t = 10, 1 to 40, .1 to 70, .01 to 120
    factors_recipe  the code's, warm-up from .01: (.01 (1 - t/10) + t/10) while t < 10, then 1; decay at t >= 40, 70

Network student: mmt.py's TinyNet, C = 6 classes.

Tensors; PARAM as in mmt.py
CASE = step, step_centre from the same state and batch:
  CASE.batch.view1 (16,3,16,8); CASE.batch.{labels,cameras} (16) int64
  CASE.before.student.PARAM, CASE.after.student.PARAM
  CASE.grad.student.PARAM (of L) without running statistics and neck.bias
  CASE.hyper.{smoothing,margin,lr,beta1,beta2,eps,weight_decay,bn_momentum} (1)
  CASE.loss.{total,ce,triplet} (1), CASE.mid.student.{pooled (16,16),neck (16,16),logits (16,6)}
  CASE.mid.{positive,negative} (16) int64, CASE.mid.{d_ap,d_an} (16)
step_centre also: before.centres, after.centres (6,16), grad.centres (6,16): of L, before the division by w;
  loss.centre (1): C, without w; hyper.{centre_weight,centre_lr} (1)
schedule.hyper.{epochs,warmup_epochs,warmup_factor,milestone1,milestone2,gamma} (1)
schedule.mid.{factors,factors_paper,factors_recipe} (120)
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
CLASSES, SMOOTHING, MARGIN, CENTRE_WEIGHT, CENTRE_LR = 6, 0.1, 0.3, 5e-4, 0.5
LR, BETAS, EPS, WEIGHT_DECAY, BN_MOMENTUM = 3.5e-4, (0.9, 0.999), 1e-8, 5e-4, 0.1
EPOCHS, WARMUP, FACTOR, MILESTONES, GAMMA = 120, 10, 0.1, (40, 70), 0.1
APART, KINK, SMALLEST = 1e-3, 2e-5, 1e-6


# ---- network

def relu(x):
    assert x.abs().min() > KINK, "an entry on the kink of a ReLU"
    return x.relu()


class ConvBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs, momentum=BN_MOMENTUM)

    def forward(self, x):
        return relu(self.bn(self.conv(x)))


class TinyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = ConvBlock(3, 8, 2), ConvBlock(8, 16, 1)
        self.neck = nn.BatchNorm1d(16, momentum=BN_MOMENTUM)
        self.neck.bias.requires_grad_(False)
        self.classifier = nn.Linear(16, CLASSES, bias=False)

    def forward(self, images):
        pooled = self.body(self.stem(images)).mean((2, 3))
        neck = self.neck(pooled)
        return {"pooled": pooled, "neck": neck, "logits": self.classifier(neck)}


def as_float32(x):
    """The float64 value of the float32 that the file will hold: a reader starts from exactly the same numbers."""
    return x.float().double()


def state(net):
    return {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}


def trainable(net):
    return {name: value for name, value in net.named_parameters() if value.requires_grad}


def random_net():
    net = TinyNet()
    with torch.no_grad():
        for name, value in state(net).items():
            if name == "classifier.weight":
                value.normal_(0, 0.3)
            elif value.dim() > 1:
                value.normal_(0, math.sqrt(2 / value[0].numel()))
            elif name.endswith("weight"):
                value.normal_(1, 0.2)
            elif name.endswith("running_var"):
                value.copy_((0.2 * torch.randn_like(value)).exp())
            elif name != "neck.bias":
                value.normal_(0, 0.1)
            value.copy_(as_float32(value))
    return net


# ---- losses

def cross_entropy(logits, labels):
    """methods.md 1.5: q = (1 - eps) one-hot + eps / C."""
    target = F.one_hot(labels, CLASSES) * (1 - SMOOTHING) + SMOOTHING / CLASSES
    return -(target * logits.log_softmax(1)).sum(1).mean()


def batch_hard_triplet(x, labels):
    """The differences are taken directly, so d_ii is exactly sqrt(1e-12) and the clamp stops its gradient."""
    distances = (x[:, None] - x[None]).pow(2).sum(2).clamp(min=1e-12).sqrt()
    same = labels[:, None] == labels[None]
    far, positive = distances.detach().masked_fill(~same, -math.inf).sort(1, descending=True)
    near, negative = distances.detach().masked_fill(same, math.inf).sort(1)
    assert ((far[:, 0] - far[:, 1]) > APART).all() and ((near[:, 1] - near[:, 0]) > APART).all(), "too close to call"
    found = {"positive": positive[:, 0], "negative": negative[:, 0]}
    found["d_ap"] = distances.gather(1, positive[:, :1])[:, 0]
    found["d_an"] = distances.gather(1, negative[:, :1])[:, 0]
    violation = MARGIN + found["d_ap"] - found["d_an"]
    assert (violation.abs() > APART).all(), "an anchor on the kink of the hinge"
    assert 4 <= (violation > 0).sum() <= 12, "the hinge should be at work on both sides"
    return violation.clamp(min=0).mean(), found


def centre_loss(x, labels, centres):
    return (x - centres[labels]).pow(2).sum(1).clamp(1e-12, 1e12).mean()


def losses(net, centres, batch):
    """Terms, total and intermediate values. Runs the network once, so running statistics move."""
    output, labels = net(batch["view1"]), batch["labels"]
    triplet, mid = batch_hard_triplet(output["pooled"], labels)
    terms = {"ce": cross_entropy(output["logits"], labels), "triplet": triplet}
    total = terms["ce"] + terms["triplet"]
    if centres is not None:
        terms["centre"] = centre_loss(output["pooled"], labels, centres)
        total = total + CENTRE_WEIGHT * terms["centre"]
    mid.update({f"student.{key}": value for key, value in output.items()})
    return terms, total, mid


# ---- step

def check_gradient(net, centres, batch, gradients):
    """Central differences on two weights."""
    for key, place in (("body.conv.weight", (3, 2, 1, 0)), ("classifier.weight", (4, 7))):
        values = []
        for shift in (1e-6, -1e-6):
            moved = copy.deepcopy(net)
            moved.state_dict()[key][place] += shift
            values.append(losses(moved, centres, batch)[1].item())
        numeric, analytic = (values[0] - values[1]) / 2e-6, gradients[key][place].item()
        assert abs(numeric - analytic) < 1e-6 + 1e-5 * abs(analytic), (numeric, analytic)


def step_case(case, start, centres, batch, out):
    print(case)
    net = copy.deepcopy(start)
    parameters = trainable(net)
    optimiser = torch.optim.Adam(parameters.values(), lr=LR, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)
    moving = None if centres is None else nn.Parameter(centres.clone())
    terms, total, mid = losses(net, moving, batch)
    for name, term in terms.items():
        found = torch.autograd.grad(term, list(parameters.values()), retain_graph=True, allow_unused=True)
        norm = math.sqrt(sum(g.pow(2).sum().item() for g in found if g is not None))
        print(f"  {name:8s}{term.item():.6f}  gradient norm {norm:.4f}")
    total.backward()
    gradients = {name: value.grad.clone() for name, value in parameters.items()}
    optimiser.step()
    smallest = math.inf
    for name, value in parameters.items():  # the first step of Adam in closed form
        old = state(start)[name]
        decayed = gradients[name] + WEIGHT_DECAY * old
        assert torch.allclose(value, old - LR * decayed / (decayed.abs() + EPS), atol=1e-12)
        smallest = min(smallest, decayed.abs().min().item())
    print(f"  total {total.item():.6f}  smallest |gradient + decay| {smallest:.2e}")
    assert smallest > SMALLEST, "a gradient this near to zero would give Adam a random sign in single precision"
    check_gradient(start, moving, batch, gradients)
    hypers = {"smoothing": SMOOTHING, "margin": MARGIN, "lr": LR, "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS,
              "weight_decay": WEIGHT_DECAY, "bn_momentum": BN_MOMENTUM}
    if centres is not None:
        out[f"{case}.before.centres"], out[f"{case}.grad.centres"] = centres, moving.grad.clone()
        moving.grad /= CENTRE_WEIGHT
        torch.optim.SGD([moving], lr=CENTRE_LR).step()
        out[f"{case}.after.centres"] = moving
        check_centres(centres, moving.detach(), mid["student.pooled"].detach(), batch["labels"])
        hypers.update({"centre_weight": CENTRE_WEIGHT, "centre_lr": CENTRE_LR})
    out.update({f"{case}.batch.{key}": value for key, value in batch.items()})
    out.update({f"{case}.hyper.{key}": torch.tensor([float(value)]) for key, value in hypers.items()})
    out.update({f"{case}.before.student.{key}": value for key, value in state(start).items()})
    out.update({f"{case}.after.student.{key}": value for key, value in state(net).items()})
    out.update({f"{case}.grad.student.{key}": value for key, value in gradients.items()})
    out.update({f"{case}.mid.{key}": value for key, value in mid.items()})
    out.update({f"{case}.loss.{key}": value.reshape(1) for key, value in terms.items()})
    out[f"{case}.loss.total"] = total.reshape(1)


def check_centres(before, after, pooled, labels):
    """The closed form: a centre goes the share n / B of the way to the mean of its images."""
    for label in range(CLASSES):
        mine = pooled[labels == label]
        wanted = before[label]
        if len(mine):
            wanted = wanted - len(mine) / len(labels) * (wanted - mine.mean(0))
        assert torch.allclose(after[label], wanted, atol=1e-14)


# ---- schedule

def factors():
    warm = [FACTOR * (1 - e / WARMUP) + e / WARMUP if e < WARMUP else 1.0 for e in range(EPOCHS)]
    return torch.tensor([w * GAMMA ** sum(e >= m for m in MILESTONES) for e, w in enumerate(warm)])


def factors_paper():
    epochs = range(1, EPOCHS + 1)
    return torch.tensor([t / 10 if t <= 10 else 1.0 if t <= 40 else 0.1 if t <= 70 else 0.01 for t in epochs])


def factors_recipe():
    warm = [0.01 * (1 - t / WARMUP) + t / WARMUP if t < WARMUP else 1.0 for t in range(1, EPOCHS + 1)]
    return torch.tensor([w * GAMMA ** sum(t >= m for m in MILESTONES) for t, w in enumerate(warm, 1)])


def schedule_case(out):
    found = factors()
    wanted = {0: 0.1, 1: 0.19, 9: 0.91, 10: 1, 39: 1, 40: 0.1, 69: 0.1, 70: 0.01, 119: 0.01}
    assert all(abs(found[e] - value) < 1e-12 for e, value in wanted.items())
    assert torch.allclose(factors_paper()[[0, 9, 10, 39, 40, 69, 70]], torch.tensor([0.1, 1, 1, 1, 0.1, 0.1, 0.01]))
    assert torch.allclose(factors_recipe()[[0, 8, 9, 38, 39, 69]], torch.tensor([0.109, 0.901, 1, 1, 0.1, 0.01]))
    hypers = {"epochs": EPOCHS, "warmup_epochs": WARMUP, "warmup_factor": FACTOR, "milestone1": MILESTONES[0],
              "milestone2": MILESTONES[1], "gamma": GAMMA}
    out.update({f"schedule.hyper.{key}": torch.tensor([float(value)]) for key, value in hypers.items()})
    out["schedule.mid.factors"] = found
    out["schedule.mid.factors_paper"], out["schedule.mid.factors_recipe"] = factors_paper(), factors_recipe()


def save(out):
    tensors = {k: v.detach() if v.dtype == torch.int64 else v.detach().float() for k, v in out.items()}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, FILE)  # a copy: two names may be one tensor


def main(seed=6):
    torch.manual_seed(seed)
    labels = torch.tensor([3, 0, 5, 2]).repeat_interleave(4)  # classes 1 and 4 are not in the batch
    cameras = torch.tensor([0, 1, 2, 0, 1, 1, 1, 1, 2, 0, 1, 2, 0, 0, 0, 0])
    images = 0.9 * torch.randn(6, 3, 16, 8)[labels] + math.sqrt(0.19) * torch.randn(16, 3, 16, 8)
    batch = {"view1": as_float32(images), "labels": labels, "cameras": cameras}
    start, centres = random_net(), as_float32(torch.randn(CLASSES, 16))
    logits = torch.randn(16, CLASSES)
    assert torch.allclose(cross_entropy(logits, labels), F.cross_entropy(logits, labels, label_smoothing=SMOOTHING))
    out = {}
    step_case("step", start, None, batch, out)
    step_case("step_centre", start, centres, batch, out)
    schedule_case(out)
    save(out)


if __name__ == "__main__":
    main()
