//! A mixture of Gaussians: densities, responsibilities, labels and samples.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{ClusterError, checked_rows};
use crate::nn::init::normal;

/// Rows of a block.
const BLOCK: usize = 128;

/// Form of a component's covariance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covariance {
    /// A variance for each of the D columns.
    Diagonal,
    /// A symmetric matrix (D, D).
    Full,
}

impl Covariance {
    /// Numbers that a component has.
    pub fn len(self, width: usize) -> usize {
        match self {
            Covariance::Diagonal => width,
            Covariance::Full => width * width,
        }
    }
}

/// K components over D columns, all in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    covariance: Covariance,
    width: usize,
    weights: Vec<f64>,
    means: Vec<f64>,
    covariances: Vec<f64>,
    /// Standard deviations, or Cholesky factors L (row-major, lower) of the covariances L L^T.
    factors: Vec<f64>,
    /// Per component: ln weight - ln sqrt(det covariance) - D/2 ln 2 pi.
    constants: Vec<f64>,
}

/// What a mixture says about rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// (N, K): the probability that row n comes from component k; rows sum to 1.
    pub responsibilities: Vec<f64>,
    /// Mean natural log-likelihood of a row.
    pub log_likelihood: f64,
}

impl Expectation {
    /// Per row the likeliest of `components`, of equals the lowest.
    pub fn labels(&self, components: usize) -> Vec<u32> {
        self.responsibilities
            .chunks_exact(components)
            .map(|row| {
                let best = row.iter().fold(f64::NEG_INFINITY, |m, r| m.max(*r));
                row.iter().position(|r| *r == best).unwrap_or(0) as u32
            })
            .collect()
    }
}

impl Mixture {
    /// From weights (K), each above 0, together 1; means (K, D); covariances (K, D) or (K, D, D).
    ///
    /// # Errors
    /// [`ClusterError::Parameter`] for wrong lengths, weights or values that are not finite; [`ClusterError::Collapsed`] for a
    /// covariance that is not positive definite.
    pub fn new(
        covariance: Covariance,
        width: usize,
        weights: Vec<f64>,
        means: Vec<f64>,
        covariances: Vec<f64>,
    ) -> Result<Self, ClusterError> {
        let components = weights.len();
        let fits = width > 0
            && components > 0
            && means.len() == components * width
            && covariances.len() == components * covariance.len(width);
        if !fits || means.iter().chain(&covariances).any(|v| !v.is_finite()) {
            return Err(ClusterError::Parameter {
                key: "mixture",
                range: "K weights, K x D means and K x D (diagonal) or K x D x D (full) covariances, all finite",
                value: format!(
                    "{components}, {} and {} values, D = {width}",
                    means.len(),
                    covariances.len()
                ),
            });
        }
        let sum: f64 = weights.iter().sum();
        if weights.iter().any(|w| w.is_nan() || *w <= 0.0) || (sum - 1.0).abs() > 1e-4 {
            return Err(ClusterError::Parameter {
                key: "weights",
                range: "above 0 and of sum 1",
                value: format!("{weights:?}"),
            });
        }
        let mut factors = Vec::with_capacity(covariances.len());
        let mut constants = Vec::with_capacity(components);
        let normaliser = 0.5 * width as f64 * std::f64::consts::TAU.ln();
        for (component, matrix) in covariances.chunks_exact(covariance.len(width)).enumerate() {
            let factor = match covariance {
                Covariance::Diagonal => deviations(matrix),
                Covariance::Full => cholesky(matrix, width),
            }
            .ok_or(ClusterError::Collapsed {
                component,
                reason: "its covariance is not positive definite (a column without spread, or fewer rows than columns)",
            })?;
            let log_root: f64 = match covariance {
                Covariance::Diagonal => factor.iter().map(|s| s.ln()).sum(),
                Covariance::Full => (0..width).map(|r| factor[r * width + r].ln()).sum(),
            };
            constants.push(weights[component].ln() - log_root - normaliser);
            factors.extend(factor);
        }
        Ok(Mixture {
            covariance,
            width,
            weights,
            means,
            covariances,
            factors,
            constants,
        })
    }

