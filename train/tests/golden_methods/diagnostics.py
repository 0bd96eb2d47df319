"""Golden values of CANU's two diagnostics of a clustering. No network, no training.

Text: CANU (003) V-C "Removing camera information" with Fig. 3, "Evolution of the number of lost IDs" with Fig. 4;
methods.md 5.1 ("Diagnostics of the text"), register #26.
  mutual information  I(L; C) = sum over (l, c) of p(l, c) ln( p(l, c) / (p(l) p(c)) ), L = pseudo label, C = camera;
                      outliers (-1) left out: p is the share of the clustered images
  target              I(identity; C) over all images: the dashed line of Fig. 3
  lost identities     true identities none of whose images is clustered

Choices
  * natural logarithm, outliers left out (register #26). An outlier counted as a label of its own is another number
    (mid.information_with_outliers), so is I(identity; C) of the clustered images alone (mid.target_clustered).
  * the target takes all images: 003 calls it the ground truth of the data set and draws it as a constant.
  * no correction for chance, no division by an entropy. 0 ln 0 = 0. Nothing clustered: information 0, all are lost.
  * lost of all identities that occur in the data set, whatever their number; an identity of outliers only is lost, one
    with a single clustered image is not, however wrong its cluster.
  * label, identity and camera numbers have gaps; they are names, not indices.

No network. N images each.

Tensors: CASE.batch.{labels,identities,cameras} (N) int64, labels -1 = outlier
  CASE.mid.{information,target,target_clustered,information_with_outliers,entropy_labels,entropy_cameras} (1):
      entropies of the clustered images; CASE.mid.{clustered,lost,identities} (1) int64: counts
  CASE.mid.lost_identities (lost) int64, ascending (absent where none is lost, to have no empty tensor)
CASE = random (N 60), clean (N 40, no outlier), outliers (N 80, most of them), gaps (N 50, large numbers), large (N 400)
  one_camera (N 20): both 0                       one_cluster (N 24): information 0
  singletons (N 18): every image its own cluster, information = entropy of the cameras
  cameras_found (N 30): cluster = camera, information = entropy of the cameras
  perfect (N 32): cluster = identity, renamed, information = target
  independent (N 24): each cluster with all cameras alike, information 0 up to rounding
  none_clustered (N 12): all outliers             one_left (N 12): one image clustered, information 0
"""
import math
import os
from collections import Counter

import torch
from safetensors.torch import save_file
from sklearn.metrics import mutual_info_score

torch.set_default_dtype(torch.float64)
FILE = os.path.splitext(os.path.abspath(__file__))[0] + ".safetensors"


def entropy(x):
    return sum(n / len(x) * math.log(len(x) / n) for n in Counter(x).values())


def information(x, y):
    """Natural logarithm. Zero for no images."""
    joint, left, right, total = Counter(zip(x, y)), Counter(x), Counter(y), len(x)
    return sum(n / total * math.log(n * total / (left[a] * right[b])) for (a, b), n in joint.items())


def check(x, y, found):
    """Other ways to the same number: three entropies, scikit-learn, a full table."""
    assert abs(entropy(x) + entropy(y) - entropy(list(zip(x, y))) - found) < 1e-12
    assert -1e-12 < found < min(entropy(x), entropy(y)) + 1e-12
    if x:
        assert abs(mutual_info_score(x, y) - found) < 1e-12
        table = torch.zeros(len(set(x)), len(set(y)))
        for a, b in zip(x, y):
            table[sorted(set(x)).index(a), sorted(set(y)).index(b)] += 1 / len(x)
        expected = table.sum(1, keepdim=True) * table.sum(0, keepdim=True)
        assert abs(torch.special.xlogy(table, table / expected).sum().item() - found) < 1e-12
    return found


def case(name, labels, identities, cameras, out):
    labels, identities, cameras = (torch.as_tensor(x) for x in (labels, identities, cameras))
    batch = {"labels": labels, "identities": identities, "cameras": cameras}
    out.update({f"{name}.batch.{key}": value for key, value in batch.items()})
    every = [x.tolist() for x in (labels, identities, cameras)]
    kept = [x[labels >= 0].tolist() for x in (labels, identities, cameras)]
    lost = sorted(set(every[1]) - set(kept[1]))
    values = {"information": check(kept[0], kept[2], information(kept[0], kept[2])),
              "target": check(every[1], every[2], information(every[1], every[2])),
              "target_clustered": check(kept[1], kept[2], information(kept[1], kept[2])),
              "information_with_outliers": check(every[0], every[2], information(every[0], every[2])),
              "entropy_labels": entropy(kept[0]), "entropy_cameras": entropy(kept[2])}
    counts = {"clustered": len(kept[0]), "lost": len(lost), "identities": len(set(every[1]))}
    out.update({f"{name}.mid.{key}": torch.tensor([float(value)]) for key, value in values.items()})
    out.update({f"{name}.mid.{key}": torch.tensor([value]) for key, value in counts.items()})
    if lost:
        out[f"{name}.mid.lost_identities"] = torch.tensor(lost)
    print(f"{name:15s}" + "".join(f" {key} {value:.4f}" for key, value in values.items())
          + f"  clustered {len(kept[0])} of {len(labels)}, lost {len(lost)} of {counts['identities']}")
    return values, counts


