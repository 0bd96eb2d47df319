//! What a method has to do with CANU's adversaries: one for each of its feature vectors.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use reid_models::weights::Weights;

use super::pseudo::numbered_cameras;
use super::{Batch, Extract, Features, Group, Rate, Rule, State};
use crate::adversary::Adversary;
use crate::clustering::PseudoLabels;
use crate::config::{AdversaryConfig, Condition, RunConfig};
use crate::memory::centroids;

/// Name in a checkpoint.
const SAVED: &str = "adversary";

/// The discriminators and what they are told.
pub struct CameraGame {
    config: AdversaryConfig,
    seed: u64,
    adversaries: Vec<Adversary>,
    /// Per adversary the centre of each cluster (C, E), or none.
    centres: Vec<Tensor>,
    /// Camera ids in ascending order: their positions are the classes.
    cameras: BTreeMap<u32, u32>,
    pending: Option<Weights>,
}

impl CameraGame {
    /// From a run's settings; the discriminators are made when the cameras are known.
    pub fn new(config: &RunConfig) -> Self {
        CameraGame {
            config: config.adversary.clone(),
            seed: config.seed,
            adversaries: Vec::new(),
            centres: Vec::new(),
            cameras: BTreeMap::new(),
            pending: None,
        }
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.config.condition != Condition::Off
    }

    /// Whether the discriminators are told the centres of clusters.
    pub fn wants_centres(&self) -> bool {
        self.config.condition == Condition::Centroid
    }

    /// Before an epoch: makes the discriminators called `names` once, and the centres of the clusters from `conditions`
    /// anew: plain means of the unit features, one set for each discriminator or one for all.
    ///
    /// # Errors
    /// If there are fewer than two cameras, or a cluster is empty.
    pub fn prepare(
        &mut self,
        names: &[&str],
        [width, condition]: [usize; 2],
        conditions: &[Features],
        labels: &PseudoLabels,
        extract: &dyn Extract,
        device: &Device,
    ) -> Result<()> {
        if !self.is_on() {
            return Ok(());
        }
        if self.adversaries.is_empty() {
            let instead = "set adversary.condition=off to train without it";
            let ids = numbered_cameras(extract, "the camera adversary", instead)?;
            self.make(names, [width, condition], &ids, device)?;
        }
        let centre = |features: &Features| -> Result<Tensor> {
            let (rows, width) = (&features.rows, features.width);
            let means = centroids(rows, width, &labels.labels, labels.clusters)?;
            Ok(Tensor::from_vec(means, (labels.clusters, width), device)?)
        };
        self.centres = conditions.iter().map(centre).collect::<Result<_>>()?;
        Ok(())
    }

    /// Makes the discriminators for cameras with these ids, ascending.
    ///
    /// # Errors
    /// If a checkpoint's do not fit.
    pub fn make(
        &mut self,
        names: &[&str],
        [width, condition]: [usize; 2],
        ids: &[u32],
        device: &Device,
    ) -> Result<()> {
        self.cameras = ids.iter().copied().zip(0..).collect();
        let sizes = [width, condition, ids.len()];
        for name in names {
            let name = format!("adversary{name}");
            let made = Adversary::new(&self.config, &name, self.seed, sizes, device)?;
            self.adversaries.extend(made);
        }
        if let Some(saved) = self.pending.take() {
            for adversary in &self.adversaries {
                adversary.load(&saved)?;
            }
        }
        Ok(())
    }

    /// Sets what the discriminators are told of each cluster, (C, E) each.
    pub fn set_centres(&mut self, centres: Vec<Tensor>) {
        self.centres = centres;
    }

    /// The discriminators.
    pub fn adversaries(&self) -> &[Adversary] {
        &self.adversaries
    }

    /// Loss of discriminator `i` over features (B, D); `None` if it is off.
    ///
    /// # Errors
    /// If a camera was not there when the epoch began, or shapes do not fit.
    pub fn loss(&self, i: usize, features: &Tensor, batch: &Batch) -> Result<Option<Tensor>> {
        if !self.is_on() {
            return Ok(None);
        }
        let adversary = self.adversaries.get(i);
        let adversary = adversary.context("the adversary is made by the first relabel")?;
        let numbers = batch.cameras.iter().map(|id| {
            let known = self.cameras.get(id).copied();
            known.with_context(|| format!("camera {id} was not there at the last relabel"))
        });
        let numbers: Vec<u32> = numbers.collect::<Result<_>>()?;
        let centres = match self.centres.get(i).or(self.centres.last()) {
            Some(centres) if self.wants_centres() => {
                let index = Tensor::new(batch.labels.as_slice(), centres.device())?;
                Some(centres.index_select(&index, 0)?)
            }
            _ => None,
        };
        let mu = self.config.weight;
        adversary
            .loss(features, centres.as_ref(), &numbers, mu)
            .map(Some)
    }

    /// Their parameters, stepped by an Adam of their own, or by the network's `rule` if `adversary.lr` is 0.
    pub fn group(&self, rule: Rule) -> Option<Group> {
        let all = self.adversaries.iter().flat_map(Adversary::parameters);
        let all: Vec<_> = all.collect();
        let own = Group::adam("adversary", all);
        (!own.parameters.is_empty()).then(|| match self.config.lr {
            0.0 => Group { rule, ..own },
            lr => Group {
                rate: Rate::Fixed(lr),
                ..own
            },
        })
    }

    pub(super) fn save(&self, state: &mut State) -> Result<()> {
        if self.adversaries.is_empty() {
            return Ok(());
        }
        let mut saved = Weights::default();
        for adversary in &self.adversaries {
            adversary.save(&mut saved)?;
        }
        state.insert(SAVED.into(), saved);
        Ok(())
    }

    pub(super) fn load(&mut self, state: &State) {
        self.pending = state.get(SAVED).cloned();
    }
}
