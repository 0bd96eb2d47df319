//! A configuration as a tree that remembers its lines; from TOML with as many syntax errors as there are, or from JSON.

use toml::de::{DeTable, DeValue};

use super::mistakes::Mistakes;
use super::redact;

/// A value.
pub(super) enum Node {
    Text(String),
    Whole(i64),
    Number(f64),
    Flag(bool),
    /// Something that no key takes: a date, JSON's null, a number that does not fit. Holds its name.
    Other(&'static str),
    List(Vec<Item>),
    Table(Vec<Entry>),
}

/// A value within a list.
pub(super) struct Item {
    pub(super) line: Option<usize>,
    pub(super) node: Node,
}

/// A key with its value.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: Option<usize>,
    pub(super) node: Node,
}

impl Node {
    /// The type, for people.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Node::Text(_) => "text",
            Node::Whole(_) => "a whole number",
            Node::Number(_) => "a number",
            Node::Flag(_) => "true or false",
            Node::Other(name) => name,
            Node::List(_) => "a list",
            Node::Table(_) => "a table",
        }
    }

    /// The value as it is shown in messages.
    pub(super) fn shown(&self) -> Option<String> {
        match self {
            Node::Text(text) => Some(redact::value(text)),
            Node::Whole(n) => Some(n.to_string()),
            Node::Number(x) => Some(format!("{x:?}")),
            Node::Flag(b) => Some(b.to_string()),
            Node::List(items) if items.len() <= 8 => {
                let items: Option<Vec<String>> = items.iter().map(|i| i.node.shown()).collect();
                Some(format!("[{}]", items?.join(", "))).filter(|s| s.len() <= 80)
            }
            Node::Other(_) | Node::List(_) | Node::Table(_) => None,
        }
    }

    /// The tree of a JSON value.
    pub(super) fn from_json(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Node::Other("null"),
            Value::Bool(b) => Node::Flag(*b),
            Value::String(text) => Node::Text(text.clone()),
            Value::Number(n) => match (n.as_i64(), n.as_f64()) {
                (Some(n), _) => Node::Whole(n),
                (None, Some(x)) => Node::Number(x),
                (None, None) => Node::Other("too large a number"),
            },
            Value::Array(items) => Node::List(
                items
                    .iter()
                    .map(|value| Item {
                        line: None,
                        node: Node::from_json(value),
                    })
                    .collect(),
            ),
            Value::Object(entries) => Node::Table(
                entries
                    .iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        line: None,
                        node: Node::from_json(value),
                    })
                    .collect(),
            ),
        }
    }

    /// The tree of a TOML value without lines.
    pub(super) fn from_value(value: &toml::Value) -> Self {
        use toml::Value;
        match value {
            Value::String(text) => Node::Text(text.clone()),
            Value::Integer(n) => Node::Whole(*n),
            Value::Float(x) => Node::Number(*x),
            Value::Boolean(b) => Node::Flag(*b),
            Value::Datetime(_) => Node::Other("a date"),
            Value::Array(items) => Node::List(
                items
                    .iter()
                    .map(|value| Item {
                        line: None,
                        node: Node::from_value(value),
                    })
                    .collect(),
            ),
            Value::Table(entries) => Node::Table(
                entries
                    .iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        line: None,
                        node: Node::from_value(value),
                    })
                    .collect(),
            ),
        }
    }
}

/// So many syntax errors of a file are told; after that it is probably no TOML at all.
const MOST_ERRORS: usize = 50;

