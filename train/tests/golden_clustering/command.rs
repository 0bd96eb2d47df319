//! `reid-train cluster` with every algorithm.

use std::path::{Path, PathBuf};
use std::process::Command;

use npyz::WriterBuilder;
use reid_train::clustering::agreement::quality;

use super::{Golden, pseudo};

fn write(g: &Golden, folder: &Path) -> PathBuf {
    let path = folder.join("features.npy");
    array(&path, &g.floats("crops.people.features"), &[200, 16]);
    path
}

fn array<T: npyz::AutoSerialize>(path: &Path, values: &[T], shape: &[u64]) {
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(shape)
        .writer(std::fs::File::create(path).unwrap())
        .begin_nd()
        .unwrap();
    writer.extend(values.iter()).unwrap();
    writer.finish().unwrap();
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
        (
            "--frames frames.npy",
            "--frames belongs to --algorithm bottom-up, not to dbscan",
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

#[test]
fn pictures_of_one_frame_stay_apart() {
    let g = Golden::open();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let case = |name: &str| format!("bottom_up.n100.{name}");
    array(
        &at("features.npy"),
        &g.floats(&case("features")),
        &[100, 16],
    );
    let frames = g.whole(&case("frames"));
    array(&at("frames.npy"), &frames, &[100]);
    let run = |frames: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reid-train"));
        command
            .args(["cluster", "--json", "--algorithm", "bottom-up"])
            .args(["--merge-share", &g.float(&case("mp")).to_string()])
            .args([
                "--size-penalty",
                &g.float(&case("penalty_apart.lambda")).to_string(),
            ])
            .args([
                "--steps",
                &g.rows(&case("penalty_apart.labels")).len().to_string(),
            ])
            .arg("--features")
            .arg(at("features.npy"))
            .arg("--out")
            .arg(at("labels.npy"));
        if let Some(frames) = frames {
            command.arg("--frames").arg(at(frames));
        }
        command.output().unwrap()
    };
    let labels = |frames: Option<&str>| -> (Vec<i64>, serde_json::Value) {
        let done = run(frames);
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{error}");
        let file = std::fs::File::open(at("labels.npy")).unwrap();
        let labels = npyz::NpyFile::new(file).unwrap().into_vec().unwrap();
        (labels, serde_json::from_slice(&done.stdout).unwrap())
    };
    let together = |labels: &[i64]| -> usize {
        let pairs = (0..100).flat_map(|i| (0..i).map(move |j| (i, j)));
        pairs
            .filter(|&(i, j)| frames[i] >= 0 && frames[i] == frames[j] && labels[i] == labels[j])
            .count()
    };
    let (free, report) = labels(None);
    assert!(together(&free) > 0, "the frames say something");
    assert!(report.get("pairs_apart").is_none());
    let (kept, report) = labels(Some("frames.npy"));
    assert_eq!(together(&kept), 0);
    assert_eq!(report["pairs_apart"], g.rows(&case("same_frame")).len());
    let want = g.rows(&case("penalty_apart.labels"));
    assert_eq!(kept, want[want.len() - 1], "as the golden's last step");

    // -1 is an image of no frame, and not a frame of its own; 32-bit numbers do as well.
    let nobody = vec![-1i32; 100];
    array(&at("none.npy"), &nobody, &[100]);
    let (none, report) = labels(Some("none.npy"));
    assert_eq!((none, &report["pairs_apart"]), (free, &0.into()));

    array(&at("short.npy"), &frames[..99], &[99]);
    array(&at("matrix.npy"), &frames, &[50, 2]);
    array(&at("float.npy"), &[0f64; 100], &[100]);
    let mut negative = frames.clone();
    negative[7] = -5;
    array(&at("negative.npy"), &negative, &[100]);
    std::fs::write(at("text.npy"), "1 2 3").unwrap();
    for (file, message) in [
        ("short.npy", "99 frame numbers for the 100 images of"),
        (
            "matrix.npy",
            "one frame number per image, got an array of shape [50, 2]",
        ),
        (
            "float.npy",
            "expected int64 or int32 frame numbers, got '<f8'",
        ),
        ("negative.npy", "image 7 has the frame number -5"),
        ("text.npy", "not a .npy file"),
        ("nowhere.npy", "nowhere.npy"),
    ] {
        let done = run(Some(file));
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{file}: {error}");
        assert!(error.contains(file) && error.contains(message), "{error}");
    }
}
