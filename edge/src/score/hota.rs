//! HOTA (Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2021).
//!
//! At a threshold of overlap, DetA says how many boxes were found, AssA how well the found boxes of one person share
//! one identity that is nobody else's, and HOTA is the square root of their product: neither can buy the other, as
//! detection can in MOTA and identity in IDF1. The mean over 19 thresholds rewards boxes that fit.
//!
//! The paper leaves to the implementation which boxes are matched; this is the rule of its authors' TrackEval 1.3: in
//! a frame, the sum over matched pairs of overlap times the alignment of their ids over the whole recording is
//! greatest, and pairs that overlap less than the threshold do not count. So one matching serves all thresholds.

use std::collections::HashMap;
use std::ops::Range;

use super::frames::{Recording, key, unkey};
use super::matching::{Edge, Matcher};

/// How many thresholds of overlap there are: 0.05, 0.10 .. 0.95.
pub const THRESHOLDS: usize = 19;

/// HOTA and its parts at one threshold of overlap, all 0..1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HotaAt {
    /// Intersection over union from which boxes count as matched.
    pub iou: f64,
    /// `sqrt(deta * assa)`.
    pub hota: f64,
    /// Detection accuracy: matched / (matched + missed + false) boxes.
    pub deta: f64,
    /// Association accuracy: mean over matched boxes of the share that the matches of their two ids have in all boxes
    /// of these ids.
    pub assa: f64,
    /// Mean overlap of matched boxes; 1 where none is.
    pub loca: f64,
}

/// HOTA at every threshold, and the mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Hota {
    /// By growing threshold.
    pub at: [HotaAt; THRESHOLDS],
    /// Mean over the thresholds; its `iou` is their mean, 0.5.
    pub mean: HotaAt,
}

/// The thresholds as TrackEval computes them, to the last bit.
fn threshold(place: usize) -> f64 {
    0.05 + place as f64 * 0.05
}

/// What a true person and a result id have in common.
#[derive(Default)]
struct Common {
    /// Frames in which they may be the same, weighted by how exclusively they overlap.
    potential: f64,
    /// Matched boxes by how many thresholds they pass.
    passed: [u32; THRESHOLDS + 1],
}

