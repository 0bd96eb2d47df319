//! A radius from the data: the rule of SSG, MMT and ABMT that their texts call "radius" or rho.

use super::sparse::ZERO;
use super::{ClusterError, SparseDistances};

/// eps = the mean of the `rho` fraction of smallest non-zero distances over all pairs.
///
/// Pairs that are not stored count, at distance 1; duplicates, at distance 0 or a rounding of it (below 1e-6), don't.
///
/// # Errors
/// [`ClusterError::Parameter`] unless 0 < rho < 1, if so few pairs that the fraction is empty, or if the fraction reaches
/// so far that it consists of pairs at distance 1 only.
pub fn eps_from_rho(distances: &SparseDistances, rho: f64) -> Result<f32, ClusterError> {
    let bad = |range| ClusterError::Parameter {
        key: "rho",
        range,
        value: rho.to_string(),
    };
    if !(rho > 0.0 && rho < 1.0) {
        return Err(bad("above 0 and below 1"));
    }
    let count = distances.count();
    let pairs = count * count.saturating_sub(1) / 2;
    let mut near = Vec::with_capacity(distances.entries() / 2);
    let mut zeros = 0;
    for d in distances.pair_distances() {
        if f64::from(d) < ZERO {
            zeros += 1;
        } else {
            near.push(d);
        }
    }
    let take = (rho * (pairs - zeros) as f64).round_ties_even() as usize;
    if take == 0 {
        return Err(bad("large enough to hold at least one pair of images"));
    }
    let stored = take.min(near.len());
    if stored > 0 && stored < near.len() {
        near.select_nth_unstable_by(stored - 1, f32::total_cmp);
    }
    // Sorted, so that the sum doesn't depend on how the selection left them.
    let near = &mut near[..stored];
    near.sort_unstable_by(f32::total_cmp);
    let sum: f64 = near.iter().map(|d| f64::from(*d)).sum();
    let eps = ((sum + (take - stored) as f64) / take as f64) as f32;
    if eps >= 1.0 {
        return Err(bad(
            "small enough that some of the closest pairs are nearer than 1",
        ));
    }
    Ok(eps)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn zeros_are_left_out_and_far_pairs_counted() {
        // 10 pairs of 5 points: one duplicate, three near, six at distance 1.
        let d =
            SparseDistances::from_pairs(5, [(0, 1, 0.0), (1, 2, 0.4), (2, 3, 0.2), (3, 4, 0.6)])
                .unwrap();
        let eps = |rho| eps_from_rho(&d, rho).unwrap();
        assert!((eps(1.0 / 9.0) - 0.2).abs() < 1e-7);
        assert!((eps(2.0 / 9.0) - 0.3).abs() < 1e-7);
        assert!((eps(4.0 / 9.0) - 0.55).abs() < 1e-7);
    }

    #[test]
    fn a_fraction_that_holds_nothing_is_an_error() {
        let d = SparseDistances::from_pairs(5, [(0, 1, 0.5)]).unwrap();
        for (rho, part) in [
            (1e-3, "at least one pair"),
            (0.0, "above 0"),
            (1.5, "below 1"),
        ] {
            let message = eps_from_rho(&d, rho).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        let empty = SparseDistances::from_pairs(5, []).unwrap();
        let message = eps_from_rho(&empty, 0.5).unwrap_err().to_string();
        assert!(message.contains("nearer than 1"), "{message}");
    }
}
