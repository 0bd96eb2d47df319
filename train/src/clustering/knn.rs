//! Exact nearest neighbours by blocked matrix multiplication.
//!
//! The similarity matrix is symmetric, so only its upper triangle of tiles is computed. A task is a stripe of tiles that share
//! their columns: these are turned into a panel once. Each tile is looked at twice, for the neighbours of its rows and for
//! those of its columns, and almost every value falls at the first comparison. A row keeps at most `2 k` candidates. The
//! order (similarity, then index) is total, so the result depends neither on the order of tiles nor on the number of threads.

use std::sync::Mutex;

use rayon::prelude::*;

use super::UnitRows;
use super::products::{panel_products, turned};
use crate::nn::device;
use crate::nn::gpu::Gpu;
use crate::simd::vectorised;

/// Rows and columns of a tile: 256 KiB of f32, at home in a second-level cache beside what the product packs. Measured at
/// 2,048 dimensions: 256 beats 320, 384, 448, 512 and 768.
const TILE: usize = 256;

/// Values compared before a look whether any was large enough.
const CHUNK: usize = 64;

/// The nearest neighbours of every row, itself first.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    columns: usize,
    indices: Vec<u32>,
    farthest: Vec<f32>,
}

impl Neighbours {
    /// Neighbours per row, the row itself included.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.farthest.len()
    }

    /// Row `i`, then the others from near to far; equally near ones by ascending index.
    pub fn row(&self, i: usize) -> &[u32] {
        &self.indices[i * self.columns..][..self.columns]
    }

    /// Cosine similarity of row `i` and the row least like it.
    pub fn farthest_similarity(&self, i: usize) -> f32 {
        self.farthest[i]
    }
}

/// Multiplications and additions below which a GPU isn't worth the way there and back.
const WORTH_A_GPU: usize = 1 << 30;

/// The `columns` nearest rows of each row by cosine, counting the row itself (always first). With fewer rows than
/// `columns`, all of them.
///
/// On the GPU that the program opened, if there is one and the work is worth it. Its products are f32, too, but summed in
/// another order: rows equally near but for the last bits may change places.
pub fn nearest(rows: &UnitRows, columns: usize) -> Neighbours {
    let work = rows.count() * rows.count() * rows.width();
    if let Some(gpu) = device::gpu().filter(|_| work >= WORTH_A_GPU) {
        match nearest_on(gpu, rows, columns) {
            Ok(found) => return found,
            Err(e) => tracing::warn!("the GPU could not find neighbours, the processor does: {e}"),
        }
    }
    nearest_here(rows, columns)
}

/// As [`nearest`], on a GPU.
///
/// # Errors
/// If it has not enough memory.
pub fn nearest_on(gpu: &Gpu, rows: &UnitRows, columns: usize) -> candle_core::Result<Neighbours> {
    let count = rows.count();
    let columns = columns.clamp(1, count);
    let found = gpu.nearest(rows.block(0..count), rows.width(), columns)?;
    let mut indices = Vec::with_capacity(count * columns);
    for (i, near) in found.indices.chunks_exact(columns).enumerate() {
        indices.push(i as u32);
        // The row itself is among the nearest, unless as many equal rows come before it.
        let others = near.iter().filter(|j| **j != i as u32);
        indices.extend(others.take(columns - 1));
    }
    Ok(Neighbours {
        columns,
        indices,
        farthest: found.least,
    })
}

