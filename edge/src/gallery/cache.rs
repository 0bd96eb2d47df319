//! What is kept in memory, filled from the database.

use std::collections::HashMap;
use std::sync::Arc;

use reid_models::distance::dot;
use uuid::Uuid;

use crate::types::{IdentityId, TrackletId};

use super::index::{ExactScan, Graph, Index, Key};
use super::{Gallery, GalleryError, Profile, Prototype, store};

impl Gallery {
    /// Fills the caches from the database.
    pub(super) fn reload(&mut self) -> Result<(), GalleryError> {
        let explain = |e| self.store.explain(e);
        let corrupt = |reason: &str| GalleryError::Corrupt {
            path: self.store.path.clone(),
            reason: reason.to_owned(),
        };
        let mut profiles = HashMap::new();
        let mut query = self
            .store
            .connection
            .prepare_cached("SELECT seq, id, created, label FROM identity")
            .map_err(explain)?;
        let mut rows = query.query([]).map_err(explain)?;
        while let Some(row) = rows.next().map_err(explain)? {
            let id: String = row.get(1).map_err(explain)?;
            let id = Uuid::parse_str(&id)
                .map(IdentityId)
                .map_err(|_| corrupt("an identity without a proper id"))?;
            profiles.insert(
                id,
                Profile {
                    id,
                    seq: row.get(0).map_err(explain)?,
                    created: row.get(2).map_err(explain)?,
                    label: row.get(3).map_err(explain)?,
                    prototypes: Vec::new(),
                },
            );
        }
        drop(rows);
        drop(query);
        let mut owner = HashMap::new();
        let mut query = self
            .store
            .connection
            .prepare_cached(
                "SELECT key, identity, embedding, camera, time, quality, run, tracklet FROM prototype ORDER BY key",
            )
            .map_err(explain)?;
        let mut rows = query.query([]).map_err(explain)?;
        while let Some(row) = rows.next().map_err(explain)? {
            let id: String = row.get(1).map_err(explain)?;
            let blob: Vec<u8> = row.get(2).map_err(explain)?;
            let embedding = store::from_blob(&blob, self.width)
                // Checked, not scaled again: a second rounding would answer otherwise than before the restart.
                .filter(|v| self.unit(v).is_ok() && (dot(v, v) - 1.0).abs() < 1e-3)
                .ok_or_else(|| corrupt("a prototype whose embedding is damaged"))?;
            let profile = Uuid::parse_str(&id)
                .ok()
                .and_then(|id| profiles.get_mut(&IdentityId(id)))
                .ok_or_else(|| corrupt("a prototype of nobody"))?;
            let prototype = Prototype {
                key: row.get(0).map_err(explain)?,
                embedding: embedding.into(),
                camera: row.get(3).map_err(explain)?,
                time: row.get(4).map_err(explain)?,
                quality: row.get(5).map_err(explain)?,
                run: row.get(6).map_err(explain)?,
                tracklet: TrackletId(row.get::<_, i64>(7).map_err(explain)? as u64),
            };
            owner.insert(prototype.key, profile.id);
            profile.prototypes.push(prototype);
        }
        drop(rows);
        drop(query);
        self.profiles = profiles;
        self.owner = owner;
        self.exact = true;
        let mut scan = ExactScan::default();
        for (key, vector) in self.vectors() {
            scan.insert(key, vector);
        }
        self.index = Box::new(scan);
        self.grow();
        Ok(())
    }

    /// All vectors, oldest prototype first.
    fn vectors(&self) -> Vec<(Key, Arc<[f32]>)> {
        let mut all: Vec<(Key, Arc<[f32]>)> = self
            .profiles
            .values()
            .flat_map(|p| &p.prototypes)
            .map(|p| (p.key, Arc::clone(&p.embedding)))
            .collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }

    /// Goes over to the graph when there are too many prototypes to look at each.
    pub(super) fn grow(&mut self) {
        if self.exact && self.index.len() > self.exact_below {
            self.index = Box::new(Graph::build(self.vectors()));
            self.exact = false;
        }
    }
}
