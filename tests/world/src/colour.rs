//! Colour: linear-light RGB for everything that is painted, sRGB only at the edges.

/// Linear-light red, green, blue; 1.0 is a perfectly white surface in full light.
pub type Rgb = [f32; 3];

/// sRGB transfer function, linear to encoded, both in 0..1.
pub fn encode(x: f32) -> f32 {
    let x = x.clamp(0.0, 1.0);
    if x <= 0.003_130_8 {
        12.92 * x
    } else {
        1.055 * x.powf(1.0 / 2.4) - 0.055
    }
}

/// Inverse of [`encode`].
pub fn decode(x: f32) -> f32 {
    let x = x.clamp(0.0, 1.0);
    if x <= 0.040_45 {
        x / 12.92
    } else {
        ((x + 0.055) / 1.055).powf(2.4)
    }
}

/// A linear colour from an sRGB triple written `0xRRGGBB`.
pub fn hex(code: u32) -> Rgb {
    [16, 8, 0].map(|shift| decode(((code >> shift) & 255) as f32 / 255.0))
}

/// Hue, saturation, value (each 0..1) of an encoded triple (each 0..1).
pub fn hsv_from_rgb(rgb: [f32; 3]) -> [f32; 3] {
    let [r, g, b] = rgb;
    let max = r.max(g).max(b);
    let span = max - r.min(g).min(b);
    let hue = if span <= 1e-6 {
        0.0
    } else if max == r {
        ((g - b) / span).rem_euclid(6.0)
    } else if max == g {
        (b - r) / span + 2.0
    } else {
        (r - g) / span + 4.0
    };
    [hue / 6.0, if max > 0.0 { span / max } else { 0.0 }, max]
}

/// The everyday name of a linear colour, one of nine.
pub fn name(colour: Rgb) -> &'static str {
    let [hue, saturation, value] = hsv_from_rgb(colour.map(encode));
    match () {
        () if value < 0.25 => "black",
        () if saturation < 0.18 && value > 0.75 => "white",
        () if saturation < 0.18 => "grey",
        () if !(0.05..0.93).contains(&hue) => "red",
        () if hue < 0.12 => "brown",
        () if hue < 0.19 => "yellow",
        () if hue < 0.45 => "green",
        () if hue < 0.72 => "blue",
        () => "purple",
    }
}

/// Encoded triple of hue, saturation, value (each 0..1, hue wraps).
pub fn rgb_from_hsv([h, s, v]: [f32; 3]) -> [f32; 3] {
    let k = |n: f32| {
        let k = (n + h * 6.0).rem_euclid(6.0);
        v - v * s * k.min(4.0 - k).clamp(0.0, 1.0)
    };
    [k(5.0), k(3.0), k(1.0)]
}

/// A linear colour moved by `hue` (turns), and its encoded saturation and value scaled.
pub fn shift(colour: Rgb, hue: f32, saturation: f32, value: f32) -> Rgb {
    let [h, s, v] = hsv_from_rgb(colour.map(encode));
    rgb_from_hsv([
        h + hue,
        (s * saturation).clamp(0.0, 1.0),
        (v * value).clamp(0.0, 1.0),
    ])
    .map(decode)
}

// Written out: the closures of `from_fn` and `map` stay calls in these, the innermost of all loops.

/// `a` at 0, `b` at 1.
#[inline]
pub fn mix(a: Rgb, b: Rgb, amount: f32) -> Rgb {
    [
        a[0] + (b[0] - a[0]) * amount,
        a[1] + (b[1] - a[1]) * amount,
        a[2] + (b[2] - a[2]) * amount,
    ]
}

/// Every channel times `factor`.
#[inline]
pub fn scale(a: Rgb, factor: f32) -> Rgb {
    [a[0] * factor, a[1] * factor, a[2] * factor]
}

/// Relative luminance (Rec. 709) of a linear colour.
#[inline]
pub fn luminance(a: Rgb) -> f32 {
    0.2126 * a[0] + 0.7152 * a[1] + 0.0722 * a[2]
}

/// Smooth value noise on the integer lattice, -1..1, period-free.
#[inline]
pub fn noise(x: f32, y: f32, salt: u32) -> f32 {
    let (ix, iy) = (floor(x), floor(y));
    let at = |dx: i32, dy: i32| lattice(ix.wrapping_add(dx), iy.wrapping_add(dy), salt);
    let corners = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)];
    between(corners, x - ix as f32, y - iy as f32)
}

