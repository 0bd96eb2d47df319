//! Clustering against independent implementations (`golden_data/clustering.py`) and against itself, slowly.
#![allow(clippy::unwrap_used)]

use std::io::BufReader;
use std::path::Path;

use npyz::npz::NpzArchive;
use proptest::prelude::*;
use reid_train::clustering::agreement::agreement;
use reid_train::clustering::command::{ClusterOptions, cluster_file};
use reid_train::clustering::rho::eps_from_rho;
use reid_train::clustering::{
    self, Dbscan, Jaccard, KReciprocal, SparseDistances, UnitRows, Weights, knn,
};

type Golden = NpzArchive<BufReader<std::fs::File>>;

fn golden() -> Golden {
    NpzArchive::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_data/clustering.npz"))
        .unwrap()
}

fn array<T: npyz::Deserialize>(golden: &mut Golden, name: &str) -> Vec<T> {
    golden
        .by_name(name)
        .unwrap()
        .unwrap_or_else(|| panic!("no {name}"))
        .into_vec()
        .unwrap()
}

const WIDTH: usize = 24;
const CASES: [(&str, usize, usize, Weights, &[&str]); 4] = [
    (
        "softmax_30_6",
        30,
        6,
        Weights::Softmax,
        &["0.4", "0.55", "0.6"],
    ),
    ("softmax_20_1", 20, 1, Weights::Softmax, &["0.5"]),
    ("exp_21_6", 21, 6, Weights::ExpScaled, &["0.5", "0.6"]),
    ("softmax_25_4", 25, 4, Weights::Softmax, &["0.5"]),
];

#[test]
fn jaccard_distances_agree_with_the_dense_text_book_version() {
    let mut g = golden();
    let features: Vec<f32> = array(&mut g, "features");
    let n = features.len() / WIDTH;
    for (name, k1, k2, weights, _) in CASES {
        let found = Jaccard::new(k1, k2, weights)
            .unwrap()
            .distances(&features, WIDTH)
            .unwrap();
        let rows: Vec<i32> = array(&mut g, &format!("{name}.rows"));
        let columns: Vec<i32> = array(&mut g, &format!("{name}.cols"));
        let values: Vec<f32> = array(&mut g, &format!("{name}.distances"));
        let mut want = vec![1.0f32; n * n];
        for ((r, c), d) in rows.iter().zip(&columns).zip(&values) {
            want[*r as usize * n + *c as usize] = *d;
        }
        assert!(values.len() > 1000, "the golden holds something");
        let mut worst = 0f32;
        for i in 0..n {
            for j in i + 1..n {
                worst = worst.max((found.distance(i, j) - want[i * n + j]).abs());
                assert_eq!(found.distance(i, j), found.distance(j, i));
            }
        }
        assert!(worst < 1e-5, "{name}: off by {worst}");
    }
}

#[test]
fn labels_agree_with_scikit_learn() {
    let mut g = golden();
    let features: Vec<f32> = array(&mut g, "features");
    for (name, k1, k2, weights, radii) in CASES {
        let jaccard = Jaccard::new(k1, k2, weights).unwrap();
        for eps in radii {
            let dbscan = Dbscan::new(eps.parse().unwrap(), 4).unwrap();
            let found = clustering::cluster(&features, WIDTH, &jaccard, &dbscan).unwrap();
            let want: Vec<i64> = array(&mut g, &format!("{name}.labels_{eps}"));
            assert_eq!(found.to_i64(), want, "{name} at {eps}");
            assert!(found.clusters > 10 && found.outliers() > 10);
        }
    }
}

