"""Shared by the detect_*.py makers; writes nothing itself.

Plain numpy float64: the scene (boxes as fractions of the frame), greedy NMS
from its definition (that of torchvision.ops.nms: sort by score, keep the best,
drop all whose IoU with it is > threshold; areas without "+ 1"), the undo of
the picture's placement, the clip, and the guards that keep a golden file free
of ambiguities.  numpy NMS, cross-checked against OpenCV's cv2.dnn.NMSBoxes
where cv2 can be imported.
"""

import numpy as np

SCORE, IOU = 0.3, 0.45


def iou_matrix(b, plus=0.0):
    lt = np.maximum(b[:, None, :2], b[None, :, :2])
    rb = np.minimum(b[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.maximum(rb - lt + plus, 0.0), -1)
    area = np.prod(b[:, 2:] - b[:, :2] + plus, -1)
    return inter / (area[:, None] + area[None, :] - inter)


def nms(boxes, scores, threshold=IOU, plus=0.0):
    """Indices kept, best score first."""
    iou = iou_matrix(boxes, plus)
    keep = []
    for i in np.argsort(-scores, kind="stable"):
        if all(iou[i, j] <= threshold for j in keep):
            keep.append(int(i))
    return keep


def clip(boxes, w, h):
    return np.clip(boxes, 0.0, [w, h, w, h])


# Placement of the frame in the network input: x_in = x_frame * sx + px.


def place_top_left(frame, inp):
    s = min(inp[0] / frame[0], inp[1] / frame[1])
    return s, s, 0.0, 0.0


def place_centred(frame, inp, rounded=True):
    """rounded: Ultralytics' whole-pixel left / top padding, round(p - 0.1)."""
    s = min(inp[0] / frame[0], inp[1] / frame[1])
    px, py = (inp[0] - frame[0] * s) / 2, (inp[1] - frame[1] * s) / 2
    if rounded:
        px, py = float(round(px - 0.1)), float(round(py - 0.1))
    return s, s, px, py


def place_stretch(frame, inp):
    return inp[0] / frame[0], inp[1] / frame[1], 0.0, 0.0


def to_input(boxes, p):
    return boxes * [p[0], p[1], p[0], p[1]] + [p[2], p[3], p[2], p[3]]


def to_frame(boxes, p):
    return (boxes - [p[2], p[3], p[2], p[3]]) / [p[0], p[1], p[0], p[1]]


# The scene: (kind, box as l, t, r, b fractions of the frame, score).
# kind "p" person, "a" / "b" the two other classes.
_PERSONS = [
    ((0.10, 0.20, 0.30, 0.80), 0.91),
    ((0.24, 0.22, 0.42, 0.85), 0.83),  # touches the first: both stay
    ((-0.06, 0.35, 0.12, 0.95), 0.74),  # partly left of the frame
    ((0.55, 0.55, 0.80, 1.10), 0.88),  # partly below it
    ((0.52, 0.10, 0.70, 0.50), 0.79),
    ((0.60, 0.10, 0.78, 0.50), 0.66),  # IoU 0.385 with the one before: stays
    ((0.86, -0.05, 1.07, 0.60), 0.58),  # partly right of and above it
]
# Chain: A (fourth person) > B > C; A drops B, B would drop C, A does not: C stays.
_CHAIN = [((0.625, 0.55, 0.875, 1.10), 0.70), ((0.70, 0.55, 0.95, 1.10), 0.62)]


def scene(rand, duplicates=True):
    items = [("p", b, s) for b, s in _PERSONS]
    if duplicates:
        items += [("p", b, s) for b, s in _CHAIN]
        for b, s in _PERSONS:
            b = np.array(b)
            size = np.array([b[2] - b[0], b[3] - b[1]] * 2)
            for _ in range(2):
                jit = rand.uniform(-0.06, 0.06, 4) * size
                items.append(("p", tuple(b + jit), s - rand.uniform(0.03, 0.25)))
        # Another class, better score, nearly the same place: NMS per class
        # must leave the second person alone.
        items.append(("a", tuple(np.array(_PERSONS[1][0]) + 0.004), 0.95))
    else:
        items.append(("p", _CHAIN[1][0], _CHAIN[1][1]))
    items.append(("b", (0.05, 0.02, 0.35, 0.15), 0.86))
    for s in (0.27, 0.21, 0.12):  # persons under the threshold
        l, t = rand.uniform(0.05, 0.6), rand.uniform(0.05, 0.6)
        items.append(("p", (l, t, l + 0.2, t + 0.3), s))
    return items


def classes(person):
    """Class index of "p", "a", "b" among three classes."""
    other = [c for c in range(3) if c != person]
    return {"p": person, "a": other[0], "b": other[1]}


class Ambiguous(Exception):
    pass


def need(ok, why):
    if not ok:
        raise Ambiguous(why)


def finish(decoded, scores, person, frame, inp, place, use_nms=True, expect_removed=True):
    """decoded: (n, 4) ltrb in input pixels, scores: (n, classes), float64.

    Returns boxes (k, 4) ltrb in frame pixels and scores (k,), best first.
    """
    w, h = frame
    best = scores.argmax(1)
    ps = scores[:, person]
    cand = np.where((ps > SCORE) & (best == person))[0]

    # Guards: nothing may hang on a convention that the definitions leave open.
    need(not ((ps > SCORE) & (best != person)).any(), "person not the best class")
    need((abs(scores.max(1) - SCORE) > 0.01).all(), "score at the threshold")
    s = np.sort(ps[cand])
    need((np.diff(s) > 2e-3).all(), "tied scores")
    b, ps = decoded[cand], ps[cand]
    fb = to_frame(b, place)
    cb = clip(fb, w, h)
    need(((cb[:, 2:] - cb[:, :2]) > 1.5).all(), "empty after the clip")
    keep = list(np.argsort(-ps, kind="stable"))
    removed = 0
    if use_nms:
        iou = iou_matrix(b)
        off = ~np.eye(len(b), dtype=bool)
        need((abs(iou[off] - IOU) > 0.01).all(), "IoU at the threshold")
        keep = nms(b, ps)
        removed = len(cand) - len(keep)
        need(nms(cb, ps) == keep, "clip before NMS differs")
        need(nms(clip(b, *inp), ps) == keep, "clip to the input differs")
        need(nms(fb, ps) == keep, "NMS in frame pixels differs")
        if expect_removed:
            need(removed >= 8, "too few removed")
        plus1 = nms(b, ps, plus=1.0) == keep and nms(fb, ps, plus=1.0) == keep
        need(plus1, "the +1 area convention differs")
        try:
            import cv2

            xywh = np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], 1)
            got = np.array(cv2.dnn.NMSBoxes(xywh.tolist(), ps.tolist(), SCORE, IOU)).ravel()
            assert list(got) == keep, "cv2.dnn.NMSBoxes disagrees"
        except ImportError:
            pass
    outside = int((abs(fb[keep] - cb[keep]) > 0.5).any(1).sum())
    need(outside >= 2, "too few boxes partly outside")
    info = f"{len(decoded)} rows, {len(cand)} candidates, {removed} removed, {len(keep)} kept, {outside} clipped"
    return cb[keep], ps[keep], info


