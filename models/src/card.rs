//! What a model file says about itself.
//!
//! The card travels in the checkpoint folder (`card.json`), in an ONNX file's metadata under [`METADATA_KEY`], or, for
//! a file made by others, beside it as `FILE.onnx.card.json`. The edge reads nothing else about a model.

pub mod decode;
pub mod head;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use decode::Decode;

use crate::files::{self, FileError};

/// Key of the card in an ONNX file's `metadata_props`.
pub const METADATA_KEY: &str = "reid.card";
/// Key of the probe's embeddings in an ONNX file's `metadata_props` (base64 of little-endian f32, row by row).
pub const PROBE_KEY: &str = "reid.probe";
/// Version of the card format.
pub const CARD_VERSION: u32 = 1;

/// Description of one model file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// Format version, [`CARD_VERSION`].
    pub version: u32,
    /// Architecture or published name ("resnet18-w16", "yolox-nano").
    pub name: String,
    /// How a picture becomes the input tensor.
    pub input: InputSpec,
    /// What comes out.
    pub output: OutputSpec,
    /// How it was made; absent for a foreign file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainingSpec>,
    /// Licence of the weights, as an SPDX expression, or what is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Version of the toolkit that wrote the card.
    pub toolkit: String,
    /// Similarity thresholds measured for this very model, by name; never carried over to another model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub thresholds: BTreeMap<String, f32>,
    /// SHA-256 (hex) of the weights: embeddings of different fingerprints are never compared.
    pub fingerprint: String,
}

/// How a picture becomes the input tensor (batch, then axes by `layout`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// How the picture is fitted into height x width.
    #[serde(default)]
    pub fit: Fit,
    /// Resize filter.
    #[serde(default)]
    pub filter: Filter,
    /// Axis order.
    #[serde(default)]
    pub layout: Layout,
    /// Channel order.
    #[serde(default)]
    pub channels: Channels,
    /// Range of a pixel value before mean and std are applied.
    #[serde(default)]
    pub range: Range,
    /// Subtracted, per channel in the model's channel order, in units of `range`.
    pub mean: [f32; 3],
    /// Divides, per channel, in units of `range`.
    pub std: [f32; 3],
    /// Element type of the input tensor.
    #[serde(default)]
    pub element: Element,
    /// `Some(n)`: the file takes exactly n pictures at a time; `None`: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_batch: Option<usize>,
}

/// How a picture of another shape is fitted into the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Stretched to the input size.
    #[default]
    Stretch,
    /// Scaled to fit, top-left, the rest filled with a grey value 0..=255 (YOLOX uses 114).
    LetterboxTopLeft(u8),
    /// Scaled to fit, centred, the rest filled with a grey value 0..=255 (YOLOv8 uses 114).
    LetterboxCentre(u8),
}

/// Resize filter; all of them antialias when shrinking, as Pillow does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Triangle.
    #[default]
    Bilinear,
    /// Cubic convolution with a = -0.5 (Pillow's bicubic).
    Bicubic,
}

/// Axis order of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Batch, channel, height, width.
    #[default]
    Nchw,
    /// Batch, height, width, channel.
    Nhwc,
}

/// Channel order of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first.
    Bgr,
}

/// Range of a pixel value before mean and std.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Range {
    /// 0 to 1.
    #[default]
    #[serde(rename = "0..1")]
    Unit,
    /// 0 to 255.
    #[serde(rename = "0..255")]
    Byte,
}

/// Element type of the input tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Element {
    /// 32-bit float.
    #[default]
    F32,
    /// 16-bit float.
    F16,
    /// Unsigned byte.
    U8,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum OutputSpec {
    /// One vector per picture.
    Embed {
        /// Name of the output tensor; the file's first if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tensor: Option<String>,
        /// Width of the vector.
        width: usize,
        /// Whether the file itself normalises to unit length; otherwise the runtime does.
        normalized: bool,
    },
    /// Boxes.
    Detect {
        /// Name of the output tensor; the file's first if absent. Conventions of several tensors find theirs themselves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tensor: Option<String>,
        /// How the numbers become boxes.
        decode: Decode,
        /// Class that means a person, from 0, as the file counts them: where it has a background, that is class 0.
        #[serde(default)]
        person_class: usize,
    },
    /// Keypoints.
    Pose {
        /// Name of the output tensor; the file's first if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tensor: Option<String>,
        /// How the numbers become keypoints.
        decode: Decode,
    },
}

/// How a model was trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSpec {
    /// Method, by its name in `reid-train methods`.
    pub method: String,
    /// Data, for people: kind and counts, never a path.
    pub data: String,
    /// Where the weights started, for people.
    pub init: String,
    /// Epochs trained.
    pub epochs: usize,
    /// Seed.
    pub seed: u64,
}

