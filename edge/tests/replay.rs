//! `replay` and `search` as scripts meet them.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use gstreamer as gst;
use gstreamer::prelude::*;
use reid_edge::score;

fn reid_edge(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reid-edge"))
        .args(args)
        .current_dir(dir)
        .env("RUST_LOG", "warn")
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const FIGURE: (i32, i32) = (36, 90);
const TOP: i32 = 100;

/// Left edge of the figure in a frame (0-based): it stands outside for a second, then walks in.
fn left(frame: i32, delay: i32) -> i32 {
    (frame - 10 - delay).max(0) * 7 - 40
}

/// A checkered figure walks over a patterned wall, 10 frames a second; the truth lies beside it.
fn walker(dir: &Path, name: &str, frames: i32, delay: i32, id: i64) {
    gst::init().unwrap();
    let file = dir.join(format!("{name}.mkv"));
    let pipeline = gst::parse::launch(&format!(
        "videomixer name=m sink_0::zorder=0 sink_1::zorder=1 ! videoconvert ! jpegenc quality=95 ! matroskamux ! filesink location={} \
         videotestsrc num-buffers={frames} pattern=pinwheel ! video/x-raw,width=320,height=240,framerate=10/1 ! m.sink_0 \
         videotestsrc num-buffers={frames} pattern=checkers-8 ! video/x-raw,width={},height={},framerate=10/1 ! m.sink_1",
        file.display(),
        FIGURE.0,
        FIGURE.1
    ))
    .unwrap();
    let mixer = pipeline
        .clone()
        .downcast::<gst::Bin>()
        .unwrap()
        .by_name("m")
        .unwrap();
    let pad = mixer.static_pad("sink_1").unwrap();
    pad.set_property("xpos", left(0, delay));
    pad.set_property("ypos", TOP);
    let moving = pad.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
            let frame = buffer.pts().map_or(0, |t| t.mseconds() / 100) as i32;
            moving.set_property("xpos", left(frame, delay));
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let end = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(gst::ClockTime::from_seconds(30), &end)
        .unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(
        matches!(message.view(), gst::MessageView::Eos(_)),
        "{message:?}"
    );
    let truth: String = (0..frames)
        .map(|f| (f + 1, left(f, delay)))
        .filter(|(_, l)| *l > -FIGURE.0 && *l < 320)
        .map(|(f, l)| {
            let (from, to) = (l.max(0), (l + FIGURE.0).min(320));
            format!("{f},{id},{from},{TOP},{},{},1,1,1\n", to - from, FIGURE.1)
        })
        .collect();
    std::fs::create_dir_all(dir.join("gt")).unwrap();
    std::fs::write(dir.join("gt").join(format!("{name}.txt")), truth).unwrap();
}

fn site(dir: &Path) {
    walker(dir, "door", 55, 0, 1);
    // The same figure, once it has left the first view.
    walker(dir, "hall", 120, 65, 1);
    std::fs::write(
        dir.join("edge.toml"),
        "[[camera]]\nname = \"door\"\nsource = \"door.mkv\"\n[[camera]]\nname = \"hall\"\nsource = \"hall.mkv\"\n\
         [embedder]\nkind = \"histogram\"\n[events]\nfile = \"events.jsonl\"\n",
    )
    .unwrap();
}

#[test]
fn a_walk_through_two_cameras_is_scored_written_and_searched() {
    let dir = tempfile::tempdir().unwrap();
    site(dir.path());
    let all = [
        "replay",
        "--gt",
        "gt",
        "--results",
        "out",
        "--overlay",
        "seen",
        "--overlay-every",
        "15",
        "--keep-gallery",
        "--json",
    ];
    let out = reid_edge(&all, dir.path());
    assert!(out.status.success(), "{}", stderr(&out));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["frames"], 175, "{report}");
    assert_eq!(report["across_cameras"], 1, "{report}");
    assert!(report["idf1"].as_f64().unwrap() > 0.8, "{report}");
    assert!(
        report["cameras"]["door"]["mota"].as_f64().unwrap() > 0.6,
        "{report}"
    );
    assert!(report["fps"].as_f64().unwrap() > 0.0);
    // What was written says the same as what was reported.
    let pairs: Vec<_> = ["door", "hall"]
        .iter()
        .map(|c| {
            let file = format!("{c}.txt");
            (
                score::read_truth(&dir.path().join("gt").join(&file)).unwrap(),
                score::read_results(&dir.path().join("out").join(&file)).unwrap(),
            )
        })
        .collect();
    let slices: Vec<_> = pairs
        .iter()
        .map(|(t, r)| (t.as_slice(), r.as_slice()))
        .collect();
    let again = score::score_in_sequence(&slices).idf1;
    assert!(
        (again - report["idf1"].as_f64().unwrap()).abs() < 0.005,
        "{again} {report}"
    );
    let picture = image::open(dir.path().join("seen/door/000030.jpg")).unwrap();
    assert_eq!((picture.width(), picture.height()), (320, 240));
    let events = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
    assert!(
        events.lines().any(|l| l.contains("\"state\":\"matched\"")),
        "{events}"
    );

    // The same recording again gives the same numbers.
    let once = reid_edge(&["replay", "--gt", "gt", "--json"], dir.path());
    let once: serde_json::Value = serde_json::from_slice(&once.stdout).unwrap();
    assert_eq!(once["idf1"], report["idf1"]);

    // The figure, cut out of a frame, is found in the gallery, in both cameras.
    let frame = image::open(dir.path().join("seen/door/000045.jpg")).unwrap();
    let at = left(44, 0) as u32;
    frame
        .crop_imm(at, TOP as u32, FIGURE.0 as u32, FIGURE.1 as u32)
        .save(dir.path().join("who.png"))
        .unwrap();
    let found = reid_edge(&["search", "--image", "who.png", "--json"], dir.path());
    assert!(found.status.success(), "{}", stderr(&found));
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let mut cameras: Vec<&str> = found["results"][0]["last_seen"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["camera"].as_str().unwrap())
        .collect();
    cameras.sort_unstable();
    assert_eq!(cameras, ["door", "hall"], "{found}");
}

