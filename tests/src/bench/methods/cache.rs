//! Trainings that are done once: a result lies under the hash of everything it depends on.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use reid_models::files::write_atomic;
use reid_train::config::PRESETS;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::plan::{Job, Seeded};
use crate::bench::worlds::{children_cpu_seconds, number};
use crate::programs;

/// Version of the results: one of other code, whose numbers would be others, gets another.
const VERSION: u32 = 1;
/// Version of the simulated world.
const WORLD: u32 = 1;

/// Rank-1 and mAP, 0..1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Share of queries whose first answer is right.
    pub rank1: f64,
    /// Mean average precision.
    pub map: f64,
}

/// What came of a training.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// For people.
    pub title: String,
    /// Before the first epoch.
    pub start: Score,
    /// After the last.
    pub last: Score,
    /// The best that was evaluated.
    pub best: Score,
    /// Clusters, outliers and lost identities of the last epoch, and what cameras say of clusters and of identities.
    pub labels: Value,
    /// User and system time of `fit`; `None` if it was interrupted.
    pub cpu_minutes: Option<f64>,
    /// What the ONNX file says.
    pub onnx: Option<Onnx>,
}

/// An exported model.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Onnx {
    /// Least cosine to the trainer over the probe and all engines.
    pub cosine: f64,
    /// mAP by the file.
    pub map: f64,
    /// mAP by the trainer, from the same weights.
    pub trainer_map: f64,
}

/// Folders of worlds and runs, and of results.
pub struct Cache {
    folder: PathBuf,
    results: PathBuf,
}

impl Cache {
    /// Opens or makes it.
    ///
    /// # Errors
    /// If a folder cannot be made.
    pub fn open(folder: &Path, results: &Path) -> Result<Self> {
        for path in [folder.join("runs"), folder.join("worlds"), results.into()] {
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        Ok(Cache {
            folder: folder.to_path_buf(),
            results: results.to_path_buf(),
        })
    }

    /// Everything that a job depends on: what its preset and its changes say, not what the defaults are. Those belong to
    /// [`VERSION`].
    fn key(job: &Job) -> Result<String> {
        let row = &job.row;
        let preset = PRESETS.iter().find(|(name, _)| *name == row.preset);
        let (_, preset) = preset.with_context(|| format!("there is no preset {}", row.preset))?;
        let preset: toml::Table = preset.parse()?;
        let init = match &job.init {
            Some(start) => Self::key(start)?,
            None => row.init.clone().unwrap_or_default(),
        };
        let mut all = json!({
            "version": VERSION, "world": [WORLD.to_string(), job.trained_on.name()],
            "preset": preset, "set": row.set, "init": init, "train_seed": row.train_seed,
        });
        if let Some((world, options)) = &job.then {
            all["then"] = json!([world.name(), options]);
        }
        let digest = Sha256::digest(all.to_string().as_bytes());
        Ok(digest.iter().take(8).map(|b| format!("{b:02x}")).collect())
    }

    fn result(&self, job: &Job) -> Result<PathBuf> {
        Ok(self.results.join(format!("{}.json", Self::key(job)?)))
    }

    /// Whether its result is there, with all that is asked for.
    pub fn knows(&self, job: &Job) -> bool {
        let known = self.get(job).ok().flatten();
        known.is_some_and(|o| o.onnx.is_some() || !job.export)
    }

    /// The result, if it is there.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn get(&self, job: &Job) -> Result<Option<Outcome>> {
        let path = self.result(job)?;
        if !path.is_file() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let outcome = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        Ok(Some(outcome))
    }

    /// Trains, or goes on with a training that was interrupted; keeps the result.
    ///
    /// # Errors
    /// If a program fails.
    pub fn run(&mut self, job: &Job) -> Result<Outcome> {
        let outcome = match &job.then {
            Some((world, options)) => self.evaluate(job, world, options)?,
            None => self.train(job)?,
        };
        let text = serde_json::to_string_pretty(&outcome)?;
        write_atomic(&self.result(job)?, text.as_bytes())?;
        if job.then.is_none() {
            // The network stays, others may start from it; what resuming needs does not.
            let _ = fs::remove_dir_all(self.folder_of(job)?.join("state"));
        }
        Ok(outcome)
    }

