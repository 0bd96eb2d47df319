//! Runs the project's programs, which lie beside this one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Path of a program of the project (`reid-train`, ...): beside this program or, for a test, one folder up.
///
/// # Errors
/// If it has not been built.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program's own path")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not built: cargo build --release --workspace --bins"))
}

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// The last line of standard output as JSON.
    ///
    /// # Errors
    /// If it isn't JSON.
    pub fn json(&self) -> Result<Value> {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("not JSON: {line:?}"))
    }
}

/// Runs a program to its end, its output kept.
///
/// # Errors
/// If it can't be started.
pub fn run(name: &str, arguments: &[impl AsRef<OsStr>]) -> Result<Finished> {
    let output = Command::new(program(name)?)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    Ok(Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// As [`run`] with `--json`; the program must succeed.
///
/// # Errors
/// If it fails, with what it said.
pub fn json(name: &str, arguments: &[impl AsRef<OsStr>]) -> Result<Value> {
    let mut all: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    all.push(OsStr::new("--json"));
    let finished = run(name, &all)?;
    if finished.code != 0 {
        let said = finished.stderr.trim();
        bail!("{name} ended with exit code {}: {said}", finished.code);
    }
    finished.json().with_context(|| name.to_string())
}

/// Writes the card of a model made by others, with these options of `reid-export adopt`.
///
/// # Errors
/// If it is refused.
pub fn adopt(model: &Path, options: &[&str]) -> Result<()> {
    let mut arguments: Vec<&OsStr> = vec![OsStr::new("adopt"), model.as_os_str()];
    arguments.extend(options.iter().map(OsStr::new));
    json("reid-export", &arguments)?;
    Ok(())
}
