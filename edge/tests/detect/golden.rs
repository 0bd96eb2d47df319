//! The committed references, and comparing with them.

use std::path::{Path, PathBuf};

use reid_edge::types::Detection;
use safetensors::SafeTensors;

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// One case of a detect_*.safetensors file (detect_layout.md).
pub(crate) struct Case {
    pub name: String,
    /// Shape of the head.
    pub shape: Vec<usize>,
    pub head: Vec<f32>,
    /// Width, height.
    pub frame: (usize, usize),
    /// Width, height.
    pub input: (usize, usize),
    pub person_class: usize,
    pub boxes: Vec<[f32; 4]>,
    pub scores: Vec<f32>,
    /// Boxes and scores without suppression, where the file has them.
    pub without_nms: Option<(Vec<[f32; 4]>, Vec<f32>)>,
}

impl Case {
    /// All cases of a file, by name.
    pub(crate) fn read(file: &str) -> Vec<Case> {
        let bytes = std::fs::read(path(file)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut names: Vec<String> = tensors
            .names()
            .iter()
            .filter_map(|n| n.strip_suffix(".head"))
            .map(String::from)
            .collect();
        names.sort();
        assert!(names.len() >= 3, "{file}: {names:?}");
        names
            .into_iter()
            .map(|name| {
                let key = |part: &str| format!("{name}.{part}");
                let pair = |part: &str| {
                    let v = integers(&tensors, &key(part));
                    (v[0], v[1])
                };
                let scores = |part: &str| floats(&tensors, &key(part)).1;
                let boxes = |part: &str| {
                    let (_, data) = floats(&tensors, &key(part));
                    data.as_chunks::<4>().0.to_vec()
                };
                let (shape, head) = floats(&tensors, &key("head"));
                Case {
                    shape,
                    head,
                    frame: pair("frame_size"),
                    input: pair("input_size"),
                    person_class: integers(&tensors, &key("person_class"))[0],
                    boxes: boxes("boxes"),
                    scores: scores("scores"),
                    without_nms: tensors
                        .tensor(&key("boxes_no_nms"))
                        .ok()
                        .map(|_| (boxes("boxes_no_nms"), scores("scores_no_nms"))),
                    name,
                }
            })
            .collect()
    }
}

pub(crate) fn floats(tensors: &SafeTensors, name: &str) -> (Vec<usize>, Vec<f32>) {
    let tensor = tensors.tensor(name).unwrap();
    let (values, rest) = tensor.data().as_chunks::<4>();
    assert!(
        tensor.dtype() == safetensors::Dtype::F32 && rest.is_empty(),
        "{name}"
    );
    let values = values.iter().map(|&b| f32::from_le_bytes(b)).collect();
    (tensor.shape().to_vec(), values)
}

pub(crate) fn integers(tensors: &SafeTensors, name: &str) -> Vec<usize> {
    let tensor = tensors.tensor(name).unwrap();
    let (values, rest) = tensor.data().as_chunks::<4>();
    assert!(
        tensor.dtype() == safetensors::Dtype::I32 && rest.is_empty(),
        "{name}"
    );
    values
        .iter()
        .map(|&b| i32::from_le_bytes(b) as usize)
        .collect()
}

/// As many detections as wanted, in the same order, each edge within `pixels`, each score within 1e-4.
pub(crate) fn compare(
    found: &[Detection],
    boxes: &[[f32; 4]],
    scores: &[f32],
    pixels: f32,
    what: &str,
) {
    assert_eq!(
        found.len(),
        boxes.len(),
        "{what}: {found:?} against {boxes:?}"
    );
    for ((d, want), score) in found.iter().zip(boxes).zip(scores) {
        let got = [d.ltrb.left, d.ltrb.top, d.ltrb.right, d.ltrb.bottom];
        let close = got.iter().zip(want).all(|(g, w)| (g - w).abs() <= pixels);
        assert!(
            close && (d.score - score).abs() < 1e-4,
            "{what}: {d:?}, wanted {want:?} {score}"
        );
    }
}
