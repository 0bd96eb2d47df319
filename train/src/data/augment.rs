//! Views of a picture: what training changes at random, so that a network learns to ignore it.
//!
//! Order: crop, flip, jitter, blur on the u8 picture; then the card's normalisation (the same code as everywhere); then
//! random erasing on the tensor, as in MMT, SpCL and ICE.

use image::RgbImage;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reid_models::preprocess::Preprocess;
use serde::{Deserialize, Serialize};

/// What is done to a picture, each with its probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Black padding in pixels before a random crop back to size.
    pub pad: usize,
    /// Probability of Gaussian blur.
    pub blur: f64,
    /// Smallest and largest standard deviation of the blur, in pixels.
    pub blur_sigma: [f32; 2],
    /// Probability of random erasing (Zhong et al. 2020): area 0.02..0.4 of the picture, height/width 0.3..3.33.
    pub erasing: f64,
    /// What erased pixels become, per channel of the normalised tensor.
    pub erasing_fill: [f32; 3],
    /// Strength of jitter, 0..1: brightness, contrast and saturation each times U(1 - j, 1 + j).
    pub jitter: f64,
}

impl Augment {
    /// Nothing: resize and normalise only.
    pub fn weak() -> Self {
        Augment {
            flip: 0.0,
            pad: 0,
            blur: 0.0,
            blur_sigma: [0.1, 2.0],
            erasing: 0.0,
            // Applied after normalisation by MMT, SpCL and ICE, so it isn't the mean pixel that it looks like.
            erasing_fill: [0.485, 0.456, 0.406],
            jitter: 0.0,
        }
    }

    /// MMT, SpCL, Cluster-Contrast at 256 x 128: flip, pad 10 and crop, erasing 0.5.
    pub fn standard() -> Self {
        Augment {
            flip: 0.5,
            pad: 10,
            erasing: 0.5,
            ..Augment::weak()
        }
    }

    /// ICE at 256 x 128: as [`Augment::standard`], with blur 0.5 and erasing 0.6.
    pub fn strong() -> Self {
        Augment {
            blur: 0.5,
            erasing: 0.6,
            ..Augment::standard()
        }
    }

    /// Whether nothing is ever changed.
    pub fn is_weak(&self) -> bool {
        self.flip <= 0.0
            && self.pad == 0
            && self.blur <= 0.0
            && self.erasing <= 0.0
            && self.jitter <= 0.0
    }
}

/// The generator of one view of one picture: from what it is for, not from who makes it.
pub fn generator(seed: u64, epoch: u64, iteration: u64, slot: u32, view: u32) -> ChaCha8Rng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&epoch.to_le_bytes());
    bytes[16..24].copy_from_slice(&iteration.to_le_bytes());
    bytes[24..28].copy_from_slice(&slot.to_le_bytes());
    // Never 0, as the sampler's generator has it.
    bytes[28..].copy_from_slice(&(view + 1).to_le_bytes());
    ChaCha8Rng::from_seed(bytes)
}

/// Buffers of one thread.
#[derive(Default)]
pub struct Scratch {
    picture: RgbImage,
    rows: Vec<f32>,
    blurred: Vec<f32>,
}

impl Augment {
    /// Makes a view of `source` (u8, the input's size) in `out` (CHW, normalised).
    ///
    /// # Panics
    /// If `source` or `out` hasn't the size of `preprocess`'s input.
    pub fn apply(
        &self,
        source: &RgbImage,
        rng: &mut ChaCha8Rng,
        scratch: &mut Scratch,
        preprocess: &Preprocess,
        out: &mut [f32],
    ) {
        if self.is_weak() {
            preprocess.normalize_into(source, out);
            return;
        }
        let (width, height) = (source.width() as usize, source.height() as usize);
        if scratch.picture.dimensions() != source.dimensions() {
            scratch.picture = RgbImage::new(source.width(), source.height());
        }
        let shift =
            |rng: &mut ChaCha8Rng| rng.random_range(0..=2 * self.pad) as isize - self.pad as isize;
        let (dx, dy) = (shift(rng), shift(rng));
        let flip = rng.random_bool(self.flip.clamp(0.0, 1.0));
        shifted(
            source.as_raw(),
            &mut scratch.picture,
            width,
            height,
            (dx, dy),
            flip,
        );
        if self.jitter > 0.0 {
            let strength = self.jitter.min(1.0) as f32;
            let mut factor = || 1.0 + strength * (2.0 * rng.random::<f32>() - 1.0);
            jitter(&mut scratch.picture, factor(), factor(), factor());
        }
        if rng.random_bool(self.blur.clamp(0.0, 1.0)) {
            let [low, high] = self.blur_sigma;
            let sigma = low + (high - low) * rng.random::<f32>();
            blur(scratch, width, height, sigma);
        }
        preprocess.normalize_into(&scratch.picture, out);
        if rng.random_bool(self.erasing.clamp(0.0, 1.0)) {
            erase(out, width, height, self.erasing_fill, rng);
        }
    }
}

