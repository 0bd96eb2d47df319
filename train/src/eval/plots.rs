//! The curves of a run, drawn from `metrics.jsonl`.
//!
//! A row is any JSON object with a number `epoch`; nested objects become names with dots. What a name means is read off it:
//! see [`Panel`]. So a method's own loss terms appear without being announced anywhere.

use std::collections::BTreeMap;
use std::path::Path;

use plotters::prelude::*;
use reid_models::files;
use serde_json::Value;

use super::rank::EvalError;

/// One row of `metrics.jsonl`: all its numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsRow {
    /// Where it lies on the x axis; fractions of an epoch are welcome.
    pub epoch: f64,
    /// Numbers by name, nested ones as `outer.inner`.
    pub values: BTreeMap<String, f64>,
}

impl MetricsRow {
    /// Takes the numbers of a JSON object; `None` without a number `epoch`. A NaN that was written as `null` is left out.
    pub fn from_value(value: &Value) -> Option<Self> {
        let mut row = MetricsRow {
            epoch: value.get("epoch")?.as_f64()?,
            values: BTreeMap::new(),
        };
        row.take("", value);
        row.values.remove("epoch");
        Some(row)
    }

    fn take(&mut self, name: &str, value: &Value) {
        match value {
            Value::Number(number) => {
                if let Some(number) = number.as_f64() {
                    self.values.insert(name.to_string(), number);
                }
            }
            Value::Object(map) => {
                for (key, value) in map {
                    let name = if name.is_empty() {
                        key.clone()
                    } else {
                        format!("{name}.{key}")
                    };
                    self.take(&name, value);
                }
            }
            _ => {}
        }
    }
}

/// Which picture a number belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Panel {
    /// `loss`, `loss.NAME`, `loss_NAME`, `terms.NAME`.
    Loss,
    /// `rank1`, `rank5`, `rank10`, `map`, `minp`, in any object.
    Scores,
    /// `clusters`, `outliers`, in any object.
    Clusters,
    /// `nmi`, `ari`, `purity`, in any object.
    Agreement,
}

impl Panel {
    /// The panel of a name, if any.
    pub fn of(name: &str) -> Option<Self> {
        let last = name.rsplit('.').next().unwrap_or(name);
        match last {
            "rank1" | "rank5" | "rank10" | "map" | "minp" => Some(Panel::Scores),
            "clusters" | "outliers" => Some(Panel::Clusters),
            "nmi" | "ari" | "purity" => Some(Panel::Agreement),
            _ if name == "loss"
                || name.starts_with("loss.")
                || name.starts_with("loss_")
                || name.starts_with("terms.") =>
            {
                Some(Panel::Loss)
            }
            _ => None,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Panel::Loss => "loss terms",
            Panel::Scores => "scores on the test set",
            Panel::Clusters => "clusters and outliers",
            Panel::Agreement => "agreement of pseudo labels with identities",
        }
    }

    /// Scores share one axis from 0 to 1.
    fn is_fraction(self) -> bool {
        matches!(self, Panel::Scores | Panel::Agreement)
    }
}

/// Width of the legend in pixels.
const LEGEND: u32 = 180;

/// Colours that stay apart for colour-blind eyes (Okabe and Ito 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(70, 70, 70),
];

type Curves = BTreeMap<Panel, BTreeMap<String, Vec<(f64, f64)>>>;

