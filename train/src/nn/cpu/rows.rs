//! What each row does on its own, in double precision: layer normalisation, division by the Euclidean norm.

use rayon::prelude::*;

use super::buffer::uninit;

/// Rows whose gradients of weight and bias are summed by one task; the sums are added in order.
const ROWS: usize = 64;

/// Forward: normalised rows times `w` plus `b`, and mean and `1 / std` of each row.
pub(super) fn layer_norm(
    x: &[f32],
    width: usize,
    w: Option<&[f32]>,
    b: Option<&[f32]>,
    eps: f64,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let mut y = uninit(x.len());
    let stats: Vec<(f32, f32)> = y
        .par_chunks_mut(width)
        .zip(x.par_chunks(width))
        .map(|(y, x)| {
            let count = width as f64;
            let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
            let variance = x
                .iter()
                .map(|x| (f64::from(*x) - mean).powi(2))
                .sum::<f64>()
                / count;
            let inv_std = 1.0 / (variance + eps).sqrt();
            for (y, x) in y.iter_mut().zip(x) {
                *y = ((f64::from(*x) - mean) * inv_std) as f32;
            }
            if let Some(w) = w {
                y.iter_mut().zip(w).for_each(|(y, w)| *y *= w);
            }
            if let Some(b) = b {
                y.iter_mut().zip(b).for_each(|(y, b)| *y += b);
            }
            (mean as f32, inv_std as f32)
        })
        .collect();
    let (mean, inv_std) = stats.into_iter().unzip();
    (y, mean, inv_std)
}

/// Gradients of input, weight and bias. With g = dy w and x̂ the normalised row:
/// dx = (g - mean(g) - x̂ mean(g x̂)) / std.
pub(super) fn layer_norm_backward(
    (means, inv_stds): (&[f32], &[f32]),
    x: &[f32],
    width: usize,
    w: Option<&[f32]>,
    dy: &[f32],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let mut dx = uninit(x.len());
    let sums: Vec<Vec<f64>> = dx
        .par_chunks_mut(ROWS * width)
        .zip(x.par_chunks(ROWS * width).zip(dy.par_chunks(ROWS * width)))
        .enumerate()
        .map(|(part, (dx, (x, dy)))| {
            let mut sums = vec![0f64; 2 * width];
            let (dw, db) = sums.split_at_mut(width);
            let rows = dx
                .chunks_exact_mut(width)
                .zip(x.chunks_exact(width).zip(dy.chunks_exact(width)));
            for (row, (dx, (x, dy))) in rows.enumerate() {
                let at = part * ROWS + row;
                let (mean, inv_std) = (f64::from(means[at]), f64::from(inv_stds[at]));
                let hat = |i: usize| (f64::from(x[i]) - mean) * inv_std;
                let slope = |i: usize| f64::from(dy[i]) * w.map_or(1.0, |w| f64::from(w[i]));
                let (mut g, mut along) = (0f64, 0f64);
                for i in 0..width {
                    dw[i] += f64::from(dy[i]) * hat(i);
                    db[i] += f64::from(dy[i]);
                    g += slope(i);
                    along += slope(i) * hat(i);
                }
                let (g, along) = (g / width as f64, along / width as f64);
                for (i, dx) in dx.iter_mut().enumerate() {
                    *dx = (inv_std * (slope(i) - g - hat(i) * along)) as f32;
                }
            }
            sums
        })
        .collect();
    let total = |from: usize| {
        (from..from + width)
            .map(|i| sums.iter().map(|s| s[i]).sum::<f64>() as f32)
            .collect()
    };
    (dx, total(0), total(width))
}

/// Rows of `width` divided by their norm, or by `eps` if that is more.
pub(super) fn l2_normalize(x: &[f32], width: usize, eps: f64) -> Vec<f32> {
    let mut y = uninit(x.len());
    y.par_chunks_mut(width)
        .zip(x.par_chunks(width))
        .for_each(|(y, x)| {
            let inverse = 1.0 / norm_of(x).max(eps);
            for (y, x) in y.iter_mut().zip(x) {
                *y = (f64::from(*x) * inverse) as f32;
            }
        });
    y
}

/// Gradient of [`l2_normalize`]; rows of norm 0 get none.
pub(super) fn l2_normalize_backward(x: &[f32], dy: &[f32], width: usize, eps: f64) -> Vec<f32> {
    let mut dx = uninit(x.len());
    dx.par_chunks_mut(width)
        .zip(x.par_chunks(width).zip(dy.par_chunks(width)))
        .for_each(|(dx, (x, dy))| {
            let norm = norm_of(x);
            if norm == 0.0 {
                dx.fill(0.0);
                return;
            }
            // Below eps the divisor is constant, and nothing is projected out.
            let inverse = 1.0 / norm.max(eps);
            let dot: f64 = x
                .iter()
                .zip(dy)
                .map(|(x, g)| f64::from(*x) * f64::from(*g))
                .sum();
            let along = if norm > eps {
                dot * inverse * inverse
            } else {
                0.0
            };
            for ((dx, x), g) in dx.iter_mut().zip(x).zip(dy) {
                *dx = ((f64::from(*g) - f64::from(*x) * along) * inverse) as f32;
            }
        });
    dx
}

fn norm_of(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}
