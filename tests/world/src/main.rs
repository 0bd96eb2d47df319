//! `reid-world`: makes simulated data.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use reid_world::crops::{self, CropsConfig, Labels};
use reid_world::tracklets::{self, TrackletsConfig};
use reid_world::videos::{self, VideosConfig};
use reid_world::{Domain, Usage, WORLD_VERSION, market, output, sheet, usage};
use serde_json::json;

#[derive(Parser)]
#[command(
    name = "reid-world",
    version,
    about = "A simulated multi-camera world of pedestrians with ground truth"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a data set of crops in Market-1501 layout, with keypoints
    Crops(CropsArgs),
    /// Make a data set of tracklets in the layout of MARS
    Tracklets(TrackletsArgs),
    /// Make one H.264 file per camera, MOTChallenge truth and a configuration for reid-edge
    Videos(VideosArgs),
    /// Evaluate the colour histogram baseline on a data set in Market-1501 layout
    Baseline {
        /// Folder with query/ and bounding_box_test/
        #[arg(long)]
        data: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write the 16 probe crops as probe_00.png .. probe_15.png
    Probe {
        /// Folder to write into
        #[arg(long)]
        out: PathBuf,
    },
    /// Write a contact sheet: rows are identities, columns are cameras
    Sheet {
        /// PNG file to write
        #[arg(long)]
        out: PathBuf,
        /// Identities
        #[arg(long, default_value_t = 10)]
        ids: usize,
        /// Cameras
        #[arg(long, default_value_t = 6)]
        cameras: usize,
        /// Width x height of a crop
        #[arg(long, default_value = "64x128")]
        size: String,
        /// Seed of the world
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// street, mall or station
        #[arg(long, default_value = "street")]
        domain: String,
    },
}

#[derive(Args)]
struct CropsArgs {
    /// Folder to make
    #[arg(long)]
    out: PathBuf,
    /// bench or bench-large
    #[arg(long, default_value = "bench")]
    preset: String,
    /// Identities in all; half train, half test
    #[arg(long)]
    ids: Option<usize>,
    /// Cameras, 2 to 9
    #[arg(long)]
    cameras: Option<usize>,
    /// Mean number of pictures of an identity in a camera that sees it
    #[arg(long)]
    per_camera: Option<usize>,
    /// Most cameras that see an identity, 2 to 9 (the fewest are two)
    #[arg(long)]
    seen_by: Option<usize>,
    /// Width x height of a crop
    #[arg(long)]
    size: Option<String>,
    /// Seed of the world
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// street, mall or station
    #[arg(long, default_value = "street")]
    domain: String,
    /// identities, or attributes: files are named by the colours of clothes, which many people share
    #[arg(long, default_value = "identities")]
    labels: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TrackletsArgs {
    /// Folder to make
    #[arg(long)]
    out: PathBuf,
    /// Identities in all; half train, half test
    #[arg(long)]
    ids: Option<usize>,
    /// Cameras, 2 to 9
    #[arg(long)]
    cameras: Option<usize>,
    /// Most frames of a tracklet
    #[arg(long)]
    frames: Option<usize>,
    /// Width x height of a crop
    #[arg(long)]
    size: Option<String>,
    /// Seed of the world
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// street, mall or station
    #[arg(long, default_value = "street")]
    domain: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct VideosArgs {
    /// Folder to make
    #[arg(long)]
    out: PathBuf,
    /// sparse, crowded or twins
    #[arg(long, default_value = "sparse")]
    preset: String,
    /// Identities
    #[arg(long)]
    ids: Option<usize>,
    /// Cameras, 1 to 9
    #[arg(long)]
    cameras: Option<usize>,
    /// Length in seconds
    #[arg(long)]
    seconds: Option<usize>,
    /// Frames a second
    #[arg(long)]
    fps: Option<usize>,
    /// Width x height of a frame
    #[arg(long)]
    size: Option<String>,
    /// Seed of the world
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// street, mall or station
    #[arg(long, default_value = "street")]
    domain: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn parse_size(text: &str) -> Result<(usize, usize)> {
    text.split_once('x')
        .and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)))
        .ok_or_else(|| usage("--size", text, "WIDTHxHEIGHT in pixels, as 64x128"))
}

fn progress(total: usize, unit: &str, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(&format!(
        "{{bar:40}} {{pos}}/{{len}} {unit} {{per_sec}} {{eta}}"
    ))
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total as u64).with_style(style)
}

