//! Triplet losses: batch-hard, taught by a teacher, and SSG's.

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use super::{LossError, Result, matrix, positive, same};
use crate::nn::ops::{log_softmax, relu, row_distance};
use crate::simd::squared_distance;

/// What separates positive and negative distance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TripletMargin {
    /// `ln(1 + e^(d_ap - d_an))`: the softmax-triplet of MMT and ABMT ("margin 0"); ln 2 where both are equal.
    Soft,
    /// `max(0, d_ap - d_an + margin)` (Hermans et al. 2017, eq. 5).
    Margin(f64),
}

/// Batch-hard triplet loss, batch mean (Hermans et al. 2017, eq. 5; soft form as in MMT, Ge et al. 2020): for each sample
/// the farthest of its class and the nearest of all others, by Euclidean distance of the features as they are.
///
/// The sample itself is among its positives (distance 1e-6), which counts only where it is alone in its class. A sample
/// with no negative is left out. Pairs are chosen without gradient and their distances computed anew from the rows: exact
/// also where the matrix form cancels, and without NaN for identical rows.
///
/// Shapes: `features` (B, D); `labels` B identities; result ().
///
/// # Errors
/// If shapes do not fit, there is no negative at all, or the margin is not positive.
pub fn triplet(features: &Tensor, labels: &[u32], margin: TripletMargin) -> Result<Tensor> {
    const LOSS: &str = "triplet";
    let mined = batch_hard(LOSS, features, labels)?;
    let (d_ap, d_an) = mined.distances(features)?;
    hinge(LOSS, &d_ap, &d_an, margin)
}

/// Softmax-triplet with a teacher's share as its target, batch mean (MMT, Ge et al. 2020, eq. 7; ABMT, Chen et al. 2021,
/// eq. 4.7 of the thesis): pairs are the hardest by the student's distances, `s` is the softmax over a pair's two
/// distances, `t` that of the teacher's distances of the same pair, and the loss `-(t_p ln s_p + t_n ln s_n)`.
///
/// The thesis prints one term, `-s ln t`, whose least value lies where positives are infinitely far; both terms are meant.
///
/// Shapes: `student`, `teacher` (B, D and E), the latter without gradient; `labels` B identities; result ().
///
/// # Errors
/// As [`triplet`].
pub fn soft_triplet(student: &Tensor, teacher: &Tensor, labels: &[u32]) -> Result<Tensor> {
    const LOSS: &str = "soft_triplet";
    let (batch, _) = matrix(LOSS, "student", student)?;
    let (other, _) = matrix(LOSS, "teacher", teacher)?;
    same(LOSS, "batches of student and teacher", batch, other)?;
    let mined = batch_hard(LOSS, student, labels)?;
    let shares = |features: &Tensor| -> Result<Tensor> {
        let (d_ap, d_an) = mined.distances(features)?;
        Ok(log_softmax(&Tensor::stack(&[d_ap, d_an], D::Minus1)?)?)
    };
    let target = shares(&teacher.detach())?.exp()?;
    let pairs = mined.anchors.len() as f64;
    Ok(((target * shares(student)?)?.sum_all()? / -pairs)?)
}

