"""Golden steps of Asymmetric Branched Mean Teaching: one student, one teacher, two branches that teach each other.

Text and equations: thesis (004) chapter 4, Eq. 4.1-4.8 and 4.5.2; methods.md 6.2, 1.5 (cross-entropies), 1.6
(triplets), 1.7 (source term), 1.9 (average), 0.3 (teacher in train mode). Branch a is the thesis' a (average pooling),
branch b its m (max pooling). Student and teacher see the same view.
adapt       L = .5 mean(CE_a, CE_b) + .5 mean(SCE(a|bT), SCE(b|aT)) + 1 mean(SST(a|bT), SST(b|aT))
adapt_sums  L = .5 (CE_a + CE_b) + .5 (SCE(a|bT) + SCE(b|aT)) + 1 (SST(a|bT) + SST(b|aT)), Eq. 4.8 as printed
pretrain    L = .5 (CE_a + CE_b) + .5 (ST_a + ST_b) on the source batch, Eq. 4.1; no teacher
  CE    label-smoothed cross-entropy of the branch's logits, q = .9 one-hot + .1 / C, batch mean
  SCE(x|yT)  batch mean of -softmax(logits of the teacher's branch y) . log softmax(logits of the student's branch x)
  ST    hard softmax-triplet of the branch's pooled feature (before the neck)
  SST(x|yT)  soft softmax-triplet: pairs mined on the distances of the student's branch x, target softmax of the
             distances of the teacher's branch y at the same pairs
  after the Adam step of adapt:  theta_T <- a theta_T + (1 - a) theta_S,  a = min(1 - 1/(t + 1), .999)
`fully_unsupervised` is `adapt` with other labels (no source domain in the step): it needs no case of its own.

Choices
  * means over the branches by default, the thesis' sums as second case (register #9). The two differ by exactly 2.
  * batch means, not the printed sums over i (register #17); label smoothing .1, the thesis prints none (register #18).
  * the two-class sum in SST, not the printed one-term T log T (1.6).
  * no hard triplet in adaptation (6.2; Eq. 4.8 has none either).
  * pre-training's "batch hard triplet" is the softmax-triplet (register #20); the thesis gives no margin for another.
  * pre-training: the target images pass after the source images, in a forward pass of their own in train mode, before
    the optimiser step (same weights); nothing of it is in the loss. It moves running statistics only, the necks' too:
    r <- .9 r + .1 source, then r <- .9 r + .1 target. Plain Adam 3.5e-4; the thesis gives no warm-up.
  * average with ramp (register #19; Eq. 4.3 has t = 0 copy the student, then a constant). t is the 0-based global step,
    t = 4 here, a = .8. Parameters only, classifiers among them, never running statistics (0.3): the teacher's come from
    its own train-mode pass over the batch.
  * Euclidean distance, not normalised, clamped at 1e-12 before the root; the anchor is in its own positive mask (1.6).
  * one fresh Adam (1.4: re-created every epoch), coupled weight decay on all trained parameters, affine batch norm too.
    Frozen neck biases have no gradient and no decay.
  * global max pooling: no two positive entries compete for a maximum here, so the gradient has one place to go. Some
    maps are zero all over: branch_b.bn2.bias lies about -1.5 for that, because with every maximum positive the necks
    and the distances cancel that bias and its gradient would be rounding noise.
  * relabel: adapt's teacher in evaluation mode, with running statistics that fit such images. Test feature, which is
    also the clustering feature: L2 of the concatenation of the two neck outputs as they are. New classifier of a
    branch: rows of that branch's neck output made unit, mean over a label, unit again; label -1 (outlier) enters no
    centre; student and teacher get the same. (Cutting the unit concatenation in two would weigh images differently:
    not taken.)
  * source_term: v_i = min over source s of 1 - exp(-|f_i - f_s|^2) on unit features, divided by its maximum over i;
    matrix v_i + v_j; final = (1 - lambda) J + lambda (v_i + v_j), lambda = .1. The diagonal is not set back to zero:
    it is 2 lambda v_i.

Networks student, teacher (C = 6 classes), and student of pretrain (5 classes):
  stem.conv Conv2d(3, 8, 3, stride 2, padding 1, no bias), stem.bn, ReLU -> map 8 x 8 x 4, shared
  branch_a.conv  Conv2d(8, 16, 3, padding 1, no bias), branch_a.bn, ReLU -> global average -> pooled_a (16)
  branch_b.conv  Conv2d(8, 16, 3, padding 1, no bias), branch_b.bn, ReLU,
  branch_b.conv2 Conv2d(16, 16, 3, padding 1, no bias), branch_b.bn2, ReLU -> global max -> pooled_b (16)
  neck_a, neck_b BatchNorm1d(16), bias 0 and frozen; classifier_a, classifier_b Linear(16, C, no bias)

Tensors; X = a, b
PARAM = stem.conv.weight (8,3,3,3), stem.bn.{weight,bias,running_mean,running_var} (8), branch_X.conv.weight (16,8,3,3),
        branch_b.conv2.weight (16,16,3,3), {branch_a.bn,branch_b.bn,branch_b.bn2}.{weight,bias,running_mean,running_var}
        (16), neck_X.{weight,bias,running_mean,running_var} (16), classifier_X.weight (C,16)
CASE = adapt, adapt_sums (one state and batch for both); NET = student, teacher
  CASE.batch.view1 (16,3,16,8); CASE.batch.labels, CASE.batch.cameras (16) int64
  CASE.before.NET.PARAM, CASE.after.NET.PARAM; CASE.grad.student.PARAM without running statistics and neck_X.bias
  CASE.hyper.{weight_ce,weight_sce,weight_sst,smoothing,ema_step,ema_plateau,ema_alpha,lr,beta1,beta2,eps,weight_decay,
              bn_momentum} (1)
  CASE.loss.total, CASE.loss.{ce_a,ce_b,sce_a,sce_b,sst_a,sst_b} (1): sce_a is SCE(a|bT), sst_a is SST(a|bT); neither
      halved nor weighted
  CASE.mid.NET.{pooled_X (16,16),neck_X (16,16),logits_X (16,6)}
  CASE.mid.{positive,negative}_X (16) int64, CASE.mid.{d_ap,d_an,teacher_d_ap,teacher_d_an}_X (16): the teacher's are
      those of the other branch
pretrain, NET = student: pretrain.batch.source, pretrain.batch.target (16,3,16,8), pretrain.batch.labels,
  pretrain.batch.cameras (16) int64 of the source; before, after, grad, mid (source pass) as above without teacher;
  pretrain.loss.{total,ce_a,ce_b,st_a,st_b}; pretrain.hyper.{weight_ce,weight_st,smoothing,lr,...,bn_momentum}
relabel: relabel.before.teacher.PARAM; relabel.batch.images (20,3,16,8), relabel.batch.labels (20) int64, -1 = outlier;
  relabel.mid.teacher.neck_X (20,16), relabel.mid.feature (20,32); relabel.after.NET.classifier_X.weight (5,16)
source_term: source_term.batch.target (12,16), source_term.batch.source (8,16), source_term.batch.jaccard (12,12),
  source_term.hyper.lambda (1); source_term.mid.v (12), source_term.mid.source (12,12), source_term.mid.final (12,12)
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
BRANCHES = ("a", "b")
OTHER = {"a": "b", "b": "a"}
W_CE, W_SCE, W_SST, W_ST = 0.5, 0.5, 1.0, 0.5
SMOOTHING, PLATEAU, EMA_STEP, LAMBDA = 0.1, 0.999, 4, 0.1
LR, BETAS, EPS, WEIGHT_DECAY, BN_MOMENTUM = 3.5e-4, (0.9, 0.999), 1e-8, 5e-4, 0.1
CAMERAS = torch.tensor([0, 1, 2, 0, 1, 1, 1, 1, 2, 0, 1, 2, 0, 0, 0, 0])


# ---- network

class ConvBlock(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs, momentum=BN_MOMENTUM)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class DeeperBlock(ConvBlock):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, momentum=BN_MOMENTUM)

    def forward(self, x):
        return self.bn2(self.conv2(super().forward(x))).relu()


def runner_up_gap(maps):
    """The least relative distance of a maximum over positions from the next value. Where ReLU left only zeros it does
    not matter which is taken: no gradient passes."""
    first, second = maps.detach().flatten(2).topk(2, dim=2).values.unbind(2)
    return ((first - second) / first)[first > 0].min().item()


class TwoBranchNet(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem, self.branch_a, self.branch_b = ConvBlock(3, 8, 2), ConvBlock(8, 16), DeeperBlock(8, 16)
        self.neck_a, self.neck_b = (nn.BatchNorm1d(16, momentum=BN_MOMENTUM) for _ in BRANCHES)
        self.neck_a.bias.requires_grad_(False)
        self.neck_b.bias.requires_grad_(False)
        self.classifier_a, self.classifier_b = (nn.Linear(16, classes, bias=False) for _ in BRANCHES)

    def forward(self, images):
        maps = self.stem(images)
        map_a, map_b = self.branch_a(maps), self.branch_b(maps)
        self.gap = runner_up_gap(map_b)
        pooled_a, pooled_b = map_a.mean((2, 3)), map_b.amax((2, 3))
        neck_a, neck_b = self.neck_a(pooled_a), self.neck_b(pooled_b)
        return {"pooled_a": pooled_a, "pooled_b": pooled_b, "neck_a": neck_a, "neck_b": neck_b,
                "logits_a": self.classifier_a(neck_a), "logits_b": self.classifier_b(neck_b)}


def as_float32(x):
    """The float64 value of the float32 that the file will hold: a reader starts from exactly the same numbers."""
    return x.float().double()


def state(net):
    return {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}


def random_net(classes):
    net = TwoBranchNet(classes)
    with torch.no_grad():
        for name, value in state(net).items():
            if value.dim() == 4:
                value.normal_(0, math.sqrt(2 / value[0].numel()))
            elif name.startswith("classifier"):
                value.normal_(0, 0.3)
            elif name.endswith("weight"):
                value.normal_(1, 0.2)
            elif name == "branch_b.bn2.bias":
                value.normal_(-1.5, 0.1)
            elif name.endswith("running_var"):
                value.copy_((0.2 * torch.randn_like(value)).exp())
            elif name not in ("neck_a.bias", "neck_b.bias"):
                value.normal_(0, 0.1)
            value.copy_(as_float32(value))
    return net


def random_teacher(student):
    """Near its student, but with every parameter and statistic its own."""
    teacher = copy.deepcopy(student).requires_grad_(False)
    for name, value in state(teacher).items():
        value.copy_(as_float32(value * (1 + 0.3 * torch.randn_like(value)).clamp(0.3, 1.7)))
    return teacher


def trainable(net):
    return {name: value for name, value in net.named_parameters() if value.requires_grad}


# ---- losses

def cross_entropy(logits, labels):
    """methods.md 1.5: q = (1 - eps) one-hot + eps / C."""
    classes = logits.shape[1]
    target = F.one_hot(labels, classes) * (1 - SMOOTHING) + SMOOTHING / classes
    return -(target * logits.log_softmax(1)).sum(1).mean()


def soft_cross_entropy(logits, teacher_logits):
    """Eq. 4.4 and 4.5, as a batch mean."""
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
    """Eq. 4.6 and 4.7, as the two-class sum and a batch mean."""
    reference = torch.stack([teacher_d_ap, teacher_d_an], 1).softmax(1).detach()
    return -(reference * torch.stack([d_ap, d_an], 1).log_softmax(1)).sum(1).mean()


def run(net, images):
    """Forward pass of a trained network: the place of every maximum must be beyond doubt in single precision."""
    output = net(images)
    assert net.gap > 1e-3, "two entries compete for a maximum"
    dead = (output["pooled_b"] == 0).double().mean()
    assert 0 < dead < 0.3, "some maps should be zero all over, not many"
    return output


def adapt_losses(nets, batch, share):
    """Eq. 4.8. share = .5 for means over the branches, 1 for sums. Runs both networks once."""
    student, labels = run(nets["student"], batch["view1"]), batch["labels"]
    with torch.no_grad():
        teacher = nets["teacher"](batch["view1"])
    mid = {f"student.{key}": value for key, value in student.items()}
    mid.update({f"teacher.{key}": value for key, value in teacher.items()})
    terms = {}
    for x in BRANCHES:
        y = OTHER[x]
        distances, teacher_distances = euclidean(student["pooled_" + x]), euclidean(teacher["pooled_" + y])
        positive, negative = batch_hard_pairs(distances, labels)
        pairs = {"positive": positive, "negative": negative,
                 "d_ap": at(distances, positive), "d_an": at(distances, negative),
                 "teacher_d_ap": at(teacher_distances, positive), "teacher_d_an": at(teacher_distances, negative)}
        terms["ce_" + x] = cross_entropy(student["logits_" + x], labels)
        terms["sce_" + x] = soft_cross_entropy(student["logits_" + x], teacher["logits_" + y])
        terms["sst_" + x] = soft_softmax_triplet(*(pairs[k] for k in ("d_ap", "d_an", "teacher_d_ap", "teacher_d_an")))
        mid.update({f"{key}_{x}": value for key, value in pairs.items()})
    weights = {"ce": W_CE, "sce": W_SCE, "sst": W_SST}
    total = sum(share * weights[name[:-2]] * term for name, term in terms.items())
    return terms, total, mid


def pretrain_losses(nets, batch):
    """Eq. 4.1, then the target's own pass for the sake of the running statistics."""
    student, labels = run(nets["student"], batch["source"]), batch["labels"]
    mid = {f"student.{key}": value for key, value in student.items()}
    terms = {}
    for x in BRANCHES:
        distances = euclidean(student["pooled_" + x])
        positive, negative = batch_hard_pairs(distances, labels)
        pairs = {"positive": positive, "negative": negative,
                 "d_ap": at(distances, positive), "d_an": at(distances, negative)}
        terms["ce_" + x] = cross_entropy(student["logits_" + x], labels)
        terms["st_" + x] = hard_softmax_triplet(pairs["d_ap"], pairs["d_an"])
        mid.update({f"{key}_{x}": value for key, value in pairs.items()})
    total = sum((W_CE if name.startswith("ce") else W_ST) * term for name, term in terms.items())
    with torch.no_grad():
        nets["student"](batch["target"])
    return terms, total, mid


