//! Named tensors, in safetensors files. Which tensor is which parameter: [`crate::naming`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use crate::card::InputSpec;
use crate::files::{self, FileError};
pub use crate::naming::{LoadReport, match_names, select};

/// Named tensors as f32, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    /// Name to shape and elements.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

/// A weights file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a safetensors file, or a broken one.
    #[error("{path}: not a safetensors file: {reason}")]
    Format {
        /// File.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A tensor of a type that is no floating-point number.
    #[error(
        "{path}: tensor `{name}` has element type {dtype}, this build reads F32, F16, BF16 and F64"
    )]
    Dtype {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
}

impl Weights {
    /// Reads a safetensors file; F16, BF16 and F64 become f32. Integer tensors named `*num_batches_tracked` (PyTorch's
    /// batch norm counters) are left out.
    ///
    /// # Errors
    /// If the file can't be read, isn't one, or holds another integer tensor.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let bytes = files::read(path)?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| WeightsError::Format {
            path: path.to_path_buf(),
            reason: e.to_string(),
        })?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            if is_counter(&name) {
                continue;
            }
            let data = floats(&view).ok_or_else(|| WeightsError::Dtype {
                path: path.to_path_buf(),
                name: name.clone(),
                dtype: format!("{:?}", view.dtype()),
            })?;
            tensors.insert(name, (view.shape().to_vec(), data));
        }
        Ok(Weights { tensors })
    }

    /// Writes the tensors as F32, atomically.
    ///
    /// # Errors
    /// If the file can't be written, or a tensor's shape and length differ.
    pub fn write(&self, path: &Path) -> Result<(), WeightsError> {
        let format = |e: safetensors::SafeTensorError| WeightsError::Format {
            path: path.to_path_buf(),
            reason: e.to_string(),
        };
        let bytes: Vec<(&str, &[usize], Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, data))| {
                let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
                (name.as_str(), shape.as_slice(), bytes)
            })
            .collect();
        let mut views = Vec::with_capacity(bytes.len());
        for (name, shape, bytes) in &bytes {
            let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).map_err(format)?;
            views.push((*name, view));
        }
        let file = safetensors::serialize(views, None).map_err(format)?;
        Ok(files::write_atomic(path, &file)?)
    }
}

/// Elements as f32; `None` for a type that isn't floating-point.
fn floats(view: &TensorView) -> Option<Vec<f32>> {
    let data = view.data();
    Some(match view.dtype() {
        Dtype::F32 => le(data, f32::from_le_bytes),
        Dtype::F64 => le(data, |b| f64::from_le_bytes(b) as f32),
        Dtype::F16 => le(data, |b| half::f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => le(data, |b| half::bf16::from_le_bytes(b).to_f32()),
        _ => return None,
    })
}

fn le<const N: usize>(data: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    data.as_chunks::<N>()
        .0
        .iter()
        .map(|&b| convert(b))
        .collect()
}

/// PyTorch's batch norm counters: nothing here counts.
pub(crate) fn is_counter(name: &str) -> bool {
    name == "num_batches_tracked" || name.ends_with(".num_batches_tracked")
}

/// SHA-256 (lower-case hex) of names, shapes and elements of the weights and of how a picture becomes the input.
/// Embeddings with different fingerprints are never compared. A fixed batch size changes no embedding and doesn't count.
pub fn fingerprint(weights: &Weights, input: &InputSpec) -> String {
    let mut hash = Sha256::new();
    for (name, (shape, data)) in &weights.tensors {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update((shape.len() as u64).to_le_bytes());
        for &axis in shape {
            hash.update((axis as u64).to_le_bytes());
        }
        for chunk in data.chunks(16 * 1024) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|x| x.to_le_bytes()).collect();
            hash.update(&bytes);
        }
    }
    finish(hash, input)
}

