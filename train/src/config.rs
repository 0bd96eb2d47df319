//! The configuration of a run: a preset, then a file, then `--set key=value`, each over the one before.
//!
//! What was used is written whole into `RUN/config.toml`, so that a run repeats without its command line.

mod check;
mod cluster;
mod load;
mod loss;
mod model;
mod train;

use serde::{Deserialize, Serialize};

pub use cluster::{Algorithm, ClusterConfig, NeighbourWeights};
pub use load::{PRESETS, load, read};
pub use loss::{
    AdversaryConfig, BranchWeights, Condition, Consistency, LossConfig, MemoryConfig, Mining,
    TargetView, TeacherView,
};
pub use model::{Head, ModelConfig, parse_size};
pub use train::{PrecisionConfig, TrainConfig};

/// A mistake of the user: exit code 2 instead of 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Makes a [`UsageError`] as `anyhow::Error`.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    UsageError(message.into()).into()
}

/// Everything a run depends on besides its data and starting weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Method, by its name in `reid-train methods`.
    pub method: String,
    /// Seed of everything random. Same seed, same machine, same result.
    #[serde(default = "one")]
    pub seed: u64,
    /// Network.
    #[serde(default)]
    pub model: ModelConfig,
    /// Pictures.
    #[serde(default)]
    pub data: DataConfig,
    /// Loop.
    #[serde(default)]
    pub train: TrainConfig,
    /// Strong view.
    #[serde(default)]
    pub augment: AugmentConfig,
    /// Pseudo labels.
    #[serde(default)]
    pub cluster: ClusterConfig,
    /// Terms of the loss.
    #[serde(default)]
    pub loss: LossConfig,
    /// What is remembered between batches.
    #[serde(default)]
    pub memory: MemoryConfig,
    /// CANU's camera adversary.
    #[serde(default)]
    pub adversary: AdversaryConfig,
}

fn one() -> u64 {
    1
}

/// `[data]`: what is done with the pictures before they are used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Pictures of a run that may turn out unreadable (cut short, damaged, gone): each is named, left out and counted; one
    /// more ends the run. 0: none may.
    pub max_corrupt: usize,
}

impl Default for DataConfig {
    fn default() -> Self {
        // A few bad files among thousands cost nothing; more say that something is wrong with the copy or the disk.
        DataConfig { max_corrupt: 10 }
    }
}

/// `[augment]`: the strong view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Zero padding in pixels before a random crop back to size.
    pub pad: usize,
    /// Probability of Gaussian blur, sigma U(0.1, 2).
    pub blur: f64,
    /// Probability of random erasing (Zhong et al. 2020), area 0.02..0.4, aspect 0.3..3.33.
    pub erasing: f64,
    /// Strength of brightness, contrast and saturation jitter, 0..1 (0: off, as in the papers).
    pub jitter: f64,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        AugmentConfig {
            flip: 0.5,
            pad: 10,
            blur: 0.5,
            erasing: 0.6,
            jitter: 0.0,
        }
    }
}
