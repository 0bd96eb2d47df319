//! Normalisations: over the batch, over parts of it, over each sample, over rows.

use candle_core::{Result, Tensor, bail};

use super::{kernels, plain, planes_of, rows_of};
use crate::nn::autograd::attach;
use crate::nn::kernels::BatchStats;

/// Batch normalisation with the statistics of the batch, then ReLU if asked for: `x` (N, C, H, W) or (N, C), `w`, `b` (C).
///
/// # Errors
/// If the shapes don't fit or there is a single value per channel.
pub fn batch_norm(x: &Tensor, w: &Tensor, b: &Tensor, eps: f64, relu: bool) -> Result<Tensor> {
    grouped("batch_norm", x, [w, b], eps, 1, relu).map(|(y, _)| y)
}

/// As [`batch_norm`] with the statistics of each of `groups` equal, consecutive parts of the batch; also returns them.
/// 1 is plain batch normalisation. `w` and `b` are (C), or (groups, C): a scale of its own for each part, as
/// domain-specific batch norm has.
///
/// # Errors
/// If the shapes don't fit, the batch cannot be split, or there is a single value per channel in a part.
pub fn ghost_batch_norm(
    x: &Tensor,
    w: &Tensor,
    b: &Tensor,
    eps: f64,
    groups: usize,
) -> Result<(Tensor, BatchStats)> {
    grouped("ghost_batch_norm", x, [w, b], eps, groups, false)
}

/// Instance normalisation (Ulyanov et al. 2016) of `x` (N, C, H, W) with more than one pixel; `affine` is weight and bias,
/// each (C).
///
/// # Errors
/// If the shapes don't fit.
pub fn instance_norm(x: &Tensor, affine: Option<[&Tensor; 2]>, eps: f64) -> Result<Tensor> {
    let (n, c, _, _) = x.dims4()?;
    let (ones, zeros);
    let affine = match affine {
        Some(affine) => affine,
        None => {
            ones = Tensor::ones(c, x.dtype(), x.device())?;
            zeros = Tensor::zeros(c, x.dtype(), x.device())?;
            [&ones, &zeros]
        }
    };
    grouped("instance_norm", x, affine, eps, n, false).map(|(y, _)| y)
}

/// Adaptive instance normalisation (Huang & Belongie 2017, eq. 8): `x` (N, C, H, W) normalised per sample and channel, then
/// scaled by `gamma` and moved by `beta`, each (N, C). The gradient reaches all three.
///
/// # Errors
/// If the shapes don't fit.
pub fn adain(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    let (n, c, _, _) = x.dims4()?;
    if gamma.dims() != [n, c] || beta.dims() != [n, c] {
        bail!(
            "adain: x {:?} wants gamma and beta ({n}, {c}), got {:?} and {:?}",
            x.shape(),
            gamma.shape(),
            beta.shape()
        );
    }
    grouped("adain", x, [gamma, beta], eps, n, false).map(|(y, _)| y)
}

/// [`adain`] with the statistics of another map, `style` (N, C, h, w): its standard deviation `sqrt(biased variance + eps)`
/// and its mean, per sample and channel. The gradient reaches both maps.
///
/// # Errors
/// If the shapes don't fit.
pub fn adain_to_style(x: &Tensor, style: &Tensor, eps: f64) -> Result<Tensor> {
    let (std, mean) = channel_statistics(style, eps)?;
    adain(x, &std, &mean, eps)
}

/// `sqrt(biased variance + eps)` and mean over space, per sample and channel: (N, C, H, W) to two of (N, C).
///
/// # Errors
/// If `x` has another rank.
pub fn channel_statistics(x: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let (n, c, h, w) = x.dims4()?;
    let space = (h * w) as f64;
    let flat = plain(x)?.reshape((n, c, h * w))?;
    let mean = flat.mean_keepdim(2)?;
    let off = flat.broadcast_sub(&mean)?;
    let std = ((off.sqr()?.mean_keepdim(2)? + eps)?).sqrt()?;
    let both = Tensor::stack(&[std.squeeze(2)?, mean.squeeze(2)?], 0)?;
    // d std / dx = (x - mean) / (count std), d mean / dx = 1 / count.
    let slope = off.broadcast_div(&(std * space)?)?;
    let both = attach("channel_statistics", &[x], both, move |dy| {
        let dstd = slope.broadcast_mul(&dy.get(0)?.unsqueeze(2)?)?;
        let dx = dstd.broadcast_add(&(dy.get(1)?.unsqueeze(2)? / space)?)?;
        Ok(vec![Some(dx.reshape((n, c, h, w))?)])
    })?;
    Ok((both.get(0)?, both.get(1)?))
}

