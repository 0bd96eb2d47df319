//! Models made by others, from the folder REID_MEDIA names: other layouts, channel orders and fixed batches.

use std::path::PathBuf;

use image::RgbImage;
use reid_models::ModelCard;
use reid_models::card::{Channels, Decode, Element, Fit, InputSpec, Layout, OutputSpec, Range};
use reid_models::distance;
use reid_models::picture::Pixels;
use reid_models::preprocess::{Preprocess, Rgb};
use reid_models::probe;
use reid_models::runtime::{self, Embedder};

use crate::runtime::{card, engines};

fn media(test: &str, file: &str) -> Option<PathBuf> {
    let path = std::env::var_os("REID_MEDIA").map(|folder| PathBuf::from(folder).join(file));
    if path.is_none() {
        println!("skipped: {test} (REID_MEDIA is not set)");
    }
    path
}

fn raw_bgr(height: usize, width: usize) -> InputSpec {
    InputSpec {
        channels: Channels::Bgr,
        range: Range::Byte,
        mean: [0.0; 3],
        std: [1.0; 3],
        ..InputSpec::imagenet(height, width)
    }
}

#[test]
fn an_nhwc_embedder_of_fixed_batch_agrees_between_engines() {
    let test = "an_nhwc_embedder_of_fixed_batch_agrees_between_engines";
    let Some(path) = media(test, "reid-retail-0248.onnx") else {
        return;
    };
    // The card lies beside a copy: the media folder is not ours to write to.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("model.onnx");
    std::fs::copy(path, &copy).unwrap();
    let mut foreign: ModelCard = card(256);
    foreign.input = InputSpec {
        layout: Layout::Nhwc,
        ..raw_bgr(256, 128)
    };
    foreign.output = OutputSpec::Embed {
        tensor: None,
        width: 256,
        normalized: false,
    };
    foreign.write(&ModelCard::path_beside(&copy)).unwrap();
    let crops: Vec<_> = probe::crops()[..5]
        .iter()
        .map(|c| (Pixels::from(c), None))
        .collect();
    let answers: Vec<Vec<Vec<f32>>> = engines(test)
        .iter()
        .map(|config| {
            Embedder::open(&copy, config)
                .unwrap()
                .embed(&crops)
                .unwrap()
        })
        .collect();
    for answer in &answers[1..] {
        for (a, b) in answers[0].iter().zip(answer) {
            assert!(distance::cosine(a, b) > 0.9999);
        }
    }
    // Different pictures, different vectors.
    assert!(distance::cosine(&answers[0][0], &answers[0][1]) < 0.999);
}

#[test]
fn a_detector_agrees_between_engines() {
    let test = "a_detector_agrees_between_engines";
    let Some(path) = media(test, "yolox_nano_416.onnx") else {
        return;
    };
    let mut foreign = card(1);
    foreign.input = InputSpec {
        fit: Fit::LetterboxTopLeft(114),
        ..raw_bgr(416, 416)
    };
    foreign.output = OutputSpec::Detect {
        tensor: None,
        decode: Decode::Yolox,
        person_class: 0,
    };
    let mut preprocess = Preprocess::new(&foreign.input);
    let len = preprocess.tensor_len();
    let mut input = vec![0.0; 2 * len];
    for (crop, tensor) in probe::crops().iter().zip(input.chunks_exact_mut(len)) {
        preprocess.run_into(Rgb::from(crop), None, tensor).unwrap();
    }
    let answers: Vec<_> = engines(test)
        .iter()
        .map(|config| {
            let mut session = runtime::open(&path, &foreign, config).unwrap();
            session.run(2, &input).unwrap()
        })
        .collect();
    for answer in &answers {
        assert_eq!(answer[0].0, "output");
        assert_eq!(answer[0].1.shape, [2, 3549, 85]);
        for (a, b) in answers[0][0].1.data.iter().zip(&answer[0].1.data) {
            assert!((a - b).abs() < 1e-3 * (1.0 + a.abs()), "{a} {b}");
        }
    }
}

#[test]
fn a_byte_pose_model_runs() {
    let test = "a_byte_pose_model_runs";
    let Some(path) = media(test, "movenet_lightning_192.onnx") else {
        return;
    };
    let mut foreign = card(1);
    foreign.input = InputSpec {
        layout: Layout::Nhwc,
        channels: Channels::Rgb,
        element: Element::U8,
        ..raw_bgr(192, 192)
    };
    foreign.output = OutputSpec::Pose {
        tensor: None,
        decode: Decode::Movenet,
    };
    let mut preprocess = Preprocess::new(&foreign.input);
    let mut input = vec![0.0; preprocess.tensor_len()];
    let picture = RgbImage::from_pixel(50, 50, image::Rgb([90, 120, 60]));
    preprocess
        .run_into(Rgb::from(&picture), None, &mut input)
        .unwrap();
    for config in engines(test) {
        match runtime::open(&path, &foreign, &config) {
            Ok(mut session) => {
                let outputs = session.run(1, &input).unwrap();
                assert_eq!(outputs[0].1.shape, [1, 1, 17, 3]);
                assert!(outputs[0].1.data.iter().all(|v| v.is_finite()));
            }
            // An operator that tract lacks must be said, not survived.
            Err(err) => assert!(err.to_string().contains("movenet"), "{err}"),
        }
    }
}
