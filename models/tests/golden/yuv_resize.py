"""Crops of the exact RGB of yuv_preprocess.py, resized with a triangle filter.

Writes yuv_resize.safetensors beside this script (layout: README.md).  The
pictures are those of yuv_preprocess.py (same seed, made anew here).

The resize is the antialiased BILINEAR of Pillow's Image.resize(box=...),
written from its definition: output sample i has its centre at
left + (i + 0.5) * s with s = (right - left) / n; the weight of source pixel x
is max(0, 1 - |x + 0.5 - centre| / max(s, 1)), over all pixels of the whole
picture (pixels outside the box but inside the picture do take part), and the
weights are normalised to sum 1.  Both axes, float64, no rounding in between.
Source: clipped, NOT rounded float RGB 0..255.

Checked while running against Pillow: on the u8-rounded picture within 1 level,
and on float ("F") pictures within 1e-3.

Made with: Python 3.11, numpy 2.4.6, Pillow 13.0.0, safetensors 0.8.0.
Seed: 20240611 (that of yuv_preprocess.py).

Differences, in levels of 0..255, against this reference ("convert, then
resize") of three cheaper ways, over both crops and both output sizes:
  planes : each plane resized with the same filter, then converted; the chroma
           box is box / 2, shifted by +0.25 chroma pixels in x for "left"
  naive  : the same with box / 2 for both sitings (the siting is ignored)
  nearest: each chroma sample repeated 2x2, converted, then resized

case                    siting       planes              naive              nearest
                                max   p99  mean     max   p99  mean     max   p99  mean
50x30.bt601.limited     centre   4.98  2.16 0.428   4.98  2.16 0.428   8.37  4.80 0.919
50x30.bt601.limited     left     3.48  1.97 0.337  10.86  5.87 1.328  12.57  7.20 1.573
50x30.bt601.full        centre   4.29  2.20 0.414   4.29  2.20 0.414   8.35  4.46 0.913
50x30.bt601.full        left     3.72  1.95 0.325   8.17  5.98 1.326  12.19  7.16 1.577
50x30.bt709.limited     centre   6.83  2.43 0.416   6.83  2.43 0.416   8.94  5.12 0.915
50x30.bt709.limited     left     5.26  2.05 0.323   9.68  6.15 1.297  12.50  7.47 1.553
50x30.bt709.full        centre   4.42  2.31 0.404   4.42  2.31 0.404   8.99  5.06 0.914
50x30.bt709.full        left     5.82  1.99 0.320   8.81  6.17 1.301  13.72  7.42 1.559
50x30.bt2020.limited    centre   4.25  2.24 0.420   4.25  2.24 0.420   8.44  5.04 0.931
50x30.bt2020.limited    left     4.42  2.04 0.334   8.83  6.07 1.315  13.07  7.53 1.573
50x30.bt2020.full       centre   4.56  2.24 0.396   4.56  2.24 0.396   8.90  4.94 0.901
50x30.bt2020.full       left     4.63  1.97 0.322   8.70  6.30 1.286  13.35  7.56 1.542
51x33.bt601.limited     centre   5.36  2.44 0.437   5.36  2.44 0.437   9.70  4.52 0.905
51x33.bt601.limited     left     3.55  1.93 0.329   9.54  6.24 1.314  12.07  7.30 1.564
51x33.bt601.full        centre   4.71  2.18 0.420   4.71  2.18 0.420   8.80  4.59 0.872
51x33.bt601.full        left     3.79  1.81 0.313   8.49  5.86 1.306  14.39  7.34 1.551
51x33.bt709.limited     centre   7.16  2.54 0.441   7.16  2.54 0.441  11.67  4.92 0.898
51x33.bt709.limited     left     5.35  2.18 0.328   9.09  6.55 1.322  12.89  7.63 1.570
51x33.bt709.full        centre   5.39  2.37 0.417   5.39  2.37 0.417   8.28  5.08 0.864
51x33.bt709.full        left     4.23  2.08 0.316   8.88  6.22 1.312  11.79  7.46 1.549
51x33.bt2020.limited    centre   6.89  2.55 0.437   6.89  2.55 0.437  10.00  4.71 0.891
51x33.bt2020.limited    left     5.47  1.97 0.324   9.65  6.31 1.333  12.90  7.54 1.570
51x33.bt2020.full       centre   5.82  2.45 0.420   5.82  2.45 0.420   8.99  4.86 0.876
51x33.bt2020.full       left     4.09  1.99 0.317   8.36  6.05 1.328  10.97  7.44 1.565
96x64.bt601.full        centre  29.49 14.01 1.504  29.49 14.01 1.504  17.27  8.52 0.935
96x64.bt601.full        left    30.97 13.55 1.422  29.86 17.51 2.233  26.58 13.46 1.870
96x64.bt709.limited     centre  50.69 34.65 2.551  50.69 34.65 2.551  24.28 11.54 1.178
96x64.bt709.limited     left    57.72 32.89 2.429  63.74 37.66 3.418  29.02 17.32 2.147
96x64.bt2020.limited    centre  51.50 34.04 2.582  51.50 34.04 2.582  24.04 11.36 1.190
96x64.bt2020.limited    left    52.66 32.31 2.436  65.12 35.89 3.443  27.93 17.19 2.181
"""

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

