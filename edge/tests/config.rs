//! `edge.toml`: every mistake is told in one run, nothing panics, and no password is ever shown.
#![allow(clippy::unwrap_used)]

#[path = "config/mutations.rs"]
mod mutations;

use std::path::Path;

use reid_edge::config::{
    CameraConfig, ConfigError, Decoder, EdgeConfig, Precision, Source, explain,
};

const MINIMAL: &str =
    "[[camera]]\nname = \"door\"\nsource = \"a.mp4\"\n[embedder]\nkind = \"histogram\"\n";

fn lenient(text: &str) -> (EdgeConfig, Vec<ConfigError>) {
    EdgeConfig::parse_lenient(text, Path::new("site/edge.toml"))
}

/// Line and key of every mistake.
fn places(errors: &[ConfigError]) -> Vec<(usize, &str)> {
    errors
        .iter()
        .map(|e| (e.line.unwrap_or(0), e.key.as_str()))
        .collect()
}

#[test]
fn all_mistakes_are_told_in_the_order_of_the_file() {
    let text = r#"
[[camera]]
name = "door"
source = "rtsp://bob:hunter2@cam/s"
fps = 0
transport = "tpc"

[[camera]]
name = "door"
source = "rtsp://cam/${REID_TEST_UNSET_VARIABLE}"

[[camera]]
name = "gate"
source = "v4l2:/dev/video0"
password_file = "nowhere.password"
masks = [[[0, 0], [1, 1]]]

[trackr]
high = "much"

[detector]
min_heigth = 50
classes = []

[embedder]
model = "nowhere.onnx"
batch = 1.5

[associate]
match = 0.5
mint = 0.9
[[associate.travel]]
from = "door"
to = "gaet"
min_secs = 3
[serve]
enabled = "yes"
"#;
    let (config, errors) = lenient(text);
    assert_eq!(
        places(&errors),
        [
            (5, "camera[0].fps"),
            (6, "camera[0].transport"),
            (9, "camera[1].name"),
            (10, "camera[1].source"),
            (15, "camera[2].password_file"),
            (16, "camera[2].masks"),
            (18, "trackr"),
            (19, "tracker.high"),
            (22, "detector.min_heigth"),
            (23, "detector.classes"),
            (26, "embedder.model"),
            (27, "embedder.batch"),
            (31, "associate.mint"),
            (34, "associate.travel[0].to"),
            (37, "serve.enabled"),
        ]
    );
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(shown.iter().all(|s| s.starts_with("site/edge.toml, line ")));
    assert!(!shown.concat().contains("hunter2"));
    // What was meant is used, what is wrong is not.
    assert_eq!(config.camera_names(), ["door"]);
    assert_eq!(config.cameras[0].fps, None);
    assert_eq!(config.detector.min_height, 50.0);
    assert_eq!(config.embedder.model, None);
    assert_eq!((config.embedder.batch, config.tracker.high), (16, 0.5));
    assert_eq!(config.associate.match_score, Some(0.5));
    assert!(config.associate.travel.is_empty());
}

