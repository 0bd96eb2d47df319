//! What models are run with: engine, providers, precision, cache.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::RuntimeError;

/// Engine that runs a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// ONNX Runtime if its library is found ([`library::find`](super::library::find)), else tract; decided before the
    /// model is opened.
    #[default]
    Auto,
    /// tract, linked in.
    Tract,
    /// ONNX Runtime, from its shared library.
    OnnxRuntime,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Auto => "auto",
            Backend::Tract => "tract",
            Backend::OnnxRuntime => "onnxruntime",
        })
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Backend::Auto),
            "tract" => Ok(Backend::Tract),
            "onnxruntime" => Ok(Backend::OnnxRuntime),
            _ => Err(format!(
                "backend must be auto, tract or onnxruntime, got `{text}`"
            )),
        }
    }
}

/// Execution provider of ONNX Runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// NVIDIA TensorRT.
    TensorRt,
    /// NVIDIA CUDA.
    Cuda,
    /// The processor.
    Cpu,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Provider::TensorRt => "tensorrt",
            Provider::Cuda => "cuda",
            Provider::Cpu => "cpu",
        })
    }
}

/// Numbers that TensorRT calculates with. The other providers calculate with what the file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit float.
    #[default]
    Fp32,
    /// 16-bit float where that is faster: about twice the speed, embeddings differ in the third decimal of a cosine.
    Fp16,
    /// 8-bit integers where a scale is known, 16-bit float elsewhere. The scales come from a calibration table or from
    /// the model's own QuantizeLinear nodes.
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Fp32 => "fp32",
            Precision::Fp16 => "fp16",
            Precision::Int8 => "int8",
        })
    }
}

/// How models are run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeConfig {
    /// Engine.
    pub backend: Backend,
    /// ONNX Runtime's library, a file or a folder that holds it; found by [`library::find`](super::library::find) if
    /// absent.
    pub library: Option<PathBuf>,
    /// ONNX Runtime's execution providers in order of preference. A list without `cpu` (and without `fallback`) means
    /// that no part of a model may run on the processor: a model that a provider can't take whole is then an error.
    pub providers: Vec<Provider>,
    /// Whether a provider that cannot start may be passed over, with a warning and in the session's
    /// [`Status`](super::Status).
    pub fallback: bool,
    /// Threads of one session, at least 1.
    pub threads: usize,
    /// Number of the GPU for `cuda` and `tensorrt`, from 0.
    pub device: u32,
    /// What TensorRT calculates with; anything but `fp32` needs `tensorrt` among the providers.
    pub precision: Precision,
    /// Calibration table for `int8`, TensorRT's own (text) or ONNX Runtime's (flatbuffers); needs `cache`.
    pub calibration: Option<PathBuf>,
    /// Folder for what takes long to make: TensorRT's engines and timings, optimised models. Made when needed. Without
    /// it they are made anew at every start.
    pub cache: Option<PathBuf>,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        RuntimeConfig {
            backend: Backend::Auto,
            library: None,
            providers: vec![Provider::Cpu],
            fallback: false,
            threads: 1,
            device: 0,
            precision: Precision::Fp32,
            calibration: None,
            cache: None,
        }
    }
}

impl RuntimeConfig {
    /// Whether the keys fit each other.
    ///
    /// # Errors
    /// [`RuntimeError::Config`] naming the key, its value and the remedy.
    pub fn check(&self) -> Result<(), RuntimeError> {
        let wrong = |key, value: String, remedy: &str| RuntimeError::Config {
            key,
            value,
            remedy: remedy.into(),
        };
        if let Some(twice) =
            (1..self.providers.len()).find(|&i| self.providers[..i].contains(&self.providers[i]))
        {
            return Err(wrong(
                "providers",
                self.providers[twice].to_string(),
                "it stands there twice: name every provider once, most wanted first",
            ));
        }
        if self.precision != Precision::Fp32 && !self.providers.contains(&Provider::TensorRt) {
            return Err(wrong(
                "precision",
                self.precision.to_string(),
                "only TensorRT converts a model: put \"tensorrt\" into `providers`, or leave fp32",
            ));
        }
        if let (Some(table), false) = (&self.calibration, self.precision == Precision::Int8) {
            return Err(wrong(
                "calibration",
                table.display().to_string(),
                &format!(
                    "a calibration table is for precision = \"int8\", not {}: remove it, or set int8",
                    self.precision
                ),
            ));
        }
        if let (Some(table), None) = (&self.calibration, &self.cache) {
            return Err(wrong(
                "calibration",
                table.display().to_string(),
                "ONNX Runtime reads the table from the folder of its engines: name that folder with runtime.cache",
            ));
        }
        Ok(())
    }

    /// Whether no node may run on the processor.
    pub(super) fn forbids_processor(&self) -> bool {
        !self.fallback && !self.providers.is_empty() && !self.providers.contains(&Provider::Cpu)
    }

    /// The first provider; none means the processor.
    pub(super) fn wanted(&self) -> Provider {
        self.providers.first().copied().unwrap_or(Provider::Cpu)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_that_contradict_each_other_are_named() {
        let tensorrt = RuntimeConfig {
            providers: vec![Provider::TensorRt, Provider::Cpu],
            ..Default::default()
        };
        for precision in [Precision::Fp32, Precision::Fp16, Precision::Int8] {
            let config = RuntimeConfig {
                precision,
                ..tensorrt.clone()
            };
            config.check().unwrap();
        }
        let cases = [
            (
                RuntimeConfig {
                    precision: Precision::Fp16,
                    ..Default::default()
                },
                "precision = fp16",
            ),
            (
                RuntimeConfig {
                    calibration: Some("table".into()),
                    precision: Precision::Fp16,
                    ..tensorrt.clone()
                },
                "calibration = table",
            ),
            (
                RuntimeConfig {
                    calibration: Some("lonely".into()),
                    precision: Precision::Int8,
                    ..tensorrt.clone()
                },
                "calibration = lonely",
            ),
            (
                RuntimeConfig {
                    providers: vec![Provider::Cuda, Provider::Cpu, Provider::Cuda],
                    ..Default::default()
                },
                "providers = cuda",
            ),
        ];
        for (config, want) in cases {
            let err = config.check().unwrap_err().to_string();
            assert!(err.starts_with(want), "{err}");
        }
    }

    #[test]
    fn absent_keys_are_the_defaults() {
        let config: RuntimeConfig = serde_json::from_str(
            r#"{"providers": ["tensorrt"], "precision": "int8", "device": 1, "cache": "c", "calibration": "t"}"#,
        )
        .unwrap();
        let want = RuntimeConfig {
            providers: vec![Provider::TensorRt],
            precision: Precision::Int8,
            device: 1,
            cache: Some("c".into()),
            calibration: Some("t".into()),
            ..Default::default()
        };
        assert_eq!(config, want);
    }
}
