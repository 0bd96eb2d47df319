//! Batch normalisation fused with a shortcut and a ReLU, forward and backward, for rows of channels.
//!
//! Statistics: each chunk of rows gives mean and sum of squared deviations while it is in cache; chunks are merged in
//! order in double precision (Chan et al. 1983), so that one pass over memory is as accurate as two and the result does
//! not depend on the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::buffer::{Shared, uninit};
use crate::simd::{LANES, vectorised};

/// Elements per chunk: fits the first or second level of cache.
const CHUNK: usize = 1 << 13;

fn chunk_rows(width: usize) -> usize {
    (CHUNK / width.max(1)).max(4)
}

/// Sums of `f(row, channel)` over rows, for 16 channels at a time with four independent accumulators.
macro_rules! column_sums {
    ($rows:expr, $width:expr, $out:ident, |$at:ident| $value:expr) => {
        let (rows, width): (usize, usize) = ($rows, $width);
        let full = width / LANES * LANES;
        for c0 in (0..full).step_by(LANES) {
            let mut acc = [[0f32; LANES]; 4];
            let mut r = 0;
            while r + 4 <= rows {
                for (u, acc) in acc.iter_mut().enumerate() {
                    let base = (r + u) * width + c0;
                    for (l, acc) in acc.iter_mut().enumerate() {
                        let $at = (base + l, c0 + l);
                        *acc += $value;
                    }
                }
                r += 4;
            }
            while r < rows {
                for l in 0..LANES {
                    let $at = (r * width + c0 + l, c0 + l);
                    acc[0][l] += $value;
                }
                r += 1;
            }
            for l in 0..LANES {
                $out[c0 + l] = (acc[0][l] + acc[1][l]) + (acc[2][l] + acc[3][l]);
            }
        }
        for c in full..width {
            let mut acc = 0f32;
            for r in 0..rows {
                let $at = (r * width + c, c);
                acc += $value;
            }
            $out[c] = acc;
        }
    };
}

vectorised! {
    /// Mean and sum of squared deviations of each channel over the rows of `x`.
    fn moments(x: &[f32], mean: &mut [f32], squares: &mut [f32]) {
        let width = mean.len();
        let rows = x.len() / width;
        let squares = &mut squares[..width];
        column_sums!(rows, width, mean, |at| x[at.0]);
        let n = 1.0 / rows as f32;
        for m in mean.iter_mut() {
            *m *= n;
        }
        column_sums!(rows, width, squares, |at| {
            let d = x[at.0] - mean[at.1];
            d * d
        });
    }
}

vectorised! {
    /// Sums of `g` and of `g * (x - mean)` per channel.
    fn gradient_sums(x: &[f32], g: &[f32], mean: &[f32], sum_g: &mut [f32], sum_gx: &mut [f32]) {
        let width = mean.len();
        let rows = x.len() / width;
        let g = &g[..x.len()];
        let (sum_g, sum_gx) = (&mut sum_g[..width], &mut sum_gx[..width]);
        column_sums!(rows, width, sum_g, |at| g[at.0]);
        column_sums!(rows, width, sum_gx, |at| g[at.0] * (x[at.0] - mean[at.1]));
    }
}

vectorised! {
    /// `y = x * scale + shift`, plus `r` if not empty, then ReLU.
    fn normalise(x: &[f32], r: &[f32], scale: &[f32], shift: &[f32], relu: bool, y: &mut [f32]) {
        let width = scale.len();
        let shift = &shift[..width];
        let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
        if r.is_empty() {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                for c in 0..width {
                    let v = x[c] * scale[c] + shift[c];
                    y[c] = if v < floor { floor } else { v };
                }
            }
        } else {
            let rows = y.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(r.chunks_exact(width));
            for ((y, x), r) in rows {
                for c in 0..width {
                    let v = x[c] * scale[c] + shift[c] + r[c];
                    y[c] = if v < floor { floor } else { v };
                }
            }
        }
    }
}

vectorised! {
    /// `g` becomes `a * g + b * x + c`, with coefficients per channel.
    fn combine(x: &[f32], a: &[f32], b: &[f32], c: &[f32], g: &mut [f32]) {
        let width = a.len();
        let (b, c) = (&b[..width], &c[..width]);
        for (g, x) in g.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            for i in 0..width {
                g[i] = a[i] * g[i] + b[i] * x[i] + c[i];
            }
        }
    }
}

