//! Bottom-up merging with a size penalty (Lin et al. 2019, "A bottom-up clustering approach to unsupervised person
//! re-identification", section 3.2; "Unsupervised person re-identification via cross-camera similarity exploration", III-C 2
//! and III-D, eq. 5 to 8).
//!
//! Every image starts as its own cluster; a step merges the same number of pairs, then the network trains again. Two
//! clusters are as far apart as their nearest images (single linkage), plus a penalty that grows with their sizes. A step
//! needs the smallest edges only: they are searched tile by tile and merged in order with a union-find, O(N^2 D) time as the
//! distances themselves and O(N + edges) memory.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::candidates::{Edge, smallest};
use super::forbidden::{Forbidden, Pairs};
use super::{ClusterError, PairDistances, PseudoLabels};

/// Edges kept at a time, at 24 bytes, unless fewer are enough for certain.
const EDGES: usize = 1 << 21;

/// When images are counted for the penalty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sizes {
    /// At the start of the step (BUC's code): merges of one step do not see each other.
    #[default]
    Fixed,
    /// Anew after every merge.
    Grown,
}

/// Checked parameters of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BottomUp {
    merges: usize,
    size_penalty: f64,
    sizes: Sizes,
    edges: usize,
}

impl BottomUp {
    /// `merges`: pairs of clusters that a step merges, m = floor(mp N) in the papers, mp = 0.05. `size_penalty`: lambda, added
    /// to the distance for each image of either cluster; 0.003 for squared distances of unit vectors (BUC's script; its
    /// text's 0.03 is contradicted by its own figure 6), 0 for none.
    ///
    /// # Errors
    /// [`ClusterError::Parameter`] unless merges >= 1 and size_penalty is finite and at least 0.
    pub fn new(merges: usize, size_penalty: f64, sizes: Sizes) -> Result<Self, ClusterError> {
        if merges == 0 {
            return Err(ClusterError::Parameter {
                key: "merges",
                range: "at least 1 a step (a larger merge share, or more images)",
                value: "0".into(),
            });
        }
        if !(size_penalty.is_finite() && size_penalty >= 0.0) {
            return Err(ClusterError::Parameter {
                key: "size_penalty",
                range: "finite and at least 0",
                value: size_penalty.to_string(),
            });
        }
        // Enough for certain where nothing is forbidden and sizes are fixed: e merges use up at most e (e + 1) / 2 pairs.
        let enough = merges.saturating_mul(merges + 1) / 2 + 1;
        Ok(BottomUp {
            merges,
            size_penalty,
            sizes,
            edges: enough.min(EDGES),
        })
    }

    /// From the share of images that a step merges: m = floor(mp N).
    ///
    /// # Errors
    /// As [`BottomUp::new`], and unless 0 < mp < 1.
    pub fn of_share(
        count: usize,
        merge_share: f64,
        size_penalty: f64,
        sizes: Sizes,
    ) -> Result<Self, ClusterError> {
        if !(merge_share > 0.0 && merge_share < 1.0) {
            return Err(ClusterError::Parameter {
                key: "merge_share",
                range: "above 0 and below 1",
                value: merge_share.to_string(),
            });
        }
        Self::new((count as f64 * merge_share) as usize, size_penalty, sizes)
    }

    /// Keeps so many edges at a time, at least 1: less memory, more passes over the distances, the same result.
    pub fn with_edges(mut self, edges: usize) -> Self {
        self.edges = edges.max(1);
        self
    }

    /// Every image its own cluster.
    pub fn start(count: usize) -> PseudoLabels {
        PseudoLabels::by_first_appearance(&(0..count).collect::<Vec<_>>())
    }