/// SSG's triplet loss (Fu et al. 2019, as its public code mines): in every run of K pictures of one identity each pair, in
/// order, is a positive, and its first picture's nearest picture of another label the negative. Mean over all pairs.
///
/// `labels` may differ within a run, because runs are drawn by the label of the whole body and parts have their own: a pair
/// stays positive by its place.
///
/// Shapes: `features` (P K, D); `labels` P K; result ().
///
/// # Errors
/// As [`triplet`], or if the batch is not made of whole runs of at least 2.
pub fn semi_hard_triplet(
    features: &Tensor,
    labels: &[u32],
    instances: usize,
    margin: TripletMargin,
) -> Result<Tensor> {
    const LOSS: &str = "semi_hard_triplet";
    let (batch, _) = matrix(LOSS, "features", features)?;
    same(LOSS, "batch and labels", batch, labels.len())?;
    if instances < 2 || !batch.is_multiple_of(instances) {
        return Err(LossError::Shape {
            loss: LOSS,
            what: format!("a batch of {batch} is not made of runs of {instances} pictures"),
        });
    }
    let squares = squares(features)?;
    let mut mined = Mined::default();
    for anchor in 0..batch {
        let row = &squares[anchor * batch..][..batch];
        let others = (0..batch).filter(|&j| labels[j] != labels[anchor]);
        let Some(negative) = others.min_by(|&a, &b| row[a].total_cmp(&row[b])) else {
            continue;
        };
        let end = (anchor / instances + 1) * instances;
        for positive in anchor + 1..end {
            mined.push(anchor, positive, negative);
        }
    }
    mined.check(LOSS, batch)?;
    let (d_ap, d_an) = mined.distances(features)?;
    hinge(LOSS, &d_ap, &d_an, margin)
}

/// Rows of a batch that make triplets.
#[derive(Default)]
struct Mined {
    anchors: Vec<u32>,
    positives: Vec<u32>,
    negatives: Vec<u32>,
}

impl Mined {
    fn push(&mut self, anchor: usize, positive: usize, negative: usize) {
        self.anchors.push(anchor as u32);
        self.positives.push(positive as u32);
        self.negatives.push(negative as u32);
    }

    fn check(&self, loss: &'static str, batch: usize) -> Result<()> {
        if !self.anchors.is_empty() {
            return Ok(());
        }
        Err(LossError::Shape {
            loss,
            what: format!("a batch of {batch} with a single identity has no negatives"),
        })
    }

    /// Distances of anchors to positives and to negatives.
    fn distances(&self, features: &Tensor) -> Result<(Tensor, Tensor)> {
        let pick = |index: &[u32]| -> Result<Tensor> {
            let index = Tensor::new(index, features.device())?;
            Ok(features.index_select(&index, 0)?)
        };
        let anchors = pick(&self.anchors)?;
        let d_ap = row_distance(&anchors, &pick(&self.positives)?)?;
        let d_an = row_distance(&anchors, &pick(&self.negatives)?)?;
        Ok((d_ap, d_an))
    }
}

/// For each sample the farthest of its class and the nearest of the others.
fn batch_hard(loss: &'static str, features: &Tensor, labels: &[u32]) -> Result<Mined> {
    let (batch, _) = matrix(loss, "features", features)?;
    same(loss, "batch and labels", batch, labels.len())?;
    let squares = squares(features)?;
    let mut mined = Mined::default();
    for i in 0..batch {
        let mut far = (i, 0f32);
        let mut near: Option<(usize, f32)> = None;
        for j in (0..batch).filter(|&j| j != i) {
            let d = squares[i * batch + j];
            if labels[j] == labels[i] {
                if d > far.1 {
                    far = (j, d);
                }
            } else if near.is_none_or(|(_, best)| d < best) {
                near = Some((j, d));
            }
        }
        if let Some((negative, _)) = near {
            mined.push(i, far.0, negative);
        }
    }
    mined.check(loss, batch)?;
    Ok(mined)
}

/// Squared distances of all rows to all, without gradient.
fn squares(features: &Tensor) -> Result<Vec<f32>> {
    let rows = features.detach().to_vec2::<f32>()?;
    let batch = rows.len();
    // Every pair once: a GPU is waiting for this.
    let mut squares = vec![0f32; batch * batch];
    for i in 0..batch {
        for j in i + 1..batch {
            let square = squared_distance(&rows[i], &rows[j]);
            squares[i * batch + j] = square;
            squares[j * batch + i] = square;
        }
    }
    Ok(squares)
}

