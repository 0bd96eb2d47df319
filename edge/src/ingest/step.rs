//! Recorded cameras read together: every frame, in order of time, the same on every run.

use std::time::{Duration, Instant};

use super::{IngestError, Pace, Pulled, Stream};
use crate::config::{EdgeConfig, Source};
use crate::types::Frame;

/// Frames of different cameras closer than this belong to one step, seconds.
const TOGETHER_SECS: f64 = 0.02;
/// A file that gives nothing for so long never will.
const SILENCE: Duration = Duration::from_secs(20);

/// Opens all cameras of a configuration, which must be files (or `pipeline:` sources that end).
///
/// # Errors
/// [`IngestError`] of the first camera that cannot be opened, or that is live.
pub fn open_files_in_step(config: &EdgeConfig) -> Result<StepFrames, IngestError> {
    let mut cameras = Vec::new();
    for (index, camera) in config.cameras.iter().enumerate() {
        if !matches!(camera.source(), Source::File(_) | Source::Pipeline(_)) {
            return Err(IngestError::LiveInReplay {
                camera: camera.name.clone(),
                source_name: camera.source().to_string(),
            });
        }
        cameras.push(Reader {
            name: camera.name.clone(),
            source_name: camera.source().to_string(),
            stream: Some(Stream::open(index, camera, Pace::Fast)?),
            ahead: None,
            warning: None,
        });
    }
    Ok(StepFrames {
        cameras,
        paced: None,
        failed: false,
    })
}

struct Reader {
    name: String,
    source_name: String,
    stream: Option<Stream>,
    ahead: Option<Frame>,
    warning: Option<String>,
}

impl Reader {
    fn fill(&mut self) -> Result<(), IngestError> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        if self.ahead.is_some() {
            return Ok(());
        }
        match stream.next(SILENCE)? {
            Pulled::Frame(frame) => self.ahead = Some(frame),
            Pulled::End => {
                self.warning = stream.warning().map(str::to_owned);
                self.stream = None;
            }
            Pulled::Nothing => {
                return Err(IngestError::Stalled {
                    camera: self.name.clone(),
                    source_name: self.source_name.clone(),
                    idle_secs: SILENCE.as_secs_f64(),
                    limit_secs: SILENCE.as_secs_f64(),
                });
            }
        }
        Ok(())
    }
}

/// Steps of frames: at most one per camera, all at about the same time, steps in order of time.
pub struct StepFrames {
    cameras: Vec<Reader>,
    /// Start on the wall clock and the time of the first step.
    paced: Option<Option<(Instant, f64)>>,
    failed: bool,
}

impl StepFrames {
    /// Gives steps no earlier than they were recorded. Still every frame: a slow analysis falls behind.
    pub fn real_time(mut self) -> Self {
        self.paced = Some(None);
        self
    }

    /// (camera, what was wrong) of files that could be read all the same.
    pub fn warnings(&self) -> Vec<(String, String)> {
        self.cameras
            .iter()
            .filter_map(|c| Some((c.name.clone(), c.warning.clone()?)))
            .collect()
    }
}

impl Iterator for StepFrames {
    type Item = Result<Vec<Frame>, IngestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        for camera in &mut self.cameras {
            if let Err(e) = camera.fill() {
                self.failed = true;
                return Some(Err(e));
            }
        }
        let first = self
            .cameras
            .iter()
            .filter_map(|c| c.ahead.as_ref().map(|f| f.time))
            .min_by(f64::total_cmp)?;
        if let Some(start) = &mut self.paced {
            let (wall, zero) = *start.get_or_insert_with(|| (Instant::now(), first));
            let due = wall + Duration::from_secs_f64((first - zero).max(0.0));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let step = self
            .cameras
            .iter_mut()
            .filter_map(|c| c.ahead.take_if(|f| f.time < first + TOGETHER_SECS))
            .collect();
        Some(Ok(step))
    }
}
