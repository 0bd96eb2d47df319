"""NMS-free "end to end" output and the boxes that must come out of it.

Writes detect_end2end.safetensors beside this script (layout: detect_layout.md).

Definition: Ultralytics' documented end-to-end export layout (YOLOv10, YOLO26,
or an export with its NMS inside): (1, n, 6) rows x1, y1, x2, y2, score, class
in input pixels; unused rows have score 0.  No NMS is run on it
(ultralytics/utils/ops.py non_max_suppression returns such rows after the
score and class filter only).
Placement: centred letterbox as in detect_yolov8.py; "stretch" is a plain
stretch instead (as RT-DETR-like exports use).

"wide", "class2", "stretch": no two person boxes overlap above IoU 0.45.
"overlap": some do and must all stay (`boxes`, `scores`); `boxes_nms`,
`scores_nms` show what a mistaken NMS would leave.

Made with: Python 3.11, numpy 2.4.6, safetensors 0.8.0 (opencv-python-headless
5.0.0.93 as a cross-check of the NMS).  Seed: 7401.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import detect_common as dc

SEED = 7401
INPUT = (96, 64)
CASES = {  # name: (frame W x H, person class, duplicates, placement)
    "wide": ((192, 100), 0, False, "centred"),  # scale 0.5, padding 0, 7
    "overlap": ((120, 160), 0, True, "centred"),  # scale 0.4, padding 24, 0
    "class2": ((480, 280), 2, False, "centred"),  # scale 0.2, padding 0, 4
    "stretch": ((200, 100), 0, False, "stretch"),
}


def decode(head):
    h = head[0].astype(np.float64)
    scores = np.zeros((len(h), 3))
    scores[np.arange(len(h)), h[:, 5].astype(int)] = h[:, 4]
    return h[:, :4], scores


def make(rand, frame, person, duplicates, placement):
    cls = dc.classes(person)
    place = (dc.place_centred if placement == "centred" else dc.place_stretch)(frame, INPUT)
    items = sorted(dc.scene(rand, duplicates), key=lambda i: -i[2])
    rows = [
        [*dc.to_input(np.array(b) * (frame * 2), place), s, cls[k]] for k, b, s in items
    ]
    rows += [[0.0] * 6] * (40 - len(rows))
    head = np.array(rows, np.float32)[None]
    boxes, scores = decode(head)
    a = dc.finish(boxes, scores, person, frame, INPUT, place, False)
    b = dc.finish(boxes, scores, person, frame, INPUT, place, True, duplicates)
    if not duplicates:
        dc.need(len(a[0]) == len(b[0]), "overlap")
    return head, *a, b


def main():
    out = {}
    for k, (case, (frame, person, dup, placement)) in enumerate(CASES.items()):
        (head, boxes, scores, info, alt), sub = dc.first_unambiguous(
            lambda r: make(r, frame, person, dup, placement), SEED + k
        )
        dc.store(out, case, head, frame, INPUT, person, boxes, scores)
        if dup:
            out[f"{case}.boxes_nms"] = alt[0].astype(np.float32)
            out[f"{case}.scores_nms"] = alt[1].astype(np.float32)
        print(f"{case:10s} {head.shape} sub-seed {sub}: {info}")
    path = Path(__file__).with_suffix(".safetensors")
    save_file(out, path)
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
