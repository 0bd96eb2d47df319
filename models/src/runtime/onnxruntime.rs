//! ONNX Runtime, loaded from a shared library when the first model is opened.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ort::environment::Environment;
use ort::ep;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{DynValue, TensorElementType, TensorRef, ValueType};

use super::input::{ImageInput, Outputs, chunk_input, join, to_f16, to_u8};
use super::{Backend, Provider, RuntimeConfig, RuntimeError, Session, Tensor, library};
use crate::card::Element;

/// The library that this process has loaded, and its environment. There can be only one of either.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// A model in ONNX Runtime.
pub(super) struct OrtSession {
    path: PathBuf,
    input: ImageInput,
    session: ort::session::Session,
    description: String,
}

impl OrtSession {
    pub(super) fn open(
        path: &Path,
        input: ImageInput,
        config: &RuntimeConfig,
    ) -> Result<Self, RuntimeError> {
        let fail = |reason: String| RuntimeError::Load {
            path: path.to_path_buf(),
            backend: Backend::OnnxRuntime,
            reason,
        };
        let threads = config.threads.max(1);
        let (library, builder) = builder(config)?;
        let options = |builder: SessionBuilder| -> ort::Result<SessionBuilder> {
            let builder = builder
                .with_optimization_level(GraphOptimizationLevel::All)?
                .with_intra_threads(threads)?
                // Threads that spin between runs take the processor from the rest of the pipeline.
                .with_intra_op_spinning(false)?
                .with_inter_op_spinning(false)?
                // A pattern is kept per input shape: useless when the batch changes from run to run.
                .with_memory_pattern(input.fixed_batch.is_some())?;
            Ok(builder)
        };
        let builder = options(builder).map_err(|e| fail(e.to_string()))?;
        let (mut builder, running) = with_providers(builder, config, path)?;
        let session = builder
            .commit_from_file(path)
            .map_err(|e| fail(e.to_string()))?;
        let providers: Vec<String> = running.iter().map(Provider::to_string).collect();
        let description = format!(
            "onnxruntime on {}, threads {threads}, {}",
            providers.join(", "),
            library.file_name().unwrap_or(library.as_os_str()).display()
        );
        Ok(OrtSession {
            path: path.to_path_buf(),
            input,
            session,
            description,
        })
    }

    fn run_chunk(&mut self, batch: usize, input: &[f32]) -> ort::Result<Outputs> {
        let shape = self.input.shape(batch);
        let name = self.input.name.as_str();
        let outputs = match self.input.element {
            Element::F32 => {
                let tensor = TensorRef::from_array_view((shape, input))?;
                self.session.run(ort::inputs![name => tensor])?
            }
            Element::F16 => {
                let input = to_f16(input);
                let tensor = TensorRef::from_array_view((shape, &input[..]))?;
                self.session.run(ort::inputs![name => tensor])?
            }
            Element::U8 => {
                let input = to_u8(input);
                let tensor = TensorRef::from_array_view((shape, &input[..]))?;
                self.session.run(ort::inputs![name => tensor])?
            }
        };
        outputs
            .iter()
            .map(|(name, value)| Ok((name.to_string(), to_tensor(&value)?)))
            .collect()
    }
}

/// A builder in the process's one environment; loads the library first, because a missing one must be an error and
/// `ort` itself would panic.
fn builder(config: &RuntimeConfig) -> Result<(PathBuf, SessionBuilder), RuntimeError> {
    let fail = |reason: String| RuntimeError::Library { reason };
    // Loading touches only this slot: a panic elsewhere leaves it whole.
    let mut loaded = LOADED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((library, environment)) = loaded.as_ref() {
        if let Some(wanted) = &config.library
            && library::find(Some(wanted))?.as_ref() != Some(library)
        {
            return Err(fail(format!(
                "{} is asked for, but this process has loaded {} and can load only one",
                wanted.display(),
                library.display()
            )));
        }
        let builder =
            ort::session::Session::builder(environment).map_err(|e| fail(e.to_string()))?;
        return Ok((library.clone(), builder));
    }
    let library = library::find(config.library.as_deref())?.ok_or_else(|| {
        fail(
            "no library was found in a `.deps` folder here or above, nor beside the program".into(),
        )
    })?;
    let environment = ort::init_from(&library)
        .map_err(|e| fail(e.to_string()))?
        .with_name("reid")
        .with_telemetry(false)
        .build()
        .map_err(|e| fail(e.to_string()))?;
    let builder = ort::session::Session::builder(&environment).map_err(|e| fail(e.to_string()))?;
    *loaded = Some((library.clone(), environment));
    Ok((library, builder))
}

