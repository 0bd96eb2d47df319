#!/usr/bin/env python3
"""Makes clustering.safetensors: clusterings and measures of clusterings by slow, dense, double-precision definitions.

Run beside this file: `python clustering.py`. Needs numpy, scipy, scikit-learn and safetensors. Every input is float32
(the reference reads the rounded value), every result is computed in float64 and stored as float32 or int64. Running it
twice writes the same bytes. Seeds are searched, in order, until float32 arithmetic has room at every decision that
picks a label (`room` in the printed lines: the smallest lead of the winner over the next candidate).

Names are `<case>.<array>`; an array called `condensed` is the upper triangle of a symmetric matrix by rows, without its
zero diagonal (the order of scipy's squareform); the metadata entry `cases` lists the cases, separated by commas. A scalar is an array of one.

agglomerative.n12 / n40 / n75 / n120
    Average linkage (UPGMA), as HCT needs it, from scipy.cluster.hierarchy, checked against a direct version that
    averages the given distances over all pairs of two clusters.
    condensed [N(N-1)/2]  Euclidean distances between L2-normalised features, rounded to float32.
    heights [N-1]    non-decreasing.
    merges [N-1,3]   (a, b, size) in scipy's numbering: a < b, the cluster made by merge i has the number N + i.
    cluster_counts [C], labels_by_count [C,N]  merging stops when that many clusters are left. Besides fixed numbers
        there is N - s * floor(.07 N) for s = 1, 6, 13 (N >= 40), the steps of HCT.
    thresholds [T], labels_by_threshold [T,N]  all merges with height <= threshold, each threshold amid a gap.
    Labels count up from 0 in order of first appearance. n75 has five pairs of equal images (distance exactly 0): the
    order of those five merges is arbitrary, so take only rows 5.. of `merges` from it, and no count over 70.

bottom_up.n24 / n64 / n100 (inputs), bottom_up.<size>.<variant> (results), bottom_up.ties, bottom_up.fakes
    Bottom-up merging (Lin et al. 2019 and text c, eq. 5-8): an image pair i < j of different clusters has the value
    d(i, j) + lambda (|A| + |B|), two clusters the smallest value over their pairs (single linkage). A step merges
    m = floor(mp N) times the pair of smallest value; sizes are those at the start of the step (except `grow`), and merges
    made within the step count for what is one cluster. Ties: smaller i, then smaller j. After a step labels are
    numbered from 0 in order of first appearance. There are int(1 / mp) - 1 = 19 steps with mp = .05; the features stay
    the same in all of them. If no pair may be merged any more the step ends early.
    features [N,D] (L2-normalised), condensed (squared Euclidean distances), cameras [N], frames [N], same_frame [P,2] pairs i < j of equal camera and frame; merges_per_step, mp.
    Variants, each with lambda, labels [19,N] after each step, clusters [19]:
      plain         lambda 0                        penalty       lambda .003
      strong        lambda .03                      grow          lambda .03, sizes counted anew after every merge
      unsquared     lambda .03 on the square roots of `condensed` (text c, eq. 5)
      apart         lambda 0, no cluster may ever hold a same-frame pair (cannot-link)
      penalty_apart lambda .003 and the same        cameras_apart lambda .003, no cluster may hold two images of a camera
      skip          lambda 0, same-frame pairs are left out of the minimum over pairs only: other pairs may still join
                    their clusters (this is what text c does with fake-fake pairs)
      penalty_skip  lambda .03 and the same
    bottom_up.ties: integer points, exact arithmetic: points [N,2], condensed squared distances, lambda .25, two merges a
      step, 7 steps; many equal values, so that it shows the tie rule.
    bottom_up.fakes: text c. real [N,D], fake [N,F,D]; a fake always carries the label of its source. d(i, j) is the
      smallest squared distance over real-real, real-fake and fake-real (`condensed_constrained`), over those and
      fake-fake (`condensed_all`), or over real-real (`condensed_real`). |A| counts real images only. lambda .003;
      labels_constrained, labels_all, labels_real [19,N].

kmeans.blobs / overlap / pose / empty_keep / empty_relocate
    Lloyd from given centres, squared Euclidean, ties to the lower centre. features [N,D], initial [K,D];
    centres_by_iteration [4,K,D] after 0 to 3 updates, labels_by_iteration [4,N] the nearest of those centres,
    inertia_by_iteration [4] the sum of squared distances to them; centres, labels, inertia, iterations when an update
    no longer changes a label (iterations: updates before that one). Checked against sklearn.cluster.KMeans, tol 0.
    pose: 50 numbers as 25 joints (x, y), a missing joint is (0, 0).
    empty_*: one initial centre gets no point. keep: it stays where it is. relocate (scikit-learn): it takes the point
    farthest from its own centre, and that point leaves its old cluster in the same update. `*_by_iteration` has
    the rounds in which that happens.

kmeans_pp.blobs
    features [N,D], chosen [C] row numbers; probabilities [C,N]: row c is the distribution of the next centre when the
    first c + 1 are chosen, squared distance to the nearest of them over its sum; potentials [C] that sum.

gmm.small_diag / small_full / wide_diag / wide_full / missing_diag / missing_full
    Expectation-maximisation from given weights, means, covariances, 10 steps, covariances + 1e-6 on the diagonal after
    each, as scikit-learn (checked against sklearn.mixture.GaussianMixture for 1 to 10 steps). Per-sample mean natural
    log-likelihood. features [N,D], initial_weights [K], initial_means [K,D], initial_covariances [K,D] or [K,D,D];
    log_likelihood [11] of the parameters after 0 to 10 steps; weights, means, covariances, responsibilities [N,K] of the
    final parameters. missing_*: the last two numbers of one group are exactly 0 (a joint that was not seen), so that
    its variance there is 1e-6.

radial.plain
    Text a, section 3.3. features [N,D], labels [N] (one cluster has one member) -> centroids [C,D], radii [C] (largest
    distance of a member). batch [B,D], batch_labels [B], gamma; max(0, r + gamma - distance) to every other cluster:
    terms [B,C] (own cluster 0), sum, mean (over B of the sum over C), violators_mean (over the terms > 0), violations,
    gradient [B,D] of the sum with frozen centroids and radii.

crops.people (inputs), jaccard.zhong_20_6 / spcl_20_6 / spcl_30_6 / spcl_13_1, dbscan.<the same>
    k-reciprocal Jaccard distance of crops.people: features [200,16] (L2-normalised), persons (below -1: a crop of
    nobody else), cameras. Names give k1, k2.
    zhong: lists of k1 + 1 columns including self, weights exp(-d / row maximum of d), d squared Euclidean (Zhong et al.
    2017; MMT). spcl: k1 columns including self, weights softmax(-d) over the expanded set (SpCL, Cluster-Contrast, ICE).
    Both: expansion by lists of round-half-even(k1 / 2) + 1 columns including self, taken if more than 2/3 of them are
    in R(i, k1); mean of V over the first k2 columns including self (k2 = 1: none); 1 - m / (2 - m), clamped at 0.
    columns: the k1 list length; condensed; gap: the room at a list's end.
    dbscan: scikit-learn, precomputed, min_samples 4 including self, distance <= eps; eps [.4, .5, .6], labels [3,N]
    (-1 outlier; clusters numbered by first core row, a border image near two of them has the lower number), core [3,N]. rho [3] and rho_eps [3]: the mean of the first
    round-half-even(rho * n) of the n sorted values of the upper triangle that are not zero.
    Two images with the same k2 nearest have the distance 0; it is stored as exact 0, and values under 1e-6 are zeros
    (nothing lies between that and 1e-4).
rho.zeros
    The same rule on made-up values: condensed [1225] of 50 images with exact zeros and float32 noise (below 1e-6; nothing
    else is below .05): both are left out of n and of the mean. rho [2], eps [2].

quality.zhong_20_6 / spcl_30_6 / perfect / one_cluster / singletons / hand
    truth [N], labels [N] (-1 outlier), cameras [N]. `kept_*` leaves outliers out, `single_*` makes each outlier a cluster
    of its own: *_nmi (arithmetic mean of the entropies), *_ari, *_purity, *_mi (truth; labels, nats); cameras_mi the
    mutual information of labels and cameras in nats over the kept images; truth_cameras_mi that of the true ids over all
    images; lost_ids the true ids without a kept image. In the first two, crops of nobody are true ids of one image.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import pathlib
import warnings

import numpy as np
from safetensors.numpy import save_file
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.special import logsumexp
from sklearn.cluster import DBSCAN, KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, mutual_info_score, normalized_mutual_info_score
from sklearn.mixture import GaussianMixture

HERE = pathlib.Path(__file__).parent
out, cases = {}, []


def put(case, **arrays):
    """Stores a case: whole numbers as int64, everything else as float32."""
    if case not in cases:
        cases.append(case)
    for name, value in arrays.items():
        value = np.atleast_1d(np.asarray(value))
        value = value.astype(np.int64 if value.dtype.kind in "iub" else np.float32)
        assert np.isfinite(value).all(), (case, name)
        out[f"{case}.{name}"] = np.ascontiguousarray(value)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def single(x):
    """What a reader of the file sees: rounded to float32, in float64."""
    return np.asarray(x, np.float32).astype(np.float64)


def squared(x, y):
    return ((x[:, None, :] - y[None, :, :]) ** 2).sum(axis=2)


def by_first(labels):
    """Numbers labels from 0 in order of first appearance."""
    names = {}
    return np.array([names.setdefault(int(label), len(names)) for label in labels])


def people(rng, n, dim, persons, noise, tint):
    """Crops of some people by six cameras; who is where is uneven, and a camera tints what it sees."""
    share = rng.uniform(0.2, 1.0, persons)
    ids = rng.choice(persons, n, p=share / share.sum())
    cameras = rng.integers(0, 6, n)
    x = rng.normal(size=(persons, dim))[ids] + tint * rng.normal(size=(6, dim))[cameras]
    return single(unit(x + noise * rng.normal(size=(n, dim)))), ids, cameras


# ---------------------------------------------------------------------------------------------- average linkage


def average_linkage(d):
    """Heights, and the smallest lead of the chosen merge over any other at its time (merges at 0 aside)."""
    clusters = [[i] for i in range(len(d))]
    heights, lead = [], np.inf
    while len(clusters) > 1:
        values = sorted(
            (d[np.ix_(a, b)].mean(), i, j) for i, a in enumerate(clusters) for j, b in enumerate(clusters) if i < j
        )
        height, i, j = values[0]
        if height > 0 and len(values) > 1:
            lead = min(lead, values[1][0] - height)
        heights.append(height)
        clusters[i] = clusters[i] + clusters.pop(j)
    return np.array(heights), lead


def agglomerative():
    for n, persons, noise in ((12, 4, 0.6), (40, 9, 0.7), (75, 14, 0.8), (120, 22, 0.8)):
        for seed in range(1000):
            rng = np.random.default_rng([1, n, seed])
            x, _, _ = people(rng, n, 12, persons, noise, 0.4)
            if n == 75:
                x[rng.permutation(40)[:5]] = x[70:]
            d = np.sqrt(squared(x, x))
            d = single((d + d.T) / 2)
            z = linkage(squareform(d, checks=True), "average")
            zero = int((z[:, 2] == 0).sum())
            gaps = np.diff(z[zero:, 2])
            if gaps.min() < 1e-5:
                continue
            if n <= 75:
                heights, lead = average_linkage(d)
                np.testing.assert_allclose(heights, z[:, 2], atol=1e-12)
            else:
                # The whole check is slow; average linkage is reducible, so gaps of the heights are the room.
                lead = gaps.min()
            if lead > 1e-5:
                break
        else:
            raise SystemExit("no seed")
        counts = {1, 2, 3, n // 4, n // 2, n - zero - 1}
        if n >= 40:
            counts |= {n - s * int(0.07 * n) for s in (1, 6, 13)}
        counts = sorted(c for c in counts if c <= n - zero)
        by_count = [by_first(fcluster(z, c, "maxclust")) for c in counts]
        assert [len(set(labels)) for labels in by_count] == counts
        wide = [zero + i for i in np.argsort(-gaps) if z[zero + i, 2] < 0.97 * z[-1, 2]][:4]
        thresholds = single(sorted((z[i, 2] + z[i + 1, 2]) / 2 for i in wide))
        by_threshold = [by_first(fcluster(z, t, "distance")) for t in thresholds]
        for t, labels in zip(thresholds, by_threshold):
            assert len(set(labels)) == n - (z[:, 2] <= t).sum()
        put(
            f"agglomerative.n{n}",
            condensed=squareform(d, checks=False),
            heights=z[:, 2],
            merges=z[:, [0, 1, 3]].astype(np.int64),
            cluster_counts=np.array(counts),
            labels_by_count=np.array(by_count),
            thresholds=thresholds,
            labels_by_threshold=np.array(by_threshold),
        )
        print(f"agglomerative.n{n} seed {seed} room {lead:.1e} counts {counts} thresholds {thresholds.round(4)}")


# ---------------------------------------------------------------------------------------------- bottom-up merging


def bottom_up(d, weight, merges, steps, apart=None, skip=None, grow=False):
    """Labels after each step, and the smallest lead of a merge over the best merge of two other clusters."""
    n = len(d)
    upper = np.triu(np.ones((n, n), bool), 1)
    labels, history, lead = np.arange(n), [], np.inf
    for _ in range(steps):
        sizes = np.array([(labels == label).sum() for label in labels])
        for _ in range(merges):
            if grow:
                sizes = np.array([(labels == label).sum() for label in labels])
            allowed = upper & (labels[:, None] != labels[None, :])
            if skip is not None:
                allowed &= ~skip
            if apart is not None:
                member = (labels[:, None] == np.unique(labels)[None, :]).astype(float)
                conflict = member.T @ apart @ member > 0  # cluster by cluster
                allowed &= member @ conflict @ member.T == 0
            if not allowed.any():
                break
            values = np.where(allowed, d + weight * (sizes[:, None] + sizes[None, :]), np.inf)
            i, j = np.unravel_index(np.argmin(values), values.shape)  # the first of equals, by rows
            a, b = labels[i], labels[j]
            same = np.isin(labels, (a, b))
            others = values[~(same[:, None] & same[None, :])]
            if np.isfinite(others).any():
                lead = min(lead, others.min() - values[i, j])
            labels = np.where(labels == b, a, labels)
        labels = by_first(labels)
        history.append(labels)
    return np.array(history), lead


MP, STEPS = 0.05, 19


def merging():
    for n, persons in ((24, 6), (64, 12), (100, 16)):
        for seed in range(1000):
            rng = np.random.default_rng([2, n, seed])
            frames = np.arange(n) // 3
            cameras = rng.integers(0, 6, n // 3 + 1)[frames]
            x = rng.normal(size=(persons, 16))[rng.integers(0, persons, n)] + 0.5 * rng.normal(size=(6, 16))[cameras]
            x += 0.7 * rng.normal(size=(n, 16)) + 0.6 * rng.normal(size=(n // 3 + 1, 16))[frames]
            order = rng.permutation(n)
            x, frames, cameras = single(unit(x))[order], frames[order], cameras[order]
            d = squared(x, x)
            d = single((d + d.T) / 2)
            root = single(np.sqrt(d))
            frame = (frames[:, None] == frames[None, :]) & ~np.eye(n, dtype=bool)
            camera = (cameras[:, None] == cameras[None, :]) & ~np.eye(n, dtype=bool)
            small, large = single(0.003), single(0.03)
            merges = int(n * MP)
            variants = {
                "plain": (d, 0.0, {}),
                "penalty": (d, small, {}),
                "strong": (d, large, {}),
                "grow": (d, large, {"grow": True}),
                "unsquared": (root, large, {}),
                "apart": (d, 0.0, {"apart": frame}),
                "penalty_apart": (d, small, {"apart": frame}),
                "cameras_apart": (d, small, {"apart": camera}),
                "skip": (d, 0.0, {"skip": frame}),
                "penalty_skip": (d, large, {"skip": frame}),
            }
            results, room = {}, np.inf
            for name, (matrix, weight, rule) in variants.items():
                labels, lead = bottom_up(matrix, weight, merges, STEPS, **rule)
                results[name], room = labels, min(room, lead)
                if room < 1e-5:
                    break
            else:
                tellings = [
                    ("plain", "penalty"), ("penalty", "strong"), ("strong", "grow"), ("strong", "unsquared"),
                    ("plain", "apart"), ("penalty", "penalty_apart"), ("plain", "skip"), ("apart", "skip"),
                ]  # fmt: skip
                if merges == 1:
                    tellings.remove(("strong", "grow"))  # one merge a step: the same by definition
                if all((results[a] != results[b]).any() for a, b in tellings):
                    break
        else:
            raise SystemExit("no seed")
        pairs = np.argwhere(np.triu(frame))
        put(
            f"bottom_up.n{n}",
            features=x,
            condensed=squareform(d, checks=False),
            cameras=cameras,
            frames=frames,
            same_frame=pairs,
            merges_per_step=merges,
            mp=MP,
        )
        for name, labels in results.items():
            clusters = labels.max(axis=1) + 1
            put(f"bottom_up.n{n}.{name}", labels=labels, clusters=clusters, **{"lambda": float(variants[name][1])})
            full = n - merges * np.arange(1, STEPS + 1)
            assert "apart" in name or (clusters == full).all()
            print(f"bottom_up.n{n}.{name} clusters {clusters[-1]} of {full[-1]}, biggest {np.bincount(labels[-1]).max()}")
        print(f"bottom_up.n{n} seed {seed} merges {merges} room {room:.1e}")

    rng = np.random.default_rng([2, 3])
    points = np.array(sorted({(int(a), int(b)) for a, b in rng.integers(0, 6, (24, 2))}))
    points = points[rng.permutation(len(points))][:18].astype(np.float64)
    d = squared(points, points)
    labels, _ = bottom_up(d, 0.25, 2, 7)
    put("bottom_up.ties", points=points, condensed=squareform(d), labels=labels, clusters=labels.max(axis=1) + 1)
    put("bottom_up.ties", **{"lambda": 0.25, "merges_per_step": 2})

    n, fakes = 40, 2
    for seed in range(1000):
        rng = np.random.default_rng([2, 4, seed])
        ids, cameras = rng.integers(0, 9, n), rng.integers(0, 3, n)
        person, tint = rng.normal(size=(9, 16)), 0.6 * rng.normal(size=(3, 16))
        body = person[ids] + 0.7 * rng.normal(size=(n, 16))
        real = single(unit(body + tint[cameras]))
        fake = np.stack([body + tint[(cameras + k) % 3] for k in (1, 2)], axis=1)
        # A transferred image loses detail: it is nearer to other transferred images than it should be.
        fake = single(unit(0.8 * fake + 0.5 * rng.normal(size=(1, fakes, 16)) + 0.3 * rng.normal(size=(n, fakes, 16))))
        rr = squared(real, real)
        rf = squared(real, fake.reshape(n * fakes, 16)).reshape(n, n, fakes).min(axis=2)
        ff = squared(fake.reshape(n * fakes, 16), fake.reshape(n * fakes, 16)).reshape(n, fakes, n, fakes).min(axis=(1, 3))
        matrices = {}
        matrices["real"] = (rr + rr.T) / 2
        matrices["constrained"] = np.minimum(matrices["real"], np.minimum(rf, rf.T))
        matrices["all"] = np.minimum(matrices["constrained"], (ff + ff.T) / 2)
        room, results = np.inf, {}
        for name, matrix in matrices.items():
            np.fill_diagonal(matrix, 0.0)
            matrices[name] = single(matrix)
            results[name], lead = bottom_up(matrices[name], single(0.003), int(n * MP), STEPS)
            room = min(room, lead)
        if room > 1e-5 and len({labels.tobytes() for labels in results.values()}) == 3:
            break
    else:
        raise SystemExit("no seed")
    put("bottom_up.fakes", real=real, fake=fake, merges_per_step=int(n * MP), **{"lambda": 0.003})
    for name in matrices:
        put("bottom_up.fakes", **{f"condensed_{name}": squareform(matrices[name], checks=False), f"labels_{name}": results[name]})
    print(f"bottom_up.fakes seed {seed} room {room:.1e}")


# ---------------------------------------------------------------------------------------------- k-means


def lloyd(x, centres, empty="none", updates=None):
    """Centres, labels, inertias after each update (0: as given), until labels stay or for so many updates."""
    history, room = [], np.inf
    while True:
        d = squared(x, centres)
        labels = d.argmin(axis=1)
        order = np.sort(d, axis=1)
        room = min(room, (order[:, 1] - order[:, 0]).min())
        history.append((centres, labels, d[np.arange(len(x)), labels].sum()))
        done = len(history) > 1 and (history[-1][1] == history[-2][1]).all()
        if (updates is None and done) or len(history) - 1 == updates:
            return history, room
        members = [list(np.flatnonzero(labels == k)) for k in range(len(centres))]
        gone = [k for k, rows in enumerate(members) if not rows]
        assert empty != "none" or not gone
        if empty == "relocate":
            assert len(gone) < 2
            for k in gone:
                far = int(d[np.arange(len(x)), labels].argmax())
                members[labels[far]].remove(far)
                members[k] = [far]
        centres = np.array([x[rows].mean(axis=0) if rows else centres[k] for k, rows in enumerate(members)])


def k_means():
    def poses(rng, n):
        base = rng.uniform(0.2, 0.8, size=(6, 50))
        x = base[rng.integers(0, 6, n)] + 0.08 * rng.normal(size=(n, 50))
        unseen = rng.random((n, 25)) < 0.12
        return x * ~np.repeat(unseen, 2, axis=1)

    def blobs(rng, n, dim, k, noise):
        return rng.normal(size=(k, dim))[rng.integers(0, k, n)] + noise * rng.normal(size=(n, dim))

    sets = {
        "blobs": (lambda rng: blobs(rng, 120, 8, 6, 0.8), 6, "none", 4),
        "overlap": (lambda rng: blobs(rng, 200, 16, 10, 1.6), 10, "none", 8),
        "pose": (lambda rng: poses(rng, 80), 8, "none", 3),
        "empty_keep": (lambda rng: blobs(rng, 60, 4, 4, 0.7), 5, "keep", 3),
        "empty_relocate": (lambda rng: blobs(rng, 60, 4, 4, 0.7), 5, "relocate", 3),
    }
    for name, (make, k, empty, least) in sets.items():
        for seed in range(1000):
            rng = np.random.default_rng([3, len(name), seed])
            x = single(make(rng))
            initial = x[rng.choice(len(x), k, replace=False)].copy()
            if empty != "none":
                initial[2] = 9.0
            history, room = lloyd(x, initial, empty)
            if len(history) - 2 >= least and room > 1e-4:
                break
        else:
            raise SystemExit("no seed")
        if empty != "keep":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                for t in (1, 2, 3, 300):
                    theirs = KMeans(k, init=initial, n_init=1, max_iter=t, tol=0.0, algorithm="lloyd").fit(x)
                    mine = history[min(t, len(history) - 1)]
                    np.testing.assert_allclose(theirs.cluster_centers_, mine[0], atol=1e-9)
                    assert (theirs.labels_ == mine[1]).all()
                    np.testing.assert_allclose(theirs.inertia_, mine[2], rtol=1e-9)
        if empty == "keep":
            assert (np.array([labels for _, labels, _ in history]) != 2).all()
        put(
            f"kmeans.{name}",
            features=x,
            initial=initial,
            centres_by_iteration=np.array([h[0] for h in history[:4]]),
            labels_by_iteration=np.array([h[1] for h in history[:4]]),
            inertia_by_iteration=np.array([h[2] for h in history[:4]]),
            centres=history[-1][0],
            labels=history[-1][1],
            inertia=history[-1][2],
            iterations=len(history) - 2,
        )
        print(f"kmeans.{name} seed {seed} iterations {len(history) - 2} room {room:.1e} inertia {history[-1][2]:.4f}")
    x = out["kmeans.blobs.features"].astype(np.float64)
    chosen = np.array([17, 3, 88, 41, 64])
    shares, sums = [], []
    for c in range(len(chosen)):
        d = squared(x, x[chosen[: c + 1]]).min(axis=1)
        shares.append(d / d.sum())
        sums.append(d.sum())
    put("kmeans_pp.blobs", features=x, chosen=chosen, probabilities=np.array(shares), potentials=np.array(sums))


# ---------------------------------------------------------------------------------------------- Gaussian mixtures


def densities(x, weights, means, covariances):
    """log(weight) + log N(x | mean, covariance), sample by component."""
    columns = []
    for w, mean, covariance in zip(weights, means, covariances):
        full = np.diag(covariance) if covariance.ndim == 1 else covariance
        away = x - mean
        quadratic = (away * np.linalg.solve(full, away.T).T).sum(axis=1)
        columns.append(np.log(w) - 0.5 * (quadratic + np.linalg.slogdet(full)[1] + x.shape[1] * np.log(2 * np.pi)))
    return np.stack(columns, axis=1)


def expectation_maximisation(x, weights, means, covariances, steps, extra=1e-6):
    likelihoods = []
    for step in range(steps + 1):
        joint = densities(x, weights, means, covariances)
        total = logsumexp(joint, axis=1)
        likelihoods.append(total.mean())
        responsibilities = np.exp(joint - total[:, None])
        if step == steps:
            return np.array(likelihoods), weights, means, covariances, responsibilities
        mass = responsibilities.sum(axis=0)
        weights = mass / len(x)
        means = (responsibilities.T @ x) / mass[:, None]
        fresh = []
        for k in range(len(weights)):
            away = x - means[k]
            if covariances.ndim == 2:
                fresh.append((responsibilities[:, k, None] * away**2).sum(axis=0) / mass[k] + extra)
            else:
                fresh.append((responsibilities[:, k, None] * away).T @ away / mass[k] + extra * np.eye(x.shape[1]))
        covariances = np.array(fresh)


def mixtures():
    def draw(rng, n, dim, k, spread):
        parts = rng.choice(k, n, p=np.arange(2, k + 2) / np.arange(2, k + 2).sum())
        mix = rng.normal(size=(k, dim, dim)) * 0.5 + np.eye(dim)
        return spread * rng.normal(size=(k, dim))[parts] + np.einsum("nij,nj->ni", mix[parts], rng.normal(size=(n, dim))), parts

    for name, n, dim, k, spread in (("small", 150, 3, 3, 1.5), ("wide", 200, 8, 4, 1.5), ("missing", 160, 6, 3, 2.0)):
        rng = np.random.default_rng([4, len(name), n])
        x, parts = draw(rng, n, dim, k, spread)
        if name == "missing":
            x[:, -2:] += 3.0
            x[parts == 1, -2:] = 0.0
        x = single(x)
        means = x[rng.choice(n, k, replace=False)]
        if name == "missing":
            means = np.array([x[np.flatnonzero(parts == part)[1]] for part in range(k)])
        weights = single(np.arange(k, 2 * k) / np.arange(k, 2 * k).sum())
        for kind in ("diag", "full"):
            covariances = single(np.stack([np.full(dim, 0.8) + 0.2 * np.arange(dim) for _ in range(k)]))
            if kind == "full":
                mix = rng.normal(size=(k, dim, dim)) * 0.2 + np.eye(dim)
                covariances = single(mix @ mix.transpose(0, 2, 1))
            if name == "missing":
                # The groups must come apart, or nothing has the variance 1e-6.
                covariances[1] = np.full(dim, 0.05) if kind == "diag" else 0.05 * np.eye(dim)
                covariances = single(covariances)
            start = (weights, means, covariances)
            ours = expectation_maximisation(x, *start, 10)
            precisions = 1.0 / covariances if kind == "diag" else np.linalg.inv(covariances)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                for t in range(1, 11):
                    theirs = GaussianMixture(
                        k, covariance_type=kind, tol=0.0, reg_covar=1e-6, max_iter=t, random_state=0,
                        weights_init=weights / weights.sum(), means_init=means, precisions_init=precisions,
                    ).fit(x)  # fmt: skip
                    np.testing.assert_allclose(theirs.score(x), ours[0][t], rtol=1e-6, atol=1e-7)
            for a, b in zip((theirs.weights_, theirs.means_, theirs.covariances_, theirs.predict_proba(x)), ours[1:]):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
            assert (np.diff(ours[0]) > -1e-6).all()
            put(
                f"gmm.{name}_{kind}",
                features=x,
                initial_weights=weights,
                initial_means=means,
                initial_covariances=covariances,
                log_likelihood=ours[0],
                weights=ours[1],
                means=ours[2],
                covariances=ours[3],
                responsibilities=ours[4],
            )
            print(f"gmm.{name}_{kind} log-likelihood {ours[0][0]:.4f} -> {ours[0][-1]:.4f}, smallest variance",
                  f"{(ours[3] if kind == 'diag' else np.diagonal(ours[3], axis1=1, axis2=2)).min():.2e}")  # fmt: skip


# ---------------------------------------------------------------------------------------------- radial distance


def radial():
    rng = np.random.default_rng(5)
    labels = np.concatenate([np.repeat(np.arange(5), 9), [5]])
    x = single(0.5 * rng.normal(size=(6, 12))[labels] + 0.5 * rng.normal(size=(46, 12)))
    order = rng.permutation(46)
    x, labels = x[order], labels[order]
    centroids = np.array([x[labels == c].mean(axis=0) for c in range(6)])
    radii = np.array([np.linalg.norm(x[labels == c] - centroids[c], axis=1).max() for c in range(6)])
    rows = rng.permutation(46)[:16]
    batch, own = single(x[rows] + 0.3 * rng.normal(size=(16, 12))), labels[rows]
    gamma = single(0.3)
    d = np.sqrt(squared(batch, centroids))
    terms = np.maximum(0.0, radii + gamma - d)
    terms[np.arange(16), own] = 0.0
    slope = -((terms > 0) / d)[:, :, None] * (batch[:, None, :] - centroids[None, :, :])
    assert radii[5] == 0 and (terms > 0).any() and (terms == 0).sum() > 16
    assert np.abs(radii + gamma - d).min() > 1e-4
    put(
        "radial.plain",
        features=x,
        labels=labels,
        centroids=centroids,
        radii=radii,
        batch=batch,
        batch_labels=own,
        gamma=gamma,
        terms=terms,
        sum=terms.sum(),
        mean=terms.sum(axis=1).mean(),
        violators_mean=terms[terms > 0].mean(),
        violations=(terms > 0).sum(),
        gradient=slope.sum(axis=1),
    )
    print("radial.plain violations", (terms > 0).sum(), "of", 16 * 5)


# ---------------------------------------------------------------------------------------------- k-reciprocal, DBSCAN


def k_reciprocal(x, columns, half, k2, weights):
    """Jaccard distances (all pairs), squared Euclidean distances, and the smallest gap where a list is cut.

    `columns` and `half` count the image itself. weights: "exp" (over the row maximum) or "softmax".
    """
    n = len(x)
    d = squared(x, x)
    rank = np.argsort(d, axis=1, kind="stable")
    ordered = np.take_along_axis(d, rank, axis=1)
    gap = min((ordered[:, cut] - ordered[:, cut - 1]).min() for cut in {columns, half, k2} - {1})

    def mutual(length):
        near = np.zeros((n, n), bool)
        np.put_along_axis(near, rank[:, :length], True, axis=1)
        return near & near.T

    whole, part = mutual(columns), mutual(half)
    v = np.zeros((n, n))
    for i in range(n):
        members = whole[i].copy()
        for c in np.flatnonzero(whole[i]):
            if 3 * (part[c] & whole[i]).sum() > 2 * part[c].sum():
                members |= part[c]
        scaled = d[i] / d[i].max() if weights == "exp" else d[i]
        v[i] = np.where(members, np.exp(-scaled), 0.0)
        v[i] /= v[i].sum()
    if k2 > 1:
        v = np.stack([v[rank[i, :k2]].mean(axis=0) for i in range(n)])
    shared = np.stack([np.minimum(v[i], v).sum(axis=1) for i in range(n)])
    return np.maximum(0.0, 1.0 - shared / (2.0 - shared)), d, gap


def rho_rule(values, rhos):
    """For each rho the mean of that share of the smallest values that are not zero, and how many they are."""
    values = np.sort(values[values > 1e-6])
    assert all(abs(rho * len(values) % 1 - 0.5) > 0.01 for rho in rhos)
    tops = [int(np.around(rho * len(values))) for rho in rhos]
    return [values[:top].mean() for top in tops], tops


VARIANTS = [("zhong", 20, 6), ("spcl", 20, 6), ("spcl", 30, 6), ("spcl", 13, 1)]
EPS, RHO = [0.4, 0.5, 0.6], [1.6e-3, 2e-3, 1e-2]


def crops(rng):
    rows, persons = [], []
    for person in range(12):
        centre, spread = rng.normal(size=16), rng.uniform(0.35, 0.75)
        if person % 4 == 3:
            centre = 0.75 * last + 0.66 * centre
        last = centre
        for _ in range(rng.integers(4, 25)):
            rows.append(centre + spread * rng.normal(size=16))
            persons.append(person)
    rows, persons = rows[:172], persons[:172]
    while len(rows) < 200:
        rows.append(rng.normal(size=16))
        persons.append(-2 - len(rows))
    cameras = rng.integers(0, 6, 200)
    x = np.array(rows) + 0.3 * rng.normal(size=(6, 16))[cameras]
    order = rng.permutation(200)
    return single(unit(x))[order], np.array(persons)[order], cameras[order]


def jaccard():
    for seed in range(400):
        rng = np.random.default_rng([6, seed])
        x, persons, cameras = crops(rng)
        found, good = {}, True
        for family, k1, k2 in VARIANTS:
            columns = k1 + 1 if family == "zhong" else k1
            half = int(np.around(k1 / 2)) + 1
            j, _, gap = k_reciprocal(x, columns, half, k2, "exp" if family == "zhong" else "softmax")
            np.testing.assert_allclose(j, j.T, atol=1e-12)
            upper = j[np.triu_indices(200, 1)]
            room = min(np.abs(upper - single(eps)).min() for eps in EPS)
            fits = [DBSCAN(eps=float(single(eps)), min_samples=4, metric="precomputed").fit(j) for eps in EPS]
            good = gap > 2e-6 and room > 1e-5 and min(fit.labels_.max() for fit in fits) >= 3
            # Six nearest in common make J exactly 0 in mathematics and 1e-16 in float64: nothing lies between.
            good &= not ((upper > 1e-12) & (upper < 1e-4)).any()
            if not good:
                break
            found[f"{family}_{k1}_{k2}"] = (j, columns, gap, room)
        if good:
            break
    else:
        raise SystemExit("no seed")
    put("crops.people", features=x, persons=persons, cameras=cameras)
    for name, (j, columns, gap, room) in found.items():
        upper = np.where(j < 1e-12, 0.0, j)[np.triu_indices(200, 1)]
        _, k1, k2 = name.split("_")
        put(f"jaccard.{name}", k1=int(k1), k2=int(k2), columns=columns, condensed=upper, gap=gap)
        labels, core = [], []
        for eps in EPS:
            fit = DBSCAN(eps=float(single(eps)), min_samples=4, metric="precomputed").fit(squareform(upper))
            labels.append(fit.labels_)
            core.append(np.isin(np.arange(200), fit.core_sample_indices_))
        rho_eps, tops = rho_rule(upper, RHO)
        put(
            f"dbscan.{name}",
            eps=EPS,
            labels=np.array(labels),
            core=np.array(core),
            rho=RHO,
            rho_eps=rho_eps,
        )
        print(f"jaccard.{name} seed {seed} gap {gap:.1e} room {room:.1e} clusters {[l.max() + 1 for l in labels]}",
              f"outliers {[int((l < 0).sum()) for l in labels]} zeros {(upper == 0).sum()} rho {np.round(rho_eps, 4)} of {tops}")  # fmt: skip
    rng = np.random.default_rng([6, 1])
    values = single(rng.uniform(0.05, 1.0, 1225))
    values[rng.permutation(1225)[:9]] = 0.0
    values[rng.permutation(1225)[:6]] = single(rng.uniform(1e-9, 4e-7, 6))
    eps, tops = rho_rule(values, [4e-3, 2e-2])
    put("rho.zeros", condensed=values, rho=[4e-3, 2e-2], eps=eps)
    print("rho.zeros", eps, tops)


# ---------------------------------------------------------------------------------------------- quality of a clustering


def entropies(labels):
    share = np.bincount(by_first(labels)) / len(labels)
    return -(share * np.log(share)).sum()


def quality():
    def measure(name, truth, labels, cameras):
        truth, labels, cameras = (np.asarray(a) for a in (truth, labels, cameras))
        kept = labels >= 0
        alone = np.where(kept, labels, labels.max() + 1 + np.arange(len(labels)))
        numbers = {}
        for prefix, a, b in (("kept", truth[kept], labels[kept]), ("single", truth, alone)):
            information = mutual_info_score(a, b)
            mean = (entropies(a) + entropies(b)) / 2
            nmi = normalized_mutual_info_score(a, b)
            assert mean == 0 or abs(nmi - information / mean) < 1e-9
            numbers[f"{prefix}_nmi"] = nmi
            numbers[f"{prefix}_ari"] = adjusted_rand_score(a, b)
            numbers[f"{prefix}_purity"] = sum(np.bincount(by_first(a[b == c])).max() for c in set(b)) / len(b)
            numbers[f"{prefix}_mi"] = information
        put(
            f"quality.{name}",
            truth=truth,
            labels=labels,
            cameras=cameras,
            cameras_mi=mutual_info_score(labels[kept], cameras[kept]),
            truth_cameras_mi=mutual_info_score(truth, cameras),
            lost_ids=len(set(truth)) - len(set(truth[kept])),
            **numbers,
        )
        print(f"quality.{name}", {k: round(float(v), 4) for k, v in numbers.items()})

    persons, cameras = out["crops.people.persons"], out["crops.people.cameras"]
    for name in ("zhong_20_6", "spcl_30_6"):
        measure(name, persons, out[f"dbscan.{name}.labels"][1], cameras)
    rng = np.random.default_rng(7)
    truth, views = rng.integers(0, 6, 40), rng.integers(0, 4, 40)
    measure("perfect", truth, (truth + 2) % 6, views)
    measure("one_cluster", truth, np.zeros(40, int), views)
    measure("singletons", truth, np.arange(40), views)
    measure("hand", [0, 0, 0, 1, 1, 1, 2, 2, 3, 3], [0, 0, 1, 1, 1, -1, 2, 2, -1, -1], [0, 1, 0, 1, 0, 1, 0, 0, 1, 1])


def main():
    agglomerative()
    merging()
    k_means()
    mixtures()
    radial()
    jaccard()
    quality()
    path = HERE / "clustering.safetensors"
    save_file(out, path, metadata={"cases": ",".join(cases)})
    path.chmod(0o644)
    print(path.stat().st_size, "bytes", len(cases), "cases", len(out), "arrays")


if __name__ == "__main__":
    main()
