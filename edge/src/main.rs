//! `reid-edge`: see `reid-edge --help`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use reid_edge::check::Level;
use reid_edge::config::{ConfigErrors, EdgeConfig, LogFormat, explain};
use reid_edge::harvest::{self, HarvestOptions};
use reid_edge::replay::{self, ReplayArgs};
use reid_edge::run::{self, RunError, Signals};
use reid_edge::search::{self, SearchArgs};
use reid_edge::serve::ServeError;
use reid_edge::{bench, check, warm};
use serde::Serialize;

/// Live person re-identification on camera streams.
#[derive(Parser)]
#[command(name = "reid-edge", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Common {
    /// Configuration file; `reid-edge config --explain` shows every key.
    #[arg(long, default_value = "edge.toml")]
    config: PathBuf,
    /// Print one JSON object for machines.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Recognise people on the cameras until stopped (Ctrl-C or SIGTERM).
    Run {
        #[command(flatten)]
        common: Common,
        /// Stop after so many seconds.
        #[arg(long)]
        seconds: Option<f64>,
    },
    /// Is everything ready? Configuration, cameras, models, accuracy on this device, files, page. Exit code 1 if not, 2 if
    /// the configuration itself has mistakes.
    Check {
        #[command(flatten)]
        common: Common,
        /// Seconds that a camera may take to show its first frame.
        #[arg(long, default_value_t = 10.0)]
        wait: f64,
    },
    /// Check the configuration alone, or explain every key.
    Config {
        #[command(flatten)]
        common: Common,
        /// Print every key with its meaning, unit, range and default.
        #[arg(long)]
        explain: bool,
    },
    /// Collect crops of the people on the cameras, for training without labels.
    Harvest {
        #[command(flatten)]
        common: Common,
        /// Folder to write, without an earlier harvest in it.
        #[arg(long)]
        out: PathBuf,
        /// Stop after so many seconds (of the recording, for files).
        #[arg(long)]
        seconds: Option<f64>,
        /// Seconds between two crops of the same tracklet.
        #[arg(long, default_value_t = 0.4)]
        every: f64,
        /// Most crops of a tracklet.
        #[arg(long, default_value_t = 40)]
        max_per_tracklet: u32,
        /// Tracklets with fewer crops are left out.
        #[arg(long, default_value_t = 4)]
        min_per_tracklet: usize,
    },
    /// Build ahead what makes a first start slow: engines and optimised models, into `[runtime] cache`.
    Warm {
        #[command(flatten)]
        common: Common,
    },
    /// How fast is this device with this configuration? Frames/s, milliseconds per stage, memory.
    Bench {
        #[command(flatten)]
        common: Common,
        /// Longest time to measure.
        #[arg(long, default_value_t = 30.0)]
        seconds: f64,
    },
    /// Recorded files through the whole pipeline, with scores where there is truth.
    Replay(ReplayArgs),
    /// Who is on this picture? Looks a person up in the gallery.
    Search(SearchArgs),
}

/// Why the program ends without success.
enum Failure {
    /// Bad usage or configuration: exit code 2.
    Usage(String),
    /// Exit code 1.
    Failed(String),
}

