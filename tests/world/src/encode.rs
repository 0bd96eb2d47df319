//! H.264 in MP4 through GStreamer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;

/// Elements of the pipeline and the Debian packages that carry them.
const ELEMENTS: [(&str, &str); 6] = [
    ("appsrc", "gstreamer1.0-plugins-base"),
    ("videoconvert", "gstreamer1.0-plugins-base"),
    ("openh264enc", "gstreamer1.0-plugins-bad"),
    ("h264parse", "gstreamer1.0-plugins-bad"),
    ("mp4mux", "gstreamer1.0-plugins-good"),
    ("filesink", "libgstreamer1.0-0"),
];

/// How long a stage may do nothing before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// Frames that may wait for the encoder.
const QUEUED_FRAMES: usize = 4;

/// Writes one H.264 file, frame by frame.
#[derive(Debug)]
pub struct Encoder {
    pipeline: gst::Pipeline,
    source: AppSrc,
    file: String,
    fps: u32,
    frames: u64,
    bytes: usize,
    /// Source pad of the encoder and the number of frames that left it.
    coded: (gst::Pad, Arc<AtomicU64>),
}

/// Checks that every needed GStreamer element is there.
///
/// # Errors
/// Names the first missing element and the Debian package that carries it.
pub fn check() -> Result<()> {
    gst::init().context("GStreamer does not start")?;
    for (element, package) in ELEMENTS {
        if gst::ElementFactory::find(element).is_none() {
            bail!("GStreamer element {element} is missing: on Debian or Ubuntu install {package}");
        }
    }
    Ok(())
}

impl Encoder {
    /// Opens `file` for frames of `size` (width, height; both even) at `fps` frames a second.
    ///
    /// # Errors
    /// A missing element (see [`check`]) or a pipeline that does not start.
    pub fn new(file: &Path, size: (usize, usize), fps: u32) -> Result<Self> {
        check()?;
        let make = |name: &str| {
            gst::ElementFactory::make(name)
                .build()
                .with_context(|| format!("GStreamer element {name} cannot be made"))
        };
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "RGB")
            .field("width", size.0 as i32)
            .field("height", size.1 as i32)
            .field("framerate", gst::Fraction::new(fps as i32, 1))
            .build();
        let source = AppSrc::builder()
            .caps(&caps)
            .format(gst::Format::Time)
            .block(false)
            .max_bytes(0)
            .build();
        let convert = make("videoconvert")?;
        let encode = make("openh264enc")?;
        // About 0.5 bits a pixel: fine enough that the picture's faults are the camera's, not the file's.
        let bitrate = ((size.0 * size.1) as f64 * f64::from(fps) * 0.5).clamp(2e5, 2e7) as u32;
        encode.set_property("bitrate", bitrate);
        encode.set_property("gop-size", fps * 2);
        encode.set_property_from_str("complexity", "low");
        let parse = make("h264parse")?;
        let mux = make("mp4mux")?;
        let sink = make("filesink")?;
        sink.set_property("location", file.to_string_lossy().as_ref());
        let pipeline = gst::Pipeline::new();
        let chain = [source.upcast_ref(), &convert, &encode, &parse, &mux, &sink];
        pipeline.add_many(chain).context("GStreamer pipeline")?;
        gst::Element::link_many(chain).context("GStreamer pipeline")?;
        let pad = encode
            .static_pad("src")
            .context("the encoder has no source pad")?;
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            counter.fetch_add(1, Ordering::Release);
            gst::PadProbeReturn::Ok
        });
        let encoder = Self {
            coded: (pad, count),
            pipeline,
            source,
            file: file.display().to_string(),
            fps,
            frames: 0,
            bytes: size.0 * size.1 * 3,
        };
        if encoder.pipeline.set_state(gst::State::Playing).is_err() {
            encoder.watch(Duration::from_secs(1))?;
            bail!("{}: the encoder does not start", encoder.file);
        }
        Ok(encoder)
    }

    /// Appends a frame of packed RGB.
    ///
    /// # Errors
    /// A frame of the wrong size, or an encoder or disk that failed.
    pub fn push(&mut self, rgb: &[u8]) -> Result<()> {
        if rgb.len() != self.bytes {
            bail!(
                "{}: frame of {} bytes, wanted {}",
                self.file,
                rgb.len(),
                self.bytes
            );
        }
        // GStreamer pads rows of RGB to four bytes; the width is a multiple of four, so nothing is padded.
        let mut buffer = gst::Buffer::from_mut_slice(rgb.to_vec());
        let time = |n: u64| gst::ClockTime::from_nseconds(n * 1_000_000_000 / u64::from(self.fps));
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(time(self.frames));
            buffer.set_duration(time(self.frames + 1) - time(self.frames));
        }
        // A blocking appsrc would wait for ever once the rest of the pipeline has stopped on an error.
        let deadline = Instant::now() + PATIENCE;
        while self.source.current_level_bytes() >= (QUEUED_FRAMES * self.bytes) as u64 {
            self.watch(Duration::from_millis(2))?;
            if Instant::now() > deadline {
                bail!("{}: the encoder took no frame for 60 s", self.file);
            }
        }
        if self.source.push_buffer(buffer).is_err() {
            self.watch(Duration::from_secs(1))?;
            bail!("{}: the encoder stopped", self.file);
        }
        self.frames += 1;
        Ok(())
    }

    /// Ends the file.
    ///
    /// The end of stream enters behind the encoder: `openh264enc` asked to drain encodes an empty picture
    /// and prints an error on every file. It holds no frame back, so nothing is lost.
    ///
    /// # Errors
    /// An encoder or disk that failed.
    pub fn finish(self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let (pad, coded) = &self.coded;
        let mut ended = false;
        while Instant::now() < deadline {
            if !ended && coded.load(Ordering::Acquire) == self.frames {
                ended = true;
                pad.push_event(gst::event::Eos::new());
            }
            if self.watch(Duration::from_millis(5))? {
                return Ok(());
            }
        }
        bail!("{}: the encoder did not end within 60 s", self.file)
    }

    /// Waits for a message of the pipeline; true at the end of the stream, an error if the pipeline has one.
    fn watch(&self, wait: Duration) -> Result<bool> {
        let bus = self.pipeline.bus().context("GStreamer bus")?;
        let kinds = [gst::MessageType::Error, gst::MessageType::Eos];
        let wait = gst::ClockTime::from_mseconds(wait.as_millis() as u64);
        match bus
            .timed_pop_filtered(wait, &kinds)
            .as_ref()
            .map(|m| m.view())
        {
            Some(gst::MessageView::Error(error)) => {
                let detail = error.debug().map(|d| d.to_string()).unwrap_or_default();
                let detail = detail.lines().last().unwrap_or_default().to_owned();
                bail!(
                    "{}: {} ({detail}); check the folder's rights and the free space",
                    self.file,
                    error.error()
                )
            }
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // Nothing can be done about a pipeline that does not stop.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}