#[test]
fn a_syntax_error_names_its_line_and_hides_nothing_else() {
    let text = "[[camera]]\nname = \"a\nsource = \"rtsp://bob:hunter2@cam/s\"\nfps = 10,5\n\
                [[camera]]\nname = \"b\"\nsource \"rtsp://bob:hunter2@cam/s\"\n\n[detector]\nscore = 0.2\nkind = motion\n\
                [tracker]\nhigh = 7\n[crops\nburst = -1\n[embedder]\nkind = \"histogram\"\nbacth = 0\n";
    let (_, errors) = lenient(text);
    // Lines 14 and 15 stand below a header that nobody can read; what is missing in lines 2 and 7 is not told twice.
    assert_eq!(
        places(&errors),
        [
            (2, ""),
            (4, ""),
            (7, ""),
            (11, ""),
            (13, "tracker.high"),
            (14, ""),
            (18, "embedder.bacth"),
            (18, "embedder.batch"),
        ]
    );
    let shown: String = errors.iter().map(ToString::to_string).collect();
    assert!(
        shown.contains("line 2: not TOML") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[test]
fn an_unreadable_password_keeps_a_camera_closed_and_unnamed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("edge.toml");
    std::fs::write(dir.path().join("good"), "s3cret\r\nmore\n").unwrap();
    std::fs::write(dir.path().join("empty"), "\n").unwrap();
    let camera = |password: &str| {
        let text = MINIMAL.replace(
            "\"a.mp4\"",
            &format!("\"https://bob@cam/s\"\npassword_file = \"{password}\""),
        );
        EdgeConfig::parse_lenient(&text, &file)
    };
    let (config, errors) = camera("good");
    assert!(errors.is_empty(), "{errors:?}");
    let Source::Http { user, password, .. } = config.cameras[0].source() else {
        panic!("{config:?}")
    };
    assert_eq!(user.as_deref(), Some("bob"));
    assert_eq!(password.as_ref().unwrap().reveal(), "s3cret");
    assert!(!format!("{config:?}").contains("s3cret"));
    for bad in ["empty", "hunter2", "${REID_TEST_UNSET_VARIABLE}/x"] {
        let (config, errors) = camera(bad);
        assert!(config.cameras.is_empty());
        assert_eq!(places(&errors), [(4, "camera[0].password_file")]);
        // Some write the password itself there.
        assert!(!errors[0].to_string().contains("hunter2"), "{}", errors[0]);
    }
}

#[test]
fn variables_stand_in_paths() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let text = r#"
[[camera]]
name = "door"
source = "${CARGO_MANIFEST_DIR}/a.mp4"
[detector]
kind = "onnx"
model = "${CARGO_MANIFEST_DIR}/Cargo.toml"
library = "${CARGO_MANIFEST_DIR}/lib"
[embedder]
model = "${CARGO_MANIFEST_DIR}/Cargo.toml"
[runtime]
cache = "${CARGO_MANIFEST_DIR}/cache"
[gallery]
path = "${CARGO_MANIFEST_DIR}/g.db"
[serve]
token_file = "${CARGO_MANIFEST_DIR}/token"
[events]
file = "${CARGO_MANIFEST_DIR}/events"
"#;
    let config = EdgeConfig::parse(text, Path::new("site/edge.toml")).unwrap();
    let at = |name: &str| Some(Path::new(&folder).join(name));
    assert_eq!(
        *config.cameras[0].source(),
        Source::File(at("a.mp4").unwrap())
    );
    assert_eq!(config.detector.model, at("Cargo.toml"));
    assert_eq!(config.detector.library, at("lib"));
    assert_eq!(config.embedder.model, at("Cargo.toml"));
    assert_eq!(
        (&config.runtime.cache, &config.embedder.cache),
        (&at("cache"), &at("cache"))
    );
    assert_eq!(Some(config.resolve(&config.gallery.path)), at("g.db"));
    assert_eq!(config.serve.token_file, at("token"));
    assert_eq!(config.events.file, at("events"));
    let (_, errors) = lenient(&text.replace("CARGO_MANIFEST_DIR", "REID_TEST_UNSET_VARIABLE"));
    assert_eq!(errors.len(), 8, "{errors:?}");
    assert!(
        errors
            .iter()
            .all(|e| e.reason.contains("REID_TEST_UNSET_VARIABLE is not set"))
    );
}

