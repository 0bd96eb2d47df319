//! One open source.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::chain::{self, Chain};
use super::{IngestError, frame, packages, redact};
use crate::config::{CameraConfig, Source};
use crate::types::{CameraIndex, Frame};

/// How fast a source runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as frames are taken; none is lost.
    Fast,
    /// As it comes, or as it was recorded.
    RealTime,
}

/// What came within the time given.
#[derive(Debug)]
pub enum Pulled {
    /// A frame to analyse.
    Frame(Frame),
    /// None yet.
    Nothing,
    /// A file is over, or a live source said goodbye.
    End,
}

/// One open source; closed when dropped.
pub struct Stream {
    index: CameraIndex,
    camera: CameraConfig,
    chain: Chain,
    /// Wall-clock times instead of positions in the file.
    live: bool,
    number: u64,
    /// Time of the newest frame, analysed or not.
    time: Option<f64>,
    next_due: f64,
    time_offset: f64,
    missing: Option<IngestError>,
    warning: Option<String>,
    dead_looks: u32,
}

/// A chain that looks dead so often in a row, 50 ms apart, is.
const DEAD_LOOKS: u32 = 6;

impl Stream {
    /// Opens the source of camera `index`. A bad file shows itself at the first [`Stream::next`].
    ///
    /// # Errors
    /// [`IngestError`], permanent if the configuration or the installation is at fault.
    pub fn open(
        index: CameraIndex,
        camera: &CameraConfig,
        pace: Pace,
    ) -> Result<Self, IngestError> {
        super::start()?;
        if let Source::File(path) = camera.source() {
            let readable = std::fs::File::open(path).and_then(|f| f.metadata());
            let reason = match readable {
                Ok(meta) if meta.is_dir() => Some("it is a folder".to_owned()),
                Ok(meta) if meta.len() == 0 => Some("it is empty".to_owned()),
                Ok(_) => None,
                Err(e) => Some(e.to_string()),
            };
            if let Some(reason) = reason {
                return Err(IngestError::File {
                    camera: camera.name.clone(),
                    path: path.clone(),
                    reason,
                });
            }
        }
        let chain = chain::build(camera, pace)?;
        let mut stream = Stream {
            index,
            live: camera.is_live() && pace == Pace::RealTime,
            camera: camera.clone(),
            chain,
            number: 0,
            time: None,
            next_due: f64::NEG_INFINITY,
            time_offset: 0.0,
            missing: None,
            warning: None,
            dead_looks: 0,
        };
        if stream
            .chain
            .pipeline
            .set_state(gst::State::Playing)
            .is_err()
        {
            return Err(stream
                .bus_error()
                .unwrap_or_else(|| stream.failed("it does not start")));
        }
        Ok(stream)
    }

    /// Continues the numbers and times of an earlier pass over a looped file.
    pub fn continue_from(&mut self, number: u64, time: f64) {
        self.number = number;
        self.time_offset = time;
    }

    /// Number and time of the newest frame, analysed or not.
    pub fn position(&self) -> (u64, f64) {
        (self.number, self.time.unwrap_or(self.time_offset))
    }

    /// What was wrong with a file whose frames could be read all the same.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Waits at most `timeout` for the next frame to analyse (`fps` of the camera is kept here).
    ///
    /// # Errors
    /// [`IngestError`]; the stream is then over.
    pub fn next(&mut self, timeout: Duration) -> Result<Pulled, IngestError> {
        let deadline = Instant::now() + timeout;
        loop {
            // Short waits: an error on the bus does not wake a pull.
            let wait = deadline
                .saturating_duration_since(Instant::now())
                .min(Duration::from_millis(50));
            let wait = gst::ClockTime::from_nseconds(wait.as_nanos() as u64);
            if let Some(sample) = self.chain.sink.try_pull_sample(wait) {
                let time = self.time_of(&sample);
                self.number += 1;
                self.time = Some(time);
                if !self.is_due(time) {
                    continue;
                }
                let picture = frame::picture(&sample).map_err(|reason| IngestError::NotVideo {
                    camera: self.camera.name.clone(),
                    source_name: self.camera.source().to_string(),
                    reason,
                })?;
                return Ok(Pulled::Frame(Frame {
                    camera: self.index,
                    number: self.number,
                    time,
                    clock_base: None,
                    arrived: Instant::now(),
                    captured: None,
                    picture: Arc::new(picture),
                }));
            }
            if let Some(error) = self.bus_error() {
                let damaged_file = !self.live && self.time.is_some();
                if !damaged_file {
                    return Err(error);
                }
                self.warn(format!("damaged after frame {}: {error}", self.number));
                return Ok(Pulled::End);
            }
            if self.chain.sink.is_eos() {
                return self.ended();
            }
            if self.time.is_none() && !self.live {
                self.dead_looks = if self.is_dead() {
                    self.dead_looks + 1
                } else {
                    0
                };
                if self.dead_looks >= DEAD_LOOKS {
                    return Err(self.failed("no stream in it can be read"));
                }
            }
            if Instant::now() >= deadline {
                return Ok(Pulled::Nothing);
            }
        }
    }

