//! Does a file give the trainer's embeddings?

use std::path::Path;

use reid_models::probe::{self, MIN_COSINE_FP32, Probe, ProbeReport};
use reid_models::runtime::{self, Backend, Embedder, RuntimeConfig};
use serde::Serialize;

use crate::ExportError;

/// One engine's answer to the probe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verified {
    /// Lowest cosine between an embedding and the trainer's.
    pub min_cosine: f32,
    /// Largest absolute difference of an element.
    pub max_abs: f32,
    /// Engine.
    pub backend: Backend,
    /// Engine, version, providers and threads, for people.
    pub engine: String,
}

impl Verified {
    /// Whether this counts as the same model in fp32.
    pub fn passed(&self) -> bool {
        self.min_cosine >= MIN_COSINE_FP32
    }
}

/// Answers of all engines that were asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// At least one.
    pub backends: Vec<Verified>,
    /// Engines that are not on this machine, with the reason.
    pub skipped: Vec<String>,
}

impl Verification {
    /// The answer farthest from the trainer's.
    pub fn worst(&self) -> &Verified {
        self.backends
            .iter()
            .min_by(|a, b| a.min_cosine.total_cmp(&b.min_cosine))
            .expect("at least one engine answered")
    }
}

/// Runs the probe that a file carries through one engine, or, with `None`, through all that this machine has.
///
/// # Errors
/// If the file carries no card or probe, or an engine doesn't take it. A low cosine is no error here: see
/// [`Verified::passed`].
pub fn verify(path: &Path, backend: Option<Backend>) -> Result<Verification, ExportError> {
    let embeddings = runtime::read_probe(path)?.ok_or_else(|| ExportError::NoProbe {
        path: path.to_path_buf(),
    })?;
    compare(path, &Probe { embeddings }, backend)
}

/// As [`verify`], with the probe given.
///
/// # Errors
/// As [`verify`].
pub fn compare(
    path: &Path,
    probe: &Probe,
    backend: Option<Backend>,
) -> Result<Verification, ExportError> {
    let mut skipped = Vec::new();
    let backends = match backend {
        Some(backend) => vec![backend],
        // `Auto` takes ONNX Runtime exactly when its library is there.
        None => match runtime::decide(&RuntimeConfig::default())? {
            Backend::OnnxRuntime => vec![Backend::Tract, Backend::OnnxRuntime],
            found => {
                skipped.push(
                    "onnxruntime: no library found; set REID_ONNXRUNTIME to libonnxruntime.so.*"
                        .into(),
                );
                vec![found]
            }
        },
    };
    let backends = backends
        .into_iter()
        .map(|backend| with(path, probe, backend))
        .collect::<Result<_, _>>()?;
    Ok(Verification { backends, skipped })
}

fn with(path: &Path, probe: &Probe, backend: Backend) -> Result<Verified, ExportError> {
    let config = RuntimeConfig {
        backend,
        ..RuntimeConfig::default()
    };
    let mut embedder = Embedder::open(path, &config)?;
    let input = probe::inputs(&embedder.card().input);
    let got = embedder.embed_tensor(probe::PROBE_CROPS, &input)?;
    let ProbeReport {
        min_cosine,
        max_abs,
    } = probe.compare(&got);
    Ok(Verified {
        min_cosine,
        max_abs,
        backend: embedder.backend(),
        engine: embedder.description(),
    })
}
