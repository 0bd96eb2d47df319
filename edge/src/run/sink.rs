//! Events from several threads into one file, which may be away for a while.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::events::{Event, EventSink, EventsConfig, EventsError};
use crate::metrics::Metrics;

/// A failure that goes on is told again after so long.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The sink of a run. A full disk does not stop the cameras: events that cannot be written are counted, and writing begins
/// again by itself when there is room.
pub(super) struct Sink {
    config: EventsConfig,
    base: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// `None` while writing fails.
    out: Option<EventSink>,
    failure: Option<String>,
    told: Option<Instant>,
    written: u64,
    lost: u64,
}

impl Sink {
    /// Opens it. What is wrong at the start is an error: nobody is served by a run that nobody hears.
    pub(super) fn open(config: &EventsConfig, base: PathBuf) -> Result<Self, EventsError> {
        Ok(Sink {
            state: Mutex::new(State {
                out: Some(EventSink::open(config, &base)?),
                failure: None,
                told: None,
                written: 0,
                lost: 0,
            }),
            config: config.clone(),
            base,
        })
    }

    /// Writes one event, or counts it as lost.
    pub(super) fn write(&self, event: &Event, metrics: &Metrics) {
        let mut state = self.lock();
        let written = self.reopened(&mut state).and_then(|out| out.write(event));
        metrics.event(written.is_ok());
        match written {
            Ok(()) => {
                state.written += 1;
                if state.failure.take().is_some() {
                    state.told = None;
                    tracing::info!(lost = state.lost, "events are written again");
                }
            }
            Err(e) => {
                state.lost += 1;
                // Opening anew ends a line that was cut.
                state.out = None;
                state.failure = Some(e.to_string());
                if state.told.is_none_or(|at| at.elapsed() > TELL_AGAIN) {
                    state.told = Some(Instant::now());
                    tracing::error!(lost = state.lost, "an event is lost: {e}");
                }
            }
        }
    }

    /// Opens the file anew, as after it was moved away by a log rotation.
    pub(super) fn reopen(&self) {
        if self.config.file.is_some() {
            self.lock().out = None;
        }
    }

    /// Why events are being lost, if they are.
    pub(super) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Events written and lost so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        (state.written, state.lost)
    }

    fn reopened<'a>(&self, state: &'a mut State) -> Result<&'a mut EventSink, EventsError> {
        match &mut state.out {
            Some(_) => {}
            empty => *empty = Some(EventSink::open(&self.config, &self.base)?),
        }
        state.out.as_mut().ok_or_else(|| EventsError {
            path: self.config.file.clone().unwrap_or_default(),
            source: std::io::Error::other("it cannot be opened"),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn event(time: f64) -> Event {
        Event::CameraState {
            time,
            camera: "door".into(),
            state: "live".into(),
            detail: String::new(),
        }
    }

    #[test]
    fn a_disk_that_is_away_for_a_while_costs_only_the_events_of_that_while() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("disk");
        std::fs::create_dir(&folder).unwrap();
        let config = EventsConfig {
            file: Some("disk/events.jsonl".into()),
        };
        let metrics = Metrics::default();
        let sink = Sink::open(&config, dir.path().to_path_buf()).unwrap();
        sink.write(&event(1.0), &metrics);
        // The folder is gone and the file is to be opened anew: as with a disk that was pulled.
        std::fs::rename(&folder, dir.path().join("away")).unwrap();
        sink.reopen();
        sink.write(&event(2.0), &metrics);
        sink.write(&event(3.0), &metrics);
        assert!(sink.failure().unwrap().contains("events.jsonl"));
        std::fs::rename(dir.path().join("away"), &folder).unwrap();
        sink.write(&event(4.0), &metrics);
        assert_eq!((sink.failure(), sink.counts()), (None, (2, 2)));
        let text = std::fs::read_to_string(folder.join("events.jsonl")).unwrap();
        let times: Vec<f64> = text
            .lines()
            .map(|l| {
                serde_json::from_str::<serde_json::Value>(l).unwrap()["time"]
                    .as_f64()
                    .unwrap()
            })
            .collect();
        assert_eq!(times, [1.0, 4.0]);
        assert!(metrics.text(0.0).contains("reid_events_lost_total 2"));
    }
}
