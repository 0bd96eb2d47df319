//! ICE, camera-agnostic (Chen, PhD thesis, chapter 6; ICCV 2021).
//!
//! An online encoder learns from targets that a momentum encoder (the teacher) provides, eq. 6.3:
//! `L = L_agnostic + lambda_h L_h_ins + lambda_s L_s_ins`.
//!
//! | term | prediction | target |
//! |---|---|---|
//! | proxy, eq. 6.5 | f(strong 1) | mean teacher feature of each cluster, no augmentation |
//! | hard instance, eq. 6.9 | f(strong 1) | m(strong 2), the least similar of the same cluster |
//! | soft instance, eq. 6.12 | similarities of f(strong 1) to m(strong 2) | similarities of m(weak) among themselves |
//!
//! Where the thesis and its public code differ, the code's form is taken, because it made the published numbers: the
//! feature of the proxy term is the raw neck output, not normalised, with label smoothing; the consistency is KL(Q||P);
//! the teacher runs in train mode and only its parameters are averaged, its batch norm buffers come from its own passes.
//! (The code also permutes the teacher's batch, which with batch statistics over the whole batch changes nothing.)

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use reid_models::Graph;
use reid_models::graph::NECK;
use reid_models::weights::{LoadReport, Weights};

use super::{Batch, Extract, Group, LossTerms, Method, Sampling, State, View};
use crate::clustering::{self, Dbscan, Jaccard, PseudoLabels};
use crate::config::{LossConfig, RunConfig};
use crate::losses::hard_instance::hard_instance;
use crate::losses::proxy_nce::proxy_nce;
use crate::losses::soft_instance::soft_instance;
use crate::memory::centroids::centroids;
use crate::nn::{Mode, Net};

/// Online encoder, momentum encoder, proxies.
pub struct Ice {
    student: Net,
    teacher: Net,
    jaccard: Jaccard,
    dbscan: Dbscan,
    loss: LossConfig,
    ema: f64,
    device: Device,
    /// Mean teacher feature of each cluster (C, D), fixed during the epoch.
    proxies: Option<Tensor>,
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
    let mut student = Net::new(graph.clone(), config.seed, device)?;
    let report = match init {
        Some(weights) => student.load(weights)?,
        None => LoadReport::default(),
    };
    let teacher = Net::new(graph, config.seed, device)?;
    teacher.clone_weights_from(&student)?;
    let method = Ice {
        student,
        teacher,
        jaccard: Jaccard::new(
            config.cluster.k1,
            config.cluster.k2,
            clustering::Weights::default(),
        )?,
        dbscan: Dbscan::new(config.cluster.eps, config.cluster.min_samples)?,
        loss: config.loss.clone(),
        ema: config.train.ema,
        device: device.clone(),
        proxies: None,
    };
    Ok((Box::new(method), report))
}

impl Method for Ice {
    fn views(&self) -> &'static [View] {
        &[View::Strong, View::Strong, View::Weak]
    }

    fn sampling(&self) -> Sampling {
        Sampling::MoreCameras
    }

    fn groups(&self) -> Vec<Group> {
        vec![Group {
            name: "student",
            parameters: self.student.trainable(),
        }]
    }

    fn relabel(&mut self, _epoch: usize, extract: &mut dyn Extract) -> Result<PseudoLabels> {
        let features = extract.features(&self.teacher)?;
        let labels = features
            .labels(|rows, width| clustering::cluster(rows, width, &self.jaccard, &self.dbscan))?;
        // Eq. 6.4: the plain mean, not brought back to unit length.
        let means = centroids(
            &features.rows,
            features.width,
            &labels.labels,
            labels.clusters,
        )?;
        self.proxies = Some(Tensor::from_vec(
            means,
            (labels.clusters, features.width),
            &self.device,
        )?);
        Ok(labels)
    }

    fn loss(&self, batch: &Batch) -> Result<LossTerms> {
        let [strong1, strong2, weak] = batch.views.as_slice() else {
            anyhow::bail!("ICE wants three views")
        };
        let proxies = self
            .proxies
            .as_ref()
            .context("ICE has no proxies before its first relabel")?;
        let feature = |outputs: std::collections::BTreeMap<String, Tensor>| {
            outputs
                .get(NECK)
                .cloned()
                .context("the network has no neck output")
        };
        let m_strong = feature(
            self.teacher
                .forward_no_grad(strong2, Mode::Train, &[NECK])?,
        )?;
        let m_weak = feature(self.teacher.forward_no_grad(weak, Mode::Train, &[NECK])?)?;
        let f = feature(self.student.forward(strong1, Mode::Train, &[NECK])?)?;

        let l = &self.loss;
        let proxy = proxy_nce(&f, proxies, &batch.labels, l.proxy_temperature, l.smoothing)?;
        let mut terms = vec![("proxy", proxy.detach())];
        let mut total = proxy;
        if l.hard_weight > 0.0 {
            let hard = hard_instance(&f, &m_strong, &batch.labels, l.hard_temperature)?;
            terms.push(("hard", hard.detach()));
            total = (total + (hard * l.hard_weight)?)?;
        }
        if l.soft_weight > 0.0 {
            let soft = soft_instance(&f, &m_strong, &m_weak, l.soft_temperature, l.soft_direction)?;
            terms.push(("soft", soft.detach()));
            total = (total + (soft * l.soft_weight)?)?;
        }
        Ok(LossTerms { total, terms })
    }

    fn after_step(&mut self, _batch: &Batch) -> Result<()> {
        Ok(self.teacher.ema_update(&self.student, self.ema)?)
    }

    fn net(&self) -> &Net {
        &self.teacher
    }

    fn state(&self) -> Result<State> {
        // The proxies are not part of it: the next epoch starts by making new ones.
        Ok(State::from([
            ("student".to_string(), self.student.to_weights()?),
            ("teacher".to_string(), self.teacher.to_weights()?),
        ]))
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        super::load_whole(&mut self.student, state, "student")?;
        super::load_whole(&mut self.teacher, state, "teacher")
    }
}
