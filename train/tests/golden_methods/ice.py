"""Golden steps of ICE: proxy contrast, hard instance contrast, soft instance consistency, with a momentum teacher.

Text and equations: thesis (004) chapter 6, Eq. 6.2 (average), 6.4 and 6.6 (proxies), 6.5, 6.7, 6.8 (proxy losses), 6.9
(hard instance), 6.10-6.12 (soft instance), 6.3 (total); methods.md 6.4, 0.1-0.3, 1.5, register #12-#14.
Two strong views and a weak one (resize and normalise only) of every image: f1 = student(view1), m2 = teacher(view2),
mw = teacher(weak), all the raw output of the neck; <a, b> is the cosine.
  agnostic  cross-entropy with label smoothing .1 over the logits f1 . p_a / .5 of all clusters a, batch mean; f1 is not
            normalised, p_a is the mean of unit features, not made unit again
  cross     logits <f1, p_ab> / .07 over all camera proxies. Positives: every proxy of the image's cluster, own camera
            included. Negatives: the `negatives` proxies of other clusters with the largest cosine, all where there are
            fewer; the rest is masked. One softmax over positives and negatives,
            l_i = -1/|P| sum over positives of log softmax; sum over the cameras in the batch of that camera's mean l_i
  h_ins     -log( exp(<f1, m2_k> / .1) / (exp(<f1, m2_k> / .1) + sum over j of exp(<f1, m2_j> / .1)) ), batch mean,
            j = the images of other labels, k = the image of the same label with the smallest cosine
  s_ins     P = softmax(<f1, m2> / .4), Q = softmax(<mw, mw> / .4), rows over all images of the batch;
            KL(Q||P) = sum Q log(Q / P), batch mean
  total = agnostic + .5 cross + 1 h_ins + 10 s_ins; without cross in the agnostic cases
  after the Adam step: theta_T <- .999 theta_T + .001 theta_S

Cases; all steps start from the same state and batch:
  agnostic            no camera proxies
  agnostic_groups     the same with batch-norm statistics over 2 contiguous groups of 8 images, in student and teacher
  agnostic_shuffled   agnostic_groups with ShuffleBN: each of the teacher's passes runs on the batch in an order of its
                      own, and its rows are put back; the student is not shuffled
  agnostic_printed    the thesis' printed forms: Eq. 6.5 as a plain softmax (no smoothing; f1 still raw, 6.5 has no
                      cosine bracket) and Eq. 6.12's KL(P||Q) = sum P log(P / Q)
  aware               adds cross as above, 3 negatives
  aware_few           the same with 50 negatives asked for, where 10 to 12 exist
  aware_printed       cross as Eq. 6.7: positives are the proxies of the cluster in other cameras; a softmax of its own
                      for every positive, over it and the negatives; mean over an image's positives, then batch
                      mean. An image whose cluster one camera alone has seen adds 0 and counts in the batch mean
  aware_printed_kept  the same, but the mean is over the images that have a positive
  proxies             no step: both kinds of proxies from features, labels and cameras
Supervised ICE is the same loss with true labels in place of pseudo labels: no case of its own.

Choices
  * Defaults of the register: #12 joint softmax over all positives, #13 KL(Q||P), #14 smoothing and raw f1.
  * camera proxies are unit vectors, each over its own features (6.4); the cosine divides by their norm again, which
    changes nothing. The negatives are chosen on values, without gradient. Own camera excluded or not, a proxy of the
    image's own cluster is never a negative.
  * proxies: features are made unit before either mean (6.4 says so for p_a, p_ab is read alike); the camera proxy is
    made unit after it. Camera proxies are ordered by cluster, then camera. Outliers (-1) enter none.
  * Proxies are frozen within the epoch (6.4): memory after the step is the memory before.
  * h_ins: "same label" and "same run of K" are one here; the anchor's own second view is a candidate (6.4).
  * s_ins: the diagonal stays in both softmaxes (N_K N_P terms in Eq. 6.10 and 6.11). The target Q has no gradient, P's
    gradient reaches f1 only.
  * teacher in train mode (0.3): normalised by its own batch's statistics in every pass, which also move its running
    statistics: first the pass over view2, then the one over weak, r <- .9 r + .1 s(view2), r <- .9 r + .1 s(weak). The
    average covers parameters, never running statistics, and comes after the optimiser step.
  * ShuffleBN permutes the teacher's batch and undoes it after the pass. With one group the statistics are those of the
    whole batch, so it changes nothing (checked below): only agnostic_shuffled has it, and agnostic_groups is the same
    step without. The orders are inputs: order[i] is the original index of the picture at place i of the permuted batch.
    Groups are cut after the permutation; everything saved of the teacher's output is in the original order.
  * The shuffled groups are other sets of pictures than the student's, differ between the two passes, and from those of
    the inverse orders: none of these can be mistaken for another (checked below). The agnostic term, the student's
    output and its statistics are those of agnostic_groups, and so is the teacher's stem.bn.running_mean in `after_mean`
    (groups of one size). Adam's first step shows little but signs: judge h_ins, s_ins, the gradients and the teacher's
    running statistics.
  * agnostic_groups, agnostic_shuffled, running statistics (0.1): of the first group, or the mean of what the groups
    would leave (mean of their unbiased variances, one update a pass with momentum .1). `after_first` and `after_mean`
    hold the two; `after` repeats the first. The teacher's first group is the permuted batch's in agnostic_shuffled.
  * one fresh Adam, coupled weight decay on all trained parameters, affine batch norm too. No warm-up.

Networks student, teacher: TinyNet without classifier
  stem.conv Conv2d(3, 8, 3, stride 2, padding 1, no bias), stem.bn, ReLU
  body.conv Conv2d(8, 16, 3, stride 1, padding 1, no bias), body.bn, ReLU
  global average -> pooled (16); neck BatchNorm1d(16), bias 0 and frozen

Tensors; NET = student, teacher; STEP = every case but proxies; AWARE = the four aware cases;
GROUPED = agnostic_groups, agnostic_shuffled
PARAM = stem.conv.weight (8,3,3,3), stem.bn.{weight,bias,running_mean,running_var} (8), body.conv.weight (16,8,3,3),
        body.bn.{weight,bias,running_mean,running_var} (16), neck.{weight,bias,running_mean,running_var} (16)
  STEP.batch.{view1,view2,weak} (16,3,16,8); STEP.batch.labels, STEP.batch.cameras (16) int64
  agnostic_shuffled.batch.{order_view2,order_weak} (16) int64
  STEP.before.NET.PARAM, STEP.after.NET.PARAM; STEP.grad.student.PARAM without running statistics and neck.bias
  STEP.before.memory.cluster_proxies (6,16); AWARE.before.memory.camera_proxies (13,16) and
      AWARE.before.memory.{proxy_clusters,proxy_cameras} (13) int64; the same under after.memory
  GROUPED.{after_first,after_mean}.NET.LAYER.{running_mean,running_var}, LAYER = stem.bn, body.bn, neck
  STEP.hyper.{tau_agnostic,tau_h,tau_s,smoothing,weight_h,weight_s,ema_alpha,groups,lr,beta1,beta2,eps,weight_decay,
      bn_momentum} (1); AWARE.hyper.{tau_cross,weight_cross,negatives} (1)
  STEP.loss.{total,agnostic,h_ins,s_ins} (1); AWARE.loss.cross (1)
  STEP.mid.{student.view1,teacher.view2,teacher.weak}.{pooled,neck} (16,16)
  STEP.mid.agnostic_logits (16,6); STEP.mid.{cosine,p,q} (16,16): <f1, m2>, P, Q; STEP.mid.hard_positive (16) int64
  AWARE.mid.{cross_cosine (16,13), cross_negatives (16,13) int64 0/1, cross_positives (16,13) int64 0/1,
      cross_image (16)}: cross_image is l_i, 0 where the image has no positive
proxies (no step):
  proxies.batch.features (39,16) as the network gives them (not unit);
      proxies.batch.labels, proxies.batch.cameras (39) int64
  proxies.after.memory.{cluster_proxies (6,16), camera_proxies (13,16), proxy_clusters (13), proxy_cameras (13)}
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
CLUSTERS = 6
TAU_AGNOSTIC, TAU_CROSS, TAU_H, TAU_S = 0.5, 0.07, 0.1, 0.4
WEIGHT_CROSS, WEIGHT_H, WEIGHT_S = 0.5, 1.0, 10.0
ALPHA = 0.999
LR, BETAS, EPS, WEIGHT_DECAY, BN_MOMENTUM = 3.5e-4, (0.9, 0.999), 1e-8, 5e-4, 0.1


# ---- network

class BatchNorm(nn.Module):
    """Train-mode batch norm over `groups` contiguous parts of the batch. running_* follow the first group, mean_* the
    mean of the groups; with one group they are equal."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.groups = 1
        self.start()

    def start(self):
        self.mean_mean, self.mean_var = self.running_mean.clone(), self.running_var.clone()

    def forward(self, x):
        shape = (1, -1) + (1,) * (x.dim() - 2)
        dims = [d for d in range(x.dim()) if d != 1]
        outputs, means, variances = [], [], []
        for part in x.chunk(self.groups):
            mean, var = part.mean(dims), part.var(dims, unbiased=False)
            scaled = (part - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
            outputs.append(scaled * self.weight.view(shape) + self.bias.view(shape))
            means.append(mean.detach())
            variances.append(part.detach().var(dims, unbiased=True))
        mean, var = torch.stack(means).mean(0), torch.stack(variances).mean(0)
        for kept, stats in ((self.running_mean, means[0]), (self.running_var, variances[0]),
                            (self.mean_mean, mean), (self.mean_var, var)):
            kept.mul_(1 - BN_MOMENTUM).add_(stats, alpha=BN_MOMENTUM)
        return torch.cat(outputs)


class ConvBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn = BatchNorm(outputs)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class TinyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body, self.neck = ConvBlock(3, 8, 2), ConvBlock(8, 16, 1), BatchNorm(16)
        self.neck.bias.requires_grad_(False)

    def forward(self, images):
        pooled = self.body(self.stem(images)).mean((2, 3))
        return {"pooled": pooled, "neck": self.neck(pooled)}


def norms(net):
    return {name: module for name, module in net.named_modules() if isinstance(module, BatchNorm)}


def set_groups(net, groups):
    for module in norms(net).values():
        module.groups = groups
        module.start()


def as_float32(x):
    """The float64 value of the float32 that the file will hold: a reader starts from exactly the same numbers."""
    return x.float().double()


def random_net():
    net = TinyNet()
    for name, value in net.state_dict().items():
        if name.endswith("conv.weight"):
            value.normal_(0, math.sqrt(2 / value[0].numel()))
        elif name.endswith("weight"):
            value.normal_(1, 0.2)
        elif name.endswith("running_var"):
            value.copy_((0.2 * torch.randn_like(value)).exp())
        elif name != "neck.bias":
            value.normal_(0, 0.1)
        value.copy_(as_float32(value))
    set_groups(net, 1)
    return net


def random_teacher(student):
    """Near its student, but with every parameter and statistic its own."""
    teacher = copy.deepcopy(student).requires_grad_(False)
    for name, value in teacher.state_dict().items():
        if name != "neck.bias":
            value.copy_(as_float32(value * (1 + 0.3 * torch.randn_like(value)).clamp(0.3, 1.7)))
    set_groups(teacher, 1)
    return teacher


def trainable(net):
    return {name: value for name, value in net.named_parameters() if value.requires_grad}


# ---- proxies

def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def cluster_proxies(features, labels):
    """Eq. 6.4 on unit features; not made unit again."""
    return torch.stack([unit(features)[labels == a].mean(0) for a in range(CLUSTERS)])


def camera_proxies(features, labels, cameras):
    """Eq. 6.6 on unit features, then unit; with the cluster and the camera of every row."""
    pairs = sorted({(a, b) for a, b in zip(labels.tolist(), cameras.tolist()) if a >= 0})
    means = torch.stack([unit(features)[(labels == a) & (cameras == b)].mean(0) for a, b in pairs])
    clusters, of_camera = torch.tensor(pairs).unbind(1)
    return unit(means), clusters, of_camera


# ---- losses

def cosine(a, b):
    return unit(a) @ unit(b).T


def assert_apart(values, count):
    """In every row the count-th largest value is clear of the next one (-inf marks what is no candidate)."""
    ordered = values.sort(1, descending=True).values
    assert (ordered[:, count - 1] - ordered[:, count] > 1e-3).all(), "two candidates too close to call"


def agnostic_loss(logits, labels, smoothing):
    """Eq. 6.5; 1.5 for the smoothing: q = (1 - eps) one-hot + eps / clusters."""
    target = F.one_hot(labels, logits.shape[1]) * (1 - smoothing) + smoothing / logits.shape[1]
    return -(target * logits.log_softmax(1)).sum(1).mean()


def hardest_negatives(similarity, same, count):
    """Mask of the `count` most similar proxies of other clusters; of all of them where an image has fewer."""
    candidates = similarity.detach().masked_fill(same, -math.inf)
    if count < candidates.shape[1]:
        assert_apart(candidates, count)
    chosen = candidates.topk(min(count, candidates.shape[1]), dim=1).indices
    return torch.zeros_like(same).scatter(1, chosen, True) & ~same


def masked_logsumexp(logits, mask):
    return logits.masked_fill(~mask, -math.inf).logsumexp(1, keepdim=True)


def cross_joint(logits, positive, negative, cameras):
    """Default: one softmax over positives and negatives, target 1/|P| on each positive; sum of the cameras' means."""
    log_share = logits - masked_logsumexp(logits, positive | negative)
    image = -(log_share * positive).sum(1) / positive.sum(1)
    return sum(image[cameras == b].mean() for b in cameras.unique()), image


def cross_printed(logits, positive, negative, kept_only):
    """Eq. 6.7: a softmax for every positive, over it and the negatives."""
    each = torch.logaddexp(logits, masked_logsumexp(logits, negative)) - logits
    count = positive.sum(1)
    image = (each * positive).sum(1) / count.clamp(min=1)
    return image.sum() / ((count > 0).sum() if kept_only else len(count)), image


def hard_instance_loss(similarity, labels):
    """Eq. 6.9 from <f1, m2>. Returns the index of the hardest positive too."""
    same = labels[:, None] == labels[None]
    hardest = similarity.detach().masked_fill(~same, math.inf).argmin(1)
    logits = similarity / TAU_H
    positive = logits.gather(1, hardest[:, None])
    return (torch.logaddexp(positive, masked_logsumexp(logits, ~same)) - positive).mean(), hardest


def soft_instance_loss(similarity, weak_similarity, printed):
    """Eq. 6.10-6.12; KL(Q||P), or KL(P||Q) as printed."""
    log_p, log_q = (similarity / TAU_S).log_softmax(1), (weak_similarity / TAU_S).log_softmax(1).detach()
    a, b = (log_p, log_q) if printed else (log_q, log_p)
    return (a.exp() * (a - b)).sum(1).mean(), log_p.exp(), log_q.exp()


def teacher_pass(teacher, batch, view):
    """With ShuffleBN where the batch has an order for this view; rows in the original order."""
    order = batch.get(f"order_{view}")
    if order is None:
        return teacher(batch[view])
    output = {}
    for key, value in teacher(batch[view][order]).items():
        output[key] = torch.empty_like(value)
        output[key][order] = value
    return output


def losses(student, teacher, batch, memory, form):
    """Terms (unweighted), total and intermediate values. Runs one student pass and two teacher passes."""
    labels, cameras = batch["labels"], batch["cameras"]
    with torch.no_grad():
        outputs = {"teacher.view2": teacher_pass(teacher, batch, "view2")}
        outputs["teacher.weak"] = teacher_pass(teacher, batch, "weak")
    outputs["student.view1"] = student(batch["view1"])
    mid = {f"{name}.{key}": value for name, output in outputs.items() for key, value in output.items()}
    f1, m2, mw = (outputs[name]["neck"] for name in ("student.view1", "teacher.view2", "teacher.weak"))

    logits = f1 @ memory["cluster_proxies"].T / TAU_AGNOSTIC
    terms = {"agnostic": agnostic_loss(logits, labels, form["smoothing"])}
    mid["agnostic_logits"] = logits
    if form["cross"]:
        similarity = cosine(f1, memory["camera_proxies"])
        same = labels[:, None] == memory["proxy_clusters"][None]
        other_camera = cameras[:, None] != memory["proxy_cameras"][None]
        negative = hardest_negatives(similarity, same, form["negatives"])
        if form["cross"] == "joint":
            positive = same
            terms["cross"], image = cross_joint(similarity / TAU_CROSS, positive, negative, cameras)
            assert (image > positive.sum(1).log()).all()  # the floor of a uniform joint target
        else:
            positive = same & other_camera
            terms["cross"], image = cross_printed(similarity / TAU_CROSS, positive, negative, form["cross"] == "kept")
        mid.update({"cross_cosine": similarity, "cross_negatives": negative.long(), "cross_positives": positive.long(),
                    "cross_image": image})
    similarity = cosine(f1, m2)
    assert_apart(-similarity.detach().masked_fill(labels[:, None] != labels[None], math.inf), 1)
    terms["h_ins"], mid["hard_positive"] = hard_instance_loss(similarity, labels)
    terms["s_ins"], mid["p"], mid["q"] = soft_instance_loss(similarity, cosine(mw, mw), form["printed"])
    mid["cosine"] = similarity
    weights = {"agnostic": 1.0, "cross": WEIGHT_CROSS, "h_ins": WEIGHT_H, "s_ins": WEIGHT_S}
    return terms, sum(weights[name] * term for name, term in terms.items()), mid, weights


# ---- step

def average(teacher, student):
    """Eq. 6.2, parameters only."""
    with torch.no_grad():
        for mine, theirs in zip(teacher.parameters(), student.parameters()):
            mine.mul_(ALPHA).add_(theirs, alpha=1 - ALPHA)


def term_gradients(terms, weights, parameters):
    """Prints every term; asserts that none is drowned by another."""
    sizes = []
    for name, term in terms.items():
        found = torch.autograd.grad(term, list(parameters.values()), retain_graph=True)
        sizes.append(weights[name] * math.sqrt(sum(g.pow(2).sum().item() for g in found)))
        print(f"  {name:8s} {term.item():.6f}  weighted gradient norm {sizes[-1]:.3e}")
    assert min(sizes) > 1e-3 * max(sizes)


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


def check_gradient(nets, batch, memory, form, gradients):
    for key, place in (("body.conv.weight", (3, 2, 1, 0)), ("stem.bn.weight", (5,)), ("neck.weight", (7,))):
        values = []
        for shift in (1e-6, -1e-6):
            student, teacher = copy.deepcopy(nets)
            student.state_dict()[key][place] += shift
            values.append(losses(student, teacher, batch, memory, form)[1].item())
        numeric, analytic = (values[0] - values[1]) / 2e-6, gradients[key][place].item()
        assert abs(numeric - analytic) < 1e-6 + 1e-5 * abs(analytic), (key, numeric, analytic)


def step_case(case, start, batch, memory, out, cross=None, negatives=3, printed=False, smoothing=0.1, groups=1):
    print(case)
    form = {"cross": cross, "negatives": negatives, "printed": printed, "smoothing": smoothing}
    memory = memory if cross else {"cluster_proxies": memory["cluster_proxies"]}
    student, teacher = copy.deepcopy(start)
    set_groups(student, groups)
    set_groups(teacher, groups)
    nets = {"student": student, "teacher": teacher}
    out.update({f"{case}.batch.{key}": value for key, value in batch.items()})
    for when in ("before", "after"):  # frozen within the epoch
        out.update({f"{case}.{when}.memory.{key}": value for key, value in memory.items()})
    out.update({f"{case}.before.{n}.{k}": v.clone() for n, net in nets.items() for k, v in net.state_dict().items()})
    hypers = {"tau_agnostic": TAU_AGNOSTIC, "tau_h": TAU_H, "tau_s": TAU_S, "smoothing": smoothing,
              "weight_h": WEIGHT_H, "weight_s": WEIGHT_S, "ema_alpha": ALPHA, "groups": groups, "lr": LR,
              "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS, "weight_decay": WEIGHT_DECAY,
              "bn_momentum": BN_MOMENTUM}
    if cross:
        hypers.update({"tau_cross": TAU_CROSS, "weight_cross": WEIGHT_CROSS, "negatives": negatives})
    out.update({f"{case}.hyper.{key}": torch.tensor([float(value)]) for key, value in hypers.items()})

    untouched = copy.deepcopy((student, teacher))
    terms, total, mid, weights = losses(student, teacher, batch, memory, form)
    parameters = trainable(student)
    term_gradients(terms, weights, parameters)
    total.backward()
    gradients = {name: value.grad.clone() for name, value in parameters.items()}
    check_gradient(untouched, batch, memory, form, gradients)
    print(f"  total    {total.item():.6f}")
    adam(parameters, gradients)
    average(teacher, student)

    out.update({f"{case}.after.{n}.{k}": v for n, net in nets.items() for k, v in net.state_dict().items()})
    out.update({f"{case}.grad.student.{key}": value for key, value in gradients.items()})
    out.update({f"{case}.mid.{key}": value for key, value in mid.items()})
    out.update({f"{case}.loss.{key}": value.reshape(1) for key, value in terms.items()})
    out[f"{case}.loss.total"] = total.reshape(1)
    for n, net in nets.items():
        for layer, module in norms(net).items():
            assert torch.equal(module.mean_mean, module.running_mean) == (groups == 1)
            if groups > 1:
                for which, mean, var in (("first", module.running_mean, module.running_var),
                                         ("mean", module.mean_mean, module.mean_var)):
                    out[f"{case}.after_{which}.{n}.{layer}.running_mean"] = mean
                    out[f"{case}.after_{which}.{n}.{layer}.running_var"] = var
    return terms


# ---- checks

def check_closed_forms(start, batch):
    """methods.md section 9 and the forms' meeting points; batch norm against PyTorch's; ShuffleBN."""
    labels = batch["labels"]
    assert abs(hard_instance_loss(torch.full((16, 16), 0.3), labels)[0].item() - math.log(13)) < 1e-12
    x, y = torch.randn(16, 16), torch.randn(16, 16)
    for printed in (False, True):
        assert abs(soft_instance_loss(cosine(x, x), cosine(x, x), printed)[0].item()) < 1e-12
        assert soft_instance_loss(cosine(x, y), cosine(x, x), printed)[0].item() > 1e-3
    logits = torch.randn(16, CLUSTERS)
    smoothed = F.cross_entropy(logits, labels, label_smoothing=0.1)
    assert torch.allclose(agnostic_loss(logits, labels, 0.1), smoothed)
    # with one positive and one camera both forms of cross are a plain cross-entropy over the kept proxies
    one = F.one_hot(labels, CLUSTERS).bool()
    cameras = torch.zeros(16, dtype=torch.int64)
    expected = F.cross_entropy(logits, labels)
    assert torch.allclose(cross_joint(logits, one, ~one, cameras)[0], expected)
    assert torch.allclose(cross_printed(logits, one, ~one, False)[0], expected)
    three = torch.zeros(16, 13, dtype=torch.bool)
    three[:, :3] = True
    assert abs(cross_joint(torch.zeros(16, 13), three, ~three, cameras)[0].item() - math.log(13)) < 1e-12
    assert abs(cross_printed(torch.zeros(16, 13), three, ~three, False)[0].item() - math.log(11)) < 1e-12

    plain, own = nn.BatchNorm2d(8), copy.deepcopy(start[0].stem.bn)
    plain.load_state_dict(own.state_dict(), strict=False)
    maps = torch.randn(16, 8, 8, 4)
    assert torch.allclose(plain(maps), own(maps)) and torch.allclose(plain.running_var, own.running_var)
    order = torch.randperm(16)
    for groups in (1, 2):
        one, two = copy.deepcopy(start[1]), copy.deepcopy(start[1])
        set_groups(one, groups)
        set_groups(two, groups)
        shuffled = teacher_pass(two, batch | {"order_view2": order}, "view2")["neck"]
        equal = torch.allclose(one(batch["view2"])["neck"], shuffled, atol=1e-10)
        assert equal == (groups == 1)


def check_shuffled(out, terms):
    """agnostic_shuffled against agnostic_groups: equal on the student's side, apart elsewhere."""
    assert terms["shuffled"]["agnostic"] == terms["groups"]["agnostic"]
    for name in [name for name in out if name.startswith("agnostic_shuffled.")]:
        part = name.removeprefix("agnostic_shuffled.")
        if part.startswith("batch.order_"):
            continue
        here, there = out[name], out[f"agnostic_groups.{part}"]
        if part.startswith("mid.teacher."):
            least = (here - there).abs().amax(1).min().item()  # every picture's row
            assert least > 1e-2, (part, least)
        elif part.startswith("grad."):
            share = ((here - there).norm() / there.norm()).item()
            assert share > 1e-2, (part, share)
        elif part.startswith(("after.teacher.", "after_first.teacher.")) and ".running_" in part:
            assert (here - there).abs().max() > 1e-3, part
        elif part.startswith(("batch.", "before.", "hyper.", "mid.student.")) or ".student." in part and \
                ".running_" in part:
            assert torch.equal(here, there), part


# ---- data

SEEN = {0: (0, 1, 2), 1: (0, 2), 2: (1,), 3: (0, 1, 2), 4: (1, 2), 5: (0, 1)}  # cluster: its cameras
BATCH = [(3, 0), (3, 1), (3, 2), (3, 0), (0, 2), (0, 1), (0, 2), (0, 0),
         (2, 1), (2, 1), (2, 1), (2, 1), (5, 0), (5, 1), (5, 0), (5, 1)]  # (cluster, camera)


def training_set():
    """39 images: those of the batch, one or two more for every camera of a cluster, 3 outliers."""
    pairs = list(BATCH)
    for cluster, cameras in SEEN.items():
        for camera in cameras:
            pairs += [(cluster, camera)] * (2 if cluster in (1, 4) or camera == 0 else 1)
    pairs += [(-1, 0), (-1, 1), (-1, 2)]
    labels, cameras = torch.tensor(pairs).unbind(1)
    images = 0.7 * torch.randn(CLUSTERS + 1, 3, 16, 8)[labels] + 0.4 * torch.randn(3, 3, 16, 8)[cameras]
    return as_float32(images + 0.6 * torch.randn_like(images)), labels, cameras


def shuffle_orders(seed=2):
    """ShuffleBN's orders, from a generator of their own. Cut into 2 groups, the plain batch, both orders and both
    inverse orders give five different partitions of the pictures."""
    generator = torch.Generator().manual_seed(seed)
    orders = {f"order_{view}": torch.randperm(16, generator=generator) for view in ("view2", "weak")}
    every = [torch.arange(16)] + [x for order in orders.values() for x in (order, order.argsort())]
    partitions = {frozenset(frozenset(half.tolist()) for half in order.chunk(2)) for order in every}
    assert len(partitions) == 5
    return orders


def proxies_case(teacher, images, labels, cameras, out):
    features = as_float32(copy.deepcopy(teacher)(images)["neck"])
    proxies, clusters, of_camera = camera_proxies(features, labels, cameras)
    memory = {"cluster_proxies": cluster_proxies(features, labels), "camera_proxies": proxies,
              "proxy_clusters": clusters, "proxy_cameras": of_camera}
    assert len(labels) == 39 and len(clusters) == 13 and (memory["cluster_proxies"].norm(dim=1) < 0.999).all()
    out.update({"proxies.batch.features": features, "proxies.batch.labels": labels, "proxies.batch.cameras": cameras})
    out.update({f"proxies.after.memory.{key}": value for key, value in memory.items()})
    return {key: value if value.dtype == torch.int64 else as_float32(value) for key, value in memory.items()}


def save(out):
    tensors = {k: v.detach() if v.dtype == torch.int64 else v.detach().float() for k, v in out.items()}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, FILE)  # a copy: two names may be one tensor


