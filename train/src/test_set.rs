//! The test half of a data set, and how it is evaluated: which pictures ask, which are searched, and what is pooled.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use reid_models::card::InputSpec;

use crate::config::usage;
use crate::data::{self, Corrupt, Dataset, Kind, PictureStore, Sample};
use crate::eval::npz::{FeatureFile, FeatureSet};
use crate::eval::pool::{self, Pooling};
use crate::eval::protocol::{self, Outcome, Protocol, Settings};
use crate::eval::rank::{Metric, ranked_lists};
use crate::eval::ranked::{SheetRow, write_contact_sheet};
use crate::extract::{features, labels};
use crate::methods::Features;
use crate::nn::Net;
use crate::rerank::neighbourhoods;

/// The protocols that make sense for a data set, first the one that papers use.
pub fn protocols(dataset: &Dataset) -> &'static [Protocol] {
    match (dataset.protocol, dataset.kind) {
        (data::Protocol::Standard, _) => &[Protocol::Market, Protocol::MultiQuery],
        (data::Protocol::SingleShot, Kind::Cuhk01) => &[Protocol::Cuhk01, Protocol::Market],
        (data::Protocol::SingleShot, _) => &[
            Protocol::Cuhk03,
            Protocol::Cuhk03Torchreid,
            Protocol::Market,
        ],
        (data::Protocol::Tracklets, _) => &[Protocol::Video],
    }
}

/// The protocol to use: the one asked for, or else the data set's own.
///
/// # Errors
/// A usage error naming the protocols that make sense for this data set.
pub fn choose(dataset: &Dataset, asked: Option<Protocol>) -> Result<Protocol> {
    let known = protocols(dataset);
    match asked {
        None => Ok(known[0]),
        Some(protocol) if known.contains(&protocol) => Ok(protocol),
        Some(protocol) => {
            let known: Vec<String> = known.iter().map(Protocol::to_string).collect();
            Err(usage(format!(
                "--protocol {protocol}: {} is evaluated by {}; leave the option out for {}",
                dataset.name,
                known.join(" or "),
                known[0]
            )))
        }
    }
}

/// The pictures that an evaluation needs.
pub struct Test {
    protocol: Protocol,
    query: Arc<PictureStore>,
    gallery: Arc<PictureStore>,
    /// Multiple queries: more pictures of the queried people, where the data set has them.
    boxes: Option<Arc<PictureStore>>,
}

/// One side of the comparison.
pub struct Side {
    /// Features and labels, a row per picture or tracklet.
    pub set: FeatureSet,
    /// A picture of each row, to look at: of a tracklet, its first.
    pub shown: Vec<Sample>,
}

/// Both sides, pooled as the protocol says.
pub struct Sides {
    /// By which protocol they are compared.
    pub protocol: Protocol,
    /// Who is asked for.
    pub query: Side,
    /// What is searched.
    pub gallery: Side,
}

impl Test {
    /// Prepares the test pictures for inputs of `spec`, by a protocol or the data set's own; at most `cache_bytes` of them stay
    /// decoded.
    ///
    /// # Errors
    /// As [`choose`], if the boxes of multiple queries can't be read, or if the input isn't one the trainer can make.
    pub fn new(
        dataset: &Dataset,
        asked: Option<Protocol>,
        spec: &InputSpec,
        cache_bytes: usize,
    ) -> Result<Self> {
        Self::prepare(dataset, asked, spec, cache_bytes, None)
    }

    /// As [`Test::new`] by the data set's own protocol; pictures that cannot be read are noted in `corrupt` and count as not
    /// being there. What is measured then is no longer the benchmark: for the evaluations during a training.
    ///
    /// # Errors
    /// As [`Test::new`].
    pub fn tolerating(
        dataset: &Dataset,
        spec: &InputSpec,
        cache_bytes: usize,
        corrupt: &Arc<Corrupt>,
    ) -> Result<Self> {
        Self::prepare(dataset, None, spec, cache_bytes, Some(corrupt))
    }

    fn prepare(
        dataset: &Dataset,
        asked: Option<Protocol>,
        spec: &InputSpec,
        cache_bytes: usize,
        corrupt: Option<&Arc<Corrupt>>,
    ) -> Result<Self> {
        let protocol = choose(dataset, asked)?;
        let (mut query, mut gallery) = (dataset.query.clone(), dataset.gallery.clone());
        if protocol == Protocol::Cuhk03 {
            // Classic CUHK03 lists every picture on both sides; Li et al. ask with one camera and search the other.
            query.retain(|s| s.camera == 1);
            gallery.retain(|s| s.camera != 1);
        }
        let boxes = match protocol {
            Protocol::MultiQuery => dataset.query_boxes()?,
            _ => None,
        };
        let store = |samples, bytes| -> Result<Arc<PictureStore>> {
            let store = PictureStore::new(samples, spec, bytes)?;
            Ok(Arc::new(match corrupt {
                Some(corrupt) => store.tolerating(corrupt.clone()),
                None => store,
            }))
        };
        Ok(Test {
            protocol,
            query: store(query, cache_bytes / 2)?,
            gallery: store(gallery, cache_bytes / 2)?,
            // Read once: nothing of them is kept.
            boxes: boxes.map(|samples| store(samples, 0)).transpose()?,
        })
    }

