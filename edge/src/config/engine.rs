//! `[runtime]` of the configuration, and what `[detector]` and `[embedder]` say alike about engines.

use std::path::PathBuf;

use reid_models::runtime::Provider;
use serde::{Deserialize, Serialize};

/// `[runtime]`: what all models share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeSection {
    /// Folder where built engines, timing caches and optimised models are kept from one start to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
}

/// How many sessions `wanted` means; 0 is for us to decide.
pub(super) fn sessions(wanted: usize, providers: &[Provider]) -> usize {
    if wanted > 0 {
        return wanted;
    }
    // A GPU runs one thing after another, whoever asks; a processor has cores.
    match providers.first() {
        Some(Provider::TensorRt | Provider::Cuda) => 1,
        _ => std::thread::available_parallelism().map_or(1, usize::from),
    }
}