/// As [`fingerprint`], for a foreign model file whose weights are not known by name: SHA-256 of the whole file and of
/// how a picture becomes its input.
pub fn fingerprint_of_file(bytes: &[u8], input: &InputSpec) -> String {
    let mut hash = Sha256::new();
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
    finish(hash, input)
}

fn finish(mut hash: Sha256, input: &InputSpec) -> String {
    let input = InputSpec {
        fixed_batch: None,
        ..input.clone()
    };
    hash.update(serde_json::to_vec(&input).expect("an input spec has string keys only"));
    hash.finalize()
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Graph;
    use crate::backbones::{Backbone, BackboneConfig};

    /// A narrow network and weights for it, for tests of names, too.
    pub(crate) fn small() -> (Graph, Weights) {
        let graph = BackboneConfig {
            backbone: Backbone::Resnet18,
            width: 4,
            height: 64,
            input_width: 32,
            ..Default::default()
        }
        .build()
        .unwrap();
        let tensors = graph
            .params
            .iter()
            .map(|p| {
                let n = p.shape.iter().product();
                (p.name.clone(), (p.shape.clone(), vec![0.5; n]))
            })
            .collect();
        (graph, Weights { tensors })
    }

    #[test]
    fn survives_a_file_and_reads_half_precision() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let (_, weights) = small();
        weights.write(&path).unwrap();
        assert_eq!(Weights::read(&path).unwrap(), weights);

        let f16: Vec<u8> = [1.5f32, -2.0]
            .iter()
            .flat_map(|&x| half::f16::from_f32(x).to_le_bytes())
            .collect();
        let bf16: Vec<u8> = [0.25f32, 3.0]
            .iter()
            .flat_map(|&x| half::bf16::from_f32(x).to_le_bytes())
            .collect();
        let counter = 7i64.to_le_bytes();
        let views = [
            ("a", TensorView::new(Dtype::F16, vec![2], &f16).unwrap()),
            (
                "b",
                TensorView::new(Dtype::BF16, vec![1, 2], &bf16).unwrap(),
            ),
            (
                "bn1.num_batches_tracked",
                TensorView::new(Dtype::I64, vec![], &counter).unwrap(),
            ),
        ];
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        let read = Weights::read(&path).unwrap();
        assert_eq!(read.tensors["a"], (vec![2], vec![1.5, -2.0]));
        assert_eq!(read.tensors["b"], (vec![1, 2], vec![0.25, 3.0]));
        assert_eq!(read.tensors.len(), 2);
    }

    #[test]
    fn bad_files_name_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights.safetensors");
        assert!(
            Weights::read(&path)
                .unwrap_err()
                .to_string()
                .contains("weights.safetensors")
        );
        std::fs::write(&path, b"not this").unwrap();
        let err = Weights::read(&path).unwrap_err();
        assert!(matches!(err, WeightsError::Format { .. }), "{err}");
        let ints = [0u8; 8];
        let view = [(
            "labels",
            TensorView::new(Dtype::I64, vec![1], &ints).unwrap(),
        )];
        std::fs::write(&path, safetensors::serialize(view, None).unwrap()).unwrap();
        let err = Weights::read(&path).unwrap_err().to_string();
        assert!(err.contains("labels") && err.contains("I64"), "{err}");
    }

    #[test]
    fn the_fingerprint_sees_weights_and_input_but_not_the_batch() {
        let (_, weights) = small();
        let input = InputSpec::imagenet(64, 32);
        let print = fingerprint(&weights, &input);
        assert_eq!(print.len(), 64);
        let fixed = InputSpec {
            fixed_batch: Some(4),
            ..input.clone()
        };
        assert_eq!(fingerprint(&weights, &fixed), print);
        assert_ne!(fingerprint(&weights, &InputSpec::imagenet(128, 64)), print);
        let mut other = weights.clone();
        other.tensors.get_mut("bn1.bias").unwrap().1[0] += 1e-6;
        assert_ne!(fingerprint(&other, &input), print);
    }
}
