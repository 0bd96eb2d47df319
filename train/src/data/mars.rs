//! MARS (Zheng et al. 2016, "MARS: a video benchmark for large-scale person re-identification"): tracklets by 6 cameras.
//!
//! `bbox_train` and `bbox_test` hold `0001/0001C1T0001F001.jpg` (identity, camera, tracklet, frame); `info` lists the
//! frames (`train_name.txt`, `test_name.txt`) and the tracklets: rows of first frame, last frame (both from 1 and
//! inclusive), identity, camera in `tracks_train_info.mat` and `tracks_test_info.mat`, and in `query_IDX.mat` the rows of
//! the test tracklets (from 1) that are queries. Each table may also be text: the same name with `.txt` or `.csv`.
//!
//! 8,298 tracklets of 625 people to train on; 1,980 queries of 626 people; 9,330 in the gallery once junk (identity -1) is
//! left out. Fourteen queried people are in no gallery tracklet. That counts as torchreid does; the authors' own MATLAB
//! evaluation keeps the queries' tracklets in the gallery as well.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::DataError;
use super::dataset::{DISTRACTOR, Dataset, Protocol, Sample, Splits};
use super::listing::{Listing, read_text};
use super::spec::Kind;
use super::table::{integer, table};
use super::verdict::{Count, Published, Unit, count};

pub(super) const LAYOUT: &str = "mars expects bbox_train, bbox_test, info/train_name.txt, info/test_name.txt, info/tracks_train_info.mat, info/tracks_test_info.mat and info/query_IDX.mat (tables also as .txt or .csv)";

const PUBLISHED: Published = Published {
    name: "MARS",
    unit: Unit::Tracklets,
    train: count(8_298, 625),
    query: count(1_980, 626),
    gallery: Count {
        number: 9_330,
        identities: None,
    },
    cameras: 1..=6,
    answered: false,
};

pub(super) fn load(dir: &Path) -> Result<Dataset, DataError> {
    load_against(dir, &PUBLISHED)
}

fn load_against(dir: &Path, published: &Published) -> Result<Dataset, DataError> {
    let mut splits = Splits::default();
    let train = Half::read(dir, "train")?;
    let (samples, _) = train.samples(0..train.tracks.len(), &mut splits.missing)?;
    splits.train = samples;
    let test = Half::read(dir, "test")?;
    let queries = test.queries(dir)?;
    let (samples, junk_queries) = test.samples(queries.iter().copied(), &mut splits.missing)?;
    splits.query = samples;
    let rest = (0..test.tracks.len()).filter(|row| !queries.contains(row));
    let (samples, junk) = test.samples(rest, &mut splits.missing)?;
    splits.gallery = samples;
    if junk + junk_queries > 0 {
        splits.notes.push(format!(
            "{} junk tracklets (identity -1) left out",
            junk + junk_queries
        ));
    }
    if splits.train.is_empty() && splits.gallery.is_empty() {
        return Err(DataError::Empty {
            path: dir.to_path_buf(),
            expected: LAYOUT.into(),
        });
    }
    let verdict = published.judge(dir, &splits);
    Ok(Dataset::new(Kind::Mars, splits)
        .with_verdict(verdict)
        .with_protocol(Protocol::Tracklets))
}

/// A row of `tracks_*_info`: frames `first..=last` of the list (from 1) show `pid` by `camera`.
struct Track {
    first: usize,
    last: usize,
    pid: i64,
    camera: u32,
}

/// The training or the test half.
struct Half {
    names_file: PathBuf,
    names: Vec<String>,
    tracks_file: PathBuf,
    tracks: Vec<Track>,
    folder: PathBuf,
    listing: Listing,
}

