//! Tracklets: a data set in the layout of MARS.
//!
//! `bbox_train` and `bbox_test` hold JPEG files `0001/0001C1T0001F001.jpg` (identity, camera, tracklet of the identity, frame);
//! `info` lists frames and tracklets as MARS does, in MATLAB files: `tracks_train_info.mat`, `tracks_test_info.mat` and
//! `query_IDX.mat`. One tracklet of each test identity in each camera asks; a test identity seen by one camera asks nothing.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use rayon::prelude::*;
use serde::Serialize;

use crate::camera::Camera;
use crate::crops::{FRAME, person_of, write_jpeg};
use crate::domain::Domain;
use crate::matlab::{self, Matrix};
use crate::output::{Staging, TRUTH_FILE, usage, write_atomic};
use crate::seed::{Draw, derive, path};
use crate::shot::{Framing, Shot, Track, render_crop};

/// What to make.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrackletsConfig {
    /// Distribution of people, places and cameras.
    pub domain: Domain,
    /// Seed of the world.
    pub seed: u64,
    /// Identities in all; half train, half test.
    pub ids: usize,
    /// Cameras, 2 to 9.
    pub cameras: usize,
    /// Most frames of a tracklet; the least is 4.
    pub frames: usize,
    /// Width and height of a crop.
    pub size: (usize, usize),
}

impl TrackletsConfig {
    /// 120 identities, 6 cameras, tracklets of 4 to 30 frames, 64 x 128.
    pub fn new(domain: Domain, seed: u64) -> Self {
        Self {
            domain,
            seed,
            ids: 120,
            cameras: 6,
            frames: 30,
            size: (64, 128),
        }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// The first one out of range, with its range.
    pub fn check(&self) -> Result<()> {
        let (w, h) = self.size;
        for (option, value, low, high) in [
            ("--ids", self.ids, 4, 9998),
            ("--cameras", self.cameras, 2, 9),
            ("--frames", self.frames, LEAST, 999),
            ("--size", w, 16, 512),
            ("--size", h, 32, 1024),
        ] {
            if !(low..=high).contains(&value) {
                let allowed = format!("{low} to {high}");
                return Err(usage(option, &value.to_string(), &allowed));
            }
        }
        Ok(())
    }
}

/// Frames of the shortest tracklet.
const LEAST: usize = 4;

/// A tracklet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tracklet {
    /// Identity, from 1.
    pub pid: i32,
    /// Camera, from 0.
    pub camera: usize,
    /// Number among the identity's tracklets, from 1.
    pub number: usize,
    /// Frames.
    pub frames: usize,
    /// Whether it asks.
    pub query: bool,
}

impl Tracklet {
    /// A frame's name, `frame` from 0.
    pub fn file_name(&self, frame: usize) -> String {
        format!(
            "{:04}C{}T{:04}F{:03}.jpg",
            self.pid,
            self.camera + 1,
            self.number,
            frame + 1
        )
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrackletsReport {
    /// Tracklets to train on.
    pub train: usize,
    /// Test tracklets that ask.
    pub query: usize,
    /// The other test tracklets.
    pub gallery: usize,
    /// Pictures.
    pub pictures: usize,
}

/// Plans tracklets: those to train on, and those to test on.
pub fn plan(config: &TrackletsConfig) -> [Vec<Tracklet>; 2] {
    let train = config.ids / 2;
    let mut halves = [Vec::new(), Vec::new()];
    for index in 0..config.ids {
        let pid = index as i32 + 1;
        let draw = &mut Draw::new(config.seed, &[path::ROUTE, path::TRACK, pid as u64]);
        let mut order: Vec<usize> = (0..config.cameras).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, draw.int(0, i));
        }
        order.truncate(draw.int(2, 5.min(config.cameras)));
        order.sort_unstable();
        let test = index >= train;
        let mut number = 0;
        for camera in order {
            // Who asks in a camera walks past it again: the others are the gallery.
            for walk in 0..draw.int(if test { 2 } else { 1 }, 3) {
                number += 1;
                halves[usize::from(test)].push(Tracklet {
                    pid,
                    camera,
                    number,
                    frames: draw.int(LEAST, config.frames),
                    query: test && walk == 0,
                });
            }
        }
    }
    halves
}

