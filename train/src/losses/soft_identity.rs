//! Soft cross-entropy: a teacher's class probabilities as the target.

use candle_core::Tensor;

use super::{Result, matrix, same};
use crate::nn::ops::log_softmax;

/// `-sum_c softmax(teacher)_c log softmax(student)_c`, batch mean: MMT (Ge et al. 2020, eq. 4), ABMT (Chen et al. 2021, eq.
/// 4.6 of the thesis).
///
/// Shapes: `student`, `teacher` (B, C) logits, the latter without gradient; result ().
///
/// # Errors
/// If shapes do not fit.
pub fn soft_identity(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    const LOSS: &str = "soft_identity";
    let (batch, classes) = matrix(LOSS, "student", student)?;
    let (other, other_classes) = matrix(LOSS, "teacher", teacher)?;
    same(LOSS, "batches of student and teacher", batch, other)?;
    same(
        LOSS,
        "classes of student and teacher",
        classes,
        other_classes,
    )?;
    let target = log_softmax(&teacher.detach())?.exp()?;
    Ok(((target * log_softmax(student)?)?.sum_all()? / -(batch as f64))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn an_undecided_teacher_gives_ln_c_and_agreement_no_slope() {
        let flat = Var::zeros((3, 5), DType::F32, &Device::Cpu).unwrap();
        let loss = soft_identity(&flat, &flat).unwrap();
        assert!((loss.to_scalar::<f32>().unwrap() - 5f32.ln()).abs() < 1e-6);
        let grads = loss.backward().unwrap();
        let largest = grads.get(&flat).unwrap().abs().unwrap().max_all().unwrap();
        assert!(largest.to_scalar::<f32>().unwrap() < 1e-7);
        let other = Tensor::zeros((3, 4), DType::F32, &Device::Cpu).unwrap();
        let err = soft_identity(&flat, &other).unwrap_err().to_string();
        assert_eq!(
            err,
            "soft_identity: classes of student and teacher differ: 5 and 4"
        );
    }
}
