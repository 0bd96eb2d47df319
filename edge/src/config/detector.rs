//! `[detector]` of the configuration.

use std::path::PathBuf;

use reid_models::runtime::{Backend, Provider, RuntimeConfig};
use serde::{Deserialize, Serialize};

use super::Precision;

/// Kind of detector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetectorKind {
    /// Adaptive background subtraction: static cameras, no model.
    #[default]
    Motion,
    /// An ONNX file whose card says `task = detect`.
    Onnx,
}

/// `[detector]`: how people are found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectorConfig {
    /// Motion or a model.
    pub kind: DetectorKind,
    /// ONNX file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// Class numbers of the model that count as people; the card's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<usize>>,
    /// Detections below are dropped, 0..1.
    pub score: f32,
    /// Of two boxes overlapping by more than this IoU, the weaker is dropped.
    pub nms: f32,
    /// Smaller people are not reported, pixels of the frame; [`CameraConfig::min_height`](super::CameraConfig) wins.
    pub min_height: f32,
    /// Motion: a person who stands still becomes background after so many seconds.
    pub absorb_secs: f64,
    /// Engine.
    pub backend: Backend,
    /// ONNX Runtime's shared library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library: Option<PathBuf>,
    /// Execution providers of ONNX Runtime, most wanted first.
    pub providers: Vec<Provider>,
    /// Whether a provider that does not start may be replaced by the next one.
    pub fallback: bool,
    /// Threads of one session, 1 to 256.
    pub threads: usize,
    /// Sessions of the model, 0 to 64; 0: as many as processor cores, one on a GPU.
    pub sessions: usize,
    /// Most frames of different cameras analysed together, 1 to 64.
    pub batch: usize,
    /// TensorRT: numbers calculated with.
    pub precision: Precision,
    /// TensorRT: calibration table of `precision = "int8"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<PathBuf>,
    /// GPU, 0 to 63.
    pub device: u32,
    /// `runtime.cache`; not a key of this section.
    #[serde(skip)]
    pub cache: Option<PathBuf>,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        let runtime = RuntimeConfig::default();
        DetectorConfig {
            kind: DetectorKind::Motion,
            model: None,
            classes: None,
            score: 0.3,
            nms: 0.45,
            min_height: 40.0,
            absorb_secs: 60.0,
            backend: runtime.backend,
            library: runtime.library,
            providers: runtime.providers,
            fallback: runtime.fallback,
            threads: runtime.threads,
            sessions: 0,
            batch: 1,
            precision: Precision::Fp32,
            calibration: None,
            device: 0,
            cache: None,
        }
    }
}

impl DetectorConfig {
    /// Sessions to open: as many as there are processor cores, one where a GPU does the work.
    pub fn sessions(&self) -> usize {
        super::engine::sessions(self.sessions, &self.providers)
    }

    /// What the runtime is told.
    pub fn runtime(&self) -> RuntimeConfig {
        RuntimeConfig {
            backend: self.backend,
            library: self.library.clone(),
            providers: self.providers.clone(),
            fallback: self.fallback,
            threads: self.threads,
            device: self.device,
            precision: self.precision,
            calibration: self.calibration.clone(),
            cache: self.cache.clone(),
        }
    }
}
