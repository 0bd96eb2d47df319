//! CUHK03 (Li et al. 2014, "DeepReID: deep filter pairing neural network for person re-identification"): 1,467 people in
//! five pairs of cameras; each person is seen by two, which count as cameras 1 and 2. Boxes are a detector's (`detected`,
//! 14,097 pictures) or drawn by hand (`labeled`, 14,096).
//!
//! Two protocols. *New* (Zhong et al. 2017, "Re-ranking person re-identification with k-reciprocal encoding"): 767 people to
//! train on and 700 to test, evaluated as Market-1501. *Classic*: 20 test sets of 100 people, single-shot; every test picture
//! is a query and in the gallery.
//!
//! The folder is one of
//! * Market-style (new protocol), directly or under `detected` and `labeled`, as CUHK03-NP is passed around;
//! * `images_detected` and `images_labeled` with names like `1_001_2_06.png` (pair, person, camera, picture) beside
//!   `cuhk03_new_protocol_config_detected.mat` and `..._labeled.mat` (level 5) for the new protocol and `testsets.csv` for
//!   the classic one. Pictures and test sets come out of `cuhk-03.mat`: see [`super::cuhk03_mat`].

use std::path::{Path, PathBuf};

use super::cuhk03_classic::{self, PAIR};
use super::dataset::{Dataset, Sample, Splits};
use super::listing::Listing;
use super::mat5::{self, Value};
use super::spec::{Kind, Options};
use super::verdict::{Published, Unit, count};
use super::{DataError, market1501};

pub(super) const LAYOUT: &str = "cuhk03 expects the folders bounding_box_train, query and bounding_box_test (new protocol), or images_detected and images_labeled beside cuhk03_new_protocol_config_detected.mat and cuhk03_new_protocol_config_labeled.mat (new protocol) or testsets.csv (classic); `reid-train data cuhk03:DIR --extract` makes pictures and testsets.csv from cuhk-03.mat";

/// Number of test sets of the classic protocol.
pub(super) const SPLITS: usize = 20;

pub(super) const NEW_DETECTED: Published = Published {
    name: "CUHK03 (detected, new protocol)",
    unit: Unit::Images,
    train: count(7_365, 767),
    query: count(1_400, 700),
    gallery: count(5_332, 700),
    cameras: 1..=2,
    answered: true,
};

const NEW_LABELED: Published = Published {
    name: "CUHK03 (labeled, new protocol)",
    train: count(7_368, 767),
    gallery: count(5_328, 700),
    ..NEW_DETECTED
};

pub(super) fn load(dir: &Path, options: Options) -> Result<Dataset, DataError> {
    if options.classic {
        return cuhk03_classic::load(dir, options);
    }
    let published = if options.labeled {
        NEW_LABELED
    } else {
        NEW_DETECTED
    };
    new(dir, options, &published)
}

/// "detected" or "labeled", as in the names of folders and files.
fn boxes(options: Options) -> &'static str {
    if options.labeled {
        "labeled"
    } else {
        "detected"
    }
}

fn new(dir: &Path, options: Options, published: &Published) -> Result<Dataset, DataError> {
    let market = [dir.to_path_buf(), dir.join(boxes(options))]
        .into_iter()
        .find(|d| d.join("bounding_box_train").is_dir());
    let splits = match market {
        Some(market) => market1501::read(&market, LAYOUT)?,
        None => configured(dir, options)?,
    };
    let verdict = published.judge(dir, &splits);
    Ok(Dataset::new(Kind::Cuhk03, splits).with_verdict(verdict))
}

/// Folder of the exported pictures.
pub(super) fn images(dir: &Path, options: Options) -> Result<PathBuf, DataError> {
    let images = dir.join(format!("images_{}", boxes(options)));
    if images.is_dir() {
        return Ok(images);
    }
    Err(DataError::Missing {
        path: images,
        expected: LAYOUT.into(),
    })
}

/// The new protocol by its configuration file: `filelist` (cells of names), `labels` (identities), and `train_idx`,
/// `query_idx`, `gallery_idx` (positions in the list, from 1).
fn configured(dir: &Path, options: Options) -> Result<Splits, DataError> {
    let images = images(dir, options)?;
    let file = dir.join(format!("cuhk03_new_protocol_config_{}.mat", boxes(options)));
    if !file.is_file() {
        return Err(DataError::NoFile {
            path: file,
            expected: LAYOUT.into(),
        });
    }
    let malformed = |reason: String| DataError::Malformed {
        path: file.clone(),
        reason,
    };
    let variables = mat5::read(&file)?;
    let numbers = |name: &str| match variables.get(name) {
        Some(Value::Numbers { data, .. }) => Ok(data.as_slice()),
        _ => Err(malformed(format!("no numbers named {name}"))),
    };
    let Some(Value::Cells(names)) = variables.get("filelist") else {
        return Err(malformed("no cells named filelist".into()));
    };
    let labels = numbers("labels")?;
    if labels.len() != names.len() {
        return Err(malformed(format!(
            "{} labels for {} files",
            labels.len(),
            names.len()
        )));
    }
    let listing = Listing::of(&images)?;
    let mut missing = Vec::new();
    let mut part = |name: &str| -> Result<Vec<Sample>, DataError> {
        let mut samples = Vec::new();
        for &position in numbers(name)? {
            // A fraction or a negative number saturates to a position that isn't the same number any more.
            let index = (position as usize).wrapping_sub(1);
            let (Some(Value::Text(picture)), Some(&label), true) =
                (names.get(index), labels.get(index), position.fract() == 0.0)
            else {
                return Err(malformed(format!(
                    "{name}: {position} is no position in filelist (1 to {})",
                    names.len()
                )));
            };
            let parsed = parse_name(picture).filter(|_| label.fract() == 0.0 && label >= 1.0);
            let Some(parsed) = parsed else {
                return Err(malformed(format!(
                    "file {picture:?} of identity {label}: expected a name like 1_001_2_06.png and an identity from 1"
                )));
            };
            let path = images.join(picture);
            if !listing.has(&path) {
                missing.push(path);
                continue;
            }
            samples.push(sample(path, label as i64, parsed.camera));
        }
        samples.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(samples)
    };
    let (train, query, gallery) = (part("train_idx")?, part("query_idx")?, part("gallery_idx")?);
    Ok(Splits {
        train,
        query,
        gallery,
        missing,
        notes: Vec::new(),
    })
}

