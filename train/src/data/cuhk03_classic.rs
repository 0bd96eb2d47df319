//! CUHK03's classic protocol (Li et al. 2014): 20 test sets of 100 people, single-shot; every picture of them is a query and
//! in the gallery. See [`super::cuhk03`] for the folder.

use std::collections::BTreeSet;
use std::path::Path;

use super::DataError;
use super::cuhk03::{LAYOUT, NEW_DETECTED, images, parse_name, sample};
use super::dataset::{Dataset, Protocol, Splits};
use super::listing::{pictures, read_text};
use super::spec::{Kind, Options};
use super::verdict::{Published, count};

/// File with the test sets: lines `split,pair,person`, split from 0, the others from 1.
pub(super) const TESTSETS: &str = "testsets.csv";

/// Pictures and people of both halves of the classic protocol; a test set's own number of pictures isn't published.
struct Classic {
    name: &'static str,
    images: usize,
    train: usize,
    test: usize,
}

const CLASSIC: [Classic; 2] = [
    Classic {
        name: "CUHK03 (detected, classic protocol)",
        images: 14_097,
        train: 1_367,
        test: 100,
    },
    Classic {
        name: "CUHK03 (labeled, classic protocol)",
        images: 14_096,
        train: 1_367,
        test: 100,
    },
];

pub(super) fn load(dir: &Path, options: Options) -> Result<Dataset, DataError> {
    load_against(dir, options, &CLASSIC[usize::from(options.labeled)])
}

/// The classic protocol: all pictures of the people of one test set against all the others.
fn load_against(dir: &Path, options: Options, published: &Classic) -> Result<Dataset, DataError> {
    let images = images(dir, options)?;
    let test = testset(&dir.join(TESTSETS), options.split)?;
    let mut splits = Splits::default();
    for path in pictures(&images)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(parsed) = parse_name(&name) else {
            return Err(DataError::Malformed {
                reason: format!("the name is not like 1_001_2_06.png; {LAYOUT}"),
                path,
            });
        };
        let pid = parsed.pair * PAIR + parsed.person;
        let sample = sample(path, pid, parsed.camera);
        if test.contains(&(parsed.pair, parsed.person)) {
            splits.query.push(sample);
        } else {
            splits.train.push(sample);
        }
    }
    splits.gallery = splits.query.clone();
    let tested = splits.query.len();
    let whole = Published {
        name: published.name,
        train: count(published.images.saturating_sub(tested), published.train),
        query: count(tested, published.test),
        gallery: count(tested, published.test),
        ..NEW_DETECTED
    };
    let verdict = whole.judge(dir, &splits);
    Ok(Dataset::new(Kind::Cuhk03, splits)
        .with_verdict(verdict)
        .with_protocol(Protocol::SingleShot))
}

/// Identities of the classic protocol are pair times this plus person: 1_001 is 10001.
pub(super) const PAIR: i64 = 10_000;

/// (pair, person) of test set `split`.
fn testset(file: &Path, split: usize) -> Result<BTreeSet<(i64, i64)>, DataError> {
    if !file.is_file() {
        return Err(DataError::NoFile {
            path: file.to_path_buf(),
            expected: LAYOUT.into(),
        });
    }
    let malformed = |reason: String| DataError::Malformed {
        path: file.to_path_buf(),
        reason,
    };
    let mut people = BTreeSet::new();
    for (n, line) in read_text(file, LAYOUT)?.lines().enumerate() {
        let row: Option<Vec<i64>> = line
            .split(',')
            .map(|cell| cell.trim().parse().ok())
            .collect();
        match row.as_deref() {
            Some(&[s, pair, person]) => {
                if usize::try_from(s) == Ok(split) {
                    people.insert((pair, person));
                }
            }
            _ if n == 0 || line.trim().is_empty() => {}
            _ => {
                return Err(malformed(format!(
                    "line {}: {line:?} is not split,pair,person",
                    n + 1
                )));
            }
        }
    }
    if people.is_empty() {
        return Err(malformed(format!("it has no test set {split}")));
    }
    Ok(people)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data::cuhk03::tests::{exported, people};

    #[test]
    fn classic_protocol_by_test_sets() {
        let dir = tempfile::tempdir().unwrap();
        exported(dir.path());
        let small = Classic {
            images: 5,
            train: 2,
            test: 1,
            ..CLASSIC[0]
        };
        let options = Options {
            classic: true,
            ..Options::default()
        };
        let data = load_against(dir.path(), options, &small).unwrap();
        assert_eq!(people(&data.train), [(10001, 1), (10001, 2), (20001, 2)]);
        assert_eq!(people(&data.query), [(10002, 1), (10002, 2)]);
        assert_eq!(data.gallery, data.query);
        assert_eq!(data.protocol, Protocol::SingleShot);
        data.check_evaluable().unwrap();
        assert_eq!(
            data.verdict.unwrap().to_string(),
            "CUHK03 (detected, classic protocol): complete"
        );
        let other = Options {
            split: 1,
            ..options
        };
        let verdict = load_against(dir.path(), other, &small)
            .unwrap()
            .verdict
            .unwrap();
        assert!(
            verdict
                .to_string()
                .contains("query has 2 identities, published are 1"),
            "{verdict}"
        );
        let beyond = Options {
            split: 7,
            ..options
        };
        let message = load_against(dir.path(), beyond, &small)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("testsets.csv: it has no test set 7"),
            "{message}"
        );
    }
}
