//! Between the threads of GStreamer and the thread that copies frames.
//!
//! A frame is numbered, dated and put on or off the schedule the moment it arrives, without waking anybody: the reader
//! sleeps until there is a frame to copy, an error to look at, or nothing more to come.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use gstreamer as gst;

use super::counts::Tally;
use super::schedule::Schedule;
use super::stamp::Stamper;

/// A frame that is not yet copied.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) sample: gst::Sample,
    /// 1-based, counting those that were left out.
    pub(super) number: u64,
    /// Seconds, as [`Frame::time`](crate::types::Frame::time).
    pub(super) time: f64,
    /// The clock's base that `time` was made with, of live ones.
    pub(super) base: Option<f64>,
    /// The camera's Unix time.
    pub(super) captured: Option<f64>,
    pub(super) at: Instant,
}

/// Why a reader woke up.
#[derive(Debug)]
pub(super) enum Event {
    /// A frame to copy.
    Frame(Arrived),
    /// There is an error to be read.
    Message,
    /// Nothing more will come.
    Ended,
    /// Somebody called [`Inbox::wake`].
    Woken,
    /// The time is over.
    Nothing,
}

/// Where times come from.
pub(super) enum Dating {
    /// The position in the recording, plus an offset in seconds.
    Recorded(f64),
    /// The moment of arrival, or the camera's own time.
    Live(Arc<Mutex<Stamper>>),
}

/// What may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// The newest frame only.
    Newest,
    /// Every frame: those that come wait in GStreamer.
    All,
}

/// Frames kept ready when none may be lost.
const ROOM: usize = 3;

/// One connection's frames.
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    keep: Keep,
    tally: Tally,
}

struct State {
    frames: VecDeque<Arrived>,
    number: u64,
    /// Time of the newest frame, analysed or not.
    time: Option<f64>,
    dating: Dating,
    schedule: Schedule,
    /// When the newest whole frame came.
    heard: Option<Instant>,
    message: bool,
    ended: bool,
    woken: bool,
    closed: bool,
}

impl Inbox {
    /// `number` frames came before, in earlier connections.
    pub(super) fn new(
        keep: Keep,
        number: u64,
        dating: Dating,
        fps: Option<f64>,
        tally: Tally,
    ) -> Self {
        Inbox {
            state: Mutex::new(State {
                frames: VecDeque::new(),
                number,
                time: None,
                dating,
                schedule: Schedule::new(fps),
                heard: None,
                message: false,
                ended: false,
                woken: false,
                closed: false,
            }),
            changed: Condvar::new(),
            keep,
            tally,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        match self.changed.wait_timeout(state, time) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }

    /// Takes a frame from GStreamer; `captured` is the camera's Unix time. `false` if no more are wanted.
    pub(super) fn put(&self, sample: gst::Sample, captured: Option<f64>) -> bool {
        let at = Instant::now();
        let damaged = sample
            .buffer()
            .is_none_or(|b| b.flags().contains(gst::BufferFlags::CORRUPTED));
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.number += 1;
        if damaged {
            self.tally.change(|c| c.bad += 1);
            return true;
        }
        state.heard = Some(at);
        let (time, base, steady) = state.date(&sample, captured);
        state.time = Some(time);
        if !state.schedule.is_due(steady) {
            self.tally.change(|c| {
                c.received += 1;
                c.skipped += 1;
            });
            return true;
        }
        let frame = Arrived {
            sample,
            number: state.number,
            time,
            base,
            captured,
            at,
        };
        match self.keep {
            Keep::All => {
                while state.frames.len() >= ROOM && !state.closed {
                    state = self.wait(state, Duration::from_secs(1));
                }
                if state.closed {
                    self.tally.change(|c| {
                        c.received += 1;
                        c.discarded += 1;
                    });
                    return false;
                }
            }
            Keep::Newest => {
                let replaced = state.frames.len() as u64;
                state.frames.clear();
                self.tally.change(|c| {
                    c.received += replaced;
                    c.replaced += replaced;
                });
            }
        }
        state.frames.push_back(frame);
        self.changed.notify_all();
        true
    }

    /// The last frame has come.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// There is an error to be read.
    pub(super) fn ring(&self) {
        self.lock().message = true;
        self.changed.notify_all();
    }

    /// Ends the wait of the reader, now or the next one.
    pub(super) fn wake(&self) {
        self.lock().woken = true;
        self.changed.notify_all();
    }

    /// Takes no more frames and lets go of whoever waits.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let left = state.frames.len() as u64;
        state.frames.clear();
        self.tally.change(|c| {
            c.received += left;
            c.discarded += left;
        });
        drop(state);
        self.changed.notify_all();
    }

