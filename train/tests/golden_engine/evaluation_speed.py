#!/usr/bin/env python3
"""The evaluation of 3,368 queries against 15,913 images of 2,048 numbers with numpy: matrix product, then counting.

Prints wall and processor time; run it beside the ignored test of `evaluation.rs`, on the same number of threads.
"""

import time

import numpy as np


def measured(what, run):
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    print(f"{what}: {time.perf_counter() - wall:.3f} s wall, {time.process_time() - cpu:.3f} s processor")
    return found


def main():
    rng = np.random.default_rng(1)
    q, g = (rng.random((n, 2048), dtype=np.float32) - 0.5 for n in (3368, 15913))
    (q_pids, q_cams), (g_pids, g_cams) = ((np.arange(n) % 750, np.arange(n) // 750 % 6) for n in (3368, 15913))
    rows = [np.flatnonzero(g_pids == p) for p in range(750)]

    def ranking(scores):
        for i in range(len(scores)):
            row, mine = scores[i], rows[q_pids[i]]
            same = g_cams[mine] == q_cams[i]
            row[mine[same]] = -np.inf
            right = np.sort(row[mine[~same]])[::-1]
            # Counting: how many are at least as near as each right answer.
            places = [np.count_nonzero(row >= r) for r in right]
            np.mean(np.arange(1, len(right) + 1) / places)

    for _ in range(3):
        scores = measured("matrix product", lambda: q @ g.T)
        measured("ranking by counting", lambda: ranking(scores))


if __name__ == "__main__":
    main()
