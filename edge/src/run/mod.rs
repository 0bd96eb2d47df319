//! `reid-edge run`: cameras to identities, until told to stop.
//!
//! A thread per camera keeps its newest frame, the pipeline takes what it has time for, this thread tells the page and the
//! events. Nothing queues up: a slow model lowers the analysed frame rate of all cameras alike, and what was passed over is
//! counted. Cameras come and go by reload (SIGHUP) and through the page's address; a full disk, a lost camera and a set
//! clock are states to report, not reasons to end.

mod fleet;
mod models;
mod signals;
mod sink;
mod teller;
mod upkeep;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock::Clock;
use crate::config::EdgeConfig;
use crate::engine::Purpose;
use crate::events::{Event, EventsError};
use crate::ingest::{IngestError, LiveCameras, Status};
use crate::latency::Percentiles;
use crate::memory;
use crate::pipeline::{Pipeline, PipelineError, Progress, Timings};
use crate::serve::control::{Question, control};
use crate::serve::{self, Hub, ServeError};
use crate::service::{Service, ServiceError};
use crate::types::CameraIndex;

use fleet::Fleet;
use models::ModelFiles;
pub use signals::Signals;
use sink::Sink;
use teller::Teller;
use upkeep::Upkeep;

/// How long the loop waits for a step before it looks at everything else.
const GLANCE: Duration = Duration::from_millis(100);

/// What a run did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunSummary {
    /// Frames analysed.
    pub frames: u64,
    /// Frames that came out of the decoders. All of them are accounted for: `frames` + `skipped` + `replaced` + `discarded`.
    pub received: u64,
    /// Frames passed over because their camera is analysed at fewer frames per second than it sends.
    pub skipped: u64,
    /// Frames that were replaced by newer ones before they could be analysed: overload.
    pub replaced: u64,
    /// Those of them until eight seconds after the first analysed frame: what came while the models were opened, and what a
    /// connection had kept while it was opened and gave out at once. No overload yet.
    pub replaced_at_start: u64,
    /// Frames under way when their camera was closed or the run ended.
    pub discarded: u64,
    /// Damaged frames.
    pub bad: u64,
    /// Times a camera was opened again.
    pub reconnects: u64,
    /// Crops embedded.
    pub crops: u64,
    /// Tracklets that ended.
    pub tracklets: u64,
    /// Identities in the gallery at the end.
    pub identities: usize,
    /// Events written, and lost because they could not be.
    pub events: u64,
    /// As above.
    pub events_lost: u64,
    /// Seconds from a frame's arrival to its events; without the start (those eight seconds), if the run was longer.
    pub latency: Option<Percentiles>,
    /// Seconds from the instant at which the camera says it took the picture to its events, likewise; absent if no camera says
    /// so.
    pub capture_latency: Option<Percentiles>,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Frames analysed per second, all cameras together.
    pub fps: f64,
    /// Where the time went.
    pub timings: Timings,
}

/// A run that failed. What was decided before is in the gallery.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// GStreamer.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// A stage.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The page.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The events, at the start.
    #[error(transparent)]
    Events(#[from] EventsError),
    /// The service manager.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// No camera is left.
    #[error("no camera can be used:\n  {}", .0.join("\n  "))]
    NoCamera(Vec<String>),
}

/// Changes of state that camera threads have reported and this thread has not seen yet.
type Reported = Arc<Mutex<Vec<CameraIndex>>>;

/// Runs until told to stop, `seconds` have passed, or every camera is over (files end, live sources don't).
///
/// # Errors
/// [`RunError`].
pub fn run(
    config: &EdgeConfig,
    seconds: Option<f64>,
    signals: &Signals,
) -> Result<RunSummary, RunError> {
    run_by(config, seconds, signals, Clock::system())
}

