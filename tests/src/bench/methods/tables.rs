//! What was found, as Markdown.

use anyhow::Result;

use super::cache::{Cache, Outcome};
use super::plan::{Plan, Row, Table};

/// A row's differences below this many points of mAP are noise where one seed is all there is: twice the standard deviation
/// of the rows called `noise-*` when they are known.
const NOISE: f64 = 2.0;

/// Prints every table and the verdict on every claim.
///
/// # Errors
/// If a result cannot be read.
pub fn print(plan: &Plan, cache: &Cache) -> Result<()> {
    for table in plan.tables() {
        println!("\n### {}\n", table.title);
        let onnx = if table.export {
            " | ONNX: cosine, mAP"
        } else {
            ""
        };
        let rule = if table.export { "|---" } else { "" };
        println!("| | rank-1 | mAP | best mAP | before | clusters | CPU-minutes{onnx} |");
        println!("|---|---|---|---|---|---|---{rule}|");
        for row in &table.row {
            println!("{}", line(plan, cache, table, row)?);
        }
    }
    verdicts(plan, cache)
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
        return Ok(format!("| {name} | not yet measured | | | | | |"));
    }
    let percent = |of: &dyn Fn(&Outcome) -> f64| {
        let values: Vec<f64> = all.iter().map(|o| 100.0 * of(o)).collect();
        let each: Vec<String> = values.iter().map(|v| format!("{v:.1}")).collect();
        match values.len() {
            1 => each.concat(),
            _ => format!("{:.1} ({})", mean(&values), each.join(", ")),
        }
    };
    let clusters = |o: &Outcome| o.labels["clusters"].as_u64().map(|n| n.to_string());
    let clusters: Vec<String> = all.iter().filter_map(clusters).collect();
    let minutes: Vec<f64> = all.iter().filter_map(|o| o.cpu_minutes).collect();
    let minutes = match minutes.is_empty() {
        true => "interrupted".into(),
        false => format!("{:.1}", mean(&minutes)),
    };
    let onnx = match (table.export, all.iter().find_map(|o| o.onnx)) {
        (false, _) => String::new(),
        (true, None) => " | ".into(),
        (true, Some(x)) => format!(
            " | {:.6}, {:.2} (trainer {:.2})",
            x.cosine,
            100.0 * x.map,
            100.0 * x.trainer_map
        ),
    };
    Ok(format!(
        "| {name} | {} | {} | {} | {} | {} | {minutes}{onnx} |",
        percent(&|o| o.last.rank1),
        percent(&|o| o.last.map),
        percent(&|o| o.best.map),
        percent(&|o| o.start.map),
        clusters.join(", "),
    ))
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

fn verdicts(plan: &Plan, cache: &Cache) -> Result<()> {
    let noise = noise(plan, cache)?;
    println!("\n### What the texts claim\n");
    println!(
        "One seed: a difference below {noise:.1} points of mAP is noise (twice the spread of repeated trainings).\n"
    );
    println!("| claim | difference here, points of mAP | verdict |\n|---|---|---|");
    for claim in plan.claims() {
        let gaps = gaps(plan, cache, &claim.better, &claim.worse)?;
        let each: Vec<String> = gaps.iter().map(|g| format!("{g:+.1}")).collect();
        println!(
            "| {} | {} | {} |",
            claim.says,
            each.join(", "),
            verdict(&gaps, noise)
        );
    }
    Ok(())
}

/// Twice the standard deviation of mAP over the rows called `noise-*`, or a guess.
fn noise(plan: &Plan, cache: &Cache) -> Result<f64> {
    let mut maps = Vec::new();
    for table in &plan.table {
        for row in table.row.iter().filter(|r| r.id.starts_with("noise-")) {
            let all = outcomes(plan, cache, table, row)?;
            maps.extend(all.first().map(|o| 100.0 * o.last.map));
        }
    }
    Ok(match maps.len() {
        0 | 1 => NOISE,
        _ => 2.0 * deviation(&maps),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
