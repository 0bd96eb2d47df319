"""Golden steps of Mutual Mean-Teaching: two students, two teachers, two views.

Text and equations: methods.md 5.3, 1.5 (cross-entropies), 1.6 (triplets), 1.9 (average), 0.1 (batch-norm groups), 0.3
(teachers in train mode); CANU (003) V-A "Second, Mutual Mean-Teaching"; thesis (004) Eq. 4.3 and 4.4-4.7 for the forms.
Student 1 and teacher 1 see view 1, student 2 and teacher 2 see view 2.
  L = (1 - w_c)(CE1 + CE2) + w_c (SCE(1|2T) + SCE(2|1T)) + (1 - w_t)(ST1 + ST2) + w_t (SST(1|2T) + SST(2|1T))
  CE_i       label-smoothed cross-entropy of student i's logits, q = .9 one-hot + .1 / C, batch mean
  SCE(i|jT)  batch mean of -softmax(logits of teacher j) . log softmax(logits of student i)
  ST_i       hard softmax-triplet of student i's pooled feature (before the neck)
  SST(i|jT)  soft softmax-triplet: pairs mined on student i's distances, target softmax of teacher j's distances there
  after the Adam step:  theta_T <- a theta_T + (1 - a) theta_S,  a = min(1 - 1/(t + 1), .999)

Choices
  * w_c = .5, w_t = .8 (5.3); label smoothing .1 in the hard cross-entropy (register #18); batch means (register #17).
  * the average has the ramp (register #19). t is the 0-based global step: t = 0 gives a = 0, the teacher becomes the
    student. The average covers parameters only, classifiers and necks among them, never running statistics (0.3):
    a teacher's running statistics come from its own forward pass in train mode, the one that made the targets.
  * Euclidean distance, not normalised, clamped at 1e-12 before the root; the anchor is in its own positive mask (1.6).
  * one fresh Adam over the parameters of both students (1.4: re-created every epoch), coupled weight decay on all of
    them, affine batch-norm parameters too. Frozen neck biases have no gradient and no decay.
  * ghost batch norm (0.1), case `step_groups`: the batch is cut into 2 contiguous groups of 8 images, in all four
    networks and in every batch norm, the neck included; a group's running variance is the unbiased one with the group's
    own n. `after` keeps the running statistics of the first group, `after_mean` those of the mean of the groups.
  * relabel: the centre is the mean of the clustering feature over a label, then L2; label -1 (outlier) enters no
    centre. All four classifiers get the same weights.
  * no dropout (5.3 names it as a hint only).

Networks student1, student2, teacher1, teacher2, each TinyNet with C = 6 classes:
  stem.conv Conv2d(3, 8, 3, stride 2, padding 1, no bias), stem.bn, ReLU
  body.conv Conv2d(8, 16, 3, stride 1, padding 1, no bias), body.bn, ReLU
  global average -> pooled (16); neck BatchNorm1d(16), bias 0 and frozen; classifier Linear(16, 6, no bias)

Tensors; NET = student1, student2, teacher1, teacher2; STUDENT = student1, student2
PARAM = stem.conv.weight (8,3,3,3), stem.bn.{weight,bias,running_mean,running_var} (8), body.conv.weight (16,8,3,3),
        body.bn.{weight,bias,running_mean,running_var} (16), neck.{weight,bias,running_mean,running_var} (16),
        classifier.weight (6,16)
CASE = step (t = 3, a = .75), step_first (t = 0), step_groups (t = 3, 2 groups); all from the same state and batch:
  CASE.batch.view1, CASE.batch.view2 (16,3,16,8); CASE.batch.labels, CASE.batch.cameras (16) int64
  CASE.before.NET.PARAM; CASE.after.NET.PARAM
  step_groups.after_mean.NET.LAYER.{running_mean,running_var}, LAYER = stem.bn, body.bn, neck
  CASE.hyper.{w_c,w_t,smoothing,ema_step,ema_plateau,ema_alpha,groups,lr,beta1,beta2,eps,weight_decay,bn_momentum} (1)
  CASE.loss.total; CASE.loss.{ce1,ce2,sce1,sce2,st1,st2,sst1,sst2} (1): sce1 is SCE(1|2T), sst1 is SST(1|2T)
  CASE.grad.STUDENT.PARAM without running statistics and neck.bias
  CASE.mid.NET.{pooled (16,16),neck (16,16),logits (16,6)}
  CASE.mid.STUDENT.{positive,negative} (16) int64, CASE.mid.STUDENT.{d_ap,d_an,teacher_d_ap,teacher_d_an} (16):
      the teacher is the other student's
relabel (no step):
  relabel.batch.teacher1, relabel.batch.teacher2 (20,16) unit rows; relabel.batch.labels (20) int64, -1 = outlier
  relabel.mid.feature (20,16); relabel.after.NET.classifier.weight (5,16)
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
CLASSES = 6
W_C, W_T, SMOOTHING, PLATEAU = 0.5, 0.8, 0.1, 0.999
LR, BETAS, EPS, WEIGHT_DECAY, BN_MOMENTUM = 3.5e-4, (0.9, 0.999), 1e-8, 5e-4, 0.1


# ---- network

class GhostBatchNorm(nn.Module):
    """Batch norm over `groups` contiguous parts of the batch, each with its own statistics; 1 is plain batch norm."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.groups, self.keep = 1, "first"

    def forward(self, x):
        outputs, means, variances = [], [], []
        for part in x.chunk(self.groups):
            mean, var = self.running_mean.clone(), self.running_var.clone()
            outputs.append(F.batch_norm(part, mean, var, self.weight, self.bias, True, BN_MOMENTUM, 1e-5))
            means.append(mean)
            variances.append(var)
        kept = slice(0, 1) if self.keep == "first" else slice(None)
        self.running_mean.copy_(torch.stack(means[kept]).mean(0))
        self.running_var.copy_(torch.stack(variances[kept]).mean(0))
        return torch.cat(outputs)


class ConvBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn = GhostBatchNorm(outputs)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class TinyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = ConvBlock(3, 8, 2), ConvBlock(8, 16, 1)
        self.neck = GhostBatchNorm(16)
        self.neck.bias.requires_grad_(False)
        self.classifier = nn.Linear(16, CLASSES, bias=False)

    def forward(self, images):
        pooled = self.body(self.stem(images)).mean((2, 3))
        neck = self.neck(pooled)
        return {"pooled": pooled, "neck": neck, "logits": self.classifier(neck)}


def as_float32(x):
    """The float64 value of the float32 that the file will hold: a reader starts from exactly the same numbers."""
    return x.float().double()


def random_student():
    net = TinyNet()
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("conv.weight"):
                value.normal_(0, math.sqrt(2 / value[0].numel()))
            elif name == "classifier.weight":
                value.normal_(0, 0.3)
            elif name.endswith("bn.weight") or name == "neck.weight":
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
    for name, value in teacher.state_dict().items():
        if name != "neck.bias":
            value.copy_(as_float32(value * (1 + 0.3 * torch.randn_like(value)).clamp(0.3, 1.7)))
    return teacher


def trainable(net):
    return {name: value for name, value in net.named_parameters() if value.requires_grad}


# ---- losses

def cross_entropy(logits, labels):
    """methods.md 1.5: q = (1 - eps) one-hot + eps / C."""
    target = F.one_hot(labels, CLASSES) * (1 - SMOOTHING) + SMOOTHING / CLASSES
    return -(target * logits.log_softmax(1)).sum(1).mean()


def soft_cross_entropy(logits, teacher_logits):
    return -(teacher_logits.softmax(1).detach() * logits.log_softmax(1)).sum(1).mean()


