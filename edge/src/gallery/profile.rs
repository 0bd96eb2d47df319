//! What a gallery holds.

use std::sync::Arc;

use crate::types::{IdentityId, TrackletId};

use super::index::Key;

/// A reference embedding of an identity.
#[derive(Clone, Debug)]
pub struct Prototype {
    /// Row in the database.
    pub key: Key,
    /// Unit vector.
    pub embedding: Arc<[f32]>,
    /// Name of the camera.
    pub camera: String,
    /// Seconds.
    pub time: f64,
    /// 0..1.
    pub quality: f32,
    /// Which run of the program it comes from.
    pub run: String,
    /// Which tracklet of that run.
    pub tracklet: TrackletId,
}

/// What is known about an identity, without its sightings.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its id.
    pub id: IdentityId,
    /// Order of creation; lower is older.
    pub seq: i64,
    /// Seconds.
    pub created: f64,
    /// Name given by a person.
    pub label: Option<String>,
    /// Reference embeddings.
    pub prototypes: Vec<Prototype>,
}

/// One tracklet that was given an identity.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Sighting {
    /// Who.
    pub identity: IdentityId,
    /// Which run of the program.
    pub run: String,
    /// Which tracklet of that run.
    pub tracklet: TrackletId,
    /// Name of the camera.
    pub camera: String,
    /// First look, seconds.
    pub start: f64,
    /// Last look, seconds.
    pub end: f64,
    /// `new` or `matched`.
    pub decision: String,
    /// Similarity at the decision, if recognised.
    pub score: Option<f32>,
}

/// A new reference embedding.
#[derive(Clone, Copy, Debug)]
pub struct NewPrototype<'a> {
    /// Finite, not zero; normalised on the way in.
    pub embedding: &'a [f32],
    /// Name of the camera.
    pub camera: &'a str,
    /// Seconds.
    pub time: f64,
    /// 0..1.
    pub quality: f32,
    /// Tracklet of this run.
    pub tracklet: TrackletId,
}

/// Proof of an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Forgotten {
    /// Prototypes erased.
    pub prototypes: usize,
    /// Sightings erased.
    pub sightings: usize,
    /// Rows that still mention the identity, counted afterwards: always 0.
    pub rows_left: usize,
}
