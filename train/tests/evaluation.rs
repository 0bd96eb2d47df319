//! Evaluation against independent implementations (`golden_data/evaluation.py`) and against sorting.
#![allow(clippy::unwrap_used)]

use std::io::BufReader;
use std::path::Path;

use npyz::npz::NpzArchive;
use proptest::prelude::*;
use reid_train::clustering::{Jaccard, KReciprocal, UnitRows, Weights};
use reid_train::eval::command::{RankOptions, rank_file};
use reid_train::eval::npz::{FeatureFile, FeatureSet};
use reid_train::eval::rank::{JUNK, Labels, Ranking, evaluate, evaluate_scores, ranked_lists};
use reid_train::eval::rerank::{
    Lambda, Neighbourhoods, evaluate_reranked, joined, reranked_distances,
};

type Golden = NpzArchive<BufReader<std::fs::File>>;

fn golden() -> Golden {
    NpzArchive::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_data/evaluation.npz"))
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

fn features(golden: &mut Golden, prefix: &str, width: usize) -> FeatureFile {
    let mut set = |name: &str| FeatureSet {
        features: array(golden, &format!("{prefix}{name}")),
        width,
        pids: array(golden, &format!("{prefix}{name}_pids")),
        cameras: array(golden, &format!("{prefix}{name}_cams")),
    };
    FeatureFile {
        query: set("query"),
        gallery: set("gallery"),
    }
}

fn check(found: &Ranking, golden: &mut Golden, prefix: &str) {
    let rows: Vec<f64> = array(golden, &format!("{prefix}rows"));
    let summary: Vec<f64> = array(golden, &format!("{prefix}summary"));
    assert_eq!(found.queries.len(), rows.len() / 4);
    for (q, want) in found.queries.iter().zip(rows.chunks(4)) {
        assert_eq!((q.query, q.first), (want[0] as usize, want[1] as usize));
        assert!(
            (q.average_precision - want[2]).abs() < 1e-9,
            "query {}: {} {}",
            q.query,
            q.average_precision,
            want[2]
        );
        assert!((q.inverse_penalty - want[3]).abs() < 1e-9);
    }
    let r = found.result;
    for (found, want) in [r.rank1, r.rank5, r.rank10, r.map, r.minp, r.queries as f64]
        .into_iter()
        .zip(&summary)
    {
        assert!((found - want).abs() < 1e-9, "{found} {want}");
    }
    assert_eq!(
        r.skipped, 2,
        "one query is unknown, one seen by its own camera only"
    );
}

#[test]
fn scores_agree_with_scikit_learn() {
    let mut g = golden();
    let file = features(&mut g, "", 16);
    let found = evaluate(&file.query.embeddings(), &file.gallery.embeddings()).unwrap();
    check(&found, &mut g, "");
}

#[test]
fn ties_rank_by_index() {
    let mut g = golden();
    let file = features(&mut g, "ties.", 4);
    let found = evaluate(&file.query.embeddings(), &file.gallery.embeddings()).unwrap();
    check(&found, &mut g, "ties.");
}

/// What `main` does for `--rerank`: evaluation and clustering don't know each other.
struct Together(KReciprocal);

impl Neighbourhoods for Together {
    fn jaccard_row(&self, i: usize, out: &mut [f32]) {
        self.0.jaccard_row(i, out);
    }
    fn farthest_similarity(&self, i: usize) -> f32 {
        self.0.farthest_similarity(i)
    }
}

fn together(features: &[f32], width: usize) -> Result<Box<dyn Neighbourhoods>, String> {
    let parameters = Jaccard::new(21, 6, Weights::ExpScaled).map_err(|e| e.to_string())?;
    let rows = UnitRows::new(features, width).map_err(|e| e.to_string())?;
    Ok(Box::new(Together(KReciprocal::encode(&rows, &parameters))))
}

#[test]
fn re_ranking_agrees_with_the_dense_version() {
    let mut g = golden();
    let file = features(&mut g, "", 16);
    let (query, gallery) = (file.query.embeddings(), file.gallery.embeddings());
    let neighbourhoods = together(&joined(&query, &gallery).unwrap(), 16).unwrap();
    let want: Vec<f32> = array(&mut g, "rerank.distances");
    for (q, want) in want.chunks(file.gallery.pids.len()).enumerate() {
        let found = reranked_distances(
            &query,
            &gallery,
            neighbourhoods.as_ref(),
            Lambda::default(),
            q,
        )
        .unwrap();
        for (found, want) in found.iter().zip(want) {
            assert!((found - want).abs() < 1e-5, "query {q}: {found} {want}");
        }
    }
    let found =
        evaluate_reranked(&query, &gallery, neighbourhoods.as_ref(), Lambda::default()).unwrap();
    check(&found, &mut g, "rerank.");
}

#[test]
fn a_file_of_numpy_is_ranked_with_and_without_re_ranking() {
    // The golden file itself has the arrays of the command, among others.
    let mut options = RankOptions::new(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_data/evaluation.npz"),
    );
    let mut g = golden();
    let (plain, reranked): (Vec<f64>, Vec<f64>) =
        (array(&mut g, "summary"), array(&mut g, "rerank.summary"));
    let found = rank_file(&options, &together).unwrap().result;
    assert!((found.map - plain[3]).abs() < 1e-9);
    options.settings.rerank = true;
    let found = rank_file(&options, &together).unwrap().result;
    assert!((found.map - reranked[3]).abs() < 1e-9);
    assert!(found.map > plain[3], "re-ranking helps here");
}

#[test]
fn perfect_features_score_one_and_lists_show_it() {
    let set = |ids: &[i64], camera: i64| FeatureSet {
        features: ids
            .iter()
            .flat_map(|i| [(*i as f32).cos(), (*i as f32).sin()])
            .collect(),
        width: 2,
        pids: ids.to_vec(),
        cameras: vec![camera; ids.len()],
    };
    let (query, gallery) = (set(&[1, 2, 3], 1), set(&[3, 2, 1, 2, 0, -1], 2));
    let found = evaluate(&query.embeddings(), &gallery.embeddings())
        .unwrap()
        .result;
    assert_eq!(
        (found.rank1, found.map, found.minp, found.queries),
        (1.0, 1.0, 1.0, 3)
    );
    let lists = ranked_lists(&query.embeddings(), &gallery.embeddings(), &[1], 3).unwrap();
    assert_eq!(lists[0].len(), 3);
    assert_eq!(
        lists[0].iter().map(|h| h.right).collect::<Vec<_>>(),
        [true, true, false]
    );
    assert_eq!((lists[0][0].gallery, lists[0][1].gallery), (1, 3));
    assert!(lists[0].iter().all(|h| h.gallery != 5), "junk is not shown");
}

/// The protocol by sorting: (first, AP, INP) per query that counts.
fn by_sorting(scores: &[f32], query: Labels, gallery: Labels) -> Vec<(usize, usize, f64, f64)> {
    let n = gallery.pids.len();
    let mut out = Vec::new();
    for q in 0..query.pids.len() {
        if query.pids[q] == JUNK {
            continue;
        }
        let mut order: Vec<usize> = (0..n)
            .filter(|g| gallery.pids[*g] != JUNK)
            .filter(|g| {
                gallery.pids[*g] != query.pids[q] || gallery.cameras[*g] != query.cameras[q]
            })
            .collect();
        order.sort_by(|a, b| scores[q * n + b].partial_cmp(&scores[q * n + a]).unwrap());
        let ranks: Vec<usize> = order
            .iter()
            .enumerate()
            .filter(|(_, g)| gallery.pids[**g] == query.pids[q])
            .map(|(r, _)| r + 1)
            .collect();
        if let Some(last) = ranks.last() {
            let ap = ranks
                .iter()
                .enumerate()
                .map(|(i, r)| (i + 1) as f64 / *r as f64)
                .sum::<f64>()
                / ranks.len() as f64;
            out.push((q, ranks[0], ap, ranks.len() as f64 / *last as f64));
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn counting_agrees_with_sorting(
        queries in prop::collection::vec((-1i64..4, 0i64..3), 1..12),
        gallery in prop::collection::vec((-1i64..4, 0i64..3), 1..400),
        levels in 2u32..1000,
        seed in any::<u64>(),
    ) {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        // Few levels make many ties; few identities make more right answers than are counted one by one.
        let scores: Vec<f32> = (0..queries.len() * gallery.len())
            .map(|_| rng.random_range(0..levels) as f32 / levels as f32 - 0.5)
            .collect();
        let (qp, qc): (Vec<i64>, Vec<i64>) = queries.iter().copied().unzip();
        let (gp, gc): (Vec<i64>, Vec<i64>) = gallery.iter().copied().unzip();
        let (query, gallery) = (Labels { pids: &qp, cameras: &qc }, Labels { pids: &gp, cameras: &gc });
        let n = gp.len();
        let want = by_sorting(&scores, query, gallery);
        let found = evaluate_scores(query, gallery, |rows, out| out.copy_from_slice(&scores[rows.start * n..rows.end * n]));
        match found {
            Err(_) => prop_assert!(want.is_empty()),
            Ok(found) => {
                prop_assert_eq!(found.queries.len(), want.len());
                for (f, w) in found.queries.iter().zip(&want) {
                    prop_assert_eq!((f.query, f.first), (w.0, w.1));
                    prop_assert!((f.average_precision - w.2).abs() < 1e-12 && (f.inverse_penalty - w.3).abs() < 1e-12);
                }
                let r = found.result;
                prop_assert!(r.rank1 <= r.rank5 && r.rank5 <= r.rank10 && r.rank10 <= 1.0, "CMC never falls");
                prop_assert!((0.0..=1.0).contains(&r.map) && r.minp <= 1.0);
                prop_assert_eq!(r.queries + r.skipped, qp.len());
            }
        }
    }
}

/// Random features at Market-1501's size, beside which `golden_engine/evaluation_speed.py` does the same with numpy.
/// `cargo test --release --workspace --test evaluation -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, not a check"]
fn speed_at_the_size_of_market_1501() {
    use rand::{RngExt, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut set = |n: usize| FeatureSet {
        features: (0..n * 2048).map(|_| rng.random::<f32>() - 0.5).collect(),
        width: 2048,
        pids: (0..n as i64).map(|i| i % 750).collect(),
        cameras: (0..n as i64).map(|i| i / 750 % 6).collect(),
    };
    let (query, gallery) = (set(3368), set(15_913));
    let (query, gallery) = (query.embeddings(), gallery.embeddings());
    let (q, g) = (query.labels, gallery.labels);
    for _ in 0..3 {
        let before = memory("VmRSS:");
        // Forgets the peak so far, where the system lets it.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        measured("whole evaluation", || evaluate(&query, &gallery).unwrap());
        println!(
            "  own memory at its peak: {} MiB",
            memory("VmHWM:").saturating_sub(before) / 1024
        );
    }
    let n = g.pids.len();
    let scores: Vec<f32> = (0..q.pids.len() * n).map(|_| rng.random()).collect();
    let copy = |rows: std::ops::Range<usize>, out: &mut [f32]| {
        out.copy_from_slice(&scores[rows.start * n..rows.end * n]);
    };
    let none = vec![7_000; n];
    let alone = Labels {
        pids: &none,
        cameras: &none,
    };
    for _ in 0..3 {
        // Nobody has an answer, so that only the copying is left.
        measured("copying scores", || {
            evaluate_scores(q, alone, copy).is_err()
        });
        measured("copying and ranking", || {
            evaluate_scores(q, g, copy).unwrap()
        });
    }
}

/// Prints wall and processor time of all threads.
fn measured<T>(what: &str, run: impl FnOnce() -> T) {
    let cpu = || {
        // SAFETY: an all-zero rusage is valid, and the call only writes into it.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &mut usage);
            usage
        };
        let seconds = |t: libc::timeval| t.tv_sec as f64 + 1e-6 * t.tv_usec as f64;
        seconds(usage.ru_utime) + seconds(usage.ru_stime)
    };
    let (wall, before) = (std::time::Instant::now(), cpu());
    run();
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu() - before);
    println!("{what}: {wall:.3} s wall, {cpu:.3} s processor");
}

/// A line of /proc/self/status, in KiB; 0 where there is none.
fn memory(line: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|l| l.strip_prefix(line));
    value
        .and_then(|v| v.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
