"""Golden values of the two softmax-triplet losses (no network; gradients with respect to the features).

Text and equations: thesis (004) section 4.3.3, Eq. 4.6-4.7 and the share T below them; methods.md 1.6 and
register #2, #17, #21.
  d_ij = sqrt(max(|x_i - x_j|^2, 1e-12)): Euclidean, features not normalised
  d_ap = the largest d_ij among the images of i's label, i itself included (d_ii = 1e-6, no gradient flows through it)
  d_an = the smallest d_ij among the images of other labels
  hard : L = mean_i -log( e^{d_an} / (e^{d_ap} + e^{d_an}) ) = mean_i log(1 + e^{d_ap - d_an})
  soft : (s_p, s_n) = softmax(d_ap, d_an) of the student, (t_p, t_n) = softmax of the teacher's distances at the SAME
         pairs (i, p) and (i, n), which are mined on the student's distances; no gradient to the teacher;
         L = mean_i -(t_p log s_p + t_n log s_n)

Choices
  * the log form, not the bare share (register #2); the two-class sum, not the printed one-term -T log T (1.6);
    batch means, not sums (register #17).
  * nearest negative (register #21: the text's "maximal distance" is a slip).
  * a label with one image in the batch keeps its row: its hardest positive is itself, d_ap = 1e-6 (1.6).
    Label 7 below is such a one. In `soft` the teacher's distance at that pair is 1e-6 as well.
  * no temperature, no margin.

Network: none. N = 11 images with labels 2 2 2 2, 0 0 0, 5 5 5, 7; D = 6 features.

Tensors (labels, positive, negative are int64)
  hard.batch.features (11,6), hard.batch.labels (11)
  hard.mid.distances (11,11), hard.mid.positive (11), hard.mid.negative (11), hard.mid.d_ap (11), hard.mid.d_an (11)
  hard.loss.total (1), hard.grad.features (11,6)
  soft.batch.features (11,6), soft.batch.teacher (11,6), soft.batch.labels (11)
  soft.mid.* as hard.mid.*, and soft.mid.teacher_d_ap (11), soft.mid.teacher_d_an (11)
  soft.loss.total (1), soft.grad.features (11,6)
  ln2.batch.features (6,6), ln2.batch.teacher (6,6), ln2.batch.labels (6), ln2.loss.hard (1), ln2.loss.soft (1)
      all distances of the student are equal, so both losses are ln 2 whatever the teacher says;
      which pair is mined is a tie, so no gradient is given
"""
import math
import os

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)  # the order of sums, and with it the last bits, must not depend on the machine
FILE = os.path.splitext(os.path.abspath(__file__))[0] + ".safetensors"


def as_float32(x):
    """The float64 value of the float32 that the file will hold: a reader starts from exactly the same numbers."""
    return x.float().double()


def euclidean(x):
    """d_ij; the differences are taken directly, so d_ii is exactly sqrt(1e-12) and the clamp stops its gradient."""
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


def closed_form_gradient(x, positive, negative, slope):
    """Gradient of sum_i slope_i (d_ap - d_an), by hand; the clamped pair (an image with itself) contributes nothing."""
    gradient = torch.zeros_like(x)
    for i in range(len(x)):
        for j, sign in ((positive[i], 1.0), (negative[i], -1.0)):
            if i != j:
                direction = (x[i] - x[j]) / (x[i] - x[j]).norm()
                gradient[i] += sign * slope[i] * direction
                gradient[j] -= sign * slope[i] * direction
    return gradient


def central_difference(loss, x, place, step=1e-6):
    up, down = x.detach().clone(), x.detach().clone()
    up[place] += step
    down[place] -= step
    return (loss(up) - loss(down)) / (2 * step)


def loss_of(x, labels, teacher):
    """The loss and its parts: hard without a teacher, soft with one."""
    distances = euclidean(x)
    positive, negative = batch_hard_pairs(distances, labels)
    parts = {"distances": distances, "positive": positive, "negative": negative,
             "d_ap": at(distances, positive), "d_an": at(distances, negative)}
    if teacher is None:
        return hard_softmax_triplet(parts["d_ap"], parts["d_an"]), parts
    teacher_distances = euclidean(teacher)
    parts["teacher_d_ap"], parts["teacher_d_an"] = at(teacher_distances, positive), at(teacher_distances, negative)
    return soft_softmax_triplet(parts["d_ap"], parts["d_an"], parts["teacher_d_ap"], parts["teacher_d_an"]), parts


