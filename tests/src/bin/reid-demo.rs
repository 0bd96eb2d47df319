//! `./reid demo`.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use reid_tests::demo::{Demo, has_terminal};
use reid_tests::programs::program;

/// From unlabelled crops to live cameras: trains, exports, verifies and replays a simulated site.
#[derive(Parser)]
#[command(name = "reid-demo", version, about)]
struct Cli {
    /// Print one JSON object and end.
    #[arg(long)]
    json: bool,
    /// Folder to work in; an earlier demonstration in it is removed.
    #[arg(long, default_value = "runs/demo")]
    out: PathBuf,
    /// A recording of your own, one for each camera, instead of a simulated site.
    #[arg(long, value_name = "FILE")]
    video: Vec<PathBuf>,
    /// Person detector for your recordings: an ONNX file with a card (reid-export adopt). Without it: motion.
    #[arg(long, value_name = "FILE", requires = "video")]
    detector: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let demo = Demo {
        folder: cli.out.clone(),
        videos: cli.video,
        detector: cli.detector,
    };
    let summary = match demo.run() {
        Ok(summary) => summary,
        Err(error) => {
            eprintln!("reid-demo: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    if cli.json || !has_terminal() {
        match serde_json::to_string(&summary) {
            Ok(line) => println!("{line}"),
            Err(error) => {
                eprintln!("reid-demo: {error}");
                return ExitCode::FAILURE;
            }
        }
        return ExitCode::SUCCESS;
    }
    stay(&demo.config())
}

/// Somebody is watching: the page stays until Ctrl-C.
fn stay(config: &std::path::Path) -> ExitCode {
    eprintln!(
        "\nThe recording plays once more at http://127.0.0.1:8080; the page stays until you press Ctrl-C."
    );
    let Ok(edge) = program("reid-edge") else {
        return ExitCode::FAILURE;
    };
    let replay = ["replay", "--real-time", "--serve", "--stay", "--config"];
    let status = Command::new(edge).args(replay).arg(config).status();
    match status {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reid-demo: {error}");
            ExitCode::FAILURE
        }
    }
}
