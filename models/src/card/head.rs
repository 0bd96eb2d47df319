//! What of a file a detector's convention reads, found by the shapes of its outputs.
//!
//! The shapes stand here once, for `reid-export adopt`, which refuses a card that doesn't fit its file, and for the
//! edge, which reads the numbers.

use super::decode::{Decode, Misfit};
use crate::runtime::file::{Axis, TensorInfo};
use crate::runtime::proto::DataType;

/// Strides of the usual head, and of those with one level more at either end.
pub const P5: &[usize] = &[8, 16, 32];
/// With a coarser level (YOLOv5 and YOLOv8 "P6", NanoDet-Plus).
pub const P6: &[usize] = &[8, 16, 32, 64];
/// With a finer level (YOLOv8 "P2").
pub const P2: &[usize] = &[4, 8, 16, 32];

/// Cells of all levels over an input (height, width); a cell that the border cuts counts.
pub fn cells(strides: &[usize], (height, width): (usize, usize)) -> usize {
    strides
        .iter()
        .map(|&s| height.div_ceil(s) * width.div_ceil(s))
        .sum()
}

/// Whether a YOLOv8 head of `rows` x `columns` has one anchor a column (as exported) or one a row; `None`: it is neither.
pub fn yolov8_anchors_last(rows: usize, columns: usize, size: (usize, usize)) -> Option<bool> {
    let heads = [P5, P6, P2].map(|strides| cells(strides, size));
    if rows > 4 && heads.contains(&columns) {
        Some(true)
    } else if columns > 4 && heads.contains(&rows) {
        Some(false)
    } else {
        None
    }
}

/// Bins a side of a NanoDet head with so many columns. All published models have 8, but for those of COCO's 80 classes
/// with 11 (EfficientNet-Lite1 and 2, RepVGG-A0).
pub fn nanodet_bins(columns: usize) -> usize {
    if columns == 80 + 4 * 11 { 11 } else { 8 }
}

/// What of a file a convention reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Positions among the file's outputs: the head alone; or boxes, scores, classes; or, for [`Decode::Mmdet`], boxes
    /// with scores, classes.
    pub outputs: Vec<usize>,
    /// Classes that the file tells apart, where its shapes say.
    pub classes: Option<usize>,
    /// Whether all pictures give equally many rows, so that a batch is one tensor.
    pub fixed_rows: bool,
}

impl Decode {
    /// What it reads of a file with these outputs and an input (height, width); `tensor` names the head, the first
    /// output is taken if it doesn't. An axis that the file leaves open is taken to fit.
    ///
    /// # Errors
    /// What the outputs are, what is wanted, and which convention they do fit.
    pub fn head(
        self,
        outputs: &[TensorInfo],
        tensor: Option<&str>,
        size: (usize, usize),
    ) -> Result<Head, Misfit> {
        let one = index(outputs, tensor).ok_or_else(|| Misfit::NoSuchOutput {
            name: tensor.unwrap_or_default().into(),
            outputs: listed(outputs),
        })?;
        self.fit(outputs, one, size).ok_or_else(|| {
            let several = self.has_several() || self == Decode::Simcc;
            Misfit::Shape {
                decode: self,
                size,
                found: match outputs.get(one) {
                    Some(output) if !several => listed(std::slice::from_ref(output)),
                    _ => listed(outputs),
                },
                fitting: Decode::fitting(outputs, tensor, size),
            }
        })
    }

    /// The detectors' conventions that outputs could have by their shapes. Where some would tell the 80 classes of COCO
    /// apart, or one, only those.
    pub fn fitting(
        outputs: &[TensorInfo],
        tensor: Option<&str>,
        size: (usize, usize),
    ) -> Vec<Decode> {
        let Some(one) = index(outputs, tensor) else {
            return Vec::new();
        };
        let all: Vec<(Decode, Option<usize>)> = Decode::DETECTORS
            .into_iter()
            .filter_map(|d| Some((d, d.fit(outputs, one, size)?.classes)))
            .collect();
        let usual = |classes: Option<usize>| classes.is_none_or(|n| n == 80 || n == 1);
        let any = all.iter().any(|&(_, classes)| usual(classes));
        all.into_iter()
            .filter(|&(_, classes)| !any || usual(classes))
            .map(|(decode, _)| decode)
            .collect()
    }

