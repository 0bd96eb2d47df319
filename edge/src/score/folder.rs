//! A folder of truth, by what lies in it.
//!
//! | file | format |
//! |---|---|
//! | `CAMERA.txt` | MOTChallenge |
//! | `CAMERA/gt/gt.txt`, with `CAMERA/seqinfo.ini` if there is one | MOTChallenge, as its sequences are published |
//! | `CAMERA/ground_truth.txt` | AI City, one camera |
//! | `ground_truth.txt` | AI City, all cameras |
//!
//! With one configured camera the folder may also be the sequence itself (`gt/gt.txt`). Cameras may have different
//! formats; none may have two.

use std::path::{Path, PathBuf};

use super::lines::BoxFileError;
use super::seqinfo::SequenceInfo;
use super::{Row, aicity, motchallenge};

/// What a file is.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    /// Its folder is `gt` of a sequence.
    Sequence,
    AiCity,
    AiCityOfAll,
}

/// Reads the truth of every camera, in the order of `cameras`; frames are counted from 1, people shared by cameras.
///
/// # Errors
/// [`BoxFileError`]: a folder or a camera without truth, a camera with two, a file that cannot be read, a line that is
/// malformed, AI City's numbers of cameras that fit the names in no way or in several.
pub fn read_truth_folder(dir: &Path, cameras: &[String]) -> Result<Vec<Vec<Row>>, BoxFileError> {
    if !dir.is_dir() {
        let names: Vec<String> = cameras.iter().map(|name| format!("{name}.txt")).collect();
        return Err(BoxFileError::NoFolder {
            dir: dir.to_path_buf(),
            wanted: format!(
                "{} (MOTChallenge), or ground_truth.txt (AI City)",
                names.join(", ")
            ),
        });
    }
    let sources = cameras
        .iter()
        .map(|camera| find(dir, camera, cameras.len()))
        .collect::<Result<Vec<_>, BoxFileError>>()?;
    // If one camera is in the file of all, so is every other: a file of its own would have been a second one.
    if let Some((_, all)) = sources.iter().find(|(k, _)| matches!(k, Kind::AiCityOfAll)) {
        return aicity::read_all(all, cameras);
    }
    sources
        .iter()
        .map(|(kind, path)| read(*kind, path, cameras))
        .collect()
}

fn find(dir: &Path, camera: &str, cameras: usize) -> Result<(Kind, PathBuf), BoxFileError> {
    let folder = dir.join(camera);
    let mut places = vec![
        (Kind::Plain, dir.join(format!("{camera}.txt"))),
        (Kind::Sequence, folder.join("gt").join("gt.txt")),
        (Kind::AiCity, folder.join("ground_truth.txt")),
        (Kind::AiCityOfAll, dir.join("ground_truth.txt")),
    ];
    if cameras == 1 {
        places.push((Kind::Sequence, dir.join("gt").join("gt.txt")));
    }
    let mut found = places.into_iter().filter(|(_, path)| path.is_file());
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (Some((_, first)), Some((_, second))) => Err(BoxFileError::Several {
            camera: camera.to_owned(),
            first,
            second,
        }),
        (None, _) => Err(BoxFileError::Missing {
            dir: dir.to_path_buf(),
            camera: camera.to_owned(),
            wanted: format!(
                "{camera}.txt or {camera}/gt/gt.txt (MOTChallenge), {camera}/ground_truth.txt or one ground_truth.txt for \
                 all cameras (AI City)"
            ),
        }),
    }
}

