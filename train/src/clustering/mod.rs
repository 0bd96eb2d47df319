//! From features to pseudo labels.
//!
//! [`knn`] finds neighbours exactly, [`jaccard`] turns them into the k-reciprocal Jaccard distance, [`dbscan`] groups the
//! images, [`rho`] chooses its radius from the data, [`source`] adds how far images are from a labelled set: sparse from end to end, memory grows with N x k, never N x N.
//! Other methods take other ways: [`average`] linkage (HCT) over the triangle of all distances, [`bottom_up`] merging (BUC)
//! over [`pairs`] computed tile by tile, [`kmeans`] with [`seeding`], Gaussian mixtures in [`gmm`] over [`mixture`].
//! [`agreement`] says how good the groups are where the truth is known. Everything gives the same result on any number of
//! threads. [`command`] is `reid-train cluster`, [`npy`] its files.

pub mod agreement;
pub mod average;
pub mod bottom_up;
mod candidates;
pub mod command;
pub mod dbscan;
pub mod forbidden;
pub mod gmm;
pub mod jaccard;
pub mod kmeans;
pub mod knn;
pub mod mixture;
pub mod npy;
pub mod pairs;
mod products;
pub mod rho;
pub mod seeding;
pub mod source;
mod sparse;
pub mod sweep;

use std::borrow::Cow;

use rayon::prelude::*;

use crate::capacity::{self, Shortage, bytes};
pub use average::{Dendrogram, Stop, average_linkage};
pub use bottom_up::{BottomUp, Sizes};
pub use dbscan::Dbscan;
pub use forbidden::{Forbidden, Pairs};
pub use gmm::{Gmm, GmmFit};
pub use jaccard::{Jaccard, KReciprocal, Weights};
pub use kmeans::{EmptyCluster, KMeans, KMeansFit};
pub use mixture::{Covariance, Mixture};
pub use pairs::{Condensed, FakeDistances, FeatureDistances, Metric, PairDistances};
pub use sparse::SparseDistances;

/// What helps where memory is short, whatever the algorithm.
const FEWER: &str = "cluster fewer images, or end other programs";

/// A cluster number for every image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PseudoLabels {
    /// Per image: its cluster, below `clusters`, or `None` for an outlier.
    pub labels: Vec<Option<u32>>,
    /// Number of clusters.
    pub clusters: usize,
}

impl PseudoLabels {
    /// Everybody a member of some group: equal owners make a cluster, numbered from 0 in order of first appearance.
    pub fn by_first_appearance(owners: &[usize]) -> Self {
        let mut numbers = std::collections::HashMap::new();
        let labels = owners
            .iter()
            .map(|owner| {
                let next = numbers.len() as u32;
                Some(*numbers.entry(*owner).or_insert(next))
            })
            .collect();
        PseudoLabels {
            labels,
            clusters: numbers.len(),
        }
    }

    /// Every outlier a cluster of its own, numbered after the others by ascending index (SpCL, Ge et al. 2020).
    pub fn outliers_as_clusters(&self) -> Self {
        let mut clusters = self.clusters;
        let labels = self
            .labels
            .iter()
            .map(|label| {
                label.or_else(|| {
                    clusters += 1;
                    Some(clusters as u32 - 1)
                })
            })
            .collect();
        PseudoLabels { labels, clusters }
    }

    /// Number of images without a cluster.
    pub fn outliers(&self) -> usize {
        self.labels.iter().filter(|label| label.is_none()).count()
    }

    /// Images per cluster.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.clusters];
        for label in self.labels.iter().flatten() {
            sizes[*label as usize] += 1;
        }
        sizes
    }

    /// Indices of the images of each cluster, ascending.
    pub fn members(&self) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.clusters];
        for (index, label) in self.labels.iter().enumerate() {
            if let Some(label) = label {
                members[*label as usize].push(index);
            }
        }
        members
    }

    /// As files hold them: -1 for an outlier.
    pub fn to_i64(&self) -> Vec<i64> {
        self.labels
            .iter()
            .map(|label| label.map_or(-1, i64::from))
            .collect()
    }
}

/// Features to clusters: k-reciprocal Jaccard distance, then DBSCAN.
///
/// # Errors
/// If the features (row-major, `width` columns) are no matrix of at least 2 finite, non-zero rows.
pub fn cluster(
    features: &[f32],
    width: usize,
    jaccard: &Jaccard,
    dbscan: &Dbscan,
) -> Result<PseudoLabels, ClusterError> {
    let near = jaccard.distances_within(features, width, dbscan.eps())?;
    Ok(dbscan.cluster(&near))
}

