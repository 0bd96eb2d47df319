//! `reid-edge harvest`: crops of the people on these cameras, for `reid-train fit --data harvest:DIR`.
//!
//! `DIR/0000_c{camera}s1_{frame}_{tracklet}.jpg` (Market-1501's form; 0000 because nobody knows who it is; cameras from 1)
//! and `DIR/crops.jsonl`, a line `{"file", "camera", "tracklet", "time"}` per crop, written after its picture: what is
//! listed is there, whenever the program stops.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use image::codecs::jpeg::JpegEncoder;
use reid_models::files::{self, FileError};
use serde::Serialize;

use crate::clock::Clock;
use crate::config::EdgeConfig;
use crate::engine::{Engine, EngineError, Look, Next, Purpose};
use crate::ingest::{self, IngestError, LiveCameras};
use crate::types::{CameraIndex, TrackletId};

/// How long the loop waits for frames before it looks at the stop flag.
const GLANCE: Duration = Duration::from_millis(200);
/// JPEG quality of a crop: high, because augmentation and the network see it again and again.
const JPEG_QUALITY: u8 = 95;

/// What to harvest.
#[derive(Clone, Debug)]
pub struct HarvestOptions {
    /// Folder; made if it isn't there.
    pub out: PathBuf,
    /// Stop after so many seconds of recording (files) or of the clock (live). Files end by themselves.
    pub seconds: Option<f64>,
    /// Seconds between two crops of a tracklet.
    pub every_secs: f64,
    /// Most crops of a tracklet.
    pub max_per_tracklet: u32,
    /// Tracklets with fewer crops are left out: they teach nothing, and most are mistakes.
    pub min_per_tracklet: usize,
}

/// What was harvested.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Harvested {
    /// Crops written.
    pub crops: usize,
    /// Tracklets they belong to.
    pub tracklets: usize,
    /// Tracklets left out for having too few crops.
    pub left_out: usize,
    /// Crops per camera.
    pub cameras: BTreeMap<String, usize>,
    /// Frames analysed.
    pub frames: u64,
    /// Frames per second, all cameras together.
    pub fps: f64,
}

/// A harvest that failed. What was written before stays, and is complete in itself.
#[derive(Debug, thiserror::Error)]
pub enum HarvestError {
    /// A camera.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// A recording or the detector.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is a harvest already.
    #[error("{0} is there already: harvest into another folder (--out), or move this one away")]
    Exists(PathBuf),
    /// A crop that cannot be compressed.
    #[error("cannot write {path}: {source}")]
    Image {
        /// The file.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
}

#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    camera: &'a str,
    tracklet: u64,
    time: f64,
}

/// Harvests until the files end, `seconds` have passed, or `stop` is set.
///
/// # Errors
/// [`HarvestError`].
pub fn harvest(
    config: &EdgeConfig,
    options: &HarvestOptions,
    stop: &Arc<AtomicBool>,
) -> Result<Harvested, HarvestError> {
    let mut config = config.clone();
    config.crops.burst = 0;
    config.crops.every_secs = options.every_secs;
    config.crops.max_per_tracklet = options.max_per_tracklet;
    let config = &config;
    let live = config.cameras.iter().any(|c| c.is_live());
    let cameras = Arc::new(LiveCameras::new(Clock::system(), Arc::new(|_, _| {}))?);
    let mut engine = if live {
        for (index, camera) in config.cameras.iter().enumerate() {
            cameras.add(index, camera)?;
        }
        let feed = cameras.clone();
        Engine::start(config, Purpose::Live, false, || Ok(Box::new(feed)))?
    } else {
        Engine::start(config, Purpose::Replay, false, || {
            Ok(Box::new(ingest::open_files_in_step(config)?))
        })?
    };
    let mut writer = Writer::open(
        &options.out,
        config.camera_names(),
        options.min_per_tracklet,
    )?;
    let mut frames_seen = 0;
    let began = Instant::now();
    loop {
        let out_of_time = |secs: f64| options.seconds.is_some_and(|limit| secs > limit);
        if stop.load(Ordering::Relaxed) || (live && out_of_time(began.elapsed().as_secs_f64())) {
            break;
        }
        let analysed = match engine.next(GLANCE)? {
            Next::Step(analysed) => analysed,
            Next::Nothing => continue,
            Next::Over => break,
        };
        let time = analysed.frames.first().map_or(0.0, |f| f.frame.time);
        if !live && out_of_time(time) {
            break;
        }
        frames_seen += analysed.frames.len() as u64;
        for look in &analysed.looks {
            writer.take(look)?;
        }
        for (_, id) in analysed.ended {
            writer.end(id);
        }
    }
    cameras.close();
    let mut done = writer.finish();
    done.frames = frames_seen;
    done.fps = frames_seen as f64 / began.elapsed().as_secs_f64().max(1e-9);
    Ok(done)
}

/// A look, cut out: while it waits, its frame is not kept.
struct Crop {
    tracklet: TrackletId,
    camera: CameraIndex,
    frame_number: u64,
    time: f64,
    picture: image::RgbImage,
}

impl Crop {
    fn of(look: &Look) -> Self {
        Crop {
            tracklet: look.tracklet,
            camera: look.camera,
            frame_number: look.frame_number,
            time: look.time,
            picture: look.crop(),
        }
    }
}

