//! SCR: spatial and channel partition representation (Chen et al., WACV 2020; thesis, chapter 3), supervised.
//!
//! The network ([`reid_models::heads::partitions`]) gives one global vector for each branch and one for each stripe and group of
//! channels, thirteen in all. Eq. 3.3: `L = mean over the global vectors of T + lambda mean over all vectors of CE`, T the
//! batch-hard triplet loss with a margin on vectors that are not normalised, CE with a classifier of each vector's own.
//! `loss.triplet_weight` is T's weight, `loss.triplet_margin` its margin, `loss.identity_weight` lambda.

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor, Var};
use reid_models::Graph;
use reid_models::heads::partitions::{globals, vector};
use reid_models::weights::{LoadReport, Weights};

use super::pseudo::truth;
use super::teacher::start;
use super::{Batch, Extract, Group, LossTerms, Method, Rule, Sampling, State, View, output};
use crate::clustering::PseudoLabels;
use crate::config::{LossConfig, RunConfig, usage};
use crate::losses::{cross_entropy, triplet};
use crate::nn::{Mode, Net, init, ops};

/// Standard deviation of the classifiers' start (methods.md 1.1).
const CLASSIFIER_STD: f32 = 0.001;

/// One network and a classifier for each of its vectors.
pub struct Scr {
    net: Net,
    vectors: usize,
    globals: Vec<usize>,
    /// (C, D) each.
    classifiers: Vec<Var>,
    loss: LossConfig,
    seed: u64,
    device: Device,
}

/// Builds the method.
///
/// # Errors
/// If the weights or the settings don't fit.
pub fn build(
    config: &RunConfig,
    device: &Device,
    graph: Graph,
    init: Option<&Weights>,
) -> Result<(Box<dyn Method>, LoadReport)> {
    let (net, report) = start(config, config.seed, device, graph, init)?;
    Ok((Box::new(Scr::new(config, net)?), report))
}

impl Scr {
    /// With a network made elsewhere.
    ///
    /// # Errors
    /// If the network does not have the vectors that `model.partitions` says.
    pub fn new(config: &RunConfig, net: Net) -> Result<Self> {
        let partitions = &config.model.partitions;
        let vectors = partitions.iter().map(|p| p.vectors()).sum();
        if (0..vectors).any(|i| net.graph().output(&vector(i)).is_err()) {
            return Err(usage(
                "the method scr wants a network of partitions: set model.head = \"partitions\"",
            ));
        }
        Ok(Scr {
            device: net.device().clone(),
            net,
            vectors,
            globals: globals(partitions),
            classifiers: Vec::new(),
            loss: config.loss.clone(),
            seed: config.seed,
        })
    }

    /// Sets the classifier of each vector, (C, D).
    ///
    /// # Errors
    /// candle's.
    pub fn set_classifiers(&mut self, values: &[Tensor]) -> Result<()> {
        let one = |t: &Tensor| Ok(Var::from_tensor(&t.copy()?)?);
        self.classifiers = values.iter().map(one).collect::<Result<_>>()?;
        Ok(())
    }

    /// Classifiers by name.
    fn named(&self) -> Vec<(String, Var)> {
        let all = self.classifiers.iter().enumerate();
        all.map(|(i, var)| (format!("classifier.{i}.weight"), var.clone()))
            .collect()
    }
}

impl Method for Scr {
    fn views(&self) -> &'static [View] {
        &[View::Strong]
    }

    fn sampling(&self) -> Sampling {
        Sampling::Identity
    }

    fn groups(&self) -> Vec<Group> {
        let mut parameters = self.net.trainable();
        parameters.extend(self.named());
        vec![Group {
            rule: Rule::Adam { amsgrad: true },
            ..Group::adam("net", parameters)
        }]
    }

    fn relabel(&mut self, _epoch: usize, extract: &mut dyn Extract) -> Result<PseudoLabels> {
        let instead = "train without labels with --method ice";
        let labels = truth(extract, "the method scr", instead)?;
        if self.classifiers.is_empty() {
            let mut made = Vec::new();
            for i in 0..self.vectors {
                let width = self.net.graph().width(&vector(i))?;
                let mut rng = init::stream(self.seed, &format!("classifier.{i}.weight"));
                let values = init::normal(&mut rng, CLASSIFIER_STD, labels.clusters * width);
                let shape = (labels.clusters, width);
                made.push(Tensor::from_vec(values, shape, &self.device)?);
            }
            self.set_classifiers(&made)?;
        }
        Ok(labels)
    }

    fn loss(&self, batch: &Batch) -> Result<LossTerms> {
        let [view] = batch.views.as_slice() else {
            bail!("SCR wants one view")
        };
        let roles: Vec<String> = (0..self.vectors).map(vector).collect();
        let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
        let outputs = self.net.forward(view, Mode::Train, &roles)?;
        let (l, labels) = (&self.loss, &batch.labels);
        let mut identities = Vec::new();
        let mut triplets = Vec::new();
        for (i, role) in roles.iter().enumerate() {
            let vector = output(&outputs, role)?;
            let classifier = self.classifiers.get(i);
            let classifier = classifier.context("classifiers are made by the first relabel")?;
            let logits = ops::linear(&vector, classifier.as_tensor(), None)?;
            identities.push(cross_entropy(&logits, labels, l.smoothing)?);
            if self.globals.contains(&i) && l.triplet_weight > 0.0 {
                triplets.push(triplet(&vector, labels, l.margin())?);
            }
        }
        let mean = |terms: &[Tensor]| Tensor::stack(terms, 0)?.mean_all();
        let mut terms = vec![("identity", l.identity_weight, mean(&identities)?)];
        if !triplets.is_empty() {
            terms.push(("triplet", l.triplet_weight, mean(&triplets)?));
        }
        LossTerms::weighted(terms)
    }

    fn after_step(&mut self, _batch: &Batch, _kept: &[Tensor]) -> Result<()> {
        Ok(())
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn state(&self) -> Result<State> {
        let mut net = self.net.to_weights()?;
        for (name, var) in self.named() {
            let values = var.flatten_all()?.to_vec1()?;
            net.tensors.insert(name, (var.dims().to_vec(), values));
        }
        Ok(State::from([("net".to_owned(), net)]))
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        super::load_whole(&mut self.net, state, "net")?;
        let saved = &state["net"].tensors;
        let mut values = Vec::new();
        for i in 0..self.vectors {
            let name = format!("classifier.{i}.weight");
            let (shape, own) = saved
                .get(&name)
                .with_context(|| format!("the checkpoint has no {name}"))?;
            values.push(Tensor::from_slice(own, shape.as_slice(), &self.device)?);
        }
        self.set_classifiers(&values)
    }
}
