//! Percentiles of delays, in memory that does not grow.

use serde::Serialize;

/// Delays are told apart by the millisecond up to this, seconds; longer ones count as this.
const LONGEST_SECS: f64 = 20.0;

/// How often each delay was seen.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// One for each millisecond.
    counts: Vec<u64>,
    total: u64,
}

/// Percentiles, seconds, to the next whole millisecond above.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half are no longer than this.
    pub p50: f64,
    /// Nineteen of twenty are no longer.
    pub p95: f64,
    /// 99 of 100 are no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// How many there were.
    pub count: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies {
            counts: vec![0; (LONGEST_SECS * 1e3) as usize + 1],
            total: 0,
        }
    }
}

impl Latencies {
    /// Adds one; a delay below 0 counts as 0, one that is no number not at all.
    pub fn add(&mut self, secs: f64) {
        if secs.is_nan() {
            return;
        }
        let ms = (secs.clamp(0.0, LONGEST_SECS) * 1e3).ceil() as usize;
        let last = self.counts.len() - 1;
        self.counts[ms.min(last)] += 1;
        self.total += 1;
    }

    /// What was seen so far; `None` if nothing was.
    pub fn percentiles(&self) -> Option<Percentiles> {
        if self.total == 0 {
            return None;
        }
        let at = |share: f64| {
            let wanted = ((share * self.total as f64).ceil() as u64).max(1);
            let mut seen = 0;
            let found = self.counts.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            found.unwrap_or(self.counts.len() - 1) as f64 / 1e3
        };
        Some(Percentiles {
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            max: at(1.0),
            count: self.total,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn percentiles_of_known_delays() {
        let mut l = Latencies::default();
        assert_eq!(l.percentiles(), None);
        for ms in 1..=100 {
            l.add(f64::from(ms) / 1e3);
        }
        let p = l.percentiles().unwrap();
        assert_eq!((p.p50, p.p95, p.p99, p.max), (0.05, 0.095, 0.099, 0.1));
        l.add(-1.0);
        l.add(1e9);
        l.add(f64::NAN);
        let p = l.percentiles().unwrap();
        assert_eq!((p.max, p.count), (20.0, 102));
    }
}
