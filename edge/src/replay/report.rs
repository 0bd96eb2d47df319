//! What a replay tells at its end.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::associate::{Bars, Evidence};
use crate::pipeline::Timings;
use crate::score::Scores;

/// Scores and speed of a replay.
#[derive(Clone, Debug, Serialize)]
pub struct ReplayReport {
    /// Over all cameras, one after the other in time with shared ids; absent without truth.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub scores: Option<AllScores>,
    /// Frames analysed.
    pub frames: u64,
    /// Frames analysed per second of wall time.
    pub fps: f64,
    /// Wall time, seconds.
    pub seconds: f64,
    /// Identities given.
    pub identities: usize,
    /// Identities seen in more than one camera.
    pub across_cameras: usize,
    /// Tracklets seen.
    pub tracklets: usize,
    /// By name.
    pub cameras: BTreeMap<String, CameraReport>,
    /// Bars in force at the end.
    pub bars: Bars,
    /// What the site taught about similarity; absent if that was too little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Where the time went.
    pub timings: Timings,
    /// What detected and what embedded.
    pub description: String,
}

/// [`Scores`] without the count of frames, which the report has itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AllScores {
    /// See [`Scores::idf1`].
    pub idf1: f64,
    /// See [`Scores::idp`].
    pub idp: f64,
    /// See [`Scores::idr`].
    pub idr: f64,
    /// See [`Scores::mota`].
    pub mota: f64,
    /// See [`Scores::id_switches`].
    pub id_switches: usize,
    /// See [`Scores::precision`].
    pub precision: f64,
    /// See [`Scores::recall`].
    pub recall: f64,
}

/// One camera's part.
#[derive(Clone, Debug, Serialize)]
pub struct CameraReport {
    /// Absent without truth.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub scores: Option<AllScores>,
    /// Frames analysed.
    pub frames: u64,
}

impl From<Scores> for AllScores {
    fn from(s: Scores) -> Self {
        AllScores {
            idf1: s.idf1,
            idp: s.idp,
            idr: s.idr,
            mota: s.mota,
            id_switches: s.id_switches,
            precision: s.precision,
            recall: s.recall,
        }
    }
}

/// As a table.
pub(super) fn for_people(report: &ReplayReport) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    // Writing to a String cannot fail.
    if let Some(all) = &report.scores {
        let _ = writeln!(
            out,
            "\n{:<14} {:>6} {:>6} {:>6} {:>6} {:>8} {:>6} {:>6}",
            "", "IDF1", "IDP", "IDR", "MOTA", "switches", "prec.", "rec."
        );
        let mut line = |name: &str, s: &AllScores| {
            let _ = writeln!(
                out,
                "{name:<14} {:>6.3} {:>6.3} {:>6.3} {:>6.3} {:>8} {:>6.3} {:>6.3}",
                s.idf1, s.idp, s.idr, s.mota, s.id_switches, s.precision, s.recall
            );
        };
        for (name, camera) in &report.cameras {
            if let Some(scores) = &camera.scores {
                line(name, scores);
            }
        }
        line("all cameras", all);
    }
    let _ = writeln!(
        out,
        "\n{} frames in {:.1} s ({:.1} frames/s), {} tracklets, {} identities, {} of them in several cameras",
        report.frames,
        report.seconds,
        report.fps,
        report.tracklets,
        report.identities,
        report.across_cameras
    );
    out
}
