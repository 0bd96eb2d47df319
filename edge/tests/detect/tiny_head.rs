//! The smallest ONNX files that answer like a detector: every number of every output is a constant plus a weighted mean of
//! the picture's channels.

use std::path::{Path, PathBuf};

use prost::Message as _;
use reid_edge::detect::OnnxOptions;
use reid_edge::types::Frame;
use reid_models::ModelCard;
use reid_models::card::{CARD_VERSION, Decode, Element, Fit, InputSpec, Layout, OutputSpec, Range};
use reid_models::runtime::proto::{
    AttributeProto, AttributeType, DataType, Dimension, DimensionValue, GraphProto, ModelProto,
    NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    ValueInfoProto,
};
use reid_models::runtime::{Backend, RuntimeConfig, library};

/// One output.
pub(crate) struct Output {
    pub name: &'static str,
    /// Shape as given to the graph: 0 for the batch, -1 for what is left over.
    pub shape: Vec<i64>,
    /// Constant numbers of one picture.
    pub numbers: Vec<f32>,
    /// (number, channel, weight): adds the weighted mean of a channel of the input tensor.
    pub weights: Vec<(usize, usize, f32)>,
    /// Whether it comes out as whole numbers.
    pub integer: bool,
    /// Shape that the file declares instead, 0 for an axis it leaves open.
    pub declared: Option<Vec<i64>>,
}

impl Output {
    pub(crate) fn new(name: &'static str, shape: &[i64], numbers: &[f32]) -> Self {
        Output {
            name,
            shape: shape.to_vec(),
            numbers: numbers.to_vec(),
            weights: Vec::new(),
            integer: false,
            declared: None,
        }
    }
}

/// The input: (height, width), how many pictures (0: any), and its form.
pub(crate) struct Input {
    pub size: (usize, usize),
    pub batch: usize,
    pub bytes_nhwc: bool,
}

/// Writes the file and its card.
pub(crate) fn write(
    folder: &Path,
    input: &Input,
    outputs: &[Output],
    decode: Decode,
    person_class: usize,
    fit: Fit,
) -> PathBuf {
    let path = folder.join("tiny.onnx");
    std::fs::write(&path, model(input, outputs).encode_to_vec()).unwrap();
    let (layout, element) = match input.bytes_nhwc {
        true => (Layout::Nhwc, Element::U8),
        false => (Layout::Nchw, Element::F32),
    };
    let card = ModelCard {
        version: CARD_VERSION,
        name: "tiny".into(),
        input: InputSpec {
            fit,
            layout,
            element,
            range: Range::Byte,
            mean: [0.0; 3],
            std: [1.0; 3],
            fixed_batch: (input.batch > 0).then_some(input.batch),
            ..InputSpec::imagenet(input.size.0, input.size.1)
        },
        output: OutputSpec::Detect {
            tensor: None,
            decode,
            person_class,
        },
        training: None,
        license: None,
        toolkit: "test".into(),
        thresholds: Default::default(),
        fingerprint: "tiny".into(),
    };
    card.write(&ModelCard::path_beside(&path)).unwrap();
    path
}

