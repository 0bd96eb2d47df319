//! Single-shot protocols: one gallery image a person, drawn again and again (CUHK03 as first published, CUHK01).

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::count::Counter;
use super::error::{EvalError, no_answers};
use super::labels::{Answers, Embeddings, JUNK, Labels, ignored};
use super::rank::blocks;
use super::result::{EvalResult, QueryResult, Ranking};
use super::similarity::{Metric, Similarity};

/// Ranks of the curve.
pub const RANKS: usize = 20;

/// Who shares a draw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrawForm {
    /// All queries search the same images, and cameras are not looked at (Li et al. 2014: queries of one camera, gallery of
    /// the other).
    #[default]
    Shared,
    /// Every query has draws of its own, from what is left without its person's images of its camera (torchreid's
    /// `eval_cuhk03`, which takes queries of both cameras).
    PerQuery,
}

/// Draws of one gallery image a person.
pub struct Draws<'a> {
    form: DrawForm,
    query: Labels<'a>,
    gallery: Labels<'a>,
    /// Images of each person, junk left out.
    persons: BTreeMap<i64, Vec<usize>>,
    seed: u64,
}

impl<'a> Draws<'a> {
    /// Reproducible draws: each follows from the seed, its number and (if drawn per query) the query, nothing else.
    pub fn new(form: DrawForm, query: Labels<'a>, gallery: Labels<'a>, seed: u64) -> Self {
        let mut persons: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (g, pid) in gallery.pids.iter().enumerate() {
            if *pid != JUNK {
                persons.entry(*pid).or_default().push(g);
            }
        }
        Draws {
            form,
            query,
            gallery,
            persons,
            seed,
        }
    }

    /// Gallery images of draw `draw` for query `q`, by ascending person, into `out`.
    pub fn rows(&self, draw: usize, q: usize, out: &mut Vec<usize>) {
        out.clear();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let own = match self.form {
            DrawForm::Shared => 0,
            DrawForm::PerQuery => q as u64 + 1,
        };
        rng.set_stream((draw as u64) << 32 | own);
        let mut left = Vec::new();
        for rows in self.persons.values() {
            let from = match self.form {
                DrawForm::Shared => rows,
                DrawForm::PerQuery => {
                    left.clear();
                    left.extend(
                        rows.iter()
                            .copied()
                            .filter(|g| !ignored(&self.query, q, &self.gallery, *g)),
                    );
                    &left
                }
            };
            if !from.is_empty() {
                out.push(from[rng.random_range(0..from.len())]);
            }
        }
    }
}

/// Means over draws.
#[derive(Clone, Debug, PartialEq)]
pub struct SingleShot {
    /// Ranks from the draws; mAP and mINP of the whole gallery without any draw, as torchreid reports them.
    pub result: EvalResult,
    /// Share of queries whose person is among the first 1, 2, ... [`RANKS`] drawn images, mean over draws.
    pub cmc: Vec<f64>,
    /// The same of each draw.
    pub by_draw: Vec<Vec<f64>>,
    /// Per query, without a draw.
    pub whole: Ranking,
}

