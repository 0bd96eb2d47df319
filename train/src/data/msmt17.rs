//! MSMT17 (Wei et al. 2018, "Person transfer GAN to bridge domain gap for person re-identification"), V1 and V2.
//!
//! `list_{train,val,query,gallery}.txt` with lines `0000/0000_000_01_0303morning_0008_0.jpg 0` (picture, identity) relative
//! to `train`, `test` (V1) or `mask_train_v2`, `mask_test_v2` (V2: faces are blurred, results are lower and not to be
//! compared with V1's). The camera is the third number of the name. `train` and `val` together are trained on, as methods
//! without labels do: 32,621 / 11,659 / 82,161 pictures of 1,041 and 3,060 people by 15 cameras.
//!
//! Both halves number people from 0. Here training counts from 1 (0 means distractor), and the test's people follow.

use std::path::{Component, Path, PathBuf};

use super::DataError;
use super::dataset::{Dataset, Sample, Splits};
use super::listing::{Listing, read_text};
use super::spec::Kind;
use super::verdict::{Published, Unit, count};

pub(super) const LAYOUT: &str = "msmt17 expects list_train.txt, list_val.txt, list_query.txt and list_gallery.txt beside train and test (V1) or mask_train_v2 and mask_test_v2 (V2)";

const PUBLISHED: Published = Published {
    name: "MSMT17",
    unit: Unit::Images,
    train: count(32_621, 1_041),
    query: count(11_659, 3_060),
    gallery: count(82_161, 3_060),
    cameras: 1..=15,
    answered: true,
};

/// The two versions: name for people, folders, and the folder the archive unpacks to.
const VERSIONS: [(&str, &str, &str, &str); 2] = [
    ("MSMT17 V1", "train", "test", "MSMT17_V1"),
    (
        "MSMT17 V2 (faces blurred)",
        "mask_train_v2",
        "mask_test_v2",
        "MSMT17_V2",
    ),
];

pub(super) fn load(dir: &Path) -> Result<Dataset, DataError> {
    load_against(dir, &PUBLISHED)
}

fn load_against(dir: &Path, published: &Published) -> Result<Dataset, DataError> {
    let found = VERSIONS.iter().find_map(|&(name, train, test, archive)| {
        [dir.to_path_buf(), dir.join(archive)]
            .into_iter()
            .find(|root| root.join("list_train.txt").is_file() && root.join(train).is_dir())
            .map(|root| (name, train, test, root))
    });
    let Some((name, train, test, root)) = found else {
        return Err(DataError::Missing {
            path: dir.join("train"),
            expected: LAYOUT.into(),
        });
    };
    let mut splits = Splits::default();
    let mut half = |lists: &[(&str, bool)], folder: &str, start: i64| -> Result<_, DataError> {
        let folder = root.join(folder);
        let listing = Listing::of(&folder)?;
        let mut samples = Vec::new();
        for (list, required) in lists {
            let list = root.join(list);
            // Without list_val.txt the verdict counts what is missing.
            if !required && !list.is_file() {
                continue;
            }
            let mut part = Vec::new();
            for (picture, pid, camera) in read_list(&list)? {
                let path = folder.join(&picture);
                if !listing.has(&path) {
                    splits.missing.push(path);
                    continue;
                }
                part.push(Sample {
                    path,
                    pid: start + pid,
                    camera,
                    tracklet: None,
                    time: None,
                });
            }
            samples.push(part);
        }
        Ok(samples)
    };
    let mut trained = half(
        &[("list_train.txt", true), ("list_val.txt", false)],
        train,
        1,
    )?
    .concat();
    trained.sort_by(|a, b| a.path.cmp(&b.path));
    let next = trained.iter().map(|s| s.pid).max().unwrap_or(0) + 1;
    let mut tested = half(
        &[("list_query.txt", true), ("list_gallery.txt", true)],
        test,
        next,
    )?
    .into_iter();
    splits.train = trained;
    splits.query = tested.next().unwrap_or_default();
    splits.gallery = tested.next().unwrap_or_default();
    for (samples, list) in [
        (&mut splits.train, "list_train.txt"),
        (&mut splits.query, "list_query.txt"),
        (&mut splits.gallery, "list_gallery.txt"),
    ] {
        samples.sort_by(|a, b| a.path.cmp(&b.path));
        if samples.is_empty() {
            return Err(DataError::Empty {
                path: root.join(list),
                expected: format!("none of its files is there; {LAYOUT}"),
            });
        }
    }
    let mut verdict = published.judge(dir, &splits);
    verdict.set = name.into();
    Ok(Dataset::new(Kind::Msmt17, splits).with_verdict(verdict))
}

