//! `./reid demo`: from unlabelled crops to live cameras in one command.
//!
//! Everything is done by the programs a user would call, and every command is printed, so that it can be repeated.

mod video;

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use crate::programs;

/// Seed of the demonstration's site: its cameras; the people are those of the same world.
const SITE: &str = "2026";
/// Kind of place the site is; the shipped starting point comes from another.
const DOMAIN: &str = "street";

/// What `./reid demo --json` prints: one JSON object. What takes labels is `null` on somebody's own footage, which has none.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Rank-1 of the starting point, 0..1.
    pub rank1_before: Option<f64>,
    /// mAP of the starting point, 0..1.
    pub map_before: Option<f64>,
    /// Rank-1 after training without labels.
    pub rank1_after: Option<f64>,
    /// mAP after training without labels.
    pub map_after: Option<f64>,
    /// Worst cosine between the trainer's and the ONNX file's embeddings.
    pub min_cosine: f64,
    /// IDF1 over all cameras together.
    pub idf1: Option<f64>,
    /// Frames analysed per second, all cameras together.
    pub fps: f64,
    /// What was harvested and found in somebody's own footage.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub footage: Option<Footage>,
}

/// Counts of a demonstration on somebody's own footage.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Footage {
    /// Crops harvested.
    pub crops: u64,
    /// Tracklets they come from.
    pub tracklets: u64,
    /// Clusters of the last epoch: about as many people as the trainer tells apart.
    pub clusters: u64,
    /// Identities given in the replay.
    pub identities: u64,
    /// Of them, seen in several cameras.
    pub across_cameras: u64,
}

/// Options of the demonstration.
#[derive(Clone, Debug)]
pub struct Demo {
    /// Folder to work in; what an earlier demonstration left there is removed.
    pub folder: PathBuf,
    /// Recordings to demonstrate on, one for each camera; none: a simulated site.
    pub videos: Vec<PathBuf>,
    /// Person detector for the recordings, an ONNX file with a card; none: the motion detector.
    pub detector: Option<PathBuf>,
}

