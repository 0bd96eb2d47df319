//! Convolution without columns, for 16 or 32 output channels.
//!
//! With so few channels a matrix product cannot keep the multipliers busy, and writing the columns costs as much as using
//! them. Here a pixel's output channels are one or two AVX-512 registers; several neighbouring pixels are summed at once, and
//! each weight is loaded once for all of them. Bound by loads: one value of the image per multiply-add, two a cycle.
//!
//! 16 > 16 channels 3x3 runs at about 1.8 times the rate of columns and a matrix product; 64 channels gain nothing.

#[cfg(target_arch = "x86_64")]
mod avx512;

use rayon::prelude::*;

use super::columns::with_workspace;
use super::elementwise::{Finish, finish_rows};
use crate::nn::kernels::ConvShape;

/// Parts of the batch whose weight gradients are summed on their own; fixed, so that threads don't matter.
const PARTS: usize = 16;

/// Whether this module does a convolution on this processor.
pub(super) fn fits(shape: &ConvShape) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        crate::simd::has_avx512()
            && shape.groups == 1
            && shape.dilation == [1, 1]
            && shape.kernel != [1, 1]
            && matches!(shape.o, 16 | 32)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = shape;
        false
    }
}

/// Sizes of an image with its padding around it.
#[derive(Clone, Copy)]
struct Padded {
    /// Elements of a row.
    row: usize,
    /// Elements of the image.
    len: usize,
}

impl Padded {
    fn of(s: &ConvShape) -> Self {
        let row = (s.w + 2 * s.padding[1]) * s.c;
        Padded {
            row,
            len: row * (s.h + 2 * s.padding[0]),
        }
    }

    /// Copies an image (H, W, C) into the middle of `out`, zeros around it.
    fn fill(self, s: &ConvShape, image: &[f32], out: &mut [f32]) {
        let side = s.padding[1] * s.c;
        let edge = s.padding[0] * self.row;
        out[..edge].fill(0.0);
        out[self.len - edge..].fill(0.0);
        let inner = &mut out[edge..self.len - edge];
        for (to, from) in inner
            .chunks_exact_mut(self.row)
            .zip(image.chunks_exact(s.w * s.c))
        {
            to[..side].fill(0.0);
            to[side..side + from.len()].copy_from_slice(from);
            to[side + from.len()..].fill(0.0);
        }
    }
}

/// As [`super::conv::forward`]; `packed` is (K, O).
///
/// # Panics
/// If [`fits`] says no, or a slice has the wrong length.
pub(super) fn forward(
    s: &ConvShape,
    x: &[f32],
    packed: &[f32],
    y: &mut [f32],
    accumulate: bool,
    then: &Finish,
) {
    let [oh, ow] = s.out();
    let (image, padded) = (s.h * s.w * s.c, Padded::of(s));
    assert!(fits(s), "a convolution for this module");
    assert_eq!(packed.len(), s.filter_len() * s.o);
    assert_eq!((x.len(), y.len()), (s.n * image, s.rows() * s.o));
    y.par_chunks_exact_mut(oh * ow * s.o)
        .zip(x.par_chunks_exact(image))
        .enumerate()
        .for_each(|(n, (y, x))| {
            with_workspace(padded.len, |around| {
                padded.fill(s, x, around);
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `fits` has seen AVX-512; the slices have the lengths that the shape asks for.
                unsafe {
                    match s.o {
                        16 => avx512::image::<1>(s, around, padded.row, packed, y, accumulate),
                        _ => avx512::image::<2>(s, around, padded.row, packed, y, accumulate),
                    }
                }
                #[cfg(not(target_arch = "x86_64"))]
                let _ = (&around, accumulate);
            });
            finish_rows(then, n * oh * ow, s.o, y);
        });
}

/// Sums of the weight gradient over parts of the batch: (parts, K, O).
///
/// # Panics
/// As [`forward`].
pub(super) fn weight_sums(s: &ConvShape, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let [oh, ow] = s.out();
    let (image, out) = (s.h * s.w * s.c, oh * ow * s.o);
    let padded = Padded::of(s);
    assert!(fits(s), "a convolution for this module");
    assert_eq!((x.len(), dy.len()), (s.n * image, s.n * out));
    let per_part = s.n.div_ceil(PARTS);
    let len = s.filter_len() * s.o;
    let mut sums = vec![0.0; s.n.div_ceil(per_part) * len];
    sums.par_chunks_exact_mut(len)
        .zip(x.par_chunks(per_part * image))
        .zip(dy.par_chunks(per_part * out))
        .for_each(|((sums, x), dy)| {
            for (x, dy) in x.chunks_exact(image).zip(dy.chunks_exact(out)) {
                with_workspace(padded.len, |around| {
                    padded.fill(s, x, around);
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: as in `forward`.
                    unsafe {
                        match s.o {
                            16 => avx512::weights::<1>(s, around, padded.row, dy, sums),
                            _ => avx512::weights::<2>(s, around, padded.row, dy, sums),
                        }
                    }
                    #[cfg(not(target_arch = "x86_64"))]
                    let _ = (&around, &sums, dy);
                });
            }
        });
    sums
}