def euclidean(x):
    """The differences are taken directly, so d_ii is exactly sqrt(1e-12) and the clamp stops its gradient."""
    return (x[:, None] - x[None]).pow(2).sum(2).clamp(min=1e-12).sqrt()


def batch_hard_pairs(distances, labels):
    """Indices of the farthest image of the same label (the anchor counts as one) and the nearest of another."""
    same = labels[:, None] == labels[None]
    positives = distances.detach().masked_fill(~same, -math.inf)
    negatives = distances.detach().masked_fill(same, math.inf)
    for ordered in (positives.sort(1, descending=True).values, negatives.sort(1).values):
        first, second = ordered[:, 0], ordered[:, 1]
        assert ((first - second).abs() > 1e-3 * first.abs()).all(), "two candidates too close to call"
    return positives.argmax(1), negatives.argmin(1)


def at(distances, index):
    return distances.gather(1, index[:, None])[:, 0]


def hard_softmax_triplet(d_ap, d_an):
    return -torch.stack([d_ap, d_an], 1).log_softmax(1)[:, 1].mean()


def soft_softmax_triplet(d_ap, d_an, teacher_d_ap, teacher_d_an):
    reference = torch.stack([teacher_d_ap, teacher_d_an], 1).softmax(1).detach()
    return -(reference * torch.stack([d_ap, d_an], 1).log_softmax(1)).sum(1).mean()


def losses(nets, batch):
    """Terms (unweighted), total and intermediate values. Runs every network once, so running statistics move."""
    views = {"student1": "view1", "teacher1": "view1", "student2": "view2", "teacher2": "view2"}
    outputs = {name: net(batch[views[name]]) for name, net in nets.items()}
    mid = {f"{name}.{key}": value for name, output in outputs.items() for key, value in output.items()}
    terms, labels = {}, batch["labels"]
    for i, other in (("1", "2"), ("2", "1")):
        student, teacher = outputs["student" + i], outputs["teacher" + other]
        distances, teacher_distances = euclidean(student["pooled"]), euclidean(teacher["pooled"])
        positive, negative = batch_hard_pairs(distances, labels)
        d_ap, d_an = at(distances, positive), at(distances, negative)
        t_ap, t_an = at(teacher_distances, positive), at(teacher_distances, negative)
        terms["ce" + i] = cross_entropy(student["logits"], labels)
        terms["sce" + i] = soft_cross_entropy(student["logits"], teacher["logits"])
        terms["st" + i] = hard_softmax_triplet(d_ap, d_an)
        terms["sst" + i] = soft_softmax_triplet(d_ap, d_an, t_ap, t_an)
        pairs = {"positive": positive, "negative": negative, "d_ap": d_ap, "d_an": d_an,
                 "teacher_d_ap": t_ap, "teacher_d_an": t_an}
        mid.update({f"student{i}.{key}": value for key, value in pairs.items()})
    weights = {"ce": 1 - W_C, "sce": W_C, "st": 1 - W_T, "sst": W_T}
    total = sum(weights[name[:-1]] * term for name, term in terms.items())
    return terms, total, mid


# ---- step

def ramp(t):
    return min(1 - 1 / (t + 1), PLATEAU)


def average(teacher, student, alpha):
    """theta_T <- a theta_T + (1 - a) theta_S, parameters only."""
    with torch.no_grad():
        for mine, theirs in zip(teacher.parameters(), student.parameters()):
            mine.mul_(alpha).add_(theirs, alpha=1 - alpha)