impl From<ConfigErrors> for Failure {
    fn from(e: ConfigErrors) -> Self {
        Failure::Usage(e.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Self {
        let page = e.downcast_ref::<ServeError>();
        let is_configuration = e.downcast_ref::<ConfigErrors>().is_some()
            || matches!(
                page,
                Some(
                    ServeError::Address { .. } | ServeError::Open { .. } | ServeError::Token { .. }
                )
            );
        let reason = format!("{e:#}");
        if is_configuration {
            Failure::Usage(reason)
        } else {
            Failure::Failed(reason)
        }
    }
}

/// Any other error is a failure of the work itself.
fn failed(e: impl std::fmt::Display) -> Failure {
    Failure::Failed(e.to_string())
}

fn main() -> ExitCode {
    reid_edge::memory::share_heaps();
    // clap itself exits with code 2 on bad usage.
    let cli = Cli::parse();
    if !matches!(cli.command, Command::Run { .. } | Command::Harvest { .. }) {
        reid_models::pipe::end_with_reader();
    }
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(reason)) => {
            eprintln!("error: {reason}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(reason)) => {
            eprintln!("error: {reason}");
            ExitCode::from(2)
        }
    }
}

/// The log on standard error, in the form that the configuration wants.
fn log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,ort=warn,tract=warn"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Reads the configuration, and begins the log as it says.
fn load(common: &Common) -> Result<EdgeConfig, Failure> {
    let config = EdgeConfig::load(&common.config)?;
    log(config.log.format);
    Ok(config)
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Replay(args) => {
            log(LogFormat::Text);
            Ok(replay::run(&args)?)
        }
        Command::Search(args) => {
            log(LogFormat::Text);
            Ok(search::run(&args)?)
        }
        Command::Run { common, seconds } => {
            let config = load(&common)?;
            let signals = Signals::listen().map_err(failed)?;
            let seconds = positive("seconds", seconds)?;
            let summary = run::run(&config, seconds, &signals).map_err(|e| match e {
                RunError::Serve(e) => Failure::from(anyhow::Error::from(e)),
                e => failed(e),
            })?;
            if common.json {
                return print_json(&summary);
            }
            eprintln!(
                "{} frames in {:.1} s ({:.1} frames/s), {} replaced for lack of time, {} tracklets, {} identities in the gallery",
                summary.frames,
                summary.seconds,
                summary.fps,
                summary.replaced,
                summary.tracklets,
                summary.identities
            );
            Ok(())
        }
        Command::Bench { common, seconds } => {
            let config = load(&common)?;
            let signals = Signals::listen().map_err(failed)?;
            let seconds = positive("seconds", Some(seconds))?.unwrap_or(30.0);
            let report = bench::bench(&config, seconds, &signals).map_err(failed)?;
            if common.json {
                return print_json(&report);
            }
            print!("{}", bench::for_people(&report));
            Ok(())
        }
        Command::Warm { common } => {
            let config = load(&common)?;
            let report = warm::warm(&warm::configured(&config), &|progress| {
                eprintln!("{progress}");
            });
            if common.json {
                print_json(&report)?;
            } else {
                print!("{report}");
            }
            let bad = report.models.iter().filter(|m| !m.ok).count();
            if bad > 0 {
                return Err(Failure::Failed(format!(
                    "{bad} of {} models are not ready",
                    report.models.len()
                )));
            }
            Ok(())
        }
        Command::Check { common, wait } => {
            log(LogFormat::Text);
            let wait = positive("wait", Some(wait))?.unwrap_or(10.0);
            let report = check::check_file(&common.config, Duration::from_secs_f64(wait))?;
            if common.json {
                print_json(&report)?;
            } else {
                for f in &report.findings {
                    let level = match f.level {
                        Level::Ok => "ok  ",
                        Level::Info => "info",
                        Level::Warn => "WARN",
                        Level::Fail => "FAIL",
                    };
                    println!("{level} {}: {}", f.what, f.detail);
                }
            }
            let bad = report.findings.iter().filter(|f| !f.ok).count();
            if !report.errors.is_empty() {
                Err(ConfigErrors(report.errors).into())
            } else if bad > 0 {
                Err(Failure::Failed(format!(
                    "{bad} of {} are not ready",
                    report.findings.len()
                )))
            } else {
                Ok(())
            }
        }
        Command::Config { common, explain } => {
            if explain {
                if common.json {
                    return print_json(&explain::json());
                }
                print!("{}", explain::text());
                return Ok(());
            }
            let config = EdgeConfig::load(&common.config).inspect_err(|e| {
                if common.json {
                    println!("{}", serde_json::json!({"ok": false, "errors": e}));
                }
            })?;
            if common.json {
                print_json(&serde_json::json!({"ok": true, "cameras": config.camera_names()}))
            } else {
                println!(
                    "{}: {} cameras, no error",
                    common.config.display(),
                    config.cameras.len()
                );
                Ok(())
            }
        }
        Command::Harvest {
            common,
            out,
            seconds,
            every,
            max_per_tracklet,
            min_per_tracklet,
        } => {
            let config = load(&common)?;
            let options = HarvestOptions {
                out,
                seconds: positive("seconds", seconds)?,
                every_secs: positive("every", Some(every))?.unwrap_or(0.4),
                max_per_tracklet,
                min_per_tracklet,
            };
            let signals = Signals::listen().map_err(failed)?;
            let done = harvest::harvest(&config, &options, &signals.stop).map_err(failed)?;
            if common.json {
                print_json(&done)
            } else {
                println!(
                    "{}: {} crops of {} tracklets ({} left out), {:.0} frames/s",
                    options.out.display(),
                    done.crops,
                    done.tracklets,
                    done.left_out,
                    done.fps
                );
                Ok(())
            }
        }
    }
}

fn positive(name: &str, value: Option<f64>) -> Result<Option<f64>, Failure> {
    match value {
        Some(v) if !(v > 0.0 && v < 1e9) => Err(Failure::Usage(format!(
            "--{name} = {v}: must be above 0 seconds"
        ))),
        other => Ok(other),
    }
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    println!("{}", serde_json::to_string(value).map_err(failed)?);
    Ok(())
}
