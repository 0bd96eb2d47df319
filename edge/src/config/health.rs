//! `[health]` of the configuration.

use serde::{Deserialize, Serialize};

/// `[health]`: what is reported as unhealthy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// A camera whose clock is farther from this machine's is unhealthy, seconds, 0 to 3600.
    pub clock_offset_secs: f64,
    /// A camera analysed more slowly is degraded, frames per second, 0 to 240; 0: never.
    pub min_fps: f64,
    /// A pipeline that makes no progress for so many seconds while frames arrive is unhealthy, 1 to 3600.
    pub hung_secs: f64,
}

impl Default for HealthConfig {
    fn default() -> Self {
        HealthConfig {
            clock_offset_secs: 2.0,
            min_fps: 0.0,
            hung_secs: 30.0,
        }
    }
}
