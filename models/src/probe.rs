//! The probe: 16 synthetic crops that ship with the toolkit, and the embeddings a model must give for them.
//!
//! The trainer stores what its own executor gave; the exporter and the edge run the same crops through the file they
//! are about to use. Accuracy lost in conversion is seen before the first camera is opened. No crop shows a real person.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::card::InputSpec;
use crate::distance;
use crate::preprocess::{Preprocess, Rgb};
use crate::weights::{Weights, WeightsError};

/// How many crops a probe has.
pub const PROBE_CROPS: usize = 16;

/// Lowest cosine between the trainer's embedding and a converted fp32 file's that counts as the same model.
pub const MIN_COSINE_FP32: f32 = 0.9999;

/// Name of the tensor in `probe.safetensors`.
const TENSOR: &str = "embeddings";

static PNG: [&[u8]; PROBE_CROPS] = [
    include_bytes!("probe/probe_00.png"),
    include_bytes!("probe/probe_01.png"),
    include_bytes!("probe/probe_02.png"),
    include_bytes!("probe/probe_03.png"),
    include_bytes!("probe/probe_04.png"),
    include_bytes!("probe/probe_05.png"),
    include_bytes!("probe/probe_06.png"),
    include_bytes!("probe/probe_07.png"),
    include_bytes!("probe/probe_08.png"),
    include_bytes!("probe/probe_09.png"),
    include_bytes!("probe/probe_10.png"),
    include_bytes!("probe/probe_11.png"),
    include_bytes!("probe/probe_12.png"),
    include_bytes!("probe/probe_13.png"),
    include_bytes!("probe/probe_14.png"),
    include_bytes!("probe/probe_15.png"),
];

/// The 16 crops, RGB, 128 high x 64 wide.
pub fn crops() -> &'static [RgbImage] {
    static CROPS: OnceLock<Vec<RgbImage>> = OnceLock::new();
    CROPS.get_or_init(|| {
        PNG.iter()
            .map(|bytes| {
                image::load_from_memory(bytes)
                    .expect("the crate's own PNG files can be decoded")
                    .into_rgb8()
            })
            .collect()
    })
}

/// The probe as a model's input: 16 tensors, one after the other.
pub fn inputs(spec: &InputSpec) -> Vec<f32> {
    let mut preprocess = Preprocess::new(spec);
    let len = preprocess.tensor_len();
    let mut out = vec![0.0; PROBE_CROPS * len];
    for (crop, tensor) in crops().iter().zip(out.chunks_exact_mut(len)) {
        preprocess
            .run_into(Rgb::from(crop), None, tensor)
            .expect("the crate's own crops fit every checked input");
    }
    out
}

/// What the trainer got for the crops, one unit vector each.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// 16 rows of the embedding's width.
    pub embeddings: Vec<Vec<f32>>,
}

/// How far embeddings are from the trainer's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Lowest cosine of a row with its twin, -1 to 1.
    pub min_cosine: f32,
    /// Largest absolute difference of an element.
    pub max_abs: f32,
}

/// A probe file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Cannot be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Not 16 finite rows of one width.
    #[error(
        "{path}: a probe holds `{TENSOR}`, {PROBE_CROPS} finite rows of one width, got {got}: train or evaluate the run again to write it"
    )]
    Shape {
        /// File.
        path: PathBuf,
        /// What it holds.
        got: String,
    },
}

impl Probe {
    /// Writes `embeddings` (16, D) as safetensors, atomically.
    ///
    /// # Errors
    /// If the rows are not 16 of one width and finite, or the file can't be written.
    pub fn write(&self, path: &Path) -> Result<(), ProbeError> {
        let width = self.embeddings.first().map_or(0, Vec::len);
        let ragged = self.embeddings.iter().any(|row| row.len() != width);
        let data = self.embeddings.concat();
        if self.embeddings.len() != PROBE_CROPS || width == 0 || ragged {
            let rows: Vec<usize> = self.embeddings.iter().map(Vec::len).collect();
            return Err(shape_error(path, format!("rows of widths {rows:?}")));
        }
        finite(path, &data)?;
        let tensors = [(TENSOR.to_string(), (vec![PROBE_CROPS, width], data))].into();
        Ok(Weights { tensors }.write(path)?)
    }

