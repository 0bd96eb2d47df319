//! `reid-edge check`: what it names, and how it ends.

use super::{reid_edge, stderr, walker, write};

#[test]
fn check_says_what_is_not_ready_and_exits_with_1() {
    let dir = tempfile::tempdir().unwrap();
    walker(&dir.path().join("a.mkv"), 5);
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    write(
        dir.path(),
        &format!(
            "[[camera]]\nname = \"door\"\nsource = \"a.mkv\"\n[[camera]]\nname = \"gate\"\nsource = \"rtsp://u:secret@127.0.0.1:{port}/x\"\n\
             [embedder]\nkind = \"histogram\"\n[gallery]\npath = \"/proc/nowhere/g.db\"\n"
        ),
    );
    let out = reid_edge(&["check", "--json", "--wait", "5"], dir.path());
    assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let ok = |what: &str| {
        let f = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|f| f["what"] == what)
            .unwrap();
        (
            f["ok"].as_bool().unwrap(),
            f["detail"].as_str().unwrap().to_owned(),
        )
    };
    assert!(ok("camera door").0 && ok("detector").0 && ok("embedder").0);
    let (ready, detail) = ok("camera gate");
    assert!(
        !ready && detail.contains(&format!("127.0.0.1:{port}")) && !detail.contains("secret"),
        "{detail}"
    );
    let (ready, detail) = ok("gallery");
    assert!(!ready && detail.contains("/proc/nowhere"), "{detail}");
    assert_eq!(report["ok"], false);
}

/// Ten mistakes and more, each of another kind: of the file, and of the machine it is read on.
#[test]
fn check_names_every_mistake_in_one_run() {
    let dir = tempfile::tempdir().unwrap();
    walker(&dir.path().join("a.mkv"), 5);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    write(
        dir.path(),
        &format!(
            r#"[[camera]]
name = "door"
source = "a.mkv"
fps = 0
transport = "tpc"
[[camera]]
name = "door"
source = "gone.mkv"
[[camera]]
name = "gate"
source = "rtsp://bob:${{REID_TEST_UNSET_VARIABLE}}@127.0.0.1/s"
[[camera]]
name = "yard"
source = "https://bob@127.0.0.1/s"
password_file = "gone.password"
[detector]
min_heigth = 50.0
[trackr]
high = 0.6
[crops]
burst = "many"
[embedder]
kind = "histogram"
model = "gone.onnx"
[[associate.travel]]
from = "gate"
to = "gaet"
min_secs = 3
[events]
file = "/proc/nowhere/events.jsonl"
[gallery]
path = "/proc/nowhere/g.db"
[runtime]
cache = "/proc/nowhere/cache"
[serve]
listen = "127.0.0.1:{port}"
max = 3 4
"#
        ),
    );
    let of_the_file = [
        (4, "camera[0].fps"),
        (5, "camera[0].transport"),
        (7, "camera[1].name"),
        (11, "camera[2].source"),
        (15, "camera[3].password_file"),
        (17, "detector.min_heigth"),
        (18, "trackr"),
        (21, "crops.burst"),
        (24, "embedder.model"),
        (27, "associate.travel[0].to"),
        (37, ""),
    ];
    let of_the_machine = ["camera camera-2", "events", "gallery", "cache", "page"];

    let out = reid_edge(&["check", "--json", "--wait", "5"], dir.path());
    assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let errors: Vec<(usize, &str)> = report["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            (
                e["line"].as_u64().unwrap() as usize,
                e["key"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(errors, of_the_file);
    let findings = report["findings"].as_array().unwrap();
    let failed: Vec<&str> = findings
        .iter()
        .filter(|f| f["ok"] == false)
        .map(|f| f["what"].as_str().unwrap())
        .collect();
    let mut wanted = of_the_machine.to_vec();
    wanted.sort_unstable();
    let mut sorted = failed.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, wanted, "{findings:?}");
    // What can be tried is ready.
    for what in ["gstreamer", "camera door", "detector", "embedder", "clock"] {
        assert!(
            findings
                .iter()
                .any(|f| f["what"] == what && f["ok"] == true),
            "{what}"
        );
    }
    assert_eq!(report["ok"], false);

    let out = reid_edge(&["check", "--wait", "5"], dir.path());
    assert_eq!(out.status.code(), Some(2));
    let (told, mistakes) = (
        String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr(&out),
    );
    for (line, key) in of_the_file {
        let place = format!("edge.toml, line {line}: {key}");
        assert!(mistakes.contains(&place), "{place} in {mistakes}");
    }
    for what in of_the_machine {
        assert!(told.contains(&format!("FAIL {what}: ")), "{what} in {told}");
    }
    // Every other command tells the same and does nothing.
    for command in ["run", "config", "replay", "harvest"] {
        let arguments: &[&str] = match command {
            "harvest" => &["harvest", "--out", "crops"],
            other => &[other],
        };
        let out = reid_edge(arguments, dir.path());
        assert_eq!(out.status.code(), Some(2), "{command}");
        let told = stderr(&out);
        assert!(
            told.starts_with("error: ") && mistakes.ends_with(&told),
            "{command}: {told}"
        );
    }
    let out = reid_edge(&["config", "--json"], dir.path());
    assert_eq!(out.status.code(), Some(2));
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (&told["ok"], &told["errors"]),
        (&false.into(), &report["errors"])
    );
    assert_eq!(told["errors"][1]["value"], "\"tpc\"");
    assert!(
        told["errors"][1]["reason"]
            .as_str()
            .unwrap()
            .contains("did you mean `tcp`")
    );
}

#[test]
fn check_names_detectors_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    walker(&dir.path().join("a.mkv"), 5);
    write(
        dir.path(),
        "[[camera]]\nname = \"door\"\nsource = \"a.mkv\"\n[embedder]\nkind = \"histogram\"\n\
         [serve]\nlisten = \"127.0.0.1:0\"\n[events]\nfile = \"events.jsonl\"\n[runtime]\ncache = \"cache/models\"\n",
    );
    let out = reid_edge(&["check", "--wait", "5"], dir.path());
    assert!(out.status.success(), "{}", stderr(&out));
    let told = String::from_utf8(out.stdout).unwrap();
    for wanted in [
        "info detector YOLOX-nano: licence Apache-2.0; input 416 x 416;",
        "reid-export adopt --task detect yolox_nano.onnx --decode yolox",
        "AGPL-3.0",
        "ok   events",
        "ok   cache",
        "ok   page",
    ] {
        assert!(told.contains(wanted), "{wanted} in {told}");
    }
    // Nothing is left behind.
    let mut left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["a.mkv", "edge.toml"]);
}
