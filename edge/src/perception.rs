//! Frames in, tracklets and crops worth a look out: detect -> track -> gate. Shared by `run`, `replay` and `harvest`.

use std::sync::Arc;
use std::time::Instant;

use image::RgbImage;
use rayon::prelude::*;

use crate::config::EdgeConfig;
use crate::detect::{self, DetectError, Detector};
use crate::embed::budget::Budget;
use crate::embed::quality::Judge;
use crate::track::{Tracker, TrackletIds};
use crate::types::{CameraIndex, Detection, Frame, Ltrb, TrackedBox, TrackletId};

/// A frame and who is in it.
#[derive(Clone, Debug)]
pub struct AnalysedFrame {
    /// The frame.
    pub frame: Frame,
    /// Everything the detector found.
    pub detections: Vec<Detection>,
    /// Confirmed tracklets seen in it.
    pub boxes: Vec<TrackedBox>,
}

/// One good crop of a tracklet.
#[derive(Clone, Debug)]
pub struct Look {
    /// Tracklet.
    pub tracklet: TrackletId,
    /// Camera.
    pub camera: CameraIndex,
    /// [`Frame::number`].
    pub frame_number: u64,
    /// [`Frame::time`].
    pub time: f64,
    /// Where.
    pub ltrb: Ltrb,
    /// 0..1.
    pub quality: f32,
    /// The pixels of the box.
    pub crop: Arc<RgbImage>,
}

/// What a step found.
#[derive(Clone, Debug, Default)]
pub struct Perceived {
    /// Frames in the order given.
    pub frames: Vec<AnalysedFrame>,
    /// Crops to embed.
    pub looks: Vec<Look>,
    /// Tracklets that ended.
    pub ended: Vec<(CameraIndex, TrackletId)>,
    /// Seconds spent finding people, following them, and cutting them out.
    pub detect_secs: f64,
    /// As above.
    pub track_secs: f64,
    /// As above.
    pub crop_secs: f64,
}

/// Detectors and trackers of all cameras. Same frames, same result, whatever the number of threads.
pub struct Perception {
    detectors: Vec<Box<dyn Detector>>,
    trackers: Vec<Tracker>,
    ids: TrackletIds,
    judge: Judge,
    budget: Budget,
}

impl Perception {
    /// Opens detectors for all cameras.
    ///
    /// # Errors
    /// If the detector's model cannot be opened.
    pub fn new(config: &EdgeConfig) -> Result<Self, DetectError> {
        let cameras = config.cameras.len();
        Ok(Perception {
            detectors: detect::open(&config.detector, cameras)?,
            trackers: (0..cameras)
                .map(|_| Tracker::new(config.tracker.clone()))
                .collect(),
            ids: TrackletIds::default(),
            judge: Judge::new(config.crops.clone()),
            budget: Budget::new(config.crops.clone()),
        })
    }

    /// What finds people, for people.
    pub fn description(&self) -> String {
        self.detectors
            .first()
            .map_or_else(String::new, |d| d.description())
    }

    /// Analyses frames of different cameras, at most one of each.
    ///
    /// # Errors
    /// If a detector fails.
    pub fn step(&mut self, frames: Vec<Frame>) -> Result<Perceived, DetectError> {
        let mut out = Perceived::default();
        let began = Instant::now();
        let mut by_camera: Vec<Option<&Frame>> = vec![None; self.detectors.len()];
        for frame in &frames {
            by_camera[frame.camera] = Some(frame);
        }
        let found: Vec<Vec<Detection>> = self
            .detectors
            .par_iter_mut()
            .zip(by_camera)
            .map(|(detector, frame)| frame.map_or(Ok(Vec::new()), |f| detector.detect(f)))
            .collect::<Result<_, _>>()?;
        out.detect_secs = began.elapsed().as_secs_f64();
        let mut found: Vec<Option<Vec<Detection>>> = found.into_iter().map(Some).collect();
        for frame in frames {
            let detections = found[frame.camera].take().unwrap_or_default();
            let began = Instant::now();
            let size = frame.picture.size();
            let update =
                self.trackers[frame.camera].update(frame.time, size, &detections, &mut self.ids);
            let tracked = Instant::now();
            out.track_secs += (tracked - began).as_secs_f64();
            for &id in &update.ended {
                self.budget.forget(id);
                out.ended.push((frame.camera, id));
            }
            self.look(&frame, &update.boxes, &mut out.looks);
            out.crop_secs += tracked.elapsed().as_secs_f64();
            out.frames.push(AnalysedFrame {
                frame,
                detections,
                boxes: update.boxes,
            });
        }
        Ok(out)
    }

    /// Ends the tracklets of a camera that was lost.
    pub fn end_camera(&mut self, camera: CameraIndex) -> Vec<TrackletId> {
        let ended = self.trackers[camera].finish();
        for &id in &ended {
            self.budget.forget(id);
        }
        ended
    }

    /// Ends everything.
    pub fn finish(&mut self) -> Vec<(CameraIndex, TrackletId)> {
        (0..self.trackers.len())
            .flat_map(|camera| {
                let ended = self.end_camera(camera);
                ended.into_iter().map(move |id| (camera, id))
            })
            .collect()
    }

    fn look(&mut self, frame: &Frame, boxes: &[TrackedBox], looks: &mut Vec<Look>) {
        for (i, own) in boxes.iter().enumerate() {
            if !self.budget.is_due(own.tracklet, frame.time) {
                continue;
            }
            let others: Vec<Ltrb> = boxes
                .iter()
                .enumerate()
                .filter(|(j, _)| *j != i)
                .map(|(_, b)| b.ltrb)
                .collect();
            let Ok(quality) = self.judge.assess(&frame.picture, &own.ltrb, &others) else {
                continue;
            };
            self.budget.spend(own.tracklet, frame.time);
            looks.push(Look {
                tracklet: own.tracklet,
                camera: frame.camera,
                frame_number: frame.number,
                time: frame.time,
                ltrb: own.ltrb,
                quality,
                crop: Arc::new(frame.picture.cut(own.ltrb.pixels())),
            });
        }
    }
}
