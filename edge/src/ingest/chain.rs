//! The elements behind a source, up to an appsink of frames in the decoder's own format.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::{IngestError, Pace, packages, redact};
use crate::config::{CameraConfig, Source, Transport};

/// A built, not yet running chain.
pub(super) struct Chain {
    pub(super) pipeline: gst::Pipeline,
    pub(super) sink: gst_app::AppSink,
}

/// Builds the chain of a camera.
pub(super) fn build(camera: &CameraConfig, pace: Pace) -> Result<Chain, IngestError> {
    let pipeline = gst::Pipeline::new();
    let live = camera.is_live() && pace == Pace::RealTime;
    let sink = gst_app::AppSink::builder()
        .caps(
            &gst::Caps::builder("video/x-raw")
                .field("format", gst::List::new(super::frame::FORMATS))
                .build(),
        )
        // A live source is shown as it comes; a file is played by the clock only on request. Its frames wait for us,
        // because their numbers count; those of a camera do not.
        .sync(pace == Pace::RealTime && !live)
        .max_buffers(if live { 1 } else { 4 })
        .drop(live)
        .build();
    let convert = make(camera, "videoconvert")?;
    add(camera, &pipeline, &[&convert, sink.upcast_ref()])?;
    link(camera, &convert, sink.upcast_ref())?;
    match camera.source() {
        Source::File(path) => {
            let file = make(camera, "filesrc")?;
            file.set_property("location", path.to_string_lossy().as_ref());
            let decode = decoder(camera, &convert)?;
            add(camera, &pipeline, &[&file, &decode])?;
            link(camera, &file, &decode)?;
        }
        Source::Rtsp {
            location,
            user,
            password,
        } => {
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
            if let Some(user) = user {
                rtsp.set_property("user-id", user);
            }
            if let Some(password) = password {
                rtsp.set_property("user-pw", password.reveal());
            }
            // Sound is not even asked for.
            rtsp.connect("select-stream", false, |args| {
                let media = args.get(2).and_then(|v| v.get::<gst::Caps>().ok());
                Some(media.is_none_or(|caps| is_video(&caps)).to_value())
            });
            let decode = decoder(camera, &convert)?;
            add(camera, &pipeline, &[&rtsp, &decode])?;
            let target = decode.downgrade();
            rtsp.connect_pad_added(move |rtsp, pad| {
                let Some(sink) = target.upgrade().and_then(|d| d.static_pad("sink")) else {
                    return;
                };
                let video = pad.current_caps().is_none_or(|caps| is_video(&caps));
                if video && !sink.is_linked() && pad.link(&sink).is_err() {
                    gst::element_error!(
                        rtsp,
                        gst::CoreError::Pad,
                        ["the stream does not fit the decoder"]
                    );
                }
            });
        }
        Source::Http {
            location,
            user,
            password,
        } => {
            let http = make(camera, "souphttpsrc")?;
            http.set_property("location", location);
            http.set_property("is-live", true);
            // Whole seconds.
            http.set_property("timeout", camera.stall_secs.ceil() as u32);
            if let Some(user) = user {
                http.set_property("user-id", user);
            }
            if let Some(password) = password {
                http.set_property("user-pw", password.reveal());
            }
            let decode = decoder(camera, &convert)?;
            add(camera, &pipeline, &[&http, &decode])?;
            link(camera, &http, &decode)?;
        }
        Source::V4l2(device) => {
            let v4l2 = make(camera, "v4l2src")?;
            v4l2.set_property("device", device.to_string_lossy().as_ref());
            let decode = decoder(camera, &convert)?;
            add(camera, &pipeline, &[&v4l2, &decode])?;
            link(camera, &v4l2, &decode)?;
        }
        Source::Csi(sensor) => {
            let csi = make(camera, "nvarguscamerasrc")?;
            csi.set_property_from_str("sensor-id", &sensor.to_string());
            // From NVMM memory to the processor's.
            let copy = make(camera, "nvvidconv")?;
            add(camera, &pipeline, &[&csi, &copy])?;
            link(camera, &csi, &copy)?;
            link(camera, &copy, &convert)?;
        }
        Source::Pipeline(elements) => {
            let bad = |reason: String| IngestError::Pipeline {
                camera: camera.name.clone(),
                source_name: camera.source().to_string(),
                reason: redact(&reason),
            };
            // The identity lets it end in caps, which GStreamer takes for a filter only before another element.
            let bin = gst::parse::bin_from_description(
                &format!("{} ! identity name={LAST}", elements.reveal()),
                false,
            )
            .map_err(|e| bad(format!("GStreamer does not understand it: {}", e.message())))?;
            // Only the end is handed out: what a decodebin inside will link later looks unlinked, too.
            let end = bin.by_name(LAST).and_then(|last| last.static_pad("src"));
            let end = end.and_then(|pad| gst::GhostPad::with_target(&pad).ok());
            if end.is_none_or(|ghost| bin.add_pad(&ghost).is_err()) {
                return Err(bad("its end cannot be reached".into()));
            }
            add(camera, &pipeline, &[bin.upcast_ref()])?;
            bin.link(&convert).map_err(|_| {
                bad("its last element has no free source pad of raw video (video/x-raw)".into())
            })?;
        }
    }
    Ok(Chain { pipeline, sink })
}

/// Name of the element that ends a pipeline given in words.
const LAST: &str = "reid-last";

/// A decodebin whose first video stream goes to `convert`.
fn decoder(camera: &CameraConfig, convert: &gst::Element) -> Result<gst::Element, IngestError> {
    let decode = make(camera, "decodebin")?;
    let target = convert.downgrade();
    decode.connect_pad_added(move |decode, pad| {
        let Some(sink) = target.upgrade().and_then(|c| c.static_pad("sink")) else {
            return;
        };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        if is_video(&caps) && !sink.is_linked() && pad.link(&sink).is_err() {
            gst::element_error!(decode, gst::StreamError::Format, ["cannot convert {caps}"]);
        }
    });
    let target = convert.downgrade();
    decode.connect_no_more_pads(move |decode| {
        let unlinked = |c: gst::Element| c.static_pad("sink").is_some_and(|s| !s.is_linked());
        if target.upgrade().is_some_and(unlinked) {
            gst::element_error!(
                decode,
                gst::StreamError::WrongType,
                ["it holds no video stream"]
            );
        }
    });
    Ok(decode)
}

fn is_video(caps: &gst::Caps) -> bool {
    caps.structure(0).is_some_and(|s| {
        s.name().starts_with("video/")
            || s.name().starts_with("image/")
            || s.get::<&str>("media").is_ok_and(|m| m == "video")
    })
}

fn make(camera: &CameraConfig, name: &str) -> Result<gst::Element, IngestError> {
    gst::ElementFactory::make(name)
        .build()
        .map_err(|_| IngestError::MissingPlugin {
            camera: camera.name.clone(),
            what: format!("element {name}"),
            package: packages::of_element(name),
        })
}

fn add(
    camera: &CameraConfig,
    pipeline: &gst::Pipeline,
    elements: &[&gst::Element],
) -> Result<(), IngestError> {
    pipeline
        .add_many(elements)
        .map_err(|e| internal(camera, &e.to_string()))
}

fn link(camera: &CameraConfig, a: &gst::Element, b: &gst::Element) -> Result<(), IngestError> {
    a.link(b).map_err(|e| internal(camera, &e.to_string()))
}

fn internal(camera: &CameraConfig, reason: &str) -> IngestError {
    IngestError::Pipeline {
        camera: camera.name.clone(),
        source_name: camera.source().to_string(),
        reason: redact(reason),
    }
}
