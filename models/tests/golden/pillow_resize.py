"""Makes pillow_resize.safetensors: what Pillow makes of fractional crops, and of whole pictures full of contrast.

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
# Bicubic overshoots: values stay far enough from 0 and 255 that nothing is clipped between the two passes.
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

# Hard edges between 0 and 255, where bicubic overshoots and is clipped between the two passes: their order is seen. Pillow 13,
# which made the file, begins with the columns where the height shrinks more; older ones always begin with the rows. Name: source (width, height), output (width, height).
HARD = {
    "hard_shrink": ((151, 331), (64, 128)),
    "hard_shrink_odd": ((127, 77), (19, 13)),
    "hard_one_axis": ((45, 211), (128, 64)),
    "hard_grow": ((17, 29), (64, 128)),
    "hard_same": ((64, 128), (64, 128)),
}
for name, ((width, height), size) in HARD.items():
    y, x = np.mgrid[0:height, 0:width]
    blocks = rng.integers(0, 256, (height // 5 + 1, width // 4 + 1, 3), np.uint8)[y // 5, x // 4]
    stripes = np.where((x // 3 + y // 2) % 2 == 0, 0, 255).astype(np.uint8)[..., None]
    noise = rng.integers(0, 256, (height, width, 3), np.uint8)
    kind = (3 * y // height)[..., None]
    hard = np.where(kind == 0, blocks, np.where(kind == 1, stripes, noise)).astype(np.uint8)
    tensors[f"{name}.source"] = hard
    for filter, resample in (("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)):
        tensors[f"{name}.{filter}"] = np.asarray(Image.fromarray(hard).resize(size, resample))
with open("pillow_resize.safetensors", "wb") as file:
    file.write(save(tensors))
