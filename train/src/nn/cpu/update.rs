//! In-place updates of parameters: one pass each, parallel over parts.

use rayon::prelude::*;

use super::elementwise::CHUNK;
use crate::simd::vectorised;

vectorised! {
    fn ema_part(own: &mut [f32], from: &[f32], alpha: f32) {
        let beta = 1.0 - alpha;
        for (own, from) in own.iter_mut().zip(from) {
            *own = alpha * *own + beta * from;
        }
    }
}

/// `own = alpha * own + (1 - alpha) * from`.
pub(crate) fn ema(own: &mut [f32], from: &[f32], alpha: f32) {
    own.par_chunks_mut(CHUNK)
        .zip(from.par_chunks(CHUNK))
        .for_each(|(own, from)| ema_part(own, from, alpha));
}

/// Numbers of one Adam step.
#[derive(Clone, Copy)]
pub(crate) struct AdamStep {
    /// Decay of the first moment.
    pub(crate) beta1: f32,
    /// Decay of the second moment.
    pub(crate) beta2: f32,
    /// `lr / (1 - beta1^t)`.
    pub(crate) rate: f32,
    /// `1 / sqrt(1 - beta2^t)`.
    pub(crate) inv_sqrt_correction: f32,
    /// Added to the divisor.
    pub(crate) eps: f32,
    /// L2 decay, added to the gradient.
    pub(crate) decay: f32,
    /// Factor on the parameter before the step: AdamW's `1 - lr * decay`.
    pub(crate) keep: f32,
    /// Factor on the gradient, from clipping.
    pub(crate) scale: f32,
}

vectorised! {
    fn adam_part(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], s: AdamStep) {
        let (keep1, keep2) = (1.0 - s.beta1, 1.0 - s.beta2);
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = s.scale * g + s.decay * *p;
            *m = s.beta1 * *m + keep1 * g;
            *v = s.beta2 * *v + keep2 * g * g;
            *p = s.keep * *p - s.rate * *m / (v.sqrt() * s.inv_sqrt_correction + s.eps);
        }
    }
}

vectorised! {
    fn amsgrad_part(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], top: &mut [f32], s: AdamStep) {
        let (keep1, keep2) = (1.0 - s.beta1, 1.0 - s.beta2);
        for ((((p, g), m), v), top) in p.iter_mut().zip(g).zip(m).zip(v).zip(top) {
            let g = s.scale * g + s.decay * *p;
            *m = s.beta1 * *m + keep1 * g;
            *v = s.beta2 * *v + keep2 * g * g;
            *top = if *v > *top { *v } else { *top };
            *p = s.keep * *p - s.rate * *m / (top.sqrt() * s.inv_sqrt_correction + s.eps);
        }
    }
}

/// One Adam step; with `top`, the largest second moment so far takes the second moment's place (AMSGrad).
pub(crate) fn adam(p: &mut [f32], g: &[f32], [m, v, top]: [&mut [f32]; 3], step: AdamStep) {
    let parts = p
        .par_chunks_mut(CHUNK)
        .zip(g.par_chunks(CHUNK))
        .zip(m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK)));
    if top.is_empty() {
        parts.for_each(|((p, g), (m, v))| adam_part(p, g, m, v, step));
    } else {
        parts
            .zip(top.par_chunks_mut(CHUNK))
            .for_each(|(((p, g), (m, v)), top)| amsgrad_part(p, g, m, v, top, step));
    }
}

/// Numbers of one SGD step.
#[derive(Clone, Copy)]
pub(crate) struct SgdStep {
    /// Learning rate.
    pub(crate) lr: f32,
    /// Momentum.
    pub(crate) momentum: f32,
    /// Nesterov's form.
    pub(crate) nesterov: bool,
    /// Share of the gradient that enters the velocity: 1 - dampening, but 1 at the first step.
    pub(crate) share: f32,
    /// L2 decay, added to the gradient.
    pub(crate) decay: f32,
    /// Factor on the gradient, from clipping.
    pub(crate) scale: f32,
}

vectorised! {
    fn sgd_part(p: &mut [f32], g: &[f32], velocity: &mut [f32], s: SgdStep) {
        for ((p, g), v) in p.iter_mut().zip(g).zip(velocity) {
            let g = s.scale * g + s.decay * *p;
            *v = s.momentum * *v + s.share * g;
            let d = if s.nesterov { g + s.momentum * *v } else { *v };
            *p -= s.lr * d;
        }
    }
}

/// One SGD step with momentum. A velocity of zeros makes the first step PyTorch's (velocity = gradient).
pub(crate) fn sgd(p: &mut [f32], g: &[f32], velocity: &mut [f32], step: SgdStep) {
    p.par_chunks_mut(CHUNK)
        .zip(g.par_chunks(CHUNK).zip(velocity.par_chunks_mut(CHUNK)))
        .for_each(|(p, (g, v))| sgd_part(p, g, v, step));
}

/// Sum of squares, in parts added in order.
pub(crate) fn sum_of_squares(x: &[f32]) -> f64 {
    x.par_chunks(CHUNK)
        .map(|x| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>())
        .collect::<Vec<_>>()
        .iter()
        .sum()
}
