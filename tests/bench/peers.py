#!/usr/bin/env python3
"""The other side of `./reid bench train`: the same work by what a Python user would use. One JSON line per call.

    peers.py step resnet50|resnet18 SECONDS
    peers.py cluster FEATURES.npy LABELS.npy K1 K2 EPS MIN_SAMPLES
    peers.py evaluate QUERY.npy GALLERY.npy CYTHON_FOLDER
    peers.py build-cython WHEEL FOLDER

Times exclude imports and reading files. Memory is the highest resident set during the work less the one before it.
All threads of the machine, float32.
"""

import json
import os
import subprocess
import sys
import time
import zipfile

import numpy as np

CORES = len(os.sched_getaffinity(0))


def resident(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(key))


class Memory:
    """Own memory of the work between construction and `peak`."""

    def __init__(self):
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        self.before = resident("VmRSS")

    def peak(self):
        return resident("VmHWM") - self.before


def step(network, seconds):
    import torch
    import torchvision

    torch.set_num_threads(CORES)
    torch.manual_seed(1)
    # A process that has computed before: the libraries' own rooms are not the network's.
    torch.nn.functional.conv2d(torch.zeros(1, 8, 32, 32), torch.zeros(8, 8, 3, 3)).sum()
    memory = Memory()
    if network == "resnet50":
        batch, height, width = 8, 256, 128
        body = torchvision.models.resnet50()
        features = 2048
    else:
        batch, height, width = 32, 128, 64
        body = narrow_resnet18(torchvision)
        features = 128
    body.fc = torch.nn.BatchNorm1d(features)
    model = body.to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, height, width).contiguous(memory_format=torch.channels_last)
    target = torch.randn(batch, features)
    adam = torch.optim.Adam(model.parameters(), lr=1e-5)

    def one():
        adam.zero_grad(set_to_none=True)
        (model(images) * target).mean().backward()
        adam.step()

    for _ in range(3):
        one()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        one()
        done += 1
    took = time.perf_counter() - start
    return {"images_per_second": done * batch / took, "own_bytes": memory.peak()}


def narrow_resnet18(torchvision):
    """Stages of 16, 32, 64 and 128 channels, last stride 1."""
    import torch

    block = torchvision.models.resnet.BasicBlock
    net = torchvision.models.ResNet(block, [2, 2, 2, 2])
    net.inplanes = 16
    net.conv1 = torch.nn.Conv2d(3, 16, 7, 2, 3, bias=False)
    net.bn1 = torch.nn.BatchNorm2d(16)
    for number, (channels, stride) in enumerate(((16, 1), (32, 2), (64, 2), (128, 1)), 1):
        setattr(net, f"layer{number}", net._make_layer(block, channels, 2, stride=stride))
    return net


def cluster(features, labels, k1, k2, eps, min_samples):
    """k-reciprocal Jaccard distance as dense numpy code does it, neighbours by faiss, DBSCAN by scikit-learn."""
    import faiss
    from sklearn.cluster import DBSCAN

    faiss.omp_set_num_threads(CORES)
    x = np.load(features)
    count = len(x)
    memory = Memory()
    start = time.perf_counter()
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x)
    _, near = index.search(x, k1)
    del index
    # Each is its own nearest neighbour, also where rounding says otherwise.
    for row in np.flatnonzero(near[:, 0] != np.arange(count)):
        rest = [j for j in near[row] if j != row]
        near[row] = [row] + rest[: k1 - 1]
    neighbours_at = time.perf_counter()

    def mutual(columns):
        lists = []
        for i in range(count):
            forward = near[i, :columns]
            lists.append(forward[(near[forward, :columns] == i).any(axis=1)])
        return lists

    whole, part = mutual(k1), mutual(int(np.around(k1 / 2)) + 1)
    encoded = np.zeros((count, count), dtype=np.float32)
    for i in range(count):
        members = whole[i]
        for candidate in whole[i]:
            short = part[candidate]
            if len(np.intersect1d(short, whole[i], assume_unique=True)) > 2 / 3 * len(short):
                members = np.append(members, short)
        members = np.unique(members)
        weights = np.exp(-(2 - 2 * (x[members] @ x[i])))
        encoded[i, members] = weights / weights.sum()
    if k2 > 1:
        averaged = np.empty_like(encoded)
        for i in range(count):
            averaged[i] = encoded[near[i, :k2]].mean(axis=0)
        encoded = averaged
        del averaged
    having = [np.flatnonzero(encoded[:, j]) for j in range(count)]
    distance = np.empty((count, count), dtype=np.float32)
    for i in range(count):
        shared = np.zeros(count, dtype=np.float32)
        for j in np.flatnonzero(encoded[i]):
            points = having[j]
            shared[points] += np.minimum(encoded[i, j], encoded[points, j])
        distance[i] = 1 - shared / (2 - shared)
    distance[distance < 0] = 0
    found = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed", n_jobs=CORES).fit_predict(distance)
    end = time.perf_counter()
    np.save(labels, found.astype(np.int64))
    return {
        "neighbours_seconds": neighbours_at - start,
        "rest_seconds": end - neighbours_at,
        "own_bytes": memory.peak(),
        "clusters": int(found.max()) + 1,
    }


