"""Golden step of SCR: one stem, three branches, 13 vectors by global max pooling, spatial and channel partitions.

Text and equations: thesis (004) chapter 3, Figure 3.3, 3.3.1 (network), Eq. 3.1-3.3, 3.4.1 (hyper-parameters);
methods.md 6.1, 1.4 (optimiser), 1.6 (distance), 1.10 (test feature), register #17.
  p1: 1 global vector.  p2: 1 global, 2 spatial, 2 channel.  p3: 1 global, 3 spatial, 3 channel.  1 + 5 + 7 = 13.
  global   maximum over the whole map of the branch
  spatial  maximum over each of 2 or 3 horizontal stripes of equal height, top first
  channel  2 or 3 slices of the global vector, first channels first; 3 slices of 32 are 11, 11, 10 (as 2048: 683, 683, 682)
  each vector: 1x1 convolution (own weights) -> batch norm -> own classifier
  L = lambda mean_13 CE + mean_3 T,  lambda = 2
  CE  plain cross-entropy of a vector's logits.  T  batch-hard on a branch's global vector after its batch norm:
      mean over anchors of max(0, alpha + farthest of the same label - nearest of another),  alpha = 1.2
step       means over the batch
sums       CE and T as printed, sums over the batch (Eq. 3.1, 3.2); same state and batch as `step`
before_bn  T on the outputs of the 1x1 convolutions, before the batch norm; same state and batch as `step`

Choices
  * the three branches are the pyramid's p1, p2, p3 of the text, each with a global vector (6.1; 3.3.1); it has no
    branch of spatial vectors only or of channel vectors only.
  * batch means by default, the thesis' sums as second case (register #17). Both terms grow by 16: total and gradients of
    `sums` are exactly 16 times those of `step`. The two `1/N` of Eq. 3.3 are means in both.
  * T on the vectors after the batch norm: Figure 3.3 unifies the dimension by "1*1 Conv and BN", 3.3.1 puts triplets and
    classifiers on the same vectors, the test uses them after the batch norm. The text can be read the other way, hence
    `before_bn`; it is not in the register.
  * Euclidean distance, not normalised, clamped at 1e-12 before the root; the anchor is in its own positive mask (1.6).
  * no label smoothing (1.5 names none for SCR; Eq. 3.1 has none), no dropout.
  * ordinary batch norm after the 1x1 convolutions, weight and bias trained (no frozen bias: 3.4.1 calls it just Batch
    Normalization), no ReLU after it. 1x1 convolution without bias (6.1). Classifier without bias (1.1); with a bias of
    zero every number here but the bias' own stays.
  * one batch-norm group (the text trains on one device).
  * optimiser: fresh AMSGrad, lr 2e-4, betas .9, .999, eps 1e-8, coupled weight decay 5e-4 on all parameters, affine batch
    norm too. g' = gradient + decay * weight; m <- b1 m + (1-b1) g'; v <- b2 v + (1-b2) g'^2; vmax <- max(vmax, v)
    (not bias-corrected); weight <- weight - lr (m / (1-b1^t)) / (sqrt(vmax) / sqrt(1-b2^t) + eps), t from 1.
    At t = 1 this is plain Adam, so `amsgrad` has a longer run: large gradients first, small ones after.
  * register #16 (batch size, random erasing) is outside a step. 32 images are 4 x 4 here.
  * test, default (6.1, 1.10): evaluation mode, concatenation of the 13 vectors after batch norm, image + flipped image,
    one L2, Euclidean. thesis: the concatenation of the image alone, as it is. Flip is left-right.
    Order of the concatenation: V below. The text gives none; no distance depends on it.
  * the images are nudged (a few steps of descent on the inputs) until no maximum, mined pair or hinge is close to a tie;
    there are 4,096 maxima, no seed is without a near tie.
  * a branch's bn.bias is set to leave some images all zero in a channel or in a stripe of it: with every maximum positive
    the batch norms after the 1x1 convolutions cancel that bias, its gradient is rounding and Adam's step noise.

Network student (C = 6 classes, 2 of them not in the batch). Full scale / here: input 384x192 / 12x6, map 24x12 / 6x3,
channels 2048 / 32, vector 256 / 4, test feature 13 x 256 = 3328 / 13 x 4 = 52
  stem.conv Conv2d(3, 4, 3, stride 2, padding 1, no bias), stem.bn, ReLU -> map 4 x 6 x 3, shared
  branch_i.conv Conv2d(4, 32, 1, no bias), branch_i.bn, ReLU -> map 32 x 6 x 3; i = 1, 2, 3 for p1, p2, p3
  reduce_V.conv Conv2d(n_V, 4, 1, no bias), reduce_V.bn BatchNorm2d(4); classifier_V Linear(4, 6, no bias)
V = g1, g2, s2_1, s2_2, c2_1, c2_2, g3, s3_1, s3_2, s3_3, c3_1, c3_2, c3_3: g global, s spatial, c channel, then the branch,
then the part's number; n_V = 32 for g and s, 16 for c2_1 and c2_2, 11 for c3_1 and c3_2, 10 for c3_3

Tensors; i = 1, 2, 3
PARAM = stem.conv.weight (4,3,3,3), stem.bn.{weight,bias,running_mean,running_var} (4), branch_i.conv.weight (32,4,1,1),
        branch_i.bn.{weight,bias,running_mean,running_var} (32), reduce_V.conv.weight (4,n_V,1,1),
        reduce_V.bn.{weight,bias,running_mean,running_var} (4), classifier_V.weight (6,4)
step.batch.view1 (16,3,12,6); step.batch.labels (16) int64
step.before.student.PARAM, step.after.student.PARAM; step.grad.student.PARAM without running statistics
step.after.optimiser.{exp_avg,exp_avg_sq,max_exp_avg_sq}.PARAM without running statistics (m, v, vmax)
sums, before_bn: no batch, no before (those of `step`), no after (a first step of Adam forgets the gradient's size);
  before_bn.grad.student.PARAM without running statistics; sums has losses only, its gradients are 16 step.grad
CASE = step, sums, before_bn
  CASE.hyper.{lambda,margin,lr,beta1,beta2,eps,weight_decay,bn_momentum} (1)
  CASE.loss.total, CASE.loss.ce, CASE.loss.triplet (1): ce = mean of 13, triplet = mean of 3, not weighted
  CASE.loss.ce_V, CASE.loss.triplet_i (1)
step.mid.student.pooled_i (16,32): the global maxima; step.mid.student.reduced (13,16,4): before the batch norm,
  step.mid.student.vectors (13,16,4): after it, step.mid.student.logits (13,16,6); all three in the order of V
step.mid, before_bn.mid: {positive,negative}_i (16) int64, {d_ap,d_an}_i (16)
test: state of step.before; test.batch.images (6,3,12,6); test.mid.student.vectors, test.mid.student.vectors_flip (13,6,4);
  test.mid.thesis (6,52), test.mid.feature (6,52), test.mid.distances (6,6)
amsgrad: a vector of 8 weights alone; amsgrad.batch.gradients (30,8), amsgrad.before.weight (8);
  amsgrad.mid.weight (30,8) and amsgrad.mid.adam (30,8): after each step, with AMSGrad and, for comparison, without;
  amsgrad.after.weight, amsgrad.after.optimiser.{exp_avg,exp_avg_sq,max_exp_avg_sq} (8);
  amsgrad.hyper.{lr,beta1,beta2,eps,weight_decay} (1): lr .05 here, to make the difference visible
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
LAMBDA, MARGIN = 2.0, 1.2
LR, BETAS, EPS, WEIGHT_DECAY, BN_MOMENTUM = 2e-4, (0.9, 0.999), 1e-8, 5e-4, 0.1
CHANNELS, SIZE, CLASSES = 32, 4, 6
BRANCHES = (1, 2, 3)
VECTORS = {"g1": 32, "g2": 32, "s2_1": 32, "s2_2": 32, "c2_1": 16, "c2_2": 16,
           "g3": 32, "s3_1": 32, "s3_2": 32, "s3_3": 32, "c3_1": 11, "c3_2": 11, "c3_3": 10}
GLOBALS = ("g1", "g2", "g3")
APART = 1e-3  # no two candidates for a maximum or a minimum are closer


# ---- network

class ConvBlock(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, momentum=BN_MOMENTUM)

    def forward(self, x):
        return self.bn(self.conv(x))


def clearance(before_relu):
    """How far the maximum of a region, after ReLU, is from going to another place or from the kink, per image, channel."""
    first, second = before_relu.flatten(2).topk(2, dim=2).values.unbind(2)
    gap = torch.where(first > 0, first - second.clamp(min=0), -first)
    return gap / first.clamp(min=1)


class PyramidNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = ConvBlock(3, 4, 3, 2)
        for i in BRANCHES:
            self.add_module(f"branch_{i}", ConvBlock(4, CHANNELS, 1))
        for name, size in VECTORS.items():
            self.add_module(f"reduce_{name}", ConvBlock(size, SIZE, 1))
            self.add_module(f"classifier_{name}", nn.Linear(SIZE, CLASSES, bias=False))

    def part(self, name):
        return getattr(self, name)

    def forward(self, images):
        shared = self.stem(images).relu()
        output, local, gaps = {}, {}, []
        for i in BRANCHES:
            before_relu = self.part(f"branch_{i}")(shared)
            stripes = before_relu.chunk(i, dim=2) if i > 1 else ()
            gaps += [clearance(region) for region in (before_relu, *stripes)]
            whole = before_relu.relu().amax((2, 3))
            local[f"g{i}"] = output[f"pooled_{i}"] = whole
            if i > 1:
                local.update({f"s{i}_{n}": stripe.relu().amax((2, 3)) for n, stripe in enumerate(stripes, 1)})
                local.update({f"c{i}_{n}": group for n, group in enumerate(whole.tensor_split(i, dim=1), 1)})
        assert list(local) == list(VECTORS) and all(local[name].shape[1] == size for name, size in VECTORS.items())
        self.gap = torch.cat([gap.flatten() for gap in gaps])
        reduced = {name: self.part(f"reduce_{name}").conv(value[:, :, None, None]) for name, value in local.items()}
        output["reduced"] = torch.stack([value.flatten(1) for value in reduced.values()])
        output["vectors"] = torch.stack([self.part(f"reduce_{name}").bn(x).flatten(1) for name, x in reduced.items()])
        output["logits"] = torch.stack([self.part(f"classifier_{name}")(x) for name, x in zip(VECTORS, output["vectors"])])
        return output


def as_float32(x):
    """The float64 value of the float32 that the file will hold: a reader starts from exactly the same numbers."""
    return x.float().double()


def state(net):
    return {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}


def random_net(images, others):
    """Weights at random. A branch's bias leaves some of `images`, not most, without a positive entry in a channel or a
    stripe of it. Running statistics fit `others`; at random ones all evaluation features would look alike."""
    net = PyramidNet()
    with torch.no_grad():
        for name, value in state(net).items():
            if value.dim() == 4:
                value.normal_(0, math.sqrt(2 / value[0].numel()))
            elif name.startswith("classifier"):
                value.normal_(0, 0.5)
            elif name.endswith("weight"):  # wider global vectors: distances should lie about the margin's size
                value.normal_(2 if name.startswith("reduce_g") else 1, 0.2)
            elif name == "stem.bn.bias":
                value.normal_(1, 0.1)  # two positions where ReLU leaves nothing of the stem would tie
            elif name.endswith("bias"):
                value.normal_(0, 0.1)
            value.copy_(as_float32(value))
        shared = net.stem(images).relu()
        for i in BRANCHES:
            branch = net.part(f"branch_{i}")
            branch.bn.bias.zero_()
            maps = branch(shared)
            level = maps.amax((2, 3)).quantile(0.15, dim=0)
            for stripe in maps.chunk(i, dim=2):
                level = torch.minimum(level, stripe.amax((2, 3)).quantile(0.7, dim=0))
            branch.bn.bias.copy_(as_float32(-level))
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net(others)
    for norm in norms:
        norm.momentum = BN_MOMENTUM
        norm.running_mean.copy_(as_float32(norm.running_mean))
        norm.running_var.copy_(as_float32(norm.running_var))
    return net


# ---- losses

def cross_entropy(logits, labels):
    """Eq. 3.1, one value an image."""
    return -logits.log_softmax(1).gather(1, labels[:, None])[:, 0]


def euclidean(x):
    """The differences are taken directly, so d_ii is exactly sqrt(1e-12) and the clamp stops its gradient."""
    return (x[:, None] - x[None]).pow(2).sum(2).clamp(min=1e-12).sqrt()


def ordered_candidates(distances, labels):
    """Farthest of the same label first (the anchor counts as one), nearest of another first, with their indices."""
    same = labels[:, None] == labels[None]
    positives = distances.masked_fill(~same, -math.inf).sort(1, descending=True)
    negatives = distances.masked_fill(same, math.inf).sort(1)
    return positives, negatives


def mining_clearance(distances, labels):
    """How far the choices of the triplet loss and its hinge are from tipping over."""
    (positive, _), (negative, _) = ordered_candidates(distances, labels)
    hinge = MARGIN + positive[:, 0] - negative[:, 0]
    return torch.cat([(positive[:, 0] - positive[:, 1]) / positive[:, 0].clamp(min=1),
                      (negative[:, 1] - negative[:, 0]) / negative[:, 0].clamp(min=1), hinge.abs()])


def batch_hard_triplet(features, labels):
    """Eq. 3.2, one value an anchor."""
    distances = euclidean(features)
    (d_ap, positive), (d_an, negative) = ordered_candidates(distances, labels)
    detail = {"positive": positive[:, 0], "negative": negative[:, 0], "d_ap": d_ap[:, 0], "d_an": d_an[:, 0]}
    return (MARGIN + detail["d_ap"] - detail["d_an"]).clamp(min=0), detail


def losses(net, batch, sums=False, before_bn=False):
    """Terms, total (Eq. 3.3) and intermediate values. Runs the network once, so running statistics move."""
    output, labels = net(batch["view1"]), batch["labels"]
    reduce = torch.sum if sums else torch.mean
    terms, mid = {}, {f"student.{key}": value for key, value in output.items()}
    for logits, name in zip(output["logits"], VECTORS):
        terms["ce_" + name] = reduce(cross_entropy(logits, labels))
    for i, name in zip(BRANCHES, GLOBALS):
        features = output["reduced" if before_bn else "vectors"][list(VECTORS).index(name)]
        values, detail = batch_hard_triplet(features, labels)
        terms[f"triplet_{i}"] = reduce(values)
        mid.update({f"{key}_{i}": value for key, value in detail.items()})
    terms["ce"] = sum(terms["ce_" + name] for name in VECTORS) / len(VECTORS)
    terms["triplet"] = sum(terms[f"triplet_{i}"] for i in BRANCHES) / len(BRANCHES)
    return terms, LAMBDA * terms["ce"] + terms["triplet"], mid


# ---- images without near ties

def all_clearances(net, images, labels):
    output = net(images)
    found = [net.gap]
    for kind in ("vectors", "reduced"):
        found += [mining_clearance(euclidean(output[kind][list(VECTORS).index(name)]), labels) for name in GLOBALS]
    return torch.cat(found)


def nudge(net, images, labels):
    """Descent on the images until every choice of the step is clear. Works on a copy: statistics are not to move."""
    net = copy.deepcopy(net)
    images = images.clone().requires_grad_()
    optimiser = torch.optim.Adam([images], lr=2e-3)
    for _ in range(3000):
        if (all_clearances(net, as_float32(images.detach()), labels) > 1.2 * APART).all():
            return as_float32(images.detach())
        optimiser.zero_grad()
        (3 * APART - all_clearances(net, images, labels)).clamp(min=0).sum().backward()
        optimiser.step()
    raise AssertionError("ties left")


# ---- step

def check_gradient(start, batch, gradients, **form):
    """Central differences on a weight of the stem, of a branch, of 1x1 convolutions and of a classifier."""
    for key, place in (("stem.conv.weight", (3, 2, 1, 0)), ("branch_1.conv.weight", (7, 1, 0, 0)),
                       ("branch_3.bn.bias", (30,)), ("reduce_c3_3.conv.weight", (2, 9, 0, 0)),
                       ("reduce_s2_2.conv.weight", (1, 20, 0, 0)), ("classifier_s3_2.weight", (5, 1))):
        values = []
        for shift in (1e-6, -1e-6):
            moved = copy.deepcopy(start)
            moved.state_dict()[key][place] += shift
            values.append(losses(moved, batch, **form)[1].item())
        numeric, analytic = (values[0] - values[1]) / 2e-6, gradients[key][place].item()
        assert abs(numeric - analytic) < 1e-6 + 1e-5 * abs(analytic), (key, numeric, analytic)


def step_case(case, start, batch, **form):
    """One step; everything a case could save."""
    print(case)
    net = copy.deepcopy(start).train()
    terms, total, mid = losses(net, batch, **form)
    parameters = dict(net.named_parameters())
    for name, term in terms.items():
        found = torch.autograd.grad(term, list(parameters.values()), retain_graph=True, allow_unused=True)
        norm = math.sqrt(sum(g.pow(2).sum().item() for g in found if g is not None))
        assert norm > 1e-3
        active = ""
        if name[-1] in "123" and name.startswith("triplet_"):
            i = name[-1]
            count = (MARGIN + mid["d_ap_" + i] > mid["d_an_" + i]).sum().item()
            assert 0 < count < 16, "the hinge should be at work on both sides"
            active = f"  active {count} of 16"
        print(f"  {name:9s} {term.item():.6f}  gradient norm {norm:.3e}{active}")
    optimiser = torch.optim.Adam(parameters.values(), lr=LR, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY,
                                 amsgrad=True, foreach=False)
    total.backward()
    gradients = {name: value.grad.clone() for name, value in parameters.items()}
    optimiser.step()
    smallest, idle, moments = math.inf, 0, {}
    for name, value in parameters.items():  # the first step in closed form
        old = state(start)[name]
        decayed = gradients[name] + WEIGHT_DECAY * old
        assert torch.allclose(value, old - LR * decayed / (decayed.abs() + EPS), atol=1e-12)
        smallest = min(smallest, decayed.abs().min().item())
        idle += (gradients[name].abs() < 1e-6).sum().item()
        for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            moments[f"{key}.{name}"] = optimiser.state[value][key]
        assert torch.allclose(moments[f"exp_avg.{name}"], (1 - BETAS[0]) * decayed, rtol=1e-9, atol=0)
        assert torch.allclose(moments[f"max_exp_avg_sq.{name}"], (1 - BETAS[1]) * decayed ** 2, rtol=1e-9, atol=0)
        assert torch.equal(moments[f"max_exp_avg_sq.{name}"], moments[f"exp_avg_sq.{name}"])
    least = min(gradient.norm().item() for gradient in gradients.values())
    print(f"  total {total.item():.6f}  least gradient norm of a parameter {least:.2e}")
    print(f"  smallest |gradient + decay| {smallest:.2e}, |gradient| below 1e-6: {idle}")
    assert least > 1e-3, "a parameter without a gradient to speak of"
    assert idle == 0 and smallest > 2e-6, "a gradient this near to zero would give Adam a random sign in single precision"
    check_gradient(start, batch, gradients, **form)
    return {"terms": {**terms, "total": total}, "gradients": gradients, "mid": mid, "moments": moments,
            "after": state(net)}


def save_case(case, found, out):
    """All of `step`, the gradients and pairs of `before_bn`, the losses of `sums`."""
    hypers = {"lambda": LAMBDA, "margin": MARGIN, "lr": LR, "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS,
              "weight_decay": WEIGHT_DECAY, "bn_momentum": BN_MOMENTUM}
    out.update({f"{case}.hyper.{key}": torch.tensor([value]) for key, value in hypers.items()})
    out.update({f"{case}.loss.{key}": value.reshape(1) for key, value in found["terms"].items()})
    if case != "sums":
        out.update({f"{case}.grad.student.{key}": value for key, value in found["gradients"].items()})
        out.update({f"{case}.mid.{key}": value for key, value in found["mid"].items()
                    if case == "step" or not key.startswith("student")})
    if case == "step":
        out.update({f"step.after.student.{key}": value for key, value in found["after"].items()})
        out.update({f"step.after.optimiser.{key}": value for key, value in found["moments"].items()})


def step_cases(start, batch, out):
    step = step_case("step", start, batch)
    sums = step_case("sums", start, batch, sums=True)
    other = step_case("before_bn", start, batch, before_bn=True)
    images = len(batch["labels"])
    assert torch.allclose(sums["terms"]["total"], images * step["terms"]["total"])
    assert all(torch.allclose(sums["gradients"][key], images * value) for key, value in step["gradients"].items())
    for name in GLOBALS:  # the two places of the triplets are far apart
        key = f"reduce_{name}.conv.weight"
        assert (step["gradients"][key] - other["gradients"][key]).abs().max() > 1e-2
    assert all(torch.equal(value, other["after"][key]) for key, value in step["after"].items() if "running" in key)
    out.update({f"step.batch.{key}": value for key, value in batch.items()})
    out.update({f"step.before.student.{key}": value for key, value in state(start).items()})
    for case, found in (("step", step), ("sums", sums), ("before_bn", other)):
        save_case(case, found, out)


def check_closed_forms():
    logits, labels = torch.randn(16, CLASSES), torch.randint(CLASSES, (16,))
    assert torch.allclose(cross_entropy(logits, labels).mean(), F.cross_entropy(logits, labels))
    x, labels = torch.tensor([[0.0], [1.0], [3.0], [7.0]]), torch.tensor([0, 0, 1, 1])
    values, _ = batch_hard_triplet(x, labels)  # 1.2 + positive - negative: 1 - 3, 1 - 2, 4 - 2, 4 - 6
    assert torch.allclose(values, torch.tensor([0.0, 0.2, 3.2, 0.0]))


# ---- test feature

def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def joined(vectors):
    """(13, images, 4) -> (images, 52), vector by vector."""
    return vectors.transpose(0, 1).flatten(1)


def test_case(start, images, out):
    net = copy.deepcopy(start).eval()
    with torch.no_grad():
        plain, flipped = net(images)["vectors"], net(images.flip(3))["vectors"]
    feature = unit(joined(plain) + joined(flipped))
    distances = torch.cdist(feature, feature, compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.equal(joined(plain)[:, 4:8], plain[1]) and feature.shape == (6, 52)
    assert torch.allclose(distances.pow(2), 2 - 2 * feature @ feature.T)
    assert (unit(joined(plain)) - feature).abs().max() > 1e-2
    off = ~torch.eye(6, dtype=torch.bool)
    print(f"test: distances {distances[off].min().item():.3f} to {distances[off].max().item():.3f}")
    out["test.batch.images"] = images
    out["test.mid.student.vectors"], out["test.mid.student.vectors_flip"] = plain, flipped
    out["test.mid.thesis"], out["test.mid.feature"], out["test.mid.distances"] = joined(plain), feature, distances


# ---- optimiser

def trajectory(weight, gradients, lr, amsgrad):
    """Weights after each step and the state at the end, by the reference's optimiser."""
    weight = weight.clone().requires_grad_()
    optimiser = torch.optim.Adam([weight], lr=lr, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY, amsgrad=amsgrad,
                                 foreach=False)
    steps = []
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimiser.step()
        steps.append(weight.detach().clone())
    return torch.stack(steps), optimiser.state[weight]


