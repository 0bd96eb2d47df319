//! GStreamer and the elements that each kind of source needs.

use gstreamer as gst;

use super::{Finding, Level};
use crate::config::{EdgeConfig, Source};
use crate::ingest;

/// An element and Debian's package that brings it.
type Element = (&'static str, &'static str);

const BASE: &str = "gstreamer1.0-plugins-base";
const GOOD: &str = "gstreamer1.0-plugins-good";
const LIBAV: &str = "gstreamer1.0-libav";
const JETSON: &str = "nvidia-l4t-gstreamer";

/// What a kind of source cannot do without.
struct Needs {
    kind: &'static str,
    elements: &'static [Element],
    /// Formats that cameras of this kind may send, each with elements any one of which decodes it.
    formats: &'static [&'static Format],
}

struct Format {
    name: &'static str,
    /// Elements for the way there, all needed.
    way: &'static [Element],
    /// Decoders, any one.
    decoders: &'static [&'static str],
    package: &'static str,
}

const H264: Format = Format {
    name: "H.264",
    way: &[("h264parse", "gstreamer1.0-plugins-bad")],
    decoders: &[
        "nvv4l2decoder",
        "nvh264dec",
        "vah264dec",
        "vaapih264dec",
        "v4l2h264dec",
        "v4l2slh264dec",
        "avdec_h264",
        "openh264dec",
    ],
    package: LIBAV,
};
const H265: Format = Format {
    name: "H.265",
    way: &[("h265parse", "gstreamer1.0-plugins-bad")],
    decoders: &[
        "nvv4l2decoder",
        "nvh265dec",
        "vah265dec",
        "vaapih265dec",
        "v4l2h265dec",
        "v4l2slh265dec",
        "avdec_h265",
        "libde265dec",
    ],
    package: LIBAV,
};
const JPEG: Format = Format {
    name: "motion JPEG",
    way: &[],
    decoders: &[
        "nvjpegdec",
        "vajpegdec",
        "vaapijpegdec",
        "v4l2jpegdec",
        "jpegdec",
        "avdec_mjpeg",
    ],
    package: GOOD,
};

const FILE: Needs = Needs {
    kind: "file",
    elements: &[
        ("filesrc", "libgstreamer1.0-0"),
        ("decodebin", BASE),
        ("qtdemux", GOOD),
        ("matroskademux", GOOD),
    ],
    formats: &[&H264, &H265],
};
const RTSP: Needs = Needs {
    kind: "rtsp",
    elements: &[
        ("rtspsrc", GOOD),
        ("rtpjitterbuffer", GOOD),
        ("rtph264depay", GOOD),
        ("rtph265depay", GOOD),
        ("rtpjpegdepay", GOOD),
        ("decodebin", BASE),
    ],
    formats: &[&H264, &H265, &JPEG],
};
const HTTP: Needs = Needs {
    kind: "http",
    elements: &[
        ("souphttpsrc", GOOD),
        ("multipartdemux", GOOD),
        ("decodebin", BASE),
    ],
    formats: &[&JPEG],
};
const V4L2: Needs = Needs {
    kind: "v4l2",
    elements: &[("v4l2src", GOOD)],
    formats: &[&JPEG],
};
const CSI: Needs = Needs {
    kind: "csi",
    elements: &[("nvarguscamerasrc", JETSON), ("nvvidconv", JETSON)],
    formats: &[],
};

/// Whether a decoder is in hardware, by its name: software's is a library's.
fn is_hardware(decoder: &str) -> bool {
    ["nv", "va", "v4l2"].iter().any(|p| decoder.starts_with(p))
}

/// GStreamer itself, then each kind of source that the configuration has.
pub(super) fn look(config: &EdgeConfig) -> Vec<Finding> {
    if let Err(e) = ingest::start() {
        return vec![Finding::new("gstreamer", Level::Fail, e.to_string())];
    }
    let mut hardware: Vec<&str> = [&H264, &H265, &JPEG]
        .into_iter()
        .flat_map(|format| format.decoders.iter().copied())
        .filter(|name| is_hardware(name) && exists(name))
        .collect();
    // One may decode several formats.
    hardware.sort_unstable();
    hardware.dedup();
    let hardware = match hardware.is_empty() {
        true => "no decoder in hardware".to_owned(),
        false => format!("decoders in hardware: {}", hardware.join(", ")),
    };
    let mut findings = vec![Finding::new(
        "gstreamer",
        Level::Ok,
        format!("{}, {hardware}", gst::version_string()),
    )];
    let kinds = [&FILE, &RTSP, &HTTP, &V4L2, &CSI];
    let used = |needs: &Needs| {
        config
            .cameras
            .iter()
            .any(|c| kind(c.source()) == Some(needs.kind))
    };
    findings.extend(kinds.into_iter().filter(|needs| used(needs)).map(elements));
    findings
}

/// The kind of a source; a pipeline's elements show themselves when it is opened.
fn kind(source: &Source) -> Option<&'static str> {
    match source {
        Source::File(_) => Some(FILE.kind),
        Source::Rtsp { .. } => Some(RTSP.kind),
        Source::Http { .. } => Some(HTTP.kind),
        Source::V4l2(_) => Some(V4L2.kind),
        Source::Csi(_) => Some(CSI.kind),
        Source::Pipeline(_) => None,
    }
}

fn exists(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

fn elements(needs: &Needs) -> Finding {
    let what = format!("elements for {}", needs.kind);
    let lacking = |elements: &[Element]| -> Vec<String> {
        elements
            .iter()
            .filter(|(name, _)| !exists(name))
            .map(|(name, package)| format!("{name} (install {package})"))
            .collect()
    };
    let missing = lacking(needs.elements);
    if !missing.is_empty() {
        return Finding::new(
            what,
            Level::Fail,
            format!("GStreamer lacks {}", missing.join(", ")),
        );
    }
    let mut missing = Vec::new();
    let mut present = Vec::new();
    for format in needs.formats {
        let way = lacking(format.way);
        let decoder = format.decoders.iter().find(|name| exists(name));
        match (way.is_empty(), decoder) {
            (true, Some(decoder)) => present.push(format!("{} by {decoder}", format.name)),
            (false, _) => missing.push(format!("{}: {}", format.name, way.join(", "))),
            (true, None) => missing.push(format!(
                "{}: a decoder (install {})",
                format.name, format.package
            )),
        }
    }
    if missing.is_empty() {
        present.insert(0, "all there".into());
        Finding::new(what, Level::Ok, present.join("; "))
    } else {
        // The cameras at hand may send something else.
        Finding::new(
            what,
            Level::Warn,
            format!("GStreamer lacks for {}", missing.join("; for ")),
        )
    }
}
