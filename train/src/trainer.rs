//! The loop around a [`Method`]: epochs, optimisers, evaluation, logs, checkpoints, resume.

mod iterations;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use reid_models::card::InputSpec;
use reid_models::weights::Weights;
use serde_json::{Value, json};

use crate::capacity;
use crate::clustering::agreement::{agreement, camera_information, lost_identities};
use crate::config::{RunConfig, usage};
use crate::data::loader::Plan;
use crate::data::store::cache_budget;
use crate::data::{Augment, Corrupt, Dataset, PictureStore, PkSampler, Sample, Strategy};
use crate::eval::plots;
use crate::eval::protocol::Outcome;
use crate::extract::features;
use crate::methods::{Extract, Features, Method, Sampling, View};
use crate::nn::Net;
use crate::nn::optim::{Adam, AdamConfig, ParamGroup};
use crate::nn::schedule::{Decay, Schedule};
use crate::run::{Checkpoint, Progress, RunFolder};
use crate::tensorboard;
use crate::test_set::Test;

/// A training in progress.
pub struct Trainer {
    pub(crate) config: RunConfig,
    run: RunFolder,
    pub(crate) method: Box<dyn Method>,
    /// One optimiser per group, by the group's name; made when the groups are known, after the first relabel.
    optimisers: BTreeMap<&'static str, Adam>,
    /// Saved moments that wait for their optimiser.
    pending: BTreeMap<String, Weights>,
    pub(crate) store: Arc<PictureStore>,
    pub(crate) dataset: Dataset,
    test: Option<Test>,
    /// Unreadable pictures, of training and evaluation together.
    corrupt: Arc<Corrupt>,
    progress: Progress,
}

pub(crate) struct Extractor<'a> {
    pub(crate) store: &'a Arc<PictureStore>,
    pub(crate) dataset: &'a Dataset,
}

impl Extract for Extractor<'_> {
    fn samples(&self) -> &[Sample] {
        self.store.samples()
    }
    fn features(&mut self, net: &Net) -> Result<Features> {
        features(net, self.store)
    }
    fn truth(&self) -> (Vec<Option<u32>>, usize) {
        self.dataset.train_labels()
    }
}

impl Trainer {
    /// Prepares a training; nothing is read or computed yet besides the file lists.
    ///
    /// # Errors
    /// If there is nothing to train on.
    pub fn new(
        config: RunConfig,
        run: RunFolder,
        method: Box<dyn Method>,
        dataset: Dataset,
        init: String,
    ) -> Result<Self> {
        if dataset.train.len() < 2 {
            return Err(usage(format!(
                "{}: {} training pictures are too few, at least 2 are needed",
                dataset.name,
                dataset.train.len()
            )));
        }
        let backbone = config.model.backbone()?;
        let spec = InputSpec::imagenet(backbone.height, backbone.input_width);
        let picture = 3 * spec.height * spec.width;
        let tested = dataset.query.len() + dataset.gallery.len();
        let wanted = [dataset.train.len() * picture, tested * picture];
        let budget = cache_budget(config.train.cache_mib, wanted, capacity::available());
        let corrupt = Arc::new(Corrupt::new(config.data.max_corrupt));
        let store = PictureStore::new(dataset.train.clone(), &spec, budget)?;
        let store = Arc::new(store.tolerating(corrupt.clone()));
        let test = match dataset.check_evaluable() {
            Ok(()) => Some(Test::tolerating(&dataset, &spec, budget, &corrupt)?),
            Err(reason) => {
                tracing::info!("no evaluation: {reason}");
                None
            }
        };
        Ok(Trainer {
            config,
            run,
            method,
            optimisers: BTreeMap::new(),
            pending: BTreeMap::new(),
            store,
            dataset,
            test,
            corrupt,
            progress: Progress {
                epochs_done: 0,
                init,
            },
        })
    }

    /// Continues from the run's checkpoint, if there is one.
    ///
    /// # Errors
    /// If it is broken or belongs to another configuration.
    pub fn resume(&mut self) -> Result<()> {
        let Some(Checkpoint { progress, weights }) = self.run.load_checkpoint()? else {
            tensorboard::resume(&self.run.file("tensorboard"), 0)?;
            return self.run.trim_metrics(None);
        };
        self.run.trim_metrics(Some(progress.epochs_done))?;
        tensorboard::resume(&self.run.file("tensorboard"), progress.epochs_done + 1)?;
        let (optimisers, state) = weights
            .into_iter()
            .partition(|(name, _)| name.starts_with(OPTIMISER_PREFIX));
        self.method.load_state(&state)?;
        self.pending = optimisers;
        self.progress = progress;
        Ok(())
    }

