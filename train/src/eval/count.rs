//! Ranks by counting who is nearer, instead of sorting.
//!
//! The rank of an answer is one more than the number of images ahead of it, and counting those is a comparison and an addition
//! per image, eight images at a time where the processor has AVX2. A piece of the row stays in the first-level cache while all
//! right answers are compared with it.

use std::cmp::Ordering;

/// Right answers above which searching is cheaper than comparing each image with each of them.
const COUNTING_LIMIT: usize = 256;

/// Scores compared together: 8 KiB.
const PIECE: usize = 2048;

/// Room for counting, used again for every query.
#[derive(Default)]
pub(super) struct Counter {
    sorted: Vec<(f32, usize)>,
    ahead: Vec<usize>,
}

impl Counter {
    /// Ranks (from 1) of the images `right` (ascending indices) in the order of descending score, then ascending index; into
    /// `ranks`, ascending. Scores of right answers must be finite.
    pub(super) fn ranks(&mut self, scores: &[f32], right: &[usize], ranks: &mut Vec<usize>) {
        ranks.clear();
        if right.len() <= COUNTING_LIMIT {
            by_counting(scores, right, ranks);
        } else {
            self.by_searching(scores, right, ranks);
        }
        ranks.sort_unstable();
    }

    /// Each image looks up how many answers it is behind; sums then say how many images are ahead of each answer.
    fn by_searching(&mut self, scores: &[f32], right: &[usize], ranks: &mut Vec<usize>) {
        self.sorted.clear();
        self.sorted.extend(right.iter().map(|g| (scores[*g], *g)));
        // Not the total order of floats: both zeros are equal here, as they are in counting.
        self.sorted.sort_unstable_by(|a, b| {
            let order = b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal);
            order.then(a.1.cmp(&b.1))
        });
        self.ahead.clear();
        self.ahead.resize(right.len() + 1, 0);
        for (j, score) in scores.iter().enumerate() {
            let behind = self
                .sorted
                .partition_point(|(s, g)| s > score || (s == score && *g <= j));
            self.ahead[behind] += 1;
        }
        let mut ahead = 0;
        ranks.extend(self.ahead[..right.len()].iter().map(|count| {
            ahead += count;
            1 + ahead
        }));
    }
}

fn by_counting(scores: &[f32], right: &[usize], ranks: &mut Vec<usize>) {
    ranks.extend(right.iter().map(|_| 1));
    for (number, piece) in scores.chunks(PIECE).enumerate() {
        let start = number * PIECE;
        for (rank, &g) in ranks.iter_mut().zip(right) {
            // Images before an answer are ahead of it if they score at least as much, which is more than the next lower number.
            let (own, at_least) = (scores[g], scores[g].next_down());
            *rank += if g >= start + piece.len() {
                count_above(piece, at_least)
            } else if g < start {
                count_above(piece, own)
            } else {
                let (before, after) = piece.split_at(g - start);
                count_above(before, at_least) + count_above(&after[1..], own)
            };
        }
    }
}

/// How many scores are above a threshold.
fn count_above(scores: &[f32], threshold: f32) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        // No version for AVX-512: its masks make the sum slower than this.
        #[target_feature(enable = "avx2")]
        fn v3(scores: &[f32], threshold: f32) -> u32 {
            body(scores, threshold)
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has these instructions.
            return unsafe { v3(scores, threshold) } as usize;
        }
    }
    body(scores, threshold) as usize
}

/// Sums in u32 lanes, which the compiler makes vectors of.
#[inline(always)]
fn body(scores: &[f32], threshold: f32) -> u32 {
    scores.iter().map(|s| u32::from(*s > threshold)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_rank_by_index_in_both_ways_of_counting() {
        // More than one piece, and not a whole number of lanes.
        let scores = vec![0.5; 2 * PIECE + 77];
        let right = [3, 150, PIECE - 1, PIECE, 2 * PIECE + 70];
        let want = right.map(|g| g + 1);
        let mut counter = Counter::default();
        let mut ranks = Vec::new();
        by_counting(&scores, &right, &mut ranks);
        assert_eq!(ranks, want);
        ranks.clear();
        counter.by_searching(&scores, &right, &mut ranks);
        assert_eq!(ranks, want);
    }

    #[test]
    fn both_ways_agree_with_sorting() {
        // A cheap scramble with many ties, both signs and both zeros.
        let scores: Vec<f32> = (0..10_007u64)
            .map(|i| (i, ((i * 2_654_435_761) % 401) as f32 - 200.0))
            .map(|(i, s)| {
                if s == 0.0 && i % 2 == 0 {
                    -0.0
                } else {
                    s / 200.0
                }
            })
            .collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].partial_cmp(&scores[*a]).expect("finite"));
        let mut place = vec![0; scores.len()];
        for (n, g) in order.iter().enumerate() {
            place[*g] = n + 1;
        }
        let mut counter = Counter::default();
        for step in [1_999, 301, 17] {
            let right: Vec<usize> = (5..scores.len()).step_by(step).collect();
            let mut want: Vec<usize> = right.iter().map(|g| place[*g]).collect();
            want.sort_unstable();
            let (mut counted, mut searched) = (Vec::new(), Vec::new());
            by_counting(&scores, &right, &mut counted);
            counter.by_searching(&scores, &right, &mut searched);
            counted.sort_unstable();
            searched.sort_unstable();
            assert_eq!((&counted, &searched), (&want, &want));
        }
    }
}
