//! Image formation: what a camera makes of the light that reaches it.
//!
//! Linear light -> exposure, white balance, crosstalk -> saturation -> tone curve -> blur, noise, block
//! artefacts at the sensor's own resolution -> the size that is asked for.

use crate::colour::{Rgb, encode, luminance};
use crate::domain::Domain;
use crate::seed::Draw;

/// Colour response and faults of one camera.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Style {
    /// Gain before the tone curve.
    pub exposure: f32,
    /// White balance and crosstalk: output channels from input channels.
    pub matrix: [[f32; 3]; 3],
    /// 0 grey, 1 as is.
    pub saturation: f32,
    /// Exponent after encoding; above 1 darkens the middle.
    pub gamma: f32,
    /// Steepness of the S-curve, 0 is none.
    pub contrast: f32,
    /// Veil added to the light: haze, flare, dirty dome.
    pub veil: Rgb,
    /// Darkening of the corners, 0..1.
    pub vignette: f32,
    /// Standard deviation of the noise, shares of full scale.
    pub noise: f32,
    /// Sensor pixels to a frame pixel: 0.3 is a bad camera, 1 a good one.
    pub sharpness: f32,
    /// Blur in sensor pixels (standard deviation).
    pub blur: f32,
    /// Overshoot of in-camera sharpening, 0 is none.
    pub overshoot: f32,
    /// Quantiser of the block transform, shares of full scale; 0 is none.
    pub blocks: f32,
}

impl Style {
    /// Draws a camera's style.
    pub fn sample(domain: Domain, draw: &mut Draw) -> Self {
        // White balance along the daylight locus (blue to orange) and across it (green to magenta).
        let (warm, green) = match domain {
            Domain::Street => (draw.normal(0.0, 0.07), draw.normal(0.0, 0.025)),
            Domain::Mall => (draw.normal(0.05, 0.08), draw.normal(0.01, 0.03)),
            Domain::Station => {
                let lamp = if draw.chance(0.4) { 0.15 } else { -0.07 };
                (draw.normal(lamp, 0.05), draw.normal(0.02, 0.03))
            }
        };
        let gains = [
            (warm * 1.1_f32).exp(),
            (green * 0.8_f32).exp(),
            (-warm * 1.3_f32).exp(),
        ];
        let leak = draw.range(0.0, 0.1);
        let matrix = std::array::from_fn(|i| {
            std::array::from_fn(|j| {
                let mixed = if i == j { 1.0 - leak } else { leak * 0.5 };
                (mixed + draw.normal(0.0, 0.015)) * gains[i]
            })
        });
        let veil = draw.range(0.0, 1.0).powi(2) * 0.03;
        Self {
            exposure: draw.normal(0.1, 0.13).exp(),
            matrix,
            saturation: draw.range(0.7, 1.2),
            gamma: draw.normal(1.0, 0.08).clamp(0.7, 1.35),
            contrast: draw.range(0.0, 0.55),
            veil: [
                veil * draw.range(0.8, 1.1),
                veil,
                veil * draw.range(0.9, 1.25),
            ],
            vignette: draw.range(0.0, 0.35),
            noise: draw.range(0.003, 0.018),
            sharpness: draw.weighted(&[(0.6, 0.8), (0.7, 1.0), (0.85, 1.0), (1.0, 1.0)])
                * draw.range(0.9, 1.1),
            blur: draw.range(0.25, 0.75),
            overshoot: if draw.chance(0.4) {
                draw.range(0.2, 0.7)
            } else {
                0.0
            },
            blocks: draw.range(0.0, 0.035),
        }
    }

    /// Colour (linear, 0..1) that the sensor makes of linear light; `gain` is the exposure of the moment.
    #[inline]
    pub fn develop(&self, light: Rgb, gain: f32) -> Rgb {
        let e = self.exposure * gain;
        let l = [light[0] * e, light[1] * e, light[2] * e];
        let mixed =
            |[r, g, b]: [f32; 3], veil: f32| (r * l[0] + g * l[1] + b * l[2]).max(0.0) + veil;
        let (m, veil) = (&self.matrix, &self.veil);
        let out = [
            mixed(m[0], veil[0]),
            mixed(m[1], veil[1]),
            mixed(m[2], veil[2]),
        ];
        let grey = luminance(out);
        let vivid = |c: f32| (grey + (c - grey) * self.saturation).max(0.0);
        let out = [vivid(out[0]), vivid(out[1]), vivid(out[2])];
        if out[0].max(out[1]).max(out[2]) > SHOULDER {
            return roll_off(out);
        }
        out
    }
}

/// Where highlights begin to roll off before they clip.
const SHOULDER: f32 = 0.7;

