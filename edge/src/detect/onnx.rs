//! Any ONNX file whose card says `task = detect`: pictures in, people out.
//!
//! A detector keeps nothing from frame to frame, so its frames may come from any cameras in any order, several at once.
//! It has no lock: whoever wants to detect on several threads opens one for each.

use std::path::{Path, PathBuf};

use reid_models::card::{Decode, InputSpec, ModelCard, OutputSpec};
use reid_models::card::{decode::Misfit, head::Head};
use reid_models::preprocess::{Letterbox, Preprocess};
use reid_models::runtime::file::{Axis, TensorInfo};
use reid_models::runtime::{self, OnnxFile, RuntimeConfig, RuntimeError, Session, Tensor};

use super::decode::{self, Candidate, Unreadable, Wanted};
use super::{DetectError, place};
use crate::config::DetectorConfig;
use crate::types::{Detection, Frame};

/// What is wanted of a file beyond what its card says.
#[derive(Clone, Debug)]
pub struct OnnxOptions {
    /// Detections below are dropped, 0..1.
    pub score: f32,
    /// Of two boxes overlapping by more than this IoU, the weaker is dropped, 0..1. Not where the file gives one box a
    /// person anyway ([`Decode::EndToEnd`]).
    pub nms: f32,
    /// Lower boxes are dropped, pixels of the frame.
    pub min_height: f32,
    /// Classes that count as a person, as the file counts them; `None`: the card's. All of them mean the same afterwards
    /// and compete for a place.
    pub classes: Option<Vec<usize>>,
    /// Engine.
    pub runtime: RuntimeConfig,
}

impl From<&DetectorConfig> for OnnxOptions {
    fn from(config: &DetectorConfig) -> Self {
        OnnxOptions {
            score: config.score,
            nms: config.nms,
            min_height: config.min_height,
            classes: config.classes.clone(),
            runtime: config.runtime(),
        }
    }
}

/// One session of a detection model.
pub struct OnnxDetector {
    model: PathBuf,
    card: ModelCard,
    decode: Decode,
    tensor: Option<String>,
    head: Head,
    /// The file's own description of its outputs.
    outputs: Vec<TensorInfo>,
    session: Box<dyn Session>,
    preprocess: Preprocess,
    classes: Vec<usize>,
    score: f32,
    iou: Option<f32>,
    min_height: f32,
    /// Pictures of a run where their number of boxes varies: then batches cannot be joined, and the file gets as many as
    /// it takes at a time. `None`: all at once.
    piece: Option<usize>,
    input: Vec<f32>,
    placed: Vec<(Letterbox, (usize, usize))>,
    found: Vec<Candidate>,
}

impl OnnxDetector {
    /// Opens a file by its card.
    ///
    /// # Errors
    /// If there is no card, it describes something else, its `decode` doesn't fit the file's outputs, a class isn't among
    /// the file's, or the engine refuses the file.
    pub fn open(model: &Path, options: &OnnxOptions) -> Result<Self, DetectError> {
        let unsuitable = |reason: String| DetectError::Unsuitable {
            model: model.to_path_buf(),
            reason,
        };
        let file = OnnxFile::read(model).map_err(RuntimeError::from)?;
        let card = file.card(model)?;
        let (decode, tensor, person_class) = described(&card).map_err(unsuitable)?;
        let head = decode
            .head(&file.outputs, tensor.as_deref(), size(&card.input))
            .map_err(|reason| unsuitable(misfit(&reason, model)))?;
        let (key, classes) = match &options.classes {
            Some(classes) => ("detector.classes", classes.clone()),
            None => ("the card's output.person_class", vec![person_class]),
        };
        if classes.is_empty() {
            return Err(unsuitable(format!(
                "{key} is empty: name at least one class, or leave the key out to take the card's"
            )));
        }
        if let Some(n) = head.classes
            && let Some(class) = classes.iter().find(|&&c| c >= n)
        {
            return Err(unsuitable(format!(
                "{key} names class {class}, but the file tells {n} apart, numbered from 0"
            )));
        }
        let own_batch = match file.inputs.first().and_then(|i| i.shape.as_ref()?.first()) {
            Some(Axis::Fixed(n)) => Some(*n),
            _ => card.input.fixed_batch,
        };
        if decode == Decode::Torchvision && own_batch.is_some_and(|n| n > 1) {
            return Err(unsuitable(
                "its boxes say nothing of which picture they belong to, and it takes several: export it for one picture at a time".into(),
            ));
        }
        let preprocess = Preprocess::new(&card.input);
        Ok(OnnxDetector {
            model: model.to_path_buf(),
            session: runtime::open(model, &card, &options.runtime)?,
            outputs: file.outputs,
            piece: (!head.fixed_rows).then(|| own_batch.unwrap_or(1)),
            preprocess,
            classes,
            score: options.score,
            iou: (decode != Decode::EndToEnd).then_some(options.nms),
            min_height: options.min_height,
            decode,
            tensor,
            head,
            card,
            input: Vec::new(),
            placed: Vec::new(),
            found: Vec::new(),
        })
    }

