//! `./reid bench train`: training steps, clustering and evaluation beside PyTorch, faiss, scikit-learn and torchreid.
//!
//! Each round runs our process and the peer's one after the other, so that a machine that slows down slows both; a ratio is
//! that of one round. Beside each figure stands the physical limit: the floating-point operations the work cannot do without,
//! at the rate of matrix products measured in the same run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;

use super::peers::Peers;
use super::work::{CLUSTERING, Network};
use crate::programs;

/// Rows of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Training steps.
    Step,
    /// Clustering of 12,936 images.
    Cluster,
    /// Clustering of 32,621 and of 100,000 images.
    ClusterLarge,
    /// Evaluation.
    Evaluate,
}

/// The bench at work.
pub struct EngineBench {
    /// Folder for features and the peers' packages.
    pub folder: PathBuf,
    /// Rounds of each row.
    pub rounds: usize,
    /// Seconds of a training step's measurement.
    pub seconds: f64,
    /// Rows to measure.
    pub parts: Vec<Part>,
}

/// A figure over the rounds.
struct Spread(Vec<f64>);

impl Spread {
    fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn text(&self, digits: usize) -> String {
        let low = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!(
            "{:.digits$} ({low:.digits$} to {high:.digits$})",
            self.median()
        )
    }
}

/// Both sides of the rounds of one row.
struct Rounds {
    ours: Vec<Value>,
    peer: Vec<Value>,
}

impl Rounds {
    fn of(side: &[Value], key: &str) -> Result<Spread> {
        let values: Option<Vec<f64>> = side.iter().map(|v| v[key].as_f64()).collect();
        Ok(Spread(
            values.with_context(|| format!("no number `{key}`"))?,
        ))
    }

    /// Ours over the peer's, round by round, of sums of figures.
    fn ratio(&self, ours: &[&str], peer: &[&str]) -> Result<Spread> {
        let sum = |v: &Value, keys: &[&str]| -> Option<f64> {
            keys.iter().map(|key| v[*key].as_f64()).sum()
        };
        let ratios: Option<Vec<f64>> = self
            .ours
            .iter()
            .zip(&self.peer)
            .map(|(o, p)| Some(sum(o, ours)? / sum(p, peer)?))
            .collect();
        Ok(Spread(
            ratios.with_context(|| format!("no numbers {ours:?}"))?,
        ))
    }
}

fn line(work: &str, ours: &str, peer: &str, ratio: &str, limit: &str) {
    println!("| {work} | {ours} | {peer} | {ratio} | {limit} |");
}

const MIB: f64 = (1 << 20) as f64;

impl EngineBench {
    /// Measures every row and prints it as soon as it is known.
    ///
    /// # Errors
    /// If the peers can't be fetched or a measurement fails.
    pub fn run(&self) -> Result<()> {
        let peers = Peers::prepare(&self.folder.join("peers"))?;
        let peak = self.number(&["peak"], "flops_per_second")?;
        println!(
            "Matrix products, all threads: {:.0} GFLOP/s. Median (least to most) of {} rounds.\n",
            peak / 1e9,
            self.rounds
        );
        line(
            "work",
            "ours",
            "peer",
            "ours / peer",
            "limit, our distance from it",
        );
        line("---", "---", "---", "---", "---");
        for part in &self.parts {
            match part {
                Part::Step => {
                    self.step(&peers, Network::Resnet50, peak)?;
                    self.step(&peers, Network::Resnet18, peak)?;
                }
                Part::Cluster => self.cluster(&peers, 12_936, peak, true)?,
                Part::ClusterLarge => {
                    self.cluster(&peers, 32_621, peak, true)?;
                    self.cluster(&peers, 100_000, peak, false)?;
                }
                Part::Evaluate => self.evaluate(&peers, peak)?,
            }
        }
        Ok(())
    }

