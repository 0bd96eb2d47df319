"""Golden values of temporal partition pooling (TPP): one feature for a tracklet. No network, no training.

Text and equations: thesis (004) 3.4.3 "Temporal Partition Pooling", Table 3.5, 3.4.2 (tracklet-to-tracklet search);
methods.md 6.1 (15 evenly sampled frames, 3 parts; the two distances), 1.10 (distance, protocol).
  1. take N = 15 frames of the tracklet, evenly (E) or at random (R)
  2. cut them, in time order, into P = 3 parts (beginning, middle, end), average each part's frame features
  3. concatenate the parts: P x D;  TP, the text's comparison: one average (or maximum) over all frames, D
  4. compare tracklets by the distance of the concatenations
A tracklet of any length passes 1-4 with all parts of equal size, since step 1 repeats frames of a short one.

Choices
  * frames are given as test features of images, so already made unit. Means of parts are not made unit ("representations
    of sub-tracklets are concatenated"); one L2 over the concatenation and squared Euclidean distance (1.10).
    feature_each is the other order (each part made unit, then concatenated, divided by sqrt P to be unit).
  * even sampling: the text has no formula. Default `centre`: frame i of N is floor((2 i + 1) T / (2 N)), the middle of the
    i-th of N equal bins. `first`: floor(i T / N), the bin's start. `ends`: i (T - 1) / (N - 1) rounded, halves up, so that
    the first and last frame are in. All three are the identity at T = N. T < N repeats frames, in order.
  * random sampling: the indices are an input here, sorted (parts need time order). R of a tracklet shorter than N would
    draw with replacement; no case.
  * the part sizes if N is no multiple of P, which the text leaves open: balanced and contiguous, the larger parts first
    (torch.tensor_split, numpy.array_split): 7 frames are 3, 2, 2; 16 are 6, 5, 5.
  * fewer frames than parts and no sampling to 15 before: the frames are first sampled to P by the rule of `centre`, so no
    part is empty: of 2 frames and 3 parts 0 | 1 | 1, of 1 frame 0 | 0 | 0. `window` (another way, not the default): part p
    is the mean of frames floor(p T / P) to ceil((p + 1) T / P) - 1, so 0 | 0 1 | 1; parts overlap if P does not divide T.
  * distance: concatenation by default (the text); `nine` adds up the P^2 distances of every part of one to every part of
    the other (6.1: what the code does). 6.1 does not say on what, so both: nine_squared, squared Euclidean distances of
    parts as they are (which sees the tracklets' means and the parts' norms only, not which part is which); nine_euclidean,
    Euclidean distances of parts each made unit.
  * protocol: gallery tracklets of the same identity and the same camera are left out (1.10); AP = mean over the hits
    of (rank among hits / rank); a query without a valid match is left out of mAP and CMC (query 3).

No network. D = 12.

Tensors (lengths, indices, labels, cameras, sizes are int64); RULE = centre, first, ends
even: even.batch.lengths (12); even.hyper.frames (1); even.mid.indices_RULE (12,15)
pooling without sampling; CASE = exact (T = 15), uneven7 (7), uneven16 (16), short2 (2), short1 (1), equal3 (3):
  CASE.batch.frames (T,12); CASE.hyper.parts (1); CASE.mid.sizes (3): frames in each part; CASE.mid.parts (3,12);
  CASE.mid.feature (36): one L2 over the concatenation; CASE.mid.concatenation (36): before that L2;
  CASE.mid.feature_each (36); CASE.mid.mean (12), CASE.mid.max (12): TP, as they are; CASE.mid.parts_window (3,12)
uneven7_two, uneven7_seven, short2_one: the frames of the case named, other numbers of parts (2, 7, 1): no batch;
  CASE.hyper.parts, CASE.mid.{sizes,parts,concatenation,feature}
sampling, then pooling; CASE = long (T = 40), middle (T = 22), tiny2 (T = 2), tiny1 (T = 1):
  CASE.batch.frames (T,12); CASE.hyper.{frames,parts} (1); CASE.mid.indices_RULE (15); CASE.mid.parts_RULE (3,12),
  CASE.mid.feature_RULE (36); CASE.mid.mean (12), CASE.mid.max (12): TP of the 15 of `centre`
random (T = 40): random.batch.frames (40,12); random.batch.indices (15); random.hyper.{frames,parts} (1);
  random.mid.parts (3,12), random.mid.feature (36), random.mid.mean (12)
evaluation: 4 queries, 8 gallery tracklets of different lengths, frames one after another:
  evaluation.batch.{query,gallery}_frames (sum of T,12); evaluation.batch.{query,gallery}_lengths,
  evaluation.batch.{query,gallery}_labels, evaluation.batch.{query,gallery}_cameras (4 or 8);
  evaluation.hyper.{frames,parts} (1); evaluation.mid.{query,gallery}_parts (4 or 8, 3, 12),
  evaluation.mid.{query,gallery}_features (4 or 8, 36);
  FORM = concatenation, nine_squared, nine_euclidean, mean (TP: squared distance of the mean of 15 frames made unit):
  evaluation.mid.distances_FORM (4,8), evaluation.mid.ap_FORM (4; 0 for the query that is left out),
  evaluation.mid.map_FORM (1), evaluation.mid.cmc_FORM (8): share of queries with a hit at rank 1 to 8
"""
import math
import os

