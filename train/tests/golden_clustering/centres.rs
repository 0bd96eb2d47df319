//! k-means, its seeding, and Gaussian mixtures.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use reid_train::clustering::seeding::PlusPlus;
use reid_train::clustering::{Covariance, EmptyCluster, Gmm, KMeans, Mixture};

use super::{Golden, assert_near, wide};

#[test]
fn kmeans() {
    let g = Golden::open();
    for name in ["blobs", "overlap", "pose", "empty_keep", "empty_relocate"] {
        let case = |array: &str| format!("kmeans.{name}.{array}");
        let features = g.floats(&case("features"));
        let initial = g.floats(&case("initial"));
        let width = g.width(&case("initial"));
        let clusters = initial.len() / width;
        let kmeans = KMeans::new(clusters, 0)
            .unwrap()
            .empty(if name == "empty_keep" {
                EmptyCluster::Keep
            } else {
                EmptyCluster::Relocate
            });
        let check = |updates: usize, centres: &[f32], labels: &[i64], inertia: f64| {
            let fit = kmeans
                .max_iterations(updates)
                .fit_from(&features, width, &initial)
                .unwrap();
            assert_near(
                &wide(&fit.centres),
                &wide(centres),
                1e-6,
                1e-6,
                &format!("{name} after {updates}: centre"),
            );
            let found: Vec<i64> = fit.labels.iter().map(|l| i64::from(*l)).collect();
            assert_eq!(found, labels, "{name} after {updates}");
            assert!(
                (fit.inertia / inertia - 1.0).abs() < 1e-6,
                "{name} after {updates}"
            );
            fit
        };
        let centres = g.floats(&case("centres_by_iteration"));
        let labels = g.rows(&case("labels_by_iteration"));
        let inertia = g.doubles(&case("inertia_by_iteration"));
        for t in 0..4 {
            let centres = &centres[t * initial.len()..][..initial.len()];
            let fit = check(t, centres, &labels[t], inertia[t]);
            assert!(!fit.converged && fit.iterations == t);
        }
        let fit = check(
            300,
            &g.floats(&case("centres")),
            &g.whole(&case("labels")),
            g.float(&case("inertia")),
        );
        assert!(fit.converged);
        assert_eq!(fit.iterations, g.count(&case("iterations")), "{name}");
    }
}

#[test]
fn kmeans_pp() {
    let g = Golden::open();
    let features = g.floats("kmeans_pp.blobs.features");
    let mut seeding = PlusPlus::new(&features, g.width("kmeans_pp.blobs.features")).unwrap();
    let shares = g.doubles("kmeans_pp.blobs.probabilities");
    let rows = g.width("kmeans_pp.blobs.probabilities");
    let potentials = g.doubles("kmeans_pp.blobs.potentials");
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for (c, row) in g.whole("kmeans_pp.blobs.chosen").into_iter().enumerate() {
        seeding.choose(row as usize);
        let potential = seeding.potential();
        assert!((potential / potentials[c] - 1.0).abs() < 1e-5);
        let found: Vec<f64> = seeding.nearest().iter().map(|d| d / potential).collect();
        let want = &shares[c * rows..][..rows];
        assert_near(&found, want, 1e-5, 1e-9, "share");
        // What is drawn follows the shares; five standard deviations of 20,000 draws.
        let mut drawn = vec![0f64; rows];
        for _ in 0..20_000 {
            drawn[seeding.draw(&mut rng).unwrap()] += 1.0 / 20_000.0;
        }
        for (d, p) in drawn.iter().zip(want) {
            assert!(
                (d - p).abs() <= 5.0 * (p / 20_000.0).sqrt() + 1e-12,
                "{d} {p}"
            );
        }
    }
}

#[test]
fn gmm() {
    let g = Golden::open();
    for size in ["small", "wide", "missing"] {
        for (kind, form) in [("diag", Covariance::Diagonal), ("full", Covariance::Full)] {
            let case = |array: &str| format!("gmm.{size}_{kind}.{array}");
            let features = g.floats(&case("features"));
            let start = Mixture::new(
                form,
                g.width(&case("features")),
                g.doubles(&case("initial_weights")),
                g.doubles(&case("initial_means")),
                g.doubles(&case("initial_covariances")),
            )
            .unwrap();
            let gmm = Gmm::new(start.components(), form, 0)
                .unwrap()
                .tolerance(0.0);
            for (steps, want) in g.doubles(&case("log_likelihood")).into_iter().enumerate() {
                let fit = gmm
                    .max_iterations(steps)
                    .fit_from(&features, start.clone())
                    .unwrap();
                let found = fit.expectation.log_likelihood;
                assert_eq!(fit.iterations, steps);
                assert!(
                    (found - want).abs() < 2e-6 * (1.0 + want.abs()),
                    "{size}_{kind} after {steps}: {found} {want}"
                );
                if steps < 10 {
                    continue;
                }
                for (what, found) in [
                    ("weights", fit.mixture.weights()),
                    ("means", fit.mixture.means()),
                    ("covariances", fit.mixture.covariances()),
                    (
                        "responsibilities",
                        fit.expectation.responsibilities.as_slice(),
                    ),
                ] {
                    let want = g.doubles(&case(what));
                    let absolute = if what == "covariances" { 1e-9 } else { 1e-7 };
                    assert_near(
                        found,
                        &want,
                        2e-6,
                        absolute,
                        &format!("{size}_{kind} {what}"),
                    );
                }
            }
        }
    }
}
