//! k-reciprocal Jaccard distance (Zhong et al. 2017, "Re-ranking person re-identification with k-reciprocal encoding",
//! section 3), sparse from end to end.
//!
//! Each image is encoded as a vector over its k-reciprocal neighbours, averaged over its `k2` nearest images; the
//! distance of two images is the generalised Jaccard distance of their vectors. Nearly all pairs share nothing and are at
//! distance exactly 1: only the others are stored.

use rayon::prelude::*;
use reid_models::distance;

use super::knn::{self, Neighbours};
use super::sparse::{Rows, SparseDistances, Sums, ZERO};
use super::{ClusterError, UnitRows};
use crate::capacity;

/// How near members of a neighbourhood count more than far ones; each row is scaled to sum 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// `exp(-d)`, d = 2 - 2 cos: SpCL, Cluster-Contrast, ICE.
    #[default]
    Softmax,
    /// `exp(-d / max d)`, the maximum over all images: the original, MMT, ABMT, re-ranking at test time.
    ExpScaled,
}

/// Parameters of the distance; there is no other way to hold them than checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jaccard {
    k1: usize,
    k2: usize,
    weights: Weights,
}

impl Default for Jaccard {
    /// k1 = 30, k2 = 6, softmax.
    fn default() -> Self {
        Jaccard {
            k1: 30,
            k2: 6,
            weights: Weights::Softmax,
        }
    }
}

impl Jaccard {
    /// `k1`: length of a neighbour list, the image itself included (papers that say "k1 = 20" on top of the image itself
    /// mean 21 here). `k2`: images averaged in the local query expansion, 1 for none.
    ///
    /// # Errors
    /// [`ClusterError::Parameter`] unless 2 <= k1 and 1 <= k2 <= k1.
    pub fn new(k1: usize, k2: usize, weights: Weights) -> Result<Self, ClusterError> {
        if k1 < 2 {
            return Err(ClusterError::Parameter {
                key: "k1",
                range: "at least 2 (it counts the image itself)",
                value: k1.to_string(),
            });
        }
        if k2 < 1 || k2 > k1 {
            return Err(ClusterError::Parameter {
                key: "k2",
                range: "between 1 and k1",
                value: k2.to_string(),
            });
        }
        Ok(Jaccard { k1, k2, weights })
    }

    /// All pairs of rows of `features` (row-major, `width` columns, any length) whose distance is below 1.
    ///
    /// # Errors
    /// If the features are no matrix of at least 2 finite, non-zero rows.
    pub fn distances(
        &self,
        features: &[f32],
        width: usize,
    ) -> Result<SparseDistances, ClusterError> {
        self.distances_within(features, width, 1.0)
    }

    /// As [`Jaccard::distances`], only the pairs at most `limit` apart: a small part of them, and all that a clustering of
    /// that radius looks at.
    ///
    /// # Errors
    /// As [`Jaccard::distances`].
    pub fn distances_within(
        &self,
        features: &[f32],
        width: usize,
        limit: f32,
    ) -> Result<SparseDistances, ClusterError> {
        let rows = UnitRows::new(features, width)?;
        self.require_memory(rows.count())?;
        Ok(KReciprocal::encode(&rows, self).distances_within(limit))
    }

    /// Refuses lists that would not fit. How many images are near each other only the features know; as a rule the lists
    /// need more than this.
    ///
    /// # Errors
    /// [`ClusterError::Memory`].
    pub(crate) fn require_memory(&self, count: usize) -> Result<(), ClusterError> {
        let k1 = self.k1.min(count);
        // A neighbour: 2 candidates of 8 bytes, its number, its place in two reciprocal lists, and two encodings of 8.
        let each = 2 * 8 + 4 + 2 * 4 + 2 * 8;
        Ok(capacity::require(
            &format!("the neighbour lists of {count} images, {k1} each,"),
            capacity::bytes(count, k1, each),
            "cluster fewer images, or lower k1",
        )?)
    }

    /// Columns of the short lists that an expansion draws from: `round(k1 / 2) + 1`, half to even as numpy rounds.
    fn half(&self) -> usize {
        (self.k1 as f64 / 2.0).round_ties_even() as usize + 1
    }
}

/// The k-reciprocal encodings of a set of points, ready to be compared.
#[derive(Clone, Debug)]
pub struct KReciprocal {
    rows: Rows,
    /// Per member, the points that have it.
    inverted: Rows,
    farthest: Vec<f32>,
}

impl KReciprocal {
    /// Encodes every row.
    pub fn encode(rows: &UnitRows, parameters: &Jaccard) -> Self {
        Self::from_neighbours(rows, &knn::nearest(rows, parameters.k1), parameters)
    }

