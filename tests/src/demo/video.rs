//! The demonstration on somebody's own recordings: harvest -> train -> export -> live.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Demo, Footage, Summary, metrics, number};

impl Demo {
    /// On recordings: no labels, so nothing is scored.
    pub(super) fn footage(&self) -> Result<Summary> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let site = self.folder.join("site");
        fs::create_dir_all(&site).with_context(|| format!("cannot make {}", site.display()))?;
        let cameras = self.cameras()?;

        self.say("1/5  your recordings: finding people, following them, cutting them out");
        let harvesting = path("site/harvest.toml");
        fs::write(
            &harvesting,
            format!("{cameras}[embedder]\nkind = \"histogram\"\n"),
        )
        .with_context(|| harvesting.clone())?;
        let harvest = path("harvest");
        let harvested = self.step(
            "reid-edge",
            &["harvest", "--config", &harvesting, "--out", &harvest],
        )?;
        let (crops, tracklets) = (count(&harvested, "crops")?, count(&harvested, "tracklets")?);
        if tracklets < 4 {
            bail!(
                "only {tracklets} people could be followed ({crops} crops): too few to learn from. The motion detector wants \
                 a camera that does not move and people of at least 40 pixels; a detector model finds more: --detector FILE.onnx"
            );
        }

        self.say("2/5  training on them without labels, from a starting point of another place");
        let run = path("run");
        let data = format!("harvest:{harvest}");
        self.live(
            "reid-train",
            &[
                "fit",
                "--method",
                "ice",
                "--preset",
                "ice_small",
                "--data",
                &data,
                "--out",
                &run,
            ],
        )?;
        let epochs = metrics(&self.folder.join("run/metrics.jsonl"))?;
        let last = epochs.iter().rev().find(|row| row["clusters"].is_number());
        let clusters = last.map_or(Ok(0), |row| count(row, "clusters"))?;

        self.say("3/5  exporting to ONNX and comparing with the trainer");
        let model = path("site/model.onnx");
        self.step("reid-export", &["onnx", "--run", &run, "--out", &model])?;
        let verified = self.step("reid-export", &["verify", &model])?;

        self.say("4/5  the recordings, live: open http://127.0.0.1:8080");
        let config = self.config();
        fs::write(
            &config,
            format!("{cameras}[embedder]\nmodel = \"model.onnx\"\n"),
        )
        .with_context(|| config.display().to_string())?;
        let (config, results) = (config.display().to_string(), path("results"));
        let replayed = self.replay(&[
            "replay",
            "--config",
            &config,
            "--results",
            &results,
            "--serve",
            "--real-time",
        ])?;
        Ok(Summary {
            rank1_before: None,
            map_before: None,
            rank1_after: None,
            map_after: None,
            min_cosine: number(&verified, "min_cosine")?,
            idf1: None,
            fps: number(&replayed, "fps")?,
            footage: Some(Footage {
                crops,
                tracklets,
                clusters,
                identities: count(&replayed, "identities")?,
                across_cameras: count(&replayed, "across_cameras")?,
            }),
        })
    }

    /// A camera for each recording, named after it, and the detector.
    fn cameras(&self) -> Result<String> {
        let mut text = String::new();
        let mut names = BTreeSet::new();
        for (i, video) in self.videos.iter().enumerate() {
            let path = absolute(video)?;
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            let mut name: String = stem
                .chars()
                .map(|c| if plain(c) { c } else { '-' })
                .collect();
            if name.is_empty() || !names.insert(name.clone()) {
                name = format!("{name}-{}", i + 1);
                names.insert(name.clone());
            }
            // Writing to a String cannot fail; TOML reads Rust's quoting.
            let _ = writeln!(
                text,
                "[[camera]]\nname = {name:?}\nsource = {:?}",
                path.display().to_string()
            );
        }
        if let Some(detector) = &self.detector {
            let model = absolute(detector)?.display().to_string();
            let _ = writeln!(text, "[detector]\nkind = \"onnx\"\nmodel = {model:?}");
        }
        Ok(text)
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("cannot read {}", path.display()))
}

fn count(row: &Value, key: &str) -> Result<u64> {
    row[key]
        .as_u64()
        .with_context(|| format!("no count `{key}` in {row}"))
}
