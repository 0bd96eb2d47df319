//! `reid-train cluster` with every algorithm.

use std::process::Command;

use npyz::WriterBuilder;
use reid_train::clustering::agreement::quality;

use super::{Golden, pseudo};

fn write(g: &Golden, folder: &std::path::Path) -> std::path::PathBuf {
    let path = folder.join("features.npy");
    let values = g.floats("crops.people.features");
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&[200, 16])
        .writer(std::fs::File::create(&path).unwrap())
        .begin_nd()
        .unwrap();
    writer.extend(values.iter()).unwrap();
    writer.finish().unwrap();
    path
}

#[test]
fn every_algorithm_reads_features_and_writes_labels() {
    let g = Golden::open();
    let dir = tempfile::tempdir().unwrap();
    let features = write(&g, dir.path());
    let out = dir.path().join("labels.npy");
    let run = |arguments: &str| {
        Command::new(env!("CARGO_BIN_EXE_reid-train"))
            .args(["cluster", "--json", "--features"])
            .arg(&features)
            .arg("--out")
            .arg(&out)
            .args(arguments.split_whitespace())
            .output()
            .unwrap()
    };
    let truth: Vec<i64> = g.whole("crops.people.persons");
    let cameras = g.whole("crops.people.cameras");
    for (arguments, clusters) in [
        ("", None),
        ("--algorithm average --clusters 40", Some(40)),
        ("--algorithm average --threshold 0.9", None),
        ("--algorithm bottom-up", Some(10)),
        (
            "--algorithm bottom-up --merge-share 0.1 --clusters 45 --size-penalty 0.03 --grown-sizes",
            Some(45),
        ),
        ("--algorithm bottom-up --steps 3", Some(170)),
        (
            "--algorithm kmeans --clusters 12 --restarts 3 --empty keep",
            None,
        ),
        (
            "--algorithm gmm --clusters 8 --covariance diag --seed 4 --reg-covar 1e-3",
            None,
        ),
    ] {
        let done = run(arguments);
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{arguments}: {error}");
        let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        let labels: Vec<i64> = npyz::NpyFile::new(std::fs::File::open(&out).unwrap())
            .unwrap()
            .into_vec()
            .unwrap();
        let labels = pseudo(&labels);
        assert_eq!(report["clusters"], labels.clusters, "{arguments}");
        assert_eq!(report["images"], 200);
        if let Some(clusters) = clusters {
            assert_eq!(labels.clusters, clusters, "{arguments}");
        }
        assert_eq!(
            report["eps"].is_number(),
            arguments.is_empty(),
            "{arguments}"
        );
        let found = quality(&labels, &truth, &cameras).unwrap();
        // Single linkage with little penalty chains: that is what the penalty is for.
        let chains = arguments == "--algorithm bottom-up";
        assert!(
            chains || found.clustered.nmi > 0.5,
            "{arguments}: {found:?}"
        );
    }
    for (arguments, message) in [
        ("--algorithm kmeans", "--clusters N is needed"),
        (
            "--algorithm kmeans --clusters 5 --eps 0.5",
            "--eps belongs to --algorithm dbscan, not to kmeans",
        ),
        (
            "--seed 5",
            "--seed belongs to --algorithm kmeans or gmm, not to dbscan",
        ),
        ("--algorithm average --clusters 0", "at least 1"),
        ("--algorithm bottom-up --merge-share 1.5", "merge_share"),
        (
            "--algorithm bottom-up --merge-share 0.001",
            "merges must be",
        ),
        ("--algorithm gmm --clusters 3 --reg-covar nan", "reg_covar"),
    ] {
        let done = run(arguments);
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{arguments}: {error}");
        assert!(error.contains(message), "{arguments}: {error}");
    }
    let done = run("--algorithm gmm --clusters 300");
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1));
    assert!(
        error.contains("features.npy") && error.contains("200 rows cannot make 300"),
        "{error}"
    );
}
