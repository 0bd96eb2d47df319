//! The videos command from outside: files decode, truth fits them, errors.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use gstreamer as gst;
use gstreamer::prelude::*;
use reid_world::Domain;
use reid_world::videos::{VideosConfig, make};

/// Decodes a file; number of frames and size.
fn decode(file: &Path) -> (usize, (i32, i32)) {
    gst::init().unwrap();
    let description = format!(
        "filesrc location=\"{}\" ! qtdemux ! h264parse ! openh264dec ! appsink name=sink sync=false",
        file.display()
    );
    let pipeline = gst::parse::launch(&description)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let sink = pipeline
        .by_name("sink")
        .unwrap()
        .downcast::<gstreamer_app::AppSink>()
        .unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let (mut frames, mut size) = (0, (0, 0));
    while let Ok(sample) = sink.pull_sample() {
        let caps = sample.caps().unwrap().structure(0).unwrap();
        size = (caps.get("width").unwrap(), caps.get("height").unwrap());
        frames += 1;
    }
    pipeline.set_state(gst::State::Null).unwrap();
    (frames, size)
}

fn small() -> VideosConfig {
    let mut config = VideosConfig::preset("sparse", Domain::Street, 3).unwrap();
    config.ids = 6;
    config.cameras = 2;
    config.seconds = 30;
    config.fps = 4;
    config.size = (320, 180);
    config
}

#[test]
fn files_decode_and_truth_fits_them() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("v");
    let config = small();
    let report = make(&config, &out, &|| {}).unwrap();
    assert_eq!(report.cameras, ["cam1", "cam2"]);
    assert_eq!(report.frames, 120);
    let mut ids = Vec::new();
    for name in &report.cameras {
        let file = out.join("cameras").join(format!("{name}.mp4"));
        assert_eq!(decode(&file), (120, (320, 180)));
        let text = fs::read_to_string(out.join("gt").join(format!("{name}.txt"))).unwrap();
        let mut seen = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for line in text.lines() {
            let row: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
            assert_eq!(row.len(), 9, "{line}");
            let [frame, id, l, t, w, h, consider, class, visible] = row[..] else {
                panic!("{line}")
            };
            assert!(
                (1.0..=120.0).contains(&frame) && (1.0..=6.0).contains(&id),
                "{line}"
            );
            assert!(l >= 0.0 && t >= 0.0 && w > 0.0 && h > 0.0, "{line}");
            assert!(l + w <= 320.05 && t + h <= 180.05, "{line}");
            assert!(
                (consider == 0.0 || consider == 1.0) && class == 1.0,
                "{line}"
            );
            assert!((0.0..=1.0).contains(&visible), "{line}");
            assert!(keys.insert((frame as u32, id as u32)), "{line}: twice");
            seen.insert(id as u32);
        }
        assert!(!seen.is_empty());
        ids.push(seen);
    }
    let both = ids[0].intersection(&ids[1]).count();
    assert!(both >= 3, "{both} people seen by both cameras");
    assert_eq!(both, report.crossing_ids);
    let config = fs::read_to_string(out.join("edge.toml")).unwrap();
    assert_eq!(config.matches("[[camera]]").count(), 2);
    for line in [
        "source = \"file:cameras/cam1.mp4\"",
        "[detector]",
        "kind = \"motion\"",
        "[embedder]",
        "model = \"model.onnx\"",
        "backend = \"auto\"",
    ] {
        assert!(config.contains(line), "{line}");
    }
    let truth: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("world.json")).unwrap()).unwrap();
    assert_eq!(truth["version"], reid_world::WORLD_VERSION);
}

#[test]
fn nobody_is_in_two_views_at_once_and_ways_take_time() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("v");
    let mut config = small();
    config.cameras = 3;
    config.seconds = 60;
    config.fps = 1;
    make(&config, &out, &|| {}).unwrap();
    let truth: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("world.json")).unwrap()).unwrap();
    let mut ways = 0;
    for person in truth["people"].as_array().unwrap() {
        let visits = person["crossings"].as_array().unwrap();
        for pair in visits.windows(2) {
            let gap =
                pair[1]["enter_secs"].as_f64().unwrap() - pair[0]["leave_secs"].as_f64().unwrap();
            assert!((2.5..20.0).contains(&gap), "{gap}");
            ways += 1;
        }
    }
    assert!(ways >= 6, "{ways}");
}

#[test]
fn same_seed_same_truth_and_twins_come_in_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str| {
        let out = dir.path().join(name);
        let mut config = VideosConfig::preset("twins", Domain::Station, 8).unwrap();
        (config.cameras, config.seconds, config.fps, config.size) = (1, 4, 5, (160, 90));
        make(&config, &out, &|| {}).unwrap();
        let read = |file: &str| fs::read_to_string(out.join(file)).unwrap();
        (read("gt/cam1.txt"), read("world.json"))
    };
    let first = run("a");
    assert_eq!(first, run("b"));
    let truth: serde_json::Value = serde_json::from_str(&first.1).unwrap();
    let people = truth["people"].as_array().unwrap();
    let twins = people.iter().filter(|p| p["twin_of"].is_u64()).count();
    assert_eq!((people.len(), twins), (12, 6));
}

#[test]
fn bad_usage_exits_with_2_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("v");
    for (args, word) in [
        (["--preset", "bench"], "sparse, crowded, twins"),
        (["--domain", "mars"], "street, mall, station"),
        (["--size", "33x33"], "multiple of 4"),
        (["--fps", "0"], "1 to 60"),
        (["--cameras", "99"], "1 to 9"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_reid-world"))
            .args(["videos", "--out", out.to_str().unwrap()])
            .args(args)
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(
            message.contains(word) && message.contains(args[1]),
            "{args:?}: {message}"
        );
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_missing_element_names_its_package() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("v");
    let none = dir.path().join("none");
    let output = Command::new(env!("CARGO_BIN_EXE_reid-world"))
        .args(["videos", "--seconds", "1", "--out", out.to_str().unwrap()])
        .env("GST_PLUGIN_SYSTEM_PATH_1_0", &none)
        .env("GST_PLUGIN_SYSTEM_PATH", &none)
        .env("GST_PLUGIN_PATH", &none)
        .env("GST_REGISTRY_1_0", dir.path().join("registry.bin"))
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("appsrc") && message.contains("gstreamer1.0-plugins-base"),
        "{message}"
    );
    assert!(!out.exists());
}

/// A file-size limit makes every write of a large file fail, as a full disk does.
#[test]
fn a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (command, word) in [
        ("crops --ids 4", ".jpg"),
        ("videos --ids 2 --seconds 5 --cameras 1", "cam1.mp4"),
    ] {
        let out = dir.path().join("full");
        let script = format!(
            "trap '' XFSZ; ulimit -f 1; exec {} {command} --out {}",
            env!("CARGO_BIN_EXE_reid-world"),
            out.display()
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(
            message.contains(word) && message.contains("space"),
            "{message}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{command}");
    }
}
