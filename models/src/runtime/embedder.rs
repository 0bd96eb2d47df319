//! Crops to unit vectors.

use std::path::{Path, PathBuf};

use super::file::{Axis, OnnxFile};
use super::{
    MAX_BATCH, Output, RuntimeConfig, RuntimeError, Session, Status, log_progress, open_described,
};
use crate::card::{ModelCard, OutputSpec};
use crate::distance;
use crate::picture::Pixels;
use crate::preprocess::{PixelBox, Preprocess};

/// An opened embedding model with its preprocessing.
pub struct Embedder {
    path: PathBuf,
    card: ModelCard,
    width: usize,
    fixed_batch: Option<usize>,
    /// Position of the embedding among the file's outputs.
    output: usize,
    preprocess: Preprocess,
    session: Box<dyn Session>,
    buffer: Vec<f32>,
}

impl Embedder {
    /// Opens a model with the card that it carries or that lies beside it.
    ///
    /// # Errors
    /// If there is no card, the card is not for the task `embed`, or [`open`](super::open) refuses.
    pub fn open(path: &Path, config: &RuntimeConfig) -> Result<Self, RuntimeError> {
        let file = OnnxFile::read(path)?;
        let card = file.card(path)?;
        let task = |got| RuntimeError::Task {
            path: path.to_path_buf(),
            got,
            want: "embed",
        };
        let (tensor, width) = match &card.output {
            OutputSpec::Embed { tensor, width, .. } => (tensor.clone(), *width),
            OutputSpec::Detect { .. } => return Err(task("detect")),
            OutputSpec::Pose { .. } => return Err(task("pose")),
        };
        let output = match tensor {
            None => 0,
            Some(name) => file
                .outputs
                .iter()
                .position(|o| o.name == name)
                .ok_or_else(|| {
                    let names: Vec<&str> = file.outputs.iter().map(|o| o.name.as_str()).collect();
                    RuntimeError::Output {
                        path: path.to_path_buf(),
                        reason: format!(
                            "the card's output.tensor `{name}` is not among the file's outputs ({})",
                            names.join(", ")
                        ),
                    }
                })?,
        };
        let session = open_described(path, &file, &card, config, &log_progress)?;
        Ok(Embedder {
            path: path.to_path_buf(),
            width,
            fixed_batch: match file.inputs.first().and_then(|i| i.shape.as_ref()?.first()) {
                Some(Axis::Fixed(n)) => Some(*n),
                _ => card.input.fixed_batch,
            },
            output,
            preprocess: Preprocess::new(&card.input),
            session,
            card,
            buffer: Vec::new(),
        })
    }

    /// The model's card.
    pub fn card(&self) -> &ModelCard {
        &self.card
    }

    /// Pictures that the file takes at a time, exactly; `None`: any number.
    pub fn fixed_batch(&self) -> Option<usize> {
        self.fixed_batch
    }

    /// Width of an embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Engine, its version, providers and threads, for people.
    pub fn description(&self) -> String {
        self.session.description()
    }

    /// The engine that runs the model.
    pub fn backend(&self) -> super::Backend {
        self.session.backend()
    }

    /// What the model runs on now.
    pub fn status(&self) -> Status {
        self.session.status()
    }

    /// Embeds crops of pictures, in order. The vectors have unit length; a model that gives zeros gives a zero vector,
    /// which is similar to nobody.
    ///
    /// # Errors
    /// If a crop has no area, the engine fails, or a vector isn't finite.
    pub fn embed(
        &mut self,
        crops: &[(Pixels, Option<PixelBox>)],
    ) -> Result<Vec<Vec<f32>>, RuntimeError> {
        let len = self.preprocess.tensor_len();
        let mut embeddings = Vec::with_capacity(crops.len());
        let mut buffer = std::mem::take(&mut self.buffer);
        for chunk in crops.chunks(MAX_BATCH) {
            buffer.resize(chunk.len() * len, 0.0);
            for ((picture, crop), tensor) in chunk.iter().zip(buffer.chunks_exact_mut(len)) {
                self.preprocess.run_into(*picture, *crop, tensor)?;
            }
            self.run(chunk.len(), &buffer, &mut embeddings)?;
        }
        self.buffer = buffer;
        Ok(embeddings)
    }

    /// Embeds `batch` pictures that are preprocessed already, laid one after the other.
    ///
    /// # Errors
    /// If `input` has another length, the engine fails, or a vector isn't finite.
    pub fn embed_tensor(
        &mut self,
        batch: usize,
        input: &[f32],
    ) -> Result<Vec<Vec<f32>>, RuntimeError> {
        let len = self.preprocess.tensor_len();
        if input.len() != batch * len {
            return Err(RuntimeError::InputLength {
                path: self.path.clone(),
                batch,
                got: input.len(),
                want: batch * len,
            });
        }
        let mut embeddings = Vec::with_capacity(batch);
        for chunk in input.chunks(MAX_BATCH * len) {
            self.run(chunk.len() / len, chunk, &mut embeddings)?;
        }
        Ok(embeddings)
    }

    /// One run of the session, appended to `embeddings`.
    fn run(
        &mut self,
        batch: usize,
        input: &[f32],
        embeddings: &mut Vec<Vec<f32>>,
    ) -> Result<(), RuntimeError> {
        let Embedder {
            path,
            width,
            output,
            session,
            ..
        } = self;
        let mut result = Ok(());
        session.run_with(batch, input, &mut |outputs| {
            result = take(path, *width, *output, batch, outputs, embeddings);
        })?;
        result
    }
}

/// Takes the embeddings out of one run's outputs and normalises them.
fn take(
    path: &Path,
    width: usize,
    position: usize,
    batch: usize,
    outputs: &[Output],
    embeddings: &mut Vec<Vec<f32>>,
) -> Result<(), RuntimeError> {
    let wrong = |reason| RuntimeError::Output {
        path: path.to_path_buf(),
        reason,
    };
    let Some(output) = outputs.get(position) else {
        return Err(wrong(format!(
            "{} outputs came back, not {}",
            outputs.len(),
            position + 1
        )));
    };
    // (batch, width), or the same with trailing axes of length 1.
    let flat: usize = output.shape.iter().skip(1).product();
    if output.shape.first() != Some(&batch) || flat != width {
        return Err(wrong(format!(
            "output `{}` has shape {:?}, the card says {batch} vectors of width {width}",
            output.name, output.shape
        )));
    }
    for row in output.data.chunks_exact(width) {
        let mut vector = row.to_vec();
        distance::normalize(&mut vector).map_err(|source| RuntimeError::NotFinite {
            path: path.to_path_buf(),
            picture: embeddings.len(),
            source,
        })?;
        embeddings.push(vector);
    }
    Ok(())
}
