//! One open source.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::bus::Complaints;
use super::chain::{self, Chain};
use super::close::{self, Latch};
use super::counts::Tally;
use super::decoders::{self, Preference};
use super::inbox::{Arrived, Dating, Event, Inbox, Keep};
use super::stamp::{OffsetLimit, Stamper};
use super::{IngestError, description, frame};
use crate::clock::Clock;
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

/// What an earlier connection to the same source leaves to the next.
#[derive(Clone)]
pub(super) struct Past {
    /// Frames so far.
    pub(super) number: u64,
    /// Added to a file's positions, seconds.
    pub(super) time_offset: f64,
    pub(super) stamper: Arc<Mutex<Stamper>>,
    pub(super) tally: Tally,
    /// Hardware has failed on this stream.
    pub(super) software: bool,
}

/// One open source; closed when dropped.
pub struct Stream {
    index: CameraIndex,
    camera: CameraConfig,
    chain: Chain,
    inbox: Arc<Inbox>,
    tally: Tally,
    /// Wall-clock times instead of positions in the file.
    live: bool,
    time_offset: f64,
    /// Caps of the newest sample, and the chain that brought it.
    caps: Option<gst::Caps>,
    description: String,
    size: Option<(usize, usize)>,
    /// Unreadable pictures in a row.
    unreadable: u32,
    complaints: Complaints,
    warning: Option<String>,
    dead_looks: u32,
    closing: Option<Latch>,
}

