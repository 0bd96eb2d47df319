//! Scores of tracking with identities against truth: CLEAR MOT (Bernardin & Stiefelhagen 2008) and identity measures
//! (Ristani et al. 2016), with the matching rules of `motmetrics` (py-motmetrics 1.4), and HOTA (Luiten et al. 2021) as
//! TrackEval 1.3 computes it, so that the numbers agree.
//!
//! MOTA cannot see identity errors between cameras; IDF1 and HOTA over all cameras can, and the table of pairs of
//! cameras says where they are. Cameras are scored one by one and together: one after the other in time, with ids that
//! all of them share.
//!
//! A result on somebody whom the truth leaves out of account is a false positive; TrackEval's own reader of MOTChallenge
//! would forgive it.

mod aicity;
mod clear;
mod folder;
mod frames;
mod hota;
mod identity;
mod lines;
mod links;
mod matching;
mod motchallenge;
mod seqinfo;

use std::ops::Range;

use serde::Serialize;

pub use folder::read_truth_folder;
pub use hota::{Hota, HotaAt, THRESHOLDS};
pub use lines::BoxFileError;
pub use links::PairScores;
pub use motchallenge::{Row, read_results, read_truth, write_results};
pub use seqinfo::SequenceInfo;

use frames::Recording;
use links::CameraLinks;

/// Intersection over union from which a box counts as found.
pub const MIN_IOU: f64 = 0.5;

/// Scores of one camera, or of all. Ratios are 0..1 (`mota` may be negative); 0 where nothing can be divided, but
/// `loca` is 1 there, as in TrackEval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// F1 of boxes under the best one-to-one mapping of result ids to true ids.
    pub idf1: f64,
    /// Precision under that mapping.
    pub idp: f64,
    /// Recall under that mapping.
    pub idr: f64,
    /// Detection and association in one, see [`HotaAt::hota`]; as the next three, the mean over [`THRESHOLDS`] thresholds.
    pub hota: f64,
    /// See [`HotaAt::deta`].
    pub deta: f64,
    /// See [`HotaAt::assa`].
    pub assa: f64,
    /// See [`HotaAt::loca`].
    pub loca: f64,
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

/// Scores of several cameras.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteScores {
    /// All cameras as one recording: one after the other in time, ids shared.
    pub all: Scores,
    /// Each camera by itself.
    pub cameras: Vec<Scores>,
    /// Sum of the cameras' own switches.
    pub id_switches_within_cameras: usize,
    /// Cameras in which a person bears another identity than its own: in every camera a person bears the identity that
    /// it was matched with most often there; the one of these with most matches over the cameras is its own.
    pub id_switches_across_cameras: usize,
    /// Every pair of cameras, and every camera with itself.
    pub pairs: Vec<PairScores>,
}

/// Scores result rows against true rows of one camera.
pub fn score(truth: &[Row], results: &[Row]) -> Scores {
    score_in_sequence(&[(truth, results)])
}

/// Scores several cameras (truth, results) as one recording: one after the other in time, ids shared.
///
/// Takes a time in proportion to the boxes, and memory for the boxes of one frame and for the pairs of a true and a
/// result id that ever meet, besides 24 bytes a box.
pub fn score_in_sequence(cameras: &[(&[Row], &[Row])]) -> Scores {
    let recording = Recording::new(cameras);
    score_range(&recording, recording.cameras(), None)
}

/// HOTA at every threshold, of several cameras (truth, results) as one recording.
pub fn hota_in_sequence(cameras: &[(&[Row], &[Row])]) -> Hota {
    let recording = Recording::new(cameras);
    hota::hota(&recording, recording.cameras())
}

/// Scores cameras (truth, results) one by one, together, and in pairs.
pub fn score_site(cameras: &[(&[Row], &[Row])]) -> SiteScores {
    let recording = Recording::new(cameras);
    let mut alone = Vec::with_capacity(cameras.len());
    let mut links = Vec::with_capacity(cameras.len());
    for camera in recording.cameras() {
        let mut link = CameraLinks::default();
        alone.push(score_range(&recording, camera..camera + 1, Some(&mut link)));
        links.push(link.finish());
    }
    let all = match alone.as_slice() {
        [only] => *only,
        _ => score_range(&recording, recording.cameras(), None),
    };
    SiteScores {
        all,
        id_switches_within_cameras: alone.iter().map(|s| s.id_switches).sum(),
        id_switches_across_cameras: links::switches_across(&links),
        pairs: links::pairs(&links),
        cameras: alone,
    }
}

fn score_range(
    recording: &Recording,
    cameras: Range<usize>,
    mut links: Option<&mut CameraLinks>,
) -> Scores {
    let mut clear = clear::Clear::new(recording.people);
    let mut identity = identity::Identity::default();
    let frames = recording.for_each(cameras.clone(), |pair| {
        let matched = clear.update(pair);
        if let Some(links) = &mut links {
            links.update(pair, matched);
        }
        identity.update(pair);
    });
    let counts = clear.counts();
    let matched = identity.true_positives(recording.people, recording.identities);
    let found = counts.objects - counts.misses;
    let errors = counts.misses + counts.false_positives + counts.switches;
    let hota = hota::hota(recording, cameras).mean;
    Scores {
        idf1: ratio(2 * matched, counts.objects + counts.predictions),
        idp: ratio(matched, counts.predictions),
        idr: ratio(matched, counts.objects),
        hota: hota.hota,
        deta: hota.deta,
        assa: hota.assa,
        loca: hota.loca,
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
        frames,
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
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
        let nothing = score(&[], &[]);
        assert_eq!((nothing.mota, nothing.idf1, nothing.hota), (0.0, 0.0, 0.0));
        assert_eq!((nothing.loca, nothing.frames), (1.0, 0));
        assert!(score_site(&[]).pairs.is_empty());
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
