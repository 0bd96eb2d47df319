//! Memory of a session that runs for long with batches of changing size.

use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message as _;
use reid_models::ModelCard;
use reid_models::card::{InputSpec, METADATA_KEY};
use reid_models::runtime::RuntimeConfig;
use reid_models::runtime::proto::{
    AttributeProto, AttributeType, DataType, Dimension, DimensionValue, GraphProto, ModelProto,
    NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};

use super::{card, onnxruntime, opened};

/// Set in the process that measures itself.
const CHILD: &str = "REID_TEST_MEMORY";

/// A small convolutional network, 32 x 32 pixels to 64 numbers, with weights by `seed`.
pub(super) fn convolutions(folder: &Path, seed: u32) -> PathBuf {
    let mut state = seed;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5
    };
    let ints = |name: &str, values: &[i64]| AttributeProto {
        name: name.into(),
        ints: values.to_vec(),
        r#type: AttributeType::Ints as i32,
        ..Default::default()
    };
    let (mut node, mut initializer) = (Vec::new(), Vec::new());
    let mut last = "x".to_string();
    let mut op = |op: &str, input: Vec<String>, attribute: Vec<AttributeProto>| {
        let name = format!("t{}", node.len());
        node.push(NodeProto {
            input,
            output: vec![name.clone()],
            name: name.clone(),
            op_type: op.into(),
            attribute,
            domain: String::new(),
        });
        name
    };
    for (layer, [from, to, stride]) in [[3, 16, 1], [16, 32, 2], [32, 64, 2]]
        .into_iter()
        .enumerate()
    {
        let weights = format!("w{layer}");
        initializer.push(TensorProto {
            dims: vec![to, from, 3, 3],
            data_type: DataType::Float as i32,
            name: weights.clone(),
            raw_data: (0..to * from * 9)
                .flat_map(|_| (random() / from as f32).to_le_bytes())
                .collect::<Vec<u8>>()
                .into(),
        });
        let window = vec![
            ints("strides", &[stride, stride]),
            ints("pads", &[1, 1, 1, 1]),
        ];
        let convolved = op("Conv", vec![last, weights], window);
        last = op("Relu", vec![convolved], vec![]);
    }
    let pooled = op("GlobalAveragePool", vec![last], vec![]);
    op("Flatten", vec![pooled], vec![]);
    node.last_mut().unwrap().output = vec!["y".into()];
    let card = ModelCard {
        input: InputSpec::imagenet(32, 32),
        ..card(64)
    };
    let model = ModelProto {
        ir_version: 8,
        graph: Some(GraphProto {
            name: "convolutions".into(),
            node,
            initializer,
            input: vec![value("x", &[3, 32, 32])],
            output: vec![value("y", &[64])],
            ..Default::default()
        }),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        metadata_props: vec![StringStringEntryProto {
            key: METADATA_KEY.into(),
            value: card.to_json(),
        }],
        ..Default::default()
    };
    let path = folder.join("convolutions.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    path
}

/// A tensor of any batch.
fn value(name: &str, axes: &[i64]) -> ValueInfoProto {
    let batch = DimensionValue::DimParam("batch".into());
    let axes = axes.iter().map(|&n| DimensionValue::DimValue(n));
    let dim = std::iter::once(batch).chain(axes);
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: DataType::Float as i32,
                shape: Some(TensorShapeProto {
                    dim: dim.map(|value| Dimension { value: Some(value) }).collect(),
                }),
            }),
        }),
    }
}

/// Resident memory of this process, KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn two_thousand_batches_of_changing_size_take_no_more_memory_than_five_hundred() {
    let test = "two_thousand_batches_of_changing_size_take_no_more_memory_than_five_hundred";
    let Some(config) = onnxruntime(test) else {
        return;
    };
    if !Path::new("/proc/self/status").exists() {
        println!("skipped: {test} (no /proc)");
        return;
    }
    if std::env::var_os(CHILD).is_some() {
        measure(&config);
        return;
    }
    // In a process of its own: other tests of this one allocate meanwhile.
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("runtime::memory::{test}"),
            "--nocapture",
        ])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = text
        .lines()
        .find(|l| l.contains("resident"))
        .expect("it measured nothing");
    println!("{line}");
}

fn measure(config: &RuntimeConfig) {
    let dir = tempfile::tempdir().unwrap();
    let path = convolutions(dir.path(), 1);
    let mut session = opened(&path, config).unwrap();
    let len = 3 * 32 * 32;
    let input = vec![0.5; 8 * len];
    let mut state = 7u32;
    let mut sizes = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize % 8 + 1
    };
    let mut seen = 0;
    let mut run = |times: usize| {
        for _ in 0..times {
            let n = sizes();
            session
                .run_with(n, &input[..n * len], &mut |outputs| {
                    seen += outputs[0].shape[0]
                })
                .unwrap();
        }
        resident()
    };
    let early = run(500);
    let late = run(1500);
    assert!(seen > 2000 * 4, "{seen} pictures");
    println!("resident after 500 runs {early} KiB, after 2000 runs {late} KiB");
    // A leak of one picture's input per run would be 18 MiB.
    assert!(late < early + 1024, "{early} KiB, then {late} KiB");
}
