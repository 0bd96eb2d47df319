//! How much a tracklet resembles an identity.

use std::collections::{BTreeMap, HashSet};

use reid_models::distance::dot;
use reid_models::temporal;

use crate::gallery::{Gallery, Key, Profile, Prototype, camera_name};
use crate::types::{IdentityId, TrackletId};

use super::bars::Bars;
use super::tracklet::{Track, unit, weight};

/// Identities looked at per tracklet.
const CANDIDATES: usize = 24;

/// One identity's references, summed up per camera, without those of the asking tracklet.
struct View {
    same_camera: bool,
    /// Of all references, unit length.
    centroid: Vec<f32>,
    /// Of each part in time; empty if tracklets are compared as a whole.
    parts: Vec<Vec<f32>>,
}

/// What a view is compared with.
enum Asked<'a> {
    /// A tracklet's parts, or its whole.
    Parts(&'a [Vec<f32>]),
    /// One look, and the part in time that it belongs to.
    Look(&'a [f32], usize),
}

impl View {
    fn similarity(&self, asked: &Asked) -> f32 {
        match asked {
            Asked::Parts([whole]) => dot(&self.centroid, whole),
            Asked::Parts(parts) => between_parts(&self.parts, parts),
            Asked::Look(look, part) => dot(self.parts.get(*part).unwrap_or(&self.centroid), look),
        }
    }
}

/// Mean similarity of parts in time, each with its own: the cosine of the parts side by side.
pub(super) fn between_parts(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let sum: f32 = a.iter().zip(b).map(|(a, b)| dot(a, b)).sum();
    sum / a.len().min(b.len()).max(1) as f32
}

/// An identity that a tracklet may be.
pub(super) struct Candidate {
    pub(super) identity: IdentityId,
    pub(super) seq: i64,
    /// Cosine in -1..1.
    pub(super) score: f32,
    /// Fraction of the tracklet's looks that resemble this identity more than any other, filled by [`agreement`].
    pub(super) agreement: f32,
    views: Vec<View>,
}

/// Mean of references, each by its quality, unit length.
fn centroid<'a>(references: impl IntoIterator<Item = &'a Prototype>) -> Vec<f32> {
    let mut sum = Vec::new();
    for p in references {
        sum.resize(p.embedding.len(), 0.0);
        for (s, x) in sum.iter_mut().zip(p.embedding.iter()) {
            *s += weight(p.quality) * x;
        }
    }
    unit(sum)
}

/// The centroid of each part in time over the tracklets that gave the references. A part whose reference had to go is stood in for
/// by its neighbour.
fn part_centroids(references: &[&Prototype], parts: usize) -> Vec<Vec<f32>> {
    fn tracklet(p: &Prototype) -> (&str, TrackletId) {
        (&p.run, p.tracklet)
    }
    let mut sorted = references.to_vec();
    sorted.sort_by(|a, b| {
        let order = tracklet(a).cmp(&tracklet(b));
        order
            .then(a.time.total_cmp(&b.time))
            .then(a.key.cmp(&b.key))
    });
    let mut own: Vec<Vec<&Prototype>> = vec![Vec::new(); parts];
    for given in sorted.chunk_by(|a, b| tracklet(a) == tracklet(b)) {
        for (own, part) in own.iter_mut().zip(temporal::parts(given.len(), parts)) {
            own.extend(&given[part]);
        }
    }
    own.into_iter().map(centroid).collect()
}

fn views(
    profile: &Profile,
    run: &str,
    asking: TrackletId,
    camera: &str,
    parts: usize,
) -> Vec<View> {
    let mut given: BTreeMap<&str, Vec<&Prototype>> = BTreeMap::new();
    for p in &profile.prototypes {
        if p.tracklet != asking || p.run != run {
            given.entry(&p.camera).or_default().push(p);
        }
    }
    given
        .into_iter()
        .map(|(name, references)| View {
            same_camera: name == camera,
            centroid: centroid(references.iter().copied()),
            parts: match parts {
                1 => Vec::new(),
                _ => part_centroids(&references, parts),
            },
        })
        .collect()
}

fn score(views: &[View], asked: &Asked, bars: &Bars) -> Option<f32> {
    views
        .iter()
        .map(|v| {
            let offset = if v.same_camera {
                bars.same_camera_offset
            } else {
                0.0
            };
            (v.similarity(asked) - offset).clamp(-1.0, 1.0)
        })
        .max_by(f32::total_cmp)
}

/// The identities most like a tracklet, best first; its own contributions do not count.
pub(super) fn candidates(
    gallery: &Gallery,
    cameras: &[String],
    track: &Track,
    parts: usize,
    bars: &Bars,
) -> Vec<Candidate> {
    let mean = track.mean();
    let asked = track.parts(parts);
    let own: HashSet<Key> = track
        .decision
        .identity()
        .and_then(|id| gallery.profile(id))
        .map(|p| {
            p.prototypes
                .iter()
                .filter(|p| p.tracklet == track.id && p.run == gallery.run())
                .map(|p| p.key)
                .collect()
        })
        .unwrap_or_default();
    let mut near: Vec<IdentityId> = gallery
        .nearest(&mean, CANDIDATES, &|key| !own.contains(&key))
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    if let Some(current) = track.decision.identity()
        && !near.contains(&current)
    {
        near.push(current);
    }
    let camera = camera_name(cameras, track.camera);
    let mut found: Vec<Candidate> = near
        .into_iter()
        .filter_map(|id| {
            let profile = gallery.profile(id)?;
            let views = views(profile, gallery.run(), track.id, camera, parts);
            Some(Candidate {
                identity: id,
                seq: profile.seq,
                score: score(&views, &Asked::Parts(&asked), bars)?,
                agreement: 0.0,
                views,
            })
        })
        .collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.seq.cmp(&b.seq)));
    found
}

/// How alike two identities are: their closest pair of cameras; -1 if one has no references.
pub(super) fn between(gallery: &Gallery, one: IdentityId, other: IdentityId, bars: &Bars) -> f32 {
    let (Some(a), Some(b)) = (gallery.profile(one), gallery.profile(other)) else {
        return -1.0;
    };
    let cameras: std::collections::BTreeSet<&str> =
        a.prototypes.iter().map(|p| p.camera.as_str()).collect();
    let mut best = -1.0f32;
    for camera in cameras {
        let theirs = views(b, "", TrackletId(0), camera, 1);
        for view in views(a, "", TrackletId(0), camera, 1) {
            if view.same_camera
                && let Some(s) = score(&theirs, &Asked::Parts(&[view.centroid]), bars)
            {
                best = best.max(s);
            }
        }
    }
    best
}

/// Lets every look vote for the candidate it resembles most.
pub(super) fn agreement(candidates: &mut [Candidate], track: &Track, parts: usize, bars: &Bars) {
    if candidates.is_empty() || track.looks.is_empty() {
        return;
    }
    let mut votes = vec![0usize; candidates.len()];
    let stretches = temporal::parts(track.looks.len(), parts);
    for (i, look) in track.looks.iter().enumerate() {
        let part = stretches.iter().position(|s| s.contains(&i));
        let asked = Asked::Look(&look.embedding, part.unwrap_or_default());
        let best = candidates
            .iter()
            .enumerate()
            .filter_map(|(i, c)| Some((i, score(&c.views, &asked, bars)?)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((i, _)) = best {
            votes[i] += 1;
        }
    }
    for (candidate, n) in candidates.iter_mut().zip(votes) {
        candidate.agreement = n as f32 / track.looks.len() as f32;
    }
}
