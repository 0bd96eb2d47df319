//! Every convention against numbers and boxes that another program made (detect_layout.md), and NMS.

use reid_edge::detect::decode::{self, Candidate, Wanted, yolox};
use reid_edge::detect::{nms, place};
use reid_edge::types::{Detection, Ltrb};
use reid_models::card::Decode;
use reid_models::card::head::{P5, cells};
use reid_models::preprocess::Letterbox;
use reid_models::runtime::Tensor;
use safetensors::SafeTensors;

use crate::golden::{self, Case, compare, floats, integers};

/// Where the references' definitions put the frame: scaled without rounding, padding in whole pixels.
fn placed(case: &Case, fit: &str) -> Letterbox {
    let (w, h) = (case.frame.0 as f64, case.frame.1 as f64);
    let (iw, ih) = (case.input.0 as f64, case.input.1 as f64);
    let scale = (iw / w).min(ih / h);
    let pad = |input: f64, frame: f64| ((input - frame * scale) / 2.0 - 0.1).round() as f32;
    match fit {
        "stretch" => Letterbox {
            scale: [(iw / w) as f32, (ih / h) as f32],
            offset: [0.0; 2],
        },
        "top-left" => Letterbox {
            scale: [scale as f32; 2],
            offset: [0.0; 2],
        },
        _ => Letterbox {
            scale: [scale as f32; 2],
            offset: [pad(iw, w), pad(ih, h)],
        },
    }
}

fn detect(
    case: &Case,
    decode: Decode,
    tensors: &[Tensor],
    fit: &str,
    iou: Option<f32>,
) -> Vec<Detection> {
    let wanted = Wanted {
        classes: &[case.person_class],
        score: 0.3,
    };
    let size = (case.input.1, case.input.0);
    let tensors: Vec<&Tensor> = tensors.iter().collect();
    let mut found = Vec::new();
    decode::read(decode, &tensors, 0, 1, size, &wanted, &mut found).unwrap();
    place::detections(&mut found, iou, &placed(case, fit), case.frame, 0.0)
}

/// The head as it stands in the file.
fn head(case: &Case) -> Vec<Tensor> {
    vec![Tensor {
        shape: case.shape.clone(),
        data: case.head.clone(),
    }]
}

const NMS: Option<f32> = Some(0.45);
/// Pixels, of frames up to 640 wide.
const CLOSE: f32 = 2e-3;

#[test]
fn yolox_raw_and_decoded() {
    for case in Case::read("detect_yolox.safetensors") {
        let found = detect(&case, Decode::Yolox, &head(&case), "top-left", NMS);
        compare(&found, &case.boxes, &case.scores, CLOSE, &case.name);
        // The same head as a file that decodes it would give it, centres and sizes from the reference's formulas.
        let mut decoded = head(&case);
        let mut rows = decoded[0].data.chunks_exact_mut(8);
        for stride in [8usize, 16, 32] {
            for y in 0..case.input.1 / stride {
                for x in 0..case.input.0 / stride {
                    let row = rows.next().unwrap();
                    row[0] = (row[0] + x as f32) * stride as f32;
                    row[1] = (row[1] + y as f32) * stride as f32;
                    row[2] = row[2].exp() * stride as f32;
                    row[3] = row[3].exp() * stride as f32;
                }
            }
        }
        for decode in [Decode::YoloxDecoded, Decode::Yolov5] {
            let found = detect(&case, decode, &decoded, "top-left", NMS);
            compare(&found, &case.boxes, &case.scores, CLOSE, &case.name);
        }
    }
}

#[test]
fn yolov8_either_way_around() {
    for case in Case::read("detect_yolov8.safetensors") {
        let found = detect(&case, Decode::Yolov8, &head(&case), "centred", NMS);
        compare(&found, &case.boxes, &case.scores, CLOSE, &case.name);
        let [_, rows, columns] = case.shape[..] else {
            panic!("{:?}", case.shape);
        };
        let turned = Tensor {
            shape: vec![1, columns, rows],
            data: (0..rows * columns)
                .map(|i| case.head[(i % rows) * columns + i / rows])
                .collect(),
        };
        let found = detect(&case, Decode::Yolov8, &[turned], "centred", NMS);
        compare(&found, &case.boxes, &case.scores, CLOSE, &case.name);
    }
}

#[test]
fn end_to_end_is_not_suppressed() {
    for case in Case::read("detect_end2end.safetensors") {
        let fit = match &case.name[..] {
            "stretch" => "stretch",
            _ => "centred",
        };
        let found = detect(&case, Decode::EndToEnd, &head(&case), fit, None);
        compare(&found, &case.boxes, &case.scores, CLOSE, &case.name);
    }
}

#[test]
fn nanodet_plus() {
    for case in Case::read("detect_nanodet.safetensors") {
        let found = detect(&case, Decode::Nanodet, &head(&case), "stretch", NMS);
        compare(&found, &case.boxes, &case.scores, CLOSE, &case.name);
    }
}

