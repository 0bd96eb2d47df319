//! The folder a training writes: see docs/ARCHITECTURE.md, "A run folder".

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use reid_models::files::{self, FileError};
use reid_models::weights::Weights;
use reid_models::{Graph, ModelCard};
use serde::{Deserialize, Serialize};

use crate::config::{RunConfig, usage};

/// A run folder on disk.
#[derive(Clone, Debug)]
pub struct RunFolder {
    /// Where it is.
    pub path: PathBuf,
}

/// What `--resume` needs besides the networks: where the run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Epochs finished.
    pub epochs_done: usize,
    /// Where the weights started, for the card.
    pub init: String,
}

/// A checkpoint: everything that changes while training.
pub struct Checkpoint {
    /// Where the run stands.
    pub progress: Progress,
    /// Networks, memories and optimiser moments, one file each.
    pub weights: BTreeMap<String, Weights>,
}

impl RunFolder {
    /// Makes the folder for a new run and writes `config.toml` and `graph.json`.
    ///
    /// # Errors
    /// If it can't be written, or already holds a run.
    pub fn create(path: &Path, config: &RunConfig, graph: &Graph) -> Result<Self> {
        let run = RunFolder {
            path: path.to_path_buf(),
        };
        if run.file("config.toml").exists() {
            return Err(usage(format!(
                "--out {}: already holds a run; continue it with --resume, or choose another folder",
                path.display()
            )));
        }
        files::create_dir(path)?;
        files::write_atomic(&run.file("graph.json"), graph.to_json()?.as_bytes())?;
        // Last, because its presence says "here is a run".
        files::write_atomic(
            &run.file("config.toml"),
            toml::to_string_pretty(config)?.as_bytes(),
        )?;
        Ok(run)
    }

    /// Opens an existing run.
    ///
    /// # Errors
    /// If the folder holds none.
    pub fn open(path: &Path) -> Result<Self> {
        let run = RunFolder {
            path: path.to_path_buf(),
        };
        if !run.file("config.toml").exists() {
            return Err(usage(format!(
                "{}: not a run folder (it has no config.toml); `reid-train fit --out {0}` makes one",
                path.display()
            )));
        }
        Ok(run)
    }

    /// A file of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The configuration the run was started with.
    ///
    /// # Errors
    /// If it can't be read or a key is wrong.
    pub fn config(&self) -> Result<RunConfig> {
        crate::config::read(&self.file("config.toml"))
    }

    /// The network.
    ///
    /// # Errors
    /// If it can't be read or isn't one.
    pub fn graph(&self) -> Result<Graph> {
        let path = self.file("graph.json");
        Graph::from_json(&files::read_text(&path)?).with_context(|| path.display().to_string())
    }

    /// The trained weights.
    ///
    /// # Errors
    /// If the run has not finished, or the file is broken.
    pub fn weights(&self) -> Result<Weights> {
        let path = self.file("model.safetensors");
        if !path.exists() {
            return Err(usage(format!(
                "{}: the run has no model.safetensors yet; finish it with `reid-train fit ... --resume`",
                self.path.display()
            )));
        }
        Ok(Weights::read(&path)?)
    }

    /// The model card.
    ///
    /// # Errors
    /// If it can't be read or isn't one.
    pub fn card(&self) -> Result<ModelCard> {
        Ok(ModelCard::read(&self.file("card.json"))?)
    }

