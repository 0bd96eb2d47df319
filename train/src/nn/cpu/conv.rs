//! Convolution as matrix products over blocks of output pixels of all images.
//!
//! Forward: columns (rows, K) times packed weights (K, O). Input gradient: with stride 1 it is a convolution of `dy` with
//! the flipped, transposed kernel; with larger strides columns `dy * W` are added back to the image. Weight gradient:
//! columns transposed times `dy`, in fixed parts whose sums are added in order, so that the result does not depend on
//! the number of threads.

use rayon::prelude::*;

use super::buffer::{Shared, uninit};
use super::columns::{Part, block_rows, col2im, im2col, with_workspace};
use super::direct;
use super::elementwise::{Finish, finish_rows};
use super::matmul::{Mat, matmul, rows, transposed};
use crate::nn::kernels::ConvShape;

/// Weights (O, C / groups, kh, kw) as, per group, (ky, kx, c) x o; channel o times `scale[o]` if given.
pub(super) fn pack(shape: &ConvShape, w: &[f32], scale: Option<&[f32]>) -> Vec<f32> {
    let (cg, og) = (shape.c / shape.groups, shape.o / shape.groups);
    let taps = shape.kernel[0] * shape.kernel[1];
    let mut packed = uninit(w.len());
    packed
        .par_chunks_mut(og)
        .with_min_len(32)
        .enumerate()
        .for_each(|(row, to)| {
            let (c, tap, group) = (row % cg, row / cg % taps, row / cg / taps);
            for (o, to) in to.iter_mut().enumerate() {
                let o = group * og + o;
                *to = w[(o * cg + c) * taps + tap] * scale.map_or(1.0, |s| s[o]);
            }
        });
    packed
}

/// The weights of the convolution that is the input gradient: per group, (flipped ky, flipped kx, o) x c.
fn pack_flipped(shape: &ConvShape, w: &[f32]) -> Vec<f32> {
    let (cg, og) = (shape.c / shape.groups, shape.o / shape.groups);
    let taps = shape.kernel[0] * shape.kernel[1];
    let mut packed = uninit(w.len());
    packed
        .par_chunks_mut(cg)
        .with_min_len(32)
        .enumerate()
        .for_each(|(row, to)| {
            let (o, tap, group) = (row % og, taps - 1 - row / og % taps, row / og / taps);
            let from = &w[(group * og + o) * cg * taps..][..cg * taps];
            for (c, to) in to.iter_mut().enumerate() {
                *to = from[c * taps + tap];
            }
        });
    packed
}

/// Weights as o x (ky, kx, c).
fn pack_filters(shape: &ConvShape, w: &[f32]) -> Vec<f32> {
    let cg = shape.c / shape.groups;
    let taps = shape.kernel[0] * shape.kernel[1];
    let mut packed = uninit(w.len());
    packed
        .par_chunks_mut(cg * taps)
        .zip(w.par_chunks(cg * taps))
        .for_each(|(to, from)| {
            for (i, to) in to.iter_mut().enumerate() {
                *to = from[i % cg * taps + i / cg];
            }
        });
    packed
}

/// Convolution with [`pack`]ed weights into `y` (N, oh, ow, O); `accumulate` adds to what is there.
pub(super) fn forward(
    shape: &ConvShape,
    x: &[f32],
    packed: &[f32],
    y: &mut [f32],
    accumulate: bool,
    then: &Finish,
) {
    if direct::fits(shape) {
        direct::forward(shape, x, packed, y, accumulate, then);
    } else {
        by_columns(shape, x, packed, y, accumulate, then);
    }
}

/// [`forward`] by columns and matrix products.
pub(super) fn by_columns(
    shape: &ConvShape,
    x: &[f32],
    packed: &[f32],
    y: &mut [f32],
    accumulate: bool,
    then: &Finish,
) {
    let total = shape.rows();
    let (k, og) = (shape.filter_len(), shape.o / shape.groups);
    let block = block_rows(k, total);
    y.par_chunks_mut(block * shape.o)
        .enumerate()
        .for_each(|(i, y)| {
            let first = i * block;
            let n = y.len() / shape.o;
            for group in 0..shape.groups {
                let weights = (&packed[group * k * og..][..k * og], rows(og));
                let dst = (y[group * og..].as_mut_ptr(), rows(shape.o));
                // SAFETY: `dst` reaches over this task's rows of this group's columns only.
                if shape.is_pointwise() {
                    let columns = &x[first * k..][..n * k];
                    unsafe { matmul([n, og, k], dst, accumulate, (columns, rows(k)), weights) };
                } else {
                    with_workspace(n * k, |col| {
                        im2col(shape, x, first..first + n, &Part::whole(shape, group), col);
                        // SAFETY: as above.
                        unsafe { matmul([n, og, k], dst, accumulate, (col, rows(k)), weights) };
                    });
                }
            }
            finish_rows(then, first, shape.o, y);
        });
}

/// The convolution that maps `dy` to the input gradient, if there is one: stride 1 and padding within the kernel's reach.
fn adjoint(shape: &ConvShape) -> Option<ConvShape> {
    let reach =
        |i: usize| (shape.dilation[i] * (shape.kernel[i] - 1)).checked_sub(shape.padding[i]);
    let (py, px) = (reach(0)?, reach(1)?);
    let [oh, ow] = shape.out();
    (shape.stride == [1, 1]).then_some(ConvShape {
        c: shape.o,
        o: shape.c,
        h: oh,
        w: ow,
        padding: [py, px],
        ..*shape
    })
}

