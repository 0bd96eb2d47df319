//! `reid-export`: trained networks as verified ONNX files.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use reid_export::adopt::{self, AdoptOptions, Task};
use reid_export::verify::{self, Verification};
use reid_export::write::{self, Batch, ExportOptions, Precision};
use reid_export::{inspect, onnx};
use reid_models::card::{Channels, Decode, Fit, Layout, Range};
use reid_models::probe::MIN_COSINE_FP32;
use reid_models::runtime::{Backend, RuntimeConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes trained person re-identification networks as verified ONNX files.
#[derive(Parser)]
#[command(name = "reid-export", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON object for machines.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Write a training run's network as ONNX; the file is kept only if it gives the trainer's embeddings.
    Onnx {
        /// Folder that `reid-train fit --out` wrote.
        #[arg(long)]
        run: PathBuf,
        /// File to write.
        #[arg(long)]
        out: PathBuf,
        /// Number format of weights and arithmetic: fp32.
        #[arg(long, default_value = "fp32", value_parser = Precision::from_str)]
        precision: Precision,
        /// Pictures at a time: `dynamic`, or a number.
        #[arg(long, default_value = "dynamic", value_parser = Batch::from_str)]
        batch: Batch,
        /// ONNX operator set.
        #[arg(long, default_value_t = *onnx::OPSETS.start(), value_parser = clap::value_parser!(i64).range(onnx::OPSETS))]
        opset: i64,
    },
    /// Compare a file's embeddings of the 16 probe crops with the trainer's.
    Verify {
        /// Model.
        file: PathBuf,
        /// Engine; without it, all that this machine has.
        #[arg(long)]
        backend: Option<Engine>,
    },
    /// Show what a file says about itself.
    Inspect {
        /// Model.
        file: PathBuf,
    },
    /// Write the card of a file made by others, FILE.onnx.card.json.
    Adopt(Box<Adopt>),
}

#[derive(clap::Args)]
struct Adopt {
    /// Model.
    file: PathBuf,
    /// What it is for.
    #[arg(long, value_enum)]
    task: TaskName,
    /// Axis order of the input: nchw or nhwc [default: from the file].
    #[arg(long, value_parser = named::<Layout>)]
    layout: Option<Layout>,
    /// Channel order: rgb or bgr [default: that of the model's family].
    #[arg(long, value_parser = named::<Channels>)]
    channels: Option<Channels>,
    /// Range of a pixel: 0..1 or 0..255 [default: that of the model's family].
    #[arg(long, value_parser = named::<Range>)]
    range: Option<Range>,
    /// Mean per channel as A,B,C in units of the range, in the model's channel order.
    #[arg(long, value_parser = triple, allow_hyphen_values = true)]
    mean: Option<[f32; 3]>,
    /// Standard deviation per channel as A,B,C, likewise.
    #[arg(long, value_parser = triple)]
    std: Option<[f32; 3]>,
    /// Fit of a picture: stretch, top-left:GREY or centre:GREY (letterbox with a grey of 0 to 255).
    #[arg(long, value_parser = fit)]
    fit: Option<Fit>,
    /// Output convention. Detectors: yolox, yolox_decoded, yolov5, yolov8, end_to_end, nanodet, ssd, torchvision,
    /// tensorflow, mmdet; poses: movenet, simcc. The wrong one is refused, with the name of one that fits.
    #[arg(long, value_parser = named::<Decode>)]
    decode: Option<Decode>,
    /// Class that means a person, as the file counts them (many SSD models count the background as 0).
    #[arg(long, default_value_t = 0)]
    person_class: usize,
    /// Output tensor [default: the first].
    #[arg(long)]
    tensor: Option<String>,
    /// Input size as WxH, for a file that leaves it open.
    #[arg(long, value_parser = size)]
    size: Option<(usize, usize)>,
    /// Write the network anew for pictures of this shape, WxH in multiples of 32, as FILE-WxH.onnx; refused if it does not
    /// run at it. A detector for squares spends 44 % of its work on the padding of a 16:9 picture: 416x256 instead of
    /// 416x416 shows it the same picture at 62 % of the work.
    #[arg(long, value_parser = size, conflicts_with = "size")]
    resize: Option<(usize, usize)>,
    /// Name of the model [default: the file's].
    #[arg(long)]
    name: Option<String>,
    /// Licence of the weights, as an SPDX expression.
    #[arg(long)]
    license: Option<String>,
    /// Engine to try the model with: tract or onnxruntime [default: onnxruntime if its library is found].
    #[arg(long)]
    backend: Option<Engine>,
}

#[derive(Clone, Copy, ValueEnum)]
enum TaskName {
    Embed,
    Detect,
    Pose,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    Tract,
    #[value(name = "onnxruntime")]
    OnnxRuntime,
}

impl From<Engine> for Backend {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Tract => Backend::Tract,
            Engine::OnnxRuntime => Backend::OnnxRuntime,
        }
    }
}

