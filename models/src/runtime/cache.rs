//! A folder of what takes long to make: optimised models and TensorRT engines.
//!
//! Every entry is a folder of its own, named by the hash of everything its content depends on, with a manifest that
//! holds that "everything" in full and the size and SHA-256 of each file. The manifest is written last, so a folder
//! without one was never finished. An entry that does not fit its manifest in any respect is thrown away and made anew:
//! a cache may cost time, never an answer.
//!
//! A lock file per entry lets one process (or thread) build while the others wait for it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::RuntimeError;
use super::status::{CacheUse, CachedFile};
use crate::files::{self, FileError, Unfinished};

const MANIFEST: &str = "manifest.json";

/// The cache folder.
pub(super) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Makes the folder if it isn't there, and makes sure that it can be written to.
    pub(super) fn open(root: &Path) -> Result<Self, RuntimeError> {
        let refused = |source| RuntimeError::Cache { source };
        files::create_dir(root).map_err(refused)?;
        Unfinished::beside(&root.join("probe")).map_err(|error| {
            refused(FileError {
                action: "cannot write to",
                path: root.to_path_buf(),
                source: error.source,
            })
        })?;
        Ok(Cache {
            root: root.to_path_buf(),
        })
    }

    /// A folder that several entries may share, made if needed.
    pub(super) fn shared(&self, name: &str) -> Result<PathBuf, RuntimeError> {
        let folder = self.root.join(name);
        files::create_dir(&folder).map_err(|source| RuntimeError::Cache { source })?;
        Ok(folder)
    }

    /// The entry of a key, locked until it is dropped. Waits while somebody else builds it.
    pub(super) fn entry(&self, key: Key) -> Result<Entry, RuntimeError> {
        let name = key.name();
        let path = self.root.join(format!("{name}.lock"));
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|source| RuntimeError::Cache {
                source: FileError {
                    action: "cannot open",
                    path,
                    source,
                },
            })?;
        if let Err(error) = lock.lock() {
            // Some network file systems have no locks: two builders then do the work twice, and the manifest still tells
            // whether the result is whole.
            tracing::debug!(entry = name, %error, "cache entry cannot be locked");
        }
        Ok(Entry {
            folder: self.root.join(&name),
            name,
            fields: key.fields,
            _lock: lock,
        })
    }

    /// Whether an entry looks finished, without waiting for anybody and without reading its files.
    pub(super) fn has(&self, key: &Key) -> bool {
        let folder = self.root.join(key.name());
        read_manifest(&folder).is_ok_and(|m| m.is_some_and(|m| m.key == key.fields))
    }
}

/// All that an entry's content depends on.
#[derive(Clone)]
pub(super) struct Key {
    kind: &'static str,
    model: String,
    fields: Vec<(String, String)>,
}

impl Key {
    /// A key; `model` is a name for people.
    pub(super) fn new(kind: &'static str, model: &str, fields: Vec<(&str, String)>) -> Self {
        let readable = |c: char| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        };
        Key {
            kind,
            model: model.chars().take(32).map(readable).collect(),
            fields: fields
                .into_iter()
                .map(|(name, value)| (name.to_string(), value))
                .collect(),
        }
    }

    /// Name of the entry's folder: kind, model and 64 bits of the fields' hash.
    pub(super) fn name(&self) -> String {
        let mut hash = Sha256::new();
        for (name, value) in &self.fields {
            for text in [name, value] {
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text.as_bytes());
            }
        }
        let hash = hex(&hash.finalize());
        format!("{}-{}-{}", self.kind, self.model, &hash[..16])
    }
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    key: Vec<(String, String)>,
    files: Vec<Listed>,
}

#[derive(Serialize, Deserialize)]
struct Listed {
    name: String,
    bytes: u64,
    sha256: String,
}

/// What [`Entry::look`] finds.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// Nothing.
    Absent,
    /// All that the manifest lists, bit for bit.
    Whole,
    /// Something else; why.
    Damaged(String),
}

/// A locked entry.
pub(super) struct Entry {
    folder: PathBuf,
    name: String,
    fields: Vec<(String, String)>,
    _lock: File,
}

