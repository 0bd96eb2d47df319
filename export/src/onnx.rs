//! A folded network as an ONNX model.
//!
//! Operators are those of opset 17, so that TensorRT 8.6 and every ONNX Runtime since 1.12 take the file; opset 18 moved
//! the axes of `ReduceL2` from an attribute to an input, which is the only difference up to opset 21.

mod tokens;

use std::path::Path;

use prost::Message as _;
use prost::bytes::Bytes;
use reid_models::ModelCard;
use reid_models::card::{InputSpec, METADATA_KEY, PROBE_KEY};
use reid_models::probe::Probe;
use reid_models::runtime::file::encode_probe;
use reid_models::runtime::proto::{
    AttributeProto, AttributeType, DataType, Dimension, DimensionValue, GraphProto, ModelProto,
    NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};

use crate::ExportError;
use crate::fold::{Folded, FoldedNode, FoldedOp};

/// Name of the input tensor.
pub const INPUT: &str = "images";
/// Name of the output tensor.
pub const OUTPUT: &str = "embedding";
/// Name of the batch axis in a file that takes any number of pictures.
pub const BATCH: &str = "batch";
/// Operator sets that are written.
pub const OPSETS: std::ops::RangeInclusive<i64> = 17..=21;

/// The format's version that came with an operator set.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=18 => 8,
        19 | 20 => 9,
        _ => 10,
    }
}

/// What goes into a file besides the network.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// The card as it shall stand in the file; its `input.fixed_batch` decides the batch axis.
    pub card: &'a ModelCard,
    /// The trainer's embeddings.
    pub probe: &'a Probe,
    /// Width of the embedding.
    pub width: usize,
    /// Operator set, one of [`OPSETS`].
    pub opset: i64,
}

/// Builds the model: input [`INPUT`] (N, 3, H, W) f32, output [`OUTPUT`] (N, D) of unit rows, card and probe in the
/// metadata.
///
/// # Errors
/// If the operator set is not one of [`OPSETS`], or a weight is not finite.
pub fn build(folded: &Folded, content: &Content) -> Result<ModelProto, ExportError> {
    if !OPSETS.contains(&content.opset) {
        return Err(ExportError::Value(format!(
            "--opset must be between {} and {}, got {}",
            OPSETS.start(),
            OPSETS.end(),
            content.opset
        )));
    }
    let mut writer = Writer {
        output: &folded.output,
        opset: content.opset,
        nodes: Vec::new(),
        weights: Vec::new(),
    };
    for node in &folded.nodes {
        writer.node(node)?;
    }
    let InputSpec {
        height,
        width,
        fixed_batch,
        ..
    } = content.card.input;
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: key.into(),
        value,
    };
    Ok(ModelProto {
        ir_version: ir_version(content.opset),
        producer_name: "reid-export".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: format!(
            "Person re-identification embedding, {height} x {width} pixels (height x width) to {} numbers of unit length. \
             The metadata key {METADATA_KEY} says how a picture becomes the input.",
            content.width
        ),
        graph: Some(GraphProto {
            node: writer.nodes,
            name: content.card.name.clone(),
            initializer: writer.weights,
            doc_string: String::new(),
            input: vec![value_info(INPUT, fixed_batch, &[3, height, width])],
            output: vec![value_info(OUTPUT, fixed_batch, &[content.width])],
        }),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: content.opset,
        }],
        metadata_props: vec![
            entry(METADATA_KEY, content.card.to_json()),
            entry(PROBE_KEY, encode_probe(&content.probe.embeddings)),
        ],
    })
}

/// The model as a file's bytes.
///
/// # Errors
/// If it is larger than the 2 GiB that the format's messages can hold.
pub fn encode(model: &ModelProto, path: &Path) -> Result<Vec<u8>, ExportError> {
    const LIMIT: usize = i32::MAX as usize;
    let size = model.encoded_len();
    if size > LIMIT {
        return Err(ExportError::Value(format!(
            "{} would have {size} bytes, an ONNX file holds at most {LIMIT}: train a smaller network",
            path.display()
        )));
    }
    Ok(model.encode_to_vec())
}

fn value_info(name: &str, fixed_batch: Option<usize>, sample: &[usize]) -> ValueInfoProto {
    let fixed = |n: usize| DimensionValue::DimValue(n as i64);
    let batch = fixed_batch.map_or_else(|| DimensionValue::DimParam(BATCH.into()), fixed);
    let axes = std::iter::once(batch).chain(sample.iter().map(|&n| fixed(n)));
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: DataType::Float as i32,
                shape: Some(TensorShapeProto {
                    dim: axes.map(|value| Dimension { value: Some(value) }).collect(),
                }),
            }),
        }),
    }
}

