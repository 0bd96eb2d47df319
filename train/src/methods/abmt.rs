//! ABMT: asymmetric branched mean teaching (Chen et al., WACV 2021; thesis, chapter 4).
//!
//! One student and one teacher, each with two branches that differ in depth and pooling (see
//! [`reid_models::heads::branches`]); a branch learns from the pseudo labels and from the teacher's *other* branch, eq. 4.8:
//!
//! `L = w_ce CE + w_sce SCE(a | b') + w_tri ST(a | b')`, each the mean over the branches
//!
//! (`loss.branches = "sum"` is what eq. 4.8 prints: twice as much of everything). Student and teacher see the same view.
//! Classifiers begin every epoch as the unit centres of the clusters in their branch. The weights are `loss.identity_weight`,
//! `soft_identity_weight`, `soft_triplet_weight`. With `--source` the distance that is clustered knows how far pictures are from
//! the source (`cluster.source_weight`); starting from a source's weights is eq. 4.1, the method `supervised` with
//! `model.head = "branches"`.

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor, Var};
use reid_models::Graph;
use reid_models::graph::EMBEDDING;
use reid_models::heads::branches::{NECKS, POOLED};
use reid_models::weights::{LoadReport, Weights};

use super::pseudo::{Clusterer, centres};
use super::teacher::{Pair, average_one, weight_of_old};
use super::{Batch, Extract, Group, LossTerms, Method, Sampling, State, View, output};
use crate::clustering::PseudoLabels;
use crate::config::{BranchWeights, LossConfig, RunConfig, usage};
use crate::losses::{cross_entropy, soft_identity, soft_triplet};
use crate::nn::{Mode, Net, ops};

/// Student and teacher, two branches each.
pub struct Abmt {
    nets: Pair,
    /// Classifiers (C, D): of each branch the student's and the teacher's.
    classifiers: Option<[[Var; 2]; 2]>,
    clusterer: Clusterer,
    loss: LossConfig,
    ema: f64,
    ramp: bool,
    steps: u64,
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
    let (nets, report) = Pair::new(config, config.seed, device, graph, init)?;
    Ok((Box::new(Abmt::new(config, nets)?), report))
}

impl Abmt {
    /// With networks made elsewhere.
    ///
    /// # Errors
    /// If the settings don't fit, or the networks have no branches.
    pub fn new(config: &RunConfig, nets: Pair) -> Result<Self> {
        for role in POOLED.iter().chain(&NECKS) {
            if nets.student.graph().output(role).is_err() {
                return Err(usage(format!(
                    "the method abmt wants a network with two branches: set model.head = \"branches\" (no output `{role}`)"
                )));
            }
        }
        Ok(Abmt {
            device: nets.student.device().clone(),
            nets,
            classifiers: None,
            clusterer: Clusterer::new(config)?,
            loss: config.loss.clone(),
            ema: config.train.ema,
            ramp: config.train.ema_ramp,
            steps: 0,
        })
    }

    /// Gives student and teacher these classifiers, one (C, D) for each branch.
    ///
    /// # Errors
    /// candle's.
    pub fn classify_by(&mut self, centres: [&Tensor; 2]) -> Result<()> {
        let two = |values: &Tensor| -> Result<[Var; 2]> {
            let one = || Ok::<_, anyhow::Error>(Var::from_tensor(&values.copy()?)?);
            Ok([one()?, one()?])
        };
        self.classifiers = Some([two(centres[0])?, two(centres[1])?]);
        Ok(())
    }

    /// Classifiers as they are: of each branch the student's and the teacher's.
    ///
    /// # Errors
    /// Before the first relabelling.
    pub fn classifiers(&self) -> Result<&[[Var; 2]; 2]> {
        let known = self.classifiers.as_ref();
        known.context("ABMT has no classifiers before its first relabel")
    }

    /// Student and teacher.
    pub fn nets(&self) -> &Pair {
        &self.nets
    }

    /// Continues at a later step.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }
}

