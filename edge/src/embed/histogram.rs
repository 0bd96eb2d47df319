//! Colour histograms in horizontal stripes: what people were told apart by before networks (Farenzena et al. 2010 and
//! others), and the baseline every model here is compared with.

use std::collections::BTreeMap;

use reid_models::picture::Pixels;
use reid_models::preprocess::{PixelBox, Rgb};

use super::{Appearance, EmbedError, all_finite};

const STRIPES: usize = 6;
const HUES: usize = 12;
const SATURATIONS: usize = 3;
const GREYS: usize = 8;
const PER_STRIPE: usize = HUES * SATURATIONS + GREYS;
/// A pixel with less colour than this (saturation times value) counts by its brightness.
const LEAST_CHROMA: f32 = 0.12;

/// HSV histograms of six stripes. Bins are square roots of shares, so the dot product of two vectors is their mean
/// Bhattacharyya coefficient, 0..1.
#[derive(Default)]
pub struct Histogram {
    bins: Vec<f32>,
}

impl Appearance for Histogram {
    fn embed(
        &mut self,
        crops: &[(Pixels<'_>, Option<PixelBox>)],
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        let embeddings: Vec<Vec<f32>> = crops
            .iter()
            .map(|(picture, crop)| match (picture, crop) {
                (Pixels::Rgb(picture), crop) => self.one(picture, crop.as_ref()),
                (Pixels::Yuv(yuv), crop) => {
                    let (right, bottom) = (yuv.width() as f32, yuv.height() as f32);
                    let whole = PixelBox {
                        left: 0.0,
                        top: 0.0,
                        right,
                        bottom,
                    };
                    let cut = yuv.cut(crop.unwrap_or(whole));
                    self.one(&Rgb::from(&cut), None)
                }
            })
            .collect::<Result<_, _>>()?;
        all_finite("histogram", &embeddings)?;
        Ok(embeddings)
    }

    fn fingerprint(&self) -> String {
        format!("histogram-hsv-{STRIPES}x{HUES}x{SATURATIONS}+{GREYS}-v1")
    }

    fn width(&self) -> usize {
        STRIPES * PER_STRIPE
    }

    fn thresholds(&self) -> BTreeMap<String, f32> {
        BTreeMap::new()
    }

    fn description(&self) -> String {
        format!(
            "colour histogram, {STRIPES} stripes, {} numbers (baseline)",
            self.width()
        )
    }
}

impl Histogram {
    fn one(&mut self, picture: &Rgb<'_>, crop: Option<&PixelBox>) -> Result<Vec<f32>, EmbedError> {
        let (w, h) = (picture.width as f32, picture.height as f32);
        let whole = PixelBox {
            left: 0.0,
            top: 0.0,
            right: w,
            bottom: h,
        };
        let b = crop.unwrap_or(&whole);
        let (left, right) = (
            b.left.clamp(0.0, w) as usize,
            b.right.clamp(0.0, w).ceil() as usize,
        );
        let (top, bottom) = (
            b.top.clamp(0.0, h) as usize,
            b.bottom.clamp(0.0, h).ceil() as usize,
        );
        let (width, height) = (right.saturating_sub(left), bottom.saturating_sub(top));
        if width == 0 || height == 0 {
            return Err(EmbedError::Empty { width, height });
        }
        self.bins.clear();
        self.bins.resize(STRIPES * PER_STRIPE, 0.0);
        let mut totals = [0.0f32; STRIPES];
        for y in 0..height {
            let stripe = y * STRIPES / height;
            let row = &picture.data[(top + y) * picture.stride..];
            for x in 0..width {
                let at = 3 * (left + x);
                // The sides of a box are background: they count less.
                let off = (2.0 * (x as f32 + 0.5) / width as f32 - 1.0).abs();
                let weight = 1.0 - 0.8 * off;
                for (bin, share) in bins([row[at], row[at + 1], row[at + 2]]) {
                    self.bins[stripe * PER_STRIPE + bin] += share * weight;
                }
                totals[stripe] += weight;
            }
        }
        let mut out = self.bins.clone();
        for (stripe, total) in out.chunks_exact_mut(PER_STRIPE).zip(totals) {
            for v in stripe {
                *v = (*v / (total.max(1e-6) * STRIPES as f32)).sqrt();
            }
        }
        // Stripes of a crop lower than six pixels may be empty: unit length all the same.
        let norm = out.iter().map(|v| v * v).sum::<f32>().sqrt();
        out.iter_mut().for_each(|v| *v /= norm);
        Ok(out)
    }
}

/// Bins of a colour within a stripe, and how much of it each gets. Hues are shared between neighbours, or a red a little
/// to this side of 0 degrees would be as far from a red a little to that side as from green.
fn bins(rgb: [u8; 3]) -> [(usize, f32); 2] {
    let [r, g, b] = rgb.map(|c| f32::from(c) / 255.0);
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let chroma = max - min;
    if chroma < LEAST_CHROMA {
        let grey = ((max * GREYS as f32) as usize).min(GREYS - 1);
        return [(HUES * SATURATIONS + grey, 1.0), (0, 0.0)];
    }
    let hue = if max == r {
        (g - b) / chroma
    } else if max == g {
        (b - r) / chroma + 2.0
    } else {
        (r - g) / chroma + 4.0
    };
    let position = (hue / 6.0 * HUES as f32 - 0.5).rem_euclid(HUES as f32);
    let (low, share) = (position as usize % HUES, position.fract());
    let saturation = ((chroma / max * SATURATIONS as f32) as usize).min(SATURATIONS - 1);
    let at = |hue: usize| hue % HUES * SATURATIONS + saturation;
    [(at(low), 1.0 - share), (at(low + 1), share)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use image::RgbImage;
    use reid_models::distance::dot;

    use super::*;

    fn dressed(top: [u8; 3], trousers: [u8; 3]) -> RgbImage {
        RgbImage::from_fn(20, 60, |_, y| {
            image::Rgb(if y < 30 { top } else { trousers })
        })
    }

    #[test]
    fn same_clothes_are_near_and_swapped_ones_are_not() {
        let mut h = Histogram::default();
        let pictures = [
            dressed([200, 30, 30], [30, 30, 90]),
            dressed([190, 25, 35], [35, 28, 95]),
            dressed([30, 30, 90], [200, 30, 30]),
        ];
        let crops: Vec<_> = pictures.iter().map(|p| (Pixels::from(p), None)).collect();
        let e = h.embed(&crops).unwrap();
        for v in &e {
            assert_eq!(v.len(), h.width());
            assert!((dot(v, v) - 1.0).abs() < 1e-5);
        }
        assert!(dot(&e[0], &e[1]) > 0.9 && dot(&e[0], &e[2]) < 0.1);
        let tiny = PixelBox {
            left: 3.0,
            top: 3.0,
            right: 4.0,
            bottom: 5.0,
        };
        let e = h
            .embed(&[(Pixels::from(&pictures[0]), Some(tiny))])
            .unwrap();
        assert!((dot(&e[0], &e[0]) - 1.0).abs() < 1e-5);
        let none = PixelBox {
            left: 30.0,
            top: 3.0,
            right: 40.0,
            bottom: 5.0,
        };
        assert!(
            h.embed(&[(Pixels::from(&pictures[0]), Some(none))])
                .is_err()
        );
    }
}
