//! Whether all is well, in one answer for probes and people.

use serde::Serialize;

/// How it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is wrong.
    #[default]
    Ok,
    /// It works, but not as it was told to: somebody should look.
    Degraded,
    /// It does not do its work: restart it.
    Failing,
}

/// A model and what runs it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelHealth {
    /// `detector` or `embedder`.
    pub model: &'static str,
    /// What it is and what runs it, for people.
    pub description: String,
    /// The runtime's own words: engine, provider, precision, state; `null` where no model file is used.
    pub runtime: serde_json::Value,
    /// Whether another provider runs it than was asked for.
    pub fallback: bool,
}

/// A camera, shortly.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CameraHealth {
    /// Name.
    pub name: String,
    /// As in events.
    pub state: String,
    /// Why.
    pub detail: String,
    /// Frames analysed per second.
    pub fps: f32,
    /// Whether its clock is right, as far as it tells the time.
    pub clock_healthy: bool,
}

/// The answer of `/healthz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Health {
    /// The worst of everything below.
    pub status: Verdict,
    /// Whether models are open and at least one camera has shown a frame.
    pub ready: bool,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// Cameras.
    pub cameras: Vec<CameraHealth>,
    /// Models.
    pub models: Vec<ModelHealth>,
}

impl Health {
    /// Adds a problem.
    pub fn problem(&mut self, verdict: Verdict, what: impl Into<String>) {
        self.status = self.status.max(verdict);
        self.problems.push(what.into());
    }
}
