//! What a replay tells at its end.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::associate::{Bars, Evidence};
use crate::pipeline::Timings;
use crate::score::{PairScores, Scores, SiteScores};

/// Scores and speed of a replay.
#[derive(Clone, Debug, Serialize)]
pub struct ReplayReport {
    /// Over all cameras, one after the other in time with shared ids; absent without truth.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub scores: Option<AllScores>,
    /// What holds between cameras; absent without truth.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub between: Option<BetweenCameras>,
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
    /// See [`Scores::hota`].
    pub hota: f64,
    /// See [`Scores::deta`].
    pub deta: f64,
    /// See [`Scores::assa`].
    pub assa: f64,
    /// See [`Scores::loca`].
    pub loca: f64,
    /// See [`Scores::mota`].
    pub mota: f64,
    /// See [`Scores::id_switches`].
    pub id_switches: usize,
    /// See [`Scores::precision`].
    pub precision: f64,
    /// See [`Scores::recall`].
    pub recall: f64,
}

/// Identities across cameras.
#[derive(Clone, Debug, Serialize)]
pub struct BetweenCameras {
    /// See [`SiteScores::id_switches_within_cameras`].
    pub id_switches_within_cameras: usize,
    /// See [`SiteScores::id_switches_across_cameras`].
    pub id_switches_across_cameras: usize,
    /// Every pair of cameras, and every camera with itself, in the configuration's order.
    pub pairs: Vec<PairReport>,
}

/// [`PairScores`] with names in place of places.
#[derive(Clone, Debug, Serialize)]
pub struct PairReport {
    /// A camera.
    pub a: String,
    /// Another one, or the same.
    pub b: String,
    /// See [`PairScores::people`].
    pub people: usize,
    /// See [`PairScores::found`].
    pub found: usize,
    /// See [`PairScores::linked`].
    pub linked: usize,
    /// See [`PairScores::link_recall`].
    pub link_recall: Option<f64>,
    /// See [`PairScores::joined`].
    pub joined: usize,
    /// See [`PairScores::right`].
    pub right: usize,
    /// See [`PairScores::link_precision`].
    pub link_precision: Option<f64>,
}

