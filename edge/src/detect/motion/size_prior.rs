//! How tall a person is at a given place of the picture, learned while looking.

/// So many people must have been measured before the prior speaks.
const LEAST: usize = 25;
/// The newest so many measurements count.
const MEMORY: usize = 300;

/// Height of a person as a linear function of the row of the feet, which is exact for a level ground seen by a pinhole
/// camera without roll.
#[derive(Default)]
pub(super) struct SizePrior {
    /// (row of the feet, height), a ring.
    samples: Vec<(f32, f32)>,
    next: usize,
    /// height = line.0 + line.1 * feet
    line: Option<(f32, f32)>,
}

impl SizePrior {
    /// Adds a person measured whole.
    pub(super) fn add(&mut self, feet: f32, height: f32) {
        if self.samples.len() < MEMORY {
            self.samples.push((feet, height));
        } else {
            self.samples[self.next] = (feet, height);
        }
        self.next = (self.next + 1) % MEMORY;
        if self.samples.len() >= LEAST && self.next.is_multiple_of(10) {
            self.line = Some(fit(&self.samples));
        }
    }

    /// Height of a person whose feet are in this row.
    pub(super) fn at_feet(&self, feet: f32) -> Option<f32> {
        let (a, b) = self.line?;
        Some((a + b * feet).max(4.0))
    }

    /// Height of a person whose head is in this row.
    pub(super) fn at_head(&self, head: f32) -> Option<f32> {
        let (a, b) = self.line?;
        Some(((a + b * head) / (1.0 - b)).max(4.0))
    }
}

/// Least squares, re-weighted so that groups and halves of people (off by much) stop counting.
fn fit(samples: &[(f32, f32)]) -> (f32, f32) {
    let mut heights: Vec<f32> = samples.iter().map(|s| s.1).collect();
    heights.sort_by(f32::total_cmp);
    let median = heights[heights.len() / 2];
    let mut line = (median, 0.0);
    for _ in 0..12 {
        let (mut n, mut sx, mut sy, mut sxx, mut sxy) = (0.0f32, 0.0, 0.0, 0.0, 0.0);
        for &(x, y) in samples {
            let off = (y - line.0 - line.1 * x) / (0.1 * median);
            let weight = 1.0 / (1.0 + off * off);
            n += weight;
            sx += weight * x;
            sy += weight * y;
            sxx += weight * x * x;
            sxy += weight * x * y;
        }
        let (mx, my) = (sx / n, sy / n);
        let (var, cov) = (sxx / n - mx * mx, sxy / n - mx * my);
        // A spread of less than a fifth of a person says nothing about the slope; a slope of 1 is a view from above.
        let least = (0.2 * median) * (0.2 * median);
        let slope = if var > least {
            (cov / var).clamp(0.0, 0.8)
        } else {
            0.0
        };
        line = (my - slope * mx, slope);
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn learns_perspective_through_groups_and_halves() {
        let mut prior = SizePrior::default();
        for i in 0..200 {
            let feet = 60.0 + (i * 37 % 150) as f32;
            let height = 10.0 + 0.3 * feet;
            let height = match i % 6 {
                0 => 0.5 * height,
                1 => 1.6 * height,
                _ => height,
            };
            prior.add(feet, height);
            if i < 20 {
                assert!(prior.at_feet(100.0).is_none());
            }
        }
        let at = prior.at_feet(100.0).unwrap();
        assert!((at - 40.0).abs() < 3.0, "{at}");
        let (head, height) = (60.0, prior.at_head(60.0).unwrap());
        assert!((prior.at_feet(head + height).unwrap() - height).abs() < 0.1);
    }
}