#[test]
fn rho_and_agreement_agree_with_numpy_and_scikit_learn() {
    let mut g = golden();
    let features: Vec<f32> = array(&mut g, "features");
    for (name, k1, k2, weights, _) in CASES {
        let distances = Jaccard::new(k1, k2, weights)
            .unwrap()
            .distances(&features, WIDTH)
            .unwrap();
        let want: Vec<f64> = array(&mut g, &format!("{name}.rho"));
        for (rho, want) in [1.6e-3, 2e-2].into_iter().zip(want) {
            let found = eps_from_rho(&distances, rho).unwrap();
            assert!(
                (f64::from(found) - want).abs() < 1e-5,
                "{name}: {found} {want}"
            );
        }
    }
    let truth: Vec<i64> = array(&mut g, "truth");
    let labels: Vec<i64> = array(&mut g, "softmax_30_6.labels_0.55");
    let labels: Vec<Option<u32>> = labels.iter().map(|l| u32::try_from(*l).ok()).collect();
    let want: Vec<f64> = array(&mut g, "agreement");
    let a = agreement(&labels, &truth).unwrap();
    for (found, want) in [a.nmi, a.ari, a.purity, a.mutual_information]
        .into_iter()
        .zip(want)
    {
        assert!((found - want).abs() < 1e-9, "{found} {want}");
    }
}

#[test]
fn the_command_reads_features_and_writes_labels() {
    let mut g = golden();
    let features: Vec<f32> = array(&mut g, "features");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("features.npy");
    {
        use npyz::WriterBuilder;
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&[(features.len() / WIDTH) as u64, WIDTH as u64])
            .writer(std::fs::File::create(&path).unwrap())
            .begin_nd()
            .unwrap();
        writer.extend(features.iter()).unwrap();
        writer.finish().unwrap();
    }
    let mut options = ClusterOptions::new(path, dir.path().join("labels.npy"));
    options.sweep = true;
    let report = cluster_file(&options).unwrap();
    let written: Vec<i64> = npyz::NpyFile::new(std::fs::File::open(&options.out).unwrap())
        .unwrap()
        .into_vec()
        .unwrap();
    let want: Vec<i64> = array(&mut g, "softmax_30_6.labels_0.6");
    assert_eq!(written, want);
    assert_eq!(report.images, want.len());
    assert_eq!(
        report.result.clusters as i64,
        want.iter().max().unwrap() + 1
    );
    assert!(
        report
            .sweep
            .windows(2)
            .all(|w| w[0].outliers >= w[1].outliers),
        "outliers fall as eps grows"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert!(
        json["clusters"].is_number() && json["outliers"].is_number() && json["sweep"].is_array()
    );

    options.rho = Some(2e-3);
    let from_data = cluster_file(&options).unwrap();
    assert!(
        from_data
            .result
            .eps
            .is_some_and(|eps| eps > 0.0 && eps < 0.6)
    );
    options.out = dir.path().join("no/such/folder/labels.npy");
    assert!(
        cluster_file(&options)
            .unwrap_err()
            .to_string()
            .contains("no/such/folder")
    );
    options.k2 = 31;
    assert!(
        cluster_file(&options)
            .unwrap_err()
            .to_string()
            .contains("k2")
    );
}

#[test]
fn any_number_of_threads_gives_the_same_distances() {
    let mut g = golden();
    let features: Vec<f32> = array(&mut g, "features");
    let on = |threads: usize| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(|| Jaccard::default().distances(&features, WIDTH).unwrap())
    };
    assert_eq!(on(1), on(5));
}

/// The text again, dense and with sets, for random small cases. Neighbour lists come from the fast code, which has its own
/// test: random points tie, and ties are nobody's to decide.
fn jaccard_slow(rows: &UnitRows, k1: usize, k2: usize) -> Vec<f64> {
    let n = rows.count();
    let near = knn::nearest(rows, k1);
    let list = |i: usize, columns: usize| near.row(i)[..columns.min(near.columns())].to_vec();
    let mutual = |i: usize, columns: usize| -> Vec<u32> {
        list(i, columns)
            .into_iter()
            .filter(|j| list(*j as usize, columns).contains(&(i as u32)))
            .collect()
    };
    let half = (k1 as f64 / 2.0).round_ties_even() as usize + 1;
    let mut v = vec![vec![0f64; n]; n];
    for (i, v) in v.iter_mut().enumerate() {
        let own = mutual(i, k1);
        let mut members = own.clone();
        for c in &own {
            let short = mutual(*c as usize, half);
            if short.iter().filter(|m| own.contains(m)).count() as f64
                > 2.0 / 3.0 * short.len() as f64
            {
                members.extend(short);
            }
        }
        for m in members {
            let dot: f64 = rows
                .row(i)
                .iter()
                .zip(rows.row(m as usize))
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum();
            v[m as usize] = (-(2.0 - 2.0 * dot)).exp();
        }
        let sum: f64 = v.iter().sum();
        v.iter_mut().for_each(|w| *w /= sum);
    }
    let mean: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let of = list(i, k2);
            (0..n)
                .map(|m| of.iter().map(|j| v[*j as usize][m]).sum::<f64>() / of.len() as f64)
                .collect()
        })
        .collect();
    let mut out = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..n {
            let (a, b) = (&mean[i], &mean[j]);
            let shared: f64 = a.iter().zip(b).map(|(x, y)| x.min(*y)).sum();
            let union: f64 = a.iter().zip(b).map(|(x, y)| x.max(*y)).sum();
            out[i * n + j] = 1.0 - shared / union;
        }
    }
    out
}

