//! `[gallery]` of the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[gallery]`: where identities are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GalleryConfig {
    /// SQLite file, relative to the configuration's folder; `:memory:` keeps nothing.
    pub path: PathBuf,
    /// Reference embeddings kept per identity, 1 to 64. Cameras share the places evenly.
    pub max_prototypes: usize,
    /// Up to this many prototypes every search looks at all of them; above, at the HNSW graph.
    pub exact_below: usize,
}

impl Default for GalleryConfig {
    fn default() -> Self {
        GalleryConfig {
            path: PathBuf::from("gallery.db"),
            max_prototypes: 8,
            exact_below: 2_000,
        }
    }
}
