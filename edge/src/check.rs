//! `reid-edge check`: is everything ready on this very machine, before anybody relies on it?
//!
//! Mistakes of the configuration don't stop it: they are told, and everything that can still be tried is tried.

mod advice;
mod cameras;
mod gstreamer;
mod machine;
mod models;
mod page;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::config::{ConfigError, ConfigErrors, EdgeConfig};

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Ready.
    Ok,
    /// Good to know.
    Info,
    /// Works, but may not for long, or not for every camera.
    Warn,
    /// Not ready.
    Fail,
}

/// One thing looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What: `camera NAME`, `detector`, `embedder`, `probe`, `gallery`, `page`, ...
    pub what: String,
    /// Whether it is ready: every level but [`Level::Fail`].
    pub ok: bool,
    /// How it is to be taken.
    pub level: Level,
    /// What was found, or what is wrong and what to do.
    pub detail: String,
}

impl Finding {
    fn new(what: impl Into<String>, level: Level, detail: impl Into<String>) -> Self {
        Finding {
            what: what.into(),
            ok: level != Level::Fail,
            level,
            detail: detail.into(),
        }
    }

    /// Ready, or not ready and why.
    fn of(what: impl Into<String>, outcome: Result<String, String>) -> Self {
        match outcome {
            Ok(detail) => Finding::new(what, Level::Ok, detail),
            Err(detail) => Finding::new(what, Level::Fail, detail),
        }
    }
}

/// All findings.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether the configuration has no mistake and everything is ready.
    pub ok: bool,
    /// Mistakes of the configuration, in the file's order.
    pub errors: Vec<ConfigError>,
    /// What was looked at, in that order.
    pub findings: Vec<Finding>,
    /// Worst cosine between this device's probe embeddings and the trainer's; absent if the model carries no probe.
    pub min_cosine: Option<f32>,
}

/// Looks at everything a configuration file names; each camera gets `patience` to show a frame.
///
/// # Errors
/// If the file cannot be read at all.
pub fn check_file(file: &Path, patience: Duration) -> Result<Report, ConfigErrors> {
    let (config, errors) = EdgeConfig::load_lenient(file)?;
    Ok(check(&config, errors, patience))
}

/// Looks at everything that is left of a configuration with these mistakes; each camera gets `patience` to show a frame.
pub fn check(config: &EdgeConfig, errors: Vec<ConfigError>, patience: Duration) -> Report {
    let mut findings = gstreamer::look(config);
    let (of_cameras, sizes) = cameras::look(config, patience);
    findings.extend(of_cameras);
    let (of_models, min_cosine) = models::look(config);
    findings.extend(of_models);
    findings.extend(machine::look(config));
    findings.extend(page::look(config));
    findings.extend(advice::look(config));
    findings.extend(advice::shape(config, &sizes));
    Report {
        ok: errors.is_empty() && findings.iter().all(|f| f.ok),
        errors,
        findings,
        min_cosine,
    }
}
