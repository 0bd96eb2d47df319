#!/usr/bin/env python3
"""Makes evaluation.npz: the Market-1501 protocol by plain sorting, and k-reciprocal re-ranking by dense matrices.

Written from the text of the protocol (Zheng et al. 2015; Ye et al. 2021 for mINP; Zhong et al. 2017 for re-ranking).
Average precision comes from scikit-learn where no two similarities are equal, and from a loop over the sorted list
where some are. Needs numpy and scikit-learn:  python evaluation.py
"""

import pathlib

import numpy as np
from sklearn.metrics import average_precision_score

HERE = pathlib.Path(__file__).parent


def people(rng, queries, gallery, width, noise):
    ids = rng.integers(1, 26, size=queries + gallery)
    cams = rng.integers(1, 7, size=queries + gallery)
    centres = rng.normal(size=(26, width))
    tint = rng.normal(size=(7, width))
    x = centres[ids] + 0.5 * tint[cams] + noise * rng.normal(size=(queries + gallery, width))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    g_ids = ids[queries:].copy()
    g_ids[rng.random(gallery) < 0.15] = 0  # distractors: wrong for everyone
    g_ids[rng.random(gallery) < 0.10] = -1  # junk: neither right nor wrong
    q_ids, q_cams, g_cams = ids[:queries].copy(), cams[:queries], cams[queries:].copy()
    q_ids[3] = 777  # not in the gallery at all
    g_cams[g_ids == q_ids[5]] = q_cams[5]  # seen by the query's own camera only
    return x[:queries], x[queries:], q_ids, g_ids, q_cams, g_cams


def by_sorting(distances, q_ids, g_ids, q_cams, g_cams, scikit):
    rows, cmc = [], np.zeros(10)
    for q in range(len(q_ids)):
        order = np.argsort(distances[q], kind="stable")
        order = [g for g in order if g_ids[g] != -1 and not (g_ids[g] == q_ids[q] and g_cams[g] == q_cams[q])]
        right = np.array([g_ids[g] == q_ids[q] for g in order])
        if not right.any():
            continue
        places = np.flatnonzero(right) + 1
        if scikit:
            ap = average_precision_score(right, -distances[q][order])
        else:
            ap = np.mean([(n + 1) / place for n, place in enumerate(places)])
        rows.append((q, places[0], ap, len(places) / places[-1]))
        cmc[places[0] - 1:] += 1
    rows = np.array(rows)
    return rows, np.array([*(cmc[[0, 4, 9]] / len(rows)), rows[:, 2].mean(), rows[:, 3].mean(), len(rows)])


def rerank(q, g, k1, k2, lam):
    """Final distance (queries x gallery); k1 counts columns including self."""
    x = np.vstack([q, g]).astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    n = len(x)
    d = np.maximum(2.0 - 2.0 * (x @ x.T), 0.0)
    np.fill_diagonal(d, 0.0)
    rank = np.argsort(d, axis=1, kind="stable")
    d = d / d.max(axis=1, keepdims=True)
    half = int(np.around(k1 / 2)) + 1

    def reciprocal(columns):
        near = [set(rank[i, :columns].tolist()) for i in range(n)]
        return [{j for j in near[i] if i in near[j]} for i in range(n)]

    whole, part = reciprocal(k1), reciprocal(half)
    v = np.zeros((n, n))
    for i in range(n):
        members = set(whole[i])
        for c in whole[i]:
            if 3 * len(part[c] & whole[i]) > 2 * len(part[c]):
                members |= part[c]
        members = sorted(members)
        w = np.exp(-d[i, members])
        v[i, members] = w / w.sum()
    if k2 > 1:
        v = np.stack([v[rank[i, :k2]].mean(axis=0) for i in range(n)])
    out = np.empty((len(q), len(g)))
    for i in range(len(q)):
        m = np.minimum(v[i][None, :], v[len(q):]).sum(axis=1)
        out[i] = (1 - lam) * (1 - m / (2 - m)) + lam * d[i, len(q):]
    return out


def room(distances):
    """The smallest difference between two distances of one row that are not exactly equal."""
    gaps = np.diff(np.sort(distances, axis=1), axis=1)
    return gaps[gaps > 1e-12].min()


def main():
    out = {}
    for seed in range(1, 100000):
        rng = np.random.default_rng(seed)
        q, g, *labels = people(rng, 40, 300, 16, 1.1)
        distances = 2.0 - 2.0 * (q.astype(np.float64) @ g.astype(np.float64).T)
        final = rerank(q, g, 21, 6, 0.3)
        if room(distances) > 4e-7 and room(final) > 1e-7:
            break
    rows, summary = by_sorting(distances, *labels, scikit=True)
    rerows, resummary = by_sorting(final, *labels, scikit=True)
    print("seed", seed, "plain", summary, "re-ranked", resummary)
    out |= dict(zip(["query", "gallery", "query_pids", "gallery_pids", "query_cams", "gallery_cams"], [q, g, *labels]))
    out |= {"rows": rows, "summary": summary, "rerank.rows": rerows, "rerank.summary": resummary}
    out["rerank.distances"] = final.astype(np.float32)

    # Ties: four entries of +-0.5, a vector of length 1, so that every dot product is exact and many are equal.
    rng = np.random.default_rng(7)
    q, g, *labels = people(rng, 40, 300, 16, 0.6)
    q, g = (np.where(a[:, :4] < 0, -0.5, 0.5).astype(np.float32) for a in (q, g))
    distances = -(q @ g.T)
    rows, summary = by_sorting(distances, *labels, scikit=False)
    print("ties", summary)
    for name, value in zip(["query", "gallery", "query_pids", "gallery_pids", "query_cams", "gallery_cams"], [q, g, *labels]):
        out[f"ties.{name}"] = value
    out |= {"ties.rows": rows, "ties.summary": summary}
    np.savez_compressed(HERE / "evaluation.npz", **out)


main()
