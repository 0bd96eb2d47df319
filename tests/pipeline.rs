//! The whole path on a small world, by the programs a user calls: crops -> training without labels -> ONNX -> cameras.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use reid_tests::programs::{json, run};
use serde_json::Value;

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A world, a short training on it and the exported model.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Site {
            dir: tempfile::tempdir().unwrap(),
        };
        let crops = site.path("crops");
        json(
            "reid-world",
            &[
                "crops",
                "--out",
                &text(&crops),
                "--ids",
                "48",
                "--cameras",
                "3",
                "--seed",
                "5",
            ],
        )
        .unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn data(&self) -> String {
        format!("market1501:{}", text(&self.path("crops")))
    }

    fn fit(&self, run: &str, epochs: usize, more: &[&str]) -> Value {
        let out = text(&self.path(run));
        let data = self.data();
        let epochs = format!("train.epochs={epochs}");
        let mut arguments = vec![
            "fit",
            "--method",
            "ice",
            "--preset",
            "ice_small",
            "--data",
            &data,
            "--out",
            &out,
        ];
        arguments.extend([
            "--set",
            "train.iterations=6",
            "--set",
            "train.evaluate_every=0",
            "--set",
            &epochs,
        ]);
        arguments.extend(more);
        json("reid-train", &arguments).unwrap()
    }
}

#[test]
fn from_unlabelled_crops_to_identities_across_cameras() {
    let site = Site::new();
    let last = site.fit("run", 1, &[]);
    assert!(
        last["map"].as_f64().unwrap() > 0.0 && last["clusters"].as_u64().unwrap() >= 2,
        "{last}"
    );
    for file in [
        "config.toml",
        "graph.json",
        "model.safetensors",
        "card.json",
        "probe.safetensors",
        "metrics.jsonl",
        "curves.svg",
        "state",
    ] {
        assert!(site.path("run").join(file).exists(), "{file} is missing");
    }

    // What is trained is what is exported.
    let onnx = text(&site.path("model.onnx"));
    let run_folder = text(&site.path("run"));
    json(
        "reid-export",
        &["onnx", "--run", &run_folder, "--out", &onnx],
    )
    .unwrap();
    for backend in ["tract", "onnxruntime"] {
        let verified = json("reid-export", &["verify", &onnx, "--backend", backend]).unwrap();
        assert!(
            verified["min_cosine"].as_f64().unwrap() >= 0.9999,
            "{verified}"
        );
    }
    let of_run = json(
        "reid-train",
        &["eval", "--run", &run_folder, "--data", &site.data()],
    )
    .unwrap();
    let of_file = json(
        "reid-train",
        &["eval", "--onnx", &onnx, "--data", &site.data()],
    )
    .unwrap();
    let difference = of_run["map"].as_f64().unwrap() - of_file["map"].as_f64().unwrap();
    assert!(difference.abs() < 1e-3, "{of_run} {of_file}");

    // The cameras.
    let world = text(&site.path("world"));
    json(
        "reid-world",
        &[
            "videos",
            "--out",
            &world,
            "--ids",
            "4",
            "--cameras",
            "2",
            "--seconds",
            "16",
            "--seed",
            "5",
        ],
    )
    .unwrap();
    fs::copy(&onnx, site.path("world/model.onnx")).unwrap();
    let config = text(&site.path("world/edge.toml"));
    let checked = json("reid-edge", &["check", "--config", &config]).unwrap();
    assert_eq!(checked["ok"], true, "{checked}");
    let (gt, results) = (text(&site.path("world/gt")), text(&site.path("results")));
    let replay = [
        "replay",
        "--config",
        &config,
        "--gt",
        &gt,
        "--results",
        &results,
    ];
    let first = json("reid-edge", &replay).unwrap();
    assert!(first["frames"].as_u64().unwrap() > 100, "{first}");
    assert!(
        (0.0..=1.0).contains(&first["idf1"].as_f64().unwrap()),
        "{first}"
    );
    let written = fs::read(site.path("results/cam1.txt")).unwrap();
    // Same input, same result.
    let second = json("reid-edge", &replay).unwrap();
    assert_eq!(first["idf1"], second["idf1"]);
    assert_eq!(written, fs::read(site.path("results/cam1.txt")).unwrap());
    agrees_with_motmetrics(&site.path("world/gt"), &site.path("results"), &first);

    // The loop closes: what the cameras saw trains the next model.
    let harvest = text(&site.path("harvest"));
    json(
        "reid-edge",
        &["harvest", "--config", &config, "--out", &harvest],
    )
    .unwrap();
    let spec = format!("harvest:{harvest}");
    let described = json("reid-train", &["data", &spec]).unwrap();
    assert!(
        described["train"]["images"].as_u64().unwrap() > 10,
        "{described}"
    );
}

/// IDF1 over all cameras by motmetrics, cameras joined in time, from the files that replay read and wrote.
fn agrees_with_motmetrics(gt: &Path, results: &Path, ours: &Value) {
    let maker = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/motmetrics_of_folder.py");
    let python = std::env::var("REID_PYTHON").unwrap_or_else(|_| "python3".into());
    let imported = Command::new(&python)
        .args(["-c", "import motmetrics"])
        .output();
    if !imported.is_ok_and(|o| o.status.success()) {
        eprintln!(
            "skipped: agreement with motmetrics (python3 has no motmetrics; ./reid test installs it)"
        );
        return;
    }
    let output = Command::new(&python)
        .arg(maker)
        .arg(gt)
        .arg(results)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let theirs: Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in ["idf1", "mota"] {
        let (a, b) = (ours[key].as_f64().unwrap(), theirs[key].as_f64().unwrap());
        assert!((a - b).abs() < 1e-3, "{key}: ours {a}, motmetrics {b}");
    }
    assert_eq!(ours["id_switches"].as_i64(), theirs["id_switches"].as_i64());
}

#[test]
fn a_resumed_run_ends_as_an_uninterrupted_one() {
    let site = Site::new();
    let whole = site.fit("whole", 2, &[]);
    site.fit("parts", 1, &[]);
    // The same run, asked for one epoch more.
    let config = site.path("parts/config.toml");
    let edited = fs::read_to_string(&config)
        .unwrap()
        .replace("epochs = 1\n", "epochs = 2\n");
    fs::write(&config, edited).unwrap();
    let resumed = site.fit("parts", 2, &["--resume"]);
    assert_eq!(whole["loss"], resumed["loss"]);
    let weights = |run: &str| fs::read(site.path(run).join("model.safetensors")).unwrap();
    assert_eq!(weights("whole"), weights("parts"));
}

#[test]
fn every_program_explains_itself() {
    for name in [
        "reid-train",
        "reid-export",
        "reid-edge",
        "reid-world",
        "reid-demo",
    ] {
        let help = run(name, &["--help"]).unwrap();
        assert_eq!(help.code, 0, "{name}");
        assert!(help.stdout.contains("Usage:"), "{name}: {}", help.stdout);
        let wrong = run(name, &["--no-such-option"]).unwrap();
        assert_eq!(wrong.code, 2, "{name}: {}", wrong.stderr);
    }
}
