//! ONNX Runtime, loaded from a shared library when the first model is opened.

mod environment;
mod kept;
mod open;

use std::path::PathBuf;

use half::f16;
use ort::session::SessionOutputs;
use ort::value::{DynValue, TensorElementType, TensorRef, ValueType};

pub(super) use open::{Model, must_build};

use super::input::{ImageInput, chunk_input, to_f16, to_u8};
use super::output::{Joined, Outputs, copied};
use super::tensorrt::Batches;
use super::{Backend, Output, Precision, Provider, RuntimeError, Session, State, Status};
use crate::card::Element;

/// A model in ONNX Runtime.
pub(super) struct OrtSession {
    path: PathBuf,
    description: String,
    status: Status,
    /// Names of the outputs, in the file's order.
    names: Vec<String>,
    /// Larger batches are cut: an engine is built for so many.
    most: usize,
    runner: Runner,
    padded: Vec<f32>,
    joined: Joined,
}

/// What one run needs and changes.
struct Runner {
    input: ImageInput,
    session: ort::session::Session,
    halves: Vec<f16>,
    bytes: Vec<u8>,
    /// Outputs that are not f32, by position.
    converted: Vec<Vec<f32>>,
}

impl OrtSession {
    pub(super) fn open(model: Model) -> Result<Self, RuntimeError> {
        let opened = open::open(model)?;
        let config = model.config;
        let asked = config.wanted();
        let running = opened.running[0];
        let on_tensorrt = opened.running.contains(&Provider::TensorRt);
        let precision = if on_tensorrt {
            config.precision
        } else {
            Precision::Fp32
        };
        let list: Vec<String> = opened.running.iter().map(Provider::to_string).collect();
        let mut description = format!(
            "onnxruntime on {}, threads {}, {}",
            list.join(", "),
            config.threads.max(1),
            opened.library
        );
        if precision != Precision::Fp32 {
            description.push_str(&format!(", {precision}"));
        }
        let names = opened.session.outputs();
        Ok(OrtSession {
            path: model.path.to_path_buf(),
            description,
            status: Status {
                engine: Backend::OnnxRuntime,
                providers_asked: config.providers.clone(),
                provider_running: running,
                fallback: running != asked,
                reason: (running != asked).then(|| opened.passed_over.join("; ")),
                mixed: opened.mixed,
                precision,
                state: State::Ready,
                building_seconds: None,
                cache: opened.cache,
            },
            names: names.iter().map(|o| o.name().to_string()).collect(),
            most: if on_tensorrt {
                Batches::of(model.card).most
            } else {
                usize::MAX
            },
            runner: Runner {
                input: model.input.clone(),
                session: opened.session,
                halves: Vec::new(),
                bytes: Vec::new(),
                converted: Vec::new(),
            },
            padded: Vec::new(),
            joined: Joined::default(),
        })
    }

    fn run_in_pieces(
        &mut self,
        batch: usize,
        input: &[f32],
        visit: &mut dyn FnMut(&[Output]),
    ) -> Result<(), String> {
        let len = self.runner.input.sample_len();
        // A fixed batch is always filled up; a dynamic one only has a largest size.
        let (size, fixed) = match self.runner.input.fixed_batch {
            Some(n) => (n, true),
            None => (self.most.min(batch), false),
        };
        if batch == size {
            return self.runner.run(batch, input, &self.names, visit);
        }
        self.joined.clear();
        for index in 0..batch.div_ceil(size) {
            let keep = size.min(batch - index * size);
            let (rows, piece) = if keep < size && fixed {
                chunk_input(input, len, size, index, &mut self.padded);
                (size, &self.padded[..])
            } else {
                (keep, &input[index * size * len..][..keep * len])
            };
            let mut joining = Ok(());
            let joined = &mut self.joined;
            self.runner.run(rows, piece, &self.names, &mut |outputs| {
                for (position, &output) in outputs.iter().enumerate() {
                    if joining.is_ok() {
                        joining = joined.append(position, output, rows, keep);
                    }
                }
            })?;
            joining?;
        }
        visit(&self.joined.outputs(&self.names));
        Ok(())
    }
}

