//! What was really built, read back from the running pipeline.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;

use super::decoders;

/// The chain that a sample came through, upwards from `sink`, in words:
/// `rtsp tcp, h264, avdec_h264 (software), I420 1280x720, bt709, limited`.
pub(super) fn describe(sink: &gst::Element, caps: &gst::CapsRef) -> String {
    let elements = upstream(sink);
    let mut words = vec![source(&elements)];
    let decoder = elements
        .iter()
        .enumerate()
        .find(|(_, e)| klass(e).contains("Decoder"));
    if let Some((at, element)) = decoder {
        words.push(encoding(element));
        let hardware = element.factory().is_some_and(|f| decoders::is_hardware(&f));
        words.push(format!(
            "{} ({})",
            factory(element),
            if hardware { "hardware" } else { "software" }
        ));
        // What copies out of the device's memory.
        for element in elements[..at].iter().rev() {
            if !["capsfilter", "videoconvert", "queue"].contains(&factory(element).as_str()) {
                words.push(factory(element));
            }
        }
    }
    for element in elements.iter().rev() {
        if factory(element) == "videoconvert"
            && let Some((from, to)) = converted(element)
        {
            words.push(format!("converted from {from} to {to}"));
        }
    }
    words.extend(picture(caps));
    words.join(", ")
}

/// The elements that lead to `sink`, nearest first, seen through bins.
fn upstream(sink: &gst::Element) -> Vec<gst::Element> {
    let mut found = Vec::new();
    let mut pad = sink.static_pad("sink");
    // A loop in the graph would go on for ever.
    while let Some(peer) = pad.take().and_then(|p| source_pad(&p)) {
        let Some(element) = peer.parent_element() else {
            break;
        };
        pad = peer
            .iterate_internal_links()
            .into_iter()
            .flatten()
            .find(|p| p.direction() == gst::PadDirection::Sink);
        // Some elements do not say which of their pads belong together.
        if pad.is_none() {
            pad = element.sink_pads().into_iter().find(|p| p.is_linked());
        }
        found.push(element);
        if found.len() > 100 {
            break;
        }
    }
    found
}

/// The real pad that feeds `sink`, behind any ghosts.
fn source_pad(sink: &gst::Pad) -> Option<gst::Pad> {
    let mut pad = sink.peer()?;
    for _ in 0..100 {
        if let Some(ghost) = pad.downcast_ref::<gst::GhostPad>() {
            // Out of a bin: look inside.
            pad = ghost.target()?;
        } else if let Some(ghost) = pad.parent().and_downcast::<gst::GhostPad>() {
            // Into a bin: look outside.
            pad = ghost.peer()?;
        } else {
            return Some(pad);
        }
    }
    None
}

fn factory(element: &gst::Element) -> String {
    element
        .factory()
        .map_or_else(String::new, |f| f.name().to_string())
}

fn klass(element: &gst::Element) -> String {
    element
        .factory()
        .and_then(|f| f.metadata("klass").map(str::to_owned))
        .unwrap_or_default()
}

/// `rtsp tcp`, `file`, ... from the element that everything comes from.
fn source(elements: &[gst::Element]) -> String {
    let names: Vec<String> = elements.iter().map(factory).collect();
    let has = |name: &str| names.iter().any(|n| n == name);
    let last = names.last().map_or("", String::as_str);
    let rtsp = elements.iter().find_map(|e| {
        let mut parent = e.parent();
        while let Some(p) = parent {
            if let Some(e) = p.downcast_ref::<gst::Element>()
                && factory(e) == "rtspsrc"
            {
                return Some(e.clone());
            }
            parent = p.parent();
        }
        None
    });
    if let Some(rtsp) = rtsp.and_downcast::<gst::Bin>() {
        let mut inside = rtsp.iterate_recurse().into_iter().flatten();
        return match inside.any(|e| factory(&e) == "udpsrc") {
            true => "rtsp udp".into(),
            false => "rtsp tcp".into(),
        };
    }
    match last {
        "filesrc" => "file".into(),
        "souphttpsrc" if has("multipartdemux") => "http multipart".into(),
        "souphttpsrc" => "http".into(),
        "v4l2src" => "v4l2".into(),
        "nvarguscamerasrc" => "csi".into(),
        other => format!("pipeline {other}"),
    }
}

/// `h264` from what goes into a decoder.
fn encoding(decoder: &gst::Element) -> String {
    let caps = decoder.static_pad("sink").and_then(|p| p.current_caps());
    let media = caps
        .as_ref()
        .and_then(|c| c.structure(0))
        .map_or("", |s| s.name().as_str());
    let plain = media.rsplit('/').next().unwrap_or(media);
    plain.strip_prefix("x-").unwrap_or(plain).to_owned()
}

/// Formats at both ends of a converter that really converts.
fn converted(convert: &gst::Element) -> Option<(String, String)> {
    let format = |pad: &str| -> Option<String> {
        let caps = convert.static_pad(pad)?.current_caps()?;
        let format = caps.structure(0)?.get::<&str>("format").ok()?;
        Some(format.to_owned())
    };
    let (from, to) = (format("sink")?, format("src")?);
    (from != to).then_some((from, to))
}

/// `I420 1280x720`, `bt709`, `limited`.
fn picture(caps: &gst::CapsRef) -> Vec<String> {
    let Ok(info) = gst_video::VideoInfo::from_caps(caps) else {
        return vec![caps.to_string()];
    };
    let mut words = vec![format!(
        "{} {}x{}",
        info.format().to_str(),
        info.width(),
        info.height()
    )];
    if info.is_yuv() {
        let colorimetry = info.colorimetry();
        words.push(
            match colorimetry.matrix() {
                gst_video::VideoColorMatrix::Bt601 => "bt601",
                gst_video::VideoColorMatrix::Bt709 => "bt709",
                gst_video::VideoColorMatrix::Bt2020 => "bt2020",
                _ => "matrix not said",
            }
            .into(),
        );
        words.push(
            match colorimetry.range() {
                gst_video::VideoColorRange::Range0_255 => "full",
                _ => "limited",
            }
            .into(),
        );
    }
    words
}
