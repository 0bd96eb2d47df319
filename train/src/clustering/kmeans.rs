//! k-means: Lloyd's iterations (Lloyd 1982, "Least squares quantization in PCM") from k-means++ centres.
//!
//! A block of rows meets all centres in one matrix product. That product only says which centres may be nearest: those
//! within its rounding are compared by exact differences, so labels depend neither on the processor's kernels nor on the
//! number of threads.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::products::products;
use super::seeding::plus_plus;
use super::{ClusterError, PseudoLabels, checked_rows};
use crate::capacity::{self, bytes};

/// Rows of a block.
const BLOCK: usize = 256;

/// What becomes of a centre that no row is nearest to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyCluster {
    /// It stays where it is.
    Keep,
    /// It takes the row farthest from its own centre, which leaves its old cluster in the same update (scikit-learn).
    #[default]
    Relocate,
}

/// Checked parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KMeans {
    clusters: usize,
    seed: u64,
    max_iterations: usize,
    restarts: usize,
    empty: EmptyCluster,
}

/// Centres and what belongs to them.
#[derive(Clone, Debug, PartialEq)]
pub struct KMeansFit {
    /// Centres (K, D), row-major.
    pub centres: Vec<f32>,
    /// Columns of a centre.
    pub width: usize,
    /// Per row the nearest centre, of equally near ones the lowest.
    pub labels: Vec<u32>,
    /// Sum of squared distances to the nearest centre.
    pub inertia: f64,
    /// Updates of the centres that were followed by a change of some label.
    pub iterations: usize,
    /// The last update changed no label.
    pub converged: bool,
}

impl KMeansFit {
    /// As pseudo labels: clusters without a row vanish, the others keep their order.
    pub fn pseudo_labels(&self) -> PseudoLabels {
        let mut number = vec![None; self.centres.len() / self.width];
        for label in &self.labels {
            number[*label as usize] = Some(0);
        }
        let mut clusters = 0;
        for slot in number.iter_mut().flatten() {
            *slot = clusters;
            clusters += 1;
        }
        PseudoLabels {
            labels: self.labels.iter().map(|l| number[*l as usize]).collect(),
            clusters: clusters as usize,
        }
    }
}

impl KMeans {
    /// K = `clusters`; `seed` decides the starting centres. At most 300 updates, one start, empty clusters relocated.
    ///
    /// # Errors
    /// [`ClusterError::Parameter`] if `clusters` is 0.
    pub fn new(clusters: usize, seed: u64) -> Result<Self, ClusterError> {
        if clusters == 0 {
            return Err(ClusterError::Parameter {
                key: "clusters",
                range: "at least 1",
                value: "0".into(),
            });
        }
        Ok(KMeans {
            clusters,
            seed,
            max_iterations: 300,
            restarts: 1,
            empty: EmptyCluster::default(),
        })
    }

    /// Updates at most; 0 gives the starting centres back.
    pub fn max_iterations(mut self, updates: usize) -> Self {
        self.max_iterations = updates;
        self
    }

    /// Starts, at least 1; the one of smallest inertia is kept, of equal ones the first.
    pub fn restarts(mut self, restarts: usize) -> Self {
        self.restarts = restarts.max(1);
        self
    }

    /// Empty clusters.
    pub fn empty(mut self, empty: EmptyCluster) -> Self {
        self.empty = empty;
        self
    }

    /// Clusters the rows of `features` (N, D), row-major with `width` = D columns, as they are (scale them to length 1 first
    /// where cosine is meant).
    ///
    /// # Errors
    /// [`ClusterError::Shape`], [`ClusterError::NotFinite`], [`ClusterError::FewRows`] (N < K),
    /// [`ClusterError::FewDistinct`] (fewer than K rows differ).
    pub fn fit(&self, features: &[f32], width: usize) -> Result<KMeansFit, ClusterError> {
        let rows = checked_rows(features, width, self.clusters)?;
        self.require_memory(rows, width)?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut best: Option<KMeansFit> = None;
        for _ in 0..self.restarts {
            let chosen = plus_plus(features, width, self.clusters, &mut rng)?;
            let centres: Vec<f32> = chosen
                .iter()
                .flat_map(|i| &features[i * width..][..width])
                .copied()
                .collect();
            let found = self.lloyd(features, width, &centres);
            if best.as_ref().is_none_or(|b| found.inertia < b.inertia) {
                best = Some(found);
            }
        }
        Ok(best.expect("at least one start"))
    }

