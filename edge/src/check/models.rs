//! Engines, detector, embedder, and the accuracy of the embedder on this device.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use reid_models::picture::{Picture, Pixels};
use reid_models::probe::{self, Probe};
use reid_models::runtime::{self, Backend, RuntimeConfig};

use super::Finding;
use super::machine;
use crate::config::{DetectorKind, EdgeConfig, EmbedderKind};
use crate::detect;
use crate::embed::{self, Appearance};
use crate::gallery::Gallery;
use crate::types::Frame;

/// Embeddings of the probe must agree this well with the trainer's, whatever the device and its precision.
const LEAST_COSINE: f32 = 0.99;

/// The findings, and the worst cosine of the probe. A model that the configuration names wrongly has been told of already.
pub(super) fn look(config: &EdgeConfig) -> (Vec<Finding>, Option<f32>) {
    let mut findings = Vec::new();
    let onnx = config.detector.kind == DetectorKind::Onnx;
    if onnx {
        findings.push(Finding::of(
            "detector engine",
            engine(&config.detector.runtime()),
        ));
    }
    if !onnx || config.detector.model.is_some() {
        findings.push(Finding::of("detector", detector(config)));
    }
    let onnx = config.embedder.kind == EmbedderKind::Onnx;
    if onnx {
        findings.push(Finding::of(
            "embedder engine",
            engine(&config.embedder.runtime()),
        ));
    }
    let mut min_cosine = None;
    let mut appearance = None;
    if !onnx || config.embedder.model.is_some() {
        match embed::open(&config.embedder) {
            Err(e) => findings.push(Finding::of("embedder", Err(e.to_string()))),
            Ok(opened) => {
                findings.push(Finding::of("embedder", Ok(opened.description())));
                appearance = Some(opened);
            }
        }
    }
    if let (Some(appearance), Some(model)) = (&mut appearance, &config.embedder.model) {
        let (cosine, outcome) = compare_probe(model, &mut **appearance);
        min_cosine = cosine;
        findings.push(Finding::of("probe", outcome));
    }
    findings.push(Finding::of(
        "gallery",
        gallery(config, appearance.as_deref()),
    ));
    (findings, min_cosine)
}

/// Which engine would run a model; its providers show themselves when the model is opened.
fn engine(config: &RuntimeConfig) -> Result<String, String> {
    let backend = runtime::decide(config).map_err(|e| e.to_string())?;
    if backend != Backend::OnnxRuntime {
        return Ok(backend.to_string());
    }
    let library = runtime::library::find(config.library.as_deref()).map_err(|e| e.to_string())?;
    let providers: Vec<String> = config.providers.iter().map(|p| p.to_string()).collect();
    match library {
        Some(path) => Ok(format!(
            "{backend} from {}, providers {}",
            path.display(),
            providers.join(", ")
        )),
        None => Err(format!(
            "{backend}: its library is not found; set library, or REID_ONNXRUNTIME, to libonnxruntime.so.*, or write backend = \"tract\""
        )),
    }
}

fn detector(config: &EdgeConfig) -> Result<String, String> {
    let mut detector = detect::open(&config.detector).map_err(|e| e.to_string())?;
    if config.detector.kind == DetectorKind::Onnx {
        // Shapes and outputs show themselves only when it runs.
        let frame = Frame {
            camera: 0,
            number: 1,
            time: 0.0,
            clock_base: None,
            arrived: Instant::now(),
            captured: None,
            picture: Arc::new(Picture::Rgb(image::RgbImage::new(320, 240))),
        };
        detector.detect(&[&frame]).map_err(|e| e.to_string())?;
    }
    Ok(detector.description())
}

fn compare_probe(
    model: &Path,
    appearance: &mut dyn Appearance,
) -> (Option<f32>, Result<String, String>) {
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

/// The gallery opened with the embedder it will be used with; without one, only whether it may be written.
fn gallery(config: &EdgeConfig, appearance: Option<&dyn Appearance>) -> Result<String, String> {
    let path = &config.gallery.path;
    if path == Path::new(":memory:") {
        return Ok("kept in memory only".into());
    }
    let path = config.resolve(path);
    let refused = |e: String| {
        format!(
            "gallery.path = {}: {e}; give it a folder this user may write to",
            path.display()
        )
    };
    // Its journal stands beside it.
    machine::folder_can_be_written(&path).map_err(refused)?;
    machine::can_be_written(&path).map_err(refused)?;
    match appearance {
        _ if !path.exists() => Ok(format!("{}: will be made", path.display())),
        Some(appearance) => {
            let (fingerprint, width) = (appearance.fingerprint(), appearance.width());
            let gallery = Gallery::open(&config.gallery, &config.base, &fingerprint, width)
                .map_err(|e| e.to_string())?;
            Ok(format!("{}: {} identities", path.display(), gallery.len()))
        }
        None => Ok(format!(
            "{}: can be written; whether it fits the embedder is not known",
            path.display()
        )),
    }
}
