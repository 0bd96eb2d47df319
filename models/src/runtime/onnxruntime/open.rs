//! Opening a model: providers one by one, so that each failure is seen, and through the cache, if there is one.

use std::path::Path;
use std::sync::Arc;

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider as _};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::environment::{Loaded, listening, load};
use crate::card::ModelCard;
use crate::runtime::cache::Cache;
use crate::runtime::device;
use crate::runtime::input::ImageInput;
use crate::runtime::status::CacheUse;
use crate::runtime::tensorrt::{Calibration, cuda_options};
use crate::runtime::{Backend, OnnxFile, Provider, RuntimeConfig, RuntimeError};

/// What ONNX Runtime says when a node would run on the processor although that is forbidden.
const FORBIDDEN: &str = "assigned to the default CPU EP";
/// What it warns of when nodes are not on the first provider.
const ELSEWHERE: &str = "not assigned to the preferred execution providers";
/// What its TensorRT provider warns of when it takes no node at all.
const IDLE: &str = "No graph will run on TensorRT";

/// A model that is to be opened.
#[derive(Clone, Copy)]
pub(in crate::runtime) struct Model<'a> {
    pub path: &'a Path,
    pub file: &'a OnnxFile,
    pub card: &'a ModelCard,
    pub input: &'a ImageInput,
    pub config: &'a RuntimeConfig,
    /// Whether a provider that fails is passed over for the next one.
    pub pass_over: bool,
}

/// What came of it.
pub(super) struct Opened {
    pub session: ort::session::Session,
    /// Providers that were accepted, most wanted first; never empty.
    pub running: Vec<Provider>,
    /// Providers that were passed over, each with its reason.
    pub passed_over: Vec<String>,
    pub mixed: bool,
    pub cache: Option<CacheUse>,
    pub library: String,
}

/// A failure, and the provider without which it may work.
pub(super) struct Failure {
    pub culprit: Option<Provider>,
    pub error: RuntimeError,
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        Failure {
            culprit: None,
            error,
        }
    }
}

/// Opens a model on the first providers that take it.
pub(super) fn open(model: Model) -> Result<Opened, RuntimeError> {
    let opening = Opening::new(model)?;
    let mut providers = model.config.providers.clone();
    let mut passed_over = Vec::new();
    loop {
        match opening.attempt(&providers) {
            Ok((session, heard, cache)) => {
                if providers.is_empty() {
                    // ONNX Runtime always has its processor provider behind all others.
                    providers.push(Provider::Cpu);
                }
                return Ok(Opened {
                    session,
                    mixed: heard.iter().any(|m| m.contains(ELSEWHERE)),
                    running: providers,
                    passed_over,
                    cache,
                    library: opening.loaded.name(),
                });
            }
            Err(Failure {
                culprit: Some(provider),
                error,
            }) if model.pass_over => {
                tracing::warn!(model = %model.path.display(), %provider, %error, "execution provider passed over");
                passed_over.push(format!("{provider}: {}", reason(&error)));
                providers.retain(|&p| p != provider);
            }
            Err(failure) => return Err(failure.error),
        }
    }
}

/// Whether opening would have to build a TensorRT engine, which takes minutes. A provider that cannot start builds
/// nothing.
pub(in crate::runtime) fn must_build(model: Model) -> Result<bool, RuntimeError> {
    if model.config.wanted() != Provider::TensorRt {
        return Ok(false);
    }
    let opening = Opening::new(model)?;
    let started = opening
        .builder(GraphOptimizationLevel::All)
        .map_err(|e| e.to_string())
        .and_then(|builder| {
            let options = opening.engine("", None).options(None)?;
            opening.register(builder, Provider::TensorRt, &options)
        });
    match (started, &opening.cache) {
        (Err(_), _) => Ok(false),
        (Ok(_), None) => Ok(true),
        (Ok(_), Some(cache)) => {
            let hash = opening.hash()?;
            let gpu = device::gpu(model.config.device);
            let key = opening.engine(&hash, gpu.as_ref()).key();
            Ok(key.is_ok_and(|key| !cache.has(&key)))
        }
    }
}

