//! Whether the server's RTCP says when a frame was sent: the times a client derives from it, beside the server's own log.
//!
//! `reid-edge run` reports the time from capture to event by such times, so this is what makes its figure comparable with
//! the peer's, which is read off the frames themselves. Here they are worked out from the packets alone: a sender report
//! pairs a wall time (NTP) with a time of the stream, and every packet carries its time of the stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::barcode;
use super::recording::WIDTH;
use super::server::Server;

/// Seconds from NTP's epoch to Unix's.
const NTP_TO_UNIX: f64 = 2_208_988_800.0;
/// Ticks a second of a video stream's times.
const CLOCK_RATE: f64 = 90_000.0;
/// Frames to compare.
const ENOUGH: usize = 30;
/// The first report of a sender comes within some five seconds.
const PATIENCE: Duration = Duration::from_secs(25);

/// Where a packet stands in its stream: sender and time of the stream.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Packet {
    sender: u32,
    ticks: u32,
}

impl Packet {
    /// From the fixed header of RTP.
    fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        Some(Packet {
            ticks: word(4)?,
            sender: word(8)?,
        })
    }
}

/// A sender report: this wall time is that time of the stream.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Report {
    /// Seconds since 1900 and their fraction, 32 bits each.
    ntp: u64,
    ticks: u32,
}

impl Report {
    /// Unix time at `ticks`. Ticks run over; what is asked for is near the report.
    fn unix(&self, ticks: u32) -> f64 {
        let since = f64::from(ticks.wrapping_sub(self.ticks) as i32) / CLOCK_RATE;
        self.ntp as f64 / 2f64.powi(32) - NTP_TO_UNIX + since
    }
}

/// Numbers of frames of camera 0 with the Unix time that RTCP gives them.
///
/// # Errors
/// If no report or no frame comes.
pub fn times(server: &Server) -> Result<Vec<(u64, f64)>> {
    gst::init()?;
    let pipeline = gst::parse::launch(&format!(
        "rtspsrc name=src location={} protocols=tcp latency=0 ! rtph264depay name=depay ! h264parse ! avdec_h264 \
         ! videoconvert ! video/x-raw,format=GRAY8 ! appsink name=sink sync=false",
        server.url(0)
    ))?;
    let element = |name: &str| {
        let bin = pipeline.downcast_ref::<gst::Bin>();
        bin.and_then(|b| b.by_name(name)).context("no element")
    };
    let manager: Arc<Mutex<Option<gst::Element>>> = Arc::default();
    let slot = manager.clone();
    element("src")?.connect("new-manager", false, move |args| {
        let manager = args.get(1).and_then(|v| v.get::<gst::Element>().ok());
        *slot.lock().unwrap_or_else(|e| e.into_inner()) = manager;
        None
    });
    // Frames keep their position in the stream on the way through the decoder; packets are found again by it.
    let packets: Arc<Mutex<HashMap<u64, Packet>>> = Arc::default();
    let seen = packets.clone();
    let depay = element("depay")?.static_pad("sink").context("no pad")?;
    depay.add_probe(
        gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST,
        move |_, info| {
            let mut look = |buffer: &gst::BufferRef| {
                let packet = buffer.map_readable().ok().and_then(|m| Packet::read(&m));
                if let (Some(packet), Some(pts)) = (packet, buffer.pts()) {
                    let mut seen = seen.lock().unwrap_or_else(|e| e.into_inner());
                    seen.insert(pts.nseconds(), packet);
                }
            };
            if let Some(buffer) = info.buffer() {
                look(buffer);
            }
            if let Some(list) = info.buffer_list() {
                list.iter().for_each(&mut look);
            }
            gst::PadProbeReturn::Ok
        },
    );
    let sink = element("sink")?.downcast::<gst_app::AppSink>();
    let sink = sink.map_err(|_| anyhow::anyhow!("no appsink"))?;
    pipeline.set_state(gst::State::Playing)?;
    let began = Instant::now();
    let mut found = Vec::new();
    while found.len() < ENOUGH && began.elapsed() < PATIENCE {
        let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_seconds(1)) else {
            continue;
        };
        let Some(buffer) = sample.buffer() else {
            continue;
        };
        let number = barcode::read(&buffer.map_readable()?, WIDTH);
        let packets = packets.lock().unwrap_or_else(|e| e.into_inner());
        let packet = buffer.pts().and_then(|p| packets.get(&p.nseconds()));
        if let (Some(number), Some(packet)) = (number, packet) {
            let manager = manager.lock().unwrap_or_else(|e| e.into_inner());
            if let Some(report) = manager.as_ref().and_then(|m| report(m, packet.sender)) {
                found.push((u64::from(number), report.unix(packet.ticks)));
            }
        }
    }
    pipeline.set_state(gst::State::Null)?;
    ensure!(
        found.len() >= ENOUGH,
        "only {} frames within {} s had a time by RTCP",
        found.len(),
        PATIENCE.as_secs()
    );
    Ok(found)
}

/// The newest report of a sender, from the manager of the RTP sessions.
fn report(manager: &gst::Element, sender: u32) -> Option<Report> {
    let session = manager.emit_by_name::<Option<glib::Object>>("get-internal-session", &[&0u32])?;
    let source = session.emit_by_name::<Option<glib::Object>>("get-source-by-ssrc", &[&sender])?;
    let stats = source.property::<gst::Structure>("stats");
    stats.get::<bool>("have-sr").ok().filter(|have| *have)?;
    Some(Report {
        ntp: stats.get("sr-ntptime").ok()?,
        ticks: stats.get("sr-rtptime").ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_gives_packets_before_and_after_it_their_time_and_ticks_may_run_over() {
        let report = Report {
            ntp: ((2_208_988_800u64 + 1_700_000_000) << 32) | 0x8000_0000,
            ticks: u32::MAX - 9_000,
        };
        for (ticks, want) in [
            (u32::MAX - 9_000, 1_700_000_000.5),
            (u32::MAX - 18_000, 1_700_000_000.4),
            (8_999, 1_700_000_000.7),
        ] {
            assert!((report.unix(ticks) - want).abs() < 1e-4, "{ticks}");
        }
        let mut header = [0u8; 12];
        header[4..8].copy_from_slice(&7u32.to_be_bytes());
        header[8..].copy_from_slice(&9u32.to_be_bytes());
        let packet = Packet {
            sender: 9,
            ticks: 7,
        };
        assert_eq!(Packet::read(&header), Some(packet));
        assert_eq!(Packet::read(&header[..11]), None);
    }
}
