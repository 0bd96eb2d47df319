//! MMT: mutual mean-teaching (Ge et al., ICLR 2020), optionally with CANU's camera adversary (Delorme et al. 2021).
//!
//! Two students see two different views; each is followed by a teacher, and each learns from the pseudo labels and from the
//! *other* student's teacher (methods.md 5.3):
//!
//! `L = sum over students i, other teacher j of  (1 - w_c) CE_i + w_c SCE(i | j) + (1 - w_t) T_i + w_t ST(i | j)`
//!
//! where T is the softmax-triplet on the pooled feature and S* take the teacher's answer as their target. The weights are
//! `loss.identity_weight`, `soft_identity_weight`, `triplet_weight`, `soft_triplet_weight`. Classifiers begin every epoch as the
//! unit centres of the clusters.
//!
//! With `[adversary]` each student has a discriminator of cameras to learn against, on its pooled feature, told the mean pooled
//! feature of the picture's cluster. Evaluated and exported is the first teacher.

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor, Var};
use reid_models::Graph;
use reid_models::graph::{NECK, POOLED};
use reid_models::weights::{LoadReport, Weights};

use super::camera_game::CameraGame;
use super::pseudo::{Clusterer, centres, mean_features};
use super::teacher::{Pair, average_one, weight_of_old};
use super::{
    Batch, Extract, Features, Group, LossTerms, Method, Rule, Sampling, State, View, output,
    prefixed,
};
use crate::clustering::PseudoLabels;
use crate::config::{LossConfig, RunConfig};
use crate::losses::{TripletMargin, cross_entropy, soft_identity, soft_triplet, triplet};
use crate::nn::{Mode, Net, ops};
use crate::start::starting_weights;

/// Names of the networks in a checkpoint.
const NAMES: [[&str; 2]; 2] = [["student1", "teacher1"], ["student2", "teacher2"]];

/// Two students, two teachers.
pub struct Mmt {
    pairs: [Pair; 2],
    /// Classifiers (C, D): of each pair its student's and its teacher's.
    classifiers: Option<[[Var; 2]; 2]>,
    clusterer: Clusterer,
    loss: LossConfig,
    ema: f64,
    ramp: bool,
    steps: u64,
    device: Device,
    game: CameraGame,
}

/// Builds the method. The second pair starts with `model.init2`, or else as the first: then the two differ by what they see
/// alone. The text trains two starts from two seeds.
///
/// # Errors
/// If the weights or the settings don't fit.
pub fn build(
    config: &RunConfig,
    device: &Device,
    graph: Graph,
    init: Option<&Weights>,
) -> Result<(Box<dyn Method>, LoadReport)> {
    let own = match config.model.init2.as_str() {
        "" => None,
        name => starting_weights(name)?,
    };
    let second = own.as_ref().or(init);
    let (one, report) = Pair::new(config, config.seed, device, graph.clone(), init)?;
    let (two, _) = Pair::new(config, config.seed.wrapping_add(1), device, graph, second)?;
    Ok((Box::new(Mmt::new(config, [one, two])?), report))
}

impl Mmt {
    /// With networks made elsewhere.
    ///
    /// # Errors
    /// If the settings don't fit.
    pub fn new(config: &RunConfig, pairs: [Pair; 2]) -> Result<Self> {
        Ok(Mmt {
            device: pairs[0].student.device().clone(),
            pairs,
            classifiers: None,
            clusterer: Clusterer::new(config)?,
            loss: config.loss.clone(),
            ema: config.train.ema,
            ramp: config.train.ema_ramp,
            steps: 0,
            game: CameraGame::new(config),
        })
    }

    /// Gives all four networks the same classifier (C, D).
    ///
    /// # Errors
    /// candle's.
    pub fn classify_by(&mut self, centres: &Tensor) -> Result<()> {
        let one = || Ok::<_, anyhow::Error>([fresh(centres)?, fresh(centres)?]);
        self.classifiers = Some([one()?, one()?]);
        Ok(())
    }

    /// The mean of both teachers' unit features, made unit, and the unit centres of its clusters (C, D).
    ///
    /// # Errors
    /// If a cluster has no members.
    pub fn centres(
        both: Vec<Features>,
        labels: &PseudoLabels,
        device: &Device,
    ) -> Result<(Features, Tensor)> {
        let features = mean_features(both)?;
        let centres = centres(&features, labels, device)?;
        Ok((features, centres))
    }

    /// Classifiers as they are: of each pair its student's and its teacher's.
    ///
    /// # Errors
    /// Before the first relabelling.
    pub fn classifiers(&self) -> Result<&[[Var; 2]; 2]> {
        let known = self.classifiers.as_ref();
        known.context("MMT has no classifiers before its first relabel")
    }

    /// Networks: of each pair its student and its teacher.
    pub fn pairs(&self) -> &[Pair; 2] {
        &self.pairs
    }

    /// CANU's discriminators.
    pub fn game(&mut self) -> &mut CameraGame {
        &mut self.game
    }

    /// Continues at a later step.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }
}

/// A variable of its own with these values.
fn fresh(values: &Tensor) -> Result<Var> {
    Ok(Var::from_tensor(&values.copy()?)?)
}

