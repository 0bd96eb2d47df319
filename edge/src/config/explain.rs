//! Every key of `edge.toml`, in one table. A test holds it against the structures that read the file.

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Table it stands in.
    pub section: &'static str,
    /// Name.
    pub name: &'static str,
    /// A value as it may be written.
    pub example: &'static str,
    /// What holds if it is absent.
    pub default: &'static str,
    /// What it does, with unit and range.
    pub text: &'static str,
}

const fn key(
    section: &'static str,
    name: &'static str,
    example: &'static str,
    default: &'static str,
    text: &'static str,
) -> Key {
    Key {
        section,
        name,
        example,
        default,
        text,
    }
}

/// Sections that may be repeated.
const REPEATED: [&str; 2] = ["camera", "associate.travel"];

/// All keys, sections together.
pub const KEYS: &[Key] = &[
    key(
        "camera",
        "name",
        "\"entrance\"",
        "required",
        "unique; names files and events: letters, digits, - _ .",
    ),
    key(
        "camera",
        "source",
        "\"rtsp://camera/stream\"",
        "required",
        "rtsp:// or rtsps:// address, file:PATH or a path, or pipeline:ELEMENTS (GStreamer elements that end in raw video); ${NAME} stands for an environment variable",
    ),
    key(
        "camera",
        "user",
        "\"viewer\"",
        "none",
        "RTSP user; wins over the one in the address",
    ),
    key(
        "camera",
        "password_file",
        "\"entrance.password\"",
        "none",
        "file whose first line is the RTSP password; never logged",
    ),
    key(
        "camera",
        "real_time",
        "true",
        "true in run",
        "files in run: false analyses every frame, as fast as possible, true keeps to the recorded speed (replay and harvest: always every frame); pipeline: false says that it plays a recording and ends, else it is opened again",
    ),
    key(
        "camera",
        "loop",
        "false",
        "false",
        "files in run: start again at the end",
    ),
    key(
        "camera",
        "fps",
        "10.0",
        "all frames",
        "at most so many analysed frames per second, above 0 to 240",
    ),
    key(
        "camera",
        "transport",
        "\"tcp\"",
        "\"tcp\"",
        "RTSP media over tcp or udp",
    ),
    key(
        "camera",
        "latency_secs",
        "0.2",
        "0.2",
        "RTSP jitter buffer, seconds, 0 to 60",
    ),
    key(
        "camera",
        "stall_secs",
        "5.0",
        "5.0",
        "a live source silent for so many seconds is opened anew, 0.5 to 3600",
    ),
    key(
        "camera",
        "backoff_max_secs",
        "30.0",
        "30.0",
        "longest wait between attempts to open a live source, seconds, 0.5 to 3600; the first is 0.5 and doubles",
    ),
    key(
        "detector",
        "kind",
        "\"motion\"",
        "\"motion\"",
        "motion (background subtraction, static cameras, no model) or onnx",
    ),
    key(
        "detector",
        "model",
        "\"yolox_nano_416.onnx\"",
        "none",
        "kind = \"onnx\": ONNX file with a card (reid-export adopt FILE --task detect --decode yolox)",
    ),
    key(
        "detector",
        "score",
        "0.3",
        "0.3",
        "weaker detections are dropped, 0 to 1",
    ),
    key(
        "detector",
        "nms",
        "0.45",
        "0.45",
        "of two boxes overlapping by more than this IoU the weaker is dropped, 0 to 1",
    ),
    key(
        "detector",
        "min_height",
        "40.0",
        "40.0",
        "smaller people are not reported, pixels of the frame, 4 to 4096",
    ),
    key(
        "detector",
        "absorb_secs",
        "60.0",
        "60.0",
        "motion: who stands still becomes background after so many seconds, 1 to 86400",
    ),
    key(
        "detector",
        "backend",
        "\"auto\"",
        "\"auto\"",
        "auto (ONNX Runtime if its library is found, else tract), tract, onnxruntime",
    ),
    key(
        "detector",
        "library",
        "\"libonnxruntime.so\"",
        "searched for",
        "ONNX Runtime's shared library, or its folder",
    ),
    key(
        "detector",
        "providers",
        "[\"cpu\"]",
        "[\"cpu\"]",
        "execution providers of ONNX Runtime, most wanted first: tensorrt, cuda, cpu",
    ),
    key(
        "detector",
        "fallback",
        "false",
        "false",
        "whether a provider that does not start may be passed over (reported)",
    ),
    key(
        "detector",
        "threads",
        "1",
        "1",
        "threads of one session, 1 to 256",
    ),
    key(
        "tracker",
        "high",
        "0.5",
        "0.5",
        "detections from this score on are matched first, 0 to 1",
    ),
    key(
        "tracker",
        "low",
        "0.1",
        "0.1",
        "detections from this score on may continue a tracklet, 0 to high",
    ),
    key(
        "tracker",
        "new",
        "0.5",
        "0.5",
        "detections from this score on may start a tracklet, 0 to 1",
    ),
    key(
        "tracker",
        "match_iou",
        "0.2",
        "0.2",
        "least overlap (IoU) of a detection with a predicted box, 0 to 1",
    ),
    key(
        "tracker",
        "confirm_hits",
        "3",
        "3",
        "a tracklet is reported after so many detections, 1 to 1000",
    ),
    key(
        "tracker",
        "lost_secs",
        "2.0",
        "2.0",
        "a tracklet unseen for so many seconds ends, 0 to 600",
    ),
    key(
        "crops",
        "min_height",
        "48.0",
        "48.0",
        "smaller people are not embedded, pixels, 8 to 4096",
    ),
    key(
        "crops",
        "max_overlap",
        "0.35",
        "0.35",
        "who is behind others by more than this share is not embedded, 0 to 1",
    ),
    key(
        "crops",
        "min_sharpness",
        "4.0",
        "4.0",
        "least variance of the Laplacian (8-bit grey, 128 x 64), 0 to 1000000",
    ),
    key(
        "crops",
        "burst",
        "6",
        "6",
        "so many crops of a tracklet are taken quickly",
    ),
    key(
        "crops",
        "burst_per_sec",
        "5.0",
        "5.0",
        "how quickly, crops per second, 0.01 to 240",
    ),
    key(
        "crops",
        "every_secs",
        "0.5",
        "0.5",
        "afterwards one crop every so many seconds, 0 to 3600",
    ),
    key(
        "crops",
        "max_per_tracklet",
        "200",
        "200",
        "most crops of a tracklet, 1 to 1000000",
    ),
    key(
        "embedder",
        "kind",
        "\"onnx\"",
        "\"onnx\"",
        "onnx, or histogram (colour histogram in stripes: the baseline, no model)",
    ),
    key(
        "embedder",
        "model",
        "\"model.onnx\"",
        "none",
        "kind = \"onnx\": ONNX file with a card",
    ),
    key(
        "embedder",
        "backend",
        "\"auto\"",
        "\"auto\"",
        "auto (ONNX Runtime if its library is found, else tract), tract, onnxruntime",
    ),
    key(
        "embedder",
        "library",
        "\"libonnxruntime.so\"",
        "searched for",
        "ONNX Runtime's shared library, or its folder",
    ),
    key(
        "embedder",
        "providers",
        "[\"cpu\"]",
        "[\"cpu\"]",
        "execution providers of ONNX Runtime, most wanted first: tensorrt, cuda, cpu",
    ),
    key(
        "embedder",
        "fallback",
        "false",
        "false",
        "whether a provider that does not start may be passed over (reported)",
    ),
    key(
        "embedder",
        "threads",
        "1",
        "1",
        "threads of one session, 1 to 256",
    ),
    key(
        "associate",
        "match",
        "0.6",
        "calibrated on the site; until then the model card's",
        "at least this similar to be recognised, cosine, -1 to 1",
    ),
    key(
        "associate",
        "margin",
        "0.05",
        "calibrated on the site; until then the model card's",
        "at least this far ahead of the next best identity, 0 to 1",
    ),
    key(
        "associate",
        "mint",
        "0.5",
        "calibrated on the site; until then the model card's",
        "at most this similar to everyone to become a new identity, -1 to match",
    ),
    key(
        "associate",
        "enrich",
        "0.7",
        "calibrated on the site; until then the model card's",
        "at least this similar to become a reference of the identity, match to 1",
    ),
    key(
        "associate",
        "calibrate",
        "true",
        "true",
        "learn absent thresholds from the cameras' own footage",
    ),
    key(
        "associate",
        "far",
        "0.01",
        "0.01",
        "share of different people that learned thresholds may take for the same, above 0 to 0.5",
    ),
    key(
        "associate",
        "min_crops",
        "5",
        "5",
        "good looks needed before anything is claimed, at least 1",
    ),
    key(
        "associate",
        "min_secs",
        "1.0",
        "1.0",
        "seconds of being seen needed before anything is claimed",
    ),
    key(
        "associate",
        "requery_secs",
        "0.5",
        "0.5",
        "seconds between two queries for a tracklet that lives on",
    ),
    key(
        "associate",
        "ambiguous_secs",
        "4.0",
        "4.0",
        "after so many seconds a tracklet that resembles somebody, though not enough, is a new identity",
    ),
    key(
        "associate",
        "overlapping",
        "false",
        "false",
        "whether two cameras can see the same spot; if not, nobody is in two of them at once",
    ),
    key(
        "associate",
        "min_travel_secs",
        "0.0",
        "0.0",
        "seconds that a change of camera takes at least",
    ),
    key(
        "associate.travel",
        "from",
        "\"entrance\"",
        "required",
        "name of a camera",
    ),
    key(
        "associate.travel",
        "to",
        "\"exit\"",
        "required",
        "name of another camera",
    ),
    key(
        "associate.travel",
        "min_secs",
        "4.0",
        "required",
        "seconds that the way between them takes at least, in both directions",
    ),
    key(
        "gallery",
        "path",
        "\"gallery.db\"",
        "\"gallery.db\"",
        "SQLite file; \":memory:\" keeps nothing",
    ),
    key(
        "gallery",
        "max_prototypes",
        "8",
        "8",
        "reference embeddings kept per identity, 1 to 64",
    ),
    key(
        "gallery",
        "exact_below",
        "2000",
        "2000",
        "up to this many references every search looks at all of them, above at the HNSW graph",
    ),
    key(
        "serve",
        "enabled",
        "true",
        "true",
        "whether there is a live page",
    ),
    key(
        "serve",
        "listen",
        "\"127.0.0.1:8080\"",
        "\"127.0.0.1:8080\"",
        "address and port of the page; anything but loopback needs token_file",
    ),
    key(
        "serve",
        "token_file",
        "\"page.token\"",
        "none",
        "file with the secret a visitor must show",
    ),
    key(
        "events",
        "file",
        "\"events.jsonl\"",
        "standard output",
        "JSON lines are appended to it",
    ),
];

