//! ABMT: asymmetric branched mean teaching (Chen et al., WACV 2021; thesis, chapter 4).
//!
//! One student and one teacher, each with two branches that differ in depth and pooling (see
//! [`reid_models::heads::branches`]); a branch learns from the pseudo labels and from the teacher's *other* branch, eq. 4.8:
//!
//! `L = w_ce CE + w_sce SCE(a | b') + w_tri ST(a | b')`, each the mean over the branches
//!
//! (`loss.branches = "sum"` is what eq. 4.8 prints: twice as much of everything). Student and teacher see the same view.
//! `loss.cross_branch = false` teaches a branch by itself; with a plain network, of one branch, that is the mean teacher of
//! figure 4.3 (a). Of three branches (table 4.4) each is taught by the teacher's next one.
//! Classifiers begin every epoch as the unit centres of the clusters in their branch. The weights are `loss.identity_weight`,
//! `soft_identity_weight`, `soft_triplet_weight`. With `--source` the distance that is clustered knows how far pictures are from
//! the source (`cluster.source_weight`); starting from a source's weights is eq. 4.1, the method `supervised` with
//! `model.head = "branches"`.

use anyhow::{Result, bail, ensure};
use candle_core::{Device, Tensor, Var};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use reid_models::Graph;
use reid_models::graph::EMBEDDING;
use reid_models::heads::branches;
use reid_models::weights::{LoadReport, Weights};

use super::pseudo::{Clusterer, centres};
use super::teacher::{Pair, average_one, weight_of_old};
use super::{Batch, Extract, Group, LossTerms, Method, Sampling, State, View, output};
use crate::clustering::PseudoLabels;
use crate::config::{BranchWeights, LossConfig, RunConfig, TeacherView, usage};
use crate::losses::{cross_entropy, soft_identity, soft_triplet};
use crate::nn::{Mode, Net, init, ops};

