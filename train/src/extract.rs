//! Features of many pictures, and the evaluation of a network or of a runtime's model on a test set.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use reid_models::card::InputSpec;
use reid_models::distance::check_embedding;
use reid_models::graph::EMBEDDING;
use reid_models::runtime::Embedder;

use crate::capacity;
use crate::data::loader::{LoaderConfig, eval_batches};
use crate::data::{Corrupt, Dataset, PictureStore};
use crate::eval::rank::JUNK;
use crate::eval::ranked::{SheetRow, write_contact_sheet};
use crate::eval::rerank::Lambda;
use crate::eval::{self, Embeddings, Labels, Ranking};
use crate::methods::Features;
use crate::nn::{Mode, Net};
use crate::rerank;

/// Pictures that go through the network at a time.
const BATCH: usize = 64;

/// Unit embeddings of all pictures of a store, in order, by a network in evaluation mode.
///
/// # Errors
/// If a picture can't be read (and the store doesn't tolerate it), an embedding isn't finite (names the picture), or memory
/// doesn't suffice.
pub fn features(net: &Net, store: &Arc<PictureStore>) -> Result<Features> {
    let width = net.graph().width(EMBEDDING)?;
    collect(store, width, |count, pictures| {
        let spec = store.spec();
        let images = Tensor::from_vec(pictures, (count, 3, spec.height, spec.width), &Device::Cpu)?;
        let outputs = net.forward_no_grad(&images, Mode::Eval, &[EMBEDDING])?;
        let Some(embedding) = outputs.get(EMBEDDING) else {
            bail!("the network has no embedding")
        };
        let width = embedding.dim(1)?;
        Ok((embedding.flatten_all()?.to_vec1::<f32>()?, width))
    })
}

/// As [`features`], by an ONNX file.
///
/// # Errors
/// As [`features`], or if the runtime refuses the input.
pub fn onnx_features(embedder: &mut Embedder, store: &Arc<PictureStore>) -> Result<Features> {
    let width = embedder.width();
    collect(store, width, |count, pictures| {
        Ok((embedder.embed_tensor(count, &pictures)?.concat(), width))
    })
}

fn collect(
    store: &Arc<PictureStore>,
    width: usize,
    mut embed: impl FnMut(usize, Vec<f32>) -> Result<(Vec<f32>, usize)>,
) -> Result<Features> {
    capacity::require(
        &format!(
            "the features of {} pictures, {width} numbers each,",
            store.len()
        ),
        capacity::bytes(store.len(), width, 4),
        "use fewer pictures, or end other programs",
    )?;
    let mut all = Features {
        rows: Vec::with_capacity(store.len() * width),
        ..Features::default()
    };
    for batch in eval_batches(store, BATCH, LoaderConfig::default()) {
        let batch = batch?;
        let (mut rows, width) = embed(batch.indices.len(), batch.pictures)?;
        for (index, row) in batch.indices.zip(rows.chunks_exact_mut(width)) {
            if batch.missing.binary_search(&index).is_ok() {
                row.fill(0.0);
                continue;
            }
            if let Err(e) = check_embedding(row) {
                bail!("{}: {e}", store.samples()[index].path.display());
            }
        }
        all.width = width;
        all.rows.extend(rows);
        all.missing.extend(batch.missing);
    }
    Ok(all)
}

/// Query and gallery of a data set.
pub struct Test {
    /// Query pictures.
    pub query: Arc<PictureStore>,
    /// Gallery pictures, distractors included.
    pub gallery: Arc<PictureStore>,
}

impl Test {
    /// Prepares the test pictures for inputs of `spec`; at most `cache_bytes` of them stay decoded.
    ///
    /// # Errors
    /// If the input isn't one the trainer can make.
    pub fn new(dataset: &Dataset, spec: &InputSpec, cache_bytes: usize) -> Result<Self> {
        Self::prepare(dataset, spec, cache_bytes, None)
    }

    /// As [`Test::new`]; pictures that cannot be read are noted in `corrupt` and count as not being there. What is measured
    /// then is no longer the benchmark: for the evaluations during a training.
    ///
    /// # Errors
    /// As [`Test::new`].
    pub fn tolerating(
        dataset: &Dataset,
        spec: &InputSpec,
        cache_bytes: usize,
        corrupt: &Arc<Corrupt>,
    ) -> Result<Self> {
        Self::prepare(dataset, spec, cache_bytes, Some(corrupt))
    }