    /// Takes a job's training until the lock is dropped, or this process dies; `None` if another bench in the same folder has it.
    ///
    /// # Errors
    /// If the lock cannot be made.
    pub fn take(&self, job: &Job) -> Result<Option<File>> {
        let (lock, path) = self.lock(&job.training())?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| path),
        }
    }

    fn lock(&self, training: &Job) -> Result<(File, String)> {
        let path = self.folder_of(training)?.with_extension("lock");
        let name = path.display().to_string();
        let file = File::create(path).with_context(|| name.clone())?;
        Ok((file, name))
    }

    /// Folder of a training.
    fn folder_of(&self, training: &Job) -> Result<PathBuf> {
        Ok(self.folder.join("runs").join(Self::key(training)?))
    }

    /// Where a training leaves its model: it is done if it is not there.
    fn model(&mut self, training: &Job) -> Result<PathBuf> {
        let model = self.folder_of(training)?.join("model.safetensors");
        if !model.is_file() {
            self.run(training)?;
        }
        Ok(model)
    }

    /// Evaluates the model of a training elsewhere or otherwise.
    fn evaluate(&mut self, job: &Job, world: &Seeded, options: &[String]) -> Result<Outcome> {
        let training = job.training();
        let model = self.model(&training)?;
        let run = model.parent().context("a model lies in a run")?;
        let (run, data) = (run.display().to_string(), self.world(world)?);
        let mut arguments = vec!["eval", "--run", &run, "--data", &data];
        arguments.extend(options.iter().map(String::as_str));
        let result = programs::json("reid-train", &arguments)?;
        let score = find_score(&result).with_context(|| format!("no scores in {result}"))?;
        let trained = self.get(&training)?;
        Ok(Outcome {
            title: job.title(),
            start: score,
            last: score,
            best: score,
            labels: Value::Null,
            cpu_minutes: trained.and_then(|t| t.cpu_minutes),
            onnx: None,
        })
    }

    fn train(&mut self, job: &Job) -> Result<Outcome> {
        let run = self.folder_of(job)?;
        let out = run.display().to_string();
        let data = self.world(&job.trained_on)?;
        let row = &job.row;
        let mut arguments = vec![
            "fit",
            "--method",
            &row.method,
            "--data",
            &data,
            "--out",
            &out,
        ];
        let resumed = run.join("config.toml").is_file();
        let seed = format!("seed={}", row.train_seed);
        let init = match &job.init {
            Some(start) => {
                // If another bench trains it, wait.
                let (lock, path) = self.lock(start)?;
                lock.lock().with_context(|| path)?;
                Some(self.model(start)?.display().to_string())
            }
            None => row.init.clone(),
        };
        if resumed {
            arguments.push("--resume");
        } else {
            // What died before it wrote its configuration starts over.
            let _ = fs::remove_dir_all(&run);
            arguments.extend(["--preset", &row.preset]);
            for set in row.set.iter().chain([&seed]) {
                arguments.extend(["--set", set]);
            }
        }
        if let Some(init) = &init {
            arguments.extend(["--init", init]);
        }
        let before = children_cpu_seconds()?;
        let last = programs::json("reid-train", &arguments)?;
        let minutes = (children_cpu_seconds()? - before) / 60.0;
        let metrics = run.join("metrics.jsonl");
        let text = fs::read_to_string(&metrics).with_context(|| metrics.display().to_string())?;
        let rows = text.lines().map(serde_json::from_str::<Value>);
        let rows: Vec<Value> = rows.collect::<Result<_, _>>()?;
        let scores = rows.iter().filter(|r| r["map"].is_number()).map(score);
        let scores: Vec<Score> = scores.collect::<Result<_>>()?;
        let (Some(start), Some(best)) = (
            scores.first().copied(),
            scores[1..]
                .iter()
                .copied()
                .max_by(|a, b| a.map.total_cmp(&b.map)),
        ) else {
            bail!("{}: no scores", metrics.display())
        };
        let mut labels = last["pseudo_labels"].clone();
        labels["clusters"] = last["clusters"].clone();
        labels["outliers"] = last["outliers"].clone();
        Ok(Outcome {
            title: job.title(),
            start,
            best,
            last: score(&last)?,
            labels,
            cpu_minutes: (!resumed).then_some(minutes),
            onnx: job.export.then(|| self.export(&run, &data)).transpose()?,
        })
    }

    /// Exports, verifies in every engine of this machine, evaluates the file.
    fn export(&self, run: &Path, data: &str) -> Result<Onnx> {
        let (run, file) = (
            run.display().to_string(),
            run.join("model.onnx").display().to_string(),
        );
        programs::json("reid-export", &["onnx", "--run", &run, "--out", &file])?;
        let verified = programs::json("reid-export", &["verify", &file])?;
        let mut least = f64::INFINITY;
        cosines(&verified, &mut least);
        let map = |what: [&str; 2]| -> Result<f64> {
            let arguments = ["eval", what[0], what[1], "--data", data];
            let result = programs::json("reid-train", &arguments)?;
            let found = find_score(&result).with_context(|| format!("no scores in {result}"))?;
            Ok(found.map)
        };
        Ok(Onnx {
            cosine: least,
            map: map(["--onnx", &file])?,
            trainer_map: map(["--run", &run])?,
        })
    }

    /// A world as `--data` names it; it is made if it is not there.
    fn world(&self, seeded: &Seeded) -> Result<String> {
        let path = self.folder.join("worlds").join(seeded.name());
        let out = path.display().to_string();
        let kind = seeded.world.kind;
        if !path.exists() {
            // Another bench may be at work on other parts in the same folder.
            let half = format!("{out}.{}.part", std::process::id());
            let _ = fs::remove_dir_all(&half);
            let seed = seeded.seed.to_string();
            let mut arguments = vec![kind.command(), "--out", &half, "--seed", &seed];
            arguments.extend(seeded.world.options.iter().map(String::as_str));
            programs::json("reid-world", &arguments)?;
            let moved = fs::rename(&half, &path);
            if path.exists() {
                let _ = fs::remove_dir_all(&half);
            } else {
                moved.with_context(|| out.clone())?;
            }
        }
        Ok(format!("{}:{out}", kind.data()))
    }
}

