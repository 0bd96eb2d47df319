//! `reid-edge run`: cameras to identities, until told to stop.
//!
//! A thread per camera keeps its newest frame; this thread takes what is newest of every camera, analyses it, and hands
//! it to the page and to the events. Nothing queues up: a slow model lowers the analysed frame rate.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::config::EdgeConfig;
use crate::events::{Event, EventSink, EventsError};
use crate::ingest::{IngestError, LiveCameras, Status};
use crate::pipeline::{Pipeline, PipelineError, StepOutput, Timings};
use crate::serve::{self, FrameView, Hub, ServeError};
use crate::types::{CameraIndex, Ltrb, TrackletId};

/// How long the loop waits for a frame before it looks at the stop flag.
const GLANCE: Duration = Duration::from_millis(200);

/// What a run did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunSummary {
    /// Frames analysed.
    pub frames: u64,
    /// Frames that were replaced by newer ones before they could be analysed.
    pub replaced: u64,
    /// Crops embedded.
    pub crops: u64,
    /// Tracklets that ended.
    pub tracklets: u64,
    /// Identities in the gallery at the end.
    pub identities: usize,
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
    /// A camera thread or GStreamer.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// A stage.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The page.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The events.
    #[error(transparent)]
    Events(#[from] EventsError),
    /// No camera is left.
    #[error("no camera can be used:\n  {}", .0.join("\n  "))]
    NoCamera(Vec<String>),
}

/// Events from several threads into one sink; the first failure is kept.
struct Sink {
    out: Mutex<EventSink>,
    failure: Mutex<Option<EventsError>>,
}

impl Sink {
    fn write(&self, event: &Event) {
        let result = self
            .out
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .write(event);
        if let Err(e) = result {
            self.failure
                .lock()
                .unwrap_or_else(|e| e.into_inner())
                .get_or_insert(e);
        }
    }

    fn check(&self) -> Result<(), EventsError> {
        match self
            .failure
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .take()
        {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }
}

/// Runs until `stop` is set, `seconds` have passed, or every camera is over (files end, live sources don't).
///
/// # Errors
/// [`RunError`].
pub fn run(
    config: &EdgeConfig,
    seconds: Option<f64>,
    stop: &Arc<AtomicBool>,
) -> Result<RunSummary, RunError> {
    let names = config.camera_names();
    let mut pipeline = Pipeline::new(config)?;
    tracing::info!("{}", pipeline.description());
    let sink = Arc::new(Sink {
        out: Mutex::new(EventSink::open(&config.events, &config.base)?),
        failure: Mutex::new(None),
    });
    let hub = Hub::new(names.clone());
    hub.fact("pipeline", &pipeline.description());
    let page = if config.serve.enabled {
        let page = serve::spawn(&config.serve, &config.base, hub.clone())?;
        tracing::info!("live page on http://{}", page.addr());
        Some(page)
    } else {
        None
    };

    // Where a live camera is among them, everything is told in Unix time, or the times would not compare.
    let any_live = config.cameras.iter().any(|c| c.is_live());
    let epoch = if any_live { unix_now() } else { 0.0 };
    let began = Instant::now();
    let lost: Arc<Mutex<Vec<CameraIndex>>> = Arc::default();
    let on_state = {
        let (hub, sink, lost, names) = (hub.clone(), sink.clone(), lost.clone(), names.clone());
        move |camera: CameraIndex, status: &Status| {
            let state = status.state.as_str();
            hub.camera_state(camera, state, &status.detail);
            sink.write(&Event::CameraState {
                time: epoch + began.elapsed().as_secs_f64(),
                camera: names[camera].clone(),
                state: state.to_owned(),
                detail: status.detail.clone(),
            });
            if state != "live" {
                lost.lock().unwrap_or_else(|e| e.into_inner()).push(camera);
            }
        }
    };
    let cameras = LiveCameras::start(config, epoch, Arc::new(on_state))?;
    let limit = seconds.map(Duration::from_secs_f64);
    let mut told = Teller {
        hub: &hub,
        sink: &sink,
        names: &names,
        boxes: HashMap::new(),
        rates: vec![Rate::default(); names.len()],
        summary: RunSummary::default(),
    };
    while !stop.load(Ordering::Relaxed)
        && limit.is_none_or(|l| began.elapsed() < l)
        && !cameras.is_over()
    {
        let frames = cameras.take(GLANCE);
        if !frames.is_empty() {
            let output = pipeline.step(frames)?;
            told.tell(&pipeline, output);
        }
        let lost = std::mem::take(&mut *lost.lock().unwrap_or_else(|e| e.into_inner()));
        for camera in lost {
            let ended = pipeline.end_camera(camera)?;
            told.ended(
                &pipeline,
                ended.into_iter().map(|id| (camera, id)).collect(),
            );
        }
        sink.check()?;
    }
    let statuses = cameras.statuses();
    told.summary.replaced = cameras.replaced();
    cameras.stop();
    let output = pipeline.finish()?;
    told.tell(&pipeline, output);
    sink.check()?;
    drop(page);
    let mut summary = told.summary;
    summary.identities = pipeline.associator().gallery().len();
    summary.seconds = began.elapsed().as_secs_f64();
    summary.fps = summary.frames as f64 / summary.seconds.max(1e-9);
    let failed = |s: &&Status| s.state == crate::ingest::CameraState::Failed;
    if !statuses.is_empty() && statuses.iter().filter(failed).count() == statuses.len() {
        return Err(RunError::NoCamera(
            statuses.into_iter().map(|s| s.detail).collect(),
        ));
    }
    Ok(summary)
}

/// Tells page and events what a step brought.
struct Teller<'a> {
    hub: &'a Hub,
    sink: &'a Sink,
    names: &'a [String],
    /// Last box of every running tracklet.
    boxes: HashMap<TrackletId, Ltrb>,
    rates: Vec<Rate>,
    summary: RunSummary,
}

