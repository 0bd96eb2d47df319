//! How a camera is.

use std::sync::Arc;

use serde::Serialize;

use super::stamp::ClockHealth;
use crate::types::CameraIndex;

/// State of a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CameraState {
    /// Being opened.
    Connecting,
    /// Frames come.
    Live,
    /// Open, but silent for too long.
    Stalled,
    /// Lost; waiting before it is opened again.
    BackingOff,
    /// Given up: configuration or installation is at fault.
    Failed,
    /// A file is over.
    Ended,
}

impl CameraState {
    /// As in events: `connecting`, `live`, `stalled`, `backing_off`, `failed`, `ended`.
    pub fn as_str(self) -> &'static str {
        match self {
            CameraState::Connecting => "connecting",
            CameraState::Live => "live",
            CameraState::Stalled => "stalled",
            CameraState::BackingOff => "backing_off",
            CameraState::Failed => "failed",
            CameraState::Ended => "ended",
        }
    }

    /// Whether nothing will come any more.
    pub fn is_over(self) -> bool {
        matches!(self, CameraState::Failed | CameraState::Ended)
    }
}

/// State of a camera, why, and what was built for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// State.
    pub state: CameraState,
    /// Reason, or empty.
    pub detail: String,
    /// The elements and the format in use, or last in use:
    /// `rtsp tcp, h264, avdec_h264 (software), I420 1280x720, bt709, limited`. Empty before the first frame.
    pub chain: String,
    /// Width and height of the newest frame, pixels.
    pub size: Option<(usize, usize)>,
    /// Whose clock dates the frames.
    pub clock: ClockHealth,
}

impl Status {
    /// Before the first attempt.
    pub(super) fn connecting() -> Self {
        Status {
            state: CameraState::Connecting,
            detail: String::new(),
            chain: String::new(),
            size: None,
            clock: ClockHealth::arrival(),
        }
    }

    /// Whether people must be told: the clock's offset changes all the time.
    pub(super) fn tells_the_same_as(&self, other: &Status) -> bool {
        (self.state, &self.detail, &self.chain, self.size)
            == (other.state, &other.detail, &other.chain, other.size)
    }
}

/// Called at every change of state, reason, chain or size, from the camera's thread.
pub type OnState = Arc<dyn Fn(CameraIndex, &Status) + Send + Sync>;
