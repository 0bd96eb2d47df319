//! CLEAR MOT: misses, false positives, switches.

use super::MIN_IOU;
use super::frames::FramePair;
use super::matching::{Edge, Matcher};

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) objects: usize,
    pub(super) predictions: usize,
    pub(super) misses: usize,
    pub(super) false_positives: usize,
    pub(super) switches: usize,
}

/// Counts frame after frame, remembering which result id each true id had last.
pub(super) struct Clear {
    last: Vec<Option<u32>>,
    counts: Counts,
    matched: Vec<(usize, usize)>,
    edges: Vec<Edge>,
    row_free: Vec<bool>,
    column_free: Vec<bool>,
    matcher: Matcher,
}

impl Clear {
    pub(super) fn new(people: usize) -> Self {
        Clear {
            last: vec![None; people],
            counts: Counts::default(),
            matched: Vec::new(),
            edges: Vec::new(),
            row_free: Vec::new(),
            column_free: Vec::new(),
            matcher: Matcher::default(),
        }
    }

    /// One frame; returns which true box (first) was found by which result box (second), one to one.
    pub(super) fn update(&mut self, pair: &FramePair) -> &[(usize, usize)] {
        let (rows, columns) = (pair.truth.len(), pair.results.len());
        for (free, len) in [(&mut self.row_free, rows), (&mut self.column_free, columns)] {
            free.clear();
            free.resize(len, true);
        }
        self.matched.clear();
        // A match of an earlier frame is kept as long as the boxes still overlap enough.
        for (i, person) in pair.truth.iter().enumerate() {
            let Some(previous) = self.last[*person as usize] else {
                continue;
            };
            let kept = (0..columns).find(|&j| self.column_free[j] && pair.results[j] == previous);
            if let Some(j) = kept
                && distance(pair, i, j).is_some()
            {
                self.row_free[i] = false;
                self.column_free[j] = false;
                self.matched.push((i, j));
            }
        }
        // Then as many pairs as possible, with the least sum of distances: one pair more outweighs all distances.
        let pair_weight = 1.0 + rows.min(columns) as f64;
        self.edges.clear();
        for i in (0..rows).filter(|i| self.row_free[*i]) {
            for j in (0..columns).filter(|j| self.column_free[*j]) {
                if let Some(distance) = distance(pair, i, j) {
                    self.edges.push(Edge {
                        row: i,
                        column: j,
                        weight: pair_weight - distance,
                    });
                }
            }
        }
        let found = self.matcher.solve(rows, columns, &self.edges);
        for (i, j) in found.iter().enumerate() {
            let Some(j) = *j else { continue };
            let (person, identity) = (pair.truth[i], pair.results[j]);
            let before = self.last[person as usize].replace(identity);
            if before.is_some_and(|p| p != identity) {
                self.counts.switches += 1;
            }
            self.matched.push((i, j));
        }
        self.counts.objects += rows;
        self.counts.predictions += columns;
        self.counts.misses += rows - self.matched.len();
        self.counts.false_positives += columns - self.matched.len();
        &self.matched
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }
}

/// `1 - IoU`, unless the boxes overlap too little.
fn distance(pair: &FramePair, i: usize, j: usize) -> Option<f64> {
    let distance = 1.0 - pair.iou(i, j);
    (distance <= 1.0 - MIN_IOU).then_some(distance)
}
