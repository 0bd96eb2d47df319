//! Videos: one H.264 file per camera, MOTChallenge truth whose identities all cameras share.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use rayon::prelude::*;
use serde::Serialize;

use crate::camera::Camera;
use crate::colour::Rgb;
use crate::domain::Domain;
use crate::encode::{self, Encoder};
use crate::output::{Staging, TRUTH_FILE, usage, write_atomic};
use crate::person::Person;
use crate::render::Canvas;
use crate::route::{Crossing, route};
use crate::seed::{derive, path};
use crate::sensor::{Grain, soften};
use crate::stage::{Actor, Cast, paint};
use crate::view::Eye;

/// What to make.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VideosConfig {
    /// Name of the preset that these numbers started from.
    pub preset: String,
    /// Distribution of people, places and cameras.
    pub domain: Domain,
    /// Seed of the world.
    pub seed: u64,
    /// Identities.
    pub ids: usize,
    /// Cameras, 1 to 9.
    pub cameras: usize,
    /// Length in seconds.
    pub seconds: usize,
    /// Frames a second.
    pub fps: usize,
    /// Width and height of a frame.
    pub size: (usize, usize),
    /// Share of identities that are a near-twin of the one before.
    pub twins: f32,
    /// Share of crossings with a stop.
    pub stops: f32,
}

impl VideosConfig {
    /// Names of the presets.
    pub const PRESETS: [&str; 3] = ["sparse", "crowded", "twins"];

    /// The preset of that name: `sparse` has one or two people in view at a time, `crowded` many and they
    /// stop, `twins` has a near-twin for every second person.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn preset(name: &str, domain: Domain, seed: u64) -> Result<Self> {
        let (ids, twins, stops) = match name {
            "sparse" => (12, 0.0, 0.0),
            "crowded" => (40, 0.1, 0.15),
            "twins" => (12, 1.0, 0.0),
            _ => return Err(usage("--preset", name, &Self::PRESETS.join(", "))),
        };
        Ok(Self {
            preset: name.to_owned(),
            domain,
            seed,
            ids,
            cameras: 3,
            seconds: 60,
            fps: 10,
            size: (640, 360),
            twins,
            stops,
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
        range("--ids", self.ids, 1, 999)?;
        range("--cameras", self.cameras, 1, 9)?;
        range("--seconds", self.seconds, 1, 3600)?;
        range("--fps", self.fps, 1, 60)?;
        let (w, h) = self.size;
        let even = w % 4 == 0 && h % 2 == 0;
        if !(160..=3840).contains(&w) || !(90..=2160).contains(&h) || !even {
            return Err(usage(
                "--size",
                &format!("{w}x{h}"),
                "160x90 to 3840x2160, width x height, width a multiple of 4, height even",
            ));
        }
        Ok(())
    }

    /// Frames of each file.
    pub fn frames(&self) -> usize {
        self.seconds * self.fps
    }
}

/// A row of MOTChallenge truth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TruthRow {
    /// Frame, from 1.
    pub frame: usize,
    /// Identity, from 1, the same in all cameras.
    pub id: usize,
    /// Left, top, width, height in pixels, inside the frame.
    pub ltwh: [f32; 4],
    /// Share of the person that is seen, 0..1.
    pub visible: f32,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VideosReport {
    /// Names of the cameras.
    pub cameras: Vec<String>,
    /// Frames of each file.
    pub frames: usize,
    /// Truth boxes in all files.
    pub boxes: usize,
    /// Identities seen by two cameras or more.
    pub crossing_ids: usize,
}

#[derive(Serialize)]
struct Walk {
    id: usize,
    twin_of: Option<usize>,
    description: String,
    crossings: Vec<Visit>,
}

#[derive(Serialize)]
struct Visit {
    camera: String,
    enter_secs: f32,
    leave_secs: f32,
}

struct Walker {
    person: Person,
    twin_of: Option<usize>,
    crossings: Vec<Crossing>,
    salt: u32,
}

/// The cameras of a world of videos.
pub fn cameras(config: &VideosConfig) -> Vec<Camera> {
    (0..config.cameras)
        .into_par_iter()
        .map(|i| Camera::sample(config.domain, config.seed, i, config.size, false))
        .collect()
}

fn walkers(config: &VideosConfig, cameras: &[Camera]) -> Vec<Walker> {
    let mut walkers: Vec<Walker> = Vec::with_capacity(config.ids);
    for index in 0..config.ids {
        let id = index as u64 + 1;
        let seed = derive(config.seed, &[path::WALKER, id]);
        let draw = &mut crate::seed::Draw::new(config.seed, &[path::TWIN, id]);
        let twin =
            index % 2 == 1 && walkers[index - 1].twin_of.is_none() && draw.chance(config.twins);
        let person = if twin {
            walkers[index - 1].person.twin(config.domain, seed)
        } else {
            Person::sample(config.domain, seed)
        };
        let crossings = route(
            cameras,
            &person,
            config.seed,
            id,
            config.seconds as f32,
            config.stops,
        );
        walkers.push(Walker {
            person,
            twin_of: twin.then_some(index),
            crossings,
            salt: derive(config.seed, &[path::PASSER, id]) as u32,
        });
    }
    walkers
}

/// Makes the videos in `out`; `progress` is called once for every frame, from any thread.
///
/// # Errors
/// Numbers out of range, a missing GStreamer element, a folder that is not ours or cannot be written.
pub fn make(
    config: &VideosConfig,
    out: &Path,
    progress: &(dyn Fn() + Sync),
) -> Result<VideosReport> {
    config.check()?;
    encode::check()?;
    let staging = Staging::new(out)?;
    for folder in ["cameras", "gt"] {
        let folder = staging.path().join(folder);
        fs::create_dir_all(&folder)
            .with_context(|| format!("{}: cannot be created", folder.display()))?;
    }
    let cameras = cameras(config);
    let walkers = walkers(config, &cameras);
    let truths: Vec<Vec<TruthRow>> = cameras
        .par_iter()
        .enumerate()
        .map(|(index, camera)| {
            let file = staging
                .path()
                .join("cameras")
                .join(format!("{}.mp4", camera.name));
            let rows = film(config, camera, index, &walkers, &file, progress)?;
            let truth = staging
                .path()
                .join("gt")
                .join(format!("{}.txt", camera.name));
            write_atomic(&truth, mot_text(&rows).as_bytes())?;
            Ok(rows)
        })
        .collect::<Result<_>>()?;
    let seen_twice = (1..=config.ids)
        .filter(|id| {
            truths
                .iter()
                .filter(|rows| rows.iter().any(|row| row.id == *id))
                .count()
                >= 2
        })
        .count();
    let report = VideosReport {
        cameras: cameras.iter().map(|c| c.name.clone()).collect(),
        frames: config.frames(),
        boxes: truths.iter().map(Vec::len).sum(),
        crossing_ids: seen_twice,
    };
    write_atomic(
        &staging.path().join("edge.toml"),
        edge_toml(&report.cameras).as_bytes(),
    )?;
    let people: Vec<Walk> = walkers
        .iter()
        .enumerate()
        .map(|(i, walker)| Walk {
            id: i + 1,
            twin_of: walker.twin_of,
            description: walker.person.describe(),
            crossings: walker
                .crossings
                .iter()
                .map(|c| Visit {
                    camera: cameras[c.camera].name.clone(),
                    enter_secs: c.enter,
                    leave_secs: c.leave,
                })
                .collect(),
        })
        .collect();
    let truth = serde_json::json!({
        "version": crate::WORLD_VERSION, "kind": "videos", "parameters": config, "counts": report, "people": people,
    });
    let text = serde_json::to_string_pretty(&truth).context("world.json")?;
    write_atomic(&staging.path().join(TRUTH_FILE), text.as_bytes())?;
    staging.finish()?;
    Ok(report)
}

/// The truth of one camera as MOTChallenge text.
pub fn mot_text(rows: &[TruthRow]) -> String {
    let mut text = String::new();
    for row in rows {
        let [l, t, w, h] = row.ltwh;
        let consider = i32::from(row.visible >= 0.1);
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "{},{},{l:.1},{t:.1},{w:.1},{h:.1},{consider},1,{:.2}",
            row.frame, row.id, row.visible
        );
    }
    text
}