    /// Encodes every row from its neighbours, of which k1 must be known if there are so many rows.
    ///
    /// # Panics
    /// If the neighbours are of other rows.
    pub fn from_neighbours(rows: &UnitRows, neighbours: &Neighbours, parameters: &Jaccard) -> Self {
        assert_eq!(neighbours.count(), rows.count(), "neighbours of these rows");
        let whole = reciprocal(neighbours, parameters.k1);
        let part = reciprocal(neighbours, parameters.half());
        let plain: Vec<Vec<(u32, f32)>> = (0..rows.count())
            .into_par_iter()
            .map(|i| {
                let members = expanded(i, &whole, &part);
                weigh(rows, neighbours, i, &members, parameters.weights)
            })
            .collect();
        let mut encoded = Rows::collect(plain);
        if parameters.k2 > 1 {
            encoded = averaged(&encoded, neighbours, parameters.k2);
        }
        let inverted = encoded.transposed();
        KReciprocal {
            rows: encoded,
            inverted,
            farthest: (0..rows.count())
                .map(|i| neighbours.farthest_similarity(i))
                .collect(),
        }
    }

    /// Number of points.
    pub fn count(&self) -> usize {
        self.farthest.len()
    }

    /// Cosine similarity of point `i` and the point least like it.
    pub fn farthest_similarity(&self, i: usize) -> f32 {
        self.farthest[i]
    }

    /// Jaccard distances of point `i` to all points, into `out` (one value per point).
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn jaccard_row(&self, i: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.count(), "one distance per point");
        // Shared minima first, in place.
        out.fill(0.0);
        let (members, values) = self.rows.row(i);
        for (&member, &value) in members.iter().zip(values) {
            let (points, weights) = self.inverted.row(member as usize);
            for (&j, &weight) in points.iter().zip(weights) {
                out[j as usize] += value.min(weight);
            }
        }
        for (j, shared) in out.iter_mut().enumerate() {
            *shared = if i == j {
                0.0
            } else {
                from_shared(f64::from(*shared))
            };
        }
    }

    /// All pairs nearer than 1.
    pub fn distances(&self) -> SparseDistances {
        self.distances_within(1.0)
    }

    /// All pairs nearer than 1 and at most `limit` apart.
    pub fn distances_within(&self, limit: f32) -> SparseDistances {
        let upper: Vec<Vec<(u32, f32)>> = (0..self.count())
            .into_par_iter()
            .map_init(
                || Sums::new(self.count()),
                |sums, i| {
                    let (members, values) = self.rows.row(i);
                    for (&member, &value) in members.iter().zip(values) {
                        let (points, weights) = self.inverted.row(member as usize);
                        let after = points.partition_point(|j| *j as usize <= i);
                        for (&j, &weight) in points[after..].iter().zip(&weights[after..]) {
                            sums.add(j, f64::from(value.min(weight)));
                        }
                    }
                    let mut row = Vec::new();
                    sums.drain(|j, shared| {
                        let distance = from_shared(shared);
                        if distance < 1.0 && distance <= limit {
                            row.push((j, distance));
                        }
                    });
                    row
                },
            )
            .collect();
        SparseDistances::from_upper(&upper)
    }
}

/// `1 - m / (2 - m)` for rows of sum 1 that share m: the intersection over the union.
fn from_shared(shared: f64) -> f32 {
    let distance = 1.0 - shared / (2.0 - shared);
    if distance < ZERO {
        0.0
    } else {
        distance as f32
    }
}

/// R(i, columns): those of the first `columns` neighbours that have i among theirs; ascending.
fn reciprocal(neighbours: &Neighbours, columns: usize) -> Vec<Vec<u32>> {
    let columns = columns.min(neighbours.columns());
    (0..neighbours.count())
        .into_par_iter()
        .map(|i| {
            let mut mutual: Vec<u32> = neighbours.row(i)[..columns]
                .iter()
                .copied()
                .filter(|&j| neighbours.row(j as usize)[..columns].contains(&(i as u32)))
                .collect();
            mutual.sort_unstable();
            mutual
        })
        .collect()
}

/// R*(i): R(i, k1) and the short lists of those of its members that share more than two thirds with it (eq. 5).
fn expanded(i: usize, whole: &[Vec<u32>], part: &[Vec<u32>]) -> Vec<u32> {
    let own = &whole[i];
    let mut members = own.clone();
    for &candidate in own {
        let short = &part[candidate as usize];
        let shared = short
            .iter()
            .filter(|m| own.binary_search(m).is_ok())
            .count();
        if 3 * shared > 2 * short.len() {
            members.extend_from_slice(short);
        }
    }
    members.sort_unstable();
    members.dedup();
    members
}

