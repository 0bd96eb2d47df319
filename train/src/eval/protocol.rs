//! One evaluation by a protocol, wherever the features come from.
//!
//! What a row is (a picture, a person's pictures in a camera, a tracklet) was settled before, by [`super::pool`]; here rows are
//! compared. A data set's own protocol is the caller's business: see [`crate::test_set`].

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use super::error::EvalError;
use super::labels::Embeddings;
use super::open_set::{self, Verification};
use super::pool::Pooling;
use super::rank::evaluate_by;
use super::rerank::{self, Lambda, Neighbourhoods};
use super::result::EvalResult;
use super::similarity::Metric;
use super::single_shot::{DrawForm, Draws, SingleShot, mean_of_directions, single_shot};

/// How query and gallery are compared. One word on the command line, in JSON and in text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Single query: Market-1501, DukeMTMC-reID, MSMT17, CUHK03 (new protocol).
    #[default]
    Market,
    /// Market-1501 with multiple queries: all boxes of a query's person in its camera are pooled.
    MultiQuery,
    /// Single shot, draws shared by all queries: CUHK03 as first published (queries of one camera, gallery of the other).
    Cuhk03,
    /// Single shot, draws of each query's own, as torchreid evaluates CUHK03.
    Cuhk03Torchreid,
    /// Single shot in both directions, mean: CUHK01 (queries of one camera, gallery of the other).
    Cuhk01,
    /// Tracklets instead of pictures, each pooled from its frames: MARS.
    Video,
}

impl Protocol {
    /// Whether one gallery image a person is drawn.
    pub fn single_shot(self) -> bool {
        matches!(
            self,
            Protocol::Cuhk03 | Protocol::Cuhk03Torchreid | Protocol::Cuhk01
        )
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.to_possible_value() {
            Some(word) => f.write_str(word.get_name()),
            None => Ok(()),
        }
    }
}

/// What an evaluation is told besides its protocol.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
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
    /// Open set: true-positive rate and suggested threshold at this false-positive (false-accept) rate, 0 to 1, over pairs of
    /// different cameras. May be given several times, or as a list with commas.
    #[arg(
        long = "fpr",
        visible_alias = "far",
        value_name = "RATE",
        value_delimiter = ','
    )]
    pub rates: Vec<f64>,
}

impl Default for Settings {
    /// Those of the command line: mean pooling, 10 draws, seed 1, no re-ranking, no rates.
    fn default() -> Self {
        Settings {
            pooling: Pooling::default(),
            draws: 10,
            seed: 1,
            rerank: false,
            lambda: Lambda::default(),
            rates: Vec::new(),
        }
    }
}

impl Settings {
    /// What does not go together, before anything is read.
    ///
    /// # Errors
    /// [`EvalError::Option`] naming the option and what would do.
    pub fn check(&self, protocol: Protocol, metric: Metric) -> Result<(), EvalError> {
        let refuse = |option, reason: &str| {
            Err(EvalError::Option {
                option,
                reason: reason.into(),
            })
        };
        let single_shot = protocol.single_shot();
        if single_shot && self.rerank {
            return refuse(
                "--rerank",
                "a single-shot gallery has one image a person and nothing to re-rank by; use --protocol market",
            );
        }
        if metric == Metric::Euclidean && (self.rerank || single_shot) {
            return refuse(
                "--metric euclidean",
                "re-ranking and single shot compare by cosine; leave it out",
            );
        }
        if self.draws == 0 {
            return refuse("--draws", "must be at least 1");
        }
        Ok(())
    }
}

/// What an evaluation says. The JSON keys are a contract.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// By which protocol.
    pub protocol: Protocol,
    /// Means. Single shot: ranks from the draws, mAP and mINP of the whole gallery.
    #[serde(flatten)]
    pub result: EvalResult,
    /// Draws the ranks are means of, if single shot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draws: Option<usize>,
    /// If rates were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_set: Option<Verification>,
}

/// Makes neighbourhoods of joined features (row-major, width) for re-ranking.
pub type NeighbourhoodMaker<'a> =
    dyn Fn(&[f32], usize) -> Result<Box<dyn Neighbourhoods>, String> + 'a;

