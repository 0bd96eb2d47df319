//! Who is known: identities, their reference embeddings (prototypes) and where they were seen.
//!
//! One SQLite file (WAL, synchronous = FULL) is the truth: what a call acknowledged survives `kill -9`. Profiles and the
//! index in memory are caches of it, rebuilt when it is opened. A gallery belongs to one model: it is opened with the
//! model's fingerprint and refuses another's.

mod cache;
mod changes;
mod config;
mod error;
mod index;
mod profile;
mod prototypes;
mod store;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use reid_models::distance::{check_embedding, dot, normalize};
use rusqlite::params;
use uuid::Uuid;

use crate::types::{CameraIndex, IdentityId, TrackletId};

pub use config::GalleryConfig;
pub use error::GalleryError;
pub use index::{ExactScan, Graph, Index, Key};
pub use profile::{Forgotten, NewPrototype, Profile, Prototype, Sighting};
use store::Store;

/// The gallery of one model. One process writes to it.
pub struct Gallery {
    store: Store,
    width: usize,
    run: String,
    max_prototypes: usize,
    exact_below: usize,
    profiles: HashMap<IdentityId, Profile>,
    owner: HashMap<Key, IdentityId>,
    index: Box<dyn Index>,
    exact: bool,
}

impl Gallery {
    /// Opens or makes the gallery of the model `fingerprint`, whose embeddings have `width` numbers. A relative
    /// `config.path` is taken from `base`.
    ///
    /// # Errors
    /// An impossible value in `config`; a file that cannot be written, is damaged, is of another version or holds
    /// another model's embeddings.
    pub fn open(
        config: &GalleryConfig,
        base: &Path,
        fingerprint: &str,
        width: usize,
    ) -> Result<Self, GalleryError> {
        if !(1..=64).contains(&config.max_prototypes) {
            return Err(GalleryError::Config {
                key: "max_prototypes",
                value: config.max_prototypes.to_string(),
                remedy: "must be 1 to 64",
            });
        }
        let path = if config.path == Path::new(":memory:") {
            config.path.clone()
        } else {
            base.join(&config.path)
        };
        let mut gallery = Gallery {
            store: Store::open(&path, fingerprint, width)?,
            width,
            run: Uuid::new_v4().to_string(),
            max_prototypes: config.max_prototypes,
            exact_below: config.exact_below,
            profiles: HashMap::new(),
            owner: HashMap::new(),
            index: Box::new(ExactScan::default()),
            exact: true,
        };
        gallery.reload()?;
        Ok(gallery)
    }

    /// Numbers per embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The database file, or `:memory:`.
    pub fn path(&self) -> &Path {
        &self.store.path
    }

    /// Name of this run of the program in sightings and prototypes.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Identities known.
    pub fn len(&self) -> usize {
        self.profiles.len()
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.profiles.is_empty()
    }

    /// Prototypes of all identities.
    pub fn prototypes(&self) -> usize {
        self.index.len()
    }

    /// One identity.
    pub fn profile(&self, identity: IdentityId) -> Option<&Profile> {
        self.profiles.get(&identity)
    }

    /// Every identity, oldest first.
    pub fn list(&self) -> Vec<&Profile> {
        let mut all: Vec<&Profile> = self.profiles.values().collect();
        all.sort_unstable_by_key(|p| p.seq);
        all
    }