#[cfg(test)]
mod tests {
    use super::super::conv;
    use super::*;

    fn values(len: usize, seed: usize) -> Vec<f32> {
        (0..len)
            .map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0)
            .collect()
    }

    fn near(what: &str, a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len(), "{what}");
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            assert!(
                (a - b).abs() < 2e-3 * b.abs().max(1.0),
                "{what} {i}: {a} {b}"
            );
        }
    }

    /// Straight from the definition: output (N, oh, ow, O), and the gradient of (K, O).
    fn slow(s: &ConvShape, x: &[f32], packed: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let [oh, ow] = s.out();
        let mut y = vec![0.0; s.rows() * s.o];
        let mut dw = vec![0.0; packed.len()];
        for p in 0..s.rows() {
            let (ox, oy, n) = (p % ow, p / ow % oh, p / ow / oh);
            for k in 0..s.filter_len() {
                let (c, kx, ky) = (k % s.c, k / s.c % s.kernel[1], k / s.c / s.kernel[1]);
                let at =
                    |o: usize, k: usize, i: usize| (o * s.stride[i] + k).checked_sub(s.padding[i]);
                let (Some(iy), Some(ix)) = (at(oy, ky, 0), at(ox, kx, 1)) else {
                    continue;
                };
                if iy >= s.h || ix >= s.w {
                    continue;
                }
                let value = x[((n * s.h + iy) * s.w + ix) * s.c + c];
                for o in 0..s.o {
                    y[p * s.o + o] += value * packed[k * s.o + o];
                    dw[k * s.o + o] += value * dy[p * s.o + o];
                }
            }
        }
        (y, dw)
    }

    #[test]
    fn agrees_with_the_definition_on_odd_sizes() {
        // Every block of pixels and of weights occurs: 16, 8, 4 and 1; 24, 21, 12, 4 and 1.
        let shapes = [
            (16, 3, [7, 7], [2, 2], [3, 3], 19, 61),
            (16, 16, [3, 3], [1, 1], [1, 1], 7, 29),
            (32, 16, [3, 3], [2, 2], [1, 1], 9, 15),
            (32, 32, [3, 3], [1, 1], [1, 1], 4, 13),
            (16, 5, [1, 3], [2, 1], [0, 2], 6, 5),
            (32, 7, [3, 2], [1, 2], [2, 0], 5, 6),
            (16, 1, [2, 2], [1, 1], [0, 0], 2, 2),
        ];
        for (o, c, kernel, stride, padding, h, w) in shapes {
            for n in [1, 3, 19] {
                let s = ConvShape {
                    n,
                    c,
                    h,
                    w,
                    o,
                    kernel,
                    stride,
                    padding,
                    dilation: [1, 1],
                    groups: 1,
                };
                if !fits(&s) {
                    eprintln!("skipped: no AVX-512 here");
                    return;
                }
                let x = values(n * h * w * c, 1);
                let (packed, dy) = (values(s.filter_len() * o, 2), values(s.rows() * o, 3));
                let (want, want_dw) = slow(&s, &x, &packed, &dy);
                let mut y = vec![f32::NAN; want.len()];
                forward(&s, &x, &packed, &mut y, false, &Finish::default());
                near("y", &y, &want);
                forward(&s, &x, &packed, &mut y, true, &Finish::default());
                let twice: Vec<f32> = want.iter().map(|v| 2.0 * v).collect();
                near("added", &y, &twice);
                let sums = weight_sums(&s, &x, &dy);
                let mut dw = vec![0.0; packed.len()];
                for part in sums.chunks_exact(packed.len()) {
                    for (sum, v) in dw.iter_mut().zip(part) {
                        *sum += v;
                    }
                }
                near("dw", &dw, &want_dw);
            }
        }
    }

    #[test]
    fn wider_grouped_and_dilated_ones_are_left_to_matrix_products() {
        let s = ConvShape {
            n: 1,
            c: 16,
            h: 8,
            w: 8,
            o: 16,
            kernel: [3, 3],
            stride: [1, 1],
            padding: [1, 1],
            dilation: [1, 1],
            groups: 1,
        };
        for other in [
            ConvShape { o: 64, ..s },
            ConvShape { groups: 2, ..s },
            ConvShape {
                dilation: [2, 1],
                ..s
            },
            ConvShape {
                kernel: [1, 1],
                padding: [0, 0],
                ..s
            },
        ] {
            assert!(!fits(&other));
        }
        // Both ways give the same convolution.
        if fits(&s) {
            let (x, w) = (values(8 * 8 * 16, 4), values(16 * 16 * 9, 5));
            let packed = conv::pack(&s, &w, None);
            let (mut a, mut b) = (vec![0.0; 8 * 8 * 16], vec![0.0; 8 * 8 * 16]);
            forward(&s, &x, &packed, &mut a, false, &Finish::default());
            conv::by_columns(&s, &x, &packed, &mut b, false, &Finish::default());
            near("columns", &a, &b);
        }
    }
}
