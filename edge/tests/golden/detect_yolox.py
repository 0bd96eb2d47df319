"""YOLOX raw head output and the boxes that must come out of it.

Writes detect_yolox.safetensors beside this script (layout: detect_layout.md).

Definition: github.com/Megvii-BaseDetection/YOLOX (Apache-2.0),
demo/ONNXRuntime/onnx_inference.py, yolox/utils/demo_utils.py
(demo_postprocess) and yolox/data/data_augment.py (preproc), read for the
formulas; written anew:
  head (1, n, 5 + nc), rows by stride 8, 16, 32, then row, then column;
  cx = (dx + gx) * s, cy = (dy + gy) * s, w = exp(dw) * s, h = exp(dh) * s;
  score = objectness * class score, both already sigmoid;
  placement: scale = min(w/W, h/H), top-left, rest padded with 114;
  back to the frame: divide by that exact scale.
NMS per class (YOLOX's own demo defaults to class-agnostic; see detect_layout.md).

Made with: Python 3.11, numpy 2.4.6, safetensors 0.8.0 (opencv-python-headless
5.0.0.93 as a cross-check of the NMS).  Seed: 7001.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import detect_common as dc

SEED = 7001
STRIDES = (8, 16, 32)
INPUT = (96, 64)
CASES = {  # name: (frame W x H, person class)
    "wide": ((200, 100), 0),
    "tall": ((90, 150), 0),
    "upscaled": ((48, 40), 0),
    "class2": ((640, 360), 2),
}


def decode(head, inp):
    g = dc.grid(inp, STRIDES)
    h = head[0].astype(np.float64)
    s = g[:, 2:3]
    c = (h[:, :2] + g[:, :2]) * s
    wh = np.exp(h[:, 2:4]) * s
    return np.concatenate([c - wh / 2, c + wh / 2], 1), h[:, 4:5] * h[:, 5:]


def make(rand, frame, person):
    place = dc.place_top_left(frame, INPUT)
    g = dc.grid(INPUT, STRIDES)
    n = len(g)
    head = np.zeros((1, n, 8), np.float32)
    head[0, :, :2] = rand.normal(0.5, 0.4, (n, 2))
    head[0, :, 2:4] = rand.normal(0.3, 0.5, (n, 2))
    head[0, :, 4] = rand.uniform(0.001, 0.15, n)
    # Background rows: high class scores that only the objectness rules out.
    head[0, :, 5:] = rand.uniform(0.01, 0.95, (n, 3))
    cls = dc.classes(person)
    used = set()
    for kind, box, score in dc.scene(rand):
        box = dc.to_input(np.array(box) * (frame * 2), place)
        i = dc.take_row(g, used, box)
        x, y, s = g[i]
        c, wh = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        head[0, i, :2] = c / s - (x, y)
        head[0, i, 2:4] = np.log(wh / s)
        obj = rand.uniform(max(score, 0.7), 0.99)
        head[0, i, 4] = obj
        head[0, i, 5:] = rand.uniform(0.01, 0.1, 3)
        head[0, i, 5 + cls[kind]] = score / obj
    boxes, scores = decode(head, INPUT)
    return head, *dc.finish(boxes, scores, person, frame, INPUT, place)


def main():
    out = {}
    for k, (case, (frame, person)) in enumerate(CASES.items()):
        (head, boxes, scores, info), sub = dc.first_unambiguous(
            lambda r: make(r, frame, person), SEED + k
        )
        dc.store(out, case, head, frame, INPUT, person, boxes, scores)
        print(f"{case:10s} {head.shape} sub-seed {sub}: {info}")
    path = Path(__file__).with_suffix(".safetensors")
    save_file(out, path)
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
