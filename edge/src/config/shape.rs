//! A tree held against the table of keys: unknown sections and keys, wrong types, misspelt words, values out of range.
//!
//! What is wrong is reported and left out; what remains can be read by the structures.

use std::collections::BTreeSet;

use super::document::{Entry, Item, Node};
use super::error::nearest;
use super::expand::expand;
use super::explain::header;
use super::keys::{KEYS, Key, Kind, REPEATED, REQUIRED};
use super::mistakes::Mistakes;
use super::redact;

/// Name and source that stand in for missing ones. Such a camera is never opened.
const PLACEHOLDER: &str = "";

/// The part of a file that can be read, as a table for serde. What a misspelt section or key holds is read as that which
/// was probably meant, so that nothing seems to be missing besides.
pub(super) fn file(entries: Vec<Entry>, mistakes: &mut Mistakes) -> toml::Table {
    let mut out = toml::Table::new();
    let present: BTreeSet<String> = entries.iter().map(|e| e.key.clone()).collect();
    for Entry { key, line, node } in entries {
        let section = match sections().find(|s| *s == key) {
            Some(section) => section,
            None => {
                let shown = shown_key(&key);
                mistakes.place(&shown, line, None);
                mistakes.at(shown, unknown_section(&key, &node));
                match nearest(&key, sections()) {
                    Some(section) if !present.contains(section) => section,
                    _ => continue,
                }
            }
        };
        mistakes.place(section, line, None);
        if REPEATED.contains(&section) {
            let tables = repeated(section, section, node, mistakes);
            out.insert(section.to_owned(), tables);
        } else if let Node::Table(entries) = node {
            let table = self::section(section, section, entries, mistakes);
            out.insert(section.to_owned(), table.into());
        } else if section == key {
            mistakes.at(section, format!("is a section: write {}", header(section)));
        }
    }
    out
}

/// One section as a table for serde; `path` is its name in messages ("camera[1]").
pub(super) fn section(
    section: &'static str,
    path: &str,
    entries: Vec<Entry>,
    mistakes: &mut Mistakes,
) -> toml::Table {
    let mut out = toml::Table::new();
    let present: BTreeSet<String> = entries.iter().map(|e| e.key.clone()).collect();
    let mut seen = BTreeSet::new();
    for Entry { key, line, node } in entries {
        let child = format!("{section}.{key}");
        if let Some(inner) = REPEATED.into_iter().find(|r| *r == child) {
            mistakes.place(inner, line, None);
            out.insert(key, repeated(inner, inner, node, mistakes));
            continue;
        }
        let known = match find(section, &key) {
            Some(known) => known,
            None => {
                let at = format!("{path}.{}", shown_key(&key));
                // Its value is not shown: it may be a password that no key is for.
                mistakes.place(&at, line, None);
                let (reason, meant) = unknown_key(section, &key);
                mistakes.at(at, reason);
                match meant {
                    Some(meant) if !present.contains(meant.name) && !seen.contains(meant.name) => {
                        meant
                    }
                    _ => continue,
                }
            }
        };
        let at = format!("{path}.{}", known.name);
        mistakes.place(&at, line, written(known, &node));
        seen.insert(known.name);
        match value(known.kind, &node) {
            Ok(value) => {
                out.insert(known.name.to_owned(), value);
            }
            Err(reason) => mistakes.at(at, reason),
        }
    }
    for key in KEYS
        .iter()
        .filter(|k| k.section == section && k.default == REQUIRED)
    {
        if !seen.contains(key.name) {
            mistakes.missing(
                format!("{path}.{}", key.name),
                format!("is missing: write {} = {}", key.name, key.example),
            );
        }
    }
    out
}

/// A section that may stand several times, as an array of tables for serde.
fn repeated(name: &'static str, path: &str, node: Node, mistakes: &mut Mistakes) -> toml::Value {
    let items = match node {
        Node::List(items) => items,
        Node::Table(entries) => {
            mistakes.at(path, format!("write {}, with two brackets", header(name)));
            vec![Item {
                line: mistakes.line(path),
                node: Node::Table(entries),
            }]
        }
        _ => {
            mistakes.at(path, format!("is a section: write {}", header(name)));
            Vec::new()
        }
    };
    let mut out = Vec::new();
    for (i, Item { line, node }) in items.into_iter().enumerate() {
        let path = format!("{path}[{i}]");
        mistakes.place(&path, line, None);
        let Node::Table(entries) = node else {
            mistakes.at(path, format!("is a section: write {}", header(name)));
            continue;
        };
        let mut table = section(name, &path, entries, mistakes);
        let required = KEYS
            .iter()
            .filter(|k| k.section == name && k.default == REQUIRED);
        for key in required {
            // Kept, so that the others keep their numbers.
            let placeholder = match key.kind {
                Kind::Text => PLACEHOLDER.into(),
                _ => toml::Value::Float(0.0),
            };
            table.entry(key.name).or_insert(placeholder);
        }
        out.push(toml::Value::Table(table));
    }
    toml::Value::Array(out)
}

fn sections() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    KEYS.iter()
        .map(|k| k.section)
        .filter(move |s| *s != std::mem::replace(&mut last, s))
        .filter(|s| !s.contains('.'))
}

fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.section == section && k.name == name)
}

/// A key as it is shown: one in quotes may hold anything.
fn shown_key(key: &str) -> String {
    redact::value(key).trim_matches('"').to_owned()
}

