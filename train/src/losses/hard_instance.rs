//! ICE's hard instance contrast.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{Result, matrix, positive, same};
use crate::nn::ops::{l2_normalize, linear, log_softmax};

/// A logit that counts as absent, see [`log_softmax`].
const MASKED: f32 = -1e9;

/// What an anchor is pushed away from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Negatives {
    /// Every picture of another class.
    #[default]
    All,
    /// The one of highest cosine: the comparison of the thesis's table 6.2.
    Hardest,
}

/// `-log softmax([<f_i, m_k>, <f_i, m_j> for all j of other classes] / tau)[0]`, batch mean, where m_k is the positive of
/// lowest cosine: ICE (Chen et al. 2021), eq. 6.9 of the thesis.
///
/// Cosines; `momentum` is the teacher's view and gets no gradient. Its own second view is among an anchor's positives.
///
/// Shapes: `f`, `momentum` (B, D); `labels` B pseudo identities; result ().
///
/// # Errors
/// If shapes do not fit or tau is not positive.
pub fn hard_instance(
    f: &Tensor,
    momentum: &Tensor,
    labels: &[u32],
    tau: f64,
    against: Negatives,
) -> Result<Tensor> {
    const LOSS: &str = "hard_instance";
    let (batch, width) = matrix(LOSS, "f", f)?;
    let (other, other_width) = matrix(LOSS, "momentum", momentum)?;
    same(LOSS, "widths of f and momentum", width, other_width)?;
    same(LOSS, "batches of f and momentum", batch, other)?;
    same(LOSS, "batch and labels", batch, labels.len())?;
    let tau = positive(LOSS, "tau", tau)?;
    let momentum = l2_normalize(&momentum.detach())?;
    let cosine = linear(&l2_normalize(f)?, &momentum, None)?;
    // Each row keeps its hardest positive and all negatives.
    let values = cosine.detach().to_vec2::<f32>()?;
    let mut mask = vec![0f32; batch * batch];
    let mut hardest = Vec::with_capacity(batch);
    for (i, row) in values.iter().enumerate() {
        let positives = (0..batch).filter(|&j| labels[j] == labels[i]);
        let lowest = positives
            .clone()
            .min_by(|&a, &b| row[a].total_cmp(&row[b]))
            .expect("a sample is its own positive");
        for j in positives.filter(|&j| j != lowest) {
            mask[i * batch + j] = MASKED;
        }
        if against == Negatives::Hardest {
            let negatives = (0..batch).filter(|&j| labels[j] != labels[i]);
            let highest = negatives.clone().max_by(|&a, &b| row[a].total_cmp(&row[b]));
            for j in negatives.filter(|j| Some(*j) != highest) {
                mask[i * batch + j] = MASKED;
            }
        }
        hardest.push(lowest as u32);
    }
    let mask = Tensor::from_vec(mask, (batch, batch), f.device())?;
    let log_p = log_softmax(&((cosine / tau)? + mask)?)?;
    let index = Tensor::from_vec(hardest, (batch, 1), f.device())?;
    Ok(log_p.gather(&index, 1)?.mean_all()?.neg()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn equal_similarities_give_ln_of_one_plus_negatives() {
        let f = Var::ones((6, 4), DType::F32, &Device::Cpu).unwrap();
        let loss = hard_instance(&f, &f, &[0, 0, 1, 1, 2, 2], 0.1, Negatives::All).unwrap();
        assert!((loss.to_scalar::<f32>().unwrap() - 5f32.ln()).abs() < 1e-5);
        let grad = loss
            .backward()
            .unwrap()
            .get(&f)
            .unwrap()
            .flatten_all()
            .unwrap();
        assert!(
            grad.to_vec1::<f32>()
                .unwrap()
                .iter()
                .all(|g| g.abs() < 1e-6)
        );
    }

    #[test]
    fn the_hardest_negative_alone_gives_two_terms() {
        let f = Var::ones((6, 4), DType::F32, &Device::Cpu).unwrap();
        let loss = hard_instance(&f, &f, &[0, 0, 1, 1, 2, 2], 0.1, Negatives::Hardest).unwrap();
        assert!((loss.to_scalar::<f32>().unwrap() - 2f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn one_class_only_has_nothing_to_contrast() {
        let f = Var::new(&[[1f32, 0.0], [0.0, 0.0]], &Device::Cpu).unwrap();
        let loss = hard_instance(&f, &f, &[3, 3], 0.1, Negatives::All).unwrap();
        assert_eq!(loss.to_scalar::<f32>().unwrap(), 0.0);
        let grad = loss
            .backward()
            .unwrap()
            .get(&f)
            .unwrap()
            .flatten_all()
            .unwrap();
        assert!(grad.to_vec1::<f32>().unwrap().iter().all(|g| *g == 0.0));
    }
}
