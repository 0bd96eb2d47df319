//! Crops: a data set in Market-1501 layout.
//!
//! `bounding_box_train`, `query`, `bounding_box_test` hold JPEG files `PPPP_cCsS_FFFFFF_BB.jpg` (identity,
//! camera, sequence, frame, box). Query holds one picture for each test identity and camera; the gallery
//! also holds distractors (identity 0: strangers and false alarms) and junk (identity -1: pieces of people).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;
use serde::Serialize;

use crate::camera::Camera;
use crate::domain::Domain;
use crate::keypoints::Keypoints;
use crate::output::{Staging, TRUTH_FILE, usage, write_atomic};
use crate::person::Person;
use crate::seed::{Draw, derive, path};
use crate::shot::{Framing, Shot, Track, render_crop};

/// Frame of the cameras that make crops, width and height.
pub const FRAME: (usize, usize) = (768, 432);

/// Quality of the JPEG files; the cameras' own artefacts are in the pixels already.
const JPEG_QUALITY: u8 = 92;

/// What the number in a file's name stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// A person.
    #[default]
    Identities,
    /// All people whose clothes have the same colours ([`Person::attributes`]).
    Attributes,
}

impl Labels {
    fn are_identities(&self) -> bool {
        *self == Labels::Identities
    }

    /// By its name.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "identities" => Ok(Labels::Identities),
            "attributes" => Ok(Labels::Attributes),
            _ => Err(usage("--labels", name, "identities, attributes")),
        }
    }
}

/// Most cameras that see an identity, unless somebody says otherwise. Left out of `world.json`, which was there before it.
const SEEN_BY: usize = 5;

fn is_usual(seen_by: &usize) -> bool {
    *seen_by == SEEN_BY
}

/// What to make.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CropsConfig {
    /// Name of the preset that these numbers started from.
    pub preset: String,
    /// Distribution of people, places and cameras.
    pub domain: Domain,
    /// Seed of the world.
    pub seed: u64,
    /// Identities in all; half train, half test.
    pub ids: usize,
    /// Cameras, 2 to 9 (the layout writes them as one digit).
    pub cameras: usize,
    /// Mean number of pictures of an identity in a camera that sees it.
    pub per_camera: usize,
    /// Most cameras that see an identity; the fewest are two. The fewer, the more an identity tells of the camera.
    #[serde(skip_serializing_if = "is_usual")]
    pub seen_by: usize,
    /// Width and height of a crop.
    pub size: (usize, usize),
    /// Distractors in the gallery for each test identity.
    pub distractors: f32,
    /// Junk in the gallery for each test identity.
    pub junk: f32,
    /// Share of identities that are a near-twin of the one before.
    pub twins: f32,
    /// What the names of the files tell.
    #[serde(skip_serializing_if = "Labels::are_identities")]
    pub labels: Labels,
}

impl CropsConfig {
    /// Names of the presets.
    pub const PRESETS: [&str; 2] = ["bench", "bench-large"];

    /// The preset of that name.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn preset(name: &str, domain: Domain, seed: u64) -> Result<Self> {
        let ids = match name {
            "bench" => 360,
            "bench-large" => 1800,
            _ => return Err(usage("--preset", name, &Self::PRESETS.join(", "))),
        };
        Ok(Self {
            preset: name.to_owned(),
            domain,
            seed,
            ids,
            cameras: 6,
            per_camera: 6,
            seen_by: SEEN_BY,
            size: (64, 128),
            distractors: 4.0,
            junk: 1.5,
            twins: 0.06,
            labels: Labels::Identities,
        })
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// The first one out of range, with its range.
    pub fn check(&self) -> Result<()> {
        let range = |option: &str, value: usize, low: usize, high: usize| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(usage(
                    option,
                    &value.to_string(),
                    &format!("{low} to {high}"),
                ))
            }
        };
        range("--ids", self.ids, 4, 9998)?;
        range("--cameras", self.cameras, 2, 9)?;
        range("--per-camera", self.per_camera, 2, 99)?;
        range("--seen-by", self.seen_by, 2, 9)?;
        let (w, h) = self.size;
        if !(16..=512).contains(&w) || !(32..=1024).contains(&h) {
            return Err(usage(
                "--size",
                &format!("{w}x{h}"),
                "16x32 to 512x1024, width x height",
            ));
        }
        Ok(())
    }
}