import torch
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)  # the order of sums, and with it the last bits, must not depend on the machine
FILE = os.path.splitext(os.path.abspath(__file__))[0] + ".safetensors"
FRAMES, PARTS, SIZE = 15, 3, 12
RULES = ("centre", "first", "ends")
APART = 1e-3


def as_float32(x):
    """The float64 value of the float32 that the file will hold: a reader starts from exactly the same numbers."""
    return x.float().double()


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


# ---- sampling

def even(length, count, rule="centre"):
    """Integers only: no rounding of a quotient decides."""
    if rule == "centre":
        return [(2 * i + 1) * length // (2 * count) for i in range(count)]
    if rule == "first":
        return [i * length // count for i in range(count)]
    return [(2 * i * (length - 1) + count - 1) // (2 * (count - 1)) for i in range(count)]


def check_sampling():
    for rule in RULES:
        assert even(15, 15, rule) == list(range(15)) and even(1, 15, rule) == [0] * 15
        for length in range(1, 200):
            found = even(length, 15, rule)
            assert found == sorted(found) and 0 <= found[0] and found[-1] < length
            if length >= 15:
                assert len(set(found)) == 15
            else:
                assert set(found) == set(range(length))
        assert even(45, 15, rule)[0] == {"centre": 1, "first": 0, "ends": 0}[rule]
    assert even(2, 15) == [0] * 7 + [1] * 8 and even(2, 15, "first") == [0] * 8 + [1] * 7
    assert even(2, 15, "ends") == [0] * 7 + [1] * 8  # i = 7 lies half way
    assert even(22, 15, "ends") == [math.floor(1.5 * i + 0.5) for i in range(15)]
    assert even(2, 3) == [0, 1, 1]


# ---- pooling

def balanced_sizes(count, parts):
    return [count // parts + (p < count % parts) for p in range(parts)]


def pool(frames, parts=PARTS):
    """Means of the parts (P, D) and how many frames each has."""
    if len(frames) < parts:
        frames = frames[even(len(frames), parts)]
    sizes = balanced_sizes(len(frames), parts)
    pieces = frames.tensor_split(parts)
    assert [len(piece) for piece in pieces] == sizes
    return torch.stack([piece.mean(0) for piece in pieces]), torch.tensor(sizes)


def pool_windows(frames, parts=PARTS):
    t = len(frames)
    return torch.stack([frames[p * t // parts:-((p + 1) * t // -parts)].mean(0) for p in range(parts)])


def maximum(frames):
    """Temporal maximum; two different frames must not compete for it."""
    if len(frames) > 1:
        first, second = frames.topk(2, dim=0).values
        assert (first - second > APART).all(), "two frames compete for a maximum"
    return frames.amax(0)


def feature(parts):
    return unit(parts.flatten(-2))


def feature_each(parts):
    return unit(parts).flatten(-2) / math.sqrt(parts.shape[-2])


def random_tracklet(length, identity=None):
    """Unit frames that drift: a common part, a slow change, noise."""
    base = torch.randn(SIZE) if identity is None else identity
    start, end = torch.randn(2, SIZE)
    t = torch.linspace(0, 1, length)[:, None] if length > 1 else torch.tensor([[0.5]])
    return as_float32(unit(base + 0.6 * ((1 - t) * start + t * end) + 0.4 * torch.randn(length, SIZE)))


def pooling_case(case, frames, out, **others):
    """`others`: the same frames in other numbers of parts, by the ending of their case's name."""
    out[f"{case}.batch.frames"] = frames
    for name, count in {case: PARTS, **{f"{case}_{word}": number for word, number in others.items()}}.items():
        parts, sizes = pool(frames, count)
        out[f"{name}.hyper.parts"] = torch.tensor([float(count)])
        out[f"{name}.mid.sizes"], out[f"{name}.mid.parts"] = sizes, parts
        out[f"{name}.mid.concatenation"], out[f"{name}.mid.feature"] = parts.flatten(), feature(parts)
        assert torch.allclose(feature(parts).norm(), torch.tensor(1.0))
        print(f"{name}: {len(frames)} frames, parts of {sizes.tolist()}")
    parts, _ = pool(frames)
    windows = pool_windows(frames)
    out[f"{case}.mid.feature_each"], out[f"{case}.mid.parts_window"] = feature_each(parts), windows
    out[f"{case}.mid.mean"], out[f"{case}.mid.max"] = frames.mean(0), maximum(frames)
    assert torch.allclose(windows, parts) == (len(frames) % PARTS == 0 or len(frames) == 1)
    if len(frames) % PARTS == 0:
        assert torch.allclose(parts.mean(0), frames.mean(0))


def sampled_case(case, frames, out):
    out[f"{case}.batch.frames"] = frames
    for rule in RULES:
        index = even(len(frames), FRAMES, rule)
        parts, sizes = pool(frames[index])
        assert sizes.tolist() == [5, 5, 5]
        out[f"{case}.mid.indices_{rule}"] = torch.tensor(index)
        out[f"{case}.mid.parts_{rule}"], out[f"{case}.mid.feature_{rule}"] = parts, feature(parts)
    chosen = frames[even(len(frames), FRAMES)]
    out[f"{case}.mid.mean"] = chosen.mean(0)
    out[f"{case}.mid.max"] = maximum(frames[sorted(set(even(len(frames), FRAMES)))])
    assert torch.equal(out[f"{case}.mid.max"], chosen.amax(0))
    hypers(case, out)


def random_case(frames, out):
    index = torch.randperm(len(frames))[:FRAMES].sort().values
    parts, _ = pool(frames[index])
    out["random.batch.frames"], out["random.batch.indices"] = frames, index
    out["random.mid.parts"], out["random.mid.feature"] = parts, feature(parts)
    out["random.mid.mean"] = frames[index].mean(0)
    hypers("random", out)


def hypers(case, out):
    out[f"{case}.hyper.frames"], out[f"{case}.hyper.parts"] = torch.tensor([float(FRAMES)]), torch.tensor([float(PARTS)])


# ---- distances and protocol

def squared(x, y):
    return (x[:, None] - y[None]).pow(2).sum(-1)


def distance_forms(query, gallery, query_mean, gallery_mean):
    """Arguments: parts (tracklets, P, D), means of all sampled frames (tracklets, D)."""
    pairs = [(a, b) for a in range(PARTS) for b in range(PARTS)]
    return {"concatenation": squared(feature(query), feature(gallery)),
            "nine_squared": sum(squared(query[:, a], gallery[:, b]) for a, b in pairs),
            "nine_euclidean": sum(squared(unit(query[:, a]), unit(gallery[:, b])).sqrt() for a, b in pairs),
            "mean": squared(unit(query_mean), unit(gallery_mean))}


def evaluate(distances, query, gallery):
    """AP of each query (0 where there is no valid match), mAP, CMC. query, gallery: (labels, cameras)."""
    ap, curve, valid = torch.zeros(len(distances)), torch.zeros(distances.shape[1]), 0
    for q, row in enumerate(distances):
        kept = ~((gallery[0] == query[0][q]) & (gallery[1] == query[1][q]))
        order = torch.arange(len(row))[kept][row[kept].argsort(stable=True)]
        assert (row[order].diff() > APART * row[order][1:]).all(), "two tracklets too close to call"
        ranks = (gallery[0][order] == query[0][q]).nonzero()[:, 0] + 1
        if len(ranks):
            ap[q] = (torch.arange(1, len(ranks) + 1) / ranks).mean()
            curve[ranks[0] - 1:] += 1
            valid += 1
    return {"ap": ap, "map": (ap.sum() / valid).reshape(1), "cmc": curve / valid}


def check_evaluate():
    """One query; in order of distance: same camera (left out), wrong, right, wrong, right. AP = (1/2 + 2/4) / 2."""
    found = evaluate(torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]]), (torch.tensor([1]), torch.tensor([0])),
                     (torch.tensor([1, 2, 1, 3, 1]), torch.tensor([0, 1, 1, 0, 2])))
    assert found["ap"].tolist() == [0.5] and found["cmc"].tolist() == [0, 1, 1, 1, 1]


def evaluation_case(out):
    """Identity 3 was seen by one camera only, so query 3 has no valid match; identity 0 is a distractor."""
    identities = torch.randn(5, SIZE)
    sides = {"query": ([15, 33, 4, 21], [1, 2, 1, 3], [0, 1, 1, 2]),
             "gallery": ([18, 7, 50, 15, 2, 26, 31, 11], [1, 2, 1, 0, 2, 3, 4, 1], [1, 0, 0, 2, 1, 2, 0, 2])}
    parts, means, meta = {}, {}, {}
    for side, (lengths, labels, cameras) in sides.items():
        tracklets = [random_tracklet(length, 0.5 * identities[label]) for length, label in zip(lengths, labels)]
        sampled = [frames[even(len(frames), FRAMES)] for frames in tracklets]
        parts[side] = torch.stack([pool(frames)[0] for frames in sampled])
        means[side] = torch.stack([frames.mean(0) for frames in sampled])
        meta[side] = torch.tensor(labels), torch.tensor(cameras)
        out[f"evaluation.batch.{side}_frames"] = torch.cat(tracklets)
        out[f"evaluation.batch.{side}_lengths"] = torch.tensor(lengths)
        out[f"evaluation.batch.{side}_labels"], out[f"evaluation.batch.{side}_cameras"] = meta[side]
        out[f"evaluation.mid.{side}_parts"], out[f"evaluation.mid.{side}_features"] = parts[side], feature(parts[side])
    forms = distance_forms(parts["query"], parts["gallery"], means["query"], means["gallery"])
    features = [feature(parts[side]) for side in ("query", "gallery")]
    assert torch.allclose(forms["concatenation"], 2 - 2 * features[0] @ features[1].T)
    norms = [parts[side].pow(2).sum((1, 2)) for side in ("query", "gallery")]
    closed = PARTS * (norms[0][:, None] + norms[1][None]) - 2 * parts["query"].sum(1) @ parts["gallery"].sum(1).T
    assert torch.allclose(forms["nine_squared"], closed)
    orders = set()
    for form, distances in forms.items():
        found = evaluate(distances, meta["query"], meta["gallery"])
        assert found["ap"][3] == 0 and (found["ap"][:3] > 0).all()
        print(f"evaluation, {form}: mAP {found['map'].item():.4f}  rank 1 {found['cmc'][0].item():.4f}")
        out[f"evaluation.mid.distances_{form}"] = distances
        out.update({f"evaluation.mid.{key}_{form}": value for key, value in found.items()})
        orders.add(str(distances.argsort(1).tolist()))
    assert len(orders) == len(forms), "the forms should rank differently"
    assert len({out[f"evaluation.mid.map_{form}"].item() for form in forms}) > 2
    hypers("evaluation", out)


def save(out):
    tensors = {k: v.detach() if v.dtype == torch.int64 else v.detach().float() for k, v in out.items()}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, FILE)  # a copy: two names may be one tensor


def main(seed=110):
    torch.manual_seed(seed)
    check_sampling()
    check_evaluate()
    out = {}
    lengths = [1, 2, 3, 7, 14, 15, 16, 22, 29, 30, 40, 101]
    out["even.batch.lengths"], out["even.hyper.frames"] = torch.tensor(lengths), torch.tensor([float(FRAMES)])
    for rule in RULES:
        out[f"even.mid.indices_{rule}"] = torch.tensor([even(length, FRAMES, rule) for length in lengths])
    pooling_case("exact", random_tracklet(15), out)
    pooling_case("uneven7", random_tracklet(7), out, two=2, seven=7)
    pooling_case("uneven16", random_tracklet(16), out)
    pooling_case("short2", random_tracklet(2), out, one=1)
    pooling_case("short1", random_tracklet(1), out)
    pooling_case("equal3", random_tracklet(3), out)
    assert torch.equal(out["short2.mid.parts"], out["short2.batch.frames"][[0, 1, 1]])
    for case, length in (("long", 40), ("middle", 22), ("tiny2", 2), ("tiny1", 1)):
        sampled_case(case, random_tracklet(length), out)
    random_case(random_tracklet(40), out)
    evaluation_case(out)
    save(out)


if __name__ == "__main__":
    main()