    fn prepare(
        dataset: &Dataset,
        spec: &InputSpec,
        cache_bytes: usize,
        corrupt: Option<&Arc<Corrupt>>,
    ) -> Result<Self> {
        let store = |samples: &[_]| -> Result<PictureStore> {
            let store = PictureStore::new(samples.to_vec(), spec, cache_bytes / 2)?;
            Ok(match corrupt {
                Some(corrupt) => store.tolerating(corrupt.clone()),
                None => store,
            })
        };
        Ok(Test {
            query: Arc::new(store(&dataset.query)?),
            gallery: Arc::new(store(&dataset.gallery)?),
        })
    }

    /// The standard protocol for a network.
    ///
    /// # Errors
    /// If a picture can't be read or no query has an answer.
    pub fn evaluate(&self, net: &Net) -> Result<Ranking> {
        self.rank(&features(net, &self.query)?, &features(net, &self.gallery)?)
    }

    /// The standard protocol for features made elsewhere, one row per picture.
    ///
    /// # Errors
    /// If no query has an answer.
    pub fn rank(&self, query: &Features, gallery: &Features) -> Result<Ranking> {
        self.with_sides(query, gallery, |q, g| Ok(eval::evaluate(q, g)?))
    }

    /// As [`Test::rank`], with k-reciprocal re-ranking.
    ///
    /// # Errors
    /// As [`Test::rank`].
    pub fn rerank(&self, query: &Features, gallery: &Features) -> Result<Ranking> {
        self.with_sides(query, gallery, |q, g| {
            let joined = eval::rerank::joined(q, g)?;
            let near = rerank::neighbourhoods(&joined, q.width).map_err(anyhow::Error::msg)?;
            Ok(eval::rerank::evaluate_reranked(
                q,
                g,
                near.as_ref(),
                Lambda::default(),
            )?)
        })
    }

    /// Writes a contact sheet (PNG) of up to 20 queries, evenly spread, with their ten best answers.
    ///
    /// # Errors
    /// If a picture can't be read or the file can't be written.
    pub fn write_sheet(&self, query: &Features, gallery: &Features, path: &Path) -> Result<()> {
        let count = self.query.len();
        let which: Vec<usize> = (0..count).step_by(count.div_ceil(20).max(1)).collect();
        let lists = self.with_sides(query, gallery, |q, g| {
            Ok(eval::rank::ranked_lists(q, g, &which, 10)?)
        })?;
        let picture = |store: &PictureStore, i: usize| store.samples()[i].path.clone();
        let rows: Vec<SheetRow> = which
            .iter()
            .zip(lists)
            .map(|(&q, hits)| SheetRow {
                query: picture(&self.query, q),
                answers: hits
                    .iter()
                    .map(|h| (picture(&self.gallery, h.gallery), h.right))
                    .collect(),
            })
            .collect();
        Ok(write_contact_sheet(&rows, path)?)
    }

    /// Query and gallery as the evaluation takes them, with the labels of the pictures.
    pub(crate) fn with_sides<T>(
        &self,
        query: &Features,
        gallery: &Features,
        run: impl FnOnce(&Embeddings, &Embeddings) -> Result<T>,
    ) -> Result<T> {
        let side = |store, features: &Features| {
            let (mut pids, cameras) = labels(store);
            // Junk is neither asked for nor found.
            features.missing.iter().for_each(|i| pids[*i] = JUNK);
            (pids, cameras)
        };
        let (q, g) = (side(&self.query, query), side(&self.gallery, gallery));
        run(
            &embeddings(query, &q.0, &q.1),
            &embeddings(gallery, &g.0, &g.1),
        )
    }
}

fn embeddings<'a>(features: &'a Features, pids: &'a [i64], cameras: &'a [i64]) -> Embeddings<'a> {
    Embeddings {
        features: &features.rows,
        width: features.width,
        labels: Labels { pids, cameras },
    }
}

/// Identities and cameras of a store's pictures.
pub fn labels(store: &PictureStore) -> (Vec<i64>, Vec<i64>) {
    store
        .samples()
        .iter()
        .map(|s| (s.pid, i64::from(s.camera)))
        .unzip()
}
