//! Cards of detectors: every family by a file that gives the same numbers for every picture.

use std::path::{Path, PathBuf};

use prost::Message as _;
use reid_export::adopt::{AdoptOptions, Task, adopt};
use reid_models::ModelCard;
use reid_models::card::head::{P5, P6, cells};
use reid_models::card::{Decode, Fit, OutputSpec};
use reid_models::runtime::proto::{
    AttributeProto, AttributeType, DataType, Dimension, DimensionValue, GraphProto, ModelProto,
    NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    ValueInfoProto,
};
use reid_models::runtime::{Backend, RuntimeConfig};

/// Input of the constant detectors, (height, width).
const SIZE: (usize, usize) = (64, 96);

/// One output of a constant detector: name, shape, numbers, whether they are whole.
type Constant<'a> = (&'a str, &'a [usize], Vec<f32>, bool);

/// A file that gives the same numbers for every picture.
fn constants(folder: &Path, outputs: &[Constant]) -> PathBuf {
    let value = |name: &str, shape: &[usize], element: DataType| {
        let dim = shape
            .iter()
            .map(|&n| Dimension {
                value: Some(DimensionValue::DimValue(n as i64)),
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
    };
    let mut graph = GraphProto {
        name: "constants".into(),
        input: vec![value("x", &[1, 3, SIZE.0, SIZE.1], DataType::Float)],
        ..Default::default()
    };
    let mut node = |op: &str, inputs: &[&str], output: &str, number: Option<(&str, i64)>| {
        graph.node.push(NodeProto {
            input: inputs.iter().map(|i| i.to_string()).collect(),
            output: vec![output.into()],
            name: output.into(),
            op_type: op.into(),
            attribute: number
                .map(|(name, i)| AttributeProto {
                    name: name.into(),
                    i: Some(i),
                    r#type: AttributeType::Int as i32,
                    ..Default::default()
                })
                .into_iter()
                .collect(),
            domain: String::new(),
        });
    };
    node("GlobalAveragePool", &["x"], "pooled", None);
    node("Flatten", &["pooled"], "means", Some(("axis", 1)));
    let mut initializer = Vec::new();
    let mut declared = Vec::new();
    for (name, shape, numbers, whole) in outputs {
        let part = |part: &str| format!("{name}.{part}");
        let mut tensor = |name: String, dims: Vec<i64>, data_type: DataType, raw: Vec<u8>| {
            initializer.push(TensorProto {
                dims,
                data_type: data_type as i32,
                name,
                raw_data: raw.into(),
            });
        };
        let n = numbers.len() as i64;
        let bytes = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensor(
            part("w"),
            vec![3, n],
            DataType::Float,
            vec![0; 12 * numbers.len()],
        );
        tensor(part("b"), vec![n], DataType::Float, bytes);
        let lengths = shape
            .iter()
            .flat_map(|&v| (v as i64).to_le_bytes())
            .collect();
        tensor(
            part("s"),
            vec![shape.len() as i64],
            DataType::Int64,
            lengths,
        );
        node(
            "Gemm",
            &["means", &part("w"), &part("b")],
            &part("flat"),
            None,
        );
        let made = if *whole {
            part("shaped")
        } else {
            name.to_string()
        };
        node("Reshape", &[&part("flat"), &part("s")], &made, None);
        let element = if *whole {
            DataType::Int64
        } else {
            DataType::Float
        };
        if *whole {
            node("Cast", &[&made], name, Some(("to", DataType::Int64 as i64)));
        }
        declared.push(value(name, shape, element));
    }
    graph.initializer = initializer;
    graph.output = declared;
    let model = ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        ..Default::default()
    };
    let path = folder.join("detector.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    path
}

/// `rows` anchors in raster order over the input, decoded if wanted, with `scores` scores of 0.2 each.
fn anchors(rows: usize, scores: usize, decoded: bool) -> Vec<f32> {
    (0..rows)
        .flat_map(|i| {
            let numbers = match decoded {
                true => [
                    (i * 8 % SIZE.1) as f32 + 4.0,
                    (i % SIZE.0) as f32,
                    20.0,
                    40.0,
                ],
                false => [0.4, 0.6, -0.3, 1.2],
            };
            numbers.into_iter().chain(vec![0.2; scores])
        })
        .collect()
}

fn transposed(numbers: &[f32], columns: usize) -> Vec<f32> {
    let rows = numbers.len() / columns;
    (0..numbers.len())
        .map(|i| numbers[(i % rows) * columns + i / rows])
        .collect()
}

fn nanodet(rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns)
        .map(|i| if i % columns == 0 { 0.2 } else { -3.0 })
        .collect()
}

fn detect(decode: Decode) -> AdoptOptions {
    AdoptOptions {
        decode: Some(decode),
        runtime: RuntimeConfig {
            backend: Backend::Tract,
            ..Default::default()
        },
        ..AdoptOptions::new(Task::Detect)
    }
}

/// Every family's file is taken for what it is, with its family's conventions, and as nothing else that its numbers or shape
/// contradict: then the error names what it is.
#[test]
fn detectors_of_every_family() {
    let (n, n6) = (cells(P5, SIZE), cells(P6, SIZE));
    let rows = vec![4.0, 4.0, 40.0, 60.0, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let list = vec![
        0.0, 1.0, 0.8, 0.1, 0.1, 0.4, 0.6, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    ];
    let one = |shape: &'static [usize], numbers| vec![("output", shape, numbers, false)];
    let leak = |shape: [usize; 3]| -> &'static [usize] { Box::leak(Box::new(shape)) };
    let files: [(Decode, Vec<Constant>, Fit, &[Decode]); 10] = [
        (
            Decode::Yolox,
            one(leak([1, n, 6]), anchors(n, 2, false)),
            Fit::LetterboxTopLeft(114),
            &[Decode::YoloxDecoded, Decode::Yolov8, Decode::Ssd],
        ),
        (
            Decode::YoloxDecoded,
            one(leak([1, n, 6]), anchors(n, 2, true)),
            Fit::LetterboxTopLeft(114),
            &[Decode::Yolox, Decode::Nanodet],
        ),
        (
            Decode::Yolov5,
            one(leak([1, 3 * n, 85]), anchors(3 * n, 81, true)),
            Fit::LetterboxCentre(114),
            &[Decode::Yolox, Decode::Yolov8],
        ),
        (
            Decode::Yolov8,
            one(leak([1, 84, n]), transposed(&anchors(n, 80, true), 84)),
            Fit::LetterboxCentre(114),
            &[Decode::Yolox, Decode::EndToEnd],
        ),
        (
            Decode::Yolov8,
            one(leak([1, n, 5]), anchors(n, 1, true)),
            Fit::LetterboxCentre(114),
            &[Decode::Yolox, Decode::Nanodet],
        ),
        (
            Decode::EndToEnd,
            one(&[1, 2, 6], rows),
            Fit::LetterboxCentre(114),
            &[Decode::Yolov8, Decode::Ssd],
        ),
        (
            Decode::Nanodet,
            one(leak([1, n6, 33]), nanodet(n6, 33)),
            Fit::Stretch,
            &[Decode::Yolov8, Decode::Yolox],
        ),
        (
            Decode::Nanodet,
            one(leak([1, n, 33]), nanodet(n, 33)),
            Fit::LetterboxCentre(0),
            &[Decode::Yolov8, Decode::Yolox],
        ),
        (
            Decode::Ssd,
            one(&[1, 1, 2, 7], list),
            Fit::Stretch,
            &[Decode::Yolov8, Decode::Torchvision],
        ),
        (
            Decode::Mmdet,
            vec![
                (
                    "dets",
                    &[1, 1, 5][..],
                    vec![4.0, 4.0, 40.0, 60.0, 0.8],
                    false,
                ),
                ("labels", &[1, 1][..], vec![0.0], true),
            ],
            Fit::LetterboxTopLeft(114),
            &[Decode::Yolox, Decode::Tensorflow],
        ),
    ];
    for (decode, outputs, fit, wrong) in &files {
        let dir = tempfile::tempdir().unwrap();
        let path = constants(dir.path(), outputs);
        for &wrong in *wrong {
            let error = adopt(&path, &detect(wrong)).unwrap_err().to_string();
            assert!(
                error.contains(&format!("decode = \"{}\"", wrong.name()))
                    && error.contains(&format!("\"{}\" would fit", decode.name())),
                "{} as {}: {error}",
                decode.name(),
                wrong.name()
            );
            assert!(!ModelCard::path_beside(&path).exists());
        }
        let adopted = adopt(&path, &detect(*decode)).unwrap();
        assert!(adopted.tried_with.is_some(), "{:?}", adopted.warning);
        assert_eq!(adopted.card.input.fit, *fit, "{}", decode.name());
        let fit = Fit::LetterboxCentre(7);
        let options = AdoptOptions {
            fit: Some(fit),
            ..detect(*decode)
        };
        let input = adopt(&path, &options).unwrap().card.input;
        assert_eq!(input.fit, fit, "an option goes before the family's default");
    }
}

#[test]
fn a_person_is_no_background_and_no_class_that_the_file_has_not() {
    let person = |path: &Path, options: &AdoptOptions| match adopt(path, options)
        .map(|adopted| adopted.card.output)
    {
        Ok(OutputSpec::Detect { person_class, .. }) => Ok(person_class),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    };
    let dir = tempfile::tempdir().unwrap();
    let path = constants(
        dir.path(),
        &[
            ("boxes", &[2, 4], vec![0.0; 8], false),
            ("labels", &[2], vec![1.0, 3.0], true),
            ("scores", &[2], vec![0.9, 0.5], false),
        ],
    );
    let mut options = detect(Decode::Torchvision);
    assert_eq!(person(&path, &options), Ok(1));
    options.person_class = 3;
    assert_eq!(person(&path, &options), Ok(3));

    let n = cells(P5, SIZE);
    let path = constants(
        dir.path(),
        &[("output", &[1, n, 7], anchors(n, 3, false), false)],
    );
    let mut options = detect(Decode::Yolox);
    assert_eq!(person(&path, &options), Ok(0));
    options.person_class = 2;
    let error = person(&path, &options).unwrap_err();
    assert!(
        error.contains("--person-class 2") && error.contains("2 classes"),
        "{error}"
    );
    // A convention of boxes under the task of poses.
    let pose = AdoptOptions {
        task: Task::Pose,
        ..detect(Decode::Yolox)
    };
    let error = adopt(&path, &pose).unwrap_err().to_string();
    assert!(error.contains("--task detect"), "{error}");
}

/// Eleven bins a side and one class look like eight bins and thirteen classes; the numbers tell.
#[test]
fn a_nanodet_of_other_bins_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let n = cells(P5, SIZE);
    let path = constants(
        dir.path(),
        &[("output", &[1, n, 45], nanodet(n, 45), false)],
    );
    let error = adopt(&path, &detect(Decode::Nanodet))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("first 13 numbers") && error.contains("8 bins"),
        "{error}"
    );
}
