//! Measurements that need a process of their own: `reid-bench measure-edge ...`, one line of JSON each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use gstreamer as gst;
use gstreamer::prelude::*;
use reid_edge::config::{EdgeConfig, TrackerConfig};
use reid_edge::engine::{Engine, Next, Purpose};
use reid_edge::ingest;
use reid_edge::track::{Tracker, TrackletIds};
use reid_edge::types::{Detection, Ltrb};
use reid_models::runtime::{self, RuntimeConfig};
use serde_json::{Value, json};

use super::child::{own_cpu_seconds, thread_cpu_seconds};
use super::server;

/// One measurement.
#[derive(Clone, Debug, Subcommand)]
pub enum EdgeWork {
    /// Decode a file and throw the frames away
    Decode {
        /// Video.
        video: PathBuf,
    },
    /// Read the cameras of a configuration to the end as replay does, without looking at the frames
    Ingest {
        /// Configuration whose cameras are files.
        config: PathBuf,
    },
    /// Run models on ready-made tensors, in `lanes` threads that have a session of each, with one thread
    Models {
        /// Detector.
        detector: PathBuf,
        /// Embedder.
        embedder: PathBuf,
        /// Runs of the detector in all.
        detections: usize,
        /// Runs of the embedder in all.
        crops: usize,
        /// Threads.
        lanes: usize,
    },
    /// Write what the configured detector finds in every frame, CAMERA.txt in MOTChallenge format
    Detections {
        /// Configuration whose cameras are files.
        config: PathBuf,
        /// Folder to write.
        out: PathBuf,
    },
    /// Follow recorded detections
    Track {
        /// Detections in MOTChallenge format.
        detections: PathBuf,
        /// Frames of the video.
        frames: u64,
        /// Frames per second of the video.
        fps: f64,
        /// Width of a frame.
        width: usize,
        /// Height of a frame.
        height: usize,
        /// Results to write, in MOTChallenge format.
        results: PathBuf,
    },
    /// Send a recording over RTSP, again and again, until killed
    Serve {
        /// Recording made by the bench.
        video: PathBuf,
        /// Cameras, /cam0, /cam1, ...
        cameras: usize,
        /// File for the time at which each frame left.
        log: PathBuf,
    },
}

impl EdgeWork {
    /// Does it and says what was measured.
    ///
    /// # Errors
    /// If a file can't be used or a stage fails.
    pub fn run(&self) -> Result<Value> {
        match self {
            EdgeWork::Decode { video } => decode(video),
            EdgeWork::Ingest { config } => read(config),
            EdgeWork::Models {
                detector,
                embedder,
                detections,
                crops,
                lanes,
            } => models(detector, embedder, *detections, *crops, *lanes),
            EdgeWork::Detections { config, out } => detect(config, out),
            EdgeWork::Track {
                detections,
                frames,
                fps,
                width,
                height,
                results,
            } => track(detections, *frames, *fps, (*width, *height), results),
            EdgeWork::Serve {
                video,
                cameras,
                log,
            } => server::serve(video, *cameras, log),
        }
    }
}

/// What decoding costs whoever decodes: the bare decoder, with as many threads as it likes.
fn decode(video: &Path) -> Result<Value> {
    gst::init()?;
    let text = format!(
        "filesrc location={video:?} ! decodebin ! fakesink sync=false signal-handoffs=true name=sink"
    );
    let pipeline = gst::parse::launch(&text)?;
    let (before, began) = (own_cpu_seconds()?, Instant::now());
    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().context("a pipeline without a bus")?;
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(600), &wanted);
    let done = (own_cpu_seconds()? - before, began.elapsed().as_secs_f64());
    pipeline.set_state(gst::State::Null)?;
    let over = message.is_some_and(|m| m.type_() == gst::MessageType::Eos);
    ensure!(over, "{}: cannot be decoded", video.display());
    Ok(json!({"decode_cpu_secs": done.0, "decode_secs": done.1}))
}

fn read(config: &Path) -> Result<Value> {
    let config = EdgeConfig::load(config)?;
    let (before, began) = (own_cpu_seconds()?, Instant::now());
    let mut frames = 0;
    for step in ingest::open_files_in_step(&config)? {
        frames += step?.len();
    }
    Ok(json!({
        "frames": frames,
        "ingest_secs": began.elapsed().as_secs_f64(),
        "ingest_cpu_secs": own_cpu_seconds()? - before,
    }))
}