# ---- step

def ramp(t):
    return min(1 - 1 / (t + 1), PLATEAU)


def average(teacher, student, alpha):
    """Eq. 4.3, parameters only."""
    with torch.no_grad():
        for mine, theirs in zip(teacher.parameters(), student.parameters()):
            mine.mul_(alpha).add_(theirs, alpha=1 - alpha)


def check_gradient(nets, losses, gradients):
    """Central differences on one weight of the stem, of either branch and of a classifier."""
    for key, place in (("stem.conv.weight", (3, 2, 1, 0)), ("branch_a.conv.weight", (7, 1, 0, 2)),
                       ("branch_b.conv2.weight", (4, 9, 1, 1)), ("classifier_b.weight", (2, 11))):
        values = []
        for shift in (1e-6, -1e-6):
            moved = copy.deepcopy(nets)
            moved["student"].state_dict()[key][place] += shift
            values.append(losses(moved)[1].item())
        numeric, analytic = (values[0] - values[1]) / 2e-6, gradients[key][place].item()
        assert abs(numeric - analytic) < 1e-6 + 1e-5 * abs(analytic), (key, numeric, analytic)


def step_case(case, start, batch, losses, hypers, out):
    """One step of Adam on the student, then the teacher's average if there is a teacher."""
    print(case)
    nets = copy.deepcopy(start)
    terms, total, mid = losses(nets)
    parameters = trainable(nets["student"])
    for name, term in terms.items():
        found = torch.autograd.grad(term, list(parameters.values()), retain_graph=True, allow_unused=True)
        norm = math.sqrt(sum(g.pow(2).sum().item() for g in found if g is not None))
        print(f"  {name:5s} {term.item():.6f}  gradient norm {norm:.3e}")
        assert norm > 1e-3
    optimiser = torch.optim.Adam(parameters.values(), lr=LR, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)
    total.backward()
    gradients = {name: value.grad.clone() for name, value in parameters.items()}
    optimiser.step()
    smallest = math.inf
    for name, value in parameters.items():  # the first step of Adam in closed form
        old = state(start["student"])[name]
        decayed = gradients[name] + WEIGHT_DECAY * old
        assert torch.allclose(value, old - LR * decayed / (decayed.abs() + EPS), atol=1e-12)
        smallest = min(smallest, decayed.abs().min().item())
    least = min(gradient.norm().item() for gradient in gradients.values())
    assert least > 1e-3, "a parameter without a gradient to speak of"
    print(f"  total {total.item():.6f}  least gradient norm of a parameter {least:.2e}")
    print(f"  smallest |gradient + decay| {smallest:.2e}")
    assert smallest > 1e-6, "a gradient this near to zero would give Adam a random sign in single precision"
    check_gradient(start, losses, gradients)
    if "teacher" in nets:
        average(nets["teacher"], nets["student"], ramp(EMA_STEP))
        hypers = {**hypers, "ema_step": EMA_STEP, "ema_plateau": PLATEAU, "ema_alpha": ramp(EMA_STEP)}
    hypers = {**hypers, "smoothing": SMOOTHING, "lr": LR, "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS,
              "weight_decay": WEIGHT_DECAY, "bn_momentum": BN_MOMENTUM}
    out.update({f"{case}.batch.{key}": value for key, value in batch.items()})
    out.update({f"{case}.hyper.{key}": torch.tensor([float(value)]) for key, value in hypers.items()})
    out.update({f"{case}.before.{n}.{k}": v for n, net in start.items() for k, v in state(net).items()})
    out.update({f"{case}.after.{n}.{k}": v for n, net in nets.items() for k, v in state(net).items()})
    out.update({f"{case}.grad.student.{key}": value for key, value in gradients.items()})
    out.update({f"{case}.mid.{key}": value for key, value in mid.items()})
    out.update({f"{case}.loss.{key}": value.reshape(1) for key, value in terms.items()})
    out[f"{case}.loss.total"] = total.reshape(1)
    return total, gradients


