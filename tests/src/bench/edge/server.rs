//! Cameras on loopback: an RTSP server that sends the bench's recording in real time and writes down when each frame left.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;
use serde_json::{Value, json};

use super::child;
use super::recording::{self, FPS, Unit};
use super::site::Site;

/// Serves until standard input ends, so that no server outlives its bench. The port is the first line of output.
///
/// # Errors
/// If the recording cannot be read, or GStreamer cannot serve it.
pub fn serve(video: &Path, cameras: usize, log: &Path) -> Result<Value> {
    let units: Arc<[Unit]> = recording::read(video)?.into();
    let log = File::create(log).with_context(|| log.display().to_string())?;
    let log = Arc::new(Mutex::new(log));
    let server = rtsp::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service("0");
    let mounts = server.mount_points().context("no mount points")?;
    let epoch = Instant::now();
    for camera in 0..cameras {
        let factory = rtsp::RTSPMediaFactory::new();
        factory.set_launch(
            "( appsrc name=src format=time is-live=true do-timestamp=true caps=video/x-h264,stream-format=byte-stream,alignment=au,width=1280,height=720,framerate=10/1 ! rtph264pay name=pay0 pt=96 config-interval=-1 )",
        );
        factory.set_shared(true);
        let (units, log) = (units.clone(), log.clone());
        factory.connect_media_configure(move |_, media| {
            if feed(media, camera, cameras, &units, &log, epoch).is_none() {
                eprintln!("camera {camera}: its elements are missing");
            }
        });
        mounts.add_factory(&format!("/cam{camera}"), factory);
    }
    server.attach(None)?;
    println!("{}", json!({"port": server.bound_port()}));
    std::io::stdout().flush()?;
    let running = glib::MainLoop::new(None, false);
    let end = running.clone();
    std::thread::spawn(move || {
        let mut nothing = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut nothing);
        end.quit();
    });
    running.run();
    Ok(json!({"ended": true}))
}

/// Frames into the media of a camera, from the first that is asked for until it is gone.
fn feed(
    media: &rtsp::RTSPMedia,
    camera: usize,
    cameras: usize,
    units: &Arc<[Unit]>,
    log: &Arc<Mutex<File>>,
    epoch: Instant,
) -> Option<()> {
    let bin = media.element().downcast::<gst::Bin>().ok()?;
    media.connect_prepared(tell_capture_times);
    let pay = bin.by_name("pay0")?.static_pad("sink")?;
    let log = log.clone();
    pay.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            let line = format!("{camera} {} {:.6}\n", buffer.offset(), unix_now());
            // A full disk shows itself where the log is read.
            let _ = log
                .lock()
                .unwrap_or_else(|e| e.into_inner())
                .write_all(line.as_bytes());
        }
        gst::PadProbeReturn::Ok
    });
    let source = bin.by_name("src")?.downcast::<gst_app::AppSrc>().ok()?;
    let (units, started) = (units.clone(), Once::new());
    source.set_callbacks(
        gst_app::AppSrcCallbacks::builder()
            .need_data(move |source, _| {
                started.call_once(|| {
                    let (weak, units) = (source.downgrade(), units.clone());
                    std::thread::spawn(move || send(&weak, camera, cameras, &units, epoch));
                });
            })
            .build(),
    );
    Some(())
}

/// Sender reports say when a frame was taken, as a camera's do. The server's own way, when it was sent, is wrong by up to a
/// second for the frames that waited for the connection, and stays so until the next report.
fn tell_capture_times(media: &rtsp::RTSPMedia) {
    let parent = media.element().parent().and_downcast::<gst::Bin>();
    let managers = parent.into_iter().flat_map(|p| {
        p.iterate_recurse()
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    });
    for element in managers {
        if element.factory().is_some_and(|f| f.name() == "rtpbin") {
            element.set_property("rtcp-sync-send-time", false);
        }
    }
}

