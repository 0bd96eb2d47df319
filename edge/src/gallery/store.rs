//! The database behind a gallery: layout, opening, and SQLite's errors in words that help.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::GalleryError;

const VERSION: i64 = 1;

// `seq` orders identities by age; AUTOINCREMENT never reuses one. Times are seconds (Unix time for live sources).
const LAYOUT: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE identity(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  created REAL NOT NULL,
  label TEXT);
CREATE TABLE prototype(
  key INTEGER PRIMARY KEY AUTOINCREMENT,
  identity TEXT NOT NULL REFERENCES identity(id) ON DELETE CASCADE,
  embedding BLOB NOT NULL,
  camera TEXT NOT NULL,
  time REAL NOT NULL,
  quality REAL NOT NULL,
  run TEXT NOT NULL,
  tracklet INTEGER NOT NULL);
CREATE INDEX prototype_identity ON prototype(identity);
CREATE TABLE sighting(
  run TEXT NOT NULL,
  tracklet INTEGER NOT NULL,
  identity TEXT NOT NULL REFERENCES identity(id) ON DELETE CASCADE,
  camera TEXT NOT NULL,
  start REAL NOT NULL,
  end REAL NOT NULL,
  decision TEXT NOT NULL,
  score REAL,
  PRIMARY KEY(run, tracklet)) WITHOUT ROWID;
CREATE INDEX sighting_identity ON sighting(identity, start);
CREATE TABLE merged(
  id TEXT PRIMARY KEY,
  into_id TEXT NOT NULL REFERENCES identity(id) ON DELETE CASCADE) WITHOUT ROWID;
CREATE INDEX merged_into ON merged(into_id);
CREATE TABLE audit(
  at INTEGER PRIMARY KEY AUTOINCREMENT,
  time TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
  action TEXT NOT NULL,
  identity TEXT,
  detail TEXT NOT NULL);
CREATE INDEX audit_identity ON audit(identity);
";

/// The open database and its name for messages.
pub(super) struct Store {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
}

impl Store {
    /// Opens or makes the database, checks that it is whole and belongs to `fingerprint` and `width`.
    pub(super) fn open(path: &Path, fingerprint: &str, width: usize) -> Result<Self, GalleryError> {
        let connection = if path == Path::new(":memory:") {
            Connection::open_in_memory()
        } else {
            Connection::open(path)
        };
        let explain = |error| explained(path, error);
        let mut store = Store {
            connection: connection.map_err(explain)?,
            path: path.to_path_buf(),
        };
        store.configure().map_err(explain)?;
        let intact: String = store
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(explain)?;
        if intact != "ok" {
            return Err(GalleryError::Corrupt {
                path: path.to_path_buf(),
                reason: intact,
            });
        }
        store.claim(fingerprint, width)?;
        Ok(store)
    }

    fn configure(&self) -> rusqlite::Result<()> {
        let c = &self.connection;
        c.busy_timeout(std::time::Duration::from_secs(5))?;
        c.pragma_update(None, "journal_mode", "WAL")?;
        // What was acknowledged survives a power cut, and what was erased is overwritten, not just unlinked.
        c.pragma_update(None, "synchronous", "FULL")?;
        c.pragma_update(None, "secure_delete", "ON")?;
        c.pragma_update(None, "foreign_keys", "ON")?;
        c.pragma_update(None, "trusted_schema", "OFF")
    }

    fn claim(&mut self, fingerprint: &str, width: usize) -> Result<(), GalleryError> {
        let path = self.path.clone();
        let explain = |error| explained(&path, error);
        let version: i64 = self
            .connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(explain)?;
        let tables: i64 = self
            .connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(explain)?;
        if version == 0 && tables == 0 {
            let tx = self.connection.transaction().map_err(explain)?;
            tx.execute_batch(LAYOUT).map_err(explain)?;
            for (key, value) in [
                ("fingerprint", fingerprint.to_owned()),
                ("width", width.to_string()),
            ] {
                tx.execute("INSERT INTO meta VALUES(?1, ?2)", params![key, value])
                    .map_err(explain)?;
            }
            tx.pragma_update(None, "user_version", VERSION)
                .map_err(explain)?;
            return tx.commit().map_err(explain);
        }
        if version == 0 {
            return Err(GalleryError::Corrupt {
                path,
                reason: "it is a database of another program".into(),
            });
        }
        if version != VERSION {
            return Err(GalleryError::Version {
                path,
                found: version,
                wanted: VERSION,
            });
        }
        let found = (self.meta("fingerprint")?, self.meta("width")?);
        if found != (fingerprint.to_owned(), width.to_string()) {
            let name = |f: &str, w: &str| {
                let head: String = f.chars().take(12).collect();
                format!("{head} (width {w})")
            };
            return Err(GalleryError::OtherModel {
                path,
                found: name(&found.0, &found.1),
                wanted: name(fingerprint, &width.to_string()),
            });
        }
        Ok(())
    }

    fn meta(&self, key: &str) -> Result<String, GalleryError> {
        self.connection
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
                row.get(0)
            })
            .optional()
            .map_err(|e| self.explain(e))?
            .ok_or_else(|| GalleryError::Corrupt {
                path: self.path.clone(),
                reason: format!("meta.{key} is missing"),
            })
    }

    pub(super) fn explain(&self, error: rusqlite::Error) -> GalleryError {
        explained(&self.path, error)
    }
}

/// SQLite's error as one of ours: whose fault it is, and what to do.
pub(super) fn explained(path: &Path, error: rusqlite::Error) -> GalleryError {
    let path = path.to_path_buf();
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            GalleryError::Access { path, reason }
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            GalleryError::Corrupt { path, reason }
        }
        Some(ErrorCode::DiskFull) => GalleryError::Full { path },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => GalleryError::Busy { path },
        _ => GalleryError::Sqlite { path, reason },
    }
}

/// Little-endian f32, as stored.
pub(super) fn to_blob(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The other way; `None` if the length does not fit.
pub(super) fn from_blob(blob: &[u8], width: usize) -> Option<Vec<f32>> {
    (blob.len() == width * 4).then(|| {
        blob.chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    })
}