/// As [`nearest`], on the processor.
pub fn nearest_here(rows: &UnitRows, columns: usize) -> Neighbours {
    let count = rows.count();
    let columns = columns.clamp(1, count);
    let blocks = count.div_ceil(TILE);
    let range = |b: usize| b * TILE..((b + 1) * TILE).min(count);
    let best: Vec<Mutex<Block>> = (0..blocks)
        .map(|b| Mutex::new(Block::new(range(b).len(), columns - 1)))
        .collect();
    // The longest stripes first, so that the last ones to be begun are short.
    (0..blocks)
        .into_par_iter()
        .rev()
        .with_max_len(1)
        .for_each_init(
            || (Vec::new(), Vec::new()),
            |(panel, tile), j| {
                turned(rows.block(range(j)), rows.width(), panel);
                for i in 0..=j {
                    panel_products(rows.block(range(i)), panel, rows.width(), tile);
                    let width = range(j).len();
                    if i == j {
                        // Both triangles from the upper one: similarity must be exactly symmetric.
                        for r in 0..width {
                            for c in 0..r {
                                tile[r * width + c] = tile[c * width + r];
                            }
                        }
                        lock(&best[j]).add_rows(tile, width, range(j).start, true);
                    } else {
                        lock(&best[i]).add_rows(tile, width, range(j).start, false);
                        lock(&best[j]).add_columns(tile, width, range(i).start);
                    }
                }
            },
        );

    let mut indices = Vec::with_capacity(count * columns);
    let mut farthest = Vec::with_capacity(count);
    for (b, block) in best.into_iter().enumerate() {
        let block = block
            .into_inner()
            .unwrap_or_else(|poison| poison.into_inner());
        for (r, mut keys) in block.keys.into_iter().enumerate() {
            keys.sort_unstable_by(|a, b| b.cmp(a));
            indices.push((b * TILE + r) as u32);
            indices.extend(keys.iter().take(columns - 1).map(|key| !(*key as u32)));
        }
        farthest.extend(block.farthest);
    }
    Neighbours {
        columns,
        indices,
        farthest,
    }
}

/// Candidates of a block of rows.
struct Block {
    keep: usize,
    /// Similarity (order-preserving bits) above the inverted index: greater is nearer, ties go to the lower index.
    keys: Vec<Vec<u64>>,
    /// What a candidate must reach once `keep` are known.
    floors: Vec<f32>,
    farthest: Vec<f32>,
    hits: Vec<u32>,
}

impl Block {
    fn new(rows: usize, keep: usize) -> Self {
        Block {
            keep,
            keys: (0..rows).map(|_| Vec::with_capacity(2 * keep)).collect(),
            // Nobody is kept: nothing can be near enough.
            floors: vec![
                if keep == 0 {
                    f32::INFINITY
                } else {
                    f32::NEG_INFINITY
                };
                rows
            ],
            farthest: vec![f32::INFINITY; rows],
            hits: Vec::new(),
        }
    }

    /// Offers a tile whose rows are this block's and whose columns are the rows `first..`; on the `diagonal` they are the same.
    fn add_rows(&mut self, tile: &[f32], width: usize, first: usize, diagonal: bool) {
        let mut hits = std::mem::take(&mut self.hits);
        for (r, similarities) in tile.chunks_exact(width).enumerate() {
            hits.clear();
            scan_row(
                similarities,
                self.floors[r],
                &mut self.farthest[r],
                &mut hits,
            );
            for &c in &hits {
                let (c, s) = (c as usize, similarities[c as usize]);
                if s >= self.floors[r] && !(diagonal && c == r) {
                    self.push(r, s, first + c);
                }
            }
        }
        self.hits = hits;
    }

    /// Offers a tile whose columns are this block's and whose rows are the rows `first..`.
    fn add_columns(&mut self, tile: &[f32], width: usize, first: usize) {
        let mut hits = std::mem::take(&mut self.hits);
        for (r, similarities) in tile.chunks_exact(width).enumerate() {
            hits.clear();
            scan_columns(similarities, &self.floors, &mut self.farthest, &mut hits);
            for &c in &hits {
                self.push(c as usize, similarities[c as usize], first + r);
            }
        }
        self.hits = hits;
    }

    fn push(&mut self, row: usize, similarity: f32, index: usize) {
        if self.keep == 0 {
            return;
        }
        let keys = &mut self.keys[row];
        keys.push(u64::from(ordered(similarity)) << 32 | u64::from(!(index as u32)));
        if keys.len() >= 2 * self.keep {
            let (_, last, _) = keys.select_nth_unstable_by(self.keep - 1, |a, b| b.cmp(a));
            self.floors[row] = similarity_of((*last >> 32) as u32);
            keys.truncate(self.keep);
        }
    }
}

vectorised! {
    /// Positions of the values that reach `floor`, and the least of all values.
    fn scan_row(values: &[f32], floor: f32, lowest: &mut f32, hits: &mut Vec<u32>) {
        for (number, chunk) in values.chunks(CHUNK).enumerate() {
            let (mut least, mut any) = (*lowest, 0u32);
            for &v in chunk {
                any |= u32::from(v >= floor);
                least = if v < least { v } else { least };
            }
            *lowest = least;
            if any != 0 {
                let near = chunk.iter().enumerate().filter(|(_, v)| **v >= floor);
                hits.extend(near.map(|(c, _)| (number * CHUNK + c) as u32));
            }
        }
    }
}