/// What is shown of a value.
fn written(key: &Key, node: &Node) -> Option<String> {
    match (key.section, key.name, node) {
        ("camera", "source", Node::Text(text)) => Some(redact::source(text)),
        ("camera", "source" | "user" | "password_file", _) => None,
        // An address without a user, unlike a camera's.
        ("serve", "listen", Node::Text(text)) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || ".:[]-".contains(c);
            let shown = text.len() <= 64 && text.chars().all(plain);
            Some(if shown {
                format!("\"{text}\"")
            } else {
                "\"***\"".into()
            })
        }
        _ => node.shown(),
    }
}

fn unknown_section(key: &str, node: &Node) -> String {
    let mut reason = match node {
        Node::Table(_) | Node::List(_) => "there is no such section".to_owned(),
        _ => "keys stand below a section's header".to_owned(),
    };
    let owners = owners(key);
    if let Some(word) = nearest(key, sections()) {
        reason.push_str(&format!("; did you mean `{word}`?"));
    } else if !owners.is_empty() {
        reason.push_str(&format!("; it is a key of {owners}"));
    }
    reason
}

/// What is said about a key that the section doesn't have, and the key that was probably meant.
fn unknown_key(section: &str, key: &str) -> (String, Option<&'static Key>) {
    let mut reason = format!("there is no such key in {}", header(section));
    let owners = owners(key);
    let names = KEYS.iter().filter(|k| k.section == section).map(|k| k.name);
    let meant = match owners.is_empty() {
        true => nearest(key, names),
        false => None,
    };
    if let Some(word) = meant {
        reason.push_str(&format!("; did you mean `{word}`?"));
    } else if !owners.is_empty() {
        reason.push_str(&format!("; it is a key of {owners}"));
    } else {
        reason.push_str("; `reid-edge config --explain` names all");
    }
    (reason, meant.and_then(|word| find(section, word)))
}

/// The sections that have a key of this name.
fn owners(key: &str) -> String {
    let owners: Vec<String> = KEYS
        .iter()
        .filter(|k| k.name == key)
        .map(|k| header(k.section))
        .collect();
    owners.join(", ")
}

/// The value for serde, or why it is refused.
fn value(kind: Kind, node: &Node) -> Result<toml::Value, String> {
    let refused = || {
        let allowed = match kind {
            Kind::Text => "text in quotes".to_owned(),
            Kind::Path => "a path in quotes".to_owned(),
            _ => kind.allowed(),
        };
        format!("must be {allowed}, and is {}", node.type_name())
    };
    let out_of_range = || format!("must be {}", kind.allowed());
    match (kind, node) {
        (Kind::Text, Node::Text(text)) => Ok(text.clone().into()),
        (Kind::Path, Node::Text(text)) => path(text),
        (Kind::Word(words), Node::Text(text)) => word(words, text),
        (Kind::Flag, Node::Flag(flag)) => Ok((*flag).into()),
        (Kind::Whole(low, high), Node::Whole(n)) => {
            if (low..=high).contains(n) {
                Ok((*n).into())
            } else {
                Err(out_of_range())
            }
        }
        (Kind::Number(..) | Kind::Above(..), Node::Whole(_) | Node::Number(_)) => {
            let x = match node {
                Node::Whole(n) => *n as f64,
                Node::Number(x) => *x,
                _ => f64::NAN,
            };
            let good = match kind {
                Kind::Number(low, high) => x.is_finite() && (low..=high).contains(&x),
                Kind::Above(low, high) => x > low && x <= high,
                _ => false,
            };
            if good {
                Ok(x.into())
            } else {
                Err(out_of_range())
            }
        }
        (Kind::Words(_) | Kind::Wholes(..), Node::List(items)) if items.is_empty() => {
            Err("is empty: leave it out, or name at least one".into())
        }
        (Kind::Words(words), Node::List(items)) => list(items, Kind::Word(words)),
        (Kind::Wholes(low, high), Node::List(items)) => list(items, Kind::Whole(low, high)),
        (Kind::Polygons, Node::List(items)) => polygons(items).map_err(|()| out_of_range()),
        _ => Err(refused()),
    }
}

fn list(items: &[Item], kind: Kind) -> Result<toml::Value, String> {
    all(items, |item| value(kind, &item.node))
}

fn path(text: &str) -> Result<toml::Value, String> {
    if text.trim().is_empty() {
        return Err("is empty: leave it out, or write a path".into());
    }
    if redact::looks_secret(text) {
        return Err("is an address or a pipeline, and must be a path".into());
    }
    if text.contains('\0') {
        return Err("holds a null character, and must be a path".into());
    }
    expand(text).map(Into::into)
}

fn word(words: &'static [&'static str], text: &str) -> Result<toml::Value, String> {
    if words.contains(&text) {
        return Ok(text.into());
    }
    let mut reason = format!("must be {}", Kind::Word(words).allowed());
    if let Some(word) = nearest(text, words.iter().copied()) {
        reason.push_str(&format!("; did you mean `{word}`?"));
    }
    Err(reason)
}

/// Lists of at least three points of two numbers 0 to 1 each.
fn polygons(items: &[Item]) -> Result<toml::Value, ()> {
    let number = |item: &Item| value(Kind::Number(0.0, 1.0), &item.node).map_err(drop);
    let point = |item: &Item| match &item.node {
        Node::List(numbers) if numbers.len() == 2 => all(numbers, number),
        _ => Err(()),
    };
    all(items, |item| match &item.node {
        Node::List(points) if points.len() >= 3 => all(points, point),
        _ => Err(()),
    })
}

/// A list of what `read` makes of each item.
fn all<E>(
    items: &[Item],
    read: impl Fn(&Item) -> Result<toml::Value, E>,
) -> Result<toml::Value, E> {
    let values: Result<Vec<_>, E> = items.iter().map(read).collect();
    values.map(toml::Value::Array)
}