/// Gradient of the input into `dx` (N, H, W, C): added to it if `accumulate`, else every element is written.
pub(super) fn input_grad(
    shape: &ConvShape,
    w: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    accumulate: bool,
) {
    if let Some(adjoint) = adjoint(shape) {
        let packed = pack_flipped(shape, w);
        forward(&adjoint, dy, &packed, dx, accumulate, &Finish::default());
        return;
    }
    let filters = pack_filters(shape, w);
    let [oh, ow] = shape.out();
    let (k, og, o) = (shape.filter_len(), shape.o / shape.groups, shape.o);
    let image = shape.h * shape.w * shape.c;
    // Whole images per task: their pixels get contributions of several windows.
    let images = (block_rows(k, usize::MAX) / (oh * ow)).clamp(1, shape.n);
    dx.par_chunks_mut(images * image)
        .enumerate()
        .for_each(|(i, dx)| {
            let count = dx.len() / image;
            if !accumulate {
                dx.fill(0.0);
            }
            let (start, end) = (i * images * oh * ow, (i * images + count) * oh * ow);
            let block = block_rows(k, end - start);
            for first in (start..end).step_by(block) {
                let n = block.min(end - first);
                with_workspace(n * k, |col| {
                    for group in 0..shape.groups {
                        let part = (&dy[first * o + group * og..], rows(o));
                        let filters = (&filters[group * og * k..][..og * k], rows(k));
                        // SAFETY: the workspace holds n x k elements and is this thread's.
                        unsafe {
                            matmul(
                                [n, k, og],
                                (col.as_mut_ptr(), rows(k)),
                                false,
                                part,
                                filters,
                            );
                        }
                        col2im(shape, col, first..first + n, group, i * images, dx);
                    }
                });
            }
        });
}

/// Gradient of the weight over parts of the batch, (parts, groups, K, O / groups), by columns and matrix products.
fn weight_sums(shape: &ConvShape, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let total = shape.rows();
    let [kh, kw] = shape.kernel;
    let (cg, og, o) = (shape.c / shape.groups, shape.o / shape.groups, shape.o);
    let (k, run) = (shape.filter_len(), kw * cg);
    // Parts of the batch, and for large filters kernel rows on their own: enough tasks for many cores, few partial sums.
    let split_rows = kh > 1 && k * og >= 1 << 14;
    let (strips, strip) = if split_rows { (kh, 1) } else { (1, kh) };
    let parts = (total / 512).clamp(1, (16 / strips).max(1));
    let per_part = total.div_ceil(parts).next_multiple_of(8);
    let parts = total.div_ceil(per_part);
    let mut sums = uninit(parts * shape.groups * k * og);
    let shared = Shared::new(&mut sums);
    let tasks = parts * shape.groups * strips;
    (0..tasks).into_par_iter().with_max_len(1).for_each(|task| {
        let (s, group, p) = (
            task % strips,
            task / strips % shape.groups,
            task / strips / shape.groups,
        );
        let part = Part {
            ky: s * strip..(s + 1) * strip,
            group,
        };
        let width = strip * run;
        let dst = shared.at((p * shape.groups + group) * k * og + s * width * og);
        let (start, end) = (p * per_part, ((p + 1) * per_part).min(total));
        let block = block_rows(width, end - start);
        for first in (start..end).step_by(block) {
            let n = block.min(end - first);
            let grad = (&dy[first * o + group * og..], rows(o));
            let product = |col: &[f32]| {
                // SAFETY: `dst` is this task's own (width x og) part of the sums.
                unsafe {
                    let dst = (dst, rows(og));
                    matmul(
                        [width, og, n],
                        dst,
                        first > start,
                        (col, transposed(width)),
                        grad,
                    );
                }
            };
            if shape.is_pointwise() {
                product(&x[first * k..][..n * k]);
            } else {
                with_workspace(n * width, |col| {
                    im2col(shape, x, first..first + n, &part, col);
                    product(col);
                });
            }
        }
    });
    sums
}

/// Gradient of the weight, (O, C / groups, kh, kw).
pub(super) fn weight_grad(shape: &ConvShape, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let sums = if direct::fits(shape) {
        direct::weight_sums(shape, x, dy)
    } else {
        weight_sums(shape, x, dy)
    };
    let taps = shape.kernel[0] * shape.kernel[1];
    let (cg, og, o) = (shape.c / shape.groups, shape.o / shape.groups, shape.o);
    let k = shape.filter_len();
    let parts = sums.len() / (shape.groups * k * og);
    // Add the parts in order while going back to (O, C / groups, kh, kw).
    let mut dw = uninit(o * k);
    dw.par_chunks_mut(k)
        .with_min_len(4)
        .enumerate()
        .for_each(|(filter, dw)| {
            let (group, col) = (filter / og, filter % og);
            for (i, dw) in dw.iter_mut().enumerate() {
                let row = i % taps * cg + i / taps;
                *dw = (0..parts)
                    .map(|p| sums[((p * shape.groups + group) * k + row) * og + col])
                    .sum();
            }
        });
    dw
}

/// `dst (m, n) = a (m, k) * b` in parallel over rows of the result.
pub(super) fn parallel_product(
    [m, n, k]: [usize; 3],
    dst: &mut [f32],
    (a, sa): (&[f32], Mat),
    (b, sb): (&[f32], Mat),
) {
    if m == 0 || n == 0 {
        return;
    }
    let block = ((1usize << 20) / (n * k).max(1)).clamp(8, 512).min(m);
    dst.par_chunks_mut(block * n)
        .enumerate()
        .for_each(|(i, dst)| {
            let count = dst.len() / n;
            let dst = (dst.as_mut_ptr(), rows(n));
            // SAFETY: each task has its own rows of the result.
            unsafe {
                matmul(
                    [count, n, k],
                    dst,
                    false,
                    (&a[i * block * sa.row..], sa),
                    (b, sb),
                )
            };
        });
}