impl Demo {
    /// Runs it.
    ///
    /// # Errors
    /// If a step fails, naming the step.
    pub fn run(&self) -> Result<Summary> {
        let started = Instant::now();
        let folder = &self.folder;
        if folder.exists() {
            fs::remove_dir_all(folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let summary = if self.videos.is_empty() {
            self.simulated()?
        } else {
            self.footage()?
        };
        self.say("5/5  what came of it");
        self.table(&summary, started.elapsed().as_secs_f64());
        Ok(summary)
    }

    /// Where the configuration of the live part is.
    pub fn config(&self) -> PathBuf {
        let place = if self.videos.is_empty() {
            "world"
        } else {
            "site"
        };
        self.folder.join(place).join("edge.toml")
    }

    /// On a simulated site.
    fn simulated(&self) -> Result<Summary> {
        let folder = &self.folder;
        let path = |name: &str| folder.join(name).display().to_string();
        let data = format!("market1501:{}", path("crops"));

        self.say("1/5  a simulated site: three cameras, unlabelled crops of its people");
        let crops = path("crops");
        self.step(
            "reid-world",
            &[
                "crops",
                "--out",
                &crops,
                "--ids",
                "160",
                "--cameras",
                "3",
                "--per-camera",
                "6",
                "--seed",
                SITE,
                "--domain",
                DOMAIN,
            ],
        )?;

        self.say("2/5  training without labels, from a starting point of another place");
        let run = path("run");
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
        let metrics = metrics(&folder.join("run/metrics.jsonl"))?;
        let (before, after) = first_and_last(&metrics)?;

        self.say("3/5  exporting to ONNX and comparing with the trainer");
        let model = path("world/model.onnx");
        let world = path("world");
        self.step(
            "reid-world",
            &[
                "videos",
                "--out",
                &world,
                "--ids",
                "12",
                "--cameras",
                "3",
                "--seconds",
                "60",
                "--seed",
                SITE,
                "--domain",
                DOMAIN,
            ],
        )?;
        self.step("reid-export", &["onnx", "--run", &run, "--out", &model])?;
        let verified = self.step("reid-export", &["verify", &model])?;

        self.say("4/5  the three cameras, live: open http://127.0.0.1:8080");
        let (config, gt, results) = (path("world/edge.toml"), path("world/gt"), path("results"));
        let replayed = self.replay(&[
            "replay",
            "--config",
            &config,
            "--gt",
            &gt,
            "--results",
            &results,
            "--serve",
            "--real-time",
        ])?;

        Ok(Summary {
            rank1_before: Some(number(before, "rank1")?),
            map_before: Some(number(before, "map")?),
            rank1_after: Some(number(after, "rank1")?),
            map_after: Some(number(after, "map")?),
            min_cosine: number(&verified, "min_cosine")?,
            idf1: Some(number(&replayed, "idf1")?),
            fps: number(&replayed, "fps")?,
            footage: None,
        })
    }

    fn say(&self, text: &str) {
        eprintln!("\n{text}");
    }

    /// Runs a step quietly and returns its JSON.
    fn step(&self, name: &str, arguments: &[&str]) -> Result<Value> {
        self.show(name, arguments);
        programs::json(name, arguments)
    }

    /// Runs a step whose progress people want to see; it goes to standard error.
    fn live(&self, name: &str, arguments: &[&str]) -> Result<()> {
        self.show(name, arguments);
        let mut command = Command::new(programs::program(name)?);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let status = command
            .status()
            .with_context(|| format!("cannot start {name}"))?;
        if !status.success() {
            bail!("{name} failed ({status})");
        }
        Ok(())
    }

    /// The live part: identities are printed by the program as they are matched, its report is read from its last line.
    fn replay(&self, arguments: &[&str]) -> Result<Value> {
        self.show("reid-edge", arguments);
        let mut command = Command::new(programs::program("reid-edge")?);
        command
            .args(arguments)
            .arg("--json")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        let output = command.output().context("cannot start reid-edge")?;
        if !output.status.success() {
            bail!("reid-edge replay failed ({})", output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().last().unwrap_or_default();
        serde_json::from_str(line)
            .with_context(|| format!("reid-edge replay printed no JSON: {line:?}"))
    }

    fn show(&self, name: &str, arguments: &[&str]) {
        let command = name.strip_prefix("reid-").unwrap_or(name);
        eprintln!("     $ ./reid {command} {}", arguments.join(" "));
    }

    fn table(&self, s: &Summary, seconds: f64) {
        let scores = [
            ("rank-1 on people never seen", s.rank1_before, s.rank1_after),
            ("mAP", s.map_before, s.map_after),
        ];
        if s.rank1_before.is_some() {
            eprintln!("                                   before      after");
        }
        for (name, before, after) in scores {
            if let (Some(before), Some(after)) = (before, after) {
                let (before, after) = (100.0 * before, 100.0 * after);
                eprintln!("     {name:<29} {before:>5.1} %    {after:>5.1} %");
            }
        }
        if let Some(f) = &s.footage {
            eprintln!(
                "     crops harvested, tracklets, clusters      {}, {}, {}",
                f.crops, f.tracklets, f.clusters
            );
            eprintln!(
                "     identities, in several cameras            {}, {}",
                f.identities, f.across_cameras
            );
        }
        eprintln!(
            "     worst cosine, ONNX file against trainer   {:.6}",
            s.min_cosine
        );
        if let Some(idf1) = s.idf1 {
            eprintln!("     IDF1 across the three cameras             {idf1:.3}");
        }
        eprintln!(
            "     frames per second, all cameras            {:.1}",
            s.fps
        );
        eprintln!(
            "     everything is in {} ({seconds:.0} s)",
            self.folder.display()
        );
    }
}

/// Whether somebody is watching.
pub fn has_terminal() -> bool {
    std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

fn metrics(path: &Path) -> Result<Vec<Value>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| path.display().to_string()))
        .collect()
}

/// The first and the last row that has been evaluated.
fn first_and_last(rows: &[Value]) -> Result<(&Value, &Value)> {
    let evaluated: Vec<&Value> = rows.iter().filter(|row| row["map"].is_number()).collect();
    match evaluated.as_slice() {
        [first, .., last] => Ok((first, last)),
        _ => bail!("the training was evaluated fewer than two times"),
    }
}

fn number(row: &Value, key: &str) -> Result<f64> {
    row[key]
        .as_f64()
        .with_context(|| format!("no number `{key}` in {row}"))
}
