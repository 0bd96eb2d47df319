//! `./reid bench edge`: the edge runtime beside what a Python user would build from OpenCV, onnxruntime and BoxMOT.
//!
//! Each round runs our process and the peer's one after the other, in turn first and second, so that a machine that slows
//! down slows both; a ratio is that of one round. Both sides use the same file of ONNX Runtime, the same models and the same
//! recordings. The peer gets the best of several thread settings, tried before the rounds. BoxMOT is AGPL: it is installed
//! into the bench's own folder and run, and nothing of it is read or used.

mod appearance;
mod barcode;
mod child;
mod clock;
mod live;
mod overhead;
mod peers;
mod plaza;
mod recording;
mod report;
mod server;
mod site;
mod start;
mod tracker;
pub mod work;

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::worlds::WorldBench;
use overhead::Limits;
use peers::Peers;
use report::Table;
use site::Site;

/// Rows of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// A real recording, every confirmed crop embedded: frames a second and memory.
    Plaza,
    /// The same with the embedding budget, and what the budget does to IDF1.
    Budget,
    /// What the pipeline costs beyond decoding and models.
    Overhead,
    /// Four live cameras: drops and latency.
    Live,
    /// The tracker alone: speed and quality.
    Tracker,
    /// From start to the first event.
    Start,
    /// IDF1 across cameras of simulated worlds, with a model of each site and with a colour histogram.
    Worlds,
}

impl Part {
    /// All of them, in the order of the table.
    pub const ALL: [Part; 7] = [
        Part::Plaza,
        Part::Budget,
        Part::Overhead,
        Part::Live,
        Part::Tracker,
        Part::Start,
        Part::Worlds,
    ];
}

/// The bench as it is asked for.
pub struct EdgeBench {
    /// Folder for recordings, worlds and the peers' packages.
    pub folder: PathBuf,
    /// Rounds of each row.
    pub rounds: usize,
    /// Seconds of each round with live cameras.
    pub seconds: f64,
    /// Rows to measure.
    pub parts: Vec<Part>,
    /// One JSON object as the last line instead of Markdown.
    pub json: bool,
    /// For [`Part::Worlds`].
    pub worlds: WorldBench,
    /// For [`Part::Worlds`]: one model for all sites.
    pub model: Option<PathBuf>,
}

impl EdgeBench {
    /// Measures every row and prints it as soon as it is known.
    ///
    /// # Errors
    /// If the peers can't be fetched, `REID_MEDIA` is not set, or a measurement fails.
    pub fn run(&self) -> Result<()> {
        let mut done = json!({});
        let beside: Vec<Part> = self
            .parts
            .iter()
            .copied()
            .filter(|p| *p != Part::Worlds)
            .collect();
        if !beside.is_empty() {
            done = self.beside_peers(&beside)?;
        }
        if self.parts.contains(&Part::Worlds) {
            self.worlds.edge(self.model.as_deref())?;
        }
        if self.json {
            println!("{done}");
        }
        Ok(())
    }

    fn beside_peers(&self, parts: &[Part]) -> Result<Value> {
        let folder = self.folder.join("edge");
        let peers = Peers::prepare(&folder.join("peers"))?;
        let site = Site::prepare(&folder, peers.library()?)?;
        let mut bench = Bench {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            table: Table::new(self.json),
            rounds: self.rounds.max(1),
            seconds: self.seconds,
            setting: None,
            limits: None,
            peers,
            site,
        };
        bench.table.say(&format!(
            "Peers: {}; {} cores, load {} before the start. Median (least to most) of {} rounds.",
            bench.peers.description(),
            bench.cores,
            load(),
            bench.rounds
        ));
        for part in parts {
            match part {
                Part::Plaza => bench.plaza()?,
                Part::Budget => bench.budget()?,
                Part::Overhead => bench.overhead()?,
                Part::Live => bench.live()?,
                Part::Tracker => bench.tracker()?,
                Part::Start => bench.start()?,
                Part::Worlds => {}
            }
        }
        Ok(json!({
            "rows": bench.table.rows(), "cores": bench.cores, "rounds": bench.rounds, "seconds": self.seconds,
            "peers": bench.peers.versions,
        }))
    }
}

/// Load of the machine over the last minute: anything near the number of cores is no quiet machine.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").into()
}

/// How the peer's sessions run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Setting {
    /// Threads of a session; 0 leaves the default.
    threads: usize,
    /// Whether idle threads spin, as is the default.
    spin: bool,
}

impl Setting {
    fn arguments(self) -> [String; 2] {
        [self.threads.to_string(), u8::from(self.spin).to_string()]
    }

    fn text(self) -> String {
        let threads = match self.threads {
            0 => "default threads".to_owned(),
            1 => "1 thread".to_owned(),
            n => format!("{n} threads"),
        };
        let spin = if self.spin { "" } else { ", no spinning" };
        format!("{threads}{spin}")
    }
}

/// The bench at work.
struct Bench {
    site: Site,
    peers: Peers,
    table: Table,
    rounds: usize,
    seconds: f64,
    cores: usize,
    /// The peer's best setting, once it was looked for.
    setting: Option<Setting>,
    /// Processor time of decoding and models alone, once measured.
    limits: Option<Limits>,
}

/// Both sides of the rounds of a row.
struct Rounds {
    ours: Vec<Value>,
    peer: Vec<Value>,
}

impl Bench {
    /// Both sides, one after the other; who is first changes with every round.
    fn rounds(
        &self,
        ours: impl Fn() -> Result<Value>,
        peer: impl Fn() -> Result<Value>,
    ) -> Result<Rounds> {
        let mut rounds = Rounds {
            ours: Vec::new(),
            peer: Vec::new(),
        };
        for round in 0..self.rounds {
            if round % 2 == 0 {
                rounds.ours.push(ours()?);
                rounds.peer.push(peer()?);
            } else {
                rounds.peer.push(peer()?);
                rounds.ours.push(ours()?);
            }
        }
        Ok(rounds)
    }
}
