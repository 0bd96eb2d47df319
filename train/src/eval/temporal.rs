//! A tracklet's pictures in time: which are taken, and temporal partition pooling (Chen et al., WACV 2020; thesis, chapter 3,
//! "Temporal Partition Pooling").
//!
//! A person turns and walks on while a camera sees them; the mean over all of it blurs what the beginning and the end show. So
//! the pictures are split into consecutive parts, each part is averaged, and the parts stay side by side.

use rand::seq::index;
use rand_chacha::ChaCha8Rng;
pub use reid_models::temporal::even;
use reid_models::temporal::parts as parts_of;

/// Pictures taken of a tracklet (thesis 3.4.2: MARS).
pub const FRAMES: usize = 15;
/// Parts.
pub const PARTS: usize = 3;

/// `count` positions of `length` at random, ascending: different ones if there are so many.
pub fn random(length: usize, count: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut chosen = if length >= count {
        index::sample(rng, length, count).into_vec()
    } else {
        // Each at least once, the rest again.
        let extra = (0..count - length).map(|_| rand::RngExt::random_range(rng, 0..length));
        (0..length).chain(extra).collect()
    };
    chosen.sort_unstable();
    chosen
}

/// Means of `parts` consecutive parts of `rows`, one after the other (`parts` x width). Parts are as equal as can be, the larger
/// ones first; of fewer rows than parts, rows are taken evenly, so that no part is empty.
///
/// # Panics
/// If there are no rows, or no parts.
pub fn part_means(rows: &[&[f32]], parts: usize) -> Vec<f64> {
    let all = parts_of(rows.len(), parts).into_iter();
    all.flat_map(|part| mean(&rows[part])).collect()
}

/// The mean of rows.
pub fn mean(rows: &[&[f32]]) -> Vec<f64> {
    let width = rows.first().map_or(0, |row| row.len());
    let mut sum = vec![0.0; width];
    for row in rows {
        for (s, x) in sum.iter_mut().zip(*row) {
            *s += f64::from(*x);
        }
    }
    let count = rows.len().max(1) as f64;
    sum.into_iter().map(|s| s / count).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn positions_are_ascending_and_cover_the_tracklet() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for length in 1..60 {
            let got = random(length, 15, &mut rng);
            assert!(got.is_sorted() && got.len() == 15 && got[14] < length);
            let mut different = got.clone();
            different.dedup();
            assert_eq!(different.len(), length.min(15));
        }
    }

    #[test]
    fn parts_stay_side_by_side_and_none_is_empty() {
        let rows: [&[f32]; 4] = [&[1.0], &[3.0], &[5.0], &[9.0]];
        assert_eq!(part_means(&rows, 3), [2.0, 5.0, 9.0]);
        assert_eq!(part_means(&rows[..2], 3), [1.0, 3.0, 3.0]);
        assert_eq!(part_means(&rows[..1], 3), [1.0, 1.0, 1.0]);
    }
}
