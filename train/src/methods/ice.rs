//! ICE: inter-instance contrastive encoding (Chen, PhD thesis, chapter 6; ICCV 2021), camera-aware and camera-agnostic.
//!
//! An online encoder learns from targets that a momentum encoder (the teacher) provides, eq. 6.3:
//! `L = L_agnostic + lambda_c L_cross + lambda_h L_h_ins + lambda_s L_s_ins`.
//!
//! | term | prediction | target |
//! |---|---|---|
//! | proxy, eq. 6.5 | f(strong 1) | mean teacher feature of each cluster, no augmentation |
//! | cross, eq. 6.7 | f(strong 1) | mean teacher features of its cluster in each camera; `loss.cross_weight = 0` needs no cameras |
//! | hard instance, eq. 6.9 | f(strong 1) | m(strong 2), the least similar of the same cluster |
//! | soft instance, eq. 6.12 | similarities of f(strong 1) to m(strong 2) | similarities of m(weak) among themselves |
//!
//! Where the thesis and its public code differ, the code's form is taken, because it made the published numbers: the
//! feature of the proxy term is the raw neck output, not normalised, with label smoothing; all proxies of a cluster are
//! positives of one softmax; the consistency is KL(Q||P); the teacher runs in train mode and only its parameters are averaged,
//! its batch norm buffers come from its own passes. With batch norms in groups (`train.norm_groups`) the teacher's batches are
//! permuted before a pass and put back after it (ShuffleBN); over the whole batch that changes nothing. With true labels in place of pseudo labels (`cluster.truth`) it is the thesis's
//! supervised variant.

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use reid_models::Graph;
use reid_models::graph::NECK;
use reid_models::weights::{LoadReport, Weights};

use super::pseudo::{Clusterer, cameras, numbered_cameras};
use super::teacher::{Pair, weight_of_old};
use super::{Batch, Extract, Features, Group, LossTerms, Method, Sampling, State, View, output};
use crate::clustering::PseudoLabels;
use crate::config::{Consistency, LossConfig, RunConfig, TargetView};
use crate::losses::{
    Proxies, cross_camera, hard_instance, proxy_nce, similarity_gap, soft_instance,
};
use crate::memory::{CameraProxies, camera_proxies, centroids};
use crate::nn::{Mode, Net, init};

/// Online encoder, momentum encoder, proxies.
pub struct Ice {
    nets: Pair,
    clusterer: Clusterer,
    loss: LossConfig,
    ema: f64,
    ramp: bool,
    steps: u64,
    device: Device,
    proxies: Option<Memory>,
    shuffle: Shuffle,
}

/// In which order the teacher sees a batch.
enum Shuffle {
    /// The student's.
    Never,
    /// One drawn for every step and pass, with this seed.
    Drawn(u64),
    /// These, of the pass over the strong view and of that over the weak one.
    Given([Vec<u32>; 2]),
}

/// What the online encoder is compared with, fixed during the epoch.
struct Memory {
    /// Mean teacher feature of each cluster (C, D).
    clusters: Tensor,
    /// Of each cluster in each camera (M, D).
    cameras: Option<(Tensor, CameraProxies)>,
}

/// Builds the method; both encoders start from the same weights.
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
    Ok((Box::new(Ice::new(config, nets)?), report))
}

impl Ice {
    /// With networks made elsewhere.
    ///
    /// # Errors
    /// If the settings don't fit.
    pub fn new(config: &RunConfig, nets: Pair) -> Result<Self> {
        Ok(Ice {
            device: nets.student.device().clone(),
            nets,
            clusterer: Clusterer::new(config)?,
            loss: config.loss.clone(),
            ema: config.train.ema,
            ramp: config.train.ema_ramp,
            steps: 0,
            proxies: None,
            shuffle: match config.loss.teacher_shuffle && config.train.norm_groups > 1 {
                true => Shuffle::Drawn(config.seed),
                false => Shuffle::Never,
            },
        })
    }

    /// Makes the proxies of an epoch: unit teacher features and the clusters and cameras of all pictures.
    ///
    /// # Errors
    /// If a cluster has no members.
    pub fn remember(
        &mut self,
        features: &Features,
        labels: &PseudoLabels,
        cameras: &[u32],
    ) -> Result<()> {
        let width = features.width;
        let (rows, of, count) = (&features.rows, &labels.labels, labels.clusters);
        // Eq. 6.4: the plain mean, not brought back to unit length.
        let means = centroids(rows, width, of, count)?;
        let clusters = Tensor::from_vec(means, (count, width), &self.device)?;
        let cameras = if self.loss.cross_weight > 0.0 {
            let proxies = camera_proxies(rows, width, of, cameras)?;
            let shape = (proxies.clusters.len(), width);
            let rows = Tensor::from_slice(&proxies.rows, shape, &self.device)?;
            Some((rows, proxies))
        } else {
            None
        };
        self.proxies = Some(Memory { clusters, cameras });
        Ok(())
    }

    /// Sets the proxies of an epoch: of the clusters (C, D) and, with their clusters and cameras, of each cluster in each camera
    /// (M, D).
    pub fn set_proxies(&mut self, clusters: Tensor, cameras: Option<(Tensor, Vec<u32>, Vec<u32>)>) {
        let cameras = cameras.map(|(rows, clusters, cameras)| {
            let proxies = CameraProxies {
                rows: Vec::new(),
                clusters,
                cameras,
            };
            (rows, proxies)
        });
        self.proxies = Some(Memory { clusters, cameras });
    }