impl Teller<'_> {
    fn tell(&mut self, pipeline: &Pipeline, output: StepOutput) {
        let t = output.timings;
        for (stage, secs) in [
            ("detect", t.detect_secs),
            ("track", t.track_secs),
            ("crop", t.crop_secs),
            ("embed", t.embed_secs),
            ("associate", t.associate_secs),
        ] {
            self.hub.stage(stage, secs);
        }
        self.summary.timings.add(&t);
        self.summary.frames += t.frames;
        self.summary.crops += t.crops;
        for analysed in &output.frames {
            for b in &analysed.boxes {
                self.boxes.insert(b.tracklet, b.ltrb);
            }
        }
        for assignment in &output.assignments {
            let crop = pipeline.crop(assignment.tracklet);
            self.hub.assignment(assignment, crop);
            let ltrb = self.boxes.get(&assignment.tracklet).copied();
            let camera = &self.names[assignment.camera];
            self.sink.write(&Event::identity(assignment, camera, ltrb));
        }
        for analysed in output.frames {
            let frame = analysed.frame;
            let boxes = analysed
                .boxes
                .iter()
                .map(|b| (b.ltrb, b.tracklet, pipeline.decision(b.tracklet)))
                .collect();
            self.hub.frame(FrameView {
                camera: frame.camera,
                time: frame.time,
                picture: frame.picture,
                boxes,
                fps: self.rates[frame.camera].tick(),
            });
        }
        self.ended(pipeline, output.ended);
        self.hub.known(pipeline.associator().gallery().len());
    }

    fn ended(&mut self, pipeline: &Pipeline, ended: Vec<(CameraIndex, TrackletId)>) {
        for (camera, tracklet) in ended {
            self.boxes.remove(&tracklet);
            self.summary.tracklets += 1;
            self.sink.write(&Event::TrackletEnded {
                time: pipeline.now().unwrap_or(0.0),
                camera: self.names[camera].clone(),
                tracklet,
                identity: pipeline.decision(tracklet).identity(),
            });
        }
    }
}

/// Frames per second over the last second or so.
#[derive(Clone, Debug, Default)]
struct Rate {
    last: Option<Instant>,
    interval: f32,
}

impl Rate {
    fn tick(&mut self) -> f32 {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            let gap = (now - last).as_secs_f32().max(1e-4);
            // The first gap counts whole.
            let share = if self.interval == 0.0 { 1.0 } else { 0.1 };
            self.interval += share * (gap - self.interval);
        }
        if self.interval > 0.0 {
            1.0 / self.interval
        } else {
            0.0
        }
    }
}

fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

/// A flag that SIGINT and SIGTERM set; the second signal ends the program at once with code 130.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn stop_on_signals() -> std::io::Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if flag.swap(true, Ordering::Relaxed) {
                        std::process::exit(130);
                    }
                    tracing::info!("stopping: finishing what is open (once more to stop at once)");
                }
            });
        })?;
    Ok(stop)
}