/// Evaluates by cosine with `draws` draws; `rows(draw, query, out)` writes the gallery images of one, see [`Draws::rows`].
/// Queries without an image of their person in another camera are left out of every mean.
///
/// # Errors
/// As [`super::rank::evaluate`], or [`EvalError::Option`] without a draw.
///
/// # Panics
/// If a drawn image isn't in the gallery.
pub fn single_shot(
    query: &Embeddings,
    gallery: &Embeddings,
    draws: usize,
    rows: impl Fn(usize, usize, &mut Vec<usize>) + Sync,
) -> Result<SingleShot, EvalError> {
    if draws == 0 {
        return Err(EvalError::Option {
            option: "draws",
            reason: "single shot needs at least 1".into(),
        });
    }
    let similarity = Similarity::new(query, gallery, Metric::Cosine)?;
    let count = gallery.labels.pids.len();
    let answers = Answers::of(&gallery.labels);
    // Per query: its result, and its rank in each draw (0: not there).
    type Found = (QueryResult, Vec<u32>);
    let results: Vec<Vec<Found>> = blocks(query.labels.pids.len())
        .into_par_iter()
        .map(|block| {
            let mut scores = vec![0.0; block.len() * count];
            similarity.fill(block.clone(), &mut scores);
            let (mut drawn, mut right, mut ranks) = (Vec::new(), Vec::new(), Vec::new());
            let mut counter = Counter::default();
            block
                .zip(scores.chunks_exact_mut(count))
                .filter_map(|(q, scores)| {
                    let pid = query.labels.pids[q];
                    let places = (0..draws)
                        .map(|draw| {
                            rows(draw, q, &mut drawn);
                            place(scores, &drawn, |g| gallery.labels.pids[g] == pid)
                        })
                        .collect();
                    answers.right(&query.labels, q, &mut right, scores);
                    counter.ranks(scores, &right, &mut ranks);
                    Some((QueryResult::of(q, &ranks)?, places))
                })
                .collect()
        })
        .collect();
    let (queries, places): (Vec<QueryResult>, Vec<Vec<u32>>) =
        results.into_iter().flatten().unzip();
    let skipped = query.labels.pids.len() - queries.len();
    let whole =
        Ranking::of(queries, skipped).ok_or_else(|| no_answers(&query.labels, &gallery.labels))?;
    let by_draw: Vec<Vec<f64>> = (0..draws)
        .map(|draw| {
            (1..=RANKS as u32)
                .map(|rank| {
                    let found = places.iter().filter(|p| (1..=rank).contains(&p[draw]));
                    found.count() as f64 / places.len() as f64
                })
                .collect()
        })
        .collect();
    let cmc: Vec<f64> = (0..RANKS)
        .map(|n| by_draw.iter().map(|c| c[n]).sum::<f64>() / draws as f64)
        .collect();
    Ok(SingleShot {
        result: EvalResult {
            rank1: cmc[0],
            rank5: cmc[4],
            rank10: cmc[9],
            ..whole.result
        },
        cmc,
        by_draw,
        whole,
    })
}

/// Rank (from 1) of the best right image among the drawn ones, equal scores by index; 0 without one.
fn place(scores: &[f32], drawn: &[usize], right: impl Fn(usize) -> bool) -> u32 {
    let ahead = |a: usize, b: usize| scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
    let best = drawn
        .iter()
        .copied()
        .filter(|g| right(*g))
        .reduce(|a, b| if ahead(b, a) { b } else { a });
    best.map_or(0, |best| {
        1 + drawn.iter().filter(|g| ahead(**g, best)).count() as u32
    })
}

/// The mean of two directions, camera A asking camera B and the other way round (CUHK01): their curves, mAP and mINP weigh the
/// same. Counts of queries are added.
pub fn mean_of_directions(one: &SingleShot, other: &SingleShot) -> (EvalResult, Vec<f64>) {
    let (a, b) = (&one.result, &other.result);
    let cmc: Vec<f64> = one
        .cmc
        .iter()
        .zip(&other.cmc)
        .map(|(a, b)| (a + b) / 2.0)
        .collect();
    let result = EvalResult {
        rank1: cmc[0],
        rank5: cmc[4],
        rank10: cmc[9],
        map: (a.map + b.map) / 2.0,
        minp: (a.minp + b.minp) / 2.0,
        queries: a.queries + b.queries,
        skipped: a.skipped + b.skipped,
    };
    (result, cmc)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: Labels = Labels {
        pids: &[1, 2],
        cameras: &[1, 1],
    };
    const GALLERY: Labels = Labels {
        pids: &[1, 1, 2, 2, -1, 1],
        cameras: &[1, 2, 1, 2, 2, 2],
    };

    #[test]
    fn draws_take_one_image_a_person_and_repeat_themselves() {
        let (mut first, mut again) = (Vec::new(), Vec::new());
        let mut seen = std::collections::BTreeSet::new();
        for form in [DrawForm::Shared, DrawForm::PerQuery] {
            let draws = Draws::new(form, QUERY, GALLERY, 7);
            for draw in 0..40 {
                draws.rows(draw, 0, &mut first);
                draws.rows(draw, 0, &mut again);
                assert_eq!(first, again);
                let people: Vec<i64> = first.iter().map(|g| GALLERY.pids[*g]).collect();
                assert_eq!(people, [1, 2], "junk is never drawn");
                seen.extend(first.iter().copied());
                if form == DrawForm::PerQuery {
                    assert_ne!(first[0], 0, "the query's own camera is left out");
                }
            }
        }
        assert_eq!(seen.len(), 5, "every image gets its turn: {seen:?}");
    }
}
