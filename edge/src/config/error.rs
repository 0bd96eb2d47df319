//! What is wrong with a configuration, and what to write instead.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One mistake of a configuration.
///
/// Never holds a line of the file: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// The file; empty for a camera that came another way.
    #[serde(skip)]
    pub file: PathBuf,
    /// 1-based line, where one can be named.
    pub line: Option<usize>,
    /// `section.key`; empty if it is about the whole file.
    pub key: String,
    /// The value as written, without credentials; absent if there is none, or it must not be shown.
    pub value: Option<String>,
    /// What is wrong, and the remedy.
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.as_os_str().is_empty() {
            write!(f, "{}", self.file.display())?;
            if let Some(line) = self.line {
                write!(f, ", line {line}")?;
            }
            f.write_str(": ")?;
        }
        match (&self.value, self.key.is_empty()) {
            (Some(value), false) => write!(f, "{} = {value}: ", self.key)?,
            (None, false) => write!(f, "{}: ", self.key)?,
            (_, true) => {}
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ConfigError {}

/// All mistakes of a configuration, in the file's order; shown one a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// A file that cannot be read.
    pub(super) fn unreadable(file: &Path, error: &std::io::Error) -> Self {
        ConfigErrors(vec![ConfigError {
            file: file.to_path_buf(),
            line: None,
            key: String::new(),
            value: None,
            reason: format!("cannot read the configuration: {error}"),
        }])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The allowed word nearest to a refused one, if one is near.
pub(super) fn nearest<'a>(
    wrong: &str,
    allowed: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Nobody has mistyped a page of text.
    if wrong.chars().count() > 64 {
        return None;
    }
    allowed
        .into_iter()
        .map(|word| (distance(wrong, word), word))
        .min()
        .filter(|(d, word)| *d <= 2.max(word.len() / 3) && *d < word.len())
        .map(|(_, word)| word)
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
        assert_eq!(nearest("zzzzzz", ["high", "low"]), None);
        assert_eq!(nearest("hihg", ["high", "low"]), Some("high"));
        assert_eq!(nearest("to", ["from"]), None);
    }

    #[test]
    fn an_error_says_where_what_and_why() {
        let mut error = ConfigError {
            file: "edge.toml".into(),
            line: Some(3),
            key: "tracker.high".into(),
            value: Some("1.5".into()),
            reason: "must be a number, 0 to 1".into(),
        };
        assert_eq!(
            error.to_string(),
            "edge.toml, line 3: tracker.high = 1.5: must be a number, 0 to 1"
        );
        error.file = PathBuf::new();
        error.value = None;
        assert_eq!(error.to_string(), "tracker.high: must be a number, 0 to 1");
        let both = ConfigErrors(vec![error.clone(), error]);
        assert_eq!(both.to_string().lines().count(), 2);
    }
}
