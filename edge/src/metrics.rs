//! What Prometheus reads: counters, gauges and histograms of cameras, stages, queues, models and events.
//!
//! Base units, `_total` for counters, one label `camera` with the configured name. A camera that is removed takes its series
//! with it.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

type Float = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfCamera {
    camera: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfOutcome {
    camera: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfCameraState {
    camera: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfQueue {
    queue: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfDecision {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfModel {
    model: &'static str,
}

/// Frames of one camera since it was added, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Analysed.
    pub analysed: u64,
    /// Passed over because the camera is analysed at fewer frames per second than it sends.
    pub skipped: u64,
    /// Replaced by a newer one before anybody had time for it.
    pub replaced: u64,
    /// Under way when the camera was closed or removed.
    pub discarded: u64,
    /// Damaged.
    pub bad: u64,
}

/// All metrics of a program.
pub struct Metrics {
    registry: Registry,
    frames: Family<OfOutcome, Counter>,
    camera_fps: Family<OfCamera, Float>,
    camera_state: Family<OfCameraState, Gauge>,
    reconnects: Family<OfCamera, Counter>,
    clock_offset: Family<OfCamera, Float>,
    clock_healthy: Family<OfCamera, Gauge>,
    stage: Family<Stage, Histogram>,
    latency: Family<OfCamera, Histogram>,
    queue: Family<OfQueue, Gauge>,
    tracklets: Counter,
    identities: Gauge,
    corrections: Counter,
    decisions: Family<OfDecision, Counter>,
    events: Counter,
    events_lost: Counter,
    gallery_failures: Counter,
    clock_jumps: Counter,
    fallback: Family<OfModel, Gauge>,
    healthy: Gauge,
    uptime: Float,
    process: Process,
}

/// Label of a stage.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
}

/// The process as the system sees it.
#[derive(Default)]
struct Process {
    resident: Gauge,
    threads: Gauge,
    files: Gauge,
}

/// States a camera can be in, as in events.
pub const CAMERA_STATES: [&str; 6] = [
    "connecting",
    "live",
    "stalled",
    "backing_off",
    "failed",
    "ended",
];

impl Default for Metrics {
    fn default() -> Self {
        let buckets = || {
            Histogram::new([
                0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.5, 1.0, 2.0, 5.0,
            ])
        };
        let mut metrics = Metrics {
            registry: Registry::default(),
            frames: Family::default(),
            camera_fps: Family::default(),
            camera_state: Family::default(),
            reconnects: Family::default(),
            clock_offset: Family::default(),
            clock_healthy: Family::default(),
            stage: Family::new_with_constructor(buckets),
            latency: Family::new_with_constructor(buckets),
            queue: Family::default(),
            tracklets: Counter::default(),
            identities: Gauge::default(),
            corrections: Counter::default(),
            decisions: Family::default(),
            events: Counter::default(),
            events_lost: Counter::default(),
            gallery_failures: Counter::default(),
            clock_jumps: Counter::default(),
            fallback: Family::default(),
            healthy: Gauge::default(),
            uptime: Float::default(),
            process: Process::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let Metrics { registry: r, .. } = self;
        r.register(
            "reid_frames",
            "Frames by what became of them: analysed, skipped (fps), replaced (overload), discarded (closing), bad",
            self.frames.clone(),
        );
        r.register(
            "reid_camera_fps",
            "Frames analysed per second",
            self.camera_fps.clone(),
        );
        r.register(
            "reid_camera_state",
            "1 for the state a camera is in",
            self.camera_state.clone(),
        );
        r.register(
            "reid_camera_reconnects",
            "Times a camera was opened again",
            self.reconnects.clone(),
        );
        r.register_with_unit(
            "reid_camera_clock_offset",
            "Camera's clock minus this machine's",
            Unit::Seconds,
            self.clock_offset.clone(),
        );
        r.register(
            "reid_camera_clock_healthy",
            "0 if the camera's clock is known and too far off",
            self.clock_healthy.clone(),
        );
        r.register_with_unit(
            "reid_stage",
            "Time of a stage per step",
            Unit::Seconds,
            self.stage.clone(),
        );
        r.register_with_unit(
            "reid_frame_latency",
            "From a frame's arrival to its events",
            Unit::Seconds,
            self.latency.clone(),
        );
        r.register(
            "reid_queue_length",
            "Waiting in a queue",
            self.queue.clone(),
        );
        r.register("reid_tracklets", "Tracklets seen", self.tracklets.clone());
        r.register(
            "reid_identities",
            "Identities in the gallery",
            self.identities.clone(),
        );
        r.register(
            "reid_corrections",
            "Decisions that replaced an identity claimed before",
            self.corrections.clone(),
        );
        r.register(
            "reid_decisions",
            "New or changed decisions",
            self.decisions.clone(),
        );
        r.register("reid_events", "Events written", self.events.clone());
        r.register(
            "reid_events_lost",
            "Events that could not be written",
            self.events_lost.clone(),
        );
        r.register(
            "reid_gallery_failures",
            "Rounds of decisions that the gallery could not take",
            self.gallery_failures.clone(),
        );
        r.register(
            "reid_clock_jumps",
            "Times the system's clock was set",
            self.clock_jumps.clone(),
        );
        r.register(
            "reid_model_fallback",
            "1 while a model runs on another provider than was asked for",
            self.fallback.clone(),
        );
        r.register(
            "reid_healthy",
            "1 if nothing is wrong, 0 if /healthz says what",
            self.healthy.clone(),
        );
        r.register_with_unit(
            "reid_uptime",
            "Time since start",
            Unit::Seconds,
            self.uptime.clone(),
        );
        r.register_with_unit(
            "process_resident_memory",
            "Resident memory",
            Unit::Bytes,
            self.process.resident.clone(),
        );
        r.register("process_threads", "Threads", self.process.threads.clone());
        r.register(
            "process_open_fds",
            "Open file descriptors",
            self.process.files.clone(),
        );
    }

    /// What became of a camera's frames so far.
    pub fn frames(&self, camera: &str, counts: FrameCounts) {
        for (outcome, count) in [
            ("analysed", counts.analysed),
            ("skipped", counts.skipped),
            ("replaced", counts.replaced),
            ("discarded", counts.discarded),
            ("bad", counts.bad),
        ] {
            let camera = camera.to_owned();
            let counter = self
                .frames
                .get_or_create_owned(&OfOutcome { camera, outcome });
            // A camera that was removed and comes back begins anew, as counters may.
            counter
                .inner()
                .store(count, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Analysed frames per second, and times the camera was opened again.
    pub fn camera(&self, camera: &str, fps: f32, reconnects: u64) {
        let label = of_camera(camera);
        self.camera_fps
            .get_or_create_owned(&label)
            .set(f64::from(fps));
        self.reconnects
            .get_or_create_owned(&label)
            .inner()
            .store(reconnects, std::sync::atomic::Ordering::Relaxed);
    }

    /// A camera's state, one of [`CAMERA_STATES`].
    pub fn camera_state(&self, camera: &str, now: &str) {
        for state in CAMERA_STATES {
            let camera = camera.to_owned();
            self.camera_state
                .get_or_create_owned(&OfCameraState { camera, state })
                .set(i64::from(state == now));
        }
    }

    /// A camera's clock: its offset in seconds if it tells the time.
    pub fn clock(&self, camera: &str, offset_secs: Option<f64>, healthy: bool) {
        let label = of_camera(camera);
        if let Some(offset) = offset_secs {
            self.clock_offset.get_or_create_owned(&label).set(offset);
        }
        self.clock_healthy
            .get_or_create_owned(&label)
            .set(i64::from(healthy));
    }

    /// A camera is gone.
    pub fn forget(&self, camera: &str) {
        let label = of_camera(camera);
        self.camera_fps.remove(&label);
        self.reconnects.remove(&label);
        self.clock_offset.remove(&label);
        self.clock_healthy.remove(&label);
        self.latency.remove(&label);
        for state in CAMERA_STATES {
            let camera = camera.to_owned();
            self.camera_state.remove(&OfCameraState { camera, state });
        }
        for outcome in ["analysed", "skipped", "replaced", "discarded", "bad"] {
            let camera = camera.to_owned();
            self.frames.remove(&OfOutcome { camera, outcome });
        }
    }

    /// Seconds that a stage took for one step.
    pub fn stage(&self, stage: &'static str, secs: f64) {
        self.stage
            .get_or_create_owned(&Stage { stage })
            .observe(secs);
    }

    /// Seconds from a frame's arrival to its events.
    pub fn latency(&self, camera: &str, secs: f64) {
        self.latency
            .get_or_create_owned(&of_camera(camera))
            .observe(secs);
    }

    /// How much waits in a queue.
    pub fn queue(&self, queue: &'static str, length: usize) {
        self.queue
            .get_or_create_owned(&OfQueue { queue })
            .set(length as i64);
    }

    /// A tracklet was seen for the first time.
    pub fn tracklet(&self) {
        self.tracklets.inc();
    }

    /// Identities in the gallery now.
    pub fn identities(&self, count: usize) {
        self.identities.set(count as i64);
    }

    /// A new or changed decision.
    pub fn decision(&self, state: &'static str, corrected: bool) {
        self.decisions
            .get_or_create_owned(&OfDecision { state })
            .inc();
        if corrected {
            self.corrections.inc();
        }
    }

    /// An event was written, or could not be.
    pub fn event(&self, written: bool) {
        if written {
            self.events.inc();
        } else {
            self.events_lost.inc();
        }
    }

    /// The gallery could not be written.
    pub fn gallery_failed(&self) {
        self.gallery_failures.inc();
    }

    /// The system's clock was set.
    pub fn clock_jumped(&self) {
        self.clock_jumps.inc();
    }

    /// Whether a model (`detector`, `embedder`) runs on another provider than was asked for.
    pub fn fallback(&self, model: &'static str, fallback: bool) {
        self.fallback
            .get_or_create_owned(&OfModel { model })
            .set(i64::from(fallback));
    }

    /// Whether all is well.
    pub fn healthy(&self, healthy: bool) {
        self.healthy.set(i64::from(healthy));
    }

    /// OpenMetrics text.
    pub fn text(&self, uptime_secs: f64) -> String {
        self.uptime.set(uptime_secs);
        let used = Usage::now();
        self.process.resident.set(used.resident_bytes as i64);
        self.process.threads.set(used.threads as i64);
        self.process.files.set(used.files as i64);
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}

fn of_camera(camera: &str) -> OfCamera {
    OfCamera {
        camera: camera.to_owned(),
    }
}

/// What the process uses, from `/proc`; zeros where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub files: u64,
}

impl Usage {
    /// Now.
    pub fn now() -> Self {
        let status = status();
        let field = |name: &str| status_field(&status, name);
        Usage {
            resident_bytes: 1024 * field("VmRSS:"),
            threads: field("Threads:"),
            files: std::fs::read_dir("/proc/self/fd").map_or(0, |d| d.count() as u64),
        }
    }

    /// Largest resident memory so far, bytes; 0 where the system does not say.
    pub fn peak_bytes() -> u64 {
        1024 * status_field(&status(), "VmHWM:")
    }
}

/// `/proc/self/status`, or nothing where there is none.
fn status() -> String {
    std::fs::read_to_string("/proc/self/status").unwrap_or_default()
}

fn status_field(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|l| l.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_camera_takes_its_series_with_it() {
        let metrics = Metrics::default();
        let counts = FrameCounts {
            analysed: 3,
            replaced: 2,
            ..FrameCounts::default()
        };
        for camera in ["door", "hall \"A\""] {
            metrics.frames(camera, counts);
            metrics.camera(camera, 10.0, 1);
            metrics.camera_state(camera, "live");
            metrics.clock(camera, Some(0.25), true);
            metrics.latency(camera, 0.04);
        }
        metrics.stage("detect", 0.25);
        let text = metrics.text(1.5);
        for line in [
            "reid_frames_total{camera=\"door\",outcome=\"analysed\"} 3",
            "reid_frames_total{camera=\"hall \\\"A\\\"\",outcome=\"replaced\"} 2",
            "reid_camera_state{camera=\"door\",state=\"live\"} 1",
            "reid_camera_state{camera=\"door\",state=\"stalled\"} 0",
            "reid_camera_clock_offset_seconds{camera=\"door\"} 0.25",
            "reid_stage_seconds_sum{stage=\"detect\"} 0.25",
            "reid_frame_latency_seconds_count{camera=\"door\"} 1",
            "reid_uptime_seconds 1.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        metrics.forget("door");
        let text = metrics.text(2.0);
        assert!(!text.contains("door"), "{text}");
        assert!(text.contains("hall"), "{text}");
    }

    #[test]
    fn the_documented_metrics_are_these() {
        let metrics = Metrics::default();
        metrics.frames("door", FrameCounts::default());
        metrics.camera("door", 1.0, 0);
        metrics.camera_state("door", "live");
        metrics.clock("door", Some(0.0), true);
        metrics.stage("detect", 0.1);
        metrics.latency("door", 0.1);
        metrics.queue("steps", 0);
        metrics.decision("new", false);
        metrics.fallback("detector", false);
        let text = metrics.text(0.0);
        let told: std::collections::BTreeSet<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix("# TYPE "))
            .filter_map(|l| l.split(' ').next())
            .collect();
        // In the table the names stand in backquotes; counters end in _total there and in what is scraped.
        let documented: std::collections::BTreeSet<&str> = include_str!("../../docs/EDGE.md")
            .lines()
            .filter(|l| l.starts_with("| `reid_") || l.starts_with("| `process_"))
            .flat_map(|l| l.split('`').skip(1).step_by(2))
            .filter(|w| w.starts_with("reid_") || w.starts_with("process_"))
            .map(|w| w.trim_end_matches("_total"))
            .collect();
        assert_eq!(told, documented);
    }

    #[test]
    fn the_process_is_measured() {
        let used = Usage::now();
        assert!(used.resident_bytes > 1 << 20 && used.threads > 0 && used.files > 2);
    }
}
