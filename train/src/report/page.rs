//! The page: what comes in which order, and the words around it.

use std::fmt::Write;

use anyhow::Result;
use serde_json::Value;

use super::chart::{Chart, Line, escape};
use super::{Measured, curves, lists, sample};
use crate::run::RunFolder;

const STYLE: &str = include_str!("page.css");
/// Ranks of the CMC curve.
const RANKS: usize = 20;
/// Ranked lists shown, and worst queries.
const LISTS: usize = 8;

/// The whole page.
///
/// # Errors
/// If the run's configuration or a picture can't be read.
pub(super) fn html(
    run: &RunFolder,
    rows: &[Value],
    measured: Option<&Measured>,
    with_crops: bool,
) -> Result<String> {
    let config = run.config()?;
    // An unfinished run has no card.
    let card = run.card().ok();
    let name = run.path.file_name().unwrap_or_default().to_string_lossy();
    let title = format!("{} \u{b7} {name}", config.method);
    let mut body = format!("<h1>{}</h1>", escape(&title));
    let training = card.as_ref().and_then(|c| c.training.as_ref());
    let about = match (&card, training) {
        (Some(card), Some(t)) => format!(
            "{}, trained on {} from {}, {} epochs, seed {}",
            card.name, t.data, t.init, t.epochs, t.seed
        ),
        _ => format!("{} epochs asked for, not finished yet", config.train.epochs),
    };
    let _ = write!(body, "<p class=\"sub\">{}</p>", escape(&about));
    body.push_str(&headline(rows, measured));

    let charts: String = curves::charts(rows).iter().map(Chart::html).collect();
    if charts.is_empty() {
        body.push_str("<h2>Training</h2><p class=\"note\">Nothing is logged yet.</p>");
    } else {
        let _ = write!(body, "<h2>Training</h2><div class=\"grid2\">{charts}</div>");
    }
    match measured {
        Some(measured) => body.push_str(&test_sections(measured, with_crops, config.seed)?),
        None => body.push_str(
            "<h2>Test set</h2><p class=\"note\">CMC, ranked lists and t-SNE need test pictures: \
             <code>reid-train report --run RUN --data KIND:DIR</code>.</p>",
        ),
    }
    if let Some(card) = card {
        let mut rows = String::new();
        for (name, value) in &card.thresholds {
            let _ = write!(
                rows,
                "<tr><th>{}</th><td>{value:.4}</td></tr>",
                escape(name)
            );
        }
        if !rows.is_empty() {
            let _ = write!(
                body,
                "<h2>Starting thresholds of the model card</h2><p class=\"note\">Cosine similarities measured on training pictures; \
                 a site calibrates its own.</p><table>{rows}</table>"
            );
        }
    }
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{}</title><style>\n{STYLE}</style></head><body><main>{body}<footer>reid-train {}</footer></main></body></html>\n",
        escape(&title),
        env!("CARGO_PKG_VERSION")
    ))
}

/// The numbers to see first: of the measured test set, or the last logged.
fn headline(rows: &[Value], measured: Option<&Measured>) -> String {
    let last = |key: &str| rows.iter().rev().find_map(|r| r.get(key)?.as_f64());
    let percent = |v: f64| format!("{:.1} %", 100.0 * v);
    let mut cards: Vec<(String, &str)> = Vec::new();
    if let Some(m) = measured {
        let r = &m.ranking.result;
        for (value, name) in [
            (r.rank1, "rank-1"),
            (r.rank5, "rank-5"),
            (r.map, "mAP"),
            (r.minp, "mINP"),
        ] {
            cards.push((percent(value), name));
        }
    } else {
        for (key, name) in [("rank1", "rank-1"), ("map", "mAP"), ("minp", "mINP")] {
            cards.extend(last(key).map(|v| (percent(v), name)));
        }
    }
    cards.extend(last("clusters").map(|v| (format!("{v:.0}"), "clusters at the end")));
    let seconds: f64 = rows.iter().filter_map(|r| r["seconds"].as_f64()).sum();
    if seconds > 0.0 {
        let text = match seconds {
            s if s < 90.0 => format!("{s:.0} s"),
            s if s < 5400.0 => format!("{:.0} min", s / 60.0),
            s => format!("{:.1} h", s / 3600.0),
        };
        cards.push((text, "training time"));
    }
    let cards: String = cards
        .iter()
        .map(|(value, name)| format!("<div class=\"card\"><b>{value}</b><span>{name}</span></div>"))
        .collect();
    format!("<div class=\"cards\">{cards}</div>")
}

fn test_sections(measured: &Measured, with_crops: bool, seed: u64) -> Result<String> {
    let r = &measured.ranking.result;
    let cmc = measured.ranking.cmc(RANKS);
    let curve = Chart {
        title: "Cumulative match characteristic".into(),
        x: "rank".into(),
        percent: true,
        lines: vec![Line {
            name: "share of queries with a right answer by rank 20".into(),
            points: cmc
                .iter()
                .enumerate()
                .map(|(n, v)| (n as f64 + 1.0, *v))
                .collect(),
            dashed: false,
        }],
    };
    let mut precisions = [0.0; 20];
    for q in &measured.ranking.queries {
        precisions[((q.average_precision * 20.0) as usize).min(19)] += 1.0;
    }
    let histogram = Chart {
        title: "Average precision of the queries".into(),
        x: "average precision in per cent".into(),
        percent: false,
        lines: vec![Line {
            name: "queries per bin of 5 per cent".into(),
            points: precisions
                .iter()
                .enumerate()
                .map(|(n, count)| (5.0 * n as f64 + 2.5, *count))
                .collect(),
            dashed: false,
        }],
    };
    let mut html = format!(
        "<h2>Test set</h2><p class=\"note\">{}, protocol {}: {} queries against {} in the gallery; {} queries without an answer in another \
         camera are left out. Rank-10 is {:.1}&nbsp;%.</p><div class=\"grid2\">{}{}</div>",
        escape(&measured.data),
        measured.sides.protocol,
        r.queries,
        measured.sides.gallery.shown.len(),
        r.skipped,
        100.0 * r.rank10,
        curve.html(),
        histogram.html()
    );
    if let Some(open) = &measured.open_set {
        let rows: String = open
            .points
            .iter()
            .map(|p| {
                format!(
                    "<tr><td>{} %</td><td>{:.1} %</td><td>{:.4}</td><td>{}</td></tr>",
                    100.0 * p.fpr,
                    100.0 * p.tpr,
                    p.threshold,
                    p.accepts
                )
            })
            .collect();
        let _ = write!(
            html,
            "<h2>Open set: is it the same person at all?</h2><p class=\"note\">{} genuine and {} impostor pairs from different \
             cameras.</p><table><tr><th>false-positive rate</th><th>true-positive rate</th><th>cosine threshold</th>\
             <th>impostor pairs that pass</th></tr>{rows}</table>",
            open.genuine, open.impostors
        );
    }
    let pictures = if with_crops {
        ""
    } else {
        " Pictures are left out; <code>--with-crops</code> puts them in."
    };
    let _ = write!(
        html,
        "<h2>Ranked lists</h2><p class=\"note\">Queries evenly spread over the test set; right answers green, wrong ones red, with \
         their cosine similarity.{pictures}</p>{}<h2>Worst queries</h2><p class=\"note\">Lowest average precision.</p>{}",
        lists::html(measured, &lists::spread(measured, LISTS), with_crops)?,
        lists::html(measured, &lists::worst(measured, LISTS), with_crops)?
    );
    let _ = write!(
        html,
        "<h2>Features in the plane</h2>{}",
        sample::html(measured, seed)
    );
    Ok(html)
}
