//! What the stages hand to each other. Stages import this module and never each other.

use std::sync::Arc;
use std::time::Instant;

use reid_models::picture::Picture;
use reid_models::preprocess::PixelBox;
use serde::{Deserialize, Serialize};

/// Position of a camera in the configuration; its name is `config.cameras[index].name`.
pub type CameraIndex = usize;

/// Box in frame pixels: left, top, right, bottom (right and bottom exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ltrb {
    /// Left edge.
    pub left: f32,
    /// Top edge.
    pub top: f32,
    /// Right edge.
    pub right: f32,
    /// Bottom edge.
    pub bottom: f32,
}

impl Ltrb {
    /// Width in pixels, never negative.
    pub fn width(&self) -> f32 {
        (self.right - self.left).max(0.0)
    }

    /// Height in pixels, never negative.
    pub fn height(&self) -> f32 {
        (self.bottom - self.top).max(0.0)
    }

    /// Area in square pixels.
    pub fn area(&self) -> f32 {
        self.width() * self.height()
    }

    /// Area of the overlap with `other`; 0 if they are apart on either axis.
    pub fn intersection(&self, other: &Ltrb) -> f32 {
        let w = self.right.min(other.right) - self.left.max(other.left);
        let h = self.bottom.min(other.bottom) - self.top.max(other.top);
        w.max(0.0) * h.max(0.0)
    }

    /// Intersection over union, 0..1.
    pub fn iou(&self, other: &Ltrb) -> f32 {
        let inter = self.intersection(other);
        let union = self.area() + other.area() - inter;
        if union > 0.0 { inter / union } else { 0.0 }
    }

    /// The same box for preprocessing.
    pub fn pixels(&self) -> PixelBox {
        PixelBox {
            left: self.left,
            top: self.top,
            right: self.right,
            bottom: self.bottom,
        }
    }

    /// The smallest box of whole pixels around it.
    pub fn outward(&self) -> Ltrb {
        Ltrb {
            left: self.left.floor(),
            top: self.top.floor(),
            right: self.right.ceil(),
            bottom: self.bottom.ceil(),
        }
    }

    /// The part inside a frame of the given size.
    pub fn clamped(&self, width: usize, height: usize) -> Ltrb {
        let (w, h) = (width as f32, height as f32);
        Ltrb {
            left: self.left.clamp(0.0, w),
            top: self.top.clamp(0.0, h),
            right: self.right.clamp(0.0, w),
            bottom: self.bottom.clamp(0.0, h),
        }
    }
}

/// One decoded picture of one camera.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Which camera.
    pub camera: CameraIndex,
    /// Position in the stream, 1-based, counting frames that were never analysed too.
    pub number: u64,
    /// Seconds: Unix time for a live source, time since the start for a file.
    pub time: f64,
    /// [`Clock::base`](crate::clock::Clock::base) when `time` was taken from that clock; `None` for a recorded file.
    pub clock_base: Option<f64>,
    /// When it came out of the decoder.
    pub arrived: Instant,
    /// Unix time at which the camera says that it took the picture; `None` if it does not say.
    pub captured: Option<f64>,
    /// The picture, in the decoder's own format.
    pub picture: Arc<Picture>,
}

/// A person found in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Where.
    pub ltrb: Ltrb,
    /// Confidence, 0..1.
    pub score: f32,
}

/// One person followed in one camera without a break; never reused within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TrackletId(pub u64);

/// A tracklet's box in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackedBox {
    /// Tracklet.
    pub tracklet: TrackletId,
    /// Where (the filtered position).
    pub ltrb: Ltrb,
    /// Confidence of the detection behind it, 0..1.
    pub score: f32,
    /// Seconds since the tracklet's first detection.
    pub age_secs: f64,
}

/// What a tracker says about one analysed frame.
#[derive(Clone, Debug, Default)]
pub struct TrackUpdate {
    /// Confirmed tracklets seen in this frame.
    pub boxes: Vec<TrackedBox>,
    /// Tracklets that ended with this frame.
    pub ended: Vec<TrackletId>,
}

/// One quality-gated look at a tracklet.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Tracklet.
    pub tracklet: TrackletId,
    /// Camera.
    pub camera: CameraIndex,
    /// Seconds, as [`Frame::time`].
    pub time: f64,
    /// Where.
    pub ltrb: Ltrb,
    /// Unit vector.
    pub embedding: Vec<f32>,
    /// 0..1: size, sharpness, truncation and overlap of the crop.
    pub quality: f32,
}

/// A person known across cameras: a UUID, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IdentityId(pub uuid::Uuid);

impl std::fmt::Display for IdentityId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known about who a tracklet is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Decision {
    /// Not enough seen yet.
    Pending,
    /// Recognised.
    Matched {
        /// As whom.
        identity: IdentityId,
        /// Cosine similarity to that identity.
        score: f32,
        /// Lead over the next best identity.
        margin: f32,
    },
    /// Similar to more than one identity, or similar but not enough: nothing is claimed.
    Ambiguous {
        /// The best candidate.
        best: IdentityId,
        /// Its similarity.
        score: f32,
        /// Its lead over the next best.
        margin: f32,
    },
    /// Clearly unlike everyone: a new identity.
    New {
        /// The identity made for it.
        identity: IdentityId,
    },
}

impl Decision {
    /// The identity claimed, if any.
    pub fn identity(&self) -> Option<IdentityId> {
        match self {
            Decision::Matched { identity, .. } | Decision::New { identity } => Some(*identity),
            _ => None,
        }
    }
}

/// A decision that is new or has changed.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Tracklet.
    pub tracklet: TrackletId,
    /// Its camera.
    pub camera: CameraIndex,
    /// When, seconds as [`Frame::time`].
    pub time: f64,
    /// The decision now.
    pub decision: Decision,
    /// Identities that were claimed for this tracklet before, oldest first.
    pub previous_ids: Vec<IdentityId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_apart_on_both_axes_do_not_overlap() {
        let a = Ltrb {
            left: 0.0,
            top: 0.0,
            right: 10.0,
            bottom: 10.0,
        };
        let b = Ltrb {
            left: 20.0,
            top: 20.0,
            right: 30.0,
            bottom: 30.0,
        };
        assert_eq!(a.intersection(&b), 0.0);
        assert_eq!(a.iou(&a), 1.0);
        let empty = Ltrb {
            left: 5.0,
            top: 5.0,
            right: 5.0,
            bottom: 5.0,
        };
        assert_eq!(empty.iou(&empty), 0.0);
    }
}
