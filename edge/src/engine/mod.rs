//! Frames in, tracklets and embedded crops out: detect -> track -> gate -> embed, each at its own pace.
//!
//! Detection threads take frames from the [`Feed`] and embedding threads take crops; between them stands the caller's own
//! thread ([`Engine::next`]), which brings detections back into order, follows people and picks the crops worth a look.
//! One session of a model per thread and one thread per session: on a processor that is the most a model gives, and no
//! stage waits for another while there is work. What may be under way at once is bounded, so a slow stage makes the feed
//! wait, and cameras then replace frames that nobody has taken.
//!
//! A recording's steps and crops are dealt out by rule, not by chance: the same files give the same results, bit for bit,
//! whatever the number of threads.

mod board;
mod detecting;
mod embedding;
mod feed;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{never, select};
use image::RgbImage;
use reid_models::picture::Picture;
use serde::Serialize;

use crate::config::{CameraConfig, CropsConfig, EdgeConfig, TrackerConfig};
use crate::detect::mask::CameraFilter;
use crate::detect::{self, DetectError};
use crate::embed::budget::Budget;
use crate::embed::quality::Judge;
use crate::embed::{self, EmbedError};
use crate::health::ModelHealth;
use crate::ingest::IngestError;
use crate::track::{Tracker, TrackletIds};
use crate::types::{CameraIndex, Detection, Frame, Ltrb, TrackedBox, TrackletId};

use board::Board;
use detecting::{Detecting, Seen, Turn};
use embedding::{Batching, Embedded, Embedding};
pub use feed::{Feed, Taken};

/// A frame and who is in it.
#[derive(Clone, Debug)]
pub struct AnalysedFrame {
    /// The frame.
    pub frame: Frame,
    /// Everything the detector found and the camera's rules let pass.
    pub detections: Vec<Detection>,
    /// Confirmed tracklets seen in it.
    pub boxes: Vec<TrackedBox>,
}

/// One good look at a tracklet.
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
    /// The frame it is in.
    pub picture: Arc<Picture>,
}

impl Look {
    /// The whole pixels of the box.
    pub fn crop(&self) -> RgbImage {
        self.picture.cut(self.ltrb.pixels())
    }
}

/// Seconds spent per stage. Stages work side by side, so the sum may be more than the time that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Finding people, all detection threads together.
    pub detect_secs: f64,
    /// Following them.
    pub track_secs: f64,
    /// Judging crops.
    pub crop_secs: f64,
    /// Embedding, all embedding threads together.
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

/// What a step found.
#[derive(Clone, Debug, Default)]
pub struct Analysed {
    /// Frames in the order given.
    pub frames: Vec<AnalysedFrame>,
    /// Looks at people in them.
    pub looks: Vec<Look>,
    /// A unit vector for each look; none if the engine does not embed.
    pub embeddings: Vec<Vec<f32>>,
    /// Tracklets that ended.
    pub ended: Vec<(CameraIndex, TrackletId)>,
    /// Frames that were under way when their camera was removed.
    pub discarded: u64,
    /// Where the time went.
    pub timings: Timings,
}

/// What [`Engine::next`] has.
#[derive(Debug)]
pub enum Next {
    /// The next step.
    Step(Box<Analysed>),
    /// Nothing within the time given.
    Nothing,
    /// The feed is over and everything has been told.
    Over,
}

/// What becomes of the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A recording: the same result on every run.
    Replay,
    /// Cameras: the least delay.
    Live,
}

/// A stage that failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A recording.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// Finding people.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// Embedding crops.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// What embeds, as far as others need to know.
#[derive(Clone, Debug, Default)]
pub struct EmbedderFacts {
    /// Identifies model and preprocessing.
    pub fingerprint: String,
    /// Length of a vector.
    pub width: usize,
    /// The model card's thresholds.
    pub thresholds: BTreeMap<String, f32>,
}

