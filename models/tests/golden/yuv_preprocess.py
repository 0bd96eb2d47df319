"""Planar / semi-planar YUV 4:2:0 pictures and their exact RGB.

Writes yuv_preprocess.safetensors beside this script (layout: README.md).

Written from the public definitions only:
  * ITU-R BT.601-7, BT.709-6, BT.2020-2 (non-constant luminance): luma
    coefficients Kr, Kb and the quantisation of 8-bit "limited" Y' 16..235,
    C 16..240; ISO/IEC 23091-2 / H.273 VideoFullRangeFlag for "full" 0..255
    (for BT.601 full this is JFIF's conversion).
  * Chroma siting: "centre" is the MPEG-1 / JPEG siting (H.273
    chroma_sample_loc_type 1): chroma in the middle of its 2x2 luma samples.
    "left" is the MPEG-2 / H.264 default (chroma_sample_loc_type 0): on even
    luma columns horizontally, half-way between two luma rows vertically.

All arithmetic is float64: bilinear upsampling of the chroma planes with edge
replication, matrix, clip to 0..255, round half up.

Three kinds of picture, so that tests can choose their tolerance:
  50x30, 51x33        : sharp luma edges, soft colour edges (as a camera gives),
                        noise on all planes; next to nothing clips
  96x64 bt601 full    : sharp luma AND sharp colour edges; no clipping
  96x64 bt709, bt2020 : the same plus patches with extreme values, partly out
                        of the nominal range, so that the clip matters

Made with: Python 3.11, numpy 2.4.6, Pillow 13.0.0 (check only),
safetensors 0.8.0.  Seed: 20240611 (numpy default_rng / PCG64).
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

SEED = 20240611

KR_KB = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}
SITINGS = ("centre", "left")

# (width, height, matrix, range)
CASES = [
    (w, h, m, r)
    for (w, h) in ((50, 30), (51, 33))
    for m in ("bt601", "bt709", "bt2020")
    for r in ("limited", "full")
] + [
    (96, 64, "bt601", "full"),
    (96, 64, "bt709", "limited"),
    (96, 64, "bt2020", "limited"),
]


def case_name(w, h, matrix, rng):
    return f"{w}x{h}.{matrix}.{rng}"


# ---------------------------------------------------------------- definitions


def yuv_to_rgb(y, u, v, matrix, rng):
    """Code values (float64, same shape) -> RGB 0..255, clipped, not rounded."""
    kr, kb = KR_KB[matrix]
    kg = 1.0 - kr - kb
    if rng == "limited":
        yy, cb, cr = (y - 16.0) / 219.0, (u - 128.0) / 224.0, (v - 128.0) / 224.0
    else:
        yy, cb, cr = y / 255.0, (u - 128.0) / 255.0, (v - 128.0) / 255.0
    r = yy + 2.0 * (1.0 - kr) * cr
    b = yy + 2.0 * (1.0 - kb) * cb
    g = (yy - kr * r - kb * b) / kg
    return np.clip(np.stack([r, g, b], -1), 0.0, 1.0) * 255.0


def rgb_to_yuv(rgb, matrix, rng):
    """RGB 0..1 -> code values, not rounded (only used to make the pictures)."""
    kr, kb = KR_KB[matrix]
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    y = kr * r + (1.0 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2.0 * (1.0 - kb)), (r - y) / (2.0 * (1.0 - kr))
    if rng == "limited":
        return 16.0 + 219.0 * y, 128.0 + 224.0 * cb, 128.0 + 224.0 * cr
    return 255.0 * y, 128.0 + 255.0 * cb, 128.0 + 255.0 * cr


def _lerp_axis(p, pos, axis):
    """Linear interpolation of p along axis at sample positions pos."""
    n = p.shape[axis]
    i0 = np.floor(pos).astype(int)
    f = pos - i0
    a = np.take(p, np.clip(i0, 0, n - 1), axis)
    b = np.take(p, np.clip(i0 + 1, 0, n - 1), axis)
    shape = [1, 1]
    shape[axis] = -1
    f = f.reshape(shape)
    return a * (1.0 - f) + b * f


def upsample_chroma(c, w, h, siting):
    """(ceil(h/2), ceil(w/2)) -> (h, w) float64, bilinear, edge replicated.

    Chroma sample i lies at luma index 2i + 0.5 (centre) or 2i (left, x only).
    """
    x, y = np.arange(w, dtype=np.float64), np.arange(h, dtype=np.float64)
    px = (x - 0.5) / 2.0 if siting == "centre" else x / 2.0
    py = (y - 0.5) / 2.0
    return _lerp_axis(_lerp_axis(c.astype(np.float64), py, 0), px, 1)


def exact_rgb(y, u, v, matrix, rng, siting):
    h, w = y.shape
    return yuv_to_rgb(
        y.astype(np.float64),
        upsample_chroma(u, w, h, siting),
        upsample_chroma(v, w, h, siting),
        matrix,
        rng,
    )


def round_u8(x):
    return np.floor(x + 0.5).astype(np.uint8)


# ------------------------------------------------------------------- pictures


def scene(w, h, rand):
    """RGB 0..1: smooth ramps, hard edges, fine stripes, noise."""
    x = (np.arange(w) + 0.5)[None, :] / w
    y = (np.arange(h) + 0.5)[:, None] / h
    img = np.stack(
        [
            0.25 + 0.45 * x + 0.0 * y,
            0.30 + 0.30 * y + 0.15 * np.sin(6.0 * x + 2.0 * y),
            0.65 - 0.35 * x * y + 0.0 * y,
        ],
        -1,
    )

    def put(mask, colour):
        img[np.broadcast_to(mask, (h, w))] = colour

    put((x - 0.3) ** 2 + ((y - 0.4) * h / w) ** 2 < 0.02, (0.78, 0.30, 0.25))
    put((abs(x - 0.68) < 0.12) & (abs(y - 0.62) < 0.22), (0.22, 0.38, 0.72))
    put((abs(x - 0.68) < 0.05) & (abs(y - 0.62) < 0.10), (0.88, 0.86, 0.60))
    put(abs((x - 0.05) - 0.8 * (y - 0.1)) < 0.03, (0.20, 0.62, 0.30))
    stripes = (np.arange(w)[None, :] % 4 < 2) & (y > 0.86)
    put(stripes, (0.85, 0.85, 0.85))
    img += rand.normal(0.0, 0.02, img.shape)
    return np.clip(img, 0.08, 0.92)


def soften(p, sigma):
    """Gaussian blur, edge replicated."""
    n = int(np.ceil(3 * sigma))
    k = np.exp(-0.5 * (np.arange(-n, n + 1) / sigma) ** 2)
    k /= k.sum()
    for axis in (0, 1):
        p = np.pad(p, [(n, n) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        p = np.apply_along_axis(np.convolve, axis, p, k, "valid")
    return p


def planes(w, h, matrix, rng, rand):
    """u8 planes without padding: y (h, w), u and v (ceil(h/2), ceil(w/2))."""
    y, u, v = rgb_to_yuv(scene(w, h, rand), matrix, rng)
    if w != 96:
        u, v = soften(u, 2.5), soften(v, 2.5)
    ch, cw = (h + 1) // 2, (w + 1) // 2

    def down(p):
        p = np.pad(p, ((0, 2 * ch - h), (0, 2 * cw - w)), mode="edge")
        return p.reshape(ch, 2, cw, 2).mean((1, 3))

    u, v = down(u), down(v)
    u, v = (p + rand.normal(0.0, 1.5, p.shape) for p in (u, v))
    y, u, v = (np.clip(np.floor(p + 0.5), 0, 255).astype(np.uint8) for p in (y, u, v))
    if w == 96 and matrix != "bt601":  # below black, above white, saturated
        y[4:14, 60:74], y[4:14, 74:90] = 3, 250
        y[48:60, 8:24] = 120
        u[24:27, 4:12], u[27:30, 4:12] = 240, 16
        v[24:30, 4:8], v[24:30, 8:12] = 240, 16
    return y, u, v


def pad_rows(p, stride, rand):
    """Rows padded to stride with random bytes that must never be read."""
    out = rand.integers(0, 256, (p.shape[0], stride), dtype=np.uint8)
    out[:, : p.shape[1]] = p
    return out


def up(n, a):
    return (n + a - 1) // a * a


def make_cases():
    """Yields (name, dict) with padded planes, strides and unpadded planes."""
    rand = np.random.default_rng(SEED)
    for i, (w, h, m, r) in enumerate(CASES):
        y, u, v = planes(w, h, m, r, rand)
        cw = (w + 1) // 2
        a, b = ((16, 8), (8, 16))[i % 2]
        ys, us, uvs = up(w, a), up(cw, b), up(2 * cw, a)
        if i == len(CASES) - 1:  # 96x64 is already aligned: one with extra
            ys, us, uvs = ys + 16, us + 8, uvs + 8
        uv = np.stack([u, v], -1).reshape(u.shape[0], 2 * cw)
        yield case_name(w, h, m, r), dict(
            w=w, h=h, matrix=m, range=r, y=y, u=u, v=v,
            y_pad=pad_rows(y, ys, rand), u_pad=pad_rows(u, us, rand),
            v_pad=pad_rows(v, us, rand), uv_pad=pad_rows(uv, uvs, rand),
            strides=np.array([ys, us, us, uvs], np.int32),
        )


# --------------------------------------------------------------------- checks


def check_definitions():
    # Well known coefficients of the 8-bit limited-range conversions.
    known = {
        "bt601": (1.5960, 0.3918, 0.8130, 2.0172),
        "bt709": (1.7927, 0.2132, 0.5329, 2.1124),
        "bt2020": (1.6787, 0.1873, 0.6504, 2.1418),
    }
    for m, (rv, gu, gv, bu) in known.items():
        o = np.array([126.0])
        n = np.array([128.0])
        e = np.array([129.0])
        base = yuv_to_rgb(o, n, n, m, "limited")[0]
        du = yuv_to_rgb(o, e, n, m, "limited")[0] - base
        dv = yuv_to_rgb(o, n, e, m, "limited")[0] - base
        got = np.array([dv[0], -du[1], -dv[1], du[2]])
        assert np.allclose(got, (rv, gu, gv, bu), atol=6e-5), (m, got)
    # BT.601 full range against Pillow's YCbCr (JFIF) conversion.
    from PIL import Image

    ycc = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pil = np.asarray(Image.fromarray(ycc, "YCbCr").convert("RGB")).astype(int)
    own = yuv_to_rgb(*np.moveaxis(ycc.astype(np.float64), -1, 0), "bt601", "full")
    assert abs(pil - own).max() <= 1.01
    # Upsampling weights: a ramp in chroma stays a ramp away from the edges.
    ramp = np.tile(np.arange(8.0), (6, 1))
    c = upsample_chroma(ramp, 16, 12, "centre")
    l = upsample_chroma(ramp, 16, 12, "left")
    assert np.allclose(c[3, 1:15], (np.arange(1, 15) - 0.5) / 2)
    assert np.allclose(l[3, :15], np.arange(15) / 2)


def main():
    check_definitions()
    out = {}
    for name, c in make_cases():
        out[f"{name}.size"] = np.array([c["w"], c["h"]], np.int32)
        out[f"{name}.strides"] = c["strides"]
        for k in ("y", "u", "v", "uv"):
            out[f"{name}.{k}"] = c[f"{k}_pad"]
        for s in SITINGS:
            rgb = exact_rgb(c["y"], c["u"], c["v"], c["matrix"], c["range"], s)
            out[f"{name}.rgb.{s}"] = round_u8(rgb)
            clipped = ((rgb <= 0) | (rgb >= 255)).any(-1).mean()
            print(f"{name:24s} {s:7s} strides {c['strides']} clipped {clipped:.3f}")
    path = Path(__file__).with_suffix(".safetensors")
    save_file(out, path)
    print(path.name, path.stat().st_size, "bytes,", len(out), "tensors")


if __name__ == "__main__":
    main()
