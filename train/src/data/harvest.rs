//! Crops that the edge harvested from cameras: Market-style names and `crops.jsonl`, one object per crop with `file`
//! (relative to the folder), `camera`, `tracklet`, `time`.
//!
//! Nobody labelled them: identities in the names are ignored. The camera comes from the file name, else from the line.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use super::DataError;
use super::dataset::{Dataset, Sample, Splits, UNKNOWN};
use super::market1501::parse_name;
use super::spec::Kind;

const LAYOUT: &str = "harvest expects crops.jsonl with one line {\"file\", \"camera\", \"tracklet\", \"time\"} per crop, as \
                      `reid-edge harvest` writes; without it, use folder:DIR";

#[derive(Deserialize)]
struct Line {
    file: String,
    #[serde(default)]
    camera: Option<Name>,
    #[serde(default)]
    tracklet: Option<Name>,
    #[serde(default)]
    time: Option<serde_json::Value>,
}

/// Cameras and tracklets are numbers or names.
#[derive(Clone, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(untagged)]
enum Name {
    Number(u64),
    Text(String),
}

/// Numbers for names, in the order they appear; a number stays itself.
#[derive(Default)]
struct Numbers(BTreeMap<String, u64>);

impl Numbers {
    fn of(&mut self, name: &Name) -> u64 {
        match name {
            Name::Number(number) => *number,
            Name::Text(text) => {
                let next = self.0.len() as u64;
                *self.0.entry(text.clone()).or_insert(next)
            }
        }
    }
}

pub(super) fn load(dir: &Path) -> Result<Dataset, DataError> {
    let list = dir.join("crops.jsonl");
    if !list.is_file() {
        return Err(DataError::Malformed {
            path: list,
            reason: format!("no such file; {LAYOUT}"),
        });
    }
    let bytes = std::fs::read(&list).map_err(|source| DataError::Read {
        path: list.clone(),
        source,
    })?;
    let malformed = |number: usize, reason: String| DataError::Malformed {
        path: list.clone(),
        reason: format!("line {number}: {reason}; {LAYOUT}"),
    };
    let mut notes = Vec::new();
    let (mut cameras, mut tracklets) = (Numbers::default(), Numbers::default());
    let mut train = Vec::new();
    let mut gone = 0;
    for (n, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let whole = line.ends_with(b"\n");
        if line.trim_ascii().is_empty() {
            continue;
        }
        let line: Line = match serde_json::from_slice(line) {
            Ok(line) => line,
            // The edge was stopped while writing: the crop itself may be half there as well.
            Err(_) if !whole => {
                notes.push("the last line of crops.jsonl is cut short and left out".into());
                continue;
            }
            Err(e) => return Err(malformed(n + 1, e.to_string())),
        };
        let file = Path::new(&line.file);
        if !file
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
        {
            return Err(malformed(
                n + 1,
                format!("{:?} is not a path inside the folder", line.file),
            ));
        }
        let path = dir.join(file);
        if !path.is_file() {
            gone += 1;
            continue;
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let camera = match (parse_name(&name), &line.camera) {
            (Some((_, camera)), _) => camera,
            (None, Some(camera)) => u32::try_from(cameras.of(camera))
                .map_err(|_| malformed(n + 1, "the camera's number is out of range".into()))?,
            (None, None) => {
                return Err(malformed(
                    n + 1,
                    format!("neither the name {name:?} nor the line says which camera"),
                ));
            }
        };
        train.push(Sample {
            path,
            pid: UNKNOWN,
            camera,
            tracklet: line.tracklet.as_ref().map(|t| tracklets.of(t)),
            time: line.time.as_ref().and_then(serde_json::Value::as_f64),
        });
    }
    if gone > 0 {
        notes.push(format!(
            "{gone} crops listed in crops.jsonl are not there and left out"
        ));
    }
    if train.is_empty() {
        return Err(DataError::Empty {
            path: dir.to_path_buf(),
            expected: LAYOUT.into(),
        });
    }
    train.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Dataset::new(
        Kind::Harvest,
        Splits {
            train,
            notes,
            ..Splits::default()
        },
    ))
}
