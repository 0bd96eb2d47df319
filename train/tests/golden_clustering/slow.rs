//! Fast versions against slow, obvious ones, and against themselves on other numbers of threads.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reid_train::clustering::{
    BottomUp, Condensed, Covariance, FeatureDistances, Forbidden, Gmm, KMeans, Metric, Pairs,
    PseudoLabels, Sizes, UnitRows, average_linkage,
};

/// One step by the definition: every merge looks at every pair of images.
fn bottom_up_slow(
    n: usize,
    distance: &[Vec<f64>],
    labels: &[i64],
    (merges, penalty, sizes): (usize, f64, Sizes),
    apart: &[(usize, usize)],
    skip: &[(usize, usize)],
) -> Vec<i64> {
    let among = |pairs: &[(usize, usize)], i, j| pairs.contains(&(i, j)) || pairs.contains(&(j, i));
    let size = |labels: &[i64], i: usize| labels.iter().filter(|l| **l == labels[i]).count() as f64;
    let start = labels.to_vec();
    let mut labels = labels.to_vec();
    for _ in 0..merges {
        let counted = match sizes {
            Sizes::Fixed => start.clone(),
            Sizes::Grown => labels.clone(),
        };
        let mut best: Option<(f64, usize, usize)> = None;
        for i in 0..n {
            for j in i + 1..n {
                let joins = |x: usize, y: usize| labels[x] == labels[i] && labels[y] == labels[j];
                let conflict = apart.iter().any(|&(x, y)| joins(x, y) || joins(y, x));
                if labels[i] == labels[j] || conflict || among(skip, i, j) {
                    continue;
                }
                let value = distance[i][j] + penalty * (size(&counted, i) + size(&counted, j));
                if best.is_none_or(|(b, ..)| value < b) {
                    best = Some((value, i, j));
                }
            }
        }
        let Some((_, i, j)) = best else { break };
        let (a, b) = (labels[i], labels[j]);
        labels.iter_mut().filter(|l| **l == b).for_each(|l| *l = a);
    }
    let owners: Vec<usize> = labels.iter().map(|l| *l as usize).collect();
    PseudoLabels::by_first_appearance(&owners).to_i64()
}

/// Average linkage by the definition: the heights only.
fn heights_slow(n: usize, distance: &[Vec<f64>]) -> Vec<f64> {
    let mut clusters: Vec<Vec<usize>> = (0..n).map(|i| vec![i]).collect();
    let mut heights = Vec::new();
    while clusters.len() > 1 {
        let mut best = (f64::INFINITY, 0, 0);
        for a in 0..clusters.len() {
            for b in a + 1..clusters.len() {
                let pairs = clusters[a]
                    .iter()
                    .flat_map(|i| clusters[b].iter().map(move |j| distance[*i][*j]));
                let mean = pairs.sum::<f64>() / (clusters[a].len() * clusters[b].len()) as f64;
                if mean < best.0 {
                    best = (mean, a, b);
                }
            }
        }
        let gone = clusters.remove(best.2);
        clusters[best.1].extend(gone);
        heights.push(best.0);
    }
    heights
}

fn square(n: usize, condensed: &[f32]) -> Vec<Vec<f64>> {
    let mut full = vec![vec![0.0; n]; n];
    let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
    for ((i, j), d) in pairs.zip(condensed) {
        full[i][j] = f64::from(*d);
        full[j][i] = f64::from(*d);
    }
    full
}

/// Few different values, so that ties are common; forbidden pairs in both meanings.
type Case = (
    usize,
    Vec<u8>,
    Vec<(usize, usize)>,
    Vec<(usize, usize)>,
    u64,
);

