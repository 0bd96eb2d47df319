//! Pipelines are closed on a thread of their own: a server or a driver that hangs must not hang us with it.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;

/// Something that happens once and can be waited for.
#[derive(Clone, Debug, Default)]
pub(super) struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    /// It has happened.
    pub(super) fn set(&self) {
        let (done, changed) = &*self.0;
        *done.lock().unwrap_or_else(|e| e.into_inner()) = true;
        changed.notify_all();
    }

    pub(super) fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits at most `timeout`; whether it has happened.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        let (done, changed) = &*self.0;
        let done = done.lock().unwrap_or_else(|e| e.into_inner());
        match changed.wait_timeout_while(done, timeout, |done| !*done) {
            Ok((done, _)) => *done,
            Err(poisoned) => *poisoned.into_inner().0,
        }
    }
}

/// Starts to close `pipeline` and to let go of it; the latch is set when that is done.
pub(super) fn start(pipeline: gst::Pipeline, camera: &str) -> Latch {
    let closed = Latch::default();
    let spawned = std::thread::Builder::new().name("closing".into()).spawn({
        let (pipeline, closed) = (pipeline.clone(), closed.clone());
        move || {
            close(pipeline);
            closed.set();
        }
    });
    if let Err(e) = spawned {
        // No thread to be had: then here.
        tracing::warn!(camera, "no thread to close the source on: {e}");
        close(pipeline);
        closed.set();
    }
    closed
}

fn close(pipeline: gst::Pipeline) {
    // Fails only for elements that are already gone.
    let _ = pipeline.set_state(gst::State::Null);
    if let Some(bus) = pipeline.bus() {
        bus.unset_sync_handler();
        // Messages hold references to the elements that sent them.
        bus.set_flushing(true);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn launch(text: &str) -> gst::Pipeline {
        gst::init().unwrap();
        let pipeline = gst::parse::launch(text).unwrap();
        pipeline.downcast().unwrap()
    }

    #[test]
    fn a_pipeline_is_let_go_of_and_one_that_hangs_is_not_waited_for() {
        let pipeline = launch("fakesrc is-live=true ! fakesink");
        pipeline.set_state(gst::State::Playing).unwrap();
        let weak = pipeline.downgrade();
        assert!(start(pipeline, "a").wait(Duration::from_secs(5)));
        // GStreamer's own threads may hold it for a moment longer.
        let let_go = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            weak.upgrade().is_none()
        });
        assert!(let_go);

        // Its streaming thread sits in a probe and does not come back.
        let pipeline = launch("fakesrc is-live=true ! fakesink name=s");
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Mutex::new(held);
        let pad = pipeline.by_name("s").unwrap().static_pad("sink").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            // An error when the other end is gone: then it goes on, too.
            let _ = held.lock().unwrap().recv();
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let closed = start(pipeline, "b");
        assert!(!closed.wait(Duration::from_millis(100)));
        assert!(!closed.is_set());
        drop(release);
        assert!(closed.wait(Duration::from_secs(5)));
    }
}
