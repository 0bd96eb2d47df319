//! How many looks at a tracklet are embedded, and when.

use std::collections::HashMap;

use crate::config::CropsConfig;
use crate::types::TrackletId;

/// Spends looks: a burst first, so that somebody is recognised soon, then one now and then, so that a long stay does not
/// cost more than it tells.
pub struct Budget {
    config: CropsConfig,
    spent: HashMap<TrackletId, (u32, f64)>,
}

impl Budget {
    /// A budget by these rules.
    pub fn new(config: CropsConfig) -> Self {
        Budget {
            config,
            spent: HashMap::new(),
        }
    }

    /// Whether a look at `time` would be embedded.
    pub fn is_due(&self, tracklet: TrackletId, time: f64) -> bool {
        let c = &self.config;
        self.spent.get(&tracklet).is_none_or(|&(count, last)| {
            let gap = if count < c.burst {
                1.0 / c.burst_per_sec
            } else {
                c.every_secs
            };
            // A millisecond of grace: frame times are not exact multiples.
            count < c.max_per_tracklet && time - last + 1e-3 >= gap
        })
    }

    /// A look at `time` was embedded.
    pub fn spend(&mut self, tracklet: TrackletId, time: f64) {
        let entry = self.spent.entry(tracklet).or_insert((0, time));
        *entry = (entry.0 + 1, time);
    }

    /// Goes by other rules from now on.
    pub fn set_config(&mut self, config: CropsConfig) {
        self.config = config;
    }

    /// The clock was set by `secs`.
    pub fn shift(&mut self, secs: f64) {
        for (_, last) in self.spent.values_mut() {
            *last += secs;
        }
    }

    /// The tracklet has ended.
    pub fn forget(&mut self, tracklet: TrackletId) {
        self.spent.remove(&tracklet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_now_and_then_then_no_more() {
        let mut budget = Budget::new(CropsConfig {
            burst: 4,
            burst_per_sec: 5.0,
            every_secs: 1.0,
            max_per_tracklet: 6,
            ..CropsConfig::default()
        });
        let id = TrackletId(1);
        let mut taken = Vec::new();
        for frame in 0..100 {
            let time = f64::from(frame) * 0.1;
            if budget.is_due(id, time) {
                budget.spend(id, time);
                taken.push(frame);
            }
        }
        assert_eq!(taken, vec![0, 2, 4, 6, 16, 26]);
        budget.forget(id);
        assert!(budget.is_due(id, 10.0));
    }
}
