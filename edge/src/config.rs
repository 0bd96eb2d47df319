//! `edge.toml`: one file, every key checked before a camera is opened.
//!
//! Unknown keys and misspelt values are refused; an error names file, line, key, value and what to write instead.
//! Paths are relative to the file's own folder. `reid-edge config --explain` prints [`explain::KEYS`].

pub mod error;
pub mod explain;
pub mod source;

use std::path::{Path, PathBuf};

use reid_models::runtime::{Backend, Provider, RuntimeConfig};
use serde::Deserialize;

pub use error::ConfigError;
pub use source::{Secret, Source};

use crate::associate::{AssociateConfig, AssociateError};
use crate::events::EventsConfig;
use crate::gallery::GalleryConfig;
use crate::serve::ServeConfig;

/// Everything `reid-edge` is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeConfig {
    /// Cameras; [`crate::types::CameraIndex`] is the position here.
    #[serde(rename = "camera")]
    pub cameras: Vec<CameraConfig>,
    /// How people are found.
    #[serde(default)]
    pub detector: DetectorConfig,
    /// How they are followed within a camera.
    #[serde(default)]
    pub tracker: TrackerConfig,
    /// Which crops count.
    #[serde(default)]
    pub crops: CropsConfig,
    /// How a crop becomes a vector.
    pub embedder: EmbedderConfig,
    /// How vectors become identities.
    #[serde(default)]
    pub associate: AssociateConfig,
    /// Where identities are kept.
    #[serde(default)]
    pub gallery: GalleryConfig,
    /// The live page.
    #[serde(default)]
    pub serve: ServeConfig,
    /// Where events go.
    #[serde(default)]
    pub events: EventsConfig,
    /// The file this was read from.
    #[serde(skip)]
    pub file: PathBuf,
    /// Folder that relative paths start from.
    #[serde(skip)]
    pub base: PathBuf,
}

/// One camera.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraConfig {
    /// Unique; names files, events and metrics.
    pub name: String,
    /// As written; after [`EdgeConfig::load`] without credentials.
    source: String,
    /// RTSP user.
    #[serde(default)]
    user: Option<String>,
    /// File whose first line is the RTSP password.
    #[serde(default)]
    password_file: Option<PathBuf>,
    /// Files: play at the recorded speed. `None`: `run` does, `replay` and `harvest` do not. A `pipeline:` is taken for a
    /// camera, unless `false` says that it plays a recording.
    #[serde(default)]
    pub real_time: Option<bool>,
    /// Files in `run`: start again at the end.
    #[serde(default, rename = "loop")]
    pub looped: bool,
    /// At most so many analysed frames per second; all if absent.
    #[serde(default)]
    pub fps: Option<f64>,
    /// RTSP transport.
    #[serde(default)]
    pub transport: Transport,
    /// RTSP jitter buffer, seconds.
    #[serde(default = "default_latency_secs")]
    pub latency_secs: f64,
    /// A live source without a frame for so many seconds is stalled and is opened anew.
    #[serde(default = "default_stall_secs")]
    pub stall_secs: f64,
    /// Longest wait between two attempts to open a live source, seconds; the first wait is 0.5 s and doubles.
    #[serde(default = "default_backoff_max_secs")]
    pub backoff_max_secs: f64,
    #[serde(skip)]
    resolved: Source,
}

fn default_latency_secs() -> f64 {
    0.2
}
fn default_stall_secs() -> f64 {
    5.0
}
fn default_backoff_max_secs() -> f64 {
    30.0
}

impl CameraConfig {
    /// Whether it never ends by itself: lost, it is opened again.
    pub fn is_live(&self) -> bool {
        match self.source() {
            Source::File(_) => false,
            Source::Rtsp { .. } => true,
            Source::Pipeline(_) => self.real_time != Some(false),
        }
    }

    /// Where the pictures come from, credentials resolved (and hidden from `Debug`).
    pub fn source(&self) -> &Source {
        &self.resolved
    }
}

/// How RTSP media travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Interleaved in the control connection: passes firewalls, loses nothing.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// Kind of detector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetectorKind {
    /// Adaptive background subtraction: static cameras, no model.
    #[default]
    Motion,
    /// An ONNX file whose card says `task = detect`.
    Onnx,
}

