//! Every camera, all at the same time: twenty dead ones take no longer than one.

use std::time::{Duration, Instant};

use super::Finding;
use crate::config::{CameraConfig, EdgeConfig};
use crate::ingest::{IngestError, Pace, Pulled, Stream};

/// Width and height of a camera's pictures, and what was found in words.
type Seen = ((usize, usize), String);

/// Opens all cameras and waits for a frame of each; also gives the sizes of those that showed one.
pub(super) fn look(config: &EdgeConfig, patience: Duration) -> (Vec<Finding>, Vec<(usize, usize)>) {
    let mut sizes = Vec::new();
    let findings = outcomes(config, patience)
        .into_iter()
        .zip(&config.cameras)
        .map(|(outcome, camera)| {
            let outcome = outcome.map(|(size, detail)| {
                sizes.push(size);
                detail
            });
            Finding::of(format!("camera {}", camera.name), outcome)
        })
        .collect();
    (findings, sizes)
}

fn outcomes(config: &EdgeConfig, patience: Duration) -> Vec<Result<Seen, String>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = config
            .cameras
            .iter()
            .enumerate()
            .map(|(index, camera)| scope.spawn(move || first_frame(index, camera, patience)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err("the check itself crashed".into()))
            })
            .collect()
    })
}

fn first_frame(index: usize, camera: &CameraConfig, patience: Duration) -> Result<Seen, String> {
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
        Pulled::Frame(frame) => {
            let detail = format!(
                "{source}: {} x {} (height x width), first frame after {:.1} s; {}",
                frame.picture.height(),
                frame.picture.width(),
                began.elapsed().as_secs_f64(),
                stream.chain()
            );
            Ok((frame.picture.size(), detail))
        }
        Pulled::Nothing => Err(format!(
            "{source} opens but shows no frame within {:.0} s: is it recording?",
            patience.as_secs_f64()
        )),
        Pulled::End => Err(format!("{source} ended before its first frame")),
    }
}
