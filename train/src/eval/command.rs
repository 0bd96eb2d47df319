//! `reid-train rank FILE.npz`: evaluation of features from anywhere, by the protocol of a data set.

use std::path::PathBuf;

use serde::Serialize;

use super::error::EvalError;
use super::labels::{Embeddings, Labels};
use super::npz::{FeatureFile, FeatureSet, Reader};
use super::open_set::{self, Verification};
use super::pool::{self, Pooling};
use super::rank::evaluate_by;
use super::rerank::{self, Lambda, Neighbourhoods};
use super::result::EvalResult;
use super::similarity::Metric;
use super::single_shot::{DrawForm, Draws, SingleShot, mean_of_directions, single_shot};

/// How query and gallery are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// Single query: Market-1501, DukeMTMC-reID, MSMT17, CUHK03 (new protocol).
    #[default]
    Market,
    /// Market-1501 with multiple queries; instead of `query`: boxes, boxes_pids, boxes_cams.
    MultiQuery,
    /// Single shot, draws shared by all queries: CUHK03 as first published (queries of one camera, gallery of the other).
    Cuhk03,
    /// Single shot, draws of each query's own, as torchreid evaluates CUHK03.
    Cuhk03Torchreid,
    /// Single shot in both directions, mean: CUHK01 (`query` is one camera, `gallery` the other).
    Cuhk01,
    /// Rows are frames, query_tracklets and gallery_tracklets say which belong together: MARS.
    Video,
}

/// Options of `reid-train rank`.
#[derive(Clone, Debug, clap::Args)]
pub struct RankOptions {
    /// The file: matrices of float32 or float64 with one row per image, labels as integers (person -1 is junk, 0 a distractor).
    pub file: PathBuf,
    /// How query and gallery are compared; some protocols need other arrays than the usual ones.
    #[arg(long, value_enum, default_value_t)]
    pub protocol: Protocol,
    /// What near means; single shot and re-ranking know the cosine only.
    #[arg(long, value_enum, default_value_t)]
    pub metric: Metric,
    /// Multiple queries and video: how several features become one.
    #[arg(long = "pool", value_enum, default_value_t)]
    pub pooling: Pooling,
    /// Single shot: draws of one gallery image a person.
    #[arg(long, default_value_t = 10)]
    pub draws: usize,
    /// Single shot: seed of the draws.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// k-reciprocal re-ranking (Zhong et al. 2017), k1 20, k2 6, lambda 0.3.
    #[arg(long)]
    pub rerank: bool,
    /// Share of the original distance when re-ranking.
    #[arg(skip)]
    pub lambda: Lambda,
    /// Open set: true-positive rate and threshold at this false-positive (false-accept) rate, 0 to 1, over pairs of different
    /// cameras. May be given several times, or as a list with commas.
    #[arg(long = "fpr", value_name = "RATE", value_delimiter = ',')]
    pub rates: Vec<f64>,
}

impl RankOptions {
    /// Market-1501's protocol for a file.
    pub fn new(file: PathBuf) -> Self {
        RankOptions {
            file,
            protocol: Protocol::default(),
            metric: Metric::default(),
            pooling: Pooling::default(),
            draws: 10,
            seed: 1,
            rerank: false,
            lambda: Lambda::default(),
            rates: Vec::new(),
        }
    }
}

/// What `reid-train rank` says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankReport {
    /// Means.
    #[serde(flatten)]
    pub result: EvalResult,
    /// If rates were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_set: Option<Verification>,
}

/// Makes neighbourhoods of joined features (row-major, width) for re-ranking.
pub type NeighbourhoodMaker<'a> =
    dyn Fn(&[f32], usize) -> Result<Box<dyn Neighbourhoods>, String> + 'a;

/// Evaluates a file; `neighbourhoods` is for re-ranking.
///
/// # Errors
/// A file that can't be read, features that can't be evaluated, or options that don't go together.
pub fn rank_file(
    options: &RankOptions,
    neighbourhoods: &NeighbourhoodMaker,
) -> Result<RankReport, EvalError> {
    check(options)?;
    let FeatureFile { query, gallery } = read(options)?;
    let (query, gallery) = (query.embeddings(), gallery.embeddings());
    let shots = |query: &Embeddings, gallery: &Embeddings, form| -> Result<SingleShot, EvalError> {
        let draws = Draws::new(form, query.labels, gallery.labels, options.seed);
        single_shot(query, gallery, options.draws, |draw, q, out| {
            draws.rows(draw, q, out);
        })
    };
    let result = match options.protocol {
        Protocol::Cuhk03 => shots(&query, &gallery, DrawForm::Shared)?.result,
        Protocol::Cuhk03Torchreid => shots(&query, &gallery, DrawForm::PerQuery)?.result,
        Protocol::Cuhk01 => {
            let there = shots(&query, &gallery, DrawForm::Shared)?;
            let back = shots(&gallery, &query, DrawForm::Shared)?;
            mean_of_directions(&there, &back).0
        }
        Protocol::Market | Protocol::MultiQuery | Protocol::Video => {
            // The plain evaluation also checks the features, so it comes first in either case.
            let plain = evaluate_by(options.metric, &query, &gallery)?.result;
            if options.rerank {
                reranked(options, &query, &gallery, neighbourhoods)?
            } else {
                plain
            }
        }
    };
    let open_set = if options.rates.is_empty() {
        None
    } else {
        Some(open_set::query_gallery(&query, &gallery, &options.rates)?)
    };
    Ok(RankReport { result, open_set })
}