/// A card that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// Cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is none.
    #[error(
        "{model} carries no card and {beside} does not exist: describe the model with `reid-export adopt {model} --task embed|detect|pose ...`"
    )]
    Missing {
        /// Model file.
        model: PathBuf,
        /// Where the card would be.
        beside: PathBuf,
    },
    /// The model file itself cannot be read as ONNX.
    #[error("{path}: not an ONNX file, or a truncated one: {reason}")]
    NotOnnx {
        /// Model file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It isn't a card.
    #[error("{path}: not a model card: {reason}")]
    Invalid {
        /// Where it was found.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl ModelCard {
    /// Reads and checks a card; `origin` is named in errors.
    ///
    /// # Errors
    /// [`CardError::Invalid`] naming the key and what it may be.
    pub fn from_json(text: &str, origin: &Path) -> Result<Self, CardError> {
        let invalid = |reason: String| CardError::Invalid {
            path: origin.to_path_buf(),
            reason,
        };
        let card: ModelCard = serde_json::from_str(text).map_err(|e| invalid(e.to_string()))?;
        card.check().map_err(invalid)?;
        Ok(card)
    }

    /// The card as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a card has string keys only")
    }

    /// Where the card of a foreign file lies: `FILE.onnx.card.json`.
    pub fn path_beside(model: &Path) -> PathBuf {
        let mut name = model.as_os_str().to_owned();
        name.push(".card.json");
        PathBuf::from(name)
    }

    /// Reads `card.json` or a card beside a model.
    ///
    /// # Errors
    /// If it can't be read or isn't a card.
    pub fn read(path: &Path) -> Result<Self, CardError> {
        Self::from_json(&files::read_text(path)?, path)
    }

    /// Writes the card, atomically.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, path: &Path) -> Result<(), CardError> {
        Ok(files::write_atomic(path, self.to_json().as_bytes())?)
    }

    fn check(&self) -> Result<(), String> {
        let input = &self.input;
        if self.version != CARD_VERSION {
            return Err(format!(
                "version is {}, this build reads version {CARD_VERSION}",
                self.version
            ));
        }
        for (key, value) in [("input.height", input.height), ("input.width", input.width)] {
            if !(8..=4096).contains(&value) {
                return Err(format!(
                    "{key} must be between 8 and 4096 pixels, got {value}"
                ));
            }
        }
        if input.std.iter().any(|s| !s.is_finite() || *s == 0.0) {
            return Err(format!(
                "input.std must be finite and not 0, got {:?}",
                input.std
            ));
        }
        if input.mean.iter().any(|m| !m.is_finite()) {
            return Err(format!("input.mean must be finite, got {:?}", input.mean));
        }
        if input.fixed_batch == Some(0) {
            return Err("input.fixed_batch must be at least 1, got 0".into());
        }
        if let OutputSpec::Embed { width: 0, .. } = self.output {
            return Err("output.width must be at least 1, got 0".into());
        }
        Ok(())
    }
}

impl InputSpec {
    /// What this project's own networks take: RGB, 0..1, ImageNet mean and std, bilinear with antialias, NCHW.
    pub fn imagenet(height: usize, width: usize) -> Self {
        InputSpec {
            height,
            width,
            fit: Fit::Stretch,
            filter: Filter::Bilinear,
            layout: Layout::Nchw,
            channels: Channels::Rgb,
            range: Range::Unit,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            element: Element::F32,
            fixed_batch: None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn card() -> ModelCard {
        ModelCard {
            version: CARD_VERSION,
            name: "resnet18-w16".into(),
            input: InputSpec::imagenet(128, 64),
            output: OutputSpec::Embed {
                tensor: None,
                width: 128,
                normalized: true,
            },
            training: None,
            license: Some("MIT OR Apache-2.0".into()),
            toolkit: "0.1.0".into(),
            thresholds: BTreeMap::from([("match".into(), 0.6)]),
            fingerprint: "00".into(),
        }
    }

    #[test]
    fn survives_json() {
        let mut foreign = card();
        foreign.input.fit = Fit::LetterboxTopLeft(114);
        foreign.output = OutputSpec::Detect {
            tensor: Some("output".into()),
            decode: Decode::Yolox,
            person_class: 0,
        };
        for c in [card(), foreign] {
            assert_eq!(
                ModelCard::from_json(&c.to_json(), Path::new("c")).unwrap(),
                c
            );
        }
    }

    #[test]
    fn a_bad_card_names_file_key_and_value() {
        let text = card().to_json().replace("\"height\": 128", "\"height\": 0");
        let err = ModelCard::from_json(&text, Path::new("m.onnx"))
            .unwrap_err()
            .to_string();
        assert!(
            err.contains("m.onnx") && err.contains("input.height") && err.contains("got 0"),
            "{err}"
        );
        let text = card().to_json().replace("\"license\"", "\"licence\"");
        assert!(
            ModelCard::from_json(&text, Path::new("m"))
                .unwrap_err()
                .to_string()
                .contains("licence")
        );
        let mut zero = card();
        zero.input.std[1] = 0.0;
        assert!(
            ModelCard::from_json(&zero.to_json(), Path::new("m"))
                .unwrap_err()
                .to_string()
                .contains("input.std")
        );
    }
}