/// Kept out of line: as part of a loop its exponential would be worked out for every pixel and thrown away.
#[inline(never)]
fn roll_off(colour: Rgb) -> Rgb {
    colour.map(|c| {
        if c > SHOULDER {
            let room = 1.0 - SHOULDER;
            SHOULDER + room * (1.0 - (-(c - SHOULDER) / room).exp())
        } else {
            c
        }
    })
}

/// The tone curve of a style, tabulated: encoding, gamma and contrast cost one look-up a channel.
#[derive(Debug, Clone)]
pub struct Tone(Vec<f32>);

const TONE_STEPS: usize = 2048;

impl Tone {
    /// Tabulates the curve of `style`.
    pub fn new(style: &Style) -> Self {
        Self(
            (0..=TONE_STEPS)
                .map(|i| {
                    // Square-root spacing: fine steps in the shadows.
                    let linear = (i as f32 / TONE_STEPS as f32).powi(2);
                    let x = encode(linear).powf(style.gamma);
                    let s = x * x * (3.0 - 2.0 * x);
                    x + (s - x) * style.contrast
                })
                .collect(),
        )
    }

    /// Linear channels to values, 0..1.
    pub fn apply(&self, pixels: &mut [Rgb]) {
        let values = pixels.as_flattened_mut();
        // Two loops, because only the first can take several roots at once.
        for value in values.iter_mut() {
            *value = value.clamp(0.0, 1.0).sqrt() * TONE_STEPS as f32 + 0.5;
        }
        for value in values {
            *value = self.0[(*value as i32 as usize).min(TONE_STEPS)];
        }
    }
}

/// Cheap, seeded, nearly normal noise (each value the sum of four random bytes).
#[derive(Debug, Clone)]
pub struct Grain(u64);

impl Grain {
    /// A grain stream of that seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Two values of mean 0, deviation 1.
    #[inline]
    pub fn next_pair(&mut self) -> [f32; 2] {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // Both halves' bytes are summed at once: neighbours first, then neighbours of these. The
        // multiplication spreads the low bits, which a step of the generator leaves too much alike.
        let word = self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let pairs = (word & 0x00FF_00FF_00FF_00FF) + ((word >> 8) & 0x00FF_00FF_00FF_00FF);
        let sums = (pairs & 0x0000_FFFF_0000_FFFF) + ((pairs >> 16) & 0x0000_FFFF_0000_FFFF);
        let value = |sum: u64| (sum as i32 - 510) as f32 * (1.0 / 147.8);
        [value(sums & 0xFFFF), value(sums >> 32)]
    }
}

/// Which source pixels make up each pixel of a line that is resized, and with what weights.
struct Taps {
    starts: Vec<usize>,
    /// As many for every pixel; those that are not needed are 0.
    weights: Vec<f32>,
    count: usize,
}

impl Taps {
    /// A triangle whose support grows when shrinking.
    fn new(from: usize, to: usize) -> Self {
        let ratio = from as f32 / to as f32;
        let support = ratio.max(1.0);
        let count = ((2.0 * support).ceil() as usize).min(from);
        let mut starts = Vec::with_capacity(to);
        let mut weights = Vec::with_capacity(to * count);
        for i in 0..to {
            let centre = (i as f32 + 0.5) * ratio - 0.5;
            // The first pixel nearer than the support; one just at it has no weight.
            let first = ((centre - support).floor() + 1.0).max(0.0) as usize;
            let start = first.min(from - count);
            let weight = |k: usize| (1.0 - (k as f32 - centre).abs() / support).max(0.0);
            let sum: f32 = (start..start + count).map(weight).sum();
            weights.extend((start..start + count).map(|k| weight(k) / sum));
            starts.push(start);
        }
        Self {
            starts,
            weights,
            count,
        }
    }

    fn each(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let weights = self.weights.chunks_exact(self.count);
        self.starts.iter().copied().zip(weights)
    }

    /// Appends the line of `source` pixels, resized. A pixel's fourth channel makes it one vector.
    fn across(&self, source: &[[f32; 4]], out: &mut Vec<Rgb>) {
        match self.count {
            2 => self.across_by::<2>(source, out),
            3 => self.across_by::<3>(source, out),
            4 => self.across_by::<4>(source, out),
            _ => out.extend(
                self.each()
                    .map(|(start, weights)| weigh(source[start..].iter().zip(weights))),
            ),
        }
    }

    /// [`Self::across`] with so many weights, known when compiled: the usual ratios take a few, and their
    /// loops are unrolled.
    fn across_by<const N: usize>(&self, source: &[[f32; 4]], out: &mut Vec<Rgb>) {
        let (weights, _) = self.weights.as_chunks::<N>();
        out.extend(self.starts.iter().zip(weights).map(|(&start, weights)| {
            match source[start..].first_chunk::<N>() {
                Some(pixels) => weigh(pixels.iter().zip(weights)),
                None => [0.0; 3],
            }
        }));
    }
}

