//! Every protocol against plain sorting and counting in double precision (`golden_engine/evaluation.py`, whose docstring
//! defines every array). A case of the file that no test takes is a failure.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use reid_train::eval::npz::FeatureSet;
use reid_train::eval::open_set::{Verification, all_pairs, query_gallery};
use reid_train::eval::pool::{Pooling, multi_query, tracklets};
use reid_train::eval::rank::{Embeddings, Labels, Metric, Ranking, evaluate, evaluate_by};
use reid_train::eval::rerank::{Lambda, evaluate_reranked, joined, reranked_distances};
use reid_train::eval::single_shot::{SingleShot, mean_of_directions, single_shot};
use reid_train::rerank::neighbourhoods;
use safetensors::SafeTensors;

/// Results are stored in f32.
const STORED: f64 = 2e-7;

/// The cases a test below takes.
const CASES: [&str; 17] = [
    "market.plain",
    "market.euclidean",
    "market.ties",
    "multi_query.mean",
    "multi_query.max",
    "cuhk03.classic",
    "cuhk03.torchreid",
    "cuhk01.both",
    "cuhk01.a_to_b",
    "cuhk01.b_to_a",
    "video.mean",
    "video.mean_all",
    "video.max",
    "video.max_all",
    "rerank.zhong",
    "open_set.query_gallery",
    "open_set.all_pairs",
];

struct Golden(Vec<u8>);

impl Golden {
    fn open() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_engine");
        Golden(std::fs::read(folder.join("evaluation.safetensors")).unwrap())
    }

    fn bytes(&self, name: &str, dtype: safetensors::Dtype) -> Vec<u8> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensor.dtype(), dtype, "{name}");
        tensor.data().to_vec()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let bytes = self.bytes(name, safetensors::Dtype::F32);
        let values = bytes.as_chunks().0.iter();
        values.map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn integers(&self, name: &str) -> Vec<i64> {
        let bytes = self.bytes(name, safetensors::Dtype::I64);
        let values = bytes.as_chunks().0.iter();
        values.map(|b| i64::from_le_bytes(*b)).collect()
    }

    fn indices(&self, name: &str) -> Vec<usize> {
        let values = self.integers(name).into_iter();
        values.map(|i| usize::try_from(i).unwrap()).collect()
    }

    fn set(&self, features: &str, pids: &str, cameras: &str) -> FeatureSet {
        let (pids, features) = (self.integers(pids), self.floats(features));
        FeatureSet {
            width: features.len() / pids.len(),
            features,
            pids,
            cameras: self.integers(cameras),
        }
    }

    /// `CASE.query`, `CASE.query_pids`, `CASE.query_cams`, or of the gallery.
    fn side(&self, case: &str, side: &str) -> FeatureSet {
        let name = format!("{case}.{side}");
        self.set(&name, &format!("{name}_pids"), &format!("{name}_cams"))
    }

    fn near(&self, name: &str, found: &[f64], tolerance: f64) {
        let want = self.floats(name);
        assert_eq!(found.len(), want.len(), "{name}");
        for (n, (found, want)) in found.iter().zip(want).enumerate() {
            let want = f64::from(want);
            assert!(
                (found - want).abs() <= tolerance,
                "{name}[{n}]: {found}, should be {want}"
            );
        }
    }

    /// All ranking arrays of a case.
    fn ranking(&self, case: &str, found: &Ranking) {
        let name = |array: &str| format!("{case}.{array}");
        let valid = self.integers(&name("valid"));
        let mut expanded = vec![[0.0; 3]; valid.len()];
        for q in &found.queries {
            expanded[q.query] = [q.first as f64, q.average_precision, q.inverse_penalty];
        }
        let counted: BTreeSet<usize> = found.queries.iter().map(|q| q.query).collect();
        for (q, valid) in valid.iter().enumerate() {
            assert_eq!(counted.contains(&q), *valid == 1, "{case}: query {q}");
        }
        let column = |n: usize| expanded.iter().map(|r| r[n]).collect::<Vec<f64>>();
        let first: Vec<i64> = column(0).iter().map(|f| *f as i64).collect();
        assert_eq!(first, self.integers(&name("first")), "{case}");
        self.near(&name("ap"), &column(1), STORED);
        self.near(&name("inp"), &column(2), STORED);
        let (cmc, r) = (found.cmc(20), found.result);
        self.near(&name("cmc"), &cmc, STORED);
        self.near(
            &name("rank"),
            &[r.rank1, r.rank5, r.rank10, cmc[19]],
            STORED,
        );
        self.near(&name("map"), &[r.map], STORED);
        self.near(&name("minp"), &[r.minp], STORED);
        assert_eq!(self.integers(&name("queries")), [r.queries as i64]);
        assert_eq!(r.queries + r.skipped, valid.len(), "{case}");
    }

    fn single_shot(&self, case: &str, found: &SingleShot) {
        let (name, r) = (|array: &str| format!("{case}.{array}"), found.result);
        self.near(&name("cmc"), &found.cmc, STORED);
        let ranks = [r.rank1, r.rank5, r.rank10, found.cmc[19]];
        self.near(&name("rank"), &ranks, STORED);
        self.near(&name("map"), &[r.map], STORED);
    }

    fn average_precisions(&self, case: &str, found: &SingleShot, queries: usize) {
        let mut ap = vec![0.0; queries];
        for q in &found.whole.queries {
            ap[q.query] = q.average_precision;
        }
        self.near(&format!("{case}.ap"), &ap, STORED);
    }

    fn verification(&self, case: &str, found: &Verification) {
        let name = |array: &str| format!("{case}.{array}");
        assert_eq!(self.integers(&name("genuine")), [found.genuine as i64]);
        assert_eq!(self.integers(&name("impostors")), [found.impostors as i64]);
        let column = |value: fn(&reid_train::eval::open_set::OperatingPoint) -> f64| {
            found.points.iter().map(value).collect::<Vec<f64>>()
        };
        let high = column(|p| f64::from(p.threshold_high));
        let low = column(|p| f64::from(p.threshold_low));
        self.near(&name("fpr"), &column(|p| p.fpr), 1e-8);
        self.near(&name("threshold_high"), &high, 1e-6);
        self.near(&name("threshold_low"), &low, 1e-6);
        self.near(&name("tpr"), &column(|p| p.tpr), STORED);
        self.near(&name("tpr_linear"), &column(|p| p.tpr_linear), STORED);
        self.near(&name("far_threshold"), &column(|p| p.far_threshold), 1e-6);
        for p in &found.points {
            assert!(p.threshold_low < p.threshold && p.threshold <= p.threshold_high);
            assert_eq!(p.accepts, (p.fpr * found.impostors as f64) as usize);
        }
    }
}

