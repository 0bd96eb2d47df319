//! What is wrong with a configuration, and what to write instead.

use std::path::{Path, PathBuf};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {file}: {source}")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, or a key or a value is unknown.
    #[error("{file}, line {line}{key}: {reason}")]
    Syntax {
        /// The file.
        file: PathBuf,
        /// 1-based line.
        line: usize,
        /// ", section.key", or nothing where none can be named.
        key: String,
        /// What, and the remedy.
        reason: String,
    },
    /// A value is out of its range or contradicts another.
    #[error("{file}: {key} = {value}: {remedy}")]
    Value {
        /// The file.
        file: PathBuf,
        /// `section.key`.
        key: String,
        /// The value as given.
        value: String,
        /// What it may be.
        remedy: String,
    },
}

impl ConfigError {
    /// A value error.
    pub fn value(file: &Path, key: &str, value: String, remedy: String) -> Self {
        ConfigError::Value {
            file: file.to_path_buf(),
            key: key.to_owned(),
            value,
            remedy,
        }
    }

    /// Turns the parser's error into one that names line, key and the nearest allowed word.
    /// Only the key is quoted from the file, never the line: it may hold a password.
    pub fn from_toml(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let message = error.message().trim();
        let offset = error.span().map_or(0, |s| s.start.min(text.len()));
        let (line, section, key) = locate(text, offset);
        let mut path = String::new();
        for part in [section, key].into_iter().flatten() {
            path.push_str(if path.is_empty() { ", " } else { "." });
            path.push_str(&part);
        }
        let mut reason = message.to_owned();
        if let Some(word) = suggestion(message) {
            reason.push_str(&format!("; did you mean `{word}`?"));
        }
        ConfigError::Syntax {
            file: file.to_path_buf(),
            line,
            key: path,
            reason,
        }
    }
}

/// Line number, section and key at a byte offset.
fn locate(text: &str, offset: usize) -> (usize, Option<String>, Option<String>) {
    let offset = (0..=offset)
        .rev()
        .find(|&i| text.is_char_boundary(i))
        .unwrap_or(0);
    let before = &text[..offset];
    let line = before.matches('\n').count() + 1;
    let lines: Vec<&str> = text.lines().take(line).collect();
    let section = lines
        .iter()
        .rev()
        .find_map(|l| l.trim().strip_prefix('['))
        .map(|l| l.trim_matches(|c| c == '[' || c == ']').trim().to_owned());
    let current = lines.last().map_or("", |l| l.trim());
    let key = current
        .split_once('=')
        .map(|(k, _)| k.trim().to_owned())
        .filter(|k| !k.starts_with('#') && !k.is_empty());
    (line, section, key)
}

/// The allowed word nearest to the refused one, from serde's "unknown field `x`, expected one of `a`, `b`".
fn suggestion(message: &str) -> Option<String> {
    let (head, tail) = message.split_once("expected")?;
    let wrong = quoted(head).into_iter().next()?;
    quoted(tail)
        .into_iter()
        .map(|word| (distance(&wrong, &word), word))
        .min()
        .filter(|(d, word)| *d <= 2.max(word.len() / 3))
        .map(|(_, word)| word)
}

/// The words in backquotes.
pub(super) fn quoted(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (a, b, d) in [
            ("", "", 0),
            ("", "ab", 2),
            ("moton", "motion", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), d);
            assert_eq!(distance(b, a), d);
        }
    }

    #[test]
    fn a_far_word_is_not_suggested() {
        let message = "unknown field `zzzzzz`, expected one of `high`, `low`";
        assert_eq!(suggestion(message), None);
        assert_eq!(
            suggestion(&message.replace("zzzzzz", "hihg")).unwrap(),
            "high"
        );
    }
}
