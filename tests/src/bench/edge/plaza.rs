//! A real recording from file to embeddings: frames a second, processor time and peak memory.
//!
//! Ours runs with every gate and budget for crops off, so each box of a confirmed tracklet is embedded; how many that is in
//! every frame is counted first, and the peer embeds as many in the same frame. Its tracker confirms at other moments, so
//! counting its own boxes would compare different work. The budget's row holds our shipped budget against the same peer.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::child::words;
use super::report::{Reach, Row, Spread};
use super::site::{BUDGET, EVERY_CROP};
use super::{Bench, Rounds, Setting};

const MIB: f64 = (1 << 20) as f64;
/// Frames of a trial of the peer's settings.
const TRIAL: usize = 150;
/// Settings that a careful user would try.
const SETTINGS: [Setting; 4] = [
    Setting {
        threads: 0,
        spin: true,
    },
    Setting {
        threads: 0,
        spin: false,
    },
    Setting {
        threads: 1,
        spin: false,
    },
    Setting {
        threads: 2,
        spin: false,
    },
];
/// Worlds on which the budget must not cost IDF1.
const SEEDS: [u64; 3] = [51, 52, 53];

/// What the peer is to embed: a number for every frame.
pub struct Counts {
    file: PathBuf,
    /// Embeddings in all.
    pub total: u64,
}

impl Bench {
    /// Every confirmed crop embedded.
    pub fn plaza(&mut self) -> Result<()> {
        let config = self.site.plaza_config("plaza-every.toml", EVERY_CROP)?;
        let counts = self.counts(&config)?;
        let setting = self.setting(&counts)?;
        let rounds = self.over_plaza(&config, &counts, setting)?;
        let embedded = Spread::of(&rounds.ours, "timings.crops")?;
        let theirs = Spread::of(&rounds.peer, "embeddings")?;
        let same = |s: &Spread| s.values().iter().all(|v| *v == counts.total as f64);
        ensure!(
            same(&embedded) && same(&theirs),
            "ours embedded {:?}, the peer {:?}, wanted {} in every round",
            embedded.values(),
            theirs.values(),
            counts.total
        );
        let title = format!(
            "plaza.mp4, 768 x 576: decode, YOLOX-nano, track, every confirmed crop embedded ({} on both sides), frames/s",
            counts.total
        );
        self.speed(&title, &rounds, 1.8, setting)?;
        self.memory(&rounds, Some(1.0 / 3.0))?;
        self.processor(&rounds)
    }

    /// The shipped budget against the peer that embeds every crop, and against ourselves on worlds.
    pub fn budget(&mut self) -> Result<()> {
        let every = self.site.plaza_config("plaza-every.toml", EVERY_CROP)?;
        let counts = self.counts(&every)?;
        let setting = self.setting(&counts)?;
        let config = self.site.plaza_config("plaza-budget.toml", BUDGET)?;
        let rounds = self.over_plaza(&config, &counts, setting)?;
        let title = format!(
            "the same with the embedding budget ({:.0} embeddings, the peer {}), frames/s",
            Spread::of(&rounds.ours, "timings.crops")?.median(),
            counts.total
        );
        self.speed(&title, &rounds, 3.0, setting)?;
        self.memory(&rounds, None)?;
        self.processor(&rounds)?;
        self.budget_on_worlds()
    }