/// A camera's clock: frame after frame at its time, whatever becomes of them. Cameras start at different places of the
/// recording and at different moments of a frame's time, as real ones do.
fn send(
    source: &glib::WeakRef<gst_app::AppSrc>,
    camera: usize,
    cameras: usize,
    units: &[Unit],
    epoch: Instant,
) {
    let period = Duration::from_secs(1) / FPS as u32;
    let phase = period * camera as u32 / cameras.max(1) as u32;
    let first = units.len() * camera / cameras.max(1);
    let mut tick = (epoch.elapsed().as_millis() / period.as_millis()) as u32 + 1;
    let mut started = false;
    loop {
        let due = epoch + phase + period * tick;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let number = (first + tick as usize) % units.len();
        tick += 1;
        let unit = &units[number];
        // A camera begins with a picture that can be decoded.
        started |= unit.key;
        if !started {
            continue;
        }
        let mut buffer = gst::Buffer::from_slice(unit.bytes.clone());
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_offset(number as u64);
        }
        let taken = source.upgrade().map(|s| s.push_buffer(buffer));
        if !matches!(taken, Some(Ok(_))) {
            return;
        }
    }
}

/// Unix time, seconds.
pub fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

/// A running server, ended when dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Server {
    /// Starts one.
    ///
    /// # Errors
    /// If it does not say its port.
    pub fn start(site: &Site, video: &Path, cameras: usize, log: &Path) -> Result<Self> {
        let count = cameras.to_string();
        let mut command = site.command("reid-bench")?;
        command
            .args(["measure-edge", "serve"])
            .args([video, Path::new(&count), log]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the RTSP server")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let said: Option<Value> = serde_json::from_str(&line).ok();
        let port = said.and_then(|v| u16::try_from(v["port"].as_u64()?).ok());
        let mut server = Server { child, port: 0 };
        server.port = port.context("the RTSP server did not start")?;
        Ok(server)
    }

    /// Address of a camera.
    pub fn url(&self, camera: usize) -> String {
        format!("rtsp://127.0.0.1:{}/cam{camera}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        child::end(&mut self.child);
    }
}

/// When frames left: by camera and number, Unix times in order.
#[derive(Debug, Default)]
pub struct Sent(std::collections::HashMap<(usize, u64), Vec<f64>>);

impl Sent {
    /// Reads a server's log.
    ///
    /// # Errors
    /// If it is none.
    pub fn read(log: &Path) -> Result<Self> {
        let text = fs::read_to_string(log).with_context(|| log.display().to_string())?;
        Self::parse(&text).with_context(|| log.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut sent = Sent::default();
        for line in text.lines() {
            let [camera, number, time] = fields(line)?;
            sent.0
                .entry((camera as usize, number as u64))
                .or_default()
                .push(time);
        }
        Ok(sent)
    }

    /// The last time before `time` at which a frame with this number left this camera.
    pub fn before(&self, camera: usize, number: u64, time: f64) -> Option<f64> {
        let times = self.0.get(&(camera, number))?;
        times.iter().copied().rfind(|t| *t <= time)
    }

    /// The time nearest to `time` at which a frame with this number left this camera.
    pub fn nearest(&self, camera: usize, number: u64, time: f64) -> Option<f64> {
        let times = self.0.get(&(camera, number))?;
        let distance = |t: &f64| (t - time).abs();
        let nearest = times.iter().copied();
        nearest.min_by(|a, b| distance(a).total_cmp(&distance(b)))
    }

    /// Frames that a camera sent from `from` to `to`.
    pub fn count(&self, camera: usize, from: f64, to: f64) -> usize {
        let own = self.0.iter().filter(|((c, _), _)| *c == camera);
        own.flat_map(|(_, times)| times)
            .filter(|t| (from..=to).contains(*t))
            .count()
    }
}

/// The numbers of a line.
///
/// # Errors
/// If there are fewer than wanted, or something else.
pub fn fields<const N: usize>(line: &str) -> Result<[f64; N]> {
    let mut out = [0.0; N];
    let mut words = line.split_whitespace();
    for slot in &mut out {
        let value = words.next().and_then(|w| w.parse().ok());
        *slot = value.with_context(|| format!("{line:?} is not {N} numbers"))?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_looped_recording_is_matched_with_its_last_pass() {
        let sent = Sent::parse("0 5 100.0\n1 5 100.5\n0 6 100.1\n0 5 180.0\n").unwrap();
        assert_eq!(sent.before(0, 5, 100.2), Some(100.0));
        assert_eq!(sent.before(0, 5, 200.0), Some(180.0));
        assert_eq!(sent.before(0, 5, 99.0), None);
        assert_eq!(sent.before(2, 5, 200.0), None);
        assert_eq!(sent.nearest(0, 5, 99.0), Some(100.0));
        assert_eq!(sent.nearest(0, 5, 150.0), Some(180.0));
        assert_eq!(sent.count(0, 100.05, 180.0), 2);
        assert!(Sent::parse("0 5\n").is_err());
    }
}
