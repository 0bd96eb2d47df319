//! CLEAR MOT: misses, false positives, switches.

use std::collections::HashMap;

use super::FramePair;
use crate::track::hungarian;

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
#[derive(Default)]
pub(super) struct Clear {
    last: HashMap<i64, i64>,
    counts: Counts,
}

impl Clear {
    /// One frame; `distance` is true boxes x result boxes.
    pub(super) fn update(&mut self, pair: &FramePair, distance: &[Option<f64>]) {
        let (rows, columns) = (pair.truth.len(), pair.results.len());
        let mut row_free = vec![true; rows];
        let mut column_free = vec![true; columns];
        // A match of an earlier frame is kept as long as the boxes still overlap enough.
        for (i, truth) in pair.truth.iter().enumerate() {
            let Some(previous) = self.last.get(&truth.id) else {
                continue;
            };
            let kept = (0..columns).find(|&j| column_free[j] && pair.results[j].id == *previous);
            if let Some(j) = kept
                && distance[i * columns + j].is_some()
            {
                row_free[i] = false;
                column_free[j] = false;
            }
        }
        for (i, j) in closest_pairs(distance, columns, &row_free, &column_free) {
            let (truth, result) = (pair.truth[i].id, pair.results[j].id);
            if self.last.insert(truth, result).is_some_and(|p| p != result) {
                self.counts.switches += 1;
            }
            row_free[i] = false;
            column_free[j] = false;
        }
        self.counts.objects += rows;
        self.counts.predictions += columns;
        self.counts.misses += row_free.iter().filter(|f| **f).count();
        self.counts.false_positives += column_free.iter().filter(|f| **f).count();
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }
}

/// As many pairs as possible among the free rows and columns, with the least sum of distances.
fn closest_pairs(
    distance: &[Option<f64>],
    columns: usize,
    row_free: &[bool],
    column_free: &[bool],
) -> Vec<(usize, usize)> {
    let free = |flags: &[bool]| -> Vec<usize> { (0..flags.len()).filter(|i| flags[*i]).collect() };
    let (rows, cols) = (free(row_free), free(column_free));
    if rows.is_empty() || cols.is_empty() {
        return Vec::new();
    }
    let cost: Vec<f32> = rows
        .iter()
        .flat_map(|&i| cols.iter().map(move |&j| (i, j)))
        .map(|(i, j)| distance[i * columns + j].map_or(f32::INFINITY, |d| d as f32))
        .collect();
    hungarian::solve(&cost, rows.len(), cols.len())
        .into_iter()
        .enumerate()
        .filter_map(|(i, j)| j.map(|j| (rows[i], cols[j])))
        .collect()
}