/// `[detector]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectorConfig {
    /// Motion or a model.
    pub kind: DetectorKind,
    /// ONNX file.
    pub model: Option<PathBuf>,
    /// Detections below are dropped, 0..1.
    pub score: f32,
    /// Of two boxes overlapping by more than this IoU, the weaker is dropped.
    pub nms: f32,
    /// Smaller people are not reported, pixels of the frame.
    pub min_height: f32,
    /// Motion: a person who stands still becomes background after so many seconds.
    pub absorb_secs: f64,
    /// Engine.
    pub backend: Backend,
    /// ONNX Runtime's shared library.
    pub library: Option<PathBuf>,
    /// Execution providers of ONNX Runtime, most wanted first.
    pub providers: Vec<Provider>,
    /// Whether a provider that does not start may be replaced by the next one.
    pub fallback: bool,
    /// Threads of one session.
    pub threads: usize,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        let runtime = RuntimeConfig::default();
        DetectorConfig {
            kind: DetectorKind::Motion,
            model: None,
            score: 0.3,
            nms: 0.45,
            min_height: 40.0,
            absorb_secs: 60.0,
            backend: runtime.backend,
            library: runtime.library,
            providers: runtime.providers,
            fallback: runtime.fallback,
            threads: runtime.threads,
        }
    }
}

impl DetectorConfig {
    /// What the runtime is told.
    pub fn runtime(&self) -> RuntimeConfig {
        RuntimeConfig {
            backend: self.backend,
            library: self.library.clone(),
            providers: self.providers.clone(),
            fallback: self.fallback,
            threads: self.threads,
        }
    }
}

/// `[tracker]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackerConfig {
    /// Detections from this score on are matched first, 0..1.
    pub high: f32,
    /// Detections from this score on may continue a tracklet, 0..1.
    pub low: f32,
    /// Detections from this score on may start a tracklet, 0..1.
    pub new: f32,
    /// Least overlap (IoU) of a detection and a predicted box.
    pub match_iou: f32,
    /// A tracklet is reported after so many detections.
    pub confirm_hits: u32,
    /// A tracklet unseen for so many seconds ends.
    pub lost_secs: f64,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        TrackerConfig {
            high: 0.5,
            low: 0.1,
            new: 0.5,
            match_iou: 0.2,
            confirm_hits: 3,
            lost_secs: 2.0,
        }
    }
}

/// `[crops]`: which looks at a person are embedded.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CropsConfig {
    /// Smaller people are not embedded, pixels.
    pub min_height: f32,
    /// A crop covered by people in front by more than this share is not embedded, 0..1.
    pub max_overlap: f32,
    /// Variance of the Laplacian (8-bit grey, crop at 64 pixels wide) below which a crop is too blurred.
    pub min_sharpness: f32,
    /// So many crops of a tracklet are taken quickly, ...
    pub burst: u32,
    /// ... at most so many per second, ...
    pub burst_per_sec: f64,
    /// ... then one every so many seconds, ...
    pub every_secs: f64,
    /// ... and no more than this in all.
    pub max_per_tracklet: u32,
}

impl Default for CropsConfig {
    fn default() -> Self {
        CropsConfig {
            min_height: 48.0,
            max_overlap: 0.35,
            min_sharpness: 4.0,
            burst: 6,
            burst_per_sec: 5.0,
            every_secs: 0.5,
            max_per_tracklet: 200,
        }
    }
}

/// Kind of embedder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmbedderKind {
    /// An ONNX file whose card says `task = embed`.
    #[default]
    Onnx,
    /// Colour histograms in horizontal stripes: the baseline, no model.
    Histogram,
}

/// `[embedder]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedderConfig {
    /// Model or baseline.
    #[serde(default)]
    pub kind: EmbedderKind,
    /// ONNX file.
    #[serde(default)]
    pub model: Option<PathBuf>,
    /// Engine.
    #[serde(default = "default_backend")]
    pub backend: Backend,
    /// ONNX Runtime's shared library.
    #[serde(default)]
    pub library: Option<PathBuf>,
    /// Execution providers of ONNX Runtime, most wanted first.
    #[serde(default = "default_providers")]
    pub providers: Vec<Provider>,
    /// Whether a provider that does not start may be replaced by the next one.
    #[serde(default)]
    pub fallback: bool,
    /// Threads of one session.
    #[serde(default = "default_threads")]
    pub threads: usize,
}