fn reranked(
    options: &RankOptions,
    query: &Embeddings,
    gallery: &Embeddings,
    maker: &NeighbourhoodMaker,
) -> Result<EvalResult, EvalError> {
    let joined = rerank::joined(query, gallery)?;
    let neighbourhoods = maker(&joined, query.width).map_err(|reason| EvalError::File {
        path: options.file.clone(),
        reason,
    })?;
    let ranking =
        rerank::evaluate_reranked(query, gallery, neighbourhoods.as_ref(), options.lambda)?;
    Ok(ranking.result)
}

fn check(options: &RankOptions) -> Result<(), EvalError> {
    let refuse = |option, reason: &str| {
        Err(EvalError::Option {
            option,
            reason: reason.into(),
        })
    };
    let single_shot = matches!(
        options.protocol,
        Protocol::Cuhk03 | Protocol::Cuhk03Torchreid | Protocol::Cuhk01
    );
    if single_shot && options.rerank {
        return refuse(
            "--rerank",
            "a single-shot gallery has one image a person and nothing to re-rank by; use --protocol market",
        );
    }
    if options.metric == Metric::Euclidean && (options.rerank || single_shot) {
        return refuse(
            "--metric euclidean",
            "re-ranking and single shot compare by cosine; leave it out",
        );
    }
    if options.draws == 0 {
        return refuse("--draws", "must be at least 1");
    }
    Ok(())
}

/// The two sides, pooled where the protocol says so.
fn read(options: &RankOptions) -> Result<FeatureFile, EvalError> {
    let mut reader = Reader::open(&options.file)?;
    match options.protocol {
        Protocol::MultiQuery => {
            let (pids, cameras) = reader.labels("query")?;
            let boxes = reader.set("boxes", "boxes")?;
            let labels = Labels {
                pids: &pids,
                cameras: &cameras,
            };
            let features = pool::multi_query(&boxes.embeddings(), &labels, options.pooling)?;
            Ok(FeatureFile {
                query: FeatureSet {
                    features,
                    width: boxes.width,
                    pids,
                    cameras,
                },
                gallery: reader.set("gallery", "gallery")?,
            })
        }
        Protocol::Video => {
            let mut side = |name: &str| -> Result<FeatureSet, EvalError> {
                let frames = reader.set(name, name)?;
                let numbers = reader.integers(&format!("{name}_tracklets"))?;
                pool::tracklets(&frames.embeddings(), &numbers, options.pooling)
            };
            Ok(FeatureFile {
                query: side("query")?,
                gallery: side("gallery")?,
            })
        }
        _ => FeatureFile::read(&options.file),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn none(_: &[f32], _: usize) -> Result<Box<dyn Neighbourhoods>, String> {
        Err("not asked for".into())
    }

    /// Ten people in two cameras, features nearly their own axis.
    fn file(folder: &std::path::Path) -> PathBuf {
        let side = |camera: i64| FeatureSet {
            features: (0..10)
                .flat_map(|p| (0..10).map(move |d| if p == d { 1.0 } else { 0.01 * p as f32 }))
                .collect(),
            width: 10,
            pids: (1..=10).collect(),
            cameras: vec![camera; 10],
        };
        let path = folder.join("f.npz");
        let file = FeatureFile {
            query: side(1),
            gallery: side(2),
        };
        file.write(&path).unwrap();
        path
    }

    #[test]
    fn every_protocol_for_these_arrays_finds_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path());
        for protocol in [
            Protocol::Market,
            Protocol::Cuhk03,
            Protocol::Cuhk03Torchreid,
            Protocol::Cuhk01,
        ] {
            let options = RankOptions {
                protocol,
                rates: vec![0.1],
                ..RankOptions::new(path.clone())
            };
            let found = rank_file(&options, &none).unwrap();
            assert_eq!((found.result.rank1, found.result.map), (1.0, 1.0));
            let open = found.open_set.unwrap();
            assert_eq!((open.genuine, open.impostors), (10, 90));
            assert_eq!(open.points[0].tpr, 1.0);
        }
    }

    #[test]
    fn what_does_not_go_together_or_is_missing_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path());
        let message = |change: fn(&mut RankOptions)| {
            let mut options = RankOptions::new(path.clone());
            change(&mut options);
            rank_file(&options, &none).unwrap_err().to_string()
        };
        let text = message(|o| (o.protocol, o.rerank) = (Protocol::Cuhk01, true));
        assert!(text.starts_with("--rerank"), "{text}");
        let text = message(|o| (o.metric, o.rerank) = (Metric::Euclidean, true));
        assert!(text.starts_with("--metric euclidean"), "{text}");
        assert!(message(|o| o.draws = 0).contains("at least 1"));
        assert!(message(|o| o.protocol = Protocol::MultiQuery).contains("\"boxes\""));
        assert!(message(|o| o.protocol = Protocol::Video).contains("\"query_tracklets\""));
        assert!(message(|o| o.rates = vec![0.001]).contains("90 impostor pairs"));
    }
}
