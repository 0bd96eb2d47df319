//! What the page shows: the newest picture of each camera, who is where, and what has changed.
//!
//! The pipeline writes, visitors read; neither waits for the other. Everything kept here is bounded.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use image::RgbImage;
use reid_models::picture::Picture;
use serde_json::json;
use tokio::sync::watch;

use crate::health::Health;
use crate::metrics::Metrics;
use crate::types::{Assignment, CameraIndex, Decision, IdentityId, Ltrb, TrackletId};

use super::paint;

/// Tracklets remembered.
const MAX_VISITS: usize = 1_024;
/// Events a visitor may have missed.
const MAX_EVENTS: usize = 512;

/// One analysed frame for the page.
#[derive(Clone, Debug)]
pub struct FrameView {
    /// Camera.
    pub camera: CameraIndex,
    /// Seconds, as [`crate::types::Frame::time`].
    pub time: f64,
    /// Picture.
    pub picture: Arc<Picture>,
    /// People in it.
    pub boxes: Vec<(Ltrb, TrackletId, Decision)>,
    /// Analysed frames per second of this camera now.
    pub fps: f32,
}

/// A frame as a visitor gets it.
#[derive(Clone)]
pub(super) struct Shot {
    pub(super) sequence: u64,
    pub(super) view: Arc<FrameView>,
    pub(super) jpeg: Arc<Mutex<Option<Arc<Vec<u8>>>>>,
}

#[derive(Default)]
pub(super) struct Camera {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) detail: String,
    pub(super) fps: f32,
    pub(super) frames: u64,
    pub(super) time: f64,
    pub(super) shot: Option<Shot>,
}

/// One tracklet: where and when, and who it is taken for.
pub(super) struct Visit {
    pub(super) camera: CameraIndex,
    pub(super) first: f64,
    pub(super) last: f64,
    pub(super) decision: Decision,
    pub(super) corrected: bool,
    /// A JPEG.
    pub(super) crop: Option<Arc<Vec<u8>>>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) cameras: BTreeMap<CameraIndex, Camera>,
    /// Names of all cameras there have been, for visits to those that are gone.
    pub(super) names: BTreeMap<CameraIndex, String>,
    pub(super) visits: BTreeMap<TrackletId, Visit>,
    /// Order of first appearance, which gives the colour; of identities with visits.
    pub(super) order: HashMap<IdentityId, usize>,
    /// Identities there have been.
    pub(super) appeared: usize,
    pub(super) tracklets: u64,
    pub(super) identities: usize,
    pub(super) corrections: u64,
    pub(super) facts: BTreeMap<String, String>,
    pub(super) events: VecDeque<(u64, String)>,
    pub(super) event_count: u64,
    pub(super) health: Health,
}

impl State {
    /// Drops the order of identities whose visits are gone, now and then.
    fn forget_colours(&mut self) {
        if self.order.len() > 2 * MAX_VISITS {
            let State { order, visits, .. } = self;
            let seen: HashSet<IdentityId> = visits
                .values()
                .filter_map(|v| v.decision.identity())
                .collect();
            order.retain(|identity, _| seen.contains(identity));
        }
    }
}

pub(super) struct Inner {
    state: Mutex<State>,
    pub(super) started: Instant,
    pub(super) metrics: Metrics,
    frames: watch::Sender<u64>,
    events: watch::Sender<u64>,
}

/// Shared by the pipeline and the page; a clone is the same hub.
#[derive(Clone)]
pub struct Hub {
    pub(super) inner: Arc<Inner>,
}

impl Hub {
    /// A hub for cameras of these names, in order of camera index.
    pub fn new(cameras: Vec<String>) -> Self {
        let hub = Hub {
            inner: Arc::new(Inner {
                state: Mutex::default(),
                started: Instant::now(),
                metrics: Metrics::default(),
                frames: watch::Sender::new(0),
                events: watch::Sender::new(0),
            }),
        };
        for (index, name) in cameras.into_iter().enumerate() {
            hub.add_camera(index, &name);
        }
        hub
    }

    /// A camera came.
    pub fn add_camera(&self, index: CameraIndex, name: &str) {
        let camera = Camera {
            name: name.to_owned(),
            state: "connecting".into(),
            ..Camera::default()
        };
        let mut state = self.lock();
        state.names.insert(index, name.to_owned());
        state.cameras.insert(index, camera);
        drop(state);
        self.inner.metrics.camera_state(name, "connecting");
        self.inner.frames.send_modify(|n| *n += 1);
    }

    /// A camera is gone; the visits to it stay.
    pub fn remove_camera(&self, index: CameraIndex) {
        let removed = self.lock().cameras.remove(&index);
        if let Some(camera) = removed {
            self.inner.metrics.forget(&camera.name);
        }
        self.inner.frames.send_modify(|n| *n += 1);
    }

    /// Counters and gauges of this program.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// How everything is, for `/healthz` and `/readyz`.
    pub fn set_health(&self, health: Health) {
        self.inner
            .metrics
            .healthy(health.status == crate::health::Verdict::Ok);
        self.lock().health = health;
    }

    pub(super) fn health(&self) -> Health {
        self.lock().health.clone()
    }

