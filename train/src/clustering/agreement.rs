//! How well pseudo labels agree with identities, and how much they tell about cameras.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::PseudoLabels;

/// Agreement of two labellings over the points that both of them label.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Normalised mutual information, 0..=1, with the arithmetic mean of both entropies.
    pub nmi: f64,
    /// Adjusted Rand index, at most 1, 0 for chance.
    pub ari: f64,
    /// Fraction of points that have the commonest truth of their cluster.
    pub purity: f64,
    /// Mutual information in nats.
    pub mutual_information: f64,
    /// Points that counted.
    pub points: usize,
}

/// Compares `labels` (clusters) with `truth` (identities, or cameras: a clustering that tells nothing about the camera has
/// mutual information 0). Points without a label (outliers) or with a negative truth (unknown) are left out; `None` if nothing
/// is left.
///
/// # Panics
/// If both have not the same length.
pub fn agreement(labels: &[Option<u32>], truth: &[i64]) -> Option<Agreement> {
    assert_eq!(labels.len(), truth.len(), "one truth per label");
    let mut cells: BTreeMap<(u32, i64), u64> = BTreeMap::new();
    let (mut by_label, mut by_truth) = (BTreeMap::<u32, u64>::new(), BTreeMap::<i64, u64>::new());
    let mut points = 0u64;
    for (label, &truth) in labels.iter().zip(truth) {
        if let (Some(label), 0..) = (*label, truth) {
            *cells.entry((label, truth)).or_default() += 1;
            *by_label.entry(label).or_default() += 1;
            *by_truth.entry(truth).or_default() += 1;
            points += 1;
        }
    }
    if points == 0 {
        return None;
    }
    let n = points as f64;
    let entropy = |counts: &mut dyn Iterator<Item = &u64>| -> f64 {
        counts.map(|&c| c as f64 / n).map(|p| -p * p.ln()).sum()
    };
    let mutual: f64 = cells
        .iter()
        .map(|((l, t), &c)| {
            let c = c as f64;
            c / n * (c * n / (by_label[l] as f64 * by_truth[t] as f64)).ln()
        })
        .sum();
    // Rounding must not make information negative.
    let mutual = mutual.max(0.0);
    let mean_entropy = (entropy(&mut by_label.values()) + entropy(&mut by_truth.values())) / 2.0;
    let nmi = if mean_entropy == 0.0 {
        // One group on either side: they agree.
        1.0
    } else {
        (mutual / mean_entropy).min(1.0)
    };

    let pairs = |c: u64| (c as f64) * (c as f64 - 1.0) / 2.0;
    let together: f64 = cells.values().map(|c| pairs(*c)).sum();
    let (in_labels, in_truth): (f64, f64) = (
        by_label.values().map(|c| pairs(*c)).sum(),
        by_truth.values().map(|c| pairs(*c)).sum(),
    );
    let all = pairs(points);
    let expected = if all == 0.0 {
        0.0
    } else {
        in_labels * in_truth / all
    };
    let most = (in_labels + in_truth) / 2.0;
    let ari = if most == expected {
        1.0
    } else {
        (together - expected) / (most - expected)
    };

    let mut commonest: BTreeMap<u32, u64> = BTreeMap::new();
    for ((label, _), &count) in &cells {
        let best = commonest.entry(*label).or_default();
        *best = count.max(*best);
    }
    Some(Agreement {
        nmi,
        ari,
        purity: commonest.values().sum::<u64>() as f64 / n,
        mutual_information: mutual,
        points: points as usize,
    })
}

/// How good a clustering is where the truth is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Clusters and identities, over the clustered images.
    pub clustered: Agreement,
    /// The same over all images, every outlier a cluster of its own.
    pub with_outliers: Agreement,
    /// Mutual information of clusters and cameras in nats, over the clustered images; 0: the clusters tell nothing about who
    /// took the picture.
    pub cameras: f64,
    /// What the true identities tell about the cameras, over all images: a clustering cannot be blamed for that much.
    pub true_cameras: f64,
    /// Identities without a clustered image: training never sees them.
    pub lost_identities: usize,
}

