//! ICE's soft instance consistency.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{Result, matrix, positive, same};
use crate::nn::ops::{l2_normalize, linear, log_softmax};

/// Which way the divergence is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlDirection {
    /// `KL(Q || P)`, the teacher's distribution as the target: what the published numbers come from.
    #[default]
    TargetFirst,
    /// `KL(P || Q)`, as eq. 6.12 prints it.
    Printed,
}

/// Divergence between an anchor's similarities to the batch under augmentation, `P = softmax(<f, m> / tau)` (eq. 6.10),
/// and without, `Q = softmax(<w, w> / tau)` (eq. 6.11), batch mean: ICE (Chen et al. 2021), eq. 6.12 of the thesis.
///
/// Cosines; `momentum` and `weak` come from the teacher and get no gradient.
///
/// Shapes: `f` (student, strong view), `momentum` (teacher, strong view), `weak` (teacher, no augmentation), each (B, D);
/// result ().
///
/// # Errors
/// If shapes do not fit or tau is not positive.
pub fn soft_instance(
    f: &Tensor,
    momentum: &Tensor,
    weak: &Tensor,
    tau: f64,
    direction: KlDirection,
) -> Result<Tensor> {
    const LOSS: &str = "soft_instance";
    let (batch, width) = matrix(LOSS, "f", f)?;
    for (name, t) in [("momentum", momentum), ("weak", weak)] {
        let (n, d) = matrix(LOSS, name, t)?;
        same(LOSS, &format!("widths of f and {name}"), width, d)?;
        same(LOSS, &format!("batches of f and {name}"), batch, n)?;
    }
    let tau = positive(LOSS, "tau", tau)?;
    let momentum = l2_normalize(&momentum.detach())?;
    let weak = l2_normalize(&weak.detach())?;
    let log_p = log_softmax(&(linear(&l2_normalize(f)?, &momentum, None)? / tau)?)?;
    let log_q = log_softmax(&(linear(&weak, &weak, None)? / tau)?)?;
    let terms = match direction {
        KlDirection::TargetFirst => (log_q.exp()? * (log_q - log_p)?)?,
        KlDirection::Printed => (log_p.exp()? * (log_p - log_q)?)?,
    };
    Ok((terms.sum_all()? / batch as f64)?)
}

/// Mean squared difference of the two rows of cosines that [`soft_instance`] compares as distributions: the comparison of the
/// thesis's table 6.3.
///
/// Shapes: as [`soft_instance`].
///
/// # Errors
/// If shapes do not fit.
pub fn similarity_gap(f: &Tensor, momentum: &Tensor, weak: &Tensor) -> Result<Tensor> {
    const LOSS: &str = "similarity_gap";
    let (batch, width) = matrix(LOSS, "f", f)?;
    for (name, t) in [("momentum", momentum), ("weak", weak)] {
        let (n, d) = matrix(LOSS, name, t)?;
        same(LOSS, &format!("widths of f and {name}"), width, d)?;
        same(LOSS, &format!("batches of f and {name}"), batch, n)?;
    }
    let momentum = l2_normalize(&momentum.detach())?;
    let weak = l2_normalize(&weak.detach())?;
    let learnt = linear(&l2_normalize(f)?, &momentum, None)?;
    let target = linear(&weak, &weak, None)?;
    Ok((learnt - target)?.sqr()?.mean_all()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn zero_when_nothing_changed_and_positive_otherwise() {
        let f = Var::new(&[[1f32, 2.0], [-1.0, 0.5], [0.0, 0.0]], &Device::Cpu).unwrap();
        let w = Var::new(&[[1f32, 0.0], [-1.0, 0.5], [0.3, 0.1]], &Device::Cpu).unwrap();
        for direction in [KlDirection::TargetFirst, KlDirection::Printed] {
            let same = soft_instance(&f, &f, &f, 0.4, direction).unwrap();
            assert!(same.to_scalar::<f32>().unwrap().abs() < 1e-6);
            let grad = same
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
            let other = soft_instance(&f, &f, &w, 0.4, direction).unwrap();
            assert!(other.to_scalar::<f32>().unwrap() > 1e-3);
        }
        assert_eq!(
            similarity_gap(&f, &w, &w).unwrap().dims(),
            [0usize; 0],
            "a scalar"
        );
        let same = similarity_gap(&w, &w, &w).unwrap();
        assert!(same.to_scalar::<f32>().unwrap() < 1e-10);
        assert!(soft_instance(&f, &f, &f, f64::NAN, KlDirection::Printed).is_err());
    }
}
