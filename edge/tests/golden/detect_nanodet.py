"""NanoDet-Plus ONNX output and the boxes that must come out of it.

Writes detect_nanodet.safetensors beside this script (layout: detect_layout.md).

Definition: github.com/RangiLyu/nanodet (Apache-2.0),
nanodet/model/head/nanodet_plus_head.py (_forward_onnx, get_bboxes,
get_single_level_center_priors) and demo_ncnn/nanodet.cpp
(generate_grid_center_priors, disPred2Bbox), read for the formulas; written
anew:
  head (1, n, nc + 4 * (reg_max + 1)), reg_max 7: class scores already sigmoid,
  then for left, top, right, bottom 8 logits each; rows by stride 8, 16, 32,
  64, then row, then column; a level has ceil(h / s) x ceil(w / s) cells;
  distance = s * sum_k k * softmax(logits)_k;
  reference point = (column * s, row * s): NO half-cell offset.  Both sources
  agree on that for NanoDet-Plus (arange(w) * stride; "ct_x = x * stride").
  The older NanoDet 0.x had (column + 0.5) * s; its output is laid out
  otherwise (two tensors per stride) and is not meant here;
  box = point -/+ distance;
  placement: plain stretch (keep_ratio: False in the published configs).
With 96 x 64 input the stride-64 level is ceil(1.5) = 2 by 1 cells.

Made with: Python 3.11, numpy 2.4.6, safetensors 0.8.0 (opencv-python-headless
5.0.0.93 as a cross-check of the NMS).  Seed: 7201.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import detect_common as dc

SEED = 7201
STRIDES = (8, 16, 32, 64)
REG = 8  # reg_max + 1
NC = 3
INPUT = (96, 64)
CASES = {  # name: (frame W x H, person class)
    "wide": ((200, 100), 0),
    "tall": ((90, 150), 0),
    "class2": ((640, 480), 2),
}


def decode(head, inp):
    g = dc.grid(inp, STRIDES)
    h = head[0].astype(np.float64)
    logits = h[:, NC:].reshape(len(g), 4, REG)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    d = (p * np.arange(REG)).sum(-1) * g[:, 2:3]
    pt = g[:, :2] * g[:, 2:3]
    return np.concatenate([pt - d[:, :2], pt + d[:, 2:]], 1), h[:, :NC]


def logits_for(d, rand):
    """(4,) distances in strides -> (4, 8) logits with about that expectation.

    For Gaussian-like weights the expectation is moved a little by the ends of
    0..7; a few fixed-point steps on the centre bring it back.
    """
    k = np.arange(REG)
    noise = rand.normal(0.0, 0.15, (4, REG))
    c = np.array(d, np.float64)
    for _ in range(200):
        z = -0.5 * ((k - c[:, None]) / 0.6) ** 2 + noise
        p = np.exp(z - z.max(-1, keepdims=True))
        e = (p * k).sum(-1) / p.sum(-1)
        c += 0.7 * (d - e)
    return z


def make(rand, frame, person):
    place = dc.place_stretch(frame, INPUT)
    g = dc.grid(INPUT, STRIDES)
    n = len(g)
    head = np.zeros((1, n, NC + 4 * REG), np.float32)
    head[0, :, :NC] = rand.uniform(0.0005, 0.15, (n, NC))
    head[0, :, NC:] = rand.normal(0.0, 1.5, (n, 4 * REG))
    cls = dc.classes(person)
    used = set()
    for kind, box, score in dc.scene(rand):
        box = dc.to_input(np.array(box) * (frame * 2), place)
        pt = g[:, :2] * g[:, 2:3]
        d = np.concatenate([pt - box[:2], box[2:] - pt], 1) / g[:, 2:3]
        ok = ((d > 0.15) & (d < 6.8)).all(1)  # the point must lie inside the box
        i = dc.take_row(g, used, box, offset=0.0, ok=ok)
        head[0, i, :NC] = rand.uniform(0.001, 0.1, NC)
        head[0, i, cls[kind]] = score
        head[0, i, NC:] = logits_for(d[i], rand).reshape(-1)
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