pub(super) fn sample(path: PathBuf, pid: i64, camera: u32) -> Sample {
    Sample {
        path,
        pid,
        camera,
        tracklet: None,
        time: None,
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) pair: i64,
    pub(super) person: i64,
    pub(super) camera: u32,
}

/// `1_001_2_06.png`: pair, person within the pair, camera within the pair, picture.
pub(super) fn parse_name(name: &str) -> Option<Name> {
    let (stem, _) = name.split_once('.')?;
    let fields: Option<Vec<u32>> = stem.split('_').map(|f| f.parse().ok()).collect();
    match fields?.as_slice() {
        &[pair, person, camera, _] if i64::from(person) < PAIR => Some(Name {
            pair: pair.into(),
            person: person.into(),
            camera,
        }),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::data::cuhk03_classic::TESTSETS;
    use crate::data::listing::touch;

    const SMALL: Published = Published {
        train: count(2, 1),
        query: count(2, 1),
        gallery: count(1, 1),
        ..NEW_DETECTED
    };

    /// The configuration file's list is that of `tests/golden_data/protocols.py`.
    pub(crate) fn exported(dir: &Path) {
        for name in [
            "1_001_1_01",
            "1_001_2_06",
            "1_002_1_01",
            "1_002_2_06",
            "2_001_2_10",
        ] {
            touch(dir, &format!("images_detected/{name}.png"));
        }
        let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_data/protocols");
        let config = "cuhk03_new_protocol_config_detected.mat";
        fs::copy(made.join(config), dir.join(config)).unwrap();
        fs::write(
            dir.join(TESTSETS),
            "split,pair,person\n0,1,2\n1,2,1\n1,1,1\n",
        )
        .unwrap();
    }

    pub(crate) fn people(samples: &[Sample]) -> Vec<(i64, u32)> {
        samples.iter().map(|s| (s.pid, s.camera)).collect()
    }

    #[test]
    fn new_protocol_by_configuration_or_market_style() {
        let dir = tempfile::tempdir().unwrap();
        exported(dir.path());
        let options = Options::default();
        let data = new(dir.path(), options, &SMALL).unwrap();
        assert_eq!(people(&data.train), [(1, 1), (1, 2)]);
        assert_eq!(people(&data.query), [(2, 1), (2, 2)]);
        assert_eq!(people(&data.gallery), [(2, 2)]);
        assert_eq!(
            data.verdict.unwrap().to_string(),
            "CUHK03 (detected, new protocol): complete"
        );
        fs::remove_file(dir.path().join("images_detected/1_002_2_06.png")).unwrap();
        let verdict = new(dir.path(), options, &SMALL).unwrap().verdict.unwrap();
        assert!(
            verdict
                .to_string()
                .contains("1 file missing, first images_detected/1_002_2_06.png"),
            "{verdict}"
        );

        for name in [
            "labeled/bounding_box_train/0001_c1_1.png",
            "labeled/bounding_box_train/0001_c2_6.png",
            "labeled/query/0002_c1_1.png",
            "labeled/query/0002_c2_6.png",
            "labeled/bounding_box_test/0002_c2_7.png",
        ] {
            touch(dir.path(), name);
        }
        let options = Options {
            labeled: true,
            ..options
        };
        let data = new(dir.path(), options, &SMALL).unwrap();
        assert!(data.verdict.unwrap().complete);
    }

    #[test]
    fn what_is_missing_says_how_to_make_it() {
        let dir = tempfile::tempdir().unwrap();
        let fail = |options| load(dir.path(), options).unwrap_err().to_string();
        let message = fail(Options::default());
        assert!(
            message.contains("images_detected: no such folder") && message.contains("--extract"),
            "{message}"
        );
        exported(dir.path());
        let classic = Options {
            classic: true,
            ..Options::default()
        };
        fs::write(dir.path().join(TESTSETS), "0,1\n0,1,2\nx\n").unwrap();
        assert!(fail(classic).contains("line 3"), "{}", fail(classic));
        fs::remove_file(dir.path().join(TESTSETS)).unwrap();
        assert!(fail(classic).contains("testsets.csv"), "{}", fail(classic));
        touch(dir.path(), "images_detected/holiday.png");
        fs::write(dir.path().join(TESTSETS), "0,1,2\n").unwrap();
        assert!(fail(classic).contains("holiday.png"), "{}", fail(classic));
        fs::write(
            dir.path().join("cuhk03_new_protocol_config_detected.mat"),
            "MATLAB 7.3 MAT-file",
        )
        .unwrap();
        let message = fail(Options::default());
        assert!(message.contains("7.3"), "{message}");
    }
}
