//! A detector that was written anew for the shape of the pictures finds whom it found before.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use reid_edge::config::EdgeConfig;
use reid_edge::detect::{OnnxDetector, OnnxOptions};
use reid_edge::ingest;
use reid_edge::types::{Detection, Frame};
use reid_models::runtime::RuntimeConfig;
use reid_tests::programs;

/// One in so many frames.
const EVERY: u64 = 20;

fn adopt(model: &Path, more: &[&str]) {
    let options = ["--task", "detect", "--decode", "yolox"];
    programs::adopt(model, &[&options[..], more].concat()).unwrap();
}

fn open(model: &Path) -> OnnxDetector {
    let options = OnnxOptions {
        score: 0.3,
        nms: 0.45,
        min_height: 40.0,
        classes: None,
        runtime: RuntimeConfig::default(),
    };
    OnnxDetector::open(model, &options).unwrap()
}

/// Sure detections of `a`, and how many of them `b` has, too.
fn agree(a: &[Detection], b: &[Detection]) -> (usize, usize) {
    let sure: Vec<&Detection> = a.iter().filter(|d| d.score >= 0.5).collect();
    let known = |d: &&&Detection| b.iter().any(|other| other.ltrb.iou(&d.ltrb) >= 0.7);
    (sure.len(), sure.iter().filter(known).count())
}

#[test]
fn a_detector_for_the_pictures_shape_finds_the_same_people() {
    let Some(media) = std::env::var_os("REID_MEDIA").map(PathBuf::from) else {
        eprintln!(
            "skipped: REID_MEDIA is not set to the folder with plaza.mp4 and yolox_nano_416.onnx"
        );
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let square = dir.path().join("yolox.onnx");
    std::fs::copy(media.join("yolox_nano_416.onnx"), &square).unwrap();
    adopt(&square, &[]);
    adopt(&square, &["--resize", "416x320"]);
    let mut detectors = [square, dir.path().join("yolox-416x320.onnx")].map(|m| open(&m));
    let text = format!(
        "[[camera]]\nname = \"plaza\"\nsource = {:?}\n[embedder]\nkind = \"histogram\"\n",
        media.join("plaza.mp4")
    );
    let config = EdgeConfig::parse(&text, &dir.path().join("edge.toml")).unwrap();
    let frames = ingest::open_files_in_step(&config).unwrap();
    let frames = frames.flat_map(|step| step.unwrap());
    let (mut there, mut back) = ((0, 0), (0, 0));
    for frame in frames.filter(|f: &Frame| f.number.is_multiple_of(EVERY)) {
        let [a, b] = detectors
            .each_mut()
            .map(|d| d.detect(&[&frame]).unwrap().remove(0));
        for (sum, (sure, known)) in [(&mut there, agree(&a, &b)), (&mut back, agree(&b, &a))] {
            *sum = (sum.0 + sure, sum.1 + known);
        }
    }
    println!("square in wide {there:?}, wide in square {back:?}");
    assert!(there.0 > 100, "{there:?}");
    // What stands at the edge of the padding, or at the bar of the score, may differ.
    for (sure, known) in [there, back] {
        assert!(known as f64 >= 0.97 * sure as f64, "{there:?} {back:?}");
    }
}
