//! Several pictures of a person as one feature: multi-query evaluation and tracklets.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use reid_models::distance;

use super::error::EvalError;
use super::labels::{Embeddings, Labels, check_rows};
use super::npz::FeatureSet;
use super::temporal;

/// How several features become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The largest value in every dimension.
    Max,
    /// The mean of 15 evenly spaced pictures (tracklets only).
    Even,
    /// 15 evenly spaced pictures in three parts, the parts' means side by side: temporal partition pooling (tracklets only).
    EvenParts,
    /// As even, of 15 random pictures.
    Random,
    /// As even-parts, of 15 random pictures.
    RandomParts,
}

impl Pooling {
    /// One feature of length 1 per group of rows of `features` (row-major, `width` columns); a zero vector stays zero. A result
    /// has [`Pooling::width`] columns.
    ///
    /// # Panics
    /// If a group is empty or names a row that isn't there.
    pub fn pool(self, features: &[f32], width: usize, groups: &[Vec<usize>]) -> Vec<f32> {
        let wide = self.width(width);
        let mut out = vec![0.0; groups.len() * wide];
        out.par_chunks_exact_mut(wide)
            .zip(groups)
            .enumerate()
            .for_each(|(number, (out, group))| {
                let row = |i: usize| &features[group[i] * width..][..width];
                let pooled = self.of(group.len(), row, number as u64);
                let length = pooled.iter().map(|v| v * v).sum::<f64>().sqrt();
                let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
                for (out, value) in out.iter_mut().zip(pooled) {
                    *out = (value * scale) as f32;
                }
            });
        out
    }

    /// Columns of a result for features of `width`.
    pub fn width(self, width: usize) -> usize {
        match self {
            Pooling::EvenParts | Pooling::RandomParts => temporal::PARTS * width,
            _ => width,
        }
    }

    /// Whether it asks in which order pictures were taken.
    fn is_of_time(self) -> bool {
        !matches!(self, Pooling::Mean | Pooling::Max)
    }

    fn of<'a>(self, count: usize, row: impl Fn(usize) -> &'a [f32], number: u64) -> Vec<f64> {
        let frames = temporal::FRAMES;
        let chosen = match self {
            Pooling::Mean | Pooling::Max => (0..count).collect(),
            Pooling::Even | Pooling::EvenParts => temporal::even(count, frames),
            Pooling::Random | Pooling::RandomParts => {
                let mut rng = ChaCha8Rng::seed_from_u64(number);
                temporal::random(count, frames, &mut rng)
            }
        };
        let rows: Vec<&[f32]> = chosen.into_iter().map(row).collect();
        match self {
            Pooling::Max => {
                let mut most = vec![f64::NEG_INFINITY; rows.first().map_or(0, |r| r.len())];
                for row in rows {
                    for (m, x) in most.iter_mut().zip(row) {
                        *m = m.max(f64::from(*x));
                    }
                }
                most
            }
            Pooling::EvenParts | Pooling::RandomParts => {
                temporal::part_means(&rows, temporal::PARTS)
            }
            _ => temporal::mean(&rows),
        }
    }
}

/// Market-1501 with multiple queries (Zheng et al. 2015, section 4.2): the query feature is pooled over all `boxes` of its person
/// in its camera, each of length 1. Returns one row of length 1 per query of `query`.
///
/// The first evaluation code of the data set takes the maximum, later ones the mean.
///
/// # Errors
/// [`EvalError::Pool`] for a query without a box; [`EvalError::Sizes`] or [`EvalError::NotFinite`] for broken boxes.
pub fn multi_query(
    boxes: &Embeddings,
    query: &Labels,
    pooling: Pooling,
) -> Result<Vec<f32>, EvalError> {
    if pooling.is_of_time() {
        return Err(EvalError::Pool {
            what: "queries of several boxes".into(),
            reason: "boxes have no order in time: pool them by mean or max".into(),
        });
    }
    check_finite(boxes, "boxes")?;
    let mut unit = boxes.features.to_vec();
    let bad = unit
        .par_chunks_exact_mut(boxes.width)
        .enumerate()
        .filter_map(|(row, v)| distance::normalize(v).err().map(|_| row))
        .min();
    if let Some(row) = bad {
        return Err(EvalError::NotFinite { set: "boxes", row });
    }
    let mut rows: BTreeMap<(i64, i64), Vec<usize>> = BTreeMap::new();
    for (row, (pid, camera)) in boxes
        .labels
        .pids
        .iter()
        .zip(boxes.labels.cameras)
        .enumerate()
    {
        rows.entry((*pid, *camera)).or_default().push(row);
    }
    let groups: Vec<Vec<usize>> = query
        .pids
        .iter()
        .zip(query.cameras)
        .enumerate()
        .map(|(q, (pid, camera))| {
            rows.get(&(*pid, *camera))
                .cloned()
                .ok_or_else(|| EvalError::Pool {
                    what: format!("query {q} (person {pid}, camera {camera})"),
                    reason: "there is no box of this person in this camera; boxes must hold the query's own, at least"
                        .into(),
                })
        })
        .collect::<Result<_, _>>()?;
    Ok(pooling.pool(&unit, boxes.width, &groups))
}