/// Which part of the data set a picture belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// `bounding_box_train`.
    Train,
    /// `query`.
    Query,
    /// `bounding_box_test`.
    Gallery,
}

impl Split {
    /// Name of the folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Train => "bounding_box_train",
            Self::Query => "query",
            Self::Gallery => "bounding_box_test",
        }
    }
}

/// One picture to be made: everything that its pixels depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Job {
    /// Folder.
    pub split: Split,
    /// Identity: 1.. , 0 distractor, -1 junk.
    pub pid: i32,
    /// Camera, from 0.
    pub camera: usize,
    /// Sequence (walk), from 1.
    pub sequence: usize,
    /// Frame number in the name.
    pub frame: usize,
    /// Box number in the name.
    pub box_index: usize,
    /// Position in its track.
    step: usize,
    person: u64,
    twin: Option<u64>,
    track: u64,
    shot: u64,
    framing: Framing,
}

impl Job {
    /// The file's name.
    pub fn file_name(&self) -> String {
        let pid = if self.pid < 0 {
            "-1".to_owned()
        } else {
            format!("{:04}", self.pid)
        };
        format!(
            "{pid}_c{}s{}_{:06}_{:02}.jpg",
            self.camera + 1,
            self.sequence,
            self.frame,
            self.box_index
        )
    }
}

/// An identity as `world.json` tells it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Identity {
    /// Identity number.
    pub pid: i32,
    /// `train` or `test`.
    pub split: &'static str,
    /// The identity of which this is a near-twin.
    pub twin_of: Option<i32>,
    /// Cameras that see it, from 1.
    pub cameras: Vec<usize>,
    /// A few words.
    pub description: String,
    /// What the names of this one's files tell, if it is not the identity: number and words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<(i32, String)>,
    #[serde(skip)]
    seed: u64,
    #[serde(skip)]
    twin_seed: Option<u64>,
}

/// The plan of a data set: who is seen where, and every picture.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Identities.
    pub identities: Vec<Identity>,
    /// Pictures.
    pub jobs: Vec<Job>,
}

pub(crate) fn person_of(domain: Domain, seed: u64, twin: Option<u64>) -> Person {
    let person = Person::sample(domain, seed);
    match twin {
        Some(twin) => person.twin(domain, twin),
        None => person,
    }
}