/// A chain that looks dead so often in a row, [`LOOK`] apart, is.
const DEAD_LOOKS: u32 = 6;
/// See [`DEAD_LOOKS`].
const LOOK: Duration = Duration::from_millis(50);
/// So many unreadable pictures in a row are no accident.
const UNREADABLE: u32 = 25;
/// How long closing is waited for.
pub(super) const CLOSE: Duration = Duration::from_secs(2);

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
        let stamper = Stamper::new(
            Clock::system(),
            super::arrival_only(camera),
            OffsetLimit::default(),
        );
        let past = Past {
            number: 0,
            time_offset: 0.0,
            stamper: Arc::new(Mutex::new(stamper)),
            tally: Tally::default(),
            software: false,
        };
        Self::open_again(index, camera, pace, past)
    }

    pub(super) fn open_again(
        index: CameraIndex,
        camera: &CameraConfig,
        pace: Pace,
        past: Past,
    ) -> Result<Self, IngestError> {
        super::start()?;
        check_file(camera)?;
        let mut preference = super::preference(camera);
        if preference == Preference::Hardware
            && !matches!(camera.source(), Source::Pipeline(_))
            && !decoders::any_hardware(&decoders::usable)
        {
            return Err(IngestError::NoHardware {
                camera: camera.name.clone(),
                what: "any format".into(),
                looked_for: "nvv4l2decoder, nvh264dec, vah264dec and their like".into(),
            });
        }
        if preference == Preference::Auto && past.software {
            preference = Preference::Software;
        }
        let live = camera.is_live() && pace == Pace::RealTime;
        let keep = match pace {
            Pace::Fast => Keep::All,
            Pace::RealTime => Keep::Newest,
        };
        let dating = if live {
            Dating::Live(past.stamper)
        } else {
            Dating::Recorded(past.time_offset)
        };
        let inbox = Arc::new(Inbox::new(
            keep,
            past.number,
            dating,
            camera.fps,
            past.tally.clone(),
        ));
        let by_the_clock = pace == Pace::RealTime && !live;
        let chain = chain::build(camera, preference, by_the_clock, &inbox)?;
        let complaints = Complaints::listen(
            &chain.pipeline,
            camera,
            &chain.decoding,
            &inbox,
            &past.tally,
        );
        let mut stream = Stream {
            index,
            camera: camera.clone(),
            chain,
            inbox,
            tally: past.tally,
            live,
            time_offset: past.time_offset,
            caps: None,
            description: String::new(),
            size: None,
            unreadable: 0,
            complaints,
            warning: None,
            dead_looks: 0,
            closing: None,
        };
        if stream
            .chain
            .pipeline
            .set_state(gst::State::Playing)
            .is_err()
        {
            return Err(stream
                .complaints
                .take()
                .unwrap_or_else(|| stream.complaints.failed("it does not start")));
        }
        Ok(stream)
    }

    /// Number and time of the newest frame, analysed or not.
    pub fn position(&self) -> (u64, f64) {
        let (number, time) = self.inbox.position();
        (number, time.unwrap_or(self.time_offset))
    }

    /// What was wrong with a file whose frames could be read all the same.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// The elements that brought the newest frame and its format, in words:
    /// `rtsp tcp, h264, avdec_h264 (software), I420 1280x720, bt709, limited`. Empty before the first frame.
    pub fn chain(&self) -> &str {
        &self.description
    }

    /// Width and height of the newest frame.
    pub fn size(&self) -> Option<(usize, usize)> {
        self.size
    }

    /// When the newest whole frame came, analysed or not.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.inbox.heard()
    }

    /// What wakes [`Stream::next`].
    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Whether the hardware decoder failed, so that software should be tried.
    pub(super) fn hardware_failed(&self) -> bool {
        self.complaints.hardware_failed()
    }

    /// Waits at most `timeout` for the next frame to analyse (`fps` of the camera is kept here). [`Pulled::Nothing`] may
    /// come sooner.
    ///
    /// # Errors
    /// [`IngestError`]; the stream is then over.
    pub fn next(&mut self, timeout: Duration) -> Result<Pulled, IngestError> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let opening_file = !self.live && self.inbox.position().1.is_none();
            let wait = if opening_file { left.min(LOOK) } else { left };
            match self.inbox.next(wait) {
                Event::Frame(arrived) => {
                    if let Some(frame) = self.copy(arrived)? {
                        return Ok(Pulled::Frame(frame));
                    }
                }
                Event::Message => {
                    if let Some(error) = self.complaints.take() {
                        return self.broken(error);
                    }
                }
                Event::Ended => {
                    // An error may have ended it.
                    return match self.complaints.take() {
                        Some(error) => self.broken(error),
                        None => self.ended(),
                    };
                }
                Event::Woken => return Ok(Pulled::Nothing),
                Event::Nothing => {
                    if opening_file {
                        self.dead_looks = if self.is_dead() {
                            self.dead_looks + 1
                        } else {
                            0
                        };
                        if self.dead_looks >= DEAD_LOOKS {
                            return Err(self.complaints.failed("no stream in it can be read"));
                        }
                    }
                    if Instant::now() >= deadline {
                        return Ok(Pulled::Nothing);
                    }
                }
            }
        }
    }

    /// The frame; `None` if it cannot be read and more may come.
    fn copy(&mut self, arrived: Arrived) -> Result<Option<Frame>, IngestError> {
        let picture = match frame::picture(&arrived.sample) {
            Ok(picture) => picture,
            Err(reason) if self.live && self.unreadable < UNREADABLE => {
                self.unreadable += 1;
                self.tally.change(|c| c.bad += 1);
                tracing::debug!(camera = %self.camera.name, "a picture cannot be read: {reason}");
                return Ok(None);
            }
            Err(reason) if self.live => return Err(self.complaints.failed(&reason)),
            Err(reason) => {
                return Err(IngestError::NotVideo {
                    camera: self.camera.name.clone(),
                    source_name: self.camera.source().to_string(),
                    reason,
                });
            }
        };
        self.unreadable = 0;
        self.look_at(&arrived.sample);
        self.size = Some(picture.size());
        Ok(Some(Frame {
            camera: self.index,
            number: arrived.number,
            time: arrived.time,
            clock_base: arrived.base,
            arrived: arrived.at,
            captured: arrived.captured,
            picture: Arc::new(picture),
        }))
    }

    /// Describes the chain anew when the caps have changed.
    fn look_at(&mut self, sample: &gst::Sample) {
        let Some(caps) = sample.caps_owned() else {
            return;
        };
        if self
            .caps
            .as_ref()
            .is_some_and(|c| c.as_ptr() == caps.as_ptr() || *c == caps)
        {
            return;
        }
        self.description = description::describe(self.chain.sink.upcast_ref(), &caps);
        if self.live || self.caps.is_some() {
            tracing::info!(camera = %self.camera.name, chain = %self.description, "the source runs");
        }
        self.caps = Some(caps);
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

    /// What an error means: the end, for a file that has given frames.
    fn broken(&mut self, error: IngestError) -> Result<Pulled, IngestError> {
        let (number, time) = self.inbox.position();
        if self.live || time.is_none() {
            return Err(error);
        }
        self.warn(format!("damaged after frame {number}: {error}"));
        Ok(Pulled::End)
    }

    fn ended(&mut self) -> Result<Pulled, IngestError> {
        if self.live {
            return Ok(Pulled::End);
        }
        let Some(time) = self.inbox.position().1 else {
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

    /// Starts to close it.
    pub(super) fn close(&mut self) -> Latch {
        self.inbox.close();
        self.closing
            .get_or_insert_with(|| close::start(self.chain.pipeline.clone(), &self.camera.name))
            .clone()
    }
}

/// Refuses a file that can be seen to be none before GStreamer does, in plainer words.
fn check_file(camera: &CameraConfig) -> Result<(), IngestError> {
    let Source::File(path) = camera.source() else {
        return Ok(());
    };
    let readable = std::fs::File::open(path).and_then(|f| f.metadata());
    let reason = match readable {
        Ok(meta) if meta.is_dir() => "it is a folder".to_owned(),
        Ok(meta) if meta.len() == 0 => "it is empty".to_owned(),
        Ok(_) => return Ok(()),
        Err(e) => e.to_string(),
    };
    Err(IngestError::File {
        camera: camera.name.clone(),
        path: path.clone(),
        reason,
    })
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.close().wait(CLOSE) {
            tracing::warn!(camera = %self.camera.name, "the source does not close");
        }
    }
}
