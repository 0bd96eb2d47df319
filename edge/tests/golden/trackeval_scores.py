"""Makes trackeval_scores.json: small recordings, each with one kind of error, and what TrackEval 1.3.0 (HOTA, Identity) and
py-motmetrics 1.4.0 (CLEAR MOT, identity measures) say of them. Both are given overlaps, not files: TrackEval's own reader
of MOTChallenge forgives results on distractors. Several cameras are one recording: frames moved on camera by camera, ids
shared. The recordings of motmetrics_scores.py are scored again.

    pip install trackeval==1.3.0 motmetrics==1.4.0 numpy==2.4.6 && python trackeval_scores.py
"""

import json
import pathlib

import motmetrics as mm
import numpy as np
from trackeval.datasets._base_dataset import _BaseDataset
from trackeval.metrics import HOTA, Identity

# motmetrics 1.4.0 still calls what numpy 2 took away.
np.asfarray = lambda a: np.asarray(a, dtype=float)

HERE = pathlib.Path(__file__).parent
MOT_METRICS = ["idf1", "idp", "idr", "mota", "num_switches", "precision", "recall", "num_misses", "num_false_positives"]


def walk(rng, people, frames, start=1, first_id=1, spacing=70.0):
    """Truth: [frame, id, left, top, width, height], everybody on a way of their own."""
    rows = []
    x = spacing * np.arange(people) + rng.uniform(-5, 5, people)
    y, dx, dy = rng.uniform(0, 30, people), rng.uniform(-1.5, 1.5, people), rng.uniform(-1, 1, people)
    w, h = rng.uniform(25, 45, people), rng.uniform(70, 110, people)
    for f in range(frames):
        for p in range(people):
            rows.append([start + f, first_id + p, x[p] + dx[p] * f, y[p] + dy[p] * f, w[p], h[p]])
    return rows


def named(rows, name):
    """Results on the same boxes, ids from `name(row)`; no result where that is None."""
    return [[r[0], i, *r[2:]] for r in rows if (i := name(r)) is not None]


def jittered(rng, rows, share):
    """Edges moved by a share of width and height."""
    moved = []
    for f, i, left, top, w, h in rows:
        a, b, c, d = rng.normal(0, share, 4)
        moved.append([f, i, left + a * w, top + b * h, w * np.exp(c), h * np.exp(d)])
    return moved


