//! The tracker alone: recorded detections into ours, BoxMOT's ByteTrack and BoT-SORT (without appearance), and two trackers of
//! the crate trackforge (through its Python package), which would be taken instead of ours if they followed people as well.
//!
//! Detections are found once and written down in MOTChallenge format; all trackers get the same. Only the calls of `update`
//! are timed. The peers run twice, as they come and with lost people kept for two seconds as ours keeps them; the better
//! score of the two is theirs. Scores are motmetrics' and TrackEval's, for all alike, on tracklets within each camera.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use reid_edge::score;
use serde_json::{Value, json};

use super::Bench;
use super::child::words;
use super::report::{Reach, Row, Spread};
use super::site::World;

/// Presets of worlds, and seeds that were opened for this table.
const PRESETS: [&str; 3] = ["sparse", "crowded", "twins"];
const SEEDS: [u64; 3] = [51, 52, 53];
/// Frames per second of the recording and of the worlds.
const FPS: u32 = 10;
/// Frames for which a lost person is kept in the peers' second setting: two seconds, our default.
const LOST_FRAMES: u32 = 20;
/// The peers' trackers, and how many times as fast ours is to be.
const KINDS: [(&str, &str, Option<f64>); 4] = [
    ("bytetrack", "BoxMOT's ByteTrack", Some(20.0)),
    ("botsort", "BoxMOT's BoT-SORT", Some(20.0)),
    ("trackforge-byte", "trackforge's ByteTrack", None),
    ("trackforge-oc", "trackforge's OC-SORT", None),
];

/// How people are found in worlds.
#[derive(Clone, Debug)]
pub struct WorldDetector {
    /// `motion` or `YOLOX-nano`.
    pub name: &'static str,
    /// Its `[detector]`.
    pub section: String,
}

/// Detections of one video and its truth.
pub(super) struct Sequence {
    video: PathBuf,
    detections: PathBuf,
    truth: Option<PathBuf>,
    size: (usize, usize),
    frames: u64,
    /// Results are written beside this, with the tracker's name.
    results: PathBuf,
}

impl Sequence {
    /// File of a tracker's results.
    pub(super) fn results(&self, tracker: &str) -> PathBuf {
        self.results.with_extension(format!("{tracker}.txt"))
    }
}

impl Bench {
    /// Speed on the real recording, speed and quality on worlds.
    pub fn tracker(&mut self) -> Result<()> {
        let sequence = self.plaza_sequence()?;
        self.tracker_speed("plaza.mp4", std::slice::from_ref(&sequence), self.rounds)?;
        let detector = self.world_detector()?;
        for preset in PRESETS {
            let (mut sequences, mut worlds) = (Vec::new(), Vec::new());
            for seed in SEEDS {
                let world = self.site.world(preset, seed)?;
                sequences.extend(self.world_sequences(&world, &detector)?);
                worlds.push(world);
            }
            let title = format!("{preset} worlds, {}", detector.name);
            self.tracker_speed(&title, &sequences, 1)?;
            self.tracker_quality(&title, &sequences)?;
            self.appearance(&title, &worlds, &sequences, &detector)?;
        }
        Ok(())
    }

    fn plaza_sequence(&self) -> Result<Sequence> {
        // Also the weak detections, which ByteTrack is about.
        let section = format!("{}score = 0.1\n", self.site.yolox());
        let camera = (
            "plaza".to_owned(),
            format!("source = {:?}", self.site.plaza()),
        );
        let config = self
            .site
            .config("plaza-weak.toml", &[camera], &section, "", "")?;
        let folder = self.site.path("plaza-detections");
        let found = self
            .site
            .measure(&words(&[&"detections", &config, &folder]))?;
        Ok(Sequence {
            video: self.site.plaza(),
            detections: folder.join("plaza.txt"),
            truth: None,
            size: (768, 576),
            frames: found["frames"].as_u64().context("no number `frames`")?,
            results: self.site.path("plaza-tracked"),
        })
    }

