#!/usr/bin/env python3
"""Makes clustering.npz: a slow, dense k-reciprocal Jaccard distance and scikit-learn's DBSCAN on it.

Written from the text alone (Zhong et al. 2017, section 3; the variants of later unsupervised methods), as sets and
dense matrices in float64, so that it shares neither data structure nor order of summation with the sparse code it
checks. Needs numpy and scikit-learn:  python clustering.py

Running it again writes the same bytes on the same kind of processor; on another, numpy's sums (`*.rho`) may differ in the
last bit.
"""

import pathlib

import numpy as np
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, mutual_info_score

HERE = pathlib.Path(__file__).parent
# name, k1 (columns including self), k2, weights, [eps]
CASES = [
    ("softmax_30_6", 30, 6, "softmax", [0.4, 0.55, 0.6]),
    ("softmax_20_1", 20, 1, "softmax", [0.5]),
    ("exp_21_6", 21, 6, "exp", [0.5, 0.6]),
    # round(25 / 2) is 12, to even: 13 columns.
    ("softmax_25_4", 25, 4, "softmax", [0.5]),
]
MIN_SAMPLES = 4
RHOS = [1.6e-3, 2e-2]


def features(seed):
    """People of 2 to 24 crops, some of them near twins, and 40 crops that belong to nobody."""
    rng = np.random.default_rng(seed)
    rows, truth = [], []
    centre = rng.normal(size=24)
    for person in range(30):
        fresh = rng.normal(size=24)
        centre = 0.75 * centre + 0.66 * fresh if person % 5 == 4 else fresh
        spread = rng.uniform(0.3, 0.9)
        for _ in range(rng.integers(2, 25)):
            rows.append(centre + spread * rng.normal(size=24))
            truth.append(person)
    for _ in range(40):
        rows.append(rng.normal(size=24))
        truth.append(100 + len(rows))
    order = rng.permutation(len(rows))
    x = np.array(rows)[order]
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return x, np.array(truth)[order]


def jaccard(x, k1, k2, weights):
    """Dense J, and the smallest similarity gap at any column where a list is cut."""
    x = x.astype(np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    n = len(x)
    d = np.maximum(2.0 - 2.0 * (x @ x.T), 0.0)
    np.fill_diagonal(d, 0.0)
    rank = np.argsort(d, axis=1, kind="stable")
    half = int(np.around(k1 / 2)) + 1

    gap = np.inf
    for cut in (k1, half, k2):
        by_rank = np.take_along_axis(d, rank, axis=1)
        gap = min(gap, (by_rank[:, cut] - by_rank[:, cut - 1]).min())

    def reciprocal(columns):
        near = [set(rank[i, :columns].tolist()) for i in range(n)]
        return [{j for j in near[i] if i in near[j]} for i in range(n)]

    whole, part = reciprocal(k1), reciprocal(half)
    v = np.zeros((n, n))
    for i in range(n):
        expanded = set(whole[i])
        for c in whole[i]:
            if 3 * len(part[c] & whole[i]) > 2 * len(part[c]):
                expanded |= part[c]
        members = sorted(expanded)
        if weights == "softmax":
            w = np.exp(-d[i, members])
        else:
            w = np.exp(-d[i, members] / d[i].max())
        v[i, members] = w / w.sum()
    if k2 > 1:
        v = np.stack([v[rank[i, :k2]].mean(axis=0) for i in range(n)])
    j = np.empty((n, n))
    for i in range(n):
        m = np.minimum(v[i][None, :], v).sum(axis=1)
        j[i] = 1.0 - m / (2.0 - m)
    j = np.maximum(j, 0.0)
    # The diagonal and duplicates are mathematically 0; what is left there is rounding.
    j[j < 1e-12] = 0.0
    np.fill_diagonal(j, 0.0)
    return j, gap


def main():
    for seed in range(1, 2000):
        x, truth = features(seed)
        out = {"features": x, "truth": truth.astype(np.int64)}
        good = True
        for name, k1, k2, weights, epsilons in CASES:
            j, gap = jaccard(x, k1, k2, weights)
            # float32 must be able to reproduce every cut.
            good &= gap > 3e-6 and all(np.abs(j - eps).min() > 2e-5 for eps in epsilons)
            if not good:
                break
            upper = np.triu(j, 1)
            rows, cols = np.nonzero((upper < 1.0 - 1e-9) & np.triu(np.ones_like(j, bool), 1))
            out[f"{name}.rows"] = rows.astype(np.int32)
            out[f"{name}.cols"] = cols.astype(np.int32)
            out[f"{name}.distances"] = j[rows, cols].astype(np.float32)
            for eps in epsilons:
                labels = DBSCAN(eps=eps, min_samples=MIN_SAMPLES, metric="precomputed").fit_predict(j)
                out[f"{name}.labels_{eps}"] = labels.astype(np.int64)
                print(seed, name, eps, "clusters", labels.max() + 1, "outliers", (labels < 0).sum(), "of", len(x))
                if eps == 0.55:
                    kept = labels >= 0
                    a, b = truth[kept], labels[kept]
                    out["agreement"] = np.array([
                        normalized_mutual_info_score(a, b),
                        adjusted_rand_score(a, b),
                        sum(np.bincount(a[b == c]).max() for c in np.unique(b)) / len(b),
                        mutual_info_score(a, b),
                    ])
            values = upper[np.triu_indices(len(x), 1)]
            values = np.sort(values[values > 0])
            out[f"{name}.rho"] = np.array([values[: int(np.around(r * len(values)))].mean() for r in RHOS])
        if good:
            np.savez_compressed(HERE / "clustering.npz", **out)
            print("seed", seed, "n", len(x))
            return
    raise SystemExit("no seed leaves float32 enough room")


main()
