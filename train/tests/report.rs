//! The report of a run: complete in itself, and without anybody's picture unless asked for.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Device;
use image::{Rgb, RgbImage};
use reid_models::ModelCard;
use reid_models::card::{CARD_VERSION, InputSpec, OutputSpec};
use reid_models::graph::EMBEDDING;
use reid_models::weights::fingerprint;
use reid_train::config;
use reid_train::nn::Net;
use reid_train::nn::device::DeviceSpec;
use reid_train::report::{ReportOptions, report};
use reid_train::run::RunFolder;
use serde_json::json;

/// A run of a network that has learnt nothing, with three rows of metrics.
fn run(folder: &Path) -> RunFolder {
    let config = config::load("ice", Some("ice_small"), None, &[]).unwrap();
    let backbone = config.model.backbone().unwrap();
    let graph = backbone.build().unwrap();
    let run = RunFolder::create(&folder.join("a run"), &config, &graph).unwrap();
    let weights = Net::new(graph.clone(), 1, &Device::Cpu)
        .unwrap()
        .to_weights()
        .unwrap();
    let input = InputSpec::imagenet(backbone.height, backbone.input_width);
    let card = ModelCard {
        version: CARD_VERSION,
        name: "tiny".into(),
        output: OutputSpec::Embed {
            tensor: Some(EMBEDDING.into()),
            width: graph.width(EMBEDDING).unwrap(),
            normalized: true,
        },
        training: None,
        license: None,
        toolkit: "0".into(),
        thresholds: BTreeMap::from([("match".into(), 0.5)]),
        fingerprint: fingerprint(&weights, &input),
        input,
    };
    card.write(&run.file("card.json")).unwrap();
    weights.write(&run.file("model.safetensors")).unwrap();
    for epoch in 0..3 {
        run.log(&json!({
            "epoch": epoch, "map": 0.1, "rank1": 0.2, "clusters": 5, "outliers": 2, "loss": {"hard": 1.0}, "seconds": 2.0,
            "pseudo_labels": {"nmi": 0.5, "ari": 0.4, "lost_ids": 1, "identities": 6, "camera_information": 0.2}
        }))
        .unwrap();
    }
    run
}

/// Six people in three cameras, two pictures each, in Market-1501's layout.
fn data(folder: &Path) {
    for name in ["bounding_box_train", "query", "bounding_box_test"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    for (person, camera, box_) in
        (1..=6u8).flat_map(|p| (1..=3u8).flat_map(move |c| (0..2).map(move |b| (p, c, b))))
    {
        let split = match (person, camera, box_) {
            (1..=2, ..) => "bounding_box_train",
            (_, 1, 0) => "query",
            _ => "bounding_box_test",
        };
        let colour = Rgb([person * 40, 255 - person * 35, camera * 20 + box_ * 9]);
        let name = format!("{person:04}_c{camera}s1_000001_0{box_}.png");
        let picture = RgbImage::from_pixel(16, 32, colour);
        picture.save(folder.join(split).join(name)).unwrap();
    }
}

#[test]
fn a_report_shows_curves_without_test_data() {
    let dir = tempfile::tempdir().unwrap();
    let run = run(dir.path());
    let options = ReportOptions {
        run: run.path.clone(),
        data: None,
        with_crops: false,
        out: None,
    };
    let path = report(&options, DeviceSpec::Cpu).unwrap();
    assert_eq!(path, run.file("report.html"));
    let html = std::fs::read_to_string(path).unwrap();
    for part in [
        "Scores on the test set",
        "Loss terms",
        "Lost identities",
        "mutual",
        "a run",
        "0.5000",
    ] {
        assert!(
            html.to_lowercase().contains(&part.to_lowercase()),
            "no {part}"
        );
    }
    alone(&html);
    let events = std::fs::read_dir(run.file("tensorboard")).unwrap().count();
    assert_eq!(events, 1, "events for TensorBoard");
}

#[test]
fn test_data_add_lists_and_pictures_only_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    let run = run(dir.path());
    data(&dir.path().join("market"));
    let spec = format!("market1501:{}", dir.path().join("market").display());
    let html = |with_crops: bool| {
        let options = ReportOptions {
            run: run.path.clone(),
            data: Some(spec.parse().unwrap()),
            with_crops,
            out: Some(dir.path().join("r.html")),
        };
        std::fs::read_to_string(report(&options, DeviceSpec::Cpu).unwrap()).unwrap()
    };
    let plain = html(false);
    for part in [
        "Cumulative match characteristic",
        "Worst queries",
        "tile right",
        "tile wrong",
        "coloured by camera",
        "false-positive rate",
    ] {
        assert!(plain.contains(part), "no {part}");
    }
    assert!(!plain.contains("<img"), "pictures stay out");
    alone(&plain);
    let pictures = html(true);
    assert!(pictures.contains("<img alt=\"\" src=\"data:image/jpeg;base64,"));
    alone(&pictures);
}

/// Nothing is fetched from anywhere, and no path of this machine stands in it.
fn alone(html: &str) {
    for word in [
        "http:", "https:", "<script", "@import", "url(", "<link", "/tmp",
    ] {
        assert!(!html.contains(word), "{word}");
    }
}

#[test]
fn a_folder_that_is_no_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = ReportOptions {
        run: dir.path().into(),
        data: None,
        with_crops: false,
        out: None,
    };
    assert!(
        report(&options, DeviceSpec::Cpu)
            .unwrap_err()
            .to_string()
            .contains("not a run folder")
    );
}
