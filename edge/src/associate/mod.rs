//! Who is this tracklet? Running and finished tracklets against the identities of the gallery.
//!
//! A tracklet is `pending` until it has been seen well enough, then asks again while it lives. All tracklets that are
//! seen together are decided together (Hungarian), so that no identity is given twice at one instant; who was elsewhere
//! at that instant is out of the question, however similar. Three bars (`bars.rs`): to be recognised, to become a
//! reference, to be somebody new; between them nothing is claimed (`ambiguous`). A later look may correct an earlier
//! decision: the assignment then carries the identities claimed before.

mod apply;
mod bars;
mod calibrate;
mod config;
mod decide;
mod presence;
mod similarity;
mod tracklet;

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::gallery::{Gallery, GalleryError};
use crate::types::{Assignment, Decision, IdentityId, Observation, TrackletId};

pub use bars::Bars;
pub use calibrate::{Calibration, Evidence};
pub use config::{AssociateConfig, Travel};
use presence::Presence;
use tracklet::Track;

/// Finished tracklets whose place in time is remembered.
const MAX_SETTLED: usize = 20_000;

/// What [`Associator`] refuses.
#[derive(Debug, thiserror::Error)]
pub enum AssociateError {
    /// A key of `[associate]` has an impossible value.
    #[error("associate.{key} = {value}: {remedy}")]
    Config {
        /// Key in `[associate]`.
        key: String,
        /// The value found.
        value: String,
        /// What to write instead.
        remedy: String,
    },
    /// An embedding that is none, or a gallery that cannot be written.
    #[error(transparent)]
    Gallery(#[from] GalleryError),
    /// An observation of a camera that was not configured.
    #[error("observation of camera {camera}, but there are {known} cameras")]
    Camera {
        /// Index given.
        camera: usize,
        /// Cameras known.
        known: usize,
    },
    /// An observation without a usable time.
    #[error("observation of tracklet {tracklet} at time {time}: not a time")]
    Time {
        /// Tracklet.
        tracklet: u64,
        /// Seconds given.
        time: f64,
    },
}

/// Gives identities to tracklets, online.
pub struct Associator {
    config: AssociateConfig,
    gallery: Gallery,
    cameras: Vec<String>,
    presence: Presence,
    calibration: Calibration,
    /// In order of id, so that a run repeats.
    tracks: BTreeMap<TrackletId, Track>,
    /// Tracklets of this run by the identity they have now.
    members: HashMap<IdentityId, Vec<TrackletId>>,
    settled: VecDeque<TrackletId>,
}

impl Associator {
    /// `config` has been checked ([`AssociateConfig::check`]) and knows the model card's thresholds
    /// ([`AssociateConfig::with_thresholds`]); `cameras` are the names by camera index.
    pub fn new(config: AssociateConfig, gallery: Gallery, cameras: Vec<String>) -> Self {
        Associator {
            presence: Presence::new(&config, &cameras),
            config,
            gallery,
            cameras,
            calibration: Calibration::default(),
            tracks: BTreeMap::new(),
            members: HashMap::new(),
            settled: VecDeque::new(),
        }
    }

    /// The cameras by index, when they have changed. A camera that is gone keeps its index and its name, because tracklets
    /// that it saw are still compared with new ones.
    pub fn set_cameras(&mut self, cameras: Vec<String>) {
        self.presence = Presence::new(&self.config, &cameras);
        self.cameras = cameras;
    }

    /// Goes by other rules from now on, checked as for [`Associator::new`].
    pub fn set_config(&mut self, config: AssociateConfig) {
        self.presence = Presence::new(&config, &self.cameras);
        self.config = config;
    }

    /// The clock was set by `secs`: all tracklets of this run move with it. Sightings already in the gallery keep the times
    /// they were written with, until their tracklet is written again.
    pub fn clock_moved(&mut self, secs: f64) {
        for track in self.tracks.values_mut() {
            track.shift(secs);
        }
    }

    /// Adds one look at a running tracklet. A refused one changes nothing.
    ///
    /// # Errors
    /// An embedding of another width, not finite or zero; an unknown camera; a time that is none.
    pub fn observe(&mut self, observation: Observation) -> Result<(), AssociateError> {
        let o = observation;
        if o.camera >= self.cameras.len() {
            return Err(AssociateError::Camera {
                camera: o.camera,
                known: self.cameras.len(),
            });
        }
        if !o.time.is_finite() {
            return Err(AssociateError::Time {
                tracklet: o.tracklet.0,
                time: o.time,
            });
        }
        let embedding = self.gallery.unit(&o.embedding)?;
        let quality = if o.quality.is_finite() {
            o.quality
        } else {
            0.0
        };
        let track = self.tracks.entry(o.tracklet).or_insert_with(|| {
            Track::new(o.tracklet, o.camera, o.time, o.ltrb, self.gallery.width())
        });
        if !track.settled {
            track.add(o.time, o.ltrb, quality, embedding);
        }
        Ok(())
    }

