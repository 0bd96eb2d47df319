#!/usr/bin/env python3
"""The other side of `./reid bench edge`: the same work as a Python user would write it. One JSON line per call.

    edge_peers.py versions
    edge_peers.py replay VIDEO DETECTOR EMBEDDER COUNTS INTRA SPIN FRAMES
    edge_peers.py live DETECTOR EMBEDDER INTRA SPIN LOW_LATENCY SECONDS EVENTS URL...
    edge_peers.py track JOBS.json
    edge_peers.py score GT RESULTS [GT RESULTS ...]
    edge_peers.py start VIDEO DETECTOR EMBEDDER INTRA SPIN

OpenCV decodes (FFmpeg), onnxruntime runs YOLOX-nano and the embedder, BoxMOT follows. Thresholds are those of the bench's
own side. INTRA 0 leaves onnxruntime its default threads; SPIN 0 turns its spinning off. Times exclude imports and loading
unless said otherwise; memory is the highest resident set of the whole process.
"""

import collections
import json
import os
import sys
import threading
import time

STARTED = time.time()

import cv2  # noqa: E402
import numpy as np  # noqa: E402

SCORE, NMS, MIN_HEIGHT = 0.3, 0.45, 40
# The embedding budget of the bench's own side (`[crops]`): so many crops of a person quickly, then one now and then.
BURST, BURST_GAP, EVERY, LEAST_HEIGHT = 6, 0.2, 0.5, 48
# The strip with the number of a frame (`barcode.rs`).
BLOCK, BITS = 32, 16


def resident(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(key))


def session(path, intra, spin):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if intra:
        options.intra_op_num_threads = intra
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Detector:
    """YOLOX's raw head: letterbox at the upper left, grid and stride decoding, boxes above SCORE, NMS."""

    def __init__(self, path, intra, spin):
        self.session = session(path, intra, spin)
        spec = self.session.get_inputs()[0]
        self.name, (self.height, self.width) = spec.name, spec.shape[2:]
        grids, strides = [], []
        for stride in (8, 16, 32):
            rows, columns = self.height // stride, self.width // stride
            y, x = np.mgrid[:rows, :columns]
            grids.append(np.stack((x, y), 2).reshape(-1, 2))
            strides.append(np.full(rows * columns, stride))
        self.grid = np.concatenate(grids).astype(np.float32)
        self.stride = np.concatenate(strides).astype(np.float32)
        self.padded = np.full((self.height, self.width, 3), 114, np.uint8)

    def __call__(self, frame):
        """Rows of left, top, right, bottom, score, class."""
        h, w = frame.shape[:2]
        scale = min(self.width / w, self.height / h)
        size = (int(w * scale), int(h * scale))
        self.padded[: size[1], : size[0]] = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
        blob = np.ascontiguousarray(self.padded.transpose(2, 0, 1)[None], dtype=np.float32)
        head = self.session.run(None, {self.name: blob})[0][0]
        scores = head[:, 4] * head[:, 5]
        keep = np.flatnonzero(scores >= SCORE)
        if not len(keep):
            return np.empty((0, 6), np.float32)
        rows, scores, stride = head[keep], scores[keep], self.stride[keep, None]
        centre = (rows[:, :2] + self.grid[keep]) * stride / scale
        extent = np.exp(rows[:, 2:4]) * stride / scale
        corner = centre - extent / 2
        best = cv2.dnn.NMSBoxes(np.concatenate((corner, extent), 1).tolist(), scores.tolist(), SCORE, NMS)
        best = np.asarray(best, dtype=int).reshape(-1)
        boxes = np.concatenate((corner[best], corner[best] + extent[best]), 1)
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, w)
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, h)
        tall = boxes[:, 3] - boxes[:, 1] >= MIN_HEIGHT
        found = np.concatenate((boxes, scores[best, None], np.zeros((len(best), 1))), 1)
        return found[tall].astype(np.float32)


class Embedder:
    """reid-retail-0248: one crop a run (its batch is fixed), BGR as it is, unit vectors."""

    def __init__(self, path, intra, spin):
        self.session = session(path, intra, spin)
        spec = self.session.get_inputs()[0]
        self.name, (self.height, self.width) = spec.name, spec.shape[1:3]

    def __call__(self, frame, box):
        h, w = frame.shape[:2]
        left, top = min(max(int(box[0]), 0), w - 1), min(max(int(box[1]), 0), h - 1)
        right, bottom = max(min(int(np.ceil(box[2])), w), left + 1), max(min(int(np.ceil(box[3])), h), top + 1)
        crop = cv2.resize(frame[top:bottom, left:right], (self.width, self.height))
        vector = self.session.run(None, {self.name: crop[None].astype(np.float32)})[0][0]
        return vector / np.linalg.norm(vector)