impl Runner {
    /// One run of the library. What it gives is shown, not copied.
    fn run(
        &mut self,
        batch: usize,
        input: &[f32],
        names: &[String],
        visit: &mut dyn FnMut(&[Output]),
    ) -> Result<(), String> {
        let Runner {
            input: spec,
            session,
            halves,
            bytes,
            converted,
        } = self;
        let made = infer(session, spec, batch, input, halves, bytes).map_err(|e| e.to_string())?;
        converted.resize_with(names.len(), Vec::new);
        let mut shapes = Vec::with_capacity(names.len());
        for (position, buffer) in converted.iter_mut().enumerate() {
            shapes.push(convert(&made[position], buffer).map_err(|e| e.to_string())?);
        }
        let mut outputs = Vec::with_capacity(names.len());
        for (position, name) in names.iter().enumerate() {
            let data = match &made[position].dtype() {
                ValueType::Tensor {
                    ty: TensorElementType::Float32,
                    ..
                } => {
                    let tensor = made[position].try_extract_tensor::<f32>();
                    tensor.map_err(|e| e.to_string())?.1
                }
                _ => &converted[position],
            };
            outputs.push(Output {
                name,
                shape: &shapes[position],
                data,
            });
        }
        visit(&outputs);
        Ok(())
    }
}

fn infer<'s>(
    session: &'s mut ort::session::Session,
    spec: &ImageInput,
    batch: usize,
    input: &[f32],
    halves: &mut Vec<f16>,
    bytes: &mut Vec<u8>,
) -> ort::Result<SessionOutputs<'s>> {
    let shape = spec.shape(batch);
    let name = spec.name.as_str();
    match spec.element {
        Element::F32 => {
            let tensor = TensorRef::from_array_view((shape, input))?;
            session.run(ort::inputs![name => tensor])
        }
        Element::F16 => {
            to_f16(input, halves);
            let tensor = TensorRef::from_array_view((shape, &halves[..]))?;
            session.run(ort::inputs![name => tensor])
        }
        Element::U8 => {
            to_u8(input, bytes);
            let tensor = TensorRef::from_array_view((shape, &bytes[..]))?;
            session.run(ort::inputs![name => tensor])
        }
    }
}

/// An output's shape; its elements go to `buffer` as f32 unless they are f32 already.
fn convert(value: &DynValue, buffer: &mut Vec<f32>) -> ort::Result<Vec<usize>> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(ort::Error::new(
            "an output is a sequence or a map, not a tensor",
        ));
    };
    buffer.clear();
    macro_rules! copy {
        ($type:ty, $convert:expr) => {
            buffer.extend(value.try_extract_tensor::<$type>()?.1.iter().map($convert))
        };
    }
    match ty {
        TensorElementType::Float32 => {}
        TensorElementType::Float16 => copy!(f16, |v| v.to_f32()),
        TensorElementType::Float64 => copy!(f64, |&v| v as f32),
        TensorElementType::Int64 => copy!(i64, |&v| v as f32),
        TensorElementType::Int32 => copy!(i32, |&v| v as f32),
        TensorElementType::Uint8 => copy!(u8, |&v| f32::from(v)),
        other => {
            return Err(ort::Error::new(format!(
                "an output has elements of type {other}"
            )));
        }
    }
    let length = |&n: &i64| usize::try_from(n).unwrap_or(0);
    Ok(shape.iter().map(length).collect())
}

impl Session for OrtSession {
    fn run(&mut self, batch: usize, input: &[f32]) -> Result<Outputs, RuntimeError> {
        let mut kept = Vec::new();
        self.run_with(batch, input, &mut |outputs| kept = copied(outputs))?;
        Ok(kept)
    }

    fn run_with(
        &mut self,
        batch: usize,
        input: &[f32],
        visit: &mut dyn FnMut(&[Output]),
    ) -> Result<(), RuntimeError> {
        self.runner.input.check_len(&self.path, batch, input)?;
        self.run_in_pieces(batch, input, visit)
            .map_err(|reason| RuntimeError::Run {
                path: self.path.clone(),
                backend: Backend::OnnxRuntime,
                reason,
            })
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn backend(&self) -> Backend {
        Backend::OnnxRuntime
    }

    fn status(&self) -> Status {
        self.status.clone()
    }
}
