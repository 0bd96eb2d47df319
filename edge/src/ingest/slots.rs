//! The newest frame of every camera, shared by the cameras' threads and whoever analyses frames.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::close::Latch;
use super::counts::{Counts, Tally};
use super::inbox::Inbox;
use super::stamp::Stamper;
use super::status::{OnState, Status};
use crate::types::{CameraIndex, Frame};

/// One camera's thread, from outside.
#[derive(Default)]
pub(super) struct Control {
    quit: Latch,
    /// Where the thread waits for frames.
    inbox: Mutex<Weak<Inbox>>,
    /// The thread is over.
    pub(super) done: Latch,
}

impl Control {
    /// Asks the thread to close its source and to end.
    fn quit(&self) {
        self.quit.set();
        let inbox = self.inbox.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(inbox) = inbox.upgrade() {
            inbox.wake();
        }
    }

    pub(super) fn is_quitting(&self) -> bool {
        self.quit.is_set()
    }

    /// Sleeps until it is time to end, at most for `time`.
    pub(super) fn sleep(&self, time: Duration) {
        self.quit.wait(time);
    }

    /// The thread waits at `inbox` from now on.
    pub(super) fn waits_at(&self, inbox: &Arc<Inbox>) {
        *self.inbox.lock().unwrap_or_else(|e| e.into_inner()) = Arc::downgrade(inbox);
        if self.is_quitting() {
            inbox.wake();
        }
    }
}

/// A camera that is there.
pub(super) struct Slot {
    /// Tells a camera from the one that had its index before.
    pub(super) id: u64,
    pub(super) control: Arc<Control>,
    pub(super) thread: Option<JoinHandle<()>>,
    pub(super) tally: Tally,
    pub(super) stamper: Arc<Mutex<Stamper>>,
    pub(super) live: bool,
    pub(super) frame: Option<Frame>,
    pub(super) status: Status,
    /// Turn in which it was last served.
    pub(super) served: u64,
}

/// A camera that was removed and whose thread may still run.
struct Leaving {
    index: CameraIndex,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
    tally: Tally,
}

#[derive(Default)]
struct State {
    cameras: BTreeMap<CameraIndex, Slot>,
    leaving: Vec<Leaving>,
    /// Counts of cameras that are gone.
    gone: Counts,
    turns: u64,
}

/// All slots.
pub(super) struct Slots {
    state: Mutex<State>,
    /// A frame or a change of state has come.
    changed: Condvar,
    /// A frame was taken, or a camera is to end.
    room: Condvar,
    on_state: OnState,
}

