//! What an evaluation says: per query, and in the mean.

use serde::{Deserialize, Serialize};

/// Scores, fractions 0..=1. The JSON keys are a contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalResult {
    /// Queries whose best answer is right.
    pub rank1: f64,
    /// Queries with a right answer among the first five.
    pub rank5: f64,
    /// Queries with a right answer among the first ten.
    pub rank10: f64,
    /// Mean average precision.
    pub map: f64,
    /// Mean inverse negative penalty.
    pub minp: f64,
    /// Queries that counted.
    pub queries: usize,
    /// Queries without a right answer in the gallery.
    #[serde(skip)]
    pub skipped: usize,
}

/// Scores of one query that counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueryResult {
    /// Its index among the queries.
    pub query: usize,
    /// Rank of the first right answer, from 1.
    pub first: usize,
    /// Average precision.
    pub average_precision: f64,
    /// Right answers / rank of the last.
    pub inverse_penalty: f64,
}

/// The whole evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// Means.
    pub result: EvalResult,
    /// Per query that counted, ascending.
    pub queries: Vec<QueryResult>,
}

impl Ranking {
    /// Means of these queries; `skipped` others had no right answer. `None` without a query.
    pub(super) fn of(queries: Vec<QueryResult>, skipped: usize) -> Option<Self> {
        if queries.is_empty() {
            return None;
        }
        let mean = |value: &dyn Fn(&QueryResult) -> f64| {
            queries.iter().map(value).sum::<f64>() / queries.len() as f64
        };
        let within = |rank: usize| mean(&|q| f64::from(u8::from(q.first <= rank)));
        let result = EvalResult {
            rank1: within(1),
            rank5: within(5),
            rank10: within(10),
            map: mean(&|q| q.average_precision),
            minp: mean(&|q| q.inverse_penalty),
            queries: queries.len(),
            skipped,
        };
        Some(Ranking { result, queries })
    }

    /// The cumulative match characteristic: share of queries whose first right answer is at rank 1, at rank 2 or before,
    /// and so on to `ranks`.
    pub fn cmc(&self, ranks: usize) -> Vec<f64> {
        let mut cmc = vec![0.0; ranks];
        for query in self.queries.iter().filter(|q| q.first <= ranks) {
            cmc[query.first - 1] += 1.0 / self.queries.len() as f64;
        }
        for rank in 1..ranks {
            cmc[rank] += cmc[rank - 1];
        }
        cmc
    }
}

impl QueryResult {
    /// Of the ranks of the right answers, ascending; `None` without one.
    pub(super) fn of(query: usize, ranks: &[usize]) -> Option<Self> {
        let (first, last) = (*ranks.first()?, *ranks.last()?);
        let precision: f64 = ranks
            .iter()
            .enumerate()
            .map(|(n, rank)| (n + 1) as f64 / *rank as f64)
            .sum();
        Some(QueryResult {
            query,
            first,
            average_precision: precision / ranks.len() as f64,
            inverse_penalty: ranks.len() as f64 / last as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_the_contract() {
        let json = serde_json::to_value(EvalResult::default()).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        let mut want = ["rank1", "rank5", "rank10", "map", "minp", "queries"]
            .map(String::from)
            .to_vec();
        want.sort();
        let mut keys = keys;
        keys.sort();
        assert_eq!(keys, want);
    }

    #[test]
    fn cmc_rises_to_the_share_that_was_found() {
        let queries: Vec<QueryResult> = [1, 3, 3, 50]
            .iter()
            .map(|first| QueryResult::of(0, &[*first]).unwrap())
            .collect();
        let cmc = Ranking::of(queries, 0).unwrap().cmc(4);
        assert_eq!(cmc, [0.25, 0.25, 0.75, 0.75]);
        assert!(Ranking::of(Vec::new(), 3).is_none());
    }
}
