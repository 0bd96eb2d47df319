//! Where frames come from: recordings read together, or live cameras.

use std::sync::Arc;
use std::time::Duration;

use crate::ingest::{IngestError, LiveCameras, StepFrames};
use crate::types::Frame;

/// What a feed had.
pub enum Taken {
    /// At most one frame of each camera.
    Frames(Vec<Frame>),
    /// Nothing within the time given.
    Nothing,
    /// Nothing will come any more.
    Over,
}

/// A source of frames of several cameras.
pub trait Feed: Send {
    /// Frames of up to `most` cameras; waits at most `timeout`.
    ///
    /// # Errors
    /// A recording that cannot be read; the feed is then over.
    fn take(&mut self, most: usize, timeout: Duration) -> Result<Taken, IngestError>;
}

/// Recordings: steps in order of time, whole whatever `most` says, so that a replay is the same on every run.
impl Feed for StepFrames {
    fn take(&mut self, _most: usize, _timeout: Duration) -> Result<Taken, IngestError> {
        self.next()
            .map_or(Ok(Taken::Over), |step| step.map(Taken::Frames))
    }
}

/// Cameras: their newest frames.
impl Feed for Arc<LiveCameras> {
    fn take(&mut self, most: usize, timeout: Duration) -> Result<Taken, IngestError> {
        let frames = LiveCameras::take(self, most, timeout);
        Ok(if !frames.is_empty() {
            Taken::Frames(frames)
        } else if self.is_over() {
            Taken::Over
        } else {
            Taken::Nothing
        })
    }
}
