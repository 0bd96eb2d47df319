//! Detections of successive frames become tracklets: one person in one camera without a break.

pub mod association;
pub mod hungarian;
pub mod kalman;
pub mod tracker;

pub use tracker::{Tracker, TrackletIds};
