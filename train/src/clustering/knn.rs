//! Exact nearest neighbours by blocked matrix multiplication.
//!
//! The similarity matrix is symmetric, so only its upper triangle of tiles is computed; each tile serves its rows and,
//! transposed, its columns. A row keeps at most `2 k` candidates. The order (similarity, then index) is total, so the result
//! depends neither on the order of tiles nor on the number of threads.

use std::sync::Mutex;

use rayon::prelude::*;

use super::UnitRows;
use super::products::products;

/// Rows and columns of a tile: 1 MB of f32, at home in a second-level cache.
const TILE: usize = 512;

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

/// The `columns` nearest rows of each row by cosine, counting the row itself (always first). With fewer rows than
/// `columns`, all of them.
pub fn nearest(rows: &UnitRows, columns: usize) -> Neighbours {
    let count = rows.count();
    let columns = columns.clamp(1, count);
    let blocks = count.div_ceil(TILE);
    let best: Vec<Mutex<Block>> = (0..blocks)
        .map(|b| Mutex::new(Block::new(TILE.min(count - b * TILE), columns - 1)))
        .collect();
    let tiles: Vec<(usize, usize)> = (0..blocks)
        .flat_map(|i| (i..blocks).map(move |j| (i, j)))
        .collect();
    tiles.par_iter().for_each_init(
        || (Vec::new(), Vec::new()),
        |(tile, turned), &(i, j)| {
            let (top, left) = (i * TILE, j * TILE);
            let (height, width) = (TILE.min(count - top), TILE.min(count - left));
            multiply(rows, top, height, left, width, tile);
            if i == j {
                // Both triangles from the upper one: similarity must be exactly symmetric.
                for r in 0..height {
                    for c in 0..r {
                        tile[r * width + c] = tile[c * width + r];
                    }
                }
                lock(&best[i]).add(tile, width, left, Some(top));
            } else {
                lock(&best[i]).add(tile, width, left, None);
                transpose(tile, height, width, turned);
                lock(&best[j]).add(turned, height, top, None);
            }
        },
    );

    let mut indices = Vec::with_capacity(count * columns);
    let mut farthest = Vec::with_capacity(count);
    for (b, block) in best.into_iter().enumerate() {
        let block = block
            .into_inner()
            .unwrap_or_else(|poison| poison.into_inner());
        for (r, mut row) in block.rows.into_iter().enumerate() {
            row.keys.sort_unstable_by(|a, b| b.cmp(a));
            indices.push((b * TILE + r) as u32);
            indices.extend(row.keys.iter().take(columns - 1).map(|key| !(*key as u32)));
            farthest.push(row.farthest);
        }
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
    rows: Vec<Candidates>,
}

struct Candidates {
    /// Similarity (order-preserving bits) above the inverted index: greater is nearer, ties go to the lower index.
    keys: Vec<u64>,
    /// What a candidate must reach once `keep` are known.
    floor: f32,
    farthest: f32,
}

impl Block {
    fn new(rows: usize, keep: usize) -> Self {
        let rows = (0..rows)
            .map(|_| Candidates {
                keys: Vec::with_capacity(2 * keep),
                floor: f32::NEG_INFINITY,
                farthest: f32::INFINITY,
            })
            .collect();
        Block { keep, rows }
    }

    /// Offers a tile whose columns are the rows `first..`; `diagonal` is the number of this block's first row if the tile
    /// holds them against themselves.
    fn add(&mut self, tile: &[f32], width: usize, first: usize, diagonal: Option<usize>) {
        for (r, (row, similarities)) in self
            .rows
            .iter_mut()
            .zip(tile.chunks_exact(width))
            .enumerate()
        {
            let own = diagonal.map(|_| r);
            for (chunk, values) in similarities.chunks(32).enumerate() {
                let mut lowest = f32::INFINITY;
                let mut any = false;
                for &s in values {
                    any |= s >= row.floor;
                    lowest = if s < lowest { s } else { lowest };
                }
                row.farthest = row.farthest.min(lowest);
                if !any || self.keep == 0 {
                    continue;
                }
                for (offset, &s) in values.iter().enumerate() {
                    let column = chunk * 32 + offset;
                    if s >= row.floor && Some(column) != own {
                        row.push(s, first + column, self.keep);
                    }
                }
            }
        }
    }
}

impl Candidates {
    fn push(&mut self, similarity: f32, index: usize, keep: usize) {
        self.keys
            .push(u64::from(ordered(similarity)) << 32 | u64::from(!(index as u32)));
        if self.keys.len() >= 2 * keep {
            let (_, last, _) = self.keys.select_nth_unstable_by(keep - 1, |a, b| b.cmp(a));
            self.floor = similarity_of((*last >> 32) as u32);
            self.keys.truncate(keep);
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

/// `tile[r][c] = row(top + r) . row(left + c)`.
fn multiply(
    rows: &UnitRows,
    top: usize,
    height: usize,
    left: usize,
    width: usize,
    tile: &mut Vec<f32>,
) {
    products(
        rows.block(top..top + height),
        rows.block(left..left + width),
        rows.width(),
        tile,
    );
}

fn transpose(tile: &[f32], height: usize, width: usize, turned: &mut Vec<f32>) {
    turned.resize(height * width, 0.0);
    const SIDE: usize = 16;
    for r0 in (0..height).step_by(SIDE) {
        for c0 in (0..width).step_by(SIDE) {
            for r in r0..(r0 + SIDE).min(height) {
                for c in c0..(c0 + SIDE).min(width) {
                    turned[c * height + r] = tile[r * width + c];
                }
            }
        }
    }
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
