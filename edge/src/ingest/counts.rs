//! What became of a camera's frames.

use std::ops::AddAssign;
use std::sync::{Arc, Mutex};

use serde::Serialize;

/// Frames of a camera since it was added:
/// `received == skipped + replaced + discarded + taken` plus the one that waits, if one does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Came out of the decoder whole.
    pub received: u64,
    /// Left out because the camera sends more than its `fps`.
    pub skipped: u64,
    /// Replaced by a newer one before they were taken.
    pub replaced: u64,
    /// Left behind by a connection or a camera that was closed.
    pub discarded: u64,
    /// Given out.
    pub taken: u64,
    /// Attempts to open the source again.
    pub reconnects: u64,
    /// Damaged pictures, and complaints of a decoder; none of them is among `received`.
    pub bad: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.received += other.received;
        self.skipped += other.skipped;
        self.replaced += other.replaced;
        self.discarded += other.discarded;
        self.taken += other.taken;
        self.reconnects += other.reconnects;
        self.bad += other.bad;
    }
}

/// Counts that a camera's threads share.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(Arc<Mutex<Counts>>);

impl Tally {
    /// Changes counts, all at once for whoever reads them.
    pub(super) fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(|e| e.into_inner()));
    }

    pub(super) fn get(&self) -> Counts {
        *self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
