//! `reid-edge config --explain`: the table of keys for people and for machines.

use super::keys::{KEYS, REPEATED, REQUIRED};

/// The table as a commented `edge.toml`: keys that are required stand free, the others behind `#`.
pub fn text() -> String {
    let mut out = String::from(
        "# edge.toml: every key. What is commented out shows an example; the default is named beside it.\n\
         # Paths are relative to the folder of this file; in paths and sources ${NAME} stands for an environment variable.\n\
         # Unknown keys are refused.\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            let hidden = if section == "associate.travel" {
                "# "
            } else {
                ""
            };
            out.push_str(&format!("\n{hidden}{}\n", header(section)));
        }
        let free = key.default == REQUIRED && section != "associate.travel";
        let allowed = key.kind.allowed();
        out.push_str(&format!(
            "# {}{}{} (default: {})\n{}{} = {}\n",
            key.text,
            if allowed.is_empty() { "" } else { "; " },
            allowed,
            key.default,
            if free { "" } else { "# " },
            key.name,
            key.example
        ));
    }
    out
}

/// `[section]`, or `[[section]]` where it may be repeated.
pub(super) fn header(section: &str) -> String {
    if REPEATED.contains(&section) {
        format!("[[{section}]]")
    } else {
        format!("[{section}]")
    }
}

/// The table for machines.
pub fn json() -> serde_json::Value {
    KEYS.iter()
        .map(|k| {
            serde_json::json!({
                "section": k.section,
                "key": k.name,
                "type": k.kind.type_name(),
                "words": k.kind.words(),
                "allowed": k.kind.allowed(),
                "example": k.example,
                "default": k.default,
                "text": k.text,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::config::EdgeConfig;
    use crate::config::keys::Kind;

    fn sections() -> BTreeMap<&'static str, BTreeSet<String>> {
        let mut map: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for k in KEYS {
            assert!(
                map.entry(k.section).or_default().insert(k.name.to_owned()),
                "{} twice",
                k.name
            );
        }
        map
    }

    /// Every key with its example, or another value for one of them.
    fn complete(other: Option<(&str, &str, &str)>) -> String {
        let mut out = String::new();
        let mut section = "";
        for k in KEYS {
            if k.section != section {
                section = k.section;
                out.push_str(&format!("{}\n", header(section)));
            }
            let value = match other {
                Some((s, name, value)) if (s, name) == (k.section, k.name) => value,
                _ => k.example,
            };
            out.push_str(&format!("{} = {value}\n", k.name));
        }
        out
    }

    fn quoted(text: &str) -> Vec<String> {
        text.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_table_is_what_the_structures_read() {
        toml::from_str::<EdgeConfig>(&complete(None)).unwrap();
        toml::from_str::<EdgeConfig>(&text()).unwrap();
        for (section, documented) in sections() {
            let header = format!("{}\n", header(section));
            let text = complete(None).replacen(&header, &format!("{header}no_such_key = 1\n"), 1);
            let error = toml::from_str::<EdgeConfig>(&text).unwrap_err();
            let message = error.message();
            assert!(
                message.contains("no_such_key"),
                "[{section}] takes unknown keys: {message}"
            );
            let known: BTreeSet<String> = quoted(message.split("expected").nth(1).unwrap())
                .into_iter()
                .filter(|k| *k != "travel")
                .collect();
            assert_eq!(known, documented, "[{section}]");
        }
    }

    /// What the table allows the structures read, and what it calls words are all their words.
    #[test]
    fn the_kinds_of_the_table_are_those_of_the_structures() {
        for key in KEYS {
            let reads = |value: &str| {
                let text = complete(Some((key.section, key.name, value)));
                toml::from_str::<EdgeConfig>(&text).map_err(|e| e.message().to_owned())
            };
            let accepted: Vec<String> = match key.kind {
                Kind::Text | Kind::Path => vec!["\"x\"".into()],
                Kind::Flag => vec!["true".into(), "false".into()],
                Kind::Word(words) => words.iter().map(|w| format!("\"{w}\"")).collect(),
                Kind::Words(words) => words.iter().map(|w| format!("[\"{w}\"]")).collect(),
                Kind::Whole(low, high) => vec![low.to_string(), high.to_string()],
                Kind::Wholes(low, high) => vec![format!("[{low}, {high}]")],
                Kind::Number(low, high) | Kind::Above(low, high) => {
                    let high = high.min(1e12);
                    vec![format!("{low:?}"), format!("{high:?}"), "1".into()]
                }
                Kind::Polygons => vec!["[[[0, 0], [1, 0.5], [0.25, 1.0]]]".into()],
            };
            for value in &accepted {
                reads(value)
                    .unwrap_or_else(|e| panic!("{}.{} = {value}: {e}", key.section, key.name));
            }
            let wrong = match key.kind {
                Kind::Text | Kind::Path => "3",
                _ => "\"no_such_word\"",
            };
            let error = reads(wrong).unwrap_err();
            if let Kind::Word(words) = key.kind {
                assert_eq!(quoted(&error)[1..], *words, "{}.{}", key.section, key.name);
            }
            if let Kind::Words(words) = key.kind {
                let error = reads("[\"no_such_word\"]").unwrap_err();
                assert_eq!(quoted(&error)[1..], *words, "{}.{}", key.section, key.name);
            }
            if matches!(key.kind, Kind::Whole(..)) {
                reads("1.5").unwrap_err();
            }
        }
    }

    #[test]
    fn documented_defaults_are_the_real_ones() {
        // What the table calls the default, written out, must change nothing.
        let minimal =
            "[[camera]]\nname = \"a\"\nsource = \"b\"\n[embedder]\nkind = \"histogram\"\n";
        let bare = toml::from_str::<EdgeConfig>(minimal).unwrap();
        let mut written = String::from("[[camera]]\nname = \"a\"\nsource = \"b\"\n");
        let mut section = "camera";
        for k in KEYS.iter().filter(|k| k.section != "associate.travel") {
            if k.section != section {
                section = k.section;
                written.push_str(&format!("[{section}]\n"));
            }
            let is_value = toml::from_str::<toml::Table>(&format!("v = {}", k.default)).is_ok();
            if (section, k.name) == ("embedder", "kind") {
                // Without a model only the baseline is complete.
                written.push_str("kind = \"histogram\"\n");
            } else if is_value {
                written.push_str(&format!("{} = {}\n", k.name, k.default));
            }
        }
        let explicit = toml::from_str::<EdgeConfig>(&written).unwrap();
        assert_eq!(bare, explicit);
    }
}
