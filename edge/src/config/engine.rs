//! `[runtime]` of the configuration, and what `[detector]` and `[embedder]` say alike about engines.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[runtime]`: what all models share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeSection {
    /// Folder where built engines, timing caches and optimised models are kept from one start to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
}

/// Numbers that a TensorRT engine calculates with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    Fp32,
    /// 16-bit floats where that is faster.
    Fp16,
    /// 8-bit integers where that is faster, by a calibration table or the model's own scales.
    Int8,
}
