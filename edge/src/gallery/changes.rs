//! Merging and forgetting: changes that reach every table.

use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

use crate::types::IdentityId;

use super::{Forgotten, Gallery, GalleryError, prototypes};

impl Gallery {
    /// Makes two identities one: everything of `from` becomes `into`'s, and the id `from` leads to `into` from now on.
    ///
    /// # Errors
    /// An unknown identity, or the database cannot be written. Call it inside [`Gallery::batch`].
    pub fn merge(&mut self, from: IdentityId, into: IdentityId) -> Result<(), GalleryError> {
        if from == into {
            return Ok(());
        }
        if !self.profiles.contains_key(&into) {
            return Err(GalleryError::Unknown(into));
        }
        let Some(gone) = self.profiles.remove(&from) else {
            return Err(GalleryError::Unknown(from));
        };
        let (a, b) = (from.to_string(), into.to_string());
        for sql in [
            "UPDATE prototype SET identity = ?2 WHERE identity = ?1",
            "UPDATE sighting SET identity = ?2 WHERE identity = ?1",
            "UPDATE merged SET into_id = ?2 WHERE into_id = ?1",
            "INSERT INTO merged VALUES(?1, ?2)",
            "UPDATE audit SET identity = ?2 WHERE identity = ?1",
            "INSERT INTO audit(action, identity, detail) VALUES('merge', ?2, ?1)",
        ] {
            self.execute(sql, params![a, b])?;
        }
        self.execute("DELETE FROM identity WHERE id = ?1", params![a])?;
        for prototype in &gone.prototypes {
            self.owner.insert(prototype.key, into);
        }
        if let Some(profile) = self.profiles.get_mut(&into) {
            profile.prototypes.extend(gone.prototypes);
        }
        self.shrink(into)
    }

    /// Brings an identity back to its allowance of prototypes.
    fn shrink(&mut self, identity: IdentityId) -> Result<(), GalleryError> {
        while let Some(profile) = self.profiles.get(&identity)
            && profile.prototypes.len() > self.max_prototypes
        {
            let candidates: Vec<prototypes::Candidate<'_>> = profile
                .prototypes
                .iter()
                .map(|p| prototypes::Candidate {
                    camera: &p.camera,
                    quality: p.quality,
                    embedding: &p.embedding,
                })
                .collect();
            let key = profile.prototypes[prototypes::most_redundant(&candidates)].key;
            self.remove_prototype(identity, key)?;
        }
        Ok(())
    }

    /// Drops an identity that holds nothing any more: no prototype, no sighting. Its id is not used again.
    pub(crate) fn drop_empty(&mut self, identity: IdentityId) -> Result<(), GalleryError> {
        self.execute(
            "DELETE FROM identity WHERE id = ?1
             AND NOT EXISTS(SELECT 1 FROM sighting WHERE identity = ?1)
             AND NOT EXISTS(SELECT 1 FROM prototype WHERE identity = ?1)",
            params![identity.to_string()],
        )?;
        if self.store.connection.changes() > 0 {
            self.profiles.remove(&identity);
        }
        Ok(())
    }

    /// Who `id` is now, after merges.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn resolve(&self, id: IdentityId) -> Result<Option<IdentityId>, GalleryError> {
        if self.profiles.contains_key(&id) {
            return Ok(Some(id));
        }
        let into: Option<String> = self
            .store
            .connection
            .query_row(
                "SELECT into_id FROM merged WHERE id = ?1",
                [id.to_string()],
                |row| row.get(0),
            )
            .optional()
            .map_err(|e| self.store.explain(e))?;
        Ok(into.and_then(|s| Uuid::parse_str(&s).ok()).map(IdentityId))
    }

    /// Erases an identity everywhere: prototypes, sightings, merged ids, audit lines, index; the freed pages are
    /// overwritten and the write-ahead log emptied. What stays is one audit line that somebody was forgotten.
    ///
    /// # Errors
    /// An unknown identity, the database cannot be written, or rows were left (never).
    pub fn forget(&mut self, identity: IdentityId) -> Result<Forgotten, GalleryError> {
        if !self.profiles.contains_key(&identity) {
            return Err(GalleryError::Unknown(identity));
        }
        let id = identity.to_string();
        let counted = self.batch(|g| {
            let prototypes = g.execute("DELETE FROM prototype WHERE identity = ?1", params![id])?;
            let sightings = g.execute("DELETE FROM sighting WHERE identity = ?1", params![id])?;
            // The ids that were merged into it are traces of it too.
            g.execute(
                "DELETE FROM audit WHERE identity = ?1 OR detail = ?1",
                params![id],
            )?;
            g.execute("DELETE FROM merged WHERE into_id = ?1", params![id])?;
            g.execute("DELETE FROM identity WHERE id = ?1", params![id])?;
            g.execute(
                "INSERT INTO audit(action, identity, detail) VALUES('forget', NULL, ?1)",
                params![format!("{prototypes} prototypes, {sightings} sightings")],
            )?;
            Ok::<_, GalleryError>((prototypes, sightings))
        })?;
        if let Some(profile) = self.profiles.remove(&identity) {
            for prototype in profile.prototypes {
                self.owner.remove(&prototype.key);
                self.index.remove(prototype.key);
            }
        }
        self.store
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|e| self.store.explain(e))?;
        let rows_left = self.rows_about(identity)?;
        if rows_left > 0 {
            return Err(GalleryError::NotForgotten {
                path: self.store.path.clone(),
                identity,
                rows: rows_left,
            });
        }
        Ok(Forgotten {
            prototypes: counted.0,
            sightings: counted.1,
            rows_left,
        })
    }

    /// Rows of any table that mention an identity.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn rows_about(&self, identity: IdentityId) -> Result<usize, GalleryError> {
        self.store
            .connection
            .query_row(
                "SELECT (SELECT count(*) FROM identity WHERE id = ?1)
                      + (SELECT count(*) FROM prototype WHERE identity = ?1)
                      + (SELECT count(*) FROM sighting WHERE identity = ?1)
                      + (SELECT count(*) FROM merged WHERE id = ?1 OR into_id = ?1)
                      + (SELECT count(*) FROM audit WHERE identity = ?1 OR detail = ?1)",
                [identity.to_string()],
                |row| row.get::<_, i64>(0),
            )
            .map(|n| n as usize)
            .map_err(|e| self.store.explain(e))
    }
}
