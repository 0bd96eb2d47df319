"""Golden steps of CANU on Mutual Mean-Teaching: mmt.py's step plus one camera discriminator for each student.

Text and equations: CANU (003) IV, Eq. 4, 5 (unconditional), 8, 9 (conditional), 11 (on MMT), V-A "Implementation
details"; methods.md 5.1, 5.3, 1.4, register #8, #26. The MMT terms are those of mmt.py (its docstring has them).
  cam_i = batch mean of -log softmax(D_i(phi_i(x_i), phi_p))[camera]
          x_i = view i, phi_p = centroid of the image's pseudo label
  students       minimise  L = L_MMT - mu (cam1 + cam2)
  discriminators minimise  cam1 + cam2 (D_1 sees student 1 on view 1 only, D_2 student 2 on view 2), not times mu
  both from the one forward pass, one Adam step; then the teachers' average, which discriminators have no part in
The same as a gradient reversal layer (forward identity, backward times -mu) between phi_i and D_i and the loss
L_MMT + cam1 + cam2; the script checks that.
  centroid   Eq. 8, 9, 11: with phi_p; no gradient to it
  none       Eq. 4, 5 ("+Adv."): without the condition branch

Discriminator, full size -> here (feature 2048 -> 16, hidden 1024 -> 8); two branches, merged by a sum (register #8)
  fc_feature   2048 -> 1024    16 -> 8, no bias    bn_feature, ReLU
  fc_condition 2048 -> 1024    16 -> 8, no bias    bn_condition, ReLU     (case centroid only)
  the sum of the two
  fc_hidden    1024 -> 1024     8 -> 8, no bias    bn_hidden, ReLU
  fc_out       1024 -> cameras  8 -> 3, bias

Choices
  * the text's "four layers" for each branch: two of its four sizes are the branches' first layers, the others those
    after the merge (5.1). Batch norm and ReLU after all but the last (register #26), so before the merge in a branch.
  * phi_i is the student's pooled feature (before the neck, as in the triplets), not normalised. FEATURE = "neck" gives
    the other reading. Centroids are inputs, unit rows, the same for both discriminators; a row a pseudo label.
  * mu = .1 with either condition (the text's number for "(conditional) adversarial losses").
  * sum over the two students, a batch mean in each (Eq. 11, expectation of Eq. 8).
  * discriminators: fresh Adam with the students' hyper-parameters, decay on everything, batch norm and bias too. Adam
    works on each weight alone, so one optimiser for all or one of their own for the discriminators is the same.
  * layers before a batch norm have no bias: batch norm cancels one (a bias of zero gives the same golden).
  * train mode for all, one batch-norm group.

Networks student1, student2, teacher1, teacher2: mmt.py's TinyNet with C = 6 classes; discriminator1 and 2 (above).

Tensors; NET, STUDENT, PARAM as in mmt.py; DISC = discriminator1, discriminator2
DPARAM = fc_feature.weight (8,16), fc_condition.weight (8,16), fc_hidden.weight (8,8), fc_out.weight (3,8),
         fc_out.bias (3), BN.{weight,bias,running_mean,running_var} (8) for BN = bn_feature, bn_condition, bn_hidden;
         in `none` no fc_condition, bn_condition
centroid.batch.{view1,view2} (16,3,8,4), centroid.batch.{labels,cameras} (16) int64, centroid.batch.centroids (6,16)
centroid.before.{NET.PARAM,DISC.DPARAM}, centroid.after.{NET.PARAM,DISC.DPARAM}
centroid.mid.STUDENT.{pooled (16,16),logits (16,6)}, centroid.mid.STUDENT.{positive,negative} (16) int64
`none` starts from centroid.batch and centroid.before.NET, which are not repeated; its own discriminators only:
none.before.DISC.DPARAM, none.after.DISC.DPARAM; none.after.STUDENT.PARAM without running statistics and neck.bias,
  which are those of `centroid`; no teachers (their average is no different)
both, CASE = centroid, none:
  CASE.grad.STUDENT.PARAM (of L), CASE.grad.DISC.DPARAM (of cam1 + cam2), without running statistics and neck.bias
  CASE.loss.{total,mmt,cam1,cam2} (1), total = L; centroid.loss.{ce1,ce2,sce1,sce2,st1,st2,sst1,sst2} (1)
  CASE.mid.DISC.{logits (16,3), feature_grad (16,16)}: feature_grad is that of cam_i to phi_i, before -mu
  CASE.hyper.mu (1); centroid.hyper.{w_c,w_t,smoothing,ema_step,ema_plateau,ema_alpha,lr,beta1,beta2,eps,weight_decay,
  bn_momentum} (1) hold for both
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
CLASSES, CAMERAS, HIDDEN, FEATURE = 6, 3, 8, "pooled"
W_C, W_T, SMOOTHING, PLATEAU, EMA_STEP, MU = 0.5, 0.8, 0.1, 0.999, 3, 0.1
LR, BETAS, EPS, WEIGHT_DECAY, BN_MOMENTUM = 3.5e-4, (0.9, 0.999), 1e-8, 5e-4, 0.1
APART, KINK, SMALLEST = 1e-3, 2e-5, 1e-6


# ---- networks

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


class Discriminator(nn.Module):
    def __init__(self, conditional):
        super().__init__()
        self.conditional = conditional
        self.fc_feature, self.bn_feature = self.layer(16)
        if conditional:
            self.fc_condition, self.bn_condition = self.layer(16)
        self.fc_hidden, self.bn_hidden = self.layer(HIDDEN)
        self.fc_out = nn.Linear(HIDDEN, CAMERAS)

    @staticmethod
    def layer(inputs):
        return nn.Linear(inputs, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN, momentum=BN_MOMENTUM)

    def forward(self, feature, condition):
        merged = relu(self.bn_feature(self.fc_feature(feature)))
        if self.conditional:
            merged = merged + relu(self.bn_condition(self.fc_condition(condition.detach())))
        return self.fc_out(relu(self.bn_hidden(self.fc_hidden(merged))))


def as_float32(x):
    """The float64 value of the float32 that the file will hold: a reader starts from exactly the same numbers."""
    return x.float().double()


def state(net):
    return {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}


def trainable(net):
    return {name: value for name, value in net.named_parameters() if value.requires_grad}


def randomise(net):
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


def random_teacher(student):
    """Near its student, but with every parameter and statistic its own."""
    teacher = copy.deepcopy(student).requires_grad_(False)
    for name, value in state(teacher).items():
        if name != "neck.bias":
            value.copy_(as_float32(value * (1 + 0.3 * torch.randn_like(value)).clamp(0.3, 1.7)))
    return teacher


# ---- losses of MMT

def cross_entropy(logits, labels):
    target = F.one_hot(labels, CLASSES) * (1 - SMOOTHING) + SMOOTHING / CLASSES
    return -(target * logits.log_softmax(1)).sum(1).mean()


def soft_cross_entropy(logits, teacher_logits):
    return -(teacher_logits.softmax(1).detach() * logits.log_softmax(1)).sum(1).mean()


def euclidean(x):
    """The differences are taken directly, so d_ii is exactly sqrt(1e-12) and the clamp stops its gradient."""
    return (x[:, None] - x[None]).pow(2).sum(2).clamp(min=1e-12).sqrt()


def batch_hard_pairs(distances, labels):
    same = labels[:, None] == labels[None]
    positives = distances.detach().masked_fill(~same, -math.inf)
    negatives = distances.detach().masked_fill(same, math.inf)
    for ordered in (positives.sort(1, descending=True).values, negatives.sort(1).values):
        first, second = ordered[:, 0], ordered[:, 1]
        assert ((first - second).abs() > APART * first.abs().clamp(min=1)).all(), "two candidates too close to call"
    return positives.argmax(1), negatives.argmin(1)


def two_class(distances, pairs):
    """d_ap and d_an of every anchor, as the two logits of the softmax-triplet."""
    return torch.stack([distances.gather(1, index[:, None])[:, 0] for index in pairs], 1)


def mmt_losses(outputs, labels):
    terms, pairs = {}, {}
    for i, other in (("1", "2"), ("2", "1")):
        student, teacher = outputs["student" + i], outputs["teacher" + other]
        distances = euclidean(student["pooled"])
        pairs[i] = batch_hard_pairs(distances, labels)
        shares = two_class(distances, pairs[i]).log_softmax(1)
        reference = two_class(euclidean(teacher["pooled"]), pairs[i]).softmax(1).detach()
        terms["ce" + i] = cross_entropy(student["logits"], labels)
        terms["sce" + i] = soft_cross_entropy(student["logits"], teacher["logits"])
        terms["st" + i] = -shares[:, 1].mean()
        terms["sst" + i] = -(reference * shares).sum(1).mean()
    weights = {"ce": 1 - W_C, "sce": W_C, "st": 1 - W_T, "sst": W_T}
    return sum(weights[name[:-1]] * term for name, term in terms.items()), terms, pairs


# ---- the adversary

def camera_loss(logits, cameras):
    """Eq. 5, 8; plain cross-entropy, natural logarithm."""
    return -logits.log_softmax(1).gather(1, cameras[:, None]).mean()


class Reversal(torch.autograd.Function):
    """Used in a check only."""

    @staticmethod
    def forward(_, x):
        return x.view_as(x)

    @staticmethod
    def backward(_, gradient):
        return -MU * gradient


def forward(nets, batch, between=lambda feature: feature):
    """Runs every network once, so running statistics move. `between` sits between a student and its discriminator."""
    outputs = {name: nets[name](batch["view" + name[-1]]) for name in nets if not name.startswith("discriminator")}
    mmt, terms, pairs = mmt_losses(outputs, batch["labels"])
    condition = batch["centroids"][batch["labels"]]
    camera, mid = {}, {}
    for i in "12":
        feature = outputs["student" + i][FEATURE]
        logits = nets["discriminator" + i](between(feature), condition)
        camera[i] = camera_loss(logits, batch["cameras"])
        mid.update({f"student{i}.{key}": outputs["student" + i][key] for key in ("pooled", "logits")})
        mid[f"student{i}.positive"], mid[f"student{i}.negative"] = pairs[i]
        mid[f"discriminator{i}.logits"] = logits
        mid[f"discriminator{i}.feature_grad"], = torch.autograd.grad(camera[i], feature, retain_graph=True)
    terms.update({"mmt": mmt, "cam1": camera["1"], "cam2": camera["2"]})
    return terms, mid


# ---- step

def parameters_of(nets, kind):
    chosen = [name for name in nets if name.startswith(kind)]
    return {f"{name}.{key}": value for name in chosen for key, value in trainable(nets[name]).items()}


def gradients_of(loss, parameters):
    found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {key: torch.zeros_like(parameters[key]) if g is None else g for key, g in zip(parameters, found)}


def norm(gradients):
    return math.sqrt(sum(g.pow(2).sum().item() for g in gradients.values()))


def step(nets, batch):
    """One step in place. Returns losses, intermediate values and the gradients."""
    start = copy.deepcopy(nets)
    students, discriminators = parameters_of(nets, "student"), parameters_of(nets, "discriminator")
    terms, mid = forward(nets, batch)
    camera = terms["cam1"] + terms["cam2"]
    terms["total"] = terms["mmt"] - MU * camera
    gradients = {**gradients_of(terms["total"], students), **gradients_of(camera, discriminators)}
    check_reversal(start, batch, gradients)
    alone = gradients_of(terms["mmt"], students)
    turned = sum((alone[key].sign() != gradients[key].sign()).sum().item() for key in students)
    part = norm(gradients_of(MU * camera, students))
    print(f"  gradient norms: mmt {norm(alone):.3f}, adversary {part:.3f}, discriminators "
          f"{norm({key: gradients[key] for key in discriminators}):.3f}; the adversary turns {turned} signs")
    assert part > 1e-2 * norm(alone) and turned > 20

    parameters = {**students, **discriminators}
    before = {name: value.detach().clone() for name, value in parameters.items()}
    optimiser = torch.optim.Adam(parameters.values(), lr=LR, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)
    for key, value in parameters.items():
        value.grad = gradients[key].clone()
    optimiser.step()
    smallest = math.inf
    for name, value in parameters.items():  # the first step of Adam in closed form
        decayed = gradients[name] + WEIGHT_DECAY * before[name]
        assert torch.allclose(value, before[name] - LR * decayed / (decayed.abs() + EPS), atol=1e-12)
        smallest = min(smallest, decayed.abs().min().item())
    assert smallest > SMALLEST, "a gradient this near to zero would give Adam a random sign in single precision"
    alpha = min(1 - 1 / (EMA_STEP + 1), PLATEAU)
    with torch.no_grad():
        for i in "12":
            for mine, theirs in zip(nets["teacher" + i].parameters(), nets["student" + i].parameters()):
                mine.mul_(alpha).add_(theirs, alpha=1 - alpha)
    print("  " + "  ".join(f"{key} {value.item():.6f}" for key, value in terms.items()))
    print(f"  smallest |gradient + decay| {smallest:.2e}")
    return terms, mid, gradients


def check_reversal(start, batch, gradients):
    """A reversal layer and one backward pass of L_MMT + cam1 + cam2 give the same gradients, to D as well."""
    nets = copy.deepcopy(start)
    terms, _ = forward(nets, batch, Reversal.apply)
    (terms["mmt"] + terms["cam1"] + terms["cam2"]).backward()
    for key, value in {**parameters_of(nets, "student"), **parameters_of(nets, "discriminator")}.items():
        assert torch.allclose(value.grad, gradients[key], atol=1e-13)


def check_gradient(start, batch, gradients):
    """Central differences: a weight of a student in L, one of a discriminator in its own loss."""
    places = {"student1": ("body.conv.weight", (3, 2, 1, 0)), "student2": ("stem.bn.weight", (5,)),
              "discriminator1": ("fc_feature.weight", (2, 3)), "discriminator2": ("bn_hidden.bias", (1,))}
    for name, (key, place) in places.items():
        values = []
        for shift in (1e-6, -1e-6):
            moved = copy.deepcopy(start)
            moved[name].state_dict()[key][place] += shift
            terms, _ = forward(moved, batch)
            camera = terms["cam1"] + terms["cam2"]
            values.append((terms["mmt"] - MU * camera if name.startswith("student") else camera).item())
        numeric, analytic = (values[0] - values[1]) / 2e-6, gradients[f"{name}.{key}"][place].item()
        assert abs(numeric - analytic) < 1e-6 + 1e-5 * abs(analytic), (numeric, analytic)


def step_case(case, start, batch, out):
    """The shared start goes to the file with `centroid` only."""
    print(case)
    first = case == "centroid"
    nets = copy.deepcopy(start)
    terms, mid, gradients = step(nets, batch)
    check_gradient(start, batch, gradients)
    if first:
        out.update({f"{case}.batch.{key}": value for key, value in batch.items()})
        hypers = {"w_c": W_C, "w_t": W_T, "smoothing": SMOOTHING, "ema_step": EMA_STEP, "ema_plateau": PLATEAU,
                  "ema_alpha": min(1 - 1 / (EMA_STEP + 1), PLATEAU), "lr": LR, "beta1": BETAS[0], "beta2": BETAS[1],
                  "eps": EPS, "weight_decay": WEIGHT_DECAY, "bn_momentum": BN_MOMENTUM}
        out.update({f"{case}.hyper.{key}": torch.tensor([float(value)]) for key, value in hypers.items()})
    out[f"{case}.hyper.mu"] = torch.tensor([MU])
    for name in nets:
        if first or name.startswith("discriminator"):
            out.update({f"{case}.before.{name}.{key}": value for key, value in state(start[name]).items()})
        kept = trainable(nets[name]) if name.startswith("student") and not first else state(nets[name])
        if first or not name.startswith("teacher"):
            out.update({f"{case}.after.{name}.{key}": value for key, value in kept.items()})
    out.update({f"{case}.grad.{key}": value for key, value in gradients.items()})
    out.update({f"{case}.mid.{key}": value for key, value in mid.items() if first or key.startswith("discriminator")})
    shown = terms if first else ("total", "mmt", "cam1", "cam2")
    out.update({f"{case}.loss.{key}": terms[key].reshape(1) for key in shown})


def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def save(out):
    tensors = {k: v.detach() if v.dtype == torch.int64 else v.detach().float() for k, v in out.items()}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, FILE)  # a copy: two names may be one tensor


def main(seed=4):
    torch.manual_seed(seed)
    labels = torch.tensor([3, 0, 5, 2]).repeat_interleave(4)  # classes 1 and 4 are not in the batch
    cameras = torch.tensor([0, 1, 2, 0, 1, 1, 1, 1, 2, 0, 1, 2, 0, 0, 0, 0])
    images = math.sqrt(0.5) * torch.randn(6, 3, 8, 4)[labels] + math.sqrt(0.5) * torch.randn(16, 3, 8, 4)
    batch = {f"view{i}": as_float32(images + 0.3 * torch.randn_like(images)) for i in (1, 2)}
    batch.update({"labels": labels, "cameras": cameras, "centroids": as_float32(unit(torch.randn(6, 16)))})
    start = {}
    for i in "12":
        start["student" + i] = randomise(TinyNet())
        start["teacher" + i] = random_teacher(start["student" + i])
    out = {}
    for case, conditional in (("centroid", True), ("none", False)):
        start.update({"discriminator" + i: randomise(Discriminator(conditional)) for i in "12"})
        step_case(case, start, batch, out)
    assert torch.equal(out["centroid.loss.mmt"], out["none.loss.mmt"])
    save(out)


if __name__ == "__main__":
    main()
