//! `reid-train rank FILE.npz`: evaluation of features from anywhere, by the protocol of a data set.

use std::path::PathBuf;

use super::error::EvalError;
use super::labels::Labels;
use super::npz::{FeatureFile, FeatureSet, Reader};
use super::pool;
use super::protocol::{self, NeighbourhoodMaker, Outcome, Protocol, Settings};
use super::similarity::Metric;

/// Options of `reid-train rank`.
#[derive(Clone, Debug, clap::Args)]
pub struct RankOptions {
    /// The file: matrices of float32 or float64 with one row per image, labels as integers (person -1 is junk, 0 a distractor).
    pub file: PathBuf,
    /// How query and gallery are compared. multi-query wants boxes, boxes_pids, boxes_cams instead of query; video takes rows
    /// as frames, and query_tracklets and gallery_tracklets say which belong together.
    #[arg(long, value_enum, default_value_t)]
    pub protocol: Protocol,
    /// What near means; single shot and re-ranking know the cosine only.
    #[arg(long, value_enum, default_value_t)]
    pub metric: Metric,
    /// The rest.
    #[command(flatten)]
    pub settings: Settings,
}

impl RankOptions {
    /// Market-1501's protocol for a file.
    pub fn new(file: PathBuf) -> Self {
        RankOptions {
            file,
            protocol: Protocol::default(),
            metric: Metric::default(),
            settings: Settings::default(),
        }
    }
}

/// Evaluates a file; `neighbourhoods` is for re-ranking.
///
/// # Errors
/// A file that can't be read, features that can't be evaluated, or options that don't go together.
pub fn rank_file(
    options: &RankOptions,
    neighbourhoods: &NeighbourhoodMaker,
) -> Result<Outcome, EvalError> {
    // A typing error must not cost the reading of a large file.
    options.settings.check(options.protocol, options.metric)?;
    let FeatureFile { query, gallery } = read(options)?;
    protocol::evaluate(
        options.protocol,
        options.metric,
        &query.embeddings(),
        &gallery.embeddings(),
        &options.settings,
        neighbourhoods,
    )
    .map_err(|e| match e {
        EvalError::Rerank { reason } => EvalError::File {
            path: options.file.clone(),
            reason,
        },
        e => e,
    })
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
            let features =
                pool::multi_query(&boxes.embeddings(), &labels, options.settings.pooling)?;
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
                pool::tracklets(&frames.embeddings(), &numbers, options.settings.pooling)
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
    use super::super::rerank::Neighbourhoods;
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
                settings: Settings {
                    rates: vec![0.1],
                    ..Settings::default()
                },
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
        let text = message(|o| (o.protocol, o.settings.rerank) = (Protocol::Cuhk01, true));
        assert!(text.starts_with("--rerank"), "{text}");
        let text = message(|o| (o.metric, o.settings.rerank) = (Metric::Euclidean, true));
        assert!(text.starts_with("--metric euclidean"), "{text}");
        assert!(message(|o| o.settings.draws = 0).contains("at least 1"));
        assert!(message(|o| o.protocol = Protocol::MultiQuery).contains("\"boxes\""));
        assert!(message(|o| o.protocol = Protocol::Video).contains("\"query_tracklets\""));
        assert!(message(|o| o.settings.rates = vec![0.001]).contains("90 impostor pairs"));
    }
}
