//! The methods of the papers: one file each, built from shared losses, memories and samplers.
//!
//! A [`Method`] decides three things: how to relabel before an epoch, what loss a batch has, what to do after the step.
//! It owns its networks and says which views, which sampler and which optimisers it wants; the
//! [`Trainer`](crate::trainer::Trainer) owns the loop, the optimisers' steps, logs, checkpoints and resume.

pub mod abmt;
pub mod camera_game;
pub mod cluster_contrast;
pub(crate) mod collapse;
pub mod ice;
pub mod mmt;
pub mod pseudo;
pub mod reliability;
pub mod scr;
pub mod spcl;
pub mod ssg;
pub mod supervised;
pub mod teacher;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor, Var};
use reid_models::Graph;
use reid_models::graph::EMBEDDING;
use reid_models::weights::Weights;

use crate::clustering::PseudoLabels;
use crate::config::RunConfig;
use crate::data::dataset::Sample;
use crate::data::sampler::Strategy;
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
    /// A random picture, then pictures of other cameras than its own (MMT, SpCL, Cluster-Contrast, ABMT).
    OtherCameras,
    /// As [`OtherCameras`](Sampling::OtherCameras); a label of one picture comes without repetition (SpCL).
    SinglesOnce,
    /// One picture of each camera first (ICE's sampler).
    MoreCameras,
}

impl Sampling {
    /// The sampler's way of doing it.
    pub fn strategy(self) -> Strategy {
        match self {
            Sampling::Identity => Strategy::RandomIdentity,
            Sampling::OtherCameras => Strategy::RandomMultipleGallery,
            Sampling::SinglesOnce => Strategy::SinglesOnce,
            Sampling::MoreCameras => Strategy::MoreCamera,
        }
    }
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
    /// What `net` says of all of them in evaluation mode, without augmentation: for every role of `roles` the outputs, (N, D)
    /// each, made unit rows. With `flip` a row is the sum of the picture's and its mirror image's, before it is made unit.
    ///
    /// # Errors
    /// If a picture can't be read or an output isn't finite.
    fn outputs(&mut self, net: &Net, roles: &[&str], flip: bool) -> Result<Vec<Features>>;
    /// Unit embeddings of all of them.
    ///
    /// # Errors
    /// As [`outputs`](Extract::outputs).
    fn features(&mut self, net: &Net) -> Result<Features> {
        let one = self.outputs(net, &[EMBEDDING], false)?.pop();
        one.context("no features came back")
    }
    /// As [`outputs`](Extract::outputs) for the pictures of a labelled source, if there is one.
    ///
    /// # Errors
    /// As [`outputs`](Extract::outputs).
    fn source_outputs(
        &mut self,
        net: &Net,
        roles: &[&str],
        flip: bool,
    ) -> Result<Option<Vec<Features>>>;
    /// Unit embeddings of a labelled source's pictures, if there is one.
    ///
    /// # Errors
    /// As [`outputs`](Extract::outputs).
    fn source(&mut self, net: &Net) -> Result<Option<Features>> {
        let one = self.source_outputs(net, &[EMBEDDING], false)?;
        Ok(one.and_then(|mut all| all.pop()))
    }
    /// True identities, numbered from 0 (`None` where unknown), and how many there are. For supervised methods only.
    fn truth(&self) -> (Vec<Option<u32>>, usize);
}

/// One batch on the training device.
pub struct Batch {
    /// Position of each picture in the training set.
    pub indices: Vec<usize>,
    /// Label of each picture; pictures of one identity lie side by side, K each.
    pub labels: Vec<u32>,
    /// Camera of each picture.
    pub cameras: Vec<u32>,
    /// The views asked for, each (P K, 3, H, W).
    pub views: Vec<Tensor>,
    /// As many pictures of another set (`--beside`), without labels, for batch norms to see.
    pub beside: Option<Tensor>,
}

/// Named, weighted terms of one batch's loss.
pub struct LossTerms {
    /// Scalar to minimise.
    pub total: Tensor,
    /// Scalars for the log, unweighted.
    pub terms: Vec<(&'static str, Tensor)>,
    /// What [`after_step`](Method::after_step) wants to see again: features of the batch, as they were.
    pub kept: Vec<Tensor>,
}

impl LossTerms {
    /// The sum of `weight * term`; a term of weight 0 is only logged.
    ///
    /// # Errors
    /// candle's.
    pub fn weighted(terms: Vec<(&'static str, f64, Tensor)>) -> Result<Self> {
        let mut total: Option<Tensor> = None;
        for (_, weight, term) in terms.iter().filter(|(_, weight, _)| *weight != 0.0) {
            let term = (term * *weight)?;
            total = Some(match total {
                Some(sum) => (sum + term)?,
                None => term,
            });
        }
        let total = total.context("all weights of the loss are 0")?;
        Ok(LossTerms {
            total,
            terms: terms
                .into_iter()
                .map(|(name, _, term)| (name, term.detach()))
                .collect(),
            kept: Vec::new(),
        })
    }
}

/// How parameters are stepped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Adam with the usual betas, with AMSGrad if asked for.
    Adam {
        /// Divide by the largest second moment so far.
        amsgrad: bool,
    },
    /// Stochastic gradient descent.
    Sgd {
        /// Momentum, not Nesterov's.
        momentum: f64,
    },
}

/// A group's learning rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// The schedule's, times a factor.
    Scheduled(f64),
    /// Its own, always.
    Fixed(f64),
}

