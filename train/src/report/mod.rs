//! `reid-train report`: one HTML file that shows a run, without anything from elsewhere.
//!
//! From `metrics.jsonl`: curves of losses, scores, clusters and pseudo-label quality. With test data besides: CMC, open-set
//! rates, ranked lists, the worst queries and a t-SNE of a sample ([`tsne`]). Ranked lists show places, not people: pictures come
//! in only if asked for.

pub mod chart;
mod curves;
mod lists;
mod page;
mod sample;
pub mod tsne;

use std::path::PathBuf;

use anyhow::{Context, Result};
use reid_models::files;

use crate::data::{self, Spec, dataset};
use crate::eval::open_set::{self, Verification};
use crate::eval::pool::Pooling;
use crate::eval::protocol::Protocol;
use crate::eval::{self, EvalError, Ranking};
use crate::extract::features;
use crate::fit::load_net;
use crate::nn::device::DeviceSpec;
use crate::run::RunFolder;
use crate::tensorboard;
use crate::test_set::{Sides, Test};

/// False-positive rates of the open-set table; rates too small for the pairs there are get no row.
const RATES: [f64; 4] = [0.1, 0.01, 0.001, 0.0001];

/// What the command line says.
#[derive(Clone, Debug, clap::Args)]
pub struct ReportOptions {
    /// Run folder; finished, if test data are given.
    #[arg(long)]
    pub run: PathBuf,
    /// Test data, KIND:DIR: adds CMC, open-set rates, ranked lists, worst queries and t-SNE.
    #[arg(long)]
    pub data: Option<Spec>,
    /// Put pictures into the ranked lists. They may show real people: mind who gets the file.
    #[arg(long, requires = "data")]
    pub with_crops: bool,
    /// File to write; RUN/report.html if absent.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// What was measured on test data.
pub(crate) struct Measured {
    pub(crate) data: String,
    pub(crate) sides: Sides,
    pub(crate) ranking: Ranking,
    /// Absent if people are seen by too few cameras for pairs.
    pub(crate) open_set: Option<Verification>,
}

/// Writes the report, and TensorBoard events if the run has none; returns the report's path.
///
/// # Errors
/// A folder that is no run, data that can't be evaluated, or a file that can't be read or written.
pub fn report(options: &ReportOptions, device: DeviceSpec) -> Result<PathBuf> {
    let run = RunFolder::open(&options.run)?;
    let rows = run.metrics()?;
    let metrics = run.file("metrics.jsonl");
    if let Ok(end) = std::fs::metadata(&metrics).and_then(|m| m.modified()) {
        tensorboard::write_missing(&run.file("tensorboard"), &rows, end)?;
    }
    let measured = match &options.data {
        Some(spec) => Some(measure(&run, spec, device)?),
        None => None,
    };
    let html = page::html(&run, &rows, measured.as_ref(), options.with_crops)?;
    let out = match &options.out {
        Some(out) => out.clone(),
        None => run.file("report.html"),
    };
    files::write_atomic(&out, html.as_bytes())?;
    Ok(out)
}

fn measure(run: &RunFolder, spec: &Spec, device: DeviceSpec) -> Result<Measured> {
    let dataset = dataset::load(spec)?;
    dataset.check_evaluable()?;
    let net = load_net(run, device)?;
    // Ranked lists and the worst queries are about the whole gallery: no draws, whatever papers do.
    let protocol = match dataset.protocol {
        data::Protocol::Tracklets => Protocol::Video,
        data::Protocol::Standard | data::Protocol::SingleShot => Protocol::Market,
    };
    let test = Test::new(&dataset, Some(protocol), &run.card()?.input, 0)?;
    let sides = test.sides(Pooling::Mean, |store| features(&net, store))?;
    let ranking = eval::evaluate(
        &sides.query.set.embeddings(),
        &sides.gallery.set.embeddings(),
    )?;
    let open_set = open_set_points(&sides).with_context(|| format!("{spec}: open-set rates"))?;
    Ok(Measured {
        data: dataset.name,
        sides,
        ranking,
        open_set,
    })
}

/// Rates as far as there are pairs for them.
fn open_set_points(sides: &Sides) -> Result<Option<Verification>> {
    let (query, gallery) = (sides.query.set.embeddings(), sides.gallery.set.embeddings());
    for count in (1..=RATES.len()).rev() {
        let found = open_set::query_gallery(&query, &gallery, &RATES[..count]);
        match found {
            Ok(found) => return Ok(Some(found)),
            Err(EvalError::Rate { .. } | EvalError::NoPairs { .. }) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Ok(None)
}
