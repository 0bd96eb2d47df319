//! The configuration of a run: a preset, then a file, then `--set key=value`, each over the one before.
//!
//! What was used is written whole into `RUN/config.toml`, so that a run repeats without its command line.

mod loss;
mod train;

use std::path::Path;

use anyhow::{Context, Result, bail};
use reid_models::Graph;
use reid_models::backbones::BackboneConfig;
use reid_models::files;
use reid_models::heads::branches::Branches;
use reid_models::heads::partitions::{self, Partition};
use serde::{Deserialize, Serialize};

pub use loss::{
    AdversaryConfig, BranchWeights, Condition, Consistency, LossConfig, MemoryConfig, Mining,
    TargetView, TeacherView,
};
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
    pub backbone: reid_models::backbones::Backbone,
    /// Channels of the stem.
    #[serde(default = "width")]
    pub width: usize,
    /// Stride of the last stage.
    #[serde(default = "last_stride")]
    pub last_stride: usize,
    /// Pooling.
    #[serde(default)]
    pub pooling: reid_models::heads::pooling::Pooling,
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

/// Which clustering makes pseudo labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// DBSCAN over the k-reciprocal Jaccard distance.
    #[default]
    Dbscan,
    /// k-means over the features, `cluster.clusters` of them.
    KMeans,
}

/// How near members of a neighbourhood weigh more than far ones, `cluster.weights`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeighbourWeights {
    /// `exp(-d)`: SpCL, Cluster-Contrast, ICE.
    #[default]
    Softmax,
    /// `exp(-d / max d)`: MMT, ABMT, SSG.
    ExpScaled,
}

/// `[cluster]`: pseudo labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// Take the true identities instead: how far a method gets with perfect labels. Nothing else in `[cluster]` counts then.
    pub truth: bool,
    /// "dbscan" or "k_means".
    pub algorithm: Algorithm,
    /// Number of clusters of k-means.
    pub clusters: usize,
    /// Neighbours of the reciprocal sets, columns counted including self.
    pub k1: usize,
    /// Neighbours of the local query expansion.
    pub k2: usize,
    /// Weights within a neighbourhood: "softmax" or "exp_scaled".
    pub weights: NeighbourWeights,
    /// DBSCAN radius, Jaccard distance 0..1; not used if `rho` is set.
    pub eps: f32,
    /// Above 0: the radius is the mean of this fraction of smallest distances (the texts' "radius 0.002" is this).
    pub rho: f64,
    /// Whether `rho` is asked in the first epoch only, or in every one.
    pub rho_once: bool,
    /// DBSCAN's core condition, self included.
    pub min_samples: usize,
    /// Share of the distance to the source's pictures in the distance, if there are any (`--source`).
    pub source_weight: f32,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        ClusterConfig {
            truth: false,
            algorithm: Algorithm::Dbscan,
            clusters: 500,
            k1: 30,
            k2: 6,
            weights: NeighbourWeights::Softmax,
            eps: 0.55,
            rho: 0.0,
            rho_once: false,
            min_samples: 4,
            source_weight: 0.0,
        }
    }
}

/// Presets by name. Every number of a paper's preset cites its source.
pub const PRESETS: &[(&str, &str)] = &[
    ("abmt", include_str!("../presets/abmt.toml")),
    ("abmt_small", include_str!("../presets/abmt_small.toml")),
    ("abmt_uda", include_str!("../presets/abmt_uda.toml")),
    ("canu_mmt", include_str!("../presets/canu_mmt.toml")),
    (
        "canu_mmt_small",
        include_str!("../presets/canu_mmt_small.toml"),
    ),
    ("canu_ssg", include_str!("../presets/canu_ssg.toml")),
    (
        "canu_ssg_small",
        include_str!("../presets/canu_ssg_small.toml"),
    ),
    (
        "cluster_contrast",
        include_str!("../presets/cluster_contrast.toml"),
    ),
    (
        "cluster_contrast_small",
        include_str!("../presets/cluster_contrast_small.toml"),
    ),
    ("ice", include_str!("../presets/ice.toml")),
    ("ice_aware", include_str!("../presets/ice_aware.toml")),
    (
        "ice_aware_small",
        include_str!("../presets/ice_aware_small.toml"),
    ),
    ("ice_small", include_str!("../presets/ice_small.toml")),
    ("mmt", include_str!("../presets/mmt.toml")),
    ("mmt_small", include_str!("../presets/mmt_small.toml")),
    ("scr", include_str!("../presets/scr.toml")),
    ("scr_small", include_str!("../presets/scr_small.toml")),
    ("spcl", include_str!("../presets/spcl.toml")),
    ("spcl_small", include_str!("../presets/spcl_small.toml")),
    ("ssg", include_str!("../presets/ssg.toml")),
    ("ssg_small", include_str!("../presets/ssg_small.toml")),
    ("supervised", include_str!("../presets/supervised.toml")),
    (
        "supervised_small",
        include_str!("../presets/supervised_small.toml"),
    ),
];

