//! t-SNE (van der Maaten and Hinton 2008), exact: every pair, for a sample of at most [`MOST`] points.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use reid_models::distance::dot;

/// Points above which all pairs take too long to be worth a picture.
pub const MOST: usize = 1000;

/// Neighbours a point feels, about.
const PERPLEXITY: f64 = 30.0;
const STEPS: usize = 500;
/// Steps in which clusters are pulled together more than they want, so that they find their places.
const EXAGGERATED: usize = 120;
const EXAGGERATION: f64 = 12.0;

/// Places in the plane for unit vectors (row-major, `width` columns); the same for the same seed. Fewer than 3 points lie at the
/// origin.
///
/// # Panics
/// With more than [`MOST`] points.
pub fn embed(rows: &[f32], width: usize, seed: u64) -> Vec<[f64; 2]> {
    let n = rows.len() / width;
    assert!(n <= MOST, "{n} points, at most {MOST}");
    if n < 3 {
        return vec![[0.0; 2]; n];
    }
    let p = affinities(rows, width, n);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut places: Vec<[f64; 2]> = (0..n)
        .map(|_| [(); 2].map(|()| 1e-3 * (rng.random::<f64>() - 0.5)))
        .collect();
    let mut speed = vec![[0.0; 2]; n];
    let mut gains = vec![[1.0f64; 2]; n];
    let rate = (n as f64 / EXAGGERATION).max(50.0);
    for step in 0..STEPS {
        let (more, momentum) = if step < EXAGGERATED {
            (EXAGGERATION, 0.5)
        } else {
            (1.0, 0.8)
        };
        let slopes = gradient(&p, &places, more);
        for i in 0..n {
            for d in 0..2 {
                // Steps grow while the direction stays, and shrink when it turns (section 3.4).
                let gain = &mut gains[i][d];
                *gain = if (slopes[i][d] > 0.0) == (speed[i][d] > 0.0) {
                    (*gain * 0.8).max(0.01)
                } else {
                    *gain + 0.2
                };
                speed[i][d] = momentum * speed[i][d] - rate * *gain * slopes[i][d];
                places[i][d] += speed[i][d];
            }
        }
    }
    places
}

/// Symmetric probabilities of pairs (eq. 1 and section 3.1), n x n.
fn affinities(rows: &[f32], width: usize, n: usize) -> Vec<f64> {
    let row = |i: usize| &rows[i * width..][..width];
    let wanted = PERPLEXITY.min((n - 1) as f64 / 3.0).ln();
    let conditional: Vec<Vec<f64>> = (0..n)
        .into_par_iter()
        .map(|i| {
            let squared: Vec<f64> = (0..n)
                .map(|j| (2.0 - 2.0 * f64::from(dot(row(i), row(j)))).max(0.0))
                .collect();
            let nearest = (0..n)
                .filter(|j| *j != i)
                .map(|j| squared[j])
                .fold(f64::INFINITY, f64::min);
            let (mut low, mut high, mut beta) = (0.0, f64::INFINITY, 1.0);
            let mut p = vec![0.0; n];
            for _ in 0..60 {
                let (mut sum, mut weighted) = (0.0, 0.0);
                for j in 0..n {
                    // Shifted by the nearest, which changes no probability and keeps the sum above 0.
                    let far = squared[j] - nearest;
                    p[j] = if j == i { 0.0 } else { (-beta * far).exp() };
                    sum += p[j];
                    weighted += p[j] * far;
                }
                let entropy = sum.ln() + beta * weighted / sum;
                p.iter_mut().for_each(|p| *p /= sum);
                if (entropy - wanted).abs() < 1e-5 {
                    break;
                }
                if entropy > wanted {
                    low = beta;
                    beta = if high.is_finite() {
                        (low + high) / 2.0
                    } else {
                        2.0 * beta
                    };
                } else {
                    high = beta;
                    beta = (low + high) / 2.0;
                }
            }
            p
        })
        .collect();
    let mut p = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..n {
            p[i * n + j] = ((conditional[i][j] + conditional[j][i]) / (2.0 * n as f64)).max(1e-12);
        }
    }
    p
}

/// Slope of the Kullback-Leibler divergence (eq. 5), P times `more`.
fn gradient(p: &[f64], places: &[[f64; 2]], more: f64) -> Vec<[f64; 2]> {
    let n = places.len();
    let near = |a: [f64; 2], b: [f64; 2]| {
        let (x, y) = (a[0] - b[0], a[1] - b[1]);
        1.0 / (1.0 + x * x + y * y)
    };
    // Each row is summed by itself, and the rows in order: the same on any number of threads.
    let sums: Vec<f64> = places
        .par_iter()
        .map(|a| places.iter().map(|b| near(*a, *b)).sum::<f64>() - 1.0)
        .collect();
    let total: f64 = sums.iter().sum();
    (0..n)
        .into_par_iter()
        .map(|i| {
            let mut slope = [0.0; 2];
            for j in 0..n {
                let w = near(places[i], places[j]);
                let pull = 4.0 * (more * p[i * n + j] - w / total) * w;
                slope[0] += pull * (places[i][0] - places[j][0]);
                slope[1] += pull * (places[i][1] - places[j][1]);
            }
            slope
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_together_and_apart() {
        let (groups, each, width) = (5, 20, 16);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut rows = Vec::new();
        for n in 0..groups * each {
            let mut row: Vec<f32> = (0..width).map(|_| rng.random_range(-0.2..0.2)).collect();
            row[n / each] += 1.0;
            let length = dot(&row, &row).sqrt();
            rows.extend(row.iter().map(|v| v / length));
        }
        let places = embed(&rows, width, 1);
        let right = (0..places.len())
            .filter(|&i| {
                let away =
                    |j: usize| (places[i][0] - places[j][0]).hypot(places[i][1] - places[j][1]);
                let others = (0..places.len()).filter(|j| *j != i);
                let nearest = others.min_by(|a, b| away(*a).total_cmp(&away(*b)));
                nearest.is_some_and(|j| j / each == i / each)
            })
            .count();
        assert!(right >= 95, "{right} of 100 lie beside their own");
        assert_eq!(places, embed(&rows, width, 1), "the same again");
        assert_eq!(embed(&rows[..2 * width], width, 1), [[0.0; 2]; 2]);
        assert!(
            embed(&[1.0; 40], 4, 1)
                .iter()
                .flatten()
                .all(|v| v.is_finite())
        );
    }
}