def main(seed=1):
    torch.manual_seed(seed)
    images, labels, cameras = training_set()
    student = random_net()
    start = (student, random_teacher(student))
    weak = images[:16]
    batch = {"view1": as_float32(weak + 0.4 * torch.randn_like(weak)),
             "view2": as_float32(weak + 0.4 * torch.randn_like(weak)),
             "weak": weak, "labels": labels[:16], "cameras": cameras[:16]}
    check_closed_forms(start, batch)
    out = {}
    memory = proxies_case(start[1], images, labels, cameras, out)
    terms = {"agnostic": step_case("agnostic", start, batch, memory, out)}
    terms["groups"] = step_case("agnostic_groups", start, batch, memory, out, groups=2)
    terms["shuffled"] = step_case("agnostic_shuffled", start, batch | shuffle_orders(), memory, out, groups=2)
    terms["printed"] = step_case("agnostic_printed", start, batch, memory, out, printed=True, smoothing=0.0)
    terms["aware"] = step_case("aware", start, batch, memory, out, cross="joint")
    terms["few"] = step_case("aware_few", start, batch, memory, out, cross="joint", negatives=50)
    terms["batch"] = step_case("aware_printed", start, batch, memory, out, cross="batch")
    terms["kept"] = step_case("aware_printed_kept", start, batch, memory, out, cross="kept")
    for name in ("agnostic", "h_ins", "s_ins"):
        assert terms["aware"][name] == terms["agnostic"][name]
    check_shuffled(out, terms)
    assert torch.allclose(terms["kept"]["cross"] * 12, terms["batch"]["cross"] * 16)  # 4 of the 16 have no positive
    save(out)


if __name__ == "__main__":
    main()