    /// The same from given centres (K, D).
    ///
    /// # Errors
    /// As [`KMeans::fit`]; [`ClusterError::Parameter`] if these are not K finite centres of that width.
    pub fn fit_from(
        &self,
        features: &[f32],
        width: usize,
        centres: &[f32],
    ) -> Result<KMeansFit, ClusterError> {
        let rows = checked_rows(features, width, self.clusters)?;
        self.require_memory(rows, width)?;
        if centres.len() != self.clusters * width || centres.iter().any(|v| !v.is_finite()) {
            return Err(ClusterError::Parameter {
                key: "centres",
                range: "K finite rows as wide as the features",
                value: format!("{} values for {} x {width}", centres.len(), self.clusters),
            });
        }
        Ok(self.lloyd(features, width, centres))
    }

    fn require_memory(&self, rows: usize, width: usize) -> Result<(), ClusterError> {
        // Two rounds of labels with distances and the members between; the centres four times over; and for each thread a
        // block of rows with its products with all centres.
        let threads = rayon::current_num_threads();
        let need = bytes(rows, 1, 2 * 16 + 8)
            .saturating_add(bytes(self.clusters, width, 8 + 3 * 4))
            .saturating_add(bytes(threads * BLOCK, self.clusters + width, 4));
        Ok(capacity::require(
            &format!("{} centres for {rows} images", self.clusters),
            need,
            "ask for fewer clusters, or cluster fewer images",
        )?)
    }

    fn lloyd(&self, features: &[f32], width: usize, start: &[f32]) -> KMeansFit {
        let mean = column_means(features, width);
        let mut centres: Vec<f64> = start.iter().copied().map(f64::from).collect();
        let mut nearest = assign(features, width, &mean, &centres);
        let (mut updates, mut converged) = (0, false);
        while updates < self.max_iterations && !converged {
            self.update(features, width, &nearest, &mut centres);
            let next = assign(features, width, &mean, &centres);
            converged = next.iter().zip(&nearest).all(|(a, b)| a.0 == b.0);
            nearest = next;
            updates += 1;
        }
        KMeansFit {
            centres: centres.iter().map(|v| *v as f32).collect(),
            width,
            labels: nearest.iter().map(|(label, _)| *label).collect(),
            inertia: nearest.iter().map(|(_, d)| d).sum(),
            iterations: updates - usize::from(converged),
            converged,
        }
    }

    /// Every centre becomes the mean of its rows.
    fn update(&self, features: &[f32], width: usize, nearest: &[(u32, f64)], centres: &mut [f64]) {
        let mut members = vec![Vec::new(); self.clusters];
        for (i, (label, _)) in nearest.iter().enumerate() {
            members[*label as usize].push(i);
        }
        if self.empty == EmptyCluster::Relocate {
            relocate(&mut members, nearest);
        }
        centres
            .par_chunks_exact_mut(width)
            .zip(&members)
            .filter(|(_, rows)| !rows.is_empty())
            .for_each(|(centre, rows)| {
                centre.fill(0.0);
                for &i in rows {
                    for (sum, v) in centre.iter_mut().zip(&features[i * width..][..width]) {
                        *sum += f64::from(*v);
                    }
                }
                centre.iter_mut().for_each(|sum| *sum /= rows.len() as f64);
            });
    }
}

/// Gives each empty cluster, lowest first, the farthest row that is not the last of its own cluster.
fn relocate(members: &mut [Vec<usize>], nearest: &[(u32, f64)]) {
    if members.iter().all(|rows| !rows.is_empty()) {
        return;
    }
    let mut far: Vec<usize> = (0..nearest.len()).filter(|i| nearest[*i].1 > 0.0).collect();
    far.sort_by(|a, b| nearest[*b].1.total_cmp(&nearest[*a].1));
    let mut far = far.into_iter();
    for k in 0..members.len() {
        if !members[k].is_empty() {
            continue;
        }
        let Some(i) = far.find(|i| members[nearest[*i].0 as usize].len() > 1) else {
            return;
        };
        members[nearest[i].0 as usize].retain(|m| *m != i);
        members[k].push(i);
    }
}

fn column_means(features: &[f32], width: usize) -> Vec<f64> {
    let mut mean = vec![0f64; width];
    for row in features.chunks_exact(width) {
        for (sum, v) in mean.iter_mut().zip(row) {
            *sum += f64::from(*v);
        }
    }
    let rows = (features.len() / width) as f64;
    mean.iter_mut().for_each(|sum| *sum /= rows);
    mean
}