/// Some rows of a set.
fn rows(set: &FeatureSet, which: &[usize]) -> FeatureSet {
    FeatureSet {
        features: which
            .iter()
            .flat_map(|i| &set.features[i * set.width..][..set.width])
            .copied()
            .collect(),
        width: set.width,
        pids: which.iter().map(|i| set.pids[*i]).collect(),
        cameras: which.iter().map(|i| set.cameras[*i]).collect(),
    }
}

#[test]
fn every_case_has_its_test() {
    let golden = Golden::open();
    let (_, header) = SafeTensors::read_metadata(&golden.0).unwrap();
    let header = header.metadata().as_ref().unwrap();
    let listed: BTreeSet<&str> = header["cases"].split(',').collect();
    assert_eq!(listed, CASES.into_iter().collect());
}

#[test]
fn market_by_cosine_by_euclidean_distance_and_with_ties() {
    let golden = Golden::open();
    let (query, gallery) = (
        golden.side("market.plain", "query"),
        golden.side("market.plain", "gallery"),
    );
    let (query, gallery) = (query.embeddings(), gallery.embeddings());
    golden.ranking("market.plain", &evaluate(&query, &gallery).unwrap());
    let found = evaluate_by(Metric::Euclidean, &query, &gallery).unwrap();
    golden.ranking("market.euclidean", &found);
    let (query, gallery) = (
        golden.side("market.ties", "query"),
        golden.side("market.ties", "gallery"),
    );
    let found = evaluate(&query.embeddings(), &gallery.embeddings()).unwrap();
    golden.ranking("market.ties", &found);
}