/// Compares clusters with true identities and cameras; images whose identity is negative (unknown) are left out. `None` if no
/// image of known identity is clustered.
///
/// # Panics
/// If the three have not the same length.
pub fn quality(labels: &PseudoLabels, identities: &[i64], cameras: &[i64]) -> Option<Quality> {
    assert_eq!(identities.len(), cameras.len(), "one camera per identity");
    let clustered = agreement(&labels.labels, identities)?;
    let with_outliers = agreement(&labels.outliers_as_clusters().labels, identities)?;
    // Identities are numbered afresh: a label is 32 bits wide, an identity 64.
    let numbers: BTreeMap<i64, u32> = identities
        .iter()
        .filter(|id| **id >= 0)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .zip(0..)
        .map(|(id, number)| (*id, number))
        .collect();
    let truth: Vec<Option<u32>> = identities
        .iter()
        .map(|id| numbers.get(id).copied())
        .collect();
    let known: Vec<Option<u32>> = labels
        .labels
        .iter()
        .zip(&truth)
        .map(|(label, id)| id.and(*label))
        .collect();
    Some(Quality {
        clustered,
        with_outliers,
        cameras: camera_information(&known, cameras),
        true_cameras: camera_information(&truth, cameras),
        lost_identities: lost_identities(&labels.labels, identities).0,
    })
}

/// What labels tell about cameras: mutual information in nats over the labelled images, 0 if there is none.
///
/// # Panics
/// If both have not the same length.
pub fn camera_information(labels: &[Option<u32>], cameras: &[i64]) -> f64 {
    agreement(labels, cameras).map_or(0.0, |a| a.mutual_information)
}

/// Identities (0 and above) none of whose pictures is in a cluster: training has lost sight of them. Returns how many, and how many
/// identities there are.
///
/// # Panics
/// If both have not the same length.
pub fn lost_identities(labels: &[Option<u32>], truth: &[i64]) -> (usize, usize) {
    assert_eq!(labels.len(), truth.len(), "one truth per label");
    let mut clustered: BTreeMap<i64, bool> = BTreeMap::new();
    for (label, &truth) in labels.iter().zip(truth) {
        if truth >= 0 {
            *clustered.entry(truth).or_default() |= label.is_some();
        }
    }
    let lost = clustered.values().filter(|seen| !**seen).count();
    (lost, clustered.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn some<const N: usize>(labels: [i64; N]) -> [Option<u32>; N] {
        labels.map(|label| u32::try_from(label).ok())
    }

    #[test]
    fn the_same_groups_under_other_names_agree() {
        let a = agreement(&some([0, 0, 1, 1, 2, -1]), &[7, 7, 3, 3, 5, 5]).unwrap();
        assert!((a.nmi - 1.0).abs() < 1e-12 && (a.ari - 1.0).abs() < 1e-12);
        assert_eq!((a.purity, a.points), (1.0, 5));
    }

    #[test]
    fn independent_groups_share_no_information() {
        let a = agreement(&some([0, 0, 1, 1]), &[0, 1, 0, 1]).unwrap();
        assert!(a.mutual_information.abs() < 1e-12 && a.nmi.abs() < 1e-12);
        assert!((a.ari - -0.5).abs() < 1e-12);
        assert_eq!(a.purity, 0.5);
    }

    #[test]
    fn identities_are_lost_with_their_last_clustered_picture() {
        let labels = some([0, -1, -1, -1, 1, -1]);
        assert_eq!(lost_identities(&labels, &[5, 5, 7, 7, 8, -1]), (1, 3));
        assert_eq!(lost_identities(&[], &[]), (0, 0));
    }

    #[test]
    fn edges() {
        assert_eq!(agreement(&some([-1, -1]), &[0, 1]), None);
        assert_eq!(agreement(&some([]), &[]), None);
        let one = agreement(&some([0]), &[4]).unwrap();
        assert_eq!((one.nmi, one.ari, one.purity), (1.0, 1.0, 1.0));
    }
}