fn hinge(
    loss: &'static str,
    d_ap: &Tensor,
    d_an: &Tensor,
    margin: TripletMargin,
) -> Result<Tensor> {
    let gap = (d_ap - d_an)?;
    Ok(match margin {
        TripletMargin::Soft => softplus(&gap)?.mean_all()?,
        TripletMargin::Margin(m) => relu(&(gap + positive(loss, "margin", m)?)?)?.mean_all()?,
    })
}

/// `ln(1 + e^x)` of (N) without overflow: minus the log-probability of the first of two classes with logits 0 and x.
fn softplus(x: &Tensor) -> candle_core::Result<Tensor> {
    let logits = Tensor::stack(&[&x.zeros_like()?, x], D::Minus1)?;
    log_softmax(&logits)?.narrow(1, 0, 1)?.neg()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn identical_vectors_give_ln_2_and_no_nan() {
        let f = Var::ones((4, 3), DType::F32, &Device::Cpu).unwrap();
        let loss = triplet(&f, &[0, 0, 1, 1], TripletMargin::Soft).unwrap();
        assert!((loss.to_scalar::<f32>().unwrap() - 2f32.ln()).abs() < 1e-6);
        let grad = loss
            .backward()
            .unwrap()
            .get(&f)
            .unwrap()
            .flatten_all()
            .unwrap();
        assert!(grad.to_vec1::<f32>().unwrap().iter().all(|g| *g == 0.0));
        let loss = triplet(&f, &[0, 0, 1, 1], TripletMargin::Margin(0.3)).unwrap();
        assert!((loss.to_scalar::<f32>().unwrap() - 0.3).abs() < 1e-6);
    }

    #[test]
    fn far_apart_costs_nothing_and_huge_gaps_stay_finite() {
        let f = Tensor::new(
            &[[0f32, 0.0], [0.0, 1.0], [500.0, 0.0], [500.0, 1.0]],
            &Device::Cpu,
        )
        .unwrap();
        let good = triplet(&f, &[0, 0, 1, 1], TripletMargin::Soft).unwrap();
        assert!(good.to_scalar::<f32>().unwrap() < 1e-6);
        let bad = triplet(&f, &[0, 1, 0, 1], TripletMargin::Soft).unwrap();
        assert!((bad.to_scalar::<f32>().unwrap() - 499.0).abs() < 1e-2);
    }

    #[test]
    fn a_single_identity_is_refused() {
        let f = Tensor::ones((2, 3), DType::F32, &Device::Cpu).unwrap();
        let err = triplet(&f, &[5, 5], TripletMargin::Soft)
            .unwrap_err()
            .to_string();
        assert_eq!(
            err,
            "triplet: a batch of 2 with a single identity has no negatives"
        );
        assert!(triplet(&f, &[5, 6], TripletMargin::Margin(-1.0)).is_err());
        assert!(soft_triplet(&f, &f, &[5, 5]).is_err());
        assert!(semi_hard_triplet(&f, &[5, 5], 2, TripletMargin::Soft).is_err());
        assert!(semi_hard_triplet(&f, &[5, 6], 1, TripletMargin::Soft).is_err());
    }

    #[test]
    fn a_teacher_that_agrees_leaves_the_entropy_of_its_shares() {
        // Positives 1 apart, negatives 2: the share of the positive distance is 1 / (1 + e).
        let f = Var::new(
            &[[0f32, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 2.0]],
            &Device::Cpu,
        )
        .unwrap();
        let loss = soft_triplet(&f, &f, &[0, 0, 1, 1]).unwrap();
        let p = 1.0 / (1.0 + 1f32.exp());
        let entropy = -(p * p.ln() + (1.0 - p) * (1.0 - p).ln());
        assert!((loss.to_scalar::<f32>().unwrap() - entropy).abs() < 1e-6);
        let grads = loss.backward().unwrap();
        let largest = grads.get(&f).unwrap().abs().unwrap().max_all().unwrap();
        assert!(largest.to_scalar::<f32>().unwrap() < 1e-6);
    }
}
