//! Presets, files and `--set`, each over the one before.

use std::path::Path;

use anyhow::{Context, Result, bail};
use reid_models::files;

use super::check::check;
use super::{RunConfig, usage};

macro_rules! presets {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../presets/", $name, ".toml")))),*]
    };
}

/// Presets by name. Every number of a paper's preset cites its source.
pub const PRESETS: &[(&str, &str)] = presets!(
    "abmt"
    "abmt_small"
    "abmt_uda"
    "canu_mmt"
    "canu_mmt_small"
    "canu_ssg"
    "canu_ssg_small"
    "cluster_contrast"
    "cluster_contrast_small"
    "ice"
    "ice_aware"
    "ice_aware_small"
    "ice_small"
    "mmt"
    "mmt_small"
    "scr"
    "scr_small"
    "spcl"
    "spcl_small"
    "ssg"
    "ssg_small"
    "supervised"
    "supervised_small"
);

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

#[cfg(test)]
mod tests {
    use super::super::UsageError;
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
