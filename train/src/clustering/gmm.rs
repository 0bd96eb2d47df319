//! Gaussian mixtures by expectation-maximisation (Dempster, Laird and Rubin 1977, "Maximum likelihood from incomplete data via
//! the EM algorithm"), with the conventions of scikit-learn's `GaussianMixture`.
//!
//! linfa-clustering has full covariances only, and its sums depend on the number of threads: hence our own.

use rayon::prelude::*;

use super::mixture::{Covariance, Expectation, Mixture};
use super::{ClusterError, KMeans, PseudoLabels, checked_rows};
use crate::capacity::{self, bytes};

/// Checked parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gmm {
    components: usize,
    covariance: Covariance,
    seed: u64,
    reg_covar: f64,
    tolerance: f64,
    max_iterations: usize,
}

/// A mixture and what it says about the rows that it was fitted to.
#[derive(Clone, Debug, PartialEq)]
pub struct GmmFit {
    /// Parameters.
    pub mixture: Mixture,
    /// Responsibilities and log-likelihood of these parameters.
    pub expectation: Expectation,
    /// Updates of the parameters.
    pub iterations: usize,
    /// The last update changed the mean log-likelihood by less than the tolerance.
    pub converged: bool,
}

impl GmmFit {
    /// Per row its likeliest component; components without a row vanish.
    pub fn pseudo_labels(&self) -> PseudoLabels {
        let labels = self.expectation.labels(self.mixture.components());
        let mut used = labels.clone();
        used.sort_unstable();
        used.dedup();
        PseudoLabels {
            labels: labels
                .iter()
                .map(|l| used.binary_search(l).ok().map(|n| n as u32))
                .collect(),
            clusters: used.len(),
        }
    }
}

impl Gmm {
    /// K = `components`; `seed` decides the k-means that the mixture starts from. reg_covar 1e-6, tolerance 1e-3, at most 100
    /// updates.
    ///
    /// # Errors
    /// [`ClusterError::Parameter`] for 0 components.
    pub fn new(components: usize, covariance: Covariance, seed: u64) -> Result<Self, ClusterError> {
        // k-means has the same condition.
        KMeans::new(components, seed)?;
        Ok(Gmm {
            components,
            covariance,
            seed,
            reg_covar: 1e-6,
            tolerance: 1e-3,
            max_iterations: 100,
        })
    }

    /// Added to the variances after every update, so that a column without spread keeps a density.
    ///
    /// # Errors
    /// [`ClusterError::Parameter`] unless finite and at least 0.
    pub fn reg_covar(mut self, reg_covar: f64) -> Result<Self, ClusterError> {
        if !(reg_covar.is_finite() && reg_covar >= 0.0) {
            return Err(ClusterError::Parameter {
                key: "reg_covar",
                range: "finite and at least 0",
                value: reg_covar.to_string(),
            });
        }
        self.reg_covar = reg_covar;
        Ok(self)
    }

    /// Change of the mean log-likelihood that ends the fit; 0: never.
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Updates at most; 0 gives the start back.
    pub fn max_iterations(mut self, updates: usize) -> Self {
        self.max_iterations = updates;
        self
    }

    /// Fits the rows of `features` (N, D), row-major with `width` = D columns, as they are. Starts from the clusters of
    /// k-means: their shares, means and covariances.
    ///
    /// # Errors
    /// [`ClusterError::Shape`], [`ClusterError::NotFinite`], [`ClusterError::FewRows`] (N < K), [`ClusterError::FewDistinct`]
    /// (fewer than K rows differ), [`ClusterError::Collapsed`].
    pub fn fit(&self, features: &[f32], width: usize) -> Result<GmmFit, ClusterError> {
        // Before the k-means: its time would be lost.
        let rows = checked_rows(features, width, self.components)?;
        self.require_memory(rows, width)?;
        let start = KMeans::new(self.components, self.seed)?.fit(features, width)?;
        let mut responsibilities = vec![0f64; start.labels.len() * self.components];
        for (row, label) in responsibilities
            .chunks_exact_mut(self.components)
            .zip(&start.labels)
        {
            row[*label as usize] = 1.0;
        }
        let mixture = self.maximise(features, width, &responsibilities)?;
        self.fit_from(features, mixture)
    }