/// Per row the nearest centre and its squared distance.
fn assign(features: &[f32], width: usize, mean: &[f64], centres: &[f64]) -> Vec<(u32, f64)> {
    // Around the mean: |x|^2 - 2 x.c + |c|^2 loses its digits where all points are far from the origin.
    let shifted: Vec<f32> = centres
        .chunks_exact(width)
        .flat_map(|c| c.iter().zip(mean).map(|(v, m)| (v - m) as f32))
        .collect();
    let squares: Vec<f64> = shifted.chunks_exact(width).map(square).collect();
    let widest = squares.iter().fold(0f64, |m, s| m.max(*s)).sqrt();
    // Four times what the rounding of a product of this depth usually comes to, both for the best and for its rival.
    let rounding = 4.0 * f64::from(f32::EPSILON) * (8.0 + (width as f64).sqrt());
    let exact = |row: &[f32], k: usize| -> f64 {
        row.iter()
            .zip(&centres[k * width..][..width])
            .map(|(v, c)| (f64::from(*v) - c) * (f64::from(*v) - c))
            .sum()
    };
    features
        .par_chunks(BLOCK * width)
        .map_init(
            || (Vec::new(), Vec::new()),
            |(block, tile), rows| {
                block.clear();
                for row in rows.chunks_exact(width) {
                    block.extend(
                        row.iter()
                            .zip(mean)
                            .map(|(v, m)| (f64::from(*v) - m) as f32),
                    );
                }
                products(block, &shifted, width, tile);
                let scores = tile.chunks_exact(squares.len());
                rows.chunks_exact(width)
                    .zip(block.chunks_exact(width))
                    .zip(scores)
                    .map(|((row, moved), scores)| {
                        let score = |k: usize| squares[k] - 2.0 * f64::from(scores[k]);
                        let best = (0..squares.len()).map(score).fold(f64::INFINITY, f64::min);
                        let reach = square(moved).sqrt() + widest;
                        let limit = best + rounding * reach * reach;
                        (0..squares.len())
                            .filter(|k| score(*k) <= limit)
                            .map(|k| (k as u32, exact(row, k)))
                            .min_by(|a, b| a.1.total_cmp(&b.1))
                            .expect("the best is within its own limit")
                    })
                    .collect::<Vec<_>>()
            },
        )
        .flatten_iter()
        .collect()
}

fn square(row: &[f32]) -> f64 {
    row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn two_groups_far_from_the_origin() {
        // f32 products of these without a shift would be noise.
        let x = [4096.0f32, 4096.5, 4097.0, 4104.0, 4104.5, 4105.0];
        for seed in 0..8 {
            let found = KMeans::new(2, seed).unwrap().fit(&x, 1).unwrap();
            assert!(found.converged);
            assert_eq!(found.inertia, 1.0);
            assert_ne!(found.labels[0], found.labels[3]);
            let again = KMeans::new(2, seed).unwrap().fit(&x, 1).unwrap();
            assert_eq!(found, again);
        }
    }

    #[test]
    fn equally_near_centres_and_clusters_without_a_row() {
        let kmeans = KMeans::new(3, 0).unwrap().empty(EmptyCluster::Keep);
        let found = kmeans
            .fit_from(&[0.0, 1.0, 2.0], 1, &[1.0, 9.0, 1.0])
            .unwrap();
        assert_eq!(found.labels, [0, 0, 0]);
        assert_eq!(found.centres, [1.0, 9.0, 1.0]);
        assert_eq!((found.iterations, found.converged), (0, true));
        assert_eq!(found.pseudo_labels().clusters, 1);
        let found = kmeans
            .empty(EmptyCluster::Relocate)
            .fit_from(&[0.0, 1.0, 2.0], 1, &[1.0, 9.0, 1.0])
            .unwrap();
        assert_eq!(
            (found.labels.as_slice(), found.inertia),
            ([1, 0, 2].as_slice(), 0.0)
        );
    }

    #[test]
    fn bad_input_is_named() {
        let message = |x: &[f32], width, k| {
            KMeans::new(k, 0)
                .and_then(|m| m.fit(x, width))
                .unwrap_err()
                .to_string()
        };
        assert!(message(&[1.0; 4], 2, 0).contains("clusters must be at least 1"));
        assert!(message(&[1.0; 4], 2, 3).contains("2 rows cannot make 3 clusters"));
        assert!(message(&[1.0; 40], 2, 3).contains("only 1 of the rows differ"));
        assert!(message(&[1.0, 2.0, 3.0, f32::NAN], 2, 1).contains("row 1"));
        assert!(message(&[1.0; 5], 2, 1).contains("whole rows"));
        assert!(message(&[], 2, 1).contains("0 rows"));
        let kmeans = KMeans::new(2, 0).unwrap();
        assert!(kmeans.fit_from(&[1.0, 2.0], 1, &[f32::NAN, 1.0]).is_err());
        // One cluster of equal rows is a cluster.
        let one = KMeans::new(1, 0).unwrap().fit(&[1.0; 40], 2).unwrap();
        assert_eq!((one.centres, one.inertia), (vec![1.0, 1.0], 0.0));
    }
}