    /// Waits at most `timeout` for something to do. Frames that came before an error or the end come out first.
    pub(super) fn next(&self, timeout: Duration) -> Event {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(frame) = state.frames.pop_front() {
                self.changed.notify_all();
                return Event::Frame(frame);
            }
            if std::mem::take(&mut state.message) {
                return Event::Message;
            }
            if state.ended {
                return Event::Ended;
            }
            if std::mem::take(&mut state.woken) {
                return Event::Woken;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Event::Nothing;
            }
            state = self.wait(state, left);
        }
    }

    /// Number of the newest frame and its time if there was one, analysed or not.
    pub(super) fn position(&self) -> (u64, Option<f64>) {
        let state = self.lock();
        (state.number, state.time)
    }

    /// When the newest whole frame came, analysed or not.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.lock().heard
    }
}

impl State {
    /// Time, base of the clock, and a time for the schedule that no set clock moves.
    fn date(&mut self, sample: &gst::Sample, captured: Option<f64>) -> (f64, Option<f64>, f64) {
        match &self.dating {
            Dating::Live(stamper) => {
                let stamp = stamper
                    .lock()
                    .unwrap_or_else(|e| e.into_inner())
                    .stamp(captured);
                (stamp.time, Some(stamp.base), stamp.time - stamp.base)
            }
            Dating::Recorded(offset) => {
                let pts = sample.buffer().and_then(|b| b.pts());
                let position = sample
                    .segment()
                    .and_then(|s| s.downcast_ref::<gst::ClockTime>())
                    .and_then(|s| s.to_stream_time(pts?))
                    .or(pts);
                let time = match (position, self.time) {
                    (Some(t), last) => {
                        (t.nseconds() as f64 / 1e9 + offset).max(last.unwrap_or(f64::NEG_INFINITY))
                    }
                    // A raw stream without times: 25 frames per second is as good a guess as any.
                    (None, Some(last)) => last + 0.04,
                    (None, None) => *offset,
                };
                (time, None, time)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::Clock;
    use crate::ingest::stamp::OffsetLimit;

    fn sample(pts_ms: u64, damaged: bool) -> gst::Sample {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::with_size(1).unwrap();
        let b = buffer.get_mut().unwrap();
        b.set_pts(gst::ClockTime::from_mseconds(pts_ms));
        if damaged {
            b.set_flags(gst::BufferFlags::CORRUPTED);
        }
        gst::Sample::builder().buffer(&buffer).build()
    }

    fn live(tally: &Tally) -> Inbox {
        let stamper = Stamper::new(Clock::system(), false, OffsetLimit::default());
        let dating = Dating::Live(Arc::new(Mutex::new(stamper)));
        Inbox::new(Keep::Newest, 10, dating, None, tally.clone())
    }

    #[test]
    fn the_newest_frame_stays_and_every_other_is_counted() {
        let tally = Tally::default();
        let inbox = live(&tally);
        assert!(inbox.put(sample(0, false), None));
        assert!(inbox.put(sample(40, false), Some(5.0)));
        assert!(inbox.put(sample(80, true), None));
        let Event::Frame(frame) = inbox.next(Duration::ZERO) else {
            panic!("a frame waits")
        };
        assert_eq!((frame.number, frame.captured), (12, Some(5.0)));
        assert!(frame.base.is_some());
        assert_eq!(inbox.position().0, 13);
        let counts = tally.get();
        // The one in hand is counted by whoever got it.
        assert_eq!((counts.received, counts.replaced, counts.bad), (1, 1, 1));
        inbox.put(sample(120, false), None);
        inbox.close();
        assert!(!inbox.put(sample(160, false), None));
        assert_eq!(tally.get().discarded, 1);
    }

    #[test]
    fn errors_and_the_end_come_after_the_frames_before_them() {
        let inbox = live(&Tally::default());
        inbox.put(sample(0, false), None);
        inbox.end();
        inbox.ring();
        inbox.wake();
        let second = Duration::from_secs(1);
        assert!(matches!(inbox.next(second), Event::Frame(_)));
        assert!(matches!(inbox.next(second), Event::Message));
        assert!(matches!(inbox.next(second), Event::Ended));
        let quiet = live(&Tally::default());
        assert!(matches!(
            quiet.next(Duration::from_millis(1)),
            Event::Nothing
        ));
        quiet.wake();
        assert!(matches!(quiet.next(second), Event::Woken));
    }

    #[test]
    fn a_writer_waits_for_a_slow_reader_and_is_let_go_when_it_closes() {
        let inbox = Arc::new(Inbox::new(
            Keep::All,
            0,
            Dating::Recorded(100.0),
            None,
            Tally::default(),
        ));
        let writer = {
            let inbox = inbox.clone();
            std::thread::spawn(move || {
                (0..50)
                    .filter(|i| inbox.put(sample(i * 40, false), None))
                    .count()
            })
        };
        for i in 0..10 {
            let Event::Frame(frame) = inbox.next(Duration::from_secs(5)) else {
                panic!("frame {i}")
            };
            assert_eq!(frame.number, i + 1);
            assert!((frame.time - (100.0 + 0.04 * i as f64)).abs() < 1e-9);
        }
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(inbox.lock().frames.len(), ROOM);
        inbox.close();
        assert_eq!(writer.join().unwrap(), 10 + ROOM);
    }
}