/// Nothing but ONNX Runtime: tensors are there, outputs are thrown away. All lanes run at once, as the pipeline's
/// sessions do, because a core is slower while the other one works.
fn models(
    detector: &Path,
    embedder: &Path,
    detections: usize,
    crops: usize,
    lanes: usize,
) -> Result<Value> {
    let lanes = lanes.max(1);
    let config = RuntimeConfig::default();
    let begin = std::sync::Barrier::new(lanes);
    let lane = |number: usize| -> Result<(f64, f64, f64, String)> {
        let mut sessions = Vec::new();
        for model in [detector, embedder] {
            let card = runtime::read_card(model)?;
            let input = &card.input;
            let tensor: Vec<f32> = (0..3 * input.height * input.width)
                .map(|i| ((i * 7919) % 256) as f32)
                .collect();
            let mut session = runtime::open(model, &card, &config)?;
            // The first run lays out memory.
            session.run_with(1, &tensor, &mut |_| {})?;
            sessions.push((session, tensor));
        }
        let share = |all: usize| all / lanes + usize::from(number < all % lanes);
        let runs = [share(detections), share(crops)];
        let mut spent = [0.0; 2];
        begin.wait();
        let began = Instant::now();
        // Crops between detections, as in the pipeline: the caches are shared.
        let mut done = 0;
        for i in 0..runs[0] {
            let until = runs[1] * (i + 1) / runs[0];
            let before = thread_cpu_seconds()?;
            let (session, tensor) = &mut sessions[0];
            session.run_with(1, tensor, &mut |_| {})?;
            let between = thread_cpu_seconds()?;
            let (session, tensor) = &mut sessions[1];
            while done < until {
                session.run_with(1, tensor, &mut |_| {})?;
                done += 1;
            }
            spent[0] += between - before;
            spent[1] += thread_cpu_seconds()? - between;
        }
        let wall = began.elapsed().as_secs_f64();
        Ok((spent[0], spent[1], wall, sessions[0].0.description()))
    };
    let results: Vec<Result<(f64, f64, f64, String)>> = std::thread::scope(|scope| {
        let lane = &lane;
        let threads: Vec<_> = (0..lanes).map(|n| scope.spawn(move || lane(n))).collect();
        threads
            .into_iter()
            .map(|t| {
                t.join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
            })
            .collect()
    });
    let results: Vec<_> = results.into_iter().collect::<Result<_>>()?;
    let description = results.first().map(|r| r.3.clone());
    Ok(json!({
        "detect_cpu_secs": results.iter().map(|r| r.0).sum::<f64>(),
        "embed_cpu_secs": results.iter().map(|r| r.1).sum::<f64>(),
        "models_secs": results.iter().map(|r| r.2).fold(0.0, f64::max),
        "engine": description,
    }))
}

fn detect(config: &Path, out: &Path) -> Result<Value> {
    let config = EdgeConfig::load(config)?;
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let mut engine = Engine::start(&config, Purpose::Replay, false, || {
        Ok(Box::new(ingest::open_files_in_step(&config)?))
    })?;
    let mut texts = vec![String::new(); config.cameras.len()];
    let (mut frames, mut boxes) = (0, 0);
    loop {
        let step = match engine.next(Duration::from_secs(1))? {
            Next::Step(step) => step,
            Next::Nothing => continue,
            Next::Over => break,
        };
        for analysed in step.frames {
            frames += 1;
            for d in &analysed.detections {
                let b = &d.ltrb;
                texts[analysed.frame.camera].push_str(&format!(
                    "{},-1,{},{},{},{},{},-1,-1,-1\n",
                    analysed.frame.number,
                    b.left,
                    b.top,
                    b.width(),
                    b.height(),
                    d.score
                ));
                boxes += 1;
            }
        }
    }
    for (name, text) in config.camera_names().iter().zip(texts) {
        let file = out.join(format!("{name}.txt"));
        fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    Ok(json!({"frames": frames, "boxes": boxes}))
}

/// Detections by frame.
fn read_detections(path: &Path) -> Result<BTreeMap<u64, Vec<Detection>>> {
    let rows = reid_edge::score::read_results(path)?;
    let mut frames: BTreeMap<u64, Vec<Detection>> = BTreeMap::new();
    for r in rows {
        let (left, top) = (r.left as f32, r.top as f32);
        frames.entry(r.frame).or_default().push(Detection {
            ltrb: Ltrb {
                left,
                top,
                right: left + r.width as f32,
                bottom: top + r.height as f32,
            },
            score: r.confidence as f32,
        });
    }
    Ok(frames)
}

/// Follows the detections again and again for a second; results are those of the first time.
fn track(
    detections: &Path,
    frames: u64,
    fps: f64,
    size: (usize, usize),
    results: &Path,
) -> Result<Value> {
    let found = read_detections(detections)?;
    let none = Vec::new();
    let (mut seconds, mut done, mut text) = (0.0, 0u64, String::new());
    let began = Instant::now();
    while done == 0 || began.elapsed() < Duration::from_secs(1) {
        let mut tracker = Tracker::new(TrackerConfig::default());
        let mut ids = TrackletIds::default();
        for number in 1..=frames {
            let time = (number - 1) as f64 / fps;
            let detections = found.get(&number).unwrap_or(&none);
            let start = Instant::now();
            let update = tracker.update(time, size, detections, &mut ids);
            seconds += start.elapsed().as_secs_f64();
            if done == 0 {
                for b in update.boxes {
                    text.push_str(&format!(
                        "{number},{},{:.3},{:.3},{:.3},{:.3},{:.4},-1,-1,-1\n",
                        b.tracklet.0,
                        b.ltrb.left,
                        b.ltrb.top,
                        b.ltrb.width(),
                        b.ltrb.height(),
                        b.score
                    ));
                }
            }
        }
        done += 1;
    }
    fs::write(results, text).with_context(|| results.display().to_string())?;
    let boxes: usize = found.values().map(Vec::len).sum();
    let frames_done = (frames * done) as f64;
    Ok(json!({
        "frames": frames, "boxes": boxes, "passes": done, "seconds": seconds,
        "fps": frames_done / seconds, "microseconds_a_frame": 1e6 * seconds / frames_done,
    }))
}