def step(nets, batch, alpha):
    """One step in place. Returns terms, total, intermediate values and the gradients."""
    terms, total, mid = losses(nets, batch)
    students = {name: nets[name] for name in ("student1", "student2")}
    parameters = {f"{name}.{key}": value for name, net in students.items() for key, value in trainable(net).items()}
    for name, term in terms.items():
        found = torch.autograd.grad(term, list(parameters.values()), retain_graph=True, allow_unused=True)
        norm = math.sqrt(sum(g.pow(2).sum().item() for g in found if g is not None))
        print(f"  {name:5s} {term.item():.6f}  gradient norm {norm:.3e}")
        assert norm > 1e-3
    optimiser = torch.optim.Adam(parameters.values(), lr=LR, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)
    total.backward()
    gradients = {name: value.grad.clone() for name, value in parameters.items()}
    before = {name: value.detach().clone() for name, value in parameters.items()}
    optimiser.step()
    smallest = math.inf
    for name, value in parameters.items():  # the first step of Adam in closed form
        decayed = gradients[name] + WEIGHT_DECAY * before[name]
        assert torch.allclose(value, before[name] - LR * decayed / (decayed.abs() + EPS), atol=1e-12)
        smallest = min(smallest, decayed.abs().min().item())
    print(f"  total {total.item():.6f}  smallest |gradient + decay| {smallest:.2e}")
    assert smallest > 1e-6, "a gradient this near to zero would give Adam a random sign in single precision"
    for i in "12":
        average(nets["teacher" + i], nets["student" + i], alpha)
    return terms, total, mid, gradients


def check_gradient(nets, batch, gradients):
    """Central differences on one weight of either student."""
    for name, key, place in (("student1", "body.conv.weight", (3, 2, 1, 0)), ("student2", "stem.bn.weight", (5,))):
        values = []
        for shift in (1e-6, -1e-6):
            moved = copy.deepcopy(nets)
            moved[name].state_dict()[key][place] += shift
            values.append(losses(moved, batch)[1].item())
        numeric = (values[0] - values[1]) / 2e-6
        analytic = gradients[f"{name}.{key}"][place].item()
        assert abs(numeric - analytic) < 1e-6 + 1e-5 * abs(analytic), (numeric, analytic)


def step_case(case, start, batch, t, groups, out):
    print(case)
    nets = copy.deepcopy(start)
    for net in nets.values():
        for module in net.modules():
            if isinstance(module, GhostBatchNorm):
                module.groups = groups
    out.update({f"{case}.batch.{key}": value for key, value in batch.items()})
    hypers = {"w_c": W_C, "w_t": W_T, "smoothing": SMOOTHING, "ema_step": t, "ema_plateau": PLATEAU,
              "ema_alpha": ramp(t), "groups": groups, "lr": LR, "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS,
              "weight_decay": WEIGHT_DECAY, "bn_momentum": BN_MOMENTUM}
    out.update({f"{case}.hyper.{key}": torch.tensor([float(value)]) for key, value in hypers.items()})
    before, mean_nets = copy.deepcopy(nets), copy.deepcopy(nets)
    terms, total, mid, gradients = step(nets, batch, ramp(t))
    check_gradient(before, batch, gradients)
    out.update({f"{case}.before.{n}.{k}": v for n, net in before.items() for k, v in net.state_dict().items()})
    out.update({f"{case}.after.{n}.{k}": v for n, net in nets.items() for k, v in net.state_dict().items()})
    out.update({f"{case}.grad.{key}": value for key, value in gradients.items()})
    out.update({f"{case}.mid.{key}": value for key, value in mid.items()})
    out.update({f"{case}.loss.{key}": value.reshape(1) for key, value in terms.items()})
    out[f"{case}.loss.total"] = total.reshape(1)
    if groups > 1:
        for net in mean_nets.values():
            for module in net.modules():
                if isinstance(module, GhostBatchNorm):
                    module.keep = "mean"
        losses(mean_nets, batch)  # statistics need the forward pass only
        for name, net in mean_nets.items():
            for key, value in net.state_dict().items():
                if "running" in key:
                    assert not torch.allclose(value, nets[name].state_dict()[key])
                    out[f"{case}.after_mean.{name}.{key}"] = value
    for i in "12":
        teacher, student = nets["teacher" + i], nets["student" + i]
        equal = [torch.equal(a, b) for a, b in zip(teacher.parameters(), student.parameters())]
        assert all(equal) == (t == 0)
        assert not torch.allclose(teacher.stem.bn.running_mean, student.stem.bn.running_mean)


