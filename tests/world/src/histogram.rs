//! The baseline that anybody can write: a colour histogram of horizontal stripes.
//!
//! The crop is cut into six stripes; each stripe's pixels are counted in hue x saturation x value bins,
//! pixels too dark or too grey to have a hue in value bins of their own; counts are divided by their sum and
//! square-rooted, so that the dot product of two descriptors is the Bhattacharyya coefficient (Hellinger).

use image::RgbImage;

use crate::colour::hsv_from_rgb;

/// Horizontal stripes.
pub const STRIPES: usize = 6;
const HUES: usize = 8;
const SATURATIONS: usize = 4;
const VALUES: usize = 4;
const GREYS: usize = 8;
const BINS: usize = HUES * SATURATIONS * VALUES + GREYS;

/// Width of a descriptor.
pub const WIDTH: usize = STRIPES * BINS;

/// The descriptor of a crop, [`WIDTH`] values, L2 norm 1.
pub fn describe(image: &RgbImage) -> Vec<f32> {
    let (w, h) = image.dimensions();
    let mut histogram = vec![0.0f32; WIDTH];
    let mut totals = [0.0f32; STRIPES];
    for (x, y, pixel) in image.enumerate_pixels() {
        let stripe = (y as usize * STRIPES / h as usize).min(STRIPES - 1);
        // The middle of the box shows the person, its sides the place.
        let off = ((x as f32 + 0.5) / w as f32 - 0.5) * 2.0;
        let weight = (-off * off / 0.5).exp();
        let [hue, saturation, value] = hsv_from_rgb(pixel.0.map(|c| f32::from(c) / 255.0));
        let bin = if value < 0.12 || saturation < 0.1 {
            HUES * SATURATIONS * VALUES + ((value * GREYS as f32) as usize).min(GREYS - 1)
        } else {
            let at = |x: f32, n: usize| ((x * n as f32) as usize).min(n - 1);
            (at(hue, HUES) * SATURATIONS + at(saturation, SATURATIONS)) * VALUES + at(value, VALUES)
        };
        histogram[stripe * BINS + bin] += weight;
        totals[stripe] += weight;
    }
    for (stripe, total) in histogram.chunks_mut(BINS).zip(totals) {
        for bin in stripe {
            *bin = (*bin / total.max(1e-6) / STRIPES as f32).sqrt();
        }
    }
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn descriptors_have_norm_one_and_know_colours_and_stripes() {
        let red = RgbImage::from_pixel(64, 128, Rgb([200, 20, 20]));
        let blue = RgbImage::from_pixel(64, 128, Rgb([20, 20, 200]));
        let half = RgbImage::from_fn(64, 128, |_, y| {
            if y < 64 {
                Rgb([200, 20, 20])
            } else {
                Rgb([20, 20, 200])
            }
        });
        let [r, b, h] = [&red, &blue, &half].map(describe);
        assert!((dot(&r, &r) - 1.0).abs() < 1e-4);
        assert!(dot(&r, &b) < 1e-4);
        assert!((dot(&r, &h) - 0.5).abs() < 1e-3);
    }
}
