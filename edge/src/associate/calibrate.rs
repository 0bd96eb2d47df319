//! Thresholds from the site's own cameras, without labels.
//!
//! Free negatives: two tracklets seen at the same time in one camera, or in two cameras that do not overlap, are two
//! people. Free positives: the earlier and the later half of one tracklet are one person, in one view, so this similarity
//! is an upper bound of what another camera will give. `match` lies where a stated fraction of the negatives would pass,
//! but never so high that only the very same view could.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::types::TrackletId;

use super::bars::Bars;

/// Pairs remembered of each kind; the oldest go first, so that a site that changes is followed.
const MAX_SAMPLES: usize = 4_096;
/// Negatives needed before anything is said.
const MIN_NEGATIVES: usize = 3;
/// Spread of negatives assumed beforehand, and how many pairs that assumption is worth.
const PRIOR_SPREAD: f32 = 0.10;
const PRIOR_WEIGHT: f32 = 5.0;
/// `match` stays below this part of the way from negatives to positives.
const MATCH_CEILING: f32 = 0.7;

/// Latest similarity per key, bounded.
#[derive(Debug)]
struct Samples<K: Ord + Copy> {
    values: BTreeMap<K, f32>,
    order: VecDeque<K>,
}

impl<K: Ord + Copy> Default for Samples<K> {
    fn default() -> Self {
        Samples {
            values: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Ord + Copy> Samples<K> {
    fn put(&mut self, key: K, value: f32) {
        if self.values.insert(key, value).is_none() {
            self.order.push_back(key);
            if self.order.len() > MAX_SAMPLES
                && let Some(oldest) = self.order.pop_front()
            {
                self.values.remove(&oldest);
            }
        }
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    /// Median and upper spread (distance to the 84th percentile, one sigma of a normal distribution). Quantiles, because a
    /// person boxed twice would be a false negative pair near 1.
    fn summary(&self) -> Option<(f32, f32)> {
        let mut sorted: Vec<f32> = self.values.values().copied().collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let at = |q: f32| sorted.get(((sorted.len() as f32 - 1.0) * q).round() as usize);
        Some((*at(0.5)?, at(0.84)? - at(0.5)?))
    }
}

/// What the cameras taught about similarity.
#[derive(Debug, Default)]
pub struct Calibration {
    same_camera: Samples<(TrackletId, TrackletId)>,
    other_camera: Samples<(TrackletId, TrackletId)>,
    genuine: Samples<TrackletId>,
}

/// The evidence in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// Pairs of different people in one camera.
    pub same_camera_pairs: usize,
    /// Pairs of different people in two cameras.
    pub other_camera_pairs: usize,
    /// Tracklets compared with themselves.
    pub tracklets: usize,
    /// Median similarity of different people.
    pub different: f32,
    /// Its upper spread.
    pub spread: f32,
    /// Median similarity of a tracklet with itself.
    pub same: f32,
}

impl Calibration {
    /// Two tracklets that must be two people.
    pub fn different(&mut self, a: TrackletId, b: TrackletId, one_camera: bool, similarity: f32) {
        let key = (a.min(b), a.max(b));
        if one_camera {
            self.same_camera.put(key, similarity);
        } else {
            self.other_camera.put(key, similarity);
        }
    }

    /// The halves of one tracklet.
    pub fn same(&mut self, tracklet: TrackletId, similarity: f32) {
        self.genuine.put(tracklet, similarity);
    }

    /// What is known so far; `None` while it is too little.
    pub fn evidence(&self) -> Option<Evidence> {
        let (same, other) = (self.same_camera.len(), self.other_camera.len());
        if same + other < MIN_NEGATIVES || self.genuine.len() == 0 {
            return None;
        }
        // Recognition across cameras is what the bar is for: pairs of two cameras speak first.
        let pairs = if other >= MIN_NEGATIVES {
            &self.other_camera
        } else if same >= MIN_NEGATIVES {
            &self.same_camera
        } else {
            return None;
        };
        let (different, spread) = pairs.summary()?;
        let n = pairs.len() as f32;
        Some(Evidence {
            same_camera_pairs: same,
            other_camera_pairs: other,
            tracklets: self.genuine.len(),
            different,
            spread: (spread * n + PRIOR_SPREAD * PRIOR_WEIGHT) / (n + PRIOR_WEIGHT),
            same: self.genuine.summary()?.0,
        })
    }

    /// Bars at which a fraction `far` of different people would pass for the same, if they are normally distributed
    /// above their median.
    pub fn bars(&self, far: f64) -> Option<Bars> {
        let e = self.evidence()?;
        let room = (e.same - e.different).max(0.02);
        let match_score = (e.different + normal_quantile(1.0 - far) as f32 * e.spread)
            .min(e.different + MATCH_CEILING * room);
        let sigma = (match_score - e.different).max(0.01) / 2.0;
        let same_camera_offset = match (self.same_camera.summary(), self.other_camera.summary()) {
            (Some((one, _)), Some((two, _)))
                if self.same_camera.len() >= 2 * MIN_NEGATIVES
                    && self.other_camera.len() >= 2 * MIN_NEGATIVES =>
            {
                (one - two).max(0.0)
            }
            _ => 0.0,
        };
        Some(Bars {
            match_score,
            margin: 0.25 * sigma,
            mint: e.different + sigma,
            enrich: match_score + 0.15 * room,
            same_camera_offset,
        })
    }
}

/// Quantile of the standard normal distribution for p in (0, 1), absolute error below 4.5e-4
/// (Abramowitz & Stegun 26.2.23).
fn normal_quantile(p: f64) -> f64 {
    let tail = p.min(1.0 - p).max(1e-12);
    let t = (-2.0 * tail.ln()).sqrt();
    let top = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let bottom = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let z = t - top / bottom;
    if p < 0.5 { -z } else { z }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_the_normal_distribution() {
        for (p, z) in [(0.5, 0.0), (0.99, 2.3263), (0.95, 1.6449), (0.01, -2.3263)] {
            assert!((normal_quantile(p) - z).abs() < 1e-3, "{p}");
        }
    }

    #[test]
    fn bars_follow_the_scale_of_the_embedding() {
        // The same site seen by a model that spreads people (0.1) and by one that does not (0.85).
        for (different, same) in [(0.1f32, 0.95f32), (0.85, 0.99)] {
            let mut c = Calibration::default();
            assert!(c.bars(0.01).is_none());
            for i in 0..100u64 {
                let wobble = (i % 10) as f32 / 10.0 - 0.45;
                let s = different + wobble * 0.2 * (1.0 - different);
                c.different(TrackletId(i), TrackletId(i + 1), i % 2 == 0, s);
                c.same(TrackletId(i), same);
            }
            let bars = c.bars(0.01).expect("enough evidence");
            assert!(
                different < bars.mint && bars.mint < bars.match_score,
                "{bars:?}"
            );
            assert!(
                bars.match_score < bars.enrich && bars.enrich < same,
                "{bars:?}"
            );
        }
    }
}
