//! What a training meets in the world: no network, broken pictures, too little memory, a full disk, a kill at any instant.
#![allow(clippy::unwrap_used)]

#[path = "adversity/checkpoints.rs"]
mod checkpoints;
#[path = "adversity/degenerate.rs"]
mod degenerate;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use reid_tests::programs::program;
use serde_json::Value;

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// `reid-train`, after the shell's `limits`.
fn limited(limits: &str, arguments: &[String]) -> Output {
    Command::new("sh")
        .args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")])
        .arg(program("reid-train").unwrap())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Its standard error; it must have ended with `code` and without a panic.
fn said(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn contains_all(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "`{word}` is missing in: {said}");
    }
}

/// Four people in two cameras, each of a colour, three pictures of each for training, query and gallery.
fn data_set(root: &Path) -> String {
    for part in ["bounding_box_train", "query", "bounding_box_test"] {
        fs::create_dir_all(root.join(part)).unwrap();
        for pid in 1..=4u8 {
            for camera in 1..=2u8 {
                for shot in 0..3u8 {
                    let picture = image::RgbImage::from_fn(32, 64, |x, y| {
                        let grain = ((x * 7 + y * 13 + u32::from(shot) * 5) % 23) as u8;
                        image::Rgb([
                            pid * 50 + grain,
                            255 - pid * 60 + grain,
                            camera * 40 + grain,
                        ])
                    });
                    let name = format!("{pid:04}_c{camera}s1_{shot:06}_00.jpg");
                    picture.save(root.join(part).join(name)).unwrap();
                }
            }
        }
    }
    format!("market1501:{}", text(root))
}

fn cut_short(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

/// A training of seconds.
fn fit(method: &str, data: &str, out: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "fit",
        "--method",
        method,
        "--preset",
        &format!("{method}_small"),
        "--init",
        "random",
        "--data",
        data,
        "--out",
        &text(out),
    ]
    .map(String::from)
    .to_vec();
    for set in [
        "model.width=8",
        "train.iterations=2",
        "train.identities=4",
        "train.instances=2",
        "train.evaluate_every=0",
        "cluster.k1=4",
        "cluster.k2=2",
        "cluster.min_samples=2",
    ] {
        arguments.extend(["--set".into(), set.into()]);
    }
    arguments.extend(more.iter().map(|m| m.to_string()));
    arguments
}

fn metrics(run: &Path) -> Vec<Value> {
    fs::read_to_string(run.join("metrics.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn model(run: &Path) -> Vec<u8> {
    fs::read(run.join("model.safetensors")).unwrap()
}

#[test]
fn without_a_network_the_missing_weights_are_named_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let data = data_set(&dir.path().join("set"));
    let out = dir.path().join("run");
    let mut arguments = fit("supervised", &data, &out, &[]);
    let init = arguments.iter().position(|a| a == "random").unwrap();
    arguments[init] = "hf:timm/resnet50.tv_in1k".into();
    let place = dir
        .path()
        .join("hf/hub/models--timm--resnet50.tv_in1k/snapshots/main");
    for (variable, value, cause) in [
        // Nobody listens on the discard port.
        ("HF_ENDPOINT", "http://127.0.0.1:9", "127.0.0.1:9"),
        ("HF_HUB_OFFLINE", "1", "HF_HUB_OFFLINE"),
    ] {
        let started = Instant::now();
        let output = Command::new(program("reid-train").unwrap())
            .args(&arguments)
            .env_remove("HF_HUB_CACHE")
            .env("HF_HOME", dir.path().join("hf"))
            .env("HF_TOKEN", "hf_verysecret")
            .env(variable, value)
            .output()
            .unwrap();
        let said = said(&output, 1);
        contains_all(&said, &["model.safetensors", &text(&place), cause]);
        assert!(!said.contains("verysecret"), "{said}");
        assert!(started.elapsed() < Duration::from_secs(15));
        assert!(!out.exists(), "a run folder was left behind");
    }
}

#[test]
fn a_few_broken_pictures_are_left_out_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    let data = data_set(&root);
    let broken = [
        "bounding_box_train/0002_c1s1_000001_00.jpg",
        "bounding_box_train/0003_c2s1_000002_00.jpg",
        "query/0001_c1s1_000000_00.jpg",
        "bounding_box_test/0004_c2s1_000000_00.jpg",
    ];
    broken.iter().for_each(|name| cut_short(&root.join(name)));
    for method in ["supervised", "ice"] {
        let run = |name: &str| {
            let out = dir.path().join(name);
            let more = ["--set", "train.epochs=2", "--set", "train.iterations=6"];
            let output = limited("true", &fit(method, &data, &out, &more));
            (out, said(&output, 0))
        };
        let (first, said) = run(&format!("{method}1"));
        for name in broken {
            assert_eq!(said.matches(name).count(), 1, "{name}, once: {said}");
        }
        let counts: Vec<Option<u64>> = metrics(&first)
            .iter()
            .map(|row| row["corrupt"].as_u64())
            .collect();
        // Before training the test set is evaluated, in the first epoch only trained, in the last one both.
        assert_eq!(counts, [Some(2), Some(2), Some(4)], "{method}");
        let (second, _) = run(&format!("{method}2"));
        assert_eq!(model(&first), model(&second), "{method}: the same seed");
    }
    let out = dir.path().join("strict");
    let more = ["--set", "data.max_corrupt=3"];
    let said = said(&limited("true", &fit("ice", &data, &out, &more)), 1);
    contains_all(&said, &["data.max_corrupt = 3", "4 pictures"]);
    contains_all(&said, &broken);
    // A benchmark is measured on all pictures or not at all.
    let run = text(&dir.path().join("ice1"));
    let eval = ["eval", "--run", &run, "--data", &data].map(String::from);
    contains_all(&self::said(&limited("true", &eval), 1), &[broken[2]]);
}