fn cases() -> impl Strategy<Value = Case> {
    (3usize..15).prop_flat_map(|n| {
        let pair = (0..n, 0..n)
            .prop_filter_map("an image is no pair", |(i, j)| (i != j).then_some((i, j)));
        (
            Just(n),
            prop::collection::vec(0u8..12, n * (n - 1) / 2),
            prop::collection::vec(pair.clone(), 0..6),
            prop::collection::vec(pair, 0..6),
            any::<u64>(),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn bottom_up_agrees_with_the_slow_one(
        (n, values, apart, skip, _) in cases(),
        merges in 1usize..5,
        penalty in 0u8..5,
        grown: bool,
        edges in 1usize..6,
    ) {
        let values: Vec<f32> = values.into_iter().map(f32::from).collect();
        let full = square(n, &values);
        let distances = Condensed::new(values).unwrap();
        let sizes = if grown { Sizes::Grown } else { Sizes::Fixed };
        let penalty = f64::from(penalty) / 2.0;
        let forbidden = Forbidden {
            apart: Pairs::new(n, &apart).unwrap(),
            skip: Pairs::new(n, &skip).unwrap(),
        };
        let whole = BottomUp::new(merges, penalty, sizes).unwrap();
        let mut labels = BottomUp::start(n);
        for _ in 0..4 {
            let parameters = (merges, penalty, sizes);
            let want = bottom_up_slow(n, &full, &labels.to_i64(), parameters, &apart, &skip);
            let found = whole.step(&distances, &labels, &forbidden).unwrap();
            prop_assert_eq!(found.to_i64(), want.clone());
            let few = whole.with_edges(edges).step(&distances, &labels, &forbidden).unwrap();
            prop_assert_eq!(few.to_i64(), want);
            labels = found;
        }
    }

    #[test]
    fn average_linkage_agrees_with_the_slow_one(n in 2usize..14, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f32> = (0..n * (n - 1) / 2).map(|_| rng.random::<f32>()).collect();
        let want = heights_slow(n, &square(n, &values));
        let tree = average_linkage(Condensed::new(values).unwrap());
        for (merge, want) in tree.merges().iter().zip(want) {
            prop_assert!((f64::from(merge.height) - want).abs() < 1e-5);
        }
    }

    #[test]
    fn kmeans_ends_at_a_fixed_point(seed: u64, clusters in 1usize..6) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let x: Vec<f32> = (0..3 * 40).map(|_| rng.random::<f32>()).collect();
        let fit = KMeans::new(clusters, seed).unwrap().fit(&x, 3).unwrap();
        prop_assert!(fit.converged);
        let mut inertia = 0.0;
        for (row, label) in x.chunks(3).zip(&fit.labels) {
            let to: Vec<f64> = fit.centres.chunks(3).map(|c| {
                row.iter().zip(c).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
            }).collect();
            let own = to[*label as usize];
            prop_assert!(to.iter().all(|d| *d >= own - 1e-6));
            inertia += own;
        }
        prop_assert!((fit.inertia - inertia).abs() < 1e-4);
        for k in 0..clusters {
            let rows: Vec<&[f32]> = x.chunks(3).zip(&fit.labels).filter(|(_, l)| **l as usize == k).map(|(r, _)| r).collect();
            prop_assert!(!rows.is_empty());
            for column in 0..3 {
                let mean = rows.iter().map(|r| r[column]).sum::<f32>() / rows.len() as f32;
                prop_assert!((mean - fit.centres[3 * k + column]).abs() < 1e-5);
            }
        }
        let best = KMeans::new(clusters, seed).unwrap().restarts(5).fit(&x, 3).unwrap();
        prop_assert!(best.inertia <= fit.inertia);
    }

    #[test]
    fn a_mixture_never_gets_less_likely(seed in 0u64..1000, full: bool) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let x: Vec<f32> = (0..120).map(|i| rng.random::<f32>() + (i / 2 % 3) as f32).collect();
        let form = if full { Covariance::Full } else { Covariance::Diagonal };
        let gmm = Gmm::new(3, form, seed).unwrap().tolerance(0.0);
        let mut last = f64::NEG_INFINITY;
        for steps in [0, 1, 2, 4, 8, 16] {
            let fit = gmm.max_iterations(steps).fit(&x, 2).unwrap();
            let now = fit.expectation.log_likelihood;
            prop_assert!(now >= last - 1e-5, "{now} after {last}");
            last = now;
            prop_assert!((fit.mixture.weights().iter().sum::<f64>() - 1.0).abs() < 1e-9);
            for row in fit.expectation.responsibilities.chunks(3) {
                prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            }
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    // Several tiles and blocks, the last one narrow; coarse values tie.
    let (n, width) = (1100, 6);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let x: Vec<f32> = (0..n * width)
        .map(|i| f32::from(rng.random_range(1u8..6)) + (i / width % 9) as f32)
        .collect();
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let rows = UnitRows::new(&x, width).unwrap();
            let distances = FeatureDistances {
                rows: &rows,
                metric: Metric::SquaredEuclidean,
            };
            let step = BottomUp::new(200, 0.003, Sizes::Grown)
                .unwrap()
                .with_edges(150);
            let merged = step.step(&distances, &BottomUp::start(n), &Forbidden::default());
            let tree = average_linkage(Condensed::of(&distances).unwrap());
            let kmeans = KMeans::new(20, 5).unwrap().fit(&x, width).unwrap();
            let gmm = Gmm::new(4, Covariance::Full, 5)
                .unwrap()
                .fit(&x, width)
                .unwrap();
            (merged.unwrap(), tree, kmeans, gmm)
        })
    };
    let alone = on(1);
    assert_eq!(alone.0.clusters, n - 200);
    assert!(alone == on(5));
}
