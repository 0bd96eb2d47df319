//! What other radii would give, and a picture of it: the radius is the one number of DBSCAN that a new site has to choose.

use std::path::Path;

use plotters::prelude::*;
use reid_models::files;

use super::command::{RadiusReport, report};
use super::dbscan::Dbscan;
use super::{ClusterError, SparseDistances, rho};

/// Radii that a sweep tries.
pub const RADII: [f32; 10] = [0.30, 0.35, 0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.75];
/// Multiples of a share that a sweep tries.
pub const SHARES: [f64; 9] = [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0];
/// Size of the picture in pixels.
const SIZE: (u32, u32) = (720, 560);

/// Clusters at [`RADII`]; with a share, at the radii of its multiples [`SHARES`], but those that reach beyond the stored pairs.
///
/// # Errors
/// If `min_samples` is out of range, or every share.
pub fn sweep(
    distances: &SparseDistances,
    share: Option<f64>,
    min_samples: usize,
) -> Result<Vec<RadiusReport>, ClusterError> {
    let at = |eps: f32| Dbscan::new(eps, min_samples).map(|d| report(&d, distances));
    let Some(share) = share else {
        return RADII.iter().map(|&eps| at(eps)).collect();
    };
    let mut rows = Vec::new();
    let mut refused = None;
    for rho in SHARES.map(|multiple| multiple * share) {
        match rho::eps_from_rho(distances, rho) {
            Ok(eps) => rows.push(RadiusReport {
                rho: Some(rho),
                ..at(eps)?
            }),
            Err(e) => refused = Some(e),
        }
    }
    match refused {
        Some(e) if rows.is_empty() => Err(e),
        _ => Ok(rows),
    }
}

/// Draws clusters and outliers over the radius, or over the share it was taken from, with a mark at what was chosen; atomically.
///
/// # Errors
/// If the file can't be written.
pub fn draw(rows: &[RadiusReport], chosen: &RadiusReport, path: &Path) -> Result<(), ClusterError> {
    let mut text = String::new();
    let failed = |reason: String| ClusterError::File {
        path: path.to_path_buf(),
        reason,
    };
    svg(rows, chosen, &mut text).map_err(|e| failed(format!("cannot draw the sweep: {e}")))?;
    files::write_atomic(path, text.as_bytes()).map_err(|e| failed(e.to_string()))
}

fn svg(
    rows: &[RadiusReport],
    chosen: &RadiusReport,
    text: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let shares = chosen.rho.is_some();
    let x = |r: &RadiusReport| match shares {
        true => r.rho.unwrap_or_default(),
        false => f64::from(r.eps.unwrap_or_default()),
    };
    let name = if shares { "rho" } else { "eps" };
    let xs = || rows.iter().chain([chosen]).map(x);
    let (left, right) = (
        xs().fold(f64::INFINITY, f64::min),
        xs().fold(f64::NEG_INFINITY, f64::max),
    );
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let panels: [(&str, fn(&RadiusReport) -> usize); 2] =
        [("clusters", |r| r.clusters), ("outliers", |r| r.outliers)];
    for (area, (title, y)) in root.split_evenly((2, 1)).iter().zip(panels) {
        let high = rows.iter().chain([chosen]).map(y).max().unwrap_or(0).max(1) as f64;
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 18))
            .margin(10)
            .margin_right(28)
            .x_label_area_size(32)
            .y_label_area_size(64)
            .build_cartesian_2d(left..right.max(left + 1e-9), 0.0..1.05 * high)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc(name)
            .y_label_formatter(&|count| format!("{count:.0}"))
            .draw()?;
        let points: Vec<(f64, f64)> = rows.iter().map(|r| (x(r), y(r) as f64)).collect();
        let line = points.iter().copied();
        chart.draw_series(LineSeries::new(line, BLUE.stroke_width(2)))?;
        chart.draw_series(points.iter().map(|p| Circle::new(*p, 3, BLUE.filled())))?;
        let here = (x(chosen), y(chosen) as f64);
        chart.draw_series([Circle::new(here, 6, RED.stroke_width(2))])?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Two groups of five, near .2 within and .7 between.
    fn distances() -> SparseDistances {
        let pair = |i: usize, j: usize| if i / 5 == j / 5 { 0.2 } else { 0.7 };
        let pairs = (0..10).flat_map(|i| (i + 1..10).map(move |j| (i, j, pair(i, j))));
        SparseDistances::from_pairs(10, pairs).unwrap()
    }

    #[test]
    fn radii_and_shares_and_their_picture() {
        let distances = distances();
        let rows = sweep(&distances, None, 4).unwrap();
        assert_eq!(rows.len(), RADII.len());
        assert_eq!((rows[0].clusters, rows[0].outliers), (2, 0));
        assert_eq!((rows[9].clusters, rows[9].largest), (1, 10));
        let shares = sweep(&distances, Some(0.3), 4).unwrap();
        // Of 0.3 the fourfold is no share.
        assert_eq!(shares.len(), 8);
        assert!(shares.iter().all(|r| r.rho.is_some()));
        assert!(sweep(&distances, Some(9.0), 4).is_err());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sweep.svg");
        draw(&rows, &rows[4], &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for word in ["<svg", "clusters", "outliers", "eps"] {
            assert!(text.contains(word), "{word}");
        }
        let nowhere = dir.path().join("no/such/folder.svg");
        let error = draw(&rows, &rows[4], &nowhere).unwrap_err().to_string();
        assert!(error.contains("folder.svg"), "{error}");
    }
}