/// A value by the name it has in the card; the error lists the names.
fn named<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.into())).map_err(|e| e.to_string())
}

fn triple(text: &str) -> Result<[f32; 3], String> {
    let numbers: Result<Vec<f32>, _> = text.split(',').map(|n| n.trim().parse()).collect();
    numbers
        .ok()
        .and_then(|n| n.try_into().ok())
        .ok_or_else(|| "must be three numbers as A,B,C".into())
}

fn size(text: &str) -> Result<(usize, usize), String> {
    text.split_once('x')
        .and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)))
        .ok_or_else(|| "must be WxH in pixels, such as 128x256".into())
}

fn fit(text: &str) -> Result<Fit, String> {
    let wrong =
        || "must be stretch, top-left:GREY or centre:GREY with a grey of 0 to 255".to_string();
    let grey = |text: &str| text.parse().map_err(|_| wrong());
    match text.split_once(':') {
        None if text == "stretch" => Ok(Fit::Stretch),
        Some(("top-left", value)) => Ok(Fit::LetterboxTopLeft(grey(value)?)),
        Some(("centre", value)) => Ok(Fit::LetterboxCentre(grey(value)?)),
        _ => Err(wrong()),
    }
}

/// The contract of `verify --json`: the worst engine's numbers on top, all of them below.
#[derive(Serialize)]
struct VerifyAnswer<'a> {
    min_cosine: f32,
    max_abs: f32,
    backend: Backend,
    #[serde(flatten)]
    all: &'a Verification,
}

fn main() -> ExitCode {
    reid_models::pipe::end_with_reader();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .init();
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

/// Whether the command's verdict is good; an error is a command that could not do its work.
fn run(arguments: &Arguments) -> Result<bool> {
    let json = arguments.json;
    match &arguments.command {
        Command::Onnx {
            run,
            out,
            precision,
            batch,
            opset,
        } => {
            let options = ExportOptions {
                batch: *batch,
                opset: *opset,
                precision: *precision,
            };
            let exported = write::export(run, out, &options)?;
            if json {
                print_json(&exported)?;
            } else {
                println!(
                    "{}: {} nodes, opset {}, {} bytes, embedding width {}",
                    out.display(),
                    exported.nodes,
                    exported.opset,
                    exported.bytes,
                    exported.width
                );
                print_verification(&exported.verification);
            }
            Ok(true)
        }
        Command::Verify { file, backend } => {
            let verification = verify::verify(file, backend.map(Backend::from))?;
            let worst = verification.worst();
            let passed = worst.passed();
            if json {
                print_json(&VerifyAnswer {
                    min_cosine: worst.min_cosine,
                    max_abs: worst.max_abs,
                    backend: worst.backend,
                    all: &verification,
                })?;
            } else {
                print_verification(&verification);
            }
            if !passed {
                eprintln!(
                    "error: {}: worst cosine {} is below {MIN_COSINE_FP32}: this file is not the model that was trained",
                    file.display(),
                    worst.min_cosine
                );
            }
            Ok(passed)
        }
        Command::Inspect { file } => {
            let inspection = inspect::inspect(file)?;
            if json {
                print_json(&inspection)?;
            } else {
                println!("{inspection}");
            }
            Ok(true)
        }
        Command::Adopt(options) => {
            let adopted = adopt::adopt(&options.file, &options.options())?;
            if json {
                print_json(&adopted)?;
            } else {
                println!("{}", adopted.card_file.display());
                println!("{}", adopted.card.to_json());
                if let Some(engine) = &adopted.tried_with {
                    println!("ran one grey picture with {engine}");
                }
            }
            if let Some(warning) = &adopted.warning {
                eprintln!(
                    "warning: the card is written, but the model could not be run here: {warning}"
                );
            }
            Ok(true)
        }
    }
}

impl Adopt {
    fn options(&self) -> AdoptOptions {
        let task = match self.task {
            TaskName::Embed => Task::Embed,
            TaskName::Detect => Task::Detect,
            TaskName::Pose => Task::Pose,
        };
        AdoptOptions {
            layout: self.layout,
            channels: self.channels,
            range: self.range,
            mean: self.mean,
            std: self.std,
            fit: self.fit,
            filter: None,
            size: self.size,
            resize: self.resize,
            decode: self.decode,
            person_class: self.person_class,
            tensor: self.tensor.clone(),
            name: self.name.clone(),
            license: self.license.clone(),
            runtime: RuntimeConfig {
                backend: self.backend.map_or(Backend::Auto, Backend::from),
                ..RuntimeConfig::default()
            },
            ..AdoptOptions::new(task)
        }
    }
}

fn print_json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

fn print_verification(verification: &Verification) {
    for v in &verification.backends {
        println!(
            "{:<11} worst cosine {:.7}, largest difference {:.2e}  ({})",
            v.backend.to_string(),
            v.min_cosine,
            v.max_abs,
            v.engine
        );
    }
    for reason in &verification.skipped {
        println!("skipped     {reason}");
    }
}