    /// YOLOX-nano, unless the motion detector finds simulated people better (F1 of boxes over the sparse worlds).
    pub fn world_detector(&mut self) -> Result<WorldDetector> {
        let candidates = [
            WorldDetector {
                name: "YOLOX-nano",
                section: format!("{}score = 0.1\n", self.site.yolox()),
            },
            WorldDetector {
                name: "motion detector",
                section: "[detector]\nkind = \"motion\"\n".into(),
            },
        ];
        let mut best: Option<(f64, WorldDetector)> = None;
        let mut said = Vec::new();
        for detector in candidates {
            let (mut precision, mut recall) = (0.0, 0.0);
            for seed in SEEDS {
                let world = self.site.world("sparse", seed)?;
                for sequence in self.world_sequences(&world, &detector)? {
                    let truth = sequence.truth.context("a world without truth")?;
                    let (p, r) = found(&truth, &sequence.detections)?;
                    let parts = (SEEDS.len() * world.cameras.len()) as f64;
                    precision += p / parts;
                    recall += r / parts;
                }
            }
            let f1 = 2.0 * precision * recall / (precision + recall).max(1e-9);
            said.push(format!(
                "{} precision {precision:.2}, recall {recall:.2}",
                detector.name
            ));
            if best.as_ref().is_none_or(|(most, _)| f1 > *most) {
                best = Some((f1, detector));
            }
        }
        let (_, detector) = best.context("no detector")?;
        self.table.say(&format!(
            "Detections of simulated people in the sparse worlds: {}. Taken: {}.",
            said.join("; "),
            detector.name
        ));
        Ok(detector)
    }

    /// Detections of every camera of a world; found once.
    fn world_sequences(&self, world: &World, detector: &WorldDetector) -> Result<Vec<Sequence>> {
        let kind = detector.name.split(['-', ' ']).next().unwrap_or_default();
        let folder = world.file(&format!("detections-{kind}"));
        let told = folder.join("found.json");
        if !told.is_file() {
            let file = world.file(&format!("detections-{kind}.toml"));
            let name = file.display().to_string();
            let config = self
                .site
                .config(&name, &world.sections(), &detector.section, "", "")?;
            let found = self
                .site
                .measure(&words(&[&"detections", &config, &folder]))?;
            fs::write(&told, found.to_string()).with_context(|| told.display().to_string())?;
        }
        let found: Value = serde_json::from_str(&fs::read_to_string(&told)?)?;
        let frames = found["frames"].as_u64().context("no number `frames`")?;
        Ok(world
            .cameras
            .iter()
            .map(|camera| Sequence {
                video: world.video(camera),
                detections: folder.join(format!("{camera}.txt")),
                truth: Some(world.truth().join(format!("{camera}.txt"))),
                size: (640, 360),
                frames: frames / world.cameras.len() as u64,
                results: folder.join(format!("{camera}-tracked")),
            })
            .collect())
    }

    /// Frames per second over sequences; every tracker's results are left beside them.
    fn tracker_speed(&mut self, title: &str, sequences: &[Sequence], rounds: usize) -> Result<()> {
        let (mut ours, mut theirs) = (Vec::new(), KINDS.map(|_| Vec::new()));
        let mut boxes = 0.0;
        for _ in 0..rounds {
            let (mut frames, mut seconds) = (0.0, 0.0);
            boxes = 0.0;
            for s in sequences {
                let done = self.site.measure(&words(&[
                    &"track",
                    &s.detections,
                    &s.frames.to_string(),
                    &FPS.to_string(),
                    &s.size.0.to_string(),
                    &s.size.1.to_string(),
                    &s.results("ours"),
                ]))?;
                let number = |key: &str| done[key].as_f64().with_context(|| format!("no `{key}`"));
                frames += number("frames")?;
                seconds += number("frames")? / number("fps")?;
                boxes += number("boxes")?;
            }
            ours.push(frames / seconds);
            boxes /= frames;
            for ((kind, ..), fps) in KINDS.iter().zip(&mut theirs) {
                fps.push(self.peer_track(kind, sequences)?);
            }
        }
        let ours = Spread::new(ours);
        for ((_, name, reach), theirs) in KINDS.iter().zip(theirs) {
            let theirs = Spread::new(theirs);
            let ratio = ours.over(&theirs);
            self.table.push(Row {
                work: format!(
                    "tracker alone, {title} ({boxes:.1} boxes a frame), frames/s; peer: {name}"
                ),
                ours: ours.text(0),
                peer: theirs.text(0),
                ratio: ratio.text(0),
                reach: reach.map_or_else(Reach::none, |r| Reach::at_least(ratio.median(), r)),
                limit: format!(
                    "{:.1} us a frame against {:.0} us",
                    1e6 / ours.median(),
                    1e6 / theirs.median()
                ),
                numbers: json!({"ours": ours.values(), "peer": theirs.values(), "ratio": ratio.values(),
                    "boxes_a_frame": boxes}),
            });
        }
        Ok(())
    }