vectorised! {
    /// Positions of the values that reach their own floor; `lowest` becomes the least at each position.
    fn scan_columns(values: &[f32], floors: &[f32], lowest: &mut [f32], hits: &mut Vec<u32>) {
        let chunks = values.chunks(CHUNK).zip(floors.chunks(CHUNK)).zip(lowest.chunks_mut(CHUNK));
        for (number, ((values, floors), lowest)) in chunks.enumerate() {
            let mut any = 0u32;
            for ((v, floor), least) in values.iter().zip(floors).zip(lowest) {
                any |= u32::from(v >= floor);
                *least = if v < least { *v } else { *least };
            }
            if any != 0 {
                let near = values.iter().zip(floors).enumerate().filter(|(_, (v, floor))| v >= floor);
                hits.extend(near.map(|(c, _)| (number * CHUNK + c) as u32));
            }
        }
    }
}

/// Bits that order as the number does.
fn ordered(value: f32) -> u32 {
    // + 0.0 makes one zero of the two.
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

fn similarity_of(ordered: u32) -> f32 {
    f32::from_bits(if ordered >> 31 == 1 {
        ordered & !(1 << 31)
    } else {
        !ordered
    })
}

fn lock(block: &Mutex<Block>) -> std::sync::MutexGuard<'_, Block> {
    // A panic elsewhere ends the whole computation anyway.
    block.lock().unwrap_or_else(|poison| poison.into_inner())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(count: usize, width: usize, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..count * width)
            .map(|_| rng.random::<f32>() - 0.5)
            .collect()
    }

    fn slow(rows: &UnitRows, i: usize, columns: usize) -> Vec<u32> {
        let mut others: Vec<(f64, u32)> = (0..rows.count())
            .filter(|j| *j != i)
            .map(|j| {
                let s: f64 = rows
                    .row(i)
                    .iter()
                    .zip(rows.row(j))
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum();
                (-s, j as u32)
            })
            .collect();
        others.sort_by(|a, b| a.partial_cmp(b).unwrap());
        std::iter::once(i as u32)
            .chain(others.into_iter().map(|(_, j)| j))
            .take(columns)
            .collect()
    }

    #[test]
    fn agrees_with_sorting_across_tiles() {
        // More than two tiles, the last one narrow.
        let data = random(2 * TILE + 37, 12, 3);
        let rows = UnitRows::new(&data, 12).unwrap();
        let found = nearest(&rows, 9);
        for i in (0..rows.count()).step_by(7) {
            assert_eq!(found.row(i), slow(&rows, i, 9), "row {i}");
        }
    }

    #[test]
    fn threads_do_not_matter() {
        let data = random(TILE + 100, 8, 4);
        let rows = UnitRows::new(&data, 8).unwrap();
        let alone = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap()
            .install(|| nearest(&rows, 20));
        let together = rayon::ThreadPoolBuilder::new()
            .num_threads(4)
            .build()
            .unwrap()
            .install(|| nearest(&rows, 20));
        assert_eq!(alone, together);
    }

    #[test]
    fn equally_near_rows_come_by_index_and_self_comes_first() {
        let data = [1.0f32, 0.0].repeat(50);
        let rows = UnitRows::new(&data, 2).unwrap();
        let found = nearest(&rows, 4);
        assert_eq!(found.row(0), [0, 1, 2, 3]);
        assert_eq!(found.row(30), [30, 0, 1, 2]);
        assert_eq!(found.farthest_similarity(7), 1.0);
    }

    #[test]
    fn fewer_rows_than_columns() {
        let data = [1.0f32, 0.0, 0.0, 1.0, 0.8, 0.6];
        let rows = UnitRows::new(&data, 2).unwrap();
        let found = nearest(&rows, 30);
        assert_eq!(found.columns(), 3);
        assert_eq!(found.row(0), [0, 2, 1]);
        assert!((found.farthest_similarity(1) - 0.0).abs() < 1e-6);
        assert_eq!(nearest(&rows, 1).row(2), [2]);
    }
}
