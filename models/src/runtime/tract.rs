//! tract: pure Rust, linked in, needs nothing on the machine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use tract_onnx::prelude::*;

use super::input::{ImageInput, chunk_input, to_f16, to_u8};
use super::output::{Outputs, join};
use super::{Backend, Provider, RuntimeConfig, RuntimeError, Session, Status, Tensor as Output};
use crate::card::Element;

/// A model optimised for one batch size: the file's, else 1. Larger batches cost tract more time per picture than
/// single ones, so they are spread over threads picture by picture.
pub(super) struct TractSession {
    path: PathBuf,
    input: ImageInput,
    outputs: Vec<String>,
    chunk: usize,
    plan: Arc<TypedRunnableModel>,
    /// `None` if one thread is wanted: the caller's own.
    pool: Option<rayon::ThreadPool>,
    threads: usize,
    status: Status,
}

impl TractSession {
    pub(super) fn open(
        path: &Path,
        input: ImageInput,
        config: &RuntimeConfig,
    ) -> Result<Self, RuntimeError> {
        let fail = |reason: String| RuntimeError::Load {
            path: path.to_path_buf(),
            backend: Backend::Tract,
            reason,
        };
        let status = status(path, config)?;
        let chunk = input.fixed_batch.unwrap_or(1);
        // A damaged file can trip an assertion inside the engine; that is the file's fault and must not end the program.
        let (plan, outputs) = catch_unwind(AssertUnwindSafe(|| load(path, &input, chunk)))
            .map_err(|_| fail("the engine panicked on this file".into()))?
            .map_err(|e| fail(format!("{e:#}")))?;
        let threads = config.threads.max(1);
        let pool = (threads > 1)
            .then(|| {
                rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .thread_name(|i| format!("tract-{i}"))
                    .build()
            })
            .transpose()
            .map_err(|e| fail(e.to_string()))?;
        Ok(TractSession {
            path: path.to_path_buf(),
            input,
            outputs,
            chunk,
            plan,
            pool,
            threads,
            status,
        })
    }

    fn run_chunk(&self, input: &[f32]) -> TractResult<Outputs> {
        let shape = self.input.shape(self.chunk);
        let tensor = match self.input.element {
            Element::F32 => Tensor::from_shape(&shape, input)?,
            Element::F16 => {
                let mut halves = Vec::with_capacity(input.len());
                to_f16(input, &mut halves);
                Tensor::from_shape(&shape, &halves)?
            }
            Element::U8 => {
                let mut bytes = Vec::with_capacity(input.len());
                to_u8(input, &mut bytes);
                Tensor::from_shape(&shape, &bytes)?
            }
        };
        let made = self.plan.run(tvec!(tensor.into_tvalue()))?;
        self.outputs
            .iter()
            .zip(made)
            .map(|(name, value)| {
                let value = value.cast_to::<f32>()?;
                let output = Output {
                    shape: value.shape().to_vec(),
                    data: value.try_as_plain_ram()?.as_slice::<f32>()?.to_vec(),
                };
                Ok((name.clone(), output))
            })
            .collect()
    }
}

/// tract runs on the processor: a configuration that wants a GPU must allow that.
fn status(path: &Path, config: &RuntimeConfig) -> Result<Status, RuntimeError> {
    let mut status = Status::on_processor(Backend::Tract, config.providers.clone());
    let wanted = config.wanted();
    if wanted != Provider::Cpu {
        let reason = "tract runs on the processor only, and ONNX Runtime is not in use".to_string();
        if !config.fallback {
            return Err(RuntimeError::Provider {
                path: path.to_path_buf(),
                provider: wanted,
                reason,
            });
        }
        tracing::warn!(model = %path.display(), provider = %wanted, reason, "execution provider passed over");
        status.fallback = true;
        status.reason = Some(format!("{wanted}: {reason}"));
    }
    Ok(status)
}

fn load(
    path: &Path,
    input: &ImageInput,
    chunk: usize,
) -> TractResult<(Arc<TypedRunnableModel>, Vec<String>)> {
    let element = match input.element {
        Element::F32 => f32::datum_type(),
        Element::F16 => f16::datum_type(),
        Element::U8 => u8::datum_type(),
    };
    // Shapes that the file states for its outputs and inner values name the symbolic batch; with the batch known they
    // would contradict what is inferred.
    let model = tract_onnx::onnx()
        .with_ignore_output_shapes(true)
        .with_ignore_value_info(true)
        .model_for_path(path)?
        .with_input_fact(0, InferenceFact::dt_shape(element, input.shape(chunk)))?;
    let outputs = model
        .output_outlets()?
        .iter()
        .map(|&outlet| {
            model
                .outlet_label(outlet)
                .map_or_else(|| model.node(outlet.node).name.clone(), ToString::to_string)
        })
        .collect();
    Ok((model.into_optimized()?.into_runnable()?, outputs))
}

impl Session for TractSession {
    fn run(&mut self, batch: usize, input: &[f32]) -> Result<Outputs, RuntimeError> {
        self.input.check_len(&self.path, batch, input)?;
        let fail = |reason: String| RuntimeError::Run {
            path: self.path.clone(),
            backend: Backend::Tract,
            reason,
        };
        let len = self.input.sample_len();
        let one = |index: usize| {
            let whole = index * self.chunk * len..(index + 1) * self.chunk * len;
            match input.get(whole) {
                Some(chunk) => self.run_chunk(chunk),
                None => {
                    let mut padded = Vec::with_capacity(self.chunk * len);
                    chunk_input(input, len, self.chunk, index, &mut padded);
                    self.run_chunk(&padded)
                }
            }
        };
        let count = batch.div_ceil(self.chunk);
        let chunks: TractResult<Vec<Outputs>> = match &self.pool {
            Some(pool) if count > 1 => {
                pool.install(|| (0..count).into_par_iter().map(one).collect())
            }
            _ => (0..count).map(one).collect(),
        };
        let chunks = chunks.map_err(|e| fail(format!("{e:#}")))?;
        join(chunks, self.chunk, batch).map_err(fail)
    }

    fn description(&self) -> String {
        format!("tract on cpu, threads {}", self.threads)
    }

    fn backend(&self) -> Backend {
        Backend::Tract
    }

    fn status(&self) -> Status {
        self.status.clone()
    }
}