impl Method for Mmt {
    fn views(&self) -> &'static [View] {
        &[View::Strong, View::Strong]
    }

    fn sampling(&self) -> Sampling {
        Sampling::OtherCameras
    }

    fn groups(&self) -> Vec<Group> {
        let mut parameters = Vec::new();
        for (i, pair) in self.pairs.iter().enumerate() {
            let name = NAMES[i][0];
            parameters.extend(prefixed(name, pair.student.trainable()));
            if let Some(classifiers) = &self.classifiers {
                let weight = classifiers[i][0].clone();
                parameters.push((format!("{name}.classifier.weight"), weight));
            }
        }
        let mut groups = vec![Group {
            fresh: true,
            ..Group::adam("students", parameters)
        }];
        groups.extend(self.game.group(Rule::Adam { amsgrad: false }));
        groups
    }

    fn relabel(&mut self, _epoch: usize, extract: &mut dyn Extract) -> Result<PseudoLabels> {
        let (mut all, mut pooled, mut source) = (Vec::new(), Vec::new(), Vec::new());
        let conditioned = self.game.wants_centres();
        for pair in &self.pairs {
            all.push(extract.features(&pair.teacher)?);
            source.extend(extract.source(&pair.teacher)?);
            if conditioned {
                pooled.extend(extract.outputs(&pair.student, &[POOLED], false)?);
            }
        }
        let features = mean_features(all)?;
        let source = match source.is_empty() {
            true => None,
            false => Some(mean_features(source)?),
        };
        let labels = self.clusterer.labels(&features, source.as_ref(), extract)?;
        self.classify_by(&centres(&features, &labels, &self.device)?)?;
        let widths = [self.net().graph().width(POOLED)?; 2];
        self.game
            .prepare(&["1", "2"], widths, &pooled, &labels, extract, &self.device)?;
        Ok(labels)
    }

    fn loss(&self, batch: &Batch) -> Result<LossTerms> {
        let [_, _] = batch.views.as_slice() else {
            bail!("MMT wants two views")
        };
        let classifiers = self.classifiers()?;
        let roles = [POOLED, NECK];
        let mut taught = Vec::new();
        for (i, pair) in self.pairs.iter().enumerate() {
            let outputs = pair
                .teacher
                .forward_no_grad(&batch.views[i], Mode::Train, &roles)?;
            let logits = ops::linear(
                &output(&outputs, NECK)?,
                classifiers[i][1].as_tensor(),
                None,
            )?;
            taught.push((output(&outputs, POOLED)?, logits.detach()));
        }
        let l = &self.loss;
        let labels = &batch.labels;
        let mut sums: Vec<(&'static str, f64, Tensor)> = Vec::new();
        let mut add = |name, weight: f64, term: Tensor| -> Result<()> {
            match sums.iter_mut().find(|(known, _, _)| *known == name) {
                Some((_, _, sum)) => *sum = (&*sum + term)?,
                None => sums.push((name, weight, term)),
            }
            Ok(())
        };
        for (i, pair) in self.pairs.iter().enumerate() {
            let outputs = pair.student.forward(&batch.views[i], Mode::Train, &roles)?;
            let pooled = output(&outputs, POOLED)?;
            let logits = ops::linear(
                &output(&outputs, NECK)?,
                classifiers[i][0].as_tensor(),
                None,
            )?;
            let (other_pooled, other_logits) = &taught[1 - i];
            add(
                "identity",
                l.identity_weight,
                cross_entropy(&logits, labels, l.smoothing)?,
            )?;
            add(
                "soft_identity",
                l.soft_identity_weight,
                soft_identity(&logits, other_logits)?,
            )?;
            add(
                "triplet",
                l.triplet_weight,
                triplet(&pooled, labels, TripletMargin::Soft)?,
            )?;
            add(
                "soft_triplet",
                l.soft_triplet_weight,
                soft_triplet(&pooled, other_pooled, labels)?,
            )?;
            if let Some(camera) = self.game.loss(i, &pooled, batch)? {
                add("camera", 1.0, camera)?;
            }
        }
        LossTerms::weighted(sums)
    }

    fn after_step(&mut self, _batch: &Batch, _kept: &[Tensor]) -> Result<()> {
        let alpha = weight_of_old(self.steps, self.ema, self.ramp);
        self.steps += 1;
        for pair in &self.pairs {
            pair.average(alpha)?;
        }
        for [student, teacher] in self.classifiers()? {
            average_one(teacher, student, alpha)?;
        }
        Ok(())
    }

    fn net(&self) -> &Net {
        &self.pairs[0].teacher
    }

    fn state(&self) -> Result<State> {
        // Classifiers are not part of it: the next epoch starts by making new ones.
        let mut state = State::new();
        for (pair, names) in self.pairs.iter().zip(NAMES) {
            pair.save(&mut state, names)?;
        }
        super::save_steps(&mut state, self.steps);
        self.clusterer.save(&mut state);
        self.game.save(&mut state)?;
        Ok(state)
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        for (pair, names) in self.pairs.iter_mut().zip(NAMES) {
            pair.load(state, names)?;
        }
        self.steps = super::load_steps(state);
        self.clusterer.load(state);
        self.game.load(state);
        Ok(())
    }
}
