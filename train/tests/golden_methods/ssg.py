"""Golden step of Self-Similarity Grouping: three body parts, a pseudo label for each, triplets only.

Text and equations: CANU (003) V-A "First, self-similarity grouping", Eq. 2, and "Implementation details" (test
feature); methods.md 5.2 (features, loss, test feature), 1.4 (optimiser), 1.6 (distance).
  full, upper, lower = global average of the map, of its upper half, of its lower half (no batch norm on them)
  x2 = ReLU(BN(Linear(full)))
  L = T(full, y_full) + T(upper, y_upper) + T(lower, y_lower) + T(x2, y_full),  margin m = .5
  step        T is "semi-hard": within every run of K images of the batch, every pair of positions j < l gives
              max(0, m + d(j, l) - min over images n whose label differs from j's of d(j, n)),
              mean over the P K (K-1)/2 pairs
  batch_hard  T is 003's Eq. 2: mean over anchors of max(0, m + farthest of the same label - nearest of another label)

Choices
  * semi-hard (5.2): the earlier image of the pair is the anchor. "Positive" is decided by position in the run of K that
    the sampler drew by the full label, "negative" by the label of the part at hand. Where part labels differ within a
    run, a pair may therefore be a positive and the anchor's nearest negative at once; it is kept (5.2: "even where part
    labels differ"). No other filter (no "farther than the positive") is applied.
  * d is Euclidean, on un-normalised features, clamped at 1e-12 before the root (1.6).
  * batch_hard: positives by the part's own label, so they may cross runs; the anchor is one of its own positives, but
    every part label here has two images or more.
  * mean over pairs or anchors, plain sum of the four terms (5.2 gives no weights; lambda of Eq. 3 does not enter:
    SSG has no cross-entropy).
  * the Linear has no bias: batch norm in train mode cancels one (a bias of zero gives the same golden). The batch
    norm after it is an ordinary one, with weight and bias trained, since a ReLU follows; it is no BNNeck.
  * network in train mode, one batch-norm group.
  * optimiser: SGD, lr 6e-5, momentum .9 (not Nesterov, no dampening), weight decay 5e-4 on every parameter (1.4); the
    momentum buffer is empty before the step, so after = before - lr (gradient + weight_decay before).
  * features: evaluation mode, state as before the step. x2 is not part of the test feature (003 names full, upper,
    lower only; 5.2 is read the same way for SSG's own). Flip is left-right.
      default (003):  concat over parts of L2(part(x) + part(flip x)), so its norm is sqrt 3
      SSG's own:      L2( concat(x) + concat(flip x) )

Network student: TinyNet's stem and body, the embedding in place of neck and classifier
  stem.conv Conv2d(3, 8, 3, stride 2, padding 1, no bias), stem.bn, ReLU
  body.conv Conv2d(8, 16, 3, stride 1, padding 1, no bias), body.bn, ReLU -> map 16 x 8 x 4; halves: rows 0-3 and 4-7
  embed.linear Linear(16, 16, no bias), embed.bn BatchNorm1d(16), ReLU -> x2 (16)

Tensors
PARAM = stem.conv.weight (8,3,3,3), stem.bn.{weight,bias,running_mean,running_var} (8), body.conv.weight (16,8,3,3),
        body.bn.{weight,bias,running_mean,running_var} (16), embed.linear.weight (16,16),
        embed.bn.{weight,bias,running_mean,running_var} (16)
CASE = step, batch_hard; PART = full, upper, lower, x2
  CASE.batch.view1 (16,3,16,8); CASE.batch.labels_{full,upper,lower} (16) int64, CASE.batch.cameras (16) int64
  CASE.before.student.PARAM, CASE.after.student.PARAM, CASE.grad.student.PARAM (without running statistics)
  CASE.hyper.{margin,instances,lr,momentum,weight_decay,bn_momentum} (1)
  CASE.loss.total, CASE.loss.{full,upper,lower,x2} (1)
  CASE.mid.student.PART (16,16)
  step.mid.{d_ap,d_an}.PART (24): in the order of the pairs (0,1) (0,2) (0,3) (1,2) (1,3) (2,3), (4,5) ...
  batch_hard.mid.{d_ap,d_an}.PART (16), batch_hard.mid.{positive,negative}.PART (16) int64
features: features.before.student.PARAM; features.batch.images (4,3,16,8); features.mid.student.{full,upper,lower} and
  features.mid.student.{full,upper,lower}_flip (4,16); features.mid.test, features.mid.test_own (4,48)
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
INSTANCES, MARGIN = 4, 0.5
LR, MOMENTUM, WEIGHT_DECAY, BN_MOMENTUM = 6e-5, 0.9, 5e-4, 0.1
PARTS = ("full", "upper", "lower")


# ---- network

class ConvBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs, momentum=BN_MOMENTUM)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.bn = nn.Linear(16, 16, bias=False), nn.BatchNorm1d(16, momentum=BN_MOMENTUM)

    def forward(self, x):
        return self.bn(self.linear(x)).relu()


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


def as_float32(x):
    """The float64 value of the float32 that the file will hold: a reader starts from exactly the same numbers."""
    return x.float().double()


def random_net():
    """The last batch norm is scaled so that distances between the parts' features lie about the margin's size."""
    net = PartNet()
    with torch.no_grad():
        for name, value in state(net).items():
            if name.endswith("conv.weight") or name == "embed.linear.weight":
                value.normal_(0, math.sqrt(2 / value[0].numel()))
            elif name.endswith("bn.weight"):
                value.normal_(4 if name.startswith("body") else 1, 0.2)
            elif name.endswith("running_var"):
                value.copy_((0.2 * torch.randn_like(value)).exp())
            else:
                value.normal_(0, 0.1)
            value.copy_(as_float32(value))
    return net


def state(net):
    return {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}


# ---- losses

def euclidean(x):
    """The differences are taken directly, so d_ii is exactly sqrt(1e-12) and the clamp stops its gradient."""
    return (x[:, None] - x[None]).pow(2).sum(2).clamp(min=1e-12).sqrt()


def nearest_negative(distances, labels):
    """Index of the nearest image of another label; two candidates must not be too close to call."""
    same = labels[:, None] == labels[None]
    ordered, index = distances.detach().masked_fill(same, math.inf).sort(1)
    assert (ordered[:, 1] - ordered[:, 0] > 1e-3 * ordered[:, 0]).all()
    return index[:, 0]


def farthest_positive(distances, labels):
    """Index of the farthest image of the same label, the anchor among them."""
    same = labels[:, None] == labels[None]
    ordered, index = distances.detach().masked_fill(~same, -math.inf).sort(1, descending=True)
    assert (ordered[:, 0] - ordered[:, 1] > 1e-3 * ordered[:, 0]).all()
    assert (same.sum(1) > 1).all()
    return index[:, 0]


def hinge(d_ap, d_an):
    violation = MARGIN + d_ap - d_an
    assert (violation.abs() > 1e-3).all(), "a pair on the kink of the hinge"
    return violation.clamp(min=0).mean()


def semi_hard_triplet(features, labels):
    """Every pair of positions j < l of a run of K, anchor j, against j's nearest negative."""
    distances = euclidean(features)
    negative = nearest_negative(distances, labels)
    d_ap, d_an = [], []
    for first in range(0, len(labels), INSTANCES):
        run = range(first, first + INSTANCES)
        for anchor, positive in ((j, l) for j in run for l in run if j < l):
            d_ap.append(distances[anchor, positive])
            d_an.append(distances[anchor, negative[anchor]])
    d_ap, d_an = torch.stack(d_ap), torch.stack(d_an)
    return hinge(d_ap, d_an), {"d_ap": d_ap, "d_an": d_an}


