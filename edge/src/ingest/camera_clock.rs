//! How far a camera's clock is from this machine's.
//!
//! A frame says when the camera took it, and we see when it arrives: the difference is the clocks' offset minus the time
//! the frame was under way (encoded, sent, put in order, decoded). That time is never negative and mostly short, so the
//! largest difference of each second is nearest to the truth, and the median of half a minute of such seconds does not
//! mind a second of congestion or one bad report. What remains is an error of the shortest time under way, some
//! 50 to 300 ms, always with the same sign: the camera's clock seems to be that much behind.

use std::collections::VecDeque;

/// Seconds remembered.
const SECONDS: usize = 30;
/// Differences this far from the estimate come from congestion, or from a clock that was set, seconds.
const STRANGE_SECS: f64 = 1.0;
/// Strange differences that agree with each other for so long are the new truth, seconds.
const CONVINCED_SECS: f64 = 3.0;

/// What the frames of one camera said about its clock.
#[derive(Debug, Default)]
pub(super) struct CameraClock {
    /// (second of steady time, its largest `captured - steady`), oldest first.
    seconds: VecDeque<(i64, f64)>,
    /// Median of the above.
    estimate: Option<f64>,
    /// Steady time and difference of the first strange frame in a row.
    strange: Option<(f64, f64)>,
}

impl CameraClock {
    /// Takes a frame's Unix time by the camera and its arrival in steady seconds. `true` if the two fit what was seen
    /// before.
    pub(super) fn observe(&mut self, captured: f64, steady: f64) -> bool {
        let difference = captured - steady;
        if self
            .estimate
            .is_some_and(|e| (difference - e).abs() > STRANGE_SECS)
        {
            let (since, first) = *self.strange.get_or_insert((steady, difference));
            if (difference - first).abs() > STRANGE_SECS {
                self.strange = Some((steady, difference));
            } else if steady - since >= CONVINCED_SECS {
                *self = CameraClock::default();
                self.add(difference, steady);
            }
            return false;
        }
        self.strange = None;
        self.add(difference, steady);
        self.estimate.is_some()
    }

    fn add(&mut self, difference: f64, steady: f64) {
        let second = steady.floor() as i64;
        match self.seconds.back_mut() {
            // A frame that overtook others does not begin an earlier second anew.
            Some((s, largest)) if *s >= second => *largest = largest.max(difference),
            _ => self.seconds.push_back((second, difference)),
        }
        if self.seconds.len() > SECONDS {
            self.seconds.pop_front();
        }
        // One second may be a single frame, and that one late.
        if self.seconds.len() >= 2 {
            let mut sorted: Vec<f64> = self.seconds.iter().map(|(_, d)| *d).collect();
            sorted.sort_by(f64::total_cmp);
            self.estimate = Some(sorted[sorted.len() / 2]);
        }
    }

    /// Camera's Unix time minus steady time, seconds, once two seconds were seen.
    pub(super) fn estimate(&self) -> Option<f64> {
        self.estimate
    }

    /// Whether frames just now contradict the estimate.
    pub(super) fn is_disturbed(&self) -> bool {
        self.strange.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames at 25 per second whose delays are mostly 80 ms, sometimes up to 0.5 s.
    fn run(clock: &mut CameraClock, from: f64, secs: f64, offset: f64) -> usize {
        let mut fits = 0;
        for i in 0..(secs * 25.0) as u64 {
            let taken = from + i as f64 / 25.0;
            let delay = if i % 7 == 3 { 0.5 } else { 0.08 };
            fits += usize::from(clock.observe(taken + offset, taken + delay));
        }
        fits
    }

    #[test]
    fn the_shortest_way_counts_and_late_frames_do_not() {
        let mut clock = CameraClock::default();
        assert_eq!(clock.estimate(), None);
        run(&mut clock, 100.0, 20.0, 1.6e9);
        let estimate = clock.estimate().unwrap_or(f64::NAN);
        assert!((estimate - (1.6e9 - 0.08)).abs() < 1e-3, "{estimate}");
        assert!(!clock.is_disturbed());
    }

    #[test]
    fn congestion_changes_nothing_and_a_clock_that_was_set_is_believed_after_three_seconds() {
        let mut clock = CameraClock::default();
        run(&mut clock, 100.0, 20.0, 5.0);
        // Two seconds of frames that are three seconds late.
        for i in 0..50 {
            let taken = 120.0 + f64::from(i) / 25.0;
            assert!(!clock.observe(taken + 5.0, taken + 3.0));
        }
        assert!(clock.is_disturbed());
        run(&mut clock, 122.0, 1.0, 5.0);
        let estimate = clock.estimate().unwrap_or(f64::NAN);
        assert!((estimate - 4.92).abs() < 1e-3, "{estimate}");
        // The camera hears of the right time: an hour forward.
        let fits = run(&mut clock, 123.0, 10.0, 3605.0);
        assert!((100..180).contains(&fits), "{fits} of 250 frames fit");
        let estimate = clock.estimate().unwrap_or(f64::NAN);
        assert!((estimate - 3604.92).abs() < 1e-3, "{estimate}");
    }

    #[test]
    fn memory_is_bounded_and_slow_drift_is_followed() {
        let mut clock = CameraClock::default();
        for i in 0..200_000 {
            let steady = f64::from(i) / 10.0;
            // A clock that gains 50 ppm.
            clock.observe(steady * (1.0 + 50e-6), steady);
        }
        assert!(clock.seconds.len() <= SECONDS);
        let estimate = clock.estimate().unwrap_or(f64::NAN);
        assert!((estimate - 1.0).abs() < 0.01, "{estimate}");
    }
}