    /// One step: so many times, the two clusters of smallest value become one; of equal values the pair of images of smaller
    /// i, then smaller j. Ends early when no pair may be merged any more. Labels are numbered in order of first appearance.
    ///
    /// # Errors
    /// [`ClusterError::Parameter`] if labels, distances and forbidden pairs are not about the same number of images, or an
    /// image has no label.
    pub fn step(
        &self,
        distances: &impl PairDistances,
        labels: &PseudoLabels,
        forbidden: &Forbidden,
    ) -> Result<PseudoLabels, ClusterError> {
        let count = distances.count();
        if labels.labels.len() != count
            || forbidden.apart.reaches(count)
            || forbidden.skip.reaches(count)
        {
            return Err(ClusterError::Parameter {
                key: "labels",
                range: "one for each image that has distances, and forbidden pairs of these images",
                value: format!("{} labels, {count} images", labels.labels.len()),
            });
        }
        let mut components = Components::new(labels, &forbidden.apart)?;
        let sizes = components.sizes();
        let mut left = self.merges;
        while left > 0 {
            let roots = components.roots();
            let now;
            let weight = match self.sizes {
                Sizes::Fixed => &sizes,
                Sizes::Grown => {
                    now = components.sizes();
                    &now
                }
            };
            let conflicts = &components.conflicts;
            let allowed = |i: u32, j: u32| {
                !forbidden.skip.contains(i, j)
                    && !conflicts[roots[i as usize] as usize].contains(&roots[j as usize])
            };
            let found = smallest(
                distances,
                &roots,
                weight,
                self.size_penalty,
                allowed,
                self.edges,
            );
            let merged = self.merge(&mut components, &found.edges, found.complete, left);
            left -= merged;
            if found.complete {
                break;
            }
        }
        let owners: Vec<usize> = components.roots().iter().map(|r| *r as usize).collect();
        Ok(PseudoLabels::by_first_appearance(&owners))
    }

    /// Merges along the edges, at most `most` times; the first edge always merges.
    fn merge(
        &self,
        components: &mut Components,
        edges: &[Edge],
        complete: bool,
        most: usize,
    ) -> usize {
        // Edges that were not kept are larger than the last one that was.
        let bound = (!complete).then(|| edges.last().copied()).flatten();
        let mut queue: BinaryHeap<Reverse<Edge>> = edges.iter().copied().map(Reverse).collect();
        let mut merged = 0;
        while merged < most {
            let Some(Reverse(edge)) = queue.pop() else {
                break;
            };
            let (a, b) = (components.find(edge.i), components.find(edge.j));
            if a == b || components.conflicts[a as usize].contains(&b) {
                continue;
            }
            if self.sizes == Sizes::Grown {
                let together = components.size(a) + components.size(b);
                let value = f64::from(edge.distance()) + self.size_penalty * together;
                // Values only rise: an edge is looked at again when it is the smallest by its new value.
                if let Some(raised) = edge.raised(value) {
                    queue.push(Reverse(raised));
                    continue;
                }
            }
            if bound.is_some_and(|bound| edge > bound) {
                break;
            }
            components.merge(a, b);
            merged += 1;
        }
        merged
    }
}

/// A union-find whose components know with whom they must not merge.
struct Components {
    parent: Vec<u32>,
    size: Vec<u32>,
    conflicts: Vec<BTreeSet<u32>>,
}

impl Components {
    fn new(labels: &PseudoLabels, apart: &Pairs) -> Result<Self, ClusterError> {
        let count = labels.labels.len();
        let mut first = std::collections::HashMap::new();
        let mut parent = Vec::with_capacity(count);
        let mut size = vec![0; count];
        for (i, label) in labels.labels.iter().enumerate() {
            let Some(label) = label else {
                return Err(ClusterError::Parameter {
                    key: "labels",
                    range: "a cluster for every image: bottom-up merging has no outliers",
                    value: format!("none for image {i}"),
                });
            };
            let root = *first.entry(*label).or_insert(i as u32);
            parent.push(root);
            size[root as usize] += 1;
        }
        let mut conflicts = vec![BTreeSet::new(); count];
        for i in 0..count as u32 {
            for &j in apart.of(i) {
                let (a, b) = (parent[i as usize], parent[j as usize]);
                if a != b {
                    conflicts[a as usize].insert(b);
                }
            }
        }
        Ok(Components {
            parent,
            size,
            conflicts,
        })
    }

    fn find(&mut self, i: u32) -> u32 {
        let mut root = i;
        while self.parent[root as usize] != root {
            root = self.parent[root as usize];
        }
        let mut at = i;
        while self.parent[at as usize] != root {
            at = std::mem::replace(&mut self.parent[at as usize], root);
        }
        root
    }

    fn size(&self, root: u32) -> f64 {
        f64::from(self.size[root as usize])
    }

    /// Of every image.
    fn roots(&mut self) -> Vec<u32> {
        (0..self.parent.len() as u32)
            .map(|i| self.find(i))
            .collect()
    }

