//! SpCL: self-paced contrastive learning, unsupervised (Ge et al., NeurIPS 2020).
//!
//! A memory of one vector per picture; classes are the clusters and, one each, the pictures outside of any. The logit of a class
//! is the mean similarity to its members: `L = -log softmax(f . mean_c / tau)[y]`; after the step
//! `M_i <- L2(m M_i + (1 - m) f_i)` (methods.md 7.2). Before every epoch the memory itself is clustered three times, with a
//! radius, a smaller and a larger one: a cluster that changes much between them is not believed, and its pictures become
//! classes of their own (see [`reliability`](super::reliability)). With `memory.refresh` the memory begins every epoch anew from the
//! network's features.

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use reid_models::Graph;
use reid_models::graph::EMBEDDING;
use reid_models::weights::{LoadReport, Weights};

use super::pseudo::Clusterer;
use super::reliability::{Threshold, believed};
use super::teacher::start;
use super::{Batch, Extract, Features, Group, LossTerms, Method, Sampling, State, View, output};
use crate::clustering::{Dbscan, PseudoLabels};
use crate::config::{MemoryConfig, RunConfig};
use crate::losses::memory_nce;
use crate::memory::InstanceMemory;
use crate::nn::{Mode, Net};

/// How much smaller and larger the other two radii are (the public code's).
const RADIUS_STEP: f32 = 0.02;

/// Entry of a checkpoint.
const SAVED: &str = "memory";

/// One network and its memory.
pub struct Spcl {
    net: Net,
    clusterer: Clusterer,
    config: MemoryConfig,
    memory: Option<InstanceMemory>,
    /// Pictures that could not be read when the memory was made.
    missing: Vec<usize>,
    /// Class of each picture.
    classes: Vec<u32>,
    threshold: Threshold,
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
    Ok((Box::new(Spcl::new(config, net)?), report))
}

impl Spcl {
    /// With a network made elsewhere.
    ///
    /// # Errors
    /// If the settings don't fit.
    pub fn new(config: &RunConfig, net: Net) -> Result<Self> {
        let c = &config.cluster;
        for eps in [c.eps - RADIUS_STEP, c.eps, c.eps + RADIUS_STEP] {
            Dbscan::new(eps, c.min_samples)?;
        }
        Ok(Spcl {
            device: net.device().clone(),
            net,
            clusterer: Clusterer::new(config)?,
            config: config.memory.clone(),
            memory: None,
            missing: Vec::new(),
            classes: Vec::new(),
            threshold: Threshold::default(),
        })
    }

    /// Starts the memory at these unit rows, one for each picture.
    pub fn remember(&mut self, features: Features) {
        self.missing = features.missing;
        let memory = InstanceMemory::new(features.rows, features.width, &self.device);
        self.memory = Some(memory);
    }

    /// Sets the class of every picture, numbers below `count`.
    ///
    /// # Errors
    /// If there is no memory yet, or a number does not fit.
    pub fn set_classes(&mut self, classes: &[u32], count: usize) -> Result<()> {
        let memory = self.memory.as_mut().context("there is no memory")?;
        memory.set_classes(classes, count)?;
        self.classes = classes.to_vec();
        Ok(())
    }

    /// The memory.
    ///
    /// # Errors
    /// Before the first relabelling.
    pub fn memory(&self) -> Result<&InstanceMemory> {
        let known = self.memory.as_ref();
        known.context("SpCL has no memory before its first relabel")
    }
}

impl Method for Spcl {
    fn views(&self) -> &'static [View] {
        &[View::Strong]
    }

    fn sampling(&self) -> Sampling {
        Sampling::SinglesOnce
    }

    fn groups(&self) -> Vec<Group> {
        vec![Group::adam("net", self.net.trainable())]
    }

    fn relabel(&mut self, _epoch: usize, extract: &mut dyn Extract) -> Result<PseudoLabels> {
        if self.memory.is_none() || self.config.refresh {
            let features = extract.features(&self.net)?;
            self.remember(features);
        }
        let memory = self.memory()?;
        let features = Features {
            rows: memory.rows().to_vec(),
            width: memory.width(),
            missing: self.missing.clone(),
        };
        let [tight, standard, loose] = self.clusterer.nested(&features, RADIUS_STEP)?;
        let kept = believed(&standard, &tight, &loose, &mut self.threshold);
        let labels = super::compact(kept.labels.into_iter()).outliers_as_clusters();
        let classes: Vec<u32> = labels.labels.iter().flatten().copied().collect();
        self.set_classes(&classes, labels.clusters)?;
        Ok(match self.missing.is_empty() {
            true => labels,
            // They have a class, so that numbers are complete, and are never drawn.
            false => PseudoLabels {
                labels: (0..labels.labels.len())
                    .map(|i| labels.labels[i].filter(|_| !features.is_missing(i)))
                    .collect(),
                clusters: labels.clusters,
            },
        })
    }

    fn loss(&self, batch: &Batch) -> Result<LossTerms> {
        let [view] = batch.views.as_slice() else {
            bail!("SpCL wants one view")
        };
        let outputs = self.net.forward(view, Mode::Train, &[EMBEDDING])?;
        let f = output(&outputs, EMBEDDING)?;
        let memory = self.memory()?;
        let means = memory.means().context("the memory has no classes yet")?;
        let tau = self.config.temperature;
        let loss = memory_nce(&f, means, &batch.labels, tau, None, &memory.empty())?;
        let mut terms = LossTerms::weighted(vec![("contrast", 1.0, loss)])?;
        terms.kept = vec![f.detach()];
        Ok(terms)
    }

    fn after_step(&mut self, batch: &Batch, kept: &[Tensor]) -> Result<()> {
        let features = kept.first().context("no features were kept")?;
        let momentum = self.config.momentum;
        let memory = self.memory.as_mut().context("there is no memory")?;
        Ok(memory.update(features, &batch.indices, momentum)?)
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn state(&self) -> Result<State> {
        let mut saved = Weights::default();
        if let Some(memory) = &self.memory {
            let shape = vec![memory.rows().len() / memory.width(), memory.width()];
            let rows = (shape, memory.rows().to_vec());
            saved.tensors.insert("rows".into(), rows);
        }
        // Positions below 16 million are exact in f32.
        let missing: Vec<f32> = self.missing.iter().map(|i| *i as f32).collect();
        saved
            .tensors
            .insert("missing".into(), (vec![missing.len()], missing));
        if let Some(threshold) = self.threshold.get() {
            let one = (vec![1], vec![threshold as f32]);
            saved.tensors.insert("threshold".into(), one);
        }
        Ok(State::from([
            ("net".to_owned(), self.net.to_weights()?),
            (SAVED.to_owned(), saved),
        ]))
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        super::load_whole(&mut self.net, state, "net")?;
        let saved = state.get(SAVED).context("the checkpoint has no memory")?;
        let of = |name: &str| saved.tensors.get(name);
        if let Some((shape, rows)) = of("rows") {
            let missing = of("missing").map_or(&[][..], |(_, values)| values);
            self.remember(Features {
                rows: rows.clone(),
                width: shape.get(1).copied().unwrap_or(1),
                missing: missing.iter().map(|i| *i as usize).collect(),
            });
        }
        self.threshold = Threshold::known(of("threshold").map(|(_, v)| f64::from(v[0])));
        Ok(())
    }
}
