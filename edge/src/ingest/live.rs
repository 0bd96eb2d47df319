//! Cameras kept open: a thread each, the newest frame only, lost ones opened again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{IngestError, Pace, Pulled, Stream};
use crate::config::{CameraConfig, EdgeConfig};
use crate::types::{CameraIndex, Frame};

/// First wait before a lost source is opened again.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// A source that has run for so long starts again with the first wait.
const SETTLED: Duration = Duration::from_secs(10);
/// How long a thread looks at its source before it looks at the stop flag.
const GLANCE: Duration = Duration::from_millis(100);

/// How a camera is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CameraState {
    /// Being opened.
    Connecting,
    /// Frames come.
    Live,
    /// Open, but silent for too long.
    Stalled,
    /// Lost; waiting before it is opened again.
    BackingOff,
    /// Given up: configuration or installation is at fault.
    Failed,
    /// A file is over.
    Ended,
}

impl CameraState {
    /// As in events: `connecting`, `live`, `stalled`, `backing_off`, `failed`, `ended`.
    pub fn as_str(self) -> &'static str {
        match self {
            CameraState::Connecting => "connecting",
            CameraState::Live => "live",
            CameraState::Stalled => "stalled",
            CameraState::BackingOff => "backing_off",
            CameraState::Failed => "failed",
            CameraState::Ended => "ended",
        }
    }

    /// Whether nothing will come any more.
    pub fn is_over(self) -> bool {
        matches!(self, CameraState::Failed | CameraState::Ended)
    }
}

/// State of a camera and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// State.
    pub state: CameraState,
    /// Reason, or empty.
    pub detail: String,
}

/// Called at every change of state, from the camera's thread.
pub type OnState = Arc<dyn Fn(CameraIndex, &Status) + Send + Sync>;

/// All cameras of a configuration, open.
pub struct LiveCameras {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Newest frame and status per camera.
    slots: Mutex<Slots>,
    arrived: Condvar,
    stop: AtomicBool,
    replaced: AtomicU64,
    on_state: OnState,
}

struct Slots {
    frames: Vec<Option<Frame>>,
    statuses: Vec<Status>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        // Slots are replaced whole: a thread that panicked left nothing half done.
        self.slots.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn put(&self, frame: Frame) {
        let index = frame.camera;
        if self.lock().frames[index].replace(frame).is_some() {
            self.replaced.fetch_add(1, Ordering::Relaxed);
        }
        self.arrived.notify_one();
    }

    fn is_full(&self, index: CameraIndex) -> bool {
        self.lock().frames[index].is_some()
    }

    fn set(&self, index: CameraIndex, state: CameraState, detail: String) {
        let status = Status { state, detail };
        let changed = {
            let mut slots = self.lock();
            let changed = slots.statuses[index] != status;
            slots.statuses[index] = status.clone();
            changed
        };
        if changed {
            tracing::info!(camera = index, state = state.as_str(), detail = %status.detail, "camera");
            (self.on_state)(index, &status);
        }
        self.arrived.notify_one();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.stopped() && Instant::now() < until {
            std::thread::sleep(GLANCE.min(until.saturating_duration_since(Instant::now())));
        }
    }
}

impl LiveCameras {
    /// Starts a thread per camera. Files run at recorded speed unless the camera says `real_time = false`; their times
    /// are offset by `epoch` seconds, so that they mean the same as those of the live cameras beside them.
    ///
    /// # Errors
    /// If GStreamer or a thread cannot be started.
    pub fn start(config: &EdgeConfig, epoch: f64, on_state: OnState) -> Result<Self, IngestError> {
        super::start()?;
        let count = config.cameras.len();
        let connecting = Status {
            state: CameraState::Connecting,
            detail: String::new(),
        };
        let shared = Arc::new(Shared {
            slots: Mutex::new(Slots {
                frames: vec![None; count],
                statuses: vec![connecting; count],
            }),
            arrived: Condvar::new(),
            stop: AtomicBool::new(false),
            replaced: AtomicU64::new(0),
            on_state,
        });
        let mut threads = Vec::new();
        for (index, camera) in config.cameras.iter().enumerate() {
            let (camera, shared) = (camera.clone(), shared.clone());
            let thread = std::thread::Builder::new()
                .name(format!("camera-{}", camera.name))
                .spawn(move || keep_open(index, &camera, epoch, &shared))
                .map_err(|e| IngestError::Start(e.to_string()))?;
            threads.push(thread);
        }
        Ok(LiveCameras { shared, threads })
    }

