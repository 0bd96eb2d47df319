//! What has been seen of one tracklet.

use reid_models::distance::{dot, normalize};
use reid_models::temporal;

use crate::types::{CameraIndex, Decision, IdentityId, Ltrb, TrackletId};

/// Looks kept; beyond that, of every two neighbours in time the better one stays.
const MAX_LOOKS: usize = 32;
/// Reference embeddings a tracklet gives to its identity.
pub(super) const REFERENCES: usize = 4;

/// One good crop.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) time: f64,
    pub(super) quality: f32,
    pub(super) embedding: Vec<f32>,
}

/// Evidence and standing of one tracklet.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) id: TrackletId,
    pub(super) camera: CameraIndex,
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) last_box: Ltrb,
    /// Looks so far, also those no longer kept.
    pub(super) count: usize,
    pub(super) looks: Vec<Look>,
    sum: Vec<f32>,
    /// It left the picture.
    pub(super) ended: bool,
    /// Nothing more will be decided about it, unless its identity is merged.
    pub(super) settled: bool,
    pub(super) decision: Decision,
    pub(super) previous: Vec<IdentityId>,
    pub(super) next_query: f64,
    pub(super) ambiguous_since: Option<f64>,
    /// Looks behind the references it last gave.
    pub(super) given: usize,
}

/// A reference embedding made of several looks.
pub(super) struct Reference {
    pub(super) embedding: Vec<f32>,
    pub(super) time: f64,
    pub(super) quality: f32,
}

impl Track {
    pub(super) fn new(
        id: TrackletId,
        camera: CameraIndex,
        time: f64,
        ltrb: Ltrb,
        width: usize,
    ) -> Self {
        Track {
            id,
            camera,
            start: time,
            end: time,
            last_box: ltrb,
            count: 0,
            looks: Vec::new(),
            sum: vec![0.0; width],
            ended: false,
            settled: false,
            decision: Decision::Pending,
            previous: Vec::new(),
            next_query: f64::NEG_INFINITY,
            ambiguous_since: None,
            given: 0,
        }
    }

    /// The clock was set by `secs`.
    pub(super) fn shift(&mut self, secs: f64) {
        self.start += secs;
        self.end += secs;
        self.next_query += secs;
        self.ambiguous_since = self.ambiguous_since.map(|since| since + secs);
        for look in &mut self.looks {
            look.time += secs;
        }
    }

    /// Adds a look; `embedding` is a unit vector.
    pub(super) fn add(&mut self, time: f64, ltrb: Ltrb, quality: f32, embedding: Vec<f32>) {
        self.end = self.end.max(time);
        self.last_box = ltrb;
        self.count += 1;
        for (s, x) in self.sum.iter_mut().zip(&embedding) {
            *s += weight(quality) * x;
        }
        self.looks.push(Look {
            time,
            quality,
            embedding,
        });
        if self.looks.len() > MAX_LOOKS {
            let mut pairs = std::mem::take(&mut self.looks).into_iter();
            while let Some(first) = pairs.next() {
                self.looks.push(match pairs.next() {
                    Some(second) if second.quality > first.quality => second,
                    _ => first,
                });
            }
        }
    }

    /// Quality-weighted mean of all looks, unit length.
    pub(super) fn mean(&self) -> Vec<f32> {
        unit(self.sum.clone())
    }

    /// What it is compared by: the mean of all looks or, of several parts in time, the mean of each, unit length.
    pub(super) fn parts(&self, count: usize) -> Vec<Vec<f32>> {
        if count == 1 || self.looks.is_empty() {
            return vec![self.mean()];
        }
        let parts = temporal::parts(self.looks.len(), count).into_iter();
        parts.map(|part| mean_of(&self.looks[part])).collect()
    }

    /// Means of consecutive looks: less noisy than single ones, yet different in time. Where tracklets are compared in several
    /// `parts`, one for each.
    pub(super) fn references(&self, parts: usize) -> Vec<Reference> {
        let count = self.looks.len();
        let chunks: Vec<&[Look]> = if parts > 1 && count > 0 {
            let stretches = temporal::parts(count, parts.min(count)).into_iter();
            stretches.map(|part| &self.looks[part]).collect()
        } else {
            self.looks
                .chunks(count.div_ceil(REFERENCES).max(1))
                .collect()
        };
        chunks
            .into_iter()
            .map(|part| {
                let total: f32 = part.iter().map(|l| weight(l.quality)).sum();
                Reference {
                    embedding: mean_of(part),
                    time: part[part.len() / 2].time,
                    quality: part
                        .iter()
                        .map(|l| weight(l.quality) * l.quality)
                        .sum::<f32>()
                        / total,
                }
            })
            .collect()
    }

    /// How alike the earlier and the later half of the looks are: what one person's similarity to itself is in one view.
    pub(super) fn self_similarity(&self) -> Option<f32> {
        if self.looks.len() < 6 {
            return None;
        }
        let (early, late) = self.looks.split_at(self.looks.len() / 2);
        Some(dot(&mean_of(early), &mean_of(late)))
    }

    /// Nothing is learned from the looks any more: gives their memory back.
    pub(super) fn settle(&mut self) {
        self.settled = true;
        self.looks = Vec::new();
        self.sum = Vec::new();
    }
}

/// Weight of a look; a poor one still counts for a little, or a tracklet of poor looks would have no mean.
pub(super) fn weight(quality: f32) -> f32 {
    quality.clamp(0.05, 1.0)
}

fn mean_of(looks: &[Look]) -> Vec<f32> {
    let mut sum = vec![0.0; looks.first().map_or(0, |l| l.embedding.len())];
    for look in looks {
        for (s, x) in sum.iter_mut().zip(&look.embedding) {
            *s += weight(look.quality) * x;
        }
    }
    unit(sum)
}

/// Unit length; a zero sum (opposite looks) stays zero and so resembles nobody.
pub(super) fn unit(mut v: Vec<f32>) -> Vec<f32> {
    normalize(&mut v).expect("a sum of finite unit vectors is finite");
    v
}
