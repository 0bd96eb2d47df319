//! Scores against py-motmetrics and TrackEval, and MOTChallenge files.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use reid_edge::score::{
    Row, Scores, THRESHOLDS, hota_in_sequence, read_results, read_truth, score, score_in_sequence,
    score_site, write_results,
};
use serde::Deserialize;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn check(name: &str, got: &Scores, want: &BTreeMap<String, f64>) {
    let got = [
        ("idf1", got.idf1),
        ("idp", got.idp),
        ("idr", got.idr),
        ("mota", got.mota),
        ("precision", got.precision),
        ("recall", got.recall),
        ("num_switches", got.id_switches as f64),
        ("num_misses", got.misses as f64),
        ("num_false_positives", got.false_positives as f64),
        ("num_objects", got.objects as f64),
        ("num_predictions", got.predictions as f64),
    ];
    for (key, value) in got {
        assert!(
            (value - want[key]).abs() < 1e-9,
            "{name} {key}: {value}, motmetrics {}",
            want[key]
        );
    }
}

/// Truth and results of a camera, as the makers of the goldens wrote them.
fn camera_files(camera: &str) -> (Vec<Row>, Vec<Row>) {
    (
        read_truth(&golden(&format!("motmetrics_{camera}_gt.txt"))).unwrap(),
        read_results(&golden(&format!("motmetrics_{camera}_results.txt"))).unwrap(),
    )
}

fn slices(cameras: &[(Vec<Row>, Vec<Row>)]) -> Vec<(&[Row], &[Row])> {
    cameras
        .iter()
        .map(|(t, r)| (t.as_slice(), r.as_slice()))
        .collect()
}

#[test]
fn agrees_with_motmetrics() {
    let text = std::fs::read_to_string(golden("motmetrics_scores.json")).unwrap();
    let want: BTreeMap<String, BTreeMap<String, f64>> = serde_json::from_str(&text).unwrap();
    let files: Vec<(Vec<Row>, Vec<Row>)> = ["cam1", "cam2", "cam3"]
        .iter()
        .map(|camera| {
            let (truth, results) = camera_files(camera);
            check(camera, &score(&truth, &results), &want[*camera]);
            (truth, results)
        })
        .collect();
    check("all", &score_in_sequence(&slices(&files)), &want["all"]);
}

/// frame, id, left, top, width, height.
type Line = (u64, i64, f64, f64, f64, f64);

#[derive(Deserialize)]
struct TrackEval {
    hota: f64,
    deta: f64,
    assa: f64,
    loca: f64,
    idf1: f64,
    hota_at: Vec<f64>,
}

#[derive(Deserialize)]
struct Case {
    /// Truth and results; absent where they are the files of motmetrics_scores.py.
    cameras: Option<Vec<(Vec<Line>, Vec<Line>)>>,
    trackeval: TrackEval,
    motmetrics: Option<BTreeMap<String, f64>>,
    /// a, b, people, found, linked, joined, right.
    pairs: Vec<[usize; 7]>,
    across: usize,
}

fn from_lines(lines: &[Line]) -> Vec<Row> {
    let row = |&(frame, id, left, top, width, height): &Line| Row {
        frame,
        id,
        left,
        top,
        width,
        height,
        confidence: 1.0,
    };
    lines.iter().map(row).collect()
}

#[test]
fn every_kind_of_error_costs_what_trackeval_and_motmetrics_say() {
    let text = std::fs::read_to_string(golden("trackeval_scores.json")).unwrap();
    let cases: BTreeMap<String, Case> = serde_json::from_str(&text).unwrap();
    for (name, case) in &cases {
        let cameras: Vec<(Vec<Row>, Vec<Row>)> = match &case.cameras {
            Some(cameras) => cameras
                .iter()
                .map(|(t, r)| (from_lines(t), from_lines(r)))
                .collect(),
            None if name == "all" => ["cam1", "cam2", "cam3"].map(camera_files).into(),
            None => vec![camera_files(name)],
        };
        let cameras = slices(&cameras);
        let site = score_site(&cameras);
        let s = &site.all;
        assert_eq!(*s, score_in_sequence(&cameras), "{name}");
        let near = |key: &str, got: f64, want: f64| {
            assert!(
                (got - want).abs() < 1e-6,
                "{name} {key}: {got}, wanted {want}"
            );
        };
        near("hota", s.hota, case.trackeval.hota);
        near("deta", s.deta, case.trackeval.deta);
        near("assa", s.assa, case.trackeval.assa);
        near("loca", s.loca, case.trackeval.loca);
        near("idf1", s.idf1, case.trackeval.idf1);
        let hota = hota_in_sequence(&cameras);
        assert_eq!(case.trackeval.hota_at.len(), THRESHOLDS);
        for (at, want) in hota.at.iter().zip(&case.trackeval.hota_at) {
            near(&format!("hota at {:.2}", at.iou), at.hota, *want);
        }
        for (key, want) in case.motmetrics.iter().flatten() {
            let got = match key.as_str() {
                "idf1" => s.idf1,
                "idp" => s.idp,
                "idr" => s.idr,
                "mota" => s.mota,
                "precision" => s.precision,
                "recall" => s.recall,
                "num_switches" => s.id_switches as f64,
                "num_misses" => s.misses as f64,
                "num_false_positives" => s.false_positives as f64,
                other => panic!("{name}: nothing to compare with {other}"),
            };
            near(key, got, *want);
        }
        let pairs: Vec<[usize; 7]> = site
            .pairs
            .iter()
            .map(|p| [p.a, p.b, p.people, p.found, p.linked, p.joined, p.right])
            .collect();
        assert_eq!(pairs, case.pairs, "{name}");
        assert_eq!(site.id_switches_across_cameras, case.across, "{name}");
    }
    assert_eq!(cases.len(), 20);
}