    /// Reads what [`Probe::write`] wrote.
    ///
    /// # Errors
    /// If the file can't be read or holds something else.
    pub fn read(path: &Path) -> Result<Self, ProbeError> {
        let weights = Weights::read(path)?;
        let Some((shape, data)) = weights.tensors.get(TENSOR) else {
            let names: Vec<&String> = weights.tensors.keys().collect();
            return Err(shape_error(path, format!("tensors {names:?}")));
        };
        match shape[..] {
            [PROBE_CROPS, width] if width > 0 => {
                finite(path, data)?;
                Ok(Probe {
                    embeddings: data.chunks_exact(width).map(<[f32]>::to_vec).collect(),
                })
            }
            _ => Err(shape_error(path, format!("a tensor of shape {shape:?}"))),
        }
    }

    /// Compares embeddings with the trainer's. Another number of rows or another width, or a value that isn't finite,
    /// is as wrong as can be: cosine -1, difference infinite.
    pub fn compare(&self, got: &[Vec<f32>]) -> ProbeReport {
        let mut report = ProbeReport {
            min_cosine: 1.0,
            max_abs: 0.0,
        };
        let wrong = ProbeReport {
            min_cosine: -1.0,
            max_abs: f32::INFINITY,
        };
        if got.len() != self.embeddings.len() || got.is_empty() {
            return wrong;
        }
        for (want, got) in self.embeddings.iter().zip(got) {
            if want.len() != got.len() || distance::check_embedding(got).is_err() {
                return wrong;
            }
            report.min_cosine = report.min_cosine.min(distance::cosine(want, got));
            for (x, y) in want.iter().zip(got) {
                report.max_abs = report.max_abs.max((x - y).abs());
            }
        }
        report
    }
}

fn shape_error(path: &Path, got: String) -> ProbeError {
    ProbeError::Shape {
        path: path.to_path_buf(),
        got,
    }
}

fn finite(path: &Path, data: &[f32]) -> Result<(), ProbeError> {
    distance::check_embedding(data).map_err(|e| shape_error(path, e.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn probe() -> Probe {
        let row = |i: usize| (0..8).map(|k| ((i * 8 + k) as f32).sin()).collect();
        Probe {
            embeddings: (0..PROBE_CROPS).map(row).collect(),
        }
    }

    #[test]
    fn sixteen_different_small_crops() {
        let crops = crops();
        assert_eq!(crops.len(), PROBE_CROPS);
        for (i, crop) in crops.iter().enumerate() {
            assert_eq!(crop.dimensions(), (64, 128), "crop {i}");
            assert!(!crops[..i].contains(crop), "crop {i} is there twice");
        }
        assert!(PNG.iter().map(|p| p.len()).sum::<usize>() < 200_000);
    }

    #[test]
    fn inputs_have_the_models_size() {
        let spec = InputSpec::imagenet(96, 40);
        let tensors = inputs(&spec);
        assert_eq!(tensors.len(), PROBE_CROPS * 3 * 96 * 40);
        assert!(tensors.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn survives_a_file_and_refuses_what_is_no_probe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("probe.safetensors");
        probe().write(&path).unwrap();
        assert_eq!(Probe::read(&path).unwrap(), probe());
        let mut broken = probe();
        broken.embeddings[3][1] = f32::NAN;
        assert!(broken.write(&path).is_err());
        broken.embeddings.truncate(3);
        assert!(broken.write(&path).unwrap_err().to_string().contains("16"));
        assert_eq!(
            Probe::read(&path).unwrap(),
            probe(),
            "the old file is whole"
        );
        let other = Weights {
            tensors: [("x".to_string(), (vec![1], vec![0.0]))].into(),
        };
        other.write(&path).unwrap();
        let err = Probe::read(&path).unwrap_err().to_string();
        assert!(
            err.contains("probe.safetensors") && err.contains("\"x\""),
            "{err}"
        );
    }

    #[test]
    fn comparison_sees_every_kind_of_damage() {
        let probe = probe();
        let same = probe.compare(&probe.embeddings);
        assert!(same.min_cosine > 0.999_999 && same.max_abs == 0.0);
        let mut turned = probe.embeddings.clone();
        turned[15].iter_mut().for_each(|x| *x = -*x);
        assert!((probe.compare(&turned).min_cosine + 1.0).abs() < 1e-6);
        let mut nan = probe.embeddings.clone();
        nan[0][0] = f32::NAN;
        assert_eq!(probe.compare(&nan).min_cosine, -1.0);
        assert_eq!(probe.compare(&probe.embeddings[1..]).min_cosine, -1.0);
        let zero = vec![vec![0.0; 8]; PROBE_CROPS];
        assert_eq!(probe.compare(&zero).min_cosine, 0.0);
    }
}
