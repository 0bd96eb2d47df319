//! k-reciprocal re-ranking at test time (Zhong et al. 2017, eq. 12).
//!
//! The final distance is `(1 - lambda) J + lambda d`: J the Jaccard distance over query and gallery together, d the squared
//! Euclidean distance of unit vectors divided by its maximum over the query's row. This file mixes and ranks; who computes J
//! is the caller's choice, so that evaluation doesn't depend on clustering.

use std::ops::Range;

use super::error::EvalError;
use super::labels::Embeddings;
use super::rank::evaluate_scores;
use super::result::Ranking;
use super::similarity::{Metric, Similarity};
use crate::capacity;

/// Where Jaccard distances come from: the query's images first, then the gallery's, as one set.
pub trait Neighbourhoods: Sync {
    /// Jaccard distances of image `i` of the set to all images of the set.
    fn jaccard_row(&self, i: usize, out: &mut [f32]);
    /// Cosine similarity of image `i` and the image of the set least like it.
    fn farthest_similarity(&self, i: usize) -> f32;
}

/// The share of the original distance: 0.3 in the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lambda(f32);

impl Default for Lambda {
    fn default() -> Self {
        Lambda(0.3)
    }
}

impl Lambda {
    /// A share in 0..=1; `None` otherwise.
    pub fn new(share: f32) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Lambda(share))
    }
}

/// Features of query and gallery as one set, in the order [`Neighbourhoods`] expects.
///
/// # Errors
/// [`EvalError::Widths`] if they don't have the same width.
pub fn joined(query: &Embeddings, gallery: &Embeddings) -> Result<Vec<f32>, EvalError> {
    if query.width != gallery.width {
        return Err(EvalError::Widths {
            query: query.width,
            gallery: gallery.width,
        });
    }
    let len = query.features.len() + gallery.features.len();
    capacity::require(
        &format!("the {len} features of query and gallery together"),
        capacity::bytes(len, 1, 4),
        "evaluate fewer images, or leave out --rerank",
    )?;
    Ok([query.features, gallery.features].concat())
}

/// Evaluates the re-ranked lists.
///
/// # Errors
/// As [`super::rank::evaluate`].
pub fn evaluate_reranked(
    query: &Embeddings,
    gallery: &Embeddings,
    neighbourhoods: &dyn Neighbourhoods,
    lambda: Lambda,
) -> Result<Ranking, EvalError> {
    let distances = Reranked::new(query, gallery, neighbourhoods, lambda)?;
    evaluate_scores(query.labels, gallery.labels, |rows: Range<usize>, out| {
        distances.fill(rows, out);
        for score in out {
            *score = -*score;
        }
    })
}

/// Final distances of one query to the whole gallery; what [`evaluate_reranked`] ranks by.
///
/// # Errors
/// As [`evaluate_reranked`].
///
/// # Panics
/// If there is no such query.
pub fn reranked_distances(
    query: &Embeddings,
    gallery: &Embeddings,
    neighbourhoods: &dyn Neighbourhoods,
    lambda: Lambda,
    q: usize,
) -> Result<Vec<f32>, EvalError> {
    let mut out = vec![0.0; gallery.labels.pids.len()];
    Reranked::new(query, gallery, neighbourhoods, lambda)?.fill(q..q + 1, &mut out);
    Ok(out)
}

struct Reranked<'a> {
    similarity: Similarity<'a>,
    neighbourhoods: &'a dyn Neighbourhoods,
    queries: usize,
    gallery: usize,
    lambda: Lambda,
}

impl<'a> Reranked<'a> {
    fn new(
        query: &Embeddings<'a>,
        gallery: &Embeddings<'a>,
        neighbourhoods: &'a dyn Neighbourhoods,
        lambda: Lambda,
    ) -> Result<Self, EvalError> {
        Ok(Reranked {
            similarity: Similarity::new(query, gallery, Metric::Cosine)?,
            neighbourhoods,
            queries: query.labels.pids.len(),
            gallery: gallery.labels.pids.len(),
            lambda,
        })
    }

    /// Final distances of a block of queries: one row of Jaccard distances exists at a time.
    fn fill(&self, queries: Range<usize>, out: &mut [f32]) {
        self.similarity.fill(queries.clone(), out);
        let squared = |cosine: f32| (2.0 - 2.0 * cosine).max(0.0);
        let Lambda(share) = self.lambda;
        let mut row = vec![0.0; self.queries + self.gallery];
        for (q, out) in queries.zip(out.chunks_exact_mut(self.gallery)) {
            let farthest = squared(self.neighbourhoods.farthest_similarity(q));
            // All images coincide: every distance is 0 whatever divides it.
            let scale = if farthest > 0.0 { 1.0 / farthest } else { 1.0 };
            self.neighbourhoods.jaccard_row(q, &mut row);
            for (out, jaccard) in out.iter_mut().zip(&row[self.queries..]) {
                *out = (1.0 - share) * jaccard + share * scale * squared(*out);
            }
        }
    }
}
