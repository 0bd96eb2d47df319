//! Which clusters SpCL believes (Ge et al. 2020, section 3.2; methods.md 7.2).

use crate::clustering::PseudoLabels;

/// Share of the clusters that are independent enough in the first epoch.
const SHARE: f64 = 0.9;

/// The largest dependence a believed cluster may have: found in the first epoch, then kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threshold(Option<f64>);

impl Threshold {
    /// One that was found before.
    pub fn known(value: Option<f64>) -> Self {
        Threshold(value)
    }

    /// Its value, once found.
    pub fn get(&self) -> Option<f64> {
        self.0
    }
}

/// What a picture's cluster has lost of itself in another labelling: `1 - |A and B| / |A or B|`, where A and B are the pictures
/// of its cluster in the two, and only itself where it is outside of any.
fn changes(standard: &PseudoLabels, other: &PseudoLabels) -> Vec<f64> {
    let (own, others) = (standard.members(), other.members());
    let pairs = standard.labels.iter().zip(&other.labels).enumerate();
    pairs
        .map(|(i, (a, b))| {
            let single = [i];
            let set = |label: &Option<u32>, members: &[Vec<usize>]| match label {
                Some(label) => members[*label as usize].clone(),
                None => single.to_vec(),
            };
            let (a, b) = (set(a, &own), set(b, &others));
            // Members are in ascending order.
            let both = a.iter().filter(|x| b.binary_search(x).is_ok()).count();
            let either = a.len() + b.len() - both;
            1.0 - both as f64 / either as f64
        })
        .collect()
}

/// The smallest value among each cluster's pictures.
fn least(labels: &PseudoLabels, values: &[f64]) -> Vec<f64> {
    let mut least = vec![f64::INFINITY; labels.clusters];
    for (label, value) in labels.labels.iter().zip(values) {
        if let Some(label) = label {
            let slot = &mut least[*label as usize];
            *slot = slot.min(*value);
        }
    }
    least
}

/// Takes pictures out of the clusters of `standard` that are not to be believed: a cluster stays if it is independent, that is,
/// hardly grows with the larger radius of `loose`; a picture stays in it if it is as compact as the most compact of the
/// cluster, that is, stays together with the smaller radius of `tight`. Numbers of clusters stay, some may be empty.
pub fn believed(
    standard: &PseudoLabels,
    tight: &PseudoLabels,
    loose: &PseudoLabels,
    threshold: &mut Threshold,
) -> PseudoLabels {
    let grown = least(standard, &changes(standard, loose));
    let shrunk = changes(standard, tight);
    let most_compact = least(standard, &shrunk);
    let limit = match threshold.0 {
        Some(known) => known,
        None => {
            let mut sorted = grown.clone();
            sorted.sort_by(f64::total_cmp);
            let place = (SHARE * sorted.len() as f64).round_ties_even() as usize;
            let found = sorted.get(place.min(sorted.len().saturating_sub(1)));
            let found = found.copied().unwrap_or(1.0);
            threshold.0 = Some(found);
            found
        }
    };
    let labels = standard.labels.iter().zip(shrunk);
    PseudoLabels {
        labels: labels
            .map(|(label, shrunk)| {
                label.filter(|l| {
                    let l = *l as usize;
                    grown[l] <= limit && shrunk <= most_compact[l]
                })
            })
            .collect(),
        clusters: standard.clusters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(of: &[i64]) -> PseudoLabels {
        PseudoLabels {
            labels: of.iter().map(|l| u32::try_from(*l).ok()).collect(),
            clusters: of.iter().max().map_or(0, |l| (*l + 1) as usize),
        }
    }

    #[test]
    fn three_equal_labellings_change_nothing() {
        let one = labels(&[0, 0, 1, 1, -1, 2]);
        let mut threshold = Threshold::default();
        assert_eq!(believed(&one, &one, &one, &mut threshold), one);
        assert_eq!(threshold.get(), Some(0.0));
    }

    #[test]
    fn a_cluster_that_grows_is_dissolved_and_a_picture_that_falls_off_is_set_free() {
        let standard = labels(&[0, 0, 0, 1, 1, -1]);
        // Cluster 1 takes in the outlier with a larger radius; picture 2 falls off cluster 0 with a smaller one.
        let loose = labels(&[0, 0, 0, 1, 1, 1]);
        let tight = labels(&[0, 0, -1, 1, 1, -1]);
        let mut threshold = Threshold::known(Some(0.2));
        let got = believed(&standard, &tight, &loose, &mut threshold);
        assert_eq!(got.to_i64(), [0, 0, -1, -1, -1, -1]);
    }

    #[test]
    fn the_threshold_stays_as_it_was_found() {
        let standard = labels(&[0, 0, 1, 1]);
        let loose = labels(&[0, 0, 0, 0]);
        let mut threshold = Threshold::default();
        let first = believed(&standard, &standard, &loose, &mut threshold);
        assert_eq!((first, threshold.get()), (standard.clone(), Some(0.5)));
        believed(&standard, &standard, &standard, &mut threshold);
        assert_eq!(threshold.get(), Some(0.5));
    }
}
