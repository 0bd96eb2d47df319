//! The batches of an epoch: loading, launching, and only then waiting.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use anyhow::Result;
use candle_core::Tensor;
use indicatif::{ProgressBar, ProgressStyle};

use super::Trainer;
use crate::config::TrainConfig;
use crate::data::loader::{LoaderConfig, Plan, train_batches};
use crate::methods::Batch;
use crate::nn::device::Feed;
use crate::nn::optim::GradNorm;
use crate::nn::{backward, finite_loss};

impl Trainer {
    /// Runs the batches; returns mean terms, mean gradient norm and the number of pictures.
    pub(super) fn iterations(
        &mut self,
        epoch: usize,
        plan: Plan,
        beside: Option<Plan>,
        lr: f64,
    ) -> Result<(BTreeMap<&'static str, f64>, f64, usize)> {
        let count = plan.batches.len();
        let bar = progress_bar(
            count,
            &format!("epoch {}/{}", epoch + 1, self.config.train.epochs),
        );
        let store = self.store.clone();
        let spec = store.spec().clone();
        let device = self.method.net().device();
        let mut feed = Feed::new(device)?;
        let threads = LoaderConfig::beside(device.is_cuda(), self.config.train.workers);
        let (mut sums, mut norms, mut images) = (BTreeMap::<&'static str, f64>::new(), 0.0, 0);
        let mut batches = train_batches(&self.store, plan, threads);
        let others = self.others.beside.as_ref().zip(beside);
        let mut others = others.map(|(store, plan)| train_batches(store, plan, threads));
        let mut next = || -> Result<Option<(usize, Batch)>> {
            let Some(loaded) = batches.next().transpose()? else {
                return Ok(None);
            };
            let shape = [loaded.indices.len(), 3, spec.height, spec.width];
            let views = loaded.views.into_iter().map(|v| feed.tensor(v, &shape));
            let samples = store.samples();
            let beside = match others.as_mut().and_then(Iterator::next).transpose()? {
                Some(other) => other.views.into_iter().next(),
                None => None,
            };
            let batch = Batch {
                cameras: loaded.indices.iter().map(|i| samples[*i].camera).collect(),
                indices: loaded.indices,
                labels: loaded.labels,
                views: views.collect::<Result<_, _>>()?,
                beside: beside.map(|v| feed.tensor(v, &shape)).transpose()?,
            };
            Ok(Some((loaded.number, batch)))
        };
        let mut coming = next()?;
        while let Some((number, batch)) = coming {
            let mut launch = || -> Result<Launched> {
                let loss = self.method.loss(&batch)?;
                let grads = backward(&loss.total)?;
                let norms = self.optimisers.step_later(&grads, lr)?;
                drop(grads);
                self.method.after_step(&batch, &loss.kept)?;
                Ok(Launched {
                    terms: loss.terms,
                    norms,
                })
            };
            let named = |e: anyhow::Error| {
                let e = e.context(format!("iteration {}", number + 1));
                out_of_memory(e, &batch, &self.config.train)
            };
            let launched = launch().map_err(named)?;
            // A GPU is busy now: the moment to bring the next batch, before waiting for the results of this one.
            coming = next()?;
            let (terms, norm) = launched.read().map_err(named)?;
            for (name, value) in terms {
                *sums.entry(name).or_default() += f64::from(value) / count as f64;
            }
            norms += norm / count as f64;
            images += batch.indices.len();
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok((sums, norms, images))
    }
}

/// A step that a GPU may still be computing.
struct Launched {
    terms: Vec<(&'static str, Tensor)>,
    norms: Vec<GradNorm>,
}

impl Launched {
    /// Waits for the loss's terms and the sum of the gradients' norms. One that isn't finite has changed no parameter.
    fn read(self) -> Result<(Vec<(&'static str, f32)>, f64)> {
        let terms = self.terms.into_iter();
        let terms = terms
            .map(|(name, value)| Ok((name, finite_loss(name, &value)?)))
            .collect::<Result<_>>()?;
        let norms = self.norms.iter().map(GradNorm::read);
        Ok((terms, norms.sum::<Result<f64, _>>()?))
    }
}

/// What a GPU that ran out of memory says, with what to change.
fn out_of_memory(error: anyhow::Error, batch: &Batch, train: &TrainConfig) -> anyhow::Error {
    let said = format!("{error:#}");
    // Drivers and libraries of NVIDIA name it in these ways.
    let ran_out = ["OUT_OF_MEMORY", "out of memory", "ALLOC_FAILED"];
    if !ran_out.iter().any(|words| said.contains(words)) {
        return error;
    }
    let [_, _, height, width] = batch.views.first().map_or([0; 4], |v| {
        let mut dims = [0; 4];
        dims.iter_mut().zip(v.dims()).for_each(|(d, n)| *d = *n);
        dims
    });
    error.context(format!(
        "the GPU has not enough memory for batches of {} pictures ({} x {}) of {height} x {width} in {} views: lower \
         train.instances (now {}) or train.identities (now {}), or model.size",
        batch.indices.len(),
        train.identities,
        train.instances,
        batch.views.len(),
        train.instances,
        train.identities,
    ))
}

/// A bar on a terminal, nothing in a pipe.
pub fn progress_bar(count: usize, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} [{wide_bar}] {pos}/{len} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    ProgressBar::new(count as u64)
        .with_style(style)
        .with_prefix(what.to_string())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn memory_that_ran_out_names_batch_size_and_keys() {
        let batch = Batch {
            indices: vec![0; 32],
            labels: vec![0; 32],
            cameras: vec![0; 32],
            views: vec![
                Tensor::zeros((32, 3, 256, 128), DType::F32, &Device::Cpu).expect("zeros");
                3
            ],
            beside: None,
        };
        let train = TrainConfig::default();
        let said = |words: &'static str| {
            let error = anyhow::anyhow!(words).context("iteration 1");
            format!("{:#}", out_of_memory(error, &batch, &train))
        };
        for words in [
            "a matrix product: CUDA says CUDA_ERROR_OUT_OF_MEMORY (out of memory)",
            "cuDNN: Forward: CUDNN_STATUS_ALLOC_FAILED",
        ] {
            let text = said(words);
            for part in [
                "32 pictures (8 x 4) of 256 x 128 in 3 views",
                "train.instances (now 4)",
                "train.identities (now 8)",
                "iteration 1",
                words,
            ] {
                assert!(text.contains(part), "{text}");
            }
        }
        assert!(!said("shapes differ").contains("memory"));
    }
}