#[test]
fn ssd_and_the_same_list_in_tensors_of_its_own() {
    for case in Case::read("detect_ssd.safetensors") {
        let found = detect(&case, Decode::Ssd, &head(&case), "stretch", NMS);
        compare(&found, &case.boxes, &case.scores, CLOSE, &case.name);
        let all = case.without_nms.as_ref();
        let (boxes, scores) = all.map_or((&case.boxes, &case.scores), |(b, s)| (b, s));
        let found = detect(&case, Decode::Ssd, &head(&case), "stretch", None);
        compare(&found, boxes, scores, CLOSE, &case.name);

        // The other conventions know no end of the list.
        let rows = case.head.as_chunks::<7>().0;
        let rows: Vec<[f32; 7]> = rows.iter().take_while(|r| r[0] >= 0.0).copied().collect();
        let n = rows.len();
        let (w, h) = (case.input.0 as f32, case.input.1 as f32);
        let tensor = |shape: &[usize], number: &dyn Fn(&[f32; 7]) -> Vec<f32>| Tensor {
            shape: shape.to_vec(),
            data: rows.iter().flat_map(number).collect(),
        };
        let in_pixels = |r: &[f32; 7]| vec![r[3] * w, r[4] * h, r[5] * w, r[6] * h];
        let top_first = |r: &[f32; 7]| vec![r[4], r[3], r[6], r[5]];
        let with_score = |r: &[f32; 7]| [in_pixels(r), vec![r[2]]].concat();
        let score = |r: &[f32; 7]| vec![r[2]];
        let class = |r: &[f32; 7]| vec![r[1]];
        for (decode, tensors) in [
            (
                Decode::Torchvision,
                vec![
                    tensor(&[n, 4], &in_pixels),
                    tensor(&[n], &score),
                    tensor(&[n], &class),
                ],
            ),
            (
                Decode::Tensorflow,
                vec![
                    tensor(&[1, n, 4], &top_first),
                    tensor(&[1, n], &score),
                    tensor(&[1, n], &class),
                ],
            ),
            (
                Decode::Mmdet,
                vec![tensor(&[1, n, 5], &with_score), tensor(&[1, n], &class)],
            ),
        ] {
            let found = detect(&case, decode, &tensors, "stretch", NMS);
            let what = format!("{} as {decode:?}", case.name);
            compare(&found, &case.boxes, &case.scores, CLOSE, &what);
        }
    }
}

#[test]
fn suppression_agrees_with_batched_nms() {
    let bytes = std::fs::read(golden::path("detect_nms.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (_, boxes) = floats(&tensors, "boxes");
    let (_, scores) = floats(&tensors, "scores");
    let classes = integers(&tensors, "classes");
    let all: Vec<Candidate> = boxes
        .as_chunks::<4>()
        .0
        .iter()
        .zip(scores)
        .zip(classes)
        .map(|((&[left, top, right, bottom], score), class)| Candidate {
            ltrb: Ltrb {
                left,
                top,
                right,
                bottom,
            },
            class,
            score,
        })
        .collect();
    assert_eq!(all.len(), 400);
    for (name, iou) in [("keep_30", 0.3), ("keep_45", 0.45), ("keep_70", 0.7)] {
        let mut kept = all.clone();
        nms::suppress_by_class(&mut kept, iou);
        let want: Vec<Candidate> = integers(&tensors, name).iter().map(|&i| all[i]).collect();
        assert_eq!(kept, want, "{name}");
    }
}

/// No two pictures of a batch may be mixed up, whatever the convention.
#[test]
fn a_batch_reads_as_its_pictures_do() {
    let size = (64, 96);
    let anchors = cells(P5, size);
    let wanted = Wanted {
        classes: &[0],
        score: 0.3,
    };
    let one = |shift: f32| {
        let mut data = vec![0.0f32; anchors * 6];
        for (i, row) in data.chunks_exact_mut(6).enumerate() {
            row[0] = shift;
            row[4] = if i % 7 == 0 { 0.9 } else { 0.0 };
            row[5] = 0.9 - shift / 10.0;
        }
        data
    };
    let batch = Tensor {
        shape: vec![3, anchors, 6],
        data: [0.1, 0.2, 0.3].into_iter().flat_map(one).collect(),
    };
    for (picture, shift) in [0.1, 0.2, 0.3].into_iter().enumerate() {
        let (mut found, mut alone) = (Vec::new(), Vec::new());
        decode::read(
            Decode::Yolox,
            &[&batch],
            picture,
            3,
            size,
            &wanted,
            &mut found,
        )
        .unwrap();
        yolox::raw(&[anchors, 6], &one(shift), size, &wanted, &mut alone).unwrap();
        assert_eq!(found, alone);
        assert_eq!(found.len(), anchors.div_ceil(7));
    }
}