/// Evaluates one row per query and gallery entry; `neighbourhoods` is for re-ranking.
///
/// # Errors
/// As [`Settings::check`] and [`super::rank::evaluate`]; [`EvalError::Option`] for shared draws from a gallery that has a
/// camera of the queries; [`EvalError::Rerank`]; as [`open_set::query_gallery`] if rates are asked for.
pub fn evaluate(
    protocol: Protocol,
    metric: Metric,
    query: &Embeddings,
    gallery: &Embeddings,
    settings: &Settings,
    neighbourhoods: &NeighbourhoodMaker,
) -> Result<Outcome, EvalError> {
    settings.check(protocol, metric)?;
    let shots = |query: &Embeddings, gallery: &Embeddings, form| -> Result<SingleShot, EvalError> {
        let draws = Draws::new(form, query.labels, gallery.labels, settings.seed);
        single_shot(query, gallery, settings.draws, |draw, q, out| {
            draws.rows(draw, q, out);
        })
    };
    let result = match protocol {
        Protocol::Cuhk03 => {
            check_cameras(query, gallery)?;
            shots(query, gallery, DrawForm::Shared)?.result
        }
        Protocol::Cuhk03Torchreid => shots(query, gallery, DrawForm::PerQuery)?.result,
        Protocol::Cuhk01 => {
            check_cameras(query, gallery)?;
            let there = shots(query, gallery, DrawForm::Shared)?;
            let back = shots(gallery, query, DrawForm::Shared)?;
            mean_of_directions(&there, &back).0
        }
        Protocol::Market | Protocol::MultiQuery | Protocol::Video => {
            // The plain evaluation also checks the features, so it comes first in either case.
            let plain = evaluate_by(metric, query, gallery)?.result;
            if settings.rerank {
                reranked(query, gallery, settings.lambda, neighbourhoods)?
            } else {
                plain
            }
        }
    };
    let open_set = if settings.rates.is_empty() {
        None
    } else {
        Some(open_set::query_gallery(query, gallery, &settings.rates)?)
    };
    Ok(Outcome {
        protocol,
        result,
        draws: protocol.single_shot().then_some(settings.draws),
        open_set,
    })
}

/// A draw that all queries share does not look at cameras: with a camera on both sides it could be the query's own picture,
/// and every rank would be too good.
fn check_cameras(query: &Embeddings, gallery: &Embeddings) -> Result<(), EvalError> {
    let asking: std::collections::BTreeSet<i64> = query.labels.cameras.iter().copied().collect();
    match gallery.labels.cameras.iter().find(|c| asking.contains(c)) {
        Some(camera) => Err(EvalError::Option {
            option: "--protocol",
            reason: format!(
                "shared draws want queries of one camera and a gallery of others, but camera {camera} is on both sides; \
                 split them, or use --protocol cuhk03-torchreid"
            ),
        }),
        None => Ok(()),
    }
}

fn reranked(
    query: &Embeddings,
    gallery: &Embeddings,
    lambda: Lambda,
    maker: &NeighbourhoodMaker,
) -> Result<EvalResult, EvalError> {
    let joined = rerank::joined(query, gallery)?;
    let neighbourhoods =
        maker(&joined, query.width).map_err(|reason| EvalError::Rerank { reason })?;
    let ranking = rerank::evaluate_reranked(query, gallery, neighbourhoods.as_ref(), lambda)?;
    Ok(ranking.result)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::labels::Labels;
    use super::*;

    #[test]
    fn one_word_everywhere() {
        for protocol in Protocol::value_variants() {
            let json = serde_json::to_value(protocol).unwrap();
            assert_eq!(json, protocol.to_string());
        }
        assert_eq!(Protocol::Cuhk03Torchreid.to_string(), "cuhk03-torchreid");
    }

    #[test]
    fn shared_draws_refuse_a_camera_on_both_sides() {
        let features = [1.0, 0.0, 0.0, 1.0];
        let side = |cameras| Embeddings {
            features: &features,
            width: 2,
            labels: Labels {
                pids: &[1, 2],
                cameras,
            },
        };
        let none = |_: &[f32], _: usize| Err("not asked for".to_string());
        let run = |protocol, cameras| {
            let settings = Settings::default();
            let (query, gallery) = (side(&[1, 1]), side(cameras));
            evaluate(protocol, Metric::Cosine, &query, &gallery, &settings, &none)
        };
        for protocol in [Protocol::Cuhk03, Protocol::Cuhk01] {
            let text = run(protocol, &[2, 1]).unwrap_err().to_string();
            assert!(
                text.contains("camera 1 is on both sides") && text.contains("cuhk03-torchreid"),
                "{text}"
            );
            assert_eq!(run(protocol, &[2, 2]).unwrap().result.rank1, 1.0);
        }
    }
}