/// Frames to tracklets (MARS, Zheng et al. 2016): frames with the same number in `tracklets` are pooled as they are, then scaled
/// to length 1. The tracklets come by ascending number.
///
/// # Errors
/// [`EvalError::Pool`] if the frames of a tracklet are of two persons or two cameras, or there is not one number per frame.
pub fn tracklets(
    frames: &Embeddings,
    tracklets: &[i64],
    pooling: Pooling,
) -> Result<FeatureSet, EvalError> {
    check_finite(frames, "frames")?;
    let Labels { pids, cameras } = frames.labels;
    if tracklets.len() != pids.len() {
        return Err(EvalError::Pool {
            what: "tracklets".into(),
            reason: format!(
                "{} numbers for {} frames, there must be one per frame",
                tracklets.len(),
                pids.len()
            ),
        });
    }
    let mut rows: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (row, number) in tracklets.iter().enumerate() {
        let group = rows.entry(*number).or_default();
        if let Some(&first) = group.first() {
            for (what, values) in [("persons", pids), ("cameras", cameras)] {
                if values[first] != values[row] {
                    return Err(EvalError::Pool {
                        what: format!("tracklet {number}"),
                        reason: format!(
                            "its frames {first} and {row} are of two {what}, {} and {}; a tracklet shows one person in \
                             one camera",
                            values[first], values[row]
                        ),
                    });
                }
            }
        }
        group.push(row);
    }
    let groups: Vec<Vec<usize>> = rows.into_values().collect();
    let first = |values: &[i64]| groups.iter().map(|g| values[g[0]]).collect();
    Ok(FeatureSet {
        features: pooling.pool(frames.features, frames.width, &groups),
        width: pooling.width(frames.width),
        pids: first(pids),
        cameras: first(cameras),
    })
}

fn check_finite(e: &Embeddings, set: &'static str) -> Result<(), EvalError> {
    check_rows(set, e)?;
    match e
        .features
        .par_iter()
        .position_first(|value| !value.is_finite())
    {
        Some(at) => Err(EvalError::NotFinite {
            set,
            row: at / e.width,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FRAMES: [f32; 6] = [3.0, 0.0, 0.0, 4.0, 1.0, 0.0];

    fn frames<'a>(pids: &'a [i64], cameras: &'a [i64]) -> Embeddings<'a> {
        Embeddings {
            features: &FRAMES,
            width: 2,
            labels: Labels { pids, cameras },
        }
    }

    #[test]
    fn frames_become_tracklets_by_number() {
        let set = tracklets(&frames(&[5, 5, 6], &[1, 1, 2]), &[9, 9, 2], Pooling::Max).unwrap();
        assert_eq!((set.pids, set.cameras), (vec![6, 5], vec![2, 1]));
        assert_eq!(set.features, [1.0, 0.0, 0.6, 0.8]);
    }

    #[test]
    fn parts_are_three_times_as_wide_and_boxes_have_none() {
        let pids = [5, 5, 5];
        let set = tracklets(&frames(&pids, &[1; 3]), &[9; 3], Pooling::EvenParts).unwrap();
        assert_eq!((set.width, set.features.len()), (6, 6));
        let length: f32 = set.features.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-6);
        let boxes = frames(&pids, &[1; 3]);
        let query = Labels {
            pids: &[5],
            cameras: &[1],
        };
        let err = multi_query(&boxes, &query, Pooling::Even).unwrap_err();
        assert!(err.to_string().contains("no order"), "{err}");
    }

    #[test]
    fn boxes_count_alike_whatever_their_length() {
        let query = Labels {
            pids: &[5],
            cameras: &[1],
        };
        let boxes = frames(&[5, 5, 5], &[1, 1, 2]);
        let pooled = multi_query(&boxes, &query, Pooling::Mean).unwrap();
        assert!((pooled[0] - pooled[1]).abs() < 1e-7, "{pooled:?}");
    }

    #[test]
    fn what_cannot_be_pooled_is_named() {
        let message = |pids: &[i64], cameras: &[i64], numbers: &[i64]| {
            tracklets(&frames(pids, cameras), numbers, Pooling::Mean)
                .unwrap_err()
                .to_string()
        };
        let text = message(&[5, 6, 6], &[1, 1, 1], &[3, 3, 3]);
        assert!(
            text.contains("tracklet 3") && text.contains("5 and 6"),
            "{text}"
        );
        let text = message(&[5, 5, 5], &[1, 1, 2], &[3, 3, 3]);
        assert!(text.contains("two cameras"), "{text}");
        assert!(message(&[5, 5, 5], &[1, 1, 1], &[3]).contains("1 numbers for 3 frames"));
        let query = Labels {
            pids: &[5, 8],
            cameras: &[1, 1],
        };
        let text = multi_query(&frames(&[5, 5, 5], &[1, 1, 1]), &query, Pooling::Mean)
            .unwrap_err()
            .to_string();
        assert!(text.contains("query 1 (person 8, camera 1)"), "{text}");
    }
}