/// Student and teacher, two branches each.
pub struct Abmt {
    nets: Pair,
    /// (pooled, neck) of each branch.
    roles: Vec<[&'static str; 2]>,
    /// Classifiers (C, D): of each branch the student's and the teacher's.
    classifiers: Vec<[Var; 2]>,
    clusterer: Clusterer,
    loss: LossConfig,
    ema: f64,
    ramp: bool,
    steps: u64,
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
    let (nets, report) = Pair::new(config, config.seed, device, graph, init)?;
    Ok((Box::new(Abmt::new(config, nets)?), report))
}

impl Abmt {
    /// With networks made elsewhere.
    ///
    /// # Errors
    /// If the settings don't fit, or the networks have no branches.
    pub fn new(config: &RunConfig, nets: Pair) -> Result<Self> {
        let roles = branches::roles(nets.student.graph());
        if roles.len() == 1 && config.loss.cross_branch {
            return Err(usage(
                "the method abmt wants a network with two branches: set model.head = \"branches\", or loss.cross_branch = false \
                 for a mean teacher of one",
            ));
        }
        Ok(Abmt {
            device: nets.student.device().clone(),
            nets,
            roles,
            classifiers: Vec::new(),
            seed: config.seed,
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
    pub fn classify_by(&mut self, centres: &[&Tensor]) -> Result<()> {
        let two = |values: &&Tensor| -> Result<[Var; 2]> {
            let one = || Ok::<_, anyhow::Error>(Var::from_tensor(&values.copy()?)?);
            Ok([one()?, one()?])
        };
        self.classifiers = centres.iter().map(two).collect::<Result<_>>()?;
        Ok(())
    }

    /// Classifiers as they are: of each branch the student's and the teacher's.
    ///
    /// # Errors
    /// Before the first relabelling.
    pub fn classifiers(&self) -> Result<&[[Var; 2]]> {
        ensure!(
            !self.classifiers.is_empty(),
            "ABMT has no classifiers before its first relabel"
        );
        Ok(&self.classifiers)
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
        match self.loss.teacher_view {
            TeacherView::Same => &[View::Strong],
            TeacherView::Other => &[View::Strong, View::Strong],
        }
    }

    fn sampling(&self) -> Sampling {
        Sampling::OtherCameras
    }

    fn groups(&self) -> Vec<Group> {
        let mut parameters = self.nets.student.trainable();
        for ([_, neck], [student, _]) in self.roles.iter().zip(&self.classifiers) {
            parameters.push((format!("{neck}.classifier.weight"), student.clone()));
        }
        vec![Group {
            fresh: true,
            ..Group::adam("student", parameters)
        }]
    }

    fn relabel(&mut self, _epoch: usize, extract: &mut dyn Extract) -> Result<PseudoLabels> {
        let teacher = &self.nets.teacher;
        let necks = self.roles.iter().map(|[_, neck]| *neck);
        let roles: Vec<&str> = [EMBEDDING].into_iter().chain(necks).collect();
        let all = extract.outputs(teacher, &roles, false)?;
        let [whole, branches @ ..] = &all[..] else {
            bail!("no features came back")
        };
        let source = extract.source(teacher)?;
        let labels = self.clusterer.labels(whole, source.as_ref(), extract)?;
        let made = branches.iter().map(|f| centres(f, &labels, &self.device));
        let made: Vec<Tensor> = made.collect::<Result<_>>()?;
        self.classify_by(&made.iter().collect::<Vec<_>>())?;
        Ok(labels)
    }

    fn loss(&self, batch: &Batch) -> Result<LossTerms> {
        let (Some(view), Some(other_view)) = (batch.views.first(), batch.views.last()) else {
            bail!("ABMT wants a view")
        };
        let roles: Vec<&str> = self.roles.iter().flatten().copied().collect();
        let Pair { student, teacher } = &self.nets;
        let taught = teacher.forward_no_grad(other_view, Mode::Train, &roles)?;
        let learnt = student.forward(view, Mode::Train, &roles)?;
        let classifiers = self.classifiers()?;
        let (l, labels) = (&self.loss, &batch.labels);
        let count = self.roles.len();
        let share = match l.branches {
            BranchWeights::Mean => 1.0 / count as f64,
            BranchWeights::Sum => 1.0,
        };
        let mut rng = init::stream(self.seed, &format!("dropout {}", self.steps));
        let mut logits = |neck: Tensor, classifier: &Var| -> Result<Tensor> {
            let neck = dropout(&neck, l.dropout, &mut rng)?;
            Ok(ops::linear(&neck, classifier.as_tensor(), None)?)
        };
        let mut sums: [Option<Tensor>; 3] = [None, None, None];
        for own in 0..count {
            let other = if l.cross_branch {
                (own + 1) % count
            } else {
                own
            };
            let ([pooled, neck], [other_pooled, other_neck]) = (self.roles[own], self.roles[other]);
            let answer = logits(output(&learnt, neck)?, &classifiers[own][0])?;
            let target = logits(output(&taught, other_neck)?, &classifiers[other][1])?;
            let (pooled, other_pooled) = (output(&learnt, pooled)?, output(&taught, other_pooled)?);
            let terms = [
                cross_entropy(&answer, labels, l.smoothing)?,
                soft_identity(&answer, &target)?,
                soft_triplet(&pooled, &other_pooled, labels)?,
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

/// Sets a share of the values to zero and scales the others up, so that their sum stays what it was on average.
fn dropout(x: &Tensor, share: f64, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    if share == 0.0 {
        return Ok(x.clone());
    }
    let kept = 1.0 / (1.0 - share) as f32;
    let mask = (0..x.elem_count()).map(|_| match rng.random::<f64>() < share {
        true => 0.0,
        false => kept,
    });
    let mask: Vec<f32> = mask.collect();
    Ok((x * Tensor::from_vec(mask, x.dims(), x.device())?)?)
}
