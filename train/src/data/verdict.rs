//! Whether a folder holds the data set that papers report on: counts, cameras and identities against the published numbers.
//!
//! A result on half a gallery is a better result, and nobody sees why. The verdict is a sentence for people; it never
//! stops a training, because a part of a set is good to train on.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::dataset::{Sample, Splits, known};

/// What a data set's authors, or those who use it, say it holds.
pub(super) struct Published {
    /// As it is called, for people.
    pub(super) name: &'static str,
    /// What is counted.
    pub(super) unit: Unit,
    /// Training.
    pub(super) train: Count,
    /// Queries.
    pub(super) query: Count,
    /// Gallery, distractors included, junk left out.
    pub(super) gallery: Count,
    /// Cameras, as [`Sample::camera`] counts.
    pub(super) cameras: RangeInclusive<u32>,
    /// Every query's identity is in the gallery.
    pub(super) answered: bool,
}

/// What a split is counted in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Pictures.
    Images,
    /// Tracklets.
    Tracklets,
}

/// Size of a split.
#[derive(Clone, Copy)]
pub(super) struct Count {
    /// Pictures or tracklets.
    pub(super) number: usize,
    /// Labelled people; `None` where it isn't published.
    pub(super) identities: Option<usize>,
}

/// A [`Count`] with identities.
pub(super) const fn count(number: usize, identities: usize) -> Count {
    Count {
        number,
        identities: Some(identities),
    }
}

/// What is said about a data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The published set, for example `Market-1501`.
    pub set: String,
    /// Everything is as published.
    pub complete: bool,
    /// What is not, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.complete {
            return write!(f, "{}: complete", self.set);
        }
        write!(f, "{}: {}", self.set, self.findings.join("; "))
    }
}

impl Published {
    /// Compares. `dir` is cut off paths in the findings.
    pub(super) fn judge(&self, dir: &Path, splits: &Splits) -> Verdict {
        let mut findings = Vec::new();
        if let Some(first) = splits.missing.first() {
            findings.push(format!(
                "{} missing, first {}",
                plural(splits.missing.len(), "file"),
                relative(dir, first)
            ));
        }
        for (name, samples, published) in self.pairs(splits) {
            let unit = match self.unit {
                Unit::Images => "images",
                Unit::Tracklets => "tracklets",
            };
            let found = self.number(samples);
            if found != published.number {
                findings.push(format!(
                    "{name} has {} {unit}, published are {}",
                    grouped(found),
                    grouped(published.number)
                ));
            }
            let people = identities(samples).len();
            if let Some(expected) = published.identities.filter(|e| *e != people) {
                findings.push(format!(
                    "{name} has {} identities, published are {}",
                    grouped(people),
                    grouped(expected)
                ));
            }
            let stray: Vec<&Sample> = samples
                .iter()
                .filter(|s| !self.cameras.contains(&s.camera))
                .collect();
            if let Some(first) = stray.first() {
                findings.push(format!(
                    "{} of {name} by cameras outside {} to {}, first {} by camera {}",
                    plural(stray.len(), "image"),
                    self.cameras.start(),
                    self.cameras.end(),
                    relative(dir, &first.path),
                    first.camera
                ));
            }
        }
        let (train, query, gallery) = (
            identities(&splits.train),
            identities(&splits.query),
            identities(&splits.gallery),
        );
        let both: BTreeSet<i64> = query.union(&gallery).copied().collect();
        let mut people = |set: Vec<&i64>, what: &str| {
            if let Some(first) = set.first() {
                findings.push(format!("{} {what}, first {first}", set.len()));
            }
        };
        people(
            train.intersection(&both).collect(),
            "identities are in training and test",
        );
        if self.answered {
            people(
                query.difference(&gallery).collect(),
                "query identities are not in the gallery",
            );
        }
        Verdict {
            set: self.name.into(),
            complete: findings.is_empty(),
            findings,
        }
    }

    /// Whether each split has the published size, give or take a tenth: this set with a loss, not another one.
    pub(super) fn resembles(&self, splits: &Splits) -> bool {
        self.pairs(splits).iter().all(|(_, samples, published)| {
            self.number(samples).abs_diff(published.number) * 10 <= published.number
        })
    }

    /// "12,936 / 3,368 / 15,913".
    pub(super) fn sizes(&self) -> String {
        [self.train, self.query, self.gallery]
            .map(|c| grouped(c.number))
            .join(" / ")
    }

    fn pairs<'a>(&self, splits: &'a Splits) -> [(&'static str, &'a [Sample], Count); 3] {
        [
            ("train", splits.train.as_slice(), self.train),
            ("query", splits.query.as_slice(), self.query),
            ("gallery", splits.gallery.as_slice(), self.gallery),
        ]
    }

    fn number(&self, samples: &[Sample]) -> usize {
        match self.unit {
            Unit::Images => samples.len(),
            Unit::Tracklets => samples
                .iter()
                .filter_map(|s| Some((s.camera, s.tracklet?)))
                .collect::<BTreeSet<_>>()
                .len(),
        }
    }
}

fn identities(samples: &[Sample]) -> BTreeSet<i64> {
    known(samples).collect()
}

fn relative(dir: &Path, path: &Path) -> String {
    path.strip_prefix(dir).unwrap_or(path).display().to_string()
}

fn plural(number: usize, noun: &str) -> String {
    format!(
        "{} {noun}{}",
        grouped(number),
        if number == 1 { "" } else { "s" }
    )
}

/// With a comma every three digits: 12,936.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::DISTRACTOR;

    fn sample(name: &str, pid: i64, camera: u32) -> Sample {
        Sample {
            path: Path::new("dir").join(name),
            pid,
            camera,
            tracklet: Some(pid as u64),
            time: None,
        }
    }

    fn small() -> (Published, Splits) {
        let published = Published {
            name: "Small-3",
            unit: Unit::Images,
            train: count(2, 1),
            query: count(1, 1),
            gallery: count(2, 1),
            cameras: 1..=2,
            answered: true,
        };
        let splits = Splits {
            train: vec![sample("a", 1, 1), sample("b", 1, 2)],
            query: vec![sample("c", 2, 1)],
            gallery: vec![sample("d", 2, 2), sample("e", DISTRACTOR, 2)],
            ..Splits::default()
        };
        (published, splits)
    }

    #[test]
    fn as_published() {
        let (published, splits) = small();
        let verdict = published.judge(Path::new("dir"), &splits);
        assert_eq!(verdict.to_string(), "Small-3: complete");
        assert!(published.resembles(&splits));
        assert_eq!(published.sizes(), "2 / 1 / 2");
    }

    #[test]
    fn everything_that_is_not_is_said() {
        let (mut published, mut splits) = small();
        splits.missing = vec!["dir/x/y.jpg".into(), "dir/x/z.jpg".into()];
        splits.train.push(sample("f", 2, 9));
        splits.query.push(sample("g", 7, 1));
        assert_eq!(
            published.judge(Path::new("dir"), &splits).to_string(),
            "Small-3: 2 files missing, first x/y.jpg; train has 3 images, published are 2; train has 2 identities, \
             published are 1; 1 image of train by cameras outside 1 to 2, first f by camera 9; query has 2 images, \
             published are 1; query has 2 identities, published are 1; 1 identities are in training and test, first 2; \
             1 query identities are not in the gallery, first 7"
        );
        assert!(!published.resembles(&splits));
        published.unit = Unit::Tracklets;
        let verdict = published.judge(Path::new("dir"), &splits).to_string();
        assert!(
            !verdict.contains("images, published") && verdict.contains("train has 3 tracklets"),
            "{verdict}"
        );
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
