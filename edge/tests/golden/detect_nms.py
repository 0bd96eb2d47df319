"""Boxes of three classes and which of them non-maximum suppression keeps.

Writes detect_nms.safetensors beside this script.

Definition: torchvision.ops.batched_nms (greedy, per class, a box goes if its
IoU with a kept one is above the threshold), by nms() of detect_common.py for
each class; OpenCV's cv2.dnn.NMSBoxesBatched must keep the same where it can be
imported.

  boxes (400, 4) f32: left, top, right, bottom; scores (400) f32;
  classes (400) i32; keep_30, keep_45, keep_70: i32, indices of the boxes kept
  at IoU 0.30, 0.45, 0.70, best score first over all classes.

No IoU of a class lies within 0.0005 of a threshold, no two scores are equal.

Made with: Python 3.11, numpy 2.4.6, safetensors 0.8.0, opencv-python-headless
5.0.0.93.  Seed: 7501.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import detect_common as dc

SEED = 7501
THRESHOLDS = (0.30, 0.45, 0.70)


def make(rand, n=400):
    centre = rand.uniform(0, 300, (25, 2))[rand.integers(0, 25, n)] + rand.normal(0, 12, (n, 2))
    size = np.exp(rand.normal([3.2, 4.0], 0.35, (n, 2)))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], 1).astype(np.float32)
    scores = rand.uniform(0.05, 1.0, n).astype(np.float32)
    classes = rand.integers(0, 3, n).astype(np.int32)
    b, s = boxes.astype(np.float64), scores.astype(np.float64)
    iou = dc.iou_matrix(b)
    iou = iou[(classes[:, None] == classes) & ~np.eye(n, dtype=bool)]
    dc.need(len(np.unique(scores)) == n, "tied scores")
    dc.need(all((abs(iou - t) > 0.0005).all() for t in THRESHOLDS), "IoU at a threshold")
    out = {"boxes": boxes, "scores": scores, "classes": classes}
    for t in THRESHOLDS:
        keep = []
        for c in range(3):
            of = np.where(classes == c)[0]
            keep += [int(of[i]) for i in dc.nms(b[of], s[of], t)]
        keep.sort(key=lambda i: -s[i])
        try:
            import cv2

            xywh = np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], 1).tolist()
            got = cv2.dnn.NMSBoxesBatched(xywh, s.tolist(), classes.tolist(), 0.0, t)
            assert sorted(np.array(got).ravel().tolist()) == sorted(keep), "cv2 disagrees"
        except ImportError:
            pass
        out[f"keep_{round(100 * t)}"] = np.array(keep, np.int32)
        print(f"IoU {t}: {len(keep)} of {n} kept")
    return out


def main():
    out, sub = dc.first_unambiguous(make, SEED)
    path = Path(__file__).with_suffix(".safetensors")
    save_file(out, path)
    print(path.name, path.stat().st_size, "bytes, sub-seed", sub)


if __name__ == "__main__":
    main()
