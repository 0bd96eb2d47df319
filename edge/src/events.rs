//! Events for other programs: one JSON object per line, written at once.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::types::{Assignment, Decision, IdentityId, Ltrb, TrackletId};

/// `[events]`: where events go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// File that events are appended to, relative to the configuration's folder; absent: standard output in `run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// One event. `time` is seconds: Unix time for a live source, since the start for a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A decision that is new or has changed.
    Identity {
        /// When.
        time: f64,
        /// Name of the camera.
        camera: String,
        /// Tracklet of this run.
        tracklet: TrackletId,
        /// Who, if anybody is claimed.
        identity: Option<IdentityId>,
        /// `pending`, `matched`, `ambiguous` or `new`, with its numbers.
        decision: Decision,
        /// Identities claimed for this tracklet before, oldest first.
        previous_ids: Vec<IdentityId>,
        /// Last box, frame pixels.
        #[serde(rename = "box", skip_serializing_if = "Option::is_none")]
        ltrb: Option<Ltrb>,
    },
    /// A tracklet left its camera's view.
    TrackletEnded {
        /// When.
        time: f64,
        /// Name of the camera.
        camera: String,
        /// Tracklet of this run.
        tracklet: TrackletId,
        /// Who it was taken for.
        identity: Option<IdentityId>,
    },
    /// A camera came, stalled or ended.
    CameraState {
        /// When.
        time: f64,
        /// Name of the camera.
        camera: String,
        /// `live`, `connecting`, `stalled`, `ended`, ...
        state: String,
        /// Why.
        detail: String,
    },
}

impl Event {
    /// The event of an assignment.
    pub fn identity(assignment: &Assignment, camera: &str, ltrb: Option<Ltrb>) -> Self {
        Event::Identity {
            time: assignment.time,
            camera: camera.to_owned(),
            tracklet: assignment.tracklet,
            identity: assignment.decision.identity(),
            decision: assignment.decision,
            previous_ids: assignment.previous_ids.clone(),
            ltrb,
        }
    }
}

/// Events that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error(
    "events.file = {path}: {source}; give it a file in a folder this user may write to, on a disk with room"
)]
pub struct EventsError {
    /// File, or `-` for standard output.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Where events go.
pub struct EventSink {
    path: PathBuf,
    out: Box<dyn Write + Send>,
}

impl EventSink {
    /// Opens the configured file for appending, or standard output if there is none.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(config: &EventsConfig, base: &Path) -> Result<Self, EventsError> {
        match &config.file {
            Some(file) => Self::append(&base.join(file)),
            None => Ok(EventSink {
                path: "-".into(),
                out: Box::new(io::stdout()),
            }),
        }
    }

    /// Opens a file for appending. A line that a crash cut short is ended first, so that it spoils no other.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn append(path: &Path) -> Result<Self, EventsError> {
        let fail = |source| EventsError {
            path: path.to_path_buf(),
            source,
        };
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path)
            .map_err(fail)?;
        if !ends_with_newline(&mut file).map_err(fail)? {
            file.write_all(b"\n").map_err(fail)?;
        }
        Ok(EventSink {
            path: path.to_path_buf(),
            out: Box::new(file),
        })
    }

    /// Writes one line, whole, and flushes it.
    ///
    /// # Errors
    /// The disk is full, the reader is gone, ...
    pub fn write(&mut self, event: &Event) -> Result<(), EventsError> {
        let written = serde_json::to_vec(event)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                self.out.write_all(&line)?;
                self.out.flush()
            });
        written.map_err(|source| EventsError {
            path: self.path.clone(),
            source,
        })
    }
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    // A pipe or a terminal has no end to look at.
    if !file.metadata()?.is_file() || file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0u8];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
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
    fn lines_are_appended_whole_even_after_a_cut_one() {
        let dir = tempfile::tempdir().unwrap();
        let config = EventsConfig {
            file: Some("events.jsonl".into()),
        };
        EventSink::open(&config, dir.path())
            .unwrap()
            .write(&event(1.0))
            .unwrap();
        let path = dir.path().join("events.jsonl");
        let mut cut = OpenOptions::new().append(true).open(&path).unwrap();
        cut.write_all(b"{\"type\":\"cam").unwrap();
        EventSink::open(&config, dir.path())
            .unwrap()
            .write(&event(2.0))
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let good: Vec<Event> = text
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect();
        assert_eq!(good, [event(1.0), event(2.0)]);
    }

    #[test]
    fn a_full_disk_and_a_missing_folder_name_the_file() {
        let mut sink = EventSink::append(Path::new("/dev/full")).unwrap();
        let error = sink.write(&event(1.0)).unwrap_err().to_string();
        assert!(error.contains("/dev/full"), "{error}");
        let nowhere = EventsConfig {
            file: Some("/proc/nowhere/events.jsonl".into()),
        };
        assert!(EventSink::open(&nowhere, Path::new(".")).is_err());
    }

    #[test]
    fn an_identity_event_reads_as_other_programs_expect() {
        let id = IdentityId(uuid::Uuid::nil());
        let assignment = Assignment {
            tracklet: TrackletId(4),
            camera: 0,
            time: 2.5,
            decision: Decision::Matched {
                identity: id,
                score: 0.5,
                margin: 0.25,
            },
            previous_ids: vec![id],
        };
        let value = serde_json::to_value(Event::identity(&assignment, "door", None)).unwrap();
        assert_eq!(value["type"], "identity");
        assert_eq!(value["decision"]["state"], "matched");
        assert_eq!(value["decision"]["score"], 0.5);
        assert_eq!(value["previous_ids"][0], id.to_string());
        assert!(value.get("box").is_none());
    }
}
