//! `edge.toml`: one file, every key checked before a camera is opened.
//!
//! All mistakes are told at once, each with file, line, key, value and what to write instead: `document` reads what can
//! be read, `shape` holds it against the table of keys, `settle` against itself and the machine.
//! Paths are relative to the file's own folder. `reid-edge config --explain` prints [`keys::KEYS`].

mod address;
mod camera;
mod crops;
mod detector;
mod difference;
mod document;
mod embedder;
mod engine;
pub mod error;
mod expand;
pub mod explain;
mod health;
pub mod keys;
mod log;
mod mistakes;
mod redact;
mod settle;
mod shape;
pub mod source;
mod tracker;

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use camera::{CameraConfig, Clock, Decoder, Transport};
pub use crops::CropsConfig;
pub use detector::{DetectorConfig, DetectorKind};
pub use difference::Difference;
pub use embedder::{EmbedderConfig, EmbedderKind};
pub use engine::RuntimeSection;
pub use error::{ConfigError, ConfigErrors};
pub use health::HealthConfig;
pub use log::{LogConfig, LogFormat};
pub use reid_models::runtime::Precision;
pub use source::{Secret, Source};
pub use tracker::TrackerConfig;

use crate::associate::AssociateConfig;
use crate::events::EventsConfig;
use crate::gallery::GalleryConfig;
use crate::serve::ServeConfig;
use mistakes::Mistakes;

/// Everything `reid-edge` is told.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeConfig {
    /// Cameras; [`crate::types::CameraIndex`] is the position here.
    #[serde(rename = "camera")]
    pub cameras: Vec<CameraConfig>,
    /// How people are found.
    pub detector: DetectorConfig,
    /// How they are followed within a camera.
    pub tracker: TrackerConfig,
    /// Which crops count.
    pub crops: CropsConfig,
    /// How a crop becomes a vector.
    pub embedder: EmbedderConfig,
    /// What all models share.
    pub runtime: RuntimeSection,
    /// How vectors become identities.
    pub associate: AssociateConfig,
    /// Where identities are kept.
    pub gallery: GalleryConfig,
    /// The live page.
    pub serve: ServeConfig,
    /// Where events go.
    pub events: EventsConfig,
    /// What is reported as unhealthy.
    pub health: HealthConfig,
    /// Form of the log.
    pub log: LogConfig,
    /// The file this was read from.
    #[serde(skip)]
    pub file: PathBuf,
    /// Folder that relative paths start from.
    #[serde(skip)]
    pub base: PathBuf,
}

impl EdgeConfig {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// All its mistakes at once, each naming file, line, key, value and remedy; the program exits with code 2.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::parse(&read(path)?, path)
    }

    /// As [`EdgeConfig::load`], from text; `path` is named in errors and its folder is the base of relative paths.
    ///
    /// # Errors
    /// As [`EdgeConfig::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        match Self::parse_lenient(text, path) {
            (config, errors) if errors.is_empty() => Ok(config),
            (_, errors) => Err(ConfigErrors(errors)),
        }
    }

    /// As [`EdgeConfig::load`], reading on after mistakes; see [`EdgeConfig::parse_lenient`].
    ///
    /// # Errors
    /// If the file cannot be read at all.
    pub fn load_lenient(path: &Path) -> Result<(Self, Vec<ConfigError>), ConfigErrors> {
        Ok(Self::parse_lenient(&read(path)?, path))
    }

    /// What can be read of a configuration, and all its mistakes in the file's order. In place of what is wrong stand
    /// defaults; cameras without a usable source are left out, models that are not there are `None` with `kind` as it
    /// is, a page that must not be opened is disabled.
    pub fn parse_lenient(text: &str, path: &Path) -> (Self, Vec<ConfigError>) {
        let mut mistakes = Mistakes::of(path.to_path_buf());
        let entries = document::parse(text, &mut mistakes);
        let table = shape::file(entries, &mut mistakes);
        let mut config: EdgeConfig = match table.try_into() {
            Ok(config) => config,
            // The table of keys and the structures disagree, which tests exclude.
            Err(e) => {
                mistakes.at("", e.message());
                EdgeConfig::default()
            }
        };
        config.file = path.to_path_buf();
        config.base = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        };
        config.resolve_paths();
        settle::settle(&mut config, &mut mistakes);
        (config, mistakes.into_errors())
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
            &mut self.detector.calibration,
            &mut self.embedder.model,
            &mut self.embedder.library,
            &mut self.embedder.calibration,
            &mut self.runtime.cache,
        ];
        for slot in slots.into_iter().flatten() {
            *slot = base.join(&*slot);
        }
        self.detector.cache.clone_from(&self.runtime.cache);
        self.embedder.cache.clone_from(&self.runtime.cache);
    }
}

