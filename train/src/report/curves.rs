//! Which numbers of `metrics.jsonl` stand in which chart.

use serde_json::Value;

use super::chart::{Chart, Line};
use crate::eval::plots::MetricsRow;

/// Charts of all numbers that a run logged, in reading order; charts without numbers are left out.
pub(super) fn charts(rows: &[Value]) -> Vec<Chart> {
    let mut rows: Vec<MetricsRow> = rows.iter().filter_map(MetricsRow::from_value).collect();
    rows.sort_by(|a, b| a.epoch.total_cmp(&b.epoch));
    let chart = |title: &str, percent: bool, lines: Vec<Line>| Chart {
        title: title.into(),
        x: "epoch".into(),
        percent,
        lines: lines.into_iter().filter(|l| !l.points.is_empty()).collect(),
    };
    let named = |names: &[(&str, &str)]| -> Vec<Line> {
        names
            .iter()
            .map(|(key, name)| line(&rows, key, name, false))
            .collect()
    };
    let mut losses: Vec<&str> = rows
        .iter()
        .flat_map(|r| r.values.keys())
        .filter_map(|k| k.strip_prefix("loss."))
        .collect();
    losses.sort_unstable();
    losses.dedup();
    let losses = losses
        .iter()
        .map(|name| line(&rows, &format!("loss.{name}"), name, false))
        .collect();
    let mut cameras = named(&[(
        "pseudo_labels.camera_information",
        "pseudo labels tell about cameras",
    )]);
    cameras.push(line(
        &rows,
        "pseudo_labels.camera_information_of_identities",
        "true identities tell",
        true,
    ));
    let mut clusters = named(&[("clusters", "clusters"), ("outliers", "outliers")]);
    clusters.push(line(
        &rows,
        "pseudo_labels.identities",
        "true identities",
        true,
    ));
    [
        chart(
            "Scores on the test set",
            true,
            named(&[("rank1", "rank-1"), ("map", "mAP"), ("minp", "mINP")]),
        ),
        chart("Loss terms", false, losses),
        chart("Clusters and outliers", false, clusters),
        chart(
            "Pseudo labels against identities",
            true,
            named(&[
                ("pseudo_labels.nmi", "NMI"),
                ("pseudo_labels.ari", "ARI"),
                ("pseudo_labels.purity", "purity"),
            ]),
        ),
        chart("Mutual information with cameras (nats)", false, cameras),
        chart(
            "Lost identities (all pictures outliers)",
            false,
            named(&[("pseudo_labels.lost_ids", "lost")]),
        ),
        chart("Learning rate", false, named(&[("lr", "learning rate")])),
        chart(
            "Gradient norm",
            false,
            named(&[("gradient_norm", "mean norm")]),
        ),
    ]
    .into_iter()
    .filter(|c| !c.lines.is_empty())
    .collect()
}

fn line(rows: &[MetricsRow], key: &str, name: &str, dashed: bool) -> Line {
    Line {
        name: name.into(),
        points: rows
            .iter()
            .filter_map(|r| Some((r.epoch, *r.values.get(key)?)))
            .filter(|p| p.1.is_finite())
            .collect(),
        dashed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_find_their_charts() {
        let rows = [
            json!({"epoch": 0, "map": 0.1, "rank1": 0.2}),
            json!({"epoch": 1, "loss": {"hard": 1.0}, "pseudo_labels": {"nmi": 0.5, "lost_ids": 3, "identities": 20}, "clusters": 9}),
        ];
        let charts = charts(&rows);
        let titles: Vec<&str> = charts.iter().map(|c| c.title.as_str()).collect();
        assert_eq!(titles.len(), 5, "{titles:?}");
        assert_eq!(charts[0].lines.len(), 2);
        assert!(charts[2].lines.iter().any(|l| l.dashed));
        assert!(super::charts(&[]).is_empty());
    }
}
