//! Bad input, by the programs a user calls: one clear error naming what is wrong and what to do, exit code 1 or 2,
//! nothing half-written.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message as _;
use reid_models::runtime::proto::ModelProto;
use reid_tests::programs::{Finished, json, program, run};

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The program must fail with `code` and say every one of `words`; it must not panic.
fn fails(name: &str, arguments: &[&str], code: i32, words: &[&str]) -> Finished {
    let finished = run(name, arguments).unwrap();
    assert_failed(
        &format!("{name} {}", arguments.join(" ")),
        &finished,
        code,
        words,
    );
    finished
}

fn assert_failed(command: &str, finished: &Finished, code: i32, words: &[&str]) {
    let said = &finished.stderr;
    assert_eq!(finished.code, code, "{command}: {said}");
    assert!(!said.contains("panicked"), "{command}: {said}");
    for word in words {
        assert!(
            said.contains(word),
            "{command}: `{word}` is missing in: {said}"
        );
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A configuration with one camera and no model.
fn edge_config(folder: &Path, source: &str, more: &str) -> String {
    let path = folder.join("edge.toml");
    let embedder = if more.contains("[embedder]") {
        ""
    } else {
        "[embedder]\nkind = \"histogram\"\n"
    };
    fs::write(
        &path,
        format!("[[camera]]\nname = \"door\"\nsource = \"{source}\"\n{embedder}{more}"),
    )
    .unwrap();
    text(&path)
}

#[test]
fn a_video_that_is_missing_or_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let config = edge_config(dir.path(), "file:nowhere.mp4", "");
    let said = fails(
        "reid-edge",
        &["replay", "--config", &config],
        1,
        &["nowhere.mp4", "door"],
    );
    assert!(said.stdout.is_empty());
    fs::write(dir.path().join("noise.mp4"), vec![7u8; 5000]).unwrap();
    let config = edge_config(dir.path(), "file:noise.mp4", "");
    fails(
        "reid-edge",
        &["replay", "--config", &config],
        1,
        &["noise.mp4"],
    );
}

#[test]
fn a_truncated_video() {
    let dir = tempfile::tempdir().unwrap();
    let world = text(&dir.path().join("w"));
    json(
        "reid-world",
        &[
            "videos",
            "--out",
            &world,
            "--ids",
            "2",
            "--cameras",
            "1",
            "--seconds",
            "6",
        ],
    )
    .unwrap();
    let whole = fs::read(dir.path().join("w/cameras/cam1.mp4")).unwrap();
    // The index of an mp4 lies at its end: without it nothing can be played.
    fs::write(dir.path().join("half.mp4"), &whole[..whole.len() / 2]).unwrap();
    let config = edge_config(dir.path(), "file:half.mp4", "");
    fails(
        "reid-edge",
        &["replay", "--config", &config],
        1,
        &["half.mp4"],
    );
}

#[test]
fn rtsp_refused_and_credentials_kept_out_of_the_message() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens on the discard port.
    let config = edge_config(dir.path(), "rtsp://guard:secret@127.0.0.1:9/stream", "");
    let finished = run("reid-edge", &["check", "--config", &config, "--wait", "3"]).unwrap();
    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.code, 1, "{said}");
    assert!(
        said.contains("door") && !said.contains("secret") && !said.contains("panicked"),
        "{said}"
    );
}

#[test]
fn an_onnx_file_that_is_none_and_one_without_a_card() {
    let dir = tempfile::tempdir().unwrap();
    let fake = dir.path().join("model.onnx");
    fs::write(&fake, b"this is no network").unwrap();
    fails(
        "reid-export",
        &["inspect", &text(&fake)],
        1,
        &["model.onnx"],
    );
    fails("reid-export", &["verify", &text(&fake)], 1, &["model.onnx"]);
    fails(
        "reid-export",
        &["adopt", &text(&fake), "--task", "embed"],
        1,
        &["model.onnx"],
    );
    assert_eq!(
        names_in(dir.path()),
        ["model.onnx"],
        "nothing may be left behind"
    );
    let config = edge_config(
        dir.path(),
        "file:x.mp4",
        "[embedder]\nkind = \"onnx\"\nmodel = \"model.onnx\"\n",
    );
    let finished = run("reid-edge", &["replay", "--config", &config]).unwrap();
    assert!(matches!(finished.code, 1 | 2), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("model.onnx"),
        "{}",
        finished.stderr
    );
    let missing = text(&dir.path().join("absent.onnx"));
    fails("reid-export", &["verify", &missing], 1, &["absent.onnx"]);
}

