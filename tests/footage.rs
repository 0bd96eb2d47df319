//! Real footage: what the cameras' own crops are worth, counted on people known to have walked from one camera to another.
//!
//! `plaza.mp4` (from the folder in `REID_MEDIA`) is cut into two virtual cameras with a blind gap between them. Tracking the
//! whole frame says who crossed the gap. The pipeline sees only the two halves: how many of those people get one identity
//! on both sides? Reported for the model trained on the harvest, for a public model and for a colour histogram, from the
//! same detections and tracklets. A report, not a bar.
//!
//! And the tracker by itself: how often does somebody who was found again by eye, later in the recording, have the tracklet of
//! before?
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use reid_tests::programs::{adopt, json};

/// Columns of the frame that each virtual camera sees.
const LEFT: (f64, f64) = (0.0, 352.0);
const RIGHT: (f64, f64) = (416.0, 768.0);
/// Frames a person must be seen by both the whole frame's tracker and a camera for the two to be one.
const ENOUGH: usize = 5;

fn media() -> Option<PathBuf> {
    match std::env::var_os("REID_MEDIA") {
        Some(folder) => Some(PathBuf::from(folder)),
        None => {
            eprintln!("skipped: real footage (REID_MEDIA is not set to the folder with plaza.mp4)");
            None
        }
    }
}

/// A camera on a part of plaza.mp4, by the pipeline escape hatch.
fn camera(name: &str, video: &Path, crop: &str) -> String {
    format!(
        "[[camera]]\nname = \"{name}\"\nsource = \"pipeline:filesrc location={} ! decodebin ! videocrop {crop} ! videoconvert\"\nreal_time = false\n",
        video.display()
    )
}

#[derive(Clone, Copy)]
struct Seen {
    id: i64,
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Seen {
    fn iou(&self, other: &Seen) -> f64 {
        let w = (self.left + self.width).min(other.left + other.width) - self.left.max(other.left);
        let h = (self.top + self.height).min(other.top + other.height) - self.top.max(other.top);
        let inter = w.max(0.0) * h.max(0.0);
        inter / (self.width * self.height + other.width * other.height - inter)
    }
}

/// Rows of a MOTChallenge file by frame, moved `shift` pixels to the right.
fn rows(path: &Path, shift: f64) -> BTreeMap<u64, Vec<Seen>> {
    let mut rows: BTreeMap<u64, Vec<Seen>> = BTreeMap::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let v: Vec<f64> = line.split(',').map(|f| f.parse().unwrap()).collect();
        let seen = Seen {
            id: v[1] as i64,
            left: v[2] + shift,
            top: v[3],
            width: v[4],
            height: v[5],
        };
        rows.entry(v[0] as u64).or_default().push(seen);
    }
    rows
}

/// For each person of the whole frame: the identities that a camera gave to the boxes lying on theirs, with counts.
fn identities(
    whole: &BTreeMap<u64, Vec<Seen>>,
    camera: &BTreeMap<u64, Vec<Seen>>,
) -> BTreeMap<i64, BTreeMap<i64, usize>> {
    let mut found: BTreeMap<i64, BTreeMap<i64, usize>> = BTreeMap::new();
    for (frame, people) in whole {
        for seen in camera.get(frame).into_iter().flatten() {
            let best = people
                .iter()
                .max_by(|a, b| a.iou(seen).total_cmp(&b.iou(seen)));
            if let Some(person) = best.filter(|p| p.iou(seen) >= 0.5) {
                *found
                    .entry(person.id)
                    .or_default()
                    .entry(seen.id)
                    .or_default() += 1;
            }
        }
    }
    found
}

/// People with enough boxes in both cameras, and how many of them have one identity on both sides.
fn crossings(whole: &Path, results: &Path) -> (usize, usize) {
    let whole = rows(whole, 0.0);
    let left = identities(&whole, &rows(&results.join("left.txt"), LEFT.0));
    let right = identities(&whole, &rows(&results.join("right.txt"), RIGHT.0));
    let main = |side: &BTreeMap<i64, usize>| {
        side.iter()
            .max_by_key(|(_, n)| **n)
            .filter(|(_, n)| **n >= ENOUGH)
            .map(|(id, _)| *id)
    };
    let both: Vec<(i64, i64)> = left
        .iter()
        .filter_map(|(person, l)| Some((main(l)?, main(right.get(person)?)?)))
        .collect();
    (both.iter().filter(|(l, r)| l == r).count(), both.len())
}

fn detector(kind: &str, folder: &Path) -> String {
    match kind {
        "motion" => "[detector]\nkind = \"motion\"\n".into(),
        _ => format!(
            "[detector]\nkind = \"onnx\"\nmodel = \"{}\"\n",
            folder.join("yolox.onnx").display()
        ),
    }
}

