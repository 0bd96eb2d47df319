//! What can go wrong with a gallery.

use std::path::PathBuf;

use crate::types::IdentityId;

/// A gallery that cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum GalleryError {
    /// The operator's: a key of `[gallery]` has an impossible value.
    #[error("gallery.{key} = {value}: {remedy}")]
    Config {
        /// Key in `[gallery]`.
        key: &'static str,
        /// The value found.
        value: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// The file cannot be made, opened or written.
    #[error(
        "gallery {path}: cannot open or write it ({reason}); give gallery.path a file in a folder this user may write to"
    )]
    Access {
        /// Database file.
        path: PathBuf,
        /// SQLite's words.
        reason: String,
    },
    /// The file is not a database, or a damaged one.
    #[error(
        "gallery {path}: not a usable gallery ({reason}); restore a copy of it, or move the file away to start an empty one"
    )]
    Corrupt {
        /// Database file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The disk has no room: nothing of the refused change was kept.
    #[error(
        "gallery {path}: the disk is full; the last change was not kept, free some space and start again"
    )]
    Full {
        /// Database file.
        path: PathBuf,
    },
    /// Another process holds the database.
    #[error(
        "gallery {path}: another process is using it; stop that one or give gallery.path another file"
    )]
    Busy {
        /// Database file.
        path: PathBuf,
    },
    /// The embeddings inside were made by another model.
    #[error(
        "gallery {path} holds embeddings of model {found}, but the model in use is {wanted}: they cannot be compared. \
         Give gallery.path another file, move this one away, or go back to the model it was made with"
    )]
    OtherModel {
        /// Database file.
        path: PathBuf,
        /// Fingerprint (and width) in the gallery.
        found: String,
        /// Fingerprint (and width) of the model in use.
        wanted: String,
    },
    /// The file was written by another version of this program.
    #[error(
        "gallery {path}: layout version {found}, this program reads {wanted}; use the program that wrote it or another gallery.path"
    )]
    Version {
        /// Database file.
        path: PathBuf,
        /// Version in the file.
        found: i64,
        /// Version understood.
        wanted: i64,
    },
    /// The embedding has another width than the gallery.
    #[error(
        "embedding of width {found}, but this gallery holds width {wanted}: was it made by another model?"
    )]
    Width {
        /// Width given.
        found: usize,
        /// Width of the gallery.
        wanted: usize,
    },
    /// The embedding has a NaN, an infinity, or no direction.
    #[error("embedding refused: {reason}")]
    NotAnEmbedding {
        /// What is wrong with it.
        reason: String,
    },
    /// No such identity.
    #[error("no identity {0} in this gallery")]
    Unknown(IdentityId),
    /// Rows were left after an erasure, which must never happen.
    #[error("gallery {path}: {rows} rows still mention {identity} after forgetting it")]
    NotForgotten {
        /// Database file.
        path: PathBuf,
        /// Identity that should be gone.
        identity: IdentityId,
        /// Rows found.
        rows: usize,
    },
    /// Anything else SQLite says.
    #[error("gallery {path}: {reason}")]
    Sqlite {
        /// Database file.
        path: PathBuf,
        /// SQLite's words.
        reason: String,
    },
}
