//! A real model on real footage, where `REID_MEDIA` names a folder with both.

use std::path::PathBuf;

use reid_edge::config::EdgeConfig;
use reid_edge::detect::OnnxDetector;
use reid_edge::ingest::open_files_in_step;
use reid_edge::types::Ltrb;
use reid_models::card::{
    CARD_VERSION, Channels, Decode, Fit, InputSpec, ModelCard, OutputSpec, Range,
};
use serde::Deserialize;

use crate::golden;
use crate::tiny_head::{engines, options};

#[derive(Deserialize)]
struct Plaza {
    score: f32,
    nms: f32,
    frames: Vec<People>,
}

#[derive(Deserialize)]
struct People {
    number: u64,
    boxes: Vec<[f32; 4]>,
    scores: Vec<f32>,
}

/// The detector with its card beside it, in a folder that can be written.
fn yolox(media: &std::path::Path, dir: &std::path::Path) -> PathBuf {
    let model = dir.join("yolox.onnx");
    std::fs::copy(media.join("yolox_nano_416.onnx"), &model).unwrap();
    let card = ModelCard {
        version: CARD_VERSION,
        name: "yolox-nano".into(),
        input: InputSpec {
            fit: Fit::LetterboxTopLeft(114),
            channels: Channels::Bgr,
            range: Range::Byte,
            mean: [0.0; 3],
            std: [1.0; 3],
            ..InputSpec::imagenet(416, 416)
        },
        output: OutputSpec::Detect {
            tensor: None,
            decode: Decode::Yolox,
            person_class: 0,
        },
        training: None,
        license: Some("Apache-2.0".into()),
        toolkit: "test".into(),
        thresholds: Default::default(),
        fingerprint: "yolox-nano".into(),
    };
    card.write(&ModelCard::path_beside(&model)).unwrap();
    model
}

/// The boxes of ONNX Runtime and numpy (detect_plaza.py). The video is decoded by another program there, which moves edges
/// by a pixel and scores by a percent.
#[test]
fn yolox_nano_finds_the_people_that_numpy_finds() {
    let test = "yolox_nano_finds_the_people_that_numpy_finds";
    let Some(media) = std::env::var_os("REID_MEDIA").map(PathBuf::from) else {
        println!("skipped: {test} (REID_MEDIA is not set)");
        return;
    };
    let text = std::fs::read_to_string(golden::path("detect_plaza.json")).unwrap();
    let plaza: Plaza = serde_json::from_str(&text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let model = yolox(&media, dir.path());
    let config = format!(
        "[[camera]]\nname = \"a\"\nsource = \"{}\"\n[embedder]\nkind = \"histogram\"\n",
        media.join("plaza.mp4").display()
    );
    let config = EdgeConfig::parse(&config, &dir.path().join("edge.toml")).unwrap();
    let last = plaza.frames.iter().map(|f| f.number).max().unwrap();
    let mut frames = Vec::new();
    for step in open_files_in_step(&config).unwrap() {
        let frame = step.unwrap().remove(0);
        let number = frame.number;
        if plaza.frames.iter().any(|f| f.number == number) {
            frames.push(frame);
        }
        if number >= last {
            break;
        }
    }
    assert_eq!(frames.len(), plaza.frames.len());
    for engine in engines(test) {
        let mut wanted = options(engine);
        (wanted.score, wanted.nms) = (plaza.score, plaza.nms);
        let mut detector = OnnxDetector::open(&model, &wanted).unwrap();
        let all = detector.detect(&frames.iter().collect::<Vec<_>>()).unwrap();
        let (mut worst_iou, mut worst_score) = (1.0f32, 0.0f32);
        for (found, want) in all.iter().zip(&plaza.frames) {
            assert_eq!(
                found.len(),
                want.boxes.len(),
                "frame {}: {found:?}",
                want.number
            );
            for (&[left, top, right, bottom], &score) in want.boxes.iter().zip(&want.scores) {
                let want = Ltrb {
                    left,
                    top,
                    right,
                    bottom,
                };
                let best = found
                    .iter()
                    .max_by(|a, b| a.ltrb.iou(&want).total_cmp(&b.ltrb.iou(&want)))
                    .unwrap();
                worst_iou = worst_iou.min(best.ltrb.iou(&want));
                worst_score = worst_score.max((best.score - score).abs());
            }
        }
        println!(
            "{}: {} people, worst IoU {worst_iou:.4}, largest difference of a score {worst_score:.4}",
            detector.description(),
            all.iter().map(Vec::len).sum::<usize>()
        );
        assert!(
            worst_iou > 0.9 && worst_score < 0.03,
            "{worst_iou} {worst_score}"
        );
    }
}
