//! The first elements of a chain, by kind of source.

use std::path::Path;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::chain::{self, Decoding, link, make};
use super::{IngestError, decoders, redact};
use crate::config::{CameraConfig, Secret, Source, Transport};

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
        Source::Rtsp {
            location,
            user,
            password,
        } => {
            let login = (user.as_deref(), password.as_ref().map(Secret::reveal));
            rtsp(camera, pipeline, convert, decoding, location, login)
        }
        Source::Http {
            location,
            user,
            password,
        } => {
            let login = (user.as_deref(), password.as_ref().map(Secret::reveal));
            http(camera, pipeline, convert, decoding, location, login)
        }
        Source::V4l2(device) => v4l2(camera, pipeline, convert, decoding, device),
        Source::Csi(sensor) => csi(camera, pipeline, convert, *sensor),
        Source::Pipeline(elements) => parsed(camera, pipeline, convert, elements.reveal()),
    }
}

/// User and password.
type Login<'a> = (Option<&'a str>, Option<&'a str>);

fn rtsp(
    camera: &CameraConfig,
    pipeline: &gst::Pipeline,
    convert: &gst::Element,
    decoding: &Decoding,
    location: &str,
    (user, password): Login,
) -> Result<(), IngestError> {
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
        rtsp.set_property("user-pw", password);
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

/// Motion JPEG in parts of one endless answer, as cameras send it, or anything that decodebin knows.
fn http(
    camera: &CameraConfig,
    pipeline: &gst::Pipeline,
    convert: &gst::Element,
    decoding: &Decoding,
    location: &str,
    (user, password): Login,
) -> Result<(), IngestError> {
    let http = make(camera, "souphttpsrc")?;
    http.set_property("location", location);
    http.set_property("is-live", true);
    http.set_property("do-timestamp", true);
    // Trying again is our business.
    http.set_property("retries", 0i32);
    // Whole seconds.
    http.set_property("timeout", camera.stall_secs.ceil() as u32);
    if let Some(user) = user {
        http.set_property("user-id", user);
    }
    if let Some(password) = password {
        http.set_property("user-pw", password);
    }
    let find = make(camera, "typefind")?;
    chain::add(camera, pipeline, &[&http, &find])?;
    link(camera, &http, &find)?;
    let (target, decoding) = (convert.downgrade(), decoding.clone());
    find.connect("have-type", false, move |args| {
        let find = args.first()?.get::<gst::Element>().ok()?;
        let caps = args.get(2)?.get::<gst::Caps>().ok()?;
        let convert = target.upgrade()?;
        if let Err(problem) = unpack(&find, &caps, &convert, &decoding) {
            decoding.fail(&find, problem);
        }
        None
    });
    Ok(())
}

/// Continues an HTTP answer that has turned out to be `caps`.
fn unpack(
    find: &gst::Element,
    caps: &gst::CapsRef,
    convert: &gst::Element,
    decoding: &Decoding,
) -> Result<(), IngestError> {
    let camera = decoding.camera();
    let parts = caps
        .structure(0)
        .is_some_and(|s| s.name() == "multipart/x-mixed-replace");
    let next = if parts {
        let parts = make(camera, "multipartdemux")?;
        // Or it would wait for further kinds of parts.
        parts.set_property("single-stream", true);
        let (target, decoding) = (convert.downgrade(), decoding.clone());
        parts.connect_pad_added(move |parts, pad| {
            if let Some(convert) = target.upgrade() {
                chain::attach(parts, pad, &convert, &decoding);
            }
        });
        parts
    } else {
        chain::decodebin(camera, convert, decoding)?
    };
    let pipeline = convert
        .parent()
        .and_downcast::<gst::Pipeline>()
        .ok_or_else(|| chain::internal(camera, "it is being closed"))?;
    chain::add(camera, &pipeline, &[&next])?;
    next.sync_state_with_parent()
        .map_err(|e| chain::internal(camera, &e.to_string()))?;
    link(camera, find, &next)
}

/// A device in the mode that suits best. Not run on a device yet.
fn v4l2(
    camera: &CameraConfig,
    pipeline: &gst::Pipeline,
    convert: &gst::Element,
    decoding: &Decoding,
    device: &Path,
) -> Result<(), IngestError> {
    let source = make(camera, "v4l2src")?;
    source.set_property("device", device.to_string_lossy().as_ref());
    chain::add(camera, pipeline, &[&source])?;
    let led = in_best_mode(camera, pipeline, convert, decoding, &source);
    if led.is_err() {
        // The device is open already. It closes without fail.
        let _ = source.set_state(gst::State::Null);
    }
    led
}

fn in_best_mode(
    camera: &CameraConfig,
    pipeline: &gst::Pipeline,
    convert: &gst::Element,
    decoding: &Decoding,
    source: &gst::Element,
) -> Result<(), IngestError> {
    let lost = |reason: &str| IngestError::Lost {
        camera: camera.name.clone(),
        source_name: camera.source().to_string(),
        reason: reason.to_owned(),
    };
    // Only an open device says what it can do.
    source
        .set_state(gst::State::Ready)
        .map_err(|_| lost("the device cannot be opened: not there, in use, or not permitted"))?;
    let pad = source
        .static_pad("src")
        .ok_or_else(|| chain::internal(camera, "v4l2src has no source pad"))?;
    let offered = pad.query_caps(None);
    let mode = super::v4l2::choose_mode(&offered, camera.fps)
        .ok_or_else(|| lost(&format!("it offers no mode that is known here: {offered}")))?;
    let filter = make(camera, decoders::FILTER)?;
    filter.set_property("caps", &mode);
    chain::add(camera, pipeline, &[&filter])?;
    link(camera, source, &filter)?;
    let end = filter
        .static_pad("src")
        .ok_or_else(|| chain::internal(camera, "capsfilter has no source pad"))?;
    chain::decode(&end, &mode, convert, decoding)
}

/// A Jetson's own camera connector: pictures come out of the image processor in NVMM memory. Not run on a Jetson yet.
fn csi(
    camera: &CameraConfig,
    pipeline: &gst::Pipeline,
    convert: &gst::Element,
    sensor: u32,
) -> Result<(), IngestError> {
    let source = make(camera, "nvarguscamerasrc")?;
    source.set_property_from_str("sensor-id", &sensor.to_string());
    let mut elements = vec![source];
    for name in decoders::to_memory("memory:NVMM", &|_| true) {
        let element = make(camera, name)?;
        if name == decoders::FILTER {
            element.set_property("caps", decoders::filter("nvvidconv"));
        }
        elements.push(element);
    }
    let all: Vec<&gst::Element> = elements.iter().collect();
    chain::add(camera, pipeline, &all)?;
    for pair in elements.windows(2) {
        link(camera, &pair[0], &pair[1])?;
    }
    let last = elements.last().unwrap_or(convert);
    link(camera, last, convert)
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
