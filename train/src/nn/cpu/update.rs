//! In-place updates of parameters: one pass each, parallel over parts.

use rayon::prelude::*;

use candle_core::Result;

use super::buffer::{edit, try_edit, view};
use super::elementwise::CHUNK;
use crate::nn::kernels::{AdamItem, AdamRates, SgdItem, SgdRates};
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
pub(super) fn ema(own: &mut [f32], from: &[f32], alpha: f32) {
    own.par_chunks_mut(CHUNK)
        .zip(from.par_chunks(CHUNK))
        .for_each(|(own, from)| ema_part(own, from, alpha));
}

/// Numbers of one Adam step of one parameter.
#[derive(Clone, Copy)]
pub(super) struct AdamStep {
    beta1: f32,
    beta2: f32,
    rate: f32,
    inv_sqrt_correction: f32,
    eps: f32,
    decay: f32,
    keep: f32,
    /// Factor on the gradient, from clipping.
    scale: f32,
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

fn adam_slice(p: &mut [f32], g: &[f32], [m, v, top]: [&mut [f32]; 3], step: AdamStep) {
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

/// One Adam step of every item, gradients scaled by `scale`.
pub(super) fn adam(items: &[AdamItem], rates: AdamRates, scale: f32) -> Result<()> {
    for item in items {
        let step = AdamStep {
            beta1: rates.beta1,
            beta2: rates.beta2,
            rate: item.rate,
            inv_sqrt_correction: item.inv_sqrt_correction,
            eps: rates.eps,
            decay: item.decay,
            keep: item.keep,
            scale,
        };
        let g = view(item.grad)?;
        try_edit(item.param, |p| {
            try_edit(item.mean, |m| {
                try_edit(item.square, |v| match item.top {
                    Some(top) => edit(top, |top| adam_slice(p, &g, [m, v, top], step)),
                    None => {
                        adam_slice(p, &g, [m, v, &mut []], step);
                        Ok(())
                    }
                })
            })
        })?;
    }
    Ok(())
}

/// Numbers of one SGD step of one parameter.
#[derive(Clone, Copy)]
pub(super) struct SgdStep {
    lr: f32,
    momentum: f32,
    nesterov: bool,
    share: f32,
    decay: f32,
    /// Factor on the gradient, from clipping.
    scale: f32,
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

fn sgd_slice(p: &mut [f32], g: &[f32], velocity: &mut [f32], step: SgdStep) {
    p.par_chunks_mut(CHUNK)
        .zip(g.par_chunks(CHUNK).zip(velocity.par_chunks_mut(CHUNK)))
        .for_each(|(p, (g, v))| sgd_part(p, g, v, step));
}

/// One SGD step of every item, gradients scaled by `scale`.
pub(super) fn sgd(items: &[SgdItem], rates: SgdRates, scale: f32) -> Result<()> {
    for item in items {
        let step = SgdStep {
            lr: item.lr,
            momentum: rates.momentum,
            nesterov: rates.nesterov,
            share: item.share,
            decay: item.decay,
            scale,
        };
        let g = view(item.grad)?;
        try_edit(item.param, |p| {
            edit(item.velocity, |v| sgd_slice(p, &g, v, step))
        })?;
    }
    Ok(())
}

/// Sum of squares, in parts added in order.
pub(super) fn sum_of_squares(x: &[f32]) -> f64 {
    x.par_chunks(CHUNK)
        .map(|x| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>())
        .collect::<Vec<_>>()
        .iter()
        .sum()
}
