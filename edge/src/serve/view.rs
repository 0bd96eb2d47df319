//! What visitors read: labels of boxes, the state of everything, metrics.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::types::{Decision, IdentityId, TrackletId};

use super::hub::{FrameView, Hub, Visit, short, state_name};
use super::paint;

/// Identities listed on the page.
const MAX_LISTED: usize = 48;

/// A box as the page draws it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Label {
    #[serde(rename = "b")]
    pub(super) ltrb: [f32; 4],
    #[serde(rename = "t")]
    tracklet: TrackletId,
    #[serde(rename = "s")]
    state: &'static str,
    #[serde(rename = "n")]
    pub(super) name: Option<String>,
    #[serde(rename = "h")]
    pub(super) hue: Option<f32>,
    #[serde(rename = "c")]
    score: Option<f32>,
}

impl Hub {
    /// Boxes of a frame with what the page needs to label them.
    pub(super) fn labels(&self, view: &FrameView) -> Vec<Label> {
        let state = self.lock();
        view.boxes
            .iter()
            .map(|(ltrb, tracklet, decision)| {
                let identity = decision.identity();
                Label {
                    ltrb: [ltrb.left, ltrb.top, ltrb.right, ltrb.bottom],
                    tracklet: *tracklet,
                    state: state_name(decision),
                    name: identity.map(short),
                    hue: identity
                        .and_then(|id| state.order.get(&id))
                        .map(|n| paint::hue(*n)),
                    score: score(decision),
                }
            })
            .collect()
    }

    /// Everything the page shows besides pictures.
    pub(super) fn snapshot(&self) -> Value {
        let state = self.lock();
        let now = state.cameras.values().map(|c| c.time).fold(0.0, f64::max);
        let cameras: Vec<Value> = state
            .cameras
            .iter()
            .map(|(index, c)| {
                let size = c.shot.as_ref().map(|s| s.view.picture.size());
                json!({
                    "index": index, "name": c.name, "state": c.state, "detail": c.detail,
                    "fps": c.fps, "frames": c.frames, "time": c.time,
                    "width": size.map(|s| s.0), "height": size.map(|s| s.1),
                    "people": c.shot.as_ref().map_or(0, |s| s.view.boxes.len()),
                })
            })
            .collect();
        let mut people: HashMap<IdentityId, Vec<(&TrackletId, &Visit)>> = HashMap::new();
        for (tracklet, visit) in &state.visits {
            if let Some(identity) = visit.decision.identity() {
                people.entry(identity).or_default().push((tracklet, visit));
            }
        }
        let mut listed: Vec<(IdentityId, f64, Value)> = people
            .into_iter()
            .map(|(identity, mut visits)| {
                visits.sort_by(|a, b| a.1.first.total_cmp(&b.1.first).then(a.0.cmp(b.0)));
                let first = visits.first().map_or(0.0, |v| v.1.first);
                let last = visits.iter().map(|v| v.1.last).fold(first, f64::max);
                let hue = state.order.get(&identity).map(|n| paint::hue(*n));
                let rows: Vec<Value> = visits
                    .iter()
                    .map(|(tracklet, v)| {
                        json!({
                            "tracklet": tracklet, "camera": v.camera, "first": v.first, "last": v.last,
                            "state": state_name(&v.decision), "score": score(&v.decision),
                            "corrected": v.corrected, "crop": v.crop.is_some(),
                        })
                    })
                    .collect();
                let value = json!({
                    "id": identity, "name": short(identity), "hue": hue,
                    "first": first, "last": last, "visits": rows,
                });
                (identity, last, value)
            })
            .collect();
        // Latest first; among those in view now, a steady order, or the list would dance.
        let rank = |last: f64| {
            if now - last < 2.0 {
                f64::INFINITY
            } else {
                last
            }
        };
        listed.sort_by(|a, b| {
            let order = |id| state.order.get(id);
            rank(b.1)
                .total_cmp(&rank(a.1))
                .then(order(&a.0).cmp(&order(&b.0)))
        });
        let seen = listed.len();
        listed.truncate(MAX_LISTED);
        json!({
            "now": now,
            "uptime_secs": self.inner.started.elapsed().as_secs_f64(),
            "cameras": cameras,
            "camera_names": state.names,
            "health": state.health.status,
            "problems": state.health.problems,
            "identities": listed.into_iter().map(|x| x.2).collect::<Vec<Value>>(),
            "known": state.identities.max(seen),
            "tracklets": state.tracklets,
            "corrections": state.corrections,
            "facts": state.facts,
        })
    }

    /// OpenMetrics text.
    pub(super) fn metrics_text(&self) -> String {
        self.metrics()
            .text(self.inner.started.elapsed().as_secs_f64())
    }
}

fn score(decision: &Decision) -> Option<f32> {
    match decision {
        Decision::Matched { score, .. } | Decision::Ambiguous { score, .. } => Some(*score),
        _ => None,
    }
}
