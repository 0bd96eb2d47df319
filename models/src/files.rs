//! Writing files so that a reader never sees half of one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file that could not be read or written; names the path.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}: {source}")]
pub struct FileError {
    /// "cannot write", "cannot read", ...
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Writes `bytes` to `path`: into a temporary file in the same folder, synced, then renamed over `path`.
/// On any failure (unwritable folder, full disk) the old file, if any, is untouched and the temporary one removed.
///
/// # Errors
/// [`FileError`] naming the path.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// As [`write_atomic`], for content that is produced while writing.
///
/// # Errors
/// [`FileError`] naming the path, also for an error of `fill`.
pub fn write_atomic_with(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), FileError> {
    let fail = |source| FileError {
        action: "cannot write",
        path: path.to_path_buf(),
        source,
    };
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let name = path
        .file_name()
        .ok_or_else(|| {
            fail(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path names no file",
            ))
        })?
        .to_string_lossy();
    // Of several who write the same file the last rename wins, whole.
    let temporary = folder.join(passing_name(&name));
    let written = File::create(&temporary).and_then(|mut file| {
        fill(&mut file)?;
        file.sync_all()
    });
    let result = written.and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = result {
        // Best effort: the first error is the one worth reporting.
        let _ = fs::remove_file(&temporary);
        return Err(fail(source));
    }
    // The rename itself reaches the disk with its folder; some file systems refuse to sync a folder, which loses nothing.
    if let Ok(dir) = File::open(folder) {
        let _ = dir.sync_all();
    }
    Ok(())
}

/// A hidden name that no other call has, in this process or another: for a file that is soon renamed or removed.
pub(crate) fn passing_name(stem: &str) -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    format!(".{stem}.{}-{call}.partial", std::process::id())
}

/// Reads a whole file.
///
/// # Errors
/// [`FileError`] naming the path.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(|source| FileError {
        action: "cannot read",
        path: path.to_path_buf(),
        source,
    })
}

/// Reads a whole file as UTF-8.
///
/// # Errors
/// [`FileError`] naming the path.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(|source| FileError {
        action: "cannot read",
        path: path.to_path_buf(),
        source,
    })
}

/// Makes a folder and its parents.
///
/// # Errors
/// [`FileError`] naming the path.
pub fn create_dir(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(|source| FileError {
        action: "cannot make the folder",
        path: path.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("card.json");
        write_atomic(&path, b"old").unwrap();
        let full = write_atomic_with(&path, |file| {
            file.write_all(b"ne")?;
            Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "no space left on device",
            ))
        });
        assert!(full.unwrap_err().to_string().contains("card.json"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn threads_that_write_one_file_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("card.json");
        let write = |text: [u8; 9]| {
            (0..100).for_each(|_| write_atomic(&path, &text).unwrap());
        };
        std::thread::scope(|scope| {
            for digit in b'1'..=b'4' {
                let write = &write;
                scope.spawn(move || write([digit; 9]));
            }
        });
        let text = fs::read(&path).unwrap();
        assert!(
            text.len() == 9 && text.iter().all(|b| *b == text[0]),
            "{text:?}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_is_an_error_that_names_the_file() {
        // /dev/full refuses every byte as a full disk does.
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .and_then(|mut f| f.write_all(b"x"));
        assert!(full.is_err());
        let err = write_atomic(Path::new("/proc/nowhere/file"), b"x").unwrap_err();
        assert!(err.to_string().contains("/proc/nowhere/file"), "{err}");
    }
}
