//! `OnnxDetector` from the file to the boxes, in both engines, with files of a few operators.

use std::path::Path;

use reid_edge::detect::OnnxDetector;
use reid_edge::types::{Detection, Frame};
use reid_models::card::head::{P5, cells};
use reid_models::card::{Decode, Fit};
use reid_models::runtime::RuntimeConfig;

use crate::golden::{Case, compare};
use crate::tiny_head::{Input, Output, engines, frame, options, write};

pub(crate) const BLACK: [u8; 3] = [0, 0, 0];

pub(crate) fn fixed(size: (usize, usize)) -> Input {
    Input {
        size,
        batch: 1,
        bytes_nhwc: false,
    }
}

pub(crate) fn open(path: &Path, engine: &RuntimeConfig) -> OnnxDetector {
    OnnxDetector::open(path, &options(engine.clone())).unwrap()
}

/// The references' heads as constant files: what was made elsewhere comes out of the whole detector.
#[test]
fn the_references_come_out_of_files_of_every_family() {
    let test = "the_references_come_out_of_files_of_every_family";
    for (file, decode, fit) in [
        (
            "detect_yolox.safetensors",
            Decode::Yolox,
            Fit::LetterboxTopLeft(114),
        ),
        (
            "detect_yolov8.safetensors",
            Decode::Yolov8,
            Fit::LetterboxCentre(114),
        ),
        (
            "detect_end2end.safetensors",
            Decode::EndToEnd,
            Fit::LetterboxCentre(114),
        ),
        ("detect_nanodet.safetensors", Decode::Nanodet, Fit::Stretch),
        ("detect_ssd.safetensors", Decode::Ssd, Fit::Stretch),
    ] {
        for case in Case::read(file) {
            let dir = tempfile::tempdir().unwrap();
            let shape: Vec<i64> = case.shape.iter().map(|&n| n as i64).collect();
            let fit = if case.name == "stretch" {
                Fit::Stretch
            } else {
                fit
            };
            let path = write(
                dir.path(),
                &fixed((case.input.1, case.input.0)),
                &[Output::new("output", &shape, &case.head)],
                decode,
                case.person_class,
                fit,
            );
            // A frame is scaled to whole pixels, which the references' formulas don't do.
            let exact = fit == Fit::Stretch || {
                let scale = (case.input.0 as f64 / case.frame.0 as f64)
                    .min(case.input.1 as f64 / case.frame.1 as f64);
                let whole = |n: usize| (n as f64 * scale - (n as f64 * scale).round()).abs() < 1e-9;
                whole(case.frame.0) && whole(case.frame.1)
            };
            let close = if exact { 2e-3 } else { 2.5 };
            for engine in engines(test) {
                let what = format!("{file} {} {engine:?}", case.name);
                let mut detector = open(&path, &engine);
                let found = detector.detect(&[&frame(0, case.frame, BLACK)]).unwrap();
                assert_eq!(found.len(), 1);
                compare(&found[0], &case.boxes, &case.scores, close, &what);
            }
        }
    }
}

