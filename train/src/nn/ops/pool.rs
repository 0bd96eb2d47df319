//! Pooling over windows and over all of space.

use std::ops::Range;

use candle_core::{Result, Tensor, bail};

use super::{kernels, plain, planes_of, rows_of};
use crate::nn::autograd::attach;
use crate::nn::kernels::{GlobalPool, PoolShape, Windows};

/// Max pooling of (N, C, H, W); padding counts as minus infinity, the first of equal values gets the gradient.
///
/// # Errors
/// If the window doesn't fit or the padding exceeds half of it.
pub fn max_pool2d(
    x: &Tensor,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let fits = (0..2).all(|i| {
        let window = reid_models::shape::window([h, w][i], kernel[i], stride[i], padding[i], 1);
        window.is_some() && padding[i] <= kernel[i] / 2
    });
    if !fits || n * c == 0 {
        bail!(
            "max_pool2d: window {kernel:?} (stride {stride:?}, padding {padding:?}) does not fit {:?}",
            x.shape()
        );
    }
    let shape = PoolShape {
        n,
        c,
        h,
        w,
        kernel,
        stride,
        padding,
    };
    let device = kernels(x.device())?;
    let (y, positions) = device.max_pool2d(&shape, &rows_of(x)?)?;
    attach("max_pool2d", &[x], planes_of(&y)?, move |dy| {
        let dx = device.max_pool2d_backward(&shape, &positions, &device.to_rows(dy)?)?;
        Ok(vec![Some(planes_of(&dx)?)])
    })
}

/// Mean over windows of (N, C, H, W). Padding is zeros, which `count_padding` counts among the values of a window.
///
/// # Errors
/// If the window doesn't fit or the padding exceeds half of it.
pub fn avg_pool2d(
    x: &Tensor,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    count_padding: bool,
) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let axis = |i: usize| -> Option<Vec<(Range<usize>, usize)>> {
        let (len, k, s, p) = ([h, w][i], kernel[i], stride[i], padding[i]);
        let out = reid_models::shape::window(len, k, s, p, 1).filter(|_| p <= k / 2)?;
        let ranges = (0..out).map(|o| {
            // In padded coordinates; a window may reach past the right padding's end only in ceil mode.
            let (start, end) = (o * s, o * s + k);
            let inside = start.max(p) - p..end.saturating_sub(p).min(len);
            let counted = if count_padding { k } else { inside.len() };
            (inside, counted)
        });
        Some(ranges.collect())
    };
    let (Some(ys), Some(xs)) = (axis(0), axis(1)) else {
        bail!(
            "avg_pool2d: window {kernel:?} (stride {stride:?}, padding {padding:?}) does not fit {:?}",
            x.shape()
        );
    };
    mean_over("avg_pool2d", x, ys, xs)
}

/// Mean over windows that divide (N, C, H, W) into `size` parts of about equal, possibly overlapping extent: part i of n over
/// a length L is `floor(i L / n) .. ceil((i + 1) L / n)`.
///
/// # Errors
/// If a size is 0.
pub fn adaptive_avg_pool2d(x: &Tensor, size: [usize; 2]) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let counted = |ranges: Vec<Range<usize>>| ranges.into_iter().map(|r| (r.clone(), r.len()));
    let (ys, xs) = (parts(h, size[0])?, parts(w, size[1])?);
    mean_over(
        "adaptive_avg_pool2d",
        x,
        counted(ys).collect(),
        counted(xs).collect(),
    )
}

/// As [`adaptive_avg_pool2d`] with the maximum of each part; the first of equal values gets the gradient.
///
/// # Errors
/// If a size is 0.
pub fn adaptive_max_pool2d(x: &Tensor, size: [usize; 2]) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let windows = Windows {
        input: [h, w],
        weights: vec![1.0; size[0] * size[1]],
        ys: parts(h, size[0])?,
        xs: parts(w, size[1])?,
    };
    let device = kernels(x.device())?;
    let (y, positions) = device.window_max(&windows, &rows_of(x)?)?;
    attach("adaptive_max_pool2d", &[x], planes_of(&y)?, move |dy| {
        let dx = device.window_max_backward(&windows, &positions, &device.to_rows(dy)?)?;
        Ok(vec![Some(planes_of(&dx)?)])
    })
}

/// Ranges that divide `len` into `count` parts.
fn parts(len: usize, count: usize) -> Result<Vec<Range<usize>>> {
    if len == 0 || count == 0 {
        bail!("adaptive pooling of a length of {len} into {count} parts");
    }
    Ok((0..count)
        .map(|i| i * len / count..((i + 1) * len).div_ceil(count))
        .collect())
}

/// Sum over each window divided by the product of the counts of its two ranges.
fn mean_over(
    name: &'static str,
    x: &Tensor,
    ys: Vec<(Range<usize>, usize)>,
    xs: Vec<(Range<usize>, usize)>,
) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let weight = |y: &(Range<usize>, usize), x: &(Range<usize>, usize)| 1.0 / (y.1 * x.1) as f32;
    let windows = Windows {
        input: [h, w],
        weights: ys
            .iter()
            .flat_map(|y| xs.iter().map(move |x| weight(y, x)))
            .collect(),
        ys: ys.into_iter().map(|(r, _)| r).collect(),
        xs: xs.into_iter().map(|(r, _)| r).collect(),
    };
    let device = kernels(x.device())?;
    let y = planes_of(&device.window_sum(&windows, &rows_of(x)?)?)?;
    attach(name, &[x], y, move |dy| {
        let dx = device.window_spread(&windows, &device.to_rows(dy)?)?;
        Ok(vec![Some(planes_of(&dx)?)])
    })
}

fn global(kind: GlobalPool, x: &Tensor, p: Option<&Tensor>) -> Result<Tensor> {
    let device = kernels(x.device())?;
    let rows = rows_of(x)?;
    let exponent = p.map(plain).transpose()?;
    let y = device.global_pool(kind, exponent.as_ref(), &rows)?;
    let value = y.clone();
    let mut inputs = vec![x];
    inputs.extend(p);
    attach("global_pool", &inputs, value, move |dy| {
        let (dx, dp) = device.global_pool_backward(kind, exponent.as_ref(), &rows, &y, dy)?;
        Ok(vec![Some(planes_of(&dx)?), dp])
    })
}

/// Mean over space: (N, C, H, W) to (N, C).
///
/// # Errors
/// If `x` has another rank.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    global(GlobalPool::Avg, x, None)
}

/// Maximum over space: (N, C, H, W) to (N, C).
///
/// # Errors
/// If `x` has another rank.
pub fn global_max_pool(x: &Tensor) -> Result<Tensor> {
    global(GlobalPool::Max, x, None)
}

/// Generalised mean over space, `(mean(max(x, eps)^p))^(1/p)`: (N, C, H, W) and `p` (1) to (N, C); Radenovic et al. 2018,
/// eq. 3. The gradient reaches p, too.
///
/// # Errors
/// If the shapes don't fit.
pub fn gem_pool(x: &Tensor, p: &Tensor, eps: f64) -> Result<Tensor> {
    if p.elem_count() != 1 {
        bail!("gem_pool: p has one element, got {}", p.elem_count());
    }
    global(GlobalPool::Gem { eps: eps as f32 }, x, Some(p))
}