    /// Trains to the end; returns the last row of metrics.
    ///
    /// # Errors
    /// If a picture can't be read, a file can't be written, or the training diverges or collapses.
    pub fn fit(&mut self) -> Result<Value> {
        let epochs = self.config.train.epochs;
        if self.progress.epochs_done == 0 {
            let mut row = json!({"epoch": 0});
            self.evaluate_into(&mut row)?;
            self.count_corrupt(&mut row);
            self.log(&row)?;
        }
        let mut last = self.run.metrics()?.pop().unwrap_or(Value::Null);
        for epoch in self.progress.epochs_done..epochs {
            last = self
                .epoch(epoch)
                .with_context(|| format!("epoch {}", epoch + 1))?;
        }
        Ok(last)
    }

    /// The method, for what comes after training.
    pub fn method(&self) -> &dyn Method {
        self.method.as_ref()
    }

    /// The training pictures.
    pub fn store(&self) -> &Arc<PictureStore> {
        &self.store
    }

    /// Where the weights started, for people.
    pub fn init(&self) -> &str {
        &self.progress.init
    }

    fn epoch(&mut self, epoch: usize) -> Result<Value> {
        let started = Instant::now();
        let mut extractor = Extractor {
            store: &self.store,
            dataset: &self.dataset,
        };
        let pseudo = self.method.relabel(epoch, &mut extractor)?;
        let relabel_seconds = started.elapsed().as_secs_f64();
        if pseudo.clusters < 2 {
            return Err(usage(format!(
                "the {} pictures fell into {} cluster(s) and {} outliers, at least 2 clusters are needed: raise \
                 cluster.eps (now {}) if nearly all are outliers, lower it if nearly all are one cluster",
                pseudo.labels.len(),
                pseudo.clusters,
                pseudo.outliers(),
                self.config.cluster.eps
            )));
        }
        self.prepare_optimisers()?;

        let labels: Arc<[Option<u32>]> = pseudo.labels.as_slice().into();
        let train = &self.config.train;
        let strategy = match self.method.sampling() {
            Sampling::Identity => Strategy::RandomIdentity,
            Sampling::MoreCameras => Strategy::MoreCamera,
        };
        let cameras: Vec<u32> = self.store.samples().iter().map(|s| s.camera).collect();
        let sampler = PkSampler::new(
            strategy,
            train.identities,
            train.instances,
            &labels,
            &cameras,
            self.config.seed,
        )?;
        let plan = Plan {
            seed: self.config.seed,
            epoch: epoch as u64,
            batches: sampler.epoch(epoch as u64, train.iterations),
            labels,
            views: self
                .method
                .views()
                .iter()
                .map(|v| self.augment(*v))
                .collect(),
        };
        let lr = self.schedule().at(epoch as f64);
        let (sums, norm, images) = self.iterations(epoch, plan, lr)?;

        self.progress.epochs_done = epoch + 1;
        let seconds = started.elapsed().as_secs_f64();
        let mut row = json!({
            "epoch": epoch + 1,
            "lr": lr,
            "clusters": pseudo.clusters,
            "outliers": pseudo.outliers(),
            "gradient_norm": norm,
            "images_per_second": images as f64 / (seconds - relabel_seconds),
            "seconds": seconds,
        });
        row["loss"] = sums
            .into_iter()
            .map(|(k, v)| (k.to_string(), json!(v)))
            .collect();
        let truth: Vec<i64> = self.store.samples().iter().map(|s| s.pid).collect();
        // How good the pseudo labels are can be said only where identities are known; they are never used to train.
        if let Some(quality) = agreement(&pseudo.labels, &truth) {
            let cameras: Vec<i64> = cameras.iter().map(|c| i64::from(*c)).collect();
            let identities: Vec<Option<u32>> =
                truth.iter().map(|pid| u32::try_from(*pid).ok()).collect();
            let (lost, count) = lost_identities(&pseudo.labels, &truth);
            row["pseudo_labels"] = json!({
                "nmi": quality.nmi,
                "ari": quality.ari,
                "purity": quality.purity,
                "camera_information": camera_information(&pseudo.labels, &cameras),
                "camera_information_of_identities": camera_information(&identities, &cameras),
                "lost_ids": lost,
                "identities": count,
            });
        }
        let every = self.config.train.evaluate_every;
        if epoch + 1 == self.config.train.epochs || (every > 0 && (epoch + 1).is_multiple_of(every))
        {
            self.evaluate_into(&mut row)?;
        }
        self.count_corrupt(&mut row);
        // First the row, then the checkpoint: resume drops a row without its checkpoint, never the other way round.
        self.log(&row)?;
        self.save()?;
        Ok(row)
    }