/// Layers preset, file and `--set`, checks every key and value.
///
/// # Errors
/// [`UsageError`] naming file, key and value.
pub fn load(
    method: &str,
    preset: Option<&str>,
    file: Option<&Path>,
    sets: &[String],
) -> Result<RunConfig> {
    let preset = preset.unwrap_or(method);
    let names = || {
        PRESETS
            .iter()
            .map(|(n, _)| *n)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let Some((_, text)) = PRESETS.iter().find(|(name, _)| *name == preset) else {
        return Err(usage(format!(
            "--preset {preset}: unknown (known: {})",
            names()
        )));
    };
    let mut table: toml::Table = text.parse().with_context(|| format!("preset {preset}"))?;
    if let Some(path) = file {
        let text = files::read_text(path)?;
        let over: toml::Table = text
            .parse()
            .map_err(|e| usage(format!("{}: {e}", path.display())))?;
        merge(&mut table, over);
        // Checked here as well, so that a mistake of the file is blamed on the file.
        check(table.clone()).map_err(|e| usage(format!("{}: {e}", path.display())))?;
    }
    for set in sets {
        let (key, value) = set.split_once('=').ok_or_else(|| {
            usage(format!(
                "--set {set}: write key=value, for example train.epochs=5"
            ))
        })?;
        set_key(&mut table, key.trim(), value.trim())
            .map_err(|e| usage(format!("--set {set}: {e}")))?;
        check(table.clone()).map_err(|e| usage(format!("--set {set}: {e}")))?;
    }
    let config = check(table).map_err(usage)?;
    if config.method != method {
        return Err(usage(format!(
            "--preset {preset} is for the method {}, not for {method}",
            config.method
        )));
    }
    Ok(config)
}

/// Reads the `config.toml` of a run.
///
/// # Errors
/// [`UsageError`] naming the file.
pub fn read(path: &Path) -> Result<RunConfig> {
    let table: toml::Table = files::read_text(path)?
        .parse()
        .map_err(|e| usage(format!("{}: {e}", path.display())))?;
    check(table).map_err(|e| usage(format!("{}: {e}", path.display())))
}

fn merge(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn set_key(table: &mut toml::Table, key: &str, value: &str) -> Result<()> {
    let parts: Vec<&str> = key.split('.').collect();
    let [path @ .., last] = parts.as_slice() else {
        bail!("the key is empty")
    };
    let mut at = table;
    for part in path {
        at = at
            .entry(part.to_string())
            .or_insert_with(|| toml::Table::new().into())
            .as_table_mut()
            .with_context(|| format!("`{part}` is not a table"))?;
    }
    // A value that is no TOML literal is a bare string: `--set model.pooling=gem` needs no quotes.
    let parsed = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"));
    at.insert((*last).to_string(), parsed.unwrap_or_else(|| value.into()));
    Ok(())
}

fn check(table: toml::Table) -> Result<RunConfig, String> {
    let config: RunConfig = table
        .try_into()
        .map_err(|e: toml::de::Error| e.to_string().trim_end().to_string())?;
    let t = &config.train;
    let at_least = |key: &str, value: usize, low: usize| {
        if value >= low {
            Ok(())
        } else {
            Err(format!("{key} must be at least {low}, got {value}"))
        }
    };
    at_least("train.epochs", t.epochs, 1)?;
    at_least("train.iterations", t.iterations, 1)?;
    at_least("train.identities", t.identities, 2)?;
    at_least("train.instances", t.instances, 2)?;
    at_least("cluster.k1", config.cluster.k1, 2)?;
    at_least("cluster.k2", config.cluster.k2, 1)?;
    at_least("cluster.min_samples", config.cluster.min_samples, 1)?;
    let within = |key: &str, value: f64, low: f64, high: f64| {
        if value.is_finite() && (low..=high).contains(&value) {
            Ok(())
        } else {
            Err(format!(
                "{key} must be between {low} and {high}, got {value}"
            ))
        }
    };
    let l = &config.loss;
    let a = &config.augment;
    within("train.lr", t.lr, 1e-9, 10.0)?;
    within("train.weight_decay", t.weight_decay, 0.0, 1.0)?;
    within("adversary.lr", config.adversary.lr, 0.0, 10.0)?;
    within("train.warmup_factor", t.warmup_factor, 0.0, 1.0)?;
    within("train.gamma", t.gamma, 0.0, 1.0)?;
    within("train.ema", t.ema, 0.0, 1.0)?;
    within("cluster.eps", config.cluster.eps.into(), 1e-6, 1.0)?;
    within("loss.smoothing", l.smoothing, 0.0, 0.9)?;
    within("loss.dropout", l.dropout, 0.0, 0.9)?;
    within("memory.momentum", config.memory.momentum, 0.0, 1.0)?;
    within("cluster.rho", config.cluster.rho, 0.0, 0.5)?;
    let share = config.cluster.source_weight;
    within("cluster.source_weight", share.into(), 0.0, 0.9)?;
    at_least("model.part_width", config.model.part_width, 1)?;
    at_least("cluster.clusters", config.cluster.clusters, 2)?;
    at_least("adversary.hidden", config.adversary.hidden, 1)?;
    for (key, value) in [
        ("loss.proxy_temperature", l.proxy_temperature),
        ("loss.hard_temperature", l.hard_temperature),
        ("loss.soft_temperature", l.soft_temperature),
        ("loss.cross_temperature", l.cross_temperature),
        ("memory.temperature", config.memory.temperature),
    ] {
        within(key, value, 1e-3, 100.0)?;
    }
    for (key, value) in [
        ("loss.hard_weight", l.hard_weight),
        ("loss.soft_weight", l.soft_weight),
        ("loss.cross_weight", l.cross_weight),
        ("loss.identity_weight", l.identity_weight),
        ("loss.soft_identity_weight", l.soft_identity_weight),
        ("loss.triplet_weight", l.triplet_weight),
        ("loss.triplet_margin", l.triplet_margin),
        ("loss.soft_triplet_weight", l.soft_triplet_weight),
        ("loss.centre_weight", l.centre_weight),
        ("adversary.weight", config.adversary.weight),
    ] {
        within(key, value, 0.0, 1e6)?;
    }
    for (key, value) in [
        ("augment.flip", a.flip),
        ("augment.blur", a.blur),
        ("augment.erasing", a.erasing),
        ("augment.jitter", a.jitter),
    ] {
        within(key, value, 0.0, 1.0)?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_loads_for_its_method() {
        for (name, text) in PRESETS {
            let table: toml::Table = text.parse().unwrap();
            let method = table["method"].as_str().unwrap();
            let config =
                load(method, Some(name), None, &[]).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            config.model.graph().unwrap();
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<RunConfig>(&text).unwrap(), config);
        }
    }

    #[test]
    fn mistakes_name_key_and_value() {
        let fail = |set: &str| format!("{:#}", load("ice", None, None, &[set.into()]).unwrap_err());
        assert!(
            fail("train.epoch=3").contains("epoch"),
            "{}",
            fail("train.epoch=3")
        );
        assert!(fail("train.epochs=0").contains("train.epochs must be at least 1, got 0"));
        assert!(fail("cluster.eps=nan").contains("cluster.eps"));
        assert!(fail("model.backbone=resnet19").contains("resnet18"));
        assert!(fail("seed").contains("key=value"));
        let unknown = load("ice", Some("icy"), None, &[]).unwrap_err();
        assert!(unknown.to_string().contains("ice_small") && unknown.is::<UsageError>());
        assert!(
            load("supervised", Some("ice"), None, &[])
                .unwrap_err()
                .to_string()
                .contains("not for supervised")
        );
    }

    #[test]
    fn a_file_is_blamed_for_its_own_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        std::fs::write(&path, "[train]\nlearning_rate = 1.0\n").unwrap();
        let err = load("ice", None, Some(&path), &[]).unwrap_err().to_string();
        assert!(
            err.contains("mine.toml") && err.contains("learning_rate"),
            "{err}"
        );
        std::fs::write(&path, "[train]\nlr = 1e-3\n").unwrap();
        let config = load(
            "ice",
            None,
            Some(&path),
            &["train.epochs=7".into(), "model.pooling=gem".into()],
        )
        .unwrap();
        assert_eq!((config.train.lr, config.train.epochs), (1e-3, 7));
    }
}
