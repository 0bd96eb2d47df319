//! Rows of a memory: kept on the processor, where they are changed one at a time, and beside the network, where they are read.

use candle_core::Tensor;

use super::centroids::MemoryError;

/// The values of (N, D) features.
pub(super) fn read(
    features: &Tensor,
    samples: usize,
    width: usize,
) -> Result<Vec<f32>, MemoryError> {
    if features.dims() != [samples, width] {
        return Err(MemoryError::Shape {
            values: features.elem_count(),
            samples,
            width,
        });
    }
    Ok(features.detach().flatten_all()?.to_vec1()?)
}

/// Writes one row of a (C, D) tensor in place.
pub(super) fn write(tensor: &Tensor, place: usize, row: &[f32]) -> Result<(), MemoryError> {
    let row = Tensor::from_slice(row, (1, row.len()), tensor.device())?;
    Ok(tensor.slice_set(&row, 0, place)?)
}

/// `L2(momentum * old + (1 - momentum) * new)`, in place.
pub(super) fn toward(old: &mut [f32], new: &[f32], momentum: f64) {
    let moved: Vec<f64> = old
        .iter()
        .zip(new)
        .map(|(o, n)| momentum * f64::from(*o) + (1.0 - momentum) * f64::from(*n))
        .collect();
    let norm = moved.iter().map(|x| x * x).sum::<f64>().sqrt();
    let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    old.iter_mut()
        .zip(moved)
        .for_each(|(o, x)| *o = (x * scale) as f32);
}

/// Cosine of two vectors; 0 if one is zero.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}