def batch_hard_triplet(features, labels):
    """003 Eq. 2."""
    distances = euclidean(features)
    positive, negative = farthest_positive(distances, labels), nearest_negative(distances, labels)
    d_ap = distances.gather(1, positive[:, None])[:, 0]
    d_an = distances.gather(1, negative[:, None])[:, 0]
    return hinge(d_ap, d_an), {"d_ap": d_ap, "d_an": d_an, "positive": positive, "negative": negative}


def losses(net, batch, triplet):
    """Terms, total and intermediate values. Runs the network once, so running statistics move."""
    features = net(batch["view1"])
    terms, mid = {}, {f"student.{part}": value for part, value in features.items()}
    for part, value in features.items():
        labels = batch["labels_full" if part == "x2" else "labels_" + part]
        terms[part], detail = triplet(value, labels)
        mid.update({f"{key}.{part}": found for key, found in detail.items()})
    return terms, sum(terms.values()), mid


# ---- step

def check_gradient(net, batch, triplet, gradients):
    """Central differences on two weights."""
    for key, place in (("body.conv.weight", (3, 2, 1, 0)), ("embed.linear.weight", (4, 7))):
        values = []
        for shift in (1e-6, -1e-6):
            moved = copy.deepcopy(net)
            moved.state_dict()[key][place] += shift
            values.append(losses(moved, batch, triplet)[1].item())
        numeric, analytic = (values[0] - values[1]) / 2e-6, gradients[key][place].item()
        assert abs(numeric - analytic) < 1e-6 + 1e-5 * abs(analytic), (numeric, analytic)