    /// IDF1 over all cameras of worlds, with the budget and with every crop.
    fn budget_on_worlds(&mut self) -> Result<()> {
        let detector = self.world_detector()?;
        let (mut budget, mut every) = (Vec::new(), Vec::new());
        let (mut budget_crops, mut every_crops) = (0, 0);
        for seed in SEEDS {
            let world = self.site.world("sparse", seed)?;
            let replay = |name: &str, crops: &str| -> Result<(f64, u64)> {
                let file = format!("world-sparse-{seed}-{name}.toml");
                let sections = world.sections();
                let config = self
                    .site
                    .config(&file, &sections, &detector.section, crops, "")?;
                let report = self.site.replay(&config, &[&"--gt", &world.truth()])?;
                let idf1 = report["idf1"].as_f64().context("no number `idf1`")?;
                let crops = report["timings"]["crops"].as_u64();
                Ok((idf1, crops.context("no number `timings.crops`")?))
            };
            let with = replay("budget", BUDGET)?;
            let without = replay("every", EVERY_CROP)?;
            budget.push(with.0);
            every.push(without.0);
            budget_crops += with.1;
            every_crops += without.1;
        }
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let list = |v: &[f64]| {
            let all: Vec<String> = v.iter().map(|x| format!("{x:.3}")).collect();
            format!("{:.3} ({})", mean(v), all.join(", "))
        };
        self.table.push(Row {
            work: format!(
                "  IDF1 over the cameras of three sparse worlds ({}), mean (each); \"peer\": ours with every crop",
                detector.name
            ),
            ours: list(&budget),
            peer: list(&every),
            ratio: format!("{:.2}", mean(&budget) / mean(&every)),
            reach: Reach::holds("no lower", mean(&budget) >= mean(&every) - 5e-4),
            limit: format!("{budget_crops} embeddings against {every_crops}"),
            numbers: json!({"budget": budget, "every": every, "seeds": SEEDS,
                "budget_crops": budget_crops, "every_crops": every_crops}),
        });
        Ok(())
    }

    fn over_plaza(&self, config: &Path, counts: &Counts, setting: Setting) -> Result<Rounds> {
        self.rounds(
            || self.site.replay(config, &[]),
            || self.peer_replay(counts, setting, 0),
        )
    }

    fn speed(&mut self, title: &str, rounds: &Rounds, least: f64, setting: Setting) -> Result<()> {
        let (ours, peer) = (
            Spread::of(&rounds.ours, "fps")?,
            Spread::of(&rounds.peer, "fps")?,
        );
        let ratio = ours.over(&peer);
        let frames = Spread::of(&rounds.ours, "frames")?.median();
        let crops = Spread::of(&rounds.ours, "timings.crops")?.median();
        let limit = frames / self.limits()?.seconds(frames, crops, self.cores);
        self.table.push(Row {
            work: title.into(),
            ours: ours.text(1),
            peer: format!("{}, {}", peer.text(1), setting.text()),
            ratio: ratio.text(2),
            reach: Reach::at_least(ratio.median(), least),
            limit: format!(
                "{limit:.0} frames/s, decoder and models alone on {} cores: at {:.0} %",
                self.cores,
                100.0 * ours.median() / limit
            ),
            numbers: json!({"ours": ours.values(), "peer": peer.values(), "ratio": ratio.values(), "limit": limit,
                "crops": crops, "frames": frames, "peer_stages": rounds.peer.last().map(|p| p["stages"].clone()),
                "our_timings": rounds.ours.last().map(|o| o["timings"].clone())}),
        });
        Ok(())
    }

    fn memory(&mut self, rounds: &Rounds, most: Option<f64>) -> Result<()> {
        let ours = Spread::of(&rounds.ours, "process_peak_bytes")?.times(1.0 / MIB);
        let peer = Spread::of(&rounds.peer, "process_peak_bytes")?.times(1.0 / MIB);
        let import = Spread::of(&rounds.peer, "tracker_import_bytes")?.median() / MIB;
        let ratio = ours.over(&peer);
        self.table.push(Row {
            work: "  peak resident memory of the process, MiB".into(),
            ours: ours.text(0),
            peer: peer.text(0),
            ratio: ratio.text(2),
            reach: most.map_or_else(Reach::none, |m| Reach::at_most(ratio.median(), m, "1/3")),
            limit: format!("the peer's import of BoxMOT, and PyTorch with it, brings {import:.0}"),
            numbers: json!({"ours": ours.values(), "peer": peer.values(), "ratio": ratio.values(),
                "peer_import": import}),
        });
        Ok(())
    }

