//! What a method remembers about the training set between clusterings.

pub mod centroids;

pub use centroids::{MemoryError, centroids, normalized_centroids};
