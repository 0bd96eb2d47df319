//! What the loop around a method needs to know.

use serde::{Deserialize, Serialize};

use crate::nn::gpu::Precision;

/// `[train]`: sampler, optimiser, schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Epochs.
    pub epochs: usize,
    /// Iterations an epoch; fixed, not one pass over the data.
    pub iterations: usize,
    /// Identities (or pseudo identities) a batch, P.
    pub identities: usize,
    /// Instances of each, K.
    pub instances: usize,
    /// Learning rate of Adam.
    pub lr: f64,
    /// L2 decay, added to the gradient.
    pub weight_decay: f64,
    /// Epochs of linear warm-up.
    pub warmup_epochs: usize,
    /// Share of the learning rate that warm-up starts from.
    pub warmup_factor: f64,
    /// Epochs after which the learning rate is multiplied by `gamma`.
    pub milestones: Vec<usize>,
    /// See `milestones`.
    pub gamma: f64,
    /// Weight of the old value in the teacher's moving average.
    pub ema: f64,
    /// Whether that weight begins at 0 and rises as `1 - 1 / (t + 1)` with the step t (MMT, ABMT).
    pub ema_ramp: bool,
    /// Parts that a training batch is split into for the statistics of batch norms, as several GPUs would. A batch holds whole
    /// identities one after the other, so a part sees few of them: two cost Cluster-Contrast much, four do not (docs/ACCURACY.md).
    pub norm_groups: usize,
    /// Evaluate every so many epochs (0: only at the end).
    pub evaluate_every: usize,
    /// Decoded pictures are kept in memory up to this many MiB.
    pub cache_mib: usize,
    /// Threads that decode and augment pictures. 0 leaves the networks the cores they need: one on the processor, all but two
    /// beside a GPU. Results do not depend on it.
    pub workers: usize,
    /// Numbers inside networks: "auto" (bf16 on a GPU that has it, else f32), "f32", "tf32" or "bf16". Parameters, losses
    /// and the statistics of batch norms are f32 in any case. Clustering and evaluation multiply in f32.
    pub precision: PrecisionConfig,
    /// Only GPU algorithms that give the same bits in every run, chosen without timing them: repeatable, a little slower.
    /// The processor always repeats.
    pub deterministic: bool,
}

/// `train.precision`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrecisionConfig {
    /// bf16 on a GPU that has it, else f32.
    #[default]
    Auto,
    /// f32, multiplied as such.
    F32,
    /// f32, multiplied with 10 bits of mantissa; NVIDIA Ampere or newer.
    Tf32,
    /// Maps and filters as bf16; NVIDIA Ampere or newer.
    Bf16,
}

impl PrecisionConfig {
    /// What a device is opened with; `None` leaves it the choice.
    pub fn wanted(self) -> Option<Precision> {
        match self {
            PrecisionConfig::Auto => None,
            PrecisionConfig::F32 => Some(Precision::F32),
            PrecisionConfig::Tf32 => Some(Precision::Tf32),
            PrecisionConfig::Bf16 => Some(Precision::Bf16),
        }
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        // ICE, thesis 6.4.2 and its public code: methods.md 1.4.
        TrainConfig {
            epochs: 40,
            iterations: 400,
            identities: 8,
            instances: 4,
            lr: 3.5e-4,
            weight_decay: 5e-4,
            warmup_epochs: 10,
            warmup_factor: 0.1,
            milestones: vec![],
            gamma: 0.1,
            ema: 0.999,
            ema_ramp: false,
            norm_groups: 1,
            evaluate_every: 5,
            cache_mib: 4096,
            workers: 0,
            precision: PrecisionConfig::Auto,
            deterministic: false,
        }
    }
}
