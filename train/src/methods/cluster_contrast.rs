//! Cluster-Contrast (Dai et al., ACCV 2022): a memory of one vector per cluster.
//!
//! `L = CE(f M^T / tau)` over all clusters, f the unit neck output; after the step the memory follows the features of the batch,
//! `M_y <- L2(m M_y + (1 - m) f)` (methods.md 7.3). `memory.update` says which features: "each", "hardest", or 3C's
//! "camera_aware" (methods.md 7.3b, experimental), which also weighs a picture by how many cameras saw its cluster in the batch.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use reid_models::Graph;
use reid_models::graph::EMBEDDING;
use reid_models::weights::{LoadReport, Weights};

use super::pseudo::{Clusterer, numbered_cameras};
use super::teacher::start;
use super::{Batch, Extract, Features, Group, LossTerms, Method, Sampling, State, View, output};
use crate::clustering::PseudoLabels;
use crate::config::{MemoryConfig, RunConfig};
use crate::losses::memory_nce;
use crate::memory::{ClusterMemory, MemoryUpdate, normalized_centroids};
use crate::nn::{Mode, Net};

/// One network and its memory.
pub struct ClusterContrast {
    net: Net,
    clusterer: Clusterer,
    config: MemoryConfig,
    memory: Option<ClusterMemory>,
    device: Device,
}

/// Builds the method.
///
/// # Errors
/// If the weights or the settings don't fit.
pub fn build(
    config: &RunConfig,
    device: &Device,
    graph: Graph,
    init: Option<&Weights>,
) -> Result<(Box<dyn Method>, LoadReport)> {
    let (net, report) = start(config, config.seed, device, graph, init)?;
    Ok((Box::new(ClusterContrast::new(config, net)?), report))
}

impl ClusterContrast {
    /// With a network made elsewhere.
    ///
    /// # Errors
    /// If the settings don't fit.
    pub fn new(config: &RunConfig, net: Net) -> Result<Self> {
        Ok(ClusterContrast {
            device: net.device().clone(),
            net,
            clusterer: Clusterer::new(config)?,
            config: config.memory.clone(),
            memory: None,
        })
    }

    /// Starts the memory of an epoch at the unit mean of each cluster's features.
    ///
    /// # Errors
    /// If a cluster has no members.
    pub fn remember(&mut self, features: &Features, labels: &PseudoLabels) -> Result<()> {
        let (rows, width) = (&features.rows, features.width);
        let rows = normalized_centroids(rows, width, &labels.labels, labels.clusters)?;
        self.memory = Some(ClusterMemory::new(rows, width, &self.device)?);
        Ok(())
    }

    /// Starts the memory of an epoch at these unit rows (C, `width`).
    ///
    /// # Errors
    /// candle's.
    pub fn set_memory(&mut self, rows: Vec<f32>, width: usize) -> Result<()> {
        self.memory = Some(ClusterMemory::new(rows, width, &self.device)?);
        Ok(())
    }

    /// The memory.
    ///
    /// # Errors
    /// Before the first relabelling.
    pub fn memory(&self) -> Result<&ClusterMemory> {
        let known = self.memory.as_ref();
        known.context("Cluster-Contrast has no memory before its first relabel")
    }
}

impl Method for ClusterContrast {
    fn views(&self) -> &'static [View] {
        &[View::Strong]
    }

    fn sampling(&self) -> Sampling {
        Sampling::OtherCameras
    }

    fn groups(&self) -> Vec<Group> {
        vec![Group::adam("net", self.net.trainable())]
    }

    fn relabel(&mut self, _epoch: usize, extract: &mut dyn Extract) -> Result<PseudoLabels> {
        if self.config.update == MemoryUpdate::CameraAware {
            let instead = "set memory.update to each or hardest to train without cameras";
            numbered_cameras(extract, "memory.update = \"camera_aware\"", instead)?;
        }
        let features = extract.features(&self.net)?;
        let labels = self.clusterer.labels(&features, None, extract)?;
        self.remember(&features, &labels)?;
        Ok(labels)
    }

    fn loss(&self, batch: &Batch) -> Result<LossTerms> {
        let [view] = batch.views.as_slice() else {
            bail!("Cluster-Contrast wants one view")
        };
        let outputs = self.net.forward(view, Mode::Train, &[EMBEDDING])?;
        let f = output(&outputs, EMBEDDING)?;
        let memory = self.memory()?.tensor();
        let weights = match self.config.update {
            MemoryUpdate::CameraAware => Some(camera_weights(&batch.labels, &batch.cameras)),
            _ => None,
        };
        let tau = self.config.temperature;
        let loss = memory_nce(&f, memory, &batch.labels, tau, weights.as_deref(), &[])?;
        let mut terms = LossTerms::weighted(vec![("contrast", 1.0, loss)])?;
        terms.kept = vec![f.detach()];
        Ok(terms)
    }

    fn after_step(&mut self, batch: &Batch, kept: &[Tensor]) -> Result<()> {
        let features = kept.first().context("no features were kept")?;
        let memory = self.memory.as_mut().context("there is no memory")?;
        let (momentum, how) = (self.config.momentum, self.config.update);
        Ok(memory.update(features, &batch.labels, &batch.cameras, momentum, how)?)
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn state(&self) -> Result<State> {
        // The memory is not part of it: the next epoch starts by making a new one.
        let mut state = State::from([("net".to_owned(), self.net.to_weights()?)]);
        self.clusterer.save(&mut state);
        Ok(state)
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        self.clusterer.load(state);
        super::load_whole(&mut self.net, state, "net")
    }
}

/// Per picture `n e^H / sum e^H`, H the entropy (in bits) of the cameras that its cluster has in the batch, n the number of
/// clusters: 3C's public code.
fn camera_weights(labels: &[u32], cameras: &[u32]) -> Vec<f32> {
    let mut seen = BTreeMap::<u32, BTreeMap<u32, f64>>::new();
    for (label, camera) in labels.iter().zip(cameras) {
        *seen.entry(*label).or_default().entry(*camera).or_default() += 1.0;
    }
    let weight = |cameras: &BTreeMap<u32, f64>| {
        let total: f64 = cameras.values().sum();
        let entropy: f64 = cameras
            .values()
            .map(|n| -(n / total) * (n / total).log2())
            .sum();
        entropy.exp()
    };
    let weights: BTreeMap<u32, f64> = seen.iter().map(|(l, c)| (*l, weight(c))).collect();
    let mean = weights.values().sum::<f64>() / weights.len().max(1) as f64;
    labels.iter().map(|l| (weights[l] / mean) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_of_more_cameras_weigh_more_and_the_mean_over_clusters_is_1() {
        // Two cameras evenly: one bit. One camera: none.
        let got = camera_weights(&[0, 0, 1, 1], &[3, 5, 3, 3]);
        let e = std::f64::consts::E;
        let want = [2.0 * e / (e + 1.0), 2.0 / (e + 1.0)];
        for (i, w) in [(0, want[0]), (1, want[0]), (2, want[1]), (3, want[1])] {
            assert!((f64::from(got[i]) - w).abs() < 1e-6, "{got:?}");
        }
    }
}