/// Registers the providers one by one, so that each failure is seen.
fn with_providers(
    mut builder: SessionBuilder,
    config: &RuntimeConfig,
    path: &Path,
) -> Result<(SessionBuilder, Vec<Provider>), RuntimeError> {
    let mut running = Vec::new();
    for &provider in &config.providers {
        let dispatch = match provider {
            Provider::TensorRt => ep::TensorRT::default().build(),
            Provider::Cuda => ep::CUDA::default().build(),
            Provider::Cpu => ep::CPU::default().build(),
        };
        builder = match builder.with_execution_providers([dispatch.error_on_failure()]) {
            Ok(builder) => {
                running.push(provider);
                builder
            }
            Err(error) if config.fallback => {
                tracing::warn!(model = %path.display(), %provider, %error, "execution provider passed over");
                error.recover()
            }
            Err(error) => {
                return Err(RuntimeError::Provider {
                    path: path.to_path_buf(),
                    provider,
                    reason: error.to_string(),
                });
            }
        };
    }
    if running.is_empty() {
        // ONNX Runtime always has its processor provider behind all others.
        running.push(Provider::Cpu);
    }
    Ok((builder, running))
}

/// Copies an output as f32.
fn to_tensor(value: &DynValue) -> ort::Result<Tensor> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(ort::Error::new(
            "an output is a sequence or a map, not a tensor",
        ));
    };
    let shape = shape
        .iter()
        .map(|&n| usize::try_from(n).unwrap_or(0))
        .collect();
    macro_rules! copy {
        ($type:ty, $convert:expr) => {
            value
                .try_extract_tensor::<$type>()?
                .1
                .iter()
                .map($convert)
                .collect()
        };
    }
    let data = match ty {
        TensorElementType::Float32 => copy!(f32, |&v| v),
        TensorElementType::Float16 => copy!(half::f16, |v| v.to_f32()),
        TensorElementType::Float64 => copy!(f64, |&v| v as f32),
        TensorElementType::Int64 => copy!(i64, |&v| v as f32),
        TensorElementType::Int32 => copy!(i32, |&v| v as f32),
        TensorElementType::Uint8 => copy!(u8, |&v| f32::from(v)),
        other => {
            return Err(ort::Error::new(format!(
                "an output has elements of type {other}"
            )));
        }
    };
    Ok(Tensor { shape, data })
}

impl Session for OrtSession {
    fn run(&mut self, batch: usize, input: &[f32]) -> Result<Outputs, RuntimeError> {
        self.input.check_len(&self.path, batch, input)?;
        let path = self.path.clone();
        let fail = |reason: String| RuntimeError::Run {
            path: path.clone(),
            backend: Backend::OnnxRuntime,
            reason,
        };
        let chunk = self.input.fixed_batch.unwrap_or(batch);
        let len = self.input.sample_len();
        let mut chunks = Vec::with_capacity(batch.div_ceil(chunk));
        for index in 0..batch.div_ceil(chunk) {
            let whole = index * chunk * len..(index + 1) * chunk * len;
            let outputs = match input.get(whole) {
                Some(part) => self.run_chunk(chunk, part),
                None => self.run_chunk(chunk, &chunk_input(input, len, chunk, index)),
            };
            chunks.push(outputs.map_err(|e| fail(e.to_string()))?);
        }
        join(chunks, chunk, batch).map_err(fail)
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn backend(&self) -> Backend {
        Backend::OnnxRuntime
    }
}
