//! What stands in an ONNX file, read without running it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Message as _;
use prost::bytes::Bytes;

use super::RuntimeError;
use super::proto::{DataType, DimensionValue, ModelProto, ValueInfoProto};
use crate::card::{CardError, METADATA_KEY, ModelCard, OutputSpec, PROBE_KEY};
use crate::files;

/// Length of an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Always this long.
    Fixed(usize),
    /// Any length; the file's name for it, or "?".
    Dynamic(String),
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Axis::Fixed(n) => write!(f, "{n}"),
            Axis::Dynamic(name) => f.write_str(name),
        }
    }
}

/// An input or output of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Name.
    pub name: String,
    /// Element type; `Undefined` if it isn't a tensor.
    pub element: DataType,
    /// Shape with the batch axis; `None` if the file doesn't say.
    pub shape: Option<Vec<Axis>>,
}

impl TensorInfo {
    /// "[batch, 3, 256, 128]", or "of unknown shape".
    pub fn shape_text(&self) -> String {
        match &self.shape {
            Some(axes) => {
                let axes: Vec<String> = axes.iter().map(Axis::to_string).collect();
                format!("[{}]", axes.join(", "))
            }
            None => "of unknown shape".into(),
        }
    }
}

/// An ONNX file's description of itself.
#[derive(Clone, Debug)]
pub struct OnnxFile {
    /// Version of the format.
    pub ir_version: i64,
    /// Version of ONNX's own operator set.
    pub opset: i64,
    /// Program that wrote it, with its version.
    pub producer: String,
    /// Inputs, weights left out.
    pub inputs: Vec<TensorInfo>,
    /// Outputs.
    pub outputs: Vec<TensorInfo>,
    /// Number of operators.
    pub nodes: usize,
    /// Number of weight elements stored as tensors.
    pub weight_elements: usize,
    /// Size of the file.
    pub bytes: u64,
    /// `metadata_props`.
    pub metadata: BTreeMap<String, String>,
    /// Whether values are quantised by the file itself: it has QuantizeLinear nodes.
    pub quantized: bool,
    /// Whether weights lie in other files beside this one.
    pub external: bool,
}

/// A file that cannot be read as ONNX.
#[derive(Debug, thiserror::Error)]
pub enum OnnxFileError {
    /// Cannot be read.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// Something else, or cut short.
    #[error("{path}: not an ONNX file, or a truncated one: {reason}")]
    NotOnnx {
        /// File.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
}

impl From<OnnxFileError> for CardError {
    fn from(error: OnnxFileError) -> Self {
        match error {
            OnnxFileError::File(e) => CardError::File(e),
            OnnxFileError::NotOnnx { path, reason } => CardError::NotOnnx { path, reason },
        }
    }
}

impl OnnxFile {
    /// Reads the description.
    ///
    /// # Errors
    /// If the file can't be read, isn't ONNX, or is cut short.
    pub fn read(path: &Path) -> Result<Self, OnnxFileError> {
        Self::parse(files::read(path)?, path)
    }

    /// Reads the description from a file's bytes; `path` is named in errors.
    ///
    /// # Errors
    /// If the bytes aren't ONNX, or are cut short.
    pub fn parse(bytes: Vec<u8>, path: &Path) -> Result<Self, OnnxFileError> {
        let fail = |reason: String| OnnxFileError::NotOnnx {
            path: path.to_path_buf(),
            reason,
        };
        let size = bytes.len() as u64;
        // `Bytes` lets the weights be slices of the file instead of copies.
        let bytes = Bytes::from(bytes);
        let external = WeightPlaces::decode(bytes.clone()).is_ok_and(|p| p.any_external());
        let model = ModelProto::decode(bytes).map_err(|e| fail(e.to_string()))?;
        let graph = model
            .graph
            .ok_or_else(|| fail("it holds no graph".into()))?;
        if model.ir_version < 1 || graph.node.is_empty() || graph.output.is_empty() {
            return Err(fail(format!(
                "IR version {}, {} nodes, {} outputs",
                model.ir_version,
                graph.node.len(),
                graph.output.len()
            )));
        }
        let weights: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
        let elements = |dims: &[i64]| {
            dims.iter().fold(1usize, |n, &d| {
                n.saturating_mul(usize::try_from(d).unwrap_or(0))
            })
        };
        Ok(OnnxFile {
            ir_version: model.ir_version,
            opset: model
                .opset_import
                .iter()
                .filter(|o| o.domain.is_empty() || o.domain == "ai.onnx")
                .map(|o| o.version)
                .max()
                .unwrap_or(0),
            producer: format!("{} {}", model.producer_name, model.producer_version)
                .trim()
                .to_string(),
            inputs: graph
                .input
                .iter()
                .filter(|v| !weights.contains(v.name.as_str()))
                .map(tensor_info)
                .collect(),
            outputs: graph.output.iter().map(tensor_info).collect(),
            quantized: graph
                .node
                .iter()
                .any(|n| n.op_type == "QuantizeLinear" || n.op_type == "DequantizeLinear"),
            external,
            nodes: graph.node.len(),
            weight_elements: graph.initializer.iter().map(|t| elements(&t.dims)).sum(),
            bytes: size,
            metadata: model
                .metadata_props
                .into_iter()
                .map(|p| (p.key, p.value))
                .collect(),
        })
    }

