//! `reid-gpu`: what only a machine with a GPU can tell, and what it is compared with.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use reid_gpu_emulator::twins::network::{NETWORKS, train};
use reid_gpu_emulator::{bench, twins};
use reid_train::config::PrecisionConfig;
use reid_train::nn::device::{self, DeviceSpec};
use serde_json::json;

/// Checks and measures the operators of a GPU; tests/gpu/run makes the GPU section of docs/BENCHMARKS.md with it.
#[derive(Parser)]
#[command(name = "reid-gpu", version, about)]
struct Cli {
    /// Where to compute: auto, cpu or cuda:N.
    #[arg(long, global = true, default_value = "auto")]
    device: DeviceSpec,
    /// auto, f32, tf32 or bf16.
    #[arg(long, global = true, default_value = "auto", value_parser = precision)]
    precision: PrecisionConfig,
    /// Only algorithms that repeat their bits.
    #[arg(long, global = true)]
    deterministic: bool,
    #[command(subcommand)]
    command: Command,
}

fn precision(text: &str) -> Result<PrecisionConfig, String> {
    serde_json::from_value(json!(text)).map_err(|_| "auto, f32, tf32 or bf16".into())
}

#[derive(Subcommand)]
enum Command {
    /// Every operator and three small networks against the processor; exit code 1 if one is too far off
    Check,
    /// Training steps of ResNet-50 at 256 x 128
    Step {
        /// Images of a step.
        #[arg(long, default_value_t = 64)]
        batch: usize,
        /// How long.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
    /// Exact nearest neighbours
    Neighbours {
        /// Rows.
        #[arg(long, default_value_t = 32_621)]
        rows: usize,
        /// Columns.
        #[arg(long, default_value_t = 2048)]
        width: usize,
        /// Neighbours.
        #[arg(short, default_value_t = 30)]
        k: usize,
        /// Also let the processor find them, and count equal rows.
        #[arg(long)]
        compare: bool,
    },
    /// How fast threads make batches of three views at 256 x 128
    Loader {
        /// Data set, KIND:DIR.
        #[arg(long)]
        data: String,
        /// Threads.
        #[arg(long, default_value_t = 1)]
        workers: usize,
        /// Batches of 64.
        #[arg(long, default_value_t = 20)]
        batches: usize,
    },
    /// The operators that `check` compares, one a line
    Operators,
}

fn main() -> ExitCode {
    reid_train::nn::tune_allocator();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reid-gpu: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    if let Command::Operators = cli.command {
        twins::operators().for_each(|name| println!("{name}"));
        return Ok(());
    }
    if let Command::Loader {
        data,
        workers,
        batches,
    } = &cli.command
    {
        println!("{}", bench::loader(data, *workers, *batches)?);
        return Ok(());
    }
    let opened = device::open(cli.device, cli.precision.wanted(), cli.deterministic)?;
    match &cli.command {
        Command::Check => {
            println!("{}", opened.description);
            check(&opened.device)
        }
        Command::Step { batch, seconds } => {
            println!("{}", bench::step(&opened, *batch, *seconds)?);
            Ok(())
        }
        Command::Neighbours {
            rows,
            width,
            k,
            compare,
        } => {
            println!("{}", bench::neighbours(*rows, *width, *k, *compare)?);
            Ok(())
        }
        Command::Loader { .. } | Command::Operators => Ok(()),
    }
}

/// Prints a line for each operator and network, and fails if one is too far off.
fn check(device: &candle_core::Device) -> Result<()> {
    let gpu = device::gpu().context("check wants a GPU: --device cuda:N")?;
    let mut failed = 0;
    for c in twins::compare(gpu)? {
        let verdict = if c.holds() { "ok" } else { "TOO FAR" };
        failed += usize::from(!c.holds());
        println!(
            "{:<42} {:>8.1e} of {:.0e}  {verdict}",
            c.operator, c.error, c.tolerance
        );
    }
    let nudge = twins::rounding(gpu.settings().precision);
    for (name, backbone, pooling) in NETWORKS {
        let at = |device: &candle_core::Device, nudge| train(device, (*backbone, *pooling), nudge);
        let cpu = candle_core::Device::Cpu;
        let exact = at(&cpu, 0.0)?;
        let (allowed, off) = (
            at(&cpu, nudge)?.distance(&exact),
            at(device, 0.0)?.distance(&exact),
        );
        let holds = off.iter().zip(allowed).all(|(o, a)| *o < 5.0 * a + 1e-5);
        failed += usize::from(!holds);
        println!(
            "{name:<42} {:>8.1e}, a nudge {:.1e}  {}",
            off[0],
            allowed[0],
            if holds { "ok" } else { "TOO FAR" }
        );
    }
    if failed > 0 {
        bail!("{failed} too far from the processor");
    }
    Ok(())
}