impl Entry {
    /// Its folder; it may not exist yet.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads every file of the entry and compares it with the manifest.
    pub(super) fn look(&self) -> Found {
        if !self.folder.exists() {
            return Found::Absent;
        }
        let manifest = match read_manifest(&self.folder) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Found::Damaged("it was never finished".into()),
            Err(reason) => return Found::Damaged(reason),
        };
        if manifest.key != self.fields {
            return Found::Damaged("its manifest is another entry's".into());
        }
        for listed in &manifest.files {
            match digest(&self.folder.join(&listed.name)) {
                Ok((bytes, sha256)) if bytes == listed.bytes && sha256 == listed.sha256 => {}
                Ok((bytes, _)) => {
                    return Found::Damaged(format!(
                        "{} ({bytes} bytes, once {}) is not what was written",
                        listed.name, listed.bytes
                    ));
                }
                Err(error) => return Found::Damaged(format!("{}: {error}", listed.name)),
            }
        }
        Found::Whole
    }

    /// As [`Entry::look`]; a damaged entry is thrown away, with a warning. Whether it is whole.
    pub(super) fn is_whole(&self) -> Result<bool, FileError> {
        match self.look() {
            Found::Whole => Ok(true),
            Found::Absent => Ok(false),
            Found::Damaged(reason) => {
                tracing::warn!(entry = self.name, reason, "cache entry is thrown away");
                self.clear()?;
                Ok(false)
            }
        }
    }

    /// Throws the entry away.
    pub(super) fn clear(&self) -> Result<(), FileError> {
        match fs::remove_dir_all(&self.folder) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FileError {
                action: "cannot remove",
                path: self.folder.clone(),
                source,
            }),
            _ => Ok(()),
        }
    }

    /// An empty folder for the entry.
    pub(super) fn begin(&self) -> Result<(), FileError> {
        self.clear()?;
        files::create_dir(&self.folder)
    }

    /// Declares what lies in the folder finished: syncs it and writes the manifest.
    pub(super) fn finish(&self) -> Result<(), FileError> {
        let mut listed = Vec::new();
        for CachedFile { name, .. } in self.files()? {
            let path = self.folder.join(&name);
            let fail = |source| FileError {
                action: "cannot read",
                path: path.clone(),
                source,
            };
            File::open(&path).and_then(|f| f.sync_all()).map_err(fail)?;
            let (bytes, sha256) = digest(&path).map_err(fail)?;
            listed.push(Listed {
                name,
                bytes,
                sha256,
            });
        }
        let manifest = Manifest {
            key: self.fields.clone(),
            files: listed,
        };
        let text = serde_json::to_string_pretty(&manifest).unwrap_or_default();
        files::write_atomic(&self.folder.join(MANIFEST), text.as_bytes())
    }

    /// The files that lie in the folder now, by name; without the manifest and without hidden ones.
    pub(super) fn files(&self) -> Result<Vec<CachedFile>, FileError> {
        let fail = |source| FileError {
            action: "cannot read",
            path: self.folder.clone(),
            source,
        };
        let mut found = Vec::new();
        for item in fs::read_dir(&self.folder).map_err(fail)? {
            let item = item.map_err(fail)?;
            let metadata = item.metadata().map_err(fail)?;
            let name = item.file_name().to_string_lossy().into_owned();
            if metadata.is_file() && name != MANIFEST && !name.starts_with('.') {
                found.push(CachedFile {
                    name,
                    bytes: metadata.len(),
                });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// For [`Status`](super::Status).
    pub(super) fn used(&self, hit: bool) -> CacheUse {
        CacheUse {
            entry: self.name.clone(),
            hit,
            files: self.files().unwrap_or_default(),
        }
    }
}

fn read_manifest(folder: &Path) -> Result<Option<Manifest>, String> {
    match fs::read(folder.join(MANIFEST)) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| format!("{MANIFEST}: {e}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{MANIFEST}: {error}")),
    }
}

