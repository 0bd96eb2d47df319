//! Cameras kept open: a thread each, the newest frame only, lost ones opened again, added and removed while others run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::camera::Camera;
use super::counts::{Counts, Tally};
use super::slots::{Control, Slot, Slots};
use super::stamp::{OffsetLimit, Stamper};
use super::status::{OnState, Status};
use super::{IngestError, close::Latch};
use crate::clock::Clock;
use crate::config::CameraConfig;
use crate::types::{CameraIndex, Frame};

/// How long [`LiveCameras::stop`] waits for sources that do not close.
const STOP: Duration = Duration::from_secs(5);

/// Cameras, open.
pub struct LiveCameras {
    slots: Arc<Slots>,
    clock: Clock,
    limit: OffsetLimit,
    ids: AtomicU64,
    closed: AtomicBool,
    /// One change at a time: two of the same index would lose a thread.
    changing: Mutex<()>,
}

impl LiveCameras {
    /// Starts GStreamer; no camera is open yet. Live frames are dated by `clock`; `on_state` hears of every change.
    ///
    /// # Errors
    /// If GStreamer cannot be started.
    pub fn new(clock: Clock, on_state: OnState) -> Result<Self, IngestError> {
        super::start()?;
        Ok(LiveCameras {
            slots: Arc::new(Slots::new(on_state)),
            clock,
            limit: OffsetLimit::default(),
            ids: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            changing: Mutex::default(),
        })
    }

    /// A camera's clock may be off by so many seconds before its frames are dated by correction, and it is called
    /// unhealthy; 2 s unless it is said otherwise. For all cameras, at once.
    pub fn set_clock_offset_secs(&self, secs: f64) {
        self.limit.set(secs);
    }

    /// Opens a camera on a thread of its own. A camera that has this index already is closed first. Files run at recorded
    /// speed unless the camera says `real_time = false`; then none of their frames is lost. Their frames bear the clock's time
    /// as if they had been recorded now, so that it means the same as that of live cameras beside them.
    ///
    /// # Errors
    /// If the thread cannot be started. What is wrong with the source is told by `on_state`.
    pub fn add(&self, index: CameraIndex, camera: &CameraConfig) -> Result<(), IngestError> {
        let _one = self.changing.lock().unwrap_or_else(|e| e.into_inner());
        let predecessors: Vec<Latch> = self.slots.remove(index);
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let arrival_only = super::arrival_only(camera);
        let stamper = Stamper::new(self.clock.clone(), arrival_only, self.limit.clone());
        let stamper = Arc::new(Mutex::new(stamper));
        let control: Arc<Control> = Arc::default();
        let tally = Tally::default();
        self.slots.insert(
            index,
            Slot {
                id,
                control: control.clone(),
                thread: None,
                tally: tally.clone(),
                stamper: stamper.clone(),
                live: camera.is_live(),
                frame: None,
                status: Status::connecting(),
                served: 0,
            },
        );
        let thread = Camera {
            index,
            id,
            config: camera.clone(),
            clock: self.clock.clone(),
            base: self.clock.base(),
            slots: self.slots.clone(),
            control: control.clone(),
            tally,
            stamper,
            predecessors,
        };
        let spawned = std::thread::Builder::new()
            .name(format!("camera-{}", camera.name))
            .spawn(move || thread.run());
        match spawned {
            Ok(thread) => {
                self.slots.runs(index, id, thread);
                Ok(())
            }
            Err(e) => {
                control.done.set();
                self.slots.remove(index);
                Err(IngestError::Start(e.to_string()))
            }
        }
    }

    /// Takes a camera out: its frames no longer come, its source closes in the background.
    pub fn remove(&self, index: CameraIndex) {
        let _one = self.changing.lock().unwrap_or_else(|e| e.into_inner());
        self.slots.remove(index);
    }

    /// The newest frames of up to `most` different cameras, at the latest after `timeout`, ordered by camera. Cameras that
    /// were served longest ago come first: under overload every one gets its turn.
    pub fn take(&self, most: usize, timeout: Duration) -> Vec<Frame> {
        self.slots.take(most, timeout)
    }

    /// How the cameras are.
    pub fn statuses(&self) -> BTreeMap<CameraIndex, Status> {
        self.slots.statuses()
    }

    /// What became of the frames of every camera since it was added.
    pub fn counts(&self) -> BTreeMap<CameraIndex, Counts> {
        self.slots.counts()
    }

    /// What became of all frames, those of removed cameras included.
    pub fn total(&self) -> Counts {
        self.slots.total()
    }

    /// Whether there are cameras, every one has ended or failed, and its last frame was taken.
    /// Also once they were closed.
    pub fn is_over(&self) -> bool {
        self.closed.load(Ordering::Relaxed) || self.slots.is_over()
    }

    /// Closes all cameras; those that hang are left behind after some seconds.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.slots.remove_all(STOP);
    }

    /// As [`LiveCameras::close`].
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for LiveCameras {
    fn drop(&mut self) {
        self.slots.remove_all(STOP);
    }
}
