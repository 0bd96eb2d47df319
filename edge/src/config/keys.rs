//! Every key of `edge.toml` in one table: its type, its range, its default and what it does.
//!
//! The file is checked against it, `reid-edge config --explain` prints it, and tests hold it equal to the structures that
//! read the file.

/// What a key may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Path, relative to the file's folder; `${NAME}` stands for an environment variable.
    Path,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Several of these words, at least one.
    Words(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// Integer, both ends included.
    Whole(i64, i64),
    /// Integers, at least one.
    Wholes(i64, i64),
    /// Number, both ends included.
    Number(f64, f64),
    /// Number above the first and at most the second.
    Above(f64, f64),
    /// Polygons: lists of at least three points, each two numbers 0 to 1.
    Polygons,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Table it stands in.
    pub section: &'static str,
    /// Name.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// A value as it may be written.
    pub example: &'static str,
    /// What holds if it is absent.
    pub default: &'static str,
    /// What it does, with its unit.
    pub text: &'static str,
}

/// Sections that may be repeated.
pub const REPEATED: [&str; 2] = ["camera", "associate.travel"];

/// Default of a key that must be there.
pub const REQUIRED: &str = "required";

use Kind::{Above, Flag, Number, Path, Polygons, Text, Whole, Wholes, Word, Words};

/// Any number from 0 on.
const FROM_ZERO: Kind = Number(0.0, f64::INFINITY);
const UNIT: Kind = Number(0.0, 1.0);
const COSINE: Kind = Number(-1.0, 1.0);
const BACKENDS: Kind = Word(&["auto", "tract", "onnxruntime"]);
const PROVIDERS: Kind = Words(&["tensorrt", "cuda", "cpu"]);
const PRECISIONS: Kind = Word(&["fp32", "fp16", "int8"]);

/// `name kind "default" "text"`, or `name kind "default" as in "example" "text"` where the default cannot be written.
macro_rules! keys {
    (@example $default:literal) => { $default };
    (@example $default:literal $example:literal) => { $example };
    ($([$section:literal] $($name:ident: $kind:expr => $default:literal $(e.g. $example:literal)?, $text:literal;)*)*) => {
        /// All keys, sections together.
        pub const KEYS: &[Key] = &[$($(Key {
            section: $section,
            name: stringify!($name),
            kind: $kind,
            example: keys!(@example $default $($example)?),
            default: $default,
            text: $text,
        },)*)*];
    };
}

