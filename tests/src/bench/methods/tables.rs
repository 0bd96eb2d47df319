//! What was found, as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use reid_models::files::{read_text, write_atomic};

use super::cache::{Cache, Outcome};
use super::plan::{Plan, Row, Table};

/// Differences below this many points of mAP are noise where one seed is all there is, until a row is known that `repeats`
/// another.
const NOISE: f64 = 2.0;

/// Columns of every table.
const COLUMNS: [&str; 6] = [
    "rank-1",
    "mAP",
    "best mAP",
    "before",
    "clusters",
    "CPU-minutes",
];
/// Of one with `diagnostics`: agreement of clusters with identities, mutual information of clusters and cameras beside that of
/// identities and cameras (nats), identities in no cluster.
const DIAGNOSTICS: [&str; 3] = ["ARI", "camera information, clusters (identities)", "lost"];
/// Of one with `export`.
const ONNX: &str = "ONNX: worst cosine, points of mAP from the trainer";

/// Every table and the verdict on every claim.
///
/// # Errors
/// If a result cannot be read.
pub fn all(plan: &Plan, cache: &Cache) -> Result<String> {
    let mut text = String::new();
    for table in plan.tables() {
        let columns = columns(table);
        writeln!(text, "\n## {}\n", table.title)?;
        writeln!(text, "| | {} |", columns.join(" | "))?;
        writeln!(text, "|---|{}", "---|".repeat(columns.len()))?;
        for row in &table.row {
            writeln!(text, "{}", line(plan, cache, table, row)?)?;
        }
    }
    verdicts(plan, cache, &mut text)?;
    Ok(text)
}

/// Names of a table's columns but the first.
fn columns(table: &Table) -> Vec<&'static str> {
    let mut columns = COLUMNS.to_vec();
    if table.diagnostics {
        columns.extend(DIAGNOSTICS);
    }
    if table.export {
        columns.push(ONNX);
    }
    columns
}

/// The line of a document after which tables stand.
pub const MARK: &str =
    "<!-- The rest is written by `./reid bench methods --known --write docs/ACCURACY.md`. -->\n";

/// Puts tables in the place of those after [`MARK`] in a document.
///
/// # Errors
/// If the file cannot be read or written, or has no mark.
pub fn write(document: &Path, tables: &str) -> Result<()> {
    let old = read_text(document)?;
    let (head, _) = old.split_once(MARK).with_context(|| {
        let mark = MARK.trim_end();
        format!(
            "{}: has no line `{mark}` to write tables after",
            document.display()
        )
    })?;
    write_atomic(document, format!("{head}{MARK}{tables}").as_bytes())?;
    Ok(())
}

fn outcomes(plan: &Plan, cache: &Cache, table: &Table, row: &Row) -> Result<Vec<Outcome>> {
    let jobs = plan.jobs_of(table, row);
    let found: Vec<Option<Outcome>> = jobs.iter().map(|j| cache.get(j)).collect::<Result<_>>()?;
    Ok(found.into_iter().flatten().collect())
}

