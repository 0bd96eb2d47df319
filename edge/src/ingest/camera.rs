//! The life of a camera's thread: open, watch, lose, wait, open again.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::back_off::BackOff;
use super::close::Latch;
use super::counts::Tally;
use super::decoders::Preference;
use super::slots::{Control, Slots};
use super::stamp::Stamper;
use super::status::CameraState;
use super::stream::{CLOSE, Past};
use super::{IngestError, Pace, Pulled, Stream};
use crate::clock::Clock;
use crate::config::CameraConfig;
use crate::types::CameraIndex;

/// A source whose frames came for so long starts again with the first wait.
const SETTLED: Duration = Duration::from_secs(10);
/// How long the thread that had the device before is waited for.
const PREDECESSOR: Duration = Duration::from_secs(5);
/// A file that gives no frame for so long never will, seconds.
const FILE_SILENCE_SECS: f64 = 20.0;
/// A looped file's next pass starts so much later than the last one ended, seconds.
const LOOP_GAP_SECS: f64 = 0.04;

/// A camera's thread.
pub(super) struct Camera {
    pub(super) index: CameraIndex,
    pub(super) id: u64,
    pub(super) config: CameraConfig,
    /// Dates the frames of a file.
    pub(super) clock: Clock,
    /// [`Clock::base`] when the camera was added.
    pub(super) base: f64,
    pub(super) slots: Arc<Slots>,
    pub(super) control: Arc<Control>,
    pub(super) tally: Tally,
    pub(super) stamper: Arc<Mutex<Stamper>>,
    /// Threads of cameras that had this index before.
    pub(super) predecessors: Vec<Latch>,
}

/// How a connection went.
struct Outcome {
    /// `Ok`: the stream ended by itself, or the thread is to end.
    result: Result<(), IngestError>,
    /// Number and time of its last frame.
    position: (u64, f64),
    /// How long frames came.
    lived: Duration,
    /// Hardware has failed before the first frame.
    hardware_failed: bool,
    /// Set when it is closed.
    closed: Option<Latch>,
}

