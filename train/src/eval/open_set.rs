//! Open-set use: is this the same person at all?
//!
//! Pairs of images from different cameras are genuine (one person) or impostors (two persons); junk is left out, distractors are
//! impostors to everyone, and two distractors are no pair, because nobody knows whether they are one person. A threshold on the
//! cosine lets a share of the genuine pairs through (true-positive rate) and a share of the impostors (false-positive rate, or
//! false-accept rate). Neither the pairs nor their scores are ever stored as a whole: of the impostors, only the best are kept.

use rayon::prelude::*;
use serde::Serialize;

use super::error::EvalError;
use super::labels::{DISTRACTOR, Embeddings, JUNK};
use super::rank::{BLOCK, blocks};
use super::similarity::{Metric, Similarity};
use crate::capacity;

/// What a false-positive rate costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OperatingPoint {
    /// The false-positive rate that was asked for, 0..1.
    pub fpr: f64,
    /// Impostor pairs that may pass: `floor(fpr * impostors)`.
    pub accepts: usize,
    /// Suggested threshold: a pair is one person if its cosine is at least this. No more than `accepts` impostors pass.
    pub threshold: f32,
    /// Score of the last impostor that may pass. Any threshold above `threshold_low` and up to here does the same to impostors.
    pub threshold_high: f32,
    /// Score of the first impostor that must not pass.
    pub threshold_low: f32,
    /// Share of genuine pairs above `threshold_low`, 0..=1: no interpolation.
    pub tpr: f64,
    /// The same with the points after `accepts` and `accepts + 1` impostors joined by a line.
    pub tpr_linear: f64,
    /// The `1 - fpr` quantile of the impostor scores with linear interpolation, as numpy's default.
    pub far_threshold: f64,
}

/// True-positive rates at false-positive rates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// Pairs of one person in two cameras.
    pub genuine: usize,
    /// Pairs of two persons in two cameras.
    pub impostors: usize,
    /// One per rate, in the order asked for.
    pub points: Vec<OperatingPoint>,
}

/// Pairs of a query and a gallery image.
///
/// # Errors
/// As [`super::rank::evaluate`] for features; [`EvalError::NoPairs`]; [`EvalError::Rate`] for a rate outside 0..1 or so small
/// that not one impostor may pass.
pub fn query_gallery(
    query: &Embeddings,
    gallery: &Embeddings,
    rates: &[f64],
) -> Result<Verification, EvalError> {
    let similarity = Similarity::new(query, gallery, Metric::Cosine)?;
    let kind = |q: usize, g: usize| {
        let (a, b) = (&query.labels, &gallery.labels);
        pair((a.pids[q], a.cameras[q]), (b.pids[g], b.cameras[g]))
    };
    let sizes = (query.labels.pids.len(), gallery.labels.pids.len());
    measure(&similarity, sizes, kind, rates)
}

/// All pairs of one set, each counted once.
///
/// # Errors
/// As [`query_gallery`].
pub fn all_pairs(set: &Embeddings, rates: &[f64]) -> Result<Verification, EvalError> {
    let similarity = Similarity::new(set, set, Metric::Cosine)?;
    let labels = &set.labels;
    let kind = |i: usize, j: usize| {
        if j <= i {
            return None;
        }
        pair(
            (labels.pids[i], labels.cameras[i]),
            (labels.pids[j], labels.cameras[j]),
        )
    };
    let count = labels.pids.len();
    measure(&similarity, (count, count), kind, rates)
}

/// Whether two images (person, camera) are a genuine pair; `None` if they are no pair.
fn pair(a: (i64, i64), b: (i64, i64)) -> Option<bool> {
    let unknown = a.0 == JUNK || b.0 == JUNK || (a.0 == DISTRACTOR && b.0 == DISTRACTOR);
    (!unknown && a.1 != b.1).then_some(a.0 == b.0)
}

fn measure(
    similarity: &Similarity,
    (queries, count): (usize, usize),
    kind: impl Fn(usize, usize) -> Option<bool> + Sync,
    rates: &[f64],
) -> Result<Verification, EvalError> {
    let impostors: usize = (0..queries)
        .into_par_iter()
        .map(|q| (0..count).filter(|g| kind(q, *g) == Some(false)).count())
        .sum();
    if impostors == 0 {
        return Err(EvalError::NoPairs { kind: "impostor" });
    }
    let mut keep = 0;
    for &rate in rates {
        let accepts = (rate * impostors as f64) as usize;
        if !(rate > 0.0 && rate < 1.0) || accepts == 0 {
            return Err(EvalError::Rate { rate, impostors });
        }
        // Besides the impostors that may pass, the next two, and one for the quantile.
        keep = keep.max((accepts + 3).min(impostors));
    }
    // Every thread keeps its own, and a block of scores; two are joined at the end.
    let threads = rayon::current_num_threads() + 1;
    let need = capacity::bytes(threads, keep, 4).saturating_add(capacity::bytes(
        threads * BLOCK,
        count,
        4,
    ));
    capacity::require(
        &format!("the best {keep} of {impostors} impostor pairs"),
        need,
        "ask for lower false-positive rates, or evaluate fewer images",
    )?;
    let (mut genuine, best) = blocks(queries)
        .into_par_iter()
        .fold(
            || (Vec::new(), Best::new(keep)),
            |(mut genuine, mut best), block| {
                let mut scores = vec![0.0; block.len() * count];
                similarity.fill(block.clone(), &mut scores);
                for (q, scores) in block.zip(scores.chunks_exact(count)) {
                    for (g, score) in scores.iter().enumerate() {
                        // Most impostors are far below the best ones, and cheap to turn away.
                        match kind(q, g) {
                            Some(true) => genuine.push(*score),
                            Some(false) => best.add(*score),
                            None => {}
                        }
                    }
                }
                (genuine, best)
            },
        )
        .reduce(
            || (Vec::new(), Best::new(keep)),
            |(mut genuine, mut best), (more, others)| {
                genuine.extend(more);
                others.scores.into_iter().for_each(|s| best.add(s));
                (genuine, best)
            },
        );
    if genuine.is_empty() {
        return Err(EvalError::NoPairs { kind: "genuine" });
    }
    genuine.sort_unstable_by(f32::total_cmp);
    let best = best.descending();
    let points = rates
        .iter()
        .map(|rate| point(*rate, &genuine, &best, impostors))
        .collect();
    Ok(Verification {
        genuine: genuine.len(),
        impostors,
        points,
    })
}