#[test]
fn results_survive_the_file_and_bad_lines_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cam1.txt");
    let rows = [Row {
        frame: 3,
        id: 7,
        left: -1.25,
        top: 2.5,
        width: 10.0,
        height: 20.0,
        confidence: 0.5,
    }];
    write_results(&path, &rows).unwrap();
    assert_eq!(read_results(&path).unwrap(), rows);
    for (text, word) in [
        ("1,1,0,0,5\n", "5 columns"),
        ("1,1,0,0,5,nan,1\n", "nan"),
        ("1,1,0,0,x,5,1\n", "`x`"),
        ("0,1,0,0,5,5,1\n", "frame 0 is not a whole number from 1 on"),
    ] {
        std::fs::write(&path, format!("1,1,0,0,5,5,1\n{text}")).unwrap();
        let error = read_truth(&path).unwrap_err().to_string();
        assert!(
            error.contains("line 2") && error.contains("cam1.txt") && error.contains(word),
            "{error}"
        );
    }
    assert!(
        read_truth(&dir.path().join("none.txt"))
            .unwrap_err()
            .to_string()
            .contains("none.txt")
    );
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row =
        (1u64..6, 0i64..4, 0.0f64..60.0, 5.0f64..30.0).prop_map(|(frame, id, left, width)| Row {
            frame,
            id,
            left,
            top: 0.0,
            width,
            height: 20.0,
            confidence: 1.0,
        });
    prop::collection::vec(row, 0..30).prop_map(|mut rows| {
        // One box per id and frame, as trackers write them.
        rows.sort_by_key(|r| (r.frame, r.id));
        rows.dedup_by_key(|r| (r.frame, r.id));
        rows
    })
}

proptest! {
    #[test]
    fn scores_stay_in_range_and_truth_against_itself_is_perfect(truth in rows(), results in rows()) {
        let s = score(&truth, &results);
        for value in [s.idf1, s.idp, s.idr, s.precision, s.recall] {
            prop_assert!((0.0..=1.0).contains(&value), "{:?}", s);
        }
        prop_assert!(s.mota <= 1.0);
        prop_assert_eq!(s.objects, truth.len());
        if !truth.is_empty() {
            // Boxes of different people may coincide here; identities still map one to one.
            prop_assert_eq!(score(&truth, &truth).idf1, 1.0);
        }
        // New names for the ids change nothing.
        let renamed: Vec<Row> = results.iter().map(|r| Row { id: 1_000 - 7 * r.id, ..*r }).collect();
        prop_assert_eq!(score(&truth, &renamed).idf1, s.idf1);
        // Two cameras that see the same make no more errors than each alone, and none between them.
        let twice = score_site(&[(&truth, &results), (&truth, &results)]);
        prop_assert_eq!(twice.id_switches_across_cameras, 0);
        prop_assert_eq!(twice.id_switches_within_cameras, 2 * s.id_switches);
        prop_assert_eq!(twice.cameras[1], twice.cameras[0]);
        let [first, between, second] = twice.pairs.as_slice() else { panic!("{:?}", twice.pairs) };
        prop_assert_eq!(first.people, second.people);
        prop_assert_eq!(between.linked, between.found);
        for p in &twice.pairs {
            prop_assert!(p.linked <= p.found && p.found <= p.people && p.right <= p.joined, "{:?}", p);
        }
    }
}
