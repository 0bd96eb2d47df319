//! What runs the models now, written by the threads that run them and read by whoever asks after health.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reid_models::runtime::Status;

use crate::health::ModelHealth;

/// How often a thread looks at its session.
const EVERY: Duration = Duration::from_secs(1);

/// Shared by all threads; a clone is the same board.
#[derive(Clone, Default)]
pub(super) struct Board(Arc<Mutex<BTreeMap<&'static str, ModelHealth>>>);

impl Board {
    /// Writes what is known of a model (`detector`, `embedder`).
    pub(super) fn write(&self, model: &'static str, description: String, status: Option<Status>) {
        let fallback = status.as_ref().is_some_and(|s| s.fallback);
        let runtime = status.map_or(serde_json::Value::Null, |s| {
            // A struct of words and numbers always becomes JSON.
            serde_json::to_value(s).unwrap_or_default()
        });
        let health = ModelHealth {
            model,
            description,
            runtime,
            fallback,
        };
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        models.insert(model, health);
    }

    /// Everything written last.
    pub(super) fn read(&self) -> Vec<ModelHealth> {
        let models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        models.values().cloned().collect()
    }
}

/// Whether it is time to write again.
#[derive(Default)]
pub(super) struct Due(Option<Instant>);

impl Due {
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= EVERY);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}
