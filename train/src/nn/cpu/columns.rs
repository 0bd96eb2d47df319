//! Windows of an image as rows of a matrix (im2col) and back (col2im), for maps stored (N, H, W, C).
//!
//! A row holds the window of one output pixel in the order (ky, kx, c). With dilation 1 and one group the `kw * C`
//! values of one kernel row lie side by side in the image: one copy each.

use std::cell::RefCell;
use std::ops::Range;

use crate::nn::kernels::ConvShape;
use crate::simd::vectorised;

/// Elements of a column block: half of a typical second-level cache. Measured: larger blocks, and more than 16 rows at least,
/// are slower on ResNet-18 and ResNet-50 alike.
const BLOCK: usize = 96 * 1024;

/// Rows of a block of columns of `width` elements: a multiple of 8, so that the matrix kernel has no remainders.
pub(super) fn block_rows(width: usize, total: usize) -> usize {
    let rows = (BLOCK / width.max(1)).clamp(16, 1024) / 8 * 8;
    rows.min(total.max(1))
}

thread_local! {
    static WORKSPACE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Lends this thread's column workspace; its content is whatever was left there.
pub(super) fn with_workspace<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    WORKSPACE.with(|w| {
        let mut w = w.borrow_mut();
        if w.len() < len {
            w.resize(len, 0.0);
        }
        f(&mut w[..len])
    })
}

/// Which part of the windows: some kernel rows of one group.
#[derive(Clone)]
pub(super) struct Part {
    /// Kernel rows.
    pub(super) ky: Range<usize>,
    /// Group.
    pub(super) group: usize,
}

impl Part {
    /// All kernel rows of a group.
    pub(super) fn whole(shape: &ConvShape, group: usize) -> Self {
        Part {
            ky: 0..shape.kernel[0],
            group,
        }
    }

    /// Elements per row of columns.
    pub(super) fn width(&self, shape: &ConvShape) -> usize {
        self.ky.len() * shape.kernel[1] * shape.c / shape.groups
    }
}

/// Copies `len` floats in whole registers; short runs of every length occur, and a library call each would dominate.
///
/// # Safety
/// Both ranges are valid and do not overlap.
#[inline(always)]
unsafe fn copy(src: *const f32, dst: *mut f32, len: usize) {
    // SAFETY: all offsets stay below `len`; an unaligned array has the alignment of its element.
    unsafe {
        macro_rules! step {
            ($n:literal, $at:expr) => {
                *dst.add($at).cast::<[f32; $n]>() = *src.add($at).cast::<[f32; $n]>()
            };
        }
        // A last, overlapping register covers the remainder.
        match len {
            16.. => {
                let mut i = 0;
                while i + 16 <= len {
                    step!(16, i);
                    i += 16;
                }
                step!(16, len - 16);
            }
            8.. => {
                step!(8, 0);
                step!(8, len - 8);
            }
            4.. => {
                step!(4, 0);
                step!(4, len - 4);
            }
            _ => {
                for i in 0..len {
                    *dst.add(i) = *src.add(i);
                }
            }
        }
    }
}

/// The kernel columns `[lo, hi)` of a window starting at `ix0` (may be negative) that lie inside a row of `w` pixels,
/// for dilation 1.
#[inline(always)]
fn inside(ix0: isize, kw: usize, w: usize) -> (usize, usize) {
    let lo = ((-ix0).max(0) as usize).min(kw);
    let hi = (w as isize - ix0).clamp(lo as isize, kw as isize) as usize;
    (lo, hi)
}

