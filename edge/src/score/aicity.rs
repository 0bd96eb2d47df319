//! Truth of the AI City Challenge (multi-camera people tracking 2023 and 2024, PhysicalAI SmartSpaces):
//! `camera_id obj_id frame_id xmin ymin width height xworld yworld`, frames from 0, people shared by cameras. Their places
//! in the world are not scored.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::path::Path;

use super::Row;
use super::lines::{ANY, BoxFileError, for_each_line, number, size, whole};

const WANTED: &str = "camera_id obj_id frame_id xmin ymin width height xworld yworld, with spaces between them, \
     frame_id from 0, camera_id a whole number or the name of a configured camera";

const REMEDY: &str = "let the name of every camera end in its camera_id (camera_0003), or give every camera a file of its \
     own (CAMERA/ground_truth.txt)";

/// The first column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum CameraId {
    Number(u64),
    Name(String),
}

impl fmt::Display for CameraId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CameraId::Number(number) => number.fmt(f),
            CameraId::Name(name) => name.fmt(f),
        }
    }
}

/// Reads the file of one camera; what it calls the camera does not matter, as long as it is one.
///
/// # Errors
/// [`BoxFileError`] naming file and line.
pub(super) fn read_camera(path: &Path, cameras: &[String]) -> Result<Vec<Row>, BoxFileError> {
    let mut only: Option<CameraId> = None;
    let rows = read(path, cameras, |id| match &only {
        Some(first) if first != id => Err(format!(
            "camera_id {id} after {first}, in the file of one camera"
        )),
        Some(_) => Ok(()),
        None => {
            only = Some(id.clone());
            Ok(())
        }
    })?;
    Ok(rows.into_values().next().unwrap_or_default())
}

/// Reads the file of all cameras; rows of cameras that are not configured are left out.
///
/// Which camera_id is which camera is said by the first of these that fits:
/// 1. name: every configured name is a camera_id;
/// 2. number: every configured name ends in a number of its own (`camera_0003` in 3), and all of them are camera_ids;
/// 3. order: no configured name ends in a number, and there are as many cameras as camera_ids, all of them numbers: the
///    lowest is the first camera.
///
/// # Errors
/// [`BoxFileError`] naming file and line, or what is ambiguous about the cameras: a guess would score cameras against the
/// truth of others.
pub(super) fn read_all(path: &Path, cameras: &[String]) -> Result<Vec<Vec<Row>>, BoxFileError> {
    let mut rows = read(path, cameras, |_| Ok(()))?;
    let ids: BTreeSet<CameraId> = rows.keys().cloned().collect();
    let chosen = choose(&ids, cameras).map_err(|reason| BoxFileError::Cameras {
        path: path.to_path_buf(),
        ids: list(&ids),
        names: list(cameras),
        reason,
        remedy: REMEDY,
    })?;
    Ok(chosen
        .iter()
        .map(|id| rows.remove(id).unwrap_or_default())
        .collect())
}

/// The camera_id of every camera, or why that cannot be said.
fn choose(ids: &BTreeSet<CameraId>, cameras: &[String]) -> Result<Vec<CameraId>, String> {
    let named: Vec<CameraId> = cameras.iter().cloned().map(CameraId::Name).collect();
    if named.iter().all(|id| ids.contains(id)) {
        return Ok(named);
    }
    let numbers: Vec<Option<u64>> = cameras.iter().map(|name| trailing_number(name)).collect();
    let numbered: Vec<CameraId> = numbers
        .iter()
        .flatten()
        .map(|n| CameraId::Number(*n))
        .collect();
    if numbered.len() == cameras.len() {
        for (i, id) in numbered.iter().enumerate() {
            if let Some(j) = numbered[..i].iter().position(|other| other == id) {
                let (a, b) = (&cameras[j], &cameras[i]);
                return Err(format!("{a} and {b} end in the same number"));
            }
            if !ids.contains(id) {
                let camera = &cameras[i];
                return Err(format!(
                    "{camera} would be camera_id {id}, which has no rows"
                ));
            }
        }
        return Ok(numbered);
    }
    if let Some(i) = numbers.iter().position(Option::is_some) {
        return Err(format!(
            "{} ends in a number, but not every name does",
            cameras[i]
        ));
    }
    if let Some(name) = ids.iter().find(|id| matches!(id, CameraId::Name(_))) {
        return Err(format!("{name} is there by name, but not every camera is"));
    }
    if ids.len() != cameras.len() {
        let (ids, cameras) = (ids.len(), cameras.len());
        return Err(format!(
            "no name ends in a number, and {cameras} cameras are not {ids} camera_ids"
        ));
    }
    Ok(ids.iter().cloned().collect())
}

fn trailing_number(name: &str) -> Option<u64> {
    let digits = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    name[digits..].parse().ok()
}

fn list<T: fmt::Display>(all: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = all.into_iter().map(|one| one.to_string()).collect();
    match all.as_slice() {
        [] => "(none)".into(),
        _ => all.join(", "),
    }
}

