//! Sparse containers: the distances of pairs nearer than 1, rows over the points, sums that are cheap to empty.

use super::ClusterError;

/// A Jaccard distance below this is rounding of a mathematical zero (duplicates): nothing real lies there.
pub(super) const ZERO: f64 = 1e-6;

/// Distances of all pairs nearer than 1, symmetric; a row holds neither itself (distance 0) nor anyone at distance 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SparseDistances {
    offsets: Vec<usize>,
    neighbours: Vec<u32>,
    distances: Vec<f32>,
}

impl SparseDistances {
    /// From every row's neighbours of *higher* index, ascending.
    pub(super) fn from_upper(upper: &[Vec<(u32, f32)>]) -> Self {
        let mut offsets = vec![0; upper.len() + 1];
        for (i, row) in upper.iter().enumerate() {
            offsets[i + 1] += row.len();
            for (j, _) in row {
                offsets[*j as usize + 1] += 1;
            }
        }
        for i in 0..upper.len() {
            offsets[i + 1] += offsets[i];
        }
        let mut next = offsets.clone();
        let total = offsets[upper.len()];
        let (mut neighbours, mut distances) = (vec![0; total], vec![0.0; total]);
        let mut put = |row: usize, neighbour: u32, distance: f32| {
            neighbours[next[row]] = neighbour;
            distances[next[row]] = distance;
            next[row] += 1;
        };
        // A row gets its lower neighbours from the rows before it, then its own: ascending.
        for (i, row) in upper.iter().enumerate() {
            for &(j, distance) in row {
                put(i, j, distance);
                put(j as usize, i as u32, distance);
            }
        }
        SparseDistances {
            offsets,
            neighbours,
            distances,
        }
    }

    /// From the pairs `(i, j, distance)` of `count` points, each pair once in either order.
    ///
    /// # Errors
    /// [`ClusterError::Parameter`] for a point that isn't there, a point paired with itself, a pair given twice or a
    /// distance outside 0 <= d < 1.
    pub fn from_pairs(
        count: usize,
        pairs: impl IntoIterator<Item = (usize, usize, f32)>,
    ) -> Result<Self, ClusterError> {
        let mut upper = vec![Vec::new(); count];
        for (i, j, distance) in pairs {
            if i == j || i >= count || j >= count || !(0.0..1.0).contains(&distance) {
                return Err(ClusterError::Parameter {
                    key: "pair",
                    range: "two different points of the set at a distance of at least 0 and below 1",
                    value: format!("({i}, {j}, {distance})"),
                });
            }
            upper[i.min(j)].push((i.max(j) as u32, distance));
        }
        for (i, row) in upper.iter_mut().enumerate() {
            row.sort_unstable_by_key(|(j, _)| *j);
            if let Some(twice) = row.windows(2).find(|w| w[0].0 == w[1].0) {
                return Err(ClusterError::Parameter {
                    key: "pair",
                    range: "given once",
                    value: format!("({i}, {}) twice", twice[0].0),
                });
            }
        }
        Ok(Self::from_upper(&upper))
    }

    /// Blends every distance with what its two points have of their own: `(1 - share) d_ij + share (own_i + own_j)`. Pairs
    /// that are not stored stay so: at `1 - share` and more they are beyond any radius in use.
    ///
    /// # Errors
    /// [`ClusterError::Parameter`] unless `own` has a finite value of at least 0 for every point and 0 <= share < 1.
    pub fn blended(mut self, own: &[f32], share: f32) -> Result<Self, ClusterError> {
        let fits = own.len() == self.count()
            && own.iter().all(|v| *v >= 0.0 && v.is_finite())
            && (0.0..1.0).contains(&share);
        if !fits {
            return Err(ClusterError::Parameter {
                key: "source_weight",
                range: "at least 0 and below 1, with one value for every image",
                value: format!("{share}, {} values for {} images", own.len(), self.count()),
            });
        }
        for i in 0..self.count() {
            for at in self.offsets[i]..self.offsets[i + 1] {
                let both = own[i] + own[self.neighbours[at] as usize];
                self.distances[at] = (1.0 - share) * self.distances[at] + share * both;
            }
        }
        Ok(self)
    }

