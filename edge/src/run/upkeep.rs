//! What a run does besides analysing: changes of cameras, reload, health, metrics, the service manager's watchdog.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::config::{CameraConfig, EdgeConfig};
use crate::health::{CameraHealth, Health, Verdict};
use crate::ingest::CameraState;
use crate::memory;
use crate::metrics::FrameCounts;
use crate::serve::control::{Answer, Command, Question};
use crate::service::{Pulse, Service, ServiceError, Watchdog};

use super::Run;
use super::models::ModelFiles;

/// How often health and metrics are brought up to date.
const EVERY: Duration = Duration::from_secs(1);

/// How often unused memory is given back.
const GIVE_BACK: Duration = Duration::from_secs(60);

/// State of the upkeep.
pub(super) struct Upkeep {
    pub(super) service: Service,
    pulse: Pulse,
    /// Speaks to the service manager as long as the pulse beats.
    _watchdog: Watchdog,
    last: Option<Instant>,
    /// When memory was last given back.
    given_back: Instant,
    ready: bool,
    /// Frames received when the last step came, to tell a quiet site from a hung pipeline.
    received: u64,
    status: String,
    models: ModelFiles,
}

impl Upkeep {
    pub(super) fn new(service: Service, models: ModelFiles) -> Result<Self, ServiceError> {
        let watchdog = service.watchdog(None)?;
        Ok(Upkeep {
            pulse: watchdog.pulse("pipeline"),
            _watchdog: watchdog,
            service,
            last: None,
            given_back: Instant::now(),
            ready: false,
            received: 0,
            status: String::new(),
            models,
        })
    }
}