def byte_track(fps, lost_frames=None):
    from boxmot import ByteTrack

    if lost_frames is None:
        return ByteTrack(frame_rate=fps)
    # Its buffer is in frames of a 30 fps recording.
    return ByteTrack(frame_rate=fps, track_buffer=round(lost_frames * 30 / fps))


def bot_sort(fps, lost_frames=None):
    from boxmot import BotSort

    if lost_frames is None:
        return BotSort(frame_rate=fps, use_embeddings=False)
    return BotSort(frame_rate=fps, use_embeddings=False, track_buffer=round(lost_frames * 30 / fps))


class Forged:
    """A tracker of trackforge, a crate: the candidate in place of a tracker of our own."""

    def __init__(self, tracker):
        self.tracker = tracker

    def update(self, rows, _frame):
        found = [([float(r[0]), float(r[1]), float(r[2] - r[0]), float(r[3] - r[1])], float(r[4]), 0) for r in rows]
        tracks = self.tracker.update(found)
        return [(x, y, x + w, y + h, number, score) for number, (x, y, w, h), score, *_ in tracks]


def forged_byte(_fps, lost_frames=None):
    import trackforge

    return Forged(trackforge.BYTETRACK(**({"track_buffer": lost_frames} if lost_frames else {})))


def forged_oc(_fps, lost_frames=None):
    import trackforge

    return Forged(trackforge.OCSORT(**({"max_age": lost_frames} if lost_frames else {})))


TRACKERS = {"bytetrack": byte_track, "botsort": bot_sort, "trackforge-byte": forged_byte, "trackforge-oc": forged_oc}


def replay(video, detector, embedder, counts, intra, spin, frames):
    """Every frame: detect, follow, embed as many crops as the bench's own side did in this frame (COUNTS, one number a
    line), so that both do the same number of embeddings although their trackers confirm at different times. Where the
    peer follows fewer people than that, its crops are taken again; what a crop shows costs nothing."""
    before = resident("VmRSS")
    tracker = byte_track(10)
    brought = resident("VmRSS") - before
    detect, embed = Detector(detector, intra, spin), Embedder(embedder, intra, spin)
    with open(counts) as file:
        wanted = [int(line) for line in file]
    capture = cv2.VideoCapture(video)
    whole = np.array([0, 0, capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)])
    spent = collections.Counter()
    embeddings = seen = own = 0
    start = time.perf_counter()
    while not frames or seen < frames:
        began = time.perf_counter()
        good, frame = capture.read()
        if not good:
            break
        decoded = time.perf_counter()
        boxes = detect(frame)
        detected = time.perf_counter()
        tracks = tracker.update(boxes, frame)
        tracked = time.perf_counter()
        want = wanted[seen] if seen < len(wanted) else 0
        own += len(tracks)
        for i in range(want):
            embed(frame, tracks[i % len(tracks)] if len(tracks) else whole)
        embeddings += want
        seen += 1
        spent["decode"] += decoded - began
        spent["detect"] += detected - decoded
        spent["track"] += tracked - detected
        spent["embed"] += time.perf_counter() - tracked
    seconds = time.perf_counter() - start
    return {
        "frames": seen,
        "fps": seen / seconds,
        "seconds": seconds,
        "embeddings": embeddings,
        "confirmed_boxes": own,
        "stages": dict(spent),
        "peak_bytes": resident("VmHWM"),
        "tracker_import_bytes": brought,
    }


class Newest(threading.Thread):
    """Reads a camera and keeps its newest frame."""

    def __init__(self, url, ready):
        super().__init__(daemon=True)
        self.url, self.ready = url, ready
        self.lock, self.frame, self.arrived = threading.Lock(), None, 0.0
        self.received = self.replaced = 0

    def run(self):
        capture = cv2.VideoCapture(self.url, cv2.CAP_FFMPEG)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        while True:
            good, frame = capture.read()
            if not good:
                return
            now = time.time()
            with self.lock:
                self.replaced += self.frame is not None
                self.frame, self.arrived = frame, now
                self.received += 1
            self.ready.set()

    def take(self):
        with self.lock:
            frame, self.frame = self.frame, None
            return frame, self.arrived


