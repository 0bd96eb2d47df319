//! Crops to unit vectors.

use std::path::{Path, PathBuf};

use super::file::OnnxFile;
use super::{RuntimeConfig, RuntimeError, Session, open_described};
use crate::card::{ModelCard, OutputSpec};
use crate::distance;
use crate::picture::Pixels;
use crate::preprocess::{PixelBox, Preprocess};

/// Pictures that are run at once: bounds memory, and more gains nothing on a processor.
const MAX_BATCH: usize = 32;

/// An opened embedding model with its preprocessing.
pub struct Embedder {
    path: PathBuf,
    card: ModelCard,
    width: usize,
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
        let session = open_described(path, &file, &card, config)?;
        Ok(Embedder {
            path: path.to_path_buf(),
            width,
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
            let first = embeddings.len();
            embeddings.extend(self.run(chunk.len(), &buffer, first)?);
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
            let first = embeddings.len();
            embeddings.extend(self.run(chunk.len() / len, chunk, first)?);
        }
        Ok(embeddings)
    }

    /// One run of the session; `first` is the number of its first picture, for errors.
    fn run(
        &mut self,
        batch: usize,
        input: &[f32],
        first: usize,
    ) -> Result<Vec<Vec<f32>>, RuntimeError> {
        let wrong = |path: &Path, reason| RuntimeError::Output {
            path: path.to_path_buf(),
            reason,
        };
        let mut outputs = self.session.run(batch, input)?;
        if self.output >= outputs.len() {
            let reason = format!(
                "{} outputs came back, not {}",
                outputs.len(),
                self.output + 1
            );
            return Err(wrong(&self.path, reason));
        }
        let (name, tensor) = outputs.swap_remove(self.output);
        // (batch, width), or the same with trailing axes of length 1.
        let flat: usize = tensor.shape.iter().skip(1).product();
        if tensor.shape.first() != Some(&batch) || flat != self.width {
            let reason = format!(
                "output `{name}` has shape {:?}, the card says {batch} vectors of width {}",
                tensor.shape, self.width
            );
            return Err(wrong(&self.path, reason));
        }
        tensor
            .data
            .chunks_exact(self.width)
            .enumerate()
            .map(|(row, vector)| {
                let mut vector = vector.to_vec();
                distance::normalize(&mut vector).map_err(|source| RuntimeError::NotFinite {
                    path: self.path.clone(),
                    picture: first + row,
                    source,
                })?;
                Ok(vector)
            })
            .collect()
    }
}
