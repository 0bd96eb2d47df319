//! MOTChallenge text: `frame,id,left,top,width,height,confidence,...`, frames from 1.
//!
//! Truth has `consider` (0 or 1) in the seventh column and the class (1 = pedestrian) in the eighth; rows that are not
//! to be considered or are no pedestrians are left out. Results have the confidence and fillers of -1 there.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use reid_models::files::{self, FileError};

use super::lines::{ANY, BoxFileError, for_each_line, number, size, whole};

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

const WANTED: &str = "frame,id,left,top,width,height,confidence[,class,visibility]";

/// Reads truth (`gt.txt`): considered pedestrians only, each with one box in a frame.
///
/// # Errors
/// [`BoxFileError`] naming file and line.
pub fn read_truth(path: &Path) -> Result<Vec<Row>, BoxFileError> {
    read_truth_of(path, None)
}

/// As [`read_truth`], of a sequence with as many frames as `frames` says.
pub(super) fn read_truth_of(path: &Path, frames: Option<u64>) -> Result<Vec<Row>, BoxFileError> {
    let mut rows = Vec::new();
    let mut seen = HashSet::new();
    for_each_line(path, WANTED, |line| {
        let columns = columns(line)?;
        // Nothing that is to be considered says so with a number of pixels.
        if columns.len() == 9 && !line.contains(',') && columns[6].abs() > 1.0 {
            return Err(
                "this looks like a line of AI City, whose files are named ground_truth.txt".into(),
            );
        }
        let row = row(&columns)?;
        // The class is -1 in files of the 2015 format, which knows pedestrians only; so may the confidence be.
        let class = columns.get(7).copied().unwrap_or(1.0);
        if row.confidence == 0.0 || (class != 1.0 && class != -1.0) {
            return Ok(());
        }
        size(row.width, row.height)?;
        if !seen.insert((row.frame, row.id)) {
            return Err(format!(
                "a second box of person {} in frame {}",
                row.id, row.frame
            ));
        }
        if let Some(frames) = frames
            && row.frame > frames
        {
            return Err(format!(
                "frame {} comes after the last one (seqLength={frames} in seqinfo.ini)",
                row.frame
            ));
        }
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}

/// Reads results: every row.
///
/// # Errors
/// [`BoxFileError`] naming file and line.
pub fn read_results(path: &Path) -> Result<Vec<Row>, BoxFileError> {
    let mut rows = Vec::new();
    for_each_line(path, WANTED, |line| {
        rows.push(row(&columns(line)?)?);
        Ok(())
    })?;
    Ok(rows)
}

fn columns(line: &str) -> Result<Vec<f64>, String> {
    line.split([',', ' ', '\t'])
        .filter(|c| !c.is_empty())
        .map(number)
        .collect()
}

fn row(columns: &[f64]) -> Result<Row, String> {
    let [frame, id, left, top, width, height, confidence, ..] = *columns else {
        return Err(format!("{} columns", columns.len()));
    };
    Ok(Row {
        frame: whole("frame", frame, 1.0)?.unsigned_abs(),
        id: whole("id", id, ANY)?,
        left,
        top,
        width,
        height,
        confidence,
    })
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
