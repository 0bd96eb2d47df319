//! Every camera, all at the same time: twenty dead ones take no longer than one.

use std::time::{Duration, Instant};

use super::Finding;
use crate::config::{CameraConfig, EdgeConfig};
use crate::ingest::{Pace, Pulled, Stream};

/// Opens all cameras and waits for a frame of each.
pub(super) fn look(config: &EdgeConfig, patience: Duration) -> Vec<Finding> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = config
            .cameras
            .iter()
            .enumerate()
            .map(|(index, camera)| scope.spawn(move || first_frame(index, camera, patience)))
            .collect();
        config
            .cameras
            .iter()
            .zip(threads)
            .map(|(camera, thread)| {
                let outcome = thread
                    .join()
                    .unwrap_or_else(|_| Err("the check itself crashed".into()));
                Finding::of(format!("camera {}", camera.name), outcome)
            })
            .collect()
    })
}

fn first_frame(index: usize, camera: &CameraConfig, patience: Duration) -> Result<String, String> {
    let began = Instant::now();
    let mut stream = Stream::open(index, camera, Pace::RealTime).map_err(|e| e.to_string())?;
    match stream.next(patience).map_err(|e| e.to_string())? {
        Pulled::Frame(frame) => Ok(format!(
            "{}: {} x {} (height x width), first frame after {:.1} s",
            camera.source(),
            frame.picture.height(),
            frame.picture.width(),
            began.elapsed().as_secs_f64()
        )),
        Pulled::Nothing => Err(format!(
            "camera {}: {} opens but shows no frame within {:.0} s: is it recording?",
            camera.name,
            camera.source(),
            patience.as_secs_f64()
        )),
        Pulled::End => Err(format!(
            "camera {}: {} ended before its first frame",
            camera.name,
            camera.source()
        )),
    }
}
