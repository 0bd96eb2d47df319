//! `[[camera]]` of the configuration.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::document::{Entry, Node};
use super::error::ConfigErrors;
use super::expand::expand;
use super::mistakes::Mistakes;
use super::{Secret, Source, shape};
use crate::detect::mask::{CameraFilter, Mask, MaskError};

/// One camera.
///
/// It is compared with everything that is secret, printed and serialised without: `source` is shown without credentials,
/// `user` and `password_file` not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraConfig {
    /// Unique; names files, events and metrics.
    pub name: String,
    /// As written; once it is understood, without credentials.
    pub(super) source: String,
    /// User of an RTSP or HTTP source.
    #[serde(default, skip_serializing)]
    pub(super) user: Option<String>,
    /// File whose first line is the password.
    #[serde(default, skip_serializing)]
    pub(super) password_file: Option<PathBuf>,
    /// Files: play at the recorded speed. `None`: `run` does, `replay` and `harvest` do not. A `pipeline:` is taken for a
    /// camera, unless `false` says that it plays a recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_time: Option<bool>,
    /// Files in `run`: start again at the end.
    #[serde(default, rename = "loop")]
    pub looped: bool,
    /// At most so many analysed frames per second, above 0 to 240; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// RTSP transport.
    #[serde(default)]
    pub transport: Transport,
    /// RTSP jitter buffer, seconds, 0 to 60.
    #[serde(default = "default_latency_secs")]
    pub latency_secs: f64,
    /// A live source without a frame for so many seconds is stalled and is opened anew, 0.5 to 3600.
    #[serde(default = "default_stall_secs")]
    pub stall_secs: f64,
    /// Longest wait between two attempts to open a live source, seconds, 0.5 to 3600; the first wait is 0.5 s and doubles.
    #[serde(default = "default_backoff_max_secs")]
    pub backoff_max_secs: f64,
    /// What decodes the stream.
    #[serde(default)]
    pub decoder: Decoder,
    /// Whose clock dates the frames.
    #[serde(default)]
    pub clock: Clock,
    /// Polygons of at least 3 points (x, y), fractions of the frame's width and height, 0 to 1: people whose foot point (the
    /// middle of the box's lower edge) lies inside one are ignored.
    #[serde(default)]
    pub masks: Vec<Vec<[f32; 2]>>,
    /// Smaller people are not reported, pixels of the frame, 4 to 4096; `detector.min_height` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_height: Option<f32>,
    #[serde(skip)]
    pub(super) resolved: Source,
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
            Source::Pipeline(_) => self.real_time != Some(false),
            Source::Rtsp { .. } | Source::Http { .. } | Source::V4l2(_) | Source::Csi(_) => true,
        }
    }

    /// What of its detections counts; `min_height` in pixels where it has no limit of its own.
    pub fn filter(&self, min_height: f32) -> CameraFilter {
        CameraFilter {
            // Polygons that are none were refused when the configuration was read.
            mask: self.mask().unwrap_or_default(),
            min_height: self.min_height.unwrap_or(min_height),
        }
    }

    fn mask(&self) -> Result<Mask, MaskError> {
        let polygons: Vec<Vec<[f64; 2]>> = self
            .masks
            .iter()
            .map(|corners| corners.iter().map(|p| p.map(f64::from)).collect())
            .collect();
        Mask::new(&polygons)
    }

    /// Whether `other` asks for the same pictures: then only the rules for people in them may differ.
    pub fn same_stream(&self, other: &CameraConfig) -> bool {
        let mut other = other.clone();
        other.masks.clone_from(&self.masks);
        other.min_height = self.min_height;
        *self == other
    }

    /// A camera from a table as it would stand in the file, with relative paths from `base` and the same checks.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn from_toml_table(table: &toml::Table, base: &Path) -> Result<Self, ConfigErrors> {
        let mut mistakes = Mistakes::default();
        match Node::from_value(&toml::Value::Table(table.clone())) {
            Node::Table(entries) => Self::from_entries(entries, base, mistakes),
            _ => {
                mistakes.at("camera", "must be a table");
                Err(ConfigErrors(mistakes.into_errors()))
            }
        }
    }

    /// A camera from somebody else's request: as [`CameraConfig::from_toml_table`], but without what reads this machine's
    /// secrets or starts whatever it likes: environment variables, password files and pipelines belong into the file.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn from_json(value: &serde_json::Value, base: &Path) -> Result<Self, ConfigErrors> {
        let mut mistakes = Mistakes::default();
        let Node::Table(entries) = Node::from_json(value) else {
            mistakes.at("camera", "must be an object with name and source");
            return Err(ConfigErrors(mistakes.into_errors()));
        };
        for entry in &entries {
            let reason = match (entry.key.as_str(), &entry.node) {
                ("password_file", _) => {
                    "belongs into the configuration's file: write the password into the address"
                }
                ("source", Node::Text(text)) if text.starts_with("pipeline:") => {
                    "a pipeline belongs into the configuration's file"
                }
                ("source" | "user", Node::Text(text)) if text.contains("${") => {
                    "environment variables belong into the configuration's file"
                }
                _ => continue,
            };
            mistakes.at(format!("camera.{}", entry.key), reason);
        }
        Self::from_entries(entries, base, mistakes)
    }

    fn from_entries(
        entries: Vec<Entry>,
        base: &Path,
        mut mistakes: Mistakes,
    ) -> Result<Self, ConfigErrors> {
        let at = "camera";
        let table = shape::section("camera", at, entries, &mut mistakes);
        if mistakes.is_empty() {
            match table.try_into::<CameraConfig>() {
                Ok(mut camera) => {
                    camera.resolve(at, base, &mut mistakes);
                    camera.settle(at, &mut mistakes);
                    if mistakes.is_empty() {
                        return Ok(camera);
                    }
                }
                Err(e) => mistakes.at(at, e.message()),
            }
        }
        Err(ConfigErrors(mistakes.into_errors()))
    }

    /// Reads what `source`, `user` and `password_file` name; `at` is the camera in messages. False if it cannot be opened.
    pub(super) fn resolve(&mut self, at: &str, base: &Path, mistakes: &mut Mistakes) -> bool {
        let mut usable = !mistakes.about(&format!("{at}.source"));
        for key in ["user", "password_file"] {
            usable &= !mistakes.about(&format!("{at}.{key}"));
        }
        let user = match self.user.take().map(|user| expand(&user)).transpose() {
            Ok(user) => user,
            Err(reason) => {
                mistakes.at(format!("{at}.user"), reason);
                usable = false;
                None
            }
        };
        let password = match self
            .password_file
            .take()
            .map(|p| password(&base.join(p)))
            .transpose()
        {
            Ok(password) => password,
            Err(reason) => {
                mistakes.at(format!("{at}.password_file"), reason);
                usable = false;
                None
            }
        };
        if mistakes.about(&format!("{at}.source")) {
            self.source = String::new();
            return false;
        }
        match Source::parse(&self.source, base, user, password) {
            Ok(source) => {
                self.source = source.to_string();
                self.resolved = source;
            }
            Err(bad) => {
                self.source = String::new();
                mistakes.at(format!("{at}.source"), bad.remedy);
                usable = false;
            }
        }
        usable
    }

    /// Reports what its name and its keys contradict, and puts it right.
    pub(super) fn settle(&mut self, at: &str, mistakes: &mut Mistakes) {
        let key = |name: &str| format!("{at}.{name}");
        if !is_name(&self.name) && !mistakes.about(&key("name")) {
            mistakes.at(
                key("name"),
                "it names files: use at most 128 letters, digits, - _ . and do not start with a dot",
            );
        }
        if let Err(e) = self.mask() {
            self.masks.clear();
            mistakes.at(key("masks"), e.to_string());
        }
        if mistakes.about(&key("source")) {
            return;
        }
        if self.real_time == Some(false)
            && !matches!(self.source(), Source::File(_) | Source::Pipeline(_))
        {
            self.real_time = None;
            mistakes.at(
                key("real_time"),
                "a camera sends at its own speed: leave it out",
            );
        }
        if self.looped && !matches!(self.source(), Source::File(_)) {
            self.looped = false;
            mistakes.at(key("loop"), "only a file can be looped");
        }
    }

    /// Where the pictures come from, credentials resolved (and hidden from `Debug`).
    pub fn source(&self) -> &Source {
        &self.resolved
    }
}

/// Whether a camera may be called so.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.len() <= 128 && name.chars().all(plain)
}

/// The first line of a file. The reason of a failure doesn't name the file: some write the password itself there.
fn password(path: &Path) -> Result<Secret, String> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        format!("the file cannot be read ({e}): write the password into its first line, and let this user read it")
    })?;
    match text.lines().next().map(str::trim_end) {
        None | Some("") => Err("the file's first line is empty: write the password there".into()),
        Some(line) => Ok(Secret::new(line.to_owned())),
    }
}

/// How RTSP media travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Interleaved in the control connection: passes firewalls, loses nothing.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// What decodes a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decoder {
    /// A decoder in hardware where there is one, else software.
    #[default]
    Auto,
    /// The processor.
    Software,
    /// Hardware, or the camera does not open.
    Hardware,
}

/// Whose clock dates the frames of a live source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The camera's, where it tells it by RTCP; else this machine's at arrival.
    #[default]
    Auto,
    /// This machine's, when the frame arrives.
    Arrival,
}