    fn step(&self, peers: &Peers, network: Network, peak: f64) -> Result<()> {
        let seconds = self.seconds.to_string();
        let arguments = ["step", network.name(), &seconds];
        let rounds = self.rounds(|| own(&arguments), || peers.run(&arguments))?;
        let rate = Rounds::of(&rounds.ours, "images_per_second")?;
        let theirs = Rounds::of(&rounds.peer, "images_per_second")?;
        let flops = Rounds::of(&rounds.ours, "flops_per_image")?.median();
        let title = match network {
            Network::Resnet50 => "ResNet-50, 256 x 128, batch 8, step with Adam, images/s",
            Network::Resnet18 => {
                "ResNet-18 of 16 to 128 channels, 128 x 64, batch 32, step with Adam, images/s"
            }
        };
        line(
            title,
            &rate.text(1),
            &theirs.text(1),
            &rounds
                .ratio(&["images_per_second"], &["images_per_second"])?
                .text(2),
            &format!(
                "{:.1} images/s ({:.2} GFLOP each): at {:.0} %",
                peak / flops,
                flops / 1e9,
                100.0 * rate.median() * flops / peak
            ),
        );
        self.memory(
            "  its own memory, MiB",
            &rounds,
            "parameters, gradients, moments, activations",
        )?;
        let plain = Rounds {
            peer: (0..self.rounds)
                .map(|_| own(&["candle", network.name(), &seconds]))
                .collect::<Result<_>>()?,
            ours: rounds.ours,
        };
        line(
            "  beside candle's own operators (which pool 2x2 in the stem), images/s",
            &rate.text(1),
            &Rounds::of(&plain.peer, "images_per_second")?.text(1),
            &plain
                .ratio(&["images_per_second"], &["images_per_second"])?
                .text(1),
            "",
        );
        Ok(())
    }

    fn memory(&self, title: &str, rounds: &Rounds, limit: &str) -> Result<()> {
        let mib = |side: &[Value]| -> Result<String> {
            let bytes = Rounds::of(side, "own_bytes")?;
            Ok(format!("{:.0}", bytes.median() / MIB))
        };
        line(
            title,
            &mib(&rounds.ours)?,
            &mib(&rounds.peer)?,
            &rounds.ratio(&["own_bytes"], &["own_bytes"])?.text(2),
            limit,
        );
        Ok(())
    }

    fn cluster(&self, peers: &Peers, count: usize, peak: f64, with_peer: bool) -> Result<()> {
        const WIDTH: usize = 2048;
        let features = self.features("cluster", count, WIDTH, 1)?;
        let (k1, k2, eps, samples) = CLUSTERING;
        let files = ["ours", "peer"].map(|side| self.path(&format!("labels-{count}-{side}.npy")));
        let settings = [
            k1.to_string(),
            k2.to_string(),
            eps.to_string(),
            samples.to_string(),
        ];
        let theirs = || -> Result<Value> {
            let mut arguments = vec!["cluster", &features, &files[1]];
            arguments.extend(settings.iter().map(String::as_str));
            peers.run(&arguments)
        };
        let ours = || own(&["cluster", &features, &files[0]]);
        let rounds = if with_peer {
            self.rounds(ours, theirs)?
        } else {
            Rounds {
                ours: (0..self.rounds).map(|_| ours()).collect::<Result<_>>()?,
                peer: Vec::new(),
            }
        };
        let near = Rounds::of(&rounds.ours, "neighbours_seconds")?;
        let rest = Rounds::of(&rounds.ours, "rest_seconds")?;
        // Similarity is symmetric: half of the products are enough.
        let flops = (count as f64) * (count as f64) * WIDTH as f64;
        let limit = format!(
            "{:.2} s ({:.0} GFLOP): at {:.0} %",
            flops / peak,
            flops / 1e9,
            100.0 * flops / peak / near.median()
        );
        let title = format!("{count} x {WIDTH}: exact {k1} neighbours, s");
        if !with_peer {
            line(&title, &near.text(2), "does not fit", "", &limit);
            line(
                "  Jaccard and DBSCAN, s",
                &rest.text(2),
                "does not fit",
                "",
                "",
            );
            let bytes = Rounds::of(&rounds.ours, "own_bytes")?.median() / MIB;
            let all = bytes + (count * WIDTH * 4) as f64 / MIB;
            let text = format!("{bytes:.0} beyond the features, {all:.0} with them");
            line("  memory, MiB", &text, "does not fit", "", "");
            return Ok(());
        }
        // Both must have found the same, or there is nothing to compare.
        let values = |file: &str| -> Result<Vec<u8>> {
            let bytes = fs::read(file).with_context(|| file.to_owned())?;
            // Headers may be written differently; the labels are the last 8 bytes of each image.
            Ok(bytes[bytes.len().saturating_sub(8 * count)..].to_vec())
        };
        let same = values(&files[0])? == values(&files[1])?;
        let agreement = if same { "same labels" } else { "labels differ" };
        let keys = (
            ["neighbours_seconds"],
            ["rest_seconds"],
            ["neighbours_seconds", "rest_seconds"],
        );
        let theirs = |key| Rounds::of(&rounds.peer, key);
        line(
            &title,
            &near.text(2),
            &theirs("neighbours_seconds")?.text(2),
            &rounds.ratio(&keys.0, &keys.0)?.text(3),
            &limit,
        );
        line(
            &format!("  Jaccard and DBSCAN, s ({agreement})"),
            &rest.text(2),
            &theirs("rest_seconds")?.text(2),
            &rounds.ratio(&keys.1, &keys.1)?.text(3),
            "",
        );
        line(
            "  the whole",
            "",
            "",
            &rounds.ratio(&keys.2, &keys.2)?.text(3),
            "",
        );
        self.memory("  memory beyond the features, MiB", &rounds, "N x k")
    }

