//! Identity measures: the one-to-one mapping of result ids to true ids that explains most boxes.

use std::collections::BTreeMap;

use super::FramePair;
use crate::track::hungarian;

/// Counts how often each true id and each result id lie on each other.
#[derive(Default)]
pub(super) struct Identity {
    together: BTreeMap<(i64, i64), usize>,
}

impl Identity {
    /// One frame; `distance` is true boxes x result boxes.
    pub(super) fn update(&mut self, pair: &FramePair, distance: &[Option<f64>]) {
        let columns = pair.results.len();
        for (i, truth) in pair.truth.iter().enumerate() {
            for (j, result) in pair.results.iter().enumerate() {
                if distance[i * columns + j].is_some() {
                    *self.together.entry((truth.id, result.id)).or_default() += 1;
                }
            }
        }
    }

    /// Boxes explained by the best mapping (IDTP). Minimising IDFN + IDFP over mappings is maximising this.
    pub(super) fn true_positives(&self) -> usize {
        let places = |pick: fn(&(i64, i64)) -> i64| -> BTreeMap<i64, usize> {
            let mut place = BTreeMap::new();
            for key in self.together.keys() {
                let next = place.len();
                place.entry(pick(key)).or_insert(next);
            }
            place
        };
        let (truths, results) = (places(|k| k.0), places(|k| k.1));
        if truths.is_empty() {
            return 0;
        }
        let mut count = vec![0usize; truths.len() * results.len()];
        for ((truth, result), n) in &self.together {
            count[truths[truth] * results.len() + results[result]] = *n;
        }
        let most = count.iter().copied().max().unwrap_or_default();
        let cost: Vec<f32> = count.iter().map(|n| (most - n) as f32).collect();
        hungarian::solve(&cost, truths.len(), results.len())
            .into_iter()
            .enumerate()
            .filter_map(|(i, j)| j.map(|j| count[i * results.len() + j]))
            .sum()
    }
}
