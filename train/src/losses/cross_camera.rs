//! Contrast of samples with the proxies of their clusters in every camera: ICE's camera-aware loss.

use std::collections::BTreeMap;

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use super::{LossError, Result, matrix, positive, same};
use crate::nn::ops::{l2_normalize, linear, log_softmax};

/// A logit that counts as absent, see [`log_softmax`].
const MASKED: f32 = -1e9;

/// How positives share a softmax.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CrossForm {
    /// As the published numbers were made: all proxies of the sample's cluster are positives, in one softmax with the
    /// negatives, each with an equal share of the target; means over the samples of each camera, summed over the cameras.
    #[default]
    Joint,
    /// As eq. 6.7 of the thesis prints it: proxies in *other* cameras, a softmax for each of them and the negatives; means
    /// over a sample's positives, then over the batch. A sample whose cluster only its own camera saw adds 0.
    Printed,
}

/// What a sample is compared with: one proxy per cluster and camera.
#[derive(Clone, Copy, Debug)]
pub struct Proxies<'a> {
    /// (M, D).
    pub rows: &'a Tensor,
    /// Cluster of each, M.
    pub clusters: &'a [u32],
    /// Camera of each, M.
    pub cameras: &'a [u32],
}

/// ICE (Chen et al. 2021), eq. 6.7 and 6.8 of the thesis, with cosines over `tau`: a sample against the proxies of its
/// cluster in the cameras and the `negatives` most similar proxies of other clusters (all, where there are fewer).
///
/// Shapes: `f` (B, D); `labels` and `cameras` B clusters and cameras; result ().
///
/// # Errors
/// If shapes do not fit, tau is not positive, or a sample's cluster has no proxy.
pub fn cross_camera(
    f: &Tensor,
    proxies: Proxies<'_>,
    labels: &[u32],
    cameras: &[u32],
    tau: f64,
    negatives: usize,
    form: CrossForm,
) -> Result<Tensor> {
    const LOSS: &str = "cross_camera";
    let (batch, width) = matrix(LOSS, "f", f)?;
    let (count, proxy_width) = matrix(LOSS, "proxies", proxies.rows)?;
    same(LOSS, "widths of f and proxies", width, proxy_width)?;
    same(LOSS, "batch and labels", batch, labels.len())?;
    same(LOSS, "batch and cameras", batch, cameras.len())?;
    same(LOSS, "proxies and clusters", count, proxies.clusters.len())?;
    same(LOSS, "proxies and cameras", count, proxies.cameras.len())?;
    let tau = positive(LOSS, "tau", tau)?;
    let unit = l2_normalize(&proxies.rows.detach())?;
    let cosine = linear(&l2_normalize(f)?, &unit, None)?;
    let logits = (&cosine / tau)?;
    let values = cosine.detach().to_vec2::<f32>()?;
    let sample = |i: usize| Sample::of(&values[i], proxies, labels[i], cameras[i], negatives, form);
    let samples: Vec<Sample> = (0..batch).map(sample).collect();
    if let Some(i) = (0..batch).find(|&i| !proxies.clusters.contains(&labels[i])) {
        return Err(LossError::Shape {
            loss: LOSS,
            what: format!("cluster {} of sample {i} has no proxy", labels[i]),
        });
    }
    let matrix_of = |of: &dyn Fn(usize, &Sample, usize) -> f32| -> Result<Tensor> {
        let values = samples.iter().enumerate();
        let values = values.flat_map(|(i, s)| (0..count).map(move |m| of(i, s, m)));
        Ok(Tensor::from_vec(
            values.collect::<Vec<f32>>(),
            (batch, count),
            f.device(),
        )?)
    };
    match form {
        CrossForm::Joint => {
            let mut of_camera = BTreeMap::<u32, usize>::new();
            cameras
                .iter()
                .for_each(|c| *of_camera.entry(*c).or_default() += 1);
            let mask = matrix_of(&|_, s, m| {
                let wanted = s.positive[m] || s.negative[m];
                if wanted { 0.0 } else { MASKED }
            })?;
            let share = matrix_of(&|i, s, m| {
                let positives = s.positive.iter().filter(|p| **p).count() * of_camera[&cameras[i]];
                if s.positive[m] {
                    -1.0 / positives as f32
                } else {
                    0.0
                }
            })?;
            Ok((log_softmax(&(logits + mask)?)? * share)?.sum_all()?)
        }
        CrossForm::Printed => {
            let mask = matrix_of(&|_, s, m| if s.negative[m] { 0.0 } else { MASKED })?;
            let share = matrix_of(&|_, s, m| {
                let positives = s.positive.iter().filter(|p| **p).count() * batch;
                if s.positive[m] {
                    1.0 / positives as f32
                } else {
                    0.0
                }
            })?;
            // -ln(e^k / (e^k + sum e^j)) = ln(1 + e^(l - k)), l the logarithm of the negatives' sum.
            let gap = log_sum(&(&logits + mask)?)?.broadcast_sub(&logits)?;
            let pairs = Tensor::stack(&[gap.zeros_like()?, gap], D::Minus1)?;
            let each = log_softmax(&pairs.reshape((batch * count, 2))?)?;
            let each = each.narrow(1, 0, 1)?.reshape((batch, count))?;
            Ok((each * share)?.sum_all()?.neg()?)
        }
    }
}