def by_hand(weight, gradients, lr):
    """The formulas of the docstring."""
    m, v, vmax = (torch.zeros_like(weight) for _ in range(3))
    b1, b2 = BETAS
    for t, gradient in enumerate(gradients, 1):
        decayed = gradient + WEIGHT_DECAY * weight
        m, v = b1 * m + (1 - b1) * decayed, b2 * v + (1 - b2) * decayed ** 2
        vmax = torch.maximum(vmax, v)
        weight = weight - lr * (m / (1 - b1 ** t)) / (vmax.sqrt() / math.sqrt(1 - b2 ** t) + EPS)
    return weight, vmax > v


def amsgrad_case(out, lr=0.05):
    weight = as_float32(0.5 * torch.randn(8))
    scale = torch.cat([torch.ones(3, 1), torch.full((27, 1), 0.01)])
    gradients = as_float32(scale * (0.5 + torch.rand(30, 8)) * torch.randn(8).sign())
    gradients[:, 7] = as_float32(torch.linspace(0.1, 1.0, 30))  # grows: v is its own maximum throughout
    steps, found = trajectory(weight, gradients, lr, True)
    plain, _ = trajectory(weight, gradients, lr, False)
    expected, ruled = by_hand(weight, gradients, lr)
    assert torch.allclose(steps[-1], expected, atol=1e-13)
    assert ruled[:7].all() and not ruled[7] and torch.allclose(plain[:, 7], steps[:, 7], atol=1e-14)
    difference = (steps[-1] - plain[-1]).abs()[:7].min().item()
    print(f"amsgrad: with and without differ by {difference:.2e} or more after 30 steps")
    assert difference > 1e-3
    out["amsgrad.batch.gradients"], out["amsgrad.before.weight"] = gradients, weight
    out["amsgrad.mid.weight"], out["amsgrad.mid.adam"], out["amsgrad.after.weight"] = steps, plain, steps[-1]
    for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
        out[f"amsgrad.after.optimiser.{key}"] = found[key]
    hypers = {"lr": lr, "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS, "weight_decay": WEIGHT_DECAY}
    out.update({f"amsgrad.hyper.{key}": torch.tensor([value]) for key, value in hypers.items()})


def save(out):
    tensors = {k: v.detach() if v.dtype == torch.int64 else v.detach().float() for k, v in out.items()}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, FILE)  # a copy: two names may be one tensor


def random_images(labels):
    """Normal pixels, most of their variance shared by the images of a label."""
    shared, own = torch.randn(CLASSES, 3, 12, 6)[labels], torch.randn(len(labels), 3, 12, 6)
    return as_float32(math.sqrt(0.95) * shared + math.sqrt(0.05) * own)


def main(seed=58):
    torch.manual_seed(seed)
    check_closed_forms()
    labels = torch.tensor([4, 0, 5, 2]).repeat_interleave(4)  # classes 1 and 3 are not in the batch
    images = random_images(labels)
    start = random_net(images, random_images(torch.arange(16) % CLASSES))
    images = nudge(start, images, labels)
    clear = all_clearances(copy.deepcopy(start), images, labels).min().item()
    assert clear > APART
    print(f"closest choice {clear:.2e}")
    out = {}
    step_cases(start, {"view1": images, "labels": labels}, out)
    test_case(start, images[[0, 1, 4, 8, 9, 12]], out)
    amsgrad_case(out)
    save(out)


if __name__ == "__main__":
    main()
