//! The upper bound: identity labels, cross-entropy with smoothing on the neck feature and batch-hard triplet on the pooled
//! feature (Luo et al., "Bag of tricks and a strong baseline", CVPRW 2019; methods.md 1.1, 1.6), with the centre loss if its
//! weight isn't 0.
//!
//! With a network of two branches (`model.head = "branches"`) the losses are the mean over the branches: ABMT's training on a
//! source, thesis eq. 4.1. With `--beside` pictures of another set go through the network as well, so that its batch norms know
//! them.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use reid_models::Graph;
use reid_models::heads::branches;
use reid_models::weights::{LoadReport, Weights};

use super::pseudo::truth;
use super::teacher::start;
use super::{Batch, Extract, Group, LossTerms, Method, Rate, Rule, Sampling, State, View, output};
use crate::clustering::PseudoLabels;
use crate::config::{LossConfig, RunConfig};
use crate::losses::{centre, cross_entropy, triplet};
use crate::nn::{Mode, Net, init, ops};

/// Standard deviation of the classifier's start (methods.md 1.1).
const CLASSIFIER_STD: f32 = 0.001;
/// After the names of what belongs to a branch.
const SUFFIXES: [&str; 3] = ["", "_b", "_c"];
/// Learning rate of the centres (the public code's).
const CENTRE_RATE: f64 = 0.5;

/// One network; of each branch a classifier without bias, and centres.
pub struct Supervised {
    net: Net,
    /// (pooled, neck) of each branch.
    roles: Vec<[&'static str; 2]>,
    heads: Vec<Head>,
    loss: LossConfig,
    seed: u64,
    device: Device,
}

/// What belongs to the identities of one branch: both (C, D).
struct Head {
    classifier: Var,
    centres: Option<Var>,
}

/// Builds the method.
///
/// # Errors
/// If the weights don't fit.
pub fn build(
    config: &RunConfig,
    device: &Device,
    graph: Graph,
    init: Option<&Weights>,
) -> Result<(Box<dyn Method>, LoadReport)> {
    let (net, report) = start(config, config.seed, device, graph, init)?;
    Ok((Box::new(Supervised::new(config, net)), report))
}

impl Supervised {
    /// With a network made elsewhere.
    pub fn new(config: &RunConfig, net: Net) -> Self {
        Supervised {
            roles: branches::roles(net.graph()),
            device: net.device().clone(),
            net,
            heads: Vec::new(),
            loss: config.loss.clone(),
            seed: config.seed,
        }
    }