/// Makes the data set in `out`; `progress` is called once for every picture, from any thread.
///
/// # Errors
/// Numbers out of range, a folder that is not ours or cannot be written. Nothing half-written stays.
pub fn make(
    config: &TrackletsConfig,
    out: &Path,
    progress: &(dyn Fn() + Sync),
) -> Result<TrackletsReport> {
    config.check()?;
    let staging = Staging::new(out)?;
    let cameras: Vec<Camera> = (0..config.cameras)
        .into_par_iter()
        .map(|i| Camera::sample(config.domain, config.seed, i, FRAME, true))
        .collect();
    let halves = plan(config);
    let info = staging.path().join("info");
    let folder = |path: &Path| {
        fs::create_dir_all(path).with_context(|| format!("{}: cannot be created", path.display()))
    };
    folder(&info)?;
    for (name, tracklets) in ["train", "test"].iter().zip(&halves) {
        let boxes = staging.path().join(format!("bbox_{name}"));
        tracklets
            .iter()
            .try_for_each(|t| folder(&boxes.join(format!("{:04}", t.pid))))?;
        tracklets
            .par_iter()
            .try_for_each(|t| render(config, &cameras, t, &boxes, progress))?;
        let mut names = String::new();
        let mut rows = Vec::new();
        let mut first = 1;
        for t in tracklets {
            for frame in 0..t.frames {
                names += &t.file_name(frame);
                names.push('\n');
            }
            let last = first + t.frames - 1;
            rows.push([
                first as f64,
                last as f64,
                f64::from(t.pid),
                (t.camera + 1) as f64,
            ]);
            first = last + 1;
        }
        write_atomic(&info.join(format!("{name}_name.txt")), names.as_bytes())?;
        let table = Matrix::of_rows(format!("track_{name}_info"), &rows);
        let file = info.join(format!("tracks_{name}_info.mat"));
        write_atomic(&file, &matlab::file(&table))?;
    }
    let test = &halves[1];
    let asking = test.iter().enumerate().filter(|(_, t)| t.query);
    let asking: Vec<[f64; 1]> = asking.map(|(i, _)| [(i + 1) as f64]).collect();
    let table = Matrix::of_rows("query_IDX".into(), &asking);
    write_atomic(&info.join("query_IDX.mat"), &matlab::file(&table))?;
    let report = TrackletsReport {
        train: halves[0].len(),
        query: asking.len(),
        gallery: test.len() - asking.len(),
        pictures: halves.iter().flatten().map(|t| t.frames).sum(),
    };
    let truth = serde_json::json!({
        "version": crate::WORLD_VERSION, "kind": "tracklets", "parameters": config, "counts": report,
    });
    let text = serde_json::to_string_pretty(&truth).context("world.json")?;
    write_atomic(&staging.path().join(TRUTH_FILE), text.as_bytes())?;
    staging.finish()?;
    Ok(report)
}

/// Draws the frames of a tracklet: one walk past a camera, about half a second apart.
fn render(
    config: &TrackletsConfig,
    cameras: &[Camera],
    tracklet: &Tracklet,
    boxes: &Path,
    progress: &(dyn Fn() + Sync),
) -> Result<()> {
    let pid = tracklet.pid as u64;
    let person = derive(config.seed, &[path::PERSON, pid]);
    let person = person_of(config.domain, person, None);
    let camera = &cameras[tracklet.camera];
    let walk = derive(config.seed, &[path::TRACK, pid, tracklet.number as u64]);
    let track = Track::sample(camera, &mut Draw::new(walk, &[path::TRACK]));
    let folder = boxes.join(format!("{:04}", tracklet.pid));
    for frame in 0..tracklet.frames {
        let seed = derive(walk, &[path::SHOT, frame as u64]);
        let shot = Shot::sample(
            config.domain,
            camera,
            &person,
            &track,
            frame,
            Framing::Body,
            seed,
        );
        let crop = render_crop(camera, &person, &shot, config.size);
        write_jpeg(&folder.join(tracklet.file_name(frame)), &crop.image)?;
        progress();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_who_asks_is_seen_by_another_camera() {
        let config = TrackletsConfig::new(Domain::parse("street").expect("a domain"), 3);
        let [train, test] = plan(&config);
        assert!(train.iter().all(|t| !t.query && t.pid <= 60));
        for t in test.iter().filter(|t| t.query) {
            let mut gallery = test.iter().filter(|o| o.pid == t.pid && !o.query);
            assert!(gallery.any(|o| o.camera != t.camera), "{t:?}");
        }
        assert!(test.iter().any(|t| !t.query));
        assert_eq!(plan(&config), [train, test]);
    }
}
