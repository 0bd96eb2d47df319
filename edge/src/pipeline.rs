//! The deterministic core: perceive -> embed (one batch over all cameras) -> associate. `run` and `replay` drive it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use image::RgbImage;
use reid_models::picture::Pixels;
use serde::Serialize;

use crate::associate::{AssociateError, Associator};
use crate::config::EdgeConfig;
use crate::detect::DetectError;
use crate::embed::{self, Appearance, EmbedError};
use crate::gallery::{Gallery, GalleryError};
use crate::perception::{Look, Perceived, Perception};
use crate::types::{Assignment, CameraIndex, Decision, Frame, Observation, TrackletId};

pub use crate::perception::AnalysedFrame;

/// Best crops are kept for so many tracklets.
const CROPS_KEPT: usize = 1024;

/// A stage that failed.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// Finding people.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// Embedding crops.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// Keeping identities.
    #[error(transparent)]
    Gallery(#[from] GalleryError),
    /// Deciding who is who.
    #[error(transparent)]
    Associate(#[from] AssociateError),
}

/// Seconds spent per stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Finding people.
    pub detect_secs: f64,
    /// Following them.
    pub track_secs: f64,
    /// Judging and cutting out crops.
    pub crop_secs: f64,
    /// Embedding.
    pub embed_secs: f64,
    /// Deciding who is who, writing to the gallery included.
    pub associate_secs: f64,
    /// Frames analysed.
    pub frames: u64,
    /// Crops embedded.
    pub crops: u64,
}

impl Timings {
    /// Adds another step's.
    pub fn add(&mut self, other: &Timings) {
        self.detect_secs += other.detect_secs;
        self.track_secs += other.track_secs;
        self.crop_secs += other.crop_secs;
        self.embed_secs += other.embed_secs;
        self.associate_secs += other.associate_secs;
        self.frames += other.frames;
        self.crops += other.crops;
    }
}

/// What a step brought.
#[derive(Clone, Debug, Default)]
pub struct StepOutput {
    /// Frames with their boxes.
    pub frames: Vec<AnalysedFrame>,
    /// Decisions that are new or have changed.
    pub assignments: Vec<Assignment>,
    /// Tracklets that ended.
    pub ended: Vec<(CameraIndex, TrackletId)>,
    /// Where the time went.
    pub timings: Timings,
}

/// From frames to identities.
pub struct Pipeline {
    perception: Perception,
    appearance: Box<dyn Appearance>,
    associator: Associator,
    best_crops: BTreeMap<TrackletId, (f32, Arc<RgbImage>)>,
    now: f64,
}

impl Pipeline {
    /// Opens detector, embedder and gallery.
    ///
    /// # Errors
    /// [`PipelineError`] naming file and remedy.
    pub fn new(config: &EdgeConfig) -> Result<Self, PipelineError> {
        let appearance = embed::open(&config.embedder)?;
        let gallery = Gallery::open(
            &config.gallery,
            &config.base,
            &appearance.fingerprint(),
            appearance.width(),
        )?;
        let rules = config
            .associate
            .clone()
            .with_thresholds(&appearance.thresholds());
        Ok(Pipeline {
            perception: Perception::new(config)?,
            associator: Associator::new(rules, gallery, config.camera_names()),
            appearance,
            best_crops: BTreeMap::new(),
            now: f64::NEG_INFINITY,
        })
    }

    /// What detects and what embeds, for people.
    pub fn description(&self) -> String {
        format!(
            "detector: {}; embedder: {}",
            self.perception.description(),
            self.appearance.description()
        )
    }

    /// Analyses frames of different cameras, at most one of each.
    ///
    /// # Errors
    /// [`PipelineError`].
    pub fn step(&mut self, frames: Vec<Frame>) -> Result<StepOutput, PipelineError> {
        self.now = frames.iter().map(|f| f.time).fold(self.now, f64::max);
        let Perceived {
            frames,
            looks,
            ended,
            detect_secs,
            track_secs,
            crop_secs,
        } = self.perception.step(frames)?;
        let mut timings = Timings {
            detect_secs,
            track_secs,
            crop_secs,
            frames: frames.len() as u64,
            crops: looks.len() as u64,
            ..Timings::default()
        };
        let began = Instant::now();
        let embeddings = {
            let crops: Vec<_> = looks
                .iter()
                .map(|l| (Pixels::from(&*l.crop), None))
                .collect();
            if crops.is_empty() {
                Vec::new()
            } else {
                self.appearance.embed(&crops)?
            }
        };
        let embedded = Instant::now();
        timings.embed_secs = (embedded - began).as_secs_f64();
        for (look, embedding) in looks.into_iter().zip(embeddings) {
            self.keep_best(&look);
            self.associator.observe(Observation {
                tracklet: look.tracklet,
                camera: look.camera,
                time: look.time,
                ltrb: look.ltrb,
                embedding,
                quality: look.quality,
                crop: look.crop,
            })?;
        }
        for &(_, tracklet) in &ended {
            self.associator.ended(tracklet, self.now)?;
        }
        let assignments = self.associator.decide(self.now)?;
        timings.associate_secs = embedded.elapsed().as_secs_f64();
        Ok(StepOutput {
            frames,
            assignments,
            ended,
            timings,
        })
    }

    /// Ends the tracklets of a camera that was lost; the decisions follow with the next step.
    ///
    /// # Errors
    /// [`PipelineError`].
    pub fn end_camera(&mut self, camera: CameraIndex) -> Result<Vec<TrackletId>, PipelineError> {
        let ended = self.perception.end_camera(camera);
        for &tracklet in &ended {
            self.associator.ended(tracklet, self.now)?;
        }
        Ok(ended)
    }

    /// Ends everything and settles what is open.
    ///
    /// # Errors
    /// [`PipelineError`].
    pub fn finish(&mut self) -> Result<StepOutput, PipelineError> {
        let ended = self.perception.finish();
        if self.now == f64::NEG_INFINITY {
            // Not one frame came: there is no time to speak of, and nothing to settle.
            return Ok(StepOutput::default());
        }
        let began = Instant::now();
        for &(_, tracklet) in &ended {
            self.associator.ended(tracklet, self.now)?;
        }
        let assignments = self.associator.finish(self.now)?;
        Ok(StepOutput {
            assignments,
            ended,
            timings: Timings {
                associate_secs: began.elapsed().as_secs_f64(),
                ..Timings::default()
            },
            ..StepOutput::default()
        })
    }

    /// The best crop seen of a tracklet; the newest thousand tracklets are remembered.
    pub fn crop(&self, tracklet: TrackletId) -> Option<Arc<RgbImage>> {
        self.best_crops.get(&tracklet).map(|(_, crop)| crop.clone())
    }

    /// What is known about a tracklet.
    pub fn decision(&self, tracklet: TrackletId) -> Decision {
        self.associator.decision(tracklet)
    }

    /// Time of the newest frame, as [`Frame::time`]; `None` before the first one.
    pub fn now(&self) -> Option<f64> {
        self.now.is_finite().then_some(self.now)
    }

    /// Who decides.
    pub fn associator(&self) -> &Associator {
        &self.associator
    }

    fn keep_best(&mut self, look: &Look) {
        let best = self.best_crops.get(&look.tracklet);
        if best.is_none_or(|(quality, _)| *quality < look.quality) {
            self.best_crops
                .insert(look.tracklet, (look.quality, look.crop.clone()));
        }
        while self.best_crops.len() > CROPS_KEPT {
            self.best_crops.pop_first();
        }
    }
}