def frame_number(frame):
    """The number in the strip at the upper edge: 16 blocks of it, then 16 of its complement. None if they disagree."""
    middle = frame[BLOCK // 4 : 3 * BLOCK // 4, : 2 * BITS * BLOCK].mean(axis=(0, 2))
    bits = middle.reshape(2 * BITS, BLOCK)[:, BLOCK // 4 : 3 * BLOCK // 4].mean(axis=1) > 127
    number, complement = (int("".join("1" if b else "0" for b in part), 2) for part in (bits[:BITS], bits[BITS:]))
    return number if number ^ complement == (1 << BITS) - 1 else None


def live(detector, embedder, intra, spin, low_latency, seconds, events, urls):
    """Four capture threads that keep the newest frame, one loop that analyses it. An event is what is known of a frame
    once it is analysed: EVENTS gets a line per analysed frame: camera, number in the strip, arrival and event (Unix
    time)."""
    # Options of FFmpeg as OpenCV takes them. Low latency: no probing buffer, and one decoding thread, because threads that
    # decode a frame each hold back as many frames.
    options = "rtsp_transport;tcp"
    if low_latency:
        options += "|fflags;nobuffer|flags;low_delay|threads;1"
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = options
    detect, embed = Detector(detector, intra, spin), Embedder(embedder, intra, spin)
    trackers = [byte_track(10) for _ in urls]
    ready = threading.Event()
    cameras = [Newest(url, ready) for url in urls]
    for camera in cameras:
        camera.start()
    deadline = time.time() + 30
    while not all(camera.received for camera in cameras):
        if time.time() > deadline:
            sys.exit("edge_peers.py: a camera sent nothing for 30 s")
        time.sleep(0.01)
    looks, analysed, embeddings, rows = {}, 0, 0, []
    start = time.time()
    replaced = sum(camera.replaced for camera in cameras)
    while time.time() - start < seconds:
        ready.wait(0.2)
        ready.clear()
        for index, camera in enumerate(cameras):
            frame, arrived = camera.take()
            if frame is None:
                continue
            number = frame_number(frame)
            for track in trackers[index].update(detect(frame), frame):
                count, last = looks.get((index, int(track[4])), (0, 0.0))
                gap = BURST_GAP if count < BURST else EVERY
                if arrived - last + 1e-3 >= gap and track[3] - track[1] >= LEAST_HEIGHT:
                    embed(frame, track)
                    embeddings += 1
                    looks[(index, int(track[4]))] = (count + 1, arrived)
            analysed += 1
            rows.append((index, -1 if number is None else number, arrived, time.time()))
    took = time.time() - start
    with open(events, "w") as file:
        file.writelines(f"{camera} {number} {arrived:.6f} {event:.6f}\n" for camera, number, arrived, event in rows)
    return {
        "frames": analysed,
        "fps": analysed / took,
        "seconds": took,
        "replaced": sum(camera.replaced for camera in cameras) - replaced,
        "embeddings": embeddings,
        "peak_bytes": resident("VmHWM"),
    }


def read_mot(path):
    """Rows of a MOTChallenge file by frame."""
    frames = collections.defaultdict(list)
    with open(path) as file:
        for line in file:
            if line.strip():
                row = [float(v) for v in line.split(",")]
                frames[int(row[0])].append(row)
    return frames


def track(kind, detections, video, fps, lost_frames, results):
    """The tracker alone: recorded detections in, time of `update` only. It is given the real frames, for BoT-SORT's
    camera motion; LOST_FRAMES 0 leaves its own."""
    found = read_mot(detections)
    tracker = TRACKERS[kind](fps, lost_frames or None)
    capture = cv2.VideoCapture(video)
    seconds, number, boxes, out = 0.0, 0, 0, []
    while True:
        good, frame = capture.read()
        if not good:
            break
        number += 1
        rows = np.array([[r[2], r[3], r[2] + r[4], r[3] + r[5], r[6], 0] for r in found.get(number, ())], np.float32)
        rows = rows.reshape(-1, 6)
        start = time.perf_counter()
        tracks = tracker.update(rows, frame)
        seconds += time.perf_counter() - start
        boxes += len(rows)
        for t in tracks:
            out.append(f"{number},{int(t[4])},{t[0]:.3f},{t[1]:.3f},{t[2] - t[0]:.3f},{t[3] - t[1]:.3f},{t[5]:.4f},-1,-1,-1\n")
    with open(results, "w") as file:
        file.writelines(out)
    return {"frames": number, "seconds": seconds, "fps": number / seconds, "boxes": boxes}


def considered(row):
    """Whether a row of truth counts: to be considered, and a pedestrian."""
    return row[6] != 0 and (len(row) < 8 or row[7] in (1, -1))


def ltwh(rows):
    return np.array([row[2:6] for row in rows], np.float64).reshape(-1, 4)


def overlap(a, b):
    """IoU of every pair of boxes."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    common = np.prod((high - low).clip(0), axis=2)
    union = np.prod(a[:, 2:], axis=1)[:, None] + np.prod(b[:, 2:], axis=1)[None] - common
    return common / np.maximum(union, 1e-9)


def score(pairs):
    """IDF1 and MOTA by motmetrics, HOTA by TrackEval, over several cameras whose ids have nothing to do with each other."""
    import motmetrics as mm
    from trackeval.metrics import HOTA

    accumulators, hota, sequences = [], HOTA(), {}
    for number, (truth_file, results_file) in enumerate(pairs):
        truth = {f: [r for r in rows if considered(r)] for f, rows in read_mot(truth_file).items()}
        results = read_mot(results_file)
        frames = sorted(set(truth) | set(results))
        accumulator = mm.MOTAccumulator(auto_id=True)
        names = [{}, {}]
        data = {"gt_ids": [], "tracker_ids": [], "similarity_scores": []}
        for frame in frames:
            sides = [source.get(frame, []) for source in (truth, results)]
            ids = [[int(r[1]) for r in rows] for rows in sides]
            iou = overlap(ltwh(sides[0]), ltwh(sides[1]))
            accumulator.update(ids[0], ids[1], np.where(iou >= 0.5, 1 - iou, np.nan))
            dense = [np.array([names[k].setdefault(i, len(names[k])) for i in ids[k]], int) for k in range(2)]
            data["gt_ids"].append(dense[0])
            data["tracker_ids"].append(dense[1])
            data["similarity_scores"].append(iou)
        data["num_gt_dets"], data["num_tracker_dets"] = (sum(map(len, data[k])) for k in ("gt_ids", "tracker_ids"))
        data["num_gt_ids"], data["num_tracker_ids"] = len(names[0]), len(names[1])
        data["num_timesteps"] = len(frames)
        sequences[str(number)] = hota.eval_sequence(data)
        accumulators.append(accumulator)
    host = mm.metrics.create()
    wanted = ["idf1", "mota", "num_switches", "num_unique_objects", "precision", "recall"]
    table = host.compute_many(accumulators, metrics=wanted, generate_overall=True).loc["OVERALL"]
    combined = hota.combine_sequences(sequences)
    out = {name: float(table[name]) for name in wanted}
    out["hota"], out["assa"], out["deta"] = (float(np.mean(combined[k])) for k in ("HOTA", "AssA", "DetA"))
    return out


def start(video, detector, embedder, intra, spin):
    """From the start of the process to the first confirmed person with an embedding, as fast as the file can be read."""
    tracker = byte_track(10)
    detect, embed = Detector(detector, intra, spin), Embedder(embedder, intra, spin)
    loaded = time.time()
    capture = cv2.VideoCapture(video)
    while True:
        good, frame = capture.read()
        if not good:
            sys.exit("edge_peers.py: nobody in the video")
        tracks = tracker.update(detect(frame), frame)
        if len(tracks):
            embed(frame, tracks[0])
            return {"loaded_unix": loaded, "event_unix": time.time(), "script_unix": STARTED}


def versions():
    import importlib.metadata

    import onnxruntime

    names = ("boxmot", "onnxruntime", "opencv-python", "torch", "motmetrics", "trackeval", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    found["library"] = os.path.join(os.path.dirname(onnxruntime.__file__), "capi")
    return found


def main():
    work, *rest = sys.argv[1:]
    if work == "versions":
        result = versions()
    elif work == "replay":
        video, detector, embedder, counts, intra, spin, frames = rest
        result = replay(video, detector, embedder, counts, int(intra), int(spin), int(frames))
    elif work == "live":
        detector, embedder, intra, spin, low_latency, seconds, events, *urls = rest
        result = live(detector, embedder, int(intra), int(spin), int(low_latency), float(seconds), events, urls)
    elif work == "track":
        with open(rest[0]) as file:
            result = {"jobs": [track(**job) for job in json.load(file)]}
    elif work == "score":
        result = score(list(zip(rest[0::2], rest[1::2])))
    elif work == "start":
        video, detector, embedder, intra, spin = rest
        result = start(video, detector, embedder, int(intra), int(spin))
    else:
        sys.exit(f"edge_peers.py: unknown work {work!r}")
    print(json.dumps(result), flush=True)
    # Threads that still read a camera are not waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
