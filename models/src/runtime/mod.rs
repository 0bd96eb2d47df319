//! The only place that opens an ONNX file: training's evaluation, export's verification and the edge all come here.
//!
//! Two engines stand behind one trait: ONNX Runtime, loaded from a shared library at run time, and tract, which is
//! linked in and needs nothing. Which one runs is decided by configuration and reported; a failure is an error and never
//! becomes another engine.

mod embedder;
pub mod file;
mod input;
pub mod library;
#[cfg(feature = "onnxruntime")]
mod onnxruntime;
pub mod proto;
#[cfg(feature = "tract")]
mod tract;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use embedder::Embedder;
pub use file::{OnnxFile, OnnxFileError};

use crate::card::{CardError, ModelCard};
use crate::distance::NotFinite;
use crate::preprocess::PreprocessError;
use input::ImageInput;

/// Engine that runs a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// ONNX Runtime if its library is found ([`library::find`]), else tract; decided before the model is opened.
    #[default]
    Auto,
    /// tract, linked in.
    Tract,
    /// ONNX Runtime, from its shared library.
    OnnxRuntime,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Auto => "auto",
            Backend::Tract => "tract",
            Backend::OnnxRuntime => "onnxruntime",
        })
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Backend::Auto),
            "tract" => Ok(Backend::Tract),
            "onnxruntime" => Ok(Backend::OnnxRuntime),
            _ => Err(format!(
                "backend must be auto, tract or onnxruntime, got `{text}`"
            )),
        }
    }
}

/// Execution provider of ONNX Runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// NVIDIA TensorRT.
    TensorRt,
    /// NVIDIA CUDA.
    Cuda,
    /// The processor.
    Cpu,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Provider::TensorRt => "tensorrt",
            Provider::Cuda => "cuda",
            Provider::Cpu => "cpu",
        })
    }
}

/// How models are run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeConfig {
    /// Engine.
    pub backend: Backend,
    /// ONNX Runtime's library, a file or a folder that holds it; found by [`library::find`] if absent.
    pub library: Option<PathBuf>,
    /// ONNX Runtime's execution providers in order of preference. tract runs on the processor whatever stands here.
    pub providers: Vec<Provider>,
    /// Whether a provider that cannot start may be passed over, with a warning and in the session's description.
    pub fallback: bool,
    /// Threads of one session, at least 1.
    pub threads: usize,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        RuntimeConfig {
            backend: Backend::Auto,
            library: None,
            providers: vec![Provider::Cpu],
            fallback: false,
            threads: 1,
        }
    }
}

/// A row-major tensor that came out of a model, its first axis the batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Shape.
    pub shape: Vec<usize>,
    /// Elements; other types than f32 are converted.
    pub data: Vec<f32>,
}

/// An opened model.
pub trait Session: Send {
    /// Runs `batch` pictures, preprocessed as the card says and laid one after the other, and returns all outputs by name
    /// in the file's order. A file of fixed batch size is run as often as needed and filled up with its last picture.
    ///
    /// # Errors
    /// If `input` has another length, or the engine fails.
    fn run(&mut self, batch: usize, input: &[f32]) -> Result<Vec<(String, Tensor)>, RuntimeError>;

    /// Engine, its version, providers and threads, for people.
    fn description(&self) -> String;

    /// The engine, never [`Backend::Auto`].
    fn backend(&self) -> Backend;
}

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
        "{path}: execution provider `{provider}` cannot start: {reason}; remove it from runtime.providers, or allow the next one with runtime.fallback = true"
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

/// Decides the engine: [`Backend::Auto`] becomes one of the two others.
///
/// # Errors
/// If the wanted engine is not available in this program or on this machine.
pub fn decide(config: &RuntimeConfig) -> Result<Backend, RuntimeError> {
    let found = || library::find(config.library.as_deref());
    match config.backend {
        Backend::Auto if !cfg!(feature = "onnxruntime") => Ok(Backend::Tract),
        Backend::Auto if !cfg!(feature = "tract") => Ok(Backend::OnnxRuntime),
        Backend::Auto => Ok(match found()? {
            Some(_) => Backend::OnnxRuntime,
            None => Backend::Tract,
        }),
        Backend::Tract if !cfg!(feature = "tract") => Err(RuntimeError::Disabled {
            backend: Backend::Tract,
        }),
        Backend::OnnxRuntime if !cfg!(feature = "onnxruntime") => Err(RuntimeError::Disabled {
            backend: Backend::OnnxRuntime,
        }),
        backend => Ok(backend),
    }
}

/// Opens a model as its card describes it.
///
/// # Errors
/// If the file isn't ONNX, its input isn't the image the card describes, or the engine doesn't take it.
pub fn open(
    path: &Path,
    card: &ModelCard,
    config: &RuntimeConfig,
) -> Result<Box<dyn Session>, RuntimeError> {
    open_described(path, &OnnxFile::read(path)?, card, config)
}

/// As [`open`], for a file whose description has been read.
fn open_described(
    path: &Path,
    file: &OnnxFile,
    card: &ModelCard,
    config: &RuntimeConfig,
) -> Result<Box<dyn Session>, RuntimeError> {
    let input = ImageInput::check(file, &card.input, path)?;
    let session: Box<dyn Session> = match decide(config)? {
        #[cfg(feature = "tract")]
        Backend::Tract => Box::new(tract::TractSession::open(path, input, config)?),
        #[cfg(feature = "onnxruntime")]
        Backend::OnnxRuntime => Box::new(onnxruntime::OrtSession::open(path, input, config)?),
        backend => return Err(RuntimeError::Disabled { backend }),
    };
    tracing::info!(model = %path.display(), engine = session.description(), "model opened");
    Ok(session)
}

/// Reads a model's card: from the file's metadata, else from `FILE.onnx.card.json` beside it.
///
/// # Errors
/// If the file isn't ONNX, there is no card, or it isn't one.
pub fn read_card(path: &Path) -> Result<ModelCard, CardError> {
    OnnxFile::read(path)?.card(path)
}

/// Reads the trainer's embeddings of the probe's 16 crops from a model's metadata; `None` if it carries none.
///
/// # Errors
/// If the file isn't ONNX, or what it carries is broken.
pub fn read_probe(path: &Path) -> Result<Option<Vec<Vec<f32>>>, RuntimeError> {
    OnnxFile::read(path)?.probe(path)
}
