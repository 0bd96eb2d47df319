//! Softmax and distances, safe where their slopes are not.

use candle_core::{D, Result, Tensor, bail};

use crate::nn::autograd::attach;

/// `log(softmax(x))` over the last axis of (N, D), with the maximum subtracted first; a logit of -1e9 or less counts as
/// masked (probability 0).
///
/// # Errors
/// If `x` has another rank.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    x.dims2()?;
    let x = x.contiguous()?;
    let input = x.detach();
    let shifted = input.broadcast_sub(&input.max_keepdim(D::Minus1)?)?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let y = shifted.broadcast_sub(&log_sum)?;
    let p = y.exp()?;
    attach("log_softmax", &[&x], y, move |dy| {
        let total = dy.sum_keepdim(D::Minus1)?;
        Ok(vec![Some((dy - p.broadcast_mul(&total)?)?)])
    })
}

/// Euclidean distance of corresponding rows of `a` and `b` (N, D): (N). Where it is below 1e-6 it counts as 1e-6 and has
/// no gradient, so that identical rows give no NaN.
///
/// # Errors
/// If the shapes differ.
pub fn row_distance(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    const FLOOR: f64 = 1e-6;
    a.dims2()?;
    if a.shape() != b.shape() {
        bail!(
            "row_distance: shapes {:?} and {:?} differ",
            a.shape(),
            b.shape()
        );
    }
    let difference = (a.detach() - b.detach())?;
    let d = difference.sqr()?.sum(1)?.sqrt()?;
    let y = d.maximum(FLOOR)?;
    let unit = difference.broadcast_div(&y.unsqueeze(1)?)?;
    let moving = d.gt(FLOOR)?.to_dtype(a.dtype())?;
    attach("row_distance", &[a, b], y, move |dy| {
        let da = unit.broadcast_mul(&(dy * &moving)?.unsqueeze(1)?)?;
        let db = da.neg()?;
        Ok(vec![Some(da), Some(db)])
    })
}