impl BetweenCameras {
    /// `names` are those of the cameras that were scored, in their order.
    pub(super) fn new(site: &SiteScores, names: &[String]) -> Self {
        let pair = |p: &PairScores| PairReport {
            a: names[p.a].clone(),
            b: names[p.b].clone(),
            people: p.people,
            found: p.found,
            linked: p.linked,
            link_recall: p.link_recall,
            joined: p.joined,
            right: p.right,
            link_precision: p.link_precision,
        };
        BetweenCameras {
            id_switches_within_cameras: site.id_switches_within_cameras,
            id_switches_across_cameras: site.id_switches_across_cameras,
            pairs: site.pairs.iter().map(pair).collect(),
        }
    }
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
            hota: s.hota,
            deta: s.deta,
            assa: s.assa,
            loca: s.loca,
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
            "\n{:<14} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>8} {:>6} {:>6}",
            "", "HOTA", "DetA", "AssA", "IDF1", "IDP", "IDR", "MOTA", "switches", "prec.", "rec."
        );
        let mut line = |name: &str, s: &AllScores| {
            let _ = writeln!(
                out,
                "{name:<14} {:>6.3} {:>6.3} {:>6.3} {:>6.3} {:>6.3} {:>6.3} {:>6.3} {:>8} {:>6.3} {:>6.3}",
                s.hota,
                s.deta,
                s.assa,
                s.idf1,
                s.idp,
                s.idr,
                s.mota,
                s.id_switches,
                s.precision,
                s.recall
            );
        };
        for (name, camera) in &report.cameras {
            if let Some(scores) = &camera.scores {
                line(name, scores);
            }
        }
        line("all cameras", all);
    }
    if let Some(between) = &report.between
        && report.cameras.len() > 1
    {
        out.push_str(&between_for_people(between));
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

/// Pairs of cameras that share nobody are left out.
fn between_for_people(between: &BetweenCameras) -> String {
    use std::fmt::Write as _;
    let ratio = |r: Option<f64>| r.map_or_else(|| "-".to_owned(), |r| format!("{r:.3}"));
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "\n{:<26} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>9}",
        "", "people", "found", "linked", "recall", "joined", "right", "precision"
    );
    for p in &between.pairs {
        if p.people + p.joined == 0 {
            continue;
        }
        let name = if p.a == p.b {
            format!("within {}", p.a)
        } else {
            format!("{} - {}", p.a, p.b)
        };
        let _ = writeln!(
            out,
            "{name:<26} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>9}",
            p.people,
            p.found,
            p.linked,
            ratio(p.link_recall),
            p.joined,
            p.right,
            ratio(p.link_precision)
        );
    }
    let _ = writeln!(
        out,
        "identity switches: {} within cameras, {} across cameras",
        between.id_switches_within_cameras, between.id_switches_across_cameras
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::{Row, score_site};

    /// A box that stays, in frames 1 to 5.
    fn stay(id: i64) -> Vec<Row> {
        (1..6)
            .map(|frame| Row {
                frame,
                id,
                left: 100.0 * id as f64,
                top: 0.0,
                width: 40.0,
                height: 90.0,
                confidence: 1.0,
            })
            .collect()
    }

    fn report(cameras: &[(&str, Vec<Row>, Vec<Row>)]) -> ReplayReport {
        let rows: Vec<(&[Row], &[Row])> = cameras.iter().map(|(_, t, r)| (&**t, &**r)).collect();
        let names: Vec<String> = cameras.iter().map(|c| c.0.to_owned()).collect();
        let site = score_site(&rows);
        let part = |i: usize| CameraReport {
            scores: Some(site.cameras[i].into()),
            frames: 5,
        };
        ReplayReport {
            scores: Some(site.all.into()),
            between: Some(BetweenCameras::new(&site, &names)),
            frames: 5 * cameras.len() as u64,
            fps: 10.0,
            seconds: 1.0,
            identities: 2,
            across_cameras: 1,
            tracklets: 3,
            cameras: names
                .iter()
                .cloned()
                .zip((0..names.len()).map(part))
                .collect(),
            bars: Bars::CAUTIOUS,
            evidence: None,
            timings: Timings::default(),
            description: String::new(),
        }
    }

    #[test]
    fn scripts_read_scores_by_their_names() {
        let hall = [stay(1), stay(2)].concat();
        let report = report(&[("door", stay(1), stay(1)), ("hall", hall, stay(1))]);
        let json = serde_json::to_value(&report).unwrap();
        for key in ["idf1", "hota", "deta", "assa", "loca", "mota", "fps"] {
            assert!(json[key].is_f64(), "{key}: {json}");
        }
        for key in [
            "id_switches",
            "id_switches_within_cameras",
            "id_switches_across_cameras",
        ] {
            assert_eq!(json[key], 0, "{key}");
        }
        assert_eq!(json["frames"], 10);
        assert_eq!(json["cameras"]["door"]["hota"], 1.0);
        assert_eq!(json["cameras"]["hall"]["deta"], 0.5);
        let pair = serde_json::json!({
            "a": "door", "b": "hall", "people": 1, "found": 1, "linked": 1, "link_recall": 1.0,
            "joined": 1, "right": 1, "link_precision": 1.0
        });
        assert_eq!(json["pairs"][1], pair);
        assert_eq!(json["pairs"][2]["link_recall"], 0.5);
    }

    #[test]
    fn pairs_are_shown_where_there_are_pairs() {
        let one = for_people(&report(&[("door", stay(1), stay(1))]));
        assert!(one.contains("HOTA") && !one.contains("linked"), "{one}");
        let three = for_people(&report(&[
            ("door", stay(1), stay(1)),
            ("hall", stay(1), stay(1)),
            ("yard", stay(3), vec![]),
        ]));
        let line = |start: &str| three.lines().find(|l| l.starts_with(start));
        let numbers = |start: &str| -> Vec<String> {
            let words = line(start).unwrap_or_default().split_whitespace();
            words
                .skip(start.split(' ').count())
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(
            numbers("door - hall"),
            ["1", "1", "1", "1.000", "1", "1", "1.000"],
            "{three}"
        );
        assert_eq!(
            numbers("within yard"),
            ["1", "0", "0", "0.000", "0", "0", "-"],
            "{three}"
        );
        assert_eq!(line("door - yard"), None, "{three}");
        assert!(
            line("identity switches: 0 within cameras, 0 across").is_some(),
            "{three}"
        );
    }
}
