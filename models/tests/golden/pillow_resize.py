"""Makes pillow_resize.safetensors: what Pillow makes of fractional crops.

Needs pillow, numpy, safetensors. Run in this folder: python pillow_resize.py
"""

import math

import numpy as np
from PIL import Image
from safetensors.numpy import save

WIDTH, HEIGHT = 61, 97
# name: box (left, top, right, bottom), output (width, height), filter
CASES = {
    "shrink_bilinear": ((0, 0, WIDTH, HEIGHT), (32, 40), Image.BILINEAR),
    "shrink_bicubic": ((0, 0, WIDTH, HEIGHT), (32, 40), Image.BICUBIC),
    "grow_bilinear": ((10, 20, 30, 50), (48, 64), Image.BILINEAR),
    "grow_bicubic": ((10, 20, 30, 50), (48, 64), Image.BICUBIC),
    "fraction_bilinear": ((3.25, 7.5, 58.75, 90.125), (24, 48), Image.BILINEAR),
    "fraction_bicubic": ((3.25, 7.5, 58.75, 90.125), (24, 48), Image.BICUBIC),
}

rng = np.random.default_rng(7)
y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
# Bicubic overshoots: values stay far enough from 0 and 255 that neither library clips between its two passes, which
# they run in different order.
waves = [128 + 50 * np.sin(x / (3 + c)) * np.cos(y / (5 - c)) for c in range(3)]
source = np.clip(np.stack(waves, -1) + rng.normal(0, 15, (HEIGHT, WIDTH, 3)), 40, 215).astype(np.uint8)
tensors = {"source": source}
for name, (box, size, resample) in CASES.items():
    # Only whole pixels around the box exist for the filter, as for a crop saved to a file.
    outer = (math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3]))
    inner = (box[0] - outer[0], box[1] - outer[1], box[2] - outer[0], box[3] - outer[1])
    fitted = Image.fromarray(source).crop(outer).resize(size, resample, box=inner)
    tensors[f"{name}.box"] = np.array(box, np.float32)
    tensors[name] = np.asarray(fitted)
with open("pillow_resize.safetensors", "wb") as file:
    file.write(save(tensors))