/// Normalises `x` with the statistics of each of `groups` equal parts of the batch; weight and bias (C) or (groups, C).
fn grouped(
    name: &'static str,
    x: &Tensor,
    [w, b]: [&Tensor; 2],
    eps: f64,
    groups: usize,
    relu: bool,
) -> Result<(Tensor, BatchStats)> {
    let maps = x.rank() == 4;
    let (n, c) = (x.dim(0)?, x.dim(1)?);
    let split = groups > 0 && n % groups == 0 && x.elem_count() / c.max(1) / groups > 1;
    let scales = w.dims() == [c] || w.dims() == [groups, c];
    if !(maps || x.rank() == 2) || !split || !scales || w.dims() != b.dims() {
        bail!(
            "{name}: x {:?}, w {:?}, b {:?}: wants (N, C) or (N, C, H, W) with more than one value per channel in each of {groups} equal parts, w and b of one shape",
            x.shape(),
            w.shape(),
            b.shape()
        );
    }
    let device = kernels(x.device())?;
    let rows = if maps { rows_of(x)? } else { plain(x)? };
    let (w, b) = (w.contiguous()?, b.contiguous()?);
    let weight = w.detach();
    let (y, stats) = device.batch_norm_train(&rows, &weight, &b, eps, groups, None, relu)?;
    let value = if maps { planes_of(&y)? } else { y.clone() };
    let kept = stats.clone();
    let y = attach(name, &[x, &w, &b], value, move |dy| {
        let dy = if maps {
            device.to_rows(dy)?
        } else {
            dy.force_contiguous()?
        };
        let y = relu.then_some(&y);
        let g = device.batch_norm_backward(&kept, false, &rows, &weight, y, dy, false)?;
        let dx = if maps { planes_of(&g.dx)? } else { g.dx };
        Ok(vec![Some(dx), Some(g.dw), Some(g.db)])
    })?;
    Ok((y, stats))
}

/// Layer normalisation (Ba et al. 2016) of each row of `x` (N, D) over its D values; `affine` is weight and bias, each (D).
/// For maps, flatten what belongs together first.
///
/// # Errors
/// If the shapes don't fit.
pub fn layer_norm(x: &Tensor, affine: Option<[&Tensor; 2]>, eps: f64) -> Result<Tensor> {
    let (_, d) = x.dims2()?;
    if let Some([w, b]) = affine
        && (w.dims() != [d] || b.dims() != [d])
    {
        bail!(
            "layer_norm: x {:?} wants weight and bias ({d}), got {:?} and {:?}",
            x.shape(),
            w.shape(),
            b.shape()
        );
    }
    let device = kernels(x.device())?;
    let x = x.contiguous()?;
    let input = x.detach();
    let affine = match affine {
        Some([w, b]) => Some([w.contiguous()?, b.contiguous()?]),
        None => None,
    };
    let weight = affine.as_ref().map(|[w, _]| w.detach());
    let bias = affine.as_ref().map(|[_, b]| b.detach());
    let (y, stats) = device.layer_norm(&input, weight.as_ref(), bias.as_ref(), eps)?;
    let mut inputs = vec![&x];
    inputs.extend(affine.iter().flatten());
    attach("layer_norm", &inputs, y, move |dy| {
        let g = device.layer_norm_backward(&stats, &input, weight.as_ref(), dy)?;
        Ok(vec![Some(g.dx), Some(g.dw), Some(g.db)])
    })
}

/// Rows of (N, D) divided by `max(norm, 1e-12)`; a zero row stays zero and has zero gradient.
///
/// # Errors
/// If `x` has another rank.
pub fn l2_normalize(x: &Tensor) -> Result<Tensor> {
    const EPS: f64 = reid_models::heads::bnneck::L2_EPS;
    x.dims2()?;
    let device = kernels(x.device())?;
    let x = x.contiguous()?;
    let input = x.detach();
    let y = device.l2_normalize(&input, EPS)?;
    attach("l2_normalize", &[&x], y, move |dy| {
        Ok(vec![Some(device.l2_normalize_backward(&input, dy, EPS)?)])
    })
}
