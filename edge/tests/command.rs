//! The program as scripts meet it: exit codes, messages, `--json`.
#![allow(clippy::unwrap_used)]

#[path = "command/check.rs"]
mod check;

use std::path::Path;
use std::process::{Command, Output};

fn reid_edge(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reid-edge"))
        .args(args)
        .current_dir(dir)
        .env("RUST_LOG", "warn")
        .output()
        .unwrap()
}

fn write(dir: &Path, text: &str) {
    std::fs::write(dir.join("edge.toml"), text).unwrap();
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `frames` pictures of a dark upright figure that walks over a patterned wall, 10 a second.
fn walker(path: &Path, frames: u32) {
    use gstreamer as gst;
    use gstreamer::prelude::*;
    gst::init().unwrap();
    let pipeline = gst::parse::launch(&format!(
        "videomixer name=m sink_0::zorder=0 sink_1::zorder=1 ! videoconvert ! jpegenc quality=95 ! matroskamux ! filesink location={} \
         videotestsrc num-buffers={frames} pattern=pinwheel ! video/x-raw,width=320,height=240,framerate=10/1 ! m.sink_0 \
         videotestsrc num-buffers={frames} pattern=checkers-8 ! video/x-raw,width=36,height=90,framerate=10/1 ! m.sink_1",
        path.display()
    ))
    .unwrap();
    // The figure stands out of the picture for a second, then walks.
    let pad = pipeline
        .clone()
        .downcast::<gst::Bin>()
        .unwrap()
        .by_name("m")
        .unwrap()
        .static_pad("sink_1")
        .unwrap();
    pad.set_property("xpos", -40i32);
    pad.set_property("ypos", 100i32);
    let moving = pad.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
            let frame = buffer.pts().map_or(0, |t| t.mseconds() / 100) as i32;
            moving.set_property(
                "xpos",
                if frame < 10 {
                    -40
                } else {
                    -40 + (frame - 10) * 7
                },
            );
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let end = [gst::MessageType::Eos, gst::MessageType::Error];
    let bus = pipeline.bus().unwrap();
    let message = bus
        .timed_pop_filtered(gst::ClockTime::from_seconds(30), &end)
        .unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(
        matches!(message.view(), gst::MessageView::Eos(_)),
        "{message:?}"
    );
}

#[test]
fn bad_usage_and_bad_configuration_exit_with_2() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(reid_edge(&["fly"], dir.path()).status.code(), Some(2));
    let out = reid_edge(&["check", "--config", "no.toml"], dir.path());
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("no.toml"), "{}", stderr(&out));
    write(
        dir.path(),
        "[[camera]]\nname = \"a\"\nsource = \"a.mp4\"\n[embeder]\nkind = \"histogram\"\n",
    );
    for command in ["run", "check", "config"] {
        let out = reid_edge(&[command], dir.path());
        assert_eq!(out.status.code(), Some(2), "{command}");
        let text = stderr(&out);
        assert!(
            text.contains("edge.toml, line 4") && text.contains("did you mean `embedder`"),
            "{text}"
        );
    }
    write(
        dir.path(),
        "[[camera]]\nname = \"a\"\nsource = \"a.mp4\"\n[embedder]\nkind = \"histogram\"\n[associate]\nmatch = 7.0\n",
    );
    let out = reid_edge(&["config"], dir.path());
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("match = 7"), "{}", stderr(&out));
}

#[test]
fn every_key_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let out = reid_edge(&["config", "--explain"], dir.path());
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(
        out.status.success() && text.contains("[detector]") && text.contains("backoff_max_secs")
    );
    let out = reid_edge(&["config", "--explain", "--json"], dir.path());
    let keys: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(keys.as_array().unwrap().len() > 50);
}

#[test]
fn a_walker_is_harvested() {
    let dir = tempfile::tempdir().unwrap();
    walker(&dir.path().join("a.mkv"), 50);
    write(
        dir.path(),
        "[[camera]]\nname = \"door\"\nsource = \"a.mkv\"\n[embedder]\nkind = \"histogram\"\n",
    );
    let out = reid_edge(
        &["harvest", "--out", "crops", "--json", "--every", "0.2"],
        dir.path(),
    );
    assert!(out.status.success(), "{}", stderr(&out));
    let done: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (&done["tracklets"], &done["frames"]),
        (&1.into(), &50.into()),
        "{done}"
    );
    assert!(done["crops"].as_u64().unwrap() >= 8, "{done}");
    let list = std::fs::read_to_string(dir.path().join("crops/crops.jsonl")).unwrap();
    assert_eq!(list.lines().count() as u64, done["crops"].as_u64().unwrap());
    // The same recording through words of GStreamer's ends, too.
    let path = dir.path().join("a.mkv");
    write(
        dir.path(),
        &format!(
            "[[camera]]\nname = \"door\"\nsource = \"pipeline:filesrc location={} ! decodebin ! videoconvert\"\nreal_time = false\n\
             [embedder]\nkind = \"histogram\"\n",
            path.display()
        ),
    );
    let out = reid_edge(
        &["harvest", "--out", "again", "--json", "--every", "0.2"],
        dir.path(),
    );
    assert!(out.status.success(), "{}", stderr(&out));
    let again: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (&again["tracklets"], &again["frames"], &again["crops"]),
        (&done["tracklets"], &done["frames"], &done["crops"]),
    );
    // A second harvest does not mix its tracklets with those of the first.
    let out = reid_edge(&["harvest", "--out", "crops"], dir.path());
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("crops.jsonl"), "{}", stderr(&out));
    let out = reid_edge(&["harvest", "--out", "/proc/nowhere"], dir.path());
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("/proc/nowhere"), "{}", stderr(&out));
}

#[test]
fn run_ends_with_its_files_and_tells_events() {
    let dir = tempfile::tempdir().unwrap();
    walker(&dir.path().join("a.mkv"), 45);
    write(
        dir.path(),
        "[[camera]]\nname = \"door\"\nsource = \"a.mkv\"\n[embedder]\nkind = \"histogram\"\n\
         [gallery]\npath = \":memory:\"\n[serve]\nlisten = \"127.0.0.1:0\"\n[events]\nfile = \"events.jsonl\"\n",
    );
    let out = reid_edge(&["run", "--json"], dir.path());
    assert!(out.status.success(), "{}", stderr(&out));
    let summary: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(summary["frames"].as_u64().unwrap() > 20, "{summary}");
    assert_eq!(summary["tracklets"], 1, "{summary}");
    let events = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
    let kinds: Vec<String> = events
        .lines()
        .map(|l| {
            serde_json::from_str::<serde_json::Value>(l).unwrap()["type"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    for kind in ["camera_state", "identity", "tracklet_ended"] {
        assert!(kinds.iter().any(|k| k == kind), "{kind} in {kinds:?}");
    }
    write(
        dir.path(),
        "[[camera]]\nname = \"door\"\nsource = \"gone.mkv\"\n[embedder]\nkind = \"histogram\"\n[serve]\nenabled = false\n",
    );
    let out = reid_edge(&["run"], dir.path());
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("gone.mkv"), "{}", stderr(&out));
}
