//! What a data set is: pictures with identity, camera and tracklet, in three splits.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::spec::{Kind, Spec};
use super::verdict::Verdict;
use super::{DataError, cuhk01, cuhk03, dukemtmc, folder, harvest, market1501, mars, msmt17};

/// Identity of a picture nobody labelled.
pub const UNKNOWN: i64 = -1;
/// Identity of people who are in the gallery but never asked for.
pub const DISTRACTOR: i64 = 0;

/// One picture of one person.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// File.
    pub path: PathBuf,
    /// Identity; [`UNKNOWN`] without labels, [`DISTRACTOR`] in a gallery.
    pub pid: i64,
    /// Camera, as the file name counts.
    pub camera: u32,
    /// Tracklet, where known: pictures of one tracklet show one person. Unique within a camera.
    pub tracklet: Option<u64>,
    /// When it was taken, in seconds of the source's own clock, where known.
    pub time: Option<f64>,
}

/// A data set: lists of pictures, sorted by path.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Kind and folder name, for people; never a whole path.
    pub name: String,
    /// Layout it was read from.
    pub kind: Kind,
    /// Pictures to train on.
    pub train: Vec<Sample>,
    /// Queries.
    pub query: Vec<Sample>,
    /// Gallery, distractors included, junk left out.
    pub gallery: Vec<Sample>,
    /// What was left out while reading, and why.
    pub notes: Vec<String>,
    /// Whether it is the set that papers report on; `None` where there is none to compare with.
    pub verdict: Option<Verdict>,
    /// How papers evaluate on it.
    pub protocol: Protocol,
    /// Folder with more pictures of the queried people, for multiple queries (Market-1501's `gt_bbox`); see
    /// [`Dataset::query_boxes`].
    pub boxes: Option<PathBuf>,
}

/// How a data set is evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Each query against the whole gallery but its own camera's pictures of its own identity (Market-1501).
    #[default]
    Standard,
    /// As the standard, with one picture per identity drawn from the gallery, a mean over draws (CUHK03 classic, CUHK01).
    SingleShot,
    /// Tracklets instead of pictures, each by the mean of its pictures (MARS).
    Tracklets,
}

/// What a data set's files say, before it has a name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Splits {
    pub(super) train: Vec<Sample>,
    pub(super) query: Vec<Sample>,
    pub(super) gallery: Vec<Sample>,
    /// What was left out while reading, and why.
    pub(super) notes: Vec<String>,
    /// Files that a list names and that aren't there.
    pub(super) missing: Vec<PathBuf>,
}

/// Reads a data set: file names only, no picture is opened.
///
/// # Errors
/// A missing folder (named, with what the layout expects), a name that can't be read, or no pictures at all.
pub fn load(spec: &Spec) -> Result<Dataset, DataError> {
    if !spec.dir.is_dir() {
        return Err(DataError::Missing {
            path: spec.dir.clone(),
            expected: spec.kind.layout().into(),
        });
    }
    let mut dataset = match spec.kind {
        Kind::Market1501 => market1501::load(&spec.dir)?,
        Kind::DukeMtmc => dukemtmc::load(&spec.dir)?,
        Kind::Msmt17 => msmt17::load(&spec.dir)?,
        Kind::Cuhk03 => cuhk03::load(&spec.dir, spec.options)?,
        Kind::Cuhk01 => cuhk01::load(&spec.dir, spec.options.split)?,
        Kind::Mars => mars::load(&spec.dir)?,
        Kind::Folder => folder::load(&spec.dir)?,
        Kind::Harvest => harvest::load(&spec.dir)?,
    };
    let folder = spec.dir.file_name().map(|n| n.to_string_lossy());
    dataset.name = match folder {
        Some(folder) => format!("{} {folder}", spec.kind),
        None => spec.kind.to_string(),
    };
    Ok(dataset)
}