/// Parameters that one optimiser steps.
pub struct Group {
    /// Name in the saved state.
    pub name: &'static str,
    /// Parameters by name, in a fixed order.
    pub parameters: Vec<(String, Var)>,
    /// How.
    pub rule: Rule,
    /// How fast.
    pub rate: Rate,
    /// L2 decay; `None` is the run's.
    pub weight_decay: Option<f64>,
    /// Whether moments are forgotten at every relabelling (MMT and ABMT make a new optimiser then).
    pub fresh: bool,
}

impl Group {
    /// What most groups are: Adam by the schedule.
    pub fn adam(name: &'static str, parameters: Vec<(String, Var)>) -> Self {
        Group {
            name,
            parameters,
            rule: Rule::Adam { amsgrad: false },
            rate: Rate::Scheduled(1.0),
            weight_decay: None,
            fresh: false,
        }
    }
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

/// Where a checkpoint keeps the number of steps.
const STEPS: &str = "steps";

/// Notes the number of steps in a checkpoint.
fn save_steps(state: &mut State, steps: u64) {
    let mut saved = Weights::default();
    // f32 holds it exactly up to 16 million.
    saved
        .tensors
        .insert(STEPS.into(), (vec![1], vec![steps as f32]));
    state.insert(STEPS.into(), saved);
}

/// The number of steps in a checkpoint, 0 if it has none.
fn load_steps(state: &State) -> u64 {
    let saved = state.get(STEPS).and_then(|w| w.tensors.get(STEPS));
    saved.and_then(|(_, v)| v.first()).map_or(0, |s| *s as u64)
}

/// An output of a network by its role.
fn output(outputs: &BTreeMap<String, Tensor>, role: &str) -> Result<Tensor> {
    let found = outputs.get(role).cloned();
    found.with_context(|| format!("the network has no output `{role}`"))
}

/// Parameters with a network's name before theirs.
fn prefixed(prefix: &str, parameters: Vec<(String, Var)>) -> impl Iterator<Item = (String, Var)> {
    let named = parameters.into_iter();
    named.map(move |(name, var)| (format!("{prefix}.{name}"), var))
}

/// Labels renumbered so that none is empty, in ascending order of the old numbers.
fn compact(labels: impl Iterator<Item = Option<u32>>) -> PseudoLabels {
    let labels: Vec<Option<u32>> = labels.collect();
    let mut used: Vec<u32> = labels.iter().flatten().copied().collect();
    used.sort_unstable();
    used.dedup();
    let number = |label: u32| used.binary_search(&label).ok().map(|place| place as u32);
    PseudoLabels {
        labels: labels.into_iter().map(|l| l.and_then(number)).collect(),
        clusters: used.len(),
    }
}

/// What a training method decides.
pub trait Method {
    /// Views of each picture, in the order of [`Batch::views`].
    fn views(&self) -> &'static [View];
    /// Sampler.
    fn sampling(&self) -> Sampling;
    /// Parameters to step, an optimiser for each group. Asked for after every [`relabel`](Method::relabel), which may replace
    /// a classifier; an optimiser keeps its moments where name and shape stayed the same.
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
    /// After the optimisers' step: teachers, memories. `kept` is what [`loss`](Method::loss) kept of this batch.
    ///
    /// # Errors
    /// If an operator refuses its input.
    fn after_step(&mut self, batch: &Batch, kept: &[Tensor]) -> Result<()>;
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
    /// Presets, the method's own first.
    pub presets: &'static [&'static str],
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
        name: "abmt",
        paper: "Chen et al., WACV 2021; Chen, PhD thesis, ch. 4",
        needs: "unlabelled crops; better with a labelled source (--init, --source)",
        presets: &["abmt", "abmt_uda", "abmt_small"],
        build: abmt::build,
    },
    About {
        name: "cluster_contrast",
        paper: "Dai et al., ACCV 2022",
        needs: "unlabelled crops",
        presets: &["cluster_contrast", "cluster_contrast_small"],
        build: cluster_contrast::build,
    },
    About {
        name: "ice",
        paper: "Chen et al., ICCV 2021; Chen, PhD thesis, ch. 6",
        needs: "unlabelled crops; ice_aware: with camera ids",
        presets: &["ice", "ice_aware", "ice_small", "ice_aware_small"],
        build: ice::build,
    },
    About {
        name: "mmt",
        paper: "Ge et al., ICLR 2020; canu_mmt: Delorme et al., ICPR 2021",
        needs: "unlabelled crops, a start from a labelled source; canu_mmt: with camera ids",
        presets: &["mmt", "canu_mmt", "mmt_small", "canu_mmt_small"],
        build: mmt::build,
    },
    About {
        name: "scr",
        paper: "Chen et al., WACV 2020; Chen, PhD thesis, ch. 3",
        needs: "crops with identity labels",
        presets: &["scr", "scr_small"],
        build: scr::build,
    },
    About {
        name: "spcl",
        paper: "Ge et al., NeurIPS 2020 (unsupervised)",
        needs: "unlabelled crops",
        presets: &["spcl", "spcl_small"],
        build: spcl::build,
    },
    About {
        name: "ssg",
        paper: "Fu et al., ICCV 2019; canu_ssg: Delorme et al., ICPR 2021",
        needs: "unlabelled crops, a start from a labelled source; canu_ssg: with camera ids",
        presets: &["ssg", "canu_ssg", "ssg_small", "canu_ssg_small"],
        build: ssg::build,
    },
    About {
        name: "supervised",
        paper: "Luo et al., CVPRW 2019 (BN-neck, smoothing, batch-hard triplet): the upper bound",
        needs: "crops with identity labels",
        presets: &["supervised", "supervised_small"],
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
