//! Figures over the rounds, and the table they make.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A figure of every round.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread(Vec<f64>);

impl Spread {
    /// Of these rounds.
    pub fn new(values: Vec<f64>) -> Self {
        Spread(values)
    }

    /// `path` (keys separated by dots) of what each round measured.
    ///
    /// # Errors
    /// If a round has no number there.
    pub fn of(rounds: &[Value], path: &str) -> Result<Self> {
        let pointer = format!("/{}", path.replace('.', "/"));
        let values: Option<Vec<f64>> = rounds
            .iter()
            .map(|v| v.pointer(&pointer)?.as_f64())
            .collect();
        Ok(Spread(
            values.with_context(|| format!("no number `{path}`"))?,
        ))
    }

    /// Round by round, this over `other`.
    pub fn over(&self, other: &Spread) -> Self {
        Spread(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }

    /// Every value times `factor`.
    pub fn times(&self, factor: f64) -> Self {
        Spread(self.0.iter().map(|v| v * factor).collect())
    }

    /// Every value.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// The middle one (of an even number, the upper of the two).
    pub fn median(&self) -> f64 {
        quantile(&self.0, 0.5)
    }

    /// Median (least to most).
    pub fn text(&self, digits: usize) -> String {
        let low = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if self.0.len() < 2 {
            return format!("{:.digits$}", self.median());
        }
        format!(
            "{:.digits$} ({low:.digits$} to {high:.digits$})",
            self.median()
        )
    }
}

/// The value below which a `share` (0..1) of the values lies; NaN of none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (share * sorted.len() as f64) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(place.min(last)).copied().unwrap_or(f64::NAN)
}

/// What is wanted of a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reach {
    text: String,
    met: Option<bool>,
}

impl Reach {
    /// Nothing: the row is there to be known.
    pub fn none() -> Self {
        Reach::default()
    }

    /// `figure` must be at least `least`.
    pub fn at_least(figure: f64, least: f64) -> Self {
        Reach {
            text: format!(">= {least}"),
            met: Some(figure >= least),
        }
    }

    /// `figure` must be at most `most`, written as `text`.
    pub fn at_most(figure: f64, most: f64, text: &str) -> Self {
        Reach {
            text: format!("<= {text}"),
            met: Some(figure <= most),
        }
    }

    /// A condition in words.
    pub fn holds(text: &str, met: bool) -> Self {
        Reach {
            text: text.into(),
            met: Some(met),
        }
    }

    fn cell(&self) -> String {
        match self.met {
            Some(true) => format!("{}: met", self.text),
            Some(false) => format!("{}: not met", self.text),
            None => self.text.clone(),
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// What is measured, with its unit.
    pub work: String,
    /// Our figure.
    pub ours: String,
    /// The peer's.
    pub peer: String,
    /// Ours over the peer's.
    pub ratio: String,
    /// What is wanted.
    pub reach: Reach,
    /// The physical limit, or what else is needed to read the row.
    pub limit: String,
    /// The same as numbers, for machines.
    pub numbers: Value,
}

/// The table so far. Rows are printed as soon as they are known, unless one JSON object is wanted at the end.
#[derive(Debug, Default)]
pub struct Table {
    /// Print JSON instead of Markdown.
    pub json: bool,
    rows: Vec<Value>,
}

impl Table {
    /// A table that has no row.
    pub fn new(json: bool) -> Self {
        Table {
            json,
            rows: Vec::new(),
        }
    }

    /// A sentence above or below the table; standard error where JSON is wanted.
    pub fn say(&self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}\n");
        }
    }

    /// The next row.
    pub fn push(&mut self, row: Row) {
        let mut line = String::new();
        if self.rows.is_empty() {
            line.push_str(
                "| work | ours | peer | ours / peer | reach | limit |\n|---|---|---|---|---|---|\n",
            );
        }
        // Writing into a string cannot fail.
        let _ = write!(
            line,
            "| {} | {} | {} | {} | {} | {} |",
            row.work,
            row.ours,
            row.peer,
            row.ratio,
            row.reach.cell(),
            row.limit
        );
        if self.json {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
        self.rows.push(json!({
            "work": row.work, "ours": row.ours, "peer": row.peer, "ratio": row.ratio, "reach": row.reach.text,
            "met": row.reach.met, "limit": row.limit, "numbers": row.numbers,
        }));
    }

    /// Rows, for machines.
    pub fn rows(&self) -> &[Value] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn spreads_are_read_by_path_and_divided_round_by_round() {
        let rounds = [
            json!({"fps": 30.0, "latency": {"p95": 0.1}}),
            json!({"fps": 10.0, "latency": {"p95": 0.3}}),
            json!({"fps": 20.0, "latency": {"p95": 0.2}}),
        ];
        let fps = Spread::of(&rounds, "fps").unwrap();
        assert_eq!(fps.median(), 20.0);
        assert_eq!(fps.text(1), "20.0 (10.0 to 30.0)");
        let p95 = Spread::of(&rounds, "latency.p95").unwrap();
        assert_eq!(fps.over(&p95).values().len(), 3);
        assert!((fps.over(&p95).values()[1] - 10.0 / 0.3).abs() < 1e-9);
        assert!(Spread::of(&rounds, "latency.p99").is_err());
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), 51.0);
        assert_eq!(quantile(&values, 0.95), 96.0);
        assert_eq!(quantile(&values, 1.0), 100.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
