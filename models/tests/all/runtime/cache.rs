//! Optimised models in the cache: the same answers, faster, and never a wrong one.

use std::fs;
use std::path::{Path, PathBuf};

use reid_models::runtime::proto::DataType;
use reid_models::runtime::{CacheUse, RuntimeConfig, RuntimeError, Session};
use sha2::{Digest as _, Sha256};

use super::memory::convolutions;
use super::{SIZE, card, onnxruntime, opened};
use crate::tiny_onnx::Tiny;

/// A model of some layers, its cache folder and the configuration that names it.
struct Case {
    dir: tempfile::TempDir,
    path: PathBuf,
    config: RuntimeConfig,
    input: Vec<f32>,
    want: Vec<f32>,
}

impl Case {
    fn new(test: &str) -> Option<Self> {
        let plain = onnxruntime(test)?;
        let dir = tempfile::tempdir().unwrap();
        let path = convolutions(dir.path(), 1);
        let input = picture();
        let want = answer(&mut *opened(&path, &plain).unwrap(), &input);
        let config = RuntimeConfig {
            cache: Some(dir.path().join("deep/cache")),
            ..plain
        };
        Some(Case {
            dir,
            path,
            config,
            input,
            want,
        })
    }

    /// Opens it and checks that it answers as it does without a cache.
    fn open(&self) -> CacheUse {
        let mut session = opened(&self.path, &self.config).unwrap();
        assert_eq!(answer(&mut *session, &self.input), self.want);
        session.status().cache.unwrap()
    }

    fn entry(&self, used: &CacheUse) -> PathBuf {
        self.dir.path().join("deep/cache").join(&used.entry)
    }
}

fn picture() -> Vec<f32> {
    (0..3 * 32 * 32)
        .map(|k| ((k * 37) % 101) as f32 / 50.0 - 1.0)
        .collect()
}

fn answer(session: &mut dyn Session, input: &[f32]) -> Vec<f32> {
    session.run(1, input).unwrap().remove(0).1.data
}

#[test]
fn the_second_start_finds_the_optimised_model() {
    let Some(case) = Case::new("the_second_start_finds_the_optimised_model") else {
        return;
    };
    let first = case.open();
    assert!(!first.hit);
    assert!(
        first.entry.starts_with("optimised-tiny-"),
        "{}",
        first.entry
    );
    assert_eq!(first.files.len(), 1);
    assert!(first.bytes() > 1000);
    for _ in 0..2 {
        let again = case.open();
        assert!(again.hit);
        assert_eq!(
            (again.entry, again.files),
            (first.entry.clone(), first.files.clone())
        );
    }
    // No half-written or foreign files are left.
    let mut names: Vec<_> = fs::read_dir(case.entry(&first))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["manifest.json", "model.onnx"]);
}

#[test]
fn a_damaged_entry_is_made_anew() {
    let Some(case) = Case::new("a_damaged_entry_is_made_anew") else {
        return;
    };
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 7] = [
        ("cut short", |f| {
            let bytes = fs::read(f.join("model.onnx")).unwrap();
            fs::write(f.join("model.onnx"), &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("one bit of a weight", |f| {
            let mut bytes = fs::read(f.join("model.onnx")).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x40;
            fs::write(f.join("model.onnx"), bytes).unwrap();
        }),
        ("empty", |f| fs::write(f.join("model.onnx"), b"").unwrap()),
        ("gone", |f| fs::remove_file(f.join("model.onnx")).unwrap()),
        ("never finished", |f| {
            fs::remove_file(f.join("manifest.json")).unwrap()
        }),
        ("no manifest", |f| {
            fs::write(f.join("manifest.json"), b"[]").unwrap()
        }),
        // What the manifest vouches for and yet does not open.
        ("vouched for", |f| {
            let rubbish = b"this is no model";
            fs::write(f.join("model.onnx"), rubbish).unwrap();
            let text = fs::read_to_string(f.join("manifest.json")).unwrap();
            let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
            let hash = Sha256::digest(rubbish);
            let hash: String = hash.iter().map(|b| format!("{b:02x}")).collect();
            manifest["files"][0]["bytes"] = rubbish.len().into();
            manifest["files"][0]["sha256"] = hash.into();
            fs::write(f.join("manifest.json"), manifest.to_string()).unwrap();
        }),
    ];
    let whole = case.open();
    for (what, harm) in harms {
        assert!(case.open().hit, "before {what}");
        harm(&case.entry(&whole));
        let made = case.open();
        assert!(!made.hit, "{what}");
        assert_eq!(made.files, whole.files, "{what}");
    }
    assert!(case.open().hit);
}

#[test]
fn another_model_under_the_same_card_is_another_entry() {
    let Some(case) = Case::new("another_model_under_the_same_card_is_another_entry") else {
        return;
    };
    let first = case.open();
    // Same name, same card and fingerprint, other weights: as when somebody forgets the card beside a file.
    let plain = RuntimeConfig {
        cache: None,
        ..case.config.clone()
    };
    convolutions(case.dir.path(), 2);
    let want = answer(&mut *opened(&case.path, &plain).unwrap(), &case.input);
    assert_ne!(want, case.want);
    let case = Case { want, ..case };
    let second = case.open();
    assert!(!second.hit);
    assert_ne!(second.entry, first.entry);
    assert!(case.open().hit);
}

#[test]
fn a_cache_that_cannot_be_written_is_an_error() {
    let Some(case) = Case::new("a_cache_that_cannot_be_written_is_an_error") else {
        return;
    };
    let file = case.dir.path().join("file");
    fs::write(&file, b"").unwrap();
    for cache in [file.join("cache"), "/proc/reid".into()] {
        let config = RuntimeConfig {
            cache: Some(cache.clone()),
            ..case.config.clone()
        };
        let err = match opened(&case.path, &config) {
            Ok(session) => panic!("{}", session.description()),
            Err(err) => err,
        };
        assert!(matches!(err, RuntimeError::Cache { .. }), "{err}");
        let text = err.to_string();
        assert!(
            text.contains("runtime.cache") && text.contains(&cache.display().to_string()),
            "{text}"
        );
    }
}

#[test]
fn an_entry_that_cannot_be_written_costs_only_time() {
    let Some(case) = Case::new("an_entry_that_cannot_be_written_costs_only_time") else {
        return;
    };
    let used = case.open();
    // A file where the entry's folder should be: no process can make the folder, whoever runs it.
    fs::remove_dir_all(case.entry(&used)).unwrap();
    fs::write(case.entry(&used), b"in the way").unwrap();
    let mut session = opened(&case.path, &case.config).unwrap();
    assert_eq!(answer(&mut *session, &case.input), case.want);
    assert_eq!(session.status().cache, None);
}

#[test]
fn several_at_once_make_one_entry() {
    let Some(case) = Case::new("several_at_once_make_one_entry") else {
        return;
    };
    let hits: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| case.open().hit)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(hits.iter().filter(|hit| !**hit).count(), 1);
}

#[test]
fn a_model_that_does_not_open_is_not_the_caches_fault() {
    let Some(case) = Case::new("a_model_that_does_not_open_is_not_the_caches_fault") else {
        return;
    };
    let path = Tiny::new(&[0, 3, SIZE, SIZE], DataType::Float)
        .op("NoSuchOperator", &[])
        .write(case.dir.path(), &[0, 3], Some(&card(3)));
    let err = match opened(&path, &case.config) {
        Ok(session) => panic!("{}", session.description()),
        Err(err) => err,
    };
    assert!(matches!(err, RuntimeError::Load { .. }), "{err}");
}