/// As [`run`], by another clock.
///
/// # Errors
/// [`RunError`].
pub fn run_by(
    config: &EdgeConfig,
    seconds: Option<f64>,
    signals: &Signals,
    clock: Clock,
) -> Result<RunSummary, RunError> {
    let began = Instant::now();
    memory::share_heaps();
    let service = Service::from_env()?;
    let sink = Arc::new(Sink::open(&config.events, config.base.clone())?);
    let hub = Hub::new(config.camera_names());
    let (controls, questions) = control();
    let page = if config.serve.enabled {
        let controls = config.serve.control.then_some(controls);
        let page = serve::spawn(&config.serve, &config.base, hub.clone(), controls)?;
        tracing::info!("live page on http://{}", page.addr());
        Some(page)
    } else {
        None
    };
    let lost: Reported = Arc::default();
    let on_state = {
        let (hub, sink, lost, clock) = (hub.clone(), sink.clone(), lost.clone(), clock.clone());
        move |camera: CameraIndex, status: &Status| {
            let state = status.state.as_str();
            let Some(name) = hub.camera_state(camera, state, &status.detail) else {
                return;
            };
            let event = Event::CameraState {
                time: clock.now(),
                camera: name,
                state: state.to_owned(),
                detail: status.detail.clone(),
            };
            sink.write(&event, hub.metrics());
            if state != "live" {
                lost.lock().unwrap_or_else(|e| e.into_inner()).push(camera);
            }
        }
    };
    // Before they are opened: a change while they are read counts.
    let models = ModelFiles::of(config);
    let live = Arc::new(LiveCameras::new(clock.clone(), Arc::new(on_state))?);
    live.set_clock_offset_secs(config.health.clock_offset_secs);
    // Cameras connect while the models are opened.
    let fleet = Fleet::open(config, live.clone(), hub.clone())?;
    let feed = live.clone();
    let pipeline = Pipeline::start(config, Purpose::Live, || Ok(Box::new(feed)))?;
    tracing::info!("{}", pipeline.description());
    hub.fact("pipeline", pipeline.description());
    let mut run = Run {
        config: config.clone(),
        teller: Teller::new(&hub, &sink, clock.clone()),
        upkeep: Upkeep::new(service.clone(), models)?,
        pipeline,
        fleet,
        live,
        clock,
        lost,
        start: Start::default(),
    };
    let limit = seconds.map(Duration::from_secs_f64);
    let done = run.go(signals, &questions, |run| {
        limit.is_none_or(|l| began.elapsed() < l) && !run.live.is_over()
    });
    service.stopping();
    let ended = done.and_then(|()| run.end());
    drop(page);
    let mut summary = ended?;
    summary.seconds = began.elapsed().as_secs_f64();
    summary.fps = summary.frames as f64 / summary.seconds.max(1e-9);
    Ok(summary)
}

/// A run at work.
struct Run<'a> {
    config: EdgeConfig,
    pipeline: Pipeline,
    fleet: Fleet,
    live: Arc<LiveCameras>,
    clock: Clock,
    lost: Reported,
    teller: Teller<'a>,
    upkeep: Upkeep,
    start: Start,
}

/// How long the start lasts, from the first analysed frame on: until every camera's second sender report has come (RFC 3550:
/// every 5 s, times 0.5 to 1.5). The first may be wrong: servers made with GStreamer were seen to tell a time a second off.
const START: Duration = Duration::from_secs(8);

/// What was replaced before the run was under way.
#[derive(Default)]
struct Start {
    /// When the first frame was analysed.
    first: Option<Instant>,
    /// Known once the start is over.
    replaced: Option<u64>,
}

impl Start {
    /// Looks at the time; `analysed` frames so far. `true` when the start is just over.
    fn is_over(&mut self, analysed: u64, replaced: impl Fn() -> u64) -> bool {
        if self.replaced.is_some() || analysed == 0 {
            return false;
        }
        let over = self.first.get_or_insert_with(Instant::now).elapsed() >= START;
        if over {
            self.replaced = Some(replaced());
        }
        over
    }
}

