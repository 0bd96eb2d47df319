//! Pictures from cameras and files, through GStreamer.
//!
//! [`stream::Stream`] is one open source; [`step`] reads files together, every frame, in order of time, for replay;
//! [`live`] keeps cameras open, newest frame only, and opens lost ones again.
//!
//! Within: [`sources`] and [`chain`] build the elements, [`decoders`] chooses which decode, [`description`] reads back what
//! was built; [`inbox`] takes frames from GStreamer's threads and [`bus`] their complaints, [`stamp`] dates frames by
//! [`camera_clock`] and [`capture_time`], [`frame`] copies them; [`camera`] is a camera's thread, [`slots`] what the threads
//! share.

mod back_off;
mod bus;
mod camera;
mod camera_clock;
mod capture_time;
mod chain;
mod close;
mod counts;
mod decoders;
mod description;
mod frame;
mod inbox;
pub mod live;
mod packages;
mod schedule;
mod slots;
mod sources;
mod stamp;
mod status;
pub mod step;
pub mod stream;
mod v4l2;

use std::path::PathBuf;

pub use counts::Counts;
pub use live::LiveCameras;
pub use stamp::ClockHealth;
pub use status::{CameraState, OnState, Status};
pub use step::{StepFrames, open_files_in_step};
pub use stream::{Pace, Pulled, Stream};

use crate::config::{CameraConfig, Clock, Decoder};

/// A source that cannot be opened or was lost. Never holds a user name or a password.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// GStreamer does not start.
    #[error(
        "GStreamer cannot start ({0}): install gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-libav"
    )]
    Start(String),
    /// A file that isn't there, or may not be read.
    #[error("camera {camera}: cannot read {path}: {reason}; correct `source` in the configuration")]
    File {
        /// Camera.
        camera: String,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// GStreamer lacks an element.
    #[error("camera {camera}: GStreamer has no {what}: install the package {package}")]
    MissingPlugin {
        /// Camera.
        camera: String,
        /// Element or format.
        what: String,
        /// Debian's package.
        package: &'static str,
    },
    /// It can be read, but no picture comes of it.
    #[error("camera {camera}: {source_name} gives no picture: {reason}")]
    NotVideo {
        /// Camera.
        camera: String,
        /// The source.
        source_name: String,
        /// Why.
        reason: String,
    },
    /// `pipeline:` that GStreamer does not understand.
    #[error("camera {camera}: source = {source_name}: {reason}")]
    Pipeline {
        /// Camera.
        camera: String,
        /// The source.
        source_name: String,
        /// Why.
        reason: String,
    },
    /// The network's or the camera's fault: opened again later.
    #[error("camera {camera}: {source_name} is lost: {reason}")]
    Lost {
        /// Camera.
        camera: String,
        /// The source.
        source_name: String,
        /// Why.
        reason: String,
    },
    /// A wrong password: opened again later, since passwords are mended.
    #[error(
        "camera {camera}: {source_name}: the camera refuses user and password; correct `user` and `password_file`, or the source"
    )]
    Refused {
        /// Camera.
        camera: String,
        /// The source.
        source_name: String,
    },
    /// `decoder = "hardware"`, and there is none.
    #[error(
        "camera {camera}: there is no hardware decoder of {what} (looked for {looked_for}): install nvidia-l4t-gstreamer on a Jetson, gstreamer1.0-plugins-bad and the driver for NVIDIA or VA-API, or write decoder = \"auto\""
    )]
    NoHardware {
        /// Camera.
        camera: String,
        /// The encoding.
        what: String,
        /// Elements.
        looked_for: String,
    },
    /// Connected, but silent.
    #[error(
        "camera {camera}: {source_name} has sent no frame for {idle_secs:.1} s, limit {limit_secs:.1} s"
    )]
    Stalled {
        /// Camera.
        camera: String,
        /// The source.
        source_name: String,
        /// Seconds without a frame.
        idle_secs: f64,
        /// Seconds allowed.
        limit_secs: f64,
    },
    /// A live source where recorded ones are wanted.
    #[error(
        "camera {camera}: {source_name} is live; replay reads recorded files: use `reid-edge run`, or name a file"
    )]
    LiveInReplay {
        /// Camera.
        camera: String,
        /// The source.
        source_name: String,
    },
}

impl IngestError {
    /// Whether trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        !matches!(
            self,
            IngestError::Lost { .. } | IngestError::Stalled { .. } | IngestError::Refused { .. }
        )
    }
}

/// Starts GStreamer, once per process.
///
/// # Errors
/// If its libraries or registry are unusable.
pub fn start() -> Result<(), IngestError> {
    gstreamer::init().map_err(|e| IngestError::Start(e.to_string()))
}

/// What may decode a camera's stream.
fn preference(camera: &CameraConfig) -> decoders::Preference {
    match camera.decoder {
        Decoder::Auto => decoders::Preference::Auto,
        Decoder::Software => decoders::Preference::Software,
        Decoder::Hardware => decoders::Preference::Hardware,
    }
}

/// Whether frames are dated at arrival although the camera may say when it took them.
fn arrival_only(camera: &CameraConfig) -> bool {
    camera.clock == Clock::Arrival
}

/// `text` without what stands between `://` and `@`.
fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let end = tail
            .find(|c: char| c.is_whitespace() || "/\"'".contains(c))
            .unwrap_or(tail.len());
        match tail[..end].rfind('@') {
            Some(at) => {
                out.push_str("***");
                rest = &tail[at..];
            }
            None => rest = tail,
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_cut_out_of_messages() {
        assert_eq!(
            redact("open rtsp://bob:p@w@cam:5/x, then \"rtsps://cam\" or http://u:p@h"),
            "open rtsp://***@cam:5/x, then \"rtsps://cam\" or http://***@h"
        );
    }
}