    /// A peer over all sequences in both settings, in one process; frames per second as it comes.
    fn peer_track(&self, kind: &str, sequences: &[Sequence]) -> Result<f64> {
        let mut jobs = Vec::new();
        for (setting, lost) in [("", 0), ("-long", LOST_FRAMES)] {
            for s in sequences {
                jobs.push(json!({
                    "kind": kind, "detections": s.detections, "video": s.video, "fps": FPS, "lost_frames": lost,
                    "results": s.results(&format!("{kind}{setting}")),
                }));
            }
        }
        let file = self.site.path("jobs.json");
        fs::write(&file, Value::from(jobs).to_string())
            .with_context(|| file.display().to_string())?;
        let done = self.peers.run(&words(&[&"track", &file]))?;
        let done = done["jobs"].as_array().context("no `jobs`")?;
        let sum = |key: &str| -> Option<f64> {
            let own = done.iter().take(sequences.len());
            own.map(|job| job[key].as_f64()).sum()
        };
        let (frames, seconds) = (sum("frames"), sum("seconds"));
        Ok(frames.context("no `frames`")? / seconds.context("no `seconds`")?)
    }

    /// Scores of a tracker's results over all sequences, each with identities of its own.
    pub(super) fn score(&self, sequences: &[Sequence], tracker: &str) -> Result<Value> {
        let mut arguments = words(&[&"score"]);
        for s in sequences {
            let truth = s.truth.as_ref().context("a sequence without truth")?;
            arguments.extend(words(&[truth, &s.results(tracker)]));
        }
        self.peers.run(&arguments)
    }

    fn tracker_quality(&mut self, title: &str, sequences: &[Sequence]) -> Result<()> {
        let ours = self.score(sequences, "ours")?;
        for (kind, name, _) in KINDS {
            let settings = [
                (self.score(sequences, kind)?, "as it comes"),
                (
                    self.score(sequences, &format!("{kind}-long"))?,
                    "lost people kept for 2 s",
                ),
            ];
            for (key, measure) in [("idf1", "IDF1"), ("hota", "HOTA")] {
                let value = |v: &Value| v[key].as_f64().with_context(|| format!("no `{key}`"));
                let mut best = (f64::NEG_INFINITY, "");
                for (scores, setting) in &settings {
                    let score = value(scores)?;
                    if score > best.0 {
                        best = (score, setting);
                    }
                }
                let own = value(&ours)?;
                self.table.push(Row {
                    work: format!("  {measure} of tracklets, {title}; peer: {name}, {}", best.1),
                    ours: format!("{own:.3}"),
                    peer: format!("{:.3}", best.0),
                    ratio: format!("{:.3}", own / best.0),
                    // The third decimal is what is printed.
                    reach: Reach::holds("no lower", own >= best.0 - 5e-4),
                    limit: format!(
                        "switches {} against {}; recall of the detections {:.3}",
                        ours["num_switches"], settings[0].0["num_switches"], self.recall(sequences)?
                    ),
                    numbers: json!({"ours": ours, "peer": settings[0].0, "peer_long": settings[1].0}),
                });
            }
        }
        Ok(())
    }

    fn recall(&self, sequences: &[Sequence]) -> Result<f64> {
        let mut sum = 0.0;
        for s in sequences {
            let truth = s.truth.as_ref().context("a sequence without truth")?;
            sum += found(truth, &s.detections)?.1;
        }
        Ok(sum / sequences.len().max(1) as f64)
    }
}

/// Precision and recall of detections.
fn found(truth: &Path, detections: &Path) -> Result<(f64, f64)> {
    let truth = score::read_truth(truth)?;
    let mut rows = score::read_results(detections)?;
    for (i, row) in rows.iter_mut().enumerate() {
        row.id = i as i64 + 1;
    }
    let scores = score::score(&truth, &rows);
    Ok((scores.precision, scores.recall))
}
