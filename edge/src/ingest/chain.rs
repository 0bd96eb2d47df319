//! The elements behind a source, up to an appsink of frames in the decoder's own format.
//!
//! `source ! decodebin ! parser ! decoder ! (copy out of the device) ! videoconvert ! appsink`: decodebin only takes
//! containers and packets apart; what decodes is chosen by [`decoders`]. videoconvert does nothing to I420, NV12 and RGB.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use super::capture_time::SenderReports;
use super::decoders::{self, Codec, NoDecoder, Preference};
use super::inbox::Inbox;
use super::{IngestError, packages, redact, sources};
use crate::config::CameraConfig;

/// A built, not yet running chain.
pub(super) struct Chain {
    pub(super) pipeline: gst::Pipeline,
    pub(super) sink: gst_app::AppSink,
    pub(super) decoding: Decoding,
}

/// What the threads of a chain that find out about the stream tell the one that watches it.
#[derive(Clone)]
pub(super) struct Decoding {
    camera: Arc<CameraConfig>,
    preference: Preference,
    /// Explains an error better than GStreamer can.
    problem: Arc<Mutex<Option<IngestError>>>,
    hardware: Arc<AtomicBool>,
}

impl Decoding {
    pub(super) fn camera(&self) -> &CameraConfig {
        &self.camera
    }

    pub(super) fn take_problem(&self) -> Option<IngestError> {
        self.problem
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .take()
    }

    /// Whether hardware decodes.
    pub(super) fn is_hardware(&self) -> bool {
        self.hardware.load(Ordering::Relaxed)
    }

    /// Has the reader of the bus fail with `problem`.
    pub(super) fn fail(&self, element: &gst::Element, problem: IngestError) {
        let text = problem.to_string();
        self.problem
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .get_or_insert(problem);
        gst::element_error!(element, gst::StreamError::CodecNotFound, ["{text}"]);
    }
}

/// Builds the chain of a camera; its frames go to `inbox`.
pub(super) fn build(
    camera: &CameraConfig,
    preference: Preference,
    by_the_clock: bool,
    inbox: &Arc<Inbox>,
) -> Result<Chain, IngestError> {
    let pipeline = gst::Pipeline::new();
    // No element's clock: it would be lost with the element.
    pipeline.use_clock(Some(&gst::SystemClock::obtain()));
    let reports = SenderReports::default();
    reports.watch(&pipeline);
    let sink = gst_app::AppSink::builder()
        .caps(
            &gst::Caps::builder("video/x-raw")
                .field("format", gst::List::new(super::frame::FORMATS))
                .build(),
        )
        // A live source is shown as it comes; a file is played by the clock only on request.
        .sync(by_the_clock)
        .max_buffers(1)
        .enable_last_sample(false)
        .callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample({
                    let inbox = inbox.clone();
                    move |sink| {
                        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                        let captured = reports.captured(&sample);
                        if inbox.put(sample, captured) {
                            Ok(gst::FlowSuccess::Ok)
                        } else {
                            Err(gst::FlowError::Flushing)
                        }
                    }
                })
                .eos({
                    let inbox = inbox.clone();
                    move |_| inbox.end()
                })
                .build(),
        )
        .build();
    takes_padded_rows(&sink);
    let convert = make(camera, "videoconvert")?;
    add(camera, &pipeline, &[&convert, sink.upcast_ref()])?;
    link(camera, &convert, sink.upcast_ref())?;
    let decoding = Decoding {
        camera: Arc::new(camera.clone()),
        preference,
        problem: Arc::default(),
        hardware: Arc::default(),
    };
    sources::add(camera, &pipeline, &convert, &decoding)?;
    Ok(Chain {
        pipeline,
        sink,
        decoding,
    })
}

/// Says that rows may be padded and planes lie anywhere; otherwise decoders copy every picture into a tight buffer first.
fn takes_padded_rows(sink: &gst_app::AppSink) {
    let Some(pad) = sink.static_pad("sink") else {
        return;
    };
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
        if let Some(query) = info.query_mut()
            && let gst::QueryViewMut::Allocation(allocation) = query.view_mut()
        {
            allocation.add_allocation_meta::<gst_video::VideoMeta>(None);
        }
        gst::PadProbeReturn::Ok
    });
}

