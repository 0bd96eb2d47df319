//! Contrast with a memory of unit vectors: Cluster-Contrast and SpCL.

use candle_core::Tensor;

use super::{LossError, Result, matrix, positive, same};
use crate::nn::ops::{linear, log_softmax};

/// A logit that counts as absent, see [`log_softmax`].
const MASKED: f32 = -1e9;

/// `-log softmax(f M^T / tau)[label]`, batch mean (Dai et al. 2021, eq. 3; Ge et al. 2020, SpCL, eq. 4).
///
/// `weights` multiplies each picture's term; the mean still divides by the batch. Rows of `memory` marked in `empty` (none if it
/// is empty itself) take no part.
///
/// Shapes: `f` (B, D), unit rows; `memory` (K, D), cut off from the gradient; `labels` B values below K; result ().
///
/// # Errors
/// If shapes or a label do not fit, or tau is not positive.
pub fn memory_nce(
    f: &Tensor,
    memory: &Tensor,
    labels: &[u32],
    tau: f64,
    weights: Option<&[f32]>,
    empty: &[bool],
) -> Result<Tensor> {
    const LOSS: &str = "memory_nce";
    let (batch, width) = matrix(LOSS, "f", f)?;
    let (classes, memory_width) = matrix(LOSS, "memory", memory)?;
    same(LOSS, "widths of f and memory", width, memory_width)?;
    same(LOSS, "batch and labels", batch, labels.len())?;
    let tau = positive(LOSS, "tau", tau)?;
    if let Some(sample) = labels.iter().position(|l| *l as usize >= classes) {
        return Err(LossError::Label {
            loss: LOSS,
            label: labels[sample],
            sample,
            classes,
        });
    }
    let mut logits = (linear(f, &memory.detach(), None)? / tau)?;
    if empty.contains(&true) {
        same(LOSS, "rows of memory and marks", classes, empty.len())?;
        let mask: Vec<f32> = empty
            .iter()
            .map(|e| if *e { MASKED } else { 0.0 })
            .collect();
        let mask = Tensor::from_vec(mask, (1, classes), f.device())?;
        logits = logits.broadcast_add(&mask)?;
    }
    let index = Tensor::from_slice(labels, (batch, 1), f.device())?;
    let mut hit = log_softmax(&logits)?.gather(&index, 1)?;
    if let Some(weights) = weights {
        same(LOSS, "batch and weights", batch, weights.len())?;
        hit = (hit * Tensor::from_slice(weights, (batch, 1), f.device())?)?;
    }
    Ok((hit.sum_all()? / -(batch as f64))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn equal_similarities_give_ln_of_those_that_count() {
        let f = Tensor::ones((2, 4), DType::F32, &Device::Cpu).unwrap();
        let memory = Tensor::ones((5, 4), DType::F32, &Device::Cpu).unwrap();
        let value = |weights: Option<&[f32]>, empty: &[bool]| {
            let loss = memory_nce(&f, &memory, &[0, 3], 0.05, weights, empty);
            loss.unwrap().to_scalar::<f32>().unwrap()
        };
        assert!((value(None, &[]) - 5f32.ln()).abs() < 1e-5);
        let empty = [false, true, true, false, false];
        assert!((value(None, &empty) - 3f32.ln()).abs() < 1e-5);
        assert!((value(Some(&[2.0, 0.5]), &[]) - 1.25 * 5f32.ln()).abs() < 1e-5);
        assert!(memory_nce(&f, &memory, &[0, 5], 0.05, None, &[]).is_err());
        assert!(memory_nce(&f, &memory, &[0, 1], 0.0, None, &[]).is_err());
    }
}
