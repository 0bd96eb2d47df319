//! Line and point charts as SVG text for a page: colours come from its style sheet, so that they follow light and dark.

use std::fmt::Write;

/// Width of a chart's drawing, in its own units (pixels at full size).
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;

/// Colours the style sheet has: `.c0` to `.c6`.
pub const COLOURS: usize = 7;

/// One curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// Name for the key.
    pub name: String,
    /// Points by ascending x; y finite.
    pub points: Vec<(f64, f64)>,
    /// A reference, not a result.
    pub dashed: bool,
}

/// A chart of curves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    /// Title.
    pub title: String,
    /// What the x axis counts.
    pub x: String,
    /// The y axis goes from 0 to 1, in per cent.
    pub percent: bool,
    /// Curves.
    pub lines: Vec<Line>,
}

impl Chart {
    /// The chart as a `<figure>`; nothing without points.
    pub fn html(&self) -> String {
        let points = || self.lines.iter().flat_map(|l| &l.points);
        if points().next().is_none() {
            return String::new();
        }
        let (left, right) = range(points().map(|p| p.0));
        let (mut low, mut high) = range(points().map(|p| p.1));
        // Scores, losses and counts are all read against zero.
        if self.percent {
            (low, high) = (0.0, 1.0);
        } else {
            low = low.min(0.0);
            high = ticks(low, high, 5).last().map_or(high, |t| t.max(high));
        }
        let x = |v: f64| LEFT + (v - left) / (right - left) * (WIDTH - LEFT - RIGHT);
        let y = |v: f64| HEIGHT - BOTTOM - (v - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.title)
        );
        for tick in ticks(low, high, 5) {
            let (at, label) = (y(tick), label(tick, self.percent));
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 7.0,
                at + 3.5
            );
        }
        for tick in ticks(left, right, 8) {
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x(tick),
                HEIGHT - BOTTOM + 15.0,
                label(tick, false)
            );
        }
        let _ = write!(
            svg,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 4.0,
            escape(&self.x)
        );
        for (n, line) in self.lines.iter().enumerate() {
            let class = format!("c{}", n % COLOURS);
            let dashed = if line.dashed { " dashed" } else { "" };
            let path: Vec<String> = line
                .points
                .iter()
                .map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1)))
                .collect();
            let _ = write!(
                svg,
                "<polyline class=\"line {class}{dashed}\" points=\"{}\"/>",
                path.join(" ")
            );
            if line.dashed {
                continue;
            }
            for p in &line.points {
                let _ = write!(
                    svg,
                    "<circle class=\"dot {class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.2\"><title>{}: {} at {} {}</title></circle>",
                    x(p.0),
                    y(p.1),
                    escape(&line.name),
                    value(p.1, self.percent),
                    escape(&self.x),
                    label(p.0, false)
                );
            }
        }
        svg.push_str("</svg>");
        let mut key = String::new();
        for (n, line) in self.lines.iter().enumerate() {
            let dashed = if line.dashed { " dashed" } else { "" };
            let last = line.points.last().map(|p| value(p.1, self.percent));
            let _ = write!(
                key,
                "<span class=\"key c{}{dashed}\"><i></i>{} <b>{}</b></span>",
                n % COLOURS,
                escape(&line.name),
                last.unwrap_or_default()
            );
        }
        format!(
            "<figure><figcaption>{}</figcaption>{svg}<div class=\"keys\">{key}</div></figure>",
            escape(&self.title)
        )
    }
}

/// Points in the plane without axes, coloured by group (any number of groups): a `<figure>`.
pub fn scatter(title: &str, points: &[([f64; 2], usize, String)], groups: usize) -> String {
    let size = 440.0;
    let (left, right) = range(points.iter().map(|p| p.0[0]));
    let (low, high) = range(points.iter().map(|p| p.0[1]));
    let scale = (size - 24.0) / (right - left).max(high - low);
    let mut svg = format!(
        "<svg class=\"scatter\" viewBox=\"0 0 {size} {size}\" role=\"img\" aria-label=\"{}\">",
        escape(title)
    );
    for (place, group, what) in points {
        // Neighbouring groups get distant hues; three lightnesses tell more of them apart.
        let hue = *group as f64 * 360.0 / groups.max(1) as f64;
        let _ = write!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"hsl({hue:.0} 70% {}%)\"><title>{}</title></circle>",
            size / 2.0 + (place[0] - (left + right) / 2.0) * scale,
            size / 2.0 + (place[1] - (low + high) / 2.0) * scale,
            [42, 56, 68][group % 3],
            escape(what)
        );
    }
    format!(
        "<figure><figcaption>{}</figcaption>{svg}</svg></figure>",
        escape(title)
    )
}

/// Text for HTML and its attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// About `count` round numbers from `low` on, the last one at `high` or just above it.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|s| *s >= rough * 0.999)
        .unwrap_or(10.0 * power);
    // Epochs, ranks and counts are whole.
    let step = if step > 0.3 && high >= 3.0 {
        step.ceil()
    } else {
        step
    };
    let (first, last) = (
        (low / step).ceil() as i64,
        (high / step + 1e-9).floor() as i64,
    );
    (first..=last).map(|n| n as f64 * step).collect()
}

fn label(value: f64, percent: bool) -> String {
    if percent {
        return format!("{:.0} %", 100.0 * value);
    }
    let text = match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 1e-3 || v == 0.0 => format!("{value:.3}"),
        _ => return format!("{value:.1e}"),
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

fn value(value: f64, percent: bool) -> String {
    match percent {
        true => format!("{:.1} %", 100.0 * value),
        false => label(value, false),
    }
}

/// Smallest and largest, never the same.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
            (a.min(v), b.max(v))
        });
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
    use super::*;

    #[test]
    fn a_chart_shows_its_lines_and_last_values() {
        let chart = Chart {
            title: "a < b".into(),
            x: "epoch".into(),
            percent: true,
            lines: vec![Line {
                name: "mAP".into(),
                points: vec![(0.0, 0.2), (6.0, 0.74)],
                dashed: false,
            }],
        };
        let html = chart.html();
        assert!(
            html.contains("a &lt; b") && html.contains("<b>74.0 %</b>") && html.contains("100 %")
        );
        assert_eq!(html.matches("<circle").count(), 2);
        assert_eq!(Chart::default().html(), "");
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 6.0, 8), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(ticks(0.0, 163.0, 5), [0.0, 50.0, 100.0, 150.0]);
        assert_eq!(label(0.00025, false), "2.5e-4");
        assert_eq!(label(150.0, false), "150");
    }
}
