//! Pictures and test sets out of CUHK03's `cuhk-03.mat`.
//!
//! The file is MATLAB's level 7.3, that is HDF5: `detected` and `labeled` are cell arrays of five camera pairs, each a cell
//! array of people x 10 pictures (1 to 5 of the pair's first camera, 6 to 10 of its second; absent ones empty); `testsets`
//! are 20 lists of (pair, person). MATLAB stores columns first, so every array has its axes reversed in HDF5: a picture is
//! (3, width, height). Cells are references into the group `#refs#`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use hdf5_reader::{Dataset, Hdf5File};
use image::{ImageFormat, Rgb, RgbImage};
use rayon::prelude::*;
use reid_models::files::write_atomic;

use super::DataError;
use super::cuhk03_classic::TESTSETS;

/// Pictures of one person; the first half is of the first camera.
const PICTURES: usize = 10;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// Pictures of the detector's boxes.
    pub detected: usize,
    /// Pictures of the boxes drawn by hand.
    pub labeled: usize,
    /// Test sets of the classic protocol.
    pub testsets: usize,
}

/// Writes `images_detected`, `images_labeled` (PNG) and `testsets.csv` into `dir` from `cuhk-03.mat` there or in
/// `cuhk03_release`. Pictures that are there already are kept, so that it may be interrupted.
///
/// # Errors
/// If there is no such file, it is another, or a picture can't be written.
pub fn extract(dir: &Path) -> Result<Extracted, DataError> {
    let candidates = ["cuhk-03.mat", "cuhk03_release/cuhk-03.mat"].map(|f| dir.join(f));
    let Some(path) = candidates.iter().find(|p| p.is_file()) else {
        return Err(DataError::NoFile {
            path: candidates[0].clone(),
            expected:
                "--extract takes pictures from cuhk-03.mat, which lies there or in cuhk03_release"
                    .into(),
        });
    };
    let file = Mat73::open(path)?;
    let detected = file.pictures("detected", &dir.join("images_detected"))?;
    let labeled = file.pictures("labeled", &dir.join("images_labeled"))?;
    let mut csv = String::from("split,pair,person\n");
    let sets = file.cells(&file.variable("testsets")?)?;
    for (split, set) in sets.iter().enumerate() {
        for (pair, person) in file.pairs(set)? {
            csv += &format!("{split},{pair},{person}\n");
        }
    }
    write(&dir.join(TESTSETS), csv.as_bytes())?;
    Ok(Extracted {
        detected,
        labeled,
        testsets: sets.len(),
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    write_atomic(path, bytes).map_err(|e| DataError::Read {
        path: path.to_path_buf(),
        source: std::io::Error::other(e.to_string()),
    })
}

struct Mat73 {
    path: PathBuf,
    file: Hdf5File,
    /// What cells refer to, by address.
    referred: HashMap<u64, Dataset>,
}

impl Mat73 {
    fn open(path: &Path) -> Result<Self, DataError> {
        let fail = |e: hdf5_reader::error::Error| DataError::Malformed {
            path: path.to_path_buf(),
            reason: format!("not the HDF5 (MATLAB 7.3) file of CUHK03: {e}"),
        };
        let file = Hdf5File::open(path).map_err(fail)?;
        let referred = file
            .group("/#refs#")
            .and_then(|group| group.datasets())
            .map_err(fail)?
            .into_iter()
            .map(|d| (d.address(), d))
            .collect();
        Ok(Mat73 {
            path: path.to_path_buf(),
            file,
            referred,
        })
    }

    fn malformed(&self, reason: impl ToString) -> DataError {
        DataError::Malformed {
            path: self.path.clone(),
            reason: reason.to_string(),
        }
    }

    fn variable(&self, name: &str) -> Result<Dataset, DataError> {
        self.file
            .dataset(name)
            .map_err(|e| self.malformed(format!("{name}: {e}")))
    }

    /// What a cell array refers to, in MATLAB's order (first index fastest).
    fn cells(&self, cells: &Dataset) -> Result<Vec<&Dataset>, DataError> {
        let bytes = cells.read_raw_bytes().map_err(|e| self.malformed(e))?;
        bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| {
                self.referred.get(&u64::from_le_bytes(*b)).ok_or_else(|| {
                    self.malformed(format!("{}: a cell refers to nothing", cells.name()))
                })
            })
            .collect()
    }

    /// Two columns of a small table of numbers.
    fn pairs(&self, table: &Dataset) -> Result<Vec<(u32, u32)>, DataError> {
        let values = table.read_array::<f64>().map_err(|e| self.malformed(e))?;
        let values: Vec<f64> = values.iter().copied().collect();
        if table.shape().first() != Some(&2) {
            return Err(self.malformed(format!(
                "a test set is {:?} in HDF5, expected (2, people)",
                table.shape()
            )));
        }
        let (pairs, people) = values.split_at(values.len() / 2);
        Ok(pairs
            .iter()
            .zip(people)
            .map(|(&pair, &person)| (pair as u32, person as u32))
            .collect())
    }

    /// Writes the pictures of `detected` or `labeled`; returns their number.
    fn pictures(&self, name: &str, folder: &Path) -> Result<usize, DataError> {
        fs::create_dir_all(folder).map_err(|source| DataError::Read {
            path: folder.to_path_buf(),
            source,
        })?;
        let mut jobs: Vec<(PathBuf, &Dataset)> = Vec::new();
        for (pair, camera_pair) in self.cells(&self.variable(name)?)?.into_iter().enumerate() {
            let &[PICTURES_U64, people] = camera_pair.shape() else {
                return Err(self.malformed(format!(
                    "{name}: pair {} is {:?} in HDF5, expected ({PICTURES}, people)",
                    pair + 1,
                    camera_pair.shape()
                )));
            };
            for (n, cell) in self.cells(camera_pair)?.into_iter().enumerate() {
                // An absent picture is an empty cell.
                if cell.shape().len() != 3 {
                    continue;
                }
                let (picture, person) = (n / people as usize, n % people as usize);
                let camera = 1 + picture / (PICTURES / 2);
                jobs.push((
                    folder.join(format!(
                        "{}_{:03}_{camera}_{:02}.png",
                        pair + 1,
                        person + 1,
                        picture + 1
                    )),
                    cell,
                ));
            }
        }
        jobs.par_iter().try_for_each(|(path, cell)| {
            if path.is_file() {
                return Ok(());
            }
            let mut png = std::io::Cursor::new(Vec::new());
            self.picture(cell)?
                .write_to(&mut png, ImageFormat::Png)
                .map_err(|e| self.malformed(e))?;
            write(path, png.get_ref())
        })?;
        Ok(jobs.len())
    }

    fn picture(&self, cell: &Dataset) -> Result<RgbImage, DataError> {
        let wrong = || {
            self.malformed(format!(
                "a picture is {:?} in HDF5, expected (3, width, height) bytes",
                cell.shape()
            ))
        };
        let &[3, width, height] = cell.shape() else {
            return Err(wrong());
        };
        // Crops are a few hundred pixels high.
        let side = |n: u64| u32::try_from(n).ok().filter(|n| (1..=4096).contains(n));
        let (Some(w), Some(h)) = (side(width), side(height)) else {
            return Err(wrong());
        };
        let bytes = cell.read_raw_bytes().map_err(|e| self.malformed(e))?;
        if bytes.len() != 3 * w as usize * h as usize {
            return Err(wrong());
        }
        let at = |c: usize, x: u32, y: u32| {
            bytes[(c * w as usize + x as usize) * h as usize + y as usize]
        };
        Ok(RgbImage::from_fn(w, h, |x, y| {
            Rgb([at(0, x, y), at(1, x, y), at(2, x, y)])
        }))
    }
}

const PICTURES_U64: u64 = PICTURES as u64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Made with h5py by `tests/golden_data/protocols.py`: two pairs with two and one people.
    #[test]
    fn pictures_and_test_sets_come_out_as_they_went_in() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_data/protocols");
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("cuhk03_release")).unwrap();
        fs::copy(
            golden.join("cuhk-03.mat"),
            dir.path().join("cuhk03_release/cuhk-03.mat"),
        )
        .unwrap();
        let expected = Extracted {
            detected: 4,
            labeled: 3,
            testsets: 2,
        };
        assert_eq!(extract(dir.path()).unwrap(), expected);
        let names = |folder: &str| -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(dir.path().join(folder))
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(
            names("images_detected"),
            [
                "1_001_1_01.png",
                "1_002_1_02.png",
                "1_002_2_10.png",
                "2_001_2_06.png"
            ]
        );
        let picture = image::open(dir.path().join("images_detected/1_002_2_10.png"))
            .unwrap()
            .to_rgb8();
        assert_eq!(picture.dimensions(), (3, 5));
        for (x, y, p) in picture.enumerate_pixels() {
            let (x, y) = (x as u8, y as u8);
            assert_eq!(p.0, [10 * y + x, 100 + 10 * y + x, 200 + 10 * y + x]);
        }
        assert_eq!(
            fs::read_to_string(dir.path().join(TESTSETS)).unwrap(),
            "split,pair,person\n0,1,2\n1,1,1\n1,2,1\n"
        );
        // Again: nothing is written anew.
        assert_eq!(extract(dir.path()).unwrap(), expected);
    }

    #[test]
    fn another_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let fail = || extract(dir.path()).unwrap_err().to_string();
        assert!(fail().contains("cuhk-03.mat: no such"), "{}", fail());
        fs::write(dir.path().join("cuhk-03.mat"), b"MATLAB 5.0 MAT-file").unwrap();
        assert!(fail().contains("7.3"), "{}", fail());
    }
}
