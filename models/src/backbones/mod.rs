//! Architectures: functions that build a [`Graph`](crate::Graph).

pub mod resnet;

use serde::{Deserialize, Serialize};

use crate::Graph;
use crate::heads::branches::{self, Branches};
use crate::heads::partitions::{self, Partition};
use crate::heads::parts;
use crate::heads::pooling::Pooling;

/// Which network to build, as it stands in a run's `config.toml` under `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackboneConfig {
    /// Architecture.
    pub backbone: Backbone,
    /// Channels of the stem; the four stages have 1, 2, 4 and 8 times as many (64 is the published network).
    pub width: usize,
    /// Stride of the last stage: 1 keeps a finer map, as re-ID methods do; 2 is the published network.
    pub last_stride: usize,
    /// Pooling after the last stage.
    pub pooling: Pooling,
    /// Input height in pixels.
    pub height: usize,
    /// Input width in pixels.
    pub input_width: usize,
}

impl Default for BackboneConfig {
    fn default() -> Self {
        BackboneConfig {
            backbone: Backbone::Resnet50,
            width: 64,
            last_stride: 1,
            pooling: Pooling::Gap,
            height: 256,
            input_width: 128,
        }
    }
}

/// Architectures by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backbone {
    /// ResNet-18 (basic blocks).
    Resnet18,
    /// ResNet-50 (bottlenecks, stride on the 3x3).
    #[default]
    Resnet50,
    /// ResNet-50 whose first three stages normalise half of each block's first channels per image (IBN-Net-a, Pan et al.
    /// 2018), with the published parameter names (`layer1.0.bn1.IN.weight`, `layer1.0.bn1.BN.weight`, ...).
    #[serde(rename = "resnet50_ibn_a")]
    Resnet50IbnA,
}

impl BackboneConfig {
    /// Builds the graph with pooling and BN-neck: outputs `feature_map`, `pooled`, `neck`, `embedding`.
    ///
    /// # Errors
    /// If a value is out of range, naming the key.
    pub fn build(&self) -> Result<Graph, ConfigError> {
        self.check()?;
        Ok(resnet::build(self))
    }

    /// Builds ABMT's network: see [`branches`].
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_branches(&self, branches: Branches) -> Result<Graph, ConfigError> {
        self.check()?;
        Ok(branches::build(self, branches))
    }

    /// Builds SSG's network: see [`parts`].
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_parts(&self) -> Result<Graph, ConfigError> {
        self.check()?;
        Ok(parts::build(self))
    }

    /// Builds SCR's network with vectors of `width`: see [`partitions`].
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_partitions(
        &self,
        partitions: &[Partition],
        width: usize,
    ) -> Result<Graph, ConfigError> {
        self.check()?;
        if partitions.is_empty() {
            return Err(ConfigError {
                key: "model.partitions (their number)",
                value: 0,
                low: 1,
                high: 8,
            });
        }
        Ok(partitions::build(self, partitions, width))
    }

    fn check(&self) -> Result<(), ConfigError> {
        let range = |key, value, low, high| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError {
                    key,
                    value,
                    low,
                    high,
                })
            }
        };
        range("model.width", self.width, 4, 512)?;
        range("model.last_stride", self.last_stride, 1, 2)?;
        range("model.height", self.height, 32, 2048)?;
        range("model.input_width", self.input_width, 16, 2048)
    }
}

/// A value of `[model]` out of range.
#[derive(Debug, thiserror::Error)]
#[error("{key} must be between {low} and {high}, got {value}")]
pub struct ConfigError {
    key: &'static str,
    value: usize,
    low: usize,
    high: usize,
}
