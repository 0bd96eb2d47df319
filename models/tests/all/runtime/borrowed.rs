//! Outputs that are shown instead of copied are the same outputs.

use std::path::Path;

use prost::Message as _;
use reid_models::ModelCard;
use reid_models::card::Element;
use reid_models::runtime::Tensor;
use reid_models::runtime::proto::{DataType, ModelProto};

use super::{SIZE, card, engines, opened};
use crate::tiny_onnx::Tiny;

/// Declares the output to be of another type, as an exporter would.
fn declare_output(path: &Path, element: DataType) {
    let mut model = ModelProto::decode(&*std::fs::read(path).unwrap()).unwrap();
    let output = &mut model.graph.as_mut().unwrap().output[0];
    let tensor = output
        .r#type
        .as_mut()
        .unwrap()
        .tensor_type
        .as_mut()
        .unwrap();
    tensor.elem_type = element as i32;
    std::fs::write(path, model.encode_to_vec()).unwrap();
}

#[test]
fn shown_and_copied_outputs_are_the_same() {
    let cases = [
        ("dynamic", 0, Element::F32, DataType::Float, DataType::Float),
        ("fixed 4", 4, Element::F32, DataType::Float, DataType::Float),
        (
            "half input",
            0,
            Element::F16,
            DataType::Float16,
            DataType::Float,
        ),
        (
            "byte input",
            3,
            Element::U8,
            DataType::Uint8,
            DataType::Float,
        ),
        (
            "integer output",
            0,
            Element::F32,
            DataType::Float,
            DataType::Int64,
        ),
        (
            "byte output, fixed 2",
            2,
            Element::F32,
            DataType::Float,
            DataType::Uint8,
        ),
        (
            "half output",
            0,
            Element::F32,
            DataType::Float,
            DataType::Float16,
        ),
    ];
    for (case, batch, element, data_type, output) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut card: ModelCard = card(3);
        card.input.element = element;
        let path = Tiny::new(&[batch, 3, SIZE, SIZE], data_type)
            .op("Cast", &[("to", &[DataType::Float as i64])])
            .pooled()
            .op("Cast", &[("to", &[output as i64])])
            .write(dir.path(), &[batch, 3], Some(&card));
        declare_output(&path, output);
        for config in engines("shown_and_copied_outputs_are_the_same") {
            let mut session = opened(&path, &config).unwrap();
            // Larger and smaller batches in turn: nothing of the last one may remain.
            for n in [1, 7, 4, 2, 8, 1] {
                let len = 3 * SIZE * SIZE;
                // Plane c of picture i is i * 3 + c.
                let input: Vec<f32> = (0..n * len).map(|k| (k / (SIZE * SIZE)) as f32).collect();
                let copied = session.run(n, &input).unwrap();
                let want: Vec<f32> = (0..3 * n).map(|k| k as f32).collect();
                let want = Tensor {
                    shape: vec![n, 3],
                    data: want,
                };
                let who = format!("{case}, {n} pictures, {}", session.description());
                assert_eq!(copied, [("y".to_string(), want)], "{who}");
                let mut shown = Vec::new();
                let mut times = 0;
                session
                    .run_with(n, &input, &mut |outputs| {
                        times += 1;
                        shown = outputs
                            .iter()
                            .map(|o| {
                                let tensor = Tensor {
                                    shape: o.shape.to_vec(),
                                    data: o.data.to_vec(),
                                };
                                (o.name.to_string(), tensor)
                            })
                            .collect();
                    })
                    .unwrap();
                assert_eq!((times, shown), (1, copied), "{who}");
            }
            let err = session
                .run_with(2, &[0.0], &mut |_| panic!("shown"))
                .unwrap_err();
            assert!(err.to_string().contains("tiny.onnx"), "{err}");
        }
    }
}