/// A decodebin whose first video stream is decoded as planned and goes to `convert`.
pub(super) fn decodebin(
    camera: &CameraConfig,
    convert: &gst::Element,
    decoding: &Decoding,
) -> Result<gst::Element, IngestError> {
    let decode = make(camera, "decodebin")?;
    // Encoded streams that we decode ourselves come out as they are.
    let mut stop = gst::Caps::new_empty();
    {
        let stop = stop.make_mut();
        for codec in decoders::CODECS {
            stop.append(gst::Caps::new_empty_simple(codec.media_type()));
        }
        for raw in ["video/x-raw", "audio/x-raw"] {
            stop.append(gst::Caps::builder(raw).any_features().build());
        }
    }
    decode.set_property("caps", &stop);
    software_only(&decode);
    let target = convert.downgrade();
    decode.connect_pad_added({
        let decoding = decoding.clone();
        move |decode, pad| {
            if let Some(convert) = target.upgrade() {
                attach(decode, pad, &convert, &decoding);
            }
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

/// What decodebin decodes by itself (rare codecs) is decoded by software: its pictures lie where we can read them.
fn software_only(decode: &gst::Element) {
    decode.connect("autoplug-select", false, move |args| {
        let factory = args.get(3)?.get::<gst::ElementFactory>().ok()?;
        let decoder = factory
            .metadata("klass")
            .is_some_and(|k| k.contains("Decoder"));
        let answer = if decoder && decoders::is_hardware(&factory) {
            "skip"
        } else {
            "try"
        };
        gst::glib::Type::from_name("GstAutoplugSelectResult")
            .and_then(gst::glib::EnumClass::with_type)?
            .to_value_by_nick(answer)
    });
}

/// Leads `pad` to `convert` through a decoder, if it is video and the first. Called from a streaming thread.
pub(super) fn attach(
    source: &gst::Element,
    pad: &gst::Pad,
    convert: &gst::Element,
    decoding: &Decoding,
) {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let free = convert
        .static_pad("sink")
        .is_some_and(|sink| !sink.is_linked());
    if !is_video(&caps) || !free {
        return;
    }
    if let Err(problem) = decode(pad, &caps, convert, decoding) {
        decoding.fail(source, problem);
    }
}

/// Leads `pad`, whose stream is `caps`, to `convert` through a decoder if it needs one.
pub(super) fn decode(
    pad: &gst::Pad,
    caps: &gst::Caps,
    convert: &gst::Element,
    decoding: &Decoding,
) -> Result<(), IngestError> {
    let camera = &decoding.camera;
    let media = caps.structure(0).map_or("", |s| s.name().as_str());
    let names = match Codec::of_media_type(media) {
        Some(codec) => {
            let plan = decoders::choose(codec, decoding.preference, &decoders::usable)
                .map_err(|e| no_decoder(camera, codec, &e))?;
            decoding.hardware.store(plan.hardware, Ordering::Relaxed);
            plan.elements
        }
        None => {
            let feature = caps
                .features(0)
                .and_then(|f| f.iter().next().map(|f| f.to_string()))
                .unwrap_or_default();
            if ["", "memory:SystemMemory", "ANY"].contains(&feature.as_str()) {
                Vec::new()
            } else {
                decoders::to_memory(&feature, &decoders::usable)
            }
        }
    };
    let pipeline = convert
        .parent()
        .and_downcast::<gst::Bin>()
        .ok_or_else(|| internal(camera, "it is being closed"))?;
    let mut chain = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let element = make(camera, name)?;
        if *name == decoders::FILTER && i > 0 {
            element.set_property("caps", decoders::filter(names[i - 1]));
        }
        chain.push(element);
    }
    pipeline
        .add_many(&chain)
        .map_err(|e| internal(camera, &e.to_string()))?;
    let links = chain.iter().zip(chain.iter().skip(1).chain([convert]));
    for (a, b) in links {
        link(camera, a, b)?;
    }
    // From the end: a decoder that starts must find somebody to talk to.
    for element in chain.iter().rev() {
        element
            .sync_state_with_parent()
            .map_err(|e| internal(camera, &e.to_string()))?;
    }
    let first = chain.first().unwrap_or(convert);
    let sink = first
        .static_pad("sink")
        .ok_or_else(|| internal(camera, "the decoder has no sink pad"))?;
    pad.link(&sink)
        .map_err(|e| internal(camera, &format!("{caps} does not fit {}: {e}", first.name())))?;
    Ok(())
}

/// The error for a stream that nothing here decodes.
pub(super) fn no_decoder(camera: &CameraConfig, codec: Codec, why: &NoDecoder) -> IngestError {
    let (what, package) = match why {
        NoDecoder::Hardware(looked_for) => {
            return IngestError::NoHardware {
                camera: camera.name.clone(),
                what: codec.name().to_owned(),
                looked_for: looked_for.join(", "),
            };
        }
        NoDecoder::Any(looked_for) => (
            format!(
                "decoder of {} (looked for {})",
                codec.name(),
                looked_for.join(", ")
            ),
            looked_for.first().copied().unwrap_or(""),
        ),
        NoDecoder::Parser(name) => (format!("element {name}"), *name),
    };
    IngestError::MissingPlugin {
        camera: camera.name.clone(),
        what,
        package: packages::of_element(package),
    }
}

/// Whether caps of a stream, or of a stream in RTP packets, are of pictures.
pub(super) fn is_video(caps: &gst::CapsRef) -> bool {
    caps.structure(0).is_some_and(|s| {
        s.name().starts_with("video/")
            || s.name().starts_with("image/")
            || s.get::<&str>("media").is_ok_and(|m| m == "video")
    })
}

pub(super) fn make(camera: &CameraConfig, name: &str) -> Result<gst::Element, IngestError> {
    gst::ElementFactory::make(name)
        .build()
        .map_err(|_| IngestError::MissingPlugin {
            camera: camera.name.clone(),
            what: format!("element {name}"),
            package: packages::of_element(name),
        })
}

pub(super) fn add(
    camera: &CameraConfig,
    pipeline: &gst::Pipeline,
    elements: &[&gst::Element],
) -> Result<(), IngestError> {
    pipeline
        .add_many(elements)
        .map_err(|e| internal(camera, &e.to_string()))
}

pub(super) fn link(
    camera: &CameraConfig,
    a: &gst::Element,
    b: &gst::Element,
) -> Result<(), IngestError> {
    a.link(b).map_err(|e| internal(camera, &e.to_string()))
}

/// Elements that should fit and do not.
pub(super) fn internal(camera: &CameraConfig, reason: &str) -> IngestError {
    IngestError::Pipeline {
        camera: camera.name.clone(),
        source_name: camera.source().to_string(),
        reason: redact(reason),
    }
}