fn make_crops(args: &CropsArgs) -> Result<()> {
    let domain = Domain::parse(&args.domain)?;
    let mut config = CropsConfig::preset(&args.preset, domain, args.seed)?;
    config.ids = args.ids.unwrap_or(config.ids);
    config.cameras = args.cameras.unwrap_or(config.cameras);
    config.per_camera = args.per_camera.unwrap_or(config.per_camera);
    config.seen_by = args.seen_by.unwrap_or(config.seen_by);
    config.labels = Labels::parse(&args.labels)?;
    if let Some(size) = &args.size {
        config.size = parse_size(size)?;
    }
    config.check()?;
    let total = crops::Plan::new(&config).jobs.len();
    let bar = progress(total, "crops", args.json);
    let start = std::time::Instant::now();
    let report = crops::make(&config, &args.out, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        let object = json!({
            "out": args.out, "version": WORLD_VERSION, "seed": args.seed, "domain": domain, "preset": args.preset,
            "train": report.train, "query": report.query, "gallery": report.gallery,
            "distractors": report.distractors, "junk": report.junk, "twins": report.twins,
            "seconds": seconds, "crops_per_second": total as f64 / seconds,
        });
        say(&object.to_string())?;
    } else {
        say(&format!(
            "{}: {} train, {} query, {} gallery ({} distractors, {} junk) in {seconds:.1} s, {:.0} crops/s",
            args.out.display(),
            report.train,
            report.query,
            report.gallery,
            report.distractors,
            report.junk,
            total as f64 / seconds
        ))?;
    }
    Ok(())
}

fn make_tracklets(args: &TrackletsArgs) -> Result<()> {
    let mut config = TrackletsConfig::new(Domain::parse(&args.domain)?, args.seed);
    config.ids = args.ids.unwrap_or(config.ids);
    config.cameras = args.cameras.unwrap_or(config.cameras);
    config.frames = args.frames.unwrap_or(config.frames);
    if let Some(size) = &args.size {
        config.size = parse_size(size)?;
    }
    config.check()?;
    let planned = tracklets::plan(&config);
    let total = planned.iter().flatten().map(|t| t.frames).sum();
    let bar = progress(total, "pictures", args.json);
    let report = tracklets::make(&config, &args.out, &|| bar.inc(1))?;
    bar.finish_and_clear();
    if args.json {
        let object = json!({
            "out": args.out, "version": WORLD_VERSION, "seed": args.seed, "domain": config.domain, "train": report.train,
            "query": report.query, "gallery": report.gallery, "pictures": report.pictures,
        });
        say(&object.to_string())?;
    } else {
        say(&format!(
            "{}: {} train, {} query, {} gallery tracklets, {} pictures",
            args.out.display(),
            report.train,
            report.query,
            report.gallery,
            report.pictures
        ))?;
    }
    Ok(())
}

fn make_videos(args: &VideosArgs) -> Result<()> {
    let domain = Domain::parse(&args.domain)?;
    let mut config = VideosConfig::preset(&args.preset, domain, args.seed)?;
    config.ids = args.ids.unwrap_or(config.ids);
    config.cameras = args.cameras.unwrap_or(config.cameras);
    config.seconds = args.seconds.unwrap_or(config.seconds);
    config.fps = args.fps.unwrap_or(config.fps);
    if let Some(size) = &args.size {
        config.size = parse_size(size)?;
    }
    config.check()?;
    let total = config.frames() * config.cameras;
    let bar = progress(total, "frames", args.json);
    let start = std::time::Instant::now();
    let report = videos::make(&config, &args.out, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        let object = json!({
            "out": args.out, "version": WORLD_VERSION, "seed": args.seed, "domain": domain, "preset": args.preset,
            "cameras": report.cameras, "frames": report.frames, "boxes": report.boxes,
            "crossing_ids": report.crossing_ids, "seconds": seconds, "frames_per_second": total as f64 / seconds,
        });
        say(&object.to_string())?;
    } else {
        say(&format!(
            "{}: {} cameras x {} frames, {} people, {} of them in two cameras or more, {} boxes in {seconds:.1} s",
            args.out.display(),
            report.cameras.len(),
            report.frames,
            config.ids,
            report.crossing_ids,
            report.boxes
        ))?;
    }
    Ok(())
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Tracklets(args) => make_tracklets(&args),
        Command::Crops(args) => make_crops(&args),
        Command::Videos(args) => make_videos(&args),
        Command::Baseline { data, json } => {
            let scores = market::baseline(&data)?;
            if json {
                say(&serde_json::to_string(&scores)?)?;
            } else {
                say(&format!(
                    "colour histogram: rank-1 {:.3}, rank-5 {:.3}, mAP {:.3}, {} queries",
                    scores.rank1, scores.rank5, scores.map, scores.queries
                ))?;
            }
            Ok(())
        }
        Command::Probe { out } => {
            std::fs::create_dir_all(&out)
                .with_context(|| format!("--out {}: cannot be created", out.display()))?;
            for (i, image) in sheet::probe_crops().iter().enumerate() {
                output::write_atomic(&out.join(format!("probe_{i:02}.png")), &sheet::png(image)?)?;
            }
            Ok(())
        }
        Command::Sheet {
            out,
            ids,
            cameras,
            size,
            seed,
            domain,
        } => {
            let image = sheet::contact_sheet(
                Domain::parse(&domain)?,
                seed,
                ids.clamp(1, 200),
                cameras.clamp(1, 20),
                parse_size(&size)?,
            );
            output::write_atomic(&out, &sheet::png(&image)?)
        }
    }
}

/// Writes a line to standard output. A reader that has gone is no error: the files are there.
fn say(line: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).context("standard output"),
        _ => Ok(()),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reid-world: {error:#}");
            ExitCode::from(if error.downcast_ref::<Usage>().is_some() {
                2
            } else {
                1
            })
        }
    }
}
