//! Output conventions of detectors and pose estimators: their names, and what they want in words.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::head::{P2, P5, P6, cells};

/// Output conventions of detectors and pose estimators. A batch of pictures is the first axis unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decode {
    /// YOLOX head: (batch, anchors, 5 + classes), centre and log-size relative to the grid, not decoded.
    Yolox,
    /// YOLOX head that the file decodes itself (exported with `--decode_in_inference`): the shape of [`Decode::Yolox`],
    /// centre and size in input pixels.
    YoloxDecoded,
    /// YOLOv5 and YOLOv7 head: (batch, 3 boxes of every cell, 5 + classes), centre and size in input pixels.
    Yolov5,
    /// YOLOv8, v9, 11 head: (batch, 4 + classes, anchors) or transposed, centre and size in input pixels, no objectness.
    Yolov8,
    /// YOLOv10, YOLO26, and Ultralytics exports with `nms=True`: (batch, n, 6) rows of left, top, right, bottom in input
    /// pixels, score, class.
    EndToEnd,
    /// NanoDet and NanoDet-Plus head: (batch, anchors, classes + 4 * bins), distances to the four sides as distributions.
    Nanodet,
    /// SSD: (1, 1, n, 7) rows of picture, class, score, left, top, right, bottom in 0..1.
    Ssd,
    /// torchvision: boxes (n, 4) in input pixels, labels (n), scores (n); one picture at a time, class 0 is background.
    Torchvision,
    /// TensorFlow's Object Detection API: detection_boxes (batch, n, 4) of top, left, bottom, right in 0..1,
    /// detection_classes and detection_scores (batch, n), in any order; or TFLite's four tensors in its order.
    Tensorflow,
    /// MMDeploy's exports of MMDetection (RTMDet and others): dets (batch, n, 5) of left, top, right, bottom in input
    /// pixels and score, labels (batch, n).
    Mmdet,
    /// MoveNet: (1, 1, 17, 3) of y, x, score in 0..1.
    Movenet,
    /// SimCC: two tensors of per-axis logits.
    Simcc,
}

/// Outputs that are not what a convention reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The card names an output that the file hasn't.
    NoSuchOutput {
        /// The name.
        name: String,
        /// The file's outputs with their shapes.
        outputs: String,
    },
    /// The shapes are others.
    Shape {
        /// The convention.
        decode: Decode,
        /// The input's (height, width).
        size: (usize, usize),
        /// The outputs with their shapes.
        found: String,
        /// Conventions of detectors that have such shapes.
        fitting: Vec<Decode>,
    },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::NoSuchOutput { name, outputs } => {
                write!(f, "it has no output named `{name}`; it has {outputs}")
            }
            Misfit::Shape {
                decode,
                size,
                found,
                fitting,
            } => write!(
                f,
                "its output is {found}, but decode = \"{}\" with an input of {} x {} (height x width) has {}: {}",
                decode.name(),
                size.0,
                size.1,
                decode.shapes(*size),
                would_fit(fitting)
            ),
        }
    }
}

/// "decode = "yolox" would fit", for people.
pub fn would_fit(conventions: &[Decode]) -> String {
    if conventions.is_empty() {
        return "no convention that is known here fits".into();
    }
    let names: Vec<String> = conventions
        .iter()
        .map(|d| format!("\"{}\"", d.name()))
        .collect();
    format!("decode = {} would fit", names.join(" or "))
}

impl Decode {
    /// All that give boxes.
    pub const DETECTORS: [Decode; 10] = [
        Decode::Yolox,
        Decode::YoloxDecoded,
        Decode::Yolov5,
        Decode::Yolov8,
        Decode::EndToEnd,
        Decode::Nanodet,
        Decode::Ssd,
        Decode::Torchvision,
        Decode::Tensorflow,
        Decode::Mmdet,
    ];

    /// As it stands in a card.
    pub fn name(self) -> &'static str {
        match self {
            Decode::Yolox => "yolox",
            Decode::YoloxDecoded => "yolox_decoded",
            Decode::Yolov5 => "yolov5",
            Decode::Yolov8 => "yolov8",
            Decode::EndToEnd => "end_to_end",
            Decode::Nanodet => "nanodet",
            Decode::Ssd => "ssd",
            Decode::Torchvision => "torchvision",
            Decode::Tensorflow => "tensorflow",
            Decode::Mmdet => "mmdet",
            Decode::Movenet => "movenet",
            Decode::Simcc => "simcc",
        }
    }

    /// The shapes it wants for an input (height, width), for people.
    pub fn shapes(self, size: (usize, usize)) -> String {
        let n = |strides| cells(strides, size);
        match self {
            Decode::Yolox | Decode::YoloxDecoded => format!("(batch, {}, 5 + classes)", n(P5)),
            Decode::Yolov5 => format!(
                "(batch, {} or {}, 5 + classes)",
                3 * n(P5),
                3 * n(P6)
            ),
            Decode::Yolov8 => format!(
                "(batch, 4 + classes, anchors) or (batch, anchors, 4 + classes) with {}, {} or {} anchors",
                n(P5),
                n(P6),
                n(P2)
            ),
            Decode::EndToEnd => "(batch, n, 6)".into(),
            Decode::Nanodet => format!(
                "(batch, {} or {}, classes + 32)",
                n(P6),
                n(P5)
            ),
            Decode::Ssd => "(1, 1, n, 7)".into(),
            Decode::Torchvision => "boxes (n, 4), labels (n) of integers and scores (n)".into(),
            Decode::Tensorflow => {
                "detection_boxes (batch, n, 4), detection_classes (batch, n) and detection_scores (batch, n)"
                    .into()
            }
            Decode::Mmdet => "dets (batch, n, 5) and labels (batch, n) of integers".into(),
            Decode::Movenet => "(1, 1, 17, 3)".into(),
            Decode::Simcc => "two tensors (1, keypoints, bins)".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_those_of_the_card() {
        for decode in Decode::DETECTORS
            .into_iter()
            .chain([Decode::Movenet, Decode::Simcc])
        {
            let text = serde_json::to_string(&decode).unwrap();
            assert_eq!(text, format!("\"{}\"", decode.name()));
        }
    }
}
