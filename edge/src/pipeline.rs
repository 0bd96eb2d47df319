//! The whole: perceive and embed ([`Engine`]) -> associate, in order. `run` and `replay` drive it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use image::RgbImage;

use crate::associate::{AssociateError, Associator};
use crate::best_crops::BestCrops;
use crate::config::{CameraConfig, EdgeConfig};
use crate::engine::{Analysed, Engine, EngineError, Feed, Next, Purpose, Queues};
use crate::gallery::{Gallery, GalleryError};
use crate::ingest::IngestError;
use crate::types::{Assignment, CameraIndex, Decision, Observation, TrackletId};

pub use crate::engine::{AnalysedFrame, Timings};

/// A stage that failed.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// Reading, finding people, embedding.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Keeping identities.
    #[error(transparent)]
    Gallery(#[from] GalleryError),
    /// Deciding who is who.
    #[error(transparent)]
    Associate(#[from] AssociateError),
}

/// What a step brought.
#[derive(Debug, Default)]
pub struct StepOutput {
    /// Frames with their boxes.
    pub frames: Vec<AnalysedFrame>,
    /// Decisions that are new or have changed.
    pub assignments: Vec<Assignment>,
    /// Tracklets that ended.
    pub ended: Vec<(CameraIndex, TrackletId)>,
    /// Frames that were under way when their camera was removed.
    pub discarded: u64,
    /// Where the time went.
    pub timings: Timings,
    /// Why nothing was decided; what is open is decided with a later step.
    pub failure: Option<PipelineError>,
}

/// What [`Pipeline::next`] has.
// Made once for a step and moved on at once: a box would only be taken apart again.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Progress {
    /// The next step.
    Step(StepOutput),
    /// Nothing within the time given.
    Nothing,
    /// Everything has been told.
    Over,
}

/// From frames to identities.
pub struct Pipeline {
    engine: Engine,
    associator: Associator,
    /// Names by camera index; of cameras that are gone, too.
    names: Vec<String>,
    best_crops: BestCrops,
    now: f64,
}

impl Pipeline {
    /// Opens detector, embedder and gallery, and starts the stages on what `feed` gives.
    ///
    /// # Errors
    /// [`PipelineError`] naming file and remedy.
    pub fn start(
        config: &EdgeConfig,
        purpose: Purpose,
        feed: impl FnOnce() -> Result<Box<dyn Feed>, IngestError>,
    ) -> Result<Self, PipelineError> {
        let engine = Engine::start(config, purpose, true, feed)?;
        let facts = engine.embedder().cloned().unwrap_or_default();
        let gallery = Gallery::open(
            &config.gallery,
            &config.base,
            &facts.fingerprint,
            facts.width,
        )?;
        let rules = config.associate.clone().with_thresholds(&facts.thresholds);
        let names = config.camera_names();
        Ok(Pipeline {
            engine,
            associator: Associator::new(rules, gallery, names.clone()),
            names,
            best_crops: BestCrops::default(),
            now: f64::NEG_INFINITY,
        })
    }

    /// What detects and what embeds, for people.
    pub fn description(&self) -> &str {
        self.engine.description()
    }

    /// The stages before association.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// How much is under way.
    pub fn queues(&self) -> Queues {
        self.engine.queues()
    }

    /// Name of a camera, also of one that is gone.
    pub fn camera_name(&self, camera: CameraIndex) -> &str {
        self.names.get(camera).map_or("", String::as_str)
    }

    /// Index of a camera of this name; a name that was never seen gets the next one. Indices are never given to another
    /// name, so a tracklet's camera stays what it was.
    pub fn camera_index(&mut self, name: &str) -> CameraIndex {
        if let Some(index) = self.names.iter().position(|n| n == name) {
            return index;
        }
        self.names.push(name.to_owned());
        self.associator.set_cameras(self.names.clone());
        self.names.len() - 1
    }

    /// A camera came or has new rules.
    pub fn watch(&mut self, index: CameraIndex, camera: &CameraConfig) {
        self.engine.watch(index, camera);
    }

    /// A camera is gone. Returns its tracklets that ended by this; what is decided about them follows with the next step.
    ///
    /// # Errors
    /// [`PipelineError`].
    pub fn unwatch(&mut self, index: CameraIndex) -> Result<Vec<TrackletId>, PipelineError> {
        let ended = self.engine.unwatch(index);
        self.end(&ended)?;
        Ok(ended)
    }

