//! What deploys the program, and the manual for it, say nothing that the program does not know.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

fn reid_edge(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_reid-edge");
    Command::new(program).args(args).output().unwrap()
}

/// Words after `reid-edge` that stand where a command stands: before an option, or at the end of `code`.
fn commands(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines() {
        for piece in line.split("reid-edge ").skip(1) {
            let word: String = piece.chars().take_while(char::is_ascii_lowercase).collect();
            let rest = &piece[word.len()..];
            if !word.is_empty() && (rest.trim_start().starts_with("--") || rest.starts_with('`')) {
                found.insert(word);
            }
        }
    }
    found
}

#[test]
fn every_command_of_the_manual_and_the_unit_exists() {
    let mut all = BTreeSet::new();
    for file in [
        "docs/JETSON.md",
        "edge/deploy/reid-edge.service",
        "edge/deploy/package.sh",
        "edge/deploy/debian/postinst",
    ] {
        all.extend(commands(&read(file)));
    }
    for known in ["bench", "check", "replay", "run", "warm"] {
        assert!(all.contains(known), "{all:?}");
    }
    let missing: Vec<_> = all
        .iter()
        .filter(|command| !reid_edge(&[command, "--help"]).status.success())
        .collect();
    assert!(missing.is_empty(), "reid-edge has no {missing:?}");
}

#[test]
fn the_configuration_in_the_manual_is_understood() {
    let manual = read("docs/JETSON.md");
    let toml = manual
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    // What the device has in /etc/reid.
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().display().to_string();
    for file in ["entrance.password", "detector.onnx", "model.onnx"] {
        assert!(toml.contains(&format!("/etc/reid/{file}")), "{file}");
        fs::write(dir.path().join(file), "secret\n").unwrap();
    }
    let config = dir.path().join("edge.toml");
    fs::write(&config, toml.replace("/etc/reid", &etc)).unwrap();
    let output = reid_edge(&["config", "--config", config.to_str().unwrap()]);
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{says}");
    // Everything that is written lies where the service may write.
    let unit = read("edge/deploy/reid-edge.service");
    for (setting, folder) in [
        ("StateDirectory=reid", "/var/lib/reid"),
        ("CacheDirectory=reid", "/var/cache/reid"),
    ] {
        assert!(unit.lines().any(|line| line == setting), "{setting}");
        assert!(toml.contains(&format!("\"{folder}")), "{folder}");
    }
}

#[test]
fn the_example_of_the_package_is_made_from_lines_that_the_program_prints() {
    // package.sh replaces these two, so that nothing is written to /etc.
    let output = reid_edge(&["config", "--explain"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, gallery) = text.split_once("\n[gallery]\n").unwrap();
    let (gallery, _) = gallery.split_once("\n[").unwrap();
    assert!(gallery.contains("\n# path = "), "{gallery}");
}

#[test]
fn scripts_are_valid_shell() {
    let mut scripts = vec![root().join("reid")];
    for folder in ["edge/deploy", "edge/deploy/debian"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let is_script = path.is_file() && fs::read(&path).unwrap().starts_with(b"#!/bin/sh");
            if is_script {
                scripts.push(path);
            }
        }
    }
    assert!(scripts.len() >= 8, "{scripts:?}");
    for script in scripts {
        let output = Command::new("sh").arg("-n").arg(&script).output().unwrap();
        let says = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {says}", script.display());
    }
}
