//! Finding people in one frame.

pub mod motion;
pub mod nms;
pub mod yolox;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use reid_models::card::CardError;
use reid_models::preprocess::PreprocessError;
use reid_models::runtime::RuntimeError;

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
    /// The card describes something else.
    #[error("detector.model = {model}: {reason}")]
    Unsuitable {
        /// The file.
        model: PathBuf,
        /// Why, and the remedy.
        reason: String,
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
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let mut sessions = Vec::new();
            for _ in 0..cameras.min(cores) {
                sessions.push(Arc::new(Mutex::new(yolox::Yolox::open(model, config)?)));
            }
            Ok((0..cameras)
                .map(|i| {
                    Box::new(yolox::Shared::new(sessions[i % sessions.len()].clone()))
                        as Box<dyn Detector>
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
