//! Gradient penalty of a critic (Gulrajani et al. 2017, eq. 3), with the second derivative that its training needs.
//!
//! Operators of our own have a first derivative only. Here the critic's backward pass is therefore written out as a
//! forward pass: the gradient in the input is built from the same differentiable operators (a convolution's gradient is a
//! transposed convolution, a leaky ReLU's is a product with constants), so that going backwards through *it* gives the
//! derivative of the gradient. Exact, not a finite difference; leaky ReLUs have no curvature, and none is invented.

use candle_core::{Result, Tensor, bail};

use super::ops::{self, Conv2d};

/// A layer of a critic. Tensors are its parameters, tied to autograd or not.
#[derive(Clone, Debug)]
pub enum Layer {
    /// As [`ops::conv2d`].
    Conv {
        /// (O, C / groups, kh, kw).
        w: Tensor,
        /// (O).
        b: Option<Tensor>,
        /// Stride, padding, dilation, groups.
        options: Conv2d,
    },
    /// As [`ops::leaky_relu`].
    LeakyRelu {
        /// Slope of negative values.
        slope: f32,
    },
    /// As [`ops::instance_norm`].
    InstanceNorm {
        /// Weight and bias, (C) each.
        affine: Option<[Tensor; 2]>,
        /// Added to the variance.
        eps: f64,
    },
    /// Mean over space, (N, C, H, W) to (N, C).
    GlobalAvgPool,
    /// As [`ops::linear`].
    Linear {
        /// (O, D).
        w: Tensor,
        /// (O).
        b: Option<Tensor>,
    },
}

/// What [`gradient_penalty`] gives.
pub struct Penalty {
    /// Mean over the batch of `(|grad_x D(x)| - 1)^2`; differentiable in parameters and `x`.
    pub penalty: Tensor,
    /// The critic's output, differentiable.
    pub score: Tensor,
    /// Norm of each sample's gradient, (N).
    pub norms: Tensor,
}

/// The critic's output.
///
/// # Errors
/// If a layer does not fit what comes before it.
pub fn forward(critic: &[Layer], x: &Tensor) -> Result<Tensor> {
    critic
        .iter()
        .try_fold(x.clone(), |x, layer| layer.forward(&x))
}

/// `mean((|grad_x sum D(x)| - 1)^2)`, the gradient taken per sample over all its values.
///
/// # Errors
/// If a layer does not fit what comes before it.
pub fn gradient_penalty(critic: &[Layer], x: &Tensor) -> Result<Penalty> {
    let mut inputs = Vec::with_capacity(critic.len());
    let mut value = x.clone();
    for layer in critic {
        let next = layer.forward(&value)?;
        inputs.push(value);
        value = next;
    }
    let mut slope = value.ones_like()?;
    for (layer, input) in critic.iter().zip(&inputs).rev() {
        slope = layer.slope(input, &slope)?;
    }
    let flat = slope.flatten_from(1)?;
    let norms = ops::row_distance(&flat, &flat.zeros_like()?)?;
    let penalty = (&norms - 1.0)?.sqr()?.mean_all()?;
    Ok(Penalty {
        penalty,
        score: value,
        norms,
    })
}

impl Layer {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Layer::Conv { w, b, options } => ops::conv2d(x, w, b.as_ref(), *options),
            Layer::LeakyRelu { slope } => ops::leaky_relu(x, *slope),
            Layer::InstanceNorm { affine, eps } => {
                let affine = affine.as_ref().map(|[w, b]| [w, b]);
                ops::instance_norm(x, affine, *eps)
            }
            Layer::GlobalAvgPool => ops::global_avg_pool(x),
            Layer::Linear { w, b } => ops::linear(x, w, b.as_ref()),
        }
    }

    /// The gradient in this layer's input `x`, given that in its output, as a differentiable function of both and of the
    /// parameters.
    fn slope(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        match self {
            Layer::Conv { w, options, .. } => {
                let (_, _, h, width) = x.dims4()?;
                let (_, _, kh, kw) = w.dims4()?;
                // What the strides left over at the far edge.
                let rest = |i: usize| {
                    let (len, k) = ([h, width][i], [kh, kw][i]);
                    (len + 2 * options.padding[i] - options.dilation[i] * (k - 1) - 1)
                        % options.stride[i]
                };
                ops::conv_transpose2d(dy, w, None, *options, [rest(0), rest(1)])
            }
            Layer::LeakyRelu { slope } => {
                let positive = x.detach().gt(0f32)?.to_dtype(x.dtype())?;
                let factor = ((positive * f64::from(1.0 - slope))? + f64::from(*slope))?;
                dy * factor
            }
            Layer::InstanceNorm { affine, eps } => {
                let (n, c, h, w) = x.dims4()?;
                let flat = |t: &Tensor| t.reshape((n, c, h * w));
                let x = flat(x)?;
                let off = x.broadcast_sub(&x.mean_keepdim(2)?)?;
                let inv_std = (off.sqr()?.mean_keepdim(2)? + *eps)?.sqrt()?.recip()?;
                let hat = off.broadcast_mul(&inv_std)?;
                let g = match affine {
                    Some([w, _]) => flat(dy)?.broadcast_mul(&w.reshape((1, c, 1))?)?,
                    None => flat(dy)?,
                };
                let along = (&g * &hat)?.mean_keepdim(2)?;
                let dx = g
                    .broadcast_sub(&g.mean_keepdim(2)?)?
                    .sub(&hat.broadcast_mul(&along)?)?;
                dx.broadcast_mul(&inv_std)?.reshape((n, c, h, w))
            }
            Layer::GlobalAvgPool => {
                let (n, c, h, w) = x.dims4()?;
                let share = (dy.reshape((n, c, 1, 1))? / (h * w) as f64)?;
                share.broadcast_as((n, c, h, w))?.contiguous()
            }
            Layer::Linear { w, .. } => {
                if dy.rank() != 2 {
                    bail!(
                        "gradient_penalty: a linear layer gives (N, O), got {:?}",
                        dy.shape()
                    );
                }
                ops::linear(dy, &w.t()?.contiguous()?, None)
            }
        }
    }
}