fn weigh(
    rows: &UnitRows,
    neighbours: &Neighbours,
    i: usize,
    members: &[u32],
    weights: Weights,
) -> Vec<(u32, f32)> {
    let squared = |similarity: f32| (2.0 - 2.0 * f64::from(similarity)).max(0.0);
    let scale = match weights {
        Weights::Softmax => 1.0,
        Weights::ExpScaled => match squared(neighbours.farthest_similarity(i)) {
            // All points coincide: every distance is 0 whatever divides it.
            0.0 => 1.0,
            farthest => farthest,
        },
    };
    let values: Vec<f64> = members
        .iter()
        .map(|&m| {
            let distance = if m as usize == i {
                0.0
            } else {
                squared(distance::dot(rows.row(i), rows.row(m as usize)))
            };
            (-distance / scale).exp()
        })
        .collect();
    let sum: f64 = values.iter().sum();
    members
        .iter()
        .zip(values)
        .map(|(&m, value)| (m, (value / sum) as f32))
        .collect()
}

/// Local query expansion: each row becomes the mean of the rows of its `k2` nearest points, itself included.
fn averaged(encoded: &Rows, neighbours: &Neighbours, k2: usize) -> Rows {
    let k2 = k2.min(neighbours.columns());
    let rows = (0..encoded.count())
        .into_par_iter()
        .map_init(
            || Sums::new(encoded.count()),
            |sums, i| {
                for &j in &neighbours.row(i)[..k2] {
                    let (members, values) = encoded.row(j as usize);
                    for (&m, &value) in members.iter().zip(values) {
                        sums.add(m, f64::from(value));
                    }
                }
                let mut row = Vec::with_capacity(sums.touched.len());
                sums.drain(|m, sum| row.push((m, (sum / k2 as f64) as f32)));
                row
            },
        )
        .collect();
    Rows::collect(rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn duplicates_are_at_zero_and_strangers_at_one() {
        // Two tight groups, far from each other, with exact duplicates.
        let mut data = Vec::new();
        for i in 0..8 {
            let angle = 0.01 * (i / 2) as f32;
            data.extend([angle.cos(), angle.sin(), 0.0]);
        }
        for i in 0..8 {
            let angle = 0.01 * (i / 2) as f32;
            data.extend([0.0, angle.sin(), angle.cos()]);
        }
        let d = Jaccard::new(4, 2, Weights::Softmax)
            .unwrap()
            .distances(&data, 3)
            .unwrap();
        for i in 0..8 {
            assert_eq!(d.distance(i, i), 0.0);
            for j in 8..16 {
                assert_eq!(d.distance(i, j), 1.0);
            }
        }
        let all: Vec<f32> = [0.6, 0.8].repeat(5);
        let same = Jaccard::new(30, 6, Weights::ExpScaled)
            .unwrap()
            .distances(&all, 2)
            .unwrap();
        assert_eq!(same.entries(), 20);
        assert!(same.pair_distances().all(|d| d == 0.0));
    }

    #[test]
    fn half_rounds_as_numpy_does() {
        let half = |k1| Jaccard::new(k1, 1, Weights::Softmax).unwrap().half();
        assert_eq!(
            [half(30), half(20), half(25), half(27), half(2)],
            [16, 11, 13, 15, 2]
        );
    }

    #[test]
    fn parameters_are_checked() {
        let message = |k1, k2| {
            Jaccard::new(k1, k2, Weights::Softmax)
                .unwrap_err()
                .to_string()
        };
        assert!(message(1, 1).contains("k1 must be at least 2"));
        assert!(message(30, 31).contains("k2 must be between 1 and k1, got 31"));
        assert!(message(30, 0).contains("got 0"));
    }

    #[test]
    fn a_full_row_agrees_with_the_sparse_pairs() {
        let data: Vec<f32> = (0..60)
            .map(|i| ((i * 37 % 41) as f32 * 0.7).sin())
            .collect();
        let rows = UnitRows::new(&data, 3).unwrap();
        let encoded = KReciprocal::encode(&rows, &Jaccard::new(6, 2, Weights::Softmax).unwrap());
        let sparse = encoded.distances();
        let mut row = vec![9.0; 20];
        for i in 0..20 {
            encoded.jaccard_row(i, &mut row);
            for (j, d) in row.iter().enumerate() {
                assert!((d - sparse.distance(i, j)).abs() < 1e-5, "{i} {j}");
            }
        }
    }
}
