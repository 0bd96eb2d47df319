//! The time of a live frame.
//!
//! The camera's own time where it is known and near this machine's; the camera's time moved by the smoothed offset where
//! it is farther off; the time of arrival where the camera says nothing. Times never go back, and a change from one to the
//! other is spread over some seconds, because a tracker that is told of a 0.2 s leap sees people leap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::camera_clock::CameraClock;
use crate::clock::Clock;

/// A camera's clock may be off by so much, seconds, unless it is said otherwise.
const DEFAULT_LIMIT_SECS: f64 = 2.0;
/// A change of sources is spread at this rate, seconds per second.
const SLEW: f64 = 0.1;
/// A change by more than this is not spread, seconds.
const LEAP_SECS: f64 = 5.0;
/// Two frames of a camera are at least so far apart, seconds.
const LEAST_STEP_SECS: f64 = 1e-3;

/// Whose clock dates a camera's frames, and how it goes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClockHealth {
    /// `camera`, or `arrival`: this machine's, when the frame arrived.
    pub source: &'static str,
    /// The camera's clock minus this machine's, seconds, smoothed; smaller than the truth by the shortest time a frame was
    /// under way. `None` if the camera does not tell its time.
    pub offset_secs: Option<f64>,
    /// `false` if the camera tells a time that is too far off or leaps about. A camera that tells none is healthy.
    pub healthy: bool,
}

impl ClockHealth {
    /// Before anything is known.
    pub(super) fn arrival() -> Self {
        ClockHealth {
            source: "arrival",
            offset_secs: None,
            healthy: true,
        }
    }
}

/// How far a camera's clock may be off, seconds; shared, so that it can be changed for all cameras at once.
#[derive(Clone, Debug)]
pub(super) struct OffsetLimit(Arc<AtomicU64>);

impl Default for OffsetLimit {
    fn default() -> Self {
        OffsetLimit(Arc::new(AtomicU64::new(DEFAULT_LIMIT_SECS.to_bits())))
    }
}

impl OffsetLimit {
    pub(super) fn set(&self, secs: f64) {
        self.0.store(secs.to_bits(), Ordering::Relaxed);
    }

    fn secs(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Where a frame's time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Arrival,
    Camera,
    /// The camera, less the offset.
    Corrected,
}

/// A live frame's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stamp {
    /// Seconds of [`Clock`].
    pub(super) time: f64,
    /// [`Clock::base`] that `time` was made with.
    pub(super) base: f64,
}

/// Dates the frames of one camera, over all its connections.
#[derive(Debug)]
pub(super) struct Stamper {
    clock: Clock,
    camera: CameraClock,
    /// `clock = "arrival"`: the camera's time is measured, not used.
    arrival_only: bool,
    limit: OffsetLimit,
    from: Origin,
    /// Steady arrival and steady time of the newest frame. Steady, so that a clock that is set moves nothing here.
    last: Option<(f64, f64)>,
    /// What is left to spread, seconds.
    rest: f64,
}

impl Stamper {
    pub(super) fn new(clock: Clock, arrival_only: bool, limit: OffsetLimit) -> Self {
        Stamper {
            clock,
            camera: CameraClock::default(),
            arrival_only,
            limit,
            from: Origin::Arrival,
            last: None,
            rest: 0.0,
        }
    }

    /// Dates a frame that arrives now and was taken at `captured` by the camera's Unix time.
    pub(super) fn stamp(&mut self, captured: Option<f64>) -> Stamp {
        let (steady, base) = self.steady();
        let (from, time) = self.source_of(captured, steady, base);
        let (time, rest) = match self.last {
            None => (time, 0.0),
            Some((last_steady, last_time)) => {
                let passed = (steady - last_steady).max(0.0);
                let mut rest = self.rest.signum() * (self.rest.abs() - SLEW * passed).max(0.0);
                if from != self.from {
                    // As if the old source had gone on.
                    rest = last_time + passed - time;
                    if rest.abs() > LEAP_SECS {
                        rest = 0.0;
                    }
                }
                ((time + rest).max(last_time + LEAST_STEP_SECS), rest)
            }
        };
        self.from = from;
        self.rest = rest;
        self.last = Some((steady, time));
        Stamp {
            time: time + base,
            base,
        }
    }

    /// (seconds since the clock's steady zero, its base), from the same moment.
    fn steady(&self) -> (f64, f64) {
        loop {
            let base = self.clock.base();
            let now = self.clock.now();
            if self.clock.base() == base {
                return (now - base, base);
            }
        }
    }

    /// Source and steady time of a frame.
    fn source_of(&mut self, captured: Option<f64>, steady: f64, base: f64) -> (Origin, f64) {
        let Some(captured) = captured else {
            return (Origin::Arrival, steady);
        };
        let fits = self.camera.observe(captured, steady);
        match self.camera.estimate() {
            Some(estimate) if fits && !self.arrival_only => {
                if (estimate - base).abs() <= self.limit.secs() {
                    (Origin::Camera, captured - base)
                } else {
                    (Origin::Corrected, captured - estimate)
                }
            }
            _ => (Origin::Arrival, steady),
        }
    }

