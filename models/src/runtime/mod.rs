//! The only place that opens an ONNX file: training's evaluation, export's verification and the edge all come here.
//!
//! Two engines stand behind one trait: ONNX Runtime, loaded from a shared library at run time, and tract, which is
//! linked in and needs nothing. Which one runs is decided by configuration and reported ([`Status`]); a failure is an
//! error and never becomes another engine or provider unless the configuration allows it.

#[cfg(feature = "onnxruntime")]
mod cache;
mod config;
#[cfg(feature = "onnxruntime")]
mod device;
mod embedder;
mod error;
pub mod file;
mod input;
pub mod library;
#[cfg(feature = "onnxruntime")]
mod onnxruntime;
mod output;
mod progress;
pub mod proto;
mod status;
#[cfg(feature = "onnxruntime")]
mod tensorrt;
#[cfg(feature = "tract")]
mod tract;
#[cfg(feature = "onnxruntime")]
mod warming;

use std::path::Path;

pub use config::{Backend, Precision, Provider, RuntimeConfig};
pub use embedder::Embedder;
pub use error::RuntimeError;
pub use file::{OnnxFile, OnnxFileError};
pub use output::Output;
pub use progress::Progress;
pub use status::{CacheUse, CachedFile, State, Status};

use crate::card::{CardError, ModelCard};
use input::ImageInput;

/// Pictures that are embedded at once: bounds memory, and more gains nothing on a processor.
const MAX_BATCH: usize = 32;

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

    /// As [`Session::run`], but shows the outputs to `visit` once instead of copying them: they belong to the engine and
    /// are gone when `visit` returns.
    ///
    /// # Errors
    /// As [`Session::run`]; `visit` is then not called.
    fn run_with(
        &mut self,
        batch: usize,
        input: &[f32],
        visit: &mut dyn FnMut(&[Output]),
    ) -> Result<(), RuntimeError> {
        let outputs = self.run(batch, input)?;
        let shown: Vec<Output> = outputs
            .iter()
            .map(|(name, tensor)| Output {
                name,
                shape: &tensor.shape,
                data: &tensor.data,
            })
            .collect();
        visit(&shown);
        Ok(())
    }

    /// Engine, its version, providers and threads, for people.
    fn description(&self) -> String;

    /// The engine, never [`Backend::Auto`].
    fn backend(&self) -> Backend;

    /// What it runs on now, and why, for programs. A session that says nothing runs on the processor as it should.
    fn status(&self) -> Status {
        Status::on_processor(self.backend(), vec![Provider::Cpu])
    }
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
/// With `fallback` a TensorRT engine that isn't in the cache is built in the background while the next provider serves;
/// without it this call waits for the engine, and says every few seconds in the log that it does.
///
/// # Errors
/// If the file isn't ONNX, its input isn't the image the card describes, the configuration contradicts itself, its cache
/// can't be written to, or the engine doesn't take the model.
pub fn open(
    path: &Path,
    card: &ModelCard,
    config: &RuntimeConfig,
) -> Result<Box<dyn Session>, RuntimeError> {
    open_with_progress(path, card, config, &log_progress)
}

/// As [`open`]; `report` is told every few seconds, from another thread, that a long opening goes on.
///
/// # Errors
/// As [`open`].
pub fn open_with_progress(
    path: &Path,
    card: &ModelCard,
    config: &RuntimeConfig,
    report: &(dyn Fn(&Progress) + Sync),
) -> Result<Box<dyn Session>, RuntimeError> {
    open_described(path, &OnnxFile::read(path)?, card, config, report)
}

fn log_progress(progress: &Progress) {
    tracing::info!("{progress}");
}

/// As [`open_with_progress`], for a file whose description has been read.
fn open_described(
    path: &Path,
    file: &OnnxFile,
    card: &ModelCard,
    config: &RuntimeConfig,
    report: &(dyn Fn(&Progress) + Sync),
) -> Result<Box<dyn Session>, RuntimeError> {
    config.check()?;
    let input = ImageInput::check(file, &card.input, path)?;
    let session: Box<dyn Session> = match decide(config)? {
        #[cfg(feature = "tract")]
        Backend::Tract => Box::new(tract::TractSession::open(path, input, config)?),
        #[cfg(feature = "onnxruntime")]
        Backend::OnnxRuntime => {
            let model = onnxruntime::Model {
                path,
                file,
                card,
                input: &input,
                config,
                pass_over: config.fallback,
            };
            if config.fallback && onnxruntime::must_build(model)? {
                Box::new(warm_up(model)?)
            } else {
                progress::reporting_progress(path, config.wanted(), report, || {
                    onnxruntime::OrtSession::open(model)
                })
                .map(Box::new)?
            }
        }
        backend => return Err(RuntimeError::Disabled { backend }),
    };
    tracing::info!(model = %path.display(), engine = session.description(), "model opened");
    Ok(session)
}

/// Serves on the providers after TensorRT while its engine is built.
#[cfg(feature = "onnxruntime")]
fn warm_up(model: onnxruntime::Model) -> Result<warming::Warming, RuntimeError> {
    let config = model.config;
    let meanwhile = RuntimeConfig {
        providers: config.providers[1..].to_vec(),
        precision: Precision::Fp32,
        calibration: None,
        ..config.clone()
    };
    let serving = onnxruntime::OrtSession::open(onnxruntime::Model {
        config: &meanwhile,
        ..model
    })?;
    let (path, file, card) = (
        model.path.to_path_buf(),
        model.file.clone(),
        model.card.clone(),
    );
    let (input, wanted) = (model.input.clone(), config.clone());
    let build = move || -> Result<Box<dyn Session>, RuntimeError> {
        let model = onnxruntime::Model {
            path: &path,
            file: &file,
            card: &card,
            input: &input,
            config: &wanted,
            pass_over: true,
        };
        let opened =
            progress::reporting_progress(&path, Provider::TensorRt, &log_progress, || {
                onnxruntime::OrtSession::open(model)
            })?;
        match opened.status() {
            // The same again as what serves already.
            Status {
                fallback: true,
                reason,
                ..
            } => Err(RuntimeError::Provider {
                path: path.clone(),
                provider: Provider::TensorRt,
                reason: reason.unwrap_or_default(),
            }),
            _ => Ok(Box::new(opened)),
        }
    };
    Ok(warming::Warming::start(
        Box::new(serving),
        model.path,
        config.providers.clone(),
        build,
    ))
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
