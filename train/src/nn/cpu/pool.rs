//! Max pooling with padding, and pooling over all of space.

use rayon::prelude::*;

use super::buffer::uninit;
use crate::nn::kernels::{GlobalPool, PoolShape};
use crate::simd::vectorised;

vectorised! {
    /// Pools one image; `positions` gets `iy * w + ix` of each maximum. The first of equal values wins; NaN wins over all.
    fn pool_image(s: &PoolShape, x: &[f32], y: &mut [f32], positions: &mut [u32]) {
        let [_, ow] = s.out();
        let pixels = y.chunks_exact_mut(s.c).zip(positions.chunks_exact_mut(s.c)).enumerate();
        for (i, (y, positions)) in pixels {
            let (oy, ox) = (i / ow, i % ow);
            y.fill(f32::NEG_INFINITY);
            let (iy0, ix0) = (oy * s.stride[0], ox * s.stride[1]);
            let ys = iy0.max(s.padding[0]) - s.padding[0]..(iy0 + s.kernel[0]).saturating_sub(s.padding[0]).min(s.h);
            let xs = ix0.max(s.padding[1]) - s.padding[1]..(ix0 + s.kernel[1]).saturating_sub(s.padding[1]).min(s.w);
            // Should all values be minus infinity, the first one of the window counts.
            positions.fill((ys.start * s.w + xs.start) as u32);
            for iy in ys {
                for ix in xs.clone() {
                    let at = iy * s.w + ix;
                    let x = &x[at * s.c..][..s.c];
                    for c in 0..s.c {
                        let take = x[c] > y[c] || x[c].is_nan();
                        y[c] = if take { x[c] } else { y[c] };
                        positions[c] = if take { at as u32 } else { positions[c] };
                    }
                }
            }
        }
    }
}

vectorised! {
    /// Gathers, for each input pixel of one image, the gradients of the windows whose maximum it was.
    fn unpool_image(s: &PoolShape, positions: &[u32], dy: &[f32], dx: &mut [f32]) {
        let [oh, ow] = s.out();
        // Windows `o` with `o * stride <= i + padding < o * stride + kernel`.
        let windows = |i: usize, axis: usize, len: usize| {
            let i = i + s.padding[axis];
            let first = (i + 1).saturating_sub(s.kernel[axis]).div_ceil(s.stride[axis]);
            first..(i / s.stride[axis] + 1).min(len)
        };
        for (at, dx) in dx.chunks_exact_mut(s.c).enumerate() {
            dx.fill(0.0);
            let xs = windows(at % s.w, 1, ow);
            for oy in windows(at / s.w, 0, oh) {
                for ox in xs.clone() {
                    let o = (oy * ow + ox) * s.c;
                    let (p, d) = (&positions[o..][..s.c], &dy[o..][..s.c]);
                    for c in 0..s.c {
                        dx[c] += if p[c] == at as u32 { d[c] } else { 0.0 };
                    }
                }
            }
        }
    }
}

/// Max pooling: values and positions.
pub(super) fn max_pool(s: &PoolShape, x: &[f32]) -> (Vec<f32>, Vec<u32>) {
    let [oh, ow] = s.out();
    let out = oh * ow * s.c;
    let mut y = uninit(s.n * out);
    let mut positions = vec![0u32; s.n * out];
    y.par_chunks_mut(out)
        .zip(positions.par_chunks_mut(out))
        .zip(x.par_chunks(s.h * s.w * s.c))
        .for_each(|((y, positions), x)| pool_image(s, x, y, positions));
    (y, positions)
}

/// Gradient of [`max_pool`].
pub(super) fn max_pool_backward(s: &PoolShape, positions: &[u32], dy: &[f32]) -> Vec<f32> {
    let [oh, ow] = s.out();
    let (image, out) = (s.h * s.w * s.c, oh * ow * s.c);
    let mut dx = uninit(s.n * image);
    dx.par_chunks_mut(image)
        .zip(positions.par_chunks(out))
        .zip(dy.par_chunks(out))
        .for_each(|((dx, positions), dy)| unpool_image(s, positions, dy, dx));
    dx
}

