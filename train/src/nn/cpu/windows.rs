//! Sums and maxima over windows of a map, and their gradients. A task is one image.

use rayon::prelude::*;

use super::buffer::uninit;
use crate::nn::kernels::Windows;
use crate::simd::vectorised;

vectorised! {
    fn sum_image(s: &Windows, x: &[f32], c: usize, y: &mut [f32]) {
        let [_, w] = s.input;
        for (i, y) in y.chunks_exact_mut(c).enumerate() {
            y.fill(0.0);
            for iy in s.ys[i / s.xs.len()].clone() {
                for ix in s.xs[i % s.xs.len()].clone() {
                    let x = &x[(iy * w + ix) * c..][..c];
                    for (y, x) in y.iter_mut().zip(x) {
                        *y += x;
                    }
                }
            }
            let weight = s.weights[i];
            for y in y.iter_mut() {
                *y *= weight;
            }
        }
    }
}

vectorised! {
    fn spread_image(s: &Windows, y: &[f32], c: usize, x: &mut [f32]) {
        let [_, w] = s.input;
        x.fill(0.0);
        for (i, y) in y.chunks_exact(c).enumerate() {
            let weight = s.weights[i];
            for iy in s.ys[i / s.xs.len()].clone() {
                for ix in s.xs[i % s.xs.len()].clone() {
                    let x = &mut x[(iy * w + ix) * c..][..c];
                    for (x, y) in x.iter_mut().zip(y) {
                        *x += weight * y;
                    }
                }
            }
        }
    }
}

vectorised! {
    fn max_image(s: &Windows, x: &[f32], c: usize, y: &mut [f32], positions: &mut [u32]) {
        let [_, w] = s.input;
        let pixels = y.chunks_exact_mut(c).zip(positions.chunks_exact_mut(c)).enumerate();
        for (i, (y, positions)) in pixels {
            let (ys, xs) = (s.ys[i / s.xs.len()].clone(), s.xs[i % s.xs.len()].clone());
            y.fill(f32::NEG_INFINITY);
            positions.fill((ys.start * w + xs.start) as u32);
            for iy in ys {
                for ix in xs.clone() {
                    let at = iy * w + ix;
                    let x = &x[at * c..][..c];
                    for k in 0..c {
                        let take = x[k] > y[k] || x[k].is_nan();
                        y[k] = if take { x[k] } else { y[k] };
                        positions[k] = if take { at as u32 } else { positions[k] };
                    }
                }
            }
        }
    }
}

/// Weighted sum over each window: `n` maps of `c` channels.
pub(super) fn sum(s: &Windows, x: &[f32], n: usize, c: usize) -> Vec<f32> {
    let (out, image) = (s.ys.len() * s.xs.len() * c, s.input[0] * s.input[1] * c);
    let mut y = uninit(n * out);
    y.par_chunks_mut(out.max(1))
        .zip(x.par_chunks(image.max(1)))
        .for_each(|(y, x)| sum_image(s, x, c, y));
    y
}

/// The transpose of [`sum`].
pub(super) fn spread(s: &Windows, y: &[f32], n: usize, c: usize) -> Vec<f32> {
    let (out, image) = (s.ys.len() * s.xs.len() * c, s.input[0] * s.input[1] * c);
    let mut x = uninit(n * image);
    x.par_chunks_mut(image.max(1))
        .zip(y.par_chunks(out.max(1)))
        .for_each(|(x, y)| spread_image(s, y, c, x));
    x
}

/// Maximum over each window, and where it is.
pub(super) fn max(s: &Windows, x: &[f32], n: usize, c: usize) -> (Vec<f32>, Vec<u32>) {
    let (out, image) = (s.ys.len() * s.xs.len() * c, s.input[0] * s.input[1] * c);
    let mut y = uninit(n * out);
    let mut positions = vec![0u32; n * out];
    y.par_chunks_mut(out.max(1))
        .zip(positions.par_chunks_mut(out.max(1)))
        .zip(x.par_chunks(image.max(1)))
        .for_each(|((y, positions), x)| max_image(s, x, c, y, positions));
    (y, positions)
}

/// Gradient of [`max`]: windows may overlap, so a pixel may be the maximum of several; empty windows have none.
pub(super) fn max_backward(
    s: &Windows,
    positions: &[u32],
    dy: &[f32],
    n: usize,
    c: usize,
) -> Vec<f32> {
    let (out, image) = (s.ys.len() * s.xs.len() * c, s.input[0] * s.input[1] * c);
    let mut dx = vec![0f32; n * image];
    dx.par_chunks_mut(image.max(1))
        .zip(positions.par_chunks(out.max(1)))
        .zip(dy.par_chunks(out.max(1)))
        .for_each(|((dx, positions), dy)| {
            for (i, (at, dy)) in positions.iter().zip(dy).enumerate() {
                let window = i / c;
                let (ys, xs) = (&s.ys[window / s.xs.len()], &s.xs[window % s.xs.len()]);
                if !ys.is_empty() && !xs.is_empty() {
                    dx[*at as usize * c + i % c] += dy;
                }
            }
        });
    dx
}