fn line(plan: &Plan, cache: &Cache, table: &Table, row: &Row) -> Result<String> {
    let all = outcomes(plan, cache, table, row)?;
    let name = &row.name;
    if all.is_empty() {
        let rest = " |".repeat(columns(table).len() - 1);
        return Ok(format!("| {name} | not yet measured |{rest}"));
    }
    let percent = |of: &dyn Fn(&Outcome) -> f64| {
        let values: Vec<f64> = all.iter().map(|o| 100.0 * of(o)).collect();
        let each: Vec<String> = values.iter().map(|v| format!("{v:.1}")).collect();
        match values.len() {
            1 => each.concat(),
            _ => format!("{:.1} ({})", mean(&values), each.join(", ")),
        }
    };
    let label = |name: &str| -> Vec<f64> {
        let found = all.iter().filter_map(|o| o.labels[name].as_f64());
        found.collect()
    };
    let list = |values: &[f64], decimals: usize| {
        let each = values.iter().map(|v| format!("{v:.decimals$}"));
        each.collect::<Vec<_>>().join(", ")
    };
    let minutes: Vec<f64> = all.iter().filter_map(|o| o.cpu_minutes).collect();
    let mut cells = vec![
        name.clone(),
        percent(&|o| o.last.rank1),
        percent(&|o| o.last.map),
        percent(&|o| o.best.map),
        percent(&|o| o.start.map),
        list(&label("clusters"), 0),
        match minutes.is_empty() {
            true => "interrupted".into(),
            false => format!("{:.1}", mean(&minutes)),
        },
    ];
    if table.diagnostics {
        let identities = label("camera_information_of_identities");
        cells.extend([
            list(&label("ari"), 2),
            format!(
                "{} ({})",
                list(&label("camera_information"), 2),
                list(&identities, 2)
            ),
            list(&label("lost_ids"), 0),
        ]);
    }
    if table.export {
        cells.push(exported(&all));
    }
    Ok(format!("| {} |", cells.join(" | ")))
}