/// The tree of a file. Syntax errors go to `mistakes`; each one's line is struck out and the rest is read all the same.
pub(super) fn parse(text: &str, mistakes: &mut Mistakes) -> Vec<Entry> {
    let lines = Lines::of(text);
    let mut rows: Vec<String> = text.split('\n').map(str::to_owned).collect();
    // A statement over several lines leaves its rest behind, about which nothing more is said.
    let mut rest = 0;
    for _ in 0..MOST_ERRORS + rows.len() {
        let left = rows.join("\n");
        let (table, errors) = DeTable::parse_recoverable(&left);
        let place = |e: &toml::de::Error| e.span().map_or(text.len(), |s| s.start.min(text.len()));
        let Some(error) = errors.iter().min_by_key(|e| place(e)) else {
            return lines.table(table.get_ref());
        };
        let at = lines.at(place(error));
        let first = statement(&rows, at);
        if first == rest {
            rest += 1;
        } else {
            rest = if first < at { first + 1 } else { 0 };
            mistakes.syntax(at, reason(error.message(), &rows[at - 1], first, at));
        }
        if let Some(header) = (0..first).rev().find(|i| is_header(&rows[*i])) {
            mistakes.doubt_table(header + 1);
        }
        let broken = if is_header(&rows[first - 1]) {
            // Whose keys these are is not known.
            mistakes.doubt_all();
            let keys = rows[first..].iter().take_while(|row| !is_header(row));
            first..=first + keys.count()
        } else {
            first..=first
        };
        mistakes.doubt(broken.clone());
        let mut struck = false;
        for line in broken {
            let row = &mut rows[line - 1];
            struck |= !row.trim().is_empty();
            // Every offset stays what it was.
            *row = " ".repeat(row.len());
        }
        if !struck || mistakes.count() > MOST_ERRORS {
            break;
        }
    }
    mistakes.doubt_all();
    Vec::new()
}

/// The line where the statement begins that goes wrong in line `at`: before it everything is complete.
fn statement(rows: &[String], at: usize) -> usize {
    (1..at)
        .rev()
        .find(|line| DeTable::parse(&rows[..*line].join("\n")).is_ok())
        .map_or(1, |line| line + 1)
}

fn reason(message: &str, row: &str, first: usize, at: usize) -> String {
    let what = match (message, is_header(row)) {
        ("duplicate key", true) => "this section stands above already: write its keys there",
        ("duplicate key", false) => "this key stands above already: remove one of them",
        (other, _) => other,
    };
    if first < at {
        format!("not TOML: {what}, in what begins in line {first}")
    } else {
        format!("not TOML: {what}")
    }
}

/// Whether a row looks like `[section]`, rather than like the numbers of a list.
fn is_header(row: &str) -> bool {
    let row = row.trim_start();
    row.starts_with('[')
        && row
            .trim_start_matches('[')
            .starts_with(|c: char| c.is_alphabetic())
}

struct Lines {
    /// Offsets of the lines' first bytes.
    starts: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Self {
        let rows = text.match_indices('\n').map(|(at, _)| at + 1);
        Lines {
            starts: std::iter::once(0).chain(rows).collect(),
        }
    }

    /// 1-based line of an offset.
    fn at(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).max(1)
    }

    fn table(&self, table: &DeTable<'_>) -> Vec<Entry> {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                line: Some(self.at(key.span().start)),
                node: self.node(value.get_ref()),
            })
            .collect();
        entries.sort_by_key(|e| e.line);
        entries
    }

    fn node(&self, value: &DeValue<'_>) -> Node {
        match value {
            DeValue::String(text) => Node::Text(text.to_string()),
            DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
                Ok(n) => Node::Whole(n),
                Err(_) => Node::Other("too large a number"),
            },
            DeValue::Float(x) => match x.as_str().parse() {
                Ok(x) => Node::Number(x),
                Err(_) => Node::Other("no number"),
            },
            DeValue::Boolean(b) => Node::Flag(*b),
            DeValue::Datetime(_) => Node::Other("a date"),
            DeValue::Array(items) => Node::List(
                items
                    .iter()
                    .map(|item| Item {
                        line: Some(self.at(item.span().start)),
                        node: self.node(item.get_ref()),
                    })
                    .collect(),
            ),
            DeValue::Table(table) => Node::Table(self.table(table)),
        }
    }
}
