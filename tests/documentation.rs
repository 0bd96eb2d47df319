//! What the documents say is true of the programs.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::pipe;
use std::path::{Path, PathBuf};
use std::process::Command;

use reid_tests::programs::{json, program, run};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

#[test]
fn the_table_of_methods_is_the_programs() {
    let methods = json("reid-train", &["methods"]).unwrap();
    let known: Vec<&str> = methods["methods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["name"].as_str().unwrap())
        .collect();
    let readme = read("README.md");
    let done: Vec<&str> = readme
        .lines()
        .filter(|line| line.starts_with("| `") && line.trim_end().ends_with("| done |"))
        .map(|line| line.split('`').nth(1).unwrap())
        .collect();
    assert_eq!(
        done, known,
        "README's methods that are done, against `reid-train methods`"
    );
}

#[test]
fn every_command_of_the_readme_exists() {
    let readme = read("README.md");
    let mut commands: Vec<(String, String)> = Vec::new();
    for piece in readme.split("./reid ").skip(1) {
        let mut words = piece
            .split_whitespace()
            .map(|w| w.trim_matches(['`', '.', ',', ';', ':', ')']));
        let (Some(tool), Some(command)) = (words.next(), words.next()) else {
            continue;
        };
        if ["train", "export", "edge", "world"].contains(&tool) {
            commands.push((format!("reid-{tool}"), command.to_string()));
        }
    }
    assert!(commands.len() >= 6, "{commands:?}");
    for (tool, command) in commands {
        let help = run(&tool, &[command.as_str(), "--help"]).unwrap();
        assert_eq!(
            help.code, 0,
            "{tool} {command} is in the README: {}",
            help.stderr
        );
    }
}

#[test]
fn links_and_pictures_of_the_documents_exist() {
    let mut documents = vec!["README.md".to_string()];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            documents.push(format!("docs/{name}"));
        }
    }
    assert!(documents.len() >= 4, "{documents:?}");
    for document in documents {
        let folder = root().join(&document).parent().unwrap().to_path_buf();
        for target in read(&document)
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if !target.contains("://") && !target.starts_with('#') {
                assert!(
                    folder.join(target).exists(),
                    "{document} links to {target}, which does not exist"
                );
            }
        }
    }
}

#[test]
fn every_preset_belongs_to_a_method() {
    let methods = json("reid-train", &["methods"]).unwrap().to_string();
    for entry in fs::read_dir(root().join("train/presets")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let method = text
            .lines()
            .find_map(|l| l.strip_prefix("method = "))
            .unwrap()
            .trim_matches('"');
        assert!(
            methods.contains(&format!("\"{method}\"")),
            "{}: method {method}",
            path.display()
        );
    }
}

#[test]
fn the_launcher_lists_what_it_does() {
    let launcher = read("reid");
    for command in [
        "demo", "test", "bench", "train", "export", "edge", "world", "setup",
    ] {
        assert!(
            launcher.contains(&format!("\n  {command} ")),
            "./reid help does not list {command}"
        );
    }
}

#[test]
fn the_list_of_gpu_operators_is_the_programs() {
    let known = run("reid-gpu", &["operators"]).unwrap().stdout;
    let known: Vec<&str> = known.lines().collect();
    assert!(known.len() > 30);
    let text = read("docs/BENCHMARKS.md");
    let (_, list) = text
        .split_once("### Operators that never ran on a GPU")
        .unwrap();
    let listed: Vec<&str> = list
        .lines()
        .take_while(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("* "))
        .collect();
    // Empty once a GPU has run them all; until then, none may be missing.
    assert!(listed.is_empty() || listed == known, "{listed:?}");
}

#[test]
fn a_reader_that_leaves_ends_a_program_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let world = dir.path().join("world").display().to_string();
    let small = "tracklets --ids 4 --cameras 2 --frames 4 --out";
    let small = small.split(' ').chain([world.as_str()]).collect();
    for (tool, arguments) in [
        ("reid-world", small),
        ("reid-train", vec!["methods"]),
        ("reid-export", vec!["--help"]),
        ("reid-edge", vec!["config", "--explain"]),
    ] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut command = Command::new(program(tool).unwrap());
        let output = command.args(arguments).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.is_empty(), "{tool}: {said}");
    }
}

#[test]
fn tables_of_accuracy_are_those_of_the_results() {
    let dir = tempfile::tempdir().unwrap();
    let results = root().join("tests/bench/results").display().to_string();
    let out = dir.path().display().to_string();
    let known = ["methods", "--known", "--results", &results, "--out", &out];
    let tables = run("reid-bench", &known).unwrap();
    assert_eq!(tables.code, 0, "{}", tables.stderr);
    let document = read("docs/ACCURACY.md");
    let (_, written) = document
        .split_once(reid_tests::bench::methods::MARK)
        .unwrap();
    assert!(
        written == tables.stdout,
        "run ./reid bench methods --known --write docs/ACCURACY.md"
    );
}