    /// The same from a given mixture; its covariances are taken as they are.
    ///
    /// # Errors
    /// As [`Gmm::fit`]; [`ClusterError::Parameter`] if the mixture has another K or form.
    pub fn fit_from(&self, features: &[f32], start: Mixture) -> Result<GmmFit, ClusterError> {
        if start.components() != self.components || start.covariance() != self.covariance {
            return Err(ClusterError::Parameter {
                key: "mixture",
                range: "of the number of components and the form that the fit has",
                value: format!("{} x {:?}", start.components(), start.covariance()),
            });
        }
        let width = start.width();
        let rows = checked_rows(features, width, self.components)?;
        self.require_memory(rows, width)?;
        let mut fit = GmmFit {
            expectation: start.expect(features)?,
            mixture: start,
            iterations: 0,
            converged: false,
        };
        while fit.iterations < self.max_iterations && !fit.converged {
            fit.mixture = self.maximise(features, width, &fit.expectation.responsibilities)?;
            let next = fit.mixture.expect(features)?;
            let change = next.log_likelihood - fit.expectation.log_likelihood;
            fit.converged = change.abs() < self.tolerance;
            fit.expectation = next;
            fit.iterations += 1;
        }
        Ok(fit)
    }

    fn require_memory(&self, rows: usize, width: usize) -> Result<(), ClusterError> {
        // Old and new shares of every row; means; covariances while they are summed, kept and factorised.
        let components = self.components;
        let need = bytes(rows, components, 2 * 8)
            .saturating_add(bytes(components, width, 2 * 8))
            .saturating_add(bytes(components, self.covariance.len(width), 3 * 8));
        Ok(capacity::require(
            &format!("{components} components in {width} columns for {rows} images"),
            need,
            "ask for fewer components, use diagonal covariances, or cluster fewer images",
        )?)
    }

    /// The parameters of highest likelihood given responsibilities. A component is summed by one thread, in the order of
    /// rows.
    fn maximise(
        &self,
        features: &[f32],
        width: usize,
        responsibilities: &[f64],
    ) -> Result<Mixture, ClusterError> {
        let components = self.components;
        let parts: Vec<(f64, Vec<f64>, Vec<f64>)> = (0..components)
            .into_par_iter()
            .map(|k| {
                let shares = || {
                    features
                        .chunks_exact(width)
                        .zip(responsibilities[k..].iter().step_by(components))
                        .filter(|(_, share)| **share > 0.0)
                };
                let mass: f64 = shares().map(|(_, share)| share).sum();
                if mass < 10.0 * f64::EPSILON * responsibilities.len() as f64 {
                    return Err(ClusterError::Collapsed {
                        component: k,
                        reason: "no row belongs to it any more",
                    });
                }
                let mut mean = vec![0f64; width];
                for (row, share) in shares() {
                    for (sum, v) in mean.iter_mut().zip(row) {
                        *sum += share * f64::from(*v);
                    }
                }
                mean.iter_mut().for_each(|sum| *sum /= mass);
                let mut spread = vec![0f64; self.covariance.len(width)];
                let mut away = vec![0f64; width];
                for (row, share) in shares() {
                    for ((a, v), m) in away.iter_mut().zip(row).zip(&mean) {
                        *a = f64::from(*v) - m;
                    }
                    self.add(&mut spread, &away, *share);
                }
                self.finish(&mut spread, mass, width);
                Ok((mass, mean, spread))
            })
            .collect::<Result<_, _>>()?;
        let total: f64 = parts.iter().map(|(mass, ..)| mass).sum();
        Mixture::new(
            self.covariance,
            width,
            parts.iter().map(|(mass, ..)| mass / total).collect(),
            parts
                .iter()
                .flat_map(|(_, mean, _)| mean)
                .copied()
                .collect(),
            parts
                .iter()
                .flat_map(|(.., spread)| spread)
                .copied()
                .collect(),
        )
    }

