//! Which samples along one axis make a sample of the output, and by what weights.

use crate::card::Filter;

/// A stretch of one axis of a plane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    /// Where it begins, in samples; sample `i` reaches from `i` to `i + 1`.
    pub(super) low: f64,
    /// Where it ends.
    pub(super) high: f64,
    /// Samples of the whole axis.
    pub(super) limit: usize,
}

impl Span {
    /// The whole samples around it, `first..last`, and the stretch inside them.
    fn around(&self) -> (usize, usize, f64, f64) {
        let first = self.low.floor().clamp(0.0, (self.limit - 1) as f64);
        let last = self.high.ceil().clamp(first + 1.0, self.limit as f64);
        // The stretch may stand out by a chroma sample's offset, or be too thin to scale from.
        let low = self.low.clamp(first, last - 1e-3);
        let high = self.high.clamp(low + 1e-3, last);
        (first as usize, last as usize, low, high)
    }
}

/// A filter that widens with the scale where the axis shrinks, so that nothing aliases (as Pillow and torchvision's
/// `antialias` do); samples outside the whole pixels around the span are not looked at.
#[derive(Default)]
pub(super) struct Taps {
    made_for: Option<(Span, usize, Filter)>,
    /// First sample that any output looks at, and how many from there on are looked at.
    pub(super) from: usize,
    pub(super) len: usize,
    /// Samples per output.
    pub(super) count: usize,
    /// For each output, its first sample less `from`.
    pub(super) first: Vec<u32>,
    /// `count` for each output; they add up to 1.
    pub(super) weights: Vec<f32>,
    windows: Vec<(usize, usize, f64)>,
}

impl Taps {
    /// For `out` samples from `span`; free if that is what was made last.
    pub(super) fn make(&mut self, span: Span, out: usize, filter: Filter) {
        let wanted = Some((span, out, filter));
        if self.made_for == wanted {
            return;
        }
        self.made_for = wanted;
        let (first, last, low, high) = span.around();
        let scale = (high - low) / out as f64;
        let wide = scale.max(1.0);
        let support = wide
            * match filter {
                Filter::Bilinear => 1.0,
                Filter::Bicubic => 2.0,
            };
        self.windows.clear();
        self.windows.extend((0..out).map(|i| {
            let centre = low + (i as f64 + 0.5) * scale;
            let begin = (centre - support + 0.5).max(first as f64) as usize;
            let end = ((centre + support + 0.5) as usize).min(last);
            (
                begin.min(last - 1),
                end.max(begin.min(last - 1) + 1),
                centre,
            )
        }));
        let longest = self.windows.iter().map(|(begin, end, _)| end - begin);
        self.count = longest.max().unwrap_or(1);
        (self.from, self.len) = (first, last - first);
        self.first.clear();
        self.weights.clear();
        for &(begin, end, centre) in &self.windows {
            // All outputs look at equally many samples; some weights are 0.
            let begin_at = begin.min(last - self.count);
            self.first.push((begin_at - first) as u32);
            let start = self.weights.len();
            let mut sum = 0.0;
            for sample in begin_at..begin_at + self.count {
                let weight = if (begin..end).contains(&sample) {
                    kernel(filter, (sample as f64 + 0.5 - centre) / wide)
                } else {
                    0.0
                };
                sum += weight;
                self.weights.push(weight as f32);
            }
            for weight in &mut self.weights[start..] {
                *weight = (f64::from(*weight) / sum) as f32;
            }
        }
    }
}

fn kernel(filter: Filter, x: f64) -> f64 {
    let x = x.abs();
    match filter {
        Filter::Bilinear => (1.0 - x).max(0.0),
        // Keys' kernel with a = -0.5: what Pillow calls bicubic.
        Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        Filter::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        Filter::Bicubic => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the stretch, weights add up to one, and a ramp stays one within a tenth of an output sample away from the
        /// ends (a widened kernel is not sampled at whole steps, so it is no closer than that).
        #[test]
        fn weights_are_a_mean_and_keep_a_ramp(
            limit in 1usize..400, low in -1.0f64..400.0, length in 0.001f64..400.0, out in 1usize..300, bicubic: bool,
        ) {
            let filter = if bicubic { Filter::Bicubic } else { Filter::Bilinear };
            let mut taps = Taps::default();
            let span = Span { low, high: low + length, limit };
            taps.make(span, out, filter);
            prop_assert!(taps.from + taps.len <= limit && taps.count <= taps.len);
            let (_, _, inner_low, inner_high) = span.around();
            let scale = (inner_high - inner_low) / out as f64;
            for (i, (weights, &first)) in taps.weights.chunks_exact(taps.count).zip(&taps.first).enumerate() {
                let sum: f32 = weights.iter().sum();
                prop_assert!((sum - 1.0).abs() < 1e-4, "{sum}");
                let (begin, end) = (first as usize, first as usize + taps.count);
                prop_assert!(end <= taps.len);
                let support = scale.max(1.0) * if bicubic { 2.0 } else { 1.0 };
                let centre = inner_low + (i as f64 + 0.5) * scale - taps.from as f64;
                if centre - support >= 0.0 && centre + support <= taps.len as f64 {
                    let ramp: f64 = weights.iter().zip(begin..).map(|(w, s)| f64::from(*w) * (s as f64 + 0.5)).sum();
                    prop_assert!((ramp - centre).abs() < 0.1 * scale.max(1.0) + 1e-3, "{ramp} for {centre}");
                }
            }
        }
    }
}