#[test]
fn multiple_queries_are_pooled_by_mean_and_by_maximum() {
    let golden = Golden::open();
    let name = |array: &str| format!("multi_query.mean.{array}");
    let boxes = golden.set(&name("boxes"), &name("box_pids"), &name("box_cams"));
    let gallery = golden.side("multi_query.mean", "gallery");
    let (pids, cameras) = (
        golden.integers(&name("query_pids")),
        golden.integers(&name("query_cams")),
    );
    let labels = Labels {
        pids: &pids,
        cameras: &cameras,
    };
    for (case, pooling) in [
        ("multi_query.mean", Pooling::Mean),
        ("multi_query.max", Pooling::Max),
    ] {
        let features = multi_query(&boxes.embeddings(), &labels, pooling).unwrap();
        let pooled: Vec<f64> = features.iter().map(|v| f64::from(*v)).collect();
        golden.near(&format!("{case}.pooled"), &pooled, 1e-6);
        let query = Embeddings {
            features: &features,
            width: boxes.width,
            labels,
        };
        golden.ranking(case, &evaluate(&query, &gallery.embeddings()).unwrap());
    }
}

#[test]
fn cuhk03_with_draws_shared_and_draws_of_each_query() {
    let golden = Golden::open();
    let case = "cuhk03.classic";
    let (query, gallery) = (golden.side(case, "query"), golden.side(case, "gallery"));
    let draws = golden.indices("cuhk03.classic.draws");
    let persons = draws.len() / 100;
    let found = single_shot(
        &query.embeddings(),
        &gallery.embeddings(),
        100,
        |draw, _, out| {
            out.clear();
            out.extend_from_slice(&draws[draw * persons..][..persons]);
        },
    )
    .unwrap();
    golden.single_shot(case, &found);
    golden.near(
        "cuhk03.classic.cmc_by_draw",
        &found.by_draw.concat(),
        STORED,
    );
    golden.average_precisions(case, &found, query.pids.len());

    let case = "cuhk03.torchreid";
    let (query, gallery) = (golden.side(case, "query"), golden.side(case, "gallery"));
    let draws = golden.integers("cuhk03.torchreid.draws");
    let queries = query.pids.len();
    let persons = draws.len() / (10 * queries);
    let found = single_shot(
        &query.embeddings(),
        &gallery.embeddings(),
        10,
        |draw, q, out| {
            let drawn = &draws[(draw * queries + q) * persons..][..persons];
            out.clear();
            out.extend(drawn.iter().filter_map(|g| usize::try_from(*g).ok()));
        },
    )
    .unwrap();
    golden.single_shot(case, &found);
    golden.average_precisions(case, &found, queries);
    assert_eq!(
        golden.integers("cuhk03.torchreid.queries"),
        [found.result.queries as i64]
    );
    let counted: Vec<i64> = (0..queries)
        .map(|q| i64::from(found.whole.queries.iter().any(|r| r.query == q)))
        .collect();
    assert_eq!(golden.integers("cuhk03.torchreid.valid"), counted);
}

#[test]
fn cuhk01_in_both_directions() {
    let golden = Golden::open();
    let all = golden.set(
        "cuhk01.both.features",
        "cuhk01.both.pids",
        "cuhk01.both.cameras",
    );
    let direction = |case: &str| {
        let side = |name: &str| rows(&all, &golden.indices(&format!("{case}.{name}")));
        let (query, gallery) = (side("query_rows"), side("gallery_rows"));
        let draws = golden.indices(&format!("{case}.draws"));
        let persons = draws.len() / 10;
        let found = single_shot(
            &query.embeddings(),
            &gallery.embeddings(),
            10,
            |draw, _, out| {
                out.clear();
                out.extend_from_slice(&draws[draw * persons..][..persons]);
            },
        )
        .unwrap();
        golden.single_shot(case, &found);
        found
    };
    let (there, back) = (direction("cuhk01.a_to_b"), direction("cuhk01.b_to_a"));
    let (r, cmc) = mean_of_directions(&there, &back);
    golden.near("cuhk01.both.cmc", &cmc, STORED);
    golden.near(
        "cuhk01.both.rank",
        &[r.rank1, r.rank5, r.rank10, cmc[19]],
        STORED,
    );
    golden.near("cuhk01.both.map", &[r.map], STORED);
}

