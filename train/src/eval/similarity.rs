//! How near query and gallery are, a block of queries at a time, by matrix multiplication.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::Tensor;
use gemm::Parallelism;
use rayon::prelude::*;
use reid_models::distance;

use super::error::EvalError;
use super::labels::{Embeddings, check_rows};
use crate::nn::device;
use crate::nn::gpu::Gpu;

/// What "near" means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Metric {
    /// Angle between features; the order of Euclidean distances of L2-normalised features is the same.
    #[default]
    Cosine,
    /// Distance of the features as they are (torchreid's default).
    Euclidean,
}

/// Lengths of rows for which products of whole rows neither overflow nor vanish in f32.
const SAFE: std::ops::RangeInclusive<f64> = 1e-9..=1e9;

/// Columns of the gallery that a thread takes at a time.
const TILE: usize = 256;

/// Multiplications and additions below which a GPU isn't worth the way there and back.
const WORTH_A_GPU: usize = 1 << 30;

/// Checked features of both sides. They are borrowed: scores are scaled, not features.
pub(super) struct Similarity<'a> {
    query: Side<'a>,
    gallery: Side<'a>,
    width: usize,
    metric: Metric,
    gpu: Option<OnGpu>,
}

/// Both sides' features in a GPU's memory.
struct OnGpu {
    gpu: &'static Gpu,
    query: Tensor,
    gallery: Tensor,
}

struct Side<'a> {
    rows: Cow<'a, [f32]>,
    /// Per row: what its products are multiplied with to be cosines (0 for a zero vector), or its squared length.
    terms: Vec<f32>,
    /// Every row has length 1, so cosines need no scaling.
    unit: bool,
}

impl<'a> Similarity<'a> {
    /// # Errors
    /// If sizes disagree, a set is empty or a feature isn't finite.
    pub(super) fn new(
        query: &Embeddings<'a>,
        gallery: &Embeddings<'a>,
        metric: Metric,
    ) -> Result<Self, EvalError> {
        let sides = (
            Side::new("query", query, metric)?,
            Side::new("gallery", gallery, metric)?,
        );
        if query.width != gallery.width {
            return Err(EvalError::Widths {
                query: query.width,
                gallery: gallery.width,
            });
        }
        let mut similarity = Similarity {
            query: sides.0,
            gallery: sides.1,
            width: query.width,
            metric,
            gpu: None,
        };
        let work = query.labels.pids.len() * gallery.labels.pids.len() * query.width;
        if let Some(gpu) = device::gpu().filter(|_| work >= WORTH_A_GPU) {
            match similarity.upload(gpu) {
                Ok(there) => similarity.gpu = Some(there),
                Err(e) => warn(&e),
            }
        }
        Ok(similarity)
    }

    fn upload(&self, gpu: &'static Gpu) -> candle_core::Result<OnGpu> {
        Ok(OnGpu {
            gpu,
            query: gpu.upload(&self.query.rows, self.width)?,
            gallery: gpu.upload(&self.gallery.rows, self.width)?,
        })
    }

    /// One score per query of the range and gallery image, row-major, greater being nearer: the cosine, or the negative
    /// squared Euclidean distance. Single-threaded.
    pub(super) fn fill(&self, queries: Range<usize>, out: &mut [f32]) {
        self.check_sizes(&queries, out);
        let target = Target(out.as_mut_ptr());
        // SAFETY: `out` is borrowed exclusively and holds every row; there is one tile.
        unsafe { self.fill_tile(queries, 0..self.gallery.terms.len(), target) };
    }

    /// As [`Similarity::fill`], on all threads: many queries share each tile of the gallery, which must be packed once for each
    /// block of queries. Packing for 128 queries costs as much as the products themselves. On the GPU that the program opened,
    /// if there is one and the work is worth it.
    pub(super) fn fill_parallel(&self, queries: Range<usize>, out: &mut [f32]) {
        self.check_sizes(&queries, out);
        if let Some(OnGpu {
            gpu,
            query,
            gallery,
        }) = &self.gpu
        {
            match gpu.similarities(query, queries.clone(), gallery) {
                Ok(products) => {
                    out.copy_from_slice(&products);
                    out.par_chunks_mut(self.gallery.terms.len())
                        .zip(queries)
                        .for_each(|(row, q)| self.finish(q, row, &self.gallery.terms));
                    return;
                }
                Err(e) => warn(&e),
            }
        }
        let target = Target(out.as_mut_ptr());
        let count = self.gallery.terms.len();
        (0..count.div_ceil(TILE)).into_par_iter().for_each(|tile| {
            let columns = tile * TILE..((tile + 1) * TILE).min(count);
            // SAFETY: `out` is borrowed exclusively and holds every row; tiles have no column in common.
            unsafe { self.fill_tile(queries.clone(), columns, target) };
        });
    }

    fn check_sizes(&self, queries: &Range<usize>, out: &[f32]) {
        assert!(
            queries.end <= self.query.terms.len()
                && out.len() == queries.len() * self.gallery.terms.len(),
            "one score per query and gallery image"
        );
    }

