//! What methods weigh and remember.

use serde::{Deserialize, Serialize};

use crate::losses::{CrossForm, KlDirection, Negatives, TripletMargin};
use crate::memory::MemoryUpdate;

/// `[loss]`: weights and temperatures. A method reads the ones it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Label smoothing of the cross-entropies.
    pub smoothing: f64,
    /// ICE: temperature of the proxy term over the un-normalised feature (methods.md 0.2).
    pub proxy_temperature: f64,
    /// ICE: weight of the contrast with proxies of other cameras, eq. 6.8; 0 is the camera-agnostic method, which needs no
    /// camera ids.
    pub cross_weight: f64,
    /// ICE: its temperature.
    pub cross_temperature: f64,
    /// ICE: proxies of other clusters that a picture is compared with.
    pub cross_negatives: usize,
    /// ICE: "joint" as the public code computes it, "printed" is the thesis's eq. 6.7.
    pub cross_form: CrossForm,
    /// ICE: weight of the hard instance contrastive loss, eq. 6.9.
    pub hard_weight: f64,
    /// ICE: its temperature.
    pub hard_temperature: f64,
    /// ICE: "all" negatives of the batch, or the "hardest" alone (table 6.2).
    pub hard_negatives: Negatives,
    /// ICE: weight of the soft instance consistency loss, eq. 6.12.
    pub soft_weight: f64,
    /// ICE: its temperature.
    pub soft_temperature: f64,
    /// ICE: "target_first" is KL(Q||P) as the public code computes it, "printed" is the thesis's KL(P||Q).
    pub soft_direction: KlDirection,
    /// ICE: what is kept consistent: "kl" as eq. 6.12, or "mse", the squared difference of cosines (table 6.3).
    pub soft_form: Consistency,
    /// ICE: whose similarities are the target: those of the "weak" view, or of the "strong" one (table 6.3).
    pub soft_target: TargetView,
    /// ICE: whether the teacher sees batches in another order where batch norms are cut into `train.norm_groups` (ShuffleBN).
    pub teacher_shuffle: bool,
    /// MMT, ABMT, supervised: weight of the cross-entropy with (pseudo) labels.
    pub identity_weight: f64,
    /// MMT, ABMT: weight of the cross-entropy with the other teacher's (branch's) answer.
    pub soft_identity_weight: f64,
    /// MMT, SSG, SCR, supervised: weight of the triplet loss with (pseudo) labels.
    pub triplet_weight: f64,
    /// SSG, SCR, supervised: margin of that loss; 0 is the soft margin.
    pub triplet_margin: f64,
    /// SSG: "semi_hard" pairs by their place in the batch, as the public code does, or "batch_hard", as text (d), eq. 2 reads.
    pub triplet_mining: Mining,
    /// MMT, ABMT: weight of the softmax-triplet with the other teacher's (branch's) shares.
    pub soft_triplet_weight: f64,
    /// ABMT: "mean" over the branches, as the public code has it, or "sum", as eq. 4.8 prints it.
    pub branches: BranchWeights,
    /// ABMT: whether a branch is taught by the teacher's other branch, or by its own (table 4.3).
    pub cross_branch: bool,
    /// ABMT: what the teacher sees: the "same" view as the student, or an "other" one (table 4.3).
    pub teacher_view: TeacherView,
    /// ABMT: share of the neck's values that is dropped before the classifiers (table 4.3).
    pub dropout: f64,
    /// Supervised: weight of the centre loss.
    pub centre_weight: f64,
}

impl Default for LossConfig {
    fn default() -> Self {
        LossConfig {
            smoothing: 0.1,
            proxy_temperature: 0.5,
            cross_weight: 0.0,
            cross_temperature: 0.07,
            cross_negatives: 50,
            cross_form: CrossForm::Joint,
            hard_weight: 1.0,
            hard_temperature: 0.1,
            hard_negatives: Negatives::All,
            soft_weight: 10.0,
            soft_temperature: 0.4,
            soft_direction: KlDirection::TargetFirst,
            soft_form: Consistency::Kl,
            soft_target: TargetView::Weak,
            teacher_shuffle: true,
            identity_weight: 1.0,
            soft_identity_weight: 0.0,
            triplet_weight: 1.0,
            triplet_margin: 0.0,
            triplet_mining: Mining::SemiHard,
            soft_triplet_weight: 0.0,
            branches: BranchWeights::Mean,
            cross_branch: true,
            teacher_view: TeacherView::Same,
            dropout: 0.0,
            centre_weight: 0.0,
        }
    }
}

impl LossConfig {
    /// The margin of triplet losses.
    pub fn margin(&self) -> TripletMargin {
        match self.triplet_margin > 0.0 {
            true => TripletMargin::Margin(self.triplet_margin),
            false => TripletMargin::Soft,
        }
    }
}

/// `loss.triplet_mining`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mining {
    /// Every pair of an identity's run, with its first picture's nearest negative.
    #[default]
    SemiHard,
    /// For each picture its farthest positive and nearest negative.
    BatchHard,
}

/// `loss.soft_form`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// A divergence of distributions.
    #[default]
    Kl,
    /// A squared difference.
    Mse,
}

/// `loss.soft_target`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetView {
    /// Resized and normalised only.
    #[default]
    Weak,
    /// Augmented.
    Strong,
}

/// `loss.teacher_view`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeacherView {
    /// The student's.
    #[default]
    Same,
    /// One of its own.
    Other,
}

/// How the terms of two branches make one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BranchWeights {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// `[memory]`: Cluster-Contrast and SpCL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Temperature of the contrast with the memory.
    pub temperature: f64,
    /// Weight of the old vector in its moving average.
    pub momentum: f64,
    /// SpCL: make the memory anew from the network's features before every epoch, instead of carrying it on as the public code
    /// does: for short epochs, in which a picture comes less than once or twice.
    pub refresh: bool,
    /// Cluster-Contrast: which features move a cluster: "each", "hardest" or (experimental) "camera_aware".
    pub update: MemoryUpdate,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        MemoryConfig {
            temperature: 0.05,
            momentum: 0.1,
            refresh: false,
            update: MemoryUpdate::Each,
        }
    }
}

/// `[adversary]`: a discriminator of cameras that the network learns against (CANU, Delorme et al. 2021).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdversaryConfig {
    /// "off"; "centroid": it is told the centre of a picture's cluster too; "none": it is not.
    pub condition: Condition,
    /// Weight, the text's mu.
    pub weight: f64,
    /// Width of its hidden layers.
    pub hidden: usize,
    /// Learning rate of its own Adam, whatever steps the network; 0: the network's optimiser steps it too. The text names
    /// neither (methods.md 5.1).
    pub lr: f64,
}

impl Default for AdversaryConfig {
    fn default() -> Self {
        AdversaryConfig {
            condition: Condition::Off,
            weight: 0.1,
            hidden: 1024,
            lr: 3.5e-4,
        }
    }
}

/// `adversary.condition`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// No adversary.
    #[default]
    Off,
    /// The feature and its cluster's centre, eq. 8 to 11 of the text.
    Centroid,
    /// The feature alone, eq. 5 of the text.
    None,
}