fn default_backend() -> Backend {
    RuntimeConfig::default().backend
}
fn default_providers() -> Vec<Provider> {
    RuntimeConfig::default().providers
}
fn default_threads() -> usize {
    RuntimeConfig::default().threads
}

impl EmbedderConfig {
    /// What the runtime is told.
    pub fn runtime(&self) -> RuntimeConfig {
        RuntimeConfig {
            backend: self.backend,
            library: self.library.clone(),
            providers: self.providers.clone(),
            fallback: self.fallback,
            threads: self.threads,
        }
    }
}

impl EdgeConfig {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// [`ConfigError`] naming file, key, value and remedy; the program exits with code 2.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            file: path.to_path_buf(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// As [`EdgeConfig::load`], from text; `path` is named in errors and its folder is the base of relative paths.
    ///
    /// # Errors
    /// As [`EdgeConfig::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: EdgeConfig =
            toml::from_str(text).map_err(|e| ConfigError::from_toml(path, text, &e))?;
        config.file = path.to_path_buf();
        config.base = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        };
        config.resolve_paths();
        config.resolve_cameras()?;
        config.check()?;
        match config.associate.check(&config.camera_names()) {
            Ok(()) => Ok(config),
            Err(AssociateError::Config { key, value, remedy }) => Err(ConfigError::value(
                path,
                &format!("associate.{key}"),
                value,
                remedy,
            )),
            Err(other) => Err(ConfigError::value(
                path,
                "associate",
                "this table".into(),
                other.to_string(),
            )),
        }
    }

    /// Names of the cameras, by index.
    pub fn camera_names(&self) -> Vec<String> {
        self.cameras.iter().map(|c| c.name.clone()).collect()
    }

    /// `path` seen from the configuration's folder.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    fn resolve_paths(&mut self) {
        let base = self.base.clone();
        let slots = [
            &mut self.detector.model,
            &mut self.detector.library,
            &mut self.embedder.model,
            &mut self.embedder.library,
        ];
        for slot in slots.into_iter().flatten() {
            *slot = base.join(&*slot);
        }
    }

    fn resolve_cameras(&mut self) -> Result<(), ConfigError> {
        let (file, base) = (self.file.clone(), self.base.clone());
        for (i, camera) in self.cameras.iter_mut().enumerate() {
            let bad = |key: &str, value: String, remedy: String| {
                ConfigError::value(&file, &format!("camera[{i}].{key}"), value, remedy)
            };
            let password = match &camera.password_file {
                None => None,
                Some(path) => {
                    let path = base.join(path);
                    let text = std::fs::read_to_string(&path).map_err(|e| {
                        bad(
                            "password_file",
                            path.display().to_string(),
                            format!("cannot be read ({e}): write the password into its first line"),
                        )
                    })?;
                    Some(Secret::new(text.lines().next().unwrap_or("").to_owned()))
                }
            };
            camera.resolved = Source::parse(&camera.source, &base, camera.user.take(), password)
                .map_err(|e| bad("source", e.value, e.remedy))?;
            camera.source = camera.resolved.to_string();
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let bad = |key: &str, value: String, remedy: &str| {
            Err(ConfigError::value(&self.file, key, value, remedy.into()))
        };
        if self.cameras.is_empty() {
            return bad(
                "camera",
                "[]".into(),
                "write at least one [[camera]] with name and source",
            );
        }
        for (i, c) in self.cameras.iter().enumerate() {
            let key = |k: &str| format!("camera[{i}].{k}");
            let plain = |ch: char| ch.is_ascii_alphanumeric() || "-_.".contains(ch);
            if c.name.is_empty() || c.name.starts_with('.') || !c.name.chars().all(plain) {
                return bad(
                    &key("name"),
                    format!("{:?}", c.name),
                    "it names files: use letters, digits, - _ . and do not start with a dot",
                );
            }
            if self.cameras[..i].iter().any(|o| o.name == c.name) {
                return bad(
                    &key("name"),
                    format!("{:?}", c.name),
                    "two cameras have this name: rename one",
                );
            }
            if let Some(fps) = c.fps
                && !(fps > 0.0 && fps <= 240.0)
            {
                return bad(
                    &key("fps"),
                    fps.to_string(),
                    "must be above 0 and at most 240",
                );
            }
            for (name, value, low, high) in [
                ("latency_secs", c.latency_secs, 0.0, 60.0),
                ("stall_secs", c.stall_secs, 0.5, 3600.0),
                ("backoff_max_secs", c.backoff_max_secs, 0.5, 3600.0),
            ] {
                if !(low..=high).contains(&value) {
                    return bad(
                        &key(name),
                        value.to_string(),
                        &format!("must be between {low} and {high} seconds"),
                    );
                }
            }
            if c.real_time == Some(false) && matches!(c.source(), Source::Rtsp { .. }) {
                return bad(
                    &key("real_time"),
                    "false".into(),
                    "an RTSP camera sends at its own speed: leave it out",
                );
            }
            if c.looped && c.is_live() {
                return bad(&key("loop"), "true".into(), "only a file can be looped");
            }
        }
        let (d, t, k) = (&self.detector, &self.tracker, &self.crops);
        for (key, value) in [
            ("detector.score", d.score),
            ("detector.nms", d.nms),
            ("tracker.high", t.high),
            ("tracker.low", t.low),
            ("tracker.new", t.new),
            ("tracker.match_iou", t.match_iou),
            ("crops.max_overlap", k.max_overlap),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return bad(key, value.to_string(), "must be between 0 and 1");
            }
        }
        if t.low > t.high {
            return bad(
                "tracker.low",
                t.low.to_string(),
                &format!("must not be above tracker.high = {}", t.high),
            );
        }
        for (key, value, low, high) in [
            ("detector.min_height", f64::from(d.min_height), 4.0, 4096.0),
            ("detector.absorb_secs", d.absorb_secs, 1.0, 86_400.0),
            ("tracker.lost_secs", t.lost_secs, 0.0, 600.0),
            ("crops.min_height", f64::from(k.min_height), 8.0, 4096.0),
            ("crops.min_sharpness", f64::from(k.min_sharpness), 0.0, 1e6),
            ("crops.burst_per_sec", k.burst_per_sec, 0.01, 240.0),
            ("crops.every_secs", k.every_secs, 0.0, 3600.0),
            ("tracker.confirm_hits", f64::from(t.confirm_hits), 1.0, 1e3),
            (
                "crops.max_per_tracklet",
                f64::from(k.max_per_tracklet),
                1.0,
                1e6,
            ),
            ("detector.threads", d.threads as f64, 1.0, 256.0),
            ("embedder.threads", self.embedder.threads as f64, 1.0, 256.0),
        ] {
            if !(low..=high).contains(&value) {
                return bad(
                    key,
                    value.to_string(),
                    &format!("must be between {low} and {high}"),
                );
            }
        }
        let wants_model = [
            (
                "detector",
                d.kind == DetectorKind::Onnx,
                &d.model,
                "kind = \"motion\" needs none",
            ),
            (
                "embedder",
                self.embedder.kind == EmbedderKind::Onnx,
                &self.embedder.model,
                "kind = \"histogram\" needs none",
            ),
        ];
        for (section, wanted, model, otherwise) in wants_model {
            let key = format!("{section}.model");
            match model {
                None if wanted => {
                    return bad(
                        &key,
                        "(absent)".into(),
                        &format!("kind = \"onnx\" needs an ONNX file; {otherwise}"),
                    );
                }
                Some(path) if !wanted => {
                    return bad(
                        &key,
                        path.display().to_string(),
                        &format!("{otherwise}: remove it, or write kind = \"onnx\""),
                    );
                }
                Some(path) if !path.is_file() => {
                    return bad(
                        &key,
                        path.display().to_string(),
                        "there is no such file (the path is relative to the configuration's folder)",
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MINIMAL: &str =
        "[[camera]]\nname = \"door\"\nsource = \"a.mp4\"\n[embedder]\nkind = \"histogram\"\n";

    fn parse(text: &str) -> Result<EdgeConfig, String> {
        EdgeConfig::parse(text, Path::new("site/edge.toml")).map_err(|e| e.to_string())
    }

    fn refused(text: &str, wanted: &[&str]) {
        let err = parse(text).unwrap_err();
        for w in wanted {
            assert!(err.contains(w), "{w:?} is not in: {err}");
        }
    }

    #[test]
    fn the_least_configuration_is_a_camera_and_an_embedder() {
        let c = parse(MINIMAL).unwrap();
        assert_eq!(
            *c.cameras[0].source(),
            Source::File(PathBuf::from("site/a.mp4"))
        );
        assert_eq!(c.detector.kind, DetectorKind::Motion);
        assert_eq!(c.tracker, TrackerConfig::default());
    }

    #[test]
    fn a_pipeline_is_a_camera_unless_it_plays_a_recording() {
        let camera = |source: &str, more: &str| {
            let text = format!(
                "[[camera]]\nname = \"a\"\nsource = \"{source}\"\n{more}\n[embedder]\nkind = \"histogram\"\n"
            );
            parse(&text).map(|c| c.cameras[0].is_live())
        };
        assert_eq!(camera("a.mp4", ""), Ok(false));
        assert_eq!(camera("rtsp://door/1", ""), Ok(true));
        assert_eq!(camera("pipeline:v4l2src", ""), Ok(true));
        assert_eq!(
            camera("pipeline:filesrc ! decodebin", "real_time = false"),
            Ok(false)
        );
        let err = camera("rtsp://door/1", "real_time = false").unwrap_err();
        assert!(err.contains("real_time"), "{err}");
    }

    #[test]
    fn a_misspelt_key_names_file_line_section_and_the_right_word() {
        refused(
            &format!("{MINIMAL}[detector]\nmin_heigth = 3\n"),
            &[
                "site/edge.toml",
                "line 7",
                "detector",
                "min_heigth",
                "did you mean `min_height`",
            ],
        );
        refused(
            &format!("{MINIMAL}[dectector]\n"),
            &["dectector", "did you mean `detector`"],
        );
    }

    #[test]
    fn a_misspelt_value_lists_what_is_allowed() {
        refused(
            &format!("{MINIMAL}[detector]\nkind = \"moton\"\n"),
            &[
                "line 7",
                "detector.kind",
                "moton",
                "`onnx`",
                "did you mean `motion`",
            ],
        );
    }

    #[test]
    fn values_out_of_range_name_key_value_and_range() {
        refused(
            &format!("{MINIMAL}[tracker]\nhigh = 1.5\n"),
            &["tracker.high", "1.5", "between 0 and 1"],
        );
        refused(
            &format!("{MINIMAL}[detector]\nscore = nan\n"),
            &["detector.score", "NaN"],
        );
        refused(
            &format!("{MINIMAL}[tracker]\nlow = 0.9\n"),
            &["tracker.low", "0.9", "tracker.high"],
        );
        refused(
            &MINIMAL.replace("a.mp4\"", "a.mp4\"\nfps = 0.0"),
            &["camera[0].fps", "0"],
        );
        refused(
            &MINIMAL.replace("\"door\"", "\"../door\""),
            &["camera[0].name", "../door"],
        );
        refused(
            &MINIMAL.replace("\"histogram\"", "\"onnx\""),
            &["embedder.model"],
        );
        refused(
            &format!("{MINIMAL}model = \"m.onnx\"\n"),
            &["embedder.model", "site/m.onnx"],
        );
        refused(
            &format!("{MINIMAL}[detector]\nkind = \"onnx\"\nmodel = \"no.onnx\"\n"),
            &["detector.model", "site/no.onnx", "no such file"],
        );
        refused(
            &format!("{}{MINIMAL}", MINIMAL.split("[embedder]").next().unwrap()),
            &["camera[1].name", "door", "rename one"],
        );
        refused(&MINIMAL.replace("\"a.mp4\"", "3"), &["source", "string"]);
        assert!(matches!(
            EdgeConfig::load(Path::new("/nowhere/edge.toml")),
            Err(ConfigError::Unreadable { .. })
        ));
    }

    #[test]
    fn credentials_never_reach_debug_output() {
        let text = MINIMAL.replace("a.mp4", "rtsp://bob:hunter2@cam/stream");
        let c = parse(&text).unwrap();
        let shown = format!("{c:?} {}", c.cameras[0].source());
        assert!(!shown.contains("hunter2"), "{shown}");
        let broken = text.replace("rtsp:", "rtps:");
        let err = parse(&broken).unwrap_err();
        assert!(!err.contains("hunter2") && err.contains("rtps"), "{err}");
        // A syntax error on the very line must not print it either.
        let err = parse(&text.replace("stream\"", "stream")).unwrap_err();
        assert!(!err.contains("hunter2"), "{err}");
    }
}