def check_closed_forms():
    """methods.md section 9: the oracles that need no network."""
    logits, labels = torch.randn(16, 6), torch.randint(6, (16,))
    assert torch.allclose(cross_entropy(logits, labels), F.cross_entropy(logits, labels, label_smoothing=SMOOTHING))
    d = torch.rand(16)
    assert abs(hard_softmax_triplet(d, d) - math.log(2)) < 1e-12
    assert abs(soft_softmax_triplet(d, d, torch.rand(16), torch.rand(16)) - math.log(2)) < 1e-12
    assert ramp(0) == 0 and ramp(10 ** 6) == PLATEAU


def adapt_cases(out):
    labels = torch.tensor([3, 0, 5, 2]).repeat_interleave(4)  # classes 1 and 4 are not in the batch
    batch = {"view1": random_images(labels), "labels": labels, "cameras": CAMERAS}
    student = random_net(6)
    start = {"student": student, "teacher": random_teacher(student)}
    hypers = {"weight_ce": W_CE, "weight_sce": W_SCE, "weight_sst": W_SST}
    found = [step_case(case, start, batch, lambda nets: adapt_losses(nets, batch, share), hypers, out)
             for case, share in (("adapt", 0.5), ("adapt_sums", 1.0))]
    (mean_total, mean_gradients), (sum_total, sum_gradients) = found
    assert torch.allclose(sum_total, 2 * mean_total)
    assert all(torch.allclose(sum_gradients[k], 2 * mean_gradients[k]) for k in mean_gradients)
    return start


