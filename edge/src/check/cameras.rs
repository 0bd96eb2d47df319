//! Every camera, all at the same time: twenty dead ones take no longer than one.

use std::time::{Duration, Instant};

use super::Finding;
use crate::config::{CameraConfig, EdgeConfig};
use crate::ingest::{IngestError, Pace, Pulled, Stream};

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
    let source = camera.source();
    // The finding names the camera already.
    let plain = |e: IngestError| {
        let text = e.to_string();
        match text.strip_prefix(&format!("camera {}: ", camera.name)) {
            Some(rest) => rest.to_owned(),
            None => text,
        }
    };
    let mut stream = Stream::open(index, camera, Pace::RealTime).map_err(plain)?;
    match stream.next(patience).map_err(plain)? {
        Pulled::Frame(frame) => Ok(format!(
            "{source}: {} x {} (height x width), first frame after {:.1} s; {}",
            frame.picture.height(),
            frame.picture.width(),
            began.elapsed().as_secs_f64(),
            stream.chain()
        )),
        Pulled::Nothing => Err(format!(
            "{source} opens but shows no frame within {:.0} s: is it recording?",
            patience.as_secs_f64()
        )),
        Pulled::End => Err(format!("{source} ended before its first frame")),
    }
}
