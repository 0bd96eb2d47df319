//! Nearest prototypes: an exact scan for a small gallery, an HNSW graph for a large one.
//!
//! Both are caches of the database. Vectors are unit `f32`, checked before they get here; scores are cosines.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hnsw_rs::prelude::{Distance, Hnsw};
use reid_models::distance::dot;

/// Name of a vector in an index.
pub type Key = i64;

/// Nearest neighbours by cosine.
pub trait Index: Send {
    /// Adds a unit vector under a new key.
    fn insert(&mut self, key: Key, vector: Arc<[f32]>);
    /// Takes a vector out; an unknown key is ignored.
    fn remove(&mut self, key: Key);
    /// Up to `k` keys for which `keep` holds with their cosine, best first, ties by key.
    fn search(&self, query: &[f32], k: usize, keep: &dyn Fn(Key) -> bool) -> Vec<(Key, f32)>;
    /// Vectors inside.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Looks at every vector.
#[derive(Default)]
pub struct ExactScan {
    rows: Vec<(Key, Arc<[f32]>)>,
    place: HashMap<Key, usize>,
}

fn best_first(a: &(Key, f32), b: &(Key, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

impl Index for ExactScan {
    fn insert(&mut self, key: Key, vector: Arc<[f32]>) {
        self.place.insert(key, self.rows.len());
        self.rows.push((key, vector));
    }

    fn remove(&mut self, key: Key) {
        let Some(at) = self.place.remove(&key) else {
            return;
        };
        self.rows.swap_remove(at);
        if let Some((moved, _)) = self.rows.get(at) {
            self.place.insert(*moved, at);
        }
    }

    fn search(&self, query: &[f32], k: usize, keep: &dyn Fn(Key) -> bool) -> Vec<(Key, f32)> {
        let mut all: Vec<(Key, f32)> = self
            .rows
            .iter()
            .filter(|(key, _)| keep(*key))
            .map(|(key, vector)| (*key, dot(query, vector)))
            .collect();
        if all.len() > k && k > 0 {
            all.select_nth_unstable_by(k - 1, best_first);
        }
        all.truncate(k);
        all.sort_unstable_by(best_first);
        all
    }

    fn len(&self) -> usize {
        self.rows.len()
    }
}

/// Cosine distance of unit vectors: one multiply-add per dimension, where `hnsw_rs`'s own cosine normalises both sides
/// each time and its dot product panics on a norm of 1.00001.
#[derive(Clone, Copy, Default)]
struct UnitCosine;

impl Distance<f32> for UnitCosine {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        (1.0 - dot(a, b)).max(0.0)
    }
}

/// Links kept per node. `hnsw_rs` needs 32 for a recall that other implementations reach with 16.
const LINKS: usize = 32;
/// Candidates while building.
const EF_CONSTRUCTION: usize = 200;
/// Candidates while searching, at least.
const EF_SEARCH: usize = 128;
const LAYERS: usize = 16;

/// HNSW graph (Malkov & Yashunin 2016) with tombstones; rebuilt when a quarter of it is dead.
pub struct Graph {
    hnsw: Hnsw<'static, f32, UnitCosine>,
    /// Key behind each node, by node id.
    keys: Vec<Key>,
    node: HashMap<Key, usize>,
    dead: HashSet<usize>,
    exact: ExactScan,
}

impl Graph {
    /// A graph of these vectors.
    pub fn build(vectors: impl IntoIterator<Item = (Key, Arc<[f32]>)>) -> Self {
        let rows: Vec<(Key, Arc<[f32]>)> = vectors.into_iter().collect();
        let mut graph = Graph {
            hnsw: new_hnsw(rows.len()),
            keys: Vec::with_capacity(rows.len()),
            node: HashMap::new(),
            dead: HashSet::new(),
            exact: ExactScan::default(),
        };
        // One after the other: the library draws levels from a fixed seed, so the same rows give the same graph.
        for (key, vector) in rows {
            graph.insert(key, vector);
        }
        graph
    }
}

fn new_hnsw(expected: usize) -> Hnsw<'static, f32, UnitCosine> {
    Hnsw::new(
        LINKS,
        expected.max(1_024),
        LAYERS,
        EF_CONSTRUCTION,
        UnitCosine,
    )
}

impl Index for Graph {
    fn insert(&mut self, key: Key, vector: Arc<[f32]>) {
        let node = self.keys.len();
        self.hnsw.insert_slice((&vector, node));
        self.keys.push(key);
        self.node.insert(key, node);
        self.exact.insert(key, vector);
    }

