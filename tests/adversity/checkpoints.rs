//! A training that is stopped at its checkpoints, by a full disk or a kill, goes on as if nothing had happened.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use reid_tests::programs::program;
use serde_json::Value;

use super::{contains_all, data_set, fit, limited, metrics, model, said, text};

/// Epochs of the training that is disturbed.
const EPOCHS: usize = 8;
/// Where rows are logged, just before the checkpoint of their epoch.
const ROW: &str = "metrics.jsonl";

/// Data, and the same training undisturbed.
struct Undisturbed {
    dir: tempfile::TempDir,
    data: String,
    model: Vec<u8>,
}

fn undisturbed() -> &'static Undisturbed {
    static ONCE: OnceLock<Undisturbed> = OnceLock::new();
    ONCE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let data = data_set(&dir.path().join("set"));
        let run = dir.path().join("run");
        said(&limited("true", &disturbed(&data, &run, false)), 0);
        let model = model(&run);
        Undisturbed { dir, data, model }
    })
}

fn disturbed(data: &str, run: &Path, resume: bool) -> Vec<String> {
    let epochs = format!("train.epochs={EPOCHS}");
    let mut arguments = fit("supervised", data, run, &["--set", &epochs]);
    if resume {
        arguments.push("--resume".into());
    }
    arguments
}

fn start(arguments: &[String]) -> Child {
    Command::new(program("reid-train").unwrap())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills the program (SIGKILL) as soon as `now` says so; whether it came to that before the program ended.
fn kill_when(mut child: Child, now: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the moment never came");
        if now() {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    false
}

fn epochs_done(run: &Path) -> u64 {
    fs::read_to_string(run.join("state/progress.json"))
        .ok()
        .and_then(|text| serde_json::from_str::<Value>(&text).ok())
        .and_then(|progress| progress["epochs_done"].as_u64())
        .unwrap_or(0)
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (text(&path), fs::read(&path).unwrap()))
        .collect()
}

#[test]
fn a_full_disk_at_a_checkpoint_keeps_the_one_before() {
    let site = undisturbed();
    let run = site.dir.path().join("full");
    let first = start(&disturbed(&site.data, &run, false));
    assert!(kill_when(first, || epochs_done(&run) >= 1));
    let epoch = epochs_done(&run);
    let before = files(&run.join("state"));
    // A limit on the size of files stands for the full disk. Half of the network's, in blocks of 512 or 1024 bytes.
    let blocks = fs::metadata(run.join("state/net.safetensors"))
        .unwrap()
        .len()
        / 2048;
    let limits = format!("trap '' XFSZ; ulimit -f {blocks}");
    let said = said(&limited(&limits, &disturbed(&site.data, &run, true)), 1);
    contains_all(
        &said,
        &[
            &format!("checkpoint of epoch {} was not saved", epoch + 1),
            &format!("the one of epoch {epoch} is whole"),
            "state.new",
            "--resume",
        ],
    );
    assert_eq!(files(&run.join("state")), before);
    assert!(!run.join("state.new").exists(), "room is given back");
    super::said(&limited("true", &disturbed(&site.data, &run, true)), 0);
    assert_eq!(model(&run), site.model);
}

#[test]
fn a_kill_at_any_instant_loses_an_epoch_at_most() {
    let site = undisturbed();
    let run: PathBuf = site.dir.path().join("killed");
    let at = |name: &str| run.join(name);
    let rows = || {
        let text = fs::read_to_string(at("metrics.jsonl")).unwrap_or_default();
        text.lines().count() as u64
    };
    // What an earlier kill left behind is not what is waited for.
    let stamp = |name: &str| {
        let about = fs::metadata(at(name)).ok()?;
        Some((about.ino(), about.ctime(), about.ctime_nsec()))
    };
    // Before anything is trained; between row and checkpoint; while a checkpoint is written, early and late; between its
    // renames; at its end.
    let moments = [
        ("config.toml", 0),
        ("state.new", 0),
        (ROW, 0),
        ("state.new/net.safetensors", 0),
        ("state.new", 3000),
        ("state.new/progress.json", 0),
        ("state.old", 0),
        (ROW, 0),
        ("state.new", 8000),
        ("state.old", 300),
        ("state", 0),
        ("card.json", 0),
    ];
    let (mut kills, mut done) = (0, 0);
    for (name, micros) in moments {
        let before = stamp(name);
        let resume = at("config.toml").exists();
        let now = || {
            let new = stamp(name);
            let there = new.is_some()
                && new != before
                // The row before the first epoch, those with a checkpoint, and one without.
                && (name != ROW || rows() == 2 + epochs_done(&run));
            if there {
                std::thread::sleep(Duration::from_micros(micros));
            }
            there
        };
        if kill_when(start(&disturbed(&site.data, &run, resume)), now) {
            kills += 1;
        }
        let whole = epochs_done(&run);
        // Between the two renames the checkpoint lies under its second name.
        assert!(
            whole >= done || at("state.old").exists(),
            "{name}: {done} epochs became {whole}"
        );
        done = done.max(whole);
    }
    assert!(
        kills >= moments.len() / 2,
        "only {kills} of {} kills came in time",
        moments.len()
    );
    said(&limited("true", &disturbed(&site.data, &run, true)), 0);
    assert_eq!(model(&run), site.model, "as if nothing had happened");
    let epochs: Vec<u64> = metrics(&run)
        .iter()
        .map(|r| r["epoch"].as_u64().unwrap())
        .collect();
    assert_eq!(epochs, (0..=EPOCHS as u64).collect::<Vec<_>>());
    for litter in ["state.new", "state.old"] {
        assert!(!at(litter).exists(), "{litter} was left behind");
    }
}
