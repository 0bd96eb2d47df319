//! What the camera did to the picture as a whole: exposure, white balance, tone mapping.

use super::shrink::Shrunk;

const LEVELS: usize = 256;
/// Brightness levels that share one estimate.
const BIN: usize = 16;
const BINS: usize = LEVELS / BIN;
/// Changes are looked for up to this many levels.
const REACH: usize = 96;
/// A bin with fewer pixels says nothing.
const LEAST: u32 = 40;
/// Changes below this many levels are noise.
const DEADBAND: f32 = 1.5;

/// Per channel, how much brighter the frame is where the background has a given level. Told by the level of the
/// *background*: somebody in black is the median of the dark pixels of a frame, but never of the pixels that used to be
/// bright.
pub(super) struct Tone {
    offsets: Box<[[f32; LEVELS]; 3]>,
    histogram: Vec<u32>,
}

impl Tone {
    pub(super) fn new() -> Self {
        Tone {
            offsets: Box::new([[0.0; LEVELS]; 3]),
            histogram: Vec::new(),
        }
    }

    /// Estimates the change from pixels that belong to nobody. `background` gives the usual colour of a pixel, or `None`
    /// for one that is not to count.
    pub(super) fn estimate(
        &mut self,
        frame: &Shrunk,
        background: impl Fn(usize) -> Option<[f32; 3]>,
    ) {
        const WIDTH: usize = 2 * REACH + 1;
        self.histogram.clear();
        self.histogram.resize(3 * BINS * WIDTH, 0);
        // A prime step does not fall into step with the columns.
        for i in (0..frame.pixels.len()).step_by(7) {
            let (p, Some(mean)) = (&frame.pixels[i], background(i)) else {
                continue;
            };
            for c in 0..3 {
                let change = (p[c] - mean[c])
                    .round()
                    .clamp(-(REACH as f32), REACH as f32);
                let bin = (mean[c] as usize / BIN).min(BINS - 1);
                self.histogram[(c * BINS + bin) * WIDTH + (change + REACH as f32) as usize] += 1;
            }
        }
        for c in 0..3 {
            let medians: Vec<Option<f32>> = (0..BINS)
                .map(|bin| median(&self.histogram[(c * BINS + bin) * WIDTH..][..WIDTH]))
                .collect();
            for level in 0..LEVELS {
                let offset = interpolate(&medians, level);
                self.offsets[c][level] = if offset.abs() < DEADBAND { 0.0 } else { offset };
            }
        }
    }

    /// A pixel as it would have been under the background's exposure.
    pub(super) fn undo(&self, p: &[f32; 3], background: &[f32; 3]) -> [f32; 3] {
        let mut out = [0.0; 3];
        for c in 0..3 {
            let level = (background[c] as usize).min(LEVELS - 1);
            out[c] = (p[c] - self.offsets[c][level]).clamp(0.0, 255.0);
        }
        out
    }
}

fn median(counts: &[u32]) -> Option<f32> {
    let total: u32 = counts.iter().sum();
    if total < LEAST {
        return None;
    }
    let mut seen = 0;
    for (i, &n) in counts.iter().enumerate() {
        if 2 * (seen + n) >= total {
            return Some(i as f32 - REACH as f32);
        }
        seen += n;
    }
    None
}

/// Between the centres of the bins that know something; beyond them, the nearest.
fn interpolate(medians: &[Option<f32>], level: usize) -> f32 {
    let at = level as f32 / BIN as f32 - 0.5;
    let below = (0..medians.len())
        .rev()
        .find_map(|b| medians[b].filter(|_| b as f32 <= at).map(|m| (b, m)));
    let above =
        (0..medians.len()).find_map(|b| medians[b].filter(|_| b as f32 > at).map(|m| (b, m)));
    match (below, above) {
        (Some((b, low)), Some((a, high))) => low + (high - low) * (at - b as f32) / (a - b) as f32,
        (Some((_, m)), None) | (None, Some((_, m))) => m,
        (None, None) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn a_tone_curve_is_undone_and_a_person_is_not() {
        let wall = |x: u32| (x * 2) as f32;
        let curve = |v: f32| (255.0 * (v / 255.0).powf(0.8)).round();
        let frame = RgbImage::from_fn(100, 100, |x, y| {
            let dressed = (20..40).contains(&x) && y > 50;
            Rgb(if dressed {
                [5; 3]
            } else {
                [curve(wall(x)) as u8; 3]
            })
        });
        let mut shrunk = Shrunk::new(1);
        shrunk.take(&frame.into());
        let mut tone = Tone::new();
        tone.estimate(&shrunk, |i| Some([wall(i as u32 % 100); 3]));
        for x in 8..95u32 {
            let mean = [wall(x); 3];
            let undone = tone.undo(&shrunk.pixels[x as usize], &mean);
            assert!(
                (undone[0] - mean[0]).abs() < 6.0,
                "column {x}: {} for {}",
                undone[0],
                mean[0]
            );
        }
        let dressed = tone.undo(&[5.0; 3], &[wall(30); 3]);
        assert!(dressed[0] < 20.0, "{dressed:?}");
    }
}
