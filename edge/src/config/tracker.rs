//! `[tracker]` of the configuration.

use serde::{Deserialize, Serialize};

/// `[tracker]`: how people are followed within a camera.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackerConfig {
    /// Detections from this score on are matched first, 0..1.
    pub high: f32,
    /// Detections from this score on may continue a tracklet, 0..1.
    pub low: f32,
    /// Detections from this score on may start a tracklet, 0..1.
    pub new: f32,
    /// Least overlap (IoU) of a detection and a predicted box.
    pub match_iou: f32,
    /// A tracklet is reported after so many detections.
    pub confirm_hits: u32,
    /// A tracklet unseen for so many seconds ends.
    pub lost_secs: f64,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        TrackerConfig {
            high: 0.5,
            low: 0.1,
            new: 0.65,
            match_iou: 0.2,
            confirm_hits: 2,
            lost_secs: 2.0,
        }
    }
}
