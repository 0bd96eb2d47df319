//! NanoDet and NanoDet-Plus (RangiLyu), anchor-free heads that give a box's four sides as distributions (Li et al.,
//! "Generalized Focal Loss", 2020).
//!
//! NanoDet-Plus has strides 8 to 64 and measures from the cells' upper left corners, NanoDet before it strides 8 to 32 and
//! measures from their centres (`get_single_level_center_priors` and `get_single_level_center_point` of its sources).

use reid_models::card::head::{P5, P6, cells, nanodet_bins};

use super::{Candidate, Unreadable, Wanted, add, no_nan};

/// The head, (anchors, classes + 4 * bins): class scores, already 0..1, then for left, top, right, bottom the logits of
/// the distance being 0, 1, ... strides. Boxes are held to the input, as the models were trained.
///
/// # Errors
/// [`Unreadable`]. `size` is the input's (height, width).
pub fn head(
    shape: &[usize],
    data: &[f32],
    size: (usize, usize),
    wanted: &Wanted,
    found: &mut Vec<Candidate>,
) -> Result<(), Unreadable> {
    let &[anchors, columns] = shape else {
        return Err(Unreadable::Shape);
    };
    let bins = nanodet_bins(columns);
    if columns <= 4 * bins || data.len() != anchors * columns {
        return Err(Unreadable::Shape);
    }
    let (strides, offset) = if anchors == cells(P6, size) {
        (P6, 0.0)
    } else if anchors == cells(P5, size) {
        (P5, 0.5)
    } else {
        return Err(Unreadable::Shape);
    };
    no_nan(data)?;
    let (height, width) = (size.0 as f32, size.1 as f32);
    let mut rows = data.chunks_exact(columns);
    for &stride in strides {
        let s = stride as f32;
        for y in 0..size.0.div_ceil(stride) {
            for (x, row) in (0..size.1.div_ceil(stride)).zip(&mut rows) {
                let (scores, sides) = row.split_at(columns - 4 * bins);
                let Some((class, score)) = wanted.best(scores) else {
                    continue;
                };
                if score < wanted.score {
                    continue;
                }
                let side = |i: usize| expectation(&sides[i * bins..(i + 1) * bins]) * s;
                let (x, y) = ((x as f32 + offset) * s, (y as f32 + offset) * s);
                let ltrb = [
                    (x - side(0)).clamp(0.0, width),
                    (y - side(1)).clamp(0.0, height),
                    (x + side(2)).clamp(0.0, width),
                    (y + side(3)).clamp(0.0, height),
                ];
                add(found, ltrb, class, score)?;
            }
        }
    }
    Ok(())
}

/// Mean of 0, 1, 2, ... under the softmax of `logits`.
fn expectation(logits: &[f32]) -> f32 {
    // Less the largest, so that no exponential overflows.
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut mean) = (0.0, 0.0);
    for (value, logit) in logits.iter().enumerate() {
        let weight = (logit - largest).exp();
        sum += weight;
        mean += weight * value as f32;
    }
    mean / sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn distributions_have_a_mean() {
        assert!((expectation(&[0.0; 8]) - 3.5).abs() < 1e-6);
        let mut sure = [-50.0; 8];
        sure[5] = 1e5;
        assert_eq!(expectation(&sure), 5.0);
        let half = [0.0, f32::NEG_INFINITY, 0.0];
        assert!((expectation(&half) - 1.0).abs() < 1e-6);
        assert!(expectation(&[f32::INFINITY; 8]).is_nan());
    }

    #[test]
    fn three_levels_measure_from_the_cells_centres_four_from_their_corners() {
        // 64 x 64, one class; the last anchor of stride 32, all four sides one stride away.
        for (strides, corner) in [(P5, 48.0), (P6, 32.0)] {
            let anchors = cells(strides, (64, 64));
            let mut data = vec![0.0f32; anchors * 33];
            let row = &mut data[83 * 33..84 * 33];
            row[0] = 0.9;
            for side in row[1..].chunks_exact_mut(8) {
                side.fill(-100.0);
                side[1] = 0.0;
            }
            let wanted = Wanted {
                classes: &[0],
                score: 0.3,
            };
            let mut found = Vec::new();
            head(&[anchors, 33], &data, (64, 64), &wanted, &mut found).unwrap();
            let b = found[0].ltrb;
            let want = [
                corner - 32.0,
                corner - 32.0,
                64f32.min(corner + 32.0),
                64f32.min(corner + 32.0),
            ];
            assert_eq!([b.left, b.top, b.right, b.bottom], want, "{strides:?}");
            assert_eq!(found.len(), 1);
        }
    }

    #[test]
    fn a_shape_of_no_head_and_numbers_that_are_none_are_refused() {
        let wanted = Wanted {
            classes: &[0],
            score: 0.3,
        };
        let mut found = Vec::new();
        let mut data = vec![0.0; 84 * 33];
        for shape in [&[84, 32][..], &[83, 33], &[84 * 33], &[33, 84]] {
            let len = shape.iter().product::<usize>().min(data.len());
            let refused = head(shape, &data[..len], (64, 64), &wanted, &mut found);
            assert_eq!(refused, Err(Unreadable::Shape), "{shape:?}");
        }
        (data[0], data[1]) = (0.9, f32::INFINITY);
        let refused = head(&[84, 33], &data, (64, 64), &wanted, &mut found);
        assert_eq!(refused, Err(Unreadable::NotFinite), "a softmax of infinity");
        data[1] = f32::NAN;
        let refused = head(&[84, 33], &data, (64, 64), &wanted, &mut found);
        assert_eq!(refused, Err(Unreadable::NotFinite));
    }
}