    /// Whether no thread of the chain is at work. decodebin holds back the errors of an element while it tries it out,
    /// and an error that comes just then is lost: a demuxer that has given up is all there is to see.
    fn is_dead(&self) -> bool {
        let mut any = false;
        for element in self.chain.pipeline.iterate_recurse().into_iter().flatten() {
            for pad in element.pads() {
                match pad.task_state() {
                    gst::TaskState::Started => return false,
                    gst::TaskState::Paused => any = true,
                    _ => {}
                }
            }
        }
        any
    }

    fn ended(&mut self) -> Result<Pulled, IngestError> {
        if self.live {
            return Ok(Pulled::End);
        }
        let Some(time) = self.time else {
            return Err(IngestError::NotVideo {
                camera: self.camera.name.clone(),
                source_name: self.camera.source().to_string(),
                reason: "it ends before the first frame: truncated, or no video".into(),
            });
        };
        let length = self.chain.pipeline.query_duration::<gst::ClockTime>();
        if let Some(length) = length {
            let (length, seen) = (length.nseconds() as f64 / 1e9, time - self.time_offset);
            if seen + 1.0 < 0.98 * length {
                self.warn(format!(
                    "truncated: it should last {length:.1} s and ends after {seen:.1} s"
                ));
            }
        }
        Ok(Pulled::End)
    }

    fn warn(&mut self, what: String) {
        tracing::warn!(camera = %self.camera.name, source = %self.camera.source(), "{what}");
        self.warning = Some(what);
    }

    /// Seconds, never going back.
    fn time_of(&self, sample: &gst::Sample) -> f64 {
        let last = self.time.unwrap_or(f64::NEG_INFINITY);
        if self.live {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |d| d.as_secs_f64());
            return now.max(last + 1e-3);
        }
        let pts = sample.buffer().and_then(|b| b.pts());
        let position = sample
            .segment()
            .and_then(|s| s.downcast_ref::<gst::ClockTime>())
            .and_then(|s| s.to_stream_time(pts?))
            .or(pts);
        match position {
            Some(t) => (t.nseconds() as f64 / 1e9 + self.time_offset).max(last),
            // A raw stream without times: 25 frames per second is as good a guess as any.
            None if last.is_finite() => last + 0.04,
            None => self.time_offset,
        }
    }

    /// Whether a frame at `time` is analysed under the camera's `fps`. The schedule keeps its phase, so 10 of 25 frames
    /// are 10 and not 8.3.
    fn is_due(&mut self, time: f64) -> bool {
        let Some(fps) = self.camera.fps else {
            return true;
        };
        if time + 1e-3 < self.next_due {
            return false;
        }
        let period = 1.0 / fps;
        self.next_due = if time - self.next_due < period {
            self.next_due + period
        } else {
            time + period
        };
        true
    }

    /// The first error on the bus.
    fn bus_error(&mut self) -> Option<IngestError> {
        let bus = self.chain.pipeline.bus()?;
        let wanted = [gst::MessageType::Error, gst::MessageType::Element];
        while let Some(message) = bus.pop_filtered(&wanted) {
            match message.view() {
                gst::MessageView::Element(element) => {
                    if let Some(s) = element.structure()
                        && s.name() == "missing-plugin"
                    {
                        self.missing = self.missing.take().or_else(|| self.lacks(s));
                    }
                }
                gst::MessageView::Error(error) => {
                    // What is missing explains the error that follows from it.
                    if let Some(missing) = self.missing.take() {
                        return Some(missing);
                    }
                    let error_text = error.error();
                    let detail = error.debug().and_then(|d| {
                        let line = d.lines().last()?.trim();
                        (!line.is_empty() && !line.starts_with("../") && !line.ends_with("():"))
                            .then(|| line.to_owned())
                    });
                    let mut reason = error_text.message().trim().to_owned();
                    if let Some(detail) = detail.filter(|d| !reason.contains(d.as_str())) {
                        reason = format!("{reason} ({detail})");
                    }
                    return Some(self.failed(&reason));
                }
                _ => {}
            }
        }
        None
    }

    fn lacks(&self, missing: &gst::StructureRef) -> Option<IngestError> {
        let (what, package) = match missing.get::<gst::Caps>("detail") {
            Ok(caps) => {
                let media = caps.structure(0)?.name().to_string();
                if media.starts_with("audio/") || media.starts_with("text/") {
                    return None;
                }
                let package = packages::of_media_type(&media);
                (format!("reader of {media}"), package)
            }
            Err(_) => {
                let name = missing.get::<String>("detail").ok()?;
                let package = packages::of_element(&name);
                (format!("element {name}"), package)
            }
        };
        Some(IngestError::MissingPlugin {
            camera: self.camera.name.clone(),
            what,
            package,
        })
    }

    fn failed(&self, reason: &str) -> IngestError {
        let camera = self.camera.name.clone();
        let source_name = self.camera.source().to_string();
        let reason = redact(reason);
        if self.camera.is_live() {
            IngestError::Lost {
                camera,
                source_name,
                reason,
            }
        } else {
            IngestError::NotVideo {
                camera,
                source_name,
                reason: format!("{reason}; truncated, or not a video"),
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Fails only for elements that are already gone.
        let _ = self.chain.pipeline.set_state(gst::State::Null);
    }
}
