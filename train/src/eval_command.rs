//! The arguments of `reid-train eval`, and what it and `reid-train rank` print.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use reid_models::runtime::{Backend, Embedder, RuntimeConfig};
use reid_train::config::usage;
use reid_train::data::{Spec, dataset};
use reid_train::eval::command::{RankOptions, rank_file};
use reid_train::eval::protocol::{Outcome, Protocol, Settings};
use reid_train::eval::rank::Metric;
use reid_train::extract::{features_of, onnx_features};
use reid_train::fit::load_net;
use reid_train::nn::device::DeviceSpec;
use reid_train::run::RunFolder;
use reid_train::test_set::{Sides, Test, choose};

#[derive(Args)]
pub struct EvalArgs {
    /// Finished run folder. May be given several times.
    #[arg(long)]
    run: Vec<PathBuf>,
    /// ONNX file with a card. May be given several times.
    #[arg(long)]
    onnx: Vec<PathBuf>,
    /// Test data, KIND:DIR.
    #[arg(long)]
    data: String,
    /// How query and gallery are compared [default: the data set's own: cuhk03 for classic CUHK03, cuhk01, video for MARS,
    /// else market].
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    #[command(flatten)]
    settings: Settings,
    /// Add every picture's mirror image: its embedding is the sum of both, made unit, as SSG, SCR and CANU are evaluated.
    #[arg(long)]
    flip: bool,
    /// Runtime for ONNX files.
    #[arg(long, default_value = "auto")]
    backend: BackendArg,
    /// Write a contact sheet (PNG) of some queries and their ranked lists.
    #[arg(long)]
    sheet: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum BackendArg {
    Auto,
    Tract,
    Onnxruntime,
}

/// Evaluates runs, then ONNX files.
pub fn eval(args: &EvalArgs, device: DeviceSpec, json: bool) -> Result<()> {
    if args.run.is_empty() && args.onnx.is_empty() {
        return Err(usage("eval: give --run RUN or --onnx FILE"));
    }
    let dataset = dataset::load(&args.data.parse::<Spec>()?)?;
    dataset.check_evaluable()?;
    // Extracting may take minutes: what can't be evaluated is refused before.
    let protocol = choose(&dataset, args.protocol)?;
    args.settings.check(protocol, Metric::Cosine)?;
    for path in &args.run {
        let run = RunFolder::open(path)?;
        let net = load_net(&run, device)?;
        let test = Test::new(&dataset, Some(protocol), &run.card()?.input, 0)?;
        let sides = test.sides(args.settings.pooling, |store| {
            features_of(&net, store, args.flip)
        })?;
        report(&path.display().to_string(), &sides, args, json)?;
    }
    for path in &args.onnx {
        let backend = match args.backend {
            BackendArg::Auto => Backend::Auto,
            BackendArg::Tract => Backend::Tract,
            BackendArg::Onnxruntime => Backend::OnnxRuntime,
        };
        let config = RuntimeConfig {
            backend,
            ..RuntimeConfig::default()
        };
        let mut embedder = Embedder::open(path, &config)?;
        let input = embedder.card().input.clone();
        let test = Test::new(&dataset, Some(protocol), &input, 0)?;
        let sides = test.sides(args.settings.pooling, |store| {
            onnx_features(&mut embedder, store, args.flip)
        })?;
        report(&path.display().to_string(), &sides, args, json)?;
    }
    Ok(())
}

fn report(model: &str, sides: &Sides, args: &EvalArgs, json: bool) -> Result<()> {
    let outcome = sides.evaluate(&args.settings)?;
    if let Some(path) = &args.sheet {
        sides.write_sheet(path)?;
    }
    print(model, &outcome, json)
}

/// Evaluates a file of features.
pub fn rank(args: &RankOptions, json: bool) -> Result<()> {
    let outcome = rank_file(args, &reid_train::rerank::neighbourhoods)?;
    print(&args.file.display().to_string(), &outcome, json)
}

fn print(model: &str, outcome: &Outcome, json: bool) -> Result<()> {
    if json {
        let mut value = serde_json::to_value(outcome)?;
        value["model"] = model.into();
        println!("{value}");
        return Ok(());
    }
    let result = &outcome.result;
    let draws = outcome.draws.map_or_else(String::new, |n| {
        format!(" (ranks: mean of {n} draws; mAP, mINP: whole gallery)")
    });
    println!(
        "{model}: rank-1 {:.1} %, rank-5 {:.1} %, rank-10 {:.1} %, mAP {:.1} %, mINP {:.1} % over {} queries, protocol {}{draws}",
        100.0 * result.rank1,
        100.0 * result.rank5,
        100.0 * result.rank10,
        100.0 * result.map,
        100.0 * result.minp,
        result.queries,
        outcome.protocol
    );
    for p in outcome.open_set.iter().flat_map(|v| &v.points) {
        println!(
            "at a false-positive rate of {}: true-positive rate {:.1} %, threshold {:.4} ({} impostor pairs pass)",
            p.fpr,
            100.0 * p.tpr,
            p.threshold,
            p.accepts
        );
    }
    Ok(())
}
