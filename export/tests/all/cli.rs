//! The command line: exit codes, and the JSON that other tools read.

use std::path::Path;
use std::process::{Command, Output};

use crate::run_folder::{self, engines};

fn reid_export(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reid-export"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn export_verify_and_inspect_speak_json() {
    let dir = tempfile::tempdir().unwrap();
    run_folder::write_small(dir.path());
    let out = dir.path().join("model.onnx");
    let run = text(dir.path());
    let exported = json(&reid_export(&[
        "onnx",
        "--run",
        run,
        "--out",
        text(&out),
        "--json",
    ]));
    assert_eq!(exported["width"], 32);
    assert_eq!(exported["opset"], 17);
    assert_eq!(exported["precision"], "fp32");
    let engines = engines("export_verify_and_inspect_speak_json").len();
    assert_eq!(exported["backends"].as_array().unwrap().len(), engines);

    let verified = json(&reid_export(&[
        "verify",
        text(&out),
        "--backend",
        "tract",
        "--json",
    ]));
    assert_eq!(verified["backend"], "tract");
    assert!(verified["min_cosine"].as_f64().unwrap() >= 0.9999);
    assert!(verified["max_abs"].as_f64().unwrap() < 1e-3);
    let all = json(&reid_export(&["verify", text(&out), "--json"]));
    assert_eq!(all["backends"].as_array().unwrap().len(), engines);

    let inspected = json(&reid_export(&["inspect", text(&out), "--json"]));
    assert_eq!(inspected["inputs"][0]["shape"], "[batch, 3, 64, 32]");
    assert_eq!(inspected["card"]["name"], "resnet18");
    assert_eq!(inspected["probe"], true);
    let people = reid_export(&["inspect", text(&out)]);
    let people = String::from_utf8_lossy(&people.stdout);
    assert!(
        people.contains("opset 17") && people.contains("\"fingerprint\""),
        "{people}"
    );
}

#[test]
fn bad_usage_is_2_and_a_failure_is_1() {
    let code = |arguments: &[&str], wanted: i32, says: &str| {
        let output = reid_export(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(wanted),
            "{arguments:?}: {stderr}"
        );
        assert!(stderr.contains(says), "{stderr}");
    };
    let onnx = ["onnx", "--run", "/nowhere", "--out", "/tmp/never.onnx"];
    code(&onnx, 1, "/nowhere/graph.json is missing");
    let with = |extra: [&'static str; 2]| [&onnx[..], &extra].concat();
    code(
        &with(["--precision", "int8"]),
        2,
        "this build writes fp32, got `int8`",
    );
    code(&with(["--batch", "0"]), 2, "`dynamic` or a number");
    code(&with(["--opset", "9"]), 2, "17..=21");
    code(&with(["--colour", "red"]), 2, "--colour");
    code(&["verify", "/nowhere.onnx"], 1, "/nowhere.onnx");
    code(
        &["verify", "/nowhere.onnx", "--backend", "ort"],
        2,
        "onnxruntime",
    );
    code(
        &[
            "adopt",
            "/nowhere.onnx",
            "--task",
            "embed",
            "--layout",
            "hwc",
        ],
        2,
        "nchw",
    );
    assert!(!Path::new("/tmp/never.onnx").exists());
}

/// The embeddings in the file's metadata are swapped: the model is whole, but it is not the one that was trained.
#[test]
fn a_file_that_is_another_model_fails_verification() {
    use prost::Message as _;
    use reid_models::card::PROBE_KEY;
    use reid_models::runtime::file::encode_probe;
    use reid_models::runtime::proto::ModelProto;
    use reid_models::runtime::read_probe;

    let dir = tempfile::tempdir().unwrap();
    run_folder::write_small(dir.path());
    let out = dir.path().join("model.onnx");
    let run = text(dir.path());
    assert!(
        reid_export(&["onnx", "--run", run, "--out", text(&out)])
            .status
            .success()
    );
    let mut rows = read_probe(&out).unwrap().unwrap();
    rows.swap(0, 1);
    let mut model = ModelProto::decode(&std::fs::read(&out).unwrap()[..]).unwrap();
    let entry = model.metadata_props.iter_mut().find(|p| p.key == PROBE_KEY);
    entry.unwrap().value = encode_probe(&rows);
    std::fs::write(&out, model.encode_to_vec()).unwrap();
    let output = reid_export(&["verify", text(&out), "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(answer["min_cosine"].as_f64().unwrap() < 0.9999);
}