    fn fit(self, outputs: &[TensorInfo], one: usize, size: (usize, usize)) -> Option<Head> {
        let axes = |index: usize| outputs.get(index).and_then(|o| o.shape.as_deref());
        let single = |classes: Option<usize>, fixed_rows: bool| {
            Some(Head {
                outputs: vec![one],
                classes,
                fixed_rows,
            })
        };
        let Some(shape) = axes(one) else {
            // The file says nothing of this output: it will be seen when it has run.
            let named = outputs.len() > one && !self.has_several();
            return if named {
                single(None, false)
            } else {
                self.several(outputs)
            };
        };
        match (self, shape) {
            (Decode::Yolox | Decode::YoloxDecoded, [_, rows, columns]) => {
                let fits = is(rows, &[cells(P5, size)]) && at_least(columns, 6);
                fits.then(|| single(known(columns).map(|c| c - 5), true))?
            }
            (Decode::Yolov5, [_, rows, columns]) => {
                let fits =
                    is(rows, &[3 * cells(P5, size), 3 * cells(P6, size)]) && at_least(columns, 6);
                fits.then(|| single(known(columns).map(|c| c - 5), true))?
            }
            (Decode::Yolov8, [_, rows, columns]) => match (known(rows), known(columns)) {
                (Some(r), Some(c)) => {
                    let last = yolov8_anchors_last(r, c, size)?;
                    single(Some(if last { r - 4 } else { c - 4 }), true)
                }
                _ => single(None, true),
            },
            (Decode::EndToEnd, [_, rows, columns]) => {
                let fits = is(columns, &[6]) && known(rows) != Some(cells(P5, size));
                fits.then(|| single(None, known(rows).is_some()))?
            }
            (Decode::Nanodet, [_, rows, columns]) => {
                let fits = is(rows, &[cells(P5, size), cells(P6, size)]) && at_least(columns, 33);
                let classes = known(columns).map(|c| c.saturating_sub(4 * nanodet_bins(c)));
                fits.then(|| single(classes, true))?
            }
            (Decode::Ssd, [_, ones, _, seven]) => {
                (is(ones, &[1]) && is(seven, &[7])).then(|| single(None, false))?
            }
            (Decode::Movenet, [_, ones, points, numbers]) => {
                let fits = is(ones, &[1]) && is(points, &[17]) && is(numbers, &[3]);
                fits.then(|| single(None, true))?
            }
            (Decode::Simcc, [_, _, _]) => (outputs.len() >= 2).then(|| single(None, true))?,
            _ if self.has_several() => self.several(outputs),
            _ => None,
        }
    }

    fn has_several(self) -> bool {
        matches!(
            self,
            Decode::Torchvision | Decode::Tensorflow | Decode::Mmdet
        )
    }