    fn processor(&mut self, rounds: &Rounds) -> Result<()> {
        let a_frame = |side: &[Value]| -> Result<Spread> {
            let spent = Spread::of(side, "cpu_secs")?.times(1e3);
            Ok(spent.over(&Spread::of(side, "frames")?))
        };
        let (ours, peer) = (a_frame(&rounds.ours)?, a_frame(&rounds.peer)?);
        self.table.push(Row {
            work: "  processor time a frame, start included, ms".into(),
            ours: ours.text(1),
            peer: peer.text(1),
            ratio: ours.over(&peer).text(2),
            numbers: json!({"ours": ours.values(), "peer": peer.values()}),
            ..Row::default()
        });
        Ok(())
    }

    /// The peer's best setting, by trial on the beginning of the recording.
    pub fn setting(&mut self, counts: &Counts) -> Result<Setting> {
        if let Some(setting) = self.setting {
            return Ok(setting);
        }
        let mut best: Option<(f64, Setting)> = None;
        let mut tried = Vec::new();
        for setting in SETTINGS {
            let done = self.peer_replay(counts, setting, TRIAL)?;
            let fps = done["fps"].as_f64().context("no number `fps`")?;
            tried.push(format!("{} {fps:.1}", setting.text()));
            if best.is_none_or(|(most, _)| fps > most) {
                best = Some((fps, setting));
            }
        }
        let (_, setting) = best.context("no setting was tried")?;
        self.table.say(&format!(
            "The peer's settings of onnxruntime over {TRIAL} frames, frames/s: {}. Taken: {}.",
            tried.join("; "),
            setting.text()
        ));
        self.setting = Some(setting);
        Ok(setting)
    }

    /// As [`Bench::setting`], where no crops have been counted.
    pub fn any_setting(&mut self) -> Result<Setting> {
        if let Some(setting) = self.setting {
            return Ok(setting);
        }
        let config = self.site.plaza_config("plaza-every.toml", EVERY_CROP)?;
        let counts = self.counts(&config)?;
        self.setting(&counts)
    }

    /// How many crops a configuration of ours embeds in every frame of the recording.
    fn counts(&self, config: &Path) -> Result<Counts> {
        let results = self.site.path("plaza-results");
        let report = self
            .site
            .replay(config, &[&"--tracklets", &"--results", &results])?;
        let frames = report["frames"].as_u64().context("no number `frames`")?;
        let total = report["timings"]["crops"].as_u64();
        let total = total.context("no number `timings.crops`")?;
        let mut counts = vec![0u64; frames as usize];
        for row in reid_edge::score::read_results(&results.join("plaza.txt"))? {
            if let Some(count) = counts.get_mut((row.frame as usize).saturating_sub(1)) {
                *count += 1;
            }
        }
        let boxes: u64 = counts.iter().sum();
        ensure!(
            total <= boxes,
            "{total} crops of {boxes} boxes: more than one of a box"
        );
        // A box narrower than 8 pixels is no crop: somewhere, one fewer.
        let mut over = boxes - total;
        for count in counts.iter_mut().rev() {
            let less = over.min(*count);
            *count -= less;
            over -= less;
        }
        let file = self.site.path("plaza-counts.txt");
        let text: String = counts.iter().map(|c| format!("{c}\n")).collect();
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        Ok(Counts { file, total })
    }

    /// The peer over the recording; `frames` 0 means all.
    fn peer_replay(&self, counts: &Counts, setting: Setting, frames: usize) -> Result<Value> {
        let [threads, spin] = setting.arguments();
        self.peers.run(&words(&[
            &"replay",
            &self.site.plaza(),
            &self.site.detector(),
            &self.site.embedder(),
            &counts.file,
            &threads,
            &spin,
            &frames.to_string(),
        ]))
    }
}
