//! Differentiable operators on candle tensors, for heads and losses around a [`Net`](super::Net).
//!
//! Maps are (N, C, H, W), vectors (N, D), all f32. A whole network runs faster as a graph in a [`Net`](super::Net), which
//! keeps maps in its own layout and fuses steps.

mod activation;
mod conv;
mod norm;
mod pool;
mod resize;
mod similarity;

use candle_core::{Device, Result, Tensor};

use super::kernels::Kernels;

pub use activation::{
    add_relu, gelu, gradient_reversal, leaky_relu, relu, sigmoid, softplus, tanh,
};
pub use conv::{Conv2d, conv_transpose2d, conv2d, linear};
pub use norm::{
    adain, adain_to_style, batch_norm, channel_statistics, ghost_batch_norm, instance_norm,
    l2_normalize, layer_norm,
};
pub use pool::{
    adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, gem_pool, global_avg_pool,
    global_max_pool, max_pool2d,
};
pub use resize::upsample_nearest;
pub use similarity::{log_softmax, row_distance};

/// The operators of a device.
///
/// # Errors
/// If it is a GPU that was not opened.
pub fn kernels(device: &Device) -> Result<&'static dyn Kernels> {
    super::device::kernels(device)
}

fn rows_of(t: &Tensor) -> Result<Tensor> {
    kernels(t.device())?.to_rows(&t.contiguous()?.detach())
}

fn planes_of(t: &Tensor) -> Result<Tensor> {
    kernels(t.device())?.to_planes(t)
}

/// Contiguous, without the gradient's ties: what a kernel takes.
fn plain(t: &Tensor) -> Result<Tensor> {
    Ok(t.contiguous()?.detach())
}
