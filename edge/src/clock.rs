//! The time of live cameras: Unix seconds that go on evenly, whatever is done to the system's clock.
//!
//! Trackers and travel times want time to run evenly; people want it to be right. A device without a battery starts in
//! 1970 and jumps by decades when it hears of the time; a careless operator sets it back by an hour. So [`Clock::now`] runs
//! with the steady clock, and [`Clock::follow`], called now and then, says by how much the system's clock was set: the
//! caller moves everything that is open by as much, and nothing seems to have happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Differences up to this are drift, not a jump, seconds.
const DRIFT_SECS: f64 = 1.0;

/// Where time comes from.
pub trait TimeSource: Send + Sync {
    /// Seconds since some instant; never goes back, never jumps.
    fn steady(&self) -> f64;
    /// Seconds since 1970 as the system believes.
    fn wall(&self) -> f64;
}

/// The machine's own clocks.
struct System(Instant);

impl TimeSource for System {
    fn steady(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }

    fn wall(&self) -> f64 {
        unix_now()
    }
}

/// Unix time by the system's clock, seconds; 0 before 1970.
pub fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

/// Shared by cameras and pipeline; a clone is the same clock.
#[derive(Clone)]
pub struct Clock {
    source: Arc<dyn TimeSource>,
    /// Bits of the f64 that is added to steady time.
    base: Arc<AtomicU64>,
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").field("base", &self.base()).finish()
    }
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Clock::new(Arc::new(System(Instant::now())))
    }

    /// A clock by another source, for tests.
    pub fn new(source: Arc<dyn TimeSource>) -> Self {
        let base = source.wall() - source.steady();
        Clock {
            source,
            base: Arc::new(AtomicU64::new(base.to_bits())),
        }
    }

    /// Unix seconds.
    pub fn now(&self) -> f64 {
        self.source.steady() + self.base()
    }

    /// What is added to steady time now. A frame remembers it, so that one stamped before a jump is told from one stamped
    /// after it.
    pub fn base(&self) -> f64 {
        f64::from_bits(self.base.load(Ordering::Relaxed))
    }

    /// Follows the system's clock; `Some(seconds)` if it was set forward (or back, below 0) since the last call.
    pub fn follow(&self) -> Option<f64> {
        let off = self.source.wall() - self.now();
        if off.abs() <= DRIFT_SECS {
            return None;
        }
        self.base
            .store((self.base() + off).to_bits(), Ordering::Relaxed);
        Some(off)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

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

    #[test]
    fn time_runs_evenly_and_a_set_clock_is_told_once() {
        let hands = Arc::new(Hands(Mutex::new((10.0, 1000.0))));
        let set = |steady, wall| {
            *hands.0.lock().unwrap_or_else(|e| e.into_inner()) = (steady, wall);
        };
        let clock = Clock::new(hands.clone());
        assert_eq!(clock.now(), 1000.0);
        set(11.0, 4601.0);
        assert_eq!(clock.now(), 1001.0, "an hour forward is not seen yet");
        let base = clock.base();
        assert_eq!(clock.follow(), Some(3600.0));
        assert_eq!(clock.follow(), None);
        assert_eq!(clock.now(), 4601.0);
        assert_eq!(clock.base() - base, 3600.0);
        set(12.0, 1002.0);
        assert_eq!(clock.follow(), Some(-3600.0));
        assert_eq!(clock.now(), 1002.0);
        set(13.0, 1003.4);
        assert_eq!(clock.follow(), None, "drift");
        assert_eq!(clock.now(), 1003.0);
    }
}
