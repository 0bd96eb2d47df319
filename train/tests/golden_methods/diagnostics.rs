use std::collections::BTreeSet;

use reid_train::clustering::PseudoLabels;
use reid_train::clustering::agreement::{camera_information, lost_identities, quality};

use super::harness::*;

const CASES: [&str; 13] = [
    "random",
    "clean",
    "outliers",
    "gaps",
    "large",
    "one_camera",
    "one_cluster",
    "singletons",
    "cameras_found",
    "perfect",
    "independent",
    "none_clustered",
    "one_left",
];

#[track_caller]
fn close(what: &str, got: f64, want: f64) {
    // The file holds single precision.
    assert!(
        (got - want).abs() <= 3e-7 * want.max(1.0),
        "{what}: {got}, PyTorch {want}"
    );
}

#[test]
fn diagnostics_of_canu() {
    let golden = Golden::open("diagnostics");
    for case in CASES {
        let labels = golden.labels(&format!("{case}.batch.labels"));
        let identities = golden.integers(&format!("{case}.batch.identities"));
        let cameras = golden.integers(&format!("{case}.batch.cameras"));
        let number = |name: &str| golden.number(&format!("{case}.mid.{name}"));
        let count = |name: &str| golden.integers(&format!("{case}.mid.{name}"))[0] as usize;
        close(
            case,
            camera_information(&labels, &cameras),
            number("information"),
        );
        let counts = lost_identities(&labels, &identities);
        assert_eq!(counts, (count("lost"), count("identities")), "{case}");

        // As an epoch reports it: clusters numbered from 0.
        let numbers: BTreeSet<u32> = labels.iter().flatten().copied().collect();
        let numbers: Vec<u32> = numbers.into_iter().collect();
        let number_of = |label: u32| numbers.binary_search(&label).unwrap() as u32;
        let numbered = labels.iter().map(|label| label.map(number_of)).collect();
        let numbered = PseudoLabels {
            labels: numbered,
            clusters: numbers.len(),
        };
        match quality(&numbered, &identities, &cameras) {
            Some(quality) => {
                close(case, quality.cameras, number("information"));
                close(case, quality.true_cameras, number("target"));
                assert_eq!(quality.lost_identities, count("lost"), "{case}");
            }
            None => assert_eq!(count("clustered"), 0, "{case}"),
        }
    }
}
