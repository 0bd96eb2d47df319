//! DBSCAN (Ester et al. 1996) over sparse distances.

use super::{ClusterError, PseudoLabels, SparseDistances};

/// Checked parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dbscan {
    eps: f32,
    min_samples: usize,
}

impl Dbscan {
    /// `eps`: largest Jaccard distance of neighbours, inclusive. `min_samples`: points within `eps` that make a core
    /// point, the point itself included.
    ///
    /// # Errors
    /// [`ClusterError::Parameter`] unless 0 < eps < 1 (at 1 everybody neighbours everybody) and min_samples >= 1.
    pub fn new(eps: f32, min_samples: usize) -> Result<Self, ClusterError> {
        if !(eps > 0.0 && eps < 1.0) {
            return Err(ClusterError::Parameter {
                key: "eps",
                range: "above 0 and below 1 (Jaccard distance)",
                value: eps.to_string(),
            });
        }
        if min_samples == 0 {
            return Err(ClusterError::Parameter {
                key: "min_samples",
                range: "at least 1 (it counts the point itself)",
                value: "0".into(),
            });
        }
        Ok(Dbscan { eps, min_samples })
    }

    /// Radius.
    pub fn eps(&self) -> f32 {
        self.eps
    }

    /// Whether each point is a core point: `min_samples` points, itself included, within `eps`.
    pub fn core_points(&self, distances: &SparseDistances) -> Vec<bool> {
        (0..distances.count())
            .map(|i| self.near(distances, i).count() + 1 >= self.min_samples)
            .collect()
    }

    fn near<'a>(
        &self,
        distances: &'a SparseDistances,
        i: usize,
    ) -> impl Iterator<Item = usize> + use<'a> {
        let eps = self.eps;
        distances
            .row(i)
            .filter(move |(_, d)| *d <= eps)
            .map(|(j, _)| j)
    }

    /// Labels every point. Clusters are numbered by their first core point; a border point within reach of several
    /// clusters goes to the lowest number, as in scikit-learn.
    pub fn cluster(&self, distances: &SparseDistances) -> PseudoLabels {
        let core = self.core_points(distances);
        let mut labels = vec![None; distances.count()];
        let mut clusters = 0;
        let mut reached = Vec::new();
        for start in 0..labels.len() {
            if labels[start].is_some() || !core[start] {
                continue;
            }
            let label = Some(clusters as u32);
            clusters += 1;
            labels[start] = label;
            reached.push(start);
            while let Some(i) = reached.pop() {
                // A border point belongs to the cluster but doesn't extend it.
                if !core[i] {
                    continue;
                }
                for j in self.near(distances, i) {
                    if labels[j].is_none() {
                        labels[j] = label;
                        reached.push(j);
                    }
                }
            }
        }
        PseudoLabels { labels, clusters }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// 0-1-2 and 4-5-6 are chains; 3 lies between both.
    fn two_chains() -> SparseDistances {
        SparseDistances::from_pairs(
            8,
            [
                (0, 1, 0.2),
                (1, 2, 0.2),
                (2, 3, 0.4),
                (3, 4, 0.4),
                (4, 5, 0.2),
                (5, 6, 0.2),
                (6, 7, 0.6),
            ],
        )
        .unwrap()
    }

    #[test]
    fn border_points_go_to_the_first_cluster_and_do_not_join_two() {
        let found = Dbscan::new(0.4, 4).unwrap().cluster(&two_chains());
        assert_eq!(found.clusters, 0, "nobody has four points around");
        let found = Dbscan::new(0.4, 3).unwrap().cluster(&two_chains());
        assert_eq!(found.to_i64(), [0, 0, 0, 0, 0, 0, 0, -1]);
        // With 0.3 the bridge falls away; eps itself still counts as near.
        let found = Dbscan::new(0.2, 3).unwrap().cluster(&two_chains());
        assert_eq!(found.to_i64(), [0, 0, 0, -1, 1, 1, 1, -1]);
        assert_eq!((found.clusters, found.outliers()), (2, 2));
    }

    #[test]
    fn a_shared_border_point_takes_the_lower_number() {
        // Hubs 1 and 5 have three neighbours each; 3 touches both hubs and nobody else.
        let d = SparseDistances::from_pairs(
            7,
            [
                (1, 0, 0.1),
                (1, 2, 0.1),
                (1, 3, 0.1),
                (5, 3, 0.1),
                (5, 4, 0.1),
                (5, 6, 0.1),
            ],
        )
        .unwrap();
        let found = Dbscan::new(0.5, 4).unwrap().cluster(&d);
        assert_eq!(found.to_i64(), [0, 0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn parameters_are_checked() {
        for eps in [0.0, 1.0, -0.5, f32::NAN] {
            let message = Dbscan::new(eps, 4).unwrap_err().to_string();
            assert!(
                message.contains("eps must be above 0 and below 1"),
                "{message}"
            );
        }
        assert!(
            Dbscan::new(0.5, 0)
                .unwrap_err()
                .to_string()
                .contains("min_samples")
        );
    }
}
