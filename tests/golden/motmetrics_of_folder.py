"""IDF1, MOTA and identity switches over several cameras by motmetrics, as one JSON object.

usage: motmetrics_of_folder.py GT_FOLDER RESULTS_FOLDER

Both folders hold one MOTChallenge file per camera, identities shared by all cameras. Cameras are joined in time:
camera k's frames are shifted by k times an offset larger than any frame number.
"""
import json
import pathlib
import sys

import numpy as np

if not hasattr(np, "asfarray"):  # motmetrics 1.4 calls it, NumPy 2 has removed it
    np.asfarray = lambda a: np.asarray(a, dtype=float)
import motmetrics as mm  # noqa: E402

OFFSET = 1_000_000


def read(path):
    """frame -> list of (id, left, top, width, height)."""
    rows = {}
    for line in path.read_text().split():
        values = [float(v) for v in line.split(",")]
        rows.setdefault(int(values[0]), []).append((int(values[1]), *values[2:6], values[6]))
    return rows


def main():
    gt_folder, result_folder = map(pathlib.Path, sys.argv[1:3])
    accumulator = mm.MOTAccumulator()
    for camera, gt_path in enumerate(sorted(gt_folder.glob("*.txt"))):
        truth, found = read(gt_path), read(result_folder / gt_path.name)
        for frame in sorted(set(truth) | set(found)):
            # A truth row with its seventh number 0 is not to be considered.
            t = [row for row in truth.get(frame, []) if row[5] != 0]
            f = found.get(frame, [])
            distances = mm.distances.iou_matrix(
                np.array([r[1:5] for r in t]), np.array([r[1:5] for r in f]), max_iou=0.5
            )
            accumulator.update([r[0] for r in t], [r[0] for r in f], distances, frameid=camera * OFFSET + frame)
    metrics = mm.metrics.create().compute(accumulator, metrics=["idf1", "mota", "num_switches"], name="all")
    row = metrics.iloc[0]
    print(json.dumps({"idf1": float(row.idf1), "mota": float(row.mota), "id_switches": int(row.num_switches)}))


main()