vectorised! {
    /// As [`combine`], into another buffer.
    fn combine_into(x: &[f32], g: &[f32], a: &[f32], b: &[f32], c: &[f32], out: &mut [f32]) {
        let width = a.len();
        let (b, c) = (&b[..width], &c[..width]);
        let rows = out.chunks_exact_mut(width).zip(g.chunks_exact(width)).zip(x.chunks_exact(width));
        for ((out, g), x) in rows {
            for i in 0..width {
                out[i] = a[i] * g[i] + b[i] * x[i] + c[i];
            }
        }
    }
}

vectorised! {
    fn mask(y: &[f32], dy: &mut [f32]) {
        for (y, d) in y.iter().zip(dy) {
            *d = if *y > 0.0 { *d } else { 0.0 };
        }
    }
}

/// Scale and shift of `x * scale + shift = (x - mean) * inv_std * w + b`.
fn affine_of(mean: &[f32], inv_std: &[f32], w: &[f32], b: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let scale: Vec<f32> = inv_std.iter().zip(w).map(|(i, w)| i * w).collect();
    let shift = mean
        .iter()
        .zip(&scale)
        .zip(b)
        .map(|((m, s), b)| b - m * s)
        .collect();
    (scale, shift)
}

/// Where a group's weights lie among `len` of them: all groups share `width` weights, or each has its own.
fn own_scale(len: usize, width: usize, group: usize) -> Range<usize> {
    if len == width {
        0..width
    } else {
        group * width..(group + 1) * width
    }
}

/// Statistics of a batch, (groups x C) each.
pub(super) struct Stats {
    pub(super) mean: Vec<f32>,
    pub(super) inv_std: Vec<f32>,
    pub(super) unbiased_var: Vec<f32>,
}

/// Forward with batch statistics over each of `groups` equal parts of the rows.
pub(super) fn forward(
    x: &[f32],
    width: usize,
    (w, b): (&[f32], &[f32]),
    eps: f64,
    groups: usize,
    residual: Option<&[f32]>,
    relu: bool,
) -> (Vec<f32>, Stats) {
    let part = x.len() / groups;
    let chunk = chunk_rows(width) * width;
    let mut stats = Stats {
        mean: Vec::with_capacity(groups * width),
        inv_std: Vec::with_capacity(groups * width),
        unbiased_var: Vec::with_capacity(groups * width),
    };
    let mut y = uninit(x.len());
    for group in 0..groups {
        let span = group * part..(group + 1) * part;
        let x = &x[span.clone()];
        let moments: Vec<(usize, Vec<f32>)> = x
            .par_chunks(chunk)
            .map(|x| {
                let mut sums = vec![0f32; 2 * width];
                let (mean, squares) = sums.split_at_mut(width);
                moments(x, mean, squares);
                (x.len() / width, sums)
            })
            .collect();
        for c in 0..width {
            let (mut count, mut mean, mut squares) = (0f64, 0f64, 0f64);
            for (rows, sums) in &moments {
                let (n, m, s) = (*rows as f64, f64::from(sums[c]), f64::from(sums[width + c]));
                let (delta, total) = (m - mean, count + n);
                mean += delta * n / total;
                squares += s + delta * delta * count * n / total;
                count = total;
            }
            stats.mean.push(mean as f32);
            stats
                .inv_std
                .push((1.0 / (squares / count + eps).sqrt()) as f32);
            stats
                .unbiased_var
                .push((squares / (count - 1.0).max(1.0)) as f32);
        }
        let at = group * width..(group + 1) * width;
        let own = own_scale(w.len(), width, group);
        let (w, b) = (&w[own.clone()], &b[own]);
        let (scale, shift) = affine_of(&stats.mean[at.clone()], &stats.inv_std[at], w, b);
        y[span.clone()]
            .par_chunks_mut(chunk)
            .zip(x.par_chunks(chunk))
            .enumerate()
            .for_each(|(i, (y, x))| {
                let r = residual.map_or(&[][..], |r| &r[span.start + i * chunk..][..x.len()]);
                normalise(x, r, &scale, &shift, relu, y);
            });
    }
    (y, stats)
}

/// Gradients of a batch norm.
pub(super) struct Grads {
    /// Of the input; `None` if it was written over `dy`.
    pub(super) dx: Option<Vec<f32>>,
    pub(super) dw: Vec<f32>,
    pub(super) db: Vec<f32>,
}

