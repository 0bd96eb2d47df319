//! Writing files so that a reader never sees half of one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

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
    let mut unfinished = Unfinished::beside(path)?;
    unfinished.fill(fill)?;
    unfinished.keep()
}

/// A file that is written beside its place, under a name that nobody else has, and removed again unless it is kept. Of several
/// that are kept in one place the last stays, whole.
#[derive(Debug)]
pub struct Unfinished {
    file: NamedTempFile,
    place: PathBuf,
}

impl Unfinished {
    /// An empty one for `place`.
    ///
    /// # Errors
    /// [`FileError`] naming `place`.
    pub fn beside(place: &Path) -> Result<Self, FileError> {
        let fail = |source| cannot_write(place, source);
        let name = place.file_name().ok_or_else(|| {
            fail(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path names no file",
            ))
        })?;
        let prefix = format!(".{}.", name.to_string_lossy());
        // With the permissions that the umask allows, not the private ones of `tempfile`; and the system's error as it is, without
        // the hidden name that `tempfile` adds.
        let mut refused = None;
        let made = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".partial")
            .make_in(folder_of(place), |hidden| {
                File::create_new(hidden).inspect_err(|e| refused = e.raw_os_error())
            });
        Ok(Unfinished {
            file: made.map_err(|e| fail(refused.map_or(e, io::Error::from_raw_os_error)))?,
            place: place.to_path_buf(),
        })
    }

    /// Writes into it.
    ///
    /// # Errors
    /// [`FileError`] naming the place, for an error of `write`.
    pub fn fill(
        &mut self,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), FileError> {
        write(self.file.as_file_mut()).map_err(|source| cannot_write(&self.place, source))
    }

    /// Where it lies now.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Syncs it and puts it in its place, over what is there.
    ///
    /// # Errors
    /// [`FileError`] naming the place; the old file, if any, is untouched.
    pub fn keep(self) -> Result<(), FileError> {
        let synced = self.file.as_file().sync_all();
        let kept = synced.and_then(|()| Ok(self.file.persist(&self.place)?));
        kept.map_err(|source| cannot_write(&self.place, source))?;
        // The rename itself reaches the disk with its folder; some file systems refuse to sync a folder, which loses nothing.
        if let Ok(folder) = File::open(folder_of(&self.place)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

fn cannot_write(path: &Path, source: io::Error) -> FileError {
    FileError {
        action: "cannot write",
        path: path.to_path_buf(),
        source,
    }
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
    fn a_missing_folder_is_an_error_that_names_the_file_and_not_the_hidden_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone/card.json");
        let error = write_atomic(&path, b"new").unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
        let text = error.to_string();
        assert!(
            text.contains("gone/card.json") && !text.contains("partial"),
            "{text}"
        );
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
