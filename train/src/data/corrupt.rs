//! Pictures that cannot be read: a few are left out and counted, many end the run.
//!
//! Which pictures stand in for them follows from the batch and the files alone, so that runs of one seed stay equal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::DataError;

/// Files that the error names.
const NAMED: usize = 20;

/// The unreadable pictures of a run, of all its sets together.
#[derive(Debug)]
pub struct Corrupt {
    limit: usize,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Every file, with what is wrong with it.
    all: BTreeMap<PathBuf, String>,
    /// Files since the last count.
    recent: BTreeSet<PathBuf>,
}

impl Corrupt {
    /// Allows `limit` different files.
    pub fn new(limit: usize) -> Self {
        Corrupt {
            limit,
            seen: Mutex::default(),
        }
    }

    /// Different files allowed.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Takes note of a file; warns the first time.
    ///
    /// # Errors
    /// [`DataError::Corrupt`] once there are more than allowed.
    pub fn note(&self, path: &Path, error: &DataError) -> Result<(), DataError> {
        let mut seen = self.seen();
        seen.recent.insert(path.to_path_buf());
        if seen.all.contains_key(path) {
            return Ok(());
        }
        let reason = error.to_string();
        tracing::warn!(
            "left out, number {} of at most {} (data.max_corrupt): {reason}",
            seen.all.len() + 1,
            self.limit
        );
        seen.all.insert(path.to_path_buf(), reason);
        if seen.all.len() <= self.limit {
            return Ok(());
        }
        let named: Vec<&str> = seen.all.values().take(NAMED).map(String::as_str).collect();
        let mut files = named.join("; ");
        if seen.all.len() > NAMED {
            files.push_str(&format!("; and {} more", seen.all.len() - NAMED));
        }
        Err(DataError::Corrupt {
            count: seen.all.len(),
            limit: self.limit,
            files,
        })
    }

    /// Different files noted since the last call.
    pub fn take_count(&self) -> usize {
        std::mem::take(&mut self.seen().recent).len()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing between lock and unlock leaves it half-changed.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pictures that may stand in for `batch[slot]`, the best first: those of its label that the batch doesn't hold yet, then those
/// that it holds; where its label has no other, the next label that the `planned` batch doesn't hold, so that a batch keeps its
/// groups; each from the picture on in a circle.
pub(super) fn substitutes(
    labels: &[Option<u32>],
    planned: &[usize],
    batch: &[usize],
    slot: usize,
) -> Vec<usize> {
    let bad = planned[slot];
    let (count, Some(own)) = (labels.len(), labels[bad]) else {
        return Vec::new();
    };
    let held: BTreeSet<u32> = planned.iter().filter_map(|i| labels[*i]).collect();
    let labels_count = labels.iter().flatten().max().map_or(1, |l| *l as usize + 1);
    let mut others: Vec<_> = (0..count)
        .filter(|i| *i != bad)
        .filter_map(|i| {
            let label = labels[i]?;
            let away = (label as usize + labels_count - own as usize) % labels_count;
            let rank = (
                away != 0 && held.contains(&label),
                away,
                batch.contains(&i),
                (i + count - bad) % count,
            );
            Some((rank, i))
        })
        .collect();
    others.sort_unstable();
    others.into_iter().map(|(_, i)| i).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn substitutes_are_of_the_same_label_and_new_where_possible() {
        // Labels:        0        0        0        1        1        none  2        2
        let labels = [0, 0, 0, 1, 1, 9, 2, 2].map(|l| (l != 9).then_some(l));
        // Picture 1 is bad, the batch holds 0 and 1 of label 0: 2 is new, then 0; then label 2, then label 1, which it holds.
        assert_eq!(
            substitutes(&labels, &[0, 1, 3, 4], &[0, 1, 3, 4], 1),
            [2, 0, 6, 7, 3, 4]
        );
        // After 2 has come in, it is no better than 0, and nearer.
        assert_eq!(
            substitutes(&labels, &[0, 1, 3, 4], &[0, 2, 3, 4], 1)[..2],
            [2, 0]
        );
        // A whole label is bad: both its places go to one other label.
        let first = substitutes(&labels, &[3, 4, 0, 1], &[3, 4, 0, 1], 0);
        assert_eq!(first[..3], [4, 6, 7]);
        let second = substitutes(&labels, &[3, 4, 0, 1], &[6, 4, 0, 1], 1);
        assert_eq!(second[..3], [3, 7, 6]);
    }

    #[test]
    fn files_count_once_and_the_limit_names_them() {
        let corrupt = Corrupt::new(2);
        let note = |name: &str| {
            let error = DataError::Malformed {
                path: name.into(),
                reason: "cut short".into(),
            };
            corrupt.note(Path::new(name), &error)
        };
        for name in ["a.jpg", "b.jpg", "a.jpg", "a.jpg"] {
            note(name).unwrap();
        }
        assert_eq!(corrupt.take_count(), 2);
        note("b.jpg").unwrap();
        assert_eq!((corrupt.take_count(), corrupt.take_count()), (1, 0));
        let message = note("c.jpg").unwrap_err().to_string();
        for part in [
            "3 pictures",
            "data.max_corrupt",
            "2",
            "a.jpg",
            "b.jpg",
            "c.jpg",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
}