    /// Sets classifier and centres, (C, D) each, of every branch.
    ///
    /// # Errors
    /// candle's.
    pub fn set_heads(&mut self, heads: Vec<(Tensor, Option<Tensor>)>) -> Result<()> {
        let var = |t: &Tensor| Ok::<_, anyhow::Error>(Var::from_tensor(&t.copy()?)?);
        self.heads = heads
            .iter()
            .map(|(classifier, centres)| {
                Ok(Head {
                    classifier: var(classifier)?,
                    centres: centres.as_ref().map(var).transpose()?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(())
    }

    /// The network.
    pub fn network(&self) -> &Net {
        &self.net
    }

    /// Names and values of what belongs to identities.
    fn head_parameters(&self) -> (Vec<(String, Var)>, Vec<(String, Var)>) {
        let (mut classifiers, mut centres) = (Vec::new(), Vec::new());
        for (i, head) in self.heads.iter().enumerate() {
            let branch = SUFFIXES[i];
            let name = format!("classifier{branch}.weight");
            classifiers.push((name, head.classifier.clone()));
            let own = head.centres.iter().cloned();
            centres.extend(own.map(|var| (format!("centres{branch}"), var)));
        }
        (classifiers, centres)
    }
}

impl Method for Supervised {
    fn views(&self) -> &'static [View] {
        &[View::Strong]
    }

    fn sampling(&self) -> Sampling {
        Sampling::Identity
    }

    fn groups(&self) -> Vec<Group> {
        let (classifiers, centres) = self.head_parameters();
        let mut parameters = self.net.trainable();
        parameters.extend(classifiers);
        let mut groups = vec![Group::adam("net", parameters)];
        if !centres.is_empty() {
            // Their gradient is that of the loss without its weight (the public code divides it out).
            groups.push(Group {
                rule: Rule::Sgd { momentum: 0.0 },
                rate: Rate::Fixed(CENTRE_RATE / self.loss.centre_weight),
                weight_decay: Some(0.0),
                ..Group::adam("centres", centres)
            });
        }
        groups
    }

    fn relabel(&mut self, _epoch: usize, extract: &mut dyn Extract) -> Result<PseudoLabels> {
        let instead = "train without labels with --method ice";
        let labels = truth(extract, "the method supervised", instead)?;
        if self.heads.is_empty() {
            let mut heads = Vec::new();
            for (i, [pooled, neck]) in self.roles.iter().enumerate() {
                let name = format!("classifier{}.weight", SUFFIXES[i]);
                let width = self.net.graph().width(neck)?;
                let mut rng = init::stream(self.seed, &name);
                let start = init::normal(&mut rng, CLASSIFIER_STD, labels.clusters * width);
                let shape = (labels.clusters, width);
                let classifier = Tensor::from_vec(start, shape, &self.device)?;
                let centres = if self.loss.centre_weight > 0.0 {
                    let width = self.net.graph().width(pooled)?;
                    let mut rng = init::stream(self.seed, "centres");
                    let start = init::normal(&mut rng, 1.0, labels.clusters * width);
                    let shape = (labels.clusters, width);
                    Some(Tensor::from_vec(start, shape, &self.device)?)
                } else {
                    None
                };
                heads.push((classifier, centres));
            }
            self.set_heads(heads)?;
        }
        Ok(labels)
    }

    fn loss(&self, batch: &Batch) -> Result<LossTerms> {
        let [view] = batch.views.as_slice() else {
            anyhow::bail!("supervised wants one view")
        };
        let roles: Vec<&str> = self.roles.iter().flatten().copied().collect();
        let outputs = self.net.forward(view, Mode::Train, &roles)?;
        let share = 1.0 / self.roles.len() as f64;
        let (l, labels) = (&self.loss, &batch.labels);
        let mut terms: Vec<(&'static str, f64, Tensor)> = Vec::new();
        for ([pooled, neck], head) in self.roles.iter().zip(&self.heads) {
            let pooled = output(&outputs, pooled)?;
            let logits = ops::linear(&output(&outputs, neck)?, head.classifier.as_tensor(), None)?;
            let identity = cross_entropy(&logits, labels, l.smoothing)?;
            let mut own = vec![("identity", l.identity_weight, identity)];
            if l.triplet_weight > 0.0 {
                let triplet = triplet(&pooled, labels, l.margin())?;
                own.push(("triplet", l.triplet_weight, triplet));
            }
            if let Some(centres) = &head.centres {
                let centre = centre(&pooled, centres.as_tensor(), labels)?;
                own.push(("centre", l.centre_weight, centre));
            }
            for (name, weight, term) in own {
                match terms.iter_mut().find(|(known, _, _)| *known == name) {
                    Some((_, _, sum)) => *sum = (&*sum + term)?,
                    None => terms.push((name, share * weight, term)),
                }
            }
        }
        if let Some(beside) = &batch.beside {
            // Only its batch norms are to learn of these.
            self.net.forward_no_grad(beside, Mode::Train, &roles)?;
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
        let (classifiers, centres) = self.head_parameters();
        for (name, var) in classifiers.into_iter().chain(centres) {
            let values = var.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            net.tensors.insert(name, (var.dims().to_vec(), values));
        }
        Ok(State::from([("net".to_string(), net)]))
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        super::load_whole(&mut self.net, state, "net")?;
        let saved = &state["net"].tensors;
        let read = |name: &str| -> Result<Option<Tensor>> {
            let Some((shape, values)) = saved.get(name) else {
                return Ok(None);
            };
            let tensor = Tensor::from_slice(values, shape.as_slice(), &self.device)?;
            Ok(Some(tensor))
        };
        let mut heads = Vec::new();
        for branch in SUFFIXES.iter().take(self.roles.len()) {
            let name = format!("classifier{branch}.weight");
            let classifier = read(&name)?;
            let classifier = classifier.with_context(|| format!("the checkpoint has no {name}"))?;
            heads.push((classifier, read(&format!("centres{branch}"))?));
        }
        self.set_heads(heads)
    }
}