def single_cameras(rng):
    cases = {}

    def case(name, truth, results):
        cases[name] = [[truth, results]]

    truth = walk(rng, 4, 12)
    case("perfect", truth, named(truth, lambda r: 30 - r[1]))
    lost = {i: rng.random() < 0.3 for i in range(len(truth))}
    index = {(r[0], r[1]): i for i, r in enumerate(truth)}
    case("misses", truth, jittered(rng, named(truth, lambda r: None if lost[index[r[0], r[1]]] else r[1]), 0.03))
    ghosts = [[f, 90 + f % 3, rng.uniform(0, 300), rng.uniform(0, 60), 35, 90] for f in range(1, 13, 2)]
    case("ghosts", truth, jittered(rng, named(truth, lambda r: r[1]), 0.03) + ghosts)
    # 1 and 2 swap for good after frame 5, 3 and 4 for three frames.
    swap = {1: 2, 2: 1}, {3: 4, 4: 3}
    case("swaps", truth, jittered(rng, named(truth, lambda r: (swap[0] if r[0] > 5 else {}).get(
        r[1], (swap[1] if 7 <= r[0] < 10 else {}).get(r[1], r[1]))), 0.05))
    # A new id every four frames, the first of them missed.
    case("fragments", truth, jittered(rng, named(truth, lambda r: None if (r[0] + r[1]) % 4 == 0 else 10 * r[1] + (r[0] + r[1]) // 4), 0.04))
    gone = [r for r in truth if r[0] not in (3, 4, 8)]
    case("empty frames", gone, jittered(rng, [r for r in named(truth, lambda r: r[1]) if r[0] not in (1, 4, 9, 12)], 0.04))
    case("jitter", truth, jittered(rng, named(truth, lambda r: r[1]), 0.13))
    crowd = walk(rng, 7, 14, spacing=14.0)
    case("crowd", crowd, jittered(rng, [r for r in named(crowd, lambda r: 50 + r[1]) if rng.random() > 0.15], 0.1))
    # Two results on everybody, the second one rougher.
    case("doubles", truth, jittered(rng, named(truth, lambda r: r[1]), 0.04) + jittered(rng, named(truth, lambda r: 20 + r[1] % 2 * 10 + r[1]), 0.1))
    case("nothing found", truth, [])
    case("nobody there", [], named(truth, lambda r: r[1]))
    case("all beside", truth, [[r[0], r[1], r[2] + 1000, *r[3:]] for r in truth])
    return cases


def several_cameras(rng):
    cases = {}
    # The same people, one camera after the other and side by side in time.
    views = [walk(rng, 4, 9), walk(rng, 4, 12, start=101), walk(rng, 3, 7, start=5, first_id=2)]
    cases["cameras agree"] = [[t, jittered(rng, named(t, lambda r: 60 - r[1]), 0.05)] for t in views]
    swapped = {1: 2, 2: 1}
    cases["one camera swaps"] = [
        [t, jittered(rng, named(t, lambda r: swapped.get(r[1], r[1]) if c == 1 else r[1]), 0.05)] for c, t in enumerate(views)
    ]
    cases["nobody is known again"] = [[t, jittered(rng, named(t, lambda r: 10 * c + r[1]), 0.05)] for c, t in enumerate(views)]
    # Swaps, misses, fragments and ghosts of one id in two cameras, and a camera in which nothing is found.
    rough = []
    for c, t in enumerate(views):
        results = named(t, lambda r: None if rng.random() < 0.15 or c == 2 else r[1] + (7 if r[0] % 100 > 4 and r[1] == 3 else 0))
        results += [[t[0][0] + f, 99, rng.uniform(0, 300), 10, 30, 80] for f in range(0, 6, 2)]
        rough.append([t, jittered(rng, results, 0.07)])
    cases["rough"] = rough
    return cases


def of_files(name):
    def rows(kind):
        lines = (HERE / f"motmetrics_{name}_{kind}.txt").read_text().splitlines()
        for values in ([float(v) for v in line.split(",")] for line in lines):
            if kind == "results" or (values[6] != 0 and values[7] == 1):
                yield [int(values[0]), int(values[1]), *values[2:6]]
    return [list(rows("gt")), list(rows("results"))]


def frames_of(cameras):
    """[(truth, results)] of every frame, rows without frame number, a frame of nobody between cameras."""
    frames, offset = {}, 0
    for truth, results in cameras:
        for side, rows in enumerate((truth, results)):
            for row in rows:
                frames.setdefault(offset + row[0], ([], []))[side].append(row[1:])
        offset += max([row[0] for row in truth + results], default=0) + 1
        frames.setdefault(offset, ([], []))
    return [frames[f] for f in sorted(frames)]


def by_trackeval(frames):
    numbers = [{}, {}]
    ids = [[], []]
    overlaps = []
    for frame in frames:
        for side in (0, 1):
            ids[side].append(np.array([numbers[side].setdefault(r[0], len(numbers[side])) for r in frame[side]], dtype=int))
        boxes = [np.array([r[1:] for r in rows], dtype=float).reshape(-1, 4) for rows in frame]
        overlaps.append(_BaseDataset._calculate_box_ious(*boxes, box_format="xywh"))
    data = {
        "num_timesteps": len(frames),
        "num_gt_ids": len(numbers[0]), "num_tracker_ids": len(numbers[1]),
        "num_gt_dets": sum(map(len, ids[0])), "num_tracker_dets": sum(map(len, ids[1])),
        "gt_ids": ids[0], "tracker_ids": ids[1], "similarity_scores": overlaps,
    }
    hota = HOTA().eval_sequence(data)
    identity = Identity({"PRINT_CONFIG": False}).eval_sequence(data)
    scores = {key.lower(): float(np.mean(hota[key])) for key in ("HOTA", "DetA", "AssA", "LocA")}
    scores["hota_at"] = [round(float(v), 9) for v in hota["HOTA"]]
    scores["idf1"] = float(identity["IDF1"])
    return scores


def accumulated(frames):
    acc = mm.MOTAccumulator(auto_id=True)
    for truth, results in frames:
        distance = mm.distances.iou_matrix([r[1:] for r in truth], [r[1:] for r in results], max_iou=0.5)
        acc.update([r[0] for r in truth], [r[0] for r in results], distance)
    return acc


def by_motmetrics(frames):
    acc = accumulated(frames)
    row = mm.metrics.create().compute(acc, metrics=MOT_METRICS, name="all").iloc[0]
    return {key: float(row[key]) for key in MOT_METRICS if np.isfinite(row[key])}


def links(cameras):
    """[a, b, people, found, linked, joined, right] of every pair of cameras and the switches across, from the pairs that
    motmetrics matched in each camera."""
    seen = []
    for camera in cameras:
        events = accumulated(frames_of([camera])).mot_events
        matches = [(o, h) for t, o, h in zip(events.Type, events.OId, events.HId) if t in ("MATCH", "SWITCH")]
        sides = []
        for side in (0, 1):
            boxes = [row[1] for row in camera[side]]
            partners = {i: [m[1 - side] for m in matches if m[side] == i] for i in set(boxes)}
            # max() keeps the first of equals, and these are in order of time.
            sides.append({i: (boxes.count(i), p, max(p, key=p.count) if p else None) for i, p in partners.items()})
        seen.append(sides)
    pairs = []
    for a in range(len(seen)):
        twice = [[v for v in side.values() if v[0] > 1] for side in seen[a]]
        again = [[v for v in side if len(v[1]) > 1] for side in twice]
        faithful = [sum(len(set(v[1])) == 1 for v in side) for side in again]
        pairs.append([a, a, len(twice[0]), len(again[0]), faithful[0], len(twice[1]), faithful[1]])
        for b in range(a + 1, len(seen)):
            both = [[(seen[a][s][i][2], seen[b][s][i][2]) for i in seen[a][s] if i in seen[b][s]] for s in (0, 1)]
            known = [[m for m in side if None not in m] for side in both]
            same = [sum(x == y for x, y in side) for side in known]
            pairs.append([a, b, len(both[0]), len(known[0]), same[0], len(both[1]), same[1]])
    across = 0
    for person in {i for sides in seen for i in sides[0]}:
        borne = [s[0][person] for s in seen if person in s[0] and s[0][person][2] is not None]
        votes = {v[2]: (sum(w[1].count(v[2]) for w in borne if w[2] == v[2]), sum(w[2] == v[2] for w in borne)) for v in borne}
        across += len(borne) - (max(votes.values())[1] if votes else 0)
    return {"pairs": pairs, "across": across}


def main():
    rng = np.random.default_rng(11)
    cases = {**single_cameras(rng), **several_cameras(rng)}
    out = {}
    for name, cameras in cases.items():
        cameras = [[[[int(r[0]), int(r[1]), *(round(float(v), 2) for v in r[2:])] for r in rows] for rows in c] for c in cameras]
        frames = frames_of(cameras)
        out[name] = {"cameras": cameras, "trackeval": by_trackeval(frames), "motmetrics": by_motmetrics(frames), **links(cameras)}
    files = {name: of_files(name) for name in ("cam1", "cam2", "cam3")}
    for name, cameras in [*((name, [c]) for name, c in files.items()), ("all", list(files.values()))]:
        out[name] = {"trackeval": by_trackeval(frames_of(cameras)), **links(cameras)}
    lines = [f"{json.dumps(name)}: {json.dumps(case, separators=(',', ':'))}" for name, case in out.items()]
    (HERE / "trackeval_scores.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