impl Dataset {
    /// With lists, before it has a name.
    pub(super) fn new(kind: Kind, splits: Splits) -> Self {
        Dataset {
            name: kind.to_string(),
            kind,
            train: splits.train,
            query: splits.query,
            gallery: splits.gallery,
            notes: splits.notes,
            verdict: None,
            protocol: Protocol::Standard,
            boxes: None,
        }
    }

    pub(super) fn with_verdict(self, verdict: Verdict) -> Self {
        Dataset {
            verdict: Some(verdict),
            ..self
        }
    }

    pub(super) fn with_protocol(self, protocol: Protocol) -> Self {
        Dataset { protocol, ..self }
    }

    /// True labels of the training pictures, `0..n` by ascending identity (`None` where unknown), and n.
    pub fn train_labels(&self) -> (Vec<Option<u32>>, usize) {
        let identities: BTreeSet<i64> = known(&self.train).collect();
        let identities: Vec<i64> = identities.into_iter().collect();
        let labels = self
            .train
            .iter()
            .map(|s| identities.binary_search(&s.pid).ok().map(|i| i as u32))
            .collect();
        (labels, identities.len())
    }

    /// The pictures of [`Dataset::boxes`] that show a query's person in its camera, sorted by path; `None` if there is no
    /// such folder. Read only when asked for: Market-1501 has 25,000 of them.
    ///
    /// # Errors
    /// If the folder can't be read or a name says nothing.
    pub fn query_boxes(&self) -> Result<Option<Vec<Sample>>, DataError> {
        let Some(folder) = &self.boxes else {
            return Ok(None);
        };
        let (mut samples, _) = market1501::folder(folder, market1501::LAYOUT)?;
        let asked: BTreeSet<(i64, u32)> = self.query.iter().map(|s| (s.pid, s.camera)).collect();
        samples.retain(|s| asked.contains(&(s.pid, s.camera)));
        if samples.is_empty() {
            return Err(DataError::Empty {
                path: folder.clone(),
                expected:
                    "of any query's person in the query's camera; multiple queries are made of them"
                        .into(),
            });
        }
        Ok(Some(samples))
    }

    /// Whether it can be evaluated, by whatever protocol: all of them look for people in other cameras.
    ///
    /// # Errors
    /// [`DataError::NotEvaluable`]: no query or gallery, only one camera, or nobody seen by two.
    pub fn check_evaluable(&self) -> Result<(), DataError> {
        let fail = |reason: String| {
            Err(DataError::NotEvaluable {
                name: self.name.clone(),
                reason,
            })
        };
        if self.query.is_empty() || self.gallery.is_empty() {
            return fail(
                "it has no labelled query and gallery; the standard protocol needs market1501:DIR with query/ and \
                 bounding_box_test/ (training without labels works)"
                    .into(),
            );
        }
        let cameras: BTreeSet<u32> = self
            .query
            .iter()
            .chain(&self.gallery)
            .map(|s| s.camera)
            .collect();
        if let (1, Some(only)) = (cameras.len(), cameras.first()) {
            return fail(format!(
                "all its pictures are of camera {only}; the standard protocol looks for people in *other* cameras and \
                 needs at least two (training works)"
            ));
        }
        let answered = self.query.iter().any(|q| {
            self.gallery
                .iter()
                .any(|g| g.pid == q.pid && g.camera != q.camera)
        });
        if !answered {
            return fail(
                "no query's identity is in the gallery from another camera; check that query/ and bounding_box_test/ \
                 number people the same way"
                    .into(),
            );
        }
        Ok(())
    }

    /// Counts, and what the data are good for.
    pub fn describe(&self) -> Description {
        let (_, identities) = self.train_labels();
        let evaluable = self.check_evaluable();
        Description {
            name: self.name.clone(),
            train: SplitDescription::of(&self.train),
            query: SplitDescription::of(&self.query),
            gallery: SplitDescription::of(&self.gallery),
            trains_without_labels: self.train.len() >= 2,
            trains_with_labels: identities >= 2,
            evaluates: evaluable.is_ok(),
            why_not_evaluated: evaluable.err().map(|e| e.to_string()),
            notes: self.notes.clone(),
            verdict: self.verdict.clone(),
            protocol: self.protocol,
        }
    }
}

