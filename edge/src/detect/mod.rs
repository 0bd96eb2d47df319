//! Finding people in frames: by a model, or by motion.
//!
//! [`onnx`] runs any model that its card calls a detector, [`decode`] reads what such models give, [`nms`] and [`place`]
//! make detections of it; [`motion`] needs no model. [`mask`] is what a camera leaves out, whoever detects.

pub mod decode;
pub mod mask;
pub mod motion;
pub mod nms;
pub mod onnx;
pub mod place;

use std::path::PathBuf;

use reid_models::card::CardError;
use reid_models::preprocess::PreprocessError;
use reid_models::runtime::{RuntimeError, Status};

pub use onnx::{OnnxDetector, OnnxOptions};

use crate::config::{DetectorConfig, DetectorKind};
use crate::types::{CameraIndex, Detection, Frame};

/// Finds people.
pub trait Detector: Send {
    /// The people in each of some frames of different cameras, in the frames' order; boxes inside the frame.
    ///
    /// # Errors
    /// If the model fails; names it.
    fn detect(&mut self, frames: &[&Frame]) -> Result<Vec<Vec<Detection>>, DetectError>;

    /// Most frames that are worth giving at once.
    fn most(&self) -> usize {
        1
    }

    /// A camera is gone; what was learned of it may go, too.
    fn forget(&mut self, _camera: CameraIndex) {}

    /// What it is, for people.
    fn description(&self) -> String;

    /// What the runtime says of itself now; `None` without a model file.
    fn status(&self) -> Option<Status> {
        None
    }
}

/// A detector that cannot be opened or has failed.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// No usable card.
    #[error(transparent)]
    Card(#[from] CardError),
    /// The engine.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The picture.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The card describes something else, or something that the file isn't.
    #[error("detector.model = {model}: {reason}")]
    Unsuitable {
        /// The file.
        model: PathBuf,
        /// Why, and the remedy.
        reason: String,
    },
    /// The numbers are none.
    #[error(
        "detector.model = {model}: it gave NaN or an infinite box: the file is damaged, or its precision too low; try it in fp32, or another provider"
    )]
    NotFinite {
        /// The file.
        model: PathBuf,
    },
}

/// The detector of a configuration, as often as it is to run side by side. The motion detector, which remembers its
/// cameras, runs once.
///
/// # Errors
/// If the model cannot be opened.
pub fn open_all(config: &DetectorConfig) -> Result<Vec<Box<dyn Detector>>, DetectError> {
    let mut all = vec![open(config)?];
    if config.kind == DetectorKind::Onnx {
        for _ in 1..config.sessions() {
            all.push(open(config)?);
        }
    }
    Ok(all)
}

/// One detector of a configuration.
///
/// # Errors
/// If the model cannot be opened.
pub fn open(config: &DetectorConfig) -> Result<Box<dyn Detector>, DetectError> {
    match (config.kind, &config.model) {
        (DetectorKind::Onnx, Some(model)) => Ok(Box::new(Batched {
            detector: OnnxDetector::open(model, &OnnxOptions::from(config))?,
            most: config.batch,
        })),
        (DetectorKind::Onnx, None) => Err(DetectError::Unsuitable {
            model: PathBuf::new(),
            reason: "kind = \"onnx\" needs an ONNX file".into(),
        }),
        (DetectorKind::Motion, _) => Ok(Box::new(motion::MotionBank::new(config))),
    }
}

/// A model that takes frames of several cameras at once.
struct Batched {
    detector: OnnxDetector,
    most: usize,
}

impl Detector for Batched {
    fn detect(&mut self, frames: &[&Frame]) -> Result<Vec<Vec<Detection>>, DetectError> {
        self.detector.detect(frames)
    }

    fn most(&self) -> usize {
        self.most
    }

    fn description(&self) -> String {
        self.detector.description()
    }

    fn status(&self) -> Option<Status> {
        Some(self.detector.status())
    }
}
