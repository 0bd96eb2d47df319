//! Pictures in: data sets, samplers, augmentation, the parallel loader.
//!
//! [`dataset`] reads a [`spec`] such as `market1501:DIR` into lists of [`Sample`]s, one file per data set, and [`verdict`]
//! compares it with what was published; [`store`] keeps decoded pictures in
//! memory; [`sampler`] draws batches of P identities with K pictures each; [`augment`] makes a view of a picture; [`loader`]
//! puts it together on threads of its own, and [`corrupt`] says what becomes of pictures that cannot be read. Everything random follows from a seed and a position, never from a thread.

pub mod augment;
pub mod corrupt;
mod cuhk01;
mod cuhk03;
mod cuhk03_classic;
pub mod cuhk03_mat;
pub mod dataset;
mod dukemtmc;
mod folder;
mod harvest;
mod listing;
pub mod loader;
mod market1501;
mod mars;
mod mat5;
mod msmt17;
pub mod sampler;
pub mod spec;
pub mod store;
mod table;
pub mod verdict;

use std::path::PathBuf;

pub use augment::Augment;
pub use corrupt::Corrupt;
pub use dataset::{Dataset, Protocol, Sample};
pub use loader::{Batch, Batches, LoaderConfig, Plan};
pub use sampler::{PkSampler, Strategy};
pub use spec::{Kind, Spec};
pub use store::PictureStore;
pub use verdict::Verdict;

/// A data set that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The text is no `KIND[,OPTION...]:DIR`.
    #[error("data {spec}: {reason}; write one of {known}", known = spec::known())]
    Spec {
        /// What was given.
        spec: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A folder that isn't there.
    #[error("{path}: no such folder; {expected}")]
    Missing {
        /// Folder.
        path: PathBuf,
        /// What the layout expects.
        expected: String,
    },
    /// A file of the layout that isn't there.
    #[error("{path}: no such file; {expected}")]
    NoFile {
        /// File.
        path: PathBuf,
        /// What the layout expects.
        expected: String,
    },
    /// A file or folder that cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file whose name or line says nothing.
    #[error("{path}: {reason}")]
    Malformed {
        /// File.
        path: PathBuf,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// No pictures.
    #[error("{path}: no pictures; {expected}")]
    Empty {
        /// Folder.
        path: PathBuf,
        /// What the layout expects.
        expected: String,
    },
    /// A picture that cannot be decoded.
    #[error(transparent)]
    Picture(#[from] reid_models::preprocess::PreprocessError),
    /// A picture that cannot be fitted, with its file.
    #[error("{path}: {source}")]
    Fit {
        /// File.
        path: PathBuf,
        /// Why.
        source: reid_models::preprocess::PreprocessError,
    },
    /// More pictures that cannot be read than a run allows.
    #[error(
        "{count} pictures cannot be read, more than data.max_corrupt = {limit} allows: {files}; copy them again or remove \
         them, or allow more with data.max_corrupt"
    )]
    Corrupt {
        /// Different files so far.
        count: usize,
        /// How many are allowed.
        limit: usize,
        /// What is wrong with the first of them.
        files: String,
    },
    /// The data set has no identities, no test set or one camera only.
    #[error("{name} cannot be evaluated: {reason}")]
    NotEvaluable {
        /// Data set.
        name: String,
        /// Why, and what would do.
        reason: String,
    },
    /// The model takes tensors that the trainer doesn't make.
    #[error("training needs an input of layout nchw and element f32, the card says {got}")]
    Input {
        /// What the card says.
        got: String,
    },
    /// Too few identities for a batch.
    #[error(
        "{found} identities (or clusters) with pictures are not enough for a batch: contrast needs at least 2; \
             cluster with a larger eps or give more data"
    )]
    TooFewIdentities {
        /// How many there are.
        found: usize,
    },
    /// A loader thread ended without a word.
    #[error("a loader thread died while making batch {batch}")]
    Worker {
        /// Number of the batch.
        batch: usize,
    },
}
