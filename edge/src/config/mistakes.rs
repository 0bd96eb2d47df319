//! Mistakes as they are collected, with the line and the value that each key was written with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::error::ConfigError;

/// Where a key or a table stands, and what is shown of its value.
struct Place {
    line: Option<usize>,
    written: Option<String>,
}

/// Collects mistakes of one file.
#[derive(Default)]
pub(super) struct Mistakes {
    file: PathBuf,
    places: BTreeMap<String, Place>,
    /// Lines whose content a syntax error has made doubtful.
    doubtful: BTreeSet<usize>,
    /// Lines of headers whose tables may have lost keys to a syntax error.
    incomplete: BTreeSet<usize>,
    /// Whether a header itself was broken: whole tables may be lost.
    lost: bool,
    /// Keys about which nothing is said because of a syntax error.
    unsaid: BTreeSet<String>,
    list: Vec<ConfigError>,
}

impl Mistakes {
    pub(super) fn of(file: PathBuf) -> Self {
        Mistakes {
            file,
            ..Mistakes::default()
        }
    }

    /// Nothing further is said about these lines: what the parser made of them may not be what stands there.
    pub(super) fn doubt(&mut self, lines: impl IntoIterator<Item = usize>) {
        self.doubtful.extend(lines);
    }

    /// The table under the header in this line may have lost keys.
    pub(super) fn doubt_table(&mut self, line: usize) {
        self.incomplete.insert(line);
    }

    /// Tables may be lost.
    pub(super) fn doubt_all(&mut self) {
        self.lost = true;
    }

    /// Notes where `key` stands.
    pub(super) fn place(&mut self, key: &str, line: Option<usize>, written: Option<String>) {
        self.places.insert(key.to_owned(), Place { line, written });
    }

    /// The line of a key, else of the table it would stand in.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(place) = self.places.get(key) {
                return place.line;
            }
            // "camera[1].name" -> "camera[1]"
            key = &key[..key.rfind('.')?];
        }
    }

    /// A syntax error.
    pub(super) fn syntax(&mut self, line: usize, reason: String) {
        self.push(Some(line), String::new(), None, reason);
    }

    /// A mistake of a key that was placed.
    pub(super) fn at(&mut self, key: impl Into<String>, reason: impl Into<String>) {
        let key = key.into();
        let line = self.line(&key);
        if line.is_some_and(|line| self.doubtful.contains(&line)) {
            self.unsaid.insert(key);
            return;
        }
        let written = self.places.get(&key).and_then(|p| p.written.clone());
        self.push(line, key, written, reason.into());
    }

    /// A key or a section that ought to be there.
    pub(super) fn missing(&mut self, key: impl Into<String>, reason: impl Into<String>) {
        let key = key.into();
        let lost = match self.line(&key) {
            Some(line) => self.incomplete.contains(&line),
            None => self.lost,
        };
        if lost {
            self.unsaid.insert(key);
        } else {
            self.at(key, reason);
        }
    }

    fn push(&mut self, line: Option<usize>, key: String, value: Option<String>, reason: String) {
        self.list.push(ConfigError {
            file: self.file.clone(),
            line,
            key,
            value,
            reason,
        });
    }

    /// Whether the key is known to be wrong or lost: nothing follows from its value.
    pub(super) fn about(&self, key: &str) -> bool {
        self.unsaid.contains(key) || self.list.iter().any(|m| m.key == key)
    }

    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them in the order of lines; those about what is not there at the end.
    pub(super) fn into_errors(mut self) -> Vec<ConfigError> {
        self.list.sort_by_key(|m| m.line.unwrap_or(usize::MAX));
        self.list
    }
}
