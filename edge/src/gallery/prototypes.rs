//! Which reference embedding an identity can best do without.

use std::collections::BTreeMap;

use reid_models::distance::dot;

/// A prototype in the choice.
pub(super) struct Candidate<'a> {
    pub(super) camera: &'a str,
    pub(super) quality: f32,
    pub(super) embedding: &'a [f32],
}

/// Position of the candidate to drop: in the camera that has the most of them, the lower quality of the two that
/// resemble each other most. So every camera keeps a part, and within it the different views stay.
///
/// `candidates` must not be empty.
pub(super) fn most_redundant(candidates: &[Candidate<'_>]) -> usize {
    let mut of_camera: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, c) in candidates.iter().enumerate() {
        of_camera.entry(c.camera).or_default().push(i);
    }
    let crowded = of_camera
        .into_values()
        .max_by_key(Vec::len)
        .unwrap_or_default();
    let mut closest = f32::NEG_INFINITY;
    // With one candidate per camera there is no pair: the lowest quality goes.
    let mut victim = (0..candidates.len())
        .min_by(|a, b| candidates[*a].quality.total_cmp(&candidates[*b].quality))
        .unwrap_or_default();
    for (n, &i) in crowded.iter().enumerate() {
        for &j in &crowded[n + 1..] {
            let similarity = dot(candidates[i].embedding, candidates[j].embedding);
            if similarity > closest {
                closest = similarity;
                victim = if candidates[i].quality < candidates[j].quality {
                    i
                } else {
                    j
                };
            }
        }
    }
    victim
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crowded_camera_gives_up_its_weaker_twin() {
        let c = |camera, quality, embedding| Candidate {
            camera,
            quality,
            embedding,
        };
        let four = [
            c("door", 0.1, &[1.0, 0.0][..]),
            c("hall", 0.9, &[1.0, 0.0][..]),
            c("hall", 0.8, &[0.999, 0.04][..]),
            c("hall", 0.5, &[0.0, 1.0][..]),
        ];
        assert_eq!(most_redundant(&four), 2);
        let one_each = [
            c("door", 0.4, &[1.0, 0.0][..]),
            c("hall", 0.3, &[0.0, 1.0][..]),
        ];
        assert_eq!(most_redundant(&one_each), 1);
    }
}
