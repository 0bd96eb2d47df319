"""Small MATLAB files as CUHK03 and MARS have them, level 5 with SciPy and level 7.3 (HDF5) with h5py.

    python protocols.py        # writes protocols/*.mat beside this file; numpy, scipy, h5py

Running it again writes the same bytes: the date in the head of a level 5 file is put back to that of the first time.

Level 7.3 as MATLAB writes it: a 512-byte user block with its banner, axes reversed, cells as references into `#refs#`,
empty cells as the uint64 pair of their size with the attribute MATLAB_empty.
"""

from pathlib import Path

import h5py
import numpy as np
from scipy import io

HEAD = b"MATLAB 5.0 MAT-file Platform: posix, Created on: Fri Nov 20 13:00:49 2026"
OUT = Path(__file__).parent / "protocols"


def savemat(path, variables, **options):
    io.savemat(path, variables, **options)
    with open(path, "r+b") as file:
        file.write(HEAD)


def cells(*items, column=False):
    array = np.empty(len(items), dtype=object)
    for n, item in enumerate(items):
        array[n] = item
    return array.reshape(-1, 1) if column else array.reshape(1, -1)


def level5():
    variables = {
        "doubles": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, -6.5]]),
        "bytes": np.array([[0, 7, 255]], dtype=np.uint8),
        "words": np.array([[-3, 40000]], dtype=np.int32),
        "nothing": np.zeros((0, 0)),
        "text": "1_001_1_01.png",
        "cells": cells("a.png", np.array([[3.0]]), cells("deep.png")),
        "structure": {"field": 1.0},
    }
    savemat(OUT / "mat5_plain.mat", variables)
    savemat(OUT / "mat5_compressed.mat", variables, do_compression=True)

    # CUHK03, new protocol: identity 1 is trained on, 2 tested.
    files = ["1_001_1_01.png", "1_001_2_06.png", "1_002_1_01.png", "1_002_2_06.png", "2_001_2_10.png"]
    column = lambda *x: np.array(x, dtype=np.float64).reshape(-1, 1)
    savemat(
        OUT / "cuhk03_new_protocol_config_detected.mat",
        {
            "filelist": cells(*files, column=True),
            "labels": column(1, 1, 2, 2, 2),
            "camId": column(1, 2, 1, 2, 2),
            "train_idx": column(1, 2),
            "query_idx": column(3, 4),
            "gallery_idx": column(5),
        },
        do_compression=True,
    )

    # MARS: first frame, last frame, identity, camera.
    savemat(OUT / "tracks_train_info.mat", {"track_train_info": np.array([[1, 2, 1, 1], [3, 3, 3, 6]], dtype=np.float64)})
    savemat(
        OUT / "tracks_test_info.mat",
        {"track_test_info": np.array([[1, 1, -1, 2], [2, 2, 0, 2], [3, 4, 2, 1], [5, 5, 2, 5]], dtype=np.int32)},
    )
    savemat(OUT / "query_IDX.mat", {"query_IDX": np.array([[3]], dtype=np.uint16)})


def picture(width=3, height=5):
    """Height x width x 3, as MATLAB sees it: 100 c + 10 y + x."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return (100 * c + 10 * y + x).astype(np.uint8)


def level73():
    path = OUT / "cuhk-03.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        count = 0

        def add(array, empty=False):
            nonlocal count
            count += 1
            options = {"compression": "gzip"} if array.ndim == 3 else {}
            dataset = refs.create_dataset(f"r{count}", data=array, **options)
            if empty:
                dataset.attrs["MATLAB_empty"] = np.uint8(1)
            return dataset.ref

        def add_cells(shape, items, where=None, name=None):
            """`items`: {(row, column): reference} in MATLAB's axes."""
            array = np.empty(shape[::-1], dtype=h5py.ref_dtype)
            for (row, column), ref in items.items():
                array[column, row] = ref
            if where is not None:
                return where.create_dataset(name, data=array, dtype=h5py.ref_dtype)
            nonlocal count
            count += 1
            return refs.create_dataset(f"r{count}", data=array, dtype=h5py.ref_dtype).ref

        def people(number, present):
            items = {}
            for person in range(number):
                for n in range(10):
                    if (person, n) in present:
                        items[person, n] = add(picture().transpose(2, 1, 0))
                    else:
                        items[person, n] = add(np.array([0, 0], dtype=np.uint64), empty=True)
            return add_cells((number, 10), items)

        for name, first, second in [
            ("detected", [(0, 0), (1, 1), (1, 9)], [(0, 5)]),
            ("labeled", [(0, 0), (1, 4)], [(0, 5)]),
        ]:
            pairs = {(0, 0): people(2, first), (1, 0): people(1, second)}
            add_cells((2, 1), pairs, file, name)
        sets = {
            (0, 0): add(np.array([[1, 2]], dtype=np.float64).T),
            (1, 0): add(np.array([[1, 1], [2, 1]], dtype=np.float64).T),
        }
        add_cells((2, 1), sets, file, "testsets")
    banner = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124) + b"\x00\x02IM"
    with open(path, "r+b") as file:
        file.write(banner)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    level5()
    level73()
