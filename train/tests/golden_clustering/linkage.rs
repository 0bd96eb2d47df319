//! Average linkage and bottom-up merging.

use std::collections::BTreeSet;

use reid_train::clustering::{
    BottomUp, Condensed, FakeDistances, FeatureDistances, Forbidden, Metric, PairDistances, Pairs,
    Sizes, Stop, UnitRows, average_linkage,
};

use super::{Golden, assert_near, wide};

#[test]
fn agglomerative() {
    let g = Golden::open();
    for n in [12usize, 40, 75, 120] {
        let case = |array: &str| format!("agglomerative.n{n}.{array}");
        let tree = average_linkage(Condensed::new(g.floats(&case("condensed"))).unwrap());
        let heights: Vec<f64> = tree.merges().iter().map(|m| m.height.into()).collect();
        assert_near(
            &heights,
            &g.doubles(&case("heights")),
            0.0,
            1e-5,
            &case("heights"),
        );

        let want = g.rows(&case("merges"));
        let found: Vec<Vec<i64>> = tree
            .merges()
            .iter()
            .map(|m| vec![m.a as i64, m.b as i64, m.size as i64])
            .collect();
        let zeros = heights.iter().filter(|h| **h == 0.0).count();
        assert_eq!(zeros, if n == 75 { 5 } else { 0 });
        // Merges at height 0 come in any order, so that their numbers may differ, but not who is in a cluster.
        assert_eq!(members(n, &found)[zeros..], members(n, &want)[zeros..]);
        if zeros == 0 {
            assert_eq!(found, want, "n{n}");
        }

        let by_count = g.rows(&case("labels_by_count"));
        for (clusters, want) in g.whole(&case("cluster_counts")).into_iter().zip(by_count) {
            let labels = tree.cut(Stop::Clusters(clusters as usize)).unwrap();
            assert_eq!(labels.to_i64(), want, "n{n}, {clusters} clusters");
        }
        let by_threshold = g.rows(&case("labels_by_threshold"));
        for (threshold, want) in g.floats(&case("thresholds")).into_iter().zip(by_threshold) {
            let labels = tree.cut(Stop::Threshold(threshold)).unwrap();
            assert_eq!(labels.to_i64(), want, "n{n}, up to {threshold}");
        }
    }
}

/// Images of the cluster that each merge makes.
fn members(n: usize, merges: &[Vec<i64>]) -> Vec<BTreeSet<usize>> {
    let mut all: Vec<BTreeSet<usize>> = (0..n).map(|i| BTreeSet::from([i])).collect();
    for merge in merges {
        let joined = &all[merge[0] as usize] | &all[merge[1] as usize];
        assert_eq!(joined.len() as i64, merge[2]);
        all.push(joined);
    }
    all.split_off(n)
}

/// Labels after each of so many steps.
fn run(
    step: &BottomUp,
    distances: &impl PairDistances,
    forbidden: &Forbidden,
    steps: usize,
) -> Vec<Vec<i64>> {
    let mut labels = BottomUp::start(distances.count());
    (0..steps)
        .map(|_| {
            labels = step.step(distances, &labels, forbidden).unwrap();
            labels.to_i64()
        })
        .collect()
}

