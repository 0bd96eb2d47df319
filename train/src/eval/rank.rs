//! The evaluation protocol of Market-1501 (Zheng et al. 2015), which the field shares.
//!
//! For each query, gallery images of the same identity *and* the same camera are ignored, as is junk (identity -1);
//! distractors stay. Queries without any right answer left are skipped and counted. The gallery is ordered by cosine
//! similarity, equal ones by index. Average precision is the mean, over the right answers, of (place among the right ones / rank);
//! mINP (Ye et al. 2021) the mean of (right answers / rank of the last).
//!
//! Ranks come from counting who is nearer, not from sorting, and from blocks of queries: no full distance matrix exists.

use std::ops::Range;

use rayon::prelude::*;

use super::count::Counter;
use super::error::no_answers;
use super::labels::{Answers, check, ignored};
use super::similarity::Similarity;
use crate::capacity;

pub use super::error::EvalError;
pub use super::labels::{DISTRACTOR, Embeddings, JUNK, Labels};
pub use super::result::{EvalResult, QueryResult, Ranking};
pub use super::similarity::Metric;

/// Queries whose scores one thread computes together.
pub(super) const BLOCK: usize = 256;

/// Scores that exist at a time, in bytes: they take the most memory, and many queries at once make the fastest products.
const SCORES: usize = 128 << 20;

/// One place of a ranked list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Index in the gallery.
    pub gallery: usize,
    /// Cosine similarity (or the score ranked by).
    pub score: f32,
    /// Whether it is the query's identity.
    pub right: bool,
}

/// Evaluates by cosine similarity.
///
/// # Errors
/// If sizes disagree, a feature isn't finite, a set is empty, or no query can be answered.
pub fn evaluate(query: &Embeddings, gallery: &Embeddings) -> Result<Ranking, EvalError> {
    evaluate_by(Metric::Cosine, query, gallery)
}

/// As [`evaluate`], by a metric.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_by(
    metric: Metric,
    query: &Embeddings,
    gallery: &Embeddings,
) -> Result<Ranking, EvalError> {
    let similarity = Similarity::new(query, gallery, metric)?;
    evaluate_blocks(query.labels, gallery.labels, |rows, out| {
        similarity.fill_parallel(rows, out);
    })
}

/// Evaluates by any score: `fill(queries, out)` writes, for each query of the range, one score per gallery image, finite and
/// greater being nearer. It is called once per block of queries, on several threads.
///
/// # Errors
/// As [`evaluate`], except for features.
pub fn evaluate_scores(
    query: Labels,
    gallery: Labels,
    fill: impl Fn(Range<usize>, &mut [f32]) + Sync,
) -> Result<Ranking, EvalError> {
    let count = gallery.pids.len().max(1);
    evaluate_blocks(query, gallery, |rows, out| {
        out.par_chunks_mut(BLOCK * count)
            .enumerate()
            .for_each(|(n, out)| {
                let start = rows.start + n * BLOCK;
                fill(start..start + out.len() / count, out);
            });
    })
}

/// `fill` is called for one block of queries after the other, and may use all threads.
fn evaluate_blocks(
    query: Labels,
    gallery: Labels,
    fill: impl Fn(Range<usize>, &mut [f32]),
) -> Result<Ranking, EvalError> {
    check("query", &query)?;
    check("gallery", &gallery)?;
    let (number, count) = (query.pids.len(), gallery.pids.len());
    let answers = Answers::of(&gallery);
    // Blocks of equal size, as large as the memory for scores allows.
    let most = (SCORES / (4 * count)).max(1);
    let block = number.div_ceil(number.div_ceil(most));
    capacity::require(
        &format!("the scores of {block} of {number} queries against {count} gallery images"),
        capacity::bytes(block, count, 4),
        "evaluate against fewer gallery images, or end other programs",
    )?;
    let mut scores = vec![0.0; block * count];
    let mut queries = Vec::new();
    for start in (0..number).step_by(block) {
        let end = (start + block).min(number);
        let scores = &mut scores[..(end - start) * count];
        fill(start..end, scores);
        let found: Vec<QueryResult> = scores
            .par_chunks_exact_mut(count)
            .enumerate()
            .map_init(
                || (Vec::new(), Vec::new(), Counter::default()),
                |(right, ranks, counter), (n, scores)| {
                    answers.right(&query, start + n, right, scores);
                    counter.ranks(scores, right, ranks);
                    QueryResult::of(start + n, ranks)
                },
            )
            .flatten_iter()
            .collect();
        queries.extend(found);
    }
    let skipped = number - queries.len();
    Ranking::of(queries, skipped).ok_or_else(|| no_answers(&query, &gallery))
}

