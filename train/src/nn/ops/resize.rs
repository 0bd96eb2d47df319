//! Change of resolution.

use candle_core::{Result, Tensor, bail};

use super::{kernels, planes_of, rows_of};
use crate::nn::autograd::attach;
use crate::nn::kernels::Windows;

/// Nearest-neighbour resize of (N, C, H, W) to `size`: pixel o of n takes pixel `floor(o H / n)`.
///
/// # Errors
/// If a size is 0.
pub fn upsample_nearest(x: &Tensor, size: [usize; 2]) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    if h * w * size[0] * size[1] == 0 {
        bail!(
            "upsample_nearest: {:?} cannot be brought to {size:?}",
            x.shape()
        );
    }
    // Which pixels of the result each pixel of the input goes to: o with i <= o len / n < i + 1.
    let taken = |len: usize, out: usize| {
        (0..len)
            .map(|i| (i * out).div_ceil(len)..((i + 1) * out).div_ceil(len))
            .collect()
    };
    let windows = Windows {
        input: size,
        weights: vec![1.0; h * w],
        ys: taken(h, size[0]),
        xs: taken(w, size[1]),
    };
    let device = kernels(x.device())?;
    let y = planes_of(&device.window_spread(&windows, &rows_of(x)?)?)?;
    attach("upsample_nearest", &[x], y, move |dy| {
        let dx = device.window_sum(&windows, &device.to_rows(dy)?)?;
        Ok(vec![Some(planes_of(&dx)?)])
    })
}