def check_closed_forms(start, batch):
    """methods.md section 9: the oracles that need no network, and ghost batch norm with one group = batch norm."""
    logits, labels = torch.randn(16, CLASSES), batch["labels"]
    assert torch.allclose(cross_entropy(logits, labels), F.cross_entropy(logits, labels, label_smoothing=SMOOTHING))
    d = torch.rand(16)
    assert abs(hard_softmax_triplet(d, d) - math.log(2)) < 1e-12
    assert abs(soft_softmax_triplet(d, d, torch.rand(16), torch.rand(16)) - math.log(2)) < 1e-12
    plain, ghost = nn.BatchNorm2d(8), copy.deepcopy(start["student1"].stem.bn)
    plain.load_state_dict(ghost.state_dict(), strict=False)
    x = torch.randn(16, 8, 8, 4)
    assert torch.equal(plain(x), ghost(x)) and torch.equal(plain.running_var, ghost.running_var)
    ghost.groups, ghost.running_var[:] = 2, 0  # the unbiased variance of the first half, from its definition
    ghost(x)
    half = x[:8].transpose(0, 1).flatten(1)
    assert torch.allclose(ghost.running_var, BN_MOMENTUM * half.var(1))


# ---- new classifiers of an epoch

def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def clustering_feature(teacher1, teacher2):
    return unit((teacher1 + teacher2) / 2)


def classifier_weights(feature, labels):
    return unit(torch.stack([feature[labels == label].mean(0) for label in range(int(labels.max()) + 1)]))


def relabel_case(out):
    labels = torch.tensor([0, 3, 1, -1, 2, 2, 0, 4, 3, 1, 4, 2, -1, 0, 3, 2, 1, 4, 2, 0])
    identity = torch.randn(6, 16)[labels]
    teacher1, teacher2 = (as_float32(unit(identity + 0.7 * torch.randn(20, 16))) for _ in range(2))
    feature = clustering_feature(teacher1, teacher2)
    weights = classifier_weights(feature, labels)
    assert torch.allclose(weights.norm(dim=1), torch.ones(5))
    assert torch.allclose(weights[4], unit(feature[[7, 10, 17]].sum(0, keepdim=True))[0])
    out["relabel.batch.teacher1"], out["relabel.batch.teacher2"] = teacher1, teacher2
    out["relabel.batch.labels"], out["relabel.mid.feature"] = labels, feature
    for net in ("student1", "student2", "teacher1", "teacher2"):
        out[f"relabel.after.{net}.classifier.weight"] = weights


def save(out):
    tensors = {k: v.detach() if v.dtype == torch.int64 else v.detach().float() for k, v in out.items()}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, FILE)  # a copy: two names may be one tensor


def main(seed=1):
    torch.manual_seed(seed)
    labels = torch.tensor([3, 0, 5, 2]).repeat_interleave(4)  # classes 1 and 4 are not in the batch
    cameras = torch.tensor([0, 1, 2, 0, 1, 1, 1, 1, 2, 0, 1, 2, 0, 0, 0, 0])
    images = math.sqrt(0.5) * torch.randn(6, 3, 16, 8)[labels] + math.sqrt(0.5) * torch.randn(16, 3, 16, 8)
    batch = {f"view{i}": as_float32(images + 0.3 * torch.randn_like(images)) for i in (1, 2)}
    batch.update({"labels": labels, "cameras": cameras})
    start = {}
    for i in "12":
        start["student" + i] = random_student()
        start["teacher" + i] = random_teacher(start["student" + i])
    check_closed_forms(start, batch)
    out = {}
    step_case("step", start, batch, 3, 1, out)
    step_case("step_first", start, batch, 0, 1, out)
    step_case("step_groups", start, batch, 3, 2, out)
    relabel_case(out)
    save(out)


if __name__ == "__main__":
    main()
