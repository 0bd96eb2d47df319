//! The smallest values between components, without a matrix of all of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::pairs::{PairDistances, TILE};

/// A pair of images; smaller value first, then smaller `i`, then smaller `j`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    /// Bits of the value: for numbers of at least 0 they order as the numbers do.
    value: u64,
    /// Lower image.
    pub(super) i: u32,
    /// Higher image.
    pub(super) j: u32,
    distance: u32,
}

impl Edge {
    fn new(i: usize, j: usize, distance: f32, value: f64) -> Self {
        Edge {
            value: bits(value),
            i: i as u32,
            j: j as u32,
            distance: distance.to_bits(),
        }
    }

    /// Distance of the two images, without a penalty.
    pub(super) fn distance(&self) -> f32 {
        f32::from_bits(self.distance)
    }

    /// The same pair at a higher value, if `value` is one.
    pub(super) fn raised(&self, value: f64) -> Option<Self> {
        (bits(value) > self.value).then_some(Edge {
            value: bits(value),
            ..*self
        })
    }
}

fn bits(value: f64) -> u64 {
    // + 0.0 makes one zero of the two.
    (value + 0.0).to_bits()
}

/// What [`smallest`] found.
pub(super) struct Candidates {
    /// Ascending, at most one for each pair of components.
    pub(super) edges: Vec<Edge>,
    /// Every allowed pair of components is among them.
    pub(super) complete: bool,
}

/// Of every pair of components the smallest allowed edge, and of these the `keep` smallest. An edge of images i and j has
/// the value `distance + penalty * (weight[i] + weight[j])`.
///
/// Tiles are computed in parallel and each edge is compared with the largest that still counts; as the order of edges is
/// total, the result does not depend on the order of tiles. Memory: 2 `keep` edges and a tile for each thread.
pub(super) fn smallest(
    distances: &impl PairDistances,
    component: &[u32],
    weight: &[f64],
    penalty: f64,
    allowed: impl Fn(u32, u32) -> bool + Sync,
    keep: usize,
) -> Candidates {
    let count = distances.count();
    let blocks: Vec<_> = (0..count)
        .step_by(TILE)
        .map(|top| top..(top + TILE).min(count))
        .collect();
    let tiles: Vec<(usize, usize)> = (0..blocks.len())
        .flat_map(|a| (a..blocks.len()).map(move |b| (a, b)))
        .collect();
    let shared = Mutex::new(Collector {
        edges: Vec::new(),
        keep,
        complete: true,
    });
    let floor = AtomicU64::new(u64::MAX);
    tiles.par_iter().for_each_init(
        || (Vec::new(), Vec::new()),
        |(tile, found), &(a, b)| {
            let (rows, columns) = (blocks[a].clone(), blocks[b].clone());
            distances.tile(rows.clone(), columns.clone(), tile);
            let limit = floor.load(Ordering::Relaxed);
            for (i, values) in rows.zip(tile.chunks_exact(columns.len())) {
                let first = columns.start.max(i + 1);
                for j in first..columns.end {
                    let distance = values[j - columns.start];
                    let value = f64::from(distance) + penalty * (weight[i] + weight[j]);
                    if bits(value) <= limit
                        && component[i] != component[j]
                        && allowed(i as u32, j as u32)
                    {
                        found.push(Edge::new(i, j, distance, value));
                    }
                }
            }
            let mut collector = shared.lock().unwrap_or_else(|poison| poison.into_inner());
            collector.edges.append(found);
            if collector.edges.len() >= 2 * keep {
                collector.compress(component);
                if let Some(last) = collector.edges.get(keep - 1) {
                    floor.fetch_min(last.value, Ordering::Relaxed);
                }
            }
        },
    );
    let mut collector = shared
        .into_inner()
        .unwrap_or_else(|poison| poison.into_inner());
    collector.compress(component);
    Candidates {
        edges: collector.edges,
        complete: collector.complete,
    }
}

struct Collector {
    edges: Vec<Edge>,
    keep: usize,
    complete: bool,
}

impl Collector {
    /// One edge for each pair of components, the `keep` smallest, ascending.
    fn compress(&mut self, component: &[u32]) {
        let pair = |edge: &Edge| {
            let (a, b) = (component[edge.i as usize], component[edge.j as usize]);
            (a.min(b), a.max(b))
        };
        self.edges
            .sort_unstable_by(|x, y| pair(x).cmp(&pair(y)).then(x.cmp(y)));
        self.edges.dedup_by_key(|edge| pair(edge));
        self.edges.sort_unstable();
        if self.edges.len() > self.keep {
            self.edges.truncate(self.keep);
            self.complete = false;
        }
    }
}
