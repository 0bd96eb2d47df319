//! From features to pseudo labels, as `[cluster]` says.

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use reid_models::weights::Weights;

use super::{Extract, Features, State};
use crate::clustering::rho::eps_from_rho;
use crate::clustering::source::farness;
use crate::clustering::{self, ClusterError, Dbscan, Jaccard, KMeans, PseudoLabels};
use crate::config::{Algorithm, ClusterConfig, NeighbourWeights, RunConfig, usage};
use crate::memory::normalized_centroids;

/// Entry of a checkpoint, and what is in it.
const SAVED: &str = "clusterer";
const RADIUS: &str = "radius";

/// Makes pseudo labels; remembers a radius that is asked for once.
pub struct Clusterer {
    config: ClusterConfig,
    jaccard: Jaccard,
    seed: u64,
    radius: Option<f32>,
}

impl Clusterer {
    /// From a run's settings.
    ///
    /// # Errors
    /// If a number is out of range.
    pub fn new(config: &RunConfig) -> Result<Self> {
        let c = &config.cluster;
        let weights = match c.weights {
            NeighbourWeights::Softmax => clustering::Weights::Softmax,
            NeighbourWeights::ExpScaled => clustering::Weights::ExpScaled,
        };
        // A radius that is never used must not be refused, one that is must be before an epoch is spent.
        if c.rho == 0.0 {
            Dbscan::new(c.eps, c.min_samples)?;
        }
        Ok(Clusterer {
            jaccard: Jaccard::new(c.k1, c.k2, weights)?,
            config: c.clone(),
            seed: config.seed,
            radius: None,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// Labels all pictures; those that could not be read are outliers. `source` is what the same network says of a labelled
    /// source's pictures. With `cluster.truth` the labels are the true ones.
    ///
    /// # Errors
    /// If the features cannot be clustered.
    pub fn labels(
        &mut self,
        features: &Features,
        source: Option<&Features>,
        extract: &dyn Extract,
    ) -> Result<PseudoLabels> {
        if self.config.truth {
            return truth(extract, "cluster.truth", "set cluster.truth = false");
        }
        let found = features.labels(|rows, width| self.cluster(rows, width, source));
        Ok(found?)
    }

    /// Three labellings by DBSCAN: with a radius smaller by `step`, as set, and larger by `step`.
    ///
    /// # Errors
    /// As [`labels`](Self::labels).
    pub fn nested(&self, features: &Features, step: f32) -> Result<[PseudoLabels; 3]> {
        let c = &self.config;
        let one = |eps: f32| {
            let dbscan = Dbscan::new(eps, c.min_samples)?;
            features.labels(|rows, width| clustering::cluster(rows, width, &self.jaccard, &dbscan))
        };
        Ok([one(c.eps - step)?, one(c.eps)?, one(c.eps + step)?])
    }

    fn cluster(
        &mut self,
        rows: &[f32],
        width: usize,
        source: Option<&Features>,
    ) -> Result<PseudoLabels, ClusterError> {
        let c = &self.config;
        if c.algorithm == Algorithm::KMeans {
            let fit = KMeans::new(c.clusters, self.seed)?.fit(rows, width)?;
            return Ok(fit.pseudo_labels());
        }
        let source = source.filter(|_| c.source_weight > 0.0);
        let wide = c.rho > 0.0 || source.is_some();
        let limit = if wide { 1.0 } else { c.eps };
        let mut near = self.jaccard.distances_within(rows, width, limit)?;
        if let Some(source) = source {
            let own = farness(rows, &source.rows, width)?;
            near = near.blended(&own, c.source_weight)?;
        }
        let eps = match (c.rho > 0.0, self.radius) {
            (false, _) => c.eps,
            (true, Some(known)) if c.rho_once => known,
            (true, _) => eps_from_rho(&near, c.rho)?,
        };
        self.radius = Some(eps);
        Ok(Dbscan::new(eps, c.min_samples)?.cluster(&near))
    }

    /// What it remembers, for a checkpoint.
    pub(super) fn save(&self, state: &mut State) {
        self.save_as(state, "");
    }

    /// As [`save`](Self::save), one of several with a name each.
    pub(super) fn save_as(&self, state: &mut State, name: &str) {
        if let Some(radius) = self.radius.filter(|_| self.config.rho_once) {
            let mut saved = Weights::default();
            saved.tensors.insert(RADIUS.into(), (vec![1], vec![radius]));
            state.insert(format!("{SAVED}{name}"), saved);
        }
    }

    /// Takes over what a checkpoint remembers.
    pub(super) fn load(&mut self, state: &State) {
        self.load_as(state, "");
    }

    /// As [`load`](Self::load), one of several.
    pub(super) fn load_as(&mut self, state: &State, name: &str) {
        let saved = state
            .get(&format!("{SAVED}{name}"))
            .and_then(|w| w.tensors.get(RADIUS));
        self.radius = saved.and_then(|(_, values)| values.first().copied());
    }
}

/// Unit mean of each cluster's rows (C, D), on `device`: cluster centres as classifiers and memories begin with them.
///
/// # Errors
/// If a cluster has no members.
pub fn centres(features: &Features, labels: &PseudoLabels, device: &Device) -> Result<Tensor> {
    let rows = normalized_centroids(
        &features.rows,
        features.width,
        &labels.labels,
        labels.clusters,
    )?;
    Ok(Tensor::from_vec(
        rows,
        (labels.clusters, features.width),
        device,
    )?)
}

/// The cameras of all pictures.
pub(super) fn cameras(extract: &dyn Extract) -> Vec<u32> {
    extract.samples().iter().map(|s| s.camera).collect()
}

/// Cameras numbered from 0 in ascending order: their ids.
///
/// # Errors
/// If there are fewer than two: `method` then has nothing to tell apart, and `instead` says what to do.
pub(super) fn numbered_cameras(
    extract: &dyn Extract,
    method: &str,
    instead: &str,
) -> Result<Vec<u32>> {
    let mut ids = cameras(extract);
    ids.sort_unstable();
    ids.dedup();
    if ids.len() < 2 {
        return Err(usage(format!(
            "{method} needs pictures of at least 2 cameras with their ids, this data set has {}: {instead}",
            ids.len()
        )));
    }
    Ok(ids)
}

/// True identities as labels.
///
/// # Errors
/// If there are fewer than two: `what` then says who wants them, and `instead` what to do.
pub(super) fn truth(extract: &dyn Extract, what: &str, instead: &str) -> Result<PseudoLabels> {
    let (labels, clusters) = extract.truth();
    if clusters < 2 {
        return Err(usage(format!(
            "{what} needs identity labels, this data set has {clusters} identities: {instead}"
        )));
    }
    Ok(PseudoLabels { labels, clusters })
}

/// The mean of several networks' unit features, made unit.
///
/// # Errors
/// If there are none, or an element isn't finite.
pub(super) fn mean_features(all: Vec<Features>) -> Result<Features> {
    let mut all = all.into_iter();
    let mut sum = all.next().context("no features to average")?;
    for other in all {
        sum.rows
            .iter_mut()
            .zip(&other.rows)
            .for_each(|(a, b)| *a += b);
    }
    for row in sum.rows.chunks_exact_mut(sum.width.max(1)) {
        reid_models::distance::normalize(row)?;
    }
    Ok(sum)
}