#[inline(always)]
fn weigh<'a>(taps: impl Iterator<Item = (&'a [f32; 4], &'a f32)>) -> Rgb {
    let mut sum = [0.0; 4];
    for (pixel, weight) in taps {
        for c in 0..4 {
            sum[c] += weight * pixel[c];
        }
    }
    [sum[0], sum[1], sum[2]]
}

/// Resizes with a triangle filter whose support grows when shrinking (antialiased). Row-major input.
pub fn resize(pixels: &[Rgb], size: (usize, usize), out: (usize, usize)) -> Vec<Rgb> {
    if size == out {
        return pixels.to_vec();
    }
    let (columns, rows) = (Taps::new(size.0, out.0), Taps::new(size.1, out.1));
    let mut result = Vec::with_capacity(out.0 * out.1);
    let mut line = vec![0.0; size.0 * 3];
    let mut wide = vec![[0.0; 4]; size.0];
    for (start, weights) in rows.each() {
        line.fill(0.0);
        for (row, &w) in pixels[start * size.0..].chunks_exact(size.0).zip(weights) {
            for (sum, value) in line.iter_mut().zip(row.as_flattened()) {
                *sum += w * value;
            }
        }
        for (to, from) in wide.iter_mut().zip(line.chunks_exact(3)) {
            *to = [from[0], from[1], from[2], 0.0];
        }
        columns.across(&wide, &mut result);
    }
    result
}

/// Gaussian-like blur (three taps, separable) of deviation `sigma` up to about 0.8 pixels, or the
/// opposite (sharpening) when `overshoot` is above 0.
pub fn soften(pixels: &mut [Rgb], size: (usize, usize), sigma: f32, overshoot: f32) {
    let side = (0.5 * sigma * sigma / (1.0 + sigma * sigma)) - overshoot * 0.12;
    let kernel = [side, 1.0 - 2.0 * side, side];
    let (w, h) = size;
    let n = w * 3;
    let values = pixels.as_flattened_mut();
    // Lines with their first and last pixel repeated, so that every pixel has two neighbours.
    let mut line = vec![0.0; n + 6];
    for row in values.chunks_exact_mut(n) {
        line[3..n + 3].copy_from_slice(row);
        line.copy_within(3..6, 0);
        line.copy_within(n..n + 3, n + 3);
        blend(row, [&line[..n], &line[3..n + 3], &line[6..]], kernel);
    }
    let source = values.to_vec();
    for (y, row) in values.chunks_exact_mut(n).enumerate() {
        let at = |y: usize| &source[y * n..(y + 1) * n];
        let rows = [at(y.saturating_sub(1)), at(y), at((y + 1).min(h - 1))];
        blend(row, rows, kernel);
    }
}

/// The weighted sum of three lines.
fn blend(out: &mut [f32], [a, b, c]: [&[f32]; 3], kernel: [f32; 3]) {
    for (((out, a), b), c) in out.iter_mut().zip(a).zip(b).zip(c) {
        *out = kernel[0] * a + kernel[1] * b + kernel[2] * c;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resize_keeps_flat_pictures_flat_and_their_mean() {
        let flat = vec![[0.3, 0.5, 0.7]; 40 * 30];
        for out in [(10, 8), (80, 61), (40, 30), (1, 1)] {
            let result = resize(&flat, (40, 30), out);
            assert_eq!(result.len(), out.0 * out.1);
            assert!(result.iter().all(|p| (p[1] - 0.5).abs() < 1e-5));
        }
    }

    #[test]
    fn grain_has_mean_zero_and_deviation_one() {
        let mut grain = Grain::new(99);
        let pairs: Vec<[f32; 2]> = (0..50_000).map(|_| grain.next_pair()).collect();
        for i in 0..2 {
            let mean = pairs.iter().map(|p| p[i]).sum::<f32>() / 5e4;
            let sd = (pairs.iter().map(|p| p[i] * p[i]).sum::<f32>() / 5e4 - mean * mean).sqrt();
            assert!(mean.abs() < 0.02 && (sd - 1.0).abs() < 0.02, "{mean} {sd}");
        }
        // No value tells the next one, within a pair or from one pair to the next.
        let within = pairs.iter().map(|p| p[0] * p[1]).sum::<f32>() / 5e4;
        let next = pairs.windows(2).map(|w| w[0][0] * w[1][0]).sum::<f32>() / 5e4;
        assert!(within.abs() < 0.02 && next.abs() < 0.02, "{within} {next}");
    }
}