    /// The people in each of some frames, of any cameras, in the frames' order; boxes inside the frame, best first.
    ///
    /// # Errors
    /// If the model fails, answers in another shape than its card says, or gives NaN.
    pub fn detect(&mut self, frames: &[&Frame]) -> Result<Vec<Vec<Detection>>, DetectError> {
        let mut all = Vec::with_capacity(frames.len());
        if frames.is_empty() {
            return Ok(all);
        }
        let piece = self.piece.unwrap_or(frames.len());
        for frames in frames.chunks(piece) {
            self.run(frames, piece, &mut all)?;
        }
        Ok(all)
    }

    /// What the runtime says of itself now.
    pub fn status(&self) -> runtime::Status {
        self.session.status()
    }

    /// The file's card.
    pub fn card(&self) -> &ModelCard {
        &self.card
    }

    /// Model, file and engine, for people.
    pub fn description(&self) -> String {
        format!(
            "{} ({}): {}",
            self.card.name,
            // The name alone: descriptions reach the live page, folders are nobody's business there.
            self.model
                .file_name()
                .unwrap_or(self.model.as_os_str())
                .display(),
            self.session.description()
        )
    }

    /// One run of the model over `batch` pictures, the last of which may be filled in.
    fn run(
        &mut self,
        frames: &[&Frame],
        batch: usize,
        all: &mut Vec<Vec<Detection>>,
    ) -> Result<(), DetectError> {
        let len = self.preprocess.tensor_len();
        self.input.resize(batch * len, 0.0);
        self.placed.clear();
        for (frame, tensor) in frames.iter().zip(self.input.chunks_exact_mut(len)) {
            self.placed.push(fit(&mut self.preprocess, frame, tensor)?);
        }
        for index in frames.len()..batch {
            self.input.copy_within(0..len, index * len);
        }
        let outputs = self.session.run(batch, &self.input)?;
        let read: Vec<&Tensor> = self
            .head
            .outputs
            .iter()
            .filter_map(|&index| Some(&outputs.get(index)?.1))
            .collect();
        let wanted = Wanted {
            classes: &self.classes,
            score: self.score,
        };
        let size = size(&self.card.input);
        for (picture, (letterbox, frame)) in self.placed.iter().enumerate() {
            self.found.clear();
            decode::read(
                self.decode,
                &read,
                picture,
                batch,
                size,
                &wanted,
                &mut self.found,
            )
            .map_err(|why| match why {
                Unreadable::NotFinite => DetectError::NotFinite {
                    model: self.model.clone(),
                },
                Unreadable::Shape => self.other_shape(&outputs, batch),
            })?;
            for candidate in &mut self.found {
                candidate.class = 0;
            }
            all.push(place::detections(
                &mut self.found,
                self.iou,
                letterbox,
                *frame,
                self.min_height,
            ));
        }
        Ok(())
    }

    /// The error for outputs that are not what the file and its card had promised.
    fn other_shape(&self, outputs: &[(String, Tensor)], batch: usize) -> DetectError {
        let seen: Vec<TensorInfo> = outputs
            .iter()
            .zip(&self.outputs)
            .map(|((name, tensor), declared)| TensorInfo {
                name: name.clone(),
                element: declared.element,
                shape: Some(tensor.shape.iter().map(|&n| Axis::Fixed(n)).collect()),
            })
            .collect();
        let reason = match self
            .decode
            .head(&seen, self.tensor.as_deref(), size(&self.card.input))
        {
            Err(reason) => misfit(&reason, &self.model),
            Ok(_) => {
                let shapes: Vec<String> = seen
                    .iter()
                    .map(|o| format!("`{}` {}", o.name, o.shape_text()))
                    .collect();
                format!(
                    "for {batch} pictures it gave {}: the first axis is not the batch; export it with a fixed batch of 1",
                    shapes.join(", ")
                )
            }
        };
        DetectError::Unsuitable {
            model: self.model.clone(),
            reason,
        }
    }
}

/// A frame as the model's input: where its picture lies in it, and how large the frame is (width, height).
fn fit(
    preprocess: &mut Preprocess,
    frame: &Frame,
    tensor: &mut [f32],
) -> Result<(Letterbox, (usize, usize)), DetectError> {
    let letterbox = preprocess.run_into(&*frame.picture, None, tensor)?;
    Ok((letterbox, frame.picture.size()))
}

/// (height, width).
fn size(input: &InputSpec) -> (usize, usize) {
    (input.height, input.width)
}

fn described(card: &ModelCard) -> Result<(Decode, Option<String>, usize), String> {
    match &card.output {
        OutputSpec::Detect {
            tensor,
            decode,
            person_class,
        } => Ok((*decode, tensor.clone(), *person_class)),
        OutputSpec::Embed { .. } => Err(
            "its card says it embeds crops: name it under [embedder], and a detector here".into(),
        ),
        OutputSpec::Pose { .. } => Err("its card says it estimates poses: name a detector".into()),
    }
}

fn misfit(reason: &Misfit, model: &Path) -> String {
    format!(
        "{reason}; if its card is wrong, write it anew: reid-export adopt {} --task detect --decode ...",
        model.display()
    )
}