/// `genuine` ascends; `best` holds the highest impostor scores, descending.
fn point(rate: f64, genuine: &[f32], best: &[f32], impostors: usize) -> OperatingPoint {
    let allowed = rate * impostors as f64;
    let accepts = allowed as usize;
    let share = |above: f32| {
        let at_most = genuine.partition_point(|s| *s <= above);
        (genuine.len() - at_most) as f64 / genuine.len() as f64
    };
    let at = |n: usize| best.get(n).copied().unwrap_or(f32::NEG_INFINITY);
    let (high, low) = (at(accepts - 1), at(accepts));
    let (tpr, following) = (share(low), share(at(accepts + 1)));
    // Halfway, so that neither impostor stands on the threshold; equal impostors all stay out.
    let halfway = (f64::from(high) + f64::from(low)) / 2.0;
    let place = (impostors - 1) as f64 * (1.0 - rate);
    let below = impostors - 1 - place.floor() as usize;
    let (lower, upper) = (f64::from(at(below)), f64::from(at(below.saturating_sub(1))));
    OperatingPoint {
        fpr: rate,
        accepts,
        threshold: (halfway as f32).max(low.next_up()),
        threshold_high: high,
        threshold_low: low,
        tpr,
        tpr_linear: tpr + (allowed - accepts as f64) * (following - tpr),
        far_threshold: lower + place.fract() * (upper - lower),
    }
}

/// The highest of many scores.
struct Best {
    keep: usize,
    scores: Vec<f32>,
    /// What a score must exceed once `keep` are known.
    floor: f32,
}

impl Best {
    fn new(keep: usize) -> Self {
        Best {
            keep,
            scores: Vec::new(),
            floor: f32::NEG_INFINITY,
        }
    }

    fn add(&mut self, score: f32) {
        if score > self.floor {
            self.scores.push(score);
            if self.scores.len() >= 2 * self.keep.max(1) {
                self.prune();
            }
        }
    }

    fn prune(&mut self) {
        if self.keep > 0 && self.scores.len() > self.keep {
            let (_, last, _) = self
                .scores
                .select_nth_unstable_by(self.keep - 1, |a, b| b.total_cmp(a));
            self.floor = *last;
        }
        self.scores.truncate(self.keep);
    }

    fn descending(mut self) -> Vec<f32> {
        self.prune();
        self.scores.sort_unstable_by(|a, b| b.total_cmp(a));
        self.scores
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::labels::Labels;
    use super::*;

    #[test]
    fn equal_impostors_stay_out_together() {
        let found = point(0.5, &[0.2, 0.9], &[0.8, 0.5, 0.5, 0.5, 0.1], 5);
        assert_eq!((found.accepts, found.tpr), (2, 0.5));
        assert!(found.threshold > 0.5 && found.threshold < 0.500_001);
    }

    #[test]
    fn the_best_are_kept() {
        let mut best = Best::new(3);
        for n in 0..1000u32 {
            best.add(((n * 7919) % 1009) as f32);
        }
        let mut want: Vec<f32> = (0..1000u32).map(|n| ((n * 7919) % 1009) as f32).collect();
        want.sort_by(|a, b| b.total_cmp(a));
        assert_eq!(best.descending(), want[..3]);
    }

    #[test]
    fn what_cannot_be_measured_is_said() {
        let features = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, -1.0];
        let set = |pids, cameras| Embeddings {
            features: &features,
            width: 2,
            labels: Labels { pids, cameras },
        };
        let message = |pids, cameras, rate| {
            all_pairs(&set(pids, cameras), &[rate])
                .unwrap_err()
                .to_string()
        };
        let text = message(&[1, 1, 2, 2], &[1, 2, 1, 2], 0.01);
        assert!(
            text.contains("2 impostor pairs") && text.contains("5.00e-1"),
            "{text}"
        );
        assert!(message(&[1, 1, 2, 2], &[1, 2, 1, 2], f64::NAN).contains("NaN"));
        assert!(message(&[1, 1, 2, 2], &[1, 1, 1, 1], 0.5).contains("no impostor pair"));
        assert!(message(&[1, 3, 2, 4], &[1, 2, 1, 2], 0.5).contains("no genuine pair"));
        assert!(message(&[0, 0, -1, 0], &[1, 2, 1, 2], 0.5).contains("no impostor pair"));
    }
}