impl Plan {
    /// Plans the data set; nothing is rendered.
    pub fn new(config: &CropsConfig) -> Self {
        let train = config.ids / 2;
        let mut identities: Vec<Identity> = Vec::with_capacity(config.ids);
        let mut jobs = Vec::new();
        for index in 0..config.ids {
            let pid = index as i32 + 1;
            let draw = &mut Draw::new(config.seed, &[path::ROUTE, pid as u64]);
            let first = index == 0 || index == train;
            let twin =
                !first && draw.chance(config.twins) && identities[index - 1].twin_of.is_none();
            let own = derive(config.seed, &[path::PERSON, pid as u64]);
            let (seed, twin_seed, twin_of) = if twin {
                (identities[index - 1].seed, Some(own), Some(pid - 1))
            } else {
                (own, None, None)
            };
            let mut order: Vec<usize> = (0..config.cameras).collect();
            for i in (1..order.len()).rev() {
                order.swap(i, draw.int(0, i));
            }
            let seen_by = draw.int(2, config.seen_by.min(config.cameras));
            let mut cameras: Vec<usize> = order[..seen_by].to_vec();
            cameras.sort_unstable();
            let test = index >= train;
            for &camera in &cameras {
                let spread = config.per_camera / 2;
                let count = (config.per_camera - spread + draw.int(0, 2 * spread)).max(2);
                let count = if test { (count * 5 / 6).max(2) } else { count };
                let query = draw.int(0, count - 1);
                let sequences = if count >= 4 { 2 } else { 1 };
                let start = draw.int(1, 900) * 25;
                for k in 0..count {
                    let half = k * sequences / count;
                    let track = [path::TRACK, pid as u64, camera as u64, half as u64];
                    let split = match (test, k == query) {
                        (false, _) => Split::Train,
                        (true, true) => Split::Query,
                        (true, false) => Split::Gallery,
                    };
                    let step = k - (half * count).div_ceil(sequences);
                    jobs.push(Job {
                        split,
                        pid,
                        camera,
                        sequence: half + 1,
                        frame: start + half * 30_000 + step * 15,
                        box_index: 1 + k % 4,
                        step,
                        person: seed,
                        twin: twin_seed,
                        track: derive(config.seed, &track),
                        shot: derive(
                            config.seed,
                            &[path::SHOT, pid as u64, camera as u64, k as u64],
                        ),
                        framing: Framing::Body,
                    });
                }
            }
            identities.push(Identity {
                pid,
                split: if test { "test" } else { "train" },
                twin_of,
                cameras: cameras.iter().map(|c| c + 1).collect(),
                description: person_of(config.domain, seed, twin_seed).describe(),
                attributes: None,
                seed,
                twin_seed,
            });
        }
        let tests = (config.ids - train) as f32;
        for (kind, pid, count) in [
            (path::DISTRACTOR, 0, tests * config.distractors),
            (path::JUNK, -1, tests * config.junk),
        ] {
            for i in 0..count.round() as usize {
                let draw = &mut Draw::new(config.seed, &[kind, i as u64]);
                let framing = match pid {
                    0 => draw.weighted(&[(Framing::Body, 0.6), (Framing::Nobody, 0.4)]),
                    _ => draw.weighted(&[(Framing::Piece, 0.9), (Framing::Nobody, 0.1)]),
                };
                // Junk shows pieces of the test people themselves, as in Market-1501.
                let known = &identities[train + draw.int(0, config.ids - train - 1)];
                let (person, twin) = if pid == 0 {
                    (draw.word(), None)
                } else {
                    (known.seed, known.twin_seed)
                };
                jobs.push(Job {
                    split: Split::Gallery,
                    pid,
                    camera: draw.int(0, config.cameras - 1),
                    sequence: draw.int(1, 2),
                    // The running number keeps names unique.
                    frame: i,
                    box_index: 0,
                    step: 0,
                    person,
                    twin,
                    track: draw.word(),
                    shot: draw.word(),
                    framing,
                });
            }
        }
        let mut plan = Self { identities, jobs };
        if config.labels == Labels::Attributes {
            plan.label_by_attributes(config.domain);
        }
        plan
    }

    /// Numbers what people wear, in the order of its words, and names the files by that.
    fn label_by_attributes(&mut self, domain: Domain) {
        let words = |i: &Identity| person_of(domain, i.seed, i.twin_seed).attributes();
        let all: Vec<String> = self.identities.iter().map(words).collect();
        let classes: BTreeSet<&String> = all.iter().collect();
        let numbers: BTreeMap<&String, i32> = classes.into_iter().zip(1..).collect();
        for (identity, words) in self.identities.iter_mut().zip(&all) {
            identity.attributes = Some((numbers[words], words.clone()));
        }
        for (i, job) in self.jobs.iter_mut().enumerate() {
            if job.pid > 0 {
                job.pid = numbers[&all[job.pid as usize - 1]];
                // People of one class would meet in a name.
                job.frame = i;
            }
        }
    }
}

/// Renders one job; `cameras` are those of [`cameras`].
pub fn render_job(config: &CropsConfig, cameras: &[Camera], job: &Job) -> crate::shot::Crop {
    let person = person_of(config.domain, job.person, job.twin);
    let camera = &cameras[job.camera];
    let track = Track::sample(camera, &mut Draw::new(job.track, &[path::TRACK]));
    let shot = Shot::sample(
        config.domain,
        camera,
        &person,
        &track,
        job.step,
        job.framing,
        job.shot,
    );
    render_crop(camera, &person, &shot, config.size)
}

