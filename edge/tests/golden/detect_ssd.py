"""SSD DetectionOutput rows and the boxes that must come out of them.

Writes detect_ssd.safetensors beside this script (layout: detect_layout.md).

Definition: the DetectionOutput operation of Caffe SSD / OpenVINO
(docs.openvino.ai, operation DetectionOutput): (1, 1, n, 7) rows
[image, class, score, l, t, r, b], coordinates 0..1 of the network input; a row
with image id -1 ends the list, whatever follows is padding.
Placement: plain stretch, so the coordinates are fractions of the frame.

"plain" and "class2": no two boxes of a class overlap above IoU 0.45, so NMS
changes nothing (an SSD output has normally been through NMS already).
"overlap": `boxes` / `scores` after NMS per class at 0.45, `boxes_no_nms` /
`scores_no_nms` without.  "plain" has zeros after the -1 row, "overlap"
high-scoring garbage, "class2" no -1 row at all (every row in use), "empty" has
its -1 row first and nothing comes out.

Made with: Python 3.11, numpy 2.4.6, safetensors 0.8.0 (opencv-python-headless
5.0.0.93 as a cross-check of the NMS).  Seed: 7301.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import detect_common as dc

SEED = 7301
INPUT = (96, 64)
CASES = {  # name: (frame W x H, person class, duplicates, after the end)
    "plain": ((200, 100), 0, False, "zeros"),
    "overlap": ((90, 150), 0, True, "garbage"),
    "class1": ((320, 240), 1, False, "zeros"),
    "class2": ((640, 360), 2, False, "none"),
}


def decode(head):
    h = head[0, 0].astype(np.float64)
    end = np.where(h[:, 0] == -1)[0]
    h = h[: end[0]] if len(end) else h
    scores = np.zeros((len(h), 3))
    scores[np.arange(len(h)), h[:, 1].astype(int)] = h[:, 2]
    w, hh = INPUT
    return h[:, 3:] * [w, hh, w, hh], scores


def make(rand, frame, person, duplicates, after):
    cls = dc.classes(person)
    rows = [[0, cls[k], s, *b] for k, b, s in dc.scene(rand, duplicates)]
    rows = [rows[i] for i in rand.permutation(len(rows))]
    if after != "none":
        rows.append([-1, 0, 0, 0, 0, 0, 0])
        while len(rows) < 40:
            l, t = rand.uniform(0, 0.6, 2)
            g = [0, person, rand.uniform(0.5, 0.99), l, t, l + 0.3, t + 0.3]
            rows.append(g if after == "garbage" else [0] * 7)
    head = np.array(rows, np.float32)[None, None]
    boxes, scores = decode(head)
    place = dc.place_stretch(frame, INPUT)
    a = dc.finish(boxes, scores, person, frame, INPUT, place, True, duplicates)
    b = dc.finish(boxes, scores, person, frame, INPUT, place, False)
    if not duplicates:
        dc.need(len(a[0]) == len(b[0]), "overlap")
    return head, *a, b


def main():
    out = {}
    for k, (case, (frame, person, dup, after)) in enumerate(CASES.items()):
        (head, boxes, scores, info, no), sub = dc.first_unambiguous(
            lambda r: make(r, frame, person, dup, after), SEED + k
        )
        dc.store(out, case, head, frame, INPUT, person, boxes, scores)
        if dup:
            out[f"{case}.boxes_no_nms"] = no[0].astype(np.float32)
            out[f"{case}.scores_no_nms"] = no[1].astype(np.float32)
        print(f"{case:10s} {head.shape} sub-seed {sub}: {info}")
    head = out["overlap.head"].copy()
    head[0, 0, 0, 0] = -1
    dc.store(out, "empty", head, (90, 150), INPUT, 0, np.zeros((0, 4)), np.zeros(0))
    path = Path(__file__).with_suffix(".safetensors")
    save_file(out, path)
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
