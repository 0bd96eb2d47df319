//! SSG: self-similarity grouping (Fu et al., ICCV 2019), optionally with CANU's camera adversary (Delorme et al. 2021).
//!
//! The whole body, its upper and its lower half have a feature and a clustering of their own
//! ([`reid_models::heads::parts`]); pictures that are an outlier to any of them are left out. The loss is a triplet loss for
//! each part with the part's labels, and one for what is learnt on top of the whole:
//!
//! `L = T(full, y_full) + T(upper, y_upper) + T(lower, y_lower) + T(projected, y_full)` (methods.md 5.2)
//!
//! `loss.triplet_mining` says how pairs are found: "semi_hard" as the public code does, "batch_hard" as eq. 2 of text (d) reads.
//! With `[adversary]` each part has a discriminator of cameras, all told the mean feature of the *whole* in the picture's
//! cluster.

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use reid_models::Graph;
use reid_models::heads::parts::{PARTS, PROJECTED};
use reid_models::weights::{LoadReport, Weights};

use super::camera_game::CameraGame;
use super::pseudo::Clusterer;
use super::teacher::start;
use super::{
    Batch, Extract, Group, LossTerms, Method, Rule, Sampling, State, View, collapse, output,
};
use crate::clustering::PseudoLabels;
use crate::config::{LossConfig, Mining, RunConfig, usage};
use crate::losses::{TripletMargin, semi_hard_triplet, triplet};
use crate::nn::{Mode, Net};

/// What steps the network (text d, V-A).
const RULE: Rule = Rule::Sgd { momentum: 0.9 };

/// One network, three clusterings.
pub struct Ssg {
    net: Net,
    clusterers: [Clusterer; 3],
    /// Per picture its label in each part; what the whole's label is to a batch the others are looked up by.
    labels: Vec<[Option<u32>; 3]>,
    loss: LossConfig,
    margin: TripletMargin,
    instances: usize,
    device: Device,
    game: CameraGame,
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
    Ok((Box::new(Ssg::new(config, net)?), report))
}

impl Ssg {
    /// With a network made elsewhere.
    ///
    /// # Errors
    /// If the settings don't fit, or the network has no parts.
    pub fn new(config: &RunConfig, net: Net) -> Result<Self> {
        for role in PARTS.iter().chain([&PROJECTED]) {
            if net.graph().output(role).is_err() {
                return Err(usage(format!(
                    "the method ssg wants a network with body parts: set model.head = \"parts\" (no output `{role}`)"
                )));
            }
        }
        let clusterer = || Clusterer::new(config);
        Ok(Ssg {
            device: net.device().clone(),
            net,
            clusterers: [clusterer()?, clusterer()?, clusterer()?],
            labels: Vec::new(),
            loss: config.loss.clone(),
            margin: config.loss.margin(),
            instances: config.train.instances,
            game: CameraGame::new(config),
        })
    }

    /// Sets the label of every picture in each part.
    pub fn set_labels(&mut self, labels: Vec<[Option<u32>; 3]>) {
        self.labels = labels;
    }

    /// CANU's discriminators.
    pub fn game(&mut self) -> &mut CameraGame {
        &mut self.game
    }

    /// Labels of a batch in part `part`.
    fn of_part(&self, batch: &Batch, part: usize) -> Result<Vec<u32>> {
        let label = |i: &usize| self.labels.get(*i).and_then(|l| l[part]);
        let found: Option<Vec<u32>> = batch.indices.iter().map(label).collect();
        found.ok_or_else(|| {
            anyhow::anyhow!("a batch holds a picture that has no label in every part")
        })
    }

    /// 0 for a batch of people who are all one to this part: batches are drawn by the whole's labels.
    fn triplet(&self, features: &Tensor, labels: &[u32]) -> Result<Tensor> {
        if labels.iter().all(|label| *label == labels[0]) {
            return Ok(Tensor::zeros((), features.dtype(), &self.device)?);
        }
        Ok(match self.loss.triplet_mining {
            Mining::SemiHard => semi_hard_triplet(features, labels, self.instances, self.margin)?,
            Mining::BatchHard => triplet(features, labels, self.margin)?,
        })
    }
}

impl Method for Ssg {
    fn views(&self) -> &'static [View] {
        &[View::Strong]
    }

    fn sampling(&self) -> Sampling {
        Sampling::Identity
    }

    fn groups(&self) -> Vec<Group> {
        let mut groups = vec![Group {
            rule: RULE,
            ..Group::adam("net", self.net.trainable())
        }];
        groups.extend(self.game.group(RULE));
        groups
    }

    fn relabel(&mut self, _epoch: usize, extract: &mut dyn Extract) -> Result<PseudoLabels> {
        // As the public code: the picture and its mirror image together.
        let features = extract.outputs(&self.net, &PARTS, true)?;
        let source = extract.source_outputs(&self.net, &PARTS, true)?;
        let mut found = Vec::new();
        for (part, clusterer) in self.clusterers.iter_mut().enumerate() {
            let source = source.as_ref().map(|s| &s[part]);
            let labels = clusterer.labels(&features[part], source, extract)?;
            // The trainer looks at the whole's.
            if part > 0
                && let Some(collapse) = collapse::look(&labels, clusterer.config())
            {
                tracing::warn!("{}: {}", PARTS[part], collapse.text());
            }
            found.push(labels);
        }
        self.labels = (0..found[0].labels.len())
            .map(|i| {
                let own = [0, 1, 2].map(|part: usize| found[part].labels[i]);
                if own.iter().any(Option::is_none) {
                    [None; 3]
                } else {
                    own
                }
            })
            .collect();
        let labels = super::compact(self.labels.iter().map(|l| l[0]));
        let widths = [self.net.graph().width(PARTS[0])?; 2];
        let whole = &features[..1];
        self.game
            .prepare(&PARTS, widths, whole, &labels, extract, &self.device)?;
        Ok(labels)
    }

    fn loss(&self, batch: &Batch) -> Result<LossTerms> {
        let [view] = batch.views.as_slice() else {
            bail!("SSG wants one view")
        };
        let roles = [PARTS[0], PARTS[1], PARTS[2], PROJECTED];
        let outputs = self.net.forward(view, Mode::Train, &roles)?;
        let mut terms = Vec::new();
        for (i, role) in roles.into_iter().enumerate() {
            let labels = self.of_part(batch, i % PARTS.len())?;
            let term = self.triplet(&output(&outputs, role)?, &labels)?;
            terms.push((role, self.loss.triplet_weight, term));
        }
        let mut cameras: Option<Tensor> = None;
        for (i, role) in PARTS.into_iter().enumerate() {
            if let Some(term) = self.game.loss(i, &output(&outputs, role)?, batch)? {
                cameras = Some(match cameras {
                    Some(sum) => (sum + term)?,
                    None => term,
                });
            }
        }
        terms.extend(cameras.map(|sum| ("camera", 1.0, sum)));
        LossTerms::weighted(terms)
    }

    fn after_step(&mut self, _batch: &Batch, _kept: &[Tensor]) -> Result<()> {
        Ok(())
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn state(&self) -> Result<State> {
        let mut state = State::from([("net".to_owned(), self.net.to_weights()?)]);
        for (part, clusterer) in PARTS.iter().zip(&self.clusterers) {
            clusterer.save_as(&mut state, part);
        }
        self.game.save(&mut state)?;
        Ok(state)
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        super::load_whole(&mut self.net, state, "net")?;
        for (part, clusterer) in PARTS.iter().zip(&mut self.clusterers) {
            clusterer.load_as(state, part);
        }
        self.game.load(state);
        Ok(())
    }
}
