//! Single-threaded matrix products; parallelism is the caller's, over parts of the result.

use gemm::Parallelism;

/// Strides of a matrix, in elements.
#[derive(Clone, Copy)]
pub(super) struct Mat {
    /// From one row to the next.
    pub(super) row: usize,
    /// From one column to the next.
    pub(super) col: usize,
}

/// Row-major with `width` columns.
pub(super) fn rows(width: usize) -> Mat {
    Mat { row: width, col: 1 }
}

/// The transpose of a row-major matrix with `width` columns.
pub(super) fn transposed(width: usize) -> Mat {
    Mat { row: 1, col: width }
}

fn reach(rows: usize, cols: usize, m: Mat) -> usize {
    if rows == 0 || cols == 0 {
        0
    } else {
        (rows - 1) * m.row + (cols - 1) * m.col + 1
    }
}

/// `dst = a * b`, or `dst += a * b`: (m, k) times (k, n).
///
/// # Safety
/// `dst` may be written over the reach of an (m, n) matrix with strides `ds`, and nobody else touches it meanwhile.
pub(super) unsafe fn matmul(
    [m, n, k]: [usize; 3],
    (dst, ds): (*mut f32, Mat),
    accumulate: bool,
    (a, sa): (&[f32], Mat),
    (b, sb): (&[f32], Mat),
) {
    assert!(a.len() >= reach(m, k, sa) && b.len() >= reach(k, n, sb));
    // SAFETY: the operands' reach was checked; the destination is the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst,
            ds.col as isize,
            ds.row as isize,
            accumulate,
            a.as_ptr(),
            sa.col as isize,
            sa.row as isize,
            b.as_ptr(),
            sb.col as isize,
            sb.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