keys! {
["camera"]
name: Text => "required" e.g. "\"entrance\"", "unique; names files and events: letters, digits, - _ .";
source: Text => "required" e.g. "\"rtsp://camera/stream\"", "rtsp:// rtsps:// http:// or https:// address, file:PATH or a path, v4l2:/dev/video0, csi:0 (sensor of a Jetson), or pipeline:ELEMENTS (GStreamer elements that end in raw video); ${NAME} stands for an environment variable";
user: Text => "none" e.g. "\"viewer\"", "user of the RTSP or HTTP source; wins over the one in the address; ${NAME} stands for an environment variable";
password_file: Path => "none" e.g. "\"entrance.password\"", "file whose first line is the password; never logged";
real_time: Flag => "true in run" e.g. "true", "files in run: false analyses every frame, as fast as possible, true keeps to the recorded speed (replay and harvest: always every frame); pipeline: false says that it plays a recording and ends, else it is opened again";
loop: Flag => "false", "files in run: start again at the end";
fps: Above(0.0, 240.0) => "all frames" e.g. "10.0", "at most so many analysed frames per second";
transport: Word(&["tcp", "udp"]) => "\"tcp\"", "how RTSP media travels: within the control connection, or as datagrams";
latency_secs: Number(0.0, 60.0) => "0.2", "RTSP jitter buffer, seconds";
stall_secs: Number(0.5, 3600.0) => "5.0", "a live source silent for so many seconds is opened anew";
backoff_max_secs: Number(0.5, 3600.0) => "30.0", "longest wait between attempts to open a live source, seconds; the first is 0.5 and doubles";
decoder: Word(&["auto", "software", "hardware"]) => "\"auto\"", "what decodes: auto takes hardware where there is some; with hardware the camera opens on nothing else";
clock: Word(&["auto", "arrival"]) => "\"auto\"", "whose clock dates the frames: auto the camera's where it tells it (RTCP), arrival this machine's when they arrive";
masks: Polygons => "[]" e.g. "[[[0.0, 0.0], [0.3, 0.0], [0.0, 0.4]]]", "people whose feet are inside one of these polygons are ignored: at least three points [x, y] each, fractions of the frame's width and height";
min_height: Number(4.0, 4096.0) => "detector.min_height" e.g. "40.0", "smaller people are not reported, pixels of this camera's frame";
["detector"]
kind: Word(&["motion", "onnx"]) => "\"motion\"", "motion is background subtraction for static cameras, no model; onnx is a model";
model: Path => "none" e.g. "\"yolox_nano_416.onnx\"", "kind = \"onnx\": ONNX file with a card (reid-export adopt FILE --task detect --decode yolox)";
classes: Wholes(0, 100_000) => "the card's" e.g. "[0]", "class numbers of the model that count as people";
score: UNIT => "0.3", "weaker detections are dropped";
nms: UNIT => "0.45", "of two boxes overlapping by more than this IoU the weaker is dropped";
min_height: Number(4.0, 4096.0) => "40.0", "smaller people are not reported, pixels of the frame; a camera's own min_height wins";
absorb_secs: Number(1.0, 86_400.0) => "60.0", "motion: who stands still becomes background after so many seconds";
backend: BACKENDS => "\"auto\"", "engine: auto is ONNX Runtime if its library is found, else tract";
library: Path => "searched for" e.g. "\"libonnxruntime.so\"", "ONNX Runtime's shared library, or its folder";
providers: PROVIDERS => "[\"cpu\"]", "execution providers of ONNX Runtime, most wanted first";
fallback: Flag => "false", "whether a provider that does not start may be passed over (reported)";
threads: Whole(1, 256) => "1", "threads of one session";
sessions: Whole(0, 64) => "0", "sessions of the model that work side by side; 0 is as many as processor cores, one on a GPU";
batch: Whole(1, 64) => "1", "most frames of different cameras analysed together";
precision: PRECISIONS => "\"fp32\"", "TensorRT: numbers it may calculate with";
calibration: Path => "none" e.g. "\"detector.calibration\"", "TensorRT: calibration table of precision = \"int8\"";
device: Whole(0, 63) => "0", "number of the GPU";
["tracker"]
high: UNIT => "0.5", "detections from this score on are matched first";
low: UNIT => "0.1", "detections from this score on may continue a tracklet, not above high";
new: UNIT => "0.65", "detections from this score on may start a tracklet";
match_iou: UNIT => "0.2", "least overlap (IoU) of a detection with a predicted box";
confirm_hits: Whole(1, 1000) => "2", "a tracklet is reported after so many detections";
lost_secs: Number(0.0, 600.0) => "2.0", "a tracklet unseen for so many seconds ends";
["crops"]
min_height: Number(8.0, 4096.0) => "48.0", "smaller people are not embedded, pixels";
max_overlap: UNIT => "0.35", "who is behind others by more than this share is not embedded";
min_sharpness: Number(0.0, 1e6) => "4.0", "least variance of the Laplacian (8-bit grey, 128 x 64)";
cut_off: Flag => "true", "people cut off by the frame's left or right edge are not embedded";
burst: Whole(0, 1_000_000) => "6", "so many crops of a tracklet are taken quickly";
burst_per_sec: Number(0.01, 240.0) => "5.0", "how quickly, crops per second";
every_secs: Number(0.0, 3600.0) => "0.5", "afterwards one crop every so many seconds";
max_per_tracklet: Whole(1, 1_000_000) => "200", "most crops of a tracklet";
["embedder"]
kind: Word(&["onnx", "histogram"]) => "\"onnx\"", "onnx is a model, histogram the baseline: colour histograms in stripes, no model";
model: Path => "none" e.g. "\"model.onnx\"", "kind = \"onnx\": ONNX file with a card";
backend: BACKENDS => "\"auto\"", "engine: auto is ONNX Runtime if its library is found, else tract";
library: Path => "searched for" e.g. "\"libonnxruntime.so\"", "ONNX Runtime's shared library, or its folder";
providers: PROVIDERS => "[\"cpu\"]", "execution providers of ONNX Runtime, most wanted first";
fallback: Flag => "false", "whether a provider that does not start may be passed over (reported)";
threads: Whole(1, 256) => "1", "threads of one session";
sessions: Whole(0, 64) => "0", "sessions of the model that work side by side; 0 is as many as processor cores, one on a GPU";
batch: Whole(1, 256) => "16", "most crops embedded together";
wait_secs: UNIT => "0.02", "longest wait for a batch to fill, seconds";
precision: PRECISIONS => "\"fp32\"", "TensorRT: numbers it may calculate with";
calibration: Path => "none" e.g. "\"embedder.calibration\"", "TensorRT: calibration table of precision = \"int8\"";
device: Whole(0, 63) => "0", "number of the GPU";
["runtime"]
cache: Path => "none" e.g. "\"cache\"", "folder where built engines, timing caches and optimised models are kept from one start to the next";
["associate"]
match: COSINE => "calibrated on the site; until then the model card's" e.g. "0.6", "at least this similar (cosine) to be recognised";
margin: UNIT => "calibrated on the site; until then the model card's" e.g. "0.05", "at least this far ahead of the next best identity";
mint: COSINE => "calibrated on the site; until then the model card's" e.g. "0.5", "at most this similar to everyone to become a new identity, not above match";
enrich: COSINE => "calibrated on the site; until then the model card's" e.g. "0.7", "at least this similar to become a reference of the identity, not below match";
calibrate: Flag => "true", "learn absent thresholds from the cameras' own footage";
far: Above(0.0, 0.5) => "0.01", "share of different people that learned thresholds may take for the same";
min_crops: Whole(1, 1_000_000) => "5", "good looks needed before anything is claimed";
min_secs: FROM_ZERO => "1.0", "seconds of being seen needed before anything is claimed";
requery_secs: FROM_ZERO => "0.5", "seconds between two queries for a tracklet that lives on";
ambiguous_secs: FROM_ZERO => "4.0", "after so many seconds a tracklet that resembles somebody, though not enough, is a new identity";
temporal_parts: Whole(1, 4) => "1", "parts in time into which a tracklet is split to compare beginnings with beginnings, ends with ends";
overlapping: Flag => "false", "whether two cameras can see the same spot; if not, nobody is in two of them at once";
min_travel_secs: FROM_ZERO => "0.0", "seconds that a change of camera takes at least";
["associate.travel"]
from: Text => "required" e.g. "\"entrance\"", "name of a camera";
to: Text => "required" e.g. "\"exit\"", "name of another camera";
min_secs: FROM_ZERO => "required" e.g. "4.0", "seconds that the way between them takes at least, in both directions";
["gallery"]
path: Path => "\"gallery.db\"", "SQLite file; \":memory:\" keeps nothing";
max_prototypes: Whole(1, 64) => "8", "reference embeddings kept per identity";
exact_below: Whole(0, 1_000_000_000) => "2000", "up to this many references every search looks at all of them, above at the HNSW graph";
["serve"]
enabled: Flag => "true", "whether there is a live page";
listen: Text => "\"127.0.0.1:8080\"", "address and port of the page; anything but loopback needs token_file";
token_file: Path => "none" e.g. "\"page.token\"", "file with the secret a visitor must show";
control: Flag => "true", "whether cameras may be added, changed and removed through the page's address, by those who may see it";
["events"]
file: Path => "standard output" e.g. "\"events.jsonl\"", "JSON lines are appended to it";
["health"]
clock_offset_secs: Number(0.0, 3600.0) => "2.0", "a camera whose clock is farther from this machine's, seconds, is reported unhealthy";
min_fps: Number(0.0, 240.0) => "0.0", "a camera analysed more slowly, frames per second, is reported degraded; 0 never";
hung_secs: Number(1.0, 3600.0) => "30.0", "no progress for so many seconds while frames arrive is reported unhealthy";
["log"]
format: Word(&["text", "json"]) => "\"text\"", "log lines on standard error for people, or one JSON object each";
}

