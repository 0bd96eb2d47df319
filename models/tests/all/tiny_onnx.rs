//! The smallest ONNX files that test a runtime: one or two operators, written in the test itself.

use std::path::{Path, PathBuf};

use prost::Message as _;
use reid_models::card::{METADATA_KEY, ModelCard};
use reid_models::runtime::proto::{
    AttributeProto, AttributeType, DataType, Dimension, DimensionValue, GraphProto, ModelProto,
    NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto,
};

/// An axis: a length, or 0 for the symbolic batch.
pub(crate) type Shape<'a> = &'a [usize];

/// A file that is built up by operators.
pub(crate) struct Tiny {
    graph: GraphProto,
    last: String,
}

impl Tiny {
    pub(crate) fn new(input: Shape, element: DataType) -> Self {
        let graph = GraphProto {
            name: "tiny".into(),
            input: vec![value("x", input, element)],
            ..Default::default()
        };
        Tiny {
            graph,
            last: "x".into(),
        }
    }

    /// A second input.
    pub(crate) fn input(mut self, name: &str, shape: Shape) -> Self {
        self.graph.input.push(value(name, shape, DataType::Float));
        self
    }

    /// An operator of one input after the last one, with integer attributes.
    pub(crate) fn op(mut self, op: &str, attributes: &[(&str, &[i64])]) -> Self {
        let output = format!("{op}{}", self.graph.node.len());
        let attribute = attributes
            .iter()
            .map(|(name, values)| match values {
                [one] if *name != "axes" && *name != "perm" => AttributeProto {
                    name: (*name).into(),
                    i: Some(*one),
                    r#type: AttributeType::Int as i32,
                    ..Default::default()
                },
                _ => AttributeProto {
                    name: (*name).into(),
                    ints: values.to_vec(),
                    r#type: AttributeType::Ints as i32,
                    ..Default::default()
                },
            })
            .collect();
        self.graph.node.push(NodeProto {
            input: vec![self.last.clone()],
            output: vec![output.clone()],
            name: output.clone(),
            op_type: op.into(),
            attribute,
            domain: String::new(),
        });
        self.last = output;
        self
    }

    /// Global average per channel of an (N, C, H, W) tensor as (N, C).
    pub(crate) fn pooled(self) -> Self {
        self.op("GlobalAveragePool", &[])
            .op("Flatten", &[("axis", &[1])])
    }

    /// Names the last tensor "y" and writes the file, with the card inside if there is one.
    pub(crate) fn write(
        mut self,
        folder: &Path,
        output: Shape,
        card: Option<&ModelCard>,
    ) -> PathBuf {
        let last = self.graph.node.last_mut().unwrap();
        last.output = vec!["y".into()];
        self.graph.output = vec![value("y", output, DataType::Float)];
        let model = ModelProto {
            ir_version: 8,
            producer_name: "tiny".into(),
            graph: Some(self.graph),
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: 17,
            }],
            metadata_props: card
                .map(|card| StringStringEntryProto {
                    key: METADATA_KEY.into(),
                    value: card.to_json(),
                })
                .into_iter()
                .collect(),
            ..Default::default()
        };
        let path = folder.join("tiny.onnx");
        std::fs::write(&path, model.encode_to_vec()).unwrap();
        path
    }
}

fn value(name: &str, shape: Shape, element: DataType) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|&n| Dimension {
            value: Some(match n {
                0 => DimensionValue::DimParam("batch".into()),
                n => DimensionValue::DimValue(n as i64),
            }),
        })
        .collect();
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: element as i32,
                shape: Some(TensorShapeProto { dim }),
            }),
        }),
    }
}
