//! What a running pipeline complains about, in words for whoever must mend it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::chain::Decoding;
use super::counts::Tally;
use super::inbox::Inbox;
use super::{IngestError, packages, redact};
use crate::config::CameraConfig;

/// So many messages are kept; the first ones name the cause.
const KEPT: usize = 32;

/// Messages that nobody has read yet. The bus has a queue of its own, but a message enters it only after the handler has
/// returned: a reader that the handler wakes may look too soon, and would then sleep on an error.
#[derive(Clone, Default)]
struct Unread(Arc<Mutex<VecDeque<gst::Message>>>);

impl Unread {
    fn lock(&self) -> MutexGuard<'_, VecDeque<gst::Message>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, message: &gst::MessageRef) {
        let mut kept = self.lock();
        if kept.len() < KEPT {
            kept.push_back(message.to_owned());
        }
    }
}

/// Errors of one pipeline.
pub(super) struct Complaints {
    unread: Unread,
    camera: String,
    source_name: String,
    /// Lost sources of live cameras are opened again; a file that cannot be read stays so.
    live: bool,
    decoding: Decoding,
    missing: Option<IngestError>,
    /// Whether an element that decodes gave up.
    decoder_failed: bool,
}

impl Complaints {
    /// Has errors of `pipeline` wake the reader at `inbox`. All other messages are let go of, since nobody reads them.
    pub(super) fn listen(
        pipeline: &gst::Pipeline,
        camera: &CameraConfig,
        decoding: &Decoding,
        inbox: &Arc<Inbox>,
        tally: &Tally,
    ) -> Self {
        let unread = Unread::default();
        if let Some(bus) = pipeline.bus() {
            let (inbox, tally, unread) = (inbox.clone(), tally.clone(), unread.clone());
            let name = camera.name.clone();
            bus.set_sync_handler(move |_, message| {
                sort(message, &name, &unread, &inbox, &tally);
                gst::BusSyncReply::Drop
            });
        }
        Complaints {
            unread,
            camera: camera.name.clone(),
            source_name: camera.source().to_string(),
            live: camera.is_live(),
            decoding: decoding.clone(),
            missing: None,
            decoder_failed: false,
        }
    }

    /// Whether the hardware decoder failed, so that software should be tried.
    pub(super) fn hardware_failed(&self) -> bool {
        self.decoder_failed && self.decoding.is_hardware()
    }

    /// The first error.
    pub(super) fn take(&mut self) -> Option<IngestError> {
        loop {
            // Not in the head of the loop: the lock would be held while the message is explained.
            let message = self.unread.lock().pop_front()?;
            match message.view() {
                gst::MessageView::Element(element) => {
                    if let Some(s) = element.structure() {
                        self.missing = self.missing.take().or_else(|| self.lacks(s));
                    }
                }
                gst::MessageView::Error(error) => return Some(self.explained(error)),
                _ => {}
            }
        }
    }

    fn explained(&mut self, message: &gst::message::Error) -> IngestError {
        // What is missing or wanted explains the error that follows from it.
        let known = self.decoding.take_problem().or(self.missing.take());
        if let Some(known) = known {
            return known;
        }
        let error = message.error();
        self.decoder_failed = message
            .src()
            .and_then(|s| s.downcast_ref::<gst::Element>())
            .and_then(|e| e.factory())
            .is_some_and(|f| f.metadata("klass").is_some_and(|k| k.contains("Decoder")));
        if self.live && error.matches(gst::ResourceError::NotAuthorized) {
            return IngestError::Refused {
                camera: self.camera.clone(),
                source_name: self.source_name.clone(),
            };
        }
        let detail = message.debug().and_then(|d| {
            let line = d.lines().last()?.trim();
            (!line.is_empty() && !line.starts_with("../") && !line.ends_with("():"))
                .then(|| line.to_owned())
        });
        let mut reason = error.message().trim().to_owned();
        if let Some(detail) = detail.filter(|d| !reason.contains(d.as_str())) {
            reason = format!("{reason} ({detail})");
        }
        self.failed(&reason)
    }

    /// What "missing-plugin" names; sound and text are not missed.
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
            camera: self.camera.clone(),
            what,
            package,
        })
    }

    /// The error for a source that fails for this reason.
    pub(super) fn failed(&self, reason: &str) -> IngestError {
        let (camera, source_name) = (self.camera.clone(), self.source_name.clone());
        let reason = redact(reason);
        if self.live {
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

impl Drop for Complaints {
    fn drop(&mut self) {
        // A message holds its element, which may hold the bus, whose handler holds the messages.
        self.unread.lock().clear();
    }
}

/// Runs in the thread that sends the message.
fn sort(message: &gst::MessageRef, camera: &str, unread: &Unread, inbox: &Inbox, tally: &Tally) {
    match message.view() {
        gst::MessageView::Error(_) => {
            unread.keep(message);
            inbox.ring();
        }
        gst::MessageView::Element(element)
            if element
                .structure()
                .is_some_and(|s| s.name() == "missing-plugin") =>
        {
            unread.keep(message);
        }
        gst::MessageView::Warning(warning) => {
            let error = warning.error();
            if error.is::<gst::StreamError>() {
                tally.change(|c| c.bad += 1);
            }
            let text = redact(error.message());
            tracing::debug!(camera, "GStreamer warns: {text}");
        }
        _ => {}
    }
}
