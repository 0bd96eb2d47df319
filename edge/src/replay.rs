//! `reid-edge replay`: recorded files through the whole pipeline, scored against truth.
//!
//! Every frame of every camera, in order of time, the same on every run. Identities are kept in memory unless asked
//! otherwise, so that a second replay does not meet the people of the first.

mod report;
mod tell;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use reid_models::files;

use crate::config::EdgeConfig;
use crate::engine::{Feed, Purpose, Taken};
use crate::events::EventSink;
use crate::ingest::{self, IngestError, StepFrames};
use crate::pipeline::{AnalysedFrame, Pipeline, Progress, StepOutput, Timings};
use crate::score::{self, Row};
use crate::serve::{self, FrameView, Hub, ServerHandle, paint, short};
use crate::types::{CameraIndex, Decision, IdentityId, Ltrb, TrackletId};

use report::for_people;
pub use report::{AllScores, BetweenCameras, CameraReport, PairReport, ReplayReport};
use tell::publish;

/// Command line of `replay`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReplayArgs {
    /// Configuration whose cameras are files.
    #[arg(long, default_value = "edge.toml")]
    pub config: PathBuf,
    /// Folder with the truth: CAMERA.txt or CAMERA/gt/gt.txt (MOTChallenge), or ground_truth.txt (AI City); ids are
    /// shared by all cameras.
    #[arg(long, value_name = "DIR")]
    pub gt: Option<PathBuf>,
    /// Folder that results are written to, CAMERA.txt in MOTChallenge format.
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,
    /// In results and scores the ids are tracklets instead of identities: what the tracker alone does.
    #[arg(long)]
    pub tracklets: bool,
    /// Folder that frames with boxes are written to, CAMERA/000001.jpg.
    #[arg(long, value_name = "DIR")]
    pub overlay: Option<PathBuf>,
    /// Every how many frames one is written by --overlay.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub overlay_every: u64,
    /// Play at recorded speed instead of as fast as possible.
    #[arg(long)]
    pub real_time: bool,
    /// Show the live page of `[serve]`.
    #[arg(long)]
    pub serve: bool,
    /// After the end, keep the page until interrupted.
    #[arg(long, requires = "serve")]
    pub stay: bool,
    /// Keep identities in the configured gallery, and meet those that are there.
    #[arg(long)]
    pub keep_gallery: bool,
    /// One JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// One box of one frame, before it is known whose it is.
struct Seen {
    camera: CameraIndex,
    frame: u64,
    tracklet: TrackletId,
    ltrb: Ltrb,
    confidence: f32,
}

/// What happened so far.
#[derive(Default)]
struct Record {
    boxes: Vec<Seen>,
    analysed: Vec<BTreeSet<u64>>,
    decisions: BTreeMap<TrackletId, (CameraIndex, Decision)>,
    last_box: HashMap<TrackletId, Ltrb>,
    now: f64,
    /// Whether ids are those of tracklets.
    tracklets: bool,
    timings: Timings,
}

/// Runs the command and prints its report.
///
/// # Errors
/// As [`replay`], or results that cannot be written.
pub fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let config = EdgeConfig::load(&args.config)?;
    let (report, page) = play(&config, args)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", for_people(&report));
    }
    if args.stay && page.is_some() {
        eprintln!("the recording has ended; the page stays until Ctrl-C");
        loop {
            std::thread::sleep(Duration::from_secs(3_600));
        }
    }
    Ok(())
}

/// Drives the pipeline over the configured files.
///
/// # Errors
/// A configuration, file, model, gallery, truth or output that cannot be used; each names itself.
pub fn replay(config: &EdgeConfig, args: &ReplayArgs) -> anyhow::Result<ReplayReport> {
    Ok(play(config, args)?.0)
}

