//! `./reid bench`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use reid_tests::bench::Bench;

/// Measures, and prints the tables of docs/BENCHMARKS.md.
#[derive(Parser)]
#[command(name = "reid-bench", version, about)]
struct Cli {
    /// Folder for data and runs; what is there already is used again.
    #[arg(long, global = true, default_value = "runs/bench")]
    out: PathBuf,
    /// Seeds of the worlds.
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [31, 32, 33])]
    seeds: Vec<u64>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Colour histogram, starting point, ICE and its ablations, supervised, on the default benchmark
    Train,
    /// IDF1 across three cameras with a model and with a colour histogram
    Edge {
        /// Model to measure; without it each site gets its own, trained without labels on crops from its cameras.
        #[arg(long)]
        model: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let bench = Bench {
        folder: cli.out,
        seeds: cli.seeds,
    };
    let done = std::fs::create_dir_all(&bench.folder)
        .map_err(anyhow::Error::from)
        .and_then(|()| match &cli.command {
            Command::Train => bench.methods(),
            Command::Edge { model } => bench.edge(model.as_deref()),
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reid-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
