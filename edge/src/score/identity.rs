//! Identity measures: the one-to-one mapping of result ids to true ids that explains most boxes.

use std::collections::HashMap;

use super::MIN_IOU;
use super::frames::{FramePair, key, unkey};
use super::matching::{Edge, Matcher};

/// Counts how often each true id and each result id lie on each other.
#[derive(Default)]
pub(super) struct Identity {
    together: HashMap<u64, usize>,
}

impl Identity {
    /// One frame.
    pub(super) fn update(&mut self, pair: &FramePair) {
        for (i, person) in pair.truth.iter().enumerate() {
            for (j, identity) in pair.results.iter().enumerate() {
                if 1.0 - pair.iou(i, j) <= 1.0 - MIN_IOU {
                    *self.together.entry(key(*person, *identity)).or_default() += 1;
                }
            }
        }
    }

    /// Boxes explained by the best mapping (IDTP). Minimising IDFN + IDFP over mappings is maximising this.
    pub(super) fn true_positives(&self, people: usize, identities: usize) -> usize {
        let mut together: Vec<(u64, usize)> = self.together.iter().map(|(k, n)| (*k, *n)).collect();
        together.sort_unstable();
        let edges: Vec<Edge> = together
            .iter()
            .map(|(k, n)| {
                let (person, identity) = unkey(*k);
                Edge {
                    row: person as usize,
                    column: identity as usize,
                    weight: *n as f64,
                }
            })
            .collect();
        let mut matcher = Matcher::default();
        let mapping = matcher.solve(people, identities, &edges);
        together
            .iter()
            .filter(|(k, _)| {
                let (person, identity) = unkey(*k);
                mapping[person as usize] == Some(identity as usize)
            })
            .map(|(_, n)| n)
            .sum()
    }
}
