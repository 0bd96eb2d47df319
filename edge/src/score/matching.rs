//! Matching of greatest weight between few or very many rows and columns, given by the pairs that are possible.
//!
//! Boxes of a frame touch few others and identities of an hour meet few others, so pairs are listed, not tabulated:
//! memory grows with the pairs. Rows and columns may stay alone.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A possible pair; weights are above 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) weight: f64,
}

/// A distance in a heap.
#[derive(Clone, Copy, PartialEq)]
struct Distance(f64);

impl Eq for Distance {}

impl PartialOrd for Distance {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Distance {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Where a search for a better matching ends.
enum End {
    /// At a column without a row.
    Column(usize),
    /// At a row that goes without a column.
    Row(usize),
}

/// Solves one problem after another in the same memory.
///
/// Shortest augmenting paths with potentials (Jonker & Volgenant 1987): with prices `u` of rows and `v` of columns, all
/// at least 0, `u + v >= weight` holds for every pair, with equality for those matched, and what is alone has price 0.
/// A matching for which such prices exist has the greatest weight.
#[derive(Default)]
pub(super) struct Matcher {
    row_price: Vec<f64>,
    column_price: Vec<f64>,
    column_of: Vec<Option<usize>>,
    row_of: Vec<Option<usize>>,
    /// Edges of row `i` are `first[i]..first[i + 1]`.
    first: Vec<usize>,
    distance: Vec<f64>,
    settled: Vec<bool>,
    from: Vec<usize>,
    /// Columns whose `distance` is known.
    reached: Vec<usize>,
    heap: BinaryHeap<(Reverse<Distance>, Reverse<usize>)>,
}

impl Matcher {
    /// The column of every row; `edges` are sorted by row, and no pair is listed twice.
    pub(super) fn solve(
        &mut self,
        rows: usize,
        columns: usize,
        edges: &[Edge],
    ) -> &[Option<usize>] {
        fn fill<T: Clone>(all: &mut Vec<T>, len: usize, value: T) {
            all.clear();
            all.resize(len, value);
        }
        fill(&mut self.row_price, rows, 0.0);
        fill(&mut self.column_price, columns, 0.0);
        fill(&mut self.column_of, rows, None);
        fill(&mut self.row_of, columns, None);
        fill(&mut self.distance, columns, f64::INFINITY);
        fill(&mut self.settled, columns, false);
        fill(&mut self.from, columns, 0);
        fill(&mut self.first, rows + 1, 0);
        for edge in edges {
            self.first[edge.row + 1] += 1;
        }
        for row in 0..rows {
            self.first[row + 1] += self.first[row];
        }
        for row in 0..rows {
            self.add(row, edges);
        }
        &self.column_of
    }

    /// Makes the matching of rows before `start` one that counts `start` in.
    fn add(&mut self, start: usize, edges: &[Edge]) {
        let price = self
            .edges_of(start, edges)
            .iter()
            .map(|e| e.weight - self.column_price[e.column])
            .fold(0.0, f64::max);
        if price <= 0.0 {
            return;
        }
        self.row_price[start] = price;
        // It may stay alone, which costs its price.
        let (mut best, mut end) = (price, End::Row(start));
        self.scan(start, 0.0, best, edges);
        while let Some((Reverse(Distance(distance)), Reverse(column))) = self.heap.pop() {
            if distance >= best {
                break;
            }
            if self.settled[column] {
                continue;
            }
            let Some(row) = self.row_of[column] else {
                (best, end) = (distance, End::Column(column));
                break;
            };
            self.settled[column] = true;
            if distance + self.row_price[row] < best {
                (best, end) = (distance + self.row_price[row], End::Row(row));
            }
            self.scan(row, distance, best, edges);
        }
        self.heap.clear();
        self.row_price[start] -= best;
        for &column in &self.reached {
            if self.settled[column] {
                let change = best - self.distance[column];
                self.column_price[column] += change;
                if let Some(row) = self.row_of[column] {
                    self.row_price[row] = (self.row_price[row] - change).max(0.0);
                }
            }
        }
        self.pass_on(start, end);
        for column in self.reached.drain(..) {
            self.distance[column] = f64::INFINITY;
            self.settled[column] = false;
        }
    }

    fn edges_of<'e>(&self, row: usize, edges: &'e [Edge]) -> &'e [Edge] {
        &edges[self.first[row]..self.first[row + 1]]
    }

    /// Reaches the columns of a row that is `distance` from the start, unless that leads nowhere better than `best`.
    fn scan(&mut self, row: usize, distance: f64, best: f64, edges: &[Edge]) {
        for edge in self.edges_of(row, edges) {
            let column = edge.column;
            if self.settled[column] {
                continue;
            }
            let slack = self.row_price[row] + self.column_price[column] - edge.weight;
            let further = distance + slack.max(0.0);
            if further < best && further < self.distance[column] {
                if self.distance[column] == f64::INFINITY {
                    self.reached.push(column);
                }
                self.distance[column] = further;
                self.from[column] = row;
                self.heap
                    .push((Reverse(Distance(further)), Reverse(column)));
            }
        }
    }

    /// Every row on the way back from `end` takes the column it reached.
    fn pass_on(&mut self, start: usize, end: End) {
        let mut free = match end {
            End::Column(column) => Some(column),
            End::Row(row) => self.column_of[row].take(),
        };
        while let Some(column) = free {
            let row = self.from[column];
            self.row_of[column] = Some(row);
            free = self.column_of[row].replace(column);
            if row == start {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Weight of the best matching, by trying all.
    fn brute(table: &[Vec<f64>], row: usize, used: u32) -> f64 {
        if row == table.len() {
            return 0.0;
        }
        let mut best = brute(table, row + 1, used);
        for (column, weight) in table[row].iter().enumerate() {
            if *weight > 0.0 && used & (1 << column) == 0 {
                best = best.max(weight + brute(table, row + 1, used | (1 << column)));
            }
        }
        best
    }

    proptest! {
        #[test]
        fn weighs_as_much_as_the_best_of_all(
            rows in 0usize..7,
            columns in 0usize..7,
            cells in prop::collection::vec(
                prop_oneof![2 => Just(0.0), 2 => 0.01f64..5.0, 1 => Just(1.0), 1 => (1u8..4).prop_map(f64::from)], 49),
        ) {
            let table: Vec<Vec<f64>> = (0..rows).map(|i| cells[i * 7..i * 7 + columns].to_vec()).collect();
            let edges: Vec<Edge> = (0..rows)
                .flat_map(|row| (0..columns).map(move |column| (row, column)))
                .map(|(row, column)| Edge { row, column, weight: table[row][column] })
                .filter(|e| e.weight > 0.0)
                .collect();
            let mut matcher = Matcher::default();
            // A second problem in the same memory is not disturbed by the first.
            for _ in 0..2 {
                let got = matcher.solve(rows, columns, &edges).to_vec();
                prop_assert_eq!(got.len(), rows);
                let mut used = vec![false; columns];
                let mut weight = 0.0;
                for (row, column) in got.iter().enumerate() {
                    if let Some(column) = *column {
                        prop_assert!(!used[column], "column {} given twice", column);
                        prop_assert!(table[row][column] > 0.0, "a pair that was not listed");
                        used[column] = true;
                        weight += table[row][column];
                    }
                }
                prop_assert!((weight - brute(&table, 0, 0)).abs() < 1e-9);
            }
        }
    }
}
