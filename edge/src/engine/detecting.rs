//! Threads that take frames and find people in them, each with a session of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::EngineError;
use super::board::{Board, Due};
use super::feed::{Feed, Taken};
use crate::detect::Detector;
use crate::types::{CameraIndex, Detection, Frame};

/// How long a thread waits for frames before it looks whether it is still wanted.
const GLANCE: Duration = Duration::from_millis(100);

/// What became of one turn, in the order of turns.
pub(super) struct Turn {
    pub(super) number: u64,
    pub(super) outcome: Result<Seen, EngineError>,
}

/// Frames and who is in them.
pub(super) enum Seen {
    Frames {
        frames: Vec<Frame>,
        detections: Vec<Vec<Detection>>,
        detect_secs: f64,
    },
    /// The feed is over.
    Over,
}

/// The feed, and the number that the next turn gets.
struct Source {
    feed: Box<dyn Feed>,
    next: u64,
    over: bool,
}

/// Detection threads.
pub(super) struct Detecting {
    /// Turns as they are done, not in order.
    pub(super) turns: Receiver<Turn>,
    /// One for every turn that may be under way.
    permits: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// Cameras that are gone. A detector that keeps something between frames has one thread, which hears of all of them.
    gone: Arc<Mutex<Vec<CameraIndex>>>,
}

impl Detecting {
    /// Starts a thread per detector; at most `in_flight` turns are under way until [`Detecting::permit`] is called.
    pub(super) fn start(
        detectors: Vec<Box<dyn Detector>>,
        feed: Box<dyn Feed>,
        in_flight: usize,
        board: &Board,
    ) -> Result<Self, EngineError> {
        let (permits, granted) = bounded(in_flight);
        let (done, turns) = bounded(in_flight);
        let stop = Arc::new(AtomicBool::new(false));
        let source = Arc::new(Mutex::new(Source {
            feed,
            next: 0,
            over: false,
        }));
        let gone: Arc<Mutex<Vec<CameraIndex>>> = Arc::default();
        let mut detecting = Detecting {
            turns,
            permits: Some(permits),
            threads: Vec::new(),
            stop: stop.clone(),
            gone: gone.clone(),
        };
        for _ in 0..in_flight {
            detecting.permit();
        }
        for (i, detector) in detectors.into_iter().enumerate() {
            let worker = Worker {
                detector,
                source: source.clone(),
                granted: granted.clone(),
                done: done.clone(),
                stop: stop.clone(),
                gone: gone.clone(),
                board: board.clone(),
                due: Due::default(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("detect-{i}"))
                .spawn(move || worker.run())
                .map_err(EngineError::Thread)?;
            detecting.threads.push(thread);
        }
        Ok(detecting)
    }

    /// A turn has been dealt with: another may begin.
    pub(super) fn permit(&self) {
        if let Some(permits) = &self.permits {
            // Never more than were taken: there is always room.
            let _ = permits.try_send(());
        }
    }

    /// The camera is gone; what a detector learned of it goes, too.
    pub(super) fn forget(&self, camera: CameraIndex) {
        let mut gone = self.gone.lock().unwrap_or_else(|e| e.into_inner());
        gone.push(camera);
    }
}

impl Drop for Detecting {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.permits = None;
        // Whoever waits to hand over a turn finds room.
        while self.turns.try_recv().is_ok() {}
        for thread in self.threads.drain(..) {
            while !thread.is_finished() {
                let _ = self.turns.recv_timeout(Duration::from_millis(5));
            }
            if thread.join().is_err() {
                tracing::error!("a detection thread panicked");
            }
        }
    }
}

struct Worker {
    detector: Box<dyn Detector>,
    source: Arc<Mutex<Source>>,
    granted: Receiver<()>,
    done: Sender<Turn>,
    stop: Arc<AtomicBool>,
    gone: Arc<Mutex<Vec<CameraIndex>>>,
    board: Board,
    due: Due,
}

impl Worker {
    fn run(mut self) {
        self.tell();
        while self.granted.recv().is_ok() {
            let Some((number, taken)) = self.take() else {
                return;
            };
            let over = !matches!(taken, Ok(Taken::Frames(_)));
            let outcome = taken
                .map_err(EngineError::from)
                .and_then(|taken| match taken {
                    Taken::Frames(frames) => self.detect(frames),
                    _ => Ok(Seen::Over),
                });
            if self.done.send(Turn { number, outcome }).is_err() || over {
                return;
            }
        }
    }

    /// What runs the model now, for whoever asks.
    fn tell(&self) {
        let (description, status) = (self.detector.description(), self.detector.status());
        self.board.write("detector", description, status);
    }

    /// The next frames and the number of their turn; `None` if there is nothing left to do.
    fn take(&self) -> Option<(u64, Result<Taken, crate::ingest::IngestError>)> {
        loop {
            let mut source = self.source.lock().unwrap_or_else(|e| e.into_inner());
            if source.over || self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let taken = source.feed.take(self.detector.most(), GLANCE);
            if matches!(taken, Ok(Taken::Nothing)) {
                continue;
            }
            source.over = !matches!(taken, Ok(Taken::Frames(_)));
            source.next += 1;
            return Some((source.next - 1, taken));
        }
    }

    fn detect(&mut self, frames: Vec<Frame>) -> Result<Seen, EngineError> {
        let gone = std::mem::take(&mut *self.gone.lock().unwrap_or_else(|e| e.into_inner()));
        for camera in gone {
            self.detector.forget(camera);
        }
        let began = Instant::now();
        let borrowed: Vec<&Frame> = frames.iter().collect();
        let detections = self.detector.detect(&borrowed)?;
        if self.due.is_due() {
            self.tell();
        }
        Ok(Seen::Frames {
            detect_secs: began.elapsed().as_secs_f64(),
            frames,
            detections,
        })
    }
}