    /// # Safety
    /// `out` must point to queries x gallery values, whose columns `columns` nobody else touches.
    unsafe fn fill_tile(&self, queries: Range<usize>, columns: Range<usize>, out: Target) {
        let count = self.gallery.terms.len();
        // SAFETY: by the caller for `out`, written row-major with the stride of whole rows; queries and columns lie inside
        // the features, as `check_sizes` has seen; the gallery is read transposed; `read_dst` is false.
        unsafe {
            gemm::gemm(
                queries.len(),
                columns.len(),
                self.width,
                out.0.add(columns.start),
                1,
                count as isize,
                false,
                self.query.rows.as_ptr().add(queries.start * self.width),
                1,
                self.width as isize,
                self.gallery.rows.as_ptr().add(columns.start * self.width),
                self.width as isize,
                1,
                0.0f32,
                1.0f32,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
        let terms = &self.gallery.terms[columns.clone()];
        for (n, q) in queries.enumerate() {
            // SAFETY: as above: row `n`, this tile's columns.
            let row = unsafe {
                std::slice::from_raw_parts_mut(out.0.add(n * count + columns.start), terms.len())
            };
            self.finish(q, row, terms);
        }
    }

    /// From products of query `q` with gallery images to scores; `terms` are the images'.
    fn finish(&self, q: usize, row: &mut [f32], terms: &[f32]) {
        if self.metric == Metric::Cosine && self.query.unit && self.gallery.unit {
            return;
        }
        let own = self.query.terms[q];
        for (score, term) in row.iter_mut().zip(terms) {
            *score = match self.metric {
                Metric::Cosine => *score * (own * term),
                Metric::Euclidean => 2.0 * *score - (own + term),
            };
        }
    }
}

fn warn(e: &candle_core::Error) {
    tracing::warn!("the GPU could not compare features, the processor does: {e}");
}

/// Where threads write their own columns of a shared matrix.
#[derive(Clone, Copy)]
struct Target(*mut f32);

// SAFETY: only `fill_tile` writes through it, whose caller promises that no two threads write the same columns.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl<'a> Side<'a> {
    fn new(set: &'static str, e: &Embeddings<'a>, metric: Metric) -> Result<Self, EvalError> {
        check_rows(set, e)?;
        let squares: Vec<f64> = e
            .features
            .par_chunks_exact(e.width)
            .map(|row| row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum())
            .collect();
        if let Some(row) = squares.iter().position(|s| !s.is_finite()) {
            return Err(EvalError::NotFinite { set, row });
        }
        let mut side = Side {
            rows: Cow::Borrowed(e.features),
            terms: Vec::new(),
            unit: squares.iter().all(|s| (s - 1.0).abs() < 1e-6),
        };
        let safe = squares
            .iter()
            .all(|s| *s == 0.0 || SAFE.contains(&s.sqrt()));
        match metric {
            Metric::Euclidean => side.terms = squares.iter().map(|s| *s as f32).collect(),
            Metric::Cosine if side.unit => side.terms = vec![1.0; squares.len()],
            Metric::Cosine if safe => {
                let inverse = |s: &f64| if *s == 0.0 { 0.0 } else { 1.0 / s.sqrt() };
                side.terms = squares.iter().map(|s| inverse(s) as f32).collect();
            }
            Metric::Cosine => {
                // Far from any trained network's features; such rows are worth a copy.
                let mut rows = e.features.to_vec();
                rows.par_chunks_exact_mut(e.width).for_each(|row| {
                    // Finite, as checked above.
                    let _ = distance::normalize(row);
                });
                side.rows = Cow::Owned(rows);
                side.terms = vec![1.0; squares.len()];
            }
        }
        Ok(side)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::labels::Labels;
    use super::*;

    fn scores(query: &[f32], gallery: &[f32], metric: Metric) -> Vec<f32> {
        let side = |features, pids| Embeddings {
            features,
            width: 2,
            labels: Labels {
                pids,
                cameras: pids,
            },
        };
        let (q, g) = (side(query, &[1]), side(gallery, &[1, 2]));
        let mut out = vec![0.0; 2];
        Similarity::new(&q, &g, metric)
            .unwrap()
            .fill(0..1, &mut out);
        out
    }

    #[test]
    fn features_of_any_length_are_compared() {
        let zero = scores(&[3.0, 4.0], &[0.0, 0.0, 6.0, 8.0], Metric::Cosine);
        assert!(zero[0] == 0.0 && (zero[1] - 1.0).abs() < 1e-6);
        let tiny = scores(&[3e-30, 4e-30], &[4e30, -3e30, 3e30, 4e30], Metric::Cosine);
        assert!(tiny[0].abs() < 1e-6 && (tiny[1] - 1.0).abs() < 1e-6);
        assert_eq!(
            scores(&[3.0, 4.0], &[3.0, 4.0, 0.0, 0.0], Metric::Euclidean),
            [0.0, -25.0]
        );
    }
}