/// A configuration for `reid-edge` that replays the cameras.
fn edge_toml(cameras: &[String]) -> String {
    let mut text = String::from(
        "# Made by reid-world. Replay it with:\n\
         #   reid-edge replay --config edge.toml --gt gt\n\
         # Paths are relative to this file. A live camera is `source = \"rtsp://user:password@host/path\"`.\n",
    );
    for name in cameras {
        let _ = write!(
            text,
            "\n[[camera]]\nname = \"{name}\"\nsource = \"file:cameras/{name}.mp4\"\n"
        );
    }
    text.push_str(
        "\n# Static cameras need no detector model: `motion` finds what moves.\n[detector]\nkind = \"motion\"\n\
         \n# Copy or link your exported model here: reid-export onnx --run RUN --out model.onnx\n\
         # backend: auto, onnxruntime or tract.\n[embedder]\nmodel = \"model.onnx\"\nbackend = \"auto\"\n",
    );
    text
}

/// Renders and encodes one camera.
fn film(
    config: &VideosConfig,
    camera: &Camera,
    index: usize,
    walkers: &[Walker],
    file: &Path,
    progress: &(dyn Fn() + Sync),
) -> Result<Vec<TruthRow>> {
    let (w, h) = config.size;
    let eye = Eye::whole(camera.view);
    let mut canvas = Canvas::new(w, h);
    paint(&mut canvas, &eye, camera, &[], &camera.scene.props);
    let empty = develop(camera, &canvas, [0, 0, w, h]);
    let mut encoder = Encoder::new(file, config.size, config.fps as u32)?;
    let mut grain = Grain::new(derive(config.seed, &[path::CAMERA, index as u64, 1]));
    let grains: Vec<f32> = (0..(1 << 16) + w * 3)
        .map(|_| grain.next_pair()[0] * camera.style.noise)
        .collect();
    let mut rgb = vec![0u8; w * h * 3];
    let mut rows = Vec::new();
    let mut frame = empty.clone();
    for number in 0..config.frames() {
        let t = number as f32 / config.fps as f32;
        let present: Vec<(usize, Actor<'_>)> = walkers
            .iter()
            .enumerate()
            .filter_map(|(i, walker)| {
                let crossing = walker
                    .crossings
                    .iter()
                    .find(|c| c.camera == index && (c.enter..=c.leave).contains(&t))?;
                let (place, pose) = crossing.at(t)?;
                let actor = Actor {
                    person: &walker.person,
                    pose,
                    place,
                    salt: walker.salt,
                };
                Some((i + 1, actor))
            })
            .collect();
        if present.is_empty() {
            frame.copy_from_slice(&empty);
        } else {
            let actors: Vec<Actor<'_>> = present.iter().map(|(_, actor)| *actor).collect();
            canvas.clear();
            let casts = paint(&mut canvas, &eye, camera, &actors, &camera.scene.props);
            frame.copy_from_slice(&empty);
            for ((id, _), cast) in present.iter().zip(&casts) {
                redevelop(camera, &canvas, cast, &mut frame);
                rows.extend(truth_row(number + 1, *id, cast, config.size));
            }
        }
        // The grain moves: every row starts at another place of a fixed table.
        for y in 0..h {
            let start = (crate::seed::splitmix((number * h + y) as u64) & 0xFFFF) as usize;
            let source = &frame[y * w..(y + 1) * w];
            let target = &mut rgb[y * w * 3..(y + 1) * w * 3];
            for ((out, p), n) in target
                .chunks_exact_mut(3)
                .zip(source)
                .zip(grains[start..].chunks_exact(3))
            {
                for c in 0..3 {
                    out[c] = ((p[c] + n[c]) * 255.0 + 0.5).clamp(0.0, 255.0) as u8;
                }
            }
        }
        encoder.push(&rgb)?;
        progress();
    }
    encoder.finish()?;
    Ok(rows)
}

/// Rows are kept while a fifth of the body's box is inside the frame.
fn truth_row(frame: usize, id: usize, cast: &Cast, size: (usize, usize)) -> Option<TruthRow> {
    let [l, t, r, b] = cast.bounds;
    let (cl, ct) = (l.max(0.0), t.max(0.0));
    let (cr, cb) = (r.min(size.0 as f32), b.min(size.1 as f32));
    let (w, h) = (cr - cl, cb - ct);
    let share = w.max(0.0) * h.max(0.0) / ((r - l) * (b - t)).max(1.0);
    (share >= 0.2 && w >= 4.0 && h >= 8.0).then_some(TruthRow {
        frame,
        id,
        ltwh: [cl, ct, w, h],
        visible: cast.visible,
    })
}

/// Encoded picture (0..1) of a region (left, top, right, bottom) of the canvas.
fn develop(camera: &Camera, canvas: &Canvas, [l, t, r, b]: [usize; 4]) -> Vec<Rgb> {
    let style = &camera.style;
    let (w, h) = (canvas.width as f32, canvas.height as f32);
    let mut pixels = Vec::with_capacity((r - l) * (b - t));
    for y in t..b {
        let v = y as f32 / h - 0.5;
        for x in l..r {
            let u = x as f32 / w - 0.5;
            let gain = 1.0 - style.vignette * (u * u + v * v) * 2.0;
            pixels.push(style.develop(canvas.pixels[y * canvas.width + x], gain));
        }
    }
    camera.tone.apply(&mut pixels);
    // A frame has its sensor's resolution; a bad lens shows as blur.
    let blur = style.blur + (1.0 / style.sharpness - 1.0) * 0.6;
    soften(&mut pixels, (r - l, b - t), blur, style.overshoot);
    pixels
}

/// Develops the surroundings of an actor (with shadow and bag) into the frame.
fn redevelop(camera: &Camera, canvas: &Canvas, cast: &Cast, frame: &mut [Rgb]) {
    let [l, t, r, b] = cast.bounds;
    let pad = (b - t) * 0.55;
    let clip = |x: f32, n: usize| x.clamp(0.0, n as f32) as usize;
    let region = [
        clip(l - pad, canvas.width),
        clip(t - 4.0, canvas.height),
        clip(r + pad + 1.0, canvas.width),
        clip(b + pad * 0.4 + 1.0, canvas.height),
    ];
    let wide = region[2].saturating_sub(region[0]);
    if wide == 0 || region[3] <= region[1] {
        return;
    }
    let pixels = develop(camera, canvas, region);
    for (row, source) in pixels.chunks_exact(wide).enumerate() {
        let start = (region[1] + row) * canvas.width + region[0];
        frame[start..start + wide].copy_from_slice(source);
    }
}