/// How much is under way, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Steps that wait for their embeddings.
    pub steps: usize,
    /// Crops that wait for an embedding thread.
    pub crops: usize,
}

/// A camera whose people are followed.
struct Watched {
    filter: CameraFilter,
    tracker: Tracker,
}

/// A step that waits for its embeddings.
struct Pending {
    analysed: Analysed,
    missing: usize,
}

/// The stages at work.
pub struct Engine {
    // Threads end in this order.
    detecting: Detecting,
    embedding: Option<Embedding>,
    cameras: BTreeMap<CameraIndex, Watched>,
    tracker: TrackerConfig,
    ids: TrackletIds,
    judge: Judge,
    budget: Budget,
    /// Turns that were done before an earlier one.
    early: BTreeMap<u64, Turn>,
    next_turn: u64,
    /// Steps in order; the first one is number `first_step`.
    pending: VecDeque<Pending>,
    first_step: u64,
    over: bool,
    failed: Option<EngineError>,
    /// What has been added to the times of live frames since they were stamped.
    clock_base: Option<f64>,
    description: String,
    board: Board,
    facts: Option<EmbedderFacts>,
    least_height: f32,
}

impl Engine {
    /// Opens the models and starts the threads. Cameras of the configuration are known; `embed` says whether looks become
    /// vectors (a harvest wants only the looks).
    ///
    /// # Errors
    /// A model that cannot be opened.
    pub fn start(
        config: &EdgeConfig,
        purpose: Purpose,
        embed: bool,
        feed: impl FnOnce() -> Result<Box<dyn Feed>, IngestError>,
    ) -> Result<Self, EngineError> {
        // Models take time to open, each on its own.
        let (detectors, embedders) = std::thread::scope(|scope| {
            let embedders = embed.then(|| scope.spawn(|| embed::open_all(&config.embedder)));
            let detectors = detect::open_all(&config.detector);
            let embedders = embedders.map(|thread| match thread.join() {
                Ok(opened) => opened,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            (detectors, embedders)
        });
        let (detectors, embedders) = (detectors?, embedders.transpose()?.unwrap_or_default());
        let mut description = detectors
            .first()
            .map_or_else(String::new, |d| format!("detector: {}", d.description()));
        let facts = embedders.first().map(|e| {
            description.push_str(&format!("; embedder: {}", e.description()));
            EmbedderFacts {
                fingerprint: e.fingerprint(),
                width: e.width(),
                thresholds: e.thresholds(),
            }
        });
        let board = Board::default();
        // Every thread has a step at work; a recording may have a few more ready, since nobody waits for the newest.
        let ahead = if purpose == Purpose::Replay { 3 } else { 1 };
        let in_flight = detectors.len() + embedders.len() + ahead;
        let embedding = if embedders.is_empty() {
            None
        } else {
            let wait = match purpose {
                Purpose::Replay => Duration::ZERO,
                Purpose::Live => Duration::from_secs_f64(config.embedder.wait_secs),
            };
            let batching = Batching {
                most: config.embedder.batch,
                wait,
            };
            Some(Embedding::start(embedders, batching, in_flight, &board)?)
        };
        let mut engine = Engine {
            detecting: Detecting::start(detectors, feed()?, in_flight, &board)?,
            embedding,
            cameras: BTreeMap::new(),
            tracker: config.tracker.clone(),
            ids: TrackletIds::default(),
            judge: Judge::new(config.crops.clone()),
            budget: Budget::new(config.crops.clone()),
            early: BTreeMap::new(),
            next_turn: 0,
            pending: VecDeque::new(),
            first_step: 0,
            over: false,
            failed: None,
            clock_base: None,
            description,
            board,
            facts,
            least_height: config.detector.min_height,
        };
        for (index, camera) in config.cameras.iter().enumerate() {
            engine.watch(index, camera);
        }
        Ok(engine)
    }

    /// What detects and what embeds, for people.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// What embeds; `None` if the engine does not.
    pub fn embedder(&self) -> Option<&EmbedderFacts> {
        self.facts.as_ref()
    }

    /// What runs the models now.
    pub fn models(&self) -> Vec<ModelHealth> {
        self.board.read()
    }

    /// How much is under way.
    pub fn queues(&self) -> Queues {
        Queues {
            steps: self.pending.len(),
            crops: self.embedding.as_ref().map_or(0, Embedding::waiting),
        }
    }

    /// A camera came, or has new rules; its running tracklets go on.
    pub fn watch(&mut self, index: CameraIndex, camera: &CameraConfig) {
        let filter = camera.filter(self.least_height);
        match self.cameras.get_mut(&index) {
            Some(watched) => watched.filter = filter,
            None => {
                let tracker = Tracker::new(self.tracker.clone());
                self.cameras.insert(index, Watched { filter, tracker });
            }
        }
    }

    /// A camera is gone: its frames under way are discarded. Returns its running tracklets, ended by this.
    pub fn unwatch(&mut self, index: CameraIndex) -> Vec<TrackletId> {
        let ended = self.end_camera(index);
        self.cameras.remove(&index);
        self.detecting.forget(index);
        ended
    }

    /// Ends the tracklets of a camera that was lost.
    pub fn end_camera(&mut self, index: CameraIndex) -> Vec<TrackletId> {
        let ended = self
            .cameras
            .get_mut(&index)
            .map(|w| w.tracker.finish())
            .unwrap_or_default();
        for &id in &ended {
            self.budget.forget(id);
        }
        ended
    }

    /// Rules of following and of choosing crops from now on.
    pub fn set_rules(&mut self, tracker: &TrackerConfig, crops: &CropsConfig) {
        self.tracker = tracker.clone();
        for watched in self.cameras.values_mut() {
            watched.tracker.set_config(tracker.clone());
        }
        self.judge = Judge::new(crops.clone());
        self.budget.set_config(crops.clone());
    }

    /// The clock was set by `secs`: everything that is open moves with it. `base` is what the clock adds from now on.
    pub fn clock_moved(&mut self, secs: f64, base: f64) {
        self.clock_base = Some(base);
        for watched in self.cameras.values_mut() {
            watched.tracker.shift(secs);
        }
        self.budget.shift(secs);
        for pending in &mut self.pending {
            for analysed in &mut pending.analysed.frames {
                restamp(&mut analysed.frame, base);
            }
            for look in &mut pending.analysed.looks {
                look.time += secs;
            }
        }
    }

    /// The next step, in order; waits at most `timeout`.
    ///
    /// # Errors
    /// [`EngineError`]: what failed, after all steps before it have been told. The engine is then over.
    pub fn next(&mut self, timeout: Duration) -> Result<Next, EngineError> {
        let deadline = Instant::now() + timeout;
        loop {
            while let Some(turn) = self.early.remove(&self.next_turn) {
                self.next_turn += 1;
                self.follow(turn);
            }
            if self.pending.front().is_some_and(|p| p.missing == 0)
                && let Some(done) = self.pending.pop_front()
            {
                self.first_step += 1;
                self.detecting.permit();
                return Ok(Next::Step(Box::new(done.analysed)));
            }
            if self.pending.is_empty() {
                if let Some(error) = self.failed.take() {
                    self.over = true;
                    return Err(error);
                }
                if self.over {
                    return Ok(Next::Over);
                }
            }
            let nothing = never();
            let embedded = self.embedding.as_ref().map_or(&nothing, |e| &e.done);
            select! {
                recv(self.detecting.turns) -> turn => match turn {
                    Ok(turn) => {
                        self.early.insert(turn.number, turn);
                    }
                    // All threads have ended without saying that the feed is over: one of them panicked.
                    Err(_) => self.over = true,
                },
                recv(embedded) -> embedded => match embedded {
                    Ok(embedded) => self.fill(embedded)?,
                    Err(_) => self.over = true,
                },
                default(deadline.saturating_duration_since(Instant::now())) => return Ok(Next::Nothing),
            }
        }
    }

    /// Ends all running tracklets.
    pub fn finish(&mut self) -> Vec<(CameraIndex, TrackletId)> {
        let indices: Vec<CameraIndex> = self.cameras.keys().copied().collect();
        indices
            .into_iter()
            .flat_map(|index| {
                let ended = self.end_camera(index);
                ended.into_iter().map(move |id| (index, id))
            })
            .collect()
    }

    /// Follows people through the frames of a turn and sends the crops worth a look to be embedded.
    fn follow(&mut self, turn: Turn) {
        if self.failed.is_some() {
            return;
        }
        let (frames, detections, detect_secs) = match turn.outcome {
            Ok(Seen::Frames {
                frames,
                detections,
                detect_secs,
            }) => (frames, detections, detect_secs),
            Ok(Seen::Over) => {
                self.over = true;
                return;
            }
            Err(error) => {
                self.failed = Some(error);
                return;
            }
        };
        let mut out = Analysed::default();
        out.timings.detect_secs = detect_secs;
        for (mut frame, mut detections) in frames.into_iter().zip(detections) {
            if let Some(base) = self.clock_base {
                restamp(&mut frame, base);
            }
            let Some(watched) = self.cameras.get_mut(&frame.camera) else {
                out.discarded += 1;
                continue;
            };
            let size = frame.picture.size();
            watched.filter.apply(&mut detections, size);
            let began = Instant::now();
            let update = watched
                .tracker
                .update(frame.time, size, &detections, &mut self.ids);
            let tracked = Instant::now();
            out.timings.track_secs += (tracked - began).as_secs_f64();
            for &id in &update.ended {
                self.budget.forget(id);
                out.ended.push((frame.camera, id));
            }
            self.look(&frame, &update.boxes, &mut out.looks);
            out.timings.crop_secs += tracked.elapsed().as_secs_f64();
            out.frames.push(AnalysedFrame {
                frame,
                detections,
                boxes: update.boxes,
            });
        }
        out.timings.frames = out.frames.len() as u64;
        let mut missing = 0;
        if let Some(embedding) = &self.embedding {
            missing = out.looks.len();
            out.timings.crops = missing as u64;
            out.embeddings = vec![Vec::new(); missing];
            let crops = out
                .looks
                .iter()
                .map(|l| (l.picture.clone(), l.ltrb.outward().pixels()))
                .collect();
            let step = self.first_step + self.pending.len() as u64;
            embedding.give(step, crops);
        }
        self.pending.push_back(Pending {
            analysed: out,
            missing,
        });
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
                picture: frame.picture.clone(),
            });
        }
    }

    /// Puts embeddings where they belong.
    fn fill(&mut self, embedded: Embedded) -> Result<(), EngineError> {
        let (step, first) = embedded.at;
        let embeddings = match embedded.embeddings {
            Ok(embeddings) => embeddings,
            Err(error) => {
                self.over = true;
                self.pending.clear();
                return Err(error.into());
            }
        };
        let place = step.checked_sub(self.first_step).map(|i| i as usize);
        if let Some(pending) = place.and_then(|i| self.pending.get_mut(i)) {
            pending.missing -= embeddings.len();
            pending.analysed.timings.embed_secs += embedded.secs;
            for (slot, embedding) in pending.analysed.embeddings[first..]
                .iter_mut()
                .zip(embeddings)
            {
                *slot = embedding;
            }
        }
        Ok(())
    }
}

/// Moves a live frame's time to what the clock would stamp now.
fn restamp(frame: &mut Frame, base: f64) {
    if let Some(stamped) = &mut frame.clock_base {
        frame.time += base - *stamped;
        *stamped = base;
    }
}
