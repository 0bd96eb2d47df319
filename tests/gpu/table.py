#!/usr/bin/env python3
"""The rows of docs/BENCHMARKS.md's GPU section from the results of tests/gpu/run: median (least to most) over the rounds, ratios
round by round. usage: table.py RESULTS"""

import json
import pathlib
import statistics
import sys


def rows(folder, name):
    path = folder / f"{name}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def spread(values, digits):
    if not values:
        return "not yet measured"
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def compare(folder, title, ours, peer, key, digits, scale=1.0):
    number = lambda r: None if r.get(key) is None else r[key] / scale
    a, b = ([number(r) for r in rows(folder, name)] for name in (ours, peer))
    # A round in which one side failed has no ratio.
    ratio = [x / y for x, y in zip(a, b) if x is not None and y is not None]
    a, b = ([x for x in side if x is not None] for side in (a, b))
    print(f"| {title} | {spread(a, digits)} | {spread(b, digits)} | {spread(ratio, 2)} |")


def main(folder):
    print("\n| work | ours | PyTorch | ours / PyTorch |")
    print("| --- | --- | --- | --- |")
    for precision in ("f32", "tf32", "bf16"):
        name = f"step-{precision}"
        title = f"ResNet-50 step, {precision}, beside eager, images/s"
        compare(folder, title, name, f"{name}-eager", "images_per_second", 0)
        compare(folder, "  memory, MiB", name, f"{name}-eager", "own_bytes", 0, 1 << 20)
    compare(folder, "ResNet-50 step, bf16, beside compiled, images/s", "step-bf16", "step-bf16-compiled", "images_per_second", 0)
    compare(folder, "  deterministic, beside compiled", "step-bf16-deterministic", "step-bf16-compiled", "images_per_second", 0)
    compare(folder, "30 neighbours of 32,621 x 2,048, s", "neighbours", "neighbours-peer", "seconds", 3)
    for r in rows(folder, "neighbours-compare"):
        print(f"\nneighbours of {r['rows']} rows: {r['equal_rows']} as on the processor")
    for r in rows(folder, "loader"):
        print(f"loader, {r['workers']} threads: {r['pictures_per_second']:.0f} pictures/s in three views")
    runs = [name for name in ("start", "ice", "ice-short-cuda", "ice-short-cpu") if (folder / name / "metrics.jsonl").exists()]
    if runs:
        print("\n| run | epochs | rank-1 | mAP | seconds, training and relabelling |")
        print("| --- | --- | --- | --- | --- |")
    for name in runs:
        lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        scored = [line for line in lines if "rank1" in line]
        seconds = sum(line.get("seconds", 0) for line in lines)
        score = "| {:.1f} % | {:.1f} % |".format(*(100 * scored[-1][k] for k in ("rank1", "map"))) if scored else "| | |"
        print(f"| {name} | {lines[-1]['epoch']} {score} {seconds:.0f} |")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
