//! Features and pictures that leave nothing to choose from.

use super::*;
use reid_train::clustering::npy::write_matrix;

fn cluster(root: &Path, name: &str, features: &[f32], width: usize) -> Output {
    let file = root.join(format!("{name}.npy"));
    write_matrix(&file, features, width).unwrap();
    let out = text(&root.join(format!("{name}-labels.npy")));
    let arguments = [
        "cluster",
        "--features",
        &text(&file),
        "--out",
        &out,
        "--min-samples",
        "5",
        "--json",
    ];
    limited("true", &arguments.map(String::from))
}

fn result(output: &Output) -> (i64, i64) {
    said(output, 0);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |key: &str| found[key].as_i64().unwrap();
    (number("clusters"), number("outliers"))
}

#[test]
fn features_without_a_choice_are_clustered_or_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    // Fewer than k1 = 30, and all the same.
    let same = [0.6f32, 0.8].repeat(7);
    assert_eq!(result(&cluster(root, "same", &same, 2)), (1, 0));
    // Four: too few for anybody to be in company of five.
    assert_eq!(
        result(&cluster(root, "few", &[0.6, 0.8].repeat(4), 2)),
        (0, 4)
    );
    let mut broken = same.clone();
    broken[9] = f32::NAN;
    let refused = said(&cluster(root, "broken", &broken, 2), 1);
    contains_all(&refused, &["row 4", "not finite"]);
    broken[9] = f32::INFINITY;
    contains_all(&said(&cluster(root, "huge", &broken, 2), 1), &["row 4"]);
    let one = said(&cluster(root, "one", &[0.6, 0.8], 2), 1);
    contains_all(&one, &["at least 2"]);
    assert!(!root.join("broken-labels.npy").exists());
}

#[test]
fn pseudo_labels_without_two_clusters_end_a_training_with_the_key_to_turn() {
    let dir = tempfile::tempdir().unwrap();
    let data = data_set(&dir.path().join("data"));
    let out = dir.path().join("run");
    // A core point needs more company than there are pictures: all are outliers.
    let arguments = fit("ice", &data, &out, &["--set", "cluster.min_samples=1000"]);
    let refused = said(&limited("true", &arguments), 2);
    contains_all(&refused, &["0 cluster(s) and 24 outliers", "cluster.eps"]);
}

#[test]
fn a_person_with_fewer_pictures_than_instances_is_drawn_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = data_set(&dir.path().join("data"));
    let out = dir.path().join("run");
    // Six pictures of each person are there.
    let arguments = fit("supervised", &data, &out, &["--set", "train.instances=9"]);
    said(&limited("true", &arguments), 0);
    assert!(out.join("model.safetensors").exists());
}
