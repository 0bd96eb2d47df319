//! Activations, and what turns a gradient around.

use candle_core::{Result, Tensor, bail};

use super::{kernels, plain};
use crate::nn::autograd::attach;

/// `max(x, 0)` of any shape; the gradient at 0 is 0.
///
/// # Errors
/// candle's.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    let device = kernels(x.device())?;
    let x = x.contiguous()?;
    let y = device.relu(&x.detach())?;
    let value = y.clone();
    attach("relu", &[&x], value, move |dy| {
        Ok(vec![Some(
            device.relu_backward(&y, dy.force_contiguous()?)?,
        )])
    })
}

/// `max(a + b, 0)` of two tensors of one shape.
///
/// # Errors
/// If the shapes differ.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.shape() != b.shape() {
        bail!(
            "add_relu: shapes {:?} and {:?} differ",
            a.shape(),
            b.shape()
        );
    }
    let device = kernels(a.device())?;
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let y = device.add(&a.detach(), &b.detach(), true)?;
    let value = y.clone();
    attach("add_relu", &[&a, &b], value, move |dy| {
        let g = device.relu_backward(&y, dy.force_contiguous()?)?;
        Ok(vec![Some(g.clone()), Some(g)])
    })
}

/// `x` where it is positive, `slope * x` elsewhere; the slope, at 0 too, is at least 0.
///
/// # Errors
/// A negative slope.
pub fn leaky_relu(x: &Tensor, slope: f32) -> Result<Tensor> {
    if slope.is_nan() || slope < 0.0 {
        bail!("leaky_relu: the slope must be at least 0, got {slope}");
    }
    let device = kernels(x.device())?;
    let x = x.contiguous()?;
    let input = x.detach();
    let y = device.leaky_relu(&input, slope)?;
    attach("leaky_relu", &[&x], y, move |dy| {
        Ok(vec![Some(device.leaky_relu_backward(&input, dy, slope)?)])
    })
}

/// Gives `y = f(x)` the gradient `dy * slope`.
fn elementwise(name: &'static str, x: &Tensor, y: Tensor, slope: Tensor) -> Result<Tensor> {
    attach(name, &[x], y, move |dy| Ok(vec![Some((dy * &slope)?)]))
}

/// Hyperbolic tangent.
///
/// # Errors
/// candle's.
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    let y = plain(x)?.tanh()?;
    let slope = (1.0 - y.sqr()?)?;
    elementwise("tanh", x, y, slope)
}

/// `1 / (1 + exp(-x))`, without overflow.
///
/// # Errors
/// candle's.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    // (tanh(x / 2) + 1) / 2
    let y = (((plain(x)? * 0.5)?.tanh()? + 1.0)? * 0.5)?;
    let slope = (&y * (1.0 - &y)?)?;
    elementwise("sigmoid", x, y, slope)
}

/// `x Φ(x)` with the normal distribution function (by erf, as PyTorch's default).
///
/// # Errors
/// candle's.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    let input = plain(x)?;
    let below = (((&input * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5)?;
    let density = ((input.sqr()? * -0.5)?.exp()?
        * (0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2))?;
    let slope = (&below + (&input * density)?)?;
    elementwise("gelu", x, (input * below)?, slope)
}

/// `log(1 + exp(beta x)) / beta`; x itself where `beta x` is above 20.
///
/// # Errors
/// A beta that is not positive.
pub fn softplus(x: &Tensor, beta: f64) -> Result<Tensor> {
    if beta.is_nan() || beta <= 0.0 {
        bail!("softplus: beta must be positive, got {beta}");
    }
    let input = plain(x)?;
    let scaled = (&input * beta)?;
    // max(z, 0) + log(1 + exp(-|z|)): nothing overflows.
    let rest = ((scaled.abs()?.neg()?.exp()? + 1.0)?.log()? / beta)?;
    let linear = scaled.gt(20.0)?;
    let y = linear.where_cond(&input, &(input.relu()? + rest)?)?;
    let half = (((scaled * 0.5)?.tanh()? + 1.0)? * 0.5)?;
    let slope = linear.where_cond(&half.ones_like()?, &half)?;
    elementwise("softplus", x, y, slope)
}

/// `x` itself; its gradient comes back times `-lambda` (Ganin & Lempitsky 2015, eq. 9): what follows learns against what
/// comes before.
///
/// # Errors
/// candle's.
pub fn gradient_reversal(x: &Tensor, lambda: f64) -> Result<Tensor> {
    attach("gradient_reversal", &[x], plain(x)?, move |dy| {
        Ok(vec![Some((dy * -lambda)?)])
    })
}
