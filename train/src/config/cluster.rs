//! `[cluster]`: how pseudo labels come about.

use serde::{Deserialize, Serialize};

/// Which clustering makes pseudo labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// DBSCAN over the k-reciprocal Jaccard distance.
    #[default]
    Dbscan,
    /// k-means over the features, `cluster.clusters` of them.
    KMeans,
}

/// How near members of a neighbourhood weigh more than far ones, `cluster.weights`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeighbourWeights {
    /// `exp(-d)`: SpCL, Cluster-Contrast, ICE.
    #[default]
    Softmax,
    /// `exp(-d / max d)`: MMT, ABMT, SSG.
    ExpScaled,
}

/// `[cluster]`: pseudo labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// Take the true identities instead: how far a method gets with perfect labels. Nothing else in `[cluster]` counts then.
    pub truth: bool,
    /// "dbscan" or "k_means".
    pub algorithm: Algorithm,
    /// Number of clusters of k-means.
    pub clusters: usize,
    /// Neighbours of the reciprocal sets, columns counted including self.
    pub k1: usize,
    /// Neighbours of the local query expansion.
    pub k2: usize,
    /// Weights within a neighbourhood: "softmax" or "exp_scaled".
    pub weights: NeighbourWeights,
    /// DBSCAN radius, Jaccard distance 0..1; not used if `rho` is set.
    pub eps: f32,
    /// Above 0: the radius is the mean of this fraction of smallest distances (the texts' "radius 0.002" is this).
    pub rho: f64,
    /// Whether `rho` is asked in the first epoch only, or in every one.
    pub rho_once: bool,
    /// DBSCAN's core condition, self included.
    pub min_samples: usize,
    /// Share of the distance to the source's pictures in the distance, if there are any (`--source`).
    pub source_weight: f32,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        ClusterConfig {
            truth: false,
            algorithm: Algorithm::Dbscan,
            clusters: 500,
            k1: 30,
            k2: 6,
            weights: NeighbourWeights::Softmax,
            eps: 0.55,
            rho: 0.0,
            rho_once: false,
            min_samples: 4,
            source_weight: 0.0,
        }
    }
}
