//! Passes over whole maps: bias, shortcut, ReLU, sums, changes of layout.

use rayon::prelude::*;

use super::buffer::{Shared, uninit};
use crate::simd::vectorised;

/// Elements per task: large enough to pay for a task, small enough to balance.
pub(super) const CHUNK: usize = 1 << 15;

/// What is done to rows of channels before they are final; see [`crate::nn::kernels::Epilogue`].
#[derive(Clone, Copy, Default)]
pub(super) struct Finish<'a> {
    pub(super) bias: Option<&'a [f32]>,
    pub(super) residual: Option<&'a [f32]>,
    pub(super) relu: bool,
}

/// Applies `then` to `y`, rows of `width` channels that begin at row `first` of the whole result.
pub(super) fn finish_rows(then: &Finish, first: usize, width: usize, y: &mut [f32]) {
    if let Some(bias) = then.bias {
        add_bias(bias, y);
    }
    match then.residual.map(|r| &r[first * width..][..y.len()]) {
        Some(r) if then.relu => add_relu(y, r),
        Some(r) => add(y, r),
        None if then.relu => relu(y),
        None => {}
    }
}

vectorised! {
    fn add_bias(bias: &[f32], y: &mut [f32]) {
        for row in y.chunks_exact_mut(bias.len()) {
            for (y, b) in row.iter_mut().zip(bias) {
                *y += b;
            }
        }
    }
}
vectorised! {
    fn add(y: &mut [f32], r: &[f32]) {
        for (y, r) in y.iter_mut().zip(r) {
            *y += r;
        }
    }
}
vectorised! {
    fn add_relu(y: &mut [f32], r: &[f32]) {
        for (y, r) in y.iter_mut().zip(r) {
            *y = positive(*y + r);
        }
    }
}
vectorised! {
    fn relu(y: &mut [f32]) {
        for y in y {
            *y = positive(*y);
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
vectorised! {
    fn sum_into(a: &[f32], b: &[f32], y: &mut [f32], relu: bool) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            let s = a + b;
            *y = if relu { positive(s) } else { s };
        }
    }
}
vectorised! {
    fn scale_into(x: &[f32], scale: &[f32], y: &mut [f32]) {
        for (y, x) in y.chunks_exact_mut(scale.len()).zip(x.chunks_exact(scale.len())) {
            for ((y, x), s) in y.iter_mut().zip(x).zip(scale) {
                *y = x * s;
            }
        }
    }
}

vectorised! {
    fn leaky_into(x: &[f32], slope: f32, y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = if *x > 0.0 { *x } else { slope * x };
        }
    }
}
vectorised! {
    fn leaky_slope_into(x: &[f32], dy: &[f32], slope: f32, dx: &mut [f32]) {
        for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
            *dx = if *x > 0.0 { *dy } else { slope * dy };
        }
    }
}

/// `max(x, 0)` that lets NaN through, as a broken activation should be seen, not hidden.
#[inline(always)]
fn positive(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// Rows of `width` channels, about [`CHUNK`] elements of them.
fn chunk_of(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1) * width.max(1)
}

/// `x * scale`, then `then`; per channel of the last axis of `width`.
pub(super) fn affine(x: &[f32], width: usize, scale: Option<&[f32]>, then: &Finish) -> Vec<f32> {
    let mut y = uninit(x.len());
    let chunk = chunk_of(width);
    y.par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .enumerate()
        .for_each(|(i, (y, x))| {
            match scale {
                Some(scale) => scale_into(x, scale, y),
                None => y.copy_from_slice(x),
            }
            finish_rows(then, i * (chunk / width.max(1)), width, y);
        });
    y
}

/// `a + b`, then ReLU if asked for.
pub(super) fn sum(a: &[f32], b: &[f32], relu: bool) -> Vec<f32> {
    let mut y = uninit(a.len());
    y.par_chunks_mut(CHUNK)
        .zip(a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK)))
        .for_each(|(y, (a, b))| sum_into(a, b, y, relu));
    y
}

/// `a += b`.
pub(super) fn accumulate(a: &mut [f32], b: &[f32]) {
    a.par_chunks_mut(CHUNK)
        .zip(b.par_chunks(CHUNK))
        .for_each(|(a, b)| add(a, b));
}

/// `x` where positive, `slope * x` elsewhere.
pub(super) fn leaky(x: &[f32], slope: f32) -> Vec<f32> {
    let mut y = uninit(x.len());
    y.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .for_each(|(y, x)| leaky_into(x, slope, y));
    y
}

/// Gradient of [`leaky`].
pub(super) fn leaky_backward(x: &[f32], dy: &[f32], slope: f32) -> Vec<f32> {
    let mut dx = uninit(x.len());
    dx.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK).zip(dy.par_chunks(CHUNK)))
        .for_each(|(dx, (x, dy))| leaky_slope_into(x, dy, slope, dx));
    dx
}

/// Clears `dy` where `y` is not positive.
pub(super) fn mask_by(y: &[f32], dy: &mut [f32]) {
    dy.par_chunks_mut(CHUNK)
        .zip(y.par_chunks(CHUNK))
        .for_each(|(dy, y)| mask(y, dy));
}

/// Transposes each of `count` matrices of (a, b) to (b, a).
pub(super) fn transpose(x: &[f32], count: usize, a: usize, b: usize) -> Vec<f32> {
    let mut y = uninit(x.len());
    if x.is_empty() {
        return y;
    }
    let shared = Shared::new(&mut y);
    // Strips of rows of one matrix, so that a single large image keeps every core busy, too.
    let strip = (CHUNK / b).clamp(1, a);
    let strips = a.div_ceil(strip);
    (0..count * strips).into_par_iter().for_each(|task| {
        let (matrix, first) = (task / strips, task % strips * strip);
        let x = &x[matrix * a * b..][..a * b];
        // Square tiles keep both sides in the first-level cache.
        const TILE: usize = 16;
        let last = (first + strip).min(a);
        for j0 in (0..b).step_by(TILE) {
            for i0 in (first..last).step_by(TILE) {
                for j in j0..(j0 + TILE).min(b) {
                    for i in i0..(i0 + TILE).min(last) {
                        // SAFETY: columns `first..last` of the result belong to this task alone.
                        unsafe { *shared.at(matrix * a * b + j * a + i) = x[i * b + j] };
                    }
                }
            }
        }
    });
    y
}