struct Writer {
    dir: PathBuf,
    list: File,
    list_path: PathBuf,
    cameras: Vec<String>,
    least: usize,
    /// Crops of tracklets that have not yet enough of them.
    waiting: BTreeMap<TrackletId, Vec<Crop>>,
    /// Tracklets with crops on disk that still run.
    started: std::collections::BTreeSet<TrackletId>,
    done: Harvested,
}

impl Writer {
    fn open(dir: &Path, cameras: Vec<String>, least: usize) -> Result<Self, HarvestError> {
        files::create_dir(dir)?;
        let list_path = dir.join("crops.jsonl");
        if list_path.exists() {
            return Err(HarvestError::Exists(list_path));
        }
        let list = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&list_path)
            .map_err(|source| FileError {
                action: "cannot write",
                path: list_path.clone(),
                source,
            })?;
        let counts = cameras.iter().map(|c| (c.clone(), 0)).collect();
        Ok(Writer {
            dir: dir.to_path_buf(),
            list,
            list_path,
            cameras,
            least: least.max(1),
            waiting: BTreeMap::new(),
            started: std::collections::BTreeSet::new(),
            done: Harvested {
                cameras: counts,
                ..Harvested::default()
            },
        })
    }

    fn take(&mut self, look: &Look) -> Result<(), HarvestError> {
        let (id, crop) = (look.tracklet, Crop::of(look));
        if self.started.contains(&id) {
            return self.write(&crop);
        }
        let waiting = self.waiting.entry(id).or_default();
        waiting.push(crop);
        if waiting.len() >= self.least {
            let crops = std::mem::take(waiting);
            self.waiting.remove(&id);
            self.started.insert(id);
            self.done.tracklets += 1;
            for crop in crops {
                self.write(&crop)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, id: TrackletId) {
        self.started.remove(&id);
        if self.waiting.remove(&id).is_some() {
            self.done.left_out += 1;
        }
    }

    fn write(&mut self, crop: &Crop) -> Result<(), HarvestError> {
        let file = format!(
            "0000_c{}s1_{:06}_{:02}.jpg",
            crop.camera + 1,
            crop.frame_number,
            crop.tracklet.0
        );
        let path = self.dir.join(&file);
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
            .encode_image(&crop.picture)
            .map_err(|source| HarvestError::Image {
                path: path.clone(),
                source,
            })?;
        files::write_atomic(&path, &bytes)?;
        let camera = &self.cameras[crop.camera];
        let line = Line {
            file: &file,
            camera,
            tracklet: crop.tracklet.0,
            time: crop.time,
        };
        let written = serde_json::to_vec(&line)
            .map_err(std::io::Error::from)
            .and_then(|mut bytes| {
                bytes.push(b'\n');
                self.list.write_all(&bytes)
            });
        written.map_err(|source| FileError {
            action: "cannot write",
            path: self.list_path.clone(),
            source,
        })?;
        self.done.crops += 1;
        *self.done.cameras.entry(camera.clone()).or_default() += 1;
        Ok(())
    }

    fn finish(mut self) -> Harvested {
        self.done.left_out += self.waiting.len();
        self.done
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::types::Ltrb;

    fn look(tracklet: u64, frame_number: u64) -> Look {
        Look {
            tracklet: TrackletId(tracklet),
            camera: 1,
            frame_number,
            time: frame_number as f64 / 10.0,
            ltrb: Ltrb {
                left: 0.0,
                top: 0.0,
                right: 8.0,
                bottom: 20.0,
            },
            quality: 0.5,
            picture: Arc::new(image::RgbImage::new(8, 20).into()),
        }
    }

    #[test]
    fn only_tracklets_with_enough_crops_are_written_and_every_line_has_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let cameras = vec!["a".to_owned(), "b".to_owned()];
        let mut writer = Writer::open(dir.path(), cameras.clone(), 2).unwrap();
        for (tracklet, frame) in [(1, 10), (2, 10), (1, 15), (1, 20)] {
            writer.take(&look(tracklet, frame)).unwrap();
        }
        writer.end(TrackletId(2));
        let done = writer.finish();
        assert_eq!((done.crops, done.tracklets, done.left_out), (3, 1, 1));
        assert_eq!(done.cameras["b"], 3);
        let text = std::fs::read_to_string(dir.path().join("crops.jsonl")).unwrap();
        for line in text.lines() {
            let v: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(v["camera"], "b");
            assert_eq!(v["tracklet"], 1);
            assert!(dir.path().join(v["file"].as_str().unwrap()).is_file());
        }
        assert!(
            text.starts_with("{\"file\":\"0000_c2s1_000010_01.jpg\""),
            "{text}"
        );
        let again = Writer::open(dir.path(), cameras, 2)
            .err()
            .unwrap()
            .to_string();
        assert!(
            again.contains("crops.jsonl") && again.contains("--out"),
            "{again}"
        );
    }

    #[test]
    fn an_unwritable_folder_is_named() {
        let err = Writer::open(Path::new("/proc/harvest"), vec![], 1)
            .err()
            .unwrap();
        assert!(err.to_string().contains("/proc/harvest"), "{err}");
    }
}
