//! Dot products of rows with rows, a tile at a time: the matrix product under neighbours, distances and centres.

use gemm::Parallelism;

/// `tile[r][c] = a.row(r) . b.row(c)`, row-major; `a` and `b` are row-major with `depth` columns. One thread: callers spread
/// their tiles, so that a product does not depend on the number of threads.
///
/// # Panics
/// If a length is no multiple of `depth`.
pub(super) fn products(a: &[f32], b: &[f32], depth: usize, tile: &mut Vec<f32>) {
    fill(a, b, depth, |_| [1, depth], tile);
}

/// Rows turned into columns, `panel[k][r] = rows[r][k]`, so that many products can share the turning.
pub(super) fn turned(rows: &[f32], depth: usize, panel: &mut Vec<f32>) {
    const SIDE: usize = 16;
    let count = rows.len() / depth;
    panel.resize(rows.len(), 0.0);
    for r0 in (0..count).step_by(SIDE) {
        for k0 in (0..depth).step_by(SIDE) {
            for k in k0..(k0 + SIDE).min(depth) {
                for r in r0..(r0 + SIDE).min(count) {
                    panel[k * count + r] = rows[r * depth + k];
                }
            }
        }
    }
}

/// As [`products`] with `b` [`turned`] already, which is a third faster for tiles of a few hundred rows.
///
/// # Panics
/// If a length is no multiple of `depth`.
pub(super) fn panel_products(a: &[f32], panel: &[f32], depth: usize, tile: &mut Vec<f32>) {
    fill(a, panel, depth, |width| [width, 1], tile);
}

/// The product of `a`, row-major with `depth` columns, and of as many columns as `b` has values for each of `depth`; `strides`
/// says, for that many columns, how far apart two values of a column and two columns lie in `b`.
fn fill(
    a: &[f32],
    b: &[f32],
    depth: usize,
    strides: impl Fn(usize) -> [usize; 2],
    tile: &mut Vec<f32>,
) {
    assert!(
        depth > 0 && a.len().is_multiple_of(depth) && b.len().is_multiple_of(depth),
        "whole rows"
    );
    let (height, width) = (a.len() / depth, b.len() / depth);
    let [down, across] = strides(width);
    tile.resize(height * width, 0.0);
    // SAFETY: `tile` holds height x width values and `a` height x depth, row-major; both callers' strides reach over exactly
    // the depth x width values of `b`; `read_dst` is false, so beta * dst is never read.
    unsafe {
        gemm::gemm(
            height,
            width,
            depth,
            tile.as_mut_ptr(),
            1,
            width as isize,
            false,
            a.as_ptr(),
            1,
            depth as isize,
            b.as_ptr(),
            across as isize,
            down as isize,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
