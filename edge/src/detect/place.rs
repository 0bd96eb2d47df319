//! What is left of a picture's candidates, in its own pixels.

use reid_models::preprocess::Letterbox;

use super::decode::Candidate;
use super::nms;
use crate::types::{Detection, Ltrb};

/// Narrower boxes, pixels of the frame, are no people.
const LEAST_WIDTH: f32 = 2.0;

/// Suppresses overlapping boxes of a class (not at all if `iou` is `None`), takes the rest from the input back into a
/// frame of (width, height) pixels, cuts off what lies outside, and drops what is then lower than `min_height`. Best
/// first. `candidates` are used up.
pub fn detections(
    candidates: &mut Vec<Candidate>,
    iou: Option<f32>,
    letterbox: &Letterbox,
    (width, height): (usize, usize),
    min_height: f32,
) -> Vec<Detection> {
    match iou {
        Some(iou) => nms::suppress_by_class(candidates, iou),
        None => candidates.sort_by(|a, b| b.score.total_cmp(&a.score)),
    }
    candidates
        .drain(..)
        .map(|c| {
            let (left, top) = letterbox.frame_from_input(c.ltrb.left, c.ltrb.top);
            let (right, bottom) = letterbox.frame_from_input(c.ltrb.right, c.ltrb.bottom);
            let ltrb = Ltrb {
                left,
                top,
                right,
                bottom,
            };
            Detection {
                ltrb: ltrb.clamped(width, height),
                score: c.score,
            }
        })
        .filter(|d| d.ltrb.height() >= min_height && d.ltrb.width() >= LEAST_WIDTH)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_return_to_the_frame_and_the_small_ones_go() {
        let at = |left: f32, top: f32, size: f32, score: f32| Candidate {
            ltrb: Ltrb {
                left,
                top,
                right: left + size,
                bottom: top + size,
            },
            class: 0,
            score,
        };
        let letterbox = Letterbox {
            scale: [0.5, 0.5],
            offset: [10.0, 0.0],
        };
        let mut candidates = vec![
            at(12.0, 4.0, 30.0, 0.6),
            at(70.0, 80.0, 5.0, 0.7),
            at(-10.0, 90.0, 30.0, 0.9),
            // Outside: nothing of it is left.
            at(-50.0, 10.0, 30.0, 0.95),
        ];
        let found = detections(&mut candidates, Some(0.5), &letterbox, (100, 200), 12.0);
        let boxes: Vec<[f32; 4]> = found
            .iter()
            .map(|d| [d.ltrb.left, d.ltrb.top, d.ltrb.right, d.ltrb.bottom])
            .collect();
        assert_eq!(boxes, [[0.0, 180.0, 20.0, 200.0], [4.0, 8.0, 64.0, 68.0]]);
        assert!(candidates.is_empty());
    }

    #[test]
    fn without_suppression_all_stay() {
        let one = Candidate {
            ltrb: Ltrb {
                left: 0.0,
                top: 0.0,
                right: 50.0,
                bottom: 50.0,
            },
            class: 0,
            score: 0.5,
        };
        let better = Candidate { score: 0.6, ..one };
        let letterbox = Letterbox {
            scale: [1.0, 1.0],
            offset: [0.0, 0.0],
        };
        let keep = |iou| {
            let mut both = vec![one, better];
            let found = detections(&mut both, iou, &letterbox, (99, 99), 4.0);
            found.iter().map(|d| d.score).collect::<Vec<_>>()
        };
        assert_eq!(keep(None), [0.6, 0.5]);
        assert_eq!(keep(Some(0.9)), [0.6]);
    }
}
