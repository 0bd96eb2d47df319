//! Motion detectors of all cameras.

use std::collections::HashMap;

use rayon::prelude::*;

use super::MotionDetector;
use crate::config::DetectorConfig;
use crate::detect::{DetectError, Detector};
use crate::types::{CameraIndex, Detection, Frame};

/// A detector for each camera, made when the camera is first seen. Each learns its own background, so frames of one camera
/// must come in order: one bank serves all.
pub struct MotionBank {
    config: DetectorConfig,
    cameras: HashMap<CameraIndex, MotionDetector>,
}

impl MotionBank {
    /// A bank that has seen nothing.
    pub fn new(config: &DetectorConfig) -> Self {
        MotionBank {
            config: config.clone(),
            cameras: HashMap::new(),
        }
    }
}

impl Detector for MotionBank {
    /// Cameras are looked at side by side.
    fn detect(&mut self, frames: &[&Frame]) -> Result<Vec<Vec<Detection>>, DetectError> {
        let mut own: Vec<(&Frame, MotionDetector)> = frames
            .iter()
            .map(|&frame| {
                let detector = self.cameras.remove(&frame.camera);
                let detector = detector.unwrap_or_else(|| MotionDetector::new(&self.config));
                (frame, detector)
            })
            .collect();
        let found = own
            .par_iter_mut()
            .map(|(frame, detector)| detector.detect(frame))
            .collect();
        for (frame, detector) in own {
            self.cameras.insert(frame.camera, detector);
        }
        Ok(found)
    }

    fn most(&self) -> usize {
        usize::MAX
    }

    fn forget(&mut self, camera: CameraIndex) {
        self.cameras.remove(&camera);
    }

    fn description(&self) -> String {
        "motion (adaptive background subtraction)".into()
    }
}