/// How many people cross with each way of comparing them.
fn report(epochs: usize, iterations: usize) {
    let Some(media) = media() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| path(name).display().to_string();
    let plaza = media.join("plaza.mp4");
    // Models made by others, described as an integrator would.
    fs::copy(media.join("yolox_nano_416.onnx"), path("yolox.onnx")).unwrap();
    fs::copy(media.join("reid-retail-0248.onnx"), path("retail.onnx")).unwrap();
    adopt(
        &path("yolox.onnx"),
        &["--task", "detect", "--decode", "yolox"],
    )
    .unwrap();
    adopt(
        &path("retail.onnx"),
        &[
            "--task",
            "embed",
            "--layout",
            "nhwc",
            "--channels",
            "bgr",
            "--range",
            "0..255",
            "--mean",
            "0,0,0",
            "--std",
            "1,1,1",
        ],
    )
    .unwrap();

    // Who crossed: the whole frame, followed without a break.
    let histogram = "[embedder]\nkind = \"histogram\"\n";
    let whole = format!(
        "{}{}{histogram}",
        camera("whole", &plaza, "left=0"),
        detector("yolox", dir.path())
    );
    fs::write(path("whole.toml"), whole).unwrap();
    // Identities would join broken tracklets by appearance: truth is made of single tracklets only.
    json(
        "reid-edge",
        &[
            "replay",
            "--config",
            &text("whole.toml"),
            "--results",
            &text("whole"),
            "--tracklets",
        ],
    )
    .unwrap();

    for kind in ["motion", "yolox"] {
        let cameras = format!(
            "{}{}{}",
            camera("left", &plaza, &format!("right={}", 768.0 - LEFT.1)),
            camera("right", &plaza, &format!("left={}", RIGHT.0)),
            detector(kind, dir.path())
        );
        let config = |name: &str, embedder: &str| {
            fs::write(path(name), format!("{cameras}{embedder}")).unwrap();
            text(name)
        };
        let plain = config("plain.toml", histogram);
        let harvest = text(&format!("harvest-{kind}"));
        json(
            "reid-edge",
            &["harvest", "--config", &plain, "--out", &harvest],
        )
        .unwrap();
        let run = text(&format!("run-{kind}"));
        json(
            "reid-train",
            &[
                "fit",
                "--method",
                "ice",
                "--preset",
                "ice_small",
                "--data",
                &format!("harvest:{harvest}"),
                "--out",
                &run,
                "--set",
                &format!("train.epochs={epochs}"),
                "--set",
                &format!("train.iterations={iterations}"),
            ],
        )
        .unwrap();
        let own = text(&format!("own-{kind}.onnx"));
        json("reid-export", &["onnx", "--run", &run, "--out", &own]).unwrap();

        let embedders = [
            (
                "trained on the harvest",
                format!("[embedder]\nmodel = \"{own}\"\n"),
            ),
            (
                "reid-retail-0248",
                format!("[embedder]\nmodel = \"{}\"\n", text("retail.onnx")),
            ),
            ("colour histogram", histogram.to_string()),
        ];
        let mut people = BTreeSet::new();
        for (name, embedder) in embedders {
            let file = config("compare.toml", &embedder);
            let results = path("results");
            json(
                "reid-edge",
                &["replay", "--config", &file, "--results", &text("results")],
            )
            .unwrap();
            let (same, crossed) = crossings(&path("whole/whole.txt"), &results);
            println!(
                "plaza, {kind}: {name}: {same} of {crossed} people keep their identity across the gap"
            );
            people.insert(crossed);
        }
        // The tracklets do not depend on what compares them.
        assert_eq!(people.len(), 1, "{kind}: {people:?}");
        assert!(
            people.first().is_some_and(|n| *n > 0),
            "{kind}: nobody was seen to cross"
        );
    }
}

/// The box of a frame whose centre is nearest to a point, if that lies well inside it.
fn tracklet_at(people: &[Seen], (x, y): (f64, f64)) -> Option<i64> {
    let off = |s: &Seen| {
        let across = (s.left + s.width / 2.0 - x) / s.width;
        let down = (s.top + s.height / 2.0 - y) / s.height;
        across.abs() + down.abs()
    };
    let nearest = people.iter().min_by(|a, b| off(a).total_cmp(&off(b)))?;
    (off(nearest) < 0.6).then_some(nearest.id)
}

/// People of plaza.mp4 in two frames each (`golden/plaza_links.txt`, found by eye): they pass poles and each other, stop,
/// and turn. ByteTrack and BoT-SORT of BoxMOT keep 34 and 36 of the 44 from the same detections (docs/BENCHMARKS.md).
#[test]
fn people_of_the_plaza_keep_their_tracklets() {
    let Some(media) = media() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::copy(media.join("yolox_nano_416.onnx"), path("yolox.onnx")).unwrap();
    adopt(
        &path("yolox.onnx"),
        &["--task", "detect", "--decode", "yolox"],
    )
    .unwrap();
    let config = format!(
        "[[camera]]\nname = \"plaza\"\nsource = {:?}\n{}score = 0.1\n[embedder]\nkind = \"histogram\"\n",
        media.join("plaza.mp4"),
        detector("yolox", dir.path()),
    );
    fs::write(path("plaza.toml"), config).unwrap();
    let text = |name: &str| path(name).display().to_string();
    json(
        "reid-edge",
        &[
            "replay",
            "--config",
            &text("plaza.toml"),
            "--results",
            &text("results"),
            "--tracklets",
        ],
    )
    .unwrap();
    let found = rows(&path("results").join("plaza.txt"), 0.0);
    let links = include_str!("golden/plaza_links.txt");
    let (mut kept, mut all) = (0, 0);
    for line in links.lines().filter(|l| !l.starts_with('#')) {
        let v: Vec<f64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        let at = |i: usize| {
            let people = found.get(&(v[i] as u64)).map_or(&[][..], Vec::as_slice);
            tracklet_at(people, (v[i + 1], v[i + 2]))
        };
        all += 1;
        match (at(0), at(3)) {
            (Some(before), Some(after)) if before == after => kept += 1,
            other => println!("lost: {line}: {other:?}"),
        }
    }
    println!("{kept} of {all} people keep their tracklet");
    assert!(kept >= 40, "{kept} of {all}");
}

#[test]
#[ignore = "over a minute: ./reid test --long"]
fn people_who_cross_the_gap_in_the_plaza() {
    report(8, 60);
}
