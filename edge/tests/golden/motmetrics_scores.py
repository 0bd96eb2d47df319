"""Makes motmetrics_scores.json and the MOTChallenge files beside it: random tracks of three cameras with misses,
false positives, jitter and identity swaps, scored by py-motmetrics 1.4.

    pip install motmetrics==1.4.0 && python motmetrics_scores.py
"""

import json
import pathlib

import motmetrics as mm
import numpy as np

# motmetrics 1.4.0 still calls what numpy 2 took away.
np.asfarray = lambda a: np.asarray(a, dtype=float)

HERE = pathlib.Path(__file__).parent
METRICS = [
    "idf1", "idp", "idr", "mota", "num_switches", "precision", "recall",
    "num_misses", "num_false_positives", "num_objects", "num_predictions",
]


def world(rng, camera, frames=40, people=6):
    """Truth rows (with unconsidered rows and another class among them) and result rows."""
    truth, results = [], []
    alias = {p: p + 100 for p in range(1, people + 1)}
    start = rng.uniform(0, 300, size=(people, 2))
    speed = rng.uniform(-4, 4, size=(people, 2))
    for frame in range(1, frames + 1):
        if rng.random() < 0.12:
            a, b = rng.choice(people, 2, replace=False) + 1
            alias[a], alias[b] = alias[b], alias[a]
        if rng.random() < 0.08:
            alias[rng.integers(1, people + 1)] = int(200 + camera * 50 + frame)
        for p in range(1, people + 1):
            if not (p * 2 <= frame <= frames - (p * 3) % 7):
                continue
            x, y = start[p - 1] + speed[p - 1] * frame
            truth.append([frame, p, x, y, 40, 100, 1, 1, 1])
            if rng.random() < 0.12:
                continue
            dx, dy = rng.normal(0, 7, size=2)
            w, h = 40 * rng.uniform(0.8, 1.25), 100 * rng.uniform(0.8, 1.25)
            results.append([frame, alias[p], x + dx, y + dy, w, h, rng.uniform(0.3, 1), -1, -1, -1])
        if rng.random() < 0.3:
            x, y = rng.uniform(0, 400, size=2)
            results.append([frame, 900 + int(rng.integers(0, 3)), x, y, 40, 100, 0.4, -1, -1, -1])
        if frame % 9 == 0:
            truth.append([frame, 50, 600, 20, 30, 30, 0, 1, 1])
            truth.append([frame, 51, 700, 20, 30, 30, 1, 3, 1])
    return truth, results


def write(path, rows):
    def text(v):
        return str(v) if isinstance(v, (int, np.integer)) else f"{v:.2f}"
    path.write_text("".join(",".join(text(v) for v in row) + "\n" for row in rows))


def load(path, is_truth):
    rows = [[float(v) for v in line.split(",")] for line in path.read_text().splitlines()]
    if is_truth:
        rows = [r for r in rows if r[6] != 0 and r[7] == 1]
    frames = {}
    for r in rows:
        frames.setdefault(int(r[0]), []).append((int(r[1]), r[2:6]))
    return frames


def score(cameras):
    """Cameras one after the other in one accumulator, ids shared."""
    acc, number = mm.MOTAccumulator(auto_id=False), 0
    for name in cameras:
        truth, results = load(HERE / f"motmetrics_{name}_gt.txt", True), load(HERE / f"motmetrics_{name}_results.txt", False)
        for frame in sorted(set(truth) | set(results)):
            number += 1
            t, r = truth.get(frame, []), results.get(frame, [])
            distance = mm.distances.iou_matrix([b for _, b in t], [b for _, b in r], max_iou=0.5)
            acc.update([i for i, _ in t], [i for i, _ in r], distance, frameid=number)
    row = mm.metrics.create().compute(acc, metrics=METRICS, name="all").iloc[0]
    return {m: float(row[m]) for m in METRICS}


def main():
    rng = np.random.default_rng(7)
    cameras = ["cam1", "cam2", "cam3"]
    for i, name in enumerate(cameras):
        truth, results = world(rng, i)
        write(HERE / f"motmetrics_{name}_gt.txt", truth)
        write(HERE / f"motmetrics_{name}_results.txt", results)
    wanted = {name: score([name]) for name in cameras}
    wanted["all"] = score(cameras)
    (HERE / "motmetrics_scores.json").write_text(json.dumps(wanted, indent=1) + "\n")


if __name__ == "__main__":
    main()
