//! Which frames are analysed when a camera sends more than is wanted.

/// Chooses `fps` frames per second, evenly. The schedule keeps its phase, so 10 of 25 frames are 10 and not 8.3.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    period: Option<f64>,
    next_due: f64,
}

impl Schedule {
    pub(super) fn new(fps: Option<f64>) -> Self {
        Schedule {
            period: fps.map(|f| 1.0 / f),
            next_due: f64::NEG_INFINITY,
        }
    }

    /// Whether a frame at `time`, in seconds that never go back, is analysed.
    pub(super) fn is_due(&mut self, time: f64) -> bool {
        let Some(period) = self.period else {
            return true;
        };
        if time + 1e-3 < self.next_due {
            return false;
        }
        self.next_due = if time - self.next_due < period {
            self.next_due + period
        } else {
            time + period
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_wanted_and_evenly() {
        for (fps, wanted) in [(10.0, 100), (25.0, 250), (40.0, 250), (0.5, 5)] {
            let mut schedule = Schedule::new(Some(fps));
            let due = (0..250)
                .filter(|i| schedule.is_due(f64::from(*i) / 25.0))
                .count();
            assert!(due.abs_diff(wanted) <= 1, "{due} at {fps}");
        }
        let mut all = Schedule::new(None);
        assert!(all.is_due(0.0) && all.is_due(0.0));
    }

    #[test]
    fn after_a_pause_it_does_not_catch_up() {
        let mut schedule = Schedule::new(Some(5.0));
        assert!(schedule.is_due(0.0));
        assert!(schedule.is_due(100.0));
        assert!(!schedule.is_due(100.1));
        assert!(schedule.is_due(100.2));
    }
}
