//! The upper bound: identity labels, cross-entropy with smoothing on the neck feature and batch-hard soft-margin triplet
//! on the pooled feature (Luo et al., "Bag of tricks and a strong baseline", CVPRW 2019; methods.md 1.1, 1.6).

use anyhow::{Context, Result};
use candle_core::{Device, Var};
use reid_models::Graph;
use reid_models::graph::{NECK, POOLED};
use reid_models::weights::{LoadReport, Weights};

use super::{Batch, Extract, Group, LossTerms, Method, Sampling, State, View};
use crate::clustering::PseudoLabels;
use crate::config::{LossConfig, RunConfig, usage};
use crate::losses::cross_entropy::cross_entropy;
use crate::losses::triplet::{TripletMargin, triplet};
use crate::nn::{Mode, Net, init, ops};

/// Standard deviation of the classifier's start (methods.md 1.1).
const CLASSIFIER_STD: f32 = 0.001;

/// One network and a classifier without bias.
pub struct Supervised {
    net: Net,
    classifier: Option<Var>,
    loss: LossConfig,
    seed: u64,
    device: Device,
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
    let mut net = Net::new(graph, config.seed, device)?;
    let report = match init {
        Some(weights) => net.load(weights)?,
        None => LoadReport::default(),
    };
    let method = Supervised {
        net,
        classifier: None,
        loss: config.loss.clone(),
        seed: config.seed,
        device: device.clone(),
    };
    Ok((Box::new(method), report))
}

impl Supervised {
    fn classifier(&self) -> Result<&Var> {
        self.classifier
            .as_ref()
            .context("the classifier is made by the first relabel")
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
        let mut parameters = self.net.trainable();
        if let Some(classifier) = &self.classifier {
            parameters.push(("classifier.weight".into(), classifier.clone()));
        }
        vec![Group {
            name: "net",
            parameters,
        }]
    }

    fn relabel(&mut self, _epoch: usize, extract: &mut dyn Extract) -> Result<PseudoLabels> {
        let (truth, identities) = extract.truth();
        if identities < 2 {
            return Err(usage(format!(
                "the method supervised needs identity labels, this data set has {identities} identities: \
                 train without labels with --method ice"
            )));
        }
        if self.classifier.is_none() {
            let width = self.net.graph().width(NECK)?;
            let mut rng = init::stream(self.seed, "classifier.weight");
            let start = init::normal(&mut rng, CLASSIFIER_STD, identities * width);
            self.classifier = Some(Var::from_vec(start, (identities, width), &self.device)?);
        }
        Ok(PseudoLabels {
            labels: truth,
            clusters: identities,
        })
    }

    fn loss(&self, batch: &Batch) -> Result<LossTerms> {
        let [view] = batch.views.as_slice() else {
            anyhow::bail!("supervised wants one view")
        };
        let outputs = self.net.forward(view, Mode::Train, &[POOLED, NECK])?;
        let logits = ops::linear(&outputs[NECK], self.classifier()?.as_tensor(), None)?;
        let identity = cross_entropy(&logits, &batch.labels, self.loss.smoothing)?;
        let mut terms = vec![("identity", identity.detach())];
        let mut total = identity;
        if self.loss.triplet_weight > 0.0 {
            let triplet = triplet(&outputs[POOLED], &batch.labels, TripletMargin::Soft)?;
            terms.push(("triplet", triplet.detach()));
            total = (total + (triplet * self.loss.triplet_weight)?)?;
        }
        Ok(LossTerms { total, terms })
    }

    fn after_step(&mut self, _batch: &Batch) -> Result<()> {
        Ok(())
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn state(&self) -> Result<State> {
        let mut net = self.net.to_weights()?;
        let classifier = self.classifier()?;
        let values = classifier.flatten_all()?.to_vec1()?;
        net.tensors.insert(
            "classifier.weight".into(),
            (classifier.dims().to_vec(), values),
        );
        Ok(State::from([("net".to_string(), net)]))
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        super::load_whole(&mut self.net, state, "net")?;
        let (shape, values) = state["net"]
            .tensors
            .get("classifier.weight")
            .cloned()
            .context("the checkpoint has no classifier.weight")?;
        self.classifier = Some(Var::from_vec(values, shape, &self.device)?);
        Ok(())
    }
}
