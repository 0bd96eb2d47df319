//! Whether the files of the models are still those that run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use reid_models::ModelCard;

use crate::config::EdgeConfig;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(5);

/// Length and time of change; `None` for a file that is not there.
type Mark = Option<(u64, Option<SystemTime>)>;

/// Models and cards as they were when the run began. A model runs from memory, so nothing happens to it when its file
/// changes; what would come after a restart is another matter, and better known today than at 3 a.m.
pub(super) struct ModelFiles {
    files: Vec<(&'static str, PathBuf, Mark)>,
    looked: Option<Instant>,
    changed: Vec<String>,
}

impl ModelFiles {
    pub(super) fn of(config: &EdgeConfig) -> Self {
        let models = [
            ("detector.model", config.detector.model.as_deref()),
            ("embedder.model", config.embedder.model.as_deref()),
        ];
        let files = models
            .into_iter()
            .filter_map(|(key, path)| Some((key, path?)))
            .flat_map(|(key, path)| [(key, path.to_owned()), (key, ModelCard::path_beside(path))])
            .map(|(key, path)| {
                let mark = mark(&path);
                (key, path, mark)
            })
            .collect();
        ModelFiles {
            files,
            looked: None,
            changed: Vec::new(),
        }
    }

    /// A sentence for every file that is not what it was.
    pub(super) fn changed(&mut self) -> &[String] {
        if self.looked.is_none_or(|at| at.elapsed() >= EVERY) {
            self.looked = Some(Instant::now());
            let changed: Vec<String> = self.files.iter().filter_map(sentence).collect();
            for new in changed.iter().filter(|c| !self.changed.contains(c)) {
                tracing::warn!("{new}");
            }
            self.changed = changed;
        }
        &self.changed
    }
}

fn mark(path: &Path) -> Mark {
    let meta = path.metadata().ok()?;
    Some((meta.len(), meta.modified().ok()))
}

fn sentence((key, path, was): &(&'static str, PathBuf, Mark)) -> Option<String> {
    let is = mark(path);
    let what = match (was, &is) {
        (Some(_), None) => "is gone",
        _ if *was != is => "has changed",
        _ => return None,
    };
    Some(format!(
        "{key}: {} {what} since the start: what was read then still runs; `reid-edge check` says whether a restart would work",
        path.display()
    ))
}
