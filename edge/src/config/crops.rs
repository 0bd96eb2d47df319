//! `[crops]` of the configuration.

use serde::{Deserialize, Serialize};

/// `[crops]`: which looks at a person are embedded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CropsConfig {
    /// Smaller people are not embedded, pixels.
    pub min_height: f32,
    /// A crop covered by people in front by more than this share is not embedded, 0..1.
    pub max_overlap: f32,
    /// Variance of the Laplacian (8-bit grey, crop at 64 pixels wide) below which a crop is too blurred.
    pub min_sharpness: f32,
    /// Whether people cut off by the frame's left or right edge are left out.
    pub cut_off: bool,
    /// So many crops of a tracklet are taken quickly, ...
    pub burst: u32,
    /// ... at most so many per second, ...
    pub burst_per_sec: f64,
    /// ... then one every so many seconds, ...
    pub every_secs: f64,
    /// ... and no more than this in all.
    pub max_per_tracklet: u32,
}

impl Default for CropsConfig {
    fn default() -> Self {
        CropsConfig {
            min_height: 48.0,
            max_overlap: 0.35,
            min_sharpness: 4.0,
            cut_off: true,
            burst: 6,
            burst_per_sec: 5.0,
            every_secs: 0.5,
            max_per_tracklet: 200,
        }
    }
}
