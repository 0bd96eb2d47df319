//! Detectors worth bringing, for who has none yet; and how to spare the one that is there useless work.

use reid_models::card::{Fit, InputSpec};
use reid_models::runtime;

use super::{Finding, Level};
use crate::config::{DetectorKind, EdgeConfig};

/// A detector that others publish.
struct Detector {
    name: &'static str,
    license: &'static str,
    /// Width x height.
    input: &'static str,
    /// Where it is, and in what form.
    place: &'static str,
    /// Options of `reid-export adopt FILE --task detect`.
    adopt: Option<&'static str>,
}

const YOLOX: &str =
    "ONNX files among the releases of github.com/Megvii-BaseDetection/YOLOX (0.1.1rc0)";

/// Licences and sizes as their publishers state them.
const DETECTORS: [Detector; 7] = [
    Detector {
        name: "YOLOX-nano",
        license: "Apache-2.0",
        input: "416 x 416",
        place: YOLOX,
        adopt: Some("yolox_nano.onnx --decode yolox --license Apache-2.0"),
    },
    Detector {
        name: "YOLOX-tiny",
        license: "Apache-2.0",
        input: "416 x 416",
        place: YOLOX,
        adopt: Some("yolox_tiny.onnx --decode yolox --license Apache-2.0"),
    },
    Detector {
        name: "YOLOX-s",
        license: "Apache-2.0",
        input: "640 x 640",
        place: YOLOX,
        adopt: Some("yolox_s.onnx --decode yolox --license Apache-2.0"),
    },
    Detector {
        name: "NanoDet-Plus-m",
        license: "Apache-2.0",
        input: "320 x 320 or 416 x 416",
        place: "ONNX files among the releases of github.com/RangiLyu/nanodet (v1.0.0-alpha-1)",
        adopt: Some("nanodet-plus-m_416.onnx --decode nanodet --license Apache-2.0"),
    },
    Detector {
        name: "person-detection-retail-0013",
        license: "Apache-2.0",
        input: "544 x 320",
        place: "Intel's Open Model Zoo, github.com/openvinotoolkit/open_model_zoo (OpenVINO's format: convert it to ONNX)",
        adopt: Some(
            "person-detection-retail-0013.onnx --decode ssd --person-class 1 --license Apache-2.0",
        ),
    },
    Detector {
        name: "PeopleNet",
        license: "NVIDIA's own: read it before use",
        input: "960 x 544",
        place: "NVIDIA's NGC catalogue, tao/peoplenet (grid of boxes: needs its last layer converted to a convention of reid-export adopt)",
        adopt: None,
    },
    Detector {
        name: "YOLOv8 and YOLO11",
        license: "AGPL-3.0 (ask who advises you before it goes into a product whose source stays closed), or an enterprise licence bought from Ultralytics",
        input: "640 x 640",
        place: "Ultralytics, exported to ONNX with its own tool",
        adopt: Some("yolov8n.onnx --decode yolov8 --license AGPL-3.0-only"),
    },
];

/// Nothing where a detector is configured.
pub(super) fn look(config: &EdgeConfig) -> Vec<Finding> {
    if config.detector.kind != DetectorKind::Motion {
        return Vec::new();
    }
    let mut findings = vec![Finding::new(
        "detector advice",
        Level::Info,
        "motion sees who moves in front of a static camera; a model sees who stands still and tells people apart in a crowd: fetch one of these, adopt it, and set detector.kind = \"onnx\" and detector.model",
    )];
    findings.extend(DETECTORS.iter().map(|d| {
        let adopt = match d.adopt {
            Some(options) => format!("; then: reid-export adopt --task detect {options}"),
            None => String::new(),
        };
        Finding::new(
            format!("detector {}", d.name),
            Level::Info,
            format!(
                "licence {}; input {}; {}{adopt}",
                d.license, d.input, d.place
            ),
        )
    }));
    findings
}

/// Sides of a detector's input are multiples of its coarsest stride.
const STRIDE: usize = 32;
/// Less than this share of the work is not worth another file.
const WORTH: f64 = 0.15;

/// Width and height that hold pictures of these sizes as large as the input shows them now.
fn enough(input: &InputSpec, sizes: &[(usize, usize)]) -> (usize, usize) {
    let (w, h) = (input.width as f64, input.height as f64);
    let up = |v: f64| (v.round() as usize).next_multiple_of(STRIDE);
    let mut shape = (STRIDE, STRIDE);
    for &(width, height) in sizes {
        let scale = (w / width as f64).min(h / height as f64);
        shape.0 = shape.0.max(up(width as f64 * scale));
        shape.1 = shape.1.max(up(height as f64 * scale));
    }
    (shape.0.min(input.width), shape.1.min(input.height))
}

/// Nothing unless a good part of the detector's input is padding for all cameras that showed a picture.
pub(super) fn shape(config: &EdgeConfig, sizes: &[(usize, usize)]) -> Option<Finding> {
    let model = config.detector.model.as_ref()?;
    // What is wrong with model or card has been told.
    let input = runtime::read_card(model).ok()?.input;
    if sizes.is_empty() || input.fit == Fit::Stretch {
        return None;
    }
    let (w, h) = enough(&input, sizes);
    let saved = 1.0 - (w * h) as f64 / (input.width * input.height) as f64;
    (saved >= WORTH).then(|| {
        Finding::new(
            "detector advice",
            Level::Info,
            format!(
                "{:.0} % of the detector's work is spent on padding: its input is {} x {} (width x height), and {w} x {h} hold what the cameras send; reid-export adopt {} --task detect --resize {w}x{h} and the options it was adopted with writes it anew, if its network allows",
                100.0 * saved,
                input.width,
                input.height,
                model.display()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_holds_every_camera_and_no_more() {
        let square = InputSpec::imagenet(416, 416);
        assert_eq!(enough(&square, &[(1280, 720)]), (416, 256));
        assert_eq!(enough(&square, &[(768, 576), (1920, 1080)]), (416, 320));
        assert_eq!(enough(&square, &[(1280, 720), (720, 1280)]), (416, 416));
        assert_eq!(
            enough(&InputSpec::imagenet(320, 544), &[(1280, 720)]),
            (544, 320)
        );
    }
}