/// Moves the picture by (dx, dy), black from outside, and mirrors it: pad, crop and flip in one copy.
fn shifted(
    source: &[u8],
    target: &mut [u8],
    width: usize,
    height: usize,
    (dx, dy): (isize, isize),
    flip: bool,
) {
    for (y, row) in target.chunks_exact_mut(3 * width).enumerate() {
        let from_y = y as isize + dy;
        if from_y < 0 || from_y >= height as isize {
            row.fill(0);
            continue;
        }
        let from = &source[3 * width * from_y as usize..][..3 * width];
        // Columns x with 0 <= x + dx < width.
        let start = (-dx).clamp(0, width as isize) as usize;
        let end = (width as isize - dx).clamp(0, width as isize) as usize;
        row[..3 * start].fill(0);
        row[3 * end..].fill(0);
        if start < end {
            let first = (start as isize + dx) as usize;
            row[3 * start..3 * end].copy_from_slice(&from[3 * first..3 * (first + end - start)]);
        }
        if flip {
            let (pixels, _) = row.as_chunks_mut::<3>();
            pixels.reverse();
        }
    }
}

/// Brightness scales, contrast moves away from the mean grey, saturation from each pixel's own.
fn jitter(picture: &mut [u8], brightness: f32, contrast: f32, saturation: f32) {
    let grey =
        |p: &[u8; 3]| 0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2]);
    let (pixels, _) = picture.as_chunks_mut::<3>();
    let sum: f64 = pixels.iter().map(|p| f64::from(grey(p))).sum();
    let mean = (sum / pixels.len().max(1) as f64) as f32 * brightness;
    for pixel in pixels {
        let own = mean + contrast * (grey(pixel) * brightness - mean);
        for value in pixel {
            let v = mean + contrast * (f32::from(*value) * brightness - mean);
            // `as u8` saturates.
            *value = (own + saturation * (v - own) + 0.5) as u8;
        }
    }
}

/// Separable Gaussian over three standard deviations, edges repeated.
fn blur(scratch: &mut Scratch, width: usize, height: usize, sigma: f32) {
    let radius = (3.0 * sigma).ceil().max(1.0) as usize;
    let mut taps: Vec<f32> = (0..=2 * radius)
        .map(|i| {
            let x = i as f32 - radius as f32;
            (-x * x / (2.0 * sigma * sigma)).exp()
        })
        .collect();
    let sum: f32 = taps.iter().sum();
    taps.iter_mut().for_each(|tap| *tap /= sum);

    let line = 3 * width;
    let (rows, blurred) = (&mut scratch.rows, &mut scratch.blurred);
    // Along the rows; each is padded first, so that the inner loop runs over whole interleaved lines.
    blurred.clear();
    blurred.resize(line * height, 0.0);
    rows.resize(line + 6 * radius, 0.0);
    for (from, to) in scratch
        .picture
        .chunks_exact(line)
        .zip(blurred.chunks_exact_mut(line))
    {
        for (value, byte) in rows[3 * radius..].iter_mut().zip(from) {
            *value = f32::from(*byte);
        }
        for i in 0..3 * radius {
            rows[i] = f32::from(from[i % 3]);
            rows[3 * radius + line + i] = f32::from(from[line - 3 + i % 3]);
        }
        for (k, tap) in taps.iter().enumerate() {
            for (sum, value) in to.iter_mut().zip(&rows[3 * k..]) {
                *sum += tap * value;
            }
        }
    }
    // Down the columns, a line at a time.
    rows.resize(line.max(rows.len()), 0.0);
    for (y, to) in scratch.picture.chunks_exact_mut(line).enumerate() {
        let sums = &mut rows[..line];
        sums.fill(0.5);
        for (k, tap) in taps.iter().enumerate() {
            let from_y = (y + k).saturating_sub(radius).min(height - 1);
            for (sum, value) in sums.iter_mut().zip(&blurred[line * from_y..]) {
                *sum += tap * value;
            }
        }
        for (byte, sum) in to.iter_mut().zip(sums) {
            *byte = *sum as u8;
        }
    }
}

