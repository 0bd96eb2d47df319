//! k-means++ seeding (Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding", section 2.2).

use rand::{Rng, RngExt};
use rayon::prelude::*;

use super::{ClusterError, checked_rows};
use crate::simd::squared_distance;

/// Rows chosen so far, and how far every row is from them.
pub struct PlusPlus<'a> {
    features: &'a [f32],
    width: usize,
    chosen: Vec<usize>,
    nearest: Vec<f64>,
}

impl<'a> PlusPlus<'a> {
    /// Nothing chosen yet. `features`: (N, D) row-major, `width` = D.
    ///
    /// # Errors
    /// [`ClusterError::Shape`], [`ClusterError::NotFinite`], [`ClusterError::FewRows`] (no rows).
    pub fn new(features: &'a [f32], width: usize) -> Result<Self, ClusterError> {
        let rows = checked_rows(features, width, 1)?;
        Ok(PlusPlus {
            features,
            width,
            chosen: Vec::new(),
            nearest: vec![f64::INFINITY; rows],
        })
    }

    fn row(&self, i: usize) -> &'a [f32] {
        &self.features[i * self.width..][..self.width]
    }

    /// Takes row `i` as the next centre.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn choose(&mut self, i: usize) {
        let centre = self.row(i);
        self.nearest
            .par_iter_mut()
            .zip(self.features.par_chunks_exact(self.width))
            .for_each(|(nearest, row)| {
                *nearest = nearest.min(f64::from(squared_distance(row, centre)));
            });
        self.chosen.push(i);
    }

    /// Rows chosen so far.
    pub fn chosen(&self) -> &[usize] {
        &self.chosen
    }

    /// Squared distance of every row to the nearest chosen one (infinite before the first).
    pub fn nearest(&self) -> &[f64] {
        &self.nearest
    }

    /// Their sum; a row is drawn with the share that it has of it.
    pub fn potential(&self) -> f64 {
        self.nearest.iter().sum()
    }

    /// Draws the next row: the first uniformly, then with probability in proportion to the squared distance. `None` if every
    /// row equals a chosen one.
    pub fn draw(&self, rng: &mut impl Rng) -> Option<usize> {
        if self.chosen.is_empty() {
            return Some(rng.random_range(0..self.nearest.len()));
        }
        let target = rng.random::<f64>() * self.potential();
        let mut sum = 0.0;
        let mut last = None;
        for (i, &d) in self.nearest.iter().enumerate().filter(|(_, d)| **d > 0.0) {
            sum += d;
            last = Some(i);
            if sum > target {
                break;
            }
        }
        last
    }
}

/// The rows of `clusters` starting centres.
///
/// # Errors
/// As [`PlusPlus::new`]; [`ClusterError::FewRows`]; [`ClusterError::FewDistinct`] if fewer rows than that differ.
pub fn plus_plus(
    features: &[f32],
    width: usize,
    clusters: usize,
    rng: &mut impl Rng,
) -> Result<Vec<usize>, ClusterError> {
    let mut seeding = PlusPlus::new(features, width)?;
    let rows = seeding.nearest.len();
    if rows < clusters {
        return Err(ClusterError::FewRows { rows, clusters });
    }
    while seeding.chosen.len() < clusters {
        let next = seeding.draw(rng).ok_or(ClusterError::FewDistinct {
            distinct: seeding.chosen.len(),
            clusters,
        })?;
        seeding.choose(next);
    }
    Ok(seeding.chosen)
}