def biased_cameras(identities, count):
    """Two cameras in three images of four for each identity: what makes the target more than nothing."""
    home = torch.randint(count, (int(identities.max()) + 1, 2))
    chosen = home[identities, torch.randint(2, identities.shape)]
    return torch.where(torch.rand(identities.shape) < 0.75, chosen, torch.randint(count, identities.shape))


def noisy_labels(identities, wrong, outliers):
    """True identities, renamed; a share of images in a wrong cluster, a share of outliers, two identities no more."""
    names = torch.randperm(int(identities.max()) + 1)
    labels = names[identities]
    labels = torch.where(torch.rand(labels.shape) < wrong, names[torch.randint(len(names), labels.shape)], labels)
    labels = torch.where(torch.rand(labels.shape) < outliers, -1, labels)
    return torch.where(identities < (2 if outliers else 0), -1, labels)


def random_case(name, n, identities, cameras, wrong, outliers, out):
    true = torch.randint(identities, (n,))
    seen = biased_cameras(true, cameras)
    labels = noisy_labels(true, wrong, outliers)
    if name == "gaps":  # the same information under any names
        labels, true, seen = torch.where(labels < 0, -1, 1000 * labels + 7), 500 - 37 * true, 5 + 3 * seen
    return case(name, labels, true, seen, out)


def save(out):
    tensors = {k: v.detach() if v.dtype == torch.int64 else v.detach().float() for k, v in out.items()}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, FILE)  # a copy: two names may be one tensor


def main():
    torch.manual_seed(1)
    assert abs(information([0, 0, 1, 1], [0, 0, 1, 1]) - math.log(2)) < 1e-15 and information([0, 1], [0, 0]) == 0
    out = {}
    random_case("random", 60, 10, 4, 0.2, 0.2, out)
    values, counts = random_case("clean", 40, 6, 3, 0.3, 0.0, out)
    assert counts["lost"] == 0 and values["information"] == values["information_with_outliers"]
    _, counts = random_case("outliers", 80, 20, 4, 0.3, 0.6, out)
    assert counts["lost"] > 2, "some identities should be lost by chance"
    random_case("gaps", 50, 8, 4, 0.2, 0.2, out)
    random_case("large", 400, 40, 6, 0.15, 0.2, out)
    for name in ("random", "outliers", "gaps", "large"):
        readings = [out[f"{name}.mid.{key}"].item() for key in ("information", "target", "target_clustered",
                                                                "information_with_outliers")]
        assert min(abs(a - b) for i, a in enumerate(readings) for b in readings[:i]) > 5e-3, "the readings should differ"

    values, _ = case("one_camera", torch.randint(-1, 5, (20,)), torch.randint(6, (20,)), [3] * 20, out)
    assert values["information"] == values["target"] == 0
    values, _ = case("one_cluster", [4] * 20 + [-1] * 4, torch.randint(6, (24,)), torch.randint(3, (24,)), out)
    assert values["information"] == 0 < values["target"]
    values, _ = case("singletons", torch.randperm(18), torch.randint(5, (18,)), torch.randint(4, (18,)), out)
    assert abs(values["information"] - values["entropy_cameras"]) < 1e-12
    cameras = torch.randint(4, (30,))
    values, _ = case("cameras_found", torch.tensor([2, 0, 3, 1])[cameras], torch.randint(6, (30,)), cameras, out)
    assert abs(values["information"] - values["entropy_cameras"]) < 1e-12
    true = torch.randint(6, (32,))
    values, counts = case("perfect", torch.randperm(6)[true], true, biased_cameras(true, 3), out)
    assert abs(values["information"] - values["target"]) < 1e-12 and counts["lost"] == 0
    alike = torch.arange(24)
    values, _ = case("independent", alike % 4, torch.randint(5, (24,)), alike // 4 % 3, out)
    assert abs(values["information"]) < 1e-12
    true = torch.arange(12) // 3
    values, counts = case("none_clustered", [-1] * 12, true, torch.randint(3, (12,)), out)
    assert values["information"] == 0 and counts["lost"] == 4
    values, counts = case("one_left", [-1] * 7 + [0] + [-1] * 4, true, torch.randint(3, (12,)), out)
    assert values["information"] == 0 and counts["lost"] == 3
    save(out)


if __name__ == "__main__":
    main()