fn model(input: &Input, outputs: &[Output]) -> ModelProto {
    let (h, w) = (input.size.0 as i64, input.size.1 as i64);
    let batch = input.batch as i64;
    let mut graph = GraphProto {
        name: "tiny".into(),
        ..Default::default()
    };
    let mut last = "x".to_string();
    if input.bytes_nhwc {
        graph
            .input
            .push(value("x", &[batch, h, w, 3], DataType::Uint8));
        last = op(
            &mut graph,
            "Cast",
            &[&last],
            &[("to", &[DataType::Float as i64])],
        );
        last = op(
            &mut graph,
            "Transpose",
            &[&last],
            &[("perm", &[0, 3, 1, 2])],
        );
    } else {
        graph
            .input
            .push(value("x", &[batch, 3, h, w], DataType::Float));
    }
    let means = op(&mut graph, "GlobalAveragePool", &[&last], &[]);
    let means = op(&mut graph, "Flatten", &[&means], &[("axis", &[1])]);
    for output in outputs {
        let n = output.numbers.len();
        let mut weights = vec![0f32; 3 * n];
        for &(number, channel, weight) in &output.weights {
            weights[channel * n + number] = weight;
        }
        let name = |part: &str| format!("{}.{part}", output.name);
        let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut constant = |name: String, dims: Vec<i64>, data_type: DataType, raw: Vec<u8>| {
            graph.initializer.push(TensorProto {
                dims,
                data_type: data_type as i32,
                name: name.clone(),
                raw_data: raw.into(),
            });
            name
        };
        let w = constant(
            name("w"),
            vec![3, n as i64],
            DataType::Float,
            floats(&weights),
        );
        let b = constant(
            name("b"),
            vec![n as i64],
            DataType::Float,
            floats(&output.numbers),
        );
        let shape: Vec<u8> = output.shape.iter().flat_map(|v| v.to_le_bytes()).collect();
        let rank = vec![output.shape.len() as i64];
        let shape = constant(name("shape"), rank, DataType::Int64, shape);
        let flat = op(&mut graph, "Gemm", &[&means, &w, &b], &[]);
        let mut made = op(&mut graph, "Reshape", &[&flat, &shape], &[]);
        if output.integer {
            made = op(
                &mut graph,
                "Cast",
                &[&made],
                &[("to", &[DataType::Int64 as i64])],
            );
        }
        let node = graph.node.last_mut().unwrap();
        assert_eq!(node.output, [made]);
        node.output = vec![output.name.into()];
        let element = match output.integer {
            true => DataType::Int64,
            false => DataType::Float,
        };
        let declared = output.declared.clone().unwrap_or_else(|| {
            let axis = |&n: &i64| match n {
                0 => batch,
                n => n.max(0),
            };
            output.shape.iter().map(axis).collect()
        });
        graph.output.push(value(output.name, &declared, element));
    }
    ModelProto {
        ir_version: 8,
        producer_name: "tiny".into(),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        ..Default::default()
    }
}

/// Adds an operator; returns its output's name.
fn op(
    graph: &mut GraphProto,
    op_type: &str,
    inputs: &[&str],
    attributes: &[(&str, &[i64])],
) -> String {
    let name = format!("{op_type}{}", graph.node.len());
    let attribute = attributes
        .iter()
        .map(|(name, values)| match values {
            [one] => AttributeProto {
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
    graph.node.push(NodeProto {
        input: inputs.iter().map(|i| i.to_string()).collect(),
        output: vec![name.clone()],
        name: name.clone(),
        op_type: op_type.into(),
        attribute,
        domain: String::new(),
    });
    name
}

fn value(name: &str, shape: &[i64], element: DataType) -> ValueInfoProto {
    let dim = shape
        .iter()
        .enumerate()
        .map(|(axis, &n)| Dimension {
            value: Some(match n {
                0 => DimensionValue::DimParam(if axis == 0 { "batch" } else { "n" }.into()),
                n => DimensionValue::DimValue(n),
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

/// The engines at hand, the missing one told by name.
pub(crate) fn engines(test: &str) -> Vec<RuntimeConfig> {
    let on = |backend| RuntimeConfig {
        backend,
        ..Default::default()
    };
    if library::find(None).unwrap().is_some() {
        vec![on(Backend::Tract), on(Backend::OnnxRuntime)]
    } else {
        println!("skipped: {test} in ONNX Runtime (no library)");
        vec![on(Backend::Tract)]
    }
}

/// The settings of the goldens.
pub(crate) fn options(runtime: RuntimeConfig) -> OnnxOptions {
    OnnxOptions {
        score: 0.3,
        nms: 0.45,
        min_height: 0.0,
        classes: None,
        runtime,
    }
}

/// A frame of one colour.
pub(crate) fn frame(camera: usize, (width, height): (usize, usize), colour: [u8; 3]) -> Frame {
    let picture = image::RgbImage::from_pixel(width as u32, height as u32, image::Rgb(colour));
    Frame {
        camera,
        number: 1,
        time: 0.0,
        clock_base: None,
        arrived: std::time::Instant::now(),
        captured: None,
        picture: std::sync::Arc::new(picture.into()),
    }
}
