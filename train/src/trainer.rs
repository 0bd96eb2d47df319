//! The loop around a [`Method`]: epochs, optimisers, evaluation, logs, checkpoints, resume.

mod iterations;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use rand::seq::SliceRandom;
use reid_models::card::InputSpec;
use serde_json::{Value, json};

use crate::capacity;
use crate::clustering::agreement::{agreement, camera_information, lost_identities};
use crate::config::{RunConfig, usage};
use crate::data::loader::Plan;
use crate::data::store::cache_budget;
use crate::data::{Augment, Corrupt, Dataset, PictureStore, PkSampler, Sample};
use crate::eval::plots;
use crate::eval::protocol::Outcome;
use crate::extract::outputs;
use crate::methods::collapse::{self, Collapse};
use crate::methods::{Extract, Features, Method, View};
use crate::nn::schedule::{Decay, Schedule};
use crate::nn::{Net, init};
use crate::optimisers::Optimisers;
use crate::run::{Checkpoint, Progress, RunFolder};
use crate::tensorboard;
use crate::test_set::Test;

/// A training in progress.
pub struct Trainer {
    pub(crate) config: RunConfig,
    run: RunFolder,
    pub(crate) method: Box<dyn Method>,
    /// Made when the groups are known, after the first relabel.
    optimisers: Optimisers,
    pub(crate) store: Arc<PictureStore>,
    pub(crate) dataset: Dataset,
    /// Pictures of other sets.
    pub(crate) others: Others,
    test: Option<Test>,
    /// Unreadable pictures, of training and evaluation together.
    corrupt: Arc<Corrupt>,
    progress: Progress,
}

/// Pictures of other data sets that a training looks at.
#[derive(Clone, Default)]
pub struct Others {
    /// A labelled source: how far pictures are from it enters the distance that is clustered.
    pub source: Option<Arc<PictureStore>>,
    /// Goes through the network beside every batch, for its batch norms to see.
    pub beside: Option<Arc<PictureStore>>,
}

impl Others {
    /// The training halves of data sets, with pictures as `config` wants them.
    ///
    /// # Errors
    /// If one has no training pictures.
    pub fn of(
        config: &RunConfig,
        source: Option<&Dataset>,
        beside: Option<&Dataset>,
    ) -> Result<Self> {
        let backbone = config.model.backbone()?;
        let spec = InputSpec::imagenet(backbone.height, backbone.input_width);
        let open = |dataset: &Dataset| -> Result<Arc<PictureStore>> {
            let pictures = dataset.train.len() * 3 * spec.height * spec.width;
            let available = capacity::available();
            let budget = cache_budget(config.train.cache_mib, [pictures, 0], available);
            let corrupt = Arc::new(Corrupt::new(config.data.max_corrupt));
            let store = PictureStore::new(dataset.train.clone(), &spec, budget)?;
            Ok(Arc::new(store.tolerating(corrupt)))
        };
        Ok(Others {
            source: source.map(&open).transpose()?,
            beside: beside.map(&open).transpose()?,
        })
    }
}

pub(crate) struct Extractor<'a> {
    pub(crate) store: &'a Arc<PictureStore>,
    pub(crate) dataset: &'a Dataset,
    /// A labelled source's pictures.
    pub(crate) source: Option<&'a Arc<PictureStore>>,
}

impl Extract for Extractor<'_> {
    fn samples(&self) -> &[Sample] {
        self.store.samples()
    }
    fn outputs(&mut self, net: &Net, roles: &[&str], flip: bool) -> Result<Vec<Features>> {
        outputs(net, self.store, roles, flip)
    }
    fn source_outputs(
        &mut self,
        net: &Net,
        roles: &[&str],
        flip: bool,
    ) -> Result<Option<Vec<Features>>> {
        let source = self.source.map(|store| outputs(net, store, roles, flip));
        source.transpose()
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
        others: Others,
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
            optimisers: Optimisers::default(),
            store,
            dataset,
            others,
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
        self.method.load_state(&self.optimisers.load(weights))?;
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
            source: self.others.source.as_ref(),
        };
        let pseudo = self.method.relabel(epoch, &mut extractor)?;
        let relabel_seconds = started.elapsed().as_secs_f64();
        match collapse::look(&pseudo, &self.config.cluster) {
            Some(Collapse::Fatal(what)) => return Err(usage(what)),
            Some(Collapse::Likely(what)) => tracing::warn!("epoch {}: {what}", epoch + 1),
            None => {}
        }
        let decay = self.config.train.weight_decay;
        self.optimisers.prepare(self.method.groups(), decay)?;

        let labels: Arc<[Option<u32>]> = pseudo.labels.as_slice().into();
        let train = &self.config.train;
        let cameras: Vec<u32> = self.store.samples().iter().map(|s| s.camera).collect();
        let sampler = PkSampler::new(
            self.method.sampling().strategy(),
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
        let beside = self.beside(epoch, &plan);
        let lr = self.schedule().at(epoch as f64);
        let (sums, norm, images) = self.iterations(epoch, plan, beside, lr)?;

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

    /// Pictures of the other set, drawn at random, as many as each batch of `plan` has.
    fn beside(&self, epoch: usize, plan: &Plan) -> Option<Plan> {
        let store = self.others.beside.as_ref()?;
        let mut rng = init::stream(self.config.seed, &format!("beside {epoch}"));
        let mut deck: Vec<usize> = Vec::new();
        let mut draw = |count: usize| -> Vec<usize> {
            (0..count)
                .filter_map(|_| {
                    if deck.is_empty() {
                        deck = (0..store.len()).collect();
                        deck.shuffle(&mut rng);
                    }
                    deck.pop()
                })
                .collect()
        };
        Some(Plan {
            seed: self.config.seed,
            epoch: epoch as u64,
            batches: plan.batches.iter().map(|b| draw(b.len())).collect(),
            labels: vec![Some(0); store.len()].into(),
            views: vec![self.augment(View::Strong)],
        })
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
        weights.extend(self.optimisers.save()?);
        self.run.save_checkpoint(&Checkpoint {
            progress: self.progress.clone(),
            weights,
        })
    }
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
    if let Some(rate) = row["images_per_second"].as_f64() {
        parts.push(format!("{rate:.0} images/s"));
    }
    if let Some(seconds) = row["seconds"].as_f64() {
        parts.push(format!("{seconds:.0} s"));
        let done = row["epoch"].as_u64().unwrap_or_default() as usize;
        if done < epochs {
            let rest = duration(seconds * (epochs - done) as f64);
            parts.push(format!("about {rest} left"));
        }
    }
    parts.join(", ")
}

/// A length of time in its largest fitting unit.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{duration, summary};

    #[test]
    fn a_line_says_how_it_goes_and_how_long_it_takes() {
        let row = json!({
            "epoch": 3, "loss": {"identity": 2.5}, "clusters": 180, "outliers": 7, "images_per_second": 640.4,
            "seconds": 12.3, "map": 0.715, "rank1": 0.832, "pseudo_labels": {"ari": 0.8563},
        });
        assert_eq!(
            summary(&row, 12),
            "epoch 3/12, identity 2.500, 180 clusters, 7 outliers, ARI 0.856, rank-1 83.2 %, mAP 71.5 %, 640 images/s, 12 s, \
             about 2 min left"
        );
        assert!(summary(&row, 3).ends_with("640 images/s, 12 s"));
        assert_eq!(duration(9000.0), "2.5 h");
    }
}
