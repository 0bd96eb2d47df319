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
use std::sync::{Arc, Mutex};

use reid_models::card::CardError;
use reid_models::preprocess::PreprocessError;
use reid_models::runtime::RuntimeError;

pub use onnx::{OnnxDetector, OnnxOptions};

use crate::config::{DetectorConfig, DetectorKind};
use crate::types::{Detection, Frame};

/// Finds people. One detector belongs to one camera and sees its frames in order.
pub trait Detector: Send {
    /// The people in a frame, boxes inside it.
    ///
    /// # Errors
    /// If the model fails; names it.
    fn detect(&mut self, frame: &Frame) -> Result<Vec<Detection>, DetectError>;

    /// What it is, for people.
    fn description(&self) -> String;
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

/// Detectors of `cameras` cameras. Cameras share as many sessions of a model as there are cores.
///
/// # Errors
/// If the model cannot be opened.
pub fn open(
    config: &DetectorConfig,
    cameras: usize,
) -> Result<Vec<Box<dyn Detector>>, DetectError> {
    match (config.kind, &config.model) {
        (DetectorKind::Onnx, Some(model)) => {
            let options = OnnxOptions::from(config);
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let mut sessions = Vec::new();
            for _ in 0..cameras.min(cores) {
                let session = OnnxDetector::open(model, &options)?;
                sessions.push(Arc::new(Mutex::new(session)));
            }
            Ok((0..cameras)
                .map(|i| {
                    Box::new(Shared(sessions[i % sessions.len()].clone())) as Box<dyn Detector>
                })
                .collect())
        }
        (DetectorKind::Onnx, None) => Err(DetectError::Unsuitable {
            model: PathBuf::new(),
            reason: "kind = \"onnx\" needs an ONNX file".into(),
        }),
        (DetectorKind::Motion, _) => Ok((0..cameras)
            .map(|_| Box::new(motion::MotionDetector::new(config)) as Box<dyn Detector>)
            .collect()),
    }
}

/// A camera's view of a model that several cameras take turns with.
struct Shared(Arc<Mutex<OnnxDetector>>);

impl Detector for Shared {
    fn detect(&mut self, frame: &Frame) -> Result<Vec<Detection>, DetectError> {
        // A model keeps nothing between frames, so one that panicked elsewhere is as good as new.
        let mut model = self.0.lock().unwrap_or_else(|e| e.into_inner());
        Ok(model.detect(&[frame])?.pop().unwrap_or_default())
    }

    fn description(&self) -> String {
        let model = self.0.lock().unwrap_or_else(|e| e.into_inner());
        model.description()
    }
}
