//! Clustering against double-precision definitions, scipy and scikit-learn.
//!
//! `golden_engine/clustering.safetensors` was made by the script of the same name beside it, whose head says what every array
//! is. Where the file records how much room a decision has, it is at least 1e-5: labels must agree one by one.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use reid_train::clustering::agreement::quality;
use reid_train::clustering::rho::eps_from_rho;
use reid_train::clustering::{Dbscan, Jaccard, PseudoLabels, SparseDistances, Weights};

#[path = "golden_clustering/centres.rs"]
mod centres;
#[path = "golden_clustering/command.rs"]
mod command;
#[path = "golden_clustering/linkage.rs"]
mod linkage;
#[path = "golden_clustering/slow.rs"]
mod slow;

struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn path() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_engine/clustering.safetensors")
    }

    fn open() -> Self {
        Golden(candle_core::safetensors::load(Self::path(), &Device::Cpu).unwrap())
    }

    fn tensor(&self, name: &str) -> &Tensor {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("golden has no `{name}`"))
    }

    /// Columns of an array's last axis.
    fn width(&self, name: &str) -> usize {
        *self.tensor(name).dims().last().unwrap()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let flat = self.tensor(name).flatten_all().unwrap();
        flat.to_vec1().unwrap()
    }

    fn doubles(&self, name: &str) -> Vec<f64> {
        self.floats(name).into_iter().map(f64::from).collect()
    }

    fn whole(&self, name: &str) -> Vec<i64> {
        let flat = self.tensor(name).flatten_all().unwrap();
        flat.to_vec1().unwrap()
    }

    fn float(&self, name: &str) -> f64 {
        self.doubles(name)[0]
    }

    fn count(&self, name: &str) -> usize {
        self.whole(name)[0] as usize
    }

    /// Rows of whole numbers.
    fn rows(&self, name: &str) -> Vec<Vec<i64>> {
        let width = self.width(name);
        self.whole(name)
            .chunks(width)
            .map(<[i64]>::to_vec)
            .collect()
    }
}