    /// Ends the tracklets of a camera that was lost; the decisions follow with the next step.
    ///
    /// # Errors
    /// [`PipelineError`].
    pub fn end_camera(&mut self, index: CameraIndex) -> Result<Vec<TrackletId>, PipelineError> {
        let ended = self.engine.end_camera(index);
        self.end(&ended)?;
        Ok(ended)
    }

    fn end(&mut self, ended: &[TrackletId]) -> Result<(), PipelineError> {
        for &tracklet in ended {
            self.best_crops.ended(tracklet);
            self.associator.ended(tracklet, self.now)?;
        }
        Ok(())
    }

    /// Takes over what may change while running: rules of following, of crops, of association.
    pub fn set_rules(&mut self, config: &EdgeConfig) {
        self.engine.set_rules(&config.tracker, &config.crops);
        let facts = self.engine.embedder().cloned().unwrap_or_default();
        let rules = config.associate.clone().with_thresholds(&facts.thresholds);
        self.associator.set_config(rules);
    }

    /// The clock was set by `secs`; `base` is what it adds from now on.
    pub fn clock_moved(&mut self, secs: f64, base: f64) {
        self.engine.clock_moved(secs, base);
        self.associator.clock_moved(secs);
        self.now += secs;
    }

    /// The next step; waits at most `timeout`.
    ///
    /// # Errors
    /// [`PipelineError`].
    pub fn next(&mut self, timeout: Duration) -> Result<Progress, PipelineError> {
        match self.engine.next(timeout)? {
            Next::Step(analysed) => self.associate(*analysed).map(Progress::Step),
            Next::Nothing => Ok(Progress::Nothing),
            Next::Over => Ok(Progress::Over),
        }
    }

    /// Observes, ends, decides. If the gallery cannot be written, the frames are told all the same, without decisions: those
    /// follow when it can.
    fn associate(&mut self, analysed: Analysed) -> Result<StepOutput, PipelineError> {
        let began = Instant::now();
        let Analysed {
            frames,
            looks,
            embeddings,
            ended,
            discarded,
            mut timings,
        } = analysed;
        let newest = frames.iter().map(|f| f.frame.time);
        self.now = newest.fold(self.now, f64::max);
        for (look, embedding) in looks.into_iter().zip(embeddings) {
            self.best_crops
                .offer(look.tracklet, look.quality, || look.crop());
            self.associator.observe(Observation {
                tracklet: look.tracklet,
                camera: look.camera,
                time: look.time,
                ltrb: look.ltrb,
                embedding,
                quality: look.quality,
            })?;
        }
        for &(_, tracklet) in &ended {
            self.best_crops.ended(tracklet);
            self.associator.ended(tracklet, self.now)?;
        }
        let decided = self.associator.decide(self.now);
        let (assignments, failure) = match decided {
            Ok(assignments) => (assignments, None),
            Err(e) => (Vec::new(), Some(e.into())),
        };
        timings.associate_secs = began.elapsed().as_secs_f64();
        Ok(StepOutput {
            frames,
            assignments,
            ended,
            discarded,
            timings,
            failure,
        })
    }

    /// Ends everything and settles what is open.
    ///
    /// # Errors
    /// [`PipelineError`].
    pub fn finish(&mut self) -> Result<StepOutput, PipelineError> {
        let ended = self.engine.finish();
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

    /// The best crop seen of a tracklet, at most 160 pixels high; remembered while the tracklet runs and until 128 others
    /// have ended after it.
    pub fn crop(&self, tracklet: TrackletId) -> Option<Arc<RgbImage>> {
        self.best_crops.get(tracklet)
    }

    /// What is known about a tracklet.
    pub fn decision(&self, tracklet: TrackletId) -> Decision {
        self.associator.decision(tracklet)
    }

    /// Time of the newest frame, as [`Frame::time`](crate::types::Frame::time); `None` before the first one.
    pub fn now(&self) -> Option<f64> {
        self.now.is_finite().then_some(self.now)
    }

    /// Who decides.
    pub fn associator(&self) -> &Associator {
        &self.associator
    }
}