#[test]
fn tracklets_are_pooled_and_the_gallery_is_the_rest_or_all() {
    let golden = Golden::open();
    let name = |array: &str| format!("video.mean.{array}");
    let (starts, lengths) = (
        golden.indices(&name("starts")),
        golden.indices(&name("lengths")),
    );
    let (pids, cams) = (
        golden.integers(&name("pids")),
        golden.integers(&name("cams")),
    );
    let features = golden.floats(&name("frames"));
    let total: usize = lengths.iter().sum();
    let (mut frames, mut numbers) = (
        FeatureSet {
            width: features.len() / total,
            features,
            ..FeatureSet::default()
        },
        Vec::new(),
    );
    for (t, (start, length)) in starts.iter().zip(&lengths).enumerate() {
        assert_eq!(*start, numbers.len(), "frames of a tracklet lie together");
        numbers.extend(vec![t as i64; *length]);
        frames.pids.extend(vec![pids[t]; *length]);
        frames.cameras.extend(vec![cams[t]; *length]);
    }
    for (pool, pooling) in [("mean", Pooling::Mean), ("max", Pooling::Max)] {
        let all = tracklets(&frames.embeddings(), &numbers, pooling).unwrap();
        assert_eq!((&all.pids, &all.cameras), (&pids, &cams));
        let pooled: Vec<f64> = all.features.iter().map(|v| f64::from(*v)).collect();
        golden.near(&format!("video.{pool}.pooled"), &pooled, 1e-6);
        let query = rows(&all, &golden.indices(&name("query_rows")));
        for suffix in ["", "_all"] {
            let case = format!("video.{pool}{suffix}");
            let gallery = rows(&all, &golden.indices(&format!("{case}.gallery_rows")));
            let found = evaluate(&query.embeddings(), &gallery.embeddings()).unwrap();
            golden.ranking(&case, &found);
        }
    }
}

#[test]
fn re_ranking_is_zhongs() {
    let golden = Golden::open();
    let case = "rerank.zhong";
    let (query, gallery) = (golden.side(case, "query"), golden.side(case, "gallery"));
    let (query, gallery) = (query.embeddings(), gallery.embeddings());
    let (k1, k2) = (
        golden.integers("rerank.zhong.k1"),
        golden.integers("rerank.zhong.k2"),
    );
    assert_eq!((k1, k2), (vec![20], vec![6]), "those of the program");
    let lambda = Lambda::default();
    let near = neighbourhoods(&joined(&query, &gallery).unwrap(), query.width).unwrap();
    let (queries, count) = (query.labels.pids.len(), gallery.labels.pids.len());
    let mut jaccard = Vec::new();
    let (mut original, mut last) = (Vec::new(), Vec::new());
    for q in 0..queries {
        let mut row = vec![0.0; queries + count];
        near.jaccard_row(q, &mut row);
        jaccard.extend(row[queries..].iter().map(|v| f64::from(*v)));
        let distances = |share| {
            let share = Lambda::new(share).unwrap();
            let found = reranked_distances(&query, &gallery, near.as_ref(), share, q).unwrap();
            found.into_iter().map(f64::from).collect::<Vec<f64>>()
        };
        original.extend(distances(1.0));
        last.extend(distances(0.3));
    }
    golden.near("rerank.zhong.jaccard", &jaccard, 2e-6);
    golden.near("rerank.zhong.original", &original, 2e-6);
    golden.near("rerank.zhong.final", &last, 2e-6);
    let found = evaluate_reranked(&query, &gallery, near.as_ref(), lambda).unwrap();
    golden.ranking(case, &found);
}

#[test]
fn open_set_rates_and_thresholds() {
    let golden = Golden::open();
    let rates = [0.1, 0.01, 0.001];
    let (query, gallery) = (
        golden.side("market.plain", "query"),
        golden.side("market.plain", "gallery"),
    );
    let found = query_gallery(&query.embeddings(), &gallery.embeddings(), &rates).unwrap();
    golden.verification("open_set.query_gallery", &found);
    let name = |array: &str| format!("open_set.all_pairs.{array}");
    let set = golden.set(&name("features"), &name("pids"), &name("cams"));
    let found = all_pairs(&set.embeddings(), &rates).unwrap();
    golden.verification("open_set.all_pairs", &found);
}