fn score(row: &Value) -> Result<Score> {
    Ok(Score {
        rank1: number(row, "rank1")?,
        map: number(row, "map")?,
    })
}

/// The least of all numbers whose name speaks of the worst cosine.
fn cosines(value: &Value, least: &mut f64) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_f64() {
                    Some(cosine) if name.contains("cosine") => *least = least.min(cosine),
                    _ => cosines(field, least),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|one| cosines(one, least)),
        _ => {}
    }
}

/// The first scores in an answer of `reid-train eval`.
fn find_score(value: &Value) -> Option<Score> {
    let inside = match value {
        Value::Object(fields) => {
            if let Ok(found) = score(value) {
                return Some(found);
            }
            fields.values().collect()
        }
        Value::Array(all) => all.iter().collect(),
        _ => Vec::new(),
    };
    inside.into_iter().find_map(find_score)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::plan::{Part, Plan};
    use super::*;

    #[test]
    fn a_training_is_taken_by_one_bench_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Cache::open(folder.path(), &folder.path().join("results")).unwrap();
        let (one, other) = (open(), open());
        let plan = Plan::read(&[1], &[Part::Ablations]).unwrap();
        let jobs: Vec<Job> = plan.jobs().take(2).collect();
        let taken = one.take(&jobs[0]).unwrap();
        assert!(taken.is_some());
        assert!(other.take(&jobs[0]).unwrap().is_none());
        assert!(other.take(&jobs[1]).unwrap().is_some());
        drop(taken);
        assert!(other.take(&jobs[0]).unwrap().is_some());
    }
}