/// Features or parameters that cannot be clustered.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The buffer is no matrix of that width.
    #[error("features: {len} values are not whole rows of width {width}")]
    Shape {
        /// Values given.
        len: usize,
        /// Values per row.
        width: usize,
    },
    /// Nothing to cluster.
    #[error("features: no rows; clustering needs at least 2")]
    TooFew,
    /// NaN or infinity.
    #[error(
        "features: row {row} has a value that is not finite: the network diverged or the file is damaged"
    )]
    NotFinite {
        /// Row.
        row: usize,
    },
    /// A vector without direction.
    #[error("features: row {row} is all zeros and has no direction to compare")]
    Zero {
        /// Row.
        row: usize,
    },
    /// A parameter out of range.
    #[error("{key} must be {range}, got {value}")]
    Parameter {
        /// Name, as on the command line.
        key: &'static str,
        /// What it may be.
        range: &'static str,
        /// What it was.
        value: String,
    },
    /// Fewer rows than clusters.
    #[error("features: {rows} rows cannot make {clusters} clusters; ask for fewer")]
    FewRows {
        /// Rows given.
        rows: usize,
        /// Clusters asked for.
        clusters: usize,
    },
    /// Too many equal rows.
    #[error(
        "features: only {distinct} of the rows differ, too few for {clusters} clusters: \
         are all images the same, or has the network collapsed?"
    )]
    FewDistinct {
        /// Different rows seen.
        distinct: usize,
        /// Clusters asked for.
        clusters: usize,
    },
    /// A component of a mixture that has shrunk to nothing.
    #[error(
        "component {component} of the mixture: {reason}; use a larger reg_covar or fewer components"
    )]
    Collapsed {
        /// Component.
        component: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More memory than there is.
    #[error(transparent)]
    Memory(#[from] Shortage),
    /// A file of features or labels.
    #[error("{path}: {reason}")]
    File {
        /// File.
        path: std::path::PathBuf,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// A file that could not be read or written.
    #[error(transparent)]
    Io(#[from] reid_models::files::FileError),
}

/// Number of rows of a row-major matrix of finite values that shall make `clusters` clusters.
fn checked_rows(data: &[f32], width: usize, clusters: usize) -> Result<usize, ClusterError> {
    if width == 0 || !data.len().is_multiple_of(width) {
        return Err(ClusterError::Shape {
            len: data.len(),
            width,
        });
    }
    if let Some(at) = data.iter().position(|v| !v.is_finite()) {
        return Err(ClusterError::NotFinite { row: at / width });
    }
    let rows = data.len() / width;
    if rows < clusters {
        return Err(ClusterError::FewRows { rows, clusters });
    }
    Ok(rows)
}

/// Checked rows of unit length, borrowed when they already are.
pub struct UnitRows<'a> {
    data: Cow<'a, [f32]>,
    width: usize,
}

impl<'a> UnitRows<'a> {
    /// From a row-major matrix of `width` columns; rows are scaled to length 1.
    ///
    /// # Errors
    /// [`ClusterError::Shape`], [`ClusterError::TooFew`] (fewer than 2 rows), [`ClusterError::NotFinite`],
    /// [`ClusterError::Zero`].
    pub fn new(data: &'a [f32], width: usize) -> Result<Self, ClusterError> {
        if width == 0 || !data.len().is_multiple_of(width) {
            return Err(ClusterError::Shape {
                len: data.len(),
                width,
            });
        }
        if data.len() / width < 2 {
            return Err(ClusterError::TooFew);
        }
        let squares: Vec<f64> = data
            .par_chunks_exact(width)
            .map(|row| row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum())
            .collect();
        if let Some(row) = squares.iter().position(|s: &f64| !s.is_finite()) {
            return Err(ClusterError::NotFinite { row });
        }
        if let Some(row) = squares.iter().position(|s| *s == 0.0) {
            return Err(ClusterError::Zero { row });
        }
        if squares.iter().all(|s| (s - 1.0).abs() < 1e-6) {
            return Ok(UnitRows {
                data: Cow::Borrowed(data),
                width,
            });
        }
        capacity::require(
            &format!("the scaled features of {} images", squares.len()),
            bytes(data.len(), 1, 4),
            FEWER,
        )?;
        let mut scaled = data.to_vec();
        scaled
            .par_chunks_exact_mut(width)
            .zip(&squares)
            .for_each(|(row, square)| {
                let scale = 1.0 / square.sqrt();
                for v in row {
                    *v = (f64::from(*v) * scale) as f32;
                }
            });
        Ok(UnitRows {
            data: Cow::Owned(scaled),
            width,
        })
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.data.len() / self.width
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.width..][..self.width]
    }

    /// Rows `range`, row-major.
    pub fn block(&self, range: std::ops::Range<usize>) -> &[f32] {
        &self.data[range.start * self.width..range.end * self.width]
    }

    /// All values, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_are_checked_and_scaled_once() {
        let rows = UnitRows::new(&[3.0, 4.0, 0.0, -2.0], 2).unwrap();
        assert_eq!(rows.data(), [0.6, 0.8, 0.0, -1.0]);
        let again = UnitRows::new(rows.data(), 2).unwrap();
        assert!(matches!(again.data, Cow::Borrowed(_)));

        let message = |data: &[f32], width| UnitRows::new(data, width).err().unwrap().to_string();
        assert!(message(&[1.0; 5], 2).contains("5 values"));
        assert!(message(&[1.0, 0.0], 2).contains("at least 2"));
        assert!(message(&[1.0, 0.0, f32::NAN, 1.0], 2).contains("row 1"));
        assert!(message(&[1.0, 0.0, 0.0, 0.0], 2).contains("row 1 is all zeros"));
    }

    #[test]
    fn labels_know_their_clusters() {
        let labels = PseudoLabels {
            labels: vec![Some(1), None, Some(0), Some(1)],
            clusters: 2,
        };
        assert_eq!(labels.outliers(), 1);
        assert_eq!(labels.sizes(), [1, 2]);
        assert_eq!(labels.members(), [vec![2], vec![0, 3]]);
        assert_eq!(labels.to_i64(), [1, -1, 0, 1]);
    }
}
