//! Batch-hard triplet loss.

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use super::{LossError, Result, matrix, positive, same};
use crate::nn::ops::{relu, row_distance};
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
    let (batch, _) = matrix(LOSS, "features", features)?;
    same(LOSS, "batch and labels", batch, labels.len())?;
    let rows = features.detach().to_vec2::<f32>()?;
    // Every pair once: a GPU is waiting for this.
    let mut squares = vec![0f32; batch * batch];
    for i in 0..batch {
        for j in i + 1..batch {
            let square = squared_distance(&rows[i], &rows[j]);
            squares[i * batch + j] = square;
            squares[j * batch + i] = square;
        }
    }
    let (mut anchors, mut positives, mut negatives) = (Vec::new(), Vec::new(), Vec::new());
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
            anchors.push(i as u32);
            positives.push(far.0 as u32);
            negatives.push(negative as u32);
        }
    }
    if anchors.is_empty() {
        return Err(LossError::Shape {
            loss: LOSS,
            what: format!("a batch of {batch} with a single identity has no negatives"),
        });
    }
    let pick = |index: Vec<u32>| -> Result<Tensor> {
        let index = Tensor::new(index, features.device())?;
        Ok(features.index_select(&index, 0)?)
    };
    let anchors = pick(anchors)?;
    let d_ap = row_distance(&anchors, &pick(positives)?)?;
    let d_an = row_distance(&anchors, &pick(negatives)?)?;
    let gap = (d_ap - d_an)?;
    Ok(match margin {
        TripletMargin::Soft => softplus(&gap)?.mean_all()?,
        TripletMargin::Margin(m) => relu(&(gap + positive(LOSS, "margin", m)?)?)?.mean_all()?,
    })
}

/// `ln(1 + e^x)` of (N) without overflow: minus the log-probability of the first of two classes with logits 0 and x.
fn softplus(x: &Tensor) -> candle_core::Result<Tensor> {
    let logits = Tensor::stack(&[&x.zeros_like()?, x], D::Minus1)?;
    crate::nn::ops::log_softmax(&logits)?.narrow(1, 0, 1)?.neg()
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
    }
}
