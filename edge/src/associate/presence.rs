//! Nobody is in two places at once.

use std::collections::{BTreeMap, HashMap};

use crate::types::{CameraIndex, TrackletId};

use super::AssociateConfig;
use super::tracklet::Track;

/// What geometry forbids.
#[derive(Debug)]
pub(super) struct Presence {
    overlapping: bool,
    min_travel_secs: f64,
    travel: HashMap<(CameraIndex, CameraIndex), f64>,
}

impl Presence {
    pub(super) fn new(config: &AssociateConfig, cameras: &[String]) -> Self {
        let index = |name: &str| cameras.iter().position(|c| c == name);
        let travel = config
            .travel
            .iter()
            .filter_map(|way| Some(((index(&way.from)?, index(&way.to)?), way.min_secs)))
            .flat_map(|((a, b), secs)| [((a, b), secs), ((b, a), secs)])
            .collect();
        Presence {
            overlapping: config.overlapping,
            min_travel_secs: config.min_travel_secs,
            travel,
        }
    }

    /// Whether two tracklets cannot be one person: seen at the same instant, or one so soon after the other that the way
    /// between the cameras is too long.
    pub(super) fn conflict(&self, a: &Track, b: &Track) -> bool {
        // Negative while both are seen.
        let gap_secs = a.start.max(b.start) - a.end.min(b.end);
        if a.camera == b.camera {
            return gap_secs <= 0.0;
        }
        // A single instant shared (gap 0) is enough where cameras do not overlap.
        let at_once = gap_secs <= 0.0 && !self.overlapping;
        match self.travel.get(&(a.camera, b.camera)) {
            Some(secs) => at_once || gap_secs < *secs,
            None if self.overlapping => false,
            None => at_once || gap_secs < self.min_travel_secs,
        }
    }

    /// Whether all of `some` and all of `others` can be one person; a tracklet does not stand in its own way.
    pub(super) fn can_be_one(
        &self,
        tracks: &BTreeMap<TrackletId, Track>,
        some: &[TrackletId],
        others: &[TrackletId],
    ) -> bool {
        some.iter().all(|a| {
            others
                .iter()
                .all(|b| a == b || !self.conflict(&tracks[a], &tracks[b]))
        })
    }

    /// Whether two tracklets seen at the same time are two people for certain, so that they may teach what strangers look
    /// like. Boxes that share ground may be one person boxed twice.
    pub(super) fn certainly_two(&self, a: &Track, b: &Track) -> bool {
        let shared_secs = a.end.min(b.end) - a.start.max(b.start);
        if shared_secs <= 0.0 {
            return false;
        }
        if a.camera != b.camera {
            return self.conflict(a, b);
        }
        let smaller = a.last_box.area().min(b.last_box.area());
        a.last_box.intersection(&b.last_box) <= 0.2 * smaller
    }

    /// Whether tracklets of different cameras can be one person at the same time.
    pub(super) fn overlapping(&self) -> bool {
        self.overlapping
    }
}