    fn add(&self, spread: &mut [f64], away: &[f64], share: f64) {
        match self.covariance {
            Covariance::Diagonal => {
                for (sum, a) in spread.iter_mut().zip(away) {
                    *sum += share * a * a;
                }
            }
            // The lower triangle only; `finish` mirrors it.
            Covariance::Full => {
                for (r, line) in spread.chunks_exact_mut(away.len()).enumerate() {
                    let scale = share * away[r];
                    for (sum, a) in line[..=r].iter_mut().zip(away) {
                        *sum += scale * a;
                    }
                }
            }
        }
    }

    fn finish(&self, spread: &mut [f64], mass: f64, width: usize) {
        spread.iter_mut().for_each(|sum| *sum /= mass);
        match self.covariance {
            Covariance::Diagonal => spread.iter_mut().for_each(|v| *v += self.reg_covar),
            Covariance::Full => {
                for r in 0..width {
                    spread[r * width + r] += self.reg_covar;
                    for c in 0..r {
                        spread[c * width + r] = spread[r * width + c];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Two groups; the second one has no spread in its second column.
    fn groups() -> Vec<f32> {
        (0..40)
            .flat_map(|i| {
                let t = (i * 7 % 20) as f32 / 20.0;
                if i < 20 {
                    [t, (3.0 * t).sin()]
                } else {
                    [10.0 + t, 5.0]
                }
            })
            .collect()
    }

    #[test]
    fn a_column_without_spread_lives_by_reg_covar() {
        for form in [Covariance::Diagonal, Covariance::Full] {
            let gmm = Gmm::new(2, form, 3).unwrap();
            let found = gmm.fit(&groups(), 2).unwrap();
            assert!(found.converged);
            let labels = found.pseudo_labels();
            assert_eq!(labels.sizes(), [20, 20]);
            let message = gmm
                .reg_covar(0.0)
                .unwrap()
                .fit(&groups(), 2)
                .unwrap_err()
                .to_string();
            assert!(
                message.contains("component") && message.contains("reg_covar"),
                "{message}"
            );
        }
    }

    #[test]
    fn bad_input_is_named() {
        let gmm = |k| Gmm::new(k, Covariance::Full, 0);
        let message = |x: &[f32], k| gmm(k).and_then(|m| m.fit(x, 2)).unwrap_err().to_string();
        assert!(message(&[1.0; 8], 0).contains("at least 1"));
        assert!(message(&[1.0; 8], 5).contains("4 rows cannot make 5"));
        assert!(message(&[1.0; 8], 2).contains("only 1 of the rows differ"));
        assert!(message(&[1.0, f32::INFINITY], 1).contains("row 0"));
        assert!(gmm(1).unwrap().reg_covar(f64::NAN).is_err());
        // A component far from every row loses all of them.
        let start = Mixture::new(
            Covariance::Diagonal,
            1,
            vec![0.5, 0.5],
            vec![0.5, 1e6],
            vec![1.0, 1.0],
        )
        .unwrap();
        let lost = Gmm::new(2, Covariance::Diagonal, 0)
            .unwrap()
            .fit_from(&[0.0, 1.0, 0.5], start)
            .unwrap_err()
            .to_string();
        assert!(
            lost.contains("component 1") && lost.contains("no row"),
            "{lost}"
        );
        // One component of equal rows is a point with the variance reg_covar.
        let one = gmm(1).unwrap().fit(&[1.0; 8], 2).unwrap();
        assert_eq!(one.mixture.covariances(), [1e-6, 0.0, 0.0, 1e-6]);
    }
}
