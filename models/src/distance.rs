//! How embeddings are compared: cosine similarity, greater is closer.
//!
//! Embeddings are normalised once, when they are made; from then on similarity is a dot product.

use rayon::prelude::*;

/// An embedding with a NaN or an infinite element: it must never reach an index or a gallery.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("element {index} of an embedding is {value}, all elements must be finite")]
pub struct NotFinite {
    /// Position of the first such element.
    pub index: usize,
    /// Its value.
    pub value: f32,
}

/// Independent partial sums: enough for the compiler to keep two AVX-512 or four AVX2 registers busy.
const LANES: usize = 32;

/// Dot product: the cosine similarity (-1 to 1) of unit vectors. The shorter length counts.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let mut sums = [0f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}

/// Cosine similarity of any two vectors, -1 to 1; 0 if one of them is a zero vector.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let (mut ab, mut aa, mut bb) = (0f64, 0f64, 0f64);
    for (&x, &y) in a.iter().zip(b) {
        let (x, y) = (f64::from(x), f64::from(y));
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    if aa == 0.0 || bb == 0.0 {
        return 0.0;
    }
    // clamp keeps NaN, so a broken vector does not look similar to anything.
    (ab / (aa.sqrt() * bb.sqrt())).clamp(-1.0, 1.0) as f32
}

/// Scales a vector to unit length in place; a zero vector stays zero.
///
/// # Errors
/// [`NotFinite`] if an element is NaN or infinite; the vector is unchanged then.
pub fn normalize(v: &mut [f32]) -> Result<(), NotFinite> {
    check_embedding(v)?;
    // f64: the squares of finite f32 neither overflow nor vanish.
    let norm = v
        .iter()
        .map(|&x| f64::from(x) * f64::from(x))
        .sum::<f64>()
        .sqrt();
    if norm > 0.0 {
        for x in v {
            *x = (f64::from(*x) / norm) as f32;
        }
    }
    Ok(())
}

/// Accepts a vector whose elements are all finite.
///
/// # Errors
/// [`NotFinite`] with the first element that isn't.
pub fn check_embedding(v: &[f32]) -> Result<(), NotFinite> {
    match v.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(NotFinite {
            index,
            value: v[index],
        }),
        None => Ok(()),
    }
}

/// Rows of `b` that are compared while they are in cache.
const BLOCK: usize = 64;

/// Dot products of all rows of `a` (N, `width`) with all rows of `b` (M, `width`), written to `out` as (N, M) row-major.
/// Rows are spread over rayon's threads; every element is one [`dot`], so the result doesn't depend on their number.
///
/// # Panics
/// If `width` is 0 or the lengths are not multiples of it.
pub fn similarity_matrix(a: &[f32], b: &[f32], width: usize, out: &mut Vec<f32>) {
    assert!(width > 0, "vectors of width 0 have no similarity");
    assert!(
        a.len().is_multiple_of(width) && b.len().is_multiple_of(width),
        "matrices of {} and {} elements have no whole rows of width {width}",
        a.len(),
        b.len()
    );
    let columns = b.len() / width;
    out.clear();
    out.resize(a.len() / width * columns, 0.0);
    if columns == 0 {
        return;
    }
    // A few rows of `a` share every block of `b`, which is then read from cache and not from memory.
    const ROWS: usize = 16;
    out.par_chunks_mut(ROWS * columns)
        .zip(a.par_chunks(ROWS * width))
        .for_each(|(out, a)| {
            for (block, b) in b.chunks(BLOCK * width).enumerate() {
                for (row, x) in a.chunks_exact(width).enumerate() {
                    let start = row * columns + block * BLOCK;
                    for (target, y) in out[start..].iter_mut().zip(b.chunks_exact(width)) {
                        *target = dot(x, y);
                    }
                }
            }
        });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_zero_vector_stays_zero_and_a_broken_one_is_refused() {
        let mut zero = [0.0; 5];
        normalize(&mut zero).unwrap();
        assert_eq!(zero, [0.0; 5]);
        assert_eq!(cosine(&zero, &[1.0; 5]), 0.0);
        let mut broken = [1.0, f32::NAN, 2.0];
        let err = normalize(&mut broken).unwrap_err();
        assert_eq!(err.index, 1);
        assert_eq!(broken[0], 1.0);
        assert!(check_embedding(&[0.0, f32::INFINITY]).is_err());
        assert!(cosine(&broken, &[1.0; 3]).is_nan());
    }

    #[test]
    fn norms_beyond_the_range_of_f32_squares() {
        for scale in [1e-30f32, 1e30] {
            let mut v = [3.0 * scale, 4.0 * scale];
            normalize(&mut v).unwrap();
            assert!(
                (v[0] - 0.6).abs() < 1e-6 && (v[1] - 0.8).abs() < 1e-6,
                "{v:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_matrix_agrees_with_the_obvious_loops(
            width in 1usize..70, n in 0usize..40, m in 0usize..150, seed in 0u64..1000
        ) {
            let value = |i: usize| ((i as u64 * 2_654_435_761 + seed * 97) % 1000) as f32 / 500.0 - 1.0;
            let a: Vec<f32> = (0..n * width).map(value).collect();
            let b: Vec<f32> = (0..m * width).map(|i| value(i + 7)).collect();
            let mut got = vec![9.0; 3];
            similarity_matrix(&a, &b, width, &mut got);
            prop_assert_eq!(got.len(), n * m);
            for i in 0..n {
                for j in 0..m {
                    let want: f64 = (0..width).map(|k| f64::from(a[i * width + k]) * f64::from(b[j * width + k])).sum();
                    prop_assert!((f64::from(got[i * m + j]) - want).abs() < 1e-4);
                }
            }
        }

        #[test]
        fn cosine_of_unit_vectors_is_their_dot(mut a in prop::collection::vec(-5f32..5.0, 100), mut b in prop::collection::vec(-5f32..5.0, 100)) {
            let want = cosine(&a, &b);
            normalize(&mut a).unwrap();
            normalize(&mut b).unwrap();
            prop_assert!((dot(&a, &b) - want).abs() < 1e-5);
        }
    }
}
