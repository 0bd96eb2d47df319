//! What TensorRT is told through ONNX Runtime, and what its engines depend on.
//!
//! Building an engine takes minutes and holds for one model, GPU, precision and range of shapes. ONNX Runtime names an
//! engine by the graph's structure and not by its weights, so a retrained model would silently run an old engine: every
//! engine therefore lies in a folder that is named by the hash of all these ([`key`]).
//!
//! Options: <https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html>.

use std::fs;
use std::path::Path;

use super::cache::{Key, digest};
use super::device::Gpu;
use super::file::{Axis, OnnxFile};
use super::input::ImageInput;
use super::{Precision, RuntimeConfig, RuntimeError};
use crate::card::{ModelCard, OutputSpec};
use crate::files::FileError;

/// Memory that the builder may use for one layer, bytes. More finds hardly faster kernels, and on a Jetson it is taken
/// from everything else.
const WORKSPACE: u64 = 1 << 30;
/// Name of the calibration table inside the engine's folder: ONNX Runtime looks for it there and nowhere else.
const TABLE: &str = "calibration.table";

/// Batches that an engine is built for: any from 1 to `most`, fastest at `usual`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batches {
    pub usual: usize,
    pub most: usize,
}

impl Batches {
    /// An embedder sees many crops at once, a detector one frame per camera. An engine reserves memory for its largest
    /// batch, and a detector's pictures are large.
    pub(super) fn of(card: &ModelCard) -> Self {
        match card.output {
            OutputSpec::Embed { .. } => Batches {
                usual: 8,
                most: super::MAX_BATCH,
            },
            OutputSpec::Detect { .. } | OutputSpec::Pose { .. } => Batches { usual: 2, most: 8 },
        }
    }
}

/// Ranges of the input's axes, in ONNX Runtime's notation; `None` if the file fixes every axis.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Profile {
    least: String,
    usual: String,
    most: String,
}

impl Profile {
    /// Without explicit ranges an engine is built anew for every new batch size, in the middle of a run.
    fn new(file: &OnnxFile, input: &ImageInput, batches: Batches) -> Result<Option<Self>, String> {
        let shape = file.inputs.first().and_then(|i| i.shape.as_ref());
        let fixed = |axes: &Vec<Axis>| axes.iter().all(|a| matches!(a, Axis::Fixed(_)));
        if shape.is_some_and(fixed) {
            return Ok(None);
        }
        if input.name.contains([':', ',', '\0']) {
            return Err(format!(
                "input `{}` has a `:` or `,` in its name, which TensorRT's shape ranges cannot express: rename the input, or export the model with a fixed batch",
                input.name
            ));
        }
        let text = |batch| {
            let axes = input.shape(batch).map(|n| n.to_string());
            format!("{}:{}", input.name, axes.join("x"))
        };
        let (least, usual, most) = match input.fixed_batch {
            Some(n) => (n, n, n),
            None => (1, batches.usual, batches.most),
        };
        Ok(Some(Profile {
            least: text(least),
            usual: text(usual),
            most: text(most),
        }))
    }
}

/// A calibration table: ranges of a model's values, measured beforehand on pictures like those to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Calibration {
    bytes: Vec<u8>,
    sha256: String,
    /// TensorRT's own text format, not ONNX Runtime's flatbuffers.
    native: bool,
}

impl Calibration {
    /// The table that a configuration needs, `None` if it needs none.
    pub(super) fn read(
        config: &RuntimeConfig,
        file: &OnnxFile,
        path: &Path,
    ) -> Result<Option<Self>, RuntimeError> {
        if config.precision != Precision::Int8 {
            return Ok(None);
        }
        let wrong =
            |key, value: String, remedy: String| RuntimeError::Config { key, value, remedy };
        match (&config.calibration, file.quantized) {
            (None, true) => Ok(None),
            (None, false) => Err(wrong(
                "precision",
                "int8".into(),
                format!(
                    "{} has no QuantizeLinear nodes, so the scales of its values are unknown: name a calibration table (`calibration`), or take fp16",
                    path.display()
                ),
            )),
            (Some(table), true) => Err(wrong(
                "calibration",
                table.display().to_string(),
                format!(
                    "{} carries its scales itself (QuantizeLinear nodes), and TensorRT takes only one of the two: remove the key",
                    path.display()
                ),
            )),
            (Some(table), false) => {
                let unreadable = |e: std::io::Error| {
                    wrong("calibration", table.display().to_string(), e.to_string())
                };
                let bytes = fs::read(table).map_err(unreadable)?;
                let (_, sha256) = digest(table).map_err(unreadable)?;
                if bytes.is_empty() {
                    return Err(wrong(
                        "calibration",
                        table.display().to_string(),
                        "the file is empty: make the table anew".into(),
                    ));
                }
                Ok(Some(Calibration {
                    // "TRT-8601-EntropyCalibration2" is how TensorRT begins its own.
                    native: bytes.starts_with(b"TRT-"),
                    bytes,
                    sha256,
                }))
            }
        }
    }

