//! Features of many pictures, by a network or by a runtime's model.

use std::sync::Arc;

use anyhow::{Result, bail};
use candle_core::Device;
use reid_models::distance::check_embedding;
use reid_models::graph::EMBEDDING;
use reid_models::runtime::Embedder;

use crate::capacity;
use crate::data::PictureStore;
use crate::data::loader::{LoaderConfig, eval_batches};
use crate::methods::Features;
use crate::nn::device::Feed;
use crate::nn::{Mode, Net};

/// Pictures that go through the network at a time.
const BATCH: usize = 64;

/// Unit embeddings of all pictures of a store, in order, by a network in evaluation mode.
///
/// # Errors
/// If a picture can't be read (and the store doesn't tolerate it), an embedding isn't finite (names the picture), or memory
/// doesn't suffice.
pub fn features(net: &Net, store: &Arc<PictureStore>) -> Result<Features> {
    let width = net.graph().width(EMBEDDING)?;
    let mut feed = Feed::new(net.device())?;
    let threads = match net.device() {
        Device::Cpu => LoaderConfig::default(),
        _ => LoaderConfig::beside(true, 0),
    };
    collect(store, width, threads, |count, pictures| {
        let spec = store.spec();
        let images = feed.tensor(pictures, &[count, 3, spec.height, spec.width])?;
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
    collect(store, width, LoaderConfig::default(), |count, pictures| {
        Ok((embedder.embed_tensor(count, &pictures)?.concat(), width))
    })
}

fn collect(
    store: &Arc<PictureStore>,
    width: usize,
    threads: LoaderConfig,
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
    for batch in eval_batches(store, BATCH, threads) {
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

/// Identities and cameras of a store's pictures.
pub fn labels(store: &PictureStore) -> (Vec<i64>, Vec<i64>) {
    store
        .samples()
        .iter()
        .map(|s| (s.pid, i64::from(s.camera)))
        .unzip()
}