    fn remove(&mut self, key: Key) {
        if let Some(node) = self.node.remove(&key) {
            self.dead.insert(node);
            self.exact.remove(key);
        }
        if self.dead.len() * 4 > self.keys.len() {
            *self = Graph::build(std::mem::take(&mut self.exact.rows));
        }
    }

    fn search(&self, query: &[f32], k: usize, keep: &dyn Fn(Key) -> bool) -> Vec<(Key, f32)> {
        let alive = |node: &usize| !self.dead.contains(node) && keep(self.keys[*node]);
        let mut found: Vec<(Key, f32)> = self
            .hnsw
            .search_filter(query, k, EF_SEARCH.max(2 * k), Some(&alive))
            .into_iter()
            .map(|n| (self.keys[n.d_id], 1.0 - n.distance))
            .collect();
        // A filter that keeps few starves the graph walk (at 0.05 % it finds one of ten); then every vector is looked at.
        if found.len() < k.min(self.exact.len()) {
            return self.exact.search(query, k, keep);
        }
        found.sort_unstable_by(best_first);
        found
    }

    fn len(&self) -> usize {
        self.exact.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use reid_models::distance::normalize;

    fn unit(values: Vec<f32>) -> Option<Arc<[f32]>> {
        let mut v = values;
        normalize(&mut v).ok()?;
        v.iter().any(|x| *x != 0.0).then(|| v.into())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_graph_finds_what_the_scan_finds(
            rows in prop::collection::vec(prop::collection::vec(-1.0f32..1.0, 8), 2..60),
            query in prop::collection::vec(-1.0f32..1.0, 8),
            gone in prop::collection::vec(0usize..60, 0..20),
        ) {
            let Some(query) = unit(query) else { return Ok(()) };
            let rows: Vec<_> = rows.into_iter().filter_map(unit).enumerate().map(|(i, v)| (i as Key, v)).collect();
            let mut graph = Graph::build(rows.clone());
            let mut exact = ExactScan::default();
            for (key, v) in rows { exact.insert(key, v); }
            for key in gone { graph.remove(key as Key); exact.remove(key as Key); }
            prop_assert_eq!(graph.len(), exact.len());
            let keep = |key: Key| key % 3 != 0;
            for filter in [&(|_| true) as &dyn Fn(Key) -> bool, &keep] {
                let got = graph.search(&query, 5, filter);
                let want = exact.search(&query, 5, filter);
                prop_assert_eq!(got.len(), want.len());
                for (g, w) in got.iter().zip(&want) {
                    prop_assert!((g.1 - w.1).abs() < 1e-5, "{:?} {:?}", got, want);
                }
            }
        }
    }

    #[test]
    fn a_large_graph_recalls_the_nearest() {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let rows: Vec<(Key, Arc<[f32]>)> = (0..3_000)
            .filter_map(|i| unit((0..32).map(|_| next()).collect()).map(|v| (i, v)))
            .collect();
        let graph = Graph::build(rows.clone());
        let hits = rows
            .iter()
            .step_by(30)
            .filter(|(key, v)| graph.search(v, 1, &|_| true).first().map(|f| f.0) == Some(*key))
            .count();
        assert!(hits >= 98, "{hits} of 100");
    }
}