/// The page, if there is one, lives as long as its handle.
fn play(
    config: &EdgeConfig,
    args: &ReplayArgs,
) -> anyhow::Result<(ReplayReport, Option<ServerHandle>)> {
    let names = config.camera_names();
    // What is missing is better known before an hour of replay than after it.
    let truth = args
        .gt
        .as_ref()
        .map(|dir| score::read_truth_folder(dir, &names).context("--gt"))
        .transpose()?;
    for dir in [&args.results, &args.overlay].into_iter().flatten() {
        files::create_dir(dir)?;
    }
    let mut config = config.clone();
    if !args.keep_gallery {
        config.gallery.path = ":memory:".into();
    }
    let mut sink = match &config.events.file {
        Some(_) => Some(EventSink::open(&config.events, &config.base)?),
        None => None,
    };
    let hub = Hub::new(names.clone());
    let page = if args.serve {
        let handle = serve::spawn(&config.serve, &config.base, hub.clone(), None)
            .with_context(|| args.config.display().to_string())?;
        eprintln!("live page: http://{}/", handle.addr());
        Some(handle)
    } else {
        None
    };
    let warnings: Warnings = Arc::default();
    let mut pipeline = Pipeline::start(&config, Purpose::Replay, || {
        let steps = ingest::open_files_in_step(&config)?;
        Ok(Box::new(Recorded {
            steps: if args.real_time {
                steps.real_time()
            } else {
                steps
            },
            warnings: warnings.clone(),
        }))
    })?;
    hub.fact("pipeline", pipeline.description());

    let mut record = Record {
        analysed: vec![BTreeSet::new(); names.len()],
        tracklets: args.tracklets,
        ..Record::default()
    };
    let mut rates: Vec<Rate> = names.iter().map(|_| Rate::default()).collect();
    let tell = !args.json || std::io::stderr().is_terminal();
    let mut publish_now = |output: &StepOutput, pipeline: &Pipeline, record: &Record| {
        let sink = sink.as_mut();
        publish(
            output, pipeline, &names, record, &hub, sink, tell, args.json,
        )
    };
    let began = Instant::now();
    loop {
        let output = match pipeline.next(Duration::from_secs(1))? {
            Progress::Step(output) => output,
            Progress::Nothing => continue,
            Progress::Over => break,
        };
        if let Some(failure) = output.failure {
            return Err(failure.into());
        }
        for frame in &output.frames {
            record.frame(frame);
            if let Some(dir) = &args.overlay
                && frame.frame.number % args.overlay_every == 0
            {
                write_overlay(dir, &names, frame, &pipeline, &hub)?;
            }
            if page.is_some() {
                let fps = rates[frame.frame.camera].tick();
                hub.frame(view(frame, &pipeline, fps));
            }
        }
        record.output(&output);
        publish_now(&output, &pipeline, &record)?;
    }
    let output = pipeline.finish()?;
    record.output(&output);
    publish_now(&output, &pipeline, &record)?;
    let seconds = began.elapsed().as_secs_f64();
    for (camera, warning) in &*warnings.lock().unwrap_or_else(|e| e.into_inner()) {
        eprintln!("warning: camera {camera}: {warning}");
    }
    for camera in 0..names.len() {
        let _ = hub.camera_state(camera, "ended", "end of the recording");
    }

    let results = record.results(names.len());
    if let Some(dir) = &args.results {
        for (name, rows) in names.iter().zip(&results) {
            score::write_results(&dir.join(format!("{name}.txt")), rows)?;
        }
    }
    let report = record.report(&config, &results, truth, seconds, &pipeline);
    Ok((report, page))
}

/// (camera, what was wrong) of recordings that could be read all the same.
type Warnings = Arc<Mutex<Vec<(String, String)>>>;

/// Recordings, and at their end what was wrong with them.
struct Recorded {
    steps: StepFrames,
    warnings: Warnings,
}

impl Feed for Recorded {
    fn take(&mut self, most: usize, timeout: Duration) -> Result<Taken, IngestError> {
        let taken = Feed::take(&mut self.steps, most, timeout);
        if matches!(taken, Ok(Taken::Over)) {
            *self.warnings.lock().unwrap_or_else(|e| e.into_inner()) = self.steps.warnings();
        }
        taken
    }
}

impl Record {
    fn frame(&mut self, analysed: &AnalysedFrame) {
        let frame = &analysed.frame;
        self.now = self.now.max(frame.time);
        self.analysed[frame.camera].insert(frame.number);
        for b in &analysed.boxes {
            self.last_box.insert(b.tracklet, b.ltrb);
            self.decisions
                .entry(b.tracklet)
                .or_insert((frame.camera, Decision::Pending));
            self.boxes.push(Seen {
                camera: frame.camera,
                frame: frame.number,
                tracklet: b.tracklet,
                ltrb: b.ltrb,
                confidence: b.score,
            });
        }
    }

    fn output(&mut self, output: &StepOutput) {
        self.timings.add(&output.timings);
        for a in &output.assignments {
            self.decisions.insert(a.tracklet, (a.camera, a.decision));
        }
    }

