//! Softmax cross-entropy with label smoothing.

use candle_core::Tensor;

use super::{LossError, Result, matrix, same};
use crate::nn::ops::log_softmax;

/// `-sum_c q_c log softmax(logits)_c`, batch mean, with `q = (1 - smoothing) onehot(label) + smoothing / C`
/// (Szegedy et al. 2016, eq. 7 and 8; PyTorch's `label_smoothing`).
///
/// Shapes: `logits` (B, C); `labels` B values below C; result ().
///
/// # Errors
/// If shapes or a label do not fit, or `smoothing` is outside 0..1.
pub fn cross_entropy(logits: &Tensor, labels: &[u32], smoothing: f64) -> Result<Tensor> {
    const LOSS: &str = "cross_entropy";
    let (batch, classes) = matrix(LOSS, "logits", logits)?;
    same(LOSS, "batch of logits and labels", batch, labels.len())?;
    if !(0.0..1.0).contains(&smoothing) {
        return Err(LossError::Range {
            loss: LOSS,
            name: "smoothing",
            range: "in 0..1",
            value: smoothing,
        });
    }
    if let Some(sample) = labels.iter().position(|l| *l as usize >= classes) {
        return Err(LossError::Label {
            loss: LOSS,
            label: labels[sample],
            sample,
            classes,
        });
    }
    let log_p = log_softmax(logits)?;
    let index = Tensor::from_slice(labels, (batch, 1), logits.device())?;
    let hit = log_p.gather(&index, 1)?.sum_all()?;
    let scale = -1.0 / batch as f64;
    if smoothing == 0.0 {
        return Ok((hit * scale)?);
    }
    let all = log_p.sum_all()?;
    let smooth = (all * (scale * smoothing / classes as f64))?;
    Ok(((hit * (scale * (1.0 - smoothing)))? + smooth)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn equal_logits_give_ln_c_and_huge_ones_no_nan() {
        let equal = Tensor::zeros((3, 7), candle_core::DType::F32, &Device::Cpu).unwrap();
        for smoothing in [0.0, 0.1] {
            let loss = cross_entropy(&equal, &[0, 3, 6], smoothing).unwrap();
            assert!((loss.to_scalar::<f32>().unwrap() - 7f32.ln()).abs() < 1e-6);
        }
        let far = Var::new(&[[1e4f32, -1e4, 0.0]], &Device::Cpu).unwrap();
        let loss = cross_entropy(&far, &[1], 0.0).unwrap();
        assert_eq!(loss.to_scalar::<f32>().unwrap(), 2e4);
        let grad = loss
            .backward()
            .unwrap()
            .get(&far)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        assert_eq!(grad, [[1.0, -1.0, 0.0]]);
    }

    #[test]
    fn a_label_out_of_range_is_named() {
        let logits = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        let err = cross_entropy(&logits, &[0, 3], 0.1)
            .unwrap_err()
            .to_string();
        assert_eq!(err, "cross_entropy: label 3 of sample 1 is not below 3");
        assert!(cross_entropy(&logits, &[0], 0.1).is_err());
        assert!(cross_entropy(&logits, &[0, 1], 1.5).is_err());
    }
}
