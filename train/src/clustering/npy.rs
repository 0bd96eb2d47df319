//! NumPy `.npy` files: a matrix of features and frame numbers in, labels out.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use npyz::{NpyFile, Order, WriterBuilder};
use reid_models::files;

use super::ClusterError;
use crate::capacity;

/// A row-major matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Values, row by row.
    pub data: Vec<f32>,
    /// Columns.
    pub width: usize,
}

impl Matrix {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.width
    }
}

fn bad(path: &Path, reason: String) -> ClusterError {
    ClusterError::File {
        path: path.to_path_buf(),
        reason,
    }
}

/// The array, and the length of its file where that is known.
fn open(path: &Path) -> Result<(NpyFile<BufReader<File>>, Option<u64>), ClusterError> {
    let file = File::open(path).map_err(|source| files::FileError {
        action: "cannot read",
        path: path.to_path_buf(),
        source,
    })?;
    let length = file.metadata().ok().map(|m| m.len());
    let array = NpyFile::new(BufReader::new(file)).map_err(|e| {
        bad(
            path,
            format!("not a .npy file ({e}); write one with numpy.save"),
        )
    })?;
    Ok((array, length))
}

/// Reads a two-dimensional array of f32 or f64 in either memory order.
///
/// # Errors
/// [`ClusterError::Io`] if the file can't be opened, [`ClusterError::File`] saying what it holds instead.
pub fn read_matrix(path: &Path) -> Result<Matrix, ClusterError> {
    let bad = |reason: String| bad(path, reason);
    let (array, length) = open(path)?;
    let [rows, width] = array.shape()[..] else {
        return Err(bad(format!(
            "expected a matrix of features, one row per image, got an array of shape {:?}",
            array.shape()
        )));
    };
    let (order, kind) = (array.order(), array.dtype().descr());
    if width == 0 || rows == 0 {
        return Err(bad(format!("the matrix is empty ({rows} x {width})")));
    }
    let truncated = |e: io::Error| bad(format!("the file is cut short or damaged: {e}"));
    // In Fortran's order it exists twice. A header that promises more than the file has is told by reading.
    let copies = if order == Order::C { 1 } else { 2 };
    let (count, size) = (rows.saturating_mul(width) as usize, 4 * copies);
    let present = length.map_or(count, |bytes| count.min(bytes as usize / 4));
    capacity::require(
        &format!("the {rows} x {width} features"),
        capacity::bytes(present, 1, size),
        "give fewer images, or end other programs",
    )
    .map_err(|e| bad(e.to_string()))?;
    let data: Vec<f32> = match array.try_data::<f32>() {
        Ok(values) => capacity::gather(values, present).map_err(truncated)?,
        Err(array) => match array.try_data::<f64>() {
            Ok(values) => {
                let values = values.map(|v| v.map(|v| v as f32));
                capacity::gather(values, present).map_err(truncated)?
            }
            Err(_) => {
                return Err(bad(format!(
                    "expected float32 or float64 values, got {kind}; convert with .astype(\"float32\")"
                )));
            }
        },
    };
    let (rows, width) = (rows as usize, width as usize);
    let data = match order {
        Order::C => data,
        Order::Fortran => (0..rows * width)
            .map(|i| data[i % width * rows + i / width])
            .collect(),
    };
    Ok(Matrix { data, width })
}

/// Reads frame numbers: a one-dimensional array of i64 or i32, one per image, -1 for an image of no frame.
///
/// # Errors
/// [`ClusterError::Io`] if the file can't be opened, [`ClusterError::File`] saying what it holds instead.
pub fn read_frames(path: &Path) -> Result<Vec<Option<u64>>, ClusterError> {
    let bad = |reason: String| bad(path, reason);
    let (array, _) = open(path)?;
    if array.shape().len() != 1 {
        return Err(bad(format!(
            "expected one frame number per image, got an array of shape {:?}",
            array.shape()
        )));
    }
    let kind = array.dtype().descr();
    let truncated = |e: io::Error| bad(format!("the file is cut short or damaged: {e}"));
    let numbers: Vec<i64> = match array.try_data::<i64>() {
        Ok(values) => values.collect::<io::Result<_>>().map_err(truncated)?,
        Err(array) => match array.try_data::<i32>() {
            Ok(values) => values
                .map(|v| v.map(i64::from))
                .collect::<io::Result<_>>()
                .map_err(truncated)?,
            Err(_) => {
                return Err(bad(format!(
                    "expected int64 or int32 frame numbers, got {kind}; convert with .astype(\"int64\")"
                )));
            }
        },
    };
    numbers
        .iter()
        .enumerate()
        .map(|(image, &number)| match number {
            -1 => Ok(None),
            number => u64::try_from(number).map(Some).map_err(|_| {
                bad(format!(
                    "image {image} has the frame number {number}; they count from 0, and -1 is an image of no frame"
                ))
            }),
        })
        .collect()
}