/// Pools (N, space, C) to (N, C); `p` is GeM's exponent.
pub(super) fn global(kind: GlobalPool, p: f32, x: &[f32], space: usize, width: usize) -> Vec<f32> {
    let mut y = vec![0f32; x.len() / space.max(1)];
    y.par_chunks_mut(width)
        .zip(x.par_chunks(space * width))
        .for_each(|(y, x)| match kind {
            GlobalPool::Avg => {
                for row in x.chunks_exact(width) {
                    y.iter_mut().zip(row).for_each(|(y, x)| *y += x);
                }
                y.iter_mut().for_each(|y| *y /= space as f32);
            }
            GlobalPool::Max => {
                y.fill(f32::NEG_INFINITY);
                for row in x.chunks_exact(width) {
                    for (y, x) in y.iter_mut().zip(row) {
                        if *x > *y || x.is_nan() {
                            *y = *x;
                        }
                    }
                }
            }
            GlobalPool::Gem { eps } => {
                for row in x.chunks_exact(width) {
                    for (y, x) in y.iter_mut().zip(row) {
                        *y += x.max(eps).powf(p);
                    }
                }
                for y in y {
                    *y = (*y / space as f32).powf(1.0 / p);
                }
            }
        });
    y
}

/// Gradients of [`global`]: of the input, and of p (0 unless GeM).
pub(super) fn global_backward(
    kind: GlobalPool,
    p: f32,
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    space: usize,
    width: usize,
) -> (Vec<f32>, f32) {
    let mut dx = uninit(x.len());
    let dp: Vec<f64> = dx
        .par_chunks_mut(space * width)
        .zip(x.par_chunks(space * width))
        .zip(y.par_chunks(width).zip(dy.par_chunks(width)))
        .map(|((dx, x), (y, dy))| match kind {
            GlobalPool::Avg => {
                for row in dx.chunks_exact_mut(width) {
                    for (dx, dy) in row.iter_mut().zip(dy) {
                        *dx = dy / space as f32;
                    }
                }
                0.0
            }
            GlobalPool::Max => {
                dx.fill(0.0);
                for c in 0..width {
                    let first = (0..space).find(|s| x[s * width + c] == y[c]).unwrap_or(0);
                    dx[first * width + c] = dy[c];
                }
                0.0
            }
            GlobalPool::Gem { eps } => gem_backward(p, eps, x, y, dy, space, width, dx),
        })
        .collect();
    (dx, dp.iter().sum::<f64>() as f32)
}

/// With m = mean(v^p), v = max(x, eps), y = m^(1/p):
/// dy/dx = y / m * v^(p-1) / n where x >= eps; dy/dp = y * (mean(v^p ln v) / (p m) - ln(m) / p^2).
fn gem_backward(
    p: f32,
    eps: f32,
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    space: usize,
    width: usize,
    dx: &mut [f32],
) -> f64 {
    let mut dp = 0f64;
    for c in 0..width {
        let (mut mean, mut log_mean) = (0f64, 0f64);
        for s in 0..space {
            let v = f64::from(x[s * width + c].max(eps));
            let power = v.powf(f64::from(p));
            mean += power;
            log_mean += power * v.ln();
        }
        mean /= space as f64;
        log_mean /= space as f64;
        let (y, g, p) = (f64::from(y[c]), f64::from(dy[c]), f64::from(p));
        // m can underflow for a large p; y > 0 still holds then only if it did not.
        let slope = if mean > 0.0 { y / mean } else { 0.0 };
        if mean > 0.0 {
            dp += g * y * (log_mean / (p * mean) - mean.ln() / (p * p));
        }
        for s in 0..space {
            let v = x[s * width + c];
            dx[s * width + c] = if v >= eps {
                (g * slope * f64::from(v).powf(p - 1.0) / space as f64) as f32
            } else {
                0.0
            };
        }
    }
    dp
}
