//! Errors of usage, and files that are written whole or not at all.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// An argument that cannot be used: the command exits with code 2.
#[derive(Debug)]
pub struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error that names the option, the value it was given and the values it takes.
pub fn usage(option: &str, value: &str, allowed: &str) -> anyhow::Error {
    Usage(format!("{option} {value}: not allowed; allowed: {allowed}")).into()
}

/// Writes a file so that a reader sees all of it or nothing: temporary file beside it, sync, rename.
///
/// # Errors
/// When the folder cannot be written or the disk is full; the message names the file.
pub fn write_atomic(file: &Path, bytes: &[u8]) -> Result<()> {
    let mut partial = file.as_os_str().to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(partial);
    let written = fs::File::create(&partial)
        .and_then(|mut handle| {
            handle.write_all(bytes)?;
            handle.sync_all()
        })
        .and_then(|()| fs::rename(&partial, file));
    if let Err(error) = written {
        let _ = fs::remove_file(&partial);
        return Err(error).with_context(|| {
            format!(
                "{}: cannot be written; check the folder's rights and the free space",
                file.display()
            )
        });
    }
    Ok(())
}

/// A folder that fills beside its place and appears there when it is whole.
///
/// Dropped before [`Staging::finish`], it removes what it wrote.
#[derive(Debug)]
pub struct Staging {
    out: PathBuf,
    partial: PathBuf,
    done: bool,
}

/// The file that tells a world's folder from any other.
pub const TRUTH_FILE: &str = "world.json";

impl Staging {
    /// Prepares to write the folder `out`.
    ///
    /// # Errors
    /// When `out` holds something that is not a world (nothing of it is touched) or cannot be created.
    pub fn new(out: &Path) -> Result<Self> {
        if out.is_file() {
            bail!("--out {}: is a file; name a folder", out.display());
        }
        let used = out.is_dir() && fs::read_dir(out).is_ok_and(|mut entries| entries.any(|_| true));
        if used && !out.join(TRUTH_FILE).is_file() {
            bail!(
                "--out {}: has files in it and no {TRUTH_FILE}, so it is not a world and is left alone; name a new or empty folder",
                out.display()
            );
        }
        let name = out
            .file_name()
            .map_or_else(|| "world".into(), |n| n.to_string_lossy().into_owned());
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let partial = parent.join(format!(".{name}.partial-{}", std::process::id()));
        fs::create_dir_all(&partial).with_context(|| {
            format!(
                "--out {}: cannot be created; check the rights of {}",
                out.display(),
                parent.display()
            )
        })?;
        Ok(Self {
            out: out.to_path_buf(),
            partial,
            done: false,
        })
    }

    /// Where to write now.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Puts the folder in its place, replacing an older world there.
    ///
    /// # Errors
    /// When the older world cannot be removed or the folder cannot be renamed.
    pub fn finish(mut self) -> Result<()> {
        let context = || format!("{}: cannot be replaced", self.out.display());
        if self.out.is_dir() {
            fs::remove_dir_all(&self.out).with_context(context)?;
        }
        fs::rename(&self.partial, &self.out).with_context(context)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_unfinished_world_leaves_nothing_and_a_finished_one_replaces_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("w");
        let staging = Staging::new(&out).unwrap();
        fs::write(staging.path().join("a"), "1").unwrap();
        drop(staging);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        for text in ["old", "new"] {
            let staging = Staging::new(&out).unwrap();
            fs::write(staging.path().join(TRUTH_FILE), text).unwrap();
            staging.finish().unwrap();
        }
        assert_eq!(fs::read_to_string(out.join(TRUTH_FILE)).unwrap(), "new");
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let message = Staging::new(dir.path()).unwrap_err().to_string();
        assert!(message.contains("left alone"), "{message}");
        assert!(dir.path().join("thesis.tex").is_file());
    }

    #[test]
    fn an_atomic_write_into_a_missing_folder_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("no/such/x.json");
        let message = format!("{:#}", write_atomic(&file, b"1").unwrap_err());
        assert!(
            message.contains("x.json") && message.contains("rights"),
            "{message}"
        );
    }
}