fn assert_near(found: &[f64], want: &[f64], relative: f64, absolute: f64, what: &str) {
    assert_eq!(found.len(), want.len(), "{what}");
    for (i, (f, w)) in found.iter().zip(want).enumerate() {
        assert!(
            (f - w).abs() <= relative * w.abs() + absolute,
            "{what} {i}: {f}, want {w}"
        );
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Pseudo labels from a file's numbers, -1 an outlier.
fn pseudo(labels: &[i64]) -> PseudoLabels {
    PseudoLabels {
        labels: labels.iter().map(|l| u32::try_from(*l).ok()).collect(),
        clusters: (labels.iter().max().unwrap() + 1) as usize,
    }
}

#[test]
fn every_case_of_the_file_is_known_here() {
    let bytes = std::fs::read(Golden::path()).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let cases = &header.metadata().as_ref().unwrap()["cases"];
    let tested = [
        "agglomerative.",
        "bottom_up.",
        "kmeans.",
        "kmeans_pp.",
        "gmm.",
        "crops.",
        "jaccard.",
        "dbscan.",
        "rho.",
        "quality.",
    ];
    for case in cases.split(',') {
        // The radial distance is a loss over clusters, not a clustering: it belongs to the losses.
        assert!(
            case == "radial.plain" || tested.iter().any(|t| case.starts_with(t)),
            "{case} is not tested"
        );
    }
}

const JACCARD: [(&str, Weights); 4] = [
    ("zhong_20_6", Weights::ExpScaled),
    ("spcl_20_6", Weights::Softmax),
    ("spcl_30_6", Weights::Softmax),
    ("spcl_13_1", Weights::Softmax),
];

fn distances(g: &Golden, name: &str, weights: Weights) -> SparseDistances {
    let columns = g.count(&format!("jaccard.{name}.columns"));
    let k2 = g.count(&format!("jaccard.{name}.k2"));
    Jaccard::new(columns, k2, weights)
        .unwrap()
        .distances(
            &g.floats("crops.people.features"),
            g.width("crops.people.features"),
        )
        .unwrap()
}

#[test]
fn jaccard() {
    let g = Golden::open();
    for (name, weights) in JACCARD {
        let found = distances(&g, name, weights);
        let n = found.count();
        let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        let found: Vec<f64> = pairs.map(|(i, j)| found.distance(i, j).into()).collect();
        let want = g.doubles(&format!("jaccard.{name}.condensed"));
        assert_near(&found, &want, 0.0, 1e-5, name);
        // Equal neighbourhoods are at exactly 0, not at a rounding of it.
        for (f, w) in found.iter().zip(&want) {
            assert_eq!(*f == 0.0, *w == 0.0, "{name}");
        }
    }
}

#[test]
fn dbscan_and_rho() {
    let g = Golden::open();
    for (name, weights) in JACCARD {
        let case = |array: &str| format!("dbscan.{name}.{array}");
        let distances = distances(&g, name, weights);
        let labels = g.rows(&case("labels"));
        let core = g.rows(&case("core"));
        for (at, eps) in g.floats(&case("eps")).into_iter().enumerate() {
            let dbscan = Dbscan::new(eps, 4).unwrap();
            assert_eq!(
                dbscan.cluster(&distances).to_i64(),
                labels[at],
                "{name} at {eps}"
            );
            let found = dbscan.core_points(&distances);
            let found: Vec<i64> = found.into_iter().map(i64::from).collect();
            assert_eq!(found, core[at], "{name} at {eps}");
        }
        for (rho, want) in g
            .doubles(&case("rho"))
            .iter()
            .zip(g.doubles(&case("rho_eps")))
        {
            let found = f64::from(eps_from_rho(&distances, *rho).unwrap());
            assert!((found - want).abs() < 1e-5, "{name}: {found} {want}");
        }
    }
}

#[test]
fn rho_leaves_out_zeros_and_their_rounding() {
    let g = Golden::open();
    let values = g.floats("rho.zeros.condensed");
    let pairs = (0..50).flat_map(|i| (i + 1..50).map(move |j| (i, j)));
    let pairs = pairs.zip(values).map(|((i, j), d)| (i, j, d));
    let distances = SparseDistances::from_pairs(50, pairs).unwrap();
    for (rho, want) in g
        .doubles("rho.zeros.rho")
        .iter()
        .zip(g.doubles("rho.zeros.eps"))
    {
        let found = f64::from(eps_from_rho(&distances, *rho).unwrap());
        assert!((found - want).abs() < 1e-6, "{found} {want}");
    }
}

#[test]
fn quality_of_a_clustering() {
    let g = Golden::open();
    for name in [
        "zhong_20_6",
        "spcl_30_6",
        "perfect",
        "one_cluster",
        "singletons",
        "hand",
    ] {
        let case = |array: &str| format!("quality.{name}.{array}");
        // The file's negative persons are people of one crop; here negative means unknown.
        let truth: Vec<i64> = g.whole(&case("truth"));
        let truth: Vec<i64> = truth
            .iter()
            .map(|t| if *t < 0 { 1 << 40 | -t } else { *t })
            .collect();
        let labels = pseudo(&g.whole(&case("labels")));
        let found = quality(&labels, &truth, &g.whole(&case("cameras"))).unwrap();
        for (prefix, a) in [("kept", found.clustered), ("single", found.with_outliers)] {
            for (measure, value) in [
                ("nmi", a.nmi),
                ("ari", a.ari),
                ("purity", a.purity),
                ("mi", a.mutual_information),
            ] {
                let want = g.float(&case(&format!("{prefix}_{measure}")));
                assert!(
                    (value - want).abs() < 1e-6,
                    "{name} {prefix}_{measure}: {value} {want}"
                );
            }
        }
        let cameras = [found.cameras, found.true_cameras];
        let want = [
            g.float(&case("cameras_mi")),
            g.float(&case("truth_cameras_mi")),
        ];
        assert_near(&cameras, &want, 0.0, 1e-6, name);
        assert_eq!(found.lost_identities, g.count(&case("lost_ids")), "{name}");
    }
}