impl Run<'_> {
    /// Answers a visitor who asks for a change.
    pub(super) fn answer(&mut self, question: Question) {
        let answer = match &question.command {
            Command::List => Answer::Done(self.fleet.list()),
            Command::Put(camera) => match CameraConfig::from_json(camera, &self.config.base) {
                Err(e) => Answer::Refused(e.to_string()),
                Ok(camera) => self.put(&camera),
            },
            Command::Remove(name) => {
                let name = name.clone();
                self.remove(&name)
            }
            Command::Reload => self.reload(),
        };
        question.answer(answer);
    }

    fn put(&mut self, camera: &CameraConfig) -> Answer {
        match self.fleet.put(camera, &mut self.pipeline) {
            Ok((index, ended)) => {
                tracing::info!(camera = %camera.name, source = %camera.source(), "camera added or changed");
                self.tell_ended(index, &ended);
                Answer::Done(json!({"name": camera.name, "index": index}))
            }
            Err(e) => Answer::Refused(e.to_string()),
        }
    }

    fn remove(&mut self, name: &str) -> Answer {
        match self.fleet.remove(name, &mut self.pipeline) {
            Ok(Some((index, ended))) => {
                tracing::info!(camera = %name, "camera removed");
                self.tell_ended(index, &ended);
                self.teller.forget(index);
                Answer::Done(json!({"removed": name}))
            }
            Ok(None) => Answer::Unknown(name.to_owned()),
            Err(e) => Answer::Refused(e.to_string()),
        }
    }

    /// Reads the configuration's file again and takes over what can change while running. A file with mistakes changes
    /// nothing.
    pub(super) fn reload(&mut self) -> Answer {
        self.upkeep.service.reloading();
        // A log rotation moves the file away and asks for this.
        self.teller.sink.reopen();
        let new = match EdgeConfig::load(&self.config.file) {
            Ok(new) => new,
            Err(e) => {
                tracing::error!("not reloaded: {e}");
                self.upkeep.service.ready();
                return Answer::Refused(e.to_string());
            }
        };
        let difference = self.config.difference(&new);
        let mut failed = Vec::new();
        for name in &difference.removed {
            if let Answer::Refused(e) = self.remove(name) {
                failed.push(e);
            }
        }
        let wanted = new
            .cameras
            .iter()
            .filter(|c| difference.added.contains(&c.name) || difference.changed.contains(&c.name));
        for camera in wanted {
            if let Answer::Refused(e) = self.put(camera) {
                failed.push(e);
            }
        }
        self.live
            .set_clock_offset_secs(new.health.clock_offset_secs);
        // What needs a restart stays as it is, so that the next reload still sees the difference.
        self.config.cameras = new.cameras;
        self.config.tracker = new.tracker;
        self.config.crops = new.crops;
        self.config.health = new.health;
        self.config.log = new.log;
        if difference
            .live
            .iter()
            .any(|s| ["tracker", "crops"].contains(s))
        {
            self.pipeline.set_rules(&self.config);
        }
        for section in &difference.restart {
            tracing::warn!("[{section}] has changed: it takes a restart");
        }
        tracing::info!(
            added = difference.added.len(),
            changed = difference.changed.len(),
            removed = difference.removed.len(),
            "configuration reloaded"
        );
        self.upkeep.service.ready();
        Answer::Done(json!({
            "added": difference.added,
            "changed": difference.changed,
            "removed": difference.removed,
            "live": difference.live,
            "restart": difference.restart,
            "failed": failed,
        }))
    }

    /// Health, metrics and the watchdog, about once a second.
    pub(super) fn keep_up(&mut self) {
        if self.upkeep.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.upkeep.last = Some(Instant::now());
        if self.upkeep.given_back.elapsed() >= GIVE_BACK {
            self.upkeep.given_back = Instant::now();
            memory::give_back();
        }
        let health = self.health();
        // A pipeline that hangs is restarted; one that only has a full disk would not be helped by that.
        if health.status != Verdict::Failing {
            self.upkeep.pulse.beat();
        }
        if health.ready && !self.upkeep.ready {
            self.upkeep.ready = true;
            self.upkeep.service.ready();
        }
        let live = health.cameras.iter().filter(|c| c.state == "live").count();
        let status = match health.problems.first() {
            None => format!("{live} of {} cameras live", health.cameras.len()),
            Some(problem) => format!("{live} of {} cameras live; {problem}", health.cameras.len()),
        };
        if status != self.upkeep.status {
            self.upkeep.service.status(&status);
            self.upkeep.status = status;
        }
        let metrics = self.teller.hub.metrics();
        let queues = self.pipeline.queues();
        metrics.queue("steps", queues.steps);
        metrics.queue("crops", queues.crops);
        for model in &health.models {
            metrics.fallback(model.model, model.fallback);
        }
        let statuses = self.live.statuses();
        for (index, counts) in self.live.counts() {
            let name = self.pipeline.camera_name(index);
            let analysed = self.teller.analysed.get(&index).copied().unwrap_or(0);
            metrics.frames(
                name,
                FrameCounts {
                    analysed,
                    skipped: counts.skipped,
                    replaced: counts.replaced,
                    discarded: counts.discarded,
                    bad: counts.bad,
                },
            );
            metrics.camera(name, self.teller.fps(index), counts.reconnects);
            if let Some(status) = statuses.get(&index) {
                metrics.clock(name, status.clock.offset_secs, status.clock.healthy);
            }
        }
        self.teller.hub.set_health(health);
    }

    fn health(&mut self) -> Health {
        let mut health = Health::default();
        let limits = self.config.health.clone();
        let statuses = self.live.statuses();
        for (&index, camera) in self.fleet.cameras() {
            let Some(status) = statuses.get(&index) else {
                continue;
            };
            let (name, fps) = (&camera.name, self.teller.fps(index));
            let (state, slow) = (status.state, f64::from(fps) < limits.min_fps);
            match state {
                CameraState::Live if slow => health.problem(
                    Verdict::Degraded,
                    format!("camera {name} is analysed at {fps:.1} frames/s"),
                ),
                CameraState::Live | CameraState::Connecting | CameraState::Ended => {}
                _ => health.problem(
                    Verdict::Degraded,
                    format!("camera {name} is {}: {}", state.as_str(), status.detail),
                ),
            }
            if !status.clock.healthy {
                let off = status.clock.offset_secs.unwrap_or(0.0);
                health.problem(
                    Verdict::Degraded,
                    format!("the clock of camera {name} is off by {off:+.1} s"),
                );
            }
            health.cameras.push(CameraHealth {
                name: name.clone(),
                state: state.as_str().to_owned(),
                detail: status.detail.clone(),
                fps,
                clock_healthy: status.clock.healthy,
            });
        }
        if let Some(failure) = self.teller.sink.failure() {
            health.problem(Verdict::Degraded, format!("events are lost: {failure}"));
        }
        if let Some(failure) = &self.teller.gallery_failure {
            health.problem(
                Verdict::Degraded,
                format!("decisions cannot be kept: {failure}"),
            );
        }
        for model in self.pipeline.engine().models() {
            if model.fallback {
                health.problem(
                    Verdict::Degraded,
                    format!(
                        "{} runs on another provider than asked for: {}",
                        model.model, model.description
                    ),
                );
            }
            health.models.push(model);
        }
        for changed in self.upkeep.models.changed() {
            health.problem(Verdict::Degraded, changed.clone());
        }
        let received = self.live.total().received;
        let silent = self.teller.last_step.elapsed().as_secs_f64();
        if silent < limits.hung_secs {
            self.upkeep.received = received;
        } else if received > self.upkeep.received {
            health.problem(
                Verdict::Failing,
                format!("frames arrive, but none was analysed for {silent:.0} s"),
            );
        }
        health.ready = self.upkeep.ready || self.teller.frames > 0;
        health
    }
}