    /// Rows per camera under the final identities: whole numbers from 1 in order of appearance. A tracklet without an
    /// identity has a number of its own.
    fn results(&self, cameras: usize) -> Vec<Vec<Row>> {
        let mut numbers: HashMap<Result<IdentityId, TrackletId>, i64> = HashMap::new();
        let mut rows = vec![Vec::new(); cameras];
        for seen in &self.boxes {
            let identity = self
                .decisions
                .get(&seen.tracklet)
                .and_then(|(_, d)| d.identity())
                .filter(|_| !self.tracklets);
            let next = numbers.len() as i64 + 1;
            let id = *numbers.entry(identity.ok_or(seen.tracklet)).or_insert(next);
            rows[seen.camera].push(Row {
                frame: seen.frame,
                id,
                left: f64::from(seen.ltrb.left),
                top: f64::from(seen.ltrb.top),
                width: f64::from(seen.ltrb.width()),
                height: f64::from(seen.ltrb.height()),
                confidence: f64::from(seen.confidence),
            });
        }
        rows
    }

    fn report(
        &self,
        config: &EdgeConfig,
        results: &[Vec<Row>],
        truth: Option<Vec<Vec<Row>>>,
        seconds: f64,
        pipeline: &Pipeline,
    ) -> ReplayReport {
        let truth = truth.map(|mut all| {
            for (camera, rows) in all.iter_mut().enumerate() {
                // A camera told to analyse fewer frames is not asked about those it was told to skip.
                if config.cameras[camera].fps.is_some() {
                    rows.retain(|r| self.analysed[camera].contains(&r.frame));
                }
            }
            all
        });
        let site = truth.as_ref().map(|truth| {
            let rows: Vec<(&[Row], &[Row])> = truth
                .iter()
                .zip(results)
                .map(|(t, r)| (t.as_slice(), r.as_slice()))
                .collect();
            score::score_site(&rows)
        });
        let cameras = config
            .camera_names()
            .into_iter()
            .enumerate()
            .map(|(i, name)| {
                let scores = site.as_ref().map(|s| s.cameras[i].into());
                let frames = self.analysed[i].len() as u64;
                (name, CameraReport { scores, frames })
            })
            .collect();
        let mut places: HashMap<IdentityId, BTreeSet<CameraIndex>> = HashMap::new();
        for (camera, decision) in self.decisions.values() {
            if let Some(identity) = decision.identity() {
                places.entry(identity).or_default().insert(*camera);
            }
        }
        let frames: u64 = self.analysed.iter().map(|a| a.len() as u64).sum();
        ReplayReport {
            scores: site.as_ref().map(|s| s.all.into()),
            between: site
                .as_ref()
                .map(|s| BetweenCameras::new(s, &config.camera_names())),
            frames,
            fps: frames as f64 / seconds.max(1e-9),
            seconds,
            identities: places.len(),
            across_cameras: places.values().filter(|p| p.len() > 1).count(),
            tracklets: self.decisions.len(),
            cameras,
            bars: pipeline.associator().bars(),
            evidence: pipeline.associator().evidence(),
            timings: self.timings,
            description: pipeline.description().to_owned(),
        }
    }
}

fn view(analysed: &AnalysedFrame, pipeline: &Pipeline, fps: f32) -> FrameView {
    FrameView {
        camera: analysed.frame.camera,
        time: analysed.frame.time,
        picture: analysed.frame.picture.clone(),
        boxes: analysed
            .boxes
            .iter()
            .map(|b| (b.ltrb, b.tracklet, pipeline.decision(b.tracklet)))
            .collect(),
        fps,
    }
}

fn write_overlay(
    dir: &Path,
    names: &[String],
    analysed: &AnalysedFrame,
    pipeline: &Pipeline,
    hub: &Hub,
) -> anyhow::Result<()> {
    let mut picture = analysed.frame.picture.to_rgb();
    for b in &analysed.boxes {
        let identity = pipeline.decision(b.tracklet).identity();
        let colour = identity
            .and_then(|id| hub.hue(id))
            .map_or(paint::NOBODY, paint::colour);
        let label = identity.map_or_else(|| "?".to_owned(), short);
        paint::draw_box(&mut picture, &b.ltrb, &label, colour);
    }
    let folder = dir.join(&names[analysed.frame.camera]);
    files::create_dir(&folder)?;
    let file = folder.join(format!("{:06}.jpg", analysed.frame.number));
    Ok(files::write_atomic(&file, &paint::jpeg(&picture)?)?)
}

/// Frames per second over the last two seconds.
#[derive(Default)]
struct Rate {
    ticks: VecDeque<Instant>,
}

impl Rate {
    fn tick(&mut self) -> f32 {
        let now = Instant::now();
        self.ticks.push_back(now);
        while self
            .ticks
            .front()
            .is_some_and(|t| now - *t > Duration::from_secs(2))
        {
            self.ticks.pop_front();
        }
        let span = self.ticks.front().map_or(0.0, |t| (now - *t).as_secs_f32());
        if span > 0.0 {
            (self.ticks.len() - 1) as f32 / span
        } else {
            0.0
        }
    }
}
