//! Evaluation of a descriptor by the protocol of Market-1501, independent of the trainer's.
//!
//! For each query: gallery pictures of the same identity and camera are left out, so is junk (-1);
//! distractors (0) stay as wrong answers. Average precision is the mean precision at the hits.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use image::RgbImage;
use rayon::prelude::*;
use serde::Serialize;

/// Identity and camera of a picture, from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Identity; 0 distractor, -1 junk.
    pub pid: i32,
    /// Camera, from 1.
    pub camera: u32,
}

/// Reads `0002_c1s1_000451_03.jpg`.
pub fn parse_name(name: &str) -> Option<Label> {
    let (pid, rest) = name.split_once("_c")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some(Label {
        pid: pid.parse().ok()?,
        camera: digits.parse().ok()?,
    })
}

/// Labels and descriptors of a folder.
#[derive(Debug, Clone, Default)]
pub struct Described {
    /// One label a picture.
    pub labels: Vec<Label>,
    /// One descriptor a picture, L2 norm 1.
    pub features: Vec<Vec<f32>>,
}

/// Reads and describes every picture of a folder, in order of names.
///
/// # Errors
/// A folder that is missing or empty, a name that is not Market-1501's, a picture that cannot be decoded.
pub fn describe_folder(
    folder: &Path,
    describe: &(dyn Fn(&RgbImage) -> Vec<f32> + Sync),
) -> Result<Described> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| {
        format!(
            "{}: cannot be read; --data wants a folder in Market-1501 layout",
            folder.display()
        )
    })? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".jpg") {
            names.push(name);
        }
    }
    if names.is_empty() {
        bail!("{}: no .jpg files", folder.display());
    }
    names.sort();
    let described: Vec<(Label, Vec<f32>)> = names
        .par_iter()
        .map(|name| {
            let file = folder.join(name);
            let label = parse_name(name).with_context(|| {
                format!(
                    "{}: name is not like 0002_c1s1_000451_03.jpg",
                    file.display()
                )
            })?;
            let image = image::open(&file)
                .with_context(|| format!("{}: cannot be decoded", file.display()))?;
            Ok((label, describe(&image.to_rgb8())))
        })
        .collect::<Result<_>>()?;
    let (labels, features) = described.into_iter().unzip();
    Ok(Described { labels, features })
}

/// Scores of an evaluation, fractions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scores {
    /// Share of queries whose best answer is right.
    pub rank1: f64,
    /// Share of queries with a right answer among the best five.
    pub rank5: f64,
    /// Mean average precision.
    pub map: f64,
    /// Queries that have a right answer in another camera.
    pub queries: usize,
}

/// Ranks the gallery for every query by dot product.
///
/// # Errors
/// When no query has a right answer in another camera.
pub fn evaluate(query: &Described, gallery: &Described) -> Result<Scores> {
    let results: Vec<Option<(usize, f64)>> = query
        .labels
        .par_iter()
        .zip(&query.features)
        .map(|(label, feature)| {
            let mut ranked: Vec<(f32, usize, bool)> = gallery
                .labels
                .iter()
                .zip(&gallery.features)
                .enumerate()
                .filter(|(_, (g, _))| {
                    g.pid != -1 && !(g.pid == label.pid && g.camera == label.camera)
                })
                .map(|(i, (g, f))| {
                    (
                        f.iter().zip(feature).map(|(a, b)| a * b).sum(),
                        i,
                        g.pid == label.pid,
                    )
                })
                .collect();
            ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let mut hits = 0usize;
            let mut first = None;
            let mut precision = 0.0;
            for (rank, &(_, _, right)) in ranked.iter().enumerate() {
                if right {
                    hits += 1;
                    first.get_or_insert(rank);
                    precision += hits as f64 / (rank + 1) as f64;
                }
            }
            first.map(|rank| (rank, precision / hits as f64))
        })
        .collect();
    let valid: Vec<(usize, f64)> = results.into_iter().flatten().collect();
    if valid.is_empty() {
        bail!("no query has a picture of the same identity from another camera in the gallery");
    }
    let n = valid.len() as f64;
    let within = |k: usize| valid.iter().filter(|(rank, _)| *rank < k).count() as f64 / n;
    Ok(Scores {
        rank1: within(1),
        rank5: within(5),
        map: valid.iter().map(|(_, ap)| ap).sum::<f64>() / n,
        queries: valid.len(),
    })
}

/// Evaluates the stripe histogram on a data set in Market-1501 layout.
///
/// # Errors
/// As [`describe_folder`] and [`evaluate`].
pub fn baseline(data: &Path) -> Result<Scores> {
    let query = describe_folder(&data.join("query"), &crate::histogram::describe)?;
    let gallery = describe_folder(&data.join("bounding_box_test"), &crate::histogram::describe)?;
    evaluate(&query, &gallery)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn described(rows: &[(i32, u32, [f32; 2])]) -> Described {
        Described {
            labels: rows
                .iter()
                .map(|r| Label {
                    pid: r.0,
                    camera: r.1,
                })
                .collect(),
            features: rows.iter().map(|r| r.2.to_vec()).collect(),
        }
    }

    #[test]
    fn names_are_read() {
        assert_eq!(
            parse_name("0002_c1s1_000451_03.jpg"),
            Some(Label { pid: 2, camera: 1 })
        );
        assert_eq!(
            parse_name("-1_c3s2_000001_00.jpg"),
            Some(Label { pid: -1, camera: 3 })
        );
        assert_eq!(parse_name("cat.jpg"), None);
    }

    #[test]
    fn the_protocol_drops_same_camera_and_junk_and_keeps_distractors() {
        let query = described(&[(1, 1, [1.0, 0.0])]);
        let gallery = described(&[
            (1, 1, [1.0, 0.0]),  // same camera: left out
            (-1, 2, [1.0, 0.0]), // junk: left out
            (0, 2, [0.9, 0.1]),  // distractor: first
            (1, 2, [0.8, 0.2]),  // hit at rank 2
            (2, 2, [0.7, 0.3]),
            (1, 3, [0.6, 0.4]), // hit at rank 4
        ]);
        let scores = evaluate(&query, &gallery).unwrap();
        assert_eq!(scores.rank1, 0.0);
        assert_eq!(scores.rank5, 1.0);
        assert!((scores.map - (1.0 / 2.0 + 2.0 / 4.0) / 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_query_without_answers_is_an_error_not_a_number() {
        let query = described(&[(1, 1, [1.0, 0.0])]);
        let gallery = described(&[(2, 2, [1.0, 0.0])]);
        assert!(evaluate(&query, &gallery).is_err());
    }
}