    /// Appends one line to `metrics.jsonl`.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn log(&self, row: &serde_json::Value) -> Result<()> {
        let path = self.file("metrics.jsonl");
        let fail = |source| FileError {
            action: "cannot write",
            path: path.clone(),
            source,
        };
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(fail)?;
        let before = file.metadata().map_err(fail)?.len();
        // One write call: a crash leaves whole lines. A full disk may not: half a line is taken back.
        if let Err(source) = file.write_all(format!("{row}\n").as_bytes()) {
            let _ = file.set_len(before);
            return Err(fail(source).into());
        }
        Ok(())
    }

    /// Rows of `metrics.jsonl` of the first `epochs` epochs; a resumed run continues after them.
    ///
    /// # Errors
    /// If it can't be read or a line isn't JSON.
    pub fn metrics(&self) -> Result<Vec<serde_json::Value>> {
        let path = self.file("metrics.jsonl");
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = files::read_text(&path)?;
        // A last line without an end was never finished; its epoch has no checkpoint and is done again.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .enumerate()
            .map(|(n, line)| {
                serde_json::from_str(line)
                    .with_context(|| format!("{}, line {}", path.display(), n + 1))
            })
            .collect()
    }

    /// Drops rows of epochs after `epochs_done`: they were written by a run that died before its checkpoint. `None`: there is
    /// no checkpoint, and even the row before the first epoch will be written again.
    ///
    /// # Errors
    /// If the file can't be read or written.
    pub fn trim_metrics(&self, epochs_done: Option<usize>) -> Result<()> {
        let rows = self.metrics()?;
        let kept: String = rows
            .iter()
            .filter(|row| {
                row["epoch"]
                    .as_u64()
                    .is_none_or(|e| epochs_done.is_some_and(|done| e <= done as u64))
            })
            .map(|row| format!("{row}\n"))
            .collect();
        Ok(files::write_atomic(
            &self.file("metrics.jsonl"),
            kept.as_bytes(),
        )?)
    }

    /// Replaces `state/` as a whole: at every instant there is either the old checkpoint or the new one.
    ///
    /// # Errors
    /// If it can't be written; the old one then stays.
    pub fn save_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let (state, new, old) = (
            self.file("state"),
            self.file("state.new"),
            self.file("state.old"),
        );
        let clear = |path: &Path| -> Result<(), FileError> {
            match fs::remove_dir_all(path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(FileError {
                    action: "cannot remove",
                    path: path.to_path_buf(),
                    source,
                }),
                _ => Ok(()),
            }
        };
        clear(&new)?;
        if let Err(error) = fill(&new, checkpoint) {
            // Best effort: a full disk needs the room, the first error is the one worth reporting.
            let _ = clear(&new);
            let kept = match self.checkpointed_epochs() {
                Some(epochs) => format!("the one of epoch {epochs} is whole"),
                None => "there was none before".into(),
            };
            return Err(error.context(format!(
                "the checkpoint of epoch {} was not saved, {kept}; make room, then continue with --resume",
                checkpoint.progress.epochs_done
            )));
        }
        let rename = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(|source| FileError {
                action: "cannot rename",
                path: from.to_path_buf(),
                source,
            })
        };
        if state.exists() {
            clear(&old)?;
            rename(&state, &old)?;
        }
        rename(&new, &state)?;
        clear(&old)?;
        Ok(())
    }

    /// Where the checkpoint is; a crash between the two renames leaves the old one under its second name.
    fn checkpoint_folder(&self) -> Option<PathBuf> {
        ["state", "state.old"]
            .map(|n| self.file(n))
            .into_iter()
            .find(|p| p.exists())
    }

    fn checkpointed_epochs(&self) -> Option<usize> {
        let text = fs::read_to_string(self.checkpoint_folder()?.join("progress.json")).ok()?;
        let progress: Progress = serde_json::from_str(&text).ok()?;
        Some(progress.epochs_done)
    }

    /// The last checkpoint, if there is one.
    ///
    /// # Errors
    /// If it is broken.
    pub fn load_checkpoint(&self) -> Result<Option<Checkpoint>> {
        let Some(folder) = self.checkpoint_folder() else {
            return Ok(None);
        };
        let path = folder.join("progress.json");
        let progress = serde_json::from_str(&files::read_text(&path)?)
            .with_context(|| path.display().to_string())?;
        let mut weights = BTreeMap::new();
        let entries = fs::read_dir(&folder).map_err(|source| FileError {
            action: "cannot read",
            path: folder.clone(),
            source,
        })?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "safetensors")
                && let Some(name) = path.file_stem()
            {
                weights.insert(name.to_string_lossy().into_owned(), Weights::read(&path)?);
            }
        }
        Ok(Some(Checkpoint { progress, weights }))
    }
}

/// Writes a checkpoint into a new folder.
fn fill(folder: &Path, checkpoint: &Checkpoint) -> Result<()> {
    files::create_dir(folder)?;
    for (name, weights) in &checkpoint.weights {
        weights.write(&folder.join(format!("{name}.safetensors")))?;
    }
    let json = serde_json::to_string_pretty(&checkpoint.progress)?;
    files::write_atomic(&folder.join("progress.json"), json.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(dir: &Path) -> RunFolder {
        let config = crate::config::load("ice", Some("ice_small"), None, &[]).unwrap();
        let graph = config.model.backbone().unwrap().build().unwrap();
        RunFolder::create(&dir.join("run"), &config, &graph).unwrap()
    }

    fn checkpoint(epochs_done: usize) -> Checkpoint {
        let tensors = BTreeMap::from([("a".to_string(), (vec![2], vec![1.0, epochs_done as f32]))]);
        Checkpoint {
            progress: Progress {
                epochs_done,
                init: "random".into(),
            },
            weights: BTreeMap::from([("student".to_string(), Weights { tensors })]),
        }
    }

    #[test]
    fn a_run_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let first = run(dir.path());
        let err = RunFolder::create(
            &first.path,
            &first.config().unwrap(),
            &first.graph().unwrap(),
        )
        .unwrap_err();
        assert!(err.to_string().contains("--resume"));
        assert!(
            RunFolder::open(dir.path())
                .unwrap_err()
                .to_string()
                .contains("config.toml")
        );
        assert!(
            first
                .weights()
                .unwrap_err()
                .to_string()
                .contains("--resume")
        );
    }

    #[test]
    fn a_checkpoint_survives_a_crash_between_the_renames() {
        let dir = tempfile::tempdir().unwrap();
        let run = run(dir.path());
        assert!(run.load_checkpoint().unwrap().is_none());
        run.save_checkpoint(&checkpoint(1)).unwrap();
        run.save_checkpoint(&checkpoint(2)).unwrap();
        assert!(!run.file("state.old").exists() && !run.file("state.new").exists());
        fs::rename(run.file("state"), run.file("state.old")).unwrap();
        let found = run.load_checkpoint().unwrap().unwrap();
        assert_eq!(found.progress.epochs_done, 2);
        assert_eq!(found.weights["student"].tensors["a"].1, [1.0, 2.0]);
        // The next save repairs the layout.
        run.save_checkpoint(&checkpoint(3)).unwrap();
        assert_eq!(
            run.load_checkpoint().unwrap().unwrap().progress.epochs_done,
            3
        );
    }

    #[test]
    fn metrics_of_a_lost_epoch_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let run = run(dir.path());
        for epoch in 1..=3 {
            run.log(&serde_json::json!({"epoch": epoch, "loss": 1.0}))
                .unwrap();
        }
        run.trim_metrics(Some(2)).unwrap();
        assert_eq!(run.metrics().unwrap().len(), 2);
        // Half a line, as a full disk may leave it.
        let path = run.file("metrics.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{{\"epoch\": 3, \"lo")).unwrap();
        assert_eq!(run.metrics().unwrap().len(), 2);
        run.trim_metrics(Some(2)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        run.trim_metrics(None).unwrap();
        assert!(run.metrics().unwrap().is_empty());
    }
}
