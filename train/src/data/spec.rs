//! Which data, as on the command line: `KIND[,OPTION...]:DIR`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{DataError, cuhk01, cuhk03, dukemtmc, market1501, mars, msmt17};

/// How a folder is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `bounding_box_train`, `query`, `bounding_box_test`.
    Market1501,
    /// DukeMTMC-reID: as Market-1501, by 8 cameras.
    DukeMtmc,
    /// MSMT17, V1 or V2 (faces blurred): lists and two folders.
    Msmt17,
    /// CUHK03: Market-style, or pictures and protocol files.
    Cuhk03,
    /// CUHK01: `campus`, ten random splits.
    Cuhk01,
    /// MARS: tracklets.
    Mars,
    /// Any tree of pictures.
    Folder,
    /// Crops harvested by the edge, with `crops.jsonl`.
    Harvest,
}

impl Kind {
    /// Every kind this build reads.
    pub const ALL: [Kind; 8] = [
        Kind::Market1501,
        Kind::DukeMtmc,
        Kind::Msmt17,
        Kind::Cuhk03,
        Kind::Cuhk01,
        Kind::Mars,
        Kind::Folder,
        Kind::Harvest,
    ];

    /// The word in a `SPEC`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Market1501 => "market1501",
            Kind::DukeMtmc => "dukemtmc",
            Kind::Msmt17 => "msmt17",
            Kind::Cuhk03 => "cuhk03",
            Kind::Cuhk01 => "cuhk01",
            Kind::Mars => "mars",
            Kind::Folder => "folder",
            Kind::Harvest => "harvest",
        }
    }

    /// What has to lie in the folder, for messages.
    pub(super) fn layout(self) -> &'static str {
        match self {
            Kind::Market1501 => market1501::LAYOUT,
            Kind::DukeMtmc => dukemtmc::LAYOUT,
            Kind::Msmt17 => msmt17::LAYOUT,
            Kind::Cuhk03 => cuhk03::LAYOUT,
            Kind::Cuhk01 => cuhk01::LAYOUT,
            Kind::Mars => mars::LAYOUT,
            Kind::Folder => "folder expects .jpg, .jpeg or .png files",
            Kind::Harvest => "harvest expects crops.jsonl and the crops",
        }
    }

    /// The options this kind takes, for messages; empty if none.
    fn options(self) -> &'static str {
        match self {
            Kind::Cuhk03 => "detected, labeled, classic, split=0 to split=19 (with classic)",
            Kind::Cuhk01 => "split=0 to split=9",
            _ => "",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The kinds of data this build reads, for messages.
pub(super) fn known() -> String {
    Kind::ALL.map(|kind| format!("{kind}:DIR")).join(", ")
}

/// Which of a set's variants and splits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// CUHK03: boxes drawn by hand instead of a detector's.
    pub labeled: bool,
    /// CUHK03: the first protocol (1,367/100 identities, 20 splits) instead of the new one (767/700).
    pub classic: bool,
    /// CUHK03 classic: test set 0 to 19; CUHK01: random split 0 to 9.
    pub split: usize,
}

/// Which data, as on the command line: `KIND[,OPTION...]:DIR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Layout.
    pub kind: Kind,
    /// Variant and split.
    pub options: Options,
    /// Folder.
    pub dir: PathBuf,
}

impl FromStr for Spec {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let bad = |reason: String| DataError::Spec {
            spec: text.into(),
            reason,
        };
        let (words, dir) = text
            .split_once(':')
            .ok_or_else(|| bad("it names no kind".into()))?;
        if dir.is_empty() {
            return Err(bad("it names no folder".into()));
        }
        let mut words = words.split(',');
        let name = words.next().unwrap_or_default();
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| bad(format!("unknown kind {name:?}")))?;
        let mut options = Options::default();
        let mut split = None;
        for word in words {
            let splits = match kind {
                Kind::Cuhk03 => cuhk03::SPLITS,
                Kind::Cuhk01 => cuhk01::SPLITS,
                _ => 0,
            };
            let number = word.strip_prefix("split=").and_then(|n| n.parse().ok());
            match (kind, word, number) {
                (Kind::Cuhk03, "detected", _) => options.labeled = false,
                (Kind::Cuhk03, "labeled", _) => options.labeled = true,
                (Kind::Cuhk03, "classic", _) => options.classic = true,
                (_, _, Some(number)) if number < splits => split = Some(number),
                _ => {
                    return Err(bad(match kind.options() {
                        "" => format!("{kind} takes no option, but {word:?} is given"),
                        known => format!("unknown option {word:?} ({kind} takes {known})"),
                    }));
                }
            }
        }
        if kind == Kind::Cuhk03 && split.is_some() && !options.classic {
            return Err(bad(
                "split=N chooses a test set of the classic protocol; add classic, or leave it out"
                    .into(),
            ));
        }
        options.split = split.unwrap_or(0);
        Ok(Spec {
            kind,
            options,
            dir: dir.into(),
        })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if self.kind == Kind::Cuhk03 {
            f.write_str(if self.options.labeled {
                ",labeled"
            } else {
                ",detected"
            })?;
        }
        if self.options.classic {
            f.write_str(",classic")?;
        }
        if self.options.classic || self.kind == Kind::Cuhk01 {
            write!(f, ",split={}", self.options.split)?;
        }
        write!(f, ":{}", self.dir.display())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn options_are_read_and_written() {
        for (text, full) in [
            ("market1501:a b", "market1501:a b"),
            ("cuhk03:d", "cuhk03,detected:d"),
            (
                "cuhk03,classic,labeled,split=19:d",
                "cuhk03,labeled,classic,split=19:d",
            ),
            ("cuhk01,split=9:x:y", "cuhk01,split=9:x:y"),
        ] {
            let spec: Spec = text.parse().unwrap();
            assert_eq!(spec.to_string(), full);
            assert_eq!(full.parse::<Spec>().unwrap(), spec);
        }
    }

    #[test]
    fn wrong_options_name_the_right_ones() {
        for (text, part) in [
            ("market1501,split=1:d", "market1501 takes no option"),
            ("cuhk01,split=10:d", "split=0 to split=9"),
            ("cuhk01,split=-1:d", "split=0 to split=9"),
            (
                "cuhk03,labelled:d",
                "unknown option \"labelled\" (cuhk03 takes detected, labeled",
            ),
            ("cuhk03,split=1:d", "add classic"),
            ("cuhk03,:d", "unknown option \"\""),
            (",:d", "unknown kind \"\""),
        ] {
            let message = text.parse::<Spec>().unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
            assert!(message.contains("mars:DIR"), "{message}");
        }
    }
}
