//! Pairs of images that bottom-up merging treats apart.

use std::collections::BTreeMap;

use super::ClusterError;

/// Pairs of different images, in either order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    offsets: Vec<usize>,
    others: Vec<u32>,
}

impl Pairs {
    /// From pairs of images below `count`; a pair may be given more than once.
    ///
    /// # Errors
    /// [`ClusterError::Parameter`] for an image that is not there or is paired with itself.
    pub fn new(count: usize, pairs: &[(usize, usize)]) -> Result<Self, ClusterError> {
        if let Some(bad) = pairs.iter().find(|(i, j)| i == j || *i.max(j) >= count) {
            return Err(ClusterError::Parameter {
                key: "pair",
                range: "two different images of the set",
                value: format!("{bad:?} of {count} images"),
            });
        }
        let mut rows = vec![Vec::new(); count];
        for &(i, j) in pairs {
            rows[i].push(j as u32);
            rows[j].push(i as u32);
        }
        let (mut offsets, mut others) = (vec![0], Vec::new());
        for row in &mut rows {
            row.sort_unstable();
            row.dedup();
            others.append(row);
            offsets.push(others.len());
        }
        Ok(Pairs { offsets, others })
    }

    /// Every two images of one group: a frame, or a camera. `None` is in no group.
    pub fn within<T: Ord + Copy>(groups: &[Option<T>]) -> Self {
        let mut members = BTreeMap::<T, Vec<u32>>::new();
        for (i, group) in groups.iter().enumerate() {
            if let Some(group) = group {
                members.entry(*group).or_default().push(i as u32);
            }
        }
        let (mut offsets, mut others) = (vec![0], Vec::new());
        for (i, group) in groups.iter().enumerate() {
            if let Some(group) = group {
                others.extend(members[group].iter().filter(|j| **j != i as u32));
            }
            offsets.push(others.len());
        }
        Pairs { offsets, others }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.others.len() / 2
    }

    pub(super) fn of(&self, i: u32) -> &[u32] {
        match self.offsets.get(i as usize + 1) {
            Some(&end) => &self.others[self.offsets[i as usize]..end],
            None => &[],
        }
    }

    pub(super) fn contains(&self, i: u32, j: u32) -> bool {
        self.of(i).binary_search(&j).is_ok()
    }

    pub(super) fn reaches(&self, count: usize) -> bool {
        self.offsets.len() > count + 1
    }
}

/// Pairs that are treated apart; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forbidden {
    /// No cluster may ever hold such a pair (cannot-link), for instance two people of one frame. Clusters that already do,
    /// keep them.
    pub apart: Pairs,
    /// Such a pair is left out of the minimum over pairs, but other pairs may still join its clusters.
    pub skip: Pairs,
}