    /// How the camera's clock goes.
    pub(super) fn health(&self) -> ClockHealth {
        let offset = self.camera.estimate().map(|e| e - self.clock.base());
        ClockHealth {
            source: match self.from {
                Origin::Arrival => "arrival",
                Origin::Camera | Origin::Corrected => "camera",
            },
            offset_secs: offset,
            healthy: offset.is_none_or(|o| o.abs() <= self.limit.secs())
                && !self.camera.is_disturbed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::clock::TimeSource;

    /// (steady, wall)
    struct Hands(Mutex<(f64, f64)>);

    impl TimeSource for Hands {
        fn steady(&self) -> f64 {
            self.0.lock().unwrap_or_else(|e| e.into_inner()).0
        }
        fn wall(&self) -> f64 {
            self.0.lock().unwrap_or_else(|e| e.into_inner()).1
        }
    }

    const WALL: f64 = 1.7e9;

    struct Bench {
        hands: Arc<Hands>,
        clock: Clock,
        stamper: Stamper,
        /// Steady seconds, and what the wall is off by.
        steady: f64,
        set: f64,
        last: Option<Stamp>,
    }

    impl Bench {
        fn new(arrival_only: bool) -> Self {
            let hands = Arc::new(Hands(Mutex::new((0.0, WALL))));
            let clock = Clock::new(hands.clone());
            Bench {
                stamper: Stamper::new(clock.clone(), arrival_only, OffsetLimit::default()),
                hands,
                clock,
                steady: 0.0,
                set: 0.0,
                last: None,
            }
        }

        /// `count` frames at 25 per second; each is taken by a camera `offset` seconds ahead and arrives 0.2 s later.
        /// Returns the times since the start, checked to go forward evenly.
        fn run(&mut self, count: u32, offset: Option<f64>) -> Vec<f64> {
            let mut times = Vec::new();
            for _ in 0..count {
                self.steady += 0.04;
                *self.hands.0.lock().unwrap_or_else(|e| e.into_inner()) =
                    (self.steady, WALL + self.steady + self.set);
                let captured = offset.map(|o| WALL + self.steady - 0.2 + o);
                let stamp = self.stamper.stamp(captured);
                if let Some(last) = self.last {
                    // Even by the steady clock: between 0.9 and 1.1 times the truth.
                    let step = (stamp.time - stamp.base) - (last.time - last.base);
                    assert!((0.035..0.045).contains(&step), "a step of {step}");
                }
                self.last = Some(stamp);
                times.push(stamp.time - WALL - self.steady);
            }
            times
        }
    }

    #[test]
    fn a_camera_without_a_clock_is_dated_at_arrival() {
        let mut bench = Bench::new(false);
        for t in bench.run(100, None) {
            assert!(t.abs() < 1e-6, "{t}");
        }
        assert_eq!(bench.stamper.health(), ClockHealth::arrival());
    }

    #[test]
    fn a_good_clock_is_taken_over_smoothly() {
        let mut bench = Bench::new(false);
        bench.run(50, None);
        let times = bench.run(500, Some(0.05));
        assert!(times[0].abs() < 1e-3, "no leap: {}", times[0]);
        let end = times[times.len() - 1];
        assert!((end + 0.15).abs() < 1e-3, "the camera's time: {end}");
        let health = bench.stamper.health();
        assert!(health.healthy && health.source == "camera");
        assert!((health.offset_secs.unwrap_or(f64::NAN) + 0.15).abs() < 1e-3);
        // The reports stop: back to arrival, as smoothly.
        let times = bench.run(500, None);
        assert!((times[0] + 0.15).abs() < 0.01);
        assert!(times[times.len() - 1].abs() < 1e-3);
    }

    #[test]
    fn a_clock_far_off_is_corrected_and_reported() {
        let mut bench = Bench::new(false);
        // It has never heard of the time.
        let times = bench.run(500, Some(-WALL));
        assert!(times[times.len() - 1].abs() < 1e-3);
        let health = bench.stamper.health();
        assert!(!health.healthy && health.source == "camera");
        assert!(health.offset_secs.is_some_and(|o| o < -1e9));
        bench.stamper.limit.set(1e10);
        assert!(bench.stamper.health().healthy);
        let mut told = Bench::new(true);
        told.run(500, Some(0.0));
        assert_eq!(told.stamper.health().source, "arrival");
        assert!(told.stamper.health().offset_secs.is_some());
    }

    #[test]
    fn an_hour_forward_and_back_on_this_machine_moves_base_and_nothing_else() {
        for jump in [3600.0, -3600.0] {
            for offset in [Some(0.0), None] {
                let mut bench = Bench::new(false);
                bench.run(300, offset);
                let before = bench.last.map(|s| s.base);
                bench.set = jump;
                // Not followed yet: nothing changes.
                bench.run(25, offset);
                assert_eq!(bench.last.map(|s| s.base), before);
                let told = bench.clock.follow();
                assert!(told.is_some_and(|t| (t - jump).abs() < 1e-6), "{told:?}");
                // `run` checks that steps stay even.
                bench.run(500, offset);
                let now = bench.last.map(|s| s.base);
                assert!(
                    now.zip(before)
                        .is_some_and(|(n, b)| (n - b - jump).abs() < 1e-6)
                );
                let health = bench.stamper.health();
                match offset {
                    // The camera kept the right time, so it is this machine that is off.
                    Some(_) => assert!(!health.healthy && health.source == "camera"),
                    None => assert_eq!(health, ClockHealth::arrival()),
                }
                // And back again.
                bench.set = 0.0;
                bench.run(25, offset);
                assert!(bench.clock.follow().is_some());
                bench.run(500, offset);
                assert!(bench.stamper.health().healthy);
            }
        }
    }

    #[test]
    fn an_hour_on_the_camera_leaps_nowhere() {
        for jump in [3600.0, -3600.0] {
            let mut bench = Bench::new(false);
            bench.run(500, Some(0.0));
            bench.run(50, Some(jump));
            assert!(!bench.stamper.health().healthy);
            let times = bench.run(500, Some(jump));
            assert!(times[times.len() - 1].abs() < 0.25, "near arrival");
            assert!(!bench.stamper.health().healthy, "an hour off");
            bench.run(1000, Some(0.0));
            assert!(bench.stamper.health().healthy);
        }
    }
}