fn curves(rows: &[MetricsRow]) -> Curves {
    let mut curves = Curves::new();
    for row in rows {
        for (name, &value) in &row.values {
            if let Some(panel) = Panel::of(name).filter(|_| value.is_finite()) {
                curves
                    .entry(panel)
                    .or_default()
                    .entry(name.clone())
                    .or_default()
                    .push((row.epoch, value));
            }
        }
    }
    for points in curves.values_mut().flat_map(|panel| panel.values_mut()) {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    curves
}

/// The curves as SVG text: one panel per kind of number that occurs.
///
/// # Errors
/// If the drawing library refuses, in words.
pub fn svg(rows: &[MetricsRow]) -> Result<String, String> {
    let curves = curves(rows);
    let mut text = String::new();
    let height = 260 * curves.len().max(1) as u32;
    draw(&curves, (880, height), &mut text).map_err(|e| e.to_string())?;
    Ok(text)
}

/// Draws the curves of JSON rows into an SVG file, atomically.
///
/// # Errors
/// [`EvalError::Io`] if it can't be written.
pub fn write_curves(rows: &[Value], path: &Path) -> Result<(), EvalError> {
    let rows: Vec<MetricsRow> = rows.iter().filter_map(MetricsRow::from_value).collect();
    let text = svg(&rows).map_err(|reason| EvalError::File {
        path: path.to_path_buf(),
        reason: format!("cannot draw the curves: {reason}"),
    })?;
    Ok(files::write_atomic(path, text.as_bytes())?)
}

fn draw(
    curves: &Curves,
    size: (u32, u32),
    text: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(text, size).into_drawing_area();
    root.fill(&WHITE)?;
    if curves.is_empty() {
        root.draw_text(
            "nothing measured yet",
            &("sans-serif", 16).into_text_style(&root),
            (20, 20),
        )?;
    }
    // One epoch axis for all panels: what happened at the same time stands one above the other.
    let (left, right) = range(
        curves
            .values()
            .flat_map(|lines| lines.values().flatten())
            .map(|p| p.0),
    );
    let areas = root.split_evenly((curves.len().max(1), 1));
    for (area, (panel, lines)) in areas.iter().zip(curves) {
        let (area, legend) = area.split_horizontally(size.0 - LEGEND);
        let (mut low, mut high) = range(lines.values().flatten().map(|p| p.1));
        if panel.is_fraction() {
            (low, high) = (0.0, 1.0);
        } else {
            // Losses and counts are read against zero.
            low = low.min(0.0);
            high += 0.05 * (high - low);
        }
        let mut chart = ChartBuilder::on(&area)
            .caption(panel.title(), ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(32)
            .y_label_area_size(56)
            .build_cartesian_2d(left..right, low..high)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("epoch")
            .draw()?;
        for (index, (name, points)) in lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let style = colour.stroke_width(2);
            chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
            if let [only] = points[..] {
                chart.draw_series([Circle::new(only, 3, colour.filled())])?;
            }
            // Beside the picture, where it covers nothing.
            let y = 46 + 20 * index as i32;
            legend.draw(&PathElement::new([(0, y), (18, y)], style))?;
            let font = ("sans-serif", 13).into_text_style(&legend);
            legend.draw_text(name, &font, (24, y - 6))?;
        }
    }
    root.present()?;
    Ok(())
}

/// Smallest and largest, never the same.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        low = low.min(value);
        high = high.max(value);
    }
    if low < high {
        (low, high)
    } else if low.is_finite() {
        (low - 0.5, high + 0.5)
    } else {
        (0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_find_their_panels() {
        let row = MetricsRow::from_value(&json!({
            "epoch": 2, "loss": {"total": 1.5, "hard": null}, "lr": 1e-4, "eval": {"map": 0.25}, "clusters": 12, "note": "x"
        }))
        .unwrap();
        assert_eq!(row.epoch, 2.0);
        assert_eq!(row.values["loss.total"], 1.5);
        assert!(!row.values.contains_key("epoch") && !row.values.contains_key("loss.hard"));
        let panels: Vec<_> = row.values.keys().map(|name| Panel::of(name)).collect();
        assert_eq!(
            panels,
            [
                Some(Panel::Clusters),
                Some(Panel::Scores),
                Some(Panel::Loss),
                None
            ]
        );
        assert_eq!(MetricsRow::from_value(&json!({"loss": 1})), None);
    }

    #[test]
    fn curves_are_drawn_and_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curves.svg");
        let rows: Vec<Value> = (1..=5)
            .map(|epoch| {
                json!({"epoch": epoch, "loss": {"total": 3.0 / f64::from(epoch)}, "clusters": 10 + epoch, "eval": {"rank1": 0.1 * f64::from(epoch)}})
            })
            .collect();
        write_curves(&rows, &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for part in [
            "<svg",
            "loss terms",
            "loss.total",
            "eval.rank1",
            "clusters",
            "</svg>",
        ] {
            assert!(text.contains(part), "no {part}");
        }
        // Each of the three panels has one line, in the first colour, and its key.
        assert_eq!(text.matches("#0072B2").count(), 6);
    }

    #[test]
    fn one_row_and_no_row_are_drawn_too() {
        assert!(svg(&[]).unwrap().contains("nothing measured yet"));
        let one = MetricsRow::from_value(&json!({"epoch": 1, "loss": 0.0})).unwrap();
        assert!(svg(&[one]).unwrap().contains("<circle"));
    }
}
