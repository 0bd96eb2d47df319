//! Agglomerative clustering with average linkage (UPGMA), as HCT uses it (Zeng et al. 2020, "Hierarchical clustering with
//! hard-batch triplet loss for person re-identification", arXiv 1910.12278).
//!
//! The crate `kodama` merges (Müllner 2011, nearest-neighbour chains, O(N^2) time); it needs the triangle of all distances,
//! which is the only thing in this folder that grows with N^2: 335 MB for the 12,936 images of Market-1501.

use kodama::Method;

use super::pairs::Condensed;
use super::{ClusterError, PseudoLabels};

/// When merging stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stop {
    /// So many clusters are left (at least 1; more than there are images: every image its own). HCT after s steps:
    /// `N - s * floor(mp * N)` with mp = 0.07.
    Clusters(usize),
    /// The mean distance of the two clusters to merge next exceeds this (at least 0).
    Threshold(f32),
}

impl Stop {
    /// # Errors
    /// [`ClusterError::Parameter`] for 0 clusters, or a threshold that is negative or NaN.
    pub fn check(self) -> Result<Self, ClusterError> {
        match self {
            Stop::Clusters(0) => Err(ClusterError::Parameter {
                key: "clusters",
                range: "at least 1",
                value: "0".into(),
            }),
            Stop::Threshold(t) if t.is_nan() || t < 0.0 => Err(ClusterError::Parameter {
                key: "threshold",
                range: "a distance of at least 0",
                value: t.to_string(),
            }),
            _ => Ok(self),
        }
    }
}

/// One merge of two clusters. Images are the clusters 0 to N - 1; merge i makes cluster N + i, as in scipy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Merge {
    /// The cluster of lower number.
    pub a: usize,
    /// The other one.
    pub b: usize,
    /// Mean distance of their images.
    pub height: f32,
    /// Images of the new cluster.
    pub size: usize,
}

/// All N - 1 merges, by rising height.
#[derive(Clone, Debug, PartialEq)]
pub struct Dendrogram {
    count: usize,
    merges: Vec<Merge>,
}

/// Merges until one cluster is left. Heights carry the rounding of f32, about 1e-6 of their value; the order of merges of
/// equal height is arbitrary but always the same.
pub fn average_linkage(distances: Condensed<'_>) -> Dendrogram {
    let count = super::PairDistances::count(&distances);
    let mut values = distances.into_values();
    let found = kodama::linkage(&mut values, count, Method::Average);
    let merges = found
        .steps()
        .iter()
        .map(|step| Merge {
            a: step.cluster1,
            b: step.cluster2,
            height: step.dissimilarity,
            size: step.size,
        })
        .collect();
    Dendrogram { count, merges }
}

impl Dendrogram {
    /// The merges.
    pub fn merges(&self) -> &[Merge] {
        &self.merges
    }

    /// Labels at a stop, numbered from 0 in order of first appearance; there are no outliers.
    ///
    /// # Errors
    /// See [`Stop::check`].
    pub fn cut(&self, stop: Stop) -> Result<PseudoLabels, ClusterError> {
        let done = match stop.check()? {
            Stop::Clusters(clusters) => self.count.saturating_sub(clusters),
            Stop::Threshold(t) => self.merges.partition_point(|m| m.height <= t),
        };
        // From the last merge down, every cluster learns whose part it is.
        let mut owner: Vec<usize> = (0..self.count + done).collect();
        for (i, merge) in self.merges[..done].iter().enumerate().rev() {
            owner[merge.a] = owner[self.count + i];
            owner[merge.b] = owner[self.count + i];
        }
        Ok(PseudoLabels::by_first_appearance(&owner[..self.count]))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn three_points_and_both_stops() {
        // 0 and 1 at distance 1; 2 at 4 and 6 from them: mean 5.
        let tree = average_linkage(Condensed::new(vec![1.0, 4.0, 6.0]).unwrap());
        assert_eq!(
            tree.merges()[1],
            Merge {
                a: 2,
                b: 3,
                height: 5.0,
                size: 3
            }
        );
        let labels = |stop| tree.cut(stop).unwrap().to_i64();
        assert_eq!(labels(Stop::Clusters(7)), [0, 1, 2]);
        assert_eq!(labels(Stop::Clusters(2)), [0, 0, 1]);
        assert_eq!(labels(Stop::Clusters(1)), [0, 0, 0]);
        assert_eq!(labels(Stop::Threshold(0.5)), [0, 1, 2]);
        assert_eq!(labels(Stop::Threshold(1.0)), [0, 0, 1]);
        assert_eq!(labels(Stop::Threshold(f32::INFINITY)), [0, 0, 0]);
    }

    #[test]
    fn bad_input_is_named() {
        let message = |values: Vec<f32>| Condensed::new(values).unwrap_err().to_string();
        assert!(message(vec![]).contains("N at least 2"));
        assert!(message(vec![1.0, 2.0]).contains("2 values"));
        assert!(message(vec![1.0, f32::NAN, 2.0]).contains("value 1"));
        assert!(message(vec![-1.0]).contains("at least 0"));
        let tree = average_linkage(Condensed::new(vec![0.0; 6]).unwrap());
        assert_eq!(tree.cut(Stop::Clusters(1)).unwrap().clusters, 1);
        for stop in [Stop::Clusters(0), Stop::Threshold(f32::NAN)] {
            assert!(tree.cut(stop).is_err());
        }
    }
}