#[test]
fn what_is_missing_is_named_before_anything_is_played() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("edge.toml"),
        "[[camera]]\nname = \"door\"\nsource = \"door.mkv\"\n[embedder]\nkind = \"histogram\"\n",
    )
    .unwrap();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    std::fs::write(dir.path().join("text.png"), "no picture").unwrap();
    for (args, words) in [
        (
            &["replay", "--gt", "nowhere"][..],
            &["nowhere", "door.txt"][..],
        ),
        (&["replay", "--gt", "empty"], &["door.txt", "camera door"]),
        (
            &["replay", "--results", "/proc/nowhere"],
            &["/proc/nowhere"],
        ),
        (&["replay"], &["door.mkv"]),
        (
            &["search", "--image", "text.png"],
            &["no gallery", "gallery.db"],
        ),
    ] {
        let out = reid_edge(args, dir.path());
        assert_eq!(out.status.code(), Some(1), "{args:?}: {}", stderr(&out));
        assert!(
            words.iter().all(|w| stderr(&out).contains(w)),
            "{args:?}: {}",
            stderr(&out)
        );
    }
    std::fs::write(dir.path().join("gallery.db"), "").unwrap();
    let out = reid_edge(&["search", "--image", "text.png"], dir.path());
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("text.png"), "{}", stderr(&out));
    for args in [
        &["search"][..],
        &["replay", "--overlay-every", "0"],
        &["replay", "--stay"],
    ] {
        assert_eq!(
            reid_edge(args, dir.path()).status.code(),
            Some(2),
            "{args:?}"
        );
    }
}