/// Proxies as one sample sees them.
struct Sample {
    positive: Vec<bool>,
    negative: Vec<bool>,
}

impl Sample {
    fn of(
        cosines: &[f32],
        proxies: Proxies<'_>,
        cluster: u32,
        camera: u32,
        negatives: usize,
        form: CrossForm,
    ) -> Self {
        let own = |m: usize| proxies.clusters[m] == cluster;
        let positive = (0..cosines.len())
            .map(|m| own(m) && (form == CrossForm::Joint || proxies.cameras[m] != camera))
            .collect();
        let mut others: Vec<usize> = (0..cosines.len()).filter(|&m| !own(m)).collect();
        others.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]));
        let mut negative = vec![false; cosines.len()];
        for m in others.into_iter().take(negatives) {
            negative[m] = true;
        }
        Sample { positive, negative }
    }
}

/// `ln sum e^x` of each row of (N, D): (N, 1).
fn log_sum(x: &Tensor) -> candle_core::Result<Tensor> {
    let largest = x.detach().max_keepdim(D::Minus1)?;
    let sum = x.broadcast_sub(&largest)?.exp()?.sum_keepdim(D::Minus1)?;
    sum.log()?.broadcast_add(&largest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn equal_similarities_give_known_values() {
        let f = Var::ones((3, 4), DType::F32, &Device::Cpu).unwrap();
        let rows = Tensor::ones((6, 4), DType::F32, &Device::Cpu).unwrap();
        let proxies = Proxies {
            rows: &rows,
            clusters: &[0, 0, 1, 1, 2, 2],
            cameras: &[0, 1, 0, 1, 0, 1],
        };
        let loss = |negatives, form| {
            let loss = cross_camera(&f, proxies, &[0, 1, 2], &[0, 0, 1], 0.07, negatives, form);
            loss.unwrap().to_scalar::<f32>().unwrap()
        };
        // Two positives and four negatives in one softmax, for each of two cameras.
        assert!((loss(50, CrossForm::Joint) - 2.0 * 6f32.ln()).abs() < 1e-5);
        assert!((loss(1, CrossForm::Joint) - 2.0 * 3f32.ln()).abs() < 1e-5);
        // One positive and four negatives, mean over the batch.
        assert!((loss(50, CrossForm::Printed) - 5f32.ln()).abs() < 1e-5);
        assert!(loss(0, CrossForm::Printed).abs() < 1e-6);
    }

    #[test]
    fn a_cluster_of_one_camera_adds_nothing_as_printed_and_a_missing_one_is_named() {
        let f = Var::new(&[[1f32, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
        let rows = Tensor::new(&[[1f32, 0.2], [0.1, 1.0]], &Device::Cpu).unwrap();
        let proxies = Proxies {
            rows: &rows,
            clusters: &[0, 1],
            cameras: &[3, 3],
        };
        let form = CrossForm::Printed;
        let loss = cross_camera(&f, proxies, &[0, 1], &[3, 3], 0.07, 50, form).unwrap();
        assert_eq!(loss.to_scalar::<f32>().unwrap(), 0.0);
        let grads = loss.backward().unwrap();
        let grad = grads.get(&f).unwrap().to_vec2::<f32>().unwrap();
        assert!(grad.iter().flatten().all(|g| *g == 0.0));
        let err = cross_camera(&f, proxies, &[0, 7], &[3, 3], 0.07, 50, form);
        let err = err.unwrap_err().to_string();
        assert_eq!(err, "cross_camera: cluster 7 of sample 1 has no proxy");
    }
}