impl Slots {
    pub(super) fn new(on_state: OnState) -> Self {
        Slots {
            state: Mutex::default(),
            changed: Condvar::new(),
            room: Condvar::new(),
            on_state,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a single assignment: a thread that panicked left nothing half done.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Puts a camera in; its thread is not running yet.
    pub(super) fn insert(&self, index: CameraIndex, slot: Slot) {
        self.lock().cameras.insert(index, slot);
    }

    /// Remembers the thread of a camera, to be joined one day.
    pub(super) fn runs(&self, index: CameraIndex, id: u64, thread: JoinHandle<()>) {
        let mut state = self.lock();
        if let Some(slot) = state.cameras.get_mut(&index).filter(|s| s.id == id) {
            slot.thread = Some(thread);
        }
    }

    /// Takes a camera out and asks its thread to end. Gives what is set when every thread that ever had this index is
    /// over: two of them would fight for the device.
    pub(super) fn remove(&self, index: CameraIndex) -> Vec<Latch> {
        let mut state = self.lock();
        if let Some(slot) = state.cameras.remove(&index) {
            if slot.frame.is_some() {
                slot.tally.change(|c| c.discarded += 1);
            }
            slot.control.quit();
            state.leaving.push(Leaving {
                index,
                control: slot.control,
                thread: slot.thread,
                tally: slot.tally,
            });
        }
        state.reap();
        let latches = state
            .leaving
            .iter()
            .filter(|l| l.index == index)
            .map(|l| l.control.done.clone())
            .collect();
        drop(state);
        self.room.notify_all();
        self.changed.notify_all();
        latches
    }

    /// Removes all cameras and waits at most `timeout` for their threads.
    pub(super) fn remove_all(&self, timeout: Duration) {
        let indices: Vec<CameraIndex> = self.lock().cameras.keys().copied().collect();
        for index in indices {
            self.remove(index);
        }
        let latches: Vec<Latch> = {
            let state = self.lock();
            state
                .leaving
                .iter()
                .map(|l| l.control.done.clone())
                .collect()
        };
        let deadline = Instant::now() + timeout;
        for latch in latches {
            latch.wait(deadline.saturating_duration_since(Instant::now()));
        }
        let mut state = self.lock();
        state.reap();
        if !state.leaving.is_empty() {
            tracing::warn!(
                "{} cameras do not close within {timeout:?}: left behind",
                state.leaving.len()
            );
        }
    }

    /// Puts a frame where the newest one belongs. With `wait`, not before the last one was taken.
    pub(super) fn put(&self, id: u64, control: &Control, tally: &Tally, frame: Frame, wait: bool) {
        let index = frame.camera;
        let mut state = self.lock();
        while wait
            && !control.is_quitting()
            && state
                .cameras
                .get(&index)
                .is_some_and(|s| s.id == id && s.frame.is_some())
        {
            state = match self.room.wait_timeout(state, Duration::from_secs(1)) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        match state.cameras.get_mut(&index).filter(|s| s.id == id) {
            Some(slot) => {
                let replaced = u64::from(slot.frame.replace(frame).is_some());
                tally.change(|c| {
                    c.received += 1;
                    c.replaced += replaced;
                });
            }
            None => tally.change(|c| {
                c.received += 1;
                c.discarded += 1;
            }),
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Changes a camera's status, and tells of it if there is something to tell.
    pub(super) fn set(&self, index: CameraIndex, id: u64, change: impl FnOnce(&mut Status)) {
        let mut state = self.lock();
        let Some(slot) = state.cameras.get_mut(&index).filter(|s| s.id == id) else {
            return;
        };
        let before = slot.status.clone();
        change(&mut slot.status);
        slot.status.clock = slot.clock();
        let after = slot.status.clone();
        drop(state);
        if !before.tells_the_same_as(&after) {
            (self.on_state)(index, &after);
        }
        self.changed.notify_all();
    }

    /// Tells of a camera's first status.
    pub(super) fn tell(&self, index: CameraIndex, id: u64) {
        let status = {
            let state = self.lock();
            let slot = state.cameras.get(&index).filter(|s| s.id == id);
            slot.map(|s| s.status.clone())
        };
        if let Some(status) = status {
            (self.on_state)(index, &status);
        }
    }

    /// The newest frames of up to `most` cameras, at the latest after `timeout`: those that were served longest ago come
    /// first, so that under overload every camera gets its turn. Ordered by camera.
    pub(super) fn take(&self, most: usize, timeout: Duration) -> Vec<Frame> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        state.reap();
        let was_over = state.all_over();
        loop {
            let frames = state.serve(most);
            let left = deadline.saturating_duration_since(Instant::now());
            if !frames.is_empty() || left.is_zero() || (!was_over && state.all_over()) {
                drop(state);
                if !frames.is_empty() {
                    self.room.notify_all();
                }
                return frames;
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    pub(super) fn statuses(&self) -> BTreeMap<CameraIndex, Status> {
        let state = self.lock();
        let status = |slot: &Slot| Status {
            clock: slot.clock(),
            ..slot.status.clone()
        };
        state.cameras.iter().map(|(i, s)| (*i, status(s))).collect()
    }

    pub(super) fn counts(&self) -> BTreeMap<CameraIndex, Counts> {
        let state = self.lock();
        state
            .cameras
            .iter()
            .map(|(i, s)| (*i, s.tally.get()))
            .collect()
    }

    pub(super) fn total(&self) -> Counts {
        let state = self.lock();
        let mut total = state.gone;
        for tally in state.cameras.values().map(|s| &s.tally) {
            total += tally.get();
        }
        for leaving in &state.leaving {
            total += leaving.tally.get();
        }
        total
    }

    pub(super) fn is_over(&self) -> bool {
        let state = self.lock();
        state.all_over() && state.cameras.values().all(|s| s.frame.is_none())
    }
}

impl Slot {
    fn clock(&self) -> super::ClockHealth {
        if self.live {
            self.stamper
                .lock()
                .unwrap_or_else(|e| e.into_inner())
                .health()
        } else {
            super::ClockHealth::arrival()
        }
    }
}

impl State {
    /// Joins threads that are over.
    fn reap(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        let (over, leaving) = std::mem::take(&mut self.leaving)
            .into_iter()
            .partition(|l| l.control.done.is_set());
        self.leaving = leaving;
        for mut camera in over {
            self.gone += camera.tally.get();
            // Setting the latch is the last thing it does.
            if let Some(thread) = camera.thread.take()
                && thread.join().is_err()
            {
                tracing::error!("a camera's thread panicked");
            }
        }
    }

    /// Whether there are cameras, and none of them will ever give a frame again.
    fn all_over(&self) -> bool {
        !self.cameras.is_empty() && self.cameras.values().all(|s| s.status.state.is_over())
    }

    fn serve(&mut self, most: usize) -> Vec<Frame> {
        let mut waiting: Vec<(u64, CameraIndex)> = self
            .cameras
            .iter()
            .filter(|(_, s)| s.frame.is_some())
            .map(|(i, s)| (s.served, *i))
            .collect();
        if waiting.is_empty() {
            return Vec::new();
        }
        waiting.sort_unstable();
        waiting.truncate(most);
        let mut frames = Vec::with_capacity(waiting.len());
        for (_, index) in waiting {
            if let Some(slot) = self.cameras.get_mut(&index)
                && let Some(frame) = slot.frame.take()
            {
                // Also among those served together there is a first, or the order of indices would favour some.
                self.turns += 1;
                slot.served = self.turns;
                slot.tally.change(|c| c.taken += 1);
                frames.push(frame);
            }
        }
        frames.sort_unstable_by_key(|frame| frame.camera);
        frames
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