    /// A new frame of one camera; the older one is dropped. An unknown camera is ignored.
    pub fn frame(&self, view: FrameView) {
        let mut state = self.lock();
        let State {
            cameras,
            visits,
            tracklets,
            ..
        } = &mut *state;
        let Some(camera) = cameras.get_mut(&view.camera) else {
            return;
        };
        if camera.state != "live" {
            camera.state = "live".into();
            camera.detail.clear();
            self.inner.metrics.camera_state(&camera.name, "live");
        }
        camera.fps = view.fps;
        camera.frames += 1;
        camera.time = view.time;
        for (_, tracklet, decision) in &view.boxes {
            let visit = visits.entry(*tracklet).or_insert_with(|| {
                *tracklets += 1;
                self.inner.metrics.tracklet();
                Visit {
                    camera: view.camera,
                    first: view.time,
                    last: view.time,
                    decision: *decision,
                    corrected: false,
                    crop: None,
                }
            });
            visit.last = visit.last.max(view.time);
            visit.decision = *decision;
        }
        let sequence = camera.frames;
        camera.shot = Some(Shot {
            sequence,
            view: Arc::new(view),
            jpeg: Arc::default(),
        });
        while visits.len() > MAX_VISITS {
            visits.pop_first();
        }
        drop(state);
        self.inner.frames.send_modify(|n| *n += 1);
    }

    /// A new or changed decision, with the best crop of the tracklet, kept as it is given.
    pub fn assignment(&self, assignment: &Assignment, crop: Option<Arc<RgbImage>>) {
        // Pixels of a thousand visits would be 30 MiB.
        let crop = crop.and_then(|c| paint::jpeg(&c).ok()).map(Arc::new);
        let mut state = self.lock();
        let corrected = !assignment.previous_ids.is_empty();
        state.corrections += u64::from(corrected);
        self.inner
            .metrics
            .decision(state_name(&assignment.decision), corrected);
        if let Some(identity) = assignment.decision.identity() {
            let next = state.appeared;
            if *state.order.entry(identity).or_insert(next) == next {
                state.appeared += 1;
            }
        }
        let visit = state.visits.entry(assignment.tracklet).or_insert(Visit {
            camera: assignment.camera,
            first: assignment.time,
            last: assignment.time,
            decision: assignment.decision,
            corrected,
            crop: None,
        });
        visit.decision = assignment.decision;
        visit.corrected = corrected;
        if crop.is_some() {
            visit.crop = crop;
        }
        state.forget_colours();
        let camera = state
            .names
            .get(&assignment.camera)
            .cloned()
            .unwrap_or_default();
        let text = json!({
            "time": assignment.time,
            "camera": camera,
            "tracklet": assignment.tracklet,
            "decision": assignment.decision,
            "previous_ids": assignment.previous_ids,
        })
        .to_string();
        state.event_count += 1;
        let number = state.event_count;
        state.events.push_back((number, text));
        if state.events.len() > MAX_EVENTS {
            state.events.pop_front();
        }
        drop(state);
        self.inner.events.send_modify(|n| *n = number);
    }

    /// State of a camera: `live`, `connecting`, `stalled`, `ended`, ..., and why.
    /// Returns the camera's name; `None` if it is gone.
    pub fn camera_state(&self, camera: CameraIndex, state: &str, detail: &str) -> Option<String> {
        let mut locked = self.lock();
        let c = locked.cameras.get_mut(&camera)?;
        state.clone_into(&mut c.state);
        detail.clone_into(&mut c.detail);
        if state != "live" {
            c.fps = 0.0;
        }
        self.inner.metrics.camera_state(&c.name, state);
        Some(c.name.clone())
    }

    /// Identities in the gallery now.
    pub fn known(&self, identities: usize) {
        self.lock().identities = identities;
        self.inner.metrics.identities(identities);
    }

    /// A line for the foot of the page, such as `model` or `detector`.
    pub fn fact(&self, name: &str, value: &str) {
        self.lock().facts.insert(name.to_owned(), value.to_owned());
    }

    /// Hue, 0..360, of an identity on this page; `None` if it was never assigned.
    pub fn hue(&self, identity: IdentityId) -> Option<f32> {
        self.lock().order.get(&identity).map(|n| paint::hue(*n))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while writing leaves at worst one stale number behind.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn new_frames(&self) -> watch::Receiver<u64> {
        self.inner.frames.subscribe()
    }

    pub(super) fn new_events(&self) -> watch::Receiver<u64> {
        self.inner.events.subscribe()
    }

    pub(super) fn shot(&self, camera: CameraIndex) -> Option<Shot> {
        self.lock().cameras.get(&camera)?.shot.clone()
    }

    /// Whether there is a camera of this index now.
    pub fn has_camera(&self, camera: CameraIndex) -> bool {
        self.lock().cameras.contains_key(&camera)
    }

    pub(super) fn crop(
        &self,
        identity: IdentityId,
        camera: Option<CameraIndex>,
    ) -> Option<Arc<Vec<u8>>> {
        self.lock()
            .visits
            .values()
            .rev()
            .filter(|v| v.decision.identity() == Some(identity))
            .filter(|v| camera.is_none_or(|c| v.camera == c))
            .find_map(|v| v.crop.clone())
    }

    /// Events after number `after`, and the number of the last one.
    pub(super) fn events_after(&self, after: u64) -> (u64, Vec<String>) {
        let state = self.lock();
        // A number of an earlier run of the program: everything is news.
        let after = if after > state.event_count { 0 } else { after };
        let news = state
            .events
            .iter()
            .filter(|(n, _)| *n > after)
            .map(|(_, text)| text.clone())
            .collect();
        (state.event_count, news)
    }
}

/// The first four hex digits: enough for people to tell identities apart on one page.
pub fn short(identity: IdentityId) -> String {
    identity.0.simple().to_string().chars().take(4).collect()
}

/// A decision's state in one word, as in events.
pub fn state_name(decision: &Decision) -> &'static str {
    match decision {
        Decision::Pending => "pending",
        Decision::Matched { .. } => "matched",
        Decision::Ambiguous { .. } => "ambiguous",
        Decision::New { .. } => "new",
    }
}
