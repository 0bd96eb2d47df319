//! What an opened model runs on, and why that may not be what was asked for.

use serde::Serialize;

use super::{Backend, Precision, Provider};

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// What is going to run runs.
    Ready,
    /// What was asked for is being built; something slower serves meanwhile.
    Building,
    /// What was asked for could not be built; something slower serves for good.
    Failed,
}

/// What an opened model runs on, for health checks and metrics.
///
/// `provider_running` is what ONNX Runtime was told to prefer and has accepted. Which node runs where it decides for
/// itself and does not report in a form that a program can read: `mixed` is all it says. Whoever must know that nothing
/// runs on the processor leaves `cpu` out of `providers` and `fallback` false: opening fails then if a node would.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Engine, never [`Backend::Auto`].
    pub engine: Backend,
    /// The configuration's providers.
    pub providers_asked: Vec<Provider>,
    /// The first provider that runs now.
    pub provider_running: Provider,
    /// Whether `provider_running` is not the first that was asked for.
    pub fallback: bool,
    /// Why, if `fallback`.
    pub reason: Option<String>,
    /// Whether ONNX Runtime warned that some nodes are not on the preferred provider. With CUDA these are often only
    /// the computations of shapes, which it prefers to leave on the processor.
    pub mixed: bool,
    /// What is calculated with: the configuration's for TensorRT, else what the file holds, said as `fp32`.
    pub precision: Precision,
    /// Where it stands.
    pub state: State,
    /// Seconds since the building of what was asked for began (`building`), or that it took (`ready`, `failed`);
    /// `None` if nothing was built in the background.
    pub building_seconds: Option<f64>,
    /// What was taken from the cache folder, if there is one.
    pub cache: Option<CacheUse>,
}

impl Status {
    /// The status of a session that runs on the processor as it was asked to.
    pub fn on_processor(engine: Backend, providers_asked: Vec<Provider>) -> Self {
        Status {
            engine,
            providers_asked,
            provider_running: Provider::Cpu,
            fallback: false,
            reason: None,
            mixed: false,
            precision: Precision::Fp32,
            state: State::Ready,
            building_seconds: None,
            cache: None,
        }
    }
}

/// One model's part of the cache folder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CacheUse {
    /// Folder inside the cache folder; its name holds the hash of all that its content depends on.
    pub entry: String,
    /// Whether it was there already, whole.
    pub hit: bool,
    /// What lies there.
    pub files: Vec<CachedFile>,
}

impl CacheUse {
    /// Size of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }
}

/// A file in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CachedFile {
    /// Name.
    pub name: String,
    /// Size.
    pub bytes: u64,
}
