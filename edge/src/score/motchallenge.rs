//! MOTChallenge text: `frame,id,left,top,width,height,confidence,...`, frames from 1.
//!
//! Truth has `consider` (0 or 1) in the seventh column and the class (1 = pedestrian) in the eighth; rows that are not
//! to be considered or are no pedestrians are left out. Results have the confidence and fillers of -1 there.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use reid_models::files::{self, FileError};

/// A box of a person in a frame of one camera.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// From 1.
    pub frame: u64,
    /// Who; shared by cameras.
    pub id: i64,
    /// Pixels.
    pub left: f64,
    /// Pixels.
    pub top: f64,
    /// Pixels.
    pub width: f64,
    /// Pixels.
    pub height: f64,
    /// 0..1.
    pub confidence: f64,
}

impl Row {
    /// Intersection over union, 0..1.
    pub fn iou(&self, other: &Row) -> f64 {
        let w = (self.left + self.width).min(other.left + other.width) - self.left.max(other.left);
        let h = (self.top + self.height).min(other.top + other.height) - self.top.max(other.top);
        let inter = w.max(0.0) * h.max(0.0);
        let union = self.width * self.height + other.width * other.height - inter;
        if union > 0.0 { inter / union } else { 0.0 }
    }
}

/// A file that cannot be read, or a line that is none of MOTChallenge's.
#[derive(Debug, thiserror::Error)]
pub enum MotError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line.
    #[error(
        "{path} line {line}: {reason}; wanted frame,id,left,top,width,height,confidence[,class,visibility]"
    )]
    Line {
        /// File.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// Reads truth (`gt.txt`): considered pedestrians only.
///
/// # Errors
/// [`MotError`] naming file and line.
pub fn read_truth(path: &Path) -> Result<Vec<Row>, MotError> {
    read(path, |columns| {
        // The class is -1 in files of the 2015 format, which knows pedestrians only.
        let class = columns.get(7).copied().unwrap_or(1.0);
        columns[6] != 0.0 && (class == 1.0 || class == -1.0)
    })
}

/// Reads results: every row.
///
/// # Errors
/// [`MotError`] naming file and line.
pub fn read_results(path: &Path) -> Result<Vec<Row>, MotError> {
    read(path, |_| true)
}

fn read(path: &Path, wanted: impl Fn(&[f64]) -> bool) -> Result<Vec<Row>, MotError> {
    let mut rows = Vec::new();
    for (number, line) in files::read_text(path)?.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let fail = |reason: String| MotError::Line {
            path: path.to_path_buf(),
            line: number + 1,
            reason,
        };
        let columns = line
            .split([',', ' '])
            .filter(|c| !c.is_empty())
            .map(|c| match c.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(value),
                _ => Err(fail(format!("`{c}` is not a number"))),
            })
            .collect::<Result<Vec<f64>, MotError>>()?;
        if columns.len() < 7 {
            return Err(fail(format!("{} columns", columns.len())));
        }
        if columns[0] < 1.0 || columns[0].fract() != 0.0 || columns[1].fract() != 0.0 {
            return Err(fail(format!(
                "frame {} and id {} must be whole numbers, frames from 1",
                columns[0], columns[1]
            )));
        }
        if wanted(&columns) {
            rows.push(Row {
                frame: columns[0] as u64,
                id: columns[1] as i64,
                left: columns[2],
                top: columns[3],
                width: columns[4],
                height: columns[5],
                confidence: columns[6],
            });
        }
    }
    Ok(rows)
}

/// Writes results, whole or not at all, sorted by frame, then id.
///
/// # Errors
/// [`FileError`] naming the file.
pub fn write_results(path: &Path, rows: &[Row]) -> Result<(), FileError> {
    let mut sorted: Vec<&Row> = rows.iter().collect();
    sorted.sort_by_key(|r| (r.frame, r.id));
    let mut text = String::with_capacity(rows.len() * 48);
    for r in sorted {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{},{},{:.2},{:.2},{:.2},{:.2},{:.3},-1,-1,-1",
            r.frame, r.id, r.left, r.top, r.width, r.height, r.confidence
        );
    }
    files::write_atomic(path, text.as_bytes())
}
