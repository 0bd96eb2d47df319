//! Whether pseudo labels are worth training on.

use crate::clustering::PseudoLabels;
use crate::config::{Algorithm, ClusterConfig};

/// One cluster with more than this share of the clustered pictures is no person.
const GIANT: f64 = 0.5;
/// More outliers than this share leave too little to learn from.
const LOST: f64 = 0.9;
/// Fewer clustered pictures than this say nothing of shares.
const FEW: usize = 100;

/// What is wrong with labels.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Collapse {
    /// Nothing can be trained.
    Fatal(String),
    /// It can go on, and will likely come to nothing.
    Likely(String),
}

impl Collapse {
    /// What is wrong, the likely cause and the key to change.
    pub(crate) fn text(&self) -> &str {
        match self {
            Collapse::Fatal(text) | Collapse::Likely(text) => text,
        }
    }
}

/// Looks at an epoch's labels; `None` if they are as they should be. What is said names the cause and the key to change.
pub(crate) fn look(labels: &PseudoLabels, config: &ClusterConfig) -> Option<Collapse> {
    let count = labels.labels.len();
    let outliers = labels.outliers();
    let sizes = labels.sizes();
    let (smaller, larger) = keys(config);
    if labels.clusters < 2 {
        let what = format!(
            "the {count} pictures fell into {} cluster(s) and {outliers} outliers, at least 2 clusters are needed",
            labels.clusters
        );
        let remedy = if 2 * outliers > count {
            format!(
                "nearly all are outliers: raise {larger}, or start from weights that know people better (--init)"
            )
        } else {
            format!(
                "nearly all look alike: lower {smaller}, or the network has collapsed (lower train.lr)"
            )
        };
        return Some(Collapse::Fatal(format!("{what}; {remedy}")));
    }
    let clustered = count - outliers;
    let largest = sizes.iter().copied().max().unwrap_or(0);
    if clustered >= FEW && largest as f64 > GIANT * clustered as f64 {
        return Some(Collapse::Likely(format!(
            "one cluster holds {largest} of {clustered} clustered pictures: people run together; lower {smaller}"
        )));
    }
    if count >= FEW && outliers as f64 > LOST * count as f64 {
        return Some(Collapse::Likely(format!(
            "{outliers} of {count} pictures are outliers and teach nothing: raise {larger}, lower cluster.min_samples (now {}), or \
             start from weights that know people better (--init)",
            config.min_samples
        )));
    }
    None
}

/// What to lower against giants, and to raise against outliers.
fn keys(config: &ClusterConfig) -> (String, String) {
    match (config.algorithm, config.rho > 0.0) {
        (Algorithm::KMeans, _) => {
            let clusters = config.clusters;
            (
                format!("the size of clusters by raising cluster.clusters (now {clusters})"),
                format!("cluster.clusters (now {clusters})"),
            )
        }
        (_, true) => {
            let key = format!("cluster.rho (now {})", config.rho);
            (key.clone(), key)
        }
        (_, false) => {
            let key = format!("cluster.eps (now {})", config.eps);
            (key.clone(), key)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(of: impl Iterator<Item = Option<u32>>) -> PseudoLabels {
        let labels: Vec<Option<u32>> = of.collect();
        PseudoLabels {
            clusters: labels.iter().flatten().max().map_or(0, |l| *l as usize + 1),
            labels,
        }
    }

    fn said(labels: &PseudoLabels, config: &ClusterConfig) -> String {
        match look(labels, config) {
            Some(Collapse::Fatal(text)) => format!("fatal: {text}"),
            Some(Collapse::Likely(text)) => format!("likely: {text}"),
            None => String::new(),
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_the_key_to_change() {
        let eps = ClusterConfig::default();
        let rho = ClusterConfig {
            rho: 0.002,
            ..ClusterConfig::default()
        };
        let one = labels((0..200).map(|_| Some(0)));
        assert!(
            said(&one, &eps).starts_with("fatal: "),
            "{}",
            said(&one, &eps)
        );
        assert!(said(&one, &eps).contains("lower cluster.eps (now 0.55)"));
        let none = labels((0..200).map(|_| None));
        assert!(said(&none, &rho).contains("raise cluster.rho (now 0.002)"));
        let giant = labels((0..200).map(|i| Some(if i < 150 { 0 } else { i / 10 })));
        assert!(said(&giant, &eps).starts_with("likely: one cluster holds 150 of 200"));
        let lost = labels((0..200u32).map(|i| (i < 10).then_some(i / 5)));
        assert!(said(&lost, &eps).contains("cluster.min_samples"));
        let good = labels((0..200).map(|i| Some(i / 10)));
        assert_eq!(look(&good, &eps), None);
    }
}