/// Blocks of queries, in order.
pub(super) fn blocks(queries: usize) -> Vec<Range<usize>> {
    (0..queries)
        .step_by(BLOCK)
        .map(|start| start..(start + BLOCK).min(queries))
        .collect()
}

/// The first `count` places of the ranked lists of some queries, after the protocol's filter.
///
/// # Errors
/// As [`evaluate`], except that a query without answers is no error.
///
/// # Panics
/// If `which` names a query that isn't there.
pub fn ranked_lists(
    query: &Embeddings,
    gallery: &Embeddings,
    which: &[usize],
    count: usize,
) -> Result<Vec<Vec<Hit>>, EvalError> {
    let similarity = Similarity::new(query, gallery, Metric::Cosine)?;
    let lists = which
        .par_iter()
        .map(|&q| {
            let mut scores = vec![0.0; gallery.labels.pids.len()];
            similarity.fill(q..q + 1, &mut scores);
            let pid = query.labels.pids[q];
            let mut hits: Vec<Hit> = scores
                .iter()
                .enumerate()
                .filter(|(g, _)| !ignored(&query.labels, q, &gallery.labels, *g))
                .map(|(gallery_index, &score)| Hit {
                    gallery: gallery_index,
                    score,
                    right: gallery.labels.pids[gallery_index] == pid,
                })
                .collect();
            hits.sort_by(|a, b| b.score.total_cmp(&a.score));
            hits.truncate(count);
            hits
        })
        .collect();
    Ok(lists)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn labels<'a>(pids: &'a [i64], cameras: &'a [i64]) -> Labels<'a> {
        Labels { pids, cameras }
    }

    #[test]
    fn by_hand() {
        // Ranks after the filter: right answers at 2 and 3 of four; the same camera's and the junk are gone.
        let scores = [0.9, 0.8, 0.7, 0.6, 0.95, 0.5];
        let gallery = labels(&[2, 1, 1, 0, 1, -1], &[1, 2, 3, 1, 1, 2]);
        let found = evaluate_scores(labels(&[1, 9], &[1, 1]), gallery, |rows, out| {
            for row in out.chunks_exact_mut(6).take(rows.len()) {
                row.copy_from_slice(&scores);
            }
        })
        .unwrap();
        let r = found.result;
        assert_eq!((r.rank1, r.rank5, r.queries, r.skipped), (0.0, 1.0, 1, 1));
        assert!((r.map - (1.0 / 2.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        assert!((r.minp - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn one_camera_is_a_clear_error() {
        let e = |features| Embeddings {
            features,
            width: 2,
            labels: labels(&[1, 2], &[4, 4]),
        };
        let message = evaluate(&e(&[1.0, 0.0, 0.0, 1.0]), &e(&[1.0, 0.0, 0.0, 1.0]))
            .unwrap_err()
            .to_string();
        assert!(message.contains("all images are of camera 4"), "{message}");
        let message = evaluate(&e(&[1.0, 0.0, 0.0, 1.0]), &e(&[1.0, 0.0, f32::NAN, 1.0]))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("gallery") && message.contains("image 1"),
            "{message}"
        );
        assert!(matches!(
            evaluate(&e(&[1.0; 3]), &e(&[1.0; 4])),
            Err(EvalError::Sizes { set: "query", .. })
        ));
    }
}
