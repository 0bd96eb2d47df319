//! Detectors worth bringing, for who has none yet.

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
