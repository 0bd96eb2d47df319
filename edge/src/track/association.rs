//! Which detection continues which tracklet, by position.

use super::hungarian;
use crate::types::Ltrb;

/// Pairs of (box, detection) indices, and the detections left over.
pub struct Matching {
    /// (index into the predicted boxes, index into the detections).
    pub pairs: Vec<(usize, usize)>,
    /// Detections without a box.
    pub unmatched: Vec<usize>,
}

/// Best pairing of predicted boxes and detections; pairs whose `affinity` is `None` are forbidden.
pub fn assign(
    predicted: &[Ltrb],
    detections: &[Ltrb],
    affinity: impl Fn(&Ltrb, &Ltrb) -> Option<f32>,
) -> Matching {
    let mut cost = Vec::with_capacity(predicted.len() * detections.len());
    for p in predicted {
        cost.extend(
            detections
                .iter()
                .map(|d| affinity(p, d).map_or(f32::INFINITY, |a| 1.0 - a)),
        );
    }
    let mut taken = vec![false; detections.len()];
    let mut pairs = Vec::new();
    for (p, d) in hungarian::solve(&cost, predicted.len(), detections.len())
        .into_iter()
        .enumerate()
    {
        if let Some(d) = d {
            taken[d] = true;
            pairs.push((p, d));
        }
    }
    Matching {
        pairs,
        unmatched: (0..taken.len()).filter(|&d| !taken[d]).collect(),
    }
}

/// IoU, forbidden below `least`.
pub fn overlap(least: f32) -> impl Fn(&Ltrb, &Ltrb) -> Option<f32> {
    move |a, b| Some(a.iou(b)).filter(|iou| *iou >= least && *iou > 0.0)
}

/// IoU of boxes grown by `share` of their size on each side (Deep-EIoU, Huang et al. 2024), forbidden if they do not
/// touch or differ in height by more than 1.7 times. Small people at few frames per second move by more than their own
/// width, where plain IoU is 0.
pub fn near(share: f32) -> impl Fn(&Ltrb, &Ltrb) -> Option<f32> {
    move |a, b| {
        let ratio = a.height().max(1.0) / b.height().max(1.0);
        if !(1.0 / 1.7..=1.7).contains(&ratio) {
            return None;
        }
        Some(grown(a, share).iou(&grown(b, share))).filter(|iou| *iou > 0.15)
    }
}

fn grown(b: &Ltrb, share: f32) -> Ltrb {
    // Sideways a person moves by a share of the height; the width alone is too narrow a measure.
    let (dx, dy) = (
        share * b.width().max(0.5 * b.height()),
        0.5 * share * b.height(),
    );
    Ltrb {
        left: b.left - dx,
        top: b.top - dy,
        right: b.right + dx,
        bottom: b.bottom + dy,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn person(x: f32, h: f32) -> Ltrb {
        Ltrb {
            left: x,
            top: 0.0,
            right: x + 0.4 * h,
            bottom: h,
        }
    }

    #[test]
    fn near_reaches_where_overlap_is_zero_but_not_across_sizes() {
        let (a, b) = (person(0.0, 50.0), person(24.0, 50.0));
        assert_eq!(overlap(0.2)(&a, &b), None);
        assert!(near(0.5)(&a, &b).unwrap() > 0.15);
        assert_eq!(near(0.5)(&a, &person(10.0, 100.0)), None, "twice as tall");
        assert_eq!(near(0.5)(&a, &person(200.0, 50.0)), None, "far away");
    }
}
