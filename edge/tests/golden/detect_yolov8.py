"""YOLOv8 / YOLO11 output and the boxes that must come out of it.

Writes detect_yolov8.safetensors beside this script (layout: detect_layout.md).

Definition: Ultralytics' documented export layout and its public
post-processing (ultralytics/utils/ops.py: non_max_suppression, scale_boxes;
ultralytics/data/augment.py: LetterBox), read for the formulas; written anew:
  head (1, 4 + nc, anchors): cx, cy, w, h in input pixels, then class scores
  already sigmoid, no objectness; the best class of a row counts;
  placement: scale = min(w/W, h/H), centred, padded with 114;
  back to the frame: subtract the left / top padding, divide by the scale.
The padding is a whole number of pixels: round((w - W * scale) / 2 - 0.1).
"wide", "tall" and "class2" have a padding that is whole anyway.  "rounding"
has not: there `boxes` follows the rule above and `boxes_fractional_pad` the
unrounded padding.

Made with: Python 3.11, numpy 2.4.6, safetensors 0.8.0 (opencv-python-headless
5.0.0.93 as a cross-check of the NMS).  Seed: 7101.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import detect_common as dc

SEED = 7101
STRIDES = (8, 16, 32)
INPUT = (96, 64)
CASES = {  # name: (frame W x H, person class)
    "wide": ((192, 100), 0),  # scale 0.5, padding 0, 7
    "tall": ((120, 160), 0),  # scale 0.4, padding 24, 0
    "class2": ((480, 280), 2),  # scale 0.2, padding 0, 4
    "rounding": ((200, 131), 0),  # scale 0.48, padding 0, 0.56 -> 0
}


def decode(head):
    h = head[0].astype(np.float64).T
    c, wh = h[:, :2], h[:, 2:4]
    return np.concatenate([c - wh / 2, c + wh / 2], 1), h[:, 4:]


def make(rand, frame, person):
    place = dc.place_centred(frame, INPUT)
    g = dc.grid(INPUT, STRIDES)
    n = len(g)
    rows = np.zeros((n, 7), np.float32)
    rows[:, :2] = (g[:, :2] + 0.5 + rand.normal(0, 0.3, (n, 2))) * g[:, 2:3]
    rows[:, 2:4] = np.exp(rand.normal(0.8, 0.5, (n, 2))) * g[:, 2:3]
    rows[:, 4:] = rand.uniform(0.0005, 0.15, (n, 3))
    cls = dc.classes(person)
    used = set()
    for kind, box, score in dc.scene(rand):
        box = dc.to_input(np.array(box) * (frame * 2), place)
        i = dc.take_row(g, used, box)
        rows[i, :2] = (box[:2] + box[2:]) / 2
        rows[i, 2:4] = box[2:] - box[:2]
        rows[i, 4:] = rand.uniform(0.001, 0.1, 3)
        rows[i, 4 + cls[kind]] = score
    head = rows.T[None]
    boxes, scores = decode(head)
    out = dc.finish(boxes, scores, person, frame, INPUT, place)
    frac = dc.place_centred(frame, INPUT, rounded=False)
    alt = dc.finish(boxes, scores, person, frame, INPUT, frac)
    dc.need(np.array_equal(alt[1], out[1]), "padding changes what is kept")
    return head, *out, alt[0]


def main():
    out = {}
    for k, (case, (frame, person)) in enumerate(CASES.items()):
        (head, boxes, scores, info, alt), sub = dc.first_unambiguous(
            lambda r: make(r, frame, person), SEED + k
        )
        dc.store(out, case, head, frame, INPUT, person, boxes, scores)
        if case == "rounding":
            out[f"{case}.boxes_fractional_pad"] = alt.astype(np.float32)
        else:
            assert np.allclose(alt, boxes, atol=1e-9)
        print(f"{case:10s} {head.shape} sub-seed {sub}: {info}")
    path = Path(__file__).with_suffix(".safetensors")
    save_file(out, path)
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
