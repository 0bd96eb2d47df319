//! Scores of tracking with identities against truth: CLEAR MOT (Bernardin & Stiefelhagen 2008) and identity measures
//! (Ristani et al. 2016), with the matching rules of `motmetrics` (py-motmetrics 1.4), so that the numbers agree.
//!
//! MOTA cannot see identity errors between cameras; IDF1 over all cameras can. Cameras are scored one by one and
//! together: one after the other in time, with ids that all of them share.

mod clear;
mod identity;
mod motchallenge;

use std::collections::BTreeMap;

use serde::Serialize;

pub use motchallenge::{MotError, Row, read_results, read_truth, write_results};

/// Intersection over union from which a box counts as found.
pub const MIN_IOU: f64 = 0.5;

/// Scores of one camera, or of all. Ratios are 0..1 (`mota` may be negative); 0 where nothing can be divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// F1 of boxes under the best one-to-one mapping of result ids to true ids.
    pub idf1: f64,
    /// Precision under that mapping.
    pub idp: f64,
    /// Recall under that mapping.
    pub idr: f64,
    /// 1 - (misses + false positives + switches) / true boxes.
    pub mota: f64,
    /// Times a true person's result id changed.
    pub id_switches: usize,
    /// Found boxes / result boxes.
    pub precision: f64,
    /// Found boxes / true boxes.
    pub recall: f64,
    /// True boxes without a result.
    pub misses: usize,
    /// Result boxes without truth.
    pub false_positives: usize,
    /// True boxes.
    pub objects: usize,
    /// Result boxes.
    pub predictions: usize,
    /// Frames with a true or a result box.
    pub frames: usize,
}

/// Boxes of one frame: truth and results.
#[derive(Clone, Debug, Default)]
pub(crate) struct FramePair {
    pub(crate) truth: Vec<Row>,
    pub(crate) results: Vec<Row>,
}

/// Scores result rows against true rows of one camera.
pub fn score(truth: &[Row], results: &[Row]) -> Scores {
    score_in_sequence(&[(truth, results)])
}

/// Scores several cameras as one recording: one after the other in time, ids shared.
pub fn score_in_sequence(cameras: &[(&[Row], &[Row])]) -> Scores {
    let mut frames: BTreeMap<(usize, u64), FramePair> = BTreeMap::new();
    for (camera, (truth, results)) in cameras.iter().enumerate() {
        for row in *truth {
            frames
                .entry((camera, row.frame))
                .or_default()
                .truth
                .push(*row);
        }
        for row in *results {
            frames
                .entry((camera, row.frame))
                .or_default()
                .results
                .push(*row);
        }
    }
    let mut clear = clear::Clear::default();
    let mut identity = identity::Identity::default();
    for pair in frames.values() {
        let distance = distances(pair);
        clear.update(pair, &distance);
        identity.update(pair, &distance);
    }
    let counts = clear.counts();
    let matched = identity.true_positives();
    let found = counts.objects - counts.misses;
    let errors = counts.misses + counts.false_positives + counts.switches;
    Scores {
        idf1: ratio(2 * matched, counts.objects + counts.predictions),
        idp: ratio(matched, counts.predictions),
        idr: ratio(matched, counts.objects),
        mota: if counts.objects == 0 {
            0.0
        } else {
            1.0 - errors as f64 / counts.objects as f64
        },
        id_switches: counts.switches,
        precision: ratio(found, counts.predictions),
        recall: ratio(found, counts.objects),
        misses: counts.misses,
        false_positives: counts.false_positives,
        objects: counts.objects,
        predictions: counts.predictions,
        frames: frames.len(),
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// `1 - IoU` of each true box (row) and result box (column); `None` below [`MIN_IOU`].
fn distances(pair: &FramePair) -> Vec<Option<f64>> {
    let mut all = Vec::with_capacity(pair.truth.len() * pair.results.len());
    for t in &pair.truth {
        for r in &pair.results {
            let distance = 1.0 - t.iou(r);
            all.push((distance <= 1.0 - MIN_IOU).then_some(distance));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(frame: u64, id: i64, left: f64) -> Row {
        Row {
            frame,
            id,
            left,
            top: 0.0,
            width: 10.0,
            height: 20.0,
            confidence: 1.0,
        }
    }

    #[test]
    fn mota_does_not_see_what_idf1_sees() {
        // Two cameras, ten frames, two people, perfect boxes; the second camera has them swapped.
        let truth: Vec<Row> = (1..=10)
            .flat_map(|f| [row(f, 1, 0.0), row(f, 2, 100.0)])
            .collect();
        let swapped: Vec<Row> = (1..=10)
            .flat_map(|f| [row(f, 2, 0.0), row(f, 1, 100.0)])
            .collect();
        let all = score_in_sequence(&[(&truth, &truth), (&truth, &swapped)]);
        assert_eq!((all.mota, all.idf1, all.id_switches), (0.95, 0.5, 2));
        let alone = score(&truth, &swapped);
        assert_eq!((alone.mota, alone.idf1, alone.id_switches), (1.0, 1.0, 0));
    }

    #[test]
    fn nothing_against_nothing_and_nothing_against_something() {
        assert_eq!(score(&[], &[]), Scores::default());
        let truth = [row(1, 1, 0.0)];
        let missed = score(&truth, &[]);
        assert_eq!((missed.mota, missed.idf1, missed.misses), (0.0, 0.0, 1));
        let ghost = score(&[], &truth);
        assert_eq!((ghost.precision, ghost.false_positives), (0.0, 1));
    }

    #[test]
    fn a_kept_match_outlives_a_better_one() {
        // Frame 2: result 1 still overlaps enough, result 2 fits better; the earlier match is kept.
        let truth = [row(1, 7, 0.0), row(2, 7, 0.0)];
        let results = [row(1, 1, 0.0), row(2, 1, 2.0), row(2, 2, 0.0)];
        let s = score(&truth, &results);
        assert_eq!((s.id_switches, s.false_positives), (0, 1));
    }
}