/// The part of an error that says why; the model's name is known where it is repeated.
fn reason(error: &RuntimeError) -> String {
    match error {
        RuntimeError::Provider { reason, .. } | RuntimeError::Load { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}

/// A session, what the library warned of, and what was used of the cache.
pub(super) type Attempt = (ort::session::Session, Vec<String>, Option<CacheUse>);

/// An option of a provider.
type ProviderOption = (&'static str, String);

/// What all attempts have in common.
pub(super) struct Opening<'a> {
    pub model: Model<'a>,
    pub loaded: Arc<Loaded>,
    pub cache: Option<Cache>,
    pub calibration: Option<Calibration>,
}

impl<'a> Opening<'a> {
    fn new(model: Model<'a>) -> Result<Self, RuntimeError> {
        let config = model.config;
        Ok(Opening {
            calibration: Calibration::read(config, model.file, model.path)?,
            cache: config.cache.as_deref().map(Cache::open).transpose()?,
            loaded: load(config)?,
            model,
        })
    }

    fn attempt(&self, providers: &[Provider]) -> Result<Attempt, Failure> {
        match &self.cache {
            Some(cache) if providers.contains(&Provider::TensorRt) => {
                self.with_engine(cache, providers)
            }
            // Weights that lie in other files are not covered by the model's hash.
            Some(cache) if on_processor(providers) && !self.model.file.external => {
                self.optimised(cache, providers)
            }
            _ => self.plain(providers),
        }
    }

    /// Without the cache.
    pub(super) fn plain(&self, providers: &[Provider]) -> Result<Attempt, Failure> {
        let options = if providers.contains(&Provider::TensorRt) {
            let options = self.engine("", None).options(None);
            options.map_err(|reason| self.refused(Provider::TensorRt, reason))?
        } else {
            Vec::new()
        };
        let (session, heard) = self.commit(providers, &options)?;
        Ok((session, heard, None))
    }

    /// A session's options that do not depend on the provider.
    pub(super) fn builder(&self, level: GraphOptimizationLevel) -> ort::Result<SessionBuilder> {
        let builder = ort::session::Session::builder(&self.loaded.environment)?
            .with_optimization_level(level)?
            .with_intra_threads(self.model.config.threads.max(1))?
            // Threads that spin between runs take the processor from the rest of the pipeline.
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            // A pattern is kept per input shape: useless when the batch changes from run to run.
            .with_memory_pattern(self.model.input.fixed_batch.is_some())?
            // The arena keeps what a run needed for the next run: without it every run takes fresh pages from the
            // system, and the peak is higher by a tenth.
            .with_execution_providers([ep::CPU::default().with_arena_allocator(true).build()])?;
        Ok(builder)
    }

    fn register(
        &self,
        builder: SessionBuilder,
        provider: Provider,
        tensorrt: &[ProviderOption],
    ) -> Result<SessionBuilder, String> {
        let dispatch = match provider {
            Provider::TensorRt => tensorrt
                .iter()
                .fold(ep::TensorRT::default(), |e, (k, v)| {
                    e.with_arbitrary_config(k, v)
                })
                .build(),
            Provider::Cuda => cuda_options(self.model.config)
                .iter()
                .fold(ep::CUDA::default(), |e, (k, v)| {
                    e.with_arbitrary_config(k, v)
                })
                .build(),
            // It is always there, behind all others.
            Provider::Cpu => return Ok(builder),
        };
        builder
            .with_execution_providers([dispatch.error_on_failure()])
            .map_err(|e| e.to_string())
    }

    /// One attempt with these providers; `tensorrt` are that provider's options.
    pub(super) fn commit(
        &self,
        providers: &[Provider],
        tensorrt: &[ProviderOption],
    ) -> Result<(ort::session::Session, Vec<String>), Failure> {
        let culprit = providers.iter().copied().find(|&p| p != Provider::Cpu);
        let load = |reason: String| Failure {
            culprit,
            error: self.load_error(reason),
        };
        let mut builder = self
            .builder(GraphOptimizationLevel::All)
            .map_err(|e| load(e.to_string()))?;
        for &provider in providers {
            builder = self
                .register(builder, provider, tensorrt)
                .map_err(|reason| self.refused(provider, reason))?;
        }
        if self.model.config.forbids_processor() {
            builder = builder
                .with_disable_cpu_fallback()
                .map_err(|e| load(e.to_string()))?;
        }
        let (session, heard) = listening(|| builder.commit_from_file(self.model.path));
        let session = session.map_err(|e| {
            let mut reason = e.to_string();
            if reason.contains(FORBIDDEN) {
                reason.push_str(
                    "; to let these nodes run on the processor, add \"cpu\" to `providers`",
                );
            }
            load(reason)
        })?;
        if providers.contains(&Provider::TensorRt) && heard.iter().any(|m| m.contains(IDLE)) {
            let reason = "it takes no node of this model".into();
            return Err(self.refused(Provider::TensorRt, reason));
        }
        Ok((session, heard))
    }

    pub(super) fn refused(&self, provider: Provider, reason: String) -> Failure {
        Failure {
            culprit: Some(provider),
            error: RuntimeError::Provider {
                path: self.model.path.to_path_buf(),
                provider,
                reason,
            },
        }
    }

    pub(super) fn load_error(&self, reason: String) -> RuntimeError {
        RuntimeError::Load {
            path: self.model.path.to_path_buf(),
            backend: Backend::OnnxRuntime,
            reason,
        }
    }
}

fn on_processor(providers: &[Provider]) -> bool {
    providers.iter().all(|&p| p == Provider::Cpu)
}