import yuv_preprocess as yp

OUTPUTS = ((16, 8), (32, 24))  # (height, width)


def crops(w, h):
    part = (10.3, 4.7, 40.2, 28.9) if w < 96 else (20.25, 10.5, 84.75, 60.125)
    return {"whole": (0.0, 0.0, float(w), float(h)), "part": part}


def weights(n_in, lo, hi, n_out):
    s = (hi - lo) / n_out
    fs = max(s, 1.0)
    centre = lo + (np.arange(n_out) + 0.5) * s
    x = np.arange(n_in) + 0.5
    k = np.maximum(0.0, 1.0 - abs(x[None, :] - centre[:, None]) / fs)
    return k / k.sum(1, keepdims=True)


def resize(img, box, h, w):
    l, t, r, b = box
    wx = weights(img.shape[1], l, r, w)
    wy = weights(img.shape[0], t, b, h)
    return np.einsum("yi,xj,ij...->yx...", wy, wx, img, optimize=True)


def planes_first(c, box, h, w, shift):
    l, t, r, b = box
    cbox = (l / 2 + shift, t / 2, r / 2 + shift, b / 2)
    y = resize(c["y"].astype(np.float64), box, h, w)
    u = resize(c["u"].astype(np.float64), cbox, h, w)
    v = resize(c["v"].astype(np.float64), cbox, h, w)
    return yp.yuv_to_rgb(y, u, v, c["matrix"], c["range"])


def nearest_rgb(c):
    def rep(p):
        return p.repeat(2, 0).repeat(2, 1)[: c["h"], : c["w"]].astype(np.float64)

    return yp.yuv_to_rgb(c["y"].astype(np.float64), rep(c["u"]), rep(c["v"]), c["matrix"], c["range"])


def check_pillow(rgb, box, h, w):
    u8 = yp.round_u8(rgb)
    pil = np.asarray(Image.fromarray(u8).resize((w, h), Image.Resampling.BILINEAR, box=box))
    d8 = abs(pil - resize(u8.astype(np.float64), box, h, w)).max()
    assert d8 <= 1.0, d8
    df = 0.0
    for ch in range(3):
        f = Image.fromarray(rgb[..., ch].astype(np.float32)).resize(
            (w, h), Image.Resampling.BILINEAR, box=box
        )
        df = max(df, abs(np.asarray(f) - resize(rgb[..., ch], box, h, w)).max())
    assert df < 1e-3, df
    return d8, df


def main():
    out, rows, pillow = {}, [], []
    for name, c in yp.make_cases():
        w0, h0 = c["w"], c["h"]
        cr = crops(w0, h0)
        for k, box in cr.items():
            out[f"{w0}x{h0}.crop.{k}"] = np.array(box, np.float32)
        # The boxes as stored (float32) are the boxes used.
        cr = {k: tuple(float(v) for v in np.array(b, np.float32)) for k, b in cr.items()}
        near = nearest_rgb(c)
        usual = "centre" if c["range"] == "full" else "left"
        for siting in yp.SITINGS:
            rgb = yp.exact_rgb(c["y"], c["u"], c["v"], c["matrix"], c["range"], siting)
            d = {"planes": [], "naive": [], "nearest": []}
            for k, box in cr.items():
                for h, w in OUTPUTS:
                    ref = resize(rgb, box, h, w)
                    pillow.append(check_pillow(rgb, box, h, w))
                    shift = 0.25 if siting == "left" else 0.0
                    d["planes"].append(planes_first(c, box, h, w, shift) - ref)
                    d["naive"].append(planes_first(c, box, h, w, 0.0) - ref)
                    d["nearest"].append(resize(near, box, h, w) - ref)
                    if (h, w) == OUTPUTS[0] or siting == usual:
                        out[f"{name}.{siting}.{k}.{h}x{w}"] = np.ascontiguousarray(ref, np.float32)
            row = [f"{name:23s} {siting:6s}"]
            for way in ("planes", "naive", "nearest"):
                e = abs(np.concatenate([x.ravel() for x in d[way]]))
                row.append(f"{e.max():5.2f} {np.percentile(e, 99):5.2f} {e.mean():5.3f}")
            rows.append("  ".join(row))
    print("case                    siting       planes              naive              nearest")
    print("                                max   p99  mean     max   p99  mean     max   p99  mean")
    print("\n".join(rows))
    p = np.array(pillow).max(0)
    print(f"against Pillow: u8 max {p[0]:.3f}, float max {p[1]:.2e}")
    path = Path(__file__).with_suffix(".safetensors")
    save_file(out, path)
    print(path.name, path.stat().st_size, "bytes,", len(out), "tensors")


if __name__ == "__main__":
    main()