#[test]
fn bottom_up() {
    let g = Golden::open();
    for n in [24usize, 64, 100] {
        let case = |array: &str| format!("bottom_up.n{n}.{array}");
        let squared = g.floats(&case("condensed"));
        let roots: Vec<f32> = squared.iter().map(|d| d.sqrt()).collect();
        let merges = g.count(&case("merges_per_step"));
        let same_frame: Vec<(usize, usize)> = g
            .rows(&case("same_frame"))
            .iter()
            .map(|p| (p[0] as usize, p[1] as usize))
            .collect();
        let frames = Pairs::new(n, &same_frame).unwrap();
        let group = |array: &str| -> Vec<Option<u32>> {
            let groups = g.whole(&case(array));
            groups.into_iter().map(|v| Some(v as u32)).collect()
        };
        assert_eq!(frames, Pairs::within(&group("frames")));
        let cameras = Pairs::within(&group("cameras"));

        let features = g.floats(&case("features"));
        let rows = UnitRows::new(&features, g.width(&case("features"))).unwrap();
        let own = |metric| FeatureDistances {
            rows: &rows,
            metric,
        };
        let (own_squared, own_roots) = (own(Metric::SquaredEuclidean), own(Metric::Euclidean));
        let made = Condensed::of(&own_squared).unwrap();
        assert_near(
            &wide(made.values()),
            &wide(&squared),
            0.0,
            2e-6,
            "squared distances",
        );

        for variant in [
            "plain",
            "penalty",
            "strong",
            "grow",
            "unsquared",
            "apart",
            "penalty_apart",
            "cameras_apart",
            "skip",
            "penalty_skip",
        ] {
            let want = g.rows(&case(&format!("{variant}.labels")));
            let clusters: Vec<i64> = want.iter().map(|l| l.iter().max().unwrap() + 1).collect();
            assert_eq!(clusters, g.whole(&case(&format!("{variant}.clusters"))));
            let sizes = match variant {
                "grow" => Sizes::Grown,
                _ => Sizes::Fixed,
            };
            let mut forbidden = Forbidden::default();
            match variant {
                "apart" | "penalty_apart" => forbidden.apart = frames.clone(),
                "cameras_apart" => forbidden.apart = cameras.clone(),
                "skip" | "penalty_skip" => forbidden.skip = frames.clone(),
                _ => {}
            }
            let lambda = g.float(&case(&format!("{variant}.lambda")));
            let step = BottomUp::new(merges, lambda, sizes).unwrap();
            let (given, own) = match variant {
                "unsquared" => (&roots, &own_roots),
                _ => (&squared, &own_squared),
            };
            let given = Condensed::new(given).unwrap();
            let found = run(&step, &given, &forbidden, want.len());
            assert_eq!(found, want, "n{n} {variant}");
            let found = run(&step, own, &forbidden, want.len());
            assert_eq!(found, want, "n{n} {variant} from features");
            let found = run(&step.with_edges(2), &given, &forbidden, want.len());
            assert_eq!(found, want, "n{n} {variant} with two edges at a time");
        }
        let share = BottomUp::of_share(n, g.float(&case("mp")), 0.5, Sizes::Fixed).unwrap();
        assert_eq!(share, BottomUp::new(merges, 0.5, Sizes::Fixed).unwrap());
    }
}

#[test]
fn bottom_up_ties() {
    let g = Golden::open();
    let given = Condensed::new(g.floats("bottom_up.ties.condensed")).unwrap();
    let merges = g.count("bottom_up.ties.merges_per_step");
    let lambda = g.float("bottom_up.ties.lambda");
    let want = g.rows("bottom_up.ties.labels");
    let step = BottomUp::new(merges, lambda, Sizes::Fixed).unwrap();
    assert_eq!(run(&step, &given, &Forbidden::default(), want.len()), want);
}

#[test]
fn bottom_up_fakes() {
    let g = Golden::open();
    let width = g.width("bottom_up.fakes.real");
    let (real, fake) = (
        g.floats("bottom_up.fakes.real"),
        g.floats("bottom_up.fakes.fake"),
    );
    let real = UnitRows::new(&real, width).unwrap();
    let fake = UnitRows::new(&fake, width).unwrap();
    let merges = g.count("bottom_up.fakes.merges_per_step");
    let step = BottomUp::new(merges, g.float("bottom_up.fakes.lambda"), Sizes::Fixed).unwrap();
    let check = |name: &str, distances: &dyn Fn() -> (Vec<f32>, Vec<Vec<i64>>)| {
        let (found, labels) = distances();
        let want = g.doubles(&format!("bottom_up.fakes.condensed_{name}"));
        assert_near(&wide(&found), &want, 0.0, 2e-6, name);
        assert_eq!(
            labels,
            g.rows(&format!("bottom_up.fakes.labels_{name}")),
            "{name}"
        );
    };
    let none = Forbidden::default();
    let all = |d: &FakeDistances| {
        (
            Condensed::of(d).unwrap().into_values(),
            run(&step, d, &none, 19),
        )
    };
    check("constrained", &|| {
        all(&FakeDistances::new(&real, &fake, false).unwrap())
    });
    check("all", &|| {
        all(&FakeDistances::new(&real, &fake, true).unwrap())
    });
    check("real", &|| {
        let d = FeatureDistances {
            rows: &real,
            metric: Metric::SquaredEuclidean,
        };
        (
            Condensed::of(&d).unwrap().into_values(),
            run(&step, &d, &none, 19),
        )
    });
    let message = FakeDistances::new(&fake, &real, false).err().unwrap();
    assert!(
        message.to_string().contains("same number of copies"),
        "{message}"
    );
}