fn data_set(folder: &Path, cameras: &[u32]) -> PathBuf {
    let root = folder.join("set");
    for part in ["bounding_box_train", "query", "bounding_box_test"] {
        fs::create_dir_all(root.join(part)).unwrap();
        for pid in 1..=3u8 {
            for &camera in cameras {
                for shot in 0..3u8 {
                    let colour = image::Rgb([pid * 60, shot * 20, camera as u8 * 30]);
                    let picture = image::RgbImage::from_pixel(64, 128, colour);
                    let name = format!("{pid:04}_c{camera}s1_{shot:06}_00.jpg");
                    picture.save(root.join(part).join(name)).unwrap();
                }
            }
        }
    }
    root
}

fn fit_arguments<'a>(data: &'a str, out: &'a str) -> [&'a str; 11] {
    [
        "fit",
        "--method",
        "ice",
        "--preset",
        "ice_small",
        "--init",
        "random",
        "--data",
        data,
        "--out",
        out,
    ]
}

#[test]
fn data_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let out = text(&dir.path().join("run"));
    let fit = |data: &str, code, words: &[&str]| {
        fails("reid-train", &fit_arguments(data, &out), code, words);
        assert!(!Path::new(&out).exists(), "a run folder was left behind");
    };
    fit("market1501", 2, &["market1501"]);
    fit("market1502:/x", 2, &["market1502", "market1501"]);
    fit("market1501:/no/such/folder", 2, &["/no/such/folder"]);
    let empty = dir.path().join("empty");
    for part in ["bounding_box_train", "query", "bounding_box_test"] {
        fs::create_dir_all(empty.join(part)).unwrap();
    }
    fit(&format!("market1501:{}", text(&empty)), 1, &["no pictures"]);
    // One camera: training is possible, the standard protocol isn't.
    let one = data_set(dir.path(), &[1]);
    let spec = format!("market1501:{}", text(&one));
    let run_folder = text(&dir.path().join("norun"));
    fails(
        "reid-train",
        &["eval", "--run", &run_folder, "--data", &spec],
        1,
        &["camera"],
    );
}

#[test]
fn a_picture_that_cannot_be_decoded_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = data_set(dir.path(), &[1, 2]);
    let broken = root.join("bounding_box_train/0002_c1s1_000001_00.jpg");
    let bytes = fs::read(&broken).unwrap();
    fs::write(&broken, &bytes[..40]).unwrap();
    let spec = format!("market1501:{}", text(&root));
    let out = text(&dir.path().join("run"));
    let mut arguments = fit_arguments(&spec, &out).to_vec();
    arguments.extend(["--set", "data.max_corrupt=0"]);
    fails(
        "reid-train",
        &arguments,
        1,
        &["0002_c1s1_000001_00.jpg", "data.max_corrupt"],
    );
}

