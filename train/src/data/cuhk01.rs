//! CUHK01 (Li et al. 2012, "Human reidentification with transferred metric learning"): 971 people, four pictures each.
//!
//! `campus/0001001.png`: identity is the first four digits, pictures 1 and 2 are of camera 1, 3 and 4 of camera 2. There
//! is no official split: results are means over random halves, 485 people to train on and 486 to test. Ours are ten, drawn
//! with a fixed seed, so that `split=N` means the same everywhere. Queries are camera 1's, the gallery camera 2's; results
//! are published single-shot.

use std::collections::BTreeSet;
use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::DataError;
use super::dataset::{Dataset, Protocol, Sample, Splits};
use super::listing::pictures;
use super::spec::Kind;
use super::verdict::{Published, Unit, count};

pub(super) const LAYOUT: &str =
    "cuhk01 expects the folder campus with names like 0001001.png (identity 1, picture 1)";

/// Number of splits.
pub(super) const SPLITS: usize = 10;

/// Part of the splits' definition: never to be changed.
const SEED: u64 = 2012;

const PUBLISHED: Published = Published {
    name: "CUHK01",
    unit: Unit::Images,
    train: count(4 * 485, 485),
    query: count(2 * 486, 486),
    gallery: count(2 * 486, 486),
    cameras: 1..=2,
    answered: true,
};

pub(super) fn load(dir: &Path, split: usize) -> Result<Dataset, DataError> {
    load_against(dir, split, &PUBLISHED)
}

fn load_against(dir: &Path, split: usize, published: &Published) -> Result<Dataset, DataError> {
    let campus = dir.join("campus");
    if !campus.is_dir() {
        return Err(DataError::Missing {
            path: campus,
            expected: LAYOUT.into(),
        });
    }
    let mut samples = Vec::new();
    for path in pictures(&campus)? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let Some((pid, picture)) = parse_name(&name) else {
            return Err(DataError::Malformed {
                reason: format!(
                    "the name is not four digits of identity and three of picture; {LAYOUT}"
                ),
                path,
            });
        };
        samples.push(Sample {
            pid,
            camera: (picture - 1) / 2 + 1,
            tracklet: None,
            time: None,
            path,
        });
    }
    if samples.is_empty() {
        return Err(DataError::Empty {
            path: campus,
            expected: LAYOUT.into(),
        });
    }
    let people: BTreeSet<i64> = samples.iter().map(|s| s.pid).collect();
    let trained = half(&people, split);
    let mut splits = Splits::default();
    for sample in samples {
        match (trained.contains(&sample.pid), sample.camera) {
            (true, _) => splits.train.push(sample),
            (false, 1) => splits.query.push(sample),
            (false, _) => splits.gallery.push(sample),
        }
    }
    let verdict = published.judge(dir, &splits);
    Ok(Dataset::new(Kind::Cuhk01, splits)
        .with_verdict(verdict)
        .with_protocol(Protocol::SingleShot))
}

/// Identity and picture, both from 1.
fn parse_name(stem: &str) -> Option<(i64, u32)> {
    if stem.len() != 7 || !stem.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (pid, picture) = stem.split_at(4);
    let (pid, picture) = (pid.parse().ok()?, picture.parse().ok()?);
    (pid > 0 && picture > 0).then_some((pid, picture))
}

/// The smaller half of the people at random. By sorted keys, not by a library's shuffle: another version of it must not
/// change what `split=N` means.
fn half(people: &BTreeSet<i64>, split: usize) -> BTreeSet<i64> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    rng.set_stream(split as u64);
    let mut keyed: Vec<(u64, i64)> = people.iter().map(|&pid| (rng.random(), pid)).collect();
    keyed.sort_unstable();
    keyed[..people.len() / 2].iter().map(|k| k.1).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::data::listing::touch;

    #[test]
    fn splits_are_halves_and_never_change() {
        let people: BTreeSet<i64> = (1..=971).collect();
        let halves: Vec<BTreeSet<i64>> = (0..SPLITS).map(|n| half(&people, n)).collect();
        assert!(halves.iter().all(|h| h.len() == 485));
        assert_eq!(halves.iter().collect::<BTreeSet<_>>().len(), SPLITS);
        let first: Vec<i64> = halves[0].iter().copied().take(8).collect();
        assert_eq!(first, FIRST_OF_SPLIT_0);
    }

    const FIRST_OF_SPLIT_0: [i64; 8] = [1, 4, 5, 6, 7, 9, 16, 18];

    #[test]
    fn cameras_come_from_the_picture() {
        let dir = tempfile::tempdir().unwrap();
        for pid in 1..=5 {
            for picture in 1..=4 {
                touch(dir.path(), &format!("campus/{pid:04}{picture:03}.png"));
            }
        }
        let small = Published {
            train: count(8, 2),
            query: count(6, 3),
            gallery: count(6, 3),
            ..PUBLISHED
        };
        let data = load_against(dir.path(), 3, &small).unwrap();
        assert_eq!(data.protocol, Protocol::SingleShot);
        assert!(data.query.iter().all(|s| s.camera == 1));
        assert!(data.gallery.iter().all(|s| s.camera == 2));
        data.check_evaluable().unwrap();
        let text = data.describe().to_string();
        assert!(
            text.contains("CUHK01: complete") && text.contains("single-shot"),
            "{text}"
        );

        touch(dir.path(), "campus/12.png");
        let message = load(dir.path(), 0).unwrap_err().to_string();
        assert!(
            message.contains("12.png") && message.contains("0001001.png"),
            "{message}"
        );
        fs::remove_dir_all(dir.path().join("campus")).unwrap();
        assert!(
            load(dir.path(), 0)
                .unwrap_err()
                .to_string()
                .contains("folder campus")
        );
    }
}