/// The 128 bytes before a matrix of f32.
fn npy_header(rows: u64, width: u64) -> Vec<u8> {
    let header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(format!("{header:<117}\n").bytes());
    bytes
}

#[test]
fn what_does_not_fit_into_memory_is_refused_with_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&dir.path().join(name));
    let limit = format!("ulimit -v {}", 4 << 20);
    // A header and a hole: a large file that takes no room.
    let file = |name: &str, rows: u64, width: u64, values: &[f32]| {
        let header =
            format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        bytes.extend(format!("{header:<117}\n").bytes());
        bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        fs::write(at(name), &bytes).unwrap();
        let whole = fs::OpenOptions::new().write(true).open(at(name)).unwrap();
        whole.set_len(128 + 4 * rows * width).unwrap();
    };
    file("large.npy", 2_000_000, 1024, &[]);
    let small: Vec<f32> = (0..120_000).map(|n| 1.0 + (n % 1013) as f32).collect();
    file("small.npy", 60_000, 2, &small);
    let refused = |arguments: &[&str], words: &[&str]| {
        let mut all: Vec<String> = arguments.iter().map(|a| a.to_string()).collect();
        all.extend(["--out".into(), at("labels.npy")]);
        let said = said(&limited(&limit, &all), 1);
        contains_all(&said, words);
        contains_all(&said, &["GiB of memory", "GiB are available"]);
        assert!(!dir.path().join("labels.npy").exists());
    };
    refused(
        &["cluster", "--features", &at("large.npy")],
        &["large.npy", "2000000 x 1024 features", "7.63 GiB"],
    );
    let small = at("small.npy");
    let by = |algorithm: &'static str, more: &[&'static str], words: &[&str]| {
        let mut arguments = vec!["cluster", "--features", &small, "--algorithm", algorithm];
        arguments.extend(more);
        refused(&arguments, words);
    };
    by(
        "average",
        &["--clusters", "10"],
        &["all pairs of 60000 images", "6.71 GiB", "dbscan"],
    );
    by(
        "gmm",
        &["--clusters", "5000"],
        &["5000 components", "fewer components"],
    );
    by("dbscan", &["--k1", "60000"], &["neighbour lists", "k1"]);
    let data = data_set(&dir.path().join("set"));
    let out = dir.path().join("run");
    let training = fit("ice", &data, &out, &["--set", "model.width=512"]);
    let said = said(&limited(&limit, &training), 1);
    contains_all(
        &said,
        &["million parameters", "GiB are available", "model.width"],
    );
    assert!(!out.exists(), "a run folder was left behind");
}

#[test]
fn features_that_do_not_fit_into_memory_are_not_ranked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.npz");
    // The header says four terabytes, as of a matrix somebody forgot to cut.
    let mut archive = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("query.npy", options).unwrap();
    archive.write_all(&npy_header(1_000_000_000, 1000)).unwrap();
    archive.finish().unwrap();
    let output = limited("true", &["rank".into(), text(&path)]);
    contains_all(
        &said(&output, 1),
        &[
            "f.npz",
            "1000000000 x 1000 features",
            "3725.3 GiB of memory",
        ],
    );
}