    /// Of every image's component.
    fn sizes(&mut self) -> Vec<f64> {
        self.roots().iter().map(|root| self.size(*root)).collect()
    }

    fn merge(&mut self, a: u32, b: u32) {
        // The one with fewer conflicts moves: each entry moves O(log N) times.
        let (stays, goes) = if self.conflicts[a as usize].len() < self.conflicts[b as usize].len() {
            (b, a)
        } else {
            (a, b)
        };
        self.parent[goes as usize] = stays;
        self.size[stays as usize] += self.size[goes as usize];
        for other in std::mem::take(&mut self.conflicts[goes as usize]) {
            self.conflicts[other as usize].remove(&goes);
            self.conflicts[other as usize].insert(stays);
            self.conflicts[stays as usize].insert(other);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clustering::Condensed;

    #[test]
    fn the_closest_pair_merges_unless_the_penalty_flips_it() {
        // 0, 1 and 2 lie close, 3 and 4 a little farther apart.
        let d = Condensed::new(vec![0.1, 0.2, 3., 3., 0.2, 3., 3., 3., 3., 0.3]).unwrap();
        let two = |penalty, sizes| {
            let step = BottomUp::new(1, penalty, sizes).unwrap();
            let first = step
                .step(&d, &BottomUp::start(5), &Forbidden::default())
                .unwrap();
            assert_eq!(first.to_i64(), [0, 0, 1, 2, 3]);
            step.step(&d, &first, &Forbidden::default())
                .unwrap()
                .to_i64()
        };
        assert_eq!(two(0.0, Sizes::Fixed), [0, 0, 0, 1, 2]);
        assert_eq!(two(0.2, Sizes::Fixed), [0, 0, 1, 2, 2]);
        // Both merges in one step: only the recount sees that the first one made a cluster larger.
        let both = |sizes| {
            let step = BottomUp::new(2, 0.2, sizes).unwrap();
            step.step(&d, &BottomUp::start(5), &Forbidden::default())
                .unwrap()
                .to_i64()
        };
        assert_eq!(both(Sizes::Fixed), [0, 0, 0, 1, 2]);
        assert_eq!(both(Sizes::Grown), [0, 0, 1, 2, 2]);
    }

    #[test]
    fn forbidden_pairs_in_both_meanings() {
        let d = Condensed::new(vec![0.1, 0.3, 0.2]).unwrap();
        let pair = || Pairs::new(3, &[(1, 0)]).unwrap();
        let labels = |forbidden: &Forbidden| {
            let step = BottomUp::new(9, 0.0, Sizes::Fixed).unwrap();
            step.step(&d, &BottomUp::start(3), forbidden)
                .unwrap()
                .to_i64()
        };
        let apart = Forbidden {
            apart: pair(),
            ..Forbidden::default()
        };
        assert_eq!(labels(&apart), [0, 1, 1], "0 and 1 never meet");
        let skip = Forbidden {
            skip: pair(),
            ..Forbidden::default()
        };
        assert_eq!(labels(&skip), [0, 0, 0], "they meet through 2");
        assert_eq!(
            Pairs::within(&[Some(4), Some(4), None]),
            Pairs::new(3, &[(0, 1)]).unwrap()
        );
    }

    #[test]
    fn bad_input_is_named() {
        let d = Condensed::new(vec![0.1, 0.3, 0.2]).unwrap();
        let step = BottomUp::new(1, 0.0, Sizes::Fixed).unwrap();
        let none = Forbidden::default();
        let message = |e: Result<PseudoLabels, ClusterError>| e.unwrap_err().to_string();
        assert!(message(step.step(&d, &BottomUp::start(4), &none)).contains("4 labels, 3 images"));
        let outlier = PseudoLabels {
            labels: vec![Some(0), None, Some(1)],
            clusters: 2,
        };
        assert!(message(step.step(&d, &outlier, &none)).contains("none for image 1"));
        assert!(Pairs::new(3, &[(0, 3)]).is_err() && Pairs::new(3, &[(1, 1)]).is_err());
        for (merges, penalty) in [(0, 0.0), (1, -1.0), (1, f64::NAN)] {
            assert!(BottomUp::new(merges, penalty, Sizes::Fixed).is_err());
        }
        assert!(BottomUp::of_share(10, 0.05, 0.0, Sizes::Fixed).is_err());
        assert!(BottomUp::of_share(100, 1.0, 0.0, Sizes::Fixed).is_err());
    }
}
