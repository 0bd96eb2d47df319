//! Non-maximum suppression.

use super::decode::Candidate;
use crate::types::Detection;

/// Keeps, from the best down, every detection that overlaps no kept one by more than `iou`. Best first; ties keep their
/// order, so the result does not depend on the sort.
pub fn suppress(mut detections: Vec<Detection>, iou: f32) -> Vec<Detection> {
    keep(
        &mut detections,
        |d| d.score,
        |kept, d| kept.ltrb.iou(&d.ltrb) > iou,
    );
    detections
}

/// As [`suppress`], where only boxes of one class compete.
pub fn suppress_by_class(candidates: &mut Vec<Candidate>, iou: f32) {
    keep(
        candidates,
        |c| c.score,
        |kept, c| kept.class == c.class && kept.ltrb.iou(&c.ltrb) > iou,
    );
}

fn keep<T: Copy>(all: &mut Vec<T>, score: impl Fn(&T) -> f32, drops: impl Fn(&T, &T) -> bool) {
    all.sort_by(|a, b| score(b).total_cmp(&score(a)));
    let mut kept = 0;
    for i in 0..all.len() {
        let one = all[i];
        if !all[..kept].iter().any(|k| drops(k, &one)) {
            all[kept] = one;
            kept += 1;
        }
    }
    all.truncate(kept);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::types::Ltrb;
    use proptest::prelude::*;

    fn at(left: f32, class: usize, score: f32) -> Candidate {
        Candidate {
            ltrb: Ltrb {
                left,
                top: 0.0,
                right: left + 10.0,
                bottom: 20.0,
            },
            class,
            score,
        }
    }

    #[test]
    fn the_better_of_two_overlapping_boxes_of_a_class_stays() {
        let mut all = vec![
            at(1.0, 0, 0.5),
            at(0.0, 0, 0.9),
            at(30.0, 0, 0.1),
            at(0.5, 1, 0.3),
        ];
        suppress_by_class(&mut all, 0.45);
        assert_eq!(all, [at(0.0, 0, 0.9), at(0.5, 1, 0.3), at(30.0, 0, 0.1)]);
        let detections = [at(1.0, 0, 0.5), at(0.0, 1, 0.9)].map(|c| Detection {
            ltrb: c.ltrb,
            score: c.score,
        });
        assert_eq!(suppress(detections.to_vec(), 0.45), [detections[1]]);
    }

    /// The definition, word by word: while there is a box left, the best of them stays, and it and all that overlap it go
    /// from the rest; a class at a time.
    fn slow(all: &[Candidate], iou: f32) -> Vec<Candidate> {
        let mut stay = Vec::new();
        for class in 0..3 {
            let mut rest: Vec<Candidate> =
                all.iter().filter(|c| c.class == class).copied().collect();
            while !rest.is_empty() {
                let best = rest
                    .iter()
                    .copied()
                    .reduce(|a, b| if b.score > a.score { b } else { a })
                    .unwrap();
                let mut itself = true;
                rest.retain(|c| {
                    if itself && *c == best {
                        itself = false;
                        return false;
                    }
                    c.ltrb.iou(&best.ltrb) <= iou
                });
                stay.push(best);
            }
        }
        stay
    }

    proptest! {
        #[test]
        fn agrees_with_the_slow_one(
            boxes in proptest::collection::vec((0i16..60, 0i16..60, 0i16..40, 0i16..40, 0usize..3, 0u8..100), 0..60),
            iou in 0.0f32..1.0,
        ) {
            // Whole numbers, so that equal scores, equal boxes and boxes without area occur.
            let all: Vec<Candidate> = boxes
                .iter()
                .map(|&(left, top, width, height, class, score)| Candidate {
                    ltrb: Ltrb {
                        left: left.into(),
                        top: top.into(),
                        right: (left + width).into(),
                        bottom: (top + height).into(),
                    },
                    class,
                    score: f32::from(score) / 100.0,
                })
                .collect();
            let mut fast = all.clone();
            suppress_by_class(&mut fast, iou);
            prop_assert!(fast.windows(2).all(|w| w[0].score >= w[1].score));
            for class in 0..3 {
                let of_class = |c: &&Candidate| c.class == class;
                let fast: Vec<_> = fast.iter().filter(of_class).collect();
                let slow = slow(&all, iou);
                let slow: Vec<_> = slow.iter().filter(of_class).collect();
                prop_assert_eq!(fast, slow);
            }
        }
    }
}