    /// Runs `change` as one transaction: all of it is kept, or, on an error, none, in memory either.
    ///
    /// # Errors
    /// Those of `change`, or of the commit.
    pub fn batch<T, E: From<GalleryError>>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.execute("BEGIN IMMEDIATE", params![])?;
        let result = match change(self) {
            Ok(value) => self
                .execute("COMMIT", params![])
                .map(|_| value)
                .map_err(E::from),
            Err(error) => Err(error),
        };
        if result.is_err() {
            // SQLite may have rolled back by itself (a full disk); the caches follow whatever is true now.
            if !self.store.connection.is_autocommit() {
                self.execute("ROLLBACK", params![])?;
            }
            self.reload()?;
        }
        result
    }

    /// Makes an identity.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn add_identity(
        &mut self,
        created: f64,
        label: Option<&str>,
    ) -> Result<IdentityId, GalleryError> {
        let id = IdentityId(Uuid::new_v4());
        self.execute(
            "INSERT INTO identity(id, created, label) VALUES(?1, ?2, ?3)",
            params![id.to_string(), created, label],
        )?;
        self.profiles.insert(
            id,
            Profile {
                id,
                seq: self.store.connection.last_insert_rowid(),
                created,
                label: label.map(str::to_owned),
                prototypes: Vec::new(),
            },
        );
        Ok(id)
    }

    /// Adds a reference embedding. When the identity has [`GalleryConfig::max_prototypes`] already, the camera with the
    /// most of them gives up the weaker one of its two most similar; false if that is the new one itself.
    ///
    /// # Errors
    /// Unknown identity, wrong width, not finite, zero, or the database cannot be written.
    pub fn add_prototype(
        &mut self,
        identity: IdentityId,
        new: NewPrototype<'_>,
    ) -> Result<bool, GalleryError> {
        let embedding: Arc<[f32]> = self.unit(new.embedding)?.into();
        let profile = self
            .profiles
            .get(&identity)
            .ok_or(GalleryError::Unknown(identity))?;
        if profile.prototypes.len() >= self.max_prototypes {
            let candidates: Vec<prototypes::Candidate<'_>> = profile
                .prototypes
                .iter()
                .map(|p| prototypes::Candidate {
                    camera: &p.camera,
                    quality: p.quality,
                    embedding: &p.embedding,
                })
                .chain([prototypes::Candidate {
                    camera: new.camera,
                    quality: new.quality,
                    embedding: &embedding,
                }])
                .collect();
            let victim = prototypes::most_redundant(&candidates);
            match profile.prototypes.get(victim).map(|p| p.key) {
                Some(key) => self.remove_prototype(identity, key)?,
                None => return Ok(false),
            }
        }
        self.execute(
            "INSERT INTO prototype(identity, embedding, camera, time, quality, run, tracklet)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                identity.to_string(),
                store::to_blob(&embedding),
                new.camera,
                new.time,
                new.quality,
                self.run,
                new.tracklet.0 as i64
            ],
        )?;
        let prototype = Prototype {
            key: self.store.connection.last_insert_rowid(),
            embedding,
            camera: new.camera.to_owned(),
            time: new.time,
            quality: new.quality,
            run: self.run.clone(),
            tracklet: new.tracklet,
        };
        self.owner.insert(prototype.key, identity);
        self.index
            .insert(prototype.key, Arc::clone(&prototype.embedding));
        if let Some(profile) = self.profiles.get_mut(&identity) {
            profile.prototypes.push(prototype);
        }
        self.grow();
        Ok(true)
    }

    /// Takes out every prototype a tracklet of this run gave to `identity`.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn remove_prototypes_of(
        &mut self,
        identity: IdentityId,
        tracklet: TrackletId,
    ) -> Result<(), GalleryError> {
        let keys: Vec<Key> = self.profiles.get(&identity).map_or_else(Vec::new, |p| {
            p.prototypes
                .iter()
                .filter(|p| p.tracklet == tracklet && p.run == self.run)
                .map(|p| p.key)
                .collect()
        });
        for key in keys {
            self.remove_prototype(identity, key)?;
        }
        Ok(())
    }

    fn remove_prototype(&mut self, identity: IdentityId, key: Key) -> Result<(), GalleryError> {
        self.execute("DELETE FROM prototype WHERE key = ?1", params![key])?;
        self.index.remove(key);
        self.owner.remove(&key);
        if let Some(profile) = self.profiles.get_mut(&identity) {
            profile.prototypes.retain(|p| p.key != key);
        }
        Ok(())
    }

    /// Up to `k` identities by their best prototype, best first; scores are cosines in -1..1.
    ///
    /// # Errors
    /// Wrong width, not finite, or zero.
    pub fn search(
        &self,
        embedding: &[f32],
        k: usize,
    ) -> Result<Vec<(IdentityId, f32)>, GalleryError> {
        let query = self.unit(embedding)?;
        Ok(self.nearest(&query, k, &|_| true))
    }

    /// As [`Gallery::search`] for a unit vector, over the prototypes `keep` lets through.
    pub(crate) fn nearest(
        &self,
        query: &[f32],
        k: usize,
        keep: &dyn Fn(Key) -> bool,
    ) -> Vec<(IdentityId, f32)> {
        // An identity has at most max_prototypes of them, so this many prototypes name at least k identities.
        let wanted = k.saturating_mul(self.max_prototypes).min(self.index.len());
        let mut best: Vec<(IdentityId, f32)> = Vec::new();
        for (key, score) in self.index.search(query, wanted, keep) {
            if let Some(identity) = self.owner.get(&key).copied()
                && best.iter().all(|(id, _)| *id != identity)
            {
                best.push((identity, score.clamp(-1.0, 1.0)));
                if best.len() == k {
                    break;
                }
            }
        }
        best
    }

    /// Notes (or corrects) which identity a tracklet of this run was given, and where and when it was seen.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn put_sighting(
        &mut self,
        identity: IdentityId,
        tracklet: TrackletId,
        camera: &str,
        start: f64,
        end: f64,
        decision: &str,
        score: Option<f32>,
    ) -> Result<(), GalleryError> {
        self.execute(
            "INSERT OR REPLACE INTO sighting VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                self.run,
                tracklet.0 as i64,
                identity.to_string(),
                camera,
                start,
                end,
                decision,
                score
            ],
        )?;
        Ok(())
    }

    /// Takes back the sighting of a tracklet of this run.
    pub(crate) fn withdraw_sighting(&mut self, tracklet: TrackletId) -> Result<(), GalleryError> {
        self.execute(
            "DELETE FROM sighting WHERE run = ?1 AND tracklet = ?2",
            params![self.run, tracklet.0 as i64],
        )?;
        Ok(())
    }

    /// Where an identity was seen, first sighting first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn sightings(&self, identity: IdentityId) -> Result<Vec<Sighting>, GalleryError> {
        let explain = |e| self.store.explain(e);
        let mut query = self
            .store
            .connection
            .prepare_cached(
                "SELECT run, tracklet, camera, start, end, decision, score FROM sighting
                 WHERE identity = ?1 ORDER BY start, tracklet",
            )
            .map_err(explain)?;
        let rows = query
            .query_map([identity.to_string()], |row| {
                Ok(Sighting {
                    identity,
                    run: row.get(0)?,
                    tracklet: TrackletId(row.get::<_, i64>(1)? as u64),
                    camera: row.get(2)?,
                    start: row.get(3)?,
                    end: row.get(4)?,
                    decision: row.get(5)?,
                    score: row.get(6)?,
                })
            })
            .map_err(explain)?;
        rows.collect::<Result<_, _>>().map_err(explain)
    }

    /// Lets the file grow no further, as a full disk would: for tests of what happens then.
    ///
    /// # Errors
    /// The database cannot be asked.
    #[doc(hidden)]
    pub fn limit_pages(&self) -> Result<(), GalleryError> {
        let connection = &self.store.connection;
        connection
            .query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0))
            .and_then(|pages| {
                connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            })
            .map_err(|e| self.store.explain(e))
    }

    /// The embedding as a unit vector of the right width.
    pub(crate) fn unit(&self, embedding: &[f32]) -> Result<Vec<f32>, GalleryError> {
        if embedding.len() != self.width {
            return Err(GalleryError::Width {
                found: embedding.len(),
                wanted: self.width,
            });
        }
        let refused = |reason: String| GalleryError::NotAnEmbedding { reason };
        check_embedding(embedding).map_err(|e| refused(e.to_string()))?;
        let mut unit = embedding.to_vec();
        normalize(&mut unit).map_err(|e| refused(e.to_string()))?;
        if (dot(&unit, &unit) - 1.0).abs() > 1e-3 {
            return Err(refused("all numbers are zero: it has no direction".into()));
        }
        Ok(unit)
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize, GalleryError> {
        self.store
            .connection
            .prepare_cached(sql)
            .and_then(|mut s| s.execute(values))
            .map_err(|e| self.store.explain(e))
    }
}

/// Name of a camera by its position.
pub(crate) fn camera_name(cameras: &[String], index: CameraIndex) -> &str {
    cameras.get(index).map_or("?", String::as_str)
}
