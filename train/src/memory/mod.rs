//! What a method remembers about the training set between clusterings.

pub mod camera_proxies;
pub mod centroids;
pub mod clusters;
pub mod instances;
mod rows;

pub use camera_proxies::{CameraProxies, camera_proxies};
pub use centroids::{MemoryError, centroids, normalized_centroids};
pub use clusters::{ClusterMemory, MemoryUpdate};
pub use instances::InstanceMemory;