/// The worst cosine of all exported models, and the greatest difference in mAP between a file and its trainer.
fn exported(all: &[Outcome]) -> String {
    let models: Vec<_> = all.iter().filter_map(|o| o.onnx).collect();
    let cosine = models.iter().map(|x| x.cosine).fold(1.0, f64::min);
    let off = models.iter().map(|x| 100.0 * (x.map - x.trainer_map).abs());
    match models.is_empty() {
        true => "not yet measured".into(),
        false => format!("{cosine:.6}, within {:.4}", off.fold(0.0, f64::max)),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Standard deviation of a sample.
fn deviation(values: &[f64]) -> f64 {
    let middle = mean(values);
    let squares: f64 = values.iter().map(|v| (v - middle).powi(2)).sum();
    (squares / (values.len().max(2) - 1) as f64).sqrt()
}

/// `better - worse` in points of mAP for every world that both were trained on.
fn gaps(plan: &Plan, cache: &Cache, better: &str, worse: &str) -> Result<Vec<f64>> {
    let maps = |id: &str| -> Result<Vec<f64>> {
        let Some((table, row)) = plan.find(id) else {
            return Ok(Vec::new());
        };
        let all = outcomes(plan, cache, table, row)?;
        Ok(all.iter().map(|o| 100.0 * o.last.map).collect())
    };
    let (a, b) = (maps(better)?, maps(worse)?);
    Ok(a.iter().zip(&b).map(|(a, b)| a - b).collect())
}

/// What a claim's differences say of it.
fn verdict(gaps: &[f64], noise: f64) -> &'static str {
    let middle = mean(gaps);
    // Several seeds: twice the standard error of their mean; one: the noise of a repeated training.
    let limit = match gaps.len() {
        0 => return "not yet measured",
        1 => noise,
        n => 2.0 * deviation(gaps) / (n as f64).sqrt(),
    };
    if middle.abs() <= limit {
        "within noise"
    } else if middle > 0.0 {
        "holds"
    } else {
        "does not hold"
    }
}

fn verdicts(plan: &Plan, cache: &Cache, text: &mut String) -> Result<()> {
    let noise = Noise::of(plan, cache)?;
    writeln!(text, "\n## What the texts claim\n")?;
    writeln!(
        text,
        "One seed: a difference below twice its standard deviation is noise, by repeated trainings of each method ({}). Several \
         seeds: twice the standard error of the mean difference.\n",
        noise.describe()
    )?;
    writeln!(
        text,
        "| claim | difference here, points of mAP | verdict | |\n|---|---|---|---|"
    )?;
    for claim in plan.claims() {
        let gaps = gaps(plan, cache, &claim.better, &claim.worse)?;
        let each: Vec<String> = gaps.iter().map(|g| format!("{g:+.1}")).collect();
        let method = |id: &str| plan.find(id).map_or("", |(_, row)| &row.method);
        let limit = noise.difference(method(&claim.better), method(&claim.worse));
        writeln!(
            text,
            "| {} | {} | {} | {} |",
            claim.says,
            each.join(", "),
            verdict(&gaps, limit),
            claim.why,
        )?;
    }
    Ok(())
}

/// How far trainings lie apart that differ in their seed alone.
struct Noise {
    /// Of every method that was repeated: standard deviation in points of mAP, and of how many trainings.
    methods: BTreeMap<String, (f64, usize)>,
}

impl Noise {
    fn of(plan: &Plan, cache: &Cache) -> Result<Self> {
        // By the row that is repeated: one that nobody repeats stays alone.
        let mut trainings = BTreeMap::<(&str, &str), Vec<f64>>::new();
        for (table, row) in plan.rows() {
            let first = row.repeats.as_deref().unwrap_or(&row.id);
            let all = outcomes(plan, cache, table, row)?;
            let map = all.first().map(|o| 100.0 * o.last.map);
            trainings
                .entry((&row.method, first))
                .or_default()
                .extend(map);
        }
        let repeated = trainings.into_iter().filter(|(_, maps)| maps.len() > 1);
        let methods = repeated.map(|((m, _), maps)| (m.into(), (deviation(&maps), maps.len())));
        Ok(Self {
            methods: methods.collect(),
        })
    }

    /// Twice the standard deviation of a difference; a method that was not repeated is taken for the noisiest.
    fn difference(&self, better: &str, worse: &str) -> f64 {
        let known = self.methods.values().map(|v| v.0);
        let unknown = known.reduce(f64::max).unwrap_or(NOISE / 8f64.sqrt());
        let of = |method: &str| self.methods.get(method).map_or(unknown, |v| v.0);
        2.0 * (of(better).powi(2) + of(worse).powi(2)).sqrt()
    }

    /// Deviations for people.
    fn describe(&self) -> String {
        let each = self.methods.iter();
        let each = each.map(|(m, (sd, n))| format!("{m}: {sd:.1} points, {n} trainings"));
        match self.methods.is_empty() {
            true => "none yet, a guess".into(),
            false => each.collect::<Vec<_>>().join("; "),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tables_take_the_place_of_those_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it.md");
        std::fs::write(&path, format!("head\n{MARK}old\n")).unwrap();
        write(&path, "new\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("head\n{MARK}new\n"));
        std::fs::write(&path, "head\n").unwrap();
        let error = write(&path, "new\n").unwrap_err().to_string();
        assert!(error.contains("it.md") && error.contains("has no line"));
    }

    #[test]
    fn noise_is_of_the_methods_that_are_compared() {
        let methods = [("a".into(), (3.0, 3)), ("b".into(), (4.0, 2))].into();
        let noise = Noise { methods };
        assert_eq!(noise.difference("a", "b"), 10.0);
        assert_eq!(noise.difference("a", "never repeated"), 10.0);
        assert_eq!(
            noise.describe(),
            "a: 3.0 points, 3 trainings; b: 4.0 points, 2 trainings"
        );
        let methods = BTreeMap::new();
        assert!((Noise { methods }.difference("a", "b") - NOISE).abs() < 1e-12);
    }

    #[test]
    fn a_verdict_needs_more_than_noise() {
        assert_eq!(verdict(&[], 1.0), "not yet measured");
        assert_eq!(verdict(&[0.9], 1.0), "within noise");
        assert_eq!(verdict(&[1.5], 1.0), "holds");
        assert_eq!(verdict(&[-1.5], 1.0), "does not hold");
        // Mean 2, standard error 0.58.
        assert_eq!(verdict(&[1.0, 2.0, 3.0], 9.0), "holds");
        assert_eq!(verdict(&[-1.0, 1.0, 3.0], 0.1), "within noise");
        assert_eq!(verdict(&[-1.0, -2.0, -3.0], 9.0), "does not hold");
    }
}