vectorised! {
    /// Writes the windows of output pixels `rows` (counted over the batch) to `col`, row after row.
    fn im2col(shape: &ConvShape, x: &[f32], rows: Range<usize>, part: &Part, col: &mut [f32]) {
        let [oh, ow] = shape.out();
        let [_, kw] = shape.kernel;
        let (c, cg) = (shape.c, shape.c / shape.groups);
        let run = kw * cg;
        let width = part.width(shape);
        assert!(col.len() >= rows.len() * width);
        assert!(x.len() >= shape.n * shape.h * shape.w * c && rows.end <= shape.rows());
        let contiguous = shape.dilation[1] == 1 && shape.groups == 1;
        let (mut ox, mut oy, mut image) = (rows.start % ow, rows.start / ow % oh, rows.start / ow / oh);
        let mut dst = col.as_mut_ptr();
        for _ in rows {
            let ix0 = (ox * shape.stride[1]) as isize - shape.padding[1] as isize;
            let (lo, hi) = inside(ix0, kw, shape.w);
            for ky in part.ky.clone() {
                let iy = (oy * shape.stride[0] + ky * shape.dilation[0]) as isize - shape.padding[0] as isize;
                // SAFETY: `dst` advances `run` elements per kernel row and ends at most at `rows * width`, inside `col`;
                // source offsets are inside the image by the range checks.
                unsafe {
                    if iy < 0 || iy >= shape.h as isize {
                        std::ptr::write_bytes(dst, 0, run);
                    } else {
                        let line = x.as_ptr().add((image * shape.h + iy as usize) * shape.w * c);
                        if contiguous {
                            // Not a call for nothing: most windows lie inside.
                            if lo > 0 {
                                std::ptr::write_bytes(dst, 0, lo * c);
                            }
                            if hi > lo {
                                let from = line.offset((ix0 + lo as isize) * c as isize);
                                copy(from, dst.add(lo * c), (hi - lo) * c);
                            }
                            if hi < kw {
                                std::ptr::write_bytes(dst.add(hi * c), 0, (kw - hi) * c);
                            }
                        } else {
                            for kx in 0..kw {
                                let ix = ix0 + (kx * shape.dilation[1]) as isize;
                                let to = dst.add(kx * cg);
                                if ix < 0 || ix >= shape.w as isize {
                                    std::ptr::write_bytes(to, 0, cg);
                                } else {
                                    copy(line.add(ix as usize * c + part.group * cg), to, cg);
                                }
                            }
                        }
                    }
                    dst = dst.add(run);
                }
            }
            ox += 1;
            if ox == ow {
                (ox, oy) = (0, oy + 1);
                if oy == oh {
                    (oy, image) = (0, image + 1);
                }
            }
        }
    }
}

vectorised! {
    /// Adds the windows of output pixels `rows` of one group to the images they were taken from. `x` starts at image
    /// `first`, and the rows stay within the images `x` holds.
    fn col2im(shape: &ConvShape, col: &[f32], rows: Range<usize>, group: usize, first: usize, x: &mut [f32]) {
        let [oh, ow] = shape.out();
        let [kh, kw] = shape.kernel;
        let (c, cg) = (shape.c, shape.c / shape.groups);
        for (i, row) in rows.enumerate() {
            let (ox, oy, image) = (row % ow, row / ow % oh, row / ow / oh - first);
            for ky in 0..kh {
                let iy = (oy * shape.stride[0] + ky * shape.dilation[0]) as isize - shape.padding[0] as isize;
                if iy < 0 || iy >= shape.h as isize {
                    continue;
                }
                let line = (image * shape.h + iy as usize) * shape.w * c;
                let from = &col[((i * kh + ky) * kw) * cg..][..kw * cg];
                let ix0 = (ox * shape.stride[1]) as isize - shape.padding[1] as isize;
                if shape.dilation[1] == 1 && shape.groups == 1 {
                    let (lo, hi) = inside(ix0, kw, shape.w);
                    if hi > lo {
                        let at = (line as isize + (ix0 + lo as isize) * c as isize) as usize;
                        let to = &mut x[at..][..(hi - lo) * c];
                        for (t, f) in to.iter_mut().zip(&from[lo * c..hi * c]) {
                            *t += f;
                        }
                    }
                } else {
                    for kx in 0..kw {
                        let ix = ix0 + (kx * shape.dilation[1]) as isize;
                        if ix < 0 || ix >= shape.w as isize {
                            continue;
                        }
                        let to = &mut x[line + ix as usize * c + group * cg..][..cg];
                        for (t, f) in to.iter_mut().zip(&from[kx * cg..][..cg]) {
                            *t += f;
                        }
                    }
                }
            }
        }
    }
}