def pretrain_case(out):
    labels = torch.tensor([1, 4, 0, 3]).repeat_interleave(4)
    batch = {"source": random_images(labels), "labels": labels, "cameras": CAMERAS,
             "target": as_float32(0.3 + 1.3 * torch.randn(16, 3, 16, 8))}
    start = {"student": random_net(5)}
    step_case("pretrain", start, batch, lambda nets: pretrain_losses(nets, batch),
              {"weight_ce": W_CE, "weight_st": W_ST}, out)
    net, mean = start["student"], torch.zeros(8)  # the stem's running mean by hand: source first, then target
    for images, weight in ((batch["source"], 0.09), (batch["target"], 0.1)):
        mean += weight * net.stem.conv(images).detach().mean((0, 2, 3))
    assert torch.allclose(out["pretrain.after.student.stem.bn.running_mean"], 0.81 * net.stem.bn.running_mean + mean)


def random_images(labels):
    """Normal pixels, half their variance shared by the images of a label."""
    shared, own = torch.randn(6, 3, 16, 8)[labels], torch.randn(len(labels), 3, 16, 8)
    return as_float32(math.sqrt(0.5) * (shared + own))


# ---- new labels of an epoch

def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def signature(neck_a, neck_b):
    """Test and clustering feature: one L2 over both neck outputs."""
    return unit(torch.cat([neck_a, neck_b], 1))


