//! When a camera says that it took a picture.
//!
//! An RTSP camera sends RTCP sender reports now and then: "this RTP time stamp is that wall-clock time". GStreamer 1.22
//! and later can attach the result to buffers (`GstReferenceTimestampMeta`); older ones, as on every Jetson, cannot, but
//! the jitter buffer tells of each report by its signal `handle-sync`, and that is enough: report and buffer meet in
//! running time. Both are read here; the attached one wins, since it may come from a better clock than the report.

use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gstreamer::prelude::*;

/// Seconds from 1900, NTP's start, to 1970.
const NTP_TO_UNIX_SECS: f64 = 2_208_988_800.0;
/// Seconds of an NTP era, and parts of a second in an NTP fraction: 2^32.
const ERA_SECS: f64 = 4_294_967_296.0;
/// RTCP packet type of a sender report.
const SENDER_REPORT: u8 = 200;

/// The newest sender report: the camera's Unix time at running time 0, seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct SenderReports(Arc<Mutex<Option<f64>>>);

impl SenderReports {
    /// Listens to every jitter buffer that comes to be in `pipeline`.
    pub(super) fn watch(&self, pipeline: &gst::Pipeline) {
        let reports = self.clone();
        pipeline.connect_deep_element_added(move |_, _, element| {
            let jitter_buffer = element
                .factory()
                .is_some_and(|f| f.name() == "rtpjitterbuffer");
            if !jitter_buffer {
                return;
            }
            let reports = reports.clone();
            element.connect("handle-sync", false, move |args| {
                if let Some(Ok(s)) = args.get(1).map(|v| v.get::<gst::Structure>())
                    && let Some(zero) = unix_at_running_zero(&s)
                {
                    *reports.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(zero);
                }
                None
            });
        });
    }

    /// The camera's Unix time of a sample, seconds.
    pub(super) fn captured(&self, sample: &gst::Sample) -> Option<f64> {
        let buffer = sample.buffer()?;
        if let Some(time) = attached(buffer) {
            return Some(time);
        }
        let zero = (*self.0.lock().unwrap_or_else(|e| e.into_inner()))?;
        let running = sample
            .segment()?
            .downcast_ref::<gst::ClockTime>()?
            .to_running_time(buffer.pts()?)?;
        Some(zero + seconds(running))
    }
}

fn seconds(time: gst::ClockTime) -> f64 {
    time.nseconds() as f64 / 1e9
}

/// Unix seconds attached to a buffer.
fn attached(buffer: &gst::BufferRef) -> Option<f64> {
    buffer
        .iter_meta::<gst::ReferenceTimestampMeta>()
        .find_map(
            |meta| match meta.reference().structure(0).map(|s| s.name().as_str()) {
                Some("timestamp/x-ntp") => Some(seconds(meta.timestamp()) - NTP_TO_UNIX_SECS),
                Some("timestamp/x-unix") => Some(seconds(meta.timestamp())),
                _ => None,
            },
        )
}

/// Evaluates the jitter buffer's "application/x-rtp-sync".
fn unix_at_running_zero(sync: &gst::StructureRef) -> Option<f64> {
    let base_rtp = sync.get::<u64>("base-rtptime").ok()?;
    let base_time = sync.get::<u64>("base-time").ok()?;
    let rate = sync.get::<u32>("clock-rate").ok().filter(|r| *r > 0)?;
    let report_rtp = sync.get::<u64>("sr-ext-rtptime").ok()?;
    let report = sync.get::<gst::Buffer>("sr-buffer").ok()?;
    let unix = sender_report_unix_secs(&report.map_readable().ok()?)?;
    if base_rtp == u64::MAX || base_time == u64::MAX || report_rtp == u64::MAX {
        return None;
    }
    let since_base = (report_rtp as i64).wrapping_sub(base_rtp as i64) as f64 / f64::from(rate);
    Some(unix - (base_time as f64 / 1e9 + since_base))
}

/// Wall-clock time of the sender report that an RTCP packet begins with (RFC 3550, 6.4.1).
fn sender_report_unix_secs(packet: &[u8]) -> Option<f64> {
    let word = |at: usize| -> Option<u32> {
        let bytes = packet.get(at..at + 4)?;
        Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let version = packet.first()? >> 6;
    if version != 2 || *packet.get(1)? != SENDER_REPORT {
        return None;
    }
    let (whole, fraction) = (word(8)?, word(12)?);
    // A sender without a clock says 0.
    if whole == 0 {
        return None;
    }
    // The first bit tells the eras apart: from 2036 on it is 0 (RFC 4330, 3).
    let era = if whole >> 31 == 1 { 0.0 } else { ERA_SECS };
    Some(era + f64::from(whole) - NTP_TO_UNIX_SECS + f64::from(fraction) / ERA_SECS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A report of Unix second 1.7e9 and a half.
    fn report() -> Vec<u8> {
        let mut packet = vec![0x80, SENDER_REPORT, 0, 6, 1, 2, 3, 4];
        packet.extend((1_700_000_000u32.wrapping_add(2_208_988_800)).to_be_bytes());
        packet.extend(0x8000_0000u32.to_be_bytes());
        packet.extend([0; 12]);
        packet
    }

    #[test]
    fn a_report_is_read_and_rubbish_is_not() {
        assert_eq!(sender_report_unix_secs(&report()), Some(1_700_000_000.5));
        let mut other = report();
        other[1] = 201;
        assert_eq!(sender_report_unix_secs(&other), None);
        let mut later = report();
        later[8..12].copy_from_slice(&[0, 0, 0, 1]);
        // 2036-02-07 06:28:17 UTC.
        assert_eq!(sender_report_unix_secs(&later), Some(2_085_978_497.5));
        let mut zero = report();
        zero[8..12].fill(0);
        assert_eq!(sender_report_unix_secs(&zero), None);
        for length in 0..16 {
            assert_eq!(sender_report_unix_secs(&report()[..length]), None);
        }
    }

    #[test]
    fn report_and_buffer_meet_in_running_time() {
        gst::init().unwrap();
        let sync = |sr: u64| {
            gst::Structure::builder("application/x-rtp-sync")
                .field("base-rtptime", 90_000u64)
                .field("base-time", 2_000_000_000u64)
                .field("clock-rate", 90_000u32)
                .field("sr-ext-rtptime", sr)
                .field("sr-buffer", gst::Buffer::from_slice(report()))
                .build()
        };
        // Three seconds of RTP time after the base, so at running time 5.
        let zero = unix_at_running_zero(&sync(360_000)).unwrap();
        assert!((zero - 1_699_999_995.5).abs() < 1e-6, "{zero}");
        // A report of just before the base.
        let zero = unix_at_running_zero(&sync(45_000)).unwrap();
        assert!((zero - 1_699_999_999.0).abs() < 1e-6, "{zero}");
        assert_eq!(unix_at_running_zero(&sync(u64::MAX)), None);
    }

    #[test]
    fn an_attached_time_wins() {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::with_size(1).unwrap();
        let caps = gst::Caps::builder("timestamp/x-ntp").build();
        let time = gst::ClockTime::from_mseconds(2_208_988_800_000 + 1_700_000_000_250);
        gst::ReferenceTimestampMeta::add(
            buffer.get_mut().unwrap(),
            &caps,
            time,
            gst::ClockTime::NONE,
        );
        let sample = gst::Sample::builder().buffer(&buffer).build();
        let captured = SenderReports::default().captured(&sample).unwrap();
        assert!((captured - 1_700_000_000.25).abs() < 1e-6, "{captured}");
    }
}