impl Run<'_> {
    fn go(
        &mut self,
        signals: &Signals,
        questions: &crossbeam_channel::Receiver<Question>,
        wanted: impl Fn(&Self) -> bool,
    ) -> Result<(), RunError> {
        while !signals.stopping() && wanted(self) {
            match self.pipeline.next(GLANCE)? {
                Progress::Step(output) => self.teller.tell(&self.pipeline, output),
                Progress::Nothing => {}
                // Removing the last camera does not end a run: another may be added.
                Progress::Over if self.fleet.cameras().is_empty() => {}
                Progress::Over => break,
            }
            let replaced = || self.live.total().replaced;
            if self.start.is_over(self.teller.frames, replaced) {
                self.teller.forget_latencies();
            }
            if let Some(secs) = self.clock.follow() {
                self.clock_moved(secs);
            }
            self.end_lost_cameras()?;
            while let Ok(question) = questions.try_recv() {
                self.answer(question);
            }
            if signals.reloading() {
                self.reload();
            }
            self.keep_up();
        }
        Ok(())
    }

    /// The system's clock was set: everything open moves with it.
    fn clock_moved(&mut self, secs: f64) {
        tracing::warn!("the clock was set by {secs:+.1} s: running tracklets move with it");
        self.teller.hub.metrics().clock_jumped();
        self.pipeline.clock_moved(secs, self.clock.base());
    }

    /// People seen by a camera that was lost are no longer followed in it.
    fn end_lost_cameras(&mut self) -> Result<(), RunError> {
        let lost = std::mem::take(&mut *self.lost.lock().unwrap_or_else(|e| e.into_inner()));
        for camera in lost {
            let ended = self.pipeline.end_camera(camera)?;
            self.tell_ended(camera, &ended);
        }
        Ok(())
    }

    fn tell_ended(&mut self, camera: CameraIndex, ended: &[crate::types::TrackletId]) {
        let ended: Vec<_> = ended.iter().map(|id| (camera, *id)).collect();
        self.teller.ended(&self.pipeline, &ended);
    }

    /// Closes the cameras, finishes what is under way and settles what is open.
    fn end(mut self) -> Result<RunSummary, RunError> {
        let statuses = self.live.statuses();
        self.live.close();
        // What was taken is analysed to its end; nothing new comes.
        loop {
            match self.pipeline.next(Duration::from_secs(10))? {
                Progress::Step(output) => self.teller.tell(&self.pipeline, output),
                Progress::Over => break,
                Progress::Nothing => {
                    tracing::error!("the stages do not end: what is under way is given up");
                    break;
                }
            }
        }
        let output = self.pipeline.finish()?;
        if let Some(failure) = &output.failure {
            tracing::error!("the last decisions are lost: {failure}");
        }
        self.teller.tell(&self.pipeline, output);
        let total = self.live.total();
        let (events, events_lost) = self.teller.sink.counts();
        let teller = &self.teller;
        let summary = RunSummary {
            frames: teller.frames,
            received: total.received,
            skipped: total.skipped,
            replaced: total.replaced,
            replaced_at_start: self.start.replaced.unwrap_or(total.replaced),
            discarded: total.discarded + teller.discarded,
            bad: total.bad,
            reconnects: total.reconnects,
            crops: teller.timings.crops,
            tracklets: teller.tracklets,
            identities: self.pipeline.associator().gallery().len(),
            events,
            events_lost,
            latency: teller.latency.percentiles(),
            capture_latency: teller.capture_latency.percentiles(),
            timings: teller.timings,
            ..RunSummary::default()
        };
        let failed: Vec<String> = statuses
            .values()
            .filter(|s| s.state == crate::ingest::CameraState::Failed)
            .map(|s| s.detail.clone())
            .collect();
        if !failed.is_empty() && failed.len() == statuses.len() {
            return Err(RunError::NoCamera(failed));
        }
        Ok(summary)
    }
}