    /// Number of points.
    pub fn count(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Stored entries; each pair counts twice.
    pub fn entries(&self) -> usize {
        self.neighbours.len()
    }

    /// Neighbours of point `i` by ascending index, with their distances.
    pub fn row(&self, i: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let range = self.offsets[i]..self.offsets[i + 1];
        self.neighbours[range.clone()]
            .iter()
            .map(|j| *j as usize)
            .zip(self.distances[range].iter().copied())
    }

    /// Distance of any two points: 0 to itself, 1 if not stored.
    pub fn distance(&self, i: usize, j: usize) -> f32 {
        if i == j {
            return 0.0;
        }
        let range = self.offsets[i]..self.offsets[i + 1];
        match self.neighbours[range.clone()].binary_search(&(j as u32)) {
            Ok(at) => self.distances[range.start + at],
            Err(_) => 1.0,
        }
    }

    /// Distances of the pairs with i < j, in that order.
    pub fn pair_distances(&self) -> impl Iterator<Item = f32> + '_ {
        (0..self.count()).flat_map(|i| self.row(i).filter(move |(j, _)| *j > i).map(|(_, d)| d))
    }
}

/// Sparse rows over the points: `members` ascending, one `values` entry each.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    offsets: Vec<usize>,
    members: Vec<u32>,
    values: Vec<f32>,
}

impl Rows {
    pub(super) fn collect(rows: Vec<Vec<(u32, f32)>>) -> Self {
        let mut out = Rows {
            offsets: Vec::with_capacity(rows.len() + 1),
            ..Rows::default()
        };
        out.offsets.push(0);
        for row in rows {
            for (member, value) in row {
                out.members.push(member);
                out.values.push(value);
            }
            out.offsets.push(out.members.len());
        }
        out
    }

    pub(super) fn count(&self) -> usize {
        self.offsets.len() - 1
    }

    pub(super) fn row(&self, i: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[i]..self.offsets[i + 1];
        (&self.members[range.clone()], &self.values[range])
    }

    pub(super) fn transposed(&self) -> Rows {
        let n = self.count();
        let mut offsets = vec![0; n + 1];
        for &m in &self.members {
            offsets[m as usize + 1] += 1;
        }
        for i in 0..n {
            offsets[i + 1] += offsets[i];
        }
        let mut next = offsets.clone();
        let mut members = vec![0; self.members.len()];
        let mut values = vec![0.0; self.values.len()];
        for i in 0..n {
            let (row, weights) = self.row(i);
            for (&m, &value) in row.iter().zip(weights) {
                let at = &mut next[m as usize];
                members[*at] = i as u32;
                values[*at] = value;
                *at += 1;
            }
        }
        Rows {
            offsets,
            members,
            values,
        }
    }
}

/// Sums per point that can be emptied without touching all of them.
pub(super) struct Sums {
    values: Vec<f64>,
    pub(super) touched: Vec<u32>,
}

impl Sums {
    pub(super) fn new(count: usize) -> Self {
        Sums {
            values: vec![0.0; count],
            touched: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, index: u32, value: f64) {
        // Every value added is positive, so zero means untouched.
        let sum = &mut self.values[index as usize];
        if *sum == 0.0 {
            self.touched.push(index);
        }
        *sum += value;
    }

    /// Hands every sum over by ascending index and starts afresh.
    pub(super) fn drain(&mut self, mut each: impl FnMut(u32, f64)) {
        self.touched.sort_unstable();
        for index in self.touched.drain(..) {
            each(index, std::mem::take(&mut self.values[index as usize]));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pairs_make_a_symmetric_matrix_or_an_error() {
        let d = SparseDistances::from_pairs(4, [(2, 0, 0.5), (1, 2, 0.25)]).unwrap();
        assert_eq!(d.row(2).collect::<Vec<_>>(), [(0, 0.5), (1, 0.25)]);
        assert_eq!((d.distance(0, 2), d.distance(3, 0)), (0.5, 1.0));
        for bad in [
            vec![(0, 0, 0.5)],
            vec![(0, 4, 0.5)],
            vec![(0, 1, 1.0)],
            vec![(0, 1, f32::NAN)],
            vec![(0, 1, 0.1), (1, 0, 0.2)],
        ] {
            assert!(
                SparseDistances::from_pairs(4, bad.clone()).is_err(),
                "{bad:?}"
            );
        }
    }
}