    /// The tracklet left the picture: its next decision is its last of its own.
    ///
    /// # Errors
    /// None today; a gallery on another machine may fail here.
    pub fn ended(&mut self, tracklet: TrackletId, _time: f64) -> Result<(), AssociateError> {
        if let Some(track) = self.tracks.get_mut(&tracklet) {
            track.ended = true;
        }
        Ok(())
    }

    /// Decides about every tracklet that is due; returns decisions that are new or have changed, in order of tracklet.
    /// All that follows from one call is one transaction in the gallery.
    ///
    /// # Errors
    /// The gallery cannot be written; nothing of this call was kept there.
    pub fn decide(&mut self, now: f64) -> Result<Vec<Assignment>, AssociateError> {
        let due = self
            .tracks
            .values()
            .any(|t| !t.settled && (t.ended || (self.ready(t) && t.next_query <= now)));
        if !due {
            return Ok(Vec::new());
        }
        let open: Vec<TrackletId> = self
            .tracks
            .values()
            .filter(|t| !t.settled && (t.ended || self.ready(t)))
            .map(|t| t.id)
            .collect();
        self.learn(&open);
        let bars = self.bars();
        let changed = decide::decide(self, &open, &bars, now)?;
        for id in &open {
            if let Some(track) = self.tracks.get_mut(id) {
                track.next_query = now + self.config.requery_secs;
                if track.ended {
                    track.settle();
                    self.settled.push_back(*id);
                }
            }
        }
        let assignments = changed
            .into_iter()
            .filter_map(|id| self.tracks.get(&id))
            .map(|t| Assignment {
                tracklet: t.id,
                camera: t.camera,
                time: now,
                decision: t.decision,
                previous_ids: t.previous.clone(),
            })
            .collect();
        self.prune();
        Ok(assignments)
    }

    /// End of the stream: every tracklet has ended; decides until nothing is open.
    ///
    /// # Errors
    /// As [`Associator::decide`].
    pub fn finish(&mut self, now: f64) -> Result<Vec<Assignment>, AssociateError> {
        // Once while all of them count as running, once as the last word.
        for track in self.tracks.values_mut() {
            track.next_query = f64::NEG_INFINITY;
        }
        let mut latest: BTreeMap<TrackletId, Assignment> = BTreeMap::new();
        for last in [false, true] {
            if last {
                for track in self.tracks.values_mut() {
                    track.ended = true;
                }
            }
            for assignment in self.decide(now)? {
                latest.insert(assignment.tracklet, assignment);
            }
        }
        Ok(latest.into_values().collect())
    }

    /// What is known about a tracklet now.
    pub fn decision(&self, tracklet: TrackletId) -> Decision {
        self.tracks
            .get(&tracklet)
            .map_or(Decision::Pending, |t| t.decision)
    }

    /// The gallery.
    pub fn gallery(&self) -> &Gallery {
        &self.gallery
    }

    /// Bars in force now.
    pub fn bars(&self) -> Bars {
        Bars::resolve(&self.config, &self.calibration)
    }

    /// What the site taught about similarity so far.
    pub fn evidence(&self) -> Option<Evidence> {
        self.calibration.evidence()
    }

    /// Whether a tracklet has been seen well enough to ask who it is.
    fn ready(&self, track: &Track) -> bool {
        let min = self.config.min_crops;
        track.count >= min
            || (track.count * 2 >= min && track.end - track.start >= self.config.min_secs)
    }

    /// Takes free negatives and positives from the tracklets at hand.
    fn learn(&mut self, open: &[TrackletId]) {
        let parts = self.config.temporal_parts;
        let ready: Vec<(&Track, Vec<Vec<f32>>)> = open
            .iter()
            .filter_map(|id| self.tracks.get(id))
            .filter(|t| self.ready(t))
            .map(|t| (t, t.parts(parts)))
            .collect();
        for (i, (a, parts_a)) in ready.iter().enumerate() {
            if let Some(similarity) = a.self_similarity() {
                self.calibration.same(a.id, similarity);
            }
            for (b, parts_b) in &ready[i + 1..] {
                if self.presence.certainly_two(a, b) {
                    let similarity = similarity::between_parts(parts_a, parts_b);
                    self.calibration
                        .different(a.id, b.id, a.camera == b.camera, similarity);
                }
            }
        }
    }

    /// Forgets the oldest settled tracklets beyond what is remembered.
    fn prune(&mut self) {
        while self.settled.len() > MAX_SETTLED {
            let Some(oldest) = self.settled.pop_front() else {
                return;
            };
            if let Some(track) = self.tracks.remove(&oldest)
                && let Some(identity) = track.decision.identity()
                && let Some(members) = self.members.get_mut(&identity)
            {
                members.retain(|t| *t != oldest);
                if members.is_empty() {
                    self.members.remove(&identity);
                }
            }
        }
    }
}
