//! `[embedder]` of the configuration.

use std::path::PathBuf;

use reid_models::runtime::{Backend, Provider, RuntimeConfig};
use serde::{Deserialize, Serialize};

use super::Precision;

/// Kind of embedder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmbedderKind {
    /// An ONNX file whose card says `task = embed`.
    #[default]
    Onnx,
    /// Colour histograms in horizontal stripes: the baseline, no model.
    Histogram,
}

/// `[embedder]`: how a crop becomes a vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmbedderConfig {
    /// Model or baseline.
    pub kind: EmbedderKind,
    /// ONNX file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
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
    /// Most crops embedded together, 1 to 256.
    pub batch: usize,
    /// Longest wait for a batch to fill, seconds, 0 to 1.
    pub wait_secs: f64,
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

impl Default for EmbedderConfig {
    fn default() -> Self {
        let runtime = RuntimeConfig::default();
        EmbedderConfig {
            kind: EmbedderKind::Onnx,
            model: None,
            backend: runtime.backend,
            library: runtime.library,
            providers: runtime.providers,
            fallback: runtime.fallback,
            threads: runtime.threads,
            sessions: 0,
            batch: 16,
            wait_secs: 0.02,
            precision: Precision::Fp32,
            calibration: None,
            device: 0,
            cache: None,
        }
    }
}

impl EmbedderConfig {
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