    /// The card: from the metadata, else from beside the file.
    ///
    /// # Errors
    /// If there is none, or it isn't one.
    pub fn card(&self, path: &Path) -> Result<ModelCard, CardError> {
        if let Some(text) = self.metadata.get(METADATA_KEY) {
            return ModelCard::from_json(text, path);
        }
        let beside = ModelCard::path_beside(path);
        if beside.exists() {
            ModelCard::read(&beside)
        } else {
            Err(CardError::Missing {
                model: path.to_path_buf(),
                beside,
            })
        }
    }

    /// The trainer's embeddings of the probe's crops, row by row; `None` if the file carries none.
    ///
    /// # Errors
    /// [`RuntimeError::Probe`] if what it carries can't be read.
    pub fn probe(&self, path: &Path) -> Result<Option<Vec<Vec<f32>>>, RuntimeError> {
        let Some(text) = self.metadata.get(PROBE_KEY) else {
            return Ok(None);
        };
        let fail = |reason: String| RuntimeError::Probe {
            path: path.to_path_buf(),
            reason,
        };
        let OutputSpec::Embed { width, .. } = self.card(path)?.output else {
            return Err(fail("the card's task is not `embed`".into()));
        };
        decode_probe(text, width).map(Some).map_err(fail)
    }
}

/// Rows of embeddings as the metadata's text: base64 of little-endian f32, row by row.
pub fn encode_probe(embeddings: &[Vec<f32>]) -> String {
    let bytes: Vec<u8> = embeddings
        .iter()
        .flatten()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    BASE64.encode(bytes)
}

fn decode_probe(text: &str, width: usize) -> Result<Vec<Vec<f32>>, String> {
    let bytes = BASE64.decode(text).map_err(|e| e.to_string())?;
    let (values, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() || values.is_empty() || !values.len().is_multiple_of(width) {
        return Err(format!(
            "{} bytes are no whole rows of {width} numbers",
            bytes.len()
        ));
    }
    let values: Vec<f32> = values.iter().map(|&b| f32::from_le_bytes(b)).collect();
    Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
}

/// As much of a model as says where its weights lie; everything else is skipped.
#[derive(Clone, PartialEq, prost::Message)]
struct WeightPlaces {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphPlaces>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GraphPlaces {
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorPlace>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TensorPlace {
    /// 0: in the file, 1: in another one.
    #[prost(int32, tag = "14")]
    data_location: i32,
}

impl WeightPlaces {
    fn any_external(&self) -> bool {
        let weights = self.graph.iter().flat_map(|g| &g.initializer);
        weights.into_iter().any(|w| w.data_location != 0)
    }
}

fn tensor_info(value: &ValueInfoProto) -> TensorInfo {
    let tensor = value.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let axis = |value: &Option<DimensionValue>| match value {
        Some(DimensionValue::DimValue(n)) if *n > 0 => Axis::Fixed(*n as usize),
        Some(DimensionValue::DimParam(name)) if !name.is_empty() => Axis::Dynamic(name.clone()),
        _ => Axis::Dynamic("?".into()),
    };
    TensorInfo {
        name: value.name.clone(),
        element: tensor
            .and_then(|t| DataType::try_from(t.elem_type).ok())
            .unwrap_or(DataType::Undefined),
        shape: tensor
            .and_then(|t| t.shape.as_ref())
            .map(|s| s.dim.iter().map(|d| axis(&d.value)).collect()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_probe_survives_its_text() {
        let rows = vec![vec![0.25, -1.5e-7, 3.0], vec![f32::MIN_POSITIVE, 0.0, -0.0]];
        assert_eq!(decode_probe(&encode_probe(&rows), 3).unwrap(), rows);
        assert!(decode_probe(&encode_probe(&rows), 4).is_err());
        assert!(decode_probe("not base64!", 3).is_err());
        assert!(decode_probe("", 3).is_err());
    }

    #[test]
    fn weights_elsewhere_are_seen() {
        let places = |data_location| {
            let initializer = vec![
                TensorPlace { data_location: 0 },
                TensorPlace { data_location },
            ];
            let graph = Some(GraphPlaces { initializer });
            WeightPlaces { graph }.any_external()
        };
        assert!(places(1) && !places(0));
    }

    #[test]
    fn what_is_no_onnx_file_names_itself() {
        let path = Path::new("model.onnx");
        for bytes in [&b""[..], b"hello, I am a text file", &[0u8; 64]] {
            let err = OnnxFile::parse(bytes.to_vec(), path).unwrap_err();
            assert!(err.to_string().starts_with("model.onnx: not an ONNX file"));
        }
        let err = OnnxFile::read(Path::new("/nowhere/model.onnx")).unwrap_err();
        assert!(err.to_string().contains("/nowhere/model.onnx"), "{err}");
    }
}
