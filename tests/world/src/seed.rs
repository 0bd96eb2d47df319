//! Seeded draws: every random number of the world comes from here.
//!
//! A stream is named by the world's seed and a path (`[PERSON, pid]`, `[CROP, index]`, ...), never by
//! the order in which streams are opened. So any crop can be drawn alone, on any thread, and is the same.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// First words of a path: what the stream is for.
pub(crate) mod path {
    pub(crate) const PERSON: u64 = 1;
    pub(crate) const CAMERA: u64 = 2;
    pub(crate) const ROUTE: u64 = 3;
    pub(crate) const TRACK: u64 = 4;
    pub(crate) const SHOT: u64 = 5;
    pub(crate) const DISTRACTOR: u64 = 6;
    pub(crate) const JUNK: u64 = 7;
    pub(crate) const TWIN: u64 = 8;
    pub(crate) const SCENE: u64 = 9;
    pub(crate) const PASSER: u64 = 10;
    /// The people of the videos: never those of the crops, which may have been trained on.
    pub(crate) const WALKER: u64 = 11;
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit.
pub(crate) fn splitmix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The seed of the stream `path` of the world `seed`.
pub fn derive(seed: u64, path: &[u64]) -> u64 {
    path.iter()
        .fold(splitmix(seed), |acc, &word| splitmix(acc ^ splitmix(word)))
}

/// A seeded stream of draws (ChaCha8).
#[derive(Debug, Clone)]
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// Opens the stream `path` of the world `seed`.
    pub fn new(seed: u64, path: &[u64]) -> Self {
        Self(ChaCha8Rng::seed_from_u64(derive(seed, path)))
    }

    /// A uniform 64-bit word.
    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform integer in [low, high].
    pub fn int(&mut self, low: usize, high: usize) -> usize {
        low + (self.unit() * (high - low + 1) as f32) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// Normal with the given mean and standard deviation, cut at 2.5 deviations.
    pub fn normal(&mut self, mean: f32, sd: f32) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let z = radius * (std::f32::consts::TAU * self.unit()).cos();
        mean + sd * z.clamp(-2.5, 2.5)
    }

    /// One of `items`, each as likely.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.int(0, items.len() - 1)]
    }

    /// One of `items` in proportion to its weight.
    pub fn weighted<T: Copy>(&mut self, items: &[(T, f32)]) -> T {
        let total: f32 = items.iter().map(|(_, weight)| weight).sum();
        let mut left = self.unit() * total;
        for &(item, weight) in items {
            if left < weight {
                return item;
            }
            left -= weight;
        }
        items[items.len() - 1].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_path_and_repeat_by_seed() {
        let mut a = Draw::new(7, &[1, 2]);
        let mut b = Draw::new(7, &[1, 2]);
        let mut c = Draw::new(7, &[2, 1]);
        let (x, y, z) = (a.word(), b.word(), c.word());
        assert_eq!(x, y);
        assert_ne!(x, z);
    }

    #[test]
    fn normal_has_its_mean_and_deviation() {
        let mut draw = Draw::new(1, &[]);
        let values: Vec<f32> = (0..20_000).map(|_| draw.normal(3.0, 2.0)).collect();
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32;
        assert!((mean - 3.0).abs() < 0.06, "mean {mean}");
        assert!((var.sqrt() - 2.0).abs() < 0.1, "deviation {}", var.sqrt());
    }
}
