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

/// Where somebody is expected.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Predicted box.
    pub ltrb: Ltrb,
    /// Seconds since it was seen.
    pub unseen_secs: f32,
}

/// Best pairing of predicted boxes and detections; pairs whose `affinity` is `None` are forbidden.
pub fn assign(
    predicted: &[Expected],
    detections: &[Ltrb],
    affinity: impl Fn(&Expected, &Ltrb) -> Option<f32>,
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
pub fn overlap(least: f32) -> impl Fn(&Expected, &Ltrb) -> Option<f32> {
    move |a, b| Some(a.ltrb.iou(b)).filter(|iou| *iou >= least && *iou > 0.0)
}

/// How far boxes are grown, in shares of their size, times the square of the seconds unseen: what is not known of a
/// person's way grows like that. And at most.
const EXPANSION: f32 = 1.6;
const MOST_EXPANSION: f32 = 0.5;

/// IoU of boxes grown on each side by the longer the one was not seen (after Deep-EIoU, Huang et al. 2024), forbidden if they
/// do not touch or differ in height by more than 1.7 times. Small people at few frames per second move by more than their
/// own width, where plain IoU is 0; at ten and more, boxes grown alike would take whoever passes by.
pub fn near(a: &Expected, b: &Ltrb) -> Option<f32> {
    let ratio = a.ltrb.height().max(1.0) / b.height().max(1.0);
    if !(1.0 / 1.7..=1.7).contains(&ratio) {
        return None;
    }
    let share = (EXPANSION * a.unseen_secs * a.unseen_secs).min(MOST_EXPANSION);
    Some(grown(&a.ltrb, share).iou(&grown(b, share))).filter(|iou| *iou > 0.15)
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
        let unseen = |unseen_secs| Expected {
            ltrb: a,
            unseen_secs,
        };
        assert_eq!(overlap(0.2)(&unseen(0.5), &b), None);
        assert!(near(&unseen(0.5), &b).unwrap() > 0.15);
        assert_eq!(near(&unseen(0.1), &b), None, "nobody is that fast");
        assert_eq!(
            near(&unseen(0.5), &person(10.0, 100.0)),
            None,
            "twice as tall"
        );
        assert_eq!(near(&unseen(9.0), &person(200.0, 50.0)), None, "far away");
    }
}