    /// By which protocol.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Features of both sides by `embed` (unit rows, one per picture of a store), pooled if the protocol wants it.
    ///
    /// Without boxes of its own, a multiple query is made of the test pictures of its person in its camera: those of the
    /// gallery are the ones that its ranking leaves out anyway.
    ///
    /// # Errors
    /// As `embed`, and as [`pool::multi_query`] and [`pool::tracklets`].
    pub fn sides(
        &self,
        pooling: Pooling,
        mut embed: impl FnMut(&Arc<PictureStore>) -> Result<Features>,
    ) -> Result<Sides> {
        let mut query = side(&self.query, embed(&self.query)?);
        let mut gallery = side(&self.gallery, embed(&self.gallery)?);
        match self.protocol {
            Protocol::Video => {
                query = pooled(query, pooling)?;
                gallery = pooled(gallery, pooling)?;
            }
            Protocol::MultiQuery => {
                let boxes = match &self.boxes {
                    Some(store) => side(store, embed(store)?).set,
                    None => joined(&query.set, &gallery.set),
                };
                let asked = query.set.embeddings().labels;
                query.set.features = pool::multi_query(&boxes.embeddings(), &asked, pooling)?;
            }
            _ => {}
        }
        Ok(Sides {
            protocol: self.protocol,
            query,
            gallery,
        })
    }

    /// Evaluates a network, with the usual settings.
    ///
    /// # Errors
    /// If a picture can't be read or no query has an answer.
    pub fn evaluate(&self, net: &Net) -> Result<Outcome> {
        let settings = Settings::default();
        self.sides(settings.pooling, |store| features(net, store))?
            .evaluate(&settings)
    }

    /// Writes the features of both sides, a row per picture, as `reid-train rank` reads them; of tracklets, their numbers too.
    ///
    /// # Errors
    /// As `embed`, or if the file can't be written.
    pub fn write_features(
        &self,
        path: &Path,
        mut embed: impl FnMut(&Arc<PictureStore>) -> Result<Features>,
    ) -> Result<()> {
        let file = FeatureFile {
            query: side(&self.query, embed(&self.query)?).set,
            gallery: side(&self.gallery, embed(&self.gallery)?).set,
        };
        if self.protocol != Protocol::Video {
            return Ok(file.write(path)?);
        }
        let (query, gallery) = (
            tracklet_numbers(self.query.samples())?,
            tracklet_numbers(self.gallery.samples())?,
        );
        let numbers: [(&str, &[i64]); 2] =
            [("query_tracklets", &query), ("gallery_tracklets", &gallery)];
        Ok(file.write_with(path, &numbers)?)
    }

    /// Pictures of the two sides.
    pub fn pictures(&self) -> (usize, usize) {
        (self.query.len(), self.gallery.len())
    }
}

impl Sides {
    /// Evaluates by the protocol.
    ///
    /// # Errors
    /// If no query has an answer, or the settings don't go with the protocol.
    pub fn evaluate(&self, settings: &Settings) -> Result<Outcome> {
        Ok(protocol::evaluate(
            self.protocol,
            Metric::Cosine,
            &self.query.set.embeddings(),
            &self.gallery.set.embeddings(),
            settings,
            &neighbourhoods,
        )?)
    }

    /// Writes a contact sheet (PNG) of up to 20 queries, evenly spread, with their ten best answers in the whole gallery.
    ///
    /// # Errors
    /// If a picture can't be read or the file can't be written.
    pub fn write_sheet(&self, path: &Path) -> Result<()> {
        let count = self.query.shown.len();
        let which: Vec<usize> = (0..count).step_by(count.div_ceil(20).max(1)).collect();
        let (query, gallery) = (self.query.set.embeddings(), self.gallery.set.embeddings());
        let lists = ranked_lists(&query, &gallery, &which, 10)?;
        let rows: Vec<SheetRow> = which
            .iter()
            .zip(lists)
            .map(|(&q, hits)| SheetRow {
                query: self.query.shown[q].path.clone(),
                answers: hits
                    .iter()
                    .map(|h| (self.gallery.shown[h.gallery].path.clone(), h.right))
                    .collect(),
            })
            .collect();
        Ok(write_contact_sheet(&rows, path)?)
    }
}

/// Features with the labels of their pictures; pictures that could not be read are left out.
fn side(store: &PictureStore, made: Features) -> Side {
    let (pids, cameras) = labels(store);
    let mut side = Side {
        set: FeatureSet {
            features: made.rows,
            width: made.width,
            pids,
            cameras,
        },
        shown: store.samples().to_vec(),
    };
    for &index in made.missing.iter().rev() {
        let set = &mut side.set;
        set.features
            .drain(index * set.width..(index + 1) * set.width);
        set.pids.remove(index);
        set.cameras.remove(index);
        side.shown.remove(index);
    }
    side
}

/// Rows of two sets, one after the other.
fn joined(one: &FeatureSet, other: &FeatureSet) -> FeatureSet {
    FeatureSet {
        features: [one.features.as_slice(), &other.features].concat(),
        width: one.width,
        pids: [one.pids.as_slice(), &other.pids].concat(),
        cameras: [one.cameras.as_slice(), &other.cameras].concat(),
    }
}

/// Pictures to tracklets, by ascending number.
fn pooled(pictures: Side, pooling: Pooling) -> Result<Side> {
    let numbers = tracklet_numbers(&pictures.shown)?;
    let mut first: BTreeMap<i64, &Sample> = BTreeMap::new();
    for (number, sample) in numbers.iter().zip(&pictures.shown) {
        first.entry(*number).or_insert(sample);
    }
    Ok(Side {
        set: pool::tracklets(&pictures.set.embeddings(), &numbers, pooling)?,
        shown: first.into_values().cloned().collect(),
    })
}

fn tracklet_numbers(samples: &[Sample]) -> Result<Vec<i64>> {
    samples
        .iter()
        .map(|s| {
            s.tracklet
                .and_then(|number| i64::try_from(number).ok())
                .ok_or_else(|| anyhow::anyhow!("{}: no tracklet is known for it", s.path.display()))
        })
        .collect()
}