/// Three tensors, whole-number labels, a picture of bytes in rows of pixels.
#[test]
fn boxes_scores_and_labels_in_tensors_of_their_own() {
    let test = "boxes_scores_and_labels_in_tensors_of_their_own";
    // Of a 96 x 64 input, for a frame twice as large.
    let boxes = [
        8.0, 4.0, 24.0, 60.0, 50.0, 10.0, 70.0, 60.0, 30.0, 2.0, 40.0, 30.0,
    ];
    let (scores, labels) = ([0.9, 0.8, 0.2], [1.0, 2.0, 1.0]);
    let integers = |shape: &[i64]| Output {
        integer: true,
        ..Output::new("labels", shape, &labels)
    };
    let top_first: Vec<f32> = boxes
        .as_chunks::<4>()
        .0
        .iter()
        .flat_map(|&[l, t, r, b]| [t / 64.0, l / 96.0, b / 64.0, r / 96.0])
        .collect();
    let dets: Vec<f32> = boxes
        .as_chunks::<4>()
        .0
        .iter()
        .zip(scores)
        .flat_map(|(&[l, t, r, b], s)| [l, t, r, b, s])
        .collect();
    for (decode, bytes_nhwc, outputs) in [
        (
            Decode::Torchvision,
            false,
            vec![
                Output::new("boxes", &[-1, 4], &boxes),
                integers(&[-1]),
                Output::new("scores", &[-1], &scores),
            ],
        ),
        (
            Decode::Tensorflow,
            true,
            vec![
                Output::new("detection_scores", &[1, 3], &scores),
                Output::new("detection_boxes", &[1, 3, 4], &top_first),
                Output::new("detection_classes", &[1, 3], &labels),
                Output::new("num_detections", &[1], &[3.0]),
            ],
        ),
        (
            Decode::Mmdet,
            false,
            vec![Output::new("dets", &[1, 3, 5], &dets), integers(&[1, 3])],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let input = Input {
            bytes_nhwc,
            ..fixed((64, 96))
        };
        let path = write(dir.path(), &input, &outputs, decode, 1, Fit::Stretch);
        for engine in engines(test) {
            let mut detector = open(&path, &engine);
            let frame = frame(0, (192, 128), BLACK);
            let found = detector.detect(&[&frame, &frame]).unwrap();
            assert_eq!(found.len(), 2);
            for found in &found {
                let what = format!("{decode:?} {engine:?}");
                compare(found, &[[16.0, 8.0, 48.0, 120.0]], &[0.9], 1e-3, &what);
            }
        }
    }
}

/// One box; its score is the mean of red over 255, its place says which picture it is of by the mean of green.
fn by_colour(shape: &[i64], numbers: &[f32], score: usize, places: &[usize]) -> Output {
    let mut weights = vec![(score, 0, 1.0 / 255.0)];
    weights.extend(places.iter().map(|&at| (at, 1, 1.0)));
    Output {
        weights,
        ..Output::new("output", shape, numbers)
    }
}

/// Frames of different cameras, sizes and colours: every second one has somebody, each somewhere else.
fn colours(n: usize) -> (Vec<Frame>, Vec<Option<f32>>) {
    (0..n)
        .map(|i| {
            let somebody = i % 2 == 0;
            let colour = [if somebody { 204 } else { 20 }, 2 * i as u8, 0];
            // 96 x 64 times 2 or 4: stretched by whole numbers.
            let times = if i % 3 == 0 { 2 } else { 4 };
            let frame = frame(i, (96 * times, 64 * times), colour);
            let left = (10 + 2 * i) as f32 * times as f32;
            (frame, somebody.then_some(left))
        })
        .unzip()
}

fn check_colours(found: &[Vec<Detection>], want: &[Option<f32>], what: &str) {
    assert_eq!(found.len(), want.len(), "{what}");
    for (i, (found, want)) in found.iter().zip(want).enumerate() {
        let left: Vec<f32> = found.iter().map(|d| d.ltrb.left).collect();
        match want {
            None => assert!(left.is_empty(), "{what}, picture {i}: {found:?}"),
            Some(want) => {
                assert_eq!(left.len(), 1, "{what}, picture {i}: {found:?}");
                assert!(
                    (left[0] - want).abs() < 0.05,
                    "{what}, picture {i}: {left:?} {want}"
                );
                assert!((found[0].score - 0.8).abs() < 1e-3, "{what}: {found:?}");
            }
        }
    }
}

#[test]
fn pictures_of_a_batch_keep_their_people() {
    let test = "pictures_of_a_batch_keep_their_people";
    let size = (64, 96);
    let anchors = cells(P5, size);
    // Anchor 7's numbers, the others silent.
    let mut yolov8 = vec![0.0; 5 * anchors];
    for (number, value) in [25.0, 30.0, 30.0, 40.0, 0.0].into_iter().enumerate() {
        yolov8[number * anchors + 7] = value;
    }
    let yolov8 = |batch_axis: i64| {
        by_colour(
            &[batch_axis, 5, anchors as i64],
            &yolov8,
            4 * anchors + 7,
            &[7],
        )
    };
    let ended = [0.0, 0.0, 0.0, 10.0, 10.0, 40.0, 50.0];
    let fraction = |n: f32| 1.0 / n;
    let ssd = |shape: &[i64]| {
        let mut output = by_colour(shape, &ended, 2, &[]);
        output.numbers[3..].copy_from_slice(&[10.0 / 96.0, 10.0 / 64.0, 40.0 / 96.0, 50.0 / 64.0]);
        output
            .weights
            .extend([(3, 1, fraction(96.0)), (5, 1, fraction(96.0))]);
        output
    };
    let rows = [10.0, 10.0, 40.0, 50.0, 0.0, 0.0];
    let list = |declared: Option<Vec<i64>>| Output {
        declared,
        ..by_colour(&[0, 1, 6], &rows, 4, &[0, 2])
    };
    let split = |batch: usize| {
        // torchvision's form has no batch axis at all.
        let boxes = Output {
            weights: vec![(0, 1, 1.0), (2, 1, 1.0)],
            ..Output::new("boxes", &[-1, 4], &rows[..4])
        };
        let labels = Output {
            integer: true,
            ..Output::new("labels", &[-1], &[0.0])
        };
        let scores = Output {
            name: "scores",
            ..by_colour(&[-1], &[0.0], 0, &[])
        };
        (batch, vec![boxes, labels, scores])
    };
    let (dynamic, one) = (split(0), split(1));
    for (case, decode, batch, outputs) in [
        ("dynamic", Decode::Yolov8, 0, vec![yolov8(0)]),
        ("fixed 1", Decode::Yolov8, 1, vec![yolov8(0)]),
        ("fixed 4, filled up", Decode::Yolov8, 4, vec![yolov8(0)]),
        ("rows known", Decode::EndToEnd, 0, vec![list(None)]),
        (
            "rows open",
            Decode::EndToEnd,
            0,
            vec![list(Some(vec![0, 0, 6]))],
        ),
        (
            "rows open, fixed 4",
            Decode::EndToEnd,
            4,
            vec![list(Some(vec![4, 0, 6]))],
        ),
        (
            "a list each, dynamic",
            Decode::Ssd,
            0,
            vec![ssd(&[1, 1, -1, 7])],
        ),
        ("a list each", Decode::Ssd, 1, vec![ssd(&[1, 1, 1, 7])]),
        (
            "no batch axis, dynamic",
            Decode::Torchvision,
            dynamic.0,
            dynamic.1,
        ),
        ("no batch axis", Decode::Torchvision, one.0, one.1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let input = Input {
            size,
            batch,
            bytes_nhwc: false,
        };
        let path = write(dir.path(), &input, &outputs, decode, 0, Fit::Stretch);
        let (frames, want) = colours(6);
        let frames: Vec<&Frame> = frames.iter().collect();
        for engine in engines(test) {
            let what = format!("{decode:?}, {case}, {:?}", engine.backend);
            let mut detector = open(&path, &engine);
            check_colours(&detector.detect(&frames).unwrap(), &want, &what);
            // Fewer and more than before, and none.
            check_colours(&detector.detect(&frames[2..3]).unwrap(), &want[2..3], &what);
            assert_eq!(detector.detect(&[]).unwrap(), Vec::<Vec<Detection>>::new());
            check_colours(&detector.detect(&frames[1..]).unwrap(), &want[1..], &what);
        }
    }
}

/// A file of fixed batch 2 that gives one list for both pictures, told apart by their number.
#[test]
fn pictures_that_share_a_list() {
    let test = "pictures_that_share_a_list";
    let dir = tempfile::tempdir().unwrap();
    // The numbers of one picture are the same for both, so the pictures' numbers come from their colour: blue 0 or 1.
    let row = [0.0, 0.0, 0.9, 0.25, 0.25, 0.75, 0.75];
    let output = Output {
        weights: vec![(0, 2, 1.0), (3, 1, 0.001)],
        declared: Some(vec![1, 1, 2, 7]),
        ..Output::new("output", &[1, 1, -1, 7], &row)
    };
    let input = Input {
        size: (64, 96),
        batch: 2,
        bytes_nhwc: false,
    };
    let path = write(dir.path(), &input, &[output], Decode::Ssd, 0, Fit::Stretch);
    let frames = [[0, 0, 0], [0, 200, 1], [0, 100, 0]].map(|c| frame(0, (96, 64), c));
    for engine in engines(test) {
        let mut detector = open(&path, &engine);
        let found = detector.detect(&frames.iter().collect::<Vec<_>>()).unwrap();
        // The third picture is alone in its batch and fills it up: both rows have its number, and say the same.
        let left: Vec<Vec<f32>> = found
            .iter()
            .map(|p| p.iter().map(|d| d.ltrb.left.round()).collect())
            .collect();
        assert_eq!(left, [vec![24.0], vec![43.0], vec![34.0]], "{engine:?}");
    }
}
