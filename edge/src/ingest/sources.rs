//! The first elements of a chain, by kind of source.

use gstreamer as gst;
use gstreamer::prelude::*;

use super::chain::{self, Decoding, link, make};
use super::{IngestError, redact};
use crate::config::{CameraConfig, Source, Transport};

/// Adds the elements of `camera`'s source to `pipeline` and leads them to `convert`.
pub(super) fn add(
    camera: &CameraConfig,
    pipeline: &gst::Pipeline,
    convert: &gst::Element,
    decoding: &Decoding,
) -> Result<(), IngestError> {
    match camera.source() {
        Source::File(path) => {
            let file = make(camera, "filesrc")?;
            file.set_property("location", path.to_string_lossy().as_ref());
            let decode = chain::decodebin(camera, convert, decoding)?;
            chain::add(camera, pipeline, &[&file, &decode])?;
            link(camera, &file, &decode)
        }
        Source::Rtsp { .. } => rtsp(camera, pipeline, convert, decoding),
        Source::Pipeline(elements) => parsed(camera, pipeline, convert, elements.reveal()),
        _ => Err(chain::internal(camera, "wip")),
    }
}

fn rtsp(
    camera: &CameraConfig,
    pipeline: &gst::Pipeline,
    convert: &gst::Element,
    decoding: &Decoding,
) -> Result<(), IngestError> {
    let Source::Rtsp {
        location,
        user,
        password,
    } = camera.source()
    else {
        return Ok(());
    };
    let rtsp = make(camera, "rtspsrc")?;
    rtsp.set_property("location", location);
    let protocols = match camera.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    rtsp.set_property_from_str("protocols", protocols);
    rtsp.set_property("latency", (camera.latency_secs * 1e3) as u32);
    let silence = (camera.stall_secs * 1e6) as u64;
    rtsp.set_property("tcp-timeout", silence);
    rtsp.set_property("timeout", silence);
    // From 1.22 on.
    if rtsp.find_property("add-reference-timestamp-meta").is_some() {
        rtsp.set_property("add-reference-timestamp-meta", true);
    }
    if let Some(user) = user {
        rtsp.set_property("user-id", user);
    }
    if let Some(password) = password {
        rtsp.set_property("user-pw", password.reveal());
    }
    // Sound is not even asked for.
    rtsp.connect("select-stream", false, |args| {
        let media = args.get(2).and_then(|v| v.get::<gst::Caps>().ok());
        Some(media.is_none_or(|caps| chain::is_video(&caps)).to_value())
    });
    let decode = chain::decodebin(camera, convert, decoding)?;
    chain::add(camera, pipeline, &[&rtsp, &decode])?;
    let target = decode.downgrade();
    rtsp.connect_pad_added(move |rtsp, pad| {
        let Some(sink) = target.upgrade().and_then(|d| d.static_pad("sink")) else {
            return;
        };
        let video = pad.current_caps().is_none_or(|caps| chain::is_video(&caps));
        if video && !sink.is_linked() && pad.link(&sink).is_err() {
            gst::element_error!(
                rtsp,
                gst::CoreError::Pad,
                ["the stream does not fit the decoder"]
            );
        }
    });
    Ok(())
}

/// Name of the element that ends a pipeline given in words.
const LAST: &str = "reid-last";

fn parsed(
    camera: &CameraConfig,
    pipeline: &gst::Pipeline,
    convert: &gst::Element,
    elements: &str,
) -> Result<(), IngestError> {
    let bad = |reason: String| IngestError::Pipeline {
        camera: camera.name.clone(),
        source_name: camera.source().to_string(),
        reason: redact(&reason),
    };
    // The identity lets it end in caps, which GStreamer takes for a filter only before another element.
    let bin =
        gst::parse::bin_from_description(&format!("{elements} ! identity name={LAST}"), false)
            .map_err(|e| bad(format!("GStreamer does not understand it: {}", e.message())))?;
    // Only the end is handed out: what a decodebin inside will link later looks unlinked, too.
    let end = bin.by_name(LAST).and_then(|last| last.static_pad("src"));
    let end = end.and_then(|pad| gst::GhostPad::with_target(&pad).ok());
    if end.is_none_or(|ghost| bin.add_pad(&ghost).is_err()) {
        return Err(bad("its end cannot be reached".into()));
    }
    chain::add(camera, pipeline, &[bin.upcast_ref()])?;
    bin.link(convert).map_err(|_| {
        bad("its last element has no free source pad of raw video (video/x-raw)".into())
    })
}