    fn evaluate(&self, peers: &Peers, peak: f64) -> Result<()> {
        const SIZE: [usize; 3] = [3_368, 15_913, 2048];
        let query = self.features("query", SIZE[0], SIZE[2], 2)?;
        let gallery = self.features("gallery", SIZE[1], SIZE[2], 3)?;
        let cython = peers.cython_folder();
        let rounds = self.rounds(
            || own(&["evaluate", &query, &gallery]),
            || peers.run(&["evaluate", &query, &gallery, &cython]),
        )?;
        let (ours, theirs) = (&rounds.ours[0], &rounds.peer[0]);
        for key in ["map", "rank1"] {
            let both = (ours[key].as_f64(), theirs[key].as_f64());
            let (a, b) = (both.0.context("no score")?, both.1.context("no score")?);
            ensure!((a - b).abs() < 1e-4, "{key}: ours {a}, torchreid's {b}");
        }
        let whole = Rounds::of(&rounds.ours, "whole_seconds")?;
        let flops = 2.0 * SIZE.iter().map(|n| *n as f64).product::<f64>();
        let products = Rounds::of(&rounds.peer, "products_seconds")?;
        line(
            "evaluation, 3,368 x 15,913 x 2,048, s (peer: product + torchreid's Cython; same scores)",
            &whole.text(2),
            &format!(
                "{} + {}",
                products.text(2),
                Rounds::of(&rounds.peer, "ranking_seconds")?.text(2)
            ),
            &rounds
                .ratio(&["whole_seconds"], &["products_seconds", "ranking_seconds"])?
                .text(3),
            &format!(
                "{:.2} s ({:.0} GFLOP): at {:.0} %",
                flops / peak,
                flops / 1e9,
                100.0 * flops / peak / whole.median()
            ),
        );
        line(
            "  its ranking alone, s (peer: counting in numpy)",
            &Rounds::of(&rounds.ours, "ranking_seconds")?.text(3),
            &Rounds::of(&rounds.peer, "counting_seconds")?.text(3),
            &rounds
                .ratio(&["ranking_seconds"], &["counting_seconds"])?
                .text(2),
            "",
        );
        self.memory("  its own memory, MiB", &rounds, "")
    }

    /// A file of features, made once.
    fn features(&self, name: &str, rows: usize, width: usize, seed: u64) -> Result<String> {
        let path = self.path(&format!("{name}-{rows}.npy"));
        if !Path::new(&path).exists() {
            let (rows, width, seed) = (rows.to_string(), width.to_string(), seed.to_string());
            own(&["features", &path, &rows, &width, &seed])?;
        }
        Ok(path)
    }

    fn rounds(
        &self,
        ours: impl Fn() -> Result<Value>,
        peer: impl Fn() -> Result<Value>,
    ) -> Result<Rounds> {
        let mut rounds = Rounds {
            ours: Vec::new(),
            peer: Vec::new(),
        };
        for _ in 0..self.rounds {
            rounds.ours.push(ours()?);
            rounds.peer.push(peer()?);
        }
        Ok(rounds)
    }

    fn number(&self, arguments: &[&str], key: &str) -> Result<f64> {
        own(arguments)?[key]
            .as_f64()
            .with_context(|| format!("no number `{key}`"))
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// One of our measurements, in a process of its own.
fn own(arguments: &[&str]) -> Result<Value> {
    let mut all = vec!["measure"];
    all.extend(arguments);
    let finished = programs::run("reid-bench", &all)?;
    ensure!(
        finished.code == 0,
        "reid-bench {}: {}",
        all.join(" "),
        finished.stderr.trim()
    );
    finished.json()
}
