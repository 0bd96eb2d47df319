//! Tells page, events and metrics what a step brought.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use crate::clock::Clock;
use crate::events::Event;
use crate::latency::Latencies;
use crate::pipeline::{Pipeline, StepOutput, Timings};
use crate::serve::{FrameView, Hub};
use crate::types::{CameraIndex, Frame, Ltrb, TrackletId};

use super::sink::Sink;

/// Keeps count while it tells.
pub(super) struct Teller<'a> {
    pub(super) hub: &'a Hub,
    pub(super) sink: &'a Sink,
    pub(super) clock: Clock,
    /// Last box of every running tracklet.
    boxes: HashMap<TrackletId, Ltrb>,
    rates: BTreeMap<CameraIndex, Rate>,
    /// Frames analysed and discarded per camera since it was added.
    pub(super) analysed: BTreeMap<CameraIndex, u64>,
    pub(super) frames: u64,
    pub(super) discarded: u64,
    pub(super) tracklets: u64,
    pub(super) timings: Timings,
    /// From arrival to event.
    pub(super) latency: Latencies,
    /// From the instant at which the camera took the picture to event.
    pub(super) capture_latency: Latencies,
    /// When the last step came.
    pub(super) last_step: Instant,
    /// Why the gallery takes nothing, while it does not.
    pub(super) gallery_failure: Option<String>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(hub: &'a Hub, sink: &'a Sink, clock: Clock) -> Self {
        Teller {
            hub,
            sink,
            clock,
            boxes: HashMap::new(),
            rates: BTreeMap::new(),
            analysed: BTreeMap::new(),
            frames: 0,
            discarded: 0,
            tracklets: 0,
            timings: Timings::default(),
            latency: Latencies::default(),
            capture_latency: Latencies::default(),
            last_step: Instant::now(),
            gallery_failure: None,
        }
    }

    /// One step: decisions, then frames, then who left.
    pub(super) fn tell(&mut self, pipeline: &Pipeline, output: StepOutput) {
        self.last_step = Instant::now();
        let metrics = self.hub.metrics();
        let t = &output.timings;
        for (stage, secs) in [
            ("detect", t.detect_secs),
            ("track", t.track_secs),
            ("crop", t.crop_secs),
            ("embed", t.embed_secs),
            ("associate", t.associate_secs),
        ] {
            metrics.stage(stage, secs);
        }
        self.timings.add(t);
        self.frames += output.frames.len() as u64;
        self.discarded += output.discarded;
        match &output.failure {
            Some(failure) => {
                metrics.gallery_failed();
                let failure = failure.to_string();
                if self.gallery_failure.as_ref() != Some(&failure) {
                    tracing::error!("nothing can be decided: {failure}");
                }
                self.gallery_failure = Some(failure);
            }
            None if !output.frames.is_empty() => self.gallery_failure = None,
            None => {}
        }
        for analysed in &output.frames {
            for b in &analysed.boxes {
                self.boxes.insert(b.tracklet, b.ltrb);
            }
        }
        for assignment in &output.assignments {
            let crop = pipeline.crop(assignment.tracklet);
            self.hub.assignment(assignment, crop);
            let ltrb = self.boxes.get(&assignment.tracklet).copied();
            let camera = pipeline.camera_name(assignment.camera);
            let event = Event::identity(assignment, camera, ltrb);
            self.sink.write(&event, metrics);
        }
        for analysed in output.frames {
            let boxes = analysed
                .boxes
                .iter()
                .map(|b| (b.ltrb, b.tracklet, pipeline.decision(b.tracklet)))
                .collect();
            let frame = analysed.frame;
            self.time(&frame);
            // Frames may be told of a camera that was removed while they were under way: its series are gone.
            if !self.hub.has_camera(frame.camera) {
                continue;
            }
            *self.analysed.entry(frame.camera).or_default() += 1;
            let camera = pipeline.camera_name(frame.camera);
            let secs = frame.arrived.elapsed().as_secs_f64();
            self.hub.metrics().latency(camera, secs);
            self.hub.frame(FrameView {
                camera: frame.camera,
                time: frame.time,
                picture: frame.picture,
                boxes,
                fps: self.rates.entry(frame.camera).or_default().tick(),
            });
        }
        self.ended(pipeline, &output.ended);
        self.hub.known(pipeline.associator().gallery().len());
    }

    /// Tracklets that ended.
    pub(super) fn ended(&mut self, pipeline: &Pipeline, ended: &[(CameraIndex, TrackletId)]) {
        for &(camera, tracklet) in ended {
            self.boxes.remove(&tracklet);
            self.tracklets += 1;
            let event = Event::TrackletEnded {
                time: pipeline.now().unwrap_or(0.0),
                camera: pipeline.camera_name(camera).to_owned(),
                tracklet,
                identity: pipeline.decision(tracklet).identity(),
            };
            self.sink.write(&event, self.hub.metrics());
        }
    }

    /// A camera is gone.
    pub(super) fn forget(&mut self, camera: CameraIndex) {
        self.rates.remove(&camera);
        self.analysed.remove(&camera);
    }

    /// Analysed frames per second of a camera now.
    pub(super) fn fps(&self, camera: CameraIndex) -> f32 {
        self.rates.get(&camera).map_or(0.0, Rate::now)
    }

    /// The start is over: latencies count from here.
    pub(super) fn forget_latencies(&mut self) {
        self.latency = Latencies::default();
        self.capture_latency = Latencies::default();
    }

    fn time(&mut self, frame: &Frame) {
        self.latency.add(frame.arrived.elapsed().as_secs_f64());
        if let Some(captured) = frame.captured {
            self.capture_latency.add(self.clock.now() - captured);
        }
    }
}

/// Frames per second over the last second or so.
#[derive(Clone, Debug, Default)]
struct Rate {
    last: Option<Instant>,
    interval: f32,
}

impl Rate {
    fn tick(&mut self) -> f32 {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            let gap = (now - last).as_secs_f32().max(1e-4);
            // The first gap counts whole.
            let share = if self.interval == 0.0 { 1.0 } else { 0.1 };
            self.interval += share * (gap - self.interval);
        }
        self.now()
    }

    /// What it is now: a camera that has fallen silent slows down before it is called stalled.
    fn now(&self) -> f32 {
        let silent = self.last.map_or(0.0, |last| last.elapsed().as_secs_f32());
        let interval = self.interval.max(silent);
        if self.interval > 0.0 && interval > 0.0 {
            1.0 / interval
        } else {
            0.0
        }
    }
}