/// Writes labels as a one-dimensional i64 array, atomically.
///
/// # Errors
/// [`ClusterError::Io`] naming the file.
pub fn write_labels(path: &Path, labels: &[i64]) -> Result<(), ClusterError> {
    let mut bytes = Vec::with_capacity(8 * labels.len() + 128);
    encode(labels, &mut bytes).map_err(|source| files::FileError {
        action: "cannot write",
        path: path.to_path_buf(),
        source,
    })?;
    Ok(files::write_atomic(path, &bytes)?)
}

/// Writes a row-major matrix of `width` columns, atomically.
///
/// # Errors
/// [`ClusterError::Io`] naming the file.
///
/// # Panics
/// If the values are no whole rows.
pub fn write_matrix(path: &Path, data: &[f32], width: usize) -> Result<(), ClusterError> {
    assert!(width > 0 && data.len().is_multiple_of(width), "whole rows");
    let write = |bytes: &mut Vec<u8>| -> io::Result<()> {
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&[(data.len() / width) as u64, width as u64])
            .writer(bytes)
            .begin_nd()?;
        writer.extend(data.iter())?;
        writer.finish()
    };
    let mut bytes = Vec::with_capacity(4 * data.len() + 128);
    write(&mut bytes).map_err(|source| files::FileError {
        action: "cannot write",
        path: path.to_path_buf(),
        source,
    })?;
    Ok(files::write_atomic(path, &bytes)?)
}

fn encode(labels: &[i64], bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&[labels.len() as u64])
        .writer(bytes)
        .begin_nd()?;
    writer.extend(labels.iter())?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn labels_survive_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.npy");
        write_labels(&path, &[3, -1, 0]).unwrap();
        let back: Vec<i64> = NpyFile::new(File::open(&path).unwrap())
            .unwrap()
            .into_vec()
            .unwrap();
        assert_eq!(back, [3, -1, 0]);
        let message = read_matrix(&path).unwrap_err().to_string();
        assert!(
            message.contains("labels.npy") && message.contains("[3]"),
            "{message}"
        );
    }

    #[test]
    fn both_orders_and_widths_of_float_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.npy");
        let write = |order, values: &[f64]| {
            let mut w = npyz::WriteOptions::new()
                .default_dtype()
                .shape(&[2, 3])
                .order(order)
                .writer(File::create(&path).unwrap())
                .begin_nd()
                .unwrap();
            w.extend(values.iter()).unwrap();
            w.finish().unwrap();
        };
        write(Order::C, &[1., 2., 3., 4., 5., 6.]);
        let c = read_matrix(&path).unwrap();
        assert_eq!(
            (c.data.as_slice(), c.width),
            ([1., 2., 3., 4., 5., 6.].as_slice(), 3)
        );
        write(Order::Fortran, &[1., 4., 2., 5., 3., 6.]);
        assert_eq!(read_matrix(&path).unwrap(), c);
    }

    #[test]
    fn a_bad_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("features.npy");
        let message = |path: &Path| read_matrix(path).unwrap_err().to_string();
        assert!(message(&path).contains("features.npy"));
        std::fs::write(&path, b"not an array").unwrap();
        assert!(message(&path).contains("numpy.save"), "{}", message(&path));
        let mut w = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&[4, 2])
            .writer(File::create(&path).unwrap())
            .begin_nd()
            .unwrap();
        w.extend([0f32; 8].iter()).unwrap();
        w.finish().unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 6]).unwrap();
        assert!(message(&path).contains("cut short"), "{}", message(&path));
    }
}
