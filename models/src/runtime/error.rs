//! What can go wrong between a file and its outputs.

use std::path::PathBuf;

use super::{Backend, OnnxFileError, Provider};
use crate::card::CardError;
use crate::distance::NotFinite;
use crate::files::FileError;
use crate::preprocess::PreprocessError;

/// A model that cannot be opened or run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No card, or a broken one.
    #[error(transparent)]
    Card(#[from] CardError),
    /// Not readable as ONNX.
    #[error(transparent)]
    File(#[from] OnnxFileError),
    /// The input cannot be a picture.
    #[error("{path}: the model's input is not an image: {reason}")]
    NotImage {
        /// Model.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// File and card contradict each other.
    #[error(
        "{path}: the card's {key} does not fit the file: the card says {card}, the file {file}"
    )]
    Mismatch {
        /// Model.
        path: PathBuf,
        /// Key of the card.
        key: &'static str,
        /// What the file has.
        file: String,
        /// What the card says.
        card: String,
    },
    /// The card is for another task.
    #[error("{path}: the card's task is `{got}`, wanted `{want}`")]
    Task {
        /// Model.
        path: PathBuf,
        /// Task of the card.
        got: &'static str,
        /// Wanted.
        want: &'static str,
    },
    /// Keys of the configuration that do not fit each other, the model or this machine.
    #[error("{key} = {value}: {remedy}")]
    Config {
        /// Key of [`RuntimeConfig`](super::RuntimeConfig).
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong, and what to write instead.
        remedy: String,
    },
    /// The cache folder can't be used.
    #[error(
        "runtime.cache: {source}: name a folder that this user may write to, or leave the key out"
    )]
    Cache {
        /// Which file, and why.
        source: FileError,
    },
    /// ONNX Runtime's library is missing or unusable.
    #[error(
        "ONNX Runtime is not available: {reason}; set REID_ONNXRUNTIME to libonnxruntime.so.* (the `onnxruntime` Python wheel has one in its `capi` folder), or choose backend = \"tract\""
    )]
    Library {
        /// Why.
        reason: String,
    },
    /// Built without this engine.
    #[error("this program was built without the feature `{backend}`: choose another backend")]
    Disabled {
        /// Engine.
        backend: Backend,
    },
    /// An execution provider did not start.
    #[error(
        "{path}: execution provider `{provider}` cannot start: {reason}; remove it from `providers`, or allow the next one with fallback = true"
    )]
    Provider {
        /// Model.
        path: PathBuf,
        /// Provider.
        provider: Provider,
        /// Why.
        reason: String,
    },
    /// The engine does not take the model.
    #[error("{path}: {backend} cannot load the model: {reason}")]
    Load {
        /// Model.
        path: PathBuf,
        /// Engine.
        backend: Backend,
        /// Why.
        reason: String,
    },
    /// The engine failed on an input.
    #[error("{path}: {backend} cannot run the model: {reason}")]
    Run {
        /// Model.
        path: PathBuf,
        /// Engine.
        backend: Backend,
        /// Why.
        reason: String,
    },
    /// The caller's input has another size.
    #[error("{path}: a batch of {batch} pictures is {want} numbers, got {got}")]
    InputLength {
        /// Model.
        path: PathBuf,
        /// Batch.
        batch: usize,
        /// Given elements.
        got: usize,
        /// Wanted elements.
        want: usize,
    },
    /// The outputs are not what the card says.
    #[error("{path}: {reason}")]
    Output {
        /// Model.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The model gave NaN or infinity.
    #[error("{path}: the embedding of picture {picture} in the batch is broken: {source}")]
    NotFinite {
        /// Model.
        path: PathBuf,
        /// Which picture, from 0.
        picture: usize,
        /// Where.
        source: NotFinite,
    },
    /// The probe in the metadata can't be read.
    #[error("{path}: the probe in the file's metadata is broken: {reason}: export the model again")]
    Probe {
        /// Model.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A picture can't become a tensor.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
}
