//! Minimum-cost assignment.

/// Pairs rows with columns so that first as many as possible are paired and then the sum of costs is smallest.
///
/// `cost` is row-major, `rows` x `cols`; `f32::INFINITY` (or NaN) forbids a pair. Returns the column of every row.
/// Shortest augmenting paths with potentials (Jonker & Volgenant 1987; Crouse 2016), O(rows^2 * cols) in `f64`.
///
/// # Panics
/// If `cost.len() != rows * cols`.
pub fn solve(cost: &[f32], rows: usize, cols: usize) -> Vec<Option<usize>> {
    assert_eq!(
        cost.len(),
        rows * cols,
        "a cost matrix has rows * cols elements"
    );
    if rows == 0 || cols == 0 {
        return vec![None; rows];
    }
    if rows > cols {
        // The algorithm below wants no more rows than columns.
        let transposed: Vec<f32> = (0..cols * rows)
            .map(|i| cost[(i % rows) * cols + i / rows])
            .collect();
        let mut result = vec![None; rows];
        for (col, row) in solve(&transposed, cols, rows).into_iter().enumerate() {
            if let Some(row) = row {
                result[row] = Some(col);
            }
        }
        return result;
    }
    // A forbidden pair costs more than any complete assignment of allowed ones: it is taken only where nothing else is
    // left, and then reported as no pair.
    let finite = || cost.iter().filter(|c| c.is_finite()).map(|&c| f64::from(c));
    let low = finite().fold(f64::INFINITY, f64::min);
    if low == f64::INFINITY {
        return vec![None; rows];
    }
    let high = finite().fold(f64::NEG_INFINITY, f64::max);
    let forbidden = (high - low + 1.0) * (rows as f64 + 1.0);
    let at = |row: usize, col: usize| match cost[row * cols + col] {
        c if c.is_finite() => f64::from(c) - low,
        _ => forbidden,
    };

    // Index 0 is a virtual column (and row); real ones are 1-based.
    let mut row_potential = vec![0.0f64; rows + 1];
    let mut col_potential = vec![0.0f64; cols + 1];
    let mut row_of = vec![0usize; cols + 1];
    let mut previous = vec![0usize; cols + 1];
    for row in 1..=rows {
        row_of[0] = row;
        let mut current = 0usize;
        let mut slack = vec![f64::INFINITY; cols + 1];
        let mut visited = vec![false; cols + 1];
        while row_of[current] != 0 {
            visited[current] = true;
            let r = row_of[current];
            let (mut delta, mut next) = (f64::INFINITY, 0);
            for c in 1..=cols {
                if visited[c] {
                    continue;
                }
                let reduced = at(r - 1, c - 1) - row_potential[r] - col_potential[c];
                if reduced < slack[c] {
                    slack[c] = reduced;
                    previous[c] = current;
                }
                if slack[c] < delta {
                    delta = slack[c];
                    next = c;
                }
            }
            for c in 0..=cols {
                if visited[c] {
                    row_potential[row_of[c]] += delta;
                    col_potential[c] -= delta;
                } else {
                    slack[c] -= delta;
                }
            }
            current = next;
        }
        while current != 0 {
            row_of[current] = row_of[previous[current]];
            current = previous[current];
        }
    }
    let mut result = vec![None; rows];
    for col in 1..=cols {
        let row = row_of[col];
        if row != 0 && cost[(row - 1) * cols + col - 1].is_finite() {
            result[row - 1] = Some(col - 1);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// (pairs, cost) of the best assignment, by trying all.
    fn brute(
        cost: &[f32],
        rows: usize,
        cols: usize,
        row: usize,
        used: &mut Vec<bool>,
    ) -> (usize, f64) {
        if row == rows {
            return (0, 0.0);
        }
        let mut best = brute(cost, rows, cols, row + 1, used);
        for col in 0..cols {
            let c = cost[row * cols + col];
            if used[col] || !c.is_finite() {
                continue;
            }
            used[col] = true;
            let (pairs, sum) = brute(cost, rows, cols, row + 1, used);
            used[col] = false;
            let candidate = (pairs + 1, sum + f64::from(c));
            if candidate.0 > best.0 || (candidate.0 == best.0 && candidate.1 < best.1) {
                best = candidate;
            }
        }
        best
    }

    proptest! {
        #[test]
        fn agrees_with_trying_everything(
            rows in 0usize..6,
            cols in 0usize..6,
            cells in prop::collection::vec(prop_oneof![3 => -5.0f32..5.0, 1 => Just(f32::INFINITY), 1 => Just(1.0f32)], 36),
        ) {
            let cost = &cells[..rows * cols];
            let got = solve(cost, rows, cols);
            prop_assert_eq!(got.len(), rows);
            let mut seen = vec![false; cols];
            let (mut pairs, mut sum) = (0, 0.0);
            for (row, col) in got.iter().enumerate() {
                if let Some(col) = *col {
                    prop_assert!(!seen[col], "column {} given twice", col);
                    seen[col] = true;
                    let c = cost[row * cols + col];
                    prop_assert!(c.is_finite(), "a forbidden pair was made");
                    pairs += 1;
                    sum += f64::from(c);
                }
            }
            let (want_pairs, want_sum) = brute(cost, rows, cols, 0, &mut vec![false; cols]);
            prop_assert_eq!(pairs, want_pairs);
            prop_assert!((sum - want_sum).abs() < 1e-4, "{} against {}", sum, want_sum);
        }
    }

    #[test]
    fn forbidden_rows_and_nan_stay_alone() {
        let inf = f32::INFINITY;
        assert_eq!(solve(&[inf, inf, 0.1, f32::NAN], 2, 2), vec![None, Some(0)]);
        assert_eq!(solve(&[], 3, 0), vec![None; 3]);
        assert_eq!(
            solve(&[2.0, 1.0, 0.5], 3, 1),
            vec![None, None, Some(0)],
            "more rows than columns"
        );
    }
}