/// The table as a commented `edge.toml`: keys that are required stand free, the others behind `#`.
pub fn text() -> String {
    let mut out = String::from(
        "# edge.toml: every key. What is commented out shows an example; the default is named beside it.\n# Paths are relative to the folder of this file; unknown keys are refused.\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            let (open, close) = if REPEATED.contains(&section) {
                ("[[", "]]")
            } else {
                ("[", "]")
            };
            let hidden = if section == "associate.travel" {
                "# "
            } else {
                ""
            };
            out.push_str(&format!("\n{hidden}{open}{section}{close}\n"));
        }
        let free = key.default == "required" && section != "associate.travel";
        out.push_str(&format!(
            "# {} (default: {})\n{}{} = {}\n",
            key.text,
            key.default,
            if free { "" } else { "# " },
            key.name,
            key.example
        ));
    }
    out
}

/// The table for machines.
pub fn json() -> serde_json::Value {
    KEYS.iter()
        .map(|k| {
            serde_json::json!({
                "section": k.section,
                "key": k.name,
                "example": k.example,
                "default": k.default,
                "text": k.text,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::config::EdgeConfig;
    use crate::config::error::quoted;

    fn sections() -> BTreeMap<&'static str, BTreeSet<String>> {
        let mut map: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for k in KEYS {
            assert!(
                map.entry(k.section).or_default().insert(k.name.to_owned()),
                "{} twice",
                k.name
            );
        }
        map
    }

    /// Every key with its example.
    fn complete() -> String {
        let mut out = String::new();
        let mut section = "";
        for k in KEYS {
            if k.section != section {
                section = k.section;
                let repeated = REPEATED.contains(&section);
                out.push_str(&if repeated {
                    format!("[[{section}]]\n")
                } else {
                    format!("[{section}]\n")
                });
            }
            out.push_str(&format!("{} = {}\n", k.name, k.example));
        }
        out
    }

    #[test]
    fn the_table_is_what_the_structures_read() {
        toml::from_str::<EdgeConfig>(&complete()).unwrap();
        toml::from_str::<EdgeConfig>(&text()).unwrap();
        for (section, documented) in sections() {
            let header = if REPEATED.contains(&section) {
                format!("[[{section}]]\n")
            } else {
                format!("[{section}]\n")
            };
            let text = complete().replacen(&header, &format!("{header}no_such_key = 1\n"), 1);
            let error = toml::from_str::<EdgeConfig>(&text).unwrap_err();
            let message = error.message();
            assert!(
                message.contains("no_such_key"),
                "[{section}] takes unknown keys: {message}"
            );
            let known: BTreeSet<String> = quoted(message.split("expected").nth(1).unwrap())
                .into_iter()
                .filter(|k| *k != "travel")
                .collect();
            assert_eq!(known, documented, "[{section}]");
        }
    }

    #[test]
    fn documented_defaults_are_the_real_ones() {
        // What the table calls the default, written out, must change nothing.
        let minimal =
            "[[camera]]\nname = \"a\"\nsource = \"b\"\n[embedder]\nkind = \"histogram\"\n";
        let bare = toml::from_str::<EdgeConfig>(minimal).unwrap();
        let mut written = String::from("[[camera]]\nname = \"a\"\nsource = \"b\"\n");
        let mut section = "camera";
        for k in KEYS.iter().filter(|k| k.section != "associate.travel") {
            if k.section != section {
                section = k.section;
                written.push_str(&format!("[{section}]\n"));
            }
            let is_value = toml::from_str::<toml::Table>(&format!("v = {}", k.default)).is_ok();
            if (section, k.name) == ("embedder", "kind") {
                // Without a model only the baseline is complete.
                written.push_str("kind = \"histogram\"\n");
            } else if is_value {
                written.push_str(&format!("{} = {}\n", k.name, k.default));
            }
        }
        let explicit = toml::from_str::<EdgeConfig>(&written).unwrap();
        assert_eq!(format!("{bare:?}"), format!("{explicit:?}"));
    }
}