/// Scores cameras of a recording as one.
pub(super) fn hota(recording: &Recording, cameras: Range<usize>) -> Hota {
    let mut common: HashMap<u64, Common> = HashMap::new();
    let mut true_boxes = vec![0u32; recording.people];
    let mut result_boxes = vec![0u32; recording.identities];
    let (mut row_sum, mut column_sum) = (Vec::new(), Vec::new());
    recording.for_each(cameras.clone(), |pair| {
        let columns = pair.results.len();
        row_sum.clear();
        row_sum.resize(pair.truth.len(), 0.0);
        column_sum.clear();
        column_sum.resize(columns, 0.0);
        for (place, iou) in pair.iou.iter().enumerate() {
            row_sum[place / columns] += iou;
            column_sum[place % columns] += iou;
        }
        for (place, iou) in pair.iou.iter().enumerate().filter(|(_, iou)| **iou > 0.0) {
            let (i, j) = (place / columns, place % columns);
            let with = common
                .entry(key(pair.truth[i], pair.results[j]))
                .or_default();
            with.potential += iou / (row_sum[i] + column_sum[j] - iou);
        }
        pair.truth.iter().for_each(|p| true_boxes[*p as usize] += 1);
        for identity in &pair.results {
            result_boxes[*identity as usize] += 1;
        }
    });
    let boxes_of_both = |key: u64| {
        let (person, identity) = unkey(key);
        f64::from(true_boxes[person as usize]) + f64::from(result_boxes[identity as usize])
    };

    let mut overlap = [0.0; THRESHOLDS + 1];
    let mut edges: Vec<Edge> = Vec::new();
    let mut matcher = Matcher::default();
    recording.for_each(cameras, |pair| {
        let columns = pair.results.len();
        edges.clear();
        for (place, iou) in pair.iou.iter().enumerate().filter(|(_, iou)| **iou > 0.0) {
            let (row, column) = (place / columns, place % columns);
            let key = key(pair.truth[row], pair.results[column]);
            let potential = common.get(&key).map_or(0.0, |c| c.potential);
            let weight = iou * potential / (boxes_of_both(key) - potential);
            edges.push(Edge {
                row,
                column,
                weight,
            });
        }
        let found = matcher.solve(pair.truth.len(), columns, &edges);
        for (i, j) in found.iter().enumerate() {
            let Some(j) = *j else { continue };
            let iou = pair.iou(i, j);
            let passes = (0..THRESHOLDS)
                .take_while(|a| iou >= threshold(*a) - f64::EPSILON)
                .count();
            overlap[passes] += iou;
            if let Some(with) = common.get_mut(&key(pair.truth[i], pair.results[j])) {
                with.passed[passes] += 1;
            }
        }
    });

    // Sums of fractions depend on their order, a map's order on nothing.
    let mut common: Vec<(u64, Common)> = common.into_iter().collect();
    common.sort_unstable_by_key(|(key, _)| *key);
    let total = |boxes: &[u32]| boxes.iter().map(|n| f64::from(*n)).sum::<f64>();
    let (objects, predictions) = (total(&true_boxes), total(&result_boxes));
    let at = std::array::from_fn(|a| {
        let (mut matched, mut association) = (0.0, 0.0);
        for (key, with) in &common {
            let matches = with.passed[a + 1..].iter().sum::<u32>();
            let matches = f64::from(matches);
            matched += matches;
            association += matches * matches / (boxes_of_both(*key) - matches).max(1.0);
        }
        let deta = matched / (objects + predictions - matched).max(1.0);
        let assa = association / matched.max(1.0);
        HotaAt {
            iou: threshold(a),
            hota: (deta * assa).sqrt(),
            deta,
            assa,
            loca: if matched > 0.0 {
                overlap[a + 1..].iter().sum::<f64>() / matched
            } else {
                1.0
            },
        }
    });
    let mean = |part: fn(&HotaAt) -> f64| at.iter().map(part).sum::<f64>() / THRESHOLDS as f64;
    Hota {
        mean: HotaAt {
            iou: mean(|h| h.iou),
            hota: mean(|h| h.hota),
            deta: mean(|h| h.deta),
            assa: mean(|h| h.assa),
            loca: mean(|h| h.loca),
        },
        at,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Row, hota_in_sequence, score, score_in_sequence};
    use proptest::prelude::*;

    /// Boxes matched in one frame by trying every way to pair them.
    fn best_pairs(
        weights: &[Vec<f64>],
        row: usize,
        used: &mut Vec<bool>,
    ) -> (f64, Vec<(usize, usize)>) {
        if row == weights.len() {
            return (0.0, Vec::new());
        }
        let mut best = best_pairs(weights, row + 1, used);
        for column in 0..used.len() {
            if used[column] || weights[row][column] <= 0.0 {
                continue;
            }
            used[column] = true;
            let (rest, mut pairs) = best_pairs(weights, row + 1, used);
            used[column] = false;
            if rest + weights[row][column] > best.0 {
                pairs.push((row, column));
                best = (rest + weights[row][column], pairs);
            }
        }
        best
    }

    /// (HOTA, DetA, AssA) at a threshold as the paper defines them: for every matched pair `c` of boxes, TPA(c) are the
    /// matched pairs with the same two ids, FNA(c) the other boxes of that person, FPA(c) the other boxes of that result id.
    fn slow(truth: &[Row], results: &[Row], threshold: f64) -> (f64, f64, f64) {
        let overlap = |frame: u64| -> (Vec<&Row>, Vec<&Row>, Vec<Vec<f64>>) {
            let t: Vec<&Row> = truth.iter().filter(|r| r.frame == frame).collect();
            let r: Vec<&Row> = results.iter().filter(|r| r.frame == frame).collect();
            let iou = t
                .iter()
                .map(|a| r.iter().map(|b| a.iou(b)).collect())
                .collect();
            (t, r, iou)
        };
        let frames = 0..8u64;
        let of = |rows: &[Row], id: i64| rows.iter().filter(|r| r.id == id).count() as f64;
        // How well two ids go together over the whole recording.
        let alignment = |p: i64, q: i64| {
            let mut together = 0.0;
            for frame in frames.clone() {
                let (t, r, iou) = overlap(frame);
                for i in (0..t.len()).filter(|i| t[*i].id == p) {
                    for j in (0..r.len()).filter(|j| r[*j].id == q) {
                        let row: f64 = iou[i].iter().sum();
                        let column: f64 = iou.iter().map(|row| row[j]).sum();
                        if iou[i][j] > 0.0 {
                            together += iou[i][j] / (row + column - iou[i][j]);
                        }
                    }
                }
            }
            together / (of(truth, p) + of(results, q) - together)
        };
        let mut matched: Vec<(i64, i64)> = Vec::new();
        for frame in frames.clone() {
            let (t, r, iou) = overlap(frame);
            let weights: Vec<Vec<f64>> = (0..t.len())
                .map(|i| {
                    (0..r.len())
                        .map(|j| iou[i][j] * alignment(t[i].id, r[j].id))
                        .collect()
                })
                .collect();
            let (_, pairs) = best_pairs(&weights, 0, &mut vec![false; r.len()]);
            matched.extend(
                pairs
                    .into_iter()
                    .filter(|(i, j)| iou[*i][*j] >= threshold)
                    .map(|(i, j)| (t[i].id, r[j].id)),
            );
        }
        let tp = matched.len() as f64;
        let (missed, ghosts) = (truth.len() as f64 - tp, results.len() as f64 - tp);
        let association: f64 = matched
            .iter()
            .map(|c| {
                let tpa = matched.iter().filter(|other| *other == c).count() as f64;
                let (fna, fpa) = (of(truth, c.0) - tpa, of(results, c.1) - tpa);
                tpa / (tpa + fna + fpa)
            })
            .sum();
        if tp == 0.0 {
            return (0.0, 0.0, 0.0);
        }
        let all = tp + missed + ghosts;
        ((association / all).sqrt(), tp / all, association / tp)
    }

    /// Small recordings in which boxes overlap by chance.
    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let row = (1u64..6, 0i64..4, 0.0f64..40.0, 10.0f64..30.0);
        prop::collection::vec(row, 0..24).prop_map(|all| {
            let mut rows: Vec<Row> = all
                .into_iter()
                .map(|(frame, id, left, width)| Row {
                    frame,
                    id,
                    left,
                    top: 0.0,
                    width,
                    height: 20.0,
                    confidence: 1.0,
                })
                .collect();
            rows.sort_by_key(|r| (r.frame, r.id));
            rows.dedup_by_key(|r| (r.frame, r.id));
            rows
        })
    }

    proptest! {
        #[test]
        fn agrees_with_the_paper_written_down(truth in rows(), results in rows()) {
            let fast = hota_in_sequence(&[(&truth, &results)]);
            for at in &fast.at {
                let want = slow(&truth, &results, at.iou);
                for (got, want) in [(at.hota, want.0), (at.deta, want.1), (at.assa, want.2)] {
                    prop_assert!((got - want).abs() < 1e-9, "{:?}, wanted {:?}", at, want);
                }
            }
        }

        #[test]
        fn stays_in_range_whatever_ids_are_called(truth in rows(), results in rows(), factor in 2i64..9) {
            let rename = |rows: &[Row]| -> Vec<Row> {
                rows.iter().map(|r| Row { id: 100 - factor * r.id, ..*r }).collect()
            };
            let h = hota_in_sequence(&[(&truth, &results)]);
            for at in h.at.iter().chain([&h.mean]) {
                for value in [at.hota, at.deta, at.assa, at.loca] {
                    prop_assert!((0.0..=1.0 + 1e-12).contains(&value), "{:?}", at);
                }
            }
            let renamed = hota_in_sequence(&[(&rename(&truth), &rename(&results))]);
            // Sums are taken in another order.
            prop_assert!((renamed.mean.hota - h.mean.hota).abs() < 1e-12);
            prop_assert!((renamed.mean.assa - h.mean.assa).abs() < 1e-12);
        }
    }

    /// People who walk side by side, `first..first + people`.
    fn crowd(first: i64, people: i64) -> Vec<Row> {
        (1..=20u64)
            .flat_map(|frame| (0..people).map(move |i| (frame, i)))
            .map(|(frame, i)| Row {
                frame,
                id: first + i,
                left: 30.0 * i as f64 + frame as f64,
                top: 5.0,
                width: 20.0,
                height: 50.0,
                confidence: 1.0,
            })
            .collect()
    }

    #[test]
    fn perfect_results_score_one_and_a_swap_in_one_camera_costs_association_only() {
        let truth = crowd(1, 4);
        let s = score(&truth, &crowd(11, 4));
        assert_eq!((s.hota, s.deta, s.assa, s.loca), (1.0, 1.0, 1.0, 1.0));
        let swapped: Vec<Row> = truth.iter().map(|r| Row { id: 5 - r.id, ..*r }).collect();
        let kept = score_in_sequence(&[(&truth, &truth), (&truth, &truth)]);
        let lost = score_in_sequence(&[(&truth, &truth), (&truth, &swapped)]);
        assert_eq!((kept.hota, kept.assa), (1.0, 1.0));
        // 20 of the 60 boxes of a person and an identity together are matches of the two.
        assert!((lost.assa - 1.0 / 3.0).abs() < 1e-12, "{lost:?}");
        assert_eq!((lost.deta, lost.loca), (1.0, 1.0));
        assert!((lost.hota - (1.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(score(&truth, &swapped).assa, 1.0, "a camera alone is right");
    }
}