    /// Boxes, scores and classes in tensors of their own.
    fn several(self, outputs: &[TensorInfo]) -> Option<Head> {
        let rank = |o: &TensorInfo, n: usize| o.shape.as_ref().is_none_or(|s| s.len() == n);
        let last = |o: &TensorInfo, n: usize| {
            o.shape
                .as_ref()
                .and_then(|s| s.last())
                .is_none_or(|axis| is(axis, &[n]))
        };
        let integer = |o: &TensorInfo| matches!(o.element, DataType::Int64 | DataType::Int32);
        let find = |wanted: &dyn Fn(&TensorInfo) -> bool| outputs.iter().position(wanted);
        let known_rows = |index: usize| {
            let shape = outputs[index].shape.as_ref();
            shape.is_some_and(|s| s.iter().skip(1).all(|axis| known(axis).is_some()))
        };
        match self {
            Decode::Torchvision => {
                let boxes = find(&|o| rank(o, 2) && last(o, 4) && !integer(o))?;
                let labels = find(&|o| rank(o, 1) && integer(o))?;
                let scores = outputs
                    .iter()
                    .enumerate()
                    .position(|(i, o)| i != boxes && rank(o, 1) && !integer(o))?;
                Some(Head {
                    outputs: vec![boxes, scores, labels],
                    classes: None,
                    fixed_rows: false,
                })
            }
            Decode::Tensorflow => {
                let named = |name: &str| find(&|o| o.name.starts_with(name));
                let by_name = (
                    named("detection_boxes"),
                    named("detection_scores"),
                    named("detection_classes"),
                );
                let tflite = outputs
                    .first()?
                    .name
                    .contains("TFLite_Detection_PostProcess");
                let (boxes, scores, labels) = match by_name {
                    (Some(boxes), Some(scores), Some(labels)) => (boxes, scores, labels),
                    _ if tflite && outputs.len() >= 3 => (0, 2, 1),
                    _ => return None,
                };
                let fits = rank(&outputs[boxes], 3)
                    && last(&outputs[boxes], 4)
                    && rank(&outputs[scores], 2)
                    && rank(&outputs[labels], 2);
                fits.then(|| Head {
                    outputs: vec![boxes, scores, labels],
                    classes: None,
                    fixed_rows: [boxes, scores, labels].into_iter().all(known_rows),
                })
            }
            Decode::Mmdet => {
                let dets = find(&|o| rank(o, 3) && last(o, 5) && !integer(o))?;
                let labels = find(&|o| rank(o, 2) && integer(o))?;
                Some(Head {
                    outputs: vec![dets, labels],
                    classes: None,
                    fixed_rows: [dets, labels].into_iter().all(known_rows),
                })
            }
            _ => None,
        }
    }
}

/// Position of the output of that name; of the first without one.
fn index(outputs: &[TensorInfo], tensor: Option<&str>) -> Option<usize> {
    match tensor {
        None => Some(0),
        Some(name) => outputs.iter().position(|o| o.name == name),
    }
}

fn known(axis: &Axis) -> Option<usize> {
    match axis {
        Axis::Fixed(n) => Some(*n),
        Axis::Dynamic(_) => None,
    }
}

fn is(axis: &Axis, lengths: &[usize]) -> bool {
    known(axis).is_none_or(|n| lengths.contains(&n))
}

fn at_least(axis: &Axis, length: usize) -> bool {
    known(axis).is_none_or(|n| n >= length)
}

