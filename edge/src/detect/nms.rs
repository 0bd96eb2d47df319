//! Non-maximum suppression.

use crate::types::Detection;

/// Keeps, from the best down, every detection that overlaps no kept one by more than `iou`. Best first; ties keep their
/// order, so the result does not depend on the sort.
pub fn suppress(mut detections: Vec<Detection>, iou: f32) -> Vec<Detection> {
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for d in detections {
        if kept.iter().all(|k| k.ltrb.iou(&d.ltrb) <= iou) {
            kept.push(d);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Ltrb;

    #[test]
    fn the_better_of_two_overlapping_boxes_stays() {
        let at = |left: f32, score| Detection {
            ltrb: Ltrb {
                left,
                top: 0.0,
                right: left + 10.0,
                bottom: 20.0,
            },
            score,
        };
        let kept = suppress(vec![at(1.0, 0.5), at(0.0, 0.9), at(30.0, 0.1)], 0.45);
        assert_eq!(kept, vec![at(0.0, 0.9), at(30.0, 0.1)]);
    }
}