    /// K.
    pub fn components(&self) -> usize {
        self.weights.len()
    }

    /// D.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Form of the covariances.
    pub fn covariance(&self) -> Covariance {
        self.covariance
    }

    /// Shares of the components, (K).
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// Means, (K, D).
    pub fn means(&self) -> &[f64] {
        &self.means
    }

    /// Covariances, (K, D) or (K, D, D).
    pub fn covariances(&self) -> &[f64] {
        &self.covariances
    }

    /// Responsibilities of the components for the rows of `features` (N, D), by log-sum-exp: far rows underflow to a share,
    /// never to 0/0.
    ///
    /// # Errors
    /// [`ClusterError::Shape`], [`ClusterError::NotFinite`], [`ClusterError::FewRows`] (no rows).
    pub fn expect(&self, features: &[f32]) -> Result<Expectation, ClusterError> {
        let rows = checked_rows(features, self.width, 1)?;
        let components = self.components();
        let mut responsibilities = vec![0f64; rows * components];
        let totals: Vec<f64> = responsibilities
            .par_chunks_mut(BLOCK * components)
            .zip(features.par_chunks(BLOCK * self.width))
            .map_init(
                || vec![0f64; self.width],
                |away, (out, block)| {
                    out.chunks_exact_mut(components)
                        .zip(block.chunks_exact(self.width))
                        .map(|(out, row)| {
                            for (k, value) in out.iter_mut().enumerate() {
                                *value = self.constants[k] - 0.5 * self.quadratic(k, row, away);
                            }
                            let most = out.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
                            let sum: f64 = out.iter().map(|v| (v - most).exp()).sum();
                            let total = most + sum.ln();
                            out.iter_mut().for_each(|v| *v = (*v - total).exp());
                            total
                        })
                        .collect::<Vec<_>>()
                },
            )
            .flatten_iter()
            .collect();
        Ok(Expectation {
            responsibilities,
            log_likelihood: totals.iter().sum::<f64>() / rows as f64,
        })
    }

    /// (row - mean)^T covariance^-1 (row - mean) of component `k`: the square of what solves L z = row - mean.
    fn quadratic(&self, k: usize, row: &[f32], away: &mut [f64]) -> f64 {
        let d = self.width;
        let mean = &self.means[k * d..][..d];
        let factor = &self.factors[k * self.covariance.len(d)..][..self.covariance.len(d)];
        match self.covariance {
            Covariance::Diagonal => row
                .iter()
                .zip(mean)
                .zip(factor)
                .map(|((x, m), s)| ((f64::from(*x) - m) / s).powi(2))
                .sum(),
            Covariance::Full => {
                for r in 0..d {
                    let line = &factor[r * d..][..=r];
                    let known: f64 = line[..r].iter().zip(&*away).map(|(l, z)| l * z).sum();
                    away[r] = (f64::from(row[r]) - mean[r] - known) / line[r];
                }
                away.iter().map(|z| z * z).sum()
            }
        }
    }

    /// `count` rows drawn from the mixture, (count, D), and the component of each.
    pub fn sample(&self, count: usize, seed: u64) -> (Vec<f32>, Vec<u32>) {
        let d = self.width;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut rows, mut labels) = (Vec::with_capacity(count * d), Vec::with_capacity(count));
        for _ in 0..count {
            let mut left = rng.random::<f64>() * self.weights.iter().sum::<f64>();
            let k = self
                .weights
                .iter()
                .position(|w| {
                    left -= w;
                    left < 0.0
                })
                .unwrap_or(self.components() - 1);
            let z = normal(&mut rng, 1.0, d);
            let factor = &self.factors[k * self.covariance.len(d)..][..self.covariance.len(d)];
            for r in 0..d {
                let spread: f64 = match self.covariance {
                    Covariance::Diagonal => factor[r] * f64::from(z[r]),
                    Covariance::Full => factor[r * d..][..=r]
                        .iter()
                        .zip(&z)
                        .map(|(l, z)| l * f64::from(*z))
                        .sum(),
                };
                rows.push((self.means[k * d + r] + spread) as f32);
            }
            labels.push(k as u32);
        }
        (rows, labels)
    }
}

