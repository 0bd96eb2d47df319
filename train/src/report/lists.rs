//! Ranked lists as rows of tiles: right answers green, wrong ones red; pictures only if asked for.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use reid_models::preprocess;

use super::Measured;
use crate::data::Sample;
use crate::eval::rank::{Hit, ranked_lists};

/// Places shown.
const PLACES: usize = 10;
/// Size of a picture in the page, in pixels.
const PICTURE: (u32, u32) = (64, 128);

/// Ranked lists of some queries (indices among all queries).
///
/// # Errors
/// If a picture can't be read.
pub(super) fn html(measured: &Measured, which: &[usize], with_crops: bool) -> Result<String> {
    let (query, gallery) = (&measured.sides.query, &measured.sides.gallery);
    let lists = ranked_lists(
        &query.set.embeddings(),
        &gallery.set.embeddings(),
        which,
        PLACES,
    )?;
    let mut html = String::new();
    for (&q, hits) in which.iter().zip(&lists) {
        let sample = &query.shown[q];
        let found = measured.ranking.queries.iter().find(|r| r.query == q);
        let score = match found {
            Some(r) => format!(
                "AP {:.1} %, first right answer at rank {}",
                100.0 * r.average_precision,
                r.first
            ),
            None => "no right answer in another camera".into(),
        };
        let _ = write!(
            html,
            "<div class=\"list\"><div class=\"about\">query {q} &middot; person {} &middot; camera {}<br>{score}</div>\
             <div class=\"tiles\">",
            sample.pid, sample.camera
        );
        let picture = match with_crops {
            true => crop(&sample.path)?,
            false => String::new(),
        };
        let _ = write!(
            html,
            "<div class=\"tile query\">{picture}<b>query</b><span>camera {}</span></div>",
            sample.camera
        );
        for (place, hit) in hits.iter().enumerate() {
            html.push_str(&tile(&gallery.shown, place + 1, hit, with_crops)?);
        }
        html.push_str("</div></div>");
    }
    Ok(html)
}

fn tile(gallery: &[Sample], rank: usize, hit: &Hit, with_crops: bool) -> Result<String> {
    let sample = &gallery[hit.gallery];
    let (class, mark) = if hit.right {
        ("right", "&#10003;")
    } else {
        ("wrong", "&#10007;")
    };
    let picture = match with_crops {
        true => crop(&sample.path)?,
        false => String::new(),
    };
    Ok(format!(
        "<div class=\"tile {class}\" title=\"rank {rank}, person {}, camera {}, cosine {:.4}\">{picture}<b>{mark} {:.2}</b>\
         <span>camera {}</span></div>",
        sample.pid, sample.camera, hit.score, hit.score, sample.camera
    ))
}

/// A picture as an `<img>` that carries its bytes.
fn crop(path: &Path) -> Result<String> {
    let picture = preprocess::decode(path)?;
    let small = imageops::resize(&picture, PICTURE.0, PICTURE.1, FilterType::Triangle);
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 85)
        .encode_image(&small)
        .with_context(|| path.display().to_string())?;
    Ok(format!(
        "<img alt=\"\" src=\"data:image/jpeg;base64,{}\">",
        STANDARD.encode(jpeg)
    ))
}

/// Queries evenly spread over all that count.
pub(super) fn spread(measured: &Measured, count: usize) -> Vec<usize> {
    let queries = &measured.ranking.queries;
    let step = queries.len().div_ceil(count).max(1);
    queries.iter().step_by(step).map(|r| r.query).collect()
}

/// The queries with the lowest average precision, worst first.
pub(super) fn worst(measured: &Measured, count: usize) -> Vec<usize> {
    let mut queries: Vec<_> = measured.ranking.queries.iter().collect();
    queries.sort_by(|a, b| a.average_precision.total_cmp(&b.average_precision));
    queries.iter().take(count).map(|r| r.query).collect()
}
