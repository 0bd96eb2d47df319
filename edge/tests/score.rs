//! Scores against py-motmetrics, and MOTChallenge files.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use reid_edge::score::{
    Row, Scores, read_results, read_truth, score, score_in_sequence, write_results,
};

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

#[test]
fn agrees_with_motmetrics() {
    let text = std::fs::read_to_string(golden("motmetrics_scores.json")).unwrap();
    let want: BTreeMap<String, BTreeMap<String, f64>> = serde_json::from_str(&text).unwrap();
    let files: Vec<(Vec<Row>, Vec<Row>)> = ["cam1", "cam2", "cam3"]
        .iter()
        .map(|camera| {
            let truth = read_truth(&golden(&format!("motmetrics_{camera}_gt.txt"))).unwrap();
            let results =
                read_results(&golden(&format!("motmetrics_{camera}_results.txt"))).unwrap();
            check(camera, &score(&truth, &results), &want[*camera]);
            (truth, results)
        })
        .collect();
    let all: Vec<(&[Row], &[Row])> = files
        .iter()
        .map(|(t, r)| (t.as_slice(), r.as_slice()))
        .collect();
    check("all", &score_in_sequence(&all), &want["all"]);
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
        ("0,1,0,0,5,5,1\n", "frames from 1"),
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
    }
}