#[test]
fn a_camera_comes_from_a_request_with_the_same_checks() {
    let base = Path::new("/site");
    let good = serde_json::json!({
        "name": "gate", "source": "rtsp://bob:hunter2@cam/s?token=hunter2", "fps": 5, "decoder": "software",
        "masks": [[[0, 0], [1, 0], [0.5, 1]]], "min_height": 30,
    });
    let camera = CameraConfig::from_json(&good, base).unwrap();
    assert_eq!((camera.fps, camera.decoder), (Some(5.0), Decoder::Software));
    assert_eq!(camera.masks, [vec![[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]]]);
    let shown = serde_json::to_string(&camera).unwrap();
    assert!(
        !shown.contains("hunter2") && !shown.contains("bob"),
        "{shown}"
    );
    assert!(shown.contains("rtsp://cam/s?token=***"), "{shown}");
    // The same from a table of TOML, and from the file.
    let text = "name = \"gate\"\nsource = \"rtsp://bob:hunter2@cam/s?token=hunter2\"\nfps = 5\ndecoder = \"software\"\n\
                masks = [[[0, 0], [1, 0], [0.5, 1]]]\nmin_height = 30\n";
    let table: toml::Table = toml::from_str(text).unwrap();
    assert_eq!(CameraConfig::from_toml_table(&table, base).unwrap(), camera);
    let text = format!("[embedder]\nkind = \"histogram\"\n[[camera]]\n{text}");
    let config = EdgeConfig::parse(&text, Path::new("/site/edge.toml")).unwrap();
    assert_eq!(config.cameras, [camera]);
    // All mistakes at once here, too.
    let bad = serde_json::json!({"nmae": "x", "source": "rtsp://bob:hunter2@/", "fps": 1e9, "loop": "yes", "clock": null});
    let errors = CameraConfig::from_json(&bad, base).unwrap_err();
    let mut keys: Vec<&str> = errors.0.iter().map(|e| e.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        ["camera.clock", "camera.fps", "camera.loop", "camera.nmae"]
    );
    for (key, value) in [
        ("source", "pipeline:videotestsrc"),
        ("source", "rtsp://${PATH}/s"),
        ("user", "${PATH}"),
        ("password_file", "/etc/hostname"),
    ] {
        let mut body = serde_json::json!({"name": "x", "source": "rtsp://cam/s"});
        body[key] = value.into();
        let errors = CameraConfig::from_json(&body, base).unwrap_err();
        assert_eq!(errors.0[0].key, format!("camera.{key}"));
        // The owner of the file may.
        if key != "source" {
            continue;
        }
        let table = toml::Table::try_from(&body).unwrap();
        let owner = CameraConfig::from_toml_table(&table, base);
        assert_eq!(owner.is_ok(), value.starts_with("pipeline:"), "{value}");
    }
    assert!(CameraConfig::from_json(&serde_json::json!([]), base).is_err());
}

#[test]
fn a_reload_knows_what_changed() {
    let parse = |text: &str| EdgeConfig::parse(text, Path::new("site/edge.toml")).unwrap();
    let camera = |name: &str, more: &str| format!("[[camera]]\nname = \"{name}\"\n{more}\n");
    let tail = "[embedder]\nkind = \"histogram\"\n";
    let old = parse(&format!(
        "{}{}{}{tail}",
        camera("a", "source = \"rtsp://bob:one@cam/s\""),
        camera("b", "source = \"b.mp4\""),
        camera("c", "source = \"c.mp4\""),
    ));
    assert!(old.difference(&old).is_empty());
    let new = parse(&format!(
        "{}{}{}{tail}wait_secs = 0.1\n[tracker]\nlost_secs = 3\n[health]\nmin_fps = 1\n[gallery]\npath = \"h.db\"\n[runtime]\ncache = \"x\"\n",
        camera("d", "source = \"d.mp4\""),
        camera("c", "source = \"c.mp4\""),
        camera("a", "source = \"rtsp://bob:two@cam/s\""),
    ));
    let difference = old.difference(&new);
    assert_eq!(difference.added, ["d"]);
    assert_eq!(difference.changed, ["a"]);
    assert_eq!(difference.removed, ["b"]);
    assert_eq!(difference.live, ["tracker", "health"]);
    assert_eq!(difference.restart, ["embedder", "runtime", "gallery"]);
    assert!(!format!("{difference:?}").contains("two"));
}

#[test]
fn new_keys_have_their_defaults_and_values() {
    let config = EdgeConfig::parse(MINIMAL, Path::new("site/edge.toml")).unwrap();
    assert_eq!((config.detector.batch, config.embedder.batch), (1, 16));
    assert_eq!(config.detector.precision, Precision::Fp32);
    assert!(config.crops.cut_off && config.serve.control);
    assert_eq!(config.cameras[0].decoder, Decoder::Auto);
    for (source, live) in [
        ("http://cam/video", true),
        ("v4l2:/dev/video0", true),
        ("csi:0", true),
        ("a.mp4", false),
    ] {
        let config = EdgeConfig::parse(&MINIMAL.replace("a.mp4", source), Path::new("edge.toml"));
        assert_eq!(config.unwrap().cameras[0].is_live(), live, "{source}");
    }
}

#[test]
fn the_explanation_names_ranges_and_words() {
    let text = explain::text();
    for wanted in [
        "a number above 0, at most 240 (default: all frames)",
        "`auto`, `software` or `hardware` (default: \"auto\")",
        "[[camera]]",
        "[runtime]",
        "[health]",
        "[log]",
    ] {
        assert!(text.contains(wanted), "{wanted}");
    }
}
