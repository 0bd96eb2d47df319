//! What can be wrong with features, labels and files, in words.

use super::labels::Labels;
use crate::capacity::Shortage;

/// Something that cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// Array sizes disagree.
    #[error(
        "{set}: {features} values of width {width}, {pids} identities and {cameras} cameras don't belong together"
    )]
    Sizes {
        /// "query" or "gallery".
        set: &'static str,
        /// Values.
        features: usize,
        /// Columns.
        width: usize,
        /// Identities.
        pids: usize,
        /// Cameras.
        cameras: usize,
    },
    /// Query and gallery come from different models.
    #[error(
        "query features have {query} columns, gallery features {gallery}: they come from different models"
    )]
    Widths {
        /// Columns of the query.
        query: usize,
        /// Columns of the gallery.
        gallery: usize,
    },
    /// Nothing there.
    #[error("{set} is empty: nothing to evaluate")]
    Empty {
        /// "query" or "gallery".
        set: &'static str,
    },
    /// NaN or infinity.
    #[error(
        "{set}: the features of image {row} are not finite: the network diverged or the file is damaged"
    )]
    NotFinite {
        /// "query" or "gallery".
        set: &'static str,
        /// Row.
        row: usize,
    },
    /// Every query was skipped.
    #[error(
        "none of {queries} queries has an image of the same identity from another camera in the gallery ({cameras}): \
             the standard protocol needs people seen by at least two cameras"
    )]
    NoAnswers {
        /// Queries.
        queries: usize,
        /// The cameras there are, in words.
        cameras: String,
    },
    /// Boxes of several queries, or frames of a tracklet, that cannot be pooled.
    #[error("{what}: {reason}")]
    Pool {
        /// Which query or tracklet.
        what: String,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// No pair of a kind from different cameras.
    #[error(
        "there is no {kind} pair from two different cameras: open-set rates need people seen by at least two cameras, and \
             at least two people"
    )]
    NoPairs {
        /// "genuine" or "impostor".
        kind: &'static str,
    },
    /// A false-positive rate that so few pairs cannot show.
    #[error(
        "a false-positive rate of {rate} can't be measured on {impostors} impostor pairs: it must be below 1 and let at \
             least one pass (at least {least:.2e})",
        least = 1.0 / *impostors as f64
    )]
    Rate {
        /// What was asked for.
        rate: f64,
        /// Pairs there are.
        impostors: usize,
    },
    /// Options that don't go together.
    #[error("{option}: {reason}")]
    Option {
        /// As on the command line.
        option: &'static str,
        /// What is wrong with it, and what would do.
        reason: String,
    },
    /// More memory than there is.
    #[error(transparent)]
    Memory(#[from] Shortage),
    /// Neighbourhoods for re-ranking that cannot be made.
    #[error("re-ranking: {reason}")]
    Rerank {
        /// What is wrong with the features.
        reason: String,
    },
    /// A file of features, scores or pictures.
    #[error("{path}: {reason}")]
    File {
        /// File.
        path: std::path::PathBuf,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// A file that could not be read or written.
    #[error(transparent)]
    Io(#[from] reid_models::files::FileError),
}

pub(super) fn no_answers(query: &Labels, gallery: &Labels) -> EvalError {
    let mut cameras: Vec<i64> = query
        .cameras
        .iter()
        .chain(gallery.cameras)
        .copied()
        .collect();
    cameras.sort_unstable();
    cameras.dedup();
    let cameras = match cameras[..] {
        [one] => format!("all images are of camera {one}"),
        _ => format!("cameras {cameras:?}"),
    };
    EvalError::NoAnswers {
        queries: query.pids.len(),
        cameras,
    }
}
