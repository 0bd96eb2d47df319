//! Files of features from anywhere (`.npz`).
//!
//! Arrays: `query`, `gallery` (f32 or f64, one row per image), `query_pids`, `gallery_pids`, `query_cams`, `gallery_cams`
//! (integers). Protocols that need more arrays say so in [`super::command`].

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use npyz::npz::{NpzArchive, NpzWriter};
use npyz::{NpyFile, Order, WriterBuilder};
use reid_models::files;

use super::error::EvalError;
use super::labels::{Embeddings, Labels};
use crate::capacity;

/// One side of the comparison, owned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureSet {
    /// Row-major features.
    pub features: Vec<f32>,
    /// Columns.
    pub width: usize,
    /// Identity per row; -1 is junk.
    pub pids: Vec<i64>,
    /// Camera per row.
    pub cameras: Vec<i64>,
}

impl FeatureSet {
    /// As the evaluation takes it.
    pub fn embeddings(&self) -> Embeddings<'_> {
        Embeddings {
            features: &self.features,
            width: self.width,
            labels: Labels {
                pids: &self.pids,
                cameras: &self.cameras,
            },
        }
    }
}

/// What a `.npz` file of features holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureFile {
    /// Queries.
    pub query: FeatureSet,
    /// Gallery.
    pub gallery: FeatureSet,
}

impl FeatureFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`EvalError::Io`] or [`EvalError::File`], naming file, array and what is expected.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let mut reader = Reader::open(path)?;
        Ok(FeatureFile {
            query: reader.set("query", "query")?,
            gallery: reader.set("gallery", "gallery")?,
        })
    }

    /// Writes a file that [`FeatureFile::read`] and numpy read, atomically.
    ///
    /// # Errors
    /// [`EvalError::Io`] naming the file.
    pub fn write(&self, path: &Path) -> Result<(), EvalError> {
        self.write_with(path, &[])
    }

    /// As [`FeatureFile::write`], with more arrays of integers by name, such as `query_tracklets`.
    ///
    /// # Errors
    /// As [`FeatureFile::write`].
    pub fn write_with(&self, path: &Path, more: &[(&str, &[i64])]) -> Result<(), EvalError> {
        Ok(files::write_atomic_with(path, |file| {
            let mut archive = NpzWriter::new(io::BufWriter::new(file));
            for (name, set) in [("query", &self.query), ("gallery", &self.gallery)] {
                let rows = set.pids.len() as u64;
                let mut writer = archive
                    .array(name, Default::default())?
                    .default_dtype()
                    .shape(&[rows, set.width as u64])
                    .begin_nd()?;
                writer.extend(set.features.iter())?;
                writer.finish()?;
                for (key, values) in [("pids", &set.pids), ("cams", &set.cameras)] {
                    let mut writer = archive
                        .array(&format!("{name}_{key}"), Default::default())?
                        .default_dtype()
                        .shape(&[rows])
                        .begin_nd()?;
                    writer.extend(values.iter())?;
                    writer.finish()?;
                }
            }
            for (name, values) in more {
                let mut writer = archive
                    .array(name, Default::default())?
                    .default_dtype()
                    .shape(&[values.len() as u64])
                    .begin_nd()?;
                writer.extend(values.iter())?;
                writer.finish()?;
            }
            archive.zip_writer().finish().map_err(io::Error::other)?;
            Ok(())
        })?)
    }
}

/// Arrays of a `.npz` file, one at a time.
pub struct Reader {
    path: PathBuf,
    archive: Archive,
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`EvalError::Io`] or [`EvalError::File`] naming the file.
    pub fn open(path: &Path) -> Result<Self, EvalError> {
        let file = File::open(path).map_err(|source| files::FileError {
            action: "cannot read",
            path: path.to_path_buf(),
            source,
        })?;
        let archive = NpzArchive::new(BufReader::new(file)).map_err(|e| EvalError::File {
            path: path.to_path_buf(),
            reason: format!("not a .npz file ({e}); write one with numpy.savez"),
        })?;
        Ok(Reader {
            path: path.to_path_buf(),
            archive,
        })
    }

    /// A matrix `array` with labels `PREFIX_pids` and `PREFIX_cams`, one of each per row.
    ///
    /// # Errors
    /// [`EvalError::File`] naming file, array and what is expected.
    pub fn set(&mut self, array: &str, prefix: &str) -> Result<FeatureSet, EvalError> {
        let (features, width) =
            matrix(&mut self.archive, array).map_err(|reason| self.bad(reason))?;
        let (pids, cameras) = self.labels(prefix)?;
        let rows = features.len() / width;
        for (key, len) in [("pids", pids.len()), ("cams", cameras.len())] {
            if len != rows {
                return Err(self.bad(format!(
                    "{array} has {rows} rows but {prefix}_{key} has {len} values"
                )));
            }
        }
        Ok(FeatureSet {
            features,
            width,
            pids,
            cameras,
        })
    }

    /// Persons `PREFIX_pids` and cameras `PREFIX_cams`.
    ///
    /// # Errors
    /// As [`Reader::set`].
    pub fn labels(&mut self, prefix: &str) -> Result<(Vec<i64>, Vec<i64>), EvalError> {
        Ok((
            self.integers(&format!("{prefix}_pids"))?,
            self.integers(&format!("{prefix}_cams"))?,
        ))
    }

    /// One integer per image.
    ///
    /// # Errors
    /// As [`Reader::set`].
    pub fn integers(&mut self, array: &str) -> Result<Vec<i64>, EvalError> {
        integers(&mut self.archive, array).map_err(|reason| self.bad(reason))
    }

    fn bad(&self, reason: String) -> EvalError {
        EvalError::File {
            path: self.path.clone(),
            reason,
        }
    }
}

