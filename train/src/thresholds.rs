//! Similarity thresholds for the model card, measured on the training pictures.
//!
//! A threshold belongs to one model: the same number means something else for another. Pairs of different pseudo
//! identities are impostors, pairs of one pseudo identity in different cameras are genuine. Pseudo labels are not the
//! truth and training pictures are easier than new ones, so these are starting values; a site calibrates its own.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reid_models::distance::dot;

use crate::methods::Features;

/// Impostor pairs that may reach `match`.
const MATCH_FALSE_ACCEPT: f64 = 0.002;
/// Impostor pairs that may reach `mint`: below it somebody is clearly unlike everyone.
const MINT_FALSE_ACCEPT: f64 = 0.02;
/// Pairs drawn of each kind.
const PAIRS: usize = 200_000;

/// `match`, `mint` and `margin`, or nothing if the labels give no pairs to measure.
///
/// `labels` and `cameras` belong to the rows of `features` (unit vectors).
pub fn measure(
    features: &Features,
    labels: &[Option<u32>],
    cameras: &[u32],
    seed: u64,
) -> BTreeMap<String, f32> {
    let labelled: Vec<usize> = (0..labels.len()).filter(|i| labels[*i].is_some()).collect();
    let row = |i: usize| &features.rows[i * features.width..][..features.width];
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut impostor, mut genuine) = (Vec::new(), Vec::new());
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for &i in &labelled {
        members
            .entry(labels[i].unwrap_or_default())
            .or_default()
            .push(i);
    }
    if members.len() < 2 {
        return BTreeMap::new();
    }
    for _ in 0..PAIRS {
        let (a, b) = (
            labelled[rng.random_range(0..labelled.len())],
            labelled[rng.random_range(0..labelled.len())],
        );
        if labels[a] != labels[b] {
            impostor.push(dot(row(a), row(b)));
        }
        let group = &members[&labels[a].unwrap_or_default()];
        let c = group[rng.random_range(0..group.len())];
        if cameras[a] != cameras[c] {
            genuine.push(dot(row(a), row(c)));
        }
    }
    if impostor.is_empty() {
        return BTreeMap::new();
    }
    impostor.sort_by(f32::total_cmp);
    let reached_by = |share: f64| impostor[((1.0 - share) * (impostor.len() - 1) as f64) as usize];
    let (accept, mint) = (
        reached_by(MATCH_FALSE_ACCEPT),
        reached_by(MINT_FALSE_ACCEPT),
    );
    // A lead worth calling a lead: a tenth of the way from a typical impostor to a typical genuine pair.
    let median = |sorted: &[f32]| sorted[sorted.len() / 2];
    genuine.sort_by(f32::total_cmp);
    let span = if genuine.is_empty() {
        accept - median(&impostor)
    } else {
        median(&genuine) - median(&impostor)
    };
    BTreeMap::from([
        ("match".to_string(), accept),
        ("mint".to_string(), mint),
        ("margin".to_string(), (0.1 * span).max(0.01)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_lie_between_strangers_and_friends() {
        // 20 people in 4 cameras: unit vectors around 20 axes.
        let width = 20;
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (mut rows, mut labels, mut cameras) = (Vec::new(), Vec::new(), Vec::new());
        for person in 0..20u32 {
            for camera in 0..4 {
                let mut v: Vec<f32> = (0..width).map(|_| rng.random_range(-0.15..0.15)).collect();
                v[person as usize] = 1.0;
                reid_models::distance::normalize(&mut v).unwrap();
                rows.extend(v);
                labels.push(Some(person));
                cameras.push(camera);
            }
        }
        let found = measure(
            &Features {
                rows,
                width,
                missing: vec![],
            },
            &labels,
            &cameras,
            1,
        );
        assert!(
            found["mint"] <= found["match"] && found["match"] < 0.8,
            "{found:?}"
        );
        assert!(found["margin"] > 0.05, "{found:?}");
    }

    #[test]
    fn without_two_identities_there_is_nothing_to_measure() {
        let features = Features {
            rows: vec![1.0, 0.0, 0.0, 1.0],
            width: 2,
            missing: vec![],
        };
        assert!(measure(&features, &[Some(0), Some(0)], &[0, 1], 1).is_empty());
        assert!(measure(&features, &[None, None], &[0, 1], 1).is_empty());
    }
}
