//! The inner loops: registers of 16 output channels, several pixels or several weights at a time.

use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use crate::nn::kernels::ConvShape;

const LANES: usize = 16;

/// Where a block of pixels gets its values.
#[derive(Clone, Copy)]
struct Window {
    /// Elements from one row of the image to the next.
    row: usize,
    /// Elements from one output pixel's window to the next one's.
    step: usize,
    /// Rows of the kernel.
    kh: usize,
    /// Elements of a kernel row.
    run: usize,
}

/// One image.
///
/// # Safety
/// AVX-512; `x` is the padded image with rows of `row` elements, `w` (K, O), `y` (oh, ow, O), O = 16 V.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn image<const V: usize>(
    s: &ConvShape,
    x: &[f32],
    row: usize,
    w: &[f32],
    y: &mut [f32],
    accumulate: bool,
) {
    let [oh, ow] = s.out();
    let window = Window {
        row,
        step: s.stride[1] * s.c,
        kh: s.kernel[0],
        run: s.kernel[1] * s.c,
    };
    for oy in 0..oh {
        let mut ox = 0;
        while ox < ow {
            let left = ow - ox;
            // SAFETY: the windows of `left` pixels from here lie inside the padded image, their results inside `y`.
            unsafe {
                let from = x.as_ptr().add(oy * s.stride[0] * row + ox * window.step);
                let to = y.as_mut_ptr().add((oy * ow + ox) * V * LANES);
                let w = w.as_ptr();
                ox += match left {
                    16.. if V == 1 => pixels::<16, V>(window, from, w, to, accumulate),
                    8.. => pixels::<8, V>(window, from, w, to, accumulate),
                    4.. => pixels::<4, V>(window, from, w, to, accumulate),
                    _ => pixels::<1, V>(window, from, w, to, accumulate),
                };
            }
        }
    }
}

/// `R` neighbouring output pixels; returns `R`.
///
/// # Safety
/// AVX-512; all windows, weights and results are valid.
#[target_feature(enable = "avx512f")]
unsafe fn pixels<const R: usize, const V: usize>(
    window: Window,
    x: *const f32,
    mut w: *const f32,
    y: *mut f32,
    accumulate: bool,
) -> usize {
    let mut sums: [[__m512; V]; R] = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: by contract, every address below is valid.
    unsafe {
        for ky in 0..window.kh {
            let line = x.add(ky * window.row);
            for j in 0..window.run {
                let mut weights = [_mm512_setzero_ps(); V];
                for (v, weight) in weights.iter_mut().enumerate() {
                    *weight = _mm512_loadu_ps(w.add(v * LANES));
                }
                w = w.add(V * LANES);
                for r in 0..R {
                    let value = _mm512_set1_ps(*line.add(r * window.step + j));
                    for v in 0..V {
                        sums[r][v] = _mm512_fmadd_ps(value, weights[v], sums[r][v]);
                    }
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let to = y.add((r * V + v) * LANES);
                let sum = if accumulate {
                    _mm512_add_ps(_mm512_loadu_ps(to), *sum)
                } else {
                    *sum
                };
                _mm512_storeu_ps(to, sum);
            }
        }
    }
    R
}

/// Adds one image's gradient of the weights to `dw`, (K, O).
///
/// # Safety
/// As [`image`], with `dy` (oh, ow, O).
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn weights<const V: usize>(
    s: &ConvShape,
    x: &[f32],
    row: usize,
    dy: &[f32],
    dw: &mut [f32],
) {
    let run = s.kernel[1] * s.c;
    for ky in 0..s.kernel[0] {
        let mut j = 0;
        while j < run {
            let left = run - j;
            // SAFETY: the elements `j..run` of every window's kernel row `ky` lie inside the padded image.
            unsafe {
                let from = x.as_ptr().add(ky * row + j);
                let to = dw.as_mut_ptr().add((ky * run + j) * V * LANES);
                let dy = dy.as_ptr();
                j += match left {
                    24.. if V == 1 => elements::<24, V>(s, from, row, dy, to),
                    // A kernel row of a stem: 7 pixels of 3 channels.
                    21.. if V == 1 => elements::<21, V>(s, from, row, dy, to),
                    12.. => elements::<12, V>(s, from, row, dy, to),
                    4.. => elements::<4, V>(s, from, row, dy, to),
                    _ => elements::<1, V>(s, from, row, dy, to),
                };
            }
        }
    }
}

/// The gradients of `J` neighbouring weights of each output channel; returns `J`.
///
/// # Safety
/// AVX-512; all values, gradients and results are valid.
#[target_feature(enable = "avx512f")]
unsafe fn elements<const J: usize, const V: usize>(
    s: &ConvShape,
    x: *const f32,
    row: usize,
    mut dy: *const f32,
    dw: *mut f32,
) -> usize {
    let [oh, ow] = s.out();
    let step = s.stride[1] * s.c;
    let mut sums: [[__m512; V]; J] = [[_mm512_setzero_ps(); V]; J];
    // SAFETY: by contract, every address below is valid.
    unsafe {
        for oy in 0..oh {
            let line = x.add(oy * s.stride[0] * row);
            for ox in 0..ow {
                let mut grads = [_mm512_setzero_ps(); V];
                for (v, grad) in grads.iter_mut().enumerate() {
                    *grad = _mm512_loadu_ps(dy.add(v * LANES));
                }
                dy = dy.add(V * LANES);
                for j in 0..J {
                    let value = _mm512_set1_ps(*line.add(ox * step + j));
                    for v in 0..V {
                        sums[j][v] = _mm512_fmadd_ps(value, grads[v], sums[j][v]);
                    }
                }
            }
        }
        for (j, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let to = dw.add((j * V + v) * LANES);
                _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), *sum));
            }
        }
    }
    J
}
