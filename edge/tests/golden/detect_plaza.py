"""People that YOLOX-nano finds in frames of a real video, by ONNX Runtime and numpy.

usage: python detect_plaza.py FOLDER   with plaza.mp4 and yolox_nano_416.onnx
Writes detect_plaza.json beside this script: boxes only, no picture.

Definition: as detect_yolox.py; the frame is decoded by OpenCV, scaled to
416 x 312 by Pillow's BILINEAR, put into the upper left corner of 416 x 416 of
grey 114, BGR, 0..255. Class 0, score from 0.4 on, NMS at 0.45. Frames are
numbered from 1. Taken are the first four, one from number 60, 120, 180 and 240
on, where no score is near 0.4 and no IoU near 0.45: another decoder of the
video moves both a little.

Made with: Python 3.11, numpy 2.4.6, opencv-python-headless 5.0.0.93, pillow
13.0.0, onnxruntime 1.32.0 (one thread).
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from PIL import Image

import detect_common as dc

SCORE, IOU, SIDE = 0.4, 0.45, 416


def tensor(bgr):
    h, w = bgr.shape[:2]
    scale = min(SIDE / w, SIDE / h)
    size = int(w * scale), int(h * scale)
    rgb = np.asarray(Image.fromarray(bgr[:, :, ::-1]).resize(size, Image.Resampling.BILINEAR))
    out = np.full((SIDE, SIDE, 3), 114, np.uint8)
    out[: size[1], : size[0]] = rgb
    return out[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32), scale


def people(session, bgr):
    """Boxes in the frame and scores, best first; None if a decoder could change which."""
    x, scale = tensor(bgr)
    head = session.run(None, {session.get_inputs()[0].name: x})[0][0].astype(np.float64)
    g = dc.grid((SIDE, SIDE), (8, 16, 32))
    c, wh = (head[:, :2] + g[:, :2]) * g[:, 2:], np.exp(head[:, 2:4]) * g[:, 2:]
    boxes, scores = np.concatenate([c - wh / 2, c + wh / 2], 1), head[:, 4] * head[:, 5]
    near = (abs(scores - SCORE) < 0.03).any()
    boxes, scores = boxes[scores >= SCORE], scores[scores >= SCORE]
    iou = dc.iou_matrix(boxes)[~np.eye(len(boxes), dtype=bool)]
    if near or (abs(iou - IOU) < 0.03).any():
        return None
    keep = dc.nms(boxes, scores, IOU)
    h, w = bgr.shape[:2]
    return dc.clip(boxes[keep] / scale, w, h), scores[keep]


def main():
    folder = Path(sys.argv[1])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        folder / "yolox_nano_416.onnx", options, providers=["CPUExecutionProvider"]
    )
    video = cv2.VideoCapture(str(folder / "plaza.mp4"))
    number, frames = 0, []
    while len(frames) < 4:
        ok, bgr = video.read()
        if not ok:
            break
        number += 1
        if number < 60 * (len(frames) + 1):
            continue
        found = people(session, bgr)
        if found is None:
            continue
        boxes, scores = found
        frames.append(
            {
                "number": number,
                "boxes": [[round(float(v), 2) for v in b] for b in boxes],
                "scores": [round(float(s), 4) for s in scores],
            }
        )
        print(number, len(boxes), "people")
    text = ",\n  ".join(json.dumps(f) for f in frames)
    Path(__file__).with_suffix(".json").write_text(
        f'{{"score": {SCORE}, "nms": {IOU}, "frames": [\n  {text}\n]}}\n'
    )


if __name__ == "__main__":
    main()