/// Size and SHA-256 (hex) of a file, read piece by piece.
pub(super) fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, hex(&hash.finalize()))),
            n => {
                hash.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, Instant};

    use super::*;

    fn key(value: &str) -> Key {
        Key::new("test", "My Model/1", vec![("model", value.into())])
    }

    fn filled(cache: &Cache) -> Entry {
        let entry = cache.entry(key("a")).unwrap();
        entry.begin().unwrap();
        fs::write(entry.folder().join("engine"), b"0123456789").unwrap();
        fs::write(entry.folder().join(".half.partial"), b"01").unwrap();
        entry.finish().unwrap();
        entry
    }

    #[test]
    fn a_name_follows_every_field_and_nothing_else() {
        assert_eq!(key("a").name(), key("a").name());
        assert_ne!(key("a").name(), key("b").name());
        assert!(key("a").name().starts_with("test-my-model-1-"));
        // The same letters, cut elsewhere.
        let cut = |a: &str, b: &str| Key::new("k", "m", vec![(a, b.into())]).name();
        assert_ne!(cut("ab", "c"), cut("a", "bc"));
    }

    #[test]
    fn an_entry_is_whole_or_thrown_away() {
        type Harm = fn(&Path);
        let harms: [(&str, Harm); 6] = [
            ("cut short", |f| {
                fs::write(f.join("engine"), b"01234").unwrap()
            }),
            ("one bit", |f| {
                fs::write(f.join("engine"), b"0123456788").unwrap()
            }),
            ("missing file", |f| {
                fs::remove_file(f.join("engine")).unwrap()
            }),
            ("never finished", |f| {
                fs::remove_file(f.join(MANIFEST)).unwrap()
            }),
            ("broken manifest", |f| {
                fs::write(f.join(MANIFEST), b"{").unwrap()
            }),
            ("another key", |f| {
                let text = fs::read_to_string(f.join(MANIFEST)).unwrap();
                fs::write(f.join(MANIFEST), text.replace("\"a\"", "\"b\"")).unwrap();
            }),
        ];
        for (case, harm) in harms {
            let dir = tempfile::tempdir().unwrap();
            let cache = Cache::open(&dir.path().join("deep/cache")).unwrap();
            let entry = filled(&cache);
            assert_eq!(entry.look(), Found::Whole);
            assert!(cache.has(&key("a")) && !cache.has(&key("b")));
            harm(entry.folder());
            assert!(matches!(entry.look(), Found::Damaged(_)), "{case}");
            assert!(!entry.is_whole().unwrap());
            assert_eq!(entry.look(), Found::Absent, "{case}");
            assert!(!cache.has(&key("a")));
        }
    }

    #[test]
    fn hidden_files_are_not_part_of_an_entry() {
        let dir = tempfile::tempdir().unwrap();
        let used = filled(&Cache::open(dir.path()).unwrap()).used(true);
        let names: Vec<&str> = used.files.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["engine"]);
        assert_eq!(used.bytes(), 10);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_that_names_key_and_folder() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        for place in [file.join("cache"), "/proc/reid-cache".into()] {
            let err = match Cache::open(&place) {
                Ok(_) => panic!("{} was taken", place.display()),
                Err(err) => err.to_string(),
            };
            assert!(
                err.contains("runtime.cache") && err.contains(&place.display().to_string()),
                "{err}"
            );
        }
    }

    #[test]
    fn threads_may_open_one_folder_at_once() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|_| drop(Cache::open(dir.path()).unwrap())));
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_second_waits_for_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let first = cache.entry(key("a")).unwrap();
        let wait = Duration::from_millis(200);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let begun = Instant::now();
                let entry = cache.entry(key("a")).unwrap();
                (begun.elapsed(), entry.look())
            });
            // Another key waits for nobody.
            drop(cache.entry(key("b")).unwrap());
            std::thread::sleep(wait);
            first.begin().unwrap();
            fs::write(first.folder().join("engine"), b"0").unwrap();
            first.finish().unwrap();
            drop(first);
            let (waited, found) = second.join().unwrap();
            assert!(waited > wait / 2, "{waited:?}");
            assert_eq!(found, Found::Whole);
        });
    }
}
