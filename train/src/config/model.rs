//! `[model]`: the network and where its weights start.

use anyhow::Result;
use reid_models::Graph;
use reid_models::backbones::{Backbone, BackboneConfig};
use reid_models::heads::branches::Branches;
use reid_models::heads::partitions::{self, Partition};
use reid_models::heads::pooling::Pooling;
use serde::{Deserialize, Serialize};

use super::usage;

/// `[model]`: the network and where its weights start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// What `--init` is when it is not given: "imagenet" asks for a file, "random" needs none.
    #[serde(default = "imagenet")]
    pub init: String,
    /// MMT: where the second student starts; as the first one if empty.
    #[serde(default)]
    pub init2: String,
    /// Architecture.
    #[serde(default)]
    pub backbone: Backbone,
    /// Channels of the stem.
    #[serde(default = "width")]
    pub width: usize,
    /// Stride of the last stage.
    #[serde(default = "last_stride")]
    pub last_stride: usize,
    /// Pooling.
    #[serde(default)]
    pub pooling: Pooling,
    /// What follows the backbone: "plain" (pooling and neck), "branches" (ABMT), "parts" (SSG), "partitions" (SCR).
    #[serde(default)]
    pub head: Head,
    /// ABMT: whether branch b has a block more than branch a.
    #[serde(default = "yes")]
    pub branch_deeper: bool,
    /// ABMT: whether branch b takes maxima where branch a takes means.
    #[serde(default = "yes")]
    pub branch_maxima: bool,
    /// ABMT: whether there is a third branch, two blocks deeper than branch a (table 4.4).
    #[serde(default)]
    pub branch_third: bool,
    /// SCR: how each branch's map is split: "1", "s2" (stripes), "c2" (groups of channels), "s2c2".
    #[serde(default = "pyramid")]
    pub partitions: Vec<Partition>,
    /// SCR: width of the vector that each part is reduced to.
    #[serde(default = "part_width")]
    pub part_width: usize,
    /// Input size, `WxH` in pixels.
    #[serde(default = "size")]
    pub size: String,
}

/// `model.head`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// Pooling and neck.
    #[default]
    Plain,
    /// ABMT's two branches.
    Branches,
    /// SSG's body parts.
    Parts,
    /// SCR's stripes and groups of channels.
    Partitions,
}

fn imagenet() -> String {
    "imagenet".into()
}
fn width() -> usize {
    64
}
fn last_stride() -> usize {
    1
}
fn yes() -> bool {
    true
}
fn pyramid() -> Vec<Partition> {
    partitions::PYRAMID.to_vec()
}
fn part_width() -> usize {
    partitions::WIDTH
}
fn size() -> String {
    "128x256".into()
}

impl Default for ModelConfig {
    fn default() -> Self {
        toml::from_str("").expect("every key of [model] has a default")
    }
}

impl ModelConfig {
    /// The network to train.
    ///
    /// # Errors
    /// If the size is not `WxH`, or a number is out of range.
    pub fn graph(&self) -> Result<Graph> {
        let backbone = self.backbone()?;
        let graph = match self.head {
            Head::Plain => backbone.build(),
            Head::Branches => backbone.build_branches(Branches {
                deeper: self.branch_deeper,
                maxima: self.branch_maxima,
                third: self.branch_third,
            }),
            Head::Parts => backbone.build_parts(),
            Head::Partitions => backbone.build_partitions(&self.partitions, self.part_width),
        };
        graph.map_err(|e| usage(e.to_string()))
    }

    /// The backbone to build.
    ///
    /// # Errors
    /// If the size is not `WxH`.
    pub fn backbone(&self) -> Result<BackboneConfig> {
        let (input_width, height) =
            parse_size(&self.size).map_err(|e| usage(format!("model.size: {e}")))?;
        Ok(BackboneConfig {
            backbone: self.backbone,
            width: self.width,
            last_stride: self.last_stride,
            pooling: self.pooling,
            height,
            input_width,
        })
    }
}

/// Reads `WxH`.
///
/// # Errors
/// Says what it should look like.
pub fn parse_size(text: &str) -> Result<(usize, usize), String> {
    text.split_once('x')
        .and_then(|(w, h)| Some((w.trim().parse().ok()?, h.trim().parse().ok()?)))
        .ok_or_else(|| format!("`{text}` is not a size: write WIDTHxHEIGHT, for example 128x256"))
}