/// Picture (relative), identity and camera of each line.
fn read_list(list: &Path) -> Result<Vec<(PathBuf, i64, u32)>, DataError> {
    let text = read_text(list, LAYOUT)?;
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        rows.push(parse_line(line).ok_or_else(|| DataError::Malformed {
            path: list.to_path_buf(),
            reason: format!(
                "line {}: {line:?} is not a picture inside the folder and an identity, such as \
                 0000/0000_000_01_0303morning_0008_0.jpg 0",
                number + 1
            ),
        })?);
    }
    Ok(rows)
}

fn parse_line(line: &str) -> Option<(PathBuf, i64, u32)> {
    let (picture, pid) = line.trim().rsplit_once(' ')?;
    // A bound keeps sums of identities far from overflow.
    let pid: u32 = pid.parse().ok()?;
    let picture = Path::new(picture);
    if !picture
        .components()
        .all(|c| matches!(c, Component::Normal(_)))
    {
        return None;
    }
    let camera = picture.file_name()?.to_str()?.split('_').nth(2)?;
    Some((picture.to_path_buf(), pid.into(), camera.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::data::listing::touch;

    fn small(dir: &Path, train: &str, test: &str) -> Published {
        let lists = [
            ("list_train.txt", train, vec![(0, 1), (0, 15), (1, 3)]),
            ("list_val.txt", train, vec![(1, 4)]),
            ("list_query.txt", test, vec![(0, 2)]),
            ("list_gallery.txt", test, vec![(0, 5), (1, 5)]),
        ];
        for (list, folder, rows) in lists {
            let mut text = String::new();
            for (n, (pid, camera)) in rows.into_iter().enumerate() {
                let stem = &list[5..6];
                let name = format!("{pid:04}/{pid:04}_00{n}_{camera:02}_0303morning_{stem}_0.jpg");
                touch(dir, &format!("{folder}/{name}"));
                text += &format!("{name} {pid}\n");
            }
            fs::write(dir.join(list), text).unwrap();
        }
        Published {
            train: count(4, 2),
            query: count(1, 1),
            gallery: count(2, 2),
            ..PUBLISHED
        }
    }

    #[test]
    fn versions_are_told_apart_and_people_numbered_apart() {
        for (train, test, name) in [
            ("train", "test", "MSMT17 V1: complete"),
            (
                "mask_train_v2",
                "mask_test_v2",
                "MSMT17 V2 (faces blurred): complete",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let published = small(dir.path(), train, test);
            let data = load_against(dir.path(), &published).unwrap();
            let people = |samples: &[Sample]| -> Vec<(i64, u32)> {
                samples.iter().map(|s| (s.pid, s.camera)).collect()
            };
            assert_eq!(people(&data.train), [(1, 1), (1, 15), (2, 4), (2, 3)]);
            assert_eq!(people(&data.query), [(3, 2)]);
            assert_eq!(people(&data.gallery), [(3, 5), (4, 5)]);
            data.check_evaluable().unwrap();
            assert_eq!(data.verdict.unwrap().to_string(), name);
        }
        // As the archive unpacks.
        let dir = tempfile::tempdir().unwrap();
        let published = small(&dir.path().join("MSMT17_V1"), "train", "test");
        load_against(dir.path(), &published).unwrap();
    }

    #[test]
    fn missing_files_are_counted_and_the_first_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let published = small(dir.path(), "train", "test");
        fs::remove_dir_all(dir.path().join("train/0001")).unwrap();
        let data = load_against(dir.path(), &published).unwrap();
        let verdict = data.verdict.unwrap().to_string();
        assert!(
            verdict.starts_with(
                "MSMT17 V1: 2 files missing, first train/0001/0001_002_03_0303morning_t_0.jpg; train has 2 images, \
                 published are 4"
            ),
            "{verdict}"
        );
        assert_eq!(data.train.len(), 2);
    }

    #[test]
    fn bad_lists_name_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let published = small(dir.path(), "train", "test");
        let fail = || {
            load_against(dir.path(), &published)
                .unwrap_err()
                .to_string()
        };
        for line in [
            "0000/0000_000_01_x.jpg",
            "../0000_000_01_x.jpg 0",
            "/0000_000_01_x.jpg 0",
            "0000/person.jpg 0",
            "0000/0000_000_xx_x.jpg 0",
            "0000/0000_000_01_x.jpg -1",
            "0000/0000_000_01_x.jpg 99999999999999999999",
        ] {
            fs::write(dir.path().join("list_query.txt"), format!("\n{line}\n")).unwrap();
            let message = fail();
            assert!(
                message.contains("list_query.txt: line 2") && message.contains("0303morning"),
                "{message}"
            );
        }
        fs::remove_file(dir.path().join("list_query.txt")).unwrap();
        assert!(fail().contains("list_query.txt"), "{}", fail());
        fs::remove_dir_all(dir.path().join("train")).unwrap();
        assert!(fail().contains("mask_train_v2"), "{}", fail());
    }
}
