//! `reid-train`: the command line over the library.

mod cluster_command;
mod eval_command;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use reid_train::config::{UsageError, usage};
use reid_train::data::{DataError, Kind, Spec, cuhk03_mat, dataset};
use reid_train::eval::EvalError;
use reid_train::eval::command::RankOptions;
use reid_train::extract::features;
use reid_train::fit::{FitOptions, fit, load_net};
use reid_train::methods::METHODS;
use reid_train::nn::device::{self, DeviceSpec};
use reid_train::profile::{self, ProfileOptions};
use reid_train::report::ReportOptions;
use reid_train::run::RunFolder;
use reid_train::test_set::Test;
use serde_json::{Value, json};

/// Trains person re-identification without labels, and evaluates it.
#[derive(Parser)]
#[command(name = "reid-train", version, about)]
struct Cli {
    /// One JSON object on standard output instead of text for people.
    #[arg(long, global = true)]
    json: bool,
    /// Where to compute: auto (the first GPU if this build can use one and there is one), cpu or cuda:N.
    #[arg(long, global = true, default_value = "auto")]
    device: DeviceSpec,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the methods, their papers and what data they need
    Methods,
    /// Train
    Fit(Fit),
    /// Evaluate runs or ONNX files by the data set's own protocol, or another
    Eval(eval_command::EvalArgs),
    /// Evaluate features made by anyone (.npz: query, gallery, query_pids, gallery_pids, query_cams, gallery_cams)
    Rank(RankOptions),
    /// Cluster features made by anyone: by default k-reciprocal Jaccard distance and DBSCAN
    Cluster(cluster_command::ClusterArgs),
    /// Write the features of a data set's query and gallery (.npz)
    Extract {
        /// Finished run folder.
        #[arg(long)]
        run: PathBuf,
        /// Data set, KIND:DIR.
        #[arg(long)]
        data: String,
        /// File to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Show where the time of a training step goes, operator by operator
    Profile(ProfileOptions),
    /// Write one HTML file that shows a run, and TensorBoard events if it has none
    Report(ReportOptions),
    /// Say what a data set holds, what it is good for and whether it is complete
    Data {
        /// Data set, KIND[,OPTION...]:DIR. Kinds: market1501, dukemtmc, msmt17, cuhk03 (options detected, labeled,
        /// classic, split=0..19), cuhk01 (split=0..9), mars, folder, harvest.
        spec: String,
        /// First take CUHK03's pictures and test sets out of cuhk-03.mat, into the folder.
        #[arg(long)]
        extract: bool,
    },
}

#[derive(Args)]
struct Fit {
    /// Method (see `reid-train methods`).
    #[arg(long)]
    method: String,
    /// Training data, KIND:DIR (see `reid-train data --help`).
    #[arg(long)]
    data: String,
    /// Labelled data set that the starting weights come from, KIND:DIR: pictures far from it cluster apart (SSG, ABMT, MMT;
    /// cluster.source_weight).
    #[arg(long)]
    source: Option<String>,
    /// Data set whose pictures go through the network beside every batch, KIND:DIR, so that its batch norms know them
    /// (supervised training on a source, for a target).
    #[arg(long)]
    beside: Option<String>,
    /// Run folder to make (with --resume: to continue).
    #[arg(long)]
    out: PathBuf,
    /// Preset; the method's own if absent.
    #[arg(long)]
    preset: Option<String>,
    /// Configuration file over the preset.
    #[arg(long)]
    config: Option<PathBuf>,
    /// key=value over both, for example train.epochs=5. May be given several times.
    #[arg(long = "set")]
    sets: Vec<String>,
    /// Starting weights: FILE (safetensors, or a PyTorch checkpoint with the names of torchvision, timm, torchreid or
    /// fast-reid), zoo:NAME, hf:REPO or hf:REPO/FILE (from Hugging Face's cache, else downloaded into it), or random.
    #[arg(long)]
    init: Option<String>,
    /// Continue an interrupted run.
    #[arg(long)]
    resume: bool,
}

fn main() -> ExitCode {
    reid_models::pipe::end_with_reader();
    reid_train::nn::tune_allocator();
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("REID_LOG")
                .unwrap_or_else(|_| "reid_train=info,warn".into()),
        )
        .without_time()
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reid-train: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// 2 for a mistake on the command line or in a configuration, 1 for everything that went wrong later.
fn exit_code(error: &anyhow::Error) -> u8 {
    let usage = error.chain().any(|cause| {
        cause.is::<UsageError>()
            || matches!(
                cause.downcast_ref(),
                Some(DataError::Spec { .. } | DataError::Missing { .. } | DataError::NoFile { .. })
            )
            || matches!(cause.downcast_ref(), Some(EvalError::Option { .. }))
            || matches!(
                cause.downcast_ref(),
                Some(reid_train::clustering::ClusterError::Parameter { .. })
            )
    });
    if usage { 2 } else { 1 }
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Methods => print_methods(cli.json),
        Command::Fit(args) => {
            let row = fit(&FitOptions {
                method: args.method.clone(),
                data: args.data.parse()?,
                source: args.source.as_deref().map(str::parse).transpose()?,
                beside: args.beside.as_deref().map(str::parse).transpose()?,
                out: args.out.clone(),
                preset: args.preset.clone(),
                config: args.config.clone(),
                sets: args.sets.clone(),
                init: args.init.clone(),
                device: cli.device,
                resume: args.resume,
            })?;
            if cli.json {
                println!("{row}");
            } else {
                println!("finished: {}", args.out.display());
            }
            Ok(())
        }
        Command::Eval(args) => eval_command::eval(args, cli.device, cli.json),
        Command::Profile(args) => {
            let measured = profile::measure(args, cli.device)?;
            if cli.json {
                println!("{}", measured.json());
            } else {
                print!("{}", measured.text());
            }
            Ok(())
        }
        Command::Rank(args) => {
            open_for_matrices(cli.device)?;
            eval_command::rank(args, cli.json)
        }
        Command::Cluster(args) => {
            open_for_matrices(cli.device)?;
            cluster_command::run(args, cli.json)
        }
        Command::Extract { run, data, out } => {
            let run = RunFolder::open(run)?;
            let dataset = dataset::load(&data.parse::<Spec>()?)?;
            dataset.check_evaluable()?;
            let net = load_net(&run, cli.device)?;
            let test = Test::new(&dataset, None, &run.card()?.input, 0)?;
            test.write_features(out, |store| features(&net, store))?;
            if cli.json {
                let (queries, gallery) = test.pictures();
                println!(
                    "{}",
                    json!({"file": out, "queries": queries, "gallery": gallery, "protocol": test.protocol()})
                );
            }
            Ok(())
        }
        Command::Report(args) => {
            let path = reid_train::report::report(args, cli.device)?;
            if cli.json {
                println!("{}", json!({"report": path}));
            } else {
                println!("{}", path.display());
            }
            Ok(())
        }
        Command::Data { spec, extract } => {
            let spec: Spec = spec.parse()?;
            if *extract {
                if spec.kind != Kind::Cuhk03 {
                    return Err(usage(format!(
                        "--extract is for cuhk03:DIR, not for {}",
                        spec.kind
                    )));
                }
                let made = cuhk03_mat::extract(&spec.dir)?;
                tracing::info!(
                    "{} detected and {} labeled images, {} test sets extracted",
                    made.detected,
                    made.labeled,
                    made.testsets
                );
            }
            let described = dataset::load(&spec)?.describe();
            if cli.json {
                println!("{}", serde_json::to_string(&described)?);
            } else {
                println!("{described}");
            }
            Ok(())
        }
    }
}

/// Opens the device that takes the matrices of clustering and evaluation, where no network is run.
fn open_for_matrices(spec: DeviceSpec) -> Result<()> {
    let opened = device::open(spec, None, false).map_err(|e| usage(e.to_string()))?;
    tracing::info!("computing on {}", opened.description);
    Ok(())
}

fn print_methods(json: bool) -> Result<()> {
    if json {
        let list: Vec<Value> = METHODS
            .iter()
            .map(|m| json!({"name": m.name, "paper": m.paper, "needs": m.needs, "presets": m.presets}))
            .collect();
        println!("{}", json!({ "methods": list }));
        return Ok(());
    }
    for m in METHODS {
        println!("{:17} {}", m.name, m.paper);
        println!("{:17} needs {}", "", m.needs);
        println!("{:17} presets {}", "", m.presets.join(", "));
    }
    Ok(())
}
