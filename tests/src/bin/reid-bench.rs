//! `./reid bench`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use reid_tests::bench::edge::work::EdgeWork;
use reid_tests::bench::edge::{self, EdgeBench};
use reid_tests::bench::engine::{EngineBench, Part};
use reid_tests::bench::methods::{self, MethodBench};
use reid_tests::bench::work::Work;
use reid_tests::bench::worlds::WorldBench;

/// Measures, and prints the tables of docs/BENCHMARKS.md.
#[derive(Parser)]
#[command(name = "reid-bench", version, about)]
struct Cli {
    /// Folder for data and runs; what is there already is used again.
    #[arg(long, global = true, default_value = "runs/bench")]
    out: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Training steps, clustering and evaluation beside PyTorch, faiss, scikit-learn and torchreid, in one run
    Train {
        /// Rounds of each row.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Seconds of each measurement of a training step.
        #[arg(long, default_value_t = 15.0)]
        seconds: f64,
        /// Rows to measure.
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::Step, Part::Cluster, Part::ClusterLarge, Part::Evaluate])]
        parts: Vec<Part>,
    },
    /// Accuracy of every method on simulated worlds, ablations, and whether the texts' claims hold; goes on where it was interrupted
    Methods {
        /// What to run.
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = [methods::Part::Methods, methods::Part::Ablations, methods::Part::Large])]
        parts: Vec<methods::Part>,
        /// Seeds of the worlds; rows with one seed take the first.
        #[arg(long, value_delimiter = ',', default_values_t = [41, 42, 43])]
        seeds: Vec<u64>,
        /// Folder of results: one file for each training, which is not done again.
        #[arg(long, default_value = "tests/bench/results")]
        results: PathBuf,
        /// Train nothing, print what is known.
        #[arg(long)]
        known: bool,
        /// Begin no training after so many minutes.
        #[arg(long)]
        minutes: Option<f64>,
        /// Write the tables into this document in place of those it has, instead of printing them.
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// The edge runtime beside OpenCV, onnxruntime and BoxMOT, in one run; IDF1 across cameras of simulated worlds
    Edge {
        /// Rows to measure.
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = edge::Part::ALL)]
        parts: Vec<edge::Part>,
        /// Rounds of each row.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Seconds of each round with live cameras.
        #[arg(long, default_value_t = 30.0)]
        seconds: f64,
        /// One JSON object as the last line instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        worlds: Worlds,
        /// `worlds`: model to measure; without it each site gets its own, trained without labels on crops from its cameras.
        #[arg(long)]
        model: Option<PathBuf>,
    },
    /// One measurement of `train`, as a line of JSON
    #[command(hide = true)]
    Measure {
        #[command(subcommand)]
        work: Work,
    },
    /// One measurement of `edge`, as a line of JSON
    #[command(hide = true)]
    MeasureEdge {
        #[command(subcommand)]
        work: EdgeWork,
    },
}

#[derive(Args)]
struct Worlds {
    /// Seeds of the worlds of the part `worlds`.
    #[arg(long, value_delimiter = ',', default_values_t = [31, 32, 33])]
    seeds: Vec<u64>,
}

fn main() -> ExitCode {
    reid_models::pipe::end_with_reader();
    let cli = Cli::parse();
    let worlds = |worlds: Worlds| WorldBench {
        folder: cli.out.clone(),
        seeds: worlds.seeds,
    };
    let folder = std::fs::create_dir_all(&cli.out).map_err(anyhow::Error::from);
    let done = folder.and_then(|()| match cli.command {
        Command::Train {
            rounds,
            seconds,
            parts,
        } => EngineBench {
            folder: cli.out.clone(),
            rounds: rounds.max(1),
            seconds,
            parts,
        }
        .run(),
        Command::Methods {
            parts,
            seeds,
            results,
            known,
            minutes,
            write,
        } => MethodBench {
            folder: cli.out.clone(),
            results,
            seeds,
            parts,
            known,
            minutes,
            write,
        }
        .run(),
        Command::Edge {
            parts,
            rounds,
            seconds,
            json,
            worlds: seeds,
            model,
        } => EdgeBench {
            folder: cli.out.clone(),
            rounds,
            seconds,
            parts,
            json,
            worlds: worlds(seeds),
            model,
        }
        .run(),
        Command::Measure { work } => work.run().map(|measured| println!("{measured}")),
        Command::MeasureEdge { work } => work.run().map(|measured| println!("{measured}")),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reid-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