type Archive = NpzArchive<BufReader<File>>;

fn open<'a>(
    archive: &'a mut Archive,
    name: &str,
) -> Result<NpyFile<impl io::Read + use<'a>>, String> {
    let mut names: Vec<String> = archive.array_names().map(String::from).collect();
    names.sort();
    match archive.by_name(name) {
        Ok(Some(array)) => Ok(array),
        Ok(None) => Err(format!(
            "no array {name:?}; the file has {} (see `reid-train rank --help` for what is needed)",
            names.join(", ")
        )),
        Err(e) => Err(format!("array {name:?} is damaged: {e}")),
    }
}

fn matrix(archive: &mut Archive, name: &str) -> Result<(Vec<f32>, usize), String> {
    let array = open(archive, name)?;
    let [rows, width] = array.shape()[..] else {
        return Err(format!(
            "array {name:?} must be a matrix, one row per image, got shape {:?}",
            array.shape()
        ));
    };
    if rows == 0 || width == 0 {
        return Err(format!("array {name:?} is empty ({rows} x {width})"));
    }
    let (order, kind) = (array.order(), array.dtype().descr());
    let damaged = |e: io::Error| format!("array {name:?} is damaged: {e}");
    let count = rows.saturating_mul(width) as usize;
    // In Fortran's order it exists twice.
    let copies = if order == Order::C { 1 } else { 2 };
    capacity::require(
        &format!("the {rows} x {width} features {name:?}"),
        capacity::bytes(count, 1, 4 * copies),
        "evaluate fewer images, or end other programs",
    )
    .map_err(|e| e.to_string())?;
    let data: Vec<f32> = match array.try_data::<f32>() {
        Ok(values) => capacity::gather(values, count).map_err(damaged)?,
        Err(array) => match array.try_data::<f64>() {
            Ok(values) => {
                let values = values.map(|v| v.map(|v| v as f32));
                capacity::gather(values, count).map_err(damaged)?
            }
            Err(_) => {
                return Err(format!(
                    "array {name:?} must be float32 or float64, got {kind}"
                ));
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
    Ok((data, width))
}

fn integers(archive: &mut Archive, name: &str) -> Result<Vec<i64>, String> {
    let array = open(archive, name)?;
    if array.shape().len() != 1 {
        return Err(format!(
            "array {name:?} must have one value per image, got shape {:?}",
            array.shape()
        ));
    }
    let kind = array.dtype().descr();
    let damaged = |e: io::Error| format!("array {name:?} is damaged: {e}");
    let array = match array.try_data::<i64>() {
        Ok(values) => return values.collect::<io::Result<_>>().map_err(damaged),
        Err(array) => array,
    };
    let array = match array.try_data::<i32>() {
        Ok(values) => {
            return values
                .map(|v| v.map(i64::from))
                .collect::<io::Result<_>>()
                .map_err(damaged);
        }
        Err(array) => array,
    };
    match array.try_data::<u8>() {
        Ok(values) => values
            .map(|v| v.map(i64::from))
            .collect::<io::Result<_>>()
            .map_err(damaged),
        Err(_) => Err(format!(
            "array {name:?} must hold int64, int32 or uint8 values, got {kind}"
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file() -> FeatureFile {
        let set = |pids: &[i64], cameras: &[i64], features: &[f32]| FeatureSet {
            features: features.to_vec(),
            width: 2,
            pids: pids.to_vec(),
            cameras: cameras.to_vec(),
        };
        FeatureFile {
            query: set(&[1], &[1], &[1.0, 0.0]),
            gallery: set(&[1, 2], &[2, 2], &[0.9, 0.1, 0.0, 1.0]),
        }
    }

    #[test]
    fn a_written_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.npz");
        file().write(&path).unwrap();
        assert_eq!(FeatureFile::read(&path).unwrap(), file());
    }

    #[test]
    fn bad_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.npz");
        let message = |path: &Path| FeatureFile::read(path).unwrap_err().to_string();
        assert!(message(&path).contains("f.npz"));
        std::fs::write(&path, b"PK but no zip").unwrap();
        assert!(message(&path).contains("numpy.savez"), "{}", message(&path));
        let mut short = file();
        short.gallery.cameras.pop();
        // One camera too few: the writer is told the true length, so the file itself is sound.
        let written = short.write(&path);
        assert!(written.is_err(), "a row count that doesn't fit is refused");

        let mut archive = NpzWriter::new(File::create(&path).unwrap());
        let mut w = archive
            .array("query", Default::default())
            .unwrap()
            .default_dtype()
            .shape(&[1, 2])
            .begin_nd()
            .unwrap();
        w.extend([1f32, 0.0].iter()).unwrap();
        w.finish().unwrap();
        archive.zip_writer().finish().unwrap();
        drop(archive);
        let text = message(&path);
        assert!(
            text.contains("\"query_pids\"") && text.contains("the file has query"),
            "{text}"
        );
    }
}