def step_case(case, start, batch, triplet, out):
    print(case)
    net = copy.deepcopy(start).train()
    parameters = dict(net.named_parameters())
    optimiser = torch.optim.SGD(parameters.values(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    terms, total, mid = losses(net, batch, triplet)
    idle = 0
    for part, term in terms.items():
        found = torch.autograd.grad(term, list(parameters.values()), retain_graph=True, allow_unused=True)
        norm = math.sqrt(sum(g.pow(2).sum().item() for g in found if g is not None))
        active = (MARGIN + mid["d_ap." + part] > mid["d_an." + part]).sum().item()
        print(f"  {part:5s} {term.item():.6f}  gradient norm {norm:.3e}  active {active} of {len(mid['d_ap.' + part])}")
        assert norm > 1e-2 and active > 0
        idle += len(mid["d_ap." + part]) - active
    assert idle > 0, "the hinge should be at work on both sides"
    total.backward()
    gradients = {key: value.grad.clone() for key, value in parameters.items()}
    optimiser.step()
    print(f"  total {total.item():.6f}")
    for key, value in parameters.items():
        old = state(start)[key]
        assert torch.allclose(value, old - LR * (gradients[key] + WEIGHT_DECAY * old), atol=1e-15)
    check_gradient(start, batch, triplet, gradients)
    out.update({f"{case}.batch.{key}": value for key, value in batch.items()})
    hypers = {"margin": MARGIN, "instances": INSTANCES, "lr": LR, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY,
              "bn_momentum": BN_MOMENTUM}
    out.update({f"{case}.hyper.{key}": torch.tensor([float(value)]) for key, value in hypers.items()})
    out.update({f"{case}.before.student.{key}": value for key, value in state(start).items()})
    out.update({f"{case}.after.student.{key}": value for key, value in state(net).items()})
    out.update({f"{case}.grad.student.{key}": value for key, value in gradients.items()})
    out.update({f"{case}.mid.{key}": value for key, value in mid.items()})
    out.update({f"{case}.loss.{key}": value.reshape(1) for key, value in terms.items()})
    out[f"{case}.loss.total"] = total.reshape(1)


def check_semi_hard():
    """Two runs of four points on a line, every distance known."""
    x = torch.tensor([[0.0], [1.0], [2.1], [3.3], [10.0], [10.4], [11.0], [11.9]])
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 0])  # the last image carries another part label than its run
    loss, detail = semi_hard_triplet(x, labels)
    assert torch.allclose(detail["d_ap"][:6], torch.tensor([1.0, 2.1, 3.3, 1.1, 2.3, 1.2]))
    assert torch.allclose(detail["d_an"], torch.tensor([10.0] * 3 + [9.0] * 2 + [7.9] + [1.9] * 3 + [1.5] * 2 + [0.9]))
    assert torch.allclose(detail["d_ap"][-1], detail["d_an"][-1])  # positive by position, negative by label
    by_hand = [0, 0, 0, 0, 0, 0, 0, 0, 0.5, 0, 0.5, 0.5]  # margin + d_ap - d_an, where above zero
    assert abs(loss - sum(by_hand) / 12) < 1e-12


# ---- test feature

def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def test_feature(plain, flipped):
    """003, implementation details: flip-sum, L2 a part, concatenation."""
    return torch.cat([unit(plain[part] + flipped[part]) for part in PARTS], 1)


def test_feature_own(plain, flipped):
    """SSG's own: concatenation, flip-sum, one L2."""
    return unit(torch.cat([plain[part] for part in PARTS], 1) + torch.cat([flipped[part] for part in PARTS], 1))


def features_case(start, images, out):
    net = copy.deepcopy(start).eval()
    with torch.no_grad():
        plain, flipped = net(images), net(images.flip(3))
    out.update({f"features.before.student.{key}": value for key, value in state(start).items()})
    out["features.batch.images"] = images
    for part in PARTS:
        out[f"features.mid.student.{part}"], out[f"features.mid.student.{part}_flip"] = plain[part], flipped[part]
    test, own = test_feature(plain, flipped), test_feature_own(plain, flipped)
    out["features.mid.test"], out["features.mid.test_own"] = test, own
    assert torch.allclose(test.norm(dim=1), torch.full((4,), math.sqrt(3)))
    assert torch.allclose(own.norm(dim=1), torch.ones(4))
    difference = (test / math.sqrt(3) - own).abs().max().item()
    assert difference > 1e-3
    print(f"features: the two forms, scaled to one norm, differ by up to {difference:.4f}")


def save(out):
    tensors = {k: v.detach() if v.dtype == torch.int64 else v.detach().float() for k, v in out.items()}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, FILE)  # a copy: two names may be one tensor


def main(seed=3):
    torch.manual_seed(seed)
    labels = torch.arange(4).repeat_interleave(4)
    images = 0.9 * torch.randn(4, 3, 16, 8)[labels] + math.sqrt(0.19) * torch.randn(16, 3, 16, 8)
    batch = {"view1": as_float32(images), "labels_full": labels,
             # the parts are clustered on their own: other numbers, and not always the same company
             "labels_upper": torch.tensor([5, 5, 5, 2, 2, 2, 2, 2, 7, 7, 7, 7, 0, 0, 0, 0]),
             "labels_lower": torch.tensor([1, 1, 3, 3, 4, 4, 4, 4, 1, 1, 6, 6, 4, 0, 0, 0]),
             "cameras": torch.tensor([0, 1, 2, 0, 1, 1, 1, 1, 2, 0, 1, 2, 0, 0, 0, 0])}
    start = random_net()
    check_semi_hard()
    out = {}
    step_case("step", start, batch, semi_hard_triplet, out)
    step_case("batch_hard", start, batch, batch_hard_triplet, out)
    features_case(start, batch["view1"][[0, 5, 10, 15]], out)
    save(out)


if __name__ == "__main__":
    main()
