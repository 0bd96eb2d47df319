//! What can go wrong, with the file and the remedy.

use std::path::PathBuf;

use reid_models::card::CardError;
use reid_models::files::FileError;
use reid_models::graph::GraphError;
use reid_models::probe::{MIN_COSINE_FP32, ProbeError};
use reid_models::runtime::{Backend, OnnxFileError, RuntimeError};
use reid_models::weights::WeightsError;

/// A model that was not exported, verified, inspected or adopted.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The run folder lacks a file.
    #[error(
        "{path} is missing: --run must be a folder that `reid-train fit --out` wrote, and {file} is written {when}"
    )]
    RunFile {
        /// The missing file.
        path: PathBuf,
        /// Its name.
        file: &'static str,
        /// When the trainer writes it.
        when: &'static str,
    },
    /// `graph.json` is not a usable graph.
    #[error("{path}: {source}")]
    Graph {
        /// File.
        path: PathBuf,
        /// Why.
        source: GraphError,
    },
    /// Graph and weights do not belong together.
    #[error("{weights} does not fit {graph}: {problems}")]
    Weights {
        /// Weights file.
        weights: PathBuf,
        /// Graph file.
        graph: PathBuf,
        /// Missing tensors and differing shapes.
        problems: String,
    },
    /// Card and the rest of the run do not belong together.
    #[error(
        "{path}: {key} is {got}, but {other}: the run folder was changed after training, evaluate or train it again"
    )]
    CardDiffers {
        /// Card.
        path: PathBuf,
        /// Key.
        key: &'static str,
        /// Value in the card.
        got: String,
        /// What it should be, and by which file.
        other: String,
    },
    /// A value that ONNX cannot hold or that makes no sense.
    #[error("{0}")]
    Value(String),
    /// The written file gave other embeddings than the trainer. It is not kept.
    #[error(
        "{path} was not kept: {backend} gives embeddings whose worst cosine with the trainer's is {min_cosine} (largest difference {max_abs}), wanted at least {MIN_COSINE_FP32}"
    )]
    NotTheSame {
        /// Wanted file.
        path: PathBuf,
        /// Engine.
        backend: Backend,
        /// Worst cosine.
        min_cosine: f32,
        /// Largest difference.
        max_abs: f32,
    },
    /// The file has nothing to be compared with.
    #[error(
        "{path} carries no probe, so there is nothing to verify: only files written by `reid-export onnx` carry one"
    )]
    NoProbe {
        /// File.
        path: PathBuf,
    },
    /// A file that carries its card needs no other.
    #[error(
        "{path} carries its own card (see `reid-export inspect {path}`): only files made by others are adopted"
    )]
    HasCard {
        /// File.
        path: PathBuf,
    },
    /// The file leaves open what a card must say.
    #[error("{path}: {reason}")]
    Adopt {
        /// File.
        path: PathBuf,
        /// What is missing or wrong, with the option that says it.
        reason: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A weights file is broken.
    #[error(transparent)]
    WeightsFile(#[from] WeightsError),
    /// A probe file is broken.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A card is missing or broken.
    #[error(transparent)]
    Card(#[from] CardError),
    /// A file is no ONNX file.
    #[error(transparent)]
    Onnx(#[from] OnnxFileError),
    /// A model cannot be opened or run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