fn read(kind: Kind, path: &Path, cameras: &[String]) -> Result<Vec<Row>, BoxFileError> {
    match kind {
        Kind::Plain => motchallenge::read_truth(path),
        Kind::AiCity | Kind::AiCityOfAll => aicity::read_camera(path, cameras),
        Kind::Sequence => {
            let info = path
                .ancestors()
                .nth(2)
                .map(|sequence| sequence.join("seqinfo.ini"))
                .filter(|info| info.is_file())
                .map(|info| SequenceInfo::read(&info))
                .transpose()?;
            motchallenge::read_truth_of(path, info.and_then(|i| i.frames))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    fn write(dir: &Path, file: &str, text: &str) {
        let path = dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn wrong(dir: &Path, cameras: &[&str], words: &[&str]) {
        let error = read_truth_folder(dir, &names(cameras))
            .unwrap_err()
            .to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    }

    const MOT: &str = "3,7,10,20,30,60,1,1,1\n4,7,11,20,30,60,0,1,1\n";
    const CITY: &str = "1 7 2 10 20 30 60 0.5 0.5\n";

    #[test]
    fn every_layout_says_the_same() {
        let cameras = names(&["cam1", "cam2"]);
        for files in [
            &[("cam1.txt", MOT), ("cam2.txt", MOT)][..],
            &[
                ("cam1/gt/gt.txt", MOT),
                ("cam1/seqinfo.ini", "[Sequence]\nseqLength=3\n"),
                ("cam2/gt/gt.txt", MOT),
            ],
            &[
                ("cam1/ground_truth.txt", CITY),
                ("cam2/ground_truth.txt", CITY),
            ],
            &[(
                "ground_truth.txt",
                "2 7 2 10 20 30 60 0 0\n1 7 2 10 20 30 60 0 0\n",
            )],
            &[("cam1.txt", MOT), ("cam2/ground_truth.txt", CITY)],
            // What pandas and Windows write; the confidence of the 2015 format.
            &[
                (
                    "cam1.txt",
                    "\u{feff}3.0,7.0,10,20,30,60,-1,-1,-1,-1\r\n\r\n",
                ),
                ("cam2.txt", "3 7 10 20 30 60 1\n"),
            ],
        ] {
            let dir = tempfile::tempdir().unwrap();
            for (file, text) in files {
                write(dir.path(), file, text);
            }
            let truth = read_truth_folder(dir.path(), &cameras).unwrap();
            assert_eq!(truth.len(), 2);
            for rows in truth {
                let [row] = rows.as_slice() else {
                    panic!("{files:?}: {rows:?}");
                };
                assert_eq!((row.frame, row.id, row.left), (3, 7, 10.0), "{files:?}");
                assert_eq!((row.top, row.width, row.height), (20.0, 30.0, 60.0));
            }
        }
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "gt/gt.txt", MOT);
        let alone = read_truth_folder(dir.path(), &names(&["plaza"])).unwrap();
        assert_eq!(alone[0].len(), 1);
        wrong(
            dir.path(),
            &["plaza", "hall"],
            &["no truth of camera plaza"],
        );
    }

    #[test]
    fn nobody_is_truth_too_but_no_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "cam1.txt", MOT);
        wrong(
            dir.path(),
            &["cam1", "cam2"],
            &[
                "camera cam2",
                "cam2.txt",
                "cam2/gt/gt.txt",
                "ground_truth.txt",
                "an empty file",
            ],
        );
        write(dir.path(), "cam2.txt", "");
        let truth = read_truth_folder(dir.path(), &names(&["cam1", "cam2"])).unwrap();
        assert_eq!((truth[0].len(), truth[1].len()), (1, 0));
        wrong(
            &dir.path().join("none"),
            &["cam1"],
            &["none", "no such folder", "cam1.txt"],
        );
    }

    #[test]
    fn two_truths_of_a_camera_are_refused() {
        for second in [
            "cam1/gt/gt.txt",
            "cam1/ground_truth.txt",
            "ground_truth.txt",
        ] {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), "cam1.txt", MOT);
            write(dir.path(), second, CITY);
            wrong(dir.path(), &["cam1"], &["cam1.txt", second, "keep one"]);
        }
    }

    #[test]
    fn lines_that_cannot_be_are_named() {
        for (line, word) in [
            ("3,7,1,1,5,5,1,1,1", "a second box of person 7 in frame 3"),
            (
                "9,7,1,1,5,5,1,1,1",
                "frame 9 comes after the last one (seqLength=8",
            ),
            ("4,7,1,1,-5,5,1,1,1", "width -5"),
            ("4,7.5,1,1,5,5,1,1,1", "id 7.5 is not a whole number"),
            ("1 7 2 10 20 30 60 0 0", "ground_truth.txt"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            write(
                dir.path(),
                "cam1/gt/gt.txt",
                &format!("3,7,1,1,5,5,1,1,1\n{line}\n"),
            );
            write(dir.path(), "cam1/seqinfo.ini", "[Sequence]\nseqLength=8\n");
            wrong(
                dir.path(),
                &["cam1"],
                &["gt.txt line 2", word, "wanted frame,id,left"],
            );
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cam1.txt"), b"3,7,1,1,5,5,1\n\xff\xfe,1\n").unwrap();
        wrong(dir.path(), &["cam1"], &["cam1.txt line 2: no text"]);
    }
}