/// The smooth surface through the corners (0,0), (1,0), (0,1), (1,1) of a cell.
#[inline]
fn between([a, b, c, d]: [f32; 4], fx: f32, fy: f32) -> f32 {
    let (sx, sy) = (fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy));
    let (top, bottom) = (a + (b - a) * sx, c + (d - c) * sx);
    top + (bottom - top) * sy
}

/// [`noise`] over a rectangle whose lattice is worked out once: a part of a body has far fewer cells than
/// pixels, and hashing the corners is most of what noise costs.
#[derive(Debug)]
pub struct NoiseTile {
    low: [i32; 2],
    size: [usize; 2],
    values: Vec<f32>,
}

impl NoiseTile {
    /// Covers `x` and `y` (each from, to); points outside are given the values of the border.
    pub fn new(x: [f32; 2], y: [f32; 2], salt: u32) -> Self {
        let low = [floor(x[0]), floor(y[0])];
        let cells = |low: i32, high: f32| floor(high).saturating_sub(low).clamp(0, 4095) as usize;
        // One for the cell itself, one for its far corners.
        let size = [cells(low[0], x[1]) + 2, cells(low[1], y[1]) + 2];
        let mut values = Vec::with_capacity(size[0] * size[1]);
        for j in 0..size[1] {
            let row = low[1].wrapping_add(j as i32);
            let line = (0..size[0]).map(|i| lattice(low[0].wrapping_add(i as i32), row, salt));
            values.extend(line);
        }
        Self { low, size, values }
    }

    /// The noise at a point.
    #[inline(always)]
    pub fn at(&self, x: f32, y: f32) -> f32 {
        let (ix, iy) = (floor(x), floor(y));
        let column =
            |at: i32, low: i32, size: usize| (at.wrapping_sub(low).max(0) as usize).min(size - 2);
        let i = column(ix, self.low[0], self.size[0]);
        let j = column(iy, self.low[1], self.size[1]);
        let top = &self.values[j * self.size[0] + i..];
        let bottom = &top[self.size[0]..];
        between(
            [top[0], top[1], bottom[0], bottom[1]],
            x - ix as f32,
            y - iy as f32,
        )
    }
}

/// Largest integer not above `x`; without a call into libm, which a plain x86-64 build makes of `f32::floor`.
#[inline]
pub fn floor(x: f32) -> i32 {
    let cut = x as i32;
    cut - i32::from(cut as f32 > x)
}

/// What `x` is above [`floor`], 0..1; for positive periods `x.rem_euclid(p)` is `fract(x / p) * p`.
#[inline]
pub fn fract(x: f32) -> f32 {
    x - floor(x) as f32
}

/// A fixed random value in -1..1 for each lattice cell.
#[inline]
pub fn lattice(x: i32, y: i32, salt: u32) -> f32 {
    let mut h = (x as u32)
        .wrapping_mul(0x8DA6_B343)
        .wrapping_add((y as u32).wrapping_mul(0xD816_3841))
        .wrapping_add(salt.wrapping_mul(0xCB1A_B31F));
    h ^= h >> 15;
    h = h.wrapping_mul(0x2C1B_3C6D);
    h ^= h >> 12;
    h = h.wrapping_mul(0x297A_2D39);
    h ^= h >> 15;
    h as f32 * (2.0 / u32::MAX as f32) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfer_functions_are_inverse() {
        for i in 0..=255 {
            let x = i as f32 / 255.0;
            assert!((encode(decode(x)) - x).abs() < 1e-5);
        }
    }

    #[test]
    fn a_tile_is_the_noise_it_covers() {
        for (x, y) in [([-3.7, 4.2], [0.0, 9.9]), ([0.1, 0.2], [-0.5, -0.5])] {
            let tile = NoiseTile::new(x, y, 5);
            for i in 0..200 {
                let px = x[0] + (x[1] - x[0]) * (i % 20) as f32 / 19.0;
                let py = y[0] + (y[1] - y[0]) * (i / 20) as f32 / 9.0;
                assert_eq!(tile.at(px, py), noise(px, py, 5));
            }
        }
    }

    #[test]
    fn hsv_round_trip() {
        for code in [0x000000, 0xffffff, 0x1b2c4d, 0xd04020, 0x30a060, 0x808080] {
            let rgb = [16, 8, 0].map(|s| ((code >> s) & 255) as f32 / 255.0);
            let back = rgb_from_hsv(hsv_from_rgb(rgb));
            for (a, b) in rgb.iter().zip(back) {
                assert!((a - b).abs() < 1e-5, "{code:06x}");
            }
        }
    }
}