    /// The newest frame of every camera that has one, at the latest after `timeout`; ordered by camera.
    pub fn take(&self, timeout: Duration) -> Vec<Frame> {
        let deadline = Instant::now() + timeout;
        let mut slots = self.shared.lock();
        loop {
            let frames: Vec<Frame> = slots.frames.iter_mut().filter_map(Option::take).collect();
            let left = deadline.saturating_duration_since(Instant::now());
            let over = slots.statuses.iter().all(|s| s.state.is_over());
            if !frames.is_empty() || left.is_zero() || over || self.shared.stopped() {
                return frames;
            }
            slots = match self.shared.arrived.wait_timeout(slots, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// How the cameras are.
    pub fn statuses(&self) -> Vec<Status> {
        self.shared.lock().statuses.clone()
    }

    /// Whether every camera has ended or failed and its last frame was taken.
    pub fn is_over(&self) -> bool {
        let slots = self.shared.lock();
        slots.statuses.iter().all(|s| s.state.is_over()) && slots.frames.iter().all(Option::is_none)
    }

    /// Frames that were replaced by newer ones before they were taken.
    pub fn replaced(&self) -> u64 {
        self.shared.replaced.load(Ordering::Relaxed)
    }

    /// Closes all cameras and waits for their threads.
    pub fn stop(mut self) {
        self.close();
    }

    fn close(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a camera thread panicked");
            }
        }
    }
}

impl Drop for LiveCameras {
    fn drop(&mut self) {
        self.close();
    }
}

/// The life of a camera's thread.
fn keep_open(index: CameraIndex, camera: &CameraConfig, epoch: f64, shared: &Shared) {
    let longest = Duration::from_secs_f64(camera.backoff_max_secs);
    let mut wait = FIRST_WAIT.min(longest);
    let (mut number, mut time) = (0, if camera.is_live() { 0.0 } else { epoch });
    while !shared.stopped() {
        shared.set(index, CameraState::Connecting, String::new());
        let began = Instant::now();
        let outcome = read(index, camera, (number, time), shared);
        if shared.stopped() {
            return;
        }
        let detail = match outcome {
            Ok(Ended { number: n, time: t }) => {
                if !camera.is_live() {
                    if !camera.looped {
                        shared.set(index, CameraState::Ended, String::new());
                        return;
                    }
                    // The next pass starts one frame later than this one ended.
                    (number, time) = (n, t + 0.04);
                    continue;
                }
                number = n;
                "the stream ended".to_owned()
            }
            Err((e, _)) if e.is_permanent() => {
                shared.set(index, CameraState::Failed, e.to_string());
                return;
            }
            Err((e, n)) => {
                number = n;
                if matches!(e, IngestError::Stalled { .. }) {
                    shared.set(index, CameraState::Stalled, e.to_string());
                }
                e.to_string()
            }
        };
        if began.elapsed() > SETTLED {
            wait = FIRST_WAIT.min(longest);
        }
        let detail = format!("{detail}; next attempt in {:.1} s", wait.as_secs_f64());
        shared.set(index, CameraState::BackingOff, detail);
        shared.sleep(wait);
        wait = (wait * 2).min(longest);
    }
}

struct Ended {
    number: u64,
    time: f64,
}

/// Reads a source until it ends, fails or falls silent.
fn read(
    index: CameraIndex,
    camera: &CameraConfig,
    (number, time): (u64, f64),
    shared: &Shared,
) -> Result<Ended, (IngestError, u64)> {
    let pace = match camera.real_time {
        Some(false) if !camera.is_live() => Pace::Fast,
        _ => Pace::RealTime,
    };
    let mut stream = Stream::open(index, camera, pace).map_err(|e| (e, number))?;
    stream.continue_from(number, time);
    let mut heard = Instant::now();
    let mut position = stream.position();
    while !shared.stopped() {
        match stream.next(GLANCE).map_err(|e| (e, stream.position().0))? {
            Pulled::Frame(frame) => {
                // A file that need not keep up with the clock waits for us: none of its frames is lost.
                while pace == Pace::Fast && shared.is_full(index) && !shared.stopped() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                shared.put(frame);
                shared.set(index, CameraState::Live, String::new());
            }
            Pulled::Nothing => {}
            Pulled::End => break,
        }
        if stream.position() != position {
            // Frames that are not analysed are signs of life too.
            position = stream.position();
            heard = Instant::now();
        }
        let idle_secs = heard.elapsed().as_secs_f64();
        if idle_secs > camera.stall_secs {
            return Err((
                IngestError::Stalled {
                    camera: camera.name.clone(),
                    source_name: camera.source().to_string(),
                    idle_secs,
                    limit_secs: camera.stall_secs,
                },
                stream.position().0,
            ));
        }
    }
    let (number, time) = stream.position();
    Ok(Ended { number, time })
}