impl Half {
    fn read(dir: &Path, half: &str) -> Result<Self, DataError> {
        let folder = dir.join(format!("bbox_{half}"));
        if !folder.is_dir() {
            return Err(DataError::Missing {
                path: folder,
                expected: LAYOUT.into(),
            });
        }
        let info = dir.join("info");
        let names_file = info.join(format!("{half}_name.txt"));
        let names: Vec<String> = read_text(&names_file, LAYOUT)?
            .lines()
            .map(|line| line.trim().to_string())
            .filter(|line| !line.is_empty())
            .collect();
        let (tracks_file, rows) = table(
            &info,
            &format!("tracks_{half}_info"),
            &format!("track_{half}_info"),
            4,
            LAYOUT,
        )?;
        let tracks = rows
            .iter()
            .enumerate()
            .map(|(n, row)| {
                track(row, names.len()).ok_or_else(|| DataError::Malformed {
                    path: tracks_file.clone(),
                    reason: format!(
                        "row {}: {row:?} is not first frame, last frame (1 to {}), identity, camera",
                        n + 1,
                        names.len()
                    ),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Half {
            names_file,
            names,
            tracks_file,
            tracks,
            listing: Listing::of(&folder)?,
            folder,
        })
    }

    /// Rows (from 0) of the queries.
    fn queries(&self, dir: &Path) -> Result<BTreeSet<usize>, DataError> {
        let (file, rows) = table(&dir.join("info"), "query_IDX", "query_IDX", 1, LAYOUT)?;
        rows.iter()
            .map(|row| {
                integer(row[0])
                    .and_then(|n| usize::try_from(n - 1).ok())
                    .filter(|n| *n < self.tracks.len())
                    .ok_or_else(|| DataError::Malformed {
                        path: file.clone(),
                        reason: format!(
                            "{} is no row of {} (1 to {})",
                            row[0],
                            self.tracks_file.display(),
                            self.tracks.len()
                        ),
                    })
            })
            .collect()
    }

    /// Frames of some tracklets, junk left out and counted.
    fn samples(
        &self,
        rows: impl IntoIterator<Item = usize>,
        missing: &mut Vec<PathBuf>,
    ) -> Result<(Vec<Sample>, usize), DataError> {
        let mut samples = Vec::new();
        let mut junk = 0;
        for row in rows {
            let track = &self.tracks[row];
            if track.pid < DISTRACTOR {
                junk += 1;
                continue;
            }
            for line in track.first - 1..track.last {
                let name = &self.names[line];
                if parse_name(name) != Some((track.pid, track.camera)) {
                    return Err(DataError::Malformed {
                        path: self.names_file.clone(),
                        reason: format!(
                            "line {}: {name:?} is not of identity {} and camera {}, as row {} of {} says; expected a name \
                             like 0001C1T0001F001.jpg",
                            line + 1,
                            track.pid,
                            track.camera,
                            row + 1,
                            self.tracks_file.display()
                        ),
                    });
                }
                let path = self.folder.join(&name[..4]).join(name);
                if !self.listing.has(&path) {
                    missing.push(path);
                    continue;
                }
                samples.push(Sample {
                    path,
                    pid: track.pid,
                    camera: track.camera,
                    tracklet: Some(row as u64 + 1),
                    time: None,
                });
            }
        }
        samples.sort_by(|a, b| a.path.cmp(&b.path));
        Ok((samples, junk))
    }
}

/// Identity and camera of `0001C1T0001F001.jpg`; junk is `00-1C...`. `None` also for anything that could leave the folder.
fn parse_name(name: &str) -> Option<(i64, u32)> {
    if !name.is_ascii() || name.contains(['/', '\\']) || name.as_bytes().get(4) != Some(&b'C') {
        return None;
    }
    let pid = name[..4].trim_start_matches('0');
    let pid = if pid.is_empty() { 0 } else { pid.parse().ok()? };
    Some((pid, name.get(5..6)?.parse().ok()?))
}

fn track(row: &[f64], frames: usize) -> Option<Track> {
    let whole: Vec<i64> = row.iter().map(|x| integer(*x)).collect::<Option<_>>()?;
    let &[first, last, pid, camera] = whole.as_slice() else {
        return None;
    };
    let (first, last) = (usize::try_from(first).ok()?, usize::try_from(last).ok()?);
    (1 <= first && first <= last && last <= frames && pid >= -1).then_some(Track {
        first,
        last,
        pid,
        camera: camera.try_into().ok()?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::data::listing::touch;

    const SMALL: Published = Published {
        train: count(2, 2),
        query: count(1, 1),
        gallery: Count {
            number: 2,
            identities: Some(1),
        },
        ..PUBLISHED
    };

    /// The tables are those of `tests/golden_data/protocols.py`.
    fn small(dir: &Path, text: bool) {
        let train = ["0001C1T0001F001", "0001C1T0001F002", "0003C6T0001F001"];
        let test = [
            "00-1C2T0001F001",
            "0000C2T0001F001",
            "0002C1T0001F001",
            "0002C1T0001F002",
            "0002C5T0001F001",
        ];
        fs::create_dir_all(dir.join("info")).unwrap();
        for (half, names) in [("train", &train[..]), ("test", &test[..])] {
            let mut list = String::new();
            for name in names {
                touch(dir, &format!("bbox_{half}/{}/{name}.jpg", &name[..4]));
                list += &format!("{name}.jpg\n");
            }
            fs::write(dir.join(format!("info/{half}_name.txt")), list).unwrap();
        }
        let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_data/protocols");
        if text {
            for (name, text) in [
                ("tracks_train_info.txt", "1 2 1 1\n3 3 3 6\n"),
                (
                    "tracks_test_info.csv",
                    "1,1,-1,2\n2,2,0,2\n3,4,2,1\n5,5,2,5\n",
                ),
                ("query_IDX.txt", "3\n"),
            ] {
                fs::write(dir.join("info").join(name), text).unwrap();
            }
        } else {
            for name in [
                "tracks_train_info.mat",
                "tracks_test_info.mat",
                "query_IDX.mat",
            ] {
                fs::copy(made.join(name), dir.join("info").join(name)).unwrap();
            }
        }
    }

    #[test]
    fn tracklets_from_tables_of_either_form() {
        let load_form = |text: bool| {
            let dir = tempfile::tempdir().unwrap();
            small(dir.path(), text);
            let data = load_against(dir.path(), &SMALL).unwrap();
            let rows = |samples: &[Sample]| -> Vec<(i64, u32, Option<u64>)> {
                samples
                    .iter()
                    .map(|s| (s.pid, s.camera, s.tracklet))
                    .collect()
            };
            assert_eq!(data.verdict.clone().unwrap().to_string(), "MARS: complete");
            assert_eq!(data.protocol, Protocol::Tracklets);
            assert_eq!(data.notes, ["1 junk tracklets (identity -1) left out"]);
            (rows(&data.train), rows(&data.query), rows(&data.gallery))
        };
        let (train, query, gallery) = load_form(false);
        assert_eq!(train, [(1, 1, Some(1)), (1, 1, Some(1)), (3, 6, Some(2))]);
        assert_eq!(query, [(2, 1, Some(3)), (2, 1, Some(3))]);
        assert_eq!(gallery, [(0, 2, Some(2)), (2, 5, Some(4))]);
        assert_eq!(load_form(true), (train, query, gallery));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        small(dir.path(), true);
        let dir = dir.path();
        let fail = || load_against(dir, &SMALL).unwrap_err().to_string();
        fs::remove_file(dir.join("bbox_train/0003/0003C6T0001F001.jpg")).unwrap();
        let verdict = load_against(dir, &SMALL)
            .unwrap()
            .verdict
            .unwrap()
            .to_string();
        assert!(
            verdict.starts_with("MARS: 1 file missing, first bbox_train/0003/0003C6T0001F001.jpg"),
            "{verdict}"
        );
        for (file, text, part) in [
            ("query_IDX.txt", "5\n", "5 is no row of"),
            ("query_IDX.txt", "x\n", "line 1: \"x\" is not 1 numbers"),
            ("tracks_train_info.txt", "1 2 1 1\n3 4 3 6\n", "row 2"),
            (
                "tracks_train_info.txt",
                "1 2 1 2\n",
                "line 1: \"0001C1T0001F001.jpg\" is not of identity 1 and camera 2",
            ),
            (
                "train_name.txt",
                "../../secret.jpg\na\nb\n",
                "\"../../secret.jpg\" is not of identity",
            ),
        ] {
            let path = dir.join("info").join(file);
            let before = fs::read(&path).unwrap();
            fs::write(&path, text).unwrap();
            assert!(fail().contains(part), "{}", fail());
            fs::write(&path, before).unwrap();
        }
        fs::remove_file(dir.join("info/query_IDX.txt")).unwrap();
        assert!(
            fail().contains("query_IDX.mat") && fail().contains(".csv"),
            "{}",
            fail()
        );
    }
}