/// Fills one random rectangle; gives up after 100 that don't fit.
fn erase(out: &mut [f32], width: usize, height: usize, fill: [f32; 3], rng: &mut ChaCha8Rng) {
    let area = (width * height) as f32;
    for _ in 0..100 {
        let share = rng.random_range(0.02f32..0.4);
        let aspect = rng.random_range(0.3f32..1.0 / 0.3);
        let h = (share * area * aspect).sqrt().round() as usize;
        let w = (share * area / aspect).sqrt().round() as usize;
        if h == 0 || w == 0 || h >= height || w >= width {
            continue;
        }
        let top = rng.random_range(0..=height - h);
        let left = rng.random_range(0..=width - w);
        for (plane, value) in out.chunks_exact_mut(width * height).zip(fill) {
            for row in plane.chunks_exact_mut(width).skip(top).take(h) {
                row[left..left + w].fill(value);
            }
        }
        return;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use image::Rgb;
    use reid_models::card::InputSpec;

    fn spec() -> InputSpec {
        let mut spec = InputSpec::imagenet(32, 16);
        // Tensor values are bytes / 255.
        (spec.mean, spec.std) = ([0.0; 3], [1.0; 3]);
        spec
    }

    fn picture() -> RgbImage {
        RgbImage::from_fn(16, 32, |x, y| Rgb([10 + x as u8, 10 + y as u8, 200]))
    }

    fn view(augment: &Augment, seed: u64) -> Vec<f32> {
        let mut out = vec![f32::NAN; 3 * 16 * 32];
        let mut rng = generator(seed, 1, 2, 3, 0);
        augment.apply(
            &picture(),
            &mut rng,
            &mut Scratch::default(),
            &Preprocess::new(&spec()),
            &mut out,
        );
        assert!(out.iter().all(|v| v.is_finite()));
        out
    }

    fn bytes(tensor: &[f32]) -> Vec<u8> {
        tensor.iter().map(|v| (v * 255.0).round() as u8).collect()
    }

    #[test]
    fn weak_is_normalisation_only() {
        let mut want = vec![0.0; 3 * 16 * 32];
        Preprocess::new(&spec()).normalize_into(&picture(), &mut want);
        assert_eq!(view(&Augment::weak(), 1), want);
    }

    #[test]
    fn flip_mirrors() {
        let augment = Augment {
            flip: 1.0,
            ..Augment::weak()
        };
        let red = &bytes(&view(&augment, 1))[..16];
        assert_eq!(red, (10..26).rev().collect::<Vec<u8>>());
    }

    #[test]
    fn crops_move_within_the_padding_and_fill_with_black() {
        let augment = Augment {
            pad: 3,
            ..Augment::weak()
        };
        let mut offsets = std::collections::BTreeSet::new();
        for seed in 0..400 {
            let plane = bytes(&view(&augment, seed));
            let (red, green) = (&plane[..512], &plane[512..1024]);
            // The middle of the picture is never padding.
            let (dx, dy) = (
                i32::from(red[16 * 16 + 8]) - 18,
                i32::from(green[16 * 16 + 8]) - 26,
            );
            assert!(dx.abs() <= 3 && dy.abs() <= 3);
            for y in 0..32i32 {
                for x in 0..16i32 {
                    let inside = (0..16).contains(&(x + dx)) && (0..32).contains(&(y + dy));
                    let want = if inside { (10 + x + dx) as u8 } else { 0 };
                    assert_eq!(
                        red[(y * 16 + x) as usize],
                        want,
                        "({x}, {y}) moved by ({dx}, {dy})"
                    );
                }
            }
            offsets.insert((dx, dy));
        }
        assert_eq!(offsets.len(), 49, "every offset occurs");
        // Padding beyond the picture is legal.
        view(
            &Augment {
                pad: 50,
                ..Augment::weak()
            },
            3,
        );
    }

    #[test]
    fn blur_keeps_flat_pictures_and_smooths_an_edge_as_a_gaussian_does() {
        let mut scratch = Scratch {
            picture: RgbImage::from_pixel(16, 32, Rgb([7, 100, 255])),
            ..Scratch::default()
        };
        blur(&mut scratch, 16, 32, 2.0);
        assert!(scratch.picture.pixels().all(|p| *p == Rgb([7, 100, 255])));

        scratch.picture = RgbImage::from_fn(16, 32, |x, _| Rgb([if x < 8 { 0 } else { 200 }; 3]));
        blur(&mut scratch, 16, 32, 1.0);
        let row: Vec<u8> = (0..16)
            .map(|x| scratch.picture.get_pixel(x, 9)[0])
            .collect();
        // Sums of the discrete Gaussian of sigma 1: 0.0044, 0.0585, 0.3006 of 200, and symmetric.
        assert_eq!(&row[5..11], &[1, 12, 60, 140, 188, 199]);
        assert_eq!((row[0], row[15]), (0, 200));
        // A sigma near 0 changes nothing.
        blur(&mut scratch, 16, 32, 0.1);
        assert_eq!(scratch.picture.get_pixel(7, 9)[0], 60);
    }

    #[test]
    fn erasing_fills_a_rectangle_of_the_right_size() {
        let augment = Augment {
            erasing: 1.0,
            erasing_fill: [5.0, 6.0, 7.0],
            ..Augment::weak()
        };
        let mut shares = Vec::new();
        for seed in 0..200 {
            let tensor = view(&augment, seed);
            let erased: Vec<usize> = (0..512).filter(|i| tensor[*i] == 5.0).collect();
            let (rows, columns): (Vec<_>, Vec<_>) = erased.iter().map(|i| (i / 16, i % 16)).unzip();
            let span = |v: &[usize]| v.iter().max().unwrap() - v.iter().min().unwrap() + 1;
            assert_eq!(
                erased.len(),
                span(&rows) * span(&columns),
                "a full rectangle"
            );
            assert!(
                erased
                    .iter()
                    .all(|i| tensor[512 + i] == 6.0 && tensor[1024 + i] == 7.0)
            );
            shares.push(erased.len() as f32 / 512.0);
        }
        let (low, high) = shares
            .iter()
            .fold((1f32, 0f32), |(l, h), s| (l.min(*s), h.max(*s)));
        assert!(
            (0.01..0.05).contains(&low) && (0.3..0.43).contains(&high),
            "{low} {high}"
        );
    }

    #[test]
    fn jitter_changes_colours_within_bounds() {
        let mut grey = vec![100u8; 30];
        jitter(&mut grey, 1.5, 1.0, 0.3);
        assert_eq!(grey, vec![150; 30]);
        let mut pair = vec![50, 50, 50, 150, 150, 150];
        jitter(&mut pair, 1.0, 0.5, 1.0);
        assert_eq!(pair, [75, 75, 75, 125, 125, 125]);
        let mut red = vec![200, 0, 0];
        jitter(&mut red, 1.0, 1.0, 0.0);
        assert_eq!(red, [60, 60, 60]);
        assert_ne!(
            view(
                &Augment {
                    jitter: 0.4,
                    ..Augment::weak()
                },
                2
            ),
            view(&Augment::weak(), 2)
        );
    }

    #[test]
    fn probabilities_are_kept() {
        let count = |augment: &Augment| {
            let plain = view(&Augment::weak(), 0);
            (0..400)
                .filter(|seed| view(augment, *seed) != plain)
                .count()
        };
        assert_eq!(count(&Augment::weak()), 0);
        for augment in [
            Augment {
                flip: 0.5,
                ..Augment::weak()
            },
            Augment {
                erasing: 0.5,
                ..Augment::weak()
            },
            Augment {
                blur: 0.5,
                blur_sigma: [1.5, 2.0],
                ..Augment::weak()
            },
        ] {
            let changed = count(&augment);
            assert!((150..250).contains(&changed), "{changed} of 400");
        }
    }
}