impl Camera {
    /// Runs until the camera is removed, ends or fails for good.
    pub(super) fn run(self) {
        let done = self.control.done.clone();
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| self.keep_open()));
        if outcome.is_err() {
            tracing::error!(camera = %self.config.name, "its thread panicked");
            self.set(CameraState::Failed, "an error of this program".into());
        }
        // What it holds goes first: whoever waits for the end counts threads and files.
        drop(self);
        done.set();
    }

    fn set(&self, state: CameraState, detail: String) {
        tracing::info!(camera = %self.config.name, state = state.as_str(), %detail, "camera");
        self.slots.set(self.index, self.id, |s| {
            s.state = state;
            s.detail = detail;
        });
    }

    fn keep_open(&self) {
        self.slots.tell(self.index, self.id);
        let deadline = Instant::now() + PREDECESSOR;
        for latch in &self.predecessors {
            latch.wait(deadline.saturating_duration_since(Instant::now()));
        }
        let longest = Duration::from_secs_f64(self.config.backoff_max_secs);
        let mut back_off = BackOff::new(&self.config.name, longest);
        let live = self.config.is_live();
        let mut past = Past {
            number: 0,
            time_offset: self.clock.now() - self.clock.base() + self.base,
            stamper: self.stamper.clone(),
            tally: self.tally.clone(),
            software: false,
        };
        // The next pass of a looped recording is nothing to tell anybody.
        let mut rewinds = false;
        while !self.control.is_quitting() {
            if !rewinds {
                self.set(CameraState::Connecting, String::new());
            }
            rewinds = false;
            let before = past.number;
            let outcome = self.connect(past.clone());
            if self.control.is_quitting() {
                return;
            }
            past.number = outcome.position.0;
            if outcome.hardware_failed && super::preference(&self.config) == Preference::Auto {
                tracing::warn!(camera = %self.config.name, "the hardware decoder fails: software from now on");
                past.software = true;
            }
            if outcome.lived >= SETTLED {
                back_off.reset();
            }
            let detail = match outcome.result {
                Ok(()) if live => "the stream ended".to_owned(),
                Ok(()) if self.config.looped => {
                    past.time_offset = outcome.position.1 + LOOP_GAP_SECS;
                    rewinds = outcome.position.0 > before;
                    continue;
                }
                Ok(()) => return self.set(CameraState::Ended, String::new()),
                Err(e) if e.is_permanent() => {
                    return self.set(CameraState::Failed, e.to_string());
                }
                Err(e) => {
                    if matches!(e, IngestError::Stalled { .. }) {
                        self.set(CameraState::Stalled, e.to_string());
                    }
                    let wait = back_off.next(matches!(e, IngestError::Refused { .. }));
                    self.back_off(&e.to_string(), wait, outcome.closed);
                    continue;
                }
            };
            let wait = back_off.next(false);
            self.back_off(&detail, wait, outcome.closed);
        }
    }

    /// Waits before the next attempt, and until the last one is closed.
    fn back_off(&self, detail: &str, wait: Duration, closed: Option<Latch>) {
        let text = format!("{detail}; next attempt in {:.1} s", wait.as_secs_f64());
        self.set(CameraState::BackingOff, text);
        self.control.sleep(wait);
        if let Some(closed) = closed
            && !closed.wait(CLOSE)
        {
            // One that hangs is enough.
            self.set(
                CameraState::BackingOff,
                format!("{detail}; the old connection does not close"),
            );
            while !self.control.is_quitting() && !closed.wait(Duration::from_millis(500)) {}
        }
        self.tally.change(|c| c.reconnects += 1);
    }

    /// One connection, from opening to closing.
    fn connect(&self, past: Past) -> Outcome {
        let pace = match self.config.real_time {
            Some(false) if !self.config.is_live() => Pace::Fast,
            _ => Pace::RealTime,
        };
        let before = (past.number, past.time_offset);
        let mut stream = match Stream::open_again(self.index, &self.config, pace, past) {
            Ok(stream) => stream,
            Err(e) => {
                return Outcome {
                    result: Err(e),
                    position: before,
                    lived: Duration::ZERO,
                    hardware_failed: false,
                    closed: None,
                };
            }
        };
        self.control.waits_at(stream.inbox());
        let mut first = None;
        let result = self.watch(&mut stream, pace, &mut first);
        let closed = stream.close();
        closed.wait(CLOSE);
        Outcome {
            result,
            position: stream.position(),
            lived: first.map_or(Duration::ZERO, |f: Instant| f.elapsed()),
            hardware_failed: first.is_none() && stream.hardware_failed(),
            closed: Some(closed),
        }
    }

    /// Hands frames on until the source ends, fails or falls silent. `first` becomes the time of the first frame.
    fn watch(
        &self,
        stream: &mut Stream,
        pace: Pace,
        first: &mut Option<Instant>,
    ) -> Result<(), IngestError> {
        let limit_secs = if self.config.is_live() {
            self.config.stall_secs
        } else {
            self.config.stall_secs.max(FILE_SILENCE_SECS)
        };
        let limit = Duration::from_secs_f64(limit_secs);
        // A frame that was handed on slowly is a sign of life as well.
        let mut alive = Instant::now();
        let mut shown = String::new();
        while !self.control.is_quitting() {
            let heard = stream.heard().map_or(alive, |h| h.max(alive));
            let idle = heard.elapsed();
            if idle >= limit {
                return Err(IngestError::Stalled {
                    camera: self.config.name.clone(),
                    source_name: self.config.source().to_string(),
                    idle_secs: idle.as_secs_f64(),
                    limit_secs,
                });
            }
            match stream.next(limit - idle)? {
                Pulled::Frame(mut frame) => {
                    if frame.clock_base.is_none() {
                        // Positions count from the clock as it stood at the start; it may have been set since.
                        let base = self.clock.base();
                        frame.time += base - self.base;
                        frame.clock_base = Some(base);
                    }
                    if first.is_none() || shown != stream.chain() {
                        shown = stream.chain().to_owned();
                        self.slots.set(self.index, self.id, |s| {
                            s.state = CameraState::Live;
                            s.detail = String::new();
                            s.chain = shown.clone();
                            s.size = stream.size();
                        });
                    }
                    first.get_or_insert_with(Instant::now);
                    let wait = pace == Pace::Fast;
                    self.slots
                        .put(self.id, &self.control, &self.tally, frame, wait);
                    alive = Instant::now();
                }
                Pulled::Nothing => {}
                Pulled::End => return Ok(()),
            }
        }
        Ok(())
    }
}