def evaluation_labels(queries, gallery):
    """As the bench's own side makes them."""
    q, g = np.arange(queries), np.arange(gallery)
    return q % 750 + 1, g % 750 + 1, q // 750 % 6, g // 750 % 6


def evaluate(query, gallery, cython):
    """Distances by a matrix product; ranks by torchreid's Cython code and by counting in numpy."""
    sys.path.insert(0, cython)
    import rank_cy

    q, g = np.load(query), np.load(gallery)
    q_pids, g_pids, q_cams, g_cams = evaluation_labels(len(q), len(g))
    memory = Memory()
    start = time.perf_counter()
    scores = q @ g.T
    products_at = time.perf_counter()
    cmc, precision, _ = rank_cy.evaluate_cy(1 - scores, q_pids, g_pids, q_cams, g_cams, 50)
    end = time.perf_counter()
    peak = memory.peak()
    rows = [np.flatnonzero(g_pids == p) for p in range(751)]
    counting = time.perf_counter()
    for i in range(len(q)):
        row, mine = scores[i], rows[q_pids[i]]
        same = g_cams[mine] == q_cams[i]
        row[mine[same]] = -np.inf
        right = np.sort(row[mine[~same]])[::-1]
        places = [np.count_nonzero(row >= r) for r in right]
        np.mean(np.arange(1, len(right) + 1) / places)
    counted = time.perf_counter() - counting
    precision = np.asarray(precision)
    return {
        "products_seconds": products_at - start,
        "ranking_seconds": end - products_at,
        "counting_seconds": counted,
        "own_bytes": peak,
        "map": float(precision[: len(q)].mean()),
        "rank1": float(np.asarray(cmc)[0]),
    }


def build_cython(wheel, folder):
    """Compiles the Cython ranking that travels as source in the wheel of fastreid (its authors took it from torchreid)."""
    os.makedirs(folder, exist_ok=True)
    with zipfile.ZipFile(wheel) as files:
        source = files.read("fastreid/evaluation/rank_cylib/rank_cy.pyx")
    with open(os.path.join(folder, "rank_cy.pyx"), "wb") as file:
        file.write(source)
    with open(os.path.join(folder, "setup.py"), "w") as file:
        file.write(
            "import numpy\n"
            "from setuptools import Extension, setup\n"
            "from Cython.Build import cythonize\n"
            "setup(name='rank_cy', ext_modules=cythonize([Extension('rank_cy', ['rank_cy.pyx'],"
            " include_dirs=[numpy.get_include()])], language_level=3))\n"
        )
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, check=True)
    return {}


def main():
    work, *rest = sys.argv[1:]
    if work == "step":
        result = step(rest[0], float(rest[1]))
    elif work == "cluster":
        result = cluster(rest[0], rest[1], int(rest[2]), int(rest[3]), float(rest[4]), int(rest[5]))
    elif work == "evaluate":
        result = evaluate(*rest)
    elif work == "build-cython":
        result = build_cython(*rest)
    else:
        sys.exit(f"peers.py: unknown work {work!r}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