    fn prepare_optimisers(&mut self) -> Result<()> {
        let config = AdamConfig {
            weight_decay: self.config.train.weight_decay,
            ..AdamConfig::default()
        };
        for group in self.method.groups() {
            if self.optimisers.contains_key(group.name) {
                continue;
            }
            let mut adam = Adam::new(vec![ParamGroup::new(group.parameters)], config)?;
            if let Some(saved) = self
                .pending
                .remove(&format!("{OPTIMISER_PREFIX}{}", group.name))
            {
                adam.load_state(&tensors(saved)?)?;
            }
            self.optimisers.insert(group.name, adam);
        }
        Ok(())
    }

    fn schedule(&self) -> Schedule {
        let t = &self.config.train;
        Schedule {
            lr: t.lr,
            warmup_epochs: t.warmup_epochs,
            warmup_factor: t.warmup_factor,
            decay: if t.milestones.is_empty() {
                Decay::Constant
            } else {
                Decay::MultiStep {
                    milestones: t.milestones.clone(),
                    gamma: t.gamma,
                }
            },
        }
    }

    fn augment(&self, view: View) -> Augment {
        let a = &self.config.augment;
        match view {
            View::Weak => Augment::weak(),
            View::Strong => Augment {
                flip: a.flip,
                pad: a.pad,
                blur: a.blur,
                erasing: a.erasing,
                jitter: a.jitter,
                ..Augment::weak()
            },
        }
    }

    fn evaluate_into(&mut self, row: &mut Value) -> Result<()> {
        if let Some(test) = &self.test {
            let Outcome { result, .. } = test.evaluate(self.method.net())?;
            row["protocol"] = json!(test.protocol());
            for (key, value) in [
                ("rank1", result.rank1),
                ("map", result.map),
                ("minp", result.minp),
            ] {
                row[key] = json!(value);
            }
        }
        Ok(())
    }

    /// Pictures of the epoch, evaluation included, that could not be read.
    fn count_corrupt(&self, row: &mut Value) {
        let count = self.corrupt.take_count();
        if count > 0 {
            row["corrupt"] = json!(count);
        }
    }

    fn log(&self, row: &Value) -> Result<()> {
        self.run.log(row)?;
        plots::write_curves(&self.run.metrics()?, &self.run.file("curves.svg"))?;
        tensorboard::append(&self.run.file("tensorboard"), row)?;
        tracing::info!("{}", summary(row, self.config.train.epochs));
        Ok(())
    }

    fn save(&self) -> Result<()> {
        let mut weights = self.method.state()?;
        for (name, adam) in &self.optimisers {
            let mut saved = Weights::default();
            for (key, tensor) in adam.state()? {
                // Step counts are integers; f32 holds them exactly up to 16 million.
                let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                saved.tensors.insert(key, (tensor.dims().to_vec(), values));
            }
            weights.insert(format!("{OPTIMISER_PREFIX}{name}"), saved);
        }
        self.run.save_checkpoint(&Checkpoint {
            progress: self.progress.clone(),
            weights,
        })
    }
}

/// Files of a checkpoint that hold an optimiser's moments start with this.
const OPTIMISER_PREFIX: &str = "optimiser-";

fn tensors(weights: Weights) -> Result<BTreeMap<String, Tensor>> {
    weights
        .tensors
        .into_iter()
        .map(|(name, (shape, values))| Ok((name, Tensor::from_vec(values, shape, &Device::Cpu)?)))
        .collect()
}

/// One line for people.
fn summary(row: &Value, epochs: usize) -> String {
    let mut parts = vec![format!("epoch {}/{epochs}", row["epoch"])];
    if let Some(terms) = row["loss"].as_object() {
        parts.extend(
            terms
                .iter()
                .map(|(k, v)| format!("{k} {:.3}", v.as_f64().unwrap_or(f64::NAN))),
        );
    }
    if let Some(clusters) = row["clusters"].as_u64() {
        parts.push(format!("{clusters} clusters, {} outliers", row["outliers"]));
    }
    if let Some(ari) = row["pseudo_labels"]["ari"].as_f64() {
        parts.push(format!("ARI {ari:.3}"));
    }
    if let (Some(rank1), Some(map)) = (row["rank1"].as_f64(), row["map"].as_f64()) {
        parts.push(format!(
            "rank-1 {:.1} %, mAP {:.1} %",
            100.0 * rank1,
            100.0 * map
        ));
    }
    if let Some(seconds) = row["seconds"].as_f64() {
        parts.push(format!("{seconds:.0} s"));
    }
    parts.join(", ")
}