/// Backward. `dy` becomes, in place, the gradient behind the ReLU (where `y > 0`); with `keep`, that is the shortcut's
/// gradient and the input's gradient goes into a new buffer, else the input's gradient takes its place.
pub(super) fn backward(
    (groups, all_means, all_inv_stds): (usize, &[f32], &[f32]),
    frozen: bool,
    x: &[f32],
    width: usize,
    w: &[f32],
    y: Option<&[f32]>,
    dy: &mut [f32],
    keep: bool,
) -> Grads {
    let part = x.len() / groups;
    let chunk = chunk_rows(width) * width;
    let (mut dw, mut db) = (vec![0f32; w.len()], vec![0f32; w.len()]);
    let mut dx = keep.then(|| uninit(x.len()));
    let out = dx.as_mut().map(|dx| Shared::new(dx));
    for group in 0..groups {
        let span = group * part..(group + 1) * part;
        let (x, dy) = (&x[span.clone()], &mut dy[span.clone()]);
        let at = group * width..(group + 1) * width;
        let (mean, inv_std) = (&all_means[at.clone()], &all_inv_stds[at]);
        let sums: Vec<Vec<f32>> = dy
            .par_chunks_mut(chunk)
            .zip(x.par_chunks(chunk))
            .enumerate()
            .map(|(i, (dy, x))| {
                if let Some(y) = y {
                    mask(&y[span.start + i * chunk..][..x.len()], dy);
                }
                let mut sums = vec![0f32; 2 * width];
                let (sum_g, sum_gx) = sums.split_at_mut(width);
                gradient_sums(x, dy, mean, sum_g, sum_gx);
                sums
            })
            .collect();
        let count = (part / width) as f64;
        let own = own_scale(w.len(), width, group);
        let (w, dw, db) = (&w[own.clone()], &mut dw[own.clone()], &mut db[own]);
        let (mut a, mut b, mut c) = (vec![0f32; width], vec![0f32; width], vec![0f32; width]);
        for ch in 0..width {
            let (mut g, mut gx) = (0f64, 0f64);
            for sums in &sums {
                g += f64::from(sums[ch]);
                gx += f64::from(sums[width + ch]);
            }
            let (is, m) = (f64::from(inv_std[ch]), f64::from(mean[ch]));
            dw[ch] += (gx * is) as f32;
            db[ch] += g as f32;
            // dx = w / std * (g - mean(g) - xhat * mean(g * xhat)); the last two only if the statistics moved with x.
            let scale = f64::from(w[ch]) * is;
            a[ch] = scale as f32;
            if !frozen {
                let slope = -scale * is * is * gx / count;
                b[ch] = slope as f32;
                c[ch] = (-scale * g / count - slope * m) as f32;
            }
        }
        dy.par_chunks_mut(chunk)
            .zip(x.par_chunks(chunk))
            .enumerate()
            .for_each(|(i, (dy, x))| match out {
                // SAFETY: chunks of different tasks do not overlap.
                Some(out) => {
                    let out = unsafe { out.part(span.start + i * chunk, x.len()) };
                    combine_into(x, dy, &a, &b, &c, out);
                }
                None => combine(x, &a, &b, &c, dy),
            });
    }
    Grads { dx, dw, db }
}

/// Scale, shift and `1 / std` of a batch norm with constant statistics.
pub(super) fn fold(w: &[f32], b: &[f32], mean: &[f32], var: &[f32], eps: f64) -> [Vec<f32>; 3] {
    let inv_std: Vec<f32> = var
        .iter()
        .map(|v| (1.0 / (f64::from(*v) + eps).sqrt()) as f32)
        .collect();
    let (scale, shift) = affine_of(mean, &inv_std, w, b);
    [scale, shift, inv_std]
}

/// Moves running statistics towards the mean of the first `groups` of fresh ones.
pub(super) fn blend(running: &mut [f32], fresh: &[f32], groups: usize, momentum: f64) {
    let channels = running.len();
    for (c, running) in running.iter_mut().enumerate() {
        let sum: f64 = (0..groups)
            .map(|g| f64::from(fresh[g * channels + c]))
            .sum();
        let new = sum / groups as f64;
        *running = ((1.0 - momentum) * f64::from(*running) + momentum * new) as f32;
    }
}