struct Writer<'a> {
    /// The graph's tensor that becomes [`OUTPUT`].
    output: &'a str,
    opset: i64,
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
}

impl Writer<'_> {
    /// Name of a graph tensor in the file. The graph's own "images" and "embedding" keep their names; a tensor that
    /// bears [`OUTPUT`]'s name without being the output steps aside.
    fn tensor(&self, name: &str) -> String {
        if name == self.output {
            OUTPUT.into()
        } else if name == OUTPUT {
            format!("{name}.inner")
        } else {
            name.into()
        }
    }

    fn node(&mut self, node: &FoldedNode) -> Result<(), ExportError> {
        let inputs: Vec<String> = node.inputs.iter().map(|n| self.tensor(n)).collect();
        let output = self.tensor(&node.name);
        let name = node.name.as_str();
        match &node.op {
            FoldedOp::Conv {
                shape,
                weight,
                bias,
                stride,
                padding: [top, left],
                dilation,
                groups,
            } => {
                let mut inputs = inputs;
                inputs.push(self.weight(&format!("{name}.weight"), shape, weight)?);
                if let Some(bias) = bias {
                    inputs.push(self.weight(&format!("{name}.bias"), &[bias.len()], bias)?);
                }
                let attributes = vec![
                    ints("dilations", dilation),
                    int("group", *groups as i64),
                    ints("kernel_shape", &shape[2..]),
                    ints("pads", &[*top, *left, *top, *left]),
                    ints("strides", stride),
                ];
                self.push(name, "Conv", inputs, output, attributes);
            }
            FoldedOp::Linear {
                shape,
                weight,
                bias,
            } => {
                let mut inputs = inputs;
                inputs.push(self.weight(&format!("{name}.weight"), shape, weight)?);
                if let Some(bias) = bias {
                    inputs.push(self.weight(&format!("{name}.bias"), &[bias.len()], bias)?);
                }
                self.push(name, "Gemm", inputs, output, vec![int("transB", 1)]);
            }
            FoldedOp::Affine { scale, shift, map } => {
                let n = scale.len();
                let shape: &[usize] = if *map { &[n, 1, 1] } else { &[n] };
                let scale = self.weight(&format!("{name}.scale"), shape, scale)?;
                let shift = self.weight(&format!("{name}.shift"), shape, shift)?;
                let scaled = self.step(name, "Mul", vec![inputs[0].clone(), scale]);
                self.push(name, "Add", vec![scaled, shift], output, vec![]);
            }
            FoldedOp::InstanceNorm { weight, bias, eps } => {
                let mut inputs = inputs;
                let shape = [weight.len()];
                inputs.push(self.weight(&format!("{name}.weight"), &shape, weight)?);
                inputs.push(self.weight(&format!("{name}.bias"), &shape, bias)?);
                let attributes = vec![float("epsilon", *eps)];
                self.push(name, "InstanceNormalization", inputs, output, attributes);
            }
            FoldedOp::Narrow { axis, start, len } => {
                let mut inputs = inputs;
                // The batch comes first in the file.
                let bounds = [
                    ("starts", *start),
                    ("ends", start + len),
                    ("axes", axis + 1),
                ];
                for (what, value) in bounds {
                    inputs.push(self.integers(&format!("{name}.{what}"), &[value as i64]));
                }
                self.push(name, "Slice", inputs, output, vec![]);
            }
            FoldedOp::Concat { axis } => {
                let attributes = vec![int("axis", *axis as i64 + 1)];
                self.push(name, "Concat", inputs, output, attributes);
            }
            FoldedOp::Relu => self.push(name, "Relu", inputs, output, vec![]),
            FoldedOp::Add => self.push(name, "Add", inputs, output, vec![]),
            FoldedOp::MaxPool {
                kernel,
                stride,
                padding: [top, left],
            } => {
                let attributes = vec![
                    ints("kernel_shape", kernel),
                    ints("pads", &[*top, *left, *top, *left]),
                    ints("strides", stride),
                ];
                self.push(name, "MaxPool", inputs, output, attributes);
            }
            FoldedOp::GlobalAvgPool => {
                let pooled = self.step(name, "GlobalAveragePool", inputs);
                self.flatten(name, pooled, output);
            }
            FoldedOp::GlobalMaxPool => {
                let pooled = self.step(name, "GlobalMaxPool", inputs);
                self.flatten(name, pooled, output);
            }
            FoldedOp::GemPool { p, eps } => {
                let eps = self.weight(&format!("{name}.eps"), &[], &[*eps])?;
                let power = self.weight(&format!("{name}.p"), &[], &[*p])?;
                let root = self.weight(&format!("{name}.1/p"), &[], &[1.0 / p])?;
                let clipped = self.step(name, "Clip", vec![inputs[0].clone(), eps]);
                let raised = self.step(name, "Pow", vec![clipped, power]);
                let mean = self.step(name, "GlobalAveragePool", vec![raised]);
                let rooted = self.step(&format!("{name}.root"), "Pow", vec![mean, root]);
                self.flatten(name, rooted, output);
            }
            FoldedOp::L2Normalize { eps } => {
                let eps = self.weight(&format!("{name}.eps"), &[], &[*eps])?;
                let mut norm_inputs = vec![inputs[0].clone()];
                let mut attributes = vec![int("keepdims", 1)];
                if self.opset >= 18 {
                    norm_inputs.push(self.integers(&format!("{name}.axes"), &[1]));
                } else {
                    attributes.push(ints("axes", &[1]));
                }
                let norm = format!("{name}.ReduceL2");
                self.push(
                    &norm.clone(),
                    "ReduceL2",
                    norm_inputs,
                    norm.clone(),
                    attributes,
                );
                let bounded = self.step(name, "Clip", vec![norm, eps]);
                self.push(
                    name,
                    "Div",
                    vec![inputs[0].clone(), bounded],
                    output,
                    vec![],
                );
            }
            FoldedOp::Sigmoid => self.push(name, "Sigmoid", inputs, output, vec![]),
            FoldedOp::Scale => {
                let shape = self.integers(&format!("{name}.shape"), &[0, -1, 1, 1]);
                let factors = self.step(name, "Reshape", vec![inputs[1].clone(), shape]);
                let both = vec![inputs[0].clone(), factors];
                self.push(name, "Mul", both, output, vec![]);
            }
            op => return self.token_node(name, op, inputs, output),
        }
        Ok(())
    }

    /// (N, C, 1, 1) to (N, C).
    fn flatten(&mut self, name: &str, input: String, output: String) {
        self.push(name, "Flatten", vec![input], output, vec![int("axis", 1)]);
    }

    /// A node between two others of one operator; its tensor is named after node and operator.
    fn step(&mut self, name: &str, op: &str, inputs: Vec<String>) -> String {
        let tensor = format!("{name}.{op}");
        self.push(&tensor, op, inputs, tensor.clone(), vec![]);
        tensor
    }

    fn push(
        &mut self,
        name: &str,
        op: &str,
        input: Vec<String>,
        output: String,
        attribute: Vec<AttributeProto>,
    ) {
        self.nodes.push(NodeProto {
            input,
            output: vec![output],
            name: name.into(),
            op_type: op.into(),
            attribute,
            domain: String::new(),
        });
    }

    fn weight(&mut self, name: &str, shape: &[usize], data: &[f32]) -> Result<String, ExportError> {
        if let Some(value) = data.iter().find(|v| !v.is_finite()) {
            return Err(ExportError::Value(format!(
                "the folded tensor `{name}` holds {value}: the run has diverged, train it again with a lower learning rate"
            )));
        }
        self.weights.push(TensorProto {
            dims: shape.iter().map(|&n| n as i64).collect(),
            data_type: DataType::Float as i32,
            name: name.into(),
            raw_data: Bytes::from_iter(data.iter().flat_map(|v| v.to_le_bytes())),
        });
        Ok(name.into())
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.weights.push(TensorProto {
            dims: vec![values.len() as i64],
            data_type: DataType::Int64 as i32,
            name: name.into(),
            raw_data: Bytes::from_iter(values.iter().flat_map(|v| v.to_le_bytes())),
        });
        name.into()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i: Some(value),
        r#type: AttributeType::Int as i32,
        ..Default::default()
    }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        f: Some(value),
        r#type: AttributeType::Float as i32,
        ..Default::default()
    }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: values.iter().map(|&v| v as i64).collect(),
        r#type: AttributeType::Ints as i32,
        ..Default::default()
    }
}