impl Method for Abmt {
    fn views(&self) -> &'static [View] {
        &[View::Strong]
    }

    fn sampling(&self) -> Sampling {
        Sampling::OtherCameras
    }

    fn groups(&self) -> Vec<Group> {
        let mut parameters = self.nets.student.trainable();
        if let Some(classifiers) = &self.classifiers {
            for (branch, [student, _]) in ["a", "b"].iter().zip(classifiers) {
                parameters.push((format!("classifier_{branch}.weight"), student.clone()));
            }
        }
        vec![Group {
            fresh: true,
            ..Group::adam("student", parameters)
        }]
    }

    fn relabel(&mut self, _epoch: usize, extract: &mut dyn Extract) -> Result<PseudoLabels> {
        let teacher = &self.nets.teacher;
        let [whole, branches @ ..] =
            &extract.outputs(teacher, &[EMBEDDING, NECKS[0], NECKS[1]], false)?[..]
        else {
            bail!("no features came back")
        };
        let source = extract.source(teacher)?;
        let labels = self.clusterer.labels(whole, source.as_ref(), extract)?;
        let made = branches.iter().map(|f| centres(f, &labels, &self.device));
        let made: Vec<Tensor> = made.collect::<Result<_>>()?;
        self.classify_by([&made[0], &made[1]])?;
        Ok(labels)
    }

    fn loss(&self, batch: &Batch) -> Result<LossTerms> {
        let [view] = batch.views.as_slice() else {
            bail!("ABMT wants one view")
        };
        let roles = [POOLED[0], POOLED[1], NECKS[0], NECKS[1]];
        let taught = self
            .nets
            .teacher
            .forward_no_grad(view, Mode::Train, &roles)?;
        let learnt = self.nets.student.forward(view, Mode::Train, &roles)?;
        let classifiers = self.classifiers()?;
        let (l, labels) = (&self.loss, &batch.labels);
        let share = match l.branches {
            BranchWeights::Mean => 0.5,
            BranchWeights::Sum => 1.0,
        };
        let mut sums: [Option<Tensor>; 3] = [None, None, None];
        for own in [0, 1] {
            let other = 1 - own;
            let logits = ops::linear(
                &output(&learnt, NECKS[own])?,
                classifiers[own][0].as_tensor(),
                None,
            )?;
            let target = ops::linear(
                &output(&taught, NECKS[other])?,
                classifiers[other][1].as_tensor(),
                None,
            )?;
            let terms = [
                cross_entropy(&logits, labels, l.smoothing)?,
                soft_identity(&logits, &target)?,
                soft_triplet(
                    &output(&learnt, POOLED[own])?,
                    &output(&taught, POOLED[other])?,
                    labels,
                )?,
            ];
            for (sum, term) in sums.iter_mut().zip(terms) {
                *sum = Some(match sum.take() {
                    Some(sum) => (sum + term)?,
                    None => term,
                });
            }
        }
        let names = ["identity", "soft_identity", "soft_triplet"];
        let weights = [
            l.identity_weight,
            l.soft_identity_weight,
            l.soft_triplet_weight,
        ];
        let terms = names.into_iter().zip(weights).zip(sums);
        LossTerms::weighted(
            terms
                .filter_map(|((name, weight), sum)| Some((name, share * weight, sum?)))
                .collect(),
        )
    }

    fn after_step(&mut self, _batch: &Batch, _kept: &[Tensor]) -> Result<()> {
        let alpha = weight_of_old(self.steps, self.ema, self.ramp);
        self.steps += 1;
        self.nets.average(alpha)?;
        for [student, teacher] in self.classifiers()? {
            average_one(teacher, student, alpha)?;
        }
        Ok(())
    }

    fn net(&self) -> &Net {
        &self.nets.teacher
    }

    fn state(&self) -> Result<State> {
        // Classifiers are not part of it: the next epoch starts by making new ones.
        let mut state = State::new();
        self.nets.save(&mut state, ["student", "teacher"])?;
        super::save_steps(&mut state, self.steps);
        self.clusterer.save(&mut state);
        Ok(state)
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        self.nets.load(state, ["student", "teacher"])?;
        self.steps = super::load_steps(state);
        self.clusterer.load(state);
        Ok(())
    }
}
