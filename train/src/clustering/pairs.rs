//! Dissimilarities of all pairs of images, a tile at a time or as a whole triangle.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use super::products::products;
use super::{ClusterError, UnitRows};
use crate::capacity::{self, bytes};
use crate::simd::squared_distance;

/// Rows and columns of a tile.
pub(super) const TILE: usize = 512;
/// Below this squared distance of unit vectors, `2 - 2 cos` has lost too many digits.
const NEAR: f32 = 0.02;

/// Dissimilarities, at least 0, of all pairs of a set of images; a tile is computed when it is asked for.
pub trait PairDistances: Sync {
    /// Number of images.
    fn count(&self) -> usize;

    /// The dissimilarities of the images `rows` (each in a row of `tile`, row-major) to the images `columns`. Only those of an
    /// image to one of higher index are meant; the others may hold anything.
    fn tile(&self, rows: Range<usize>, columns: Range<usize>, tile: &mut Vec<f32>);
}

/// The upper triangle of a symmetric matrix by rows, without its diagonal (scipy's `squareform`): 2 N (N - 1) bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Condensed<'a> {
    values: Cow<'a, [f32]>,
    count: usize,
}

impl<'a> Condensed<'a> {
    /// From N (N - 1) / 2 values, N at least 2.
    ///
    /// # Errors
    /// [`ClusterError::Parameter`] for another length, or a value that is not finite or is negative.
    pub fn new(values: impl Into<Cow<'a, [f32]>>) -> Result<Self, ClusterError> {
        let values = values.into();
        let count = (1.0 + (1.0 + 8.0 * values.len() as f64).sqrt()) as usize / 2;
        if values.is_empty() || count * (count - 1) / 2 != values.len() {
            return Err(ClusterError::Parameter {
                key: "distances",
                range: "a triangle of N (N - 1) / 2 values, N at least 2",
                value: format!("{} values", values.len()),
            });
        }
        if let Some(bad) = values.iter().position(|v| !(v.is_finite() && *v >= 0.0)) {
            return Err(ClusterError::Parameter {
                key: "distances",
                range: "finite and at least 0",
                value: format!("{} (value {bad})", values[bad]),
            });
        }
        Ok(Condensed { values, count })
    }

    /// All tiles of `distances`, rows in parallel.
    ///
    /// # Errors
    /// [`ClusterError::TooFew`] for fewer than 2 images; [`ClusterError::Memory`] if the triangle does not fit.
    pub fn of(distances: &impl PairDistances) -> Result<Condensed<'static>, ClusterError> {
        let count = distances.count();
        if count < 2 {
            return Err(ClusterError::TooFew);
        }
        capacity::require(
            &format!("the distances of all pairs of {count} images"),
            bytes(count, count - 1, 2),
            "cluster fewer images, or use dbscan, which needs no such table",
        )?;
        let mut values = vec![0f32; triangle(count)];
        let mut rest = values.as_mut_slice();
        let mut blocks = Vec::new();
        for top in (0..count).step_by(TILE) {
            let rows = top..(top + TILE).min(count);
            let length = start(count, rows.end) - start(count, top);
            let (block, after) = rest.split_at_mut(length);
            rest = after;
            blocks.push((rows, block));
        }
        blocks
            .into_par_iter()
            .for_each_init(Vec::new, |tile, (rows, block)| {
                for left in (rows.start..count).step_by(TILE) {
                    let columns = left..(left + TILE).min(count);
                    distances.tile(rows.clone(), columns.clone(), tile);
                    for i in rows.clone() {
                        let first = columns.start.max(i + 1);
                        if first >= columns.end {
                            continue;
                        }
                        let from = &tile[(i - rows.start) * columns.len()..][..columns.len()];
                        let to = start(count, i) - start(count, rows.start) + first - i - 1;
                        block[to..to + columns.end - first]
                            .copy_from_slice(&from[first - columns.start..]);
                    }
                }
            });
        Ok(Condensed {
            values: Cow::Owned(values),
            count,
        })
    }

    /// All values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, for whoever overwrites them.
    pub fn into_values(self) -> Vec<f32> {
        self.values.into_owned()
    }
}

/// Entries of a triangle over `count` images.
fn triangle(count: usize) -> usize {
    count * (count - 1) / 2
}

/// Where row `i` of the triangle begins.
fn start(count: usize, i: usize) -> usize {
    i * (2 * count - i - 1) / 2
}

