"""Golden steps of CANU on Self-Similarity Grouping: ssg.py's step plus a camera discriminator for each of three parts.

Text and equations: CANU (003) IV, Eq. 4, 5 (unconditional), 8, 9 (conditional), 10 (on SSG), V-A "Implementation
details"; methods.md 5.1, 5.2, 1.4, register #8, #26. The triplets are those of ssg.py's `step` (semi-hard, margin .5).
  cam_part = batch mean of -log softmax(D_part(phi_part(x), phi_p))[camera],  part = full, upper, lower
             phi_p = the full-body centroid of the image's full label, for all three parts
  network        minimises  L = L_SSG - mu (cam_full + cam_upper + cam_lower)
  discriminators minimise   cam_full + cam_upper + cam_lower, not times mu
  both from the one forward pass, one step. The same as a gradient reversal layer (forward identity, backward times -mu)
  between phi_part and D_part and the loss L_SSG + the three; the script checks that.
  centroid   Eq. 8, 9, 10: with phi_p; no gradient to it
  none       Eq. 4, 5 ("+Adv."): without the condition branch

Discriminator, full size -> here (feature 2048 -> 16, hidden 1024 -> 8); two branches, merged by a sum (register #8)
  fc_feature   2048 -> 1024    16 -> 8, no bias    bn_feature, ReLU
  fc_condition 2048 -> 1024    16 -> 8, no bias    bn_condition, ReLU     (case centroid only)
  the sum of the two
  fc_hidden    1024 -> 1024     8 -> 8, no bias    bn_hidden, ReLU
  fc_out       1024 -> cameras  8 -> 3, bias

Choices
  * the discriminator is read as in canu_mmt.py. phi_part is the part's global average as it is; x2 has no
    discriminator (the text: "one for each embedding", U, L and F). Centroids are inputs, unit rows, by full label.
  * mu = .05 with either condition (the text's number for "(conditional) adversarial losses").
  * sum over the parts (Eq. 10), a batch mean in each.
  * the discriminators' optimiser is open. `after`: the network's (SGD 6e-5, momentum .9, decay 5e-4), what a reversal
    layer in the model leads to; `after_adam`: their own fresh Adam, 3.5e-4, decay 5e-4. The gradients are the same.
    Here, other than under Adam, it shows that the discriminators' loss is not times mu.
  * SGD as in ssg.py: decay on all parameters, empty momentum buffer, so after = before - lr (gradient + decay before).
  * layers before a batch norm have no bias: batch norm cancels one (a bias of zero gives the same golden).
  * train mode for all, one batch-norm group.

Network student: ssg.py's. discriminator_full, discriminator_upper, discriminator_lower as above.

Tensors; PARAM as in ssg.py; PART = full, upper, lower; DISC = discriminator_PART
DPARAM = fc_feature.weight (8,16), fc_condition.weight (8,16), fc_hidden.weight (8,8), fc_out.weight (3,8),
         fc_out.bias (3), BN.{weight,bias,running_mean,running_var} (8) for BN = bn_feature, bn_condition, bn_hidden;
         in `none` no fc_condition, bn_condition
CASE = centroid, none, from the same state (but the discriminators) and batch:
  CASE.batch.view1 (16,3,8,4); CASE.batch.labels_PART (16) int64, CASE.batch.cameras (16) int64
  centroid.batch.centroids (6,16): row = full label
  CASE.before.{student.PARAM,DISC.DPARAM}, CASE.after.{student.PARAM,DISC.DPARAM}
  CASE.after_adam.DISC.DPARAM without running statistics
  CASE.grad.student.PARAM (of L), CASE.grad.DISC.DPARAM (of the sum of the three) without running statistics
  CASE.loss.{total,ssg,full,upper,lower,x2,cam_full,cam_upper,cam_lower} (1); total = L; full to x2 are the triplets
  CASE.mid.student.{full,upper,lower,x2} (16,16); CASE.mid.DISC.{logits (16,3), feature_grad (16,16)}: feature_grad is
      that of cam_part to phi_part, before -mu
  CASE.hyper.{mu,margin,instances,lr,momentum,weight_decay,bn_momentum,adam_lr,adam_beta1,adam_beta2,adam_eps} (1)
"""
import copy
import math
import os

import torch
import torch.nn as nn
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)  # the order of sums, and with it the last bits, must not depend on the machine
FILE = os.path.splitext(os.path.abspath(__file__))[0] + ".safetensors"
CAMERAS, HIDDEN, INSTANCES, MARGIN, MU = 3, 8, 4, 0.5, 0.05
LR, MOMENTUM, WEIGHT_DECAY, BN_MOMENTUM = 6e-5, 0.9, 5e-4, 0.1
ADAM_LR, ADAM_BETAS, ADAM_EPS = 3.5e-4, (0.9, 0.999), 1e-8
PARTS = ("full", "upper", "lower")
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


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.bn = nn.Linear(16, 16, bias=False), nn.BatchNorm1d(16, momentum=BN_MOMENTUM)

    def forward(self, x):
        return relu(self.bn(self.linear(x)))


class PartNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body, self.embed = ConvBlock(3, 8, 2), ConvBlock(8, 16, 1), Embedding()

    def forward(self, images):
        maps = self.body(self.stem(images))
        upper, lower = maps.chunk(2, dim=2)
        features = {"full": maps.mean((2, 3)), "upper": upper.mean((2, 3)), "lower": lower.mean((2, 3))}
        features["x2"] = self.embed(features["full"])
        return features


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


def randomise(net):
    """body.bn is scaled so that distances between the parts' features lie about the margin's size."""
    with torch.no_grad():
        for name, value in state(net).items():
            if value.dim() > 1:
                value.normal_(0, math.sqrt(2 / value[0].numel()))
            elif name.endswith("weight"):
                value.normal_(2 if name.startswith("body") else 1, 0.2)
            elif name.endswith("running_var"):
                value.copy_((0.2 * torch.randn_like(value)).exp())
            else:
                value.normal_(0, 0.1)
            value.copy_(as_float32(value))
    return net


# ---- losses

def euclidean(x):
    """The differences are taken directly, so d_ii is exactly sqrt(1e-12) and the clamp stops its gradient."""
    return (x[:, None] - x[None]).pow(2).sum(2).clamp(min=1e-12).sqrt()


def semi_hard_triplet(features, labels):
    """Every pair of positions j < l of a run of K, anchor j, against j's nearest negative."""
    distances = euclidean(features)
    ordered, index = distances.detach().masked_fill(labels[:, None] == labels[None], math.inf).sort(1)
    used = torch.arange(len(labels)) % INSTANCES < INSTANCES - 1  # the last image of a run is no anchor
    assert (ordered[used, 1] - ordered[used, 0] > APART * ordered[used, 0].clamp(min=1)).all(), "a close call"
    pairs = [(j, l) for j in range(len(labels)) for l in range(j + 1, (j // INSTANCES + 1) * INSTANCES)]
    violation = torch.stack([MARGIN + distances[j, l] - distances[j, index[j, 0]] for j, l in pairs])
    assert (violation.abs() > APART).all(), "a pair on the kink of the hinge"
    return violation.clamp(min=0).mean(), (violation > 0).sum().item()


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
    """Runs every network once, so running statistics move. `between` sits between the network and a discriminator."""
    features = nets["student"](batch["view1"])
    terms, mid, active = {}, {f"student.{part}": value for part, value in features.items()}, {}
    for part, value in features.items():
        terms[part], active[part] = semi_hard_triplet(value, batch["labels_full" if part == "x2" else "labels_" + part])
    terms["ssg"] = sum(terms[part] for part in features)
    condition = batch["centroids"][batch["labels_full"]]
    for part in PARTS:
        logits = nets["discriminator_" + part](between(features[part]), condition)
        camera = terms["cam_" + part] = camera_loss(logits, batch["cameras"])
        mid[f"discriminator_{part}.logits"] = logits
        gradient, = torch.autograd.grad(camera, features[part], retain_graph=True)
        mid[f"discriminator_{part}.feature_grad"] = gradient
    return terms, mid, active


# ---- step

def parameters_of(nets, kind):
    chosen = [name for name in nets if name.startswith(kind)]
    return {f"{name}.{key}": value for name in chosen for key, value in nets[name].named_parameters()}


def gradients_of(loss, parameters):
    found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {key: torch.zeros_like(parameters[key]) if g is None else g for key, g in zip(parameters, found)}


def norm(gradients):
    return math.sqrt(sum(g.pow(2).sum().item() for g in gradients.values()))


def check_reversal(start, batch, gradients):
    """A reversal layer and one backward pass of L_SSG + the three give the same gradients, to D as well."""
    nets = copy.deepcopy(start)
    terms, _, _ = forward(nets, batch, Reversal.apply)
    (terms["ssg"] + sum(terms["cam_" + part] for part in PARTS)).backward()
    for key, value in {**parameters_of(nets, "student"), **parameters_of(nets, "discriminator")}.items():
        assert torch.allclose(value.grad, gradients[key], atol=1e-13)


def check_gradient(start, batch, gradients):
    """Central differences: weights of the network in L, of discriminators in their own loss."""
    places = {"student": ("body.conv.weight", (3, 2, 1, 0)), "discriminator_full": ("fc_hidden.weight", (2, 3)),
              "discriminator_upper": ("fc_feature.weight", (4, 7)), "discriminator_lower": ("bn_hidden.bias", (1,))}
    for name, (key, place) in places.items():
        values = []
        for shift in (1e-6, -1e-6):
            moved = copy.deepcopy(start)
            moved[name].state_dict()[key][place] += shift
            terms, _, _ = forward(moved, batch)
            camera = sum(terms["cam_" + part] for part in PARTS)
            values.append((terms["ssg"] - MU * camera if name == "student" else camera).item())
        numeric, analytic = (values[0] - values[1]) / 2e-6, gradients[f"{name}.{key}"][place].item()
        assert abs(numeric - analytic) < 1e-6 + 1e-5 * abs(analytic), (numeric, analytic)


def step_case(case, start, batch, out):
    print(case)
    nets = copy.deepcopy(start)
    student, discriminators = parameters_of(nets, "student"), parameters_of(nets, "discriminator")
    parameters = {**student, **discriminators}
    before = {name: value.detach().clone() for name, value in parameters.items()}
    terms, mid, active = forward(nets, batch)
    camera = sum(terms["cam_" + part] for part in PARTS)
    terms["total"] = terms["ssg"] - MU * camera
    gradients = {**gradients_of(terms["total"], student), **gradients_of(camera, discriminators)}
    alone, part = norm(gradients_of(terms["ssg"], student)), norm(gradients_of(MU * camera, student))
    print(f"  gradient norms: ssg {alone:.3f}, adversary {part:.3f}; pairs above zero of 24: {active}")
    assert part > 1e-2 * alone and all(0 < found < 24 for found in active.values())
    check_reversal(start, batch, gradients)
    check_gradient(start, batch, gradients)

    for key, value in parameters.items():
        value.grad = gradients[key].clone()
    own = copy.deepcopy(discriminators)  # the same start for the discriminators' own Adam
    torch.optim.SGD(parameters.values(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY).step()
    for key, value in own.items():
        value.grad = gradients[key].clone()
    torch.optim.Adam(own.values(), lr=ADAM_LR, betas=ADAM_BETAS, eps=ADAM_EPS, weight_decay=WEIGHT_DECAY).step()
    smallest = math.inf
    for key, value in parameters.items():
        decayed = gradients[key] + WEIGHT_DECAY * before[key]
        assert torch.allclose(value, before[key] - LR * decayed, atol=1e-15)
        if key in own:
            assert torch.allclose(own[key], before[key] - ADAM_LR * decayed / (decayed.abs() + ADAM_EPS), atol=1e-12)
            smallest = min(smallest, decayed.abs().min().item())
    assert smallest > SMALLEST, "a gradient this near to zero would give Adam a random sign in single precision"
    print("  " + "  ".join(f"{key} {value.item():.6f}" for key, value in terms.items()))
    print(f"  smallest |gradient + decay| of the discriminators {smallest:.2e}")

    kept = [key for key in batch if key != "centroids" or case == "centroid"]
    out.update({f"{case}.batch.{key}": batch[key] for key in kept})
    hypers = {"mu": MU, "margin": MARGIN, "instances": INSTANCES, "lr": LR, "momentum": MOMENTUM,
              "weight_decay": WEIGHT_DECAY, "bn_momentum": BN_MOMENTUM, "adam_lr": ADAM_LR,
              "adam_beta1": ADAM_BETAS[0], "adam_beta2": ADAM_BETAS[1], "adam_eps": ADAM_EPS}
    out.update({f"{case}.hyper.{key}": torch.tensor([float(value)]) for key, value in hypers.items()})
    for name in nets:
        out.update({f"{case}.before.{name}.{key}": value for key, value in state(start[name]).items()})
        out.update({f"{case}.after.{name}.{key}": value for key, value in state(nets[name]).items()})
    out.update({f"{case}.after_adam.{key}": value for key, value in own.items()})
    out.update({f"{case}.grad.{key}": value for key, value in gradients.items()})
    out.update({f"{case}.mid.{key}": value for key, value in mid.items()})
    out.update({f"{case}.loss.{key}": value.reshape(1) for key, value in terms.items()})


def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def save(out):
    tensors = {k: v.detach() if v.dtype == torch.int64 else v.detach().float() for k, v in out.items()}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, FILE)  # a copy: two names may be one tensor


def main(seed=2):
    torch.manual_seed(seed)
    labels = torch.arange(4).repeat_interleave(4)
    images = 0.9 * torch.randn(4, 3, 8, 4)[labels] + math.sqrt(0.19) * torch.randn(16, 3, 8, 4)
    batch = {"view1": as_float32(images),
             "labels_full": torch.tensor([3, 0, 5, 2])[labels],  # clusters 1 and 4 are not in the batch
             # the parts are clustered on their own: other numbers, and not always the same company
             "labels_upper": torch.tensor([5, 5, 5, 2, 2, 2, 2, 2, 7, 7, 7, 7, 0, 0, 0, 0]),
             "labels_lower": torch.tensor([1, 1, 3, 3, 4, 4, 4, 4, 1, 1, 6, 6, 4, 0, 0, 0]),
             "cameras": torch.tensor([0, 1, 2, 0, 1, 1, 1, 1, 2, 0, 1, 2, 0, 0, 0, 0]),
             "centroids": as_float32(unit(torch.randn(6, 16)))}
    start, out = {"student": randomise(PartNet())}, {}
    for case, conditional in (("centroid", True), ("none", False)):
        start.update({"discriminator_" + part: randomise(Discriminator(conditional)) for part in PARTS})
        step_case(case, start, batch, out)
    assert torch.equal(out["centroid.loss.ssg"], out["none.loss.ssg"])
    save(out)


if __name__ == "__main__":
    main()