impl Kind {
    /// What may be written, in words; empty for text.
    pub fn allowed(&self) -> String {
        match self {
            Text => String::new(),
            Path => "a path".into(),
            Word(words) => one_of(words),
            Words(words) => format!("a list of {}", one_of(words)),
            Flag => "true or false".into(),
            Whole(low, high) => format!("a whole number, {low} to {high}"),
            Wholes(low, high) => format!("a list of whole numbers, {low} to {high}"),
            Number(low, high) if *high == f64::INFINITY => format!("a number, {low} or more"),
            Number(low, high) => format!("a number, {low} to {high}"),
            Above(low, high) => format!("a number above {low}, at most {high}"),
            Polygons => {
                "a list of polygons, each a list of at least three points [x, y] of numbers 0 to 1"
                    .into()
            }
        }
    }

    /// Type in one word, for machines.
    pub fn type_name(&self) -> &'static str {
        match self {
            Text | Word(_) => "string",
            Path => "path",
            Flag => "boolean",
            Whole(..) => "integer",
            Number(..) | Above(..) => "float",
            Words(_) | Wholes(..) | Polygons => "list",
        }
    }

    /// The words to choose from; none for other kinds.
    pub fn words(&self) -> &'static [&'static str] {
        match self {
            Word(words) | Words(words) => words,
            _ => &[],
        }
    }
}

/// "`a`, `b` or `c`".
fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}