fn read(path: &Path) -> Result<String, ConfigErrors> {
    std::fs::read_to_string(path).map_err(|e| ConfigErrors::unreadable(path, &e))
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
                "site/edge.toml, line 7: detector.min_heigth",
                "did you mean `min_height`",
                // It is read as what was meant.
                "line 7: detector.min_height = 3: must be a number, 4 to 4096",
            ],
        );
        refused(
            &format!("{MINIMAL}[dectector]\nkind = \"onnx\"\n"),
            &[
                "line 6: dectector: there is no such section; did you mean `detector`",
                "detector.model: is missing",
            ],
        );
        refused(
            &format!("{MINIMAL}[detector]\nfps = 3.0\n"),
            &["line 7: detector.fps", "a key of [[camera]]"],
        );
        refused(
            &format!("fps = 3.0\n{MINIMAL}"),
            &[
                "line 1: fps",
                "below a section's header",
                "a key of [[camera]]",
            ],
        );
        refused(
            &MINIMAL.replace("[[camera]]", "[camera]"),
            &["line 1: camera: write [[camera]], with two brackets"],
        );
    }

    #[test]
    fn a_misspelt_value_lists_what_is_allowed() {
        refused(
            &format!("{MINIMAL}[detector]\nkind = \"moton\"\n"),
            &[
                "line 7: detector.kind = \"moton\"",
                "`onnx`",
                "did you mean `motion`",
            ],
        );
    }

    #[test]
    fn values_out_of_range_name_line_key_value_and_range() {
        refused(
            &format!("{MINIMAL}[tracker]\nhigh = 1.5\n"),
            &["line 7: tracker.high = 1.5: must be a number, 0 to 1"],
        );
        refused(
            &format!("{MINIMAL}[detector]\nscore = nan\n"),
            &["line 7: detector.score = NaN"],
        );
        refused(
            &format!("{MINIMAL}[tracker]\nlow = 0.9\n"),
            &["line 7: tracker.low = 0.9: must not be above tracker.high = 0.5"],
        );
        refused(
            &MINIMAL.replace("a.mp4\"", "a.mp4\"\nfps = 0.0"),
            &["line 4: camera[0].fps = 0.0: must be a number above 0, at most 240"],
        );
        refused(
            &MINIMAL.replace("\"door\"", "\"../door\""),
            &["line 2: camera[0].name = \"../door\""],
        );
        refused(
            &MINIMAL.replace("\"histogram\"", "\"onnx\""),
            &["line 4: embedder.model: is missing"],
        );
        refused(
            MINIMAL.split("[embedder]").next().unwrap(),
            &["site/edge.toml: embedder.model: is missing"],
        );
        refused(
            &format!("{MINIMAL}model = \"m.onnx\"\n"),
            &["line 6: embedder.model = \"m.onnx\"", "remove it"],
        );
        refused(
            &format!("{MINIMAL}[detector]\nkind = \"onnx\"\nmodel = \"no.onnx\"\n"),
            &["line 8: detector.model = \"no.onnx\": there is no such file"],
        );
        refused(
            &format!("{}{MINIMAL}", MINIMAL.split("[embedder]").next().unwrap()),
            &[
                "line 5: camera[1].name = \"door\": camera[0] (line 2) has this name, too: rename one",
            ],
        );
        refused(
            &MINIMAL.replace("\"a.mp4\"", "3"),
            &["line 3: camera[0].source: must be text in quotes, and is a whole number"],
        );
        refused(
            "[embedder]\nkind = \"histogram\"\n",
            &["site/edge.toml: camera: write at least one"],
        );
        let unreadable = EdgeConfig::load(Path::new("/nowhere/edge.toml")).unwrap_err();
        assert!(
            unreadable
                .to_string()
                .starts_with("/nowhere/edge.toml: cannot read")
        );
    }

    #[test]
    fn what_would_be_passed_over_in_silence_is_refused() {
        for (lines, wanted) in [
            (
                "backend = \"tract\"\nproviders = [\"cuda\", \"cpu\"]",
                "detector.providers",
            ),
            ("precision = \"fp16\"", "detector.precision"),
            ("providers = []", "detector.providers"),
            ("calibration = \"Cargo.toml\"", "detector.calibration"),
        ] {
            refused(&format!("{MINIMAL}[detector]\n{lines}\n"), &[wanted]);
        }
        refused(
            &format!("{MINIMAL}[serve]\nlisten = \"0.0.0.0:80\"\n"),
            &["line 7: serve.listen = \"0.0.0.0:80\"", "token_file"],
        );
        refused(
            &format!("{MINIMAL}[serve]\nlisten = \"localhost\"\n"),
            &["line 7: serve.listen", "127.0.0.1:8080"],
        );
        let way = "[[associate.travel]]\nfrom = \"door\"\nto = \"gate\"\nmin_secs = 3\n";
        refused(
            &format!("{MINIMAL}{way}"),
            &["line 8: associate.travel[0].to = \"gate\": must name a camera: door"],
        );
        refused(
            &format!("{MINIMAL}{}", way.replace("gate", "door")),
            &["line 8: associate.travel[0].to", "the same camera"],
        );
    }

    #[test]
    fn credentials_never_reach_debug_output() {
        let text = MINIMAL.replace("a.mp4", "rtsp://bob:hunter2@cam/stream");
        let c = parse(&text).unwrap();
        let shown = format!("{c:?} {}", c.cameras[0].source());
        assert!(!shown.contains("hunter2"), "{shown}");
        let broken = text.replace("rtsp:", "ftp:");
        let err = parse(&broken).unwrap_err();
        assert!(!err.contains("hunter2") && err.contains("ftp"), "{err}");
        // A syntax error on the very line must not print it either.
        let err = parse(&text.replace("stream\"", "stream")).unwrap_err();
        assert!(!err.contains("hunter2"), "{err}");
    }
}