def first_unambiguous(make, seed):
    """make(rand) with the first sub-seed that passes all guards."""
    for k in range(500):
        try:
            return make(np.random.default_rng([seed, k])), k
        except Ambiguous as e:
            why = e
    raise SystemExit(f"no unambiguous draw: {why}")


def store(out, case, head, frame, inp, person, boxes, scores):
    out[f"{case}.head"] = np.ascontiguousarray(head, dtype=np.float32)
    out[f"{case}.frame_size"] = np.array(frame, np.int32)
    out[f"{case}.input_size"] = np.array(inp, np.int32)
    out[f"{case}.person_class"] = np.array([person], np.int32)
    out[f"{case}.boxes"] = boxes.astype(np.float32)
    out[f"{case}.scores"] = scores.astype(np.float32)


# Grids: rows in the order stride, row, column.


def grid(inp, strides):
    """(n, 3): column, row, stride."""
    rows = []
    for s in strides:
        for y in range(-(-inp[1] // s)):
            for x in range(-(-inp[0] // s)):
                rows.append((x, y, s))
    return np.array(rows, np.float64)


def take_row(g, used, box, offset=0.5, ok=None):
    """Nearest unused cell of a stride that suits the box's size."""
    size = np.sqrt(max((box[2] - box[0]) * (box[3] - box[1]), 1.0))
    strides = np.unique(g[:, 2])
    suit = strides[min(int(size > 22) + int(size > 60), len(strides) - 1)]
    c = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    d = np.hypot(*((g[:, :2] + offset) * g[:, 2:3] - c).T) + 1000.0 * (g[:, 2] != suit)
    d[list(used)] = np.inf
    if ok is not None:
        d[~ok] = np.inf
    i = int(d.argmin())
    need(np.isfinite(d[i]), "no free cell")
    used.add(i)
    return i
