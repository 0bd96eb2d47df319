//! DukeMTMC-reID (Ristani et al. 2016; Zheng et al. 2017): laid out as Market-1501, names like `0001_c2_f0046182.jpg`.
//!
//! 16,522 / 2,228 / 17,661 pictures by 8 cameras; 702 people to train on, 702 asked for and 408 distractors who have
//! numbers of their own. Its authors withdrew it in 2019 for the sake of the people in it: it is never downloaded.

use std::path::Path;

use super::DataError;
use super::dataset::Dataset;
use super::market1501;
use super::spec::Kind;
use super::verdict::{Published, Unit, count};

pub(super) const LAYOUT: &str = "DukeMTMC-reID was withdrawn by its authors in 2019 and is never downloaded: it must be your own copy, with the folders bounding_box_train, query and bounding_box_test and names like 0001_c2_f0046182.jpg";

const PUBLISHED: Published = Published {
    name: "DukeMTMC-reID",
    unit: Unit::Images,
    train: count(16_522, 702),
    query: count(2_228, 702),
    gallery: count(17_661, 1_110),
    cameras: 1..=8,
    answered: true,
};

pub(super) fn load(dir: &Path) -> Result<Dataset, DataError> {
    load_against(dir, &PUBLISHED)
}

fn load_against(dir: &Path, published: &Published) -> Result<Dataset, DataError> {
    let splits = market1501::read(dir, LAYOUT)?;
    let verdict = published.judge(dir, &splits);
    let mut dataset = Dataset::new(Kind::DukeMtmc, splits).with_verdict(verdict);
    dataset
        .notes
        .push("withdrawn by its authors in 2019: results on it should say so".into());
    Ok(dataset)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data::listing::touch;

    #[test]
    fn counts_cameras_and_answers_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "bounding_box_train/0001_c2_f0046182.jpg",
            "bounding_box_train/0001_c8_f0046302.jpg",
            "query/0005_c2_f0046985.jpg",
            "bounding_box_test/0005_c5_f0051341.jpg",
            "bounding_box_test/0008_c5_f0051341.jpg",
        ] {
            touch(dir.path(), name);
        }
        let small = Published {
            train: count(2, 1),
            query: count(1, 1),
            gallery: count(2, 2),
            ..PUBLISHED
        };
        let verdict = || {
            let dataset = load_against(dir.path(), &small).unwrap();
            dataset.check_evaluable().unwrap();
            dataset.verdict.unwrap().to_string()
        };
        assert_eq!(verdict(), "DukeMTMC-reID: complete");
        touch(dir.path(), "bounding_box_test/0005_c9_f1.jpg");
        assert_eq!(
            verdict(),
            "DukeMTMC-reID: gallery has 3 images, published are 2; 1 image of gallery by cameras outside 1 to 8, first \
             bounding_box_test/0005_c9_f1.jpg by camera 9"
        );
        let full = load(dir.path()).unwrap().verdict.unwrap().to_string();
        assert!(
            full.contains("train has 2 images, published are 16,522"),
            "{full}"
        );
    }
}