    /// Puts the table where ONNX Runtime looks for it.
    pub(super) fn place(&self, folder: &Path) -> Result<(), FileError> {
        crate::files::write_atomic(&folder.join(TABLE), &self.bytes)
    }
}

/// All that an engine depends on.
pub(super) struct Engine<'a> {
    pub config: &'a RuntimeConfig,
    pub card: &'a ModelCard,
    pub file: &'a OnnxFile,
    pub input: &'a ImageInput,
    /// SHA-256 of the model's file: a card may have been left behind by another one.
    pub model: &'a str,
    /// The GPU, if the driver tells.
    pub gpu: Option<&'a Gpu>,
    /// ONNX Runtime's build.
    pub library: &'a str,
    pub calibration: Option<&'a Calibration>,
}

/// Folders of one engine.
pub(super) struct Folders<'a> {
    /// Of the engine.
    pub engine: &'a Path,
    /// Of the timings of kernels, which all models on a GPU share.
    pub timings: &'a Path,
}

impl Engine<'_> {
    fn profile(&self) -> Result<Option<Profile>, String> {
        Profile::new(self.file, self.input, Batches::of(self.card))
    }

    /// The cache entry.
    pub(super) fn key(&self) -> Result<Key, String> {
        let unknown = || "unknown".to_string();
        let shape = match self.profile()? {
            Some(p) => format!("{} {} {}", p.least, p.usual, p.most),
            None => format!(
                "{}:{:?}",
                self.input.name,
                self.input.shape(self.input.fixed_batch.unwrap_or(1))
            ),
        };
        let gpu = self.gpu;
        Ok(Key::new(
            "tensorrt",
            &self.card.name,
            vec![
                ("fingerprint", self.card.fingerprint.clone()),
                ("model", self.model.into()),
                ("device", gpu.map_or_else(unknown, |g| g.name.clone())),
                (
                    "capability",
                    gpu.map_or_else(unknown, |g| g.capability.clone()),
                ),
                ("precision", self.config.precision.to_string()),
                ("input", format!("{shape} {:?}", self.input.element)),
                ("onnxruntime", self.library.into()),
                (
                    "calibration",
                    self.calibration.map_or("none".into(), |c| c.sha256.clone()),
                ),
            ],
        ))
    }

    /// Options of ONNX Runtime's TensorRT provider. Those that are left out are off by themselves, among them engines
    /// without weights and engines inside ONNX files.
    pub(super) fn options(
        &self,
        folders: Option<&Folders>,
    ) -> Result<Vec<(&'static str, String)>, String> {
        let flag = |on: bool| if on { "1" } else { "0" }.to_string();
        let precision = self.config.precision;
        let mut options = vec![
            ("device_id", self.config.device.to_string()),
            ("trt_max_workspace_size", WORKSPACE.to_string()),
            // With int8, too: what has no scale then runs in half precision rather than in full.
            ("trt_fp16_enable", flag(precision != Precision::Fp32)),
            ("trt_int8_enable", flag(precision == Precision::Int8)),
            ("trt_detailed_build_log", flag(false)),
            ("trt_dump_subgraphs", flag(false)),
        ];
        if let Some(profile) = self.profile()? {
            options.push(("trt_profile_min_shapes", profile.least));
            options.push(("trt_profile_opt_shapes", profile.usual));
            options.push(("trt_profile_max_shapes", profile.most));
        }
        if let Some(folders) = folders {
            options.push(("trt_engine_cache_enable", flag(true)));
            options.push(("trt_engine_cache_path", text(folders.engine)?));
            options.push(("trt_engine_cache_prefix", self.key()?.name()));
            options.push(("trt_timing_cache_enable", flag(true)));
            options.push(("trt_timing_cache_path", text(folders.timings)?));
            if let Some(calibration) = self.calibration {
                options.push(("trt_int8_calibration_table_name", TABLE.into()));
                options.push((
                    "trt_int8_use_native_calibration_table",
                    flag(calibration.native),
                ));
            }
        }
        Ok(options)
    }
}

/// Options of ONNX Runtime's CUDA provider.
pub(super) fn cuda_options(config: &RuntimeConfig) -> Vec<(&'static str, String)> {
    vec![
        ("device_id", config.device.to_string()),
        // The other choice doubles what it takes each time and never gives it back: bad where the processor shares
        // the memory, as on a Jetson.
        ("arena_extend_strategy", "kSameAsRequested".into()),
        // The exhaustive search would time every kernel again at each new batch size, in the middle of a run.
        ("cudnn_conv_algo_search", "HEURISTIC".into()),
    ]
}

fn text(path: &Path) -> Result<String, String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("runtime.cache: {} is not UTF-8", path.display()))
}

#[cfg(test)]
#[path = "tensorrt_tests.rs"]
mod tests;