#[test]
fn a_model_that_answers_nan() {
    let dir = tempfile::tempdir().unwrap();
    let root = data_set(dir.path(), &[1, 2]);
    let at = |name: &str| text(&dir.path().join(name));
    let spec = format!("market1501:{}", text(&root));
    json(
        "reid-train",
        &[
            "fit",
            "--method",
            "supervised",
            "--preset",
            "supervised_small",
            "--data",
            &spec,
            "--out",
            &at("run"),
            "--set",
            "train.epochs=1",
            "--set",
            "train.iterations=1",
        ],
    )
    .unwrap();
    json(
        "reid-export",
        &["onnx", "--run", &at("run"), "--out", &at("good.onnx")],
    )
    .unwrap();
    // Damaged weights of the neck, as a bad disk or a failed conversion leaves them. (Before a ReLU they could go unnoticed:
    // some engines turn NaN into 0 there.)
    let bytes = fs::read(at("good.onnx")).unwrap();
    let mut model = ModelProto::decode(&bytes[..]).unwrap();
    let weights = &mut model.graph.as_mut().unwrap().initializer;
    let neck = weights
        .iter_mut()
        .find(|w| w.name.contains("neck"))
        .unwrap();
    let mut raw = neck.raw_data.to_vec();
    raw[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    neck.raw_data = raw.into();
    fs::write(at("nan.onnx"), model.encode_to_vec()).unwrap();

    fails(
        "reid-export",
        &["verify", &at("nan.onnx")],
        1,
        &["nan.onnx", "finite"],
    );
    json(
        "reid-world",
        &[
            "videos",
            "--out",
            &at("w"),
            "--ids",
            "2",
            "--cameras",
            "1",
            "--seconds",
            "8",
        ],
    )
    .unwrap();
    for engine in ["tract", "onnxruntime"] {
        let config = edge_config(
            dir.path(),
            "file:w/cameras/cam1.mp4",
            &format!("[embedder]\nkind = \"onnx\"\nmodel = \"nan.onnx\"\nbackend = \"{engine}\"\n"),
        );
        fails(
            "reid-edge",
            &["replay", "--config", &config, "--keep-gallery"],
            1,
            &["nan.onnx", "finite"],
        );
    }
}

#[test]
fn configuration_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let root = data_set(dir.path(), &[1, 2]);
    let spec = format!("market1501:{}", text(&root));
    let out = text(&dir.path().join("run"));
    let fit = |more: &[&str], words: &[&str]| {
        let mut arguments = vec!["fit", "--method", "ice", "--data", &spec, "--out", &out];
        arguments.extend(more);
        fails("reid-train", &arguments, 2, words);
    };
    fit(&[], &["--init", "ImageNet"]);
    fit(&["--preset", "icy"], &["icy", "ice_small"]);
    fit(&["--set", "train.epoch=3"], &["epoch"]);
    fit(&["--set", "model.pooling=gapp"], &["gapp", "gem"]);
    fit(&["--init", "zoo:nowhere"], &["nowhere", "REID_ZOO"]);
    fit(
        &["--init", "/no/such.safetensors"],
        &["/no/such.safetensors"],
    );
    fit(
        &["--device", "cuda:0"],
        &["cuda:0", "--features cuda", "cpu"],
    );
    fit(&["--device", "gpu"], &["gpu", "cuda:N"]);
    fit(
        &["--set", "train.precision=bf16"],
        &["train.precision = \"bf16\"", "processor"],
    );
    fit(&["--set", "train.precision=fp16"], &["fp16", "bf16"]);
    fails(
        "reid-train",
        &["fit", "--method", "icy", "--data", &spec, "--out", &out],
        2,
        &["icy", "supervised"],
    );
    assert!(!Path::new(&out).exists());

    let config = edge_config(dir.path(), "file:a.mp4", "[tracker]\nhihg = 0.5\n");
    fails(
        "reid-edge",
        &["replay", "--config", &config],
        2,
        &["edge.toml", "hihg"],
    );
    let config = edge_config(dir.path(), "file:a.mp4", "[detector]\nkind = \"motoin\"\n");
    fails(
        "reid-edge",
        &["replay", "--config", &config],
        2,
        &["edge.toml", "motoin", "motion"],
    );
    let config = edge_config(dir.path(), "file:a.mp4", "[associate]\nmatch = 3.0\n");
    fails(
        "reid-edge",
        &["replay", "--config", &config],
        2,
        &["edge.toml", "associate.match", "3"],
    );
    fails(
        "reid-edge",
        &["replay", "--config", "/no/edge.toml"],
        2,
        &["/no/edge.toml"],
    );
    let config = edge_config(
        dir.path(),
        "file:a.mp4",
        "[serve]\nlisten = \"0.0.0.0:8080\"\n",
    );
    fails(
        "reid-edge",
        &["replay", "--config", &config, "--serve"],
        2,
        &["token"],
    );

    let worlds = text(&dir.path().join("w"));
    fails(
        "reid-world",
        &["crops", "--out", &worlds, "--domain", "moon"],
        2,
        &["moon", "street"],
    );
    fails(
        "reid-world",
        &["videos", "--out", &worlds, "--size", "64"],
        2,
        &["64"],
    );
}

#[test]
fn a_folder_that_cannot_be_written() {
    // Nobody, root included, can make a folder in /proc.
    fails(
        "reid-world",
        &["crops", "--out", "/proc/reid/x"],
        1,
        &["/proc/reid"],
    );
    let dir = tempfile::tempdir().unwrap();
    let root = data_set(dir.path(), &[1, 2]);
    let spec = format!("market1501:{}", text(&root));
    let arguments = fit_arguments(&spec, "/proc/reid/run");
    fails("reid-train", &arguments, 1, &["/proc/reid/run"]);
}

#[test]
fn a_full_disk_loses_nothing() {
    // A limit on the size of files stands for the full disk: writing past it fails the same way.
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sheet.png");
    fs::write(&out, b"old").unwrap();
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(program("reid-world").unwrap())
        .args(["sheet", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let finished = Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::new(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert_failed("reid-world sheet", &finished, 1, &["sheet.png"]);
    assert_eq!(fs::read(&out).unwrap(), b"old");
    assert_eq!(names_in(dir.path()), ["sheet.png"]);
}
