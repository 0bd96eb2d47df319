//! How much a tracklet resembles an identity.

use std::collections::{BTreeMap, HashSet};

use reid_models::distance::dot;

use crate::gallery::{Gallery, Key, Profile, camera_name};
use crate::types::{IdentityId, TrackletId};

use super::bars::Bars;
use super::tracklet::{Track, unit};

/// Identities looked at per tracklet.
const CANDIDATES: usize = 24;

/// One identity's references, summed up per camera, without those of the asking tracklet.
struct View {
    same_camera: bool,
    centroid: Vec<f32>,
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

fn views(profile: &Profile, run: &str, asking: TrackletId, camera: &str) -> Vec<View> {
    let mut sums: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
    for p in &profile.prototypes {
        if p.tracklet == asking && p.run == run {
            continue;
        }
        let sum = sums
            .entry(&p.camera)
            .or_insert_with(|| vec![0.0; p.embedding.len()]);
        for (s, x) in sum.iter_mut().zip(p.embedding.iter()) {
            *s += p.quality.clamp(0.05, 1.0) * x;
        }
    }
    sums.into_iter()
        .map(|(name, sum)| View {
            same_camera: name == camera,
            centroid: unit(sum),
        })
        .collect()
}

fn score(views: &[View], embedding: &[f32], bars: &Bars) -> Option<f32> {
    views
        .iter()
        .map(|v| {
            let offset = if v.same_camera {
                bars.same_camera_offset
            } else {
                0.0
            };
            (dot(&v.centroid, embedding) - offset).clamp(-1.0, 1.0)
        })
        .max_by(f32::total_cmp)
}

/// The identities most like a tracklet, best first; its own contributions do not count.
pub(super) fn candidates(
    gallery: &Gallery,
    cameras: &[String],
    track: &Track,
    bars: &Bars,
) -> Vec<Candidate> {
    let mean = track.mean();
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
            let views = views(profile, gallery.run(), track.id, camera);
            Some(Candidate {
                identity: id,
                seq: profile.seq,
                score: score(&views, &mean, bars)?,
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
        let theirs = views(b, "", TrackletId(0), camera);
        for view in views(a, "", TrackletId(0), camera) {
            if view.same_camera
                && let Some(s) = score(&theirs, &view.centroid, bars)
            {
                best = best.max(s);
            }
        }
    }
    best
}

/// Lets every look vote for the candidate it resembles most.
pub(super) fn agreement(candidates: &mut [Candidate], track: &Track, bars: &Bars) {
    if candidates.is_empty() || track.looks.is_empty() {
        return;
    }
    let mut votes = vec![0usize; candidates.len()];
    for look in &track.looks {
        let best = candidates
            .iter()
            .enumerate()
            .filter_map(|(i, c)| score(&c.views, &look.embedding, bars).map(|s| (i, s)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((i, _)) = best {
            votes[i] += 1;
        }
    }
    for (candidate, n) in candidates.iter_mut().zip(votes) {
        candidate.agreement = n as f32 / track.looks.len() as f32;
    }
}
