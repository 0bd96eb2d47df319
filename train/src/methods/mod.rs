//! The methods of the papers: one file each, built from shared losses, memories and samplers.
//!
//! A [`Method`] decides three things: how to relabel before an epoch, what loss a batch has, what to do after the step.
//! It owns its networks and says which views, which sampler and which optimisers it wants; the
//! [`Trainer`](crate::trainer::Trainer) owns the loop, the optimisers' steps, logs, checkpoints and resume.

pub mod ice;
pub mod supervised;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor, Var};
use reid_models::Graph;
use reid_models::weights::Weights;

use crate::clustering::PseudoLabels;
use crate::config::RunConfig;
use crate::data::dataset::Sample;
use crate::nn::executor::Net;

/// How a picture is shown to the networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Augmented.
    Strong,
    /// Resized and normalised only.
    Weak,
}

/// How a batch of P identities with K pictures each is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// K pictures at random.
    Identity,
    /// One picture of each camera first (ICE's sampler).
    MoreCameras,
}

/// Features of all pictures of a set, row by row.
#[derive(Debug, Default)]
pub struct Features {
    /// N x `width`, unit rows.
    pub rows: Vec<f32>,
    /// Width of a row.
    pub width: usize,
    /// Pictures that could not be read, ascending: their rows are zeros and mean nothing.
    pub missing: Vec<usize>,
}

impl Features {
    /// Labels all pictures by `cluster`, which is given the rows (and their width) of those that could be read; the others
    /// are outliers.
    ///
    /// # Errors
    /// As `cluster`.
    pub fn labels<E>(
        &self,
        cluster: impl FnOnce(&[f32], usize) -> Result<PseudoLabels, E>,
    ) -> Result<PseudoLabels, E> {
        if self.missing.is_empty() {
            return cluster(&self.rows, self.width);
        }
        let rows = self.rows.chunks_exact(self.width).enumerate();
        let read: Vec<f32> = rows
            .filter(|(i, _)| !self.is_missing(*i))
            .flat_map(|(_, row)| row)
            .copied()
            .collect();
        let found = cluster(&read, self.width)?;
        let mut labels = found.labels.into_iter();
        let count = self.rows.len() / self.width;
        Ok(PseudoLabels {
            labels: (0..count)
                .map(|i| match self.is_missing(i) {
                    true => None,
                    false => labels.next().flatten(),
                })
                .collect(),
            clusters: found.clusters,
        })
    }

    /// Whether picture `i` could not be read.
    pub fn is_missing(&self, i: usize) -> bool {
        self.missing.binary_search(&i).is_ok()
    }
}

/// What a method may ask for while relabelling.
pub trait Extract {
    /// The training pictures.
    fn samples(&self) -> &[Sample];
    /// Unit embeddings of all of them by `net` in evaluation mode, without augmentation.
    ///
    /// # Errors
    /// If a picture can't be read or an embedding isn't finite.
    fn features(&mut self, net: &Net) -> Result<Features>;
    /// True identities, numbered from 0 (`None` where unknown), and how many there are. For supervised methods only.
    fn truth(&self) -> (Vec<Option<u32>>, usize);
}

/// One batch on the training device.
pub struct Batch {
    /// Position of each picture in the training set.
    pub indices: Vec<usize>,
    /// Label of each picture; pictures of one identity lie side by side, K each.
    pub labels: Vec<u32>,
    /// The views asked for, each (P K, 3, H, W).
    pub views: Vec<Tensor>,
}

/// Named, weighted terms of one batch's loss.
pub struct LossTerms {
    /// Scalar to minimise.
    pub total: Tensor,
    /// Scalars for the log, unweighted.
    pub terms: Vec<(&'static str, Tensor)>,
}

/// Parameters that one optimiser steps.
pub struct Group {
    /// Name in the saved state.
    pub name: &'static str,
    /// Parameters by name, in a fixed order.
    pub parameters: Vec<(String, Var)>,
}

/// What a method needs saved to go on later, bit for bit: networks and memories by name.
pub type State = BTreeMap<String, Weights>;

/// Loads every parameter of `net` from the entry `name` of a checkpoint.
///
/// # Errors
/// If the entry, or a parameter in it, is missing or has another shape.
fn load_whole(net: &mut Net, state: &State, name: &str) -> Result<()> {
    let weights = state
        .get(name)
        .with_context(|| format!("the checkpoint has no `{name}`"))?;
    let report = net.load(weights)?;
    if let Some(missing) = report.missing.first() {
        bail!(
            "the checkpoint's `{name}` has no fitting `{missing}`: it belongs to another configuration"
        );
    }
    Ok(())
}

/// What a training method decides.
pub trait Method {
    /// Views of each picture, in the order of [`Batch::views`].
    fn views(&self) -> &'static [View];
    /// Sampler.
    fn sampling(&self) -> Sampling;
    /// Parameters to step; one Adam each. Asked for after every [`relabel`](Method::relabel), which may replace a
    /// classifier; an optimiser keeps its moments where name and shape stayed the same.
    fn groups(&self) -> Vec<Group>;
    /// Labels for the coming epoch.
    ///
    /// # Errors
    /// If features can't be made.
    fn relabel(&mut self, epoch: usize, extract: &mut dyn Extract) -> Result<PseudoLabels>;
    /// Loss of one batch; changes no memory.
    ///
    /// # Errors
    /// If an operator refuses its input.
    fn loss(&self, batch: &Batch) -> Result<LossTerms>;
    /// After the optimisers' step: teachers, memories.
    ///
    /// # Errors
    /// If an operator refuses its input.
    fn after_step(&mut self, batch: &Batch) -> Result<()>;
    /// The network that is evaluated and exported.
    fn net(&self) -> &Net;
    /// Networks and memories for a checkpoint.
    ///
    /// # Errors
    /// If a tensor can't be read back from the device.
    fn state(&self) -> Result<State>;
    /// Continues from a checkpoint.
    ///
    /// # Errors
    /// If something is missing or has another shape.
    fn load_state(&mut self, state: &State) -> Result<()>;
}

/// A line of `reid-train methods`.
pub struct About {
    /// Name on the command line.
    pub name: &'static str,
    /// Paper.
    pub paper: &'static str,
    /// What the data must have.
    pub needs: &'static str,
    /// Builds the method on a device.
    pub build: fn(
        &RunConfig,
        &Device,
        Graph,
        Option<&Weights>,
    ) -> Result<(Box<dyn Method>, reid_models::weights::LoadReport)>,
}

/// Every method of this build.
pub const METHODS: &[About] = &[
    About {
        name: "ice",
        paper: "Chen et al., ICCV 2021; Chen, PhD thesis, ch. 6 (camera-agnostic)",
        needs: "unlabelled crops",
        build: ice::build,
    },
    About {
        name: "supervised",
        paper: "Luo et al., CVPRW 2019 (BN-neck, smoothing, batch-hard triplet): the upper bound",
        needs: "crops with identity labels",
        build: supervised::build,
    },
];

/// A method by name.
///
/// # Errors
/// [`UsageError`](crate::config::UsageError) listing the known names.
pub fn find(name: &str) -> Result<&'static About> {
    METHODS.iter().find(|m| m.name == name).ok_or_else(|| {
        let known: Vec<&str> = METHODS.iter().map(|m| m.name).collect();
        crate::config::usage(format!(
            "--method {name}: unknown (known: {})",
            known.join(", ")
        ))
    })
}