/// The cameras of a world.
pub fn cameras(config: &CropsConfig) -> Vec<Camera> {
    (0..config.cameras)
        .into_par_iter()
        .map(|i| Camera::sample(config.domain, config.seed, i, FRAME, true))
        .collect()
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CropsReport {
    /// Pictures in `bounding_box_train`.
    pub train: usize,
    /// Pictures in `query`.
    pub query: usize,
    /// Pictures in `bounding_box_test`.
    pub gallery: usize,
    /// Of these, distractors.
    pub distractors: usize,
    /// Of these, junk.
    pub junk: usize,
    /// Identities that are a near-twin of another.
    pub twins: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    #[serde(flatten)]
    keypoints: &'a Keypoints,
}

#[derive(Serialize)]
struct Truth<'a> {
    version: u32,
    kind: &'static str,
    parameters: &'a CropsConfig,
    counts: &'a CropsReport,
    cameras: Vec<CameraTruth<'a>>,
    people: &'a [Identity],
}

#[derive(Serialize)]
struct CameraTruth<'a> {
    name: &'a str,
    view: &'a crate::view::View,
    style: &'a crate::sensor::Style,
    sloppiness: &'a crate::camera::Sloppiness,
}

/// Makes the data set in `out`; `progress` is called once for every picture, from any thread.
///
/// # Errors
/// Numbers out of range, a folder that is not ours or cannot be written. Nothing half-written stays.
pub fn make(config: &CropsConfig, out: &Path, progress: &(dyn Fn() + Sync)) -> Result<CropsReport> {
    config.check()?;
    let staging = Staging::new(out)?;
    for split in [Split::Train, Split::Query, Split::Gallery] {
        let folder = staging.path().join(split.folder());
        fs::create_dir_all(&folder)
            .with_context(|| format!("{}: cannot be created", folder.display()))?;
    }
    let plan = Plan::new(config);
    let cameras = cameras(config);
    let lines: Vec<String> = plan
        .jobs
        .par_iter()
        .map(|job| {
            let crop = render_job(config, &cameras, job);
            let name = format!("{}/{}", job.split.folder(), job.file_name());
            let file = staging.path().join(&name);
            write_jpeg(&file, &crop.image)?;
            progress();
            let line = Line {
                file: &name,
                keypoints: &crop.keypoints,
            };
            serde_json::to_string(&line).context("keypoints")
        })
        .collect::<Result<_>>()?;
    write_atomic(
        &staging.path().join("keypoints.jsonl"),
        (lines.join("\n") + "\n").as_bytes(),
    )?;
    let count = |test: &dyn Fn(&Job) -> bool| plan.jobs.iter().filter(|job| test(job)).count();
    let report = CropsReport {
        train: count(&|j| j.split == Split::Train),
        query: count(&|j| j.split == Split::Query),
        gallery: count(&|j| j.split == Split::Gallery),
        distractors: count(&|j| j.pid == 0),
        junk: count(&|j| j.pid == -1),
        twins: plan
            .identities
            .iter()
            .filter(|i| i.twin_of.is_some())
            .count(),
    };
    let truth = Truth {
        version: crate::WORLD_VERSION,
        kind: "crops",
        parameters: config,
        counts: &report,
        cameras: cameras
            .iter()
            .map(|c| CameraTruth {
                name: &c.name,
                view: &c.view,
                style: &c.style,
                sloppiness: &c.sloppiness,
            })
            .collect(),
        people: &plan.identities,
    };
    let text = serde_json::to_string_pretty(&truth).context("world.json")?;
    write_atomic(&staging.path().join(TRUTH_FILE), text.as_bytes())?;
    staging.finish()?;
    Ok(report)
}

pub(crate) fn write_jpeg(file: &Path, image: &image::RgbImage) -> Result<()> {
    let mut bytes = Vec::with_capacity(16 << 10);
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
        .encode_image(image)
        .with_context(|| format!("{}: cannot be encoded", file.display()))?;
    fs::write(file, bytes).with_context(|| {
        format!(
            "{}: cannot be written; check the free space",
            file.display()
        )
    })
}
