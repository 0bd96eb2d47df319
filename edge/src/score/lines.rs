//! Reading text of boxes line by line, and what may be wrong with it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use reid_models::files::FileError;

/// Truth or results that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BoxFileError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line.
    #[error("{path} line {line}: {reason}; wanted {wanted}")]
    Line {
        /// File.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
        /// What a line must be.
        wanted: &'static str,
    },
    /// No folder of truth.
    #[error("{dir}: no such folder; wanted a folder with the truth of every camera: {wanted}")]
    NoFolder {
        /// The folder.
        dir: PathBuf,
        /// Files that would be read.
        wanted: String,
    },
    /// A camera without truth.
    #[error(
        "no truth of camera {camera} in {dir}: wanted {wanted} (an empty file says that nobody is seen there)"
    )]
    Missing {
        /// The folder.
        dir: PathBuf,
        /// Name of the camera.
        camera: String,
        /// Files that would be read.
        wanted: String,
    },
    /// More truth than one.
    #[error("{first} and {second} both hold truth of camera {camera}: keep one of them")]
    Several {
        /// Name of the camera.
        camera: String,
        /// A file.
        first: PathBuf,
        /// Another one.
        second: PathBuf,
    },
    /// Cameras of a file that cannot be told apart.
    #[error("{path} has cameras {ids}, the configuration {names}: {reason}; {remedy}")]
    Cameras {
        /// File.
        path: PathBuf,
        /// Camera ids in the file.
        ids: String,
        /// Names of the configured cameras.
        names: String,
        /// Why they do not fit.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// Hands every line that is not empty to `take`, trimmed; `wanted` says in errors what a line must be.
pub(super) fn for_each_line(
    path: &Path,
    wanted: &'static str,
    mut take: impl FnMut(&str) -> Result<(), String>,
) -> Result<(), BoxFileError> {
    let unreadable = |source| FileError {
        action: "cannot read",
        path: path.to_path_buf(),
        source,
    };
    let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut bytes = Vec::new();
    let mut number = 0;
    loop {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).map_err(unreadable)? == 0 {
            return Ok(());
        }
        number += 1;
        let taken = match std::str::from_utf8(&bytes) {
            // A byte order mark is what some editors of tables begin with.
            Ok(text) => match text.trim_start_matches('\u{feff}').trim() {
                "" => Ok(()),
                text => take(text),
            },
            Err(_) => Err("no text".to_owned()),
        };
        taken.map_err(|reason| BoxFileError::Line {
            path: path.to_path_buf(),
            line: number,
            reason,
            wanted,
        })?;
    }
}

/// A finite number.
pub(super) fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(format!("`{text}` is not a number")),
    }
}

/// A whole number of at least `least`, also written as 7.0; larger ones than an `f64` counts exactly are refused.
pub(super) fn whole(what: &str, value: f64, least: f64) -> Result<i64, String> {
    const MOST: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && (least..=MOST).contains(&value) {
        Ok(value as i64)
    } else if least >= 0.0 {
        Err(format!(
            "{what} {value} is not a whole number from {least} on"
        ))
    } else {
        Err(format!("{what} {value} is not a whole number"))
    }
}

/// Any whole number, for [`whole`].
pub(super) const ANY: f64 = -9_007_199_254_740_992.0;

/// Width and height that a box may have. A box without an area is legal and cannot be found.
pub(super) fn size(width: f64, height: f64) -> Result<(), String> {
    if width < 0.0 || height < 0.0 {
        return Err(format!("width {width} and height {height} are below 0"));
    }
    Ok(())
}