impl PairDistances for Condensed<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn tile(&self, rows: Range<usize>, columns: Range<usize>, tile: &mut Vec<f32>) {
        tile.clear();
        tile.resize(rows.len() * columns.len(), 0.0);
        for (i, out) in rows.zip(tile.chunks_exact_mut(columns.len())) {
            let first = columns.start.max(i + 1);
            if first < columns.end {
                let from = start(self.count, i) + first - i - 1;
                out[first - columns.start..]
                    .copy_from_slice(&self.values[from..from + columns.end - first]);
            }
        }
    }
}

/// Which distance of L2-normalised features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// |a - b|, 0 to 2.
    Euclidean,
    /// |a - b|^2 = 2 - 2 cos, 0 to 4.
    SquaredEuclidean,
}

/// Distances of L2-normalised features; equal rows are at exactly 0.
pub struct FeatureDistances<'a> {
    /// Features.
    pub rows: &'a UnitRows<'a>,
    /// Distance.
    pub metric: Metric,
}

impl PairDistances for FeatureDistances<'_> {
    fn count(&self) -> usize {
        self.rows.count()
    }

    fn tile(&self, rows: Range<usize>, columns: Range<usize>, tile: &mut Vec<f32>) {
        let (a, b) = (
            self.rows.block(rows.clone()),
            self.rows.block(columns.clone()),
        );
        products(a, b, self.rows.width(), tile);
        for (i, out) in rows.zip(tile.chunks_exact_mut(columns.len())) {
            for (j, value) in columns.clone().zip(out) {
                let mut squared = 2.0 - 2.0 * *value;
                if squared < NEAR && i < j {
                    squared = squared_distance(self.rows.row(i), self.rows.row(j));
                }
                let squared = squared.max(0.0);
                *value = match self.metric {
                    Metric::Euclidean => squared.sqrt(),
                    Metric::SquaredEuclidean => squared,
                };
            }
        }
    }
}

/// Squared Euclidean distances of images that each have the same number of style-transferred copies ("fakes"): the smallest
/// over real-real, real-fake and fake-real pairs, and over fake-fake pairs only if asked for.
///
/// Source: the clustering constraint of "Unsupervised person re-identification via cross-camera similarity exploration",
/// III-D 1, where fake-fake pairs are left out: two copies resemble each other for what the transfer did to both.
pub struct FakeDistances<'a> {
    real: &'a UnitRows<'a>,
    fake: &'a UnitRows<'a>,
    fakes: usize,
    fake_fake: bool,
}

impl<'a> FakeDistances<'a> {
    /// `real` (N, D) and `fake` (N x F, D), the F copies of image i in the rows i F to i F + F - 1.
    ///
    /// # Errors
    /// [`ClusterError::Parameter`] if the widths differ or the copies are no multiple of the images.
    pub fn new(
        real: &'a UnitRows<'a>,
        fake: &'a UnitRows<'a>,
        fake_fake: bool,
    ) -> Result<Self, ClusterError> {
        if real.width() != fake.width() || !fake.count().is_multiple_of(real.count()) {
            return Err(ClusterError::Parameter {
                key: "fake",
                range: "the same number of copies for each image, as wide as the images' features",
                value: format!(
                    "{} x {} for {} x {}",
                    fake.count(),
                    fake.width(),
                    real.count(),
                    real.width()
                ),
            });
        }
        Ok(FakeDistances {
            real,
            fake,
            fakes: fake.count() / real.count(),
            fake_fake,
        })
    }
}

impl PairDistances for FakeDistances<'_> {
    fn count(&self) -> usize {
        self.real.count()
    }

    fn tile(&self, rows: Range<usize>, columns: Range<usize>, tile: &mut Vec<f32>) {
        let (depth, f) = (self.real.width(), self.fakes);
        let of = |range: &Range<usize>| {
            let copies = self.fake.block(range.start * f..range.end * f);
            (self.real.block(range.clone()), copies)
        };
        let ((a, a_fake), (b, b_fake)) = (of(&rows), of(&columns));
        products(a, b, depth, tile);
        // The smallest distance is the largest similarity.
        let mut other = Vec::new();
        let mut include = |left: &[f32], right: &[f32], row_copies: usize, column_copies: usize| {
            products(left, right, depth, &mut other);
            let width = columns.len() * column_copies;
            for (r, line) in other.chunks_exact(width).enumerate() {
                let out = &mut tile[r / row_copies * columns.len()..][..columns.len()];
                for (best, copies) in out.iter_mut().zip(line.chunks_exact(column_copies)) {
                    *best = copies.iter().fold(*best, |m, s| m.max(*s));
                }
            }
        };
        include(a, b_fake, 1, f);
        include(a_fake, b, f, 1);
        if self.fake_fake {
            include(a_fake, b_fake, f, f);
        }
        for value in tile.iter_mut() {
            *value = (2.0 - 2.0 * *value).max(0.0);
        }
    }
}
