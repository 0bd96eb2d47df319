//! Features of many pictures, by a network or by a runtime's model.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use reid_models::distance::{check_embedding, normalize};
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
    features_of(net, store, false)
}

/// As [`features`]; with `flip` an embedding is the sum of the picture's and its mirror image's, made unit, as SSG, SCR and CANU
/// are evaluated.
///
/// # Errors
/// As [`features`].
pub fn features_of(net: &Net, store: &Arc<PictureStore>, flip: bool) -> Result<Features> {
    let one = outputs(net, store, &[EMBEDDING], flip)?.pop();
    one.context("the network has no embedding")
}

/// As [`features`], the outputs of several roles, each made unit rows. With `flip` a row is the sum of the picture's and its
/// mirror image's outputs, made unit.
///
/// # Errors
/// As [`features`].
pub fn outputs(
    net: &Net,
    store: &Arc<PictureStore>,
    roles: &[&str],
    flip: bool,
) -> Result<Vec<Features>> {
    let widths = roles.iter().map(|role| net.graph().width(role));
    let widths = widths.collect::<Result<Vec<usize>, _>>()?;
    let mut feed = Feed::new(net.device())?;
    let threads = match net.device() {
        Device::Cpu => LoaderConfig::default(),
        _ => LoaderConfig::beside(true, 0),
    };
    let spec = store.spec().clone();
    let mut all = collect(store, widths.iter().sum(), threads, |count, pictures| {
        let shape = [count, 3, spec.height, spec.width];
        let mut pass = |pictures: Vec<f32>| -> Result<Tensor> {
            let images = feed.tensor(pictures, &shape)?;
            let outputs = net.forward_no_grad(&images, Mode::Eval, roles)?;
            let wanted = roles.iter().map(|role| outputs[*role].clone());
            Ok(Tensor::cat(&wanted.collect::<Vec<_>>(), 1)?)
        };
        let mirrored = flip.then(|| mirror(&pictures, spec.width));
        let mut rows = pass(pictures)?;
        if let Some(mirrored) = mirrored {
            rows = (rows + pass(mirrored)?)?;
        }
        Ok((rows.flatten_all()?.to_vec1::<f32>()?, rows.dim(1)?))
    })?;
    let missing = std::mem::take(&mut all.missing);
    let mut start = 0;
    let parts = widths.into_iter().map(|width| {
        let whole = all.rows.chunks_exact(all.width);
        let mut rows: Vec<f32> = whole
            .flat_map(|row| &row[start..start + width])
            .copied()
            .collect();
        start += width;
        for row in rows.chunks_exact_mut(width) {
            normalize(row)?;
        }
        Ok(Features {
            rows,
            width,
            missing: missing.clone(),
        })
    });
    parts.collect()
}

/// Pictures seen in a mirror: every line backwards.
fn mirror(pictures: &[f32], width: usize) -> Vec<f32> {
    let lines = pictures.chunks_exact(width);
    lines.flat_map(|line| line.iter().rev()).copied().collect()
}

/// As [`features_of`], by an ONNX file.
///
/// # Errors
/// As [`features`], or if the runtime refuses the input.
pub fn onnx_features(
    embedder: &mut Embedder,
    store: &Arc<PictureStore>,
    flip: bool,
) -> Result<Features> {
    let width = embedder.width();
    let columns = store.spec().width;
    collect(store, width, LoaderConfig::default(), |count, pictures| {
        let mut rows = embedder.embed_tensor(count, &pictures)?.concat();
        if flip {
            let mirrored = embedder.embed_tensor(count, &mirror(&pictures, columns))?;
            let both = rows.iter_mut().zip(mirrored.iter().flatten());
            both.for_each(|(a, b)| *a += b);
            for row in rows.chunks_exact_mut(width) {
                normalize(row)?;
            }
        }
        Ok((rows, width))
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

#[cfg(test)]
mod tests {
    use super::mirror;

    #[test]
    fn every_line_is_turned_by_itself() {
        let two_lines = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(mirror(&two_lines, 3), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
        assert_eq!(mirror(&mirror(&two_lines, 3), 3), two_lines);
    }
}
