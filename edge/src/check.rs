//! `reid-edge check`: is everything ready on this very machine, before anybody relies on it?

use std::path::Path;
use std::time::{Duration, Instant};

use reid_models::picture::{Picture, Pixels};
use reid_models::probe::{self, Probe};
use reid_models::{files, runtime};
use serde::Serialize;

use crate::config::{DetectorKind, EdgeConfig, EmbedderKind};
use crate::detect;
use crate::embed;
use crate::gallery::Gallery;
use crate::ingest::{Pace, Pulled, Stream};

/// Embeddings of the probe must agree this well with the trainer's, whatever the device and its precision.
const LEAST_COSINE: f32 = 0.99;

/// One thing looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What: `camera NAME`, `detector`, `embedder`, `probe`, `gallery`.
    pub what: String,
    /// Whether it is ready.
    pub ok: bool,
    /// What was found, or what is wrong and what to do.
    pub detail: String,
}

/// All findings.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether everything is ready.
    pub ok: bool,
    /// In the order looked at.
    pub findings: Vec<Finding>,
    /// Worst cosine between this device's probe embeddings and the trainer's; absent if the model carries no probe.
    pub min_cosine: Option<f32>,
}

/// Looks at everything a configuration names; each camera gets `patience` to show a frame.
pub fn check(config: &EdgeConfig, patience: Duration) -> Report {
    let mut findings = cameras(config, patience);
    findings.push(finding("detector", detector(config)));
    let mut min_cosine = None;
    match embed::open(&config.embedder) {
        Err(e) => findings.push(finding("embedder", Err(e.to_string()))),
        Ok(mut appearance) => {
            findings.push(finding("embedder", Ok(appearance.description())));
            if config.embedder.kind == EmbedderKind::Onnx {
                let (cosine, outcome) = compare_probe(config, &mut *appearance);
                min_cosine = cosine;
                findings.push(finding("probe", outcome));
            }
            let outcome = gallery(config, &appearance.fingerprint(), appearance.width());
            findings.push(finding("gallery", outcome));
        }
    }
    Report {
        ok: findings.iter().all(|f| f.ok),
        findings,
        min_cosine,
    }
}

fn finding(what: impl Into<String>, outcome: Result<String, String>) -> Finding {
    let ok = outcome.is_ok();
    let detail = match outcome {
        Ok(text) | Err(text) => text,
    };
    Finding {
        what: what.into(),
        ok,
        detail,
    }
}

/// All cameras at the same time: twenty dead ones take no longer than one.
fn cameras(config: &EdgeConfig, patience: Duration) -> Vec<Finding> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = config
            .cameras
            .iter()
            .enumerate()
            .map(|(index, camera)| {
                scope.spawn(move || {
                    let began = Instant::now();
                    let mut stream =
                        Stream::open(index, camera, Pace::RealTime).map_err(|e| e.to_string())?;
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
                })
            })
            .collect();
        config
            .cameras
            .iter()
            .zip(threads)
            .map(|(camera, thread)| {
                let outcome = thread
                    .join()
                    .unwrap_or_else(|_| Err("the check itself crashed".into()));
                finding(format!("camera {}", camera.name), outcome)
            })
            .collect()
    })
}

fn detector(config: &EdgeConfig) -> Result<String, String> {
    let mut detectors = detect::open(&config.detector, 1).map_err(|e| e.to_string())?;
    let detector = detectors.first_mut().ok_or("no detector")?;
    if config.detector.kind == DetectorKind::Onnx {
        // Shapes and outputs show themselves only when it runs.
        let frame = crate::types::Frame {
            camera: 0,
            number: 1,
            time: 0.0,
            clock_base: None,
            arrived: Instant::now(),
            captured: None,
            picture: std::sync::Arc::new(Picture::Rgb(image::RgbImage::new(320, 240))),
        };
        detector.detect(&frame).map_err(|e| e.to_string())?;
    }
    Ok(detector.description())
}

fn compare_probe(
    config: &EdgeConfig,
    appearance: &mut dyn embed::Appearance,
) -> (Option<f32>, Result<String, String>) {
    let Some(model) = &config.embedder.model else {
        return (None, Err("embedder.model is absent".into()));
    };
    let crops: Vec<_> = probe::crops()
        .iter()
        .map(|c| (Pixels::from(c), None))
        .collect();
    let began = Instant::now();
    let got = match appearance.embed(&crops) {
        Ok(got) => got,
        Err(e) => return (None, Err(e.to_string())),
    };
    let per_second = crops.len() as f64 / began.elapsed().as_secs_f64().max(1e-9);
    match runtime::read_probe(model) {
        Err(e) => (None, Err(e.to_string())),
        Ok(None) => (
            None,
            Ok(format!(
                "{} carries no probe (a foreign file): runs, {per_second:.0} crops/s, accuracy not verified",
                model.display()
            )),
        ),
        Ok(Some(embeddings)) => {
            let report = Probe { embeddings }.compare(&got);
            let text = format!(
                "worst cosine {:.6} against the trainer, {per_second:.0} crops/s",
                report.min_cosine
            );
            let outcome = if report.min_cosine >= LEAST_COSINE {
                Ok(text)
            } else {
                Err(format!(
                    "{}: {text}, wanted {LEAST_COSINE}: this engine changes what the model says; try embedder.backend = \"tract\", another provider, or export it again",
                    model.display()
                ))
            };
            (Some(report.min_cosine), outcome)
        }
    }
}

fn gallery(config: &EdgeConfig, fingerprint: &str, width: usize) -> Result<String, String> {
    let path = &config.gallery.path;
    if path == Path::new(":memory:") {
        return Ok("kept in memory only".into());
    }
    let path = config.resolve(path);
    if path.exists() {
        let gallery = Gallery::open(&config.gallery, &config.base, fingerprint, width)
            .map_err(|e| e.to_string())?;
        return Ok(format!("{}: {} identities", path.display(), gallery.len()));
    }
    // Not made by a check: only whether it could be.
    let mut probe = path.as_os_str().to_owned();
    probe.push(".check");
    let probe = Path::new(&probe);
    files::write_atomic(probe, b"").map_err(|e| {
        format!(
            "gallery.path = {}: {e}; give it a folder this user may write to",
            path.display()
        )
    })?;
    let _ = std::fs::remove_file(probe);
    Ok(format!("{}: will be made", path.display()))
}
