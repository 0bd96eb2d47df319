//! Architectures: functions that build a [`Graph`](crate::Graph).

pub mod resnet;
pub mod vit;

use serde::{Deserialize, Serialize};

use crate::Graph;
use crate::graph::{Init, ParamKind};
use crate::heads::branches::{self, Branches};
use crate::heads::partitions::{self, Partition};
use crate::heads::parts;
use crate::heads::pooling::Pooling;
use crate::ops::Op;

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
    /// ResNet-18 with the same norms (IBN-Net's `resnet18_ibn_a`).
    #[serde(rename = "resnet18_ibn_a")]
    Resnet18IbnA,
    /// ResNet-18 with squeeze and excitation in each block (Hu et al. 2018), reduction 16.
    #[serde(rename = "se_resnet18")]
    SeResnet18,
    /// ResNet-50 with squeeze and excitation: pretrainedmodels' and timm's `seresnet50`.
    #[serde(rename = "se_resnet50")]
    SeResnet50,
    /// ViT-S/16, for weights that were trained on people elsewhere: see [`vit`].
    #[serde(rename = "vit_small_16")]
    VitSmall16,
}

impl Backbone {
    /// Whether it is a ResNet: has stages that heads can copy, and a map that can be cut into parts.
    pub fn has_stages(self) -> bool {
        self != Backbone::VitSmall16
    }
}

impl BackboneConfig {
    /// Builds the graph with pooling and BN-neck: outputs `feature_map`, `pooled`, `neck`, `embedding`.
    ///
    /// # Errors
    /// If a value is out of range, naming the key.
    pub fn build(&self) -> Result<Graph, ConfigError> {
        self.check()?;
        Ok(match self.backbone {
            Backbone::VitSmall16 => vit::build(self),
            _ => resnet::build(self),
        })
    }

    /// Builds ABMT's network: see [`branches`].
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_branches(&self, branches: Branches) -> Result<Graph, ConfigError> {
        self.check_stages("branches")?;
        Ok(branches::build(self, branches))
    }

    /// Builds SSG's network: see [`parts`].
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_parts(&self) -> Result<Graph, ConfigError> {
        self.check_stages("parts")?;
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
        self.check_stages("partitions")?;
        if partitions.is_empty() {
            return Err(ConfigError::Range {
                key: "model.partitions (their number)",
                value: 0,
                low: 1,
                high: 8,
            });
        }
        Ok(partitions::build(self, partitions, width))
    }

    fn check_stages(&self, head: &'static str) -> Result<(), ConfigError> {
        if !self.backbone.has_stages() {
            return Err(ConfigError::Head { head });
        }
        self.check()
    }

    fn check(&self) -> Result<(), ConfigError> {
        let range = |key, value, low, high| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::Range {
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
        range("model.input_width", self.input_width, 16, 2048)?;
        let sides = [
            ("model.height", self.height),
            ("model.input_width", self.input_width),
        ];
        let odd = |(_, side): &(_, usize)| !side.is_multiple_of(vit::PATCH);
        match sides.into_iter().find(odd) {
            Some((key, value)) if self.backbone == Backbone::VitSmall16 => {
                Err(ConfigError::Patches { key, value })
            }
            _ => Ok(()),
        }
    }
}

/// A fully connected layer with bias; its weight starts as `start`, the bias at 0.
fn linear(
    graph: &mut Graph,
    x: &str,
    name: &str,
    [inputs, outputs]: [usize; 2],
    start: Init,
) -> String {
    let zero = Init::Constant { value: 0.0 };
    let parts = [
        ("weight", vec![outputs, inputs], start),
        ("bias", vec![outputs], zero),
    ];
    let [weight, bias] = parts.map(|(part, shape, init)| {
        graph.param(format!("{name}.{part}"), &shape, ParamKind::Trainable, init)
    });
    let op = Op::Linear {
        out_features: outputs,
        bias: true,
    };
    graph.push(name, op, &[x], &[&weight, &bias])
}

/// A value of `[model]` that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Out of range.
    #[error("{key} must be between {low} and {high}, got {value}")]
    Range {
        /// Key.
        key: &'static str,
        /// Value.
        value: usize,
        /// Least.
        low: usize,
        /// Most.
        high: usize,
    },
    /// Pictures that patches do not cover.
    #[error(
        "{key} must be a multiple of 16, the side of a patch of model.backbone = \"vit_small_16\", got {value}"
    )]
    Patches {
        /// Key.
        key: &'static str,
        /// Value.
        value: usize,
    },
    /// A head on a network without stages.
    #[error(
        "model.head = \"{head}\" needs a ResNet, whose last stages it copies or cuts: \"vit_small_16\" has the head \"plain\" only"
    )]
    Head {
        /// Its name.
        head: &'static str,
    },
}