fn deviations(variances: &[f64]) -> Option<Vec<f64>> {
    variances
        .iter()
        .map(|v| (*v > 0.0).then(|| v.sqrt()))
        .collect()
}

/// Lower L with L L^T = `matrix`, or nothing if that is not positive definite.
fn cholesky(matrix: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut l = vec![0f64; n * n];
    for r in 0..n {
        for c in 0..=r {
            let known: f64 = (0..c).map(|i| l[r * n + i] * l[c * n + i]).sum();
            let rest = matrix[r * n + c] - known;
            if r > c {
                l[r * n + c] = rest / l[c * n + c];
            } else if rest > 0.0 {
                l[r * n + r] = rest.sqrt();
            } else {
                return None;
            }
        }
    }
    Some(l)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_component_is_the_normal_density() {
        let m = Mixture::new(Covariance::Diagonal, 1, vec![1.0], vec![2.0], vec![4.0]).unwrap();
        let found = m.expect(&[2.0]).unwrap();
        let want = -(2.0 * std::f64::consts::TAU.sqrt()).ln();
        assert!((found.log_likelihood - want).abs() < 1e-12);
        // So far away that the density itself is 0 in f64.
        let far = m.expect(&[1e4]).unwrap();
        assert_eq!(far.responsibilities, [1.0]);
        assert!(far.log_likelihood < -1e6);
    }

    #[test]
    fn samples_have_the_moments_of_the_mixture() {
        let covariance = vec![2.0, 0.6, 0.6, 0.5];
        let m = Mixture::new(Covariance::Full, 2, vec![1.0], vec![1.0, -3.0], covariance).unwrap();
        let (rows, labels) = m.sample(20_000, 5);
        assert_eq!(m.sample(20_000, 5).0, rows);
        assert!(labels.iter().all(|l| *l == 0));
        let mean = |f: &dyn Fn(&[f32]) -> f64| {
            rows.chunks_exact(2).map(f).sum::<f64>() / labels.len() as f64
        };
        let x = |r: &[f32]| f64::from(r[0]) - 1.0;
        let y = |r: &[f32]| f64::from(r[1]) + 3.0;
        for (found, want) in [
            (mean(&x), 0.0),
            (mean(&y), 0.0),
            (mean(&|r| x(r) * x(r)), 2.0),
            (mean(&|r| x(r) * y(r)), 0.6),
            (mean(&|r| y(r) * y(r)), 0.5),
        ] {
            assert!((found - want).abs() < 0.06, "{found} {want}");
        }
    }

    #[test]
    fn bad_parameters_are_named() {
        let message = |form, weights: &[f64], means: &[f64], covariances: &[f64]| {
            Mixture::new(form, 2, weights.into(), means.into(), covariances.into())
                .unwrap_err()
                .to_string()
        };
        let full = Covariance::Full;
        assert!(message(full, &[1.0], &[0.0; 2], &[1.0; 2]).contains("K x D x D"));
        assert!(message(full, &[0.4], &[0.0; 2], &[1.0; 4]).contains("weights"));
        // All columns say the same.
        let flat = message(full, &[1.0], &[0.0; 2], &[1.0; 4]);
        assert!(
            flat.contains("component 0") && flat.contains("reg_covar"),
            "{flat}"
        );
        let flat = message(
            Covariance::Diagonal,
            &[0.5; 2],
            &[0.0; 4],
            &[1.0, 1.0, 1.0, 0.0],
        );
        assert!(flat.contains("component 1"), "{flat}");
    }
}