/// Identities of labelled pictures, distractors left out.
pub(super) fn known(samples: &[Sample]) -> impl Iterator<Item = i64> {
    samples
        .iter()
        .map(|s| s.pid)
        .filter(|pid| *pid > DISTRACTOR)
}

/// Counts of one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitDescription {
    /// Pictures.
    pub images: usize,
    /// Labelled people.
    pub identities: usize,
    /// Pictures of people never asked for.
    pub distractors: usize,
    /// Pictures without a label.
    pub unlabelled: usize,
    /// Tracklets.
    pub tracklets: usize,
    /// Cameras, ascending.
    pub cameras: Vec<u32>,
}

impl SplitDescription {
    fn of(samples: &[Sample]) -> Self {
        let count = |pid| samples.iter().filter(|s| s.pid == pid).count();
        let tracklets: BTreeSet<(u32, u64)> = samples
            .iter()
            .filter_map(|s| Some((s.camera, s.tracklet?)))
            .collect();
        let cameras: BTreeSet<u32> = samples.iter().map(|s| s.camera).collect();
        SplitDescription {
            images: samples.len(),
            identities: known(samples).collect::<BTreeSet<_>>().len(),
            distractors: count(DISTRACTOR),
            unlabelled: count(UNKNOWN),
            tracklets: tracklets.len(),
            cameras: cameras.into_iter().collect(),
        }
    }
}

/// What `reid-train data SPEC` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Data set.
    pub name: String,
    /// Pictures to train on.
    pub train: SplitDescription,
    /// Queries.
    pub query: SplitDescription,
    /// Gallery.
    pub gallery: SplitDescription,
    /// Enough pictures for an unsupervised method.
    pub trains_without_labels: bool,
    /// Enough labelled people for a supervised method.
    pub trains_with_labels: bool,
    /// It can be evaluated.
    pub evaluates: bool,
    /// Why it can't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not_evaluated: Option<String>,
    /// What was left out while reading.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Whether it is the set that papers report on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// How papers evaluate on it.
    #[serde(default)]
    pub protocol: Protocol,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "{}", self.name)?;
        for (name, split) in [
            ("train", &self.train),
            ("query", &self.query),
            ("gallery", &self.gallery),
        ] {
            write!(
                f,
                "  {name:<8} {:>7} images  {:>6} identities  {:>3} cameras",
                split.images,
                split.identities,
                split.cameras.len()
            )?;
            for (count, what) in [
                (split.tracklets, "tracklets"),
                (split.distractors, "distractor images"),
                (split.unlabelled, "unlabelled"),
            ] {
                if count > 0 {
                    write!(f, "  {count} {what}")?;
                }
            }
            writeln!(f)?;
        }
        let yes = |b| if b { "yes" } else { "no" };
        writeln!(
            f,
            "  trains without labels: {}",
            yes(self.trains_without_labels)
        )?;
        writeln!(
            f,
            "  trains with labels:    {}",
            yes(self.trains_with_labels)
        )?;
        write!(f, "  can be evaluated:      {}", yes(self.evaluates))?;
        if let Some(reason) = &self.why_not_evaluated {
            write!(f, " ({reason})")?;
        }
        if self.protocol == Protocol::SingleShot {
            write!(
                f,
                "\n  published results are single-shot: one gallery image per identity, mean over draws"
            )?;
        }
        if self.protocol == Protocol::Tracklets {
            write!(
                f,
                "\n  published results are of tracklets: the pooled features of their images"
            )?;
        }
        for note in &self.notes {
            write!(f, "\n  note: {note}")?;
        }
        if let Some(verdict) = &self.verdict {
            write!(f, "\n{verdict}")?;
        }
        Ok(())
    }
}