/// "`output` [1, 3549, 85]", one after the other.
fn listed(outputs: &[TensorInfo]) -> String {
    let each: Vec<String> = outputs
        .iter()
        .map(|o| format!("`{}` {}", o.name, o.shape_text()))
        .collect();
    each.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn output(name: &str, shape: &[usize], element: DataType) -> TensorInfo {
        let axis = |&n: &usize| match n {
            0 => Axis::Dynamic("n".into()),
            n => Axis::Fixed(n),
        };
        TensorInfo {
            name: name.into(),
            element,
            shape: Some(shape.iter().map(axis).collect()),
        }
    }

    fn head(decode: Decode, shape: &[usize], size: (usize, usize)) -> Result<Head, Misfit> {
        decode.head(&[output("output", shape, DataType::Float)], None, size)
    }

    #[test]
    fn published_heads_fit_their_own_convention() {
        let (x416, x640) = ((416, 416), (640, 640));
        for (decode, shape, size, classes) in [
            (Decode::Yolox, &[1, 3549, 85][..], x416, Some(80)),
            (Decode::Yolov5, &[1, 25200, 85], x640, Some(80)),
            (Decode::Yolov8, &[1, 84, 8400], x640, Some(80)),
            (Decode::Yolov8, &[1, 8400, 5], x640, Some(1)),
            (Decode::Yolov8, &[0, 84, 0], x640, None),
            (Decode::EndToEnd, &[1, 300, 6], x640, None),
            (Decode::Nanodet, &[1, 3598, 112], x416, Some(80)),
            (Decode::Nanodet, &[1, 2100, 112], (320, 320), Some(80)),
            (Decode::Nanodet, &[1, 3549, 124], x416, Some(80)),
            (Decode::Nanodet, &[1, 2125, 33], (320, 320), Some(1)),
            (Decode::Ssd, &[1, 1, 200, 7], (320, 544), None),
        ] {
            let head = head(decode, shape, size).unwrap();
            assert_eq!(head.classes, classes, "{decode:?} {shape:?}");
        }
    }

    #[test]
    fn another_convention_names_the_one_that_fits() {
        for (wrong, shape, size, right) in [
            (
                Decode::Ssd,
                &[1, 3549, 85][..],
                (416, 416),
                "\"yolox\" or \"yolox_decoded\" would",
            ),
            (
                Decode::Yolox,
                &[1, 84, 8400],
                (640, 640),
                "decode = \"yolov8\" would",
            ),
            (
                Decode::Yolov8,
                &[1, 25200, 85],
                (640, 640),
                "decode = \"yolov5\" would",
            ),
            (
                Decode::Yolov8,
                &[1, 300, 6],
                (640, 640),
                "decode = \"end_to_end\" would",
            ),
            (
                Decode::Yolox,
                &[1, 1, 200, 7],
                (320, 544),
                "decode = \"ssd\" would",
            ),
            (
                Decode::Ssd,
                &[1, 2125, 112],
                (320, 320),
                "decode = \"nanodet\" would",
            ),
            (Decode::Yolox, &[1, 17], (416, 416), "no convention"),
        ] {
            let reason = head(wrong, shape, size).unwrap_err().to_string();
            assert!(
                reason.contains(right) && reason.contains(&format!("{shape:?}")),
                "{reason}"
            );
        }
        // Another input size is told by the anchors that were expected.
        let reason = head(Decode::Yolox, &[1, 8400, 85], (416, 416))
            .unwrap_err()
            .to_string();
        assert!(
            reason.contains("3549") && reason.contains("416 x 416"),
            "{reason}"
        );
    }

    #[test]
    fn tensors_of_their_own_are_found_by_name_type_and_rank() {
        let size = (320, 320);
        let file = [
            output("labels", &[0], DataType::Int64),
            output("boxes", &[0, 4], DataType::Float),
            output("scores", &[0], DataType::Float),
        ];
        let found = Decode::Torchvision.head(&file, None, size).unwrap();
        assert_eq!((found.outputs, found.fixed_rows), (vec![1, 2, 0], false));
        let wrong = Decode::Yolov8
            .head(&file, None, size)
            .unwrap_err()
            .to_string();
        assert!(wrong.contains("\"torchvision\" would fit"), "{wrong}");

        let file = [
            output("num_detections", &[1], DataType::Float),
            output("raw_detection_boxes", &[1, 1917, 4], DataType::Float),
            output("detection_classes", &[1, 100], DataType::Float),
            output("detection_boxes:0", &[1, 100, 4], DataType::Float),
            output("detection_scores", &[1, 100], DataType::Float),
        ];
        let found = Decode::Tensorflow.head(&file, None, size).unwrap();
        assert_eq!((found.outputs, found.fixed_rows), (vec![3, 4, 2], true));

        let lite = ["", ":1", ":2", ":3"].map(|end| format!("TFLite_Detection_PostProcess{end}"));
        let shapes: [&[usize]; 4] = [&[1, 10, 4], &[1, 10], &[1, 10], &[1]];
        let file: Vec<TensorInfo> = lite
            .iter()
            .zip(shapes)
            .map(|(name, shape)| output(name, shape, DataType::Float))
            .collect();
        let found = Decode::Tensorflow.head(&file, None, size).unwrap();
        assert_eq!(found.outputs, [0, 2, 1]);

        let file = [
            output("dets", &[0, 0, 5], DataType::Float),
            output("labels", &[0, 0], DataType::Int64),
        ];
        let found = Decode::Mmdet.head(&file, None, size).unwrap();
        assert_eq!((found.outputs, found.fixed_rows), (vec![0, 1], false));
        let wrong = Decode::Torchvision
            .head(&file, None, size)
            .unwrap_err()
            .to_string();
        assert!(
            wrong.contains("`dets` [n, n, 5], `labels` [n, n]")
                && wrong.contains("\"mmdet\" would fit"),
            "{wrong}"
        );
    }

    #[test]
    fn a_tensor_that_is_not_there_is_named() {
        let file = [output("output0", &[1, 84, 8400], DataType::Float)];
        let reason = Decode::Yolov8
            .head(&file, Some("boxes"), (640, 640))
            .unwrap_err()
            .to_string();
        assert!(
            reason.contains("`boxes`") && reason.contains("`output0`"),
            "{reason}"
        );
    }
}
