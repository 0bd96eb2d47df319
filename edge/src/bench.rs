//! `reid-edge bench`: how fast this device is with this very configuration.
//!
//! Recorded cameras are read as fast as they can be analysed, live ones as they come. Nothing is kept and nothing is told:
//! identities stay in memory, no page, no events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock::Clock;
use crate::config::EdgeConfig;
use crate::engine::Purpose;
use crate::ingest::{self, IngestError, LiveCameras};
use crate::latency::{Latencies, Percentiles};
use crate::metrics::Usage;
use crate::pipeline::{Pipeline, PipelineError, Progress, Timings};
use crate::run::Signals;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// What detects and what embeds.
    pub description: String,
    /// Whether cameras are live: then frames per second are bounded by what they send.
    pub live: bool,
    /// Seconds until the models were open.
    pub start_secs: f64,
    /// Frames analysed.
    pub frames: u64,
    /// Crops embedded.
    pub crops: u64,
    /// Frames replaced by newer ones before there was time for them; live cameras only.
    pub replaced: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// Frames per second, all cameras together.
    pub fps: f64,
    /// Milliseconds of work per frame, by stage; stages work side by side.
    pub stages: Stages,
    /// Seconds from a frame's arrival to its result; live cameras only.
    pub latency: Option<Percentiles>,
    /// Largest resident memory of the process, bytes.
    pub peak_memory_bytes: u64,
}

/// Milliseconds per frame.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Stages {
    /// Finding people.
    pub detect_ms: f64,
    /// Following them.
    pub track_ms: f64,
    /// Judging crops.
    pub crop_ms: f64,
    /// Embedding.
    pub embed_ms: f64,
    /// Deciding who is who.
    pub associate_ms: f64,
}

impl Stages {
    fn of(t: &Timings) -> Self {
        let ms = |secs: f64| 1e3 * secs / t.frames.max(1) as f64;
        Stages {
            detect_ms: ms(t.detect_secs),
            track_ms: ms(t.track_secs),
            crop_ms: ms(t.crop_secs),
            embed_ms: ms(t.embed_secs),
            associate_ms: ms(t.associate_secs),
        }
    }
}

/// Analyses for at most `seconds`, or to the end of the recordings.
///
/// # Errors
/// A camera, model or recording that cannot be used.
pub fn bench(
    config: &EdgeConfig,
    seconds: f64,
    signals: &Signals,
) -> Result<BenchReport, PipelineError> {
    let mut config = config.clone();
    config.gallery.path = ":memory:".into();
    let live = config.cameras.iter().any(|c| c.is_live());
    let began = Instant::now();
    let cameras = Arc::new(LiveCameras::new(Clock::system(), Arc::new(|_, _| {})).map_err(failed)?);
    let mut pipeline = if live {
        for (index, camera) in config.cameras.iter().enumerate() {
            cameras.add(index, camera).map_err(failed)?;
        }
        let feed = cameras.clone();
        Pipeline::start(&config, Purpose::Live, || Ok(Box::new(feed)))?
    } else {
        Pipeline::start(&config, Purpose::Replay, || {
            Ok(Box::new(ingest::open_files_in_step(&config)?))
        })?
    };
    let start_secs = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let (mut timings, mut latencies) = (Timings::default(), Latencies::default());
    while began.elapsed().as_secs_f64() < seconds && !signals.stopping() {
        match pipeline.next(Duration::from_millis(200))? {
            Progress::Step(output) => {
                timings.add(&output.timings);
                for analysed in &output.frames {
                    latencies.add(analysed.frame.arrived.elapsed().as_secs_f64());
                }
                if let Some(failure) = output.failure {
                    return Err(failure);
                }
            }
            Progress::Nothing => {}
            Progress::Over => break,
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let replaced = cameras.total().replaced;
    cameras.close();
    Ok(BenchReport {
        description: pipeline.description().to_owned(),
        live,
        start_secs,
        frames: timings.frames,
        crops: timings.crops,
        replaced,
        seconds,
        fps: timings.frames as f64 / seconds.max(1e-9),
        stages: Stages::of(&timings),
        latency: latencies.percentiles().filter(|_| live),
        peak_memory_bytes: Usage::peak_bytes(),
    })
}

fn failed(error: IngestError) -> PipelineError {
    PipelineError::Engine(error.into())
}

/// As a table.
pub fn for_people(report: &BenchReport) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    let s = &report.stages;
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}", report.description);
    let _ = writeln!(
        out,
        "{} frames in {:.1} s: {:.1} frames/s, {} crops; models open after {:.1} s; peak memory {} MiB",
        report.frames,
        report.seconds,
        report.fps,
        report.crops,
        report.start_secs,
        report.peak_memory_bytes >> 20
    );
    for (stage, ms) in [
        ("detect", s.detect_ms),
        ("track", s.track_ms),
        ("crop", s.crop_ms),
        ("embed", s.embed_ms),
        ("associate", s.associate_ms),
    ] {
        let _ = writeln!(out, "  {stage:<10} {ms:>8.2} ms of work per frame");
    }
    if let Some(l) = &report.latency {
        let _ = writeln!(
            out,
            "frame to result: p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms; {} frames replaced for lack of time",
            1e3 * l.p50,
            1e3 * l.p95,
            1e3 * l.p99,
            report.replaced
        );
    }
    out
}