/// DBSCAN by its definition: connected core points, border points to the lowest cluster within reach.
fn dbscan_slow(distances: &SparseDistances, eps: f32, min_samples: usize) -> Vec<i64> {
    let n = distances.count();
    let near = |i: usize, j: usize| distances.distance(i, j) <= eps;
    let core: Vec<bool> = (0..n)
        .map(|i| (0..n).filter(|j| near(i, *j)).count() >= min_samples)
        .collect();
    let mut component: Vec<usize> = (0..n).collect();
    for _ in 0..n {
        for i in 0..n {
            for j in 0..n {
                if core[i] && core[j] && near(i, j) {
                    let low = component[i].min(component[j]);
                    (component[i], component[j]) = (low, low);
                }
            }
        }
    }
    let mut roots: Vec<usize> = (0..n).filter(|i| core[*i]).map(|i| component[i]).collect();
    roots.sort_unstable();
    roots.dedup();
    let number = |i: usize| roots.binary_search(&component[i]).unwrap() as i64;
    (0..n)
        .map(|i| {
            if core[i] {
                number(i)
            } else {
                (0..n)
                    .filter(|j| core[*j] && near(i, *j))
                    .map(number)
                    .min()
                    .unwrap_or(-1)
            }
        })
        .collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        x.iter()
            .zip(y)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn clouds() -> impl Strategy<Value = Vec<f32>> {
    // Coarse values: duplicates and ties are common.
    prop::collection::vec(prop::array::uniform3(-4i8..=4), 8..40).prop_map(|points| {
        points
            .into_iter()
            .flat_map(|p| [f32::from(p[0]) + 4.5, f32::from(p[1]), f32::from(p[2])])
            .collect()
    })
}

fn graphs() -> impl Strategy<Value = SparseDistances> {
    (2usize..24).prop_flat_map(|n| {
        prop::collection::btree_map((0..n, 0..n), 0u8..10, 0..80).prop_map(move |pairs| {
            let mut seen = std::collections::BTreeSet::new();
            let pairs = pairs
                .into_iter()
                .filter(|((i, j), _)| i != j && seen.insert((*i.min(j), *i.max(j))))
                .map(|((i, j), d)| (i, j, f32::from(d) / 10.0));
            SparseDistances::from_pairs(n, pairs.collect::<Vec<_>>()).unwrap()
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn jaccard_agrees_with_the_slow_one(cloud in clouds(), k1 in 2usize..14, k2 in 1usize..6) {
        let k2 = k2.min(k1);
        let rows = UnitRows::new(&cloud, 3).unwrap();
        let found = Jaccard::new(k1, k2, Weights::Softmax).unwrap().distances(&cloud, 3).unwrap();
        let want = jaccard_slow(&rows, k1, k2);
        let n = rows.count();
        for i in 0..n {
            for j in 0..n {
                let d = found.distance(i, j);
                prop_assert!((0.0..=1.0).contains(&d));
                prop_assert!((f64::from(d) - want[i * n + j]).abs() < 1e-5, "{i} {j}: {d} {}", want[i * n + j]);
            }
        }
    }

    #[test]
    fn dbscan_agrees_with_the_slow_one(graph in graphs(), eps in 1u8..10, min_samples in 1usize..6) {
        // Halfway between distances, and exactly on one of them.
        for eps in [f32::from(eps) / 10.0 - 0.05, f32::from(eps) / 10.0] {
            let found = Dbscan::new(eps, min_samples).unwrap().cluster(&graph);
            let want = dbscan_slow(&graph, eps, min_samples);
            prop_assert_eq!(found.to_i64(), want);
            prop_assert_eq!(found.sizes().iter().sum::<usize>() + found.outliers(), graph.count());
        }
    }

    #[test]
    fn labels_do_not_depend_on_the_order_of_rows(seed in 0u64..1000) {
        use rand::seq::SliceRandom;
        use rand::{RngExt, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let rows: Vec<[f32; 4]> = (0..60).map(|i| {
            let person = (i % 6) as f32;
            [person.sin(), person.cos(), (2.0 * person).sin(), 0.3].map(|v| v + 0.15 * (rng.random::<f32>() - 0.5))
        }).collect();
        // Where a list of neighbours is cut between two equals, the order of rows has to break the tie.
        prop_assume!(rows.iter().all(|a| {
            let mut near: Vec<f64> = rows.iter().map(|b| cosine(a, b)).collect();
            near.sort_unstable_by(|x, y| y.total_cmp(x));
            [3, 6, 10].iter().all(|cut| near[cut - 1] - near[*cut] > 4e-7)
        }));
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.shuffle(&mut rng);
        let jaccard = Jaccard::new(10, 3, Weights::Softmax).unwrap();
        let straight = jaccard.distances(&rows.concat(), 4).unwrap();
        let moved: Vec<f32> = order.iter().flat_map(|i| rows[*i]).collect();
        let shuffled = jaccard.distances(&moved, 4).unwrap();
        for (a, i) in order.iter().enumerate() {
            for (b, j) in order.iter().enumerate() {
                prop_assert!((shuffled.distance(a, b) - straight.distance(*i, *j)).abs() < 1e-5);
            }
        }
        // Core points share a cluster in one order if and only if they do in the other.
        let dbscan = Dbscan::new(0.5, 4).unwrap();
        let (x, y) = (dbscan.cluster(&straight), dbscan.cluster(&shuffled));
        prop_assert_eq!(x.clusters, y.clusters);
        let moved: Vec<Option<u32>> = order.iter().map(|i| x.labels[*i]).collect();
        let truth: Vec<i64> = y.to_i64();
        if let Some(a) = agreement(&moved, &truth) {
            // Border points between two clusters may change sides.
            prop_assert!(a.ari > 0.9, "{}", a.ari);
        }
        prop_assert_eq!(x.outliers(), y.outliers());
    }
}

/// Random people at Market-1501's size. `cargo test --release -p reid-train --test clustering -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, not a check"]
fn speed_at_the_size_of_market_1501() {
    use rand::{RngExt, SeedableRng};
    let (n, width) = (12_936, 2048);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut random =
        |len: usize| -> Vec<f32> { (0..len).map(|_| rng.random::<f32>() - 0.5).collect() };
    let people = random(751 * width);
    let mut features = random(n * width);
    for (i, row) in features.chunks_exact_mut(width).enumerate() {
        let person = &people[i % 751 * width..][..width];
        row.iter_mut()
            .zip(person)
            .for_each(|(v, p)| *v = 1.2 * *v + p);
    }
    let time = |what: &str, start: std::time::Instant| {
        println!("{what}: {:.2} s", start.elapsed().as_secs_f64())
    };
    let start = std::time::Instant::now();
    let rows = UnitRows::new(&features, width).unwrap();
    time("checking and scaling", start);
    let start = std::time::Instant::now();
    let near = knn::nearest(&rows, 30);
    time("neighbours", start);
    assert_eq!(near.columns(), 30);
    let start = std::time::Instant::now();
    let encoded = KReciprocal::encode(&rows, &Jaccard::default());
    time("neighbours and encoding", start);
    let start = std::time::Instant::now();
    let distances = encoded.distances();
    time("distances", start);
    let start = std::time::Instant::now();
    let found = Dbscan::new(0.6, 4).unwrap().cluster(&distances);
    time("dbscan", start);
    println!(
        "{} clusters, {} outliers, {} entries",
        found.clusters,
        found.outliers(),
        distances.entries()
    );
}
