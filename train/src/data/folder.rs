//! Any tree of pictures: what people have lying about.
//!
//! A picture directly in the folder has no identity; the subfolder a picture lies in is one, whatever it is called. The
//! camera comes from a Market-style file name, else it is 0. Everything is for training.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::DataError;
use super::dataset::{Dataset, Sample, Splits, UNKNOWN};
use super::listing::walk;
use super::market1501::parse_name;
use super::spec::Kind;

pub(super) fn load(dir: &Path) -> Result<Dataset, DataError> {
    let mut files = Vec::new();
    walk(dir, 0, &mut files)?;
    if files.is_empty() {
        return Err(DataError::Empty {
            path: dir.to_path_buf(),
            expected: "folder expects .jpg, .jpeg or .png files, in subfolders by identity if they are labelled".into(),
        });
    }
    // Identities count from 1: 0 means distractor.
    let mut identities: BTreeMap<PathBuf, i64> = BTreeMap::new();
    for file in &files {
        identities.insert(file.parent().unwrap_or(dir).to_path_buf(), UNKNOWN);
    }
    for (number, (_, pid)) in identities
        .iter_mut()
        .filter(|(folder, _)| *folder != dir)
        .enumerate()
    {
        *pid = number as i64 + 1;
    }
    let train = files
        .into_iter()
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let camera = parse_name(&name).map_or(0, |(_, camera)| camera);
            let pid = path.parent().and_then(|p| identities.get(p)).copied();
            Sample {
                pid: pid.unwrap_or(UNKNOWN),
                camera,
                tracklet: None,
                time: None,
                path,
            }
        })
        .collect();
    Ok(Dataset::new(
        Kind::Folder,
        Splits {
            train,
            ..Splits::default()
        },
    ))
}