def case(name, x, labels, teacher, out):
    x = x.clone().requires_grad_()
    loss, parts = loss_of(x, labels, teacher)
    gradient, = torch.autograd.grad(loss, x)

    share = (parts["d_ap"] - parts["d_an"]).sigmoid()  # s_p
    wanted = 0.0  # the hard target of the share s_p
    if teacher is not None:
        wanted = (parts["teacher_d_ap"] - parts["teacher_d_an"]).sigmoid()  # t_p
    by_hand = closed_form_gradient(x.detach(), parts["positive"], parts["negative"], (share - wanted).detach() / len(x))
    assert torch.allclose(gradient, by_hand, atol=1e-12)
    for place in ((1, 2), (10, 0)):
        numeric = central_difference(lambda y: loss_of(y, labels, teacher)[0], x, place)
        assert abs(numeric - gradient[place]) < 1e-7
    lone = [i for i in range(len(x)) if (labels == labels[i]).sum() == 1]
    assert all(parts["positive"][i] == i and abs(parts["d_ap"][i] - 1e-6) < 1e-18 for i in lone) and lone
    if teacher is None:
        assert torch.allclose(loss, F.softplus(parts["d_ap"] - parts["d_an"]).mean())
    else:
        x_again = x.detach().clone().requires_grad_()
        same, _ = loss_of(x_again, labels, x.detach())
        assert torch.autograd.grad(same, x_again)[0].abs().max() < 1e-14, "a teacher equal to the student must not pull"

    print(f"{name}: loss {loss.item():.6f}  gradient norm {gradient.norm().item():.6f}")
    out[f"{name}.batch.features"], out[f"{name}.batch.labels"] = x, labels
    if teacher is not None:
        out[f"{name}.batch.teacher"] = teacher
    out.update({f"{name}.mid.{key}": value for key, value in parts.items()})
    out[f"{name}.loss.total"], out[f"{name}.grad.features"] = loss.reshape(1), gradient


def ln2_oracle(out):
    """Six corners of a simplex: every distance is the same, so the shares are one half each."""
    x = as_float32(1.5 * torch.eye(6))
    teacher = as_float32(torch.randn(6, 6))
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    same = labels[:, None] == labels[None]
    distances, teacher_distances = euclidean(x), euclidean(teacher)
    d = distances[0, 1].expand(6)
    assert torch.allclose(distances[~torch.eye(6, dtype=torch.bool)], d[0])
    positive = (same & ~torch.eye(6, dtype=torch.bool)).long().argmax(1)
    negative = (~same).long().argmax(1)  # any would do
    hard = hard_softmax_triplet(d, d)
    soft = soft_softmax_triplet(d, d, at(teacher_distances, positive), at(teacher_distances, negative))
    assert abs(hard - math.log(2)) < 1e-12 and abs(soft - math.log(2)) < 1e-12
    print(f"ln2: hard {hard.item():.6f}  soft {soft.item():.6f}")
    out["ln2.batch.features"], out["ln2.batch.teacher"], out["ln2.batch.labels"] = x, teacher, labels
    out["ln2.loss.hard"], out["ln2.loss.soft"] = hard.reshape(1), soft.reshape(1)


def save(out):
    tensors = {k: v.detach() if v.dtype == torch.int64 else v.detach().float() for k, v in out.items()}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, FILE)  # a copy: two names may be one tensor


def main():
    torch.manual_seed(1)
    labels = torch.tensor([2, 2, 2, 2, 0, 0, 0, 5, 5, 5, 7])
    identity = torch.randn(8, 6)[labels]
    student = as_float32(0.6 * identity + 0.6 * torch.randn(11, 6))
    teacher = as_float32(0.8 * identity + 0.5 * torch.randn(11, 6))
    out = {}
    case("hard", student, labels, None, out)
    case("soft", student, labels, teacher, out)
    ln2_oracle(out)
    save(out)


if __name__ == "__main__":
    main()