def branch_centres(neck, labels):
    """Weights of a branch's new classifier."""
    rows = unit(neck)
    return unit(torch.stack([rows[labels == label].mean(0) for label in range(int(labels.max()) + 1)]))


def settled(net, images):
    """A copy whose running statistics are those of a batch; at random ones all evaluation features would look alike."""
    net = copy.deepcopy(net)
    norms = [module for module in net.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(images)
    for norm in norms:
        norm.running_mean.copy_(as_float32(norm.running_mean))
        norm.running_var.copy_(as_float32(norm.running_var))
    return net


def relabel_case(teacher, out):
    labels = torch.tensor([0, 3, 1, -1, 2, 2, 0, 4, 3, 1, 4, 2, -1, 0, 3, 2, 1, 4, 2, 0])
    images = random_images(labels)
    net = settled(teacher, random_images(labels)).eval()
    with torch.no_grad():
        output = net(images)
    out.update({f"relabel.before.teacher.{key}": value for key, value in state(net).items()})
    out["relabel.batch.images"], out["relabel.batch.labels"] = images, labels
    out["relabel.mid.feature"] = signature(output["neck_a"], output["neck_b"])
    assert torch.allclose(out["relabel.mid.feature"].norm(dim=1), torch.ones(20))
    spread = (out["relabel.mid.feature"] @ out["relabel.mid.feature"].T).mean().item()
    print(f"relabel: mean cosine between images {spread:.3f}")
    assert spread < 0.5
    for x in BRANCHES:
        out[f"relabel.mid.teacher.neck_{x}"] = output["neck_" + x]
        weights = branch_centres(output["neck_" + x], labels)
        assert torch.allclose(weights[4], unit(unit(output["neck_" + x])[[7, 10, 17]].sum(0, keepdim=True))[0])
        other = torch.stack([output["neck_" + x][labels == label].mean(0) for label in range(5)])
        assert (weights - unit(other)).abs().max() > 1e-3  # unit rows or not is a difference
        for name in ("student", "teacher"):
            out[f"relabel.after.{name}.classifier_{x}.weight"] = weights


def source_distance(target, source):
    """v_i: how far target image i lies from the source domain, 1 for the farthest."""
    squared = (target[:, None] - source[None]).pow(2).sum(2)
    two = squared.sort(1).values[:, :2]
    assert (two[:, 1] - two[:, 0] > 1e-3 * two[:, 0]).all()
    v = (1 - (-squared).exp()).min(1).values
    assert torch.allclose(v, 1 - (-two[:, 0]).exp())
    return v / v.max()


def source_term_case(out):
    target = as_float32(unit(torch.randn(12, 16)))
    source = as_float32(unit(torch.cat([target[:5] + 0.15 * torch.randn(5, 16), torch.randn(3, 16)])))
    jaccard = torch.rand(12, 12).triu(1)
    jaccard[jaccard > 0.6] = 1.0  # most pairs share no neighbour
    jaccard = as_float32(jaccard + jaccard.T)
    v = source_distance(target, source)
    matrix = v[:, None] + v[None]
    final = (1 - LAMBDA) * jaccard + LAMBDA * matrix
    assert v.max() == 1 and v.min() < 0.3 and torch.equal(final, final.T)
    print(f"source_term: v from {v.min().item():.4f} to {v.max().item():.4f}")
    out["source_term.batch.target"], out["source_term.batch.source"] = target, source
    out["source_term.batch.jaccard"], out["source_term.hyper.lambda"] = jaccard, torch.tensor([LAMBDA])
    out["source_term.mid.v"], out["source_term.mid.source"], out["source_term.mid.final"] = v, matrix, final


def save(out):
    tensors = {k: v.detach() if v.dtype == torch.int64 else v.detach().float() for k, v in out.items()}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, FILE)  # a copy: two names may be one tensor


def main(seed=2):
    torch.manual_seed(seed)
    check_closed_forms()
    out = {}
    start = adapt_cases(out)
    pretrain_case(out)
    relabel_case(start["teacher"], out)
    source_term_case(out)
    save(out)


if __name__ == "__main__":
    main()