fn read(
    path: &Path,
    cameras: &[String],
    mut check: impl FnMut(&CameraId) -> Result<(), String>,
) -> Result<BTreeMap<CameraId, Vec<Row>>, BoxFileError> {
    let mut rows: BTreeMap<CameraId, (Vec<Row>, HashSet<(u64, i64)>)> = BTreeMap::new();
    for_each_line(path, WANTED, |line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [camera, numbers @ ..] = columns.as_slice() else {
            return Ok(());
        };
        if columns.len() != 9 {
            return Err(format!("{} columns", columns.len()));
        }
        let camera = match camera.parse() {
            Ok(number) => CameraId::Number(number),
            Err(_) if cameras.iter().any(|name| name == camera) => {
                CameraId::Name((*camera).to_owned())
            }
            Err(_) => return Err(format!("camera_id `{camera}`")),
        };
        check(&camera)?;
        let numbers = numbers
            .iter()
            .map(|text| number(text))
            .collect::<Result<Vec<f64>, String>>()?;
        size(numbers[4], numbers[5])?;
        let row = Row {
            frame: whole("frame_id", numbers[1], 0.0)?.unsigned_abs() + 1,
            id: whole("obj_id", numbers[0], ANY)?,
            left: numbers[2],
            top: numbers[3],
            width: numbers[4],
            height: numbers[5],
            confidence: 1.0,
        };
        let (rows, seen) = rows.entry(camera).or_default();
        if !seen.insert((row.frame, row.id)) {
            let (person, frame) = (row.id, row.frame - 1);
            return Err(format!(
                "a second box of person {person} in frame {frame} of this camera"
            ));
        }
        rows.push(row);
        Ok(())
    })?;
    Ok(rows.into_iter().map(|(id, (rows, _))| (id, rows)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Lefts of the boxes that each camera gets from a file with one box for each of these ids, at 10 times its place.
    fn lefts(ids: &[&str], cameras: &[&str]) -> Result<Vec<f64>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ground_truth.txt");
        let text: String = ids
            .iter()
            .enumerate()
            .map(|(i, id)| format!("{id} 7 0 {}0 20 30 60 1.5 -2.25\n", i))
            .collect();
        std::fs::write(&path, text).unwrap();
        let all = read_all(&path, &names(cameras)).map_err(|e| e.to_string())?;
        assert!(all.iter().flatten().all(|r| (r.frame, r.id) == (1, 7)));
        Ok(all.iter().map(|rows| rows[0].left).collect())
    }

    #[test]
    fn cameras_are_known_by_name_by_number_or_by_order() {
        for (ids, cameras, want) in [
            (
                &["hall", "door"][..],
                &["door", "hall"][..],
                &[10.0, 0.0][..],
            ),
            (
                &["3", "1", "2"],
                &["camera_0001", "camera_0003"],
                &[10.0, 0.0],
            ),
            (&["0003", "1"], &["1", "3"], &[10.0, 0.0]),
            (&["12", "5"], &["door", "hall"], &[10.0, 0.0]),
            (&["5"], &["door"], &[0.0]),
        ] {
            assert_eq!(lefts(ids, cameras).unwrap(), want, "{ids:?} {cameras:?}");
        }
        for (ids, cameras, word) in [
            (
                &["0", "1"][..],
                &["cam1", "cam2"][..],
                "cam2 would be camera_id 2",
            ),
            (
                &["1", "2"],
                &["east-1", "west-1"],
                "east-1 and west-1 end in the same number",
            ),
            (&["1", "2"], &["door", "cam2"], "cam2 ends in a number, but"),
            (
                &["1", "2", "3"],
                &["door", "hall"],
                "2 cameras are not 3 camera_ids",
            ),
            (&["door", "2"], &["door", "hall"], "door is there by name"),
            (&[], &["door"], "(none)"),
        ] {
            let error = lefts(ids, cameras).unwrap_err();
            let told = ["ground_truth.txt", word, "let the name of every camera"];
            assert!(told.iter().all(|w| error.contains(w)), "{error}");
        }
    }

    #[test]
    fn a_malformed_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ground_truth.txt");
        for (line, word) in [
            ("1 1 1 0 0 5 5 0", "8 columns"),
            ("1,1,1,0,0,5,5,0,0", "1 columns"),
            ("x 1 1 0 0 5 5 0 0", "camera_id `x`"),
            ("1 1.5 1 0 0 5 5 0 0", "obj_id 1.5 is not a whole number"),
            (
                "1 1 -1 0 0 5 5 0 0",
                "frame_id -1 is not a whole number from 0 on",
            ),
            ("1 1 1 0 y 5 5 0 0", "`y` is not a number"),
            ("1 1 1 0 0 -5 5 0 0", "width -5"),
            ("1 1 1 0 0 5 5 inf 0", "`inf`"),
            ("1 1 0 3 0 5 5 0 0", "a second box of person 1 in frame 0"),
        ] {
            std::fs::write(&path, format!("1 1 0 0 0 5 5 0 0\n{line}\n")).unwrap();
            let error = read_all(&path, &names(&["door"])).unwrap_err().to_string();
            let told = [
                "ground_truth.txt line 2",
                word,
                "wanted camera_id obj_id frame_id",
            ];
            assert!(told.iter().all(|w| error.contains(w)), "{error}");
        }
        std::fs::write(&path, "1 1 0 0 0 5 5 0 0\n2 1 0 0 0 5 5 0 0\n").unwrap();
        let error = read_camera(&path, &names(&["door"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 2: camera_id 2 after 1"), "{error}");
    }
}
