"""The "resize each plane, then convert" variant of yuv_resize.py.

Writes yuv_resize_planes.safetensors beside this script (layout: README.md),
for implementations that resize the Y, U and V planes first: each plane goes
through the same triangle filter (yuv_resize.py), luma with the box itself,
chroma with box / 2, shifted by +0.25 chroma pixels in x for the "left" siting
(chroma sample i then has its centre at luma coordinate 2i + 0.5, that is at
chroma coordinate i + 0.5 = X / 2 + 0.25); taps outside a plane are dropped and
the weights normalised.  Then matrix, clip to 0..255, no rounding.  This is NOT
the exact picture: how far it is from it stands in yuv_resize.py.

Only the usual pairings are stored: "left" for limited, "centre" for full range.

Made with: Python 3.11, numpy 2.4.6, safetensors 0.8.0.
Seed: 20240611 (that of yuv_preprocess.py).
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import yuv_preprocess as yp
import yuv_resize as yr


def main():
    out = {}
    for name, c in yp.make_cases():
        siting = "centre" if c["range"] == "full" else "left"
        shift = 0.25 if siting == "left" else 0.0
        for k, box in yr.crops(c["w"], c["h"]).items():
            box = tuple(float(v) for v in np.array(box, np.float32))
            out[f"{c['w']}x{c['h']}.crop.{k}"] = np.array(box, np.float32)
            for h, w in yr.OUTPUTS:
                got = yr.planes_first(c, box, h, w, shift)
                out[f"{name}.{siting}.{k}.{h}x{w}"] = np.ascontiguousarray(got, np.float32)
    path = Path(__file__).with_suffix(".safetensors")
    save_file(out, path)
    print(path.name, path.stat().st_size, "bytes,", len(out), "tensors")


if __name__ == "__main__":
    main()
