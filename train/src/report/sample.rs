//! A sample of the test set in the plane: does the network group people, or cameras?

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reid_models::distance::normalize;

use super::Measured;
use super::chart::scatter;
use super::tsne;

/// Points of the sample; whole people are taken, so that it may hold fewer.
const POINTS: usize = 600;
/// People of the sample: more have no colours of their own.
const PEOPLE: usize = 30;

/// Two pictures of the same places: coloured by person and by camera. Empty with fewer than three points.
pub(super) fn html(measured: &Measured, seed: u64) -> String {
    let sides = [&measured.sides.query, &measured.sides.gallery];
    // (person, camera, feature) of the people's pictures (or tracklets), query and gallery together.
    let mut people: BTreeMap<i64, Vec<(u32, &[f32])>> = BTreeMap::new();
    for side in sides {
        let rows = side.set.features.chunks_exact(side.set.width);
        for (sample, row) in side.shown.iter().zip(rows) {
            if sample.pid > 0 {
                people
                    .entry(sample.pid)
                    .or_default()
                    .push((sample.camera, row));
            }
        }
    }
    let mut order: Vec<i64> = people.keys().copied().collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for n in (1..order.len()).rev() {
        order.swap(n, rng.random_range(0..=n));
    }
    let (mut rows, mut points) = (Vec::new(), Vec::new());
    let mut taken = 0;
    for pid in order {
        let pictures = &people[&pid];
        if taken == PEOPLE || points.len() + pictures.len() > POINTS {
            continue;
        }
        taken += 1;
        for (camera, row) in pictures {
            let mut row = row.to_vec();
            // Finite: the evaluation has checked it.
            let _ = normalize(&mut row);
            rows.extend(row);
            points.push((pid, *camera));
        }
    }
    if points.len() < 3 {
        return String::new();
    }
    let places = tsne::embed(&rows, measured.sides.query.set.width, seed);
    let number = |values: Vec<i64>| -> (Vec<usize>, usize) {
        let mut known = values.clone();
        known.sort_unstable();
        known.dedup();
        let groups = values.iter().map(|v| known.partition_point(|k| k < v));
        (groups.collect(), known.len())
    };
    let mut html = String::new();
    for (title, values) in [
        ("coloured by person", points.iter().map(|p| p.0).collect()),
        (
            "coloured by camera",
            points.iter().map(|p| i64::from(p.1)).collect(),
        ),
    ] {
        let (groups, count) = number(values);
        let drawn: Vec<([f64; 2], usize, String)> = places
            .iter()
            .zip(groups)
            .zip(&points)
            .map(|((place, group), (pid, camera))| {
                (*place, group, format!("person {pid}, camera {camera}"))
            })
            .collect();
        html.push_str(&scatter(title, &drawn, count));
    }
    format!(
        "<p class=\"note\">t-SNE of {} pictures of {taken} people. People should lie apart; cameras should mix.</p>\
         <div class=\"grid2\">{html}</div>",
        points.len()
    )
}