    /// The proxies of the epoch; `None` before the first relabelling.
    pub fn proxies(&self) -> Option<(&Tensor, Option<(&Tensor, &CameraProxies)>)> {
        let memory = self.proxies.as_ref()?;
        let cameras = memory.cameras.as_ref();
        Some((&memory.clusters, cameras.map(|(rows, of)| (rows, of))))
    }

    /// Sets the orders in which the teacher sees the batches of its strong and its weak view.
    pub fn set_teacher_orders(&mut self, orders: [Vec<u32>; 2]) {
        self.shuffle = Shuffle::Given(orders);
    }

    /// The teacher's answers, row by row, to pictures that it sees in another order: in groups a batch norm's statistics are
    /// those of the pictures side by side, and what the student's groups have in common would give the answer away.
    fn taught(&self, images: &Tensor, pass: usize) -> Result<Tensor> {
        let answers = |images: &Tensor| {
            let teacher = &self.nets.teacher;
            output(
                &teacher.forward_no_grad(images, Mode::Train, &[NECK])?,
                NECK,
            )
        };
        let order: Vec<u32> = match &self.shuffle {
            Shuffle::Never => return answers(images),
            Shuffle::Given(orders) => orders[pass].clone(),
            Shuffle::Drawn(seed) => {
                let mut order: Vec<u32> = (0..images.dim(0)? as u32).collect();
                let name = format!("teacher order {} {pass}", self.steps);
                order.shuffle(&mut init::stream(*seed, &name));
                order
            }
        };
        let mut back = vec![0; order.len()];
        for (seen, own) in (0..).zip(&order) {
            back[*own as usize] = seen;
        }
        let rows = |order: Vec<u32>| Tensor::new(order, images.device());
        let seen = images.index_select(&rows(order)?, 0)?;
        Ok(answers(&seen)?.index_select(&rows(back)?, 0)?)
    }

    /// Student and teacher.
    pub fn nets(&self) -> &Pair {
        &self.nets
    }
}

impl Method for Ice {
    fn views(&self) -> &'static [View] {
        &[View::Strong, View::Strong, View::Weak]
    }

    fn sampling(&self) -> Sampling {
        Sampling::MoreCameras
    }

    fn groups(&self) -> Vec<Group> {
        vec![Group::adam("student", self.nets.student.trainable())]
    }

    fn relabel(&mut self, _epoch: usize, extract: &mut dyn Extract) -> Result<PseudoLabels> {
        if self.loss.cross_weight > 0.0 {
            let instead =
                "set loss.cross_weight=0 (the presets ice and ice_small) to train without cameras";
            numbered_cameras(extract, "ICE with loss.cross_weight", instead)?;
        }
        let features = extract.features(&self.nets.teacher)?;
        let labels = self.clusterer.labels(&features, None, extract)?;
        self.remember(&features, &labels, &cameras(extract))?;
        Ok(labels)
    }

    fn loss(&self, batch: &Batch) -> Result<LossTerms> {
        let [strong1, strong2, weak] = batch.views.as_slice() else {
            anyhow::bail!("ICE wants three views")
        };
        let memory = self.proxies.as_ref();
        let memory = memory.context("ICE has no proxies before its first relabel")?;
        let (m_strong, m_weak) = (self.taught(strong2, 0)?, self.taught(weak, 1)?);
        let student = &self.nets.student;
        let f = output(&student.forward(strong1, Mode::Train, &[NECK])?, NECK)?;

        let l = &self.loss;
        let labels = &batch.labels;
        let proxy = proxy_nce(
            &f,
            &memory.clusters,
            labels,
            l.proxy_temperature,
            l.smoothing,
        )?;
        let mut terms = vec![("proxy", 1.0, proxy)];
        if let Some((rows, of)) = &memory.cameras {
            let proxies = Proxies {
                rows,
                clusters: &of.clusters,
                cameras: &of.cameras,
            };
            let (tau, negatives) = (l.cross_temperature, l.cross_negatives);
            let seen = &batch.cameras;
            let cross = cross_camera(&f, proxies, labels, seen, tau, negatives, l.cross_form)?;
            terms.push(("cross", l.cross_weight, cross));
        }
        if l.hard_weight > 0.0 {
            let (tau, against) = (l.hard_temperature, l.hard_negatives);
            let hard = hard_instance(&f, &m_strong, labels, tau, against)?;
            terms.push(("hard", l.hard_weight, hard));
        }
        if l.soft_weight > 0.0 {
            let target = match l.soft_target {
                TargetView::Weak => &m_weak,
                TargetView::Strong => &m_strong,
            };
            let (tau, direction) = (l.soft_temperature, l.soft_direction);
            let soft = match l.soft_form {
                Consistency::Kl => soft_instance(&f, &m_strong, target, tau, direction)?,
                Consistency::Mse => similarity_gap(&f, &m_strong, target)?,
            };
            terms.push(("soft", l.soft_weight, soft));
        }
        LossTerms::weighted(terms)
    }

    fn after_step(&mut self, _batch: &Batch, _kept: &[Tensor]) -> Result<()> {
        let alpha = weight_of_old(self.steps, self.ema, self.ramp);
        self.steps += 1;
        self.nets.average(alpha)
    }

    fn net(&self) -> &Net {
        &self.nets.teacher
    }

    fn state(&self) -> Result<State> {
        // The proxies are not part of it: the next epoch starts by making new ones.
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
