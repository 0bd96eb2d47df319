//! The configuration of a run: a preset, then a file, then `--set key=value`, each over the one before.
//!
//! What was used is written whole into `RUN/config.toml`, so that a run repeats without its command line.

mod train;

use std::path::Path;

use anyhow::{Context, Result, bail};
use reid_models::backbones::BackboneConfig;
use reid_models::files;
use serde::{Deserialize, Serialize};

use crate::losses::soft_instance::KlDirection;

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
    /// Input size, `WxH` in pixels.
    #[serde(default = "size")]
    pub size: String,
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
fn size() -> String {
    "128x256".into()
}

impl Default for ModelConfig {
    fn default() -> Self {
        toml::from_str("").expect("every key of [model] has a default")
    }
}

impl ModelConfig {
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

/// `[cluster]`: k-reciprocal Jaccard distance and DBSCAN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// Neighbours of the reciprocal sets, columns counted including self.
    pub k1: usize,
    /// Neighbours of the local query expansion.
    pub k2: usize,
    /// DBSCAN radius, Jaccard distance 0..1.
    pub eps: f32,
    /// DBSCAN's core condition, self included.
    pub min_samples: usize,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        ClusterConfig {
            k1: 30,
            k2: 6,
            eps: 0.55,
            min_samples: 4,
        }
    }
}

/// `[loss]`: weights and temperatures. A method reads the ones it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Label smoothing of the cross-entropies.
    pub smoothing: f64,
    /// ICE: temperature of the proxy term over the un-normalised feature (methods.md 0.2).
    pub proxy_temperature: f64,
    /// ICE: weight of the hard instance contrastive loss, eq. 6.9.
    pub hard_weight: f64,
    /// ICE: its temperature.
    pub hard_temperature: f64,
    /// ICE: weight of the soft instance consistency loss, eq. 6.12.
    pub soft_weight: f64,
    /// ICE: its temperature.
    pub soft_temperature: f64,
    /// ICE: "target_first" is KL(Q||P) as the public code computes it, "printed" is the thesis's KL(P||Q).
    pub soft_direction: KlDirection,
    /// Supervised: weight of the batch-hard triplet loss on the pooled feature.
    pub triplet_weight: f64,
}

impl Default for LossConfig {
    fn default() -> Self {
        LossConfig {
            smoothing: 0.1,
            proxy_temperature: 0.5,
            hard_weight: 1.0,
            hard_temperature: 0.1,
            soft_weight: 10.0,
            soft_temperature: 0.4,
            soft_direction: KlDirection::TargetFirst,
            triplet_weight: 1.0,
        }
    }
}

/// Presets by name. Every number of a paper's preset cites its source.
pub const PRESETS: &[(&str, &str)] = &[
    ("ice", include_str!("../presets/ice.toml")),
    ("ice_small", include_str!("../presets/ice_small.toml")),
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
    within("train.warmup_factor", t.warmup_factor, 0.0, 1.0)?;
    within("train.gamma", t.gamma, 0.0, 1.0)?;
    within("train.ema", t.ema, 0.0, 1.0)?;
    within("cluster.eps", config.cluster.eps.into(), 1e-6, 1.0)?;
    within("loss.smoothing", l.smoothing, 0.0, 0.9)?;
    for (key, value) in [
        ("loss.proxy_temperature", l.proxy_temperature),
        ("loss.hard_temperature", l.hard_temperature),
        ("loss.soft_temperature", l.soft_temperature),
    ] {
        within(key, value, 1e-3, 100.0)?;
    }
    for (key, value) in [
        ("loss.hard_weight", l.hard_weight),
        ("loss.soft_weight", l.soft_weight),
        ("loss.triplet_weight", l.triplet_weight),
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
        for (name, _) in PRESETS {
            let method = name.split('_').next().unwrap();
            let config =
                load(method, Some(name), None, &[]).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            config.model.backbone().unwrap().build().unwrap();
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
