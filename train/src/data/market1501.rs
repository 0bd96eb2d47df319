//! Market-1501 (Zheng et al. 2015, "Scalable person re-identification: a benchmark") and everything laid out like it.
//!
//! Folders `bounding_box_train`, `query`, `bounding_box_test`; file names begin with `PID_cCAMERA`, for example
//! `0002_c1s1_000451_03.jpg`: person 2, camera 1, sequence 1, frame 451, box 3. Identity -1 is junk and left out, 0 are
//! distractors. `gt_bbox`, if there, holds boxes drawn by hand, of which multiple queries are made. The original counts 12,936 / 3,368 / 15,913 pictures without junk, of 751 and 750 people by 6 cameras.

use std::path::Path;

use super::DataError;
use super::dataset::{DISTRACTOR, Dataset, Sample, Splits};
use super::listing::pictures;
use super::spec::Kind;
use super::verdict::{Published, Unit, Verdict, count};

pub(super) const LAYOUT: &str = "market1501 expects the folders bounding_box_train, query and bounding_box_test with names like 0002_c1s1_000451_03.jpg";

/// Folder of the boxes drawn by hand.
const BOXES: &str = "gt_bbox";

const PUBLISHED: Published = Published {
    name: "Market-1501",
    unit: Unit::Images,
    train: count(12_936, 751),
    query: count(3_368, 750),
    gallery: count(15_913, 750),
    cameras: 1..=6,
    answered: true,
};

/// Identity and camera of a Market-style file name: `([-\d]+)_c(\d+)` at its beginning.
pub(super) fn parse_name(name: &str) -> Option<(i64, u32)> {
    let (pid, rest) = name.split_once("_c")?;
    let pid = pid.parse().ok()?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    Some((pid, rest[..digits].parse().ok()?))
}

pub(super) fn load(dir: &Path) -> Result<Dataset, DataError> {
    load_against(dir, &PUBLISHED)
}

fn load_against(dir: &Path, published: &Published) -> Result<Dataset, DataError> {
    let splits = read(dir, LAYOUT)?;
    // Much is laid out like Market-1501 and is not it: only what is about its size is measured by its numbers.
    let verdict = if published.resembles(&splits) {
        published.judge(dir, &splits)
    } else {
        Verdict {
            set: format!("laid out like {}", published.name),
            complete: false,
            findings: vec![format!(
                "another set, or a part ({} itself has {})",
                published.name,
                published.sizes()
            )],
        }
    };
    let boxes = Some(dir.join(BOXES)).filter(|boxes| boxes.is_dir());
    Ok(Dataset {
        boxes,
        ..Dataset::new(Kind::Market1501, splits).with_verdict(verdict)
    })
}

/// The three folders of a Market-style data set; `layout` goes into messages.
pub(super) fn read(dir: &Path, layout: &'static str) -> Result<Splits, DataError> {
    let mut notes = Vec::new();
    let mut split = |name: &str| -> Result<Vec<Sample>, DataError> {
        let (samples, junk) = folder(&dir.join(name), layout)?;
        if junk > 0 {
            notes.push(format!(
                "{name}: {junk} junk pictures (identity -1) left out"
            ));
        }
        Ok(samples)
    };
    let (train, query, gallery) = (
        split("bounding_box_train")?,
        split("query")?,
        split("bounding_box_test")?,
    );
    Ok(Splits {
        train,
        query,
        gallery,
        notes,
        missing: Vec::new(),
    })
}

/// The pictures of one folder, junk left out and counted.
pub(super) fn folder(path: &Path, layout: &'static str) -> Result<(Vec<Sample>, usize), DataError> {
    if !path.is_dir() {
        return Err(DataError::Missing {
            path: path.to_path_buf(),
            expected: layout.into(),
        });
    }
    let mut samples = Vec::new();
    let mut junk = 0;
    for file in pictures(path)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let Some((pid, camera)) = parse_name(&name) else {
            return Err(DataError::Malformed {
                reason: format!("the name has no identity and camera; {layout}"),
                path: file,
            });
        };
        if pid < DISTRACTOR {
            junk += 1;
            continue;
        }
        samples.push(Sample {
            path: file,
            pid,
            camera,
            tracklet: None,
            time: None,
        });
    }
    if samples.is_empty() {
        return Err(DataError::Empty {
            path: path.to_path_buf(),
            expected: layout.into(),
        });
    }
    Ok((samples, junk))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data::listing::touch;

    #[test]
    fn names() {
        assert_eq!(parse_name("0002_c1s1_000451_03.jpg"), Some((2, 1)));
        assert_eq!(parse_name("-1_c3s2_000000_00.jpg"), Some((-1, 3)));
        assert_eq!(parse_name("0001_c12_f0046182.jpg"), Some((1, 12)));
        for bad in [
            "",
            "person.jpg",
            "_c1.jpg",
            "12_camera.jpg",
            "1_c.jpg",
            "1_c99999999999.jpg",
            "x1_c1.jpg",
        ] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn another_set_is_not_measured_by_its_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let small = Published {
            train: count(10, 2),
            query: count(1, 1),
            gallery: count(1, 1),
            ..PUBLISHED
        };
        for n in 0..9 {
            touch(
                dir.path(),
                &format!("bounding_box_train/000{}_c1_{n}.jpg", 1 + n % 2),
            );
        }
        touch(dir.path(), "query/0003_c1_1.jpg");
        touch(dir.path(), "bounding_box_test/0003_c2_1.jpg");
        let verdict = |published| {
            let dataset = load_against(dir.path(), published).unwrap();
            dataset.verdict.unwrap().to_string()
        };
        assert_eq!(
            verdict(&small),
            "Market-1501: train has 9 images, published are 10"
        );
        assert_eq!(
            verdict(&PUBLISHED),
            "laid out like Market-1501: another set, or a part (Market-1501 itself has 12,936 / 3,368 / 15,913)"
        );
    }
}
