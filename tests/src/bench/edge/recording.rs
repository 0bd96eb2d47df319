//! A recording to send as a camera would: 1280 x 720, H.264, ten frames a second, every frame with its number burnt in.

use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::barcode;

/// Width of a frame.
pub const WIDTH: usize = 1280;
/// Frames a second.
pub const FPS: u64 = 10;

/// An encoded frame; its number is its place.
pub struct Unit {
    /// H.264 as a byte stream, one access unit.
    pub bytes: Arc<[u8]>,
    /// Whether decoding can begin here.
    pub key: bool,
}

/// Makes the recording from a 768 x 576 one: the middle three quarters of its height, scaled up. Sixteen by nine of four by
/// three would be wide people.
///
/// # Errors
/// If GStreamer lacks an element, or the source cannot be read.
pub fn make(from: &Path, to: &Path) -> Result<()> {
    gst::init()?;
    let partial = to.with_extension("partial.mp4");
    let pipeline = gst::parse::launch(&format!(
        "filesrc location={from:?} ! decodebin ! videoconvert ! videocrop top=72 bottom=72 ! videoscale \
         ! video/x-raw,format=I420,width={WIDTH},height=720,pixel-aspect-ratio=1/1 ! identity name=burn \
         ! openh264enc gop-size={FPS} bitrate=4000000 complexity=high ! h264parse ! mp4mux ! filesink location={partial:?}"
    ))
    .context("GStreamer cannot make the 720p recording")?;
    let bin = pipeline
        .downcast_ref::<gst::Bin>()
        .context("no bin of elements")?;
    let burn = bin.by_name("burn").context("no element `burn`")?;
    let pad = burn.static_pad("src").context("no pad to burn at")?;
    let (count, unburnt) = (Mutex::new(0u16), Arc::new(Mutex::new(0)));
    let missed = unburnt.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let mut number = count.lock().unwrap_or_else(|e| e.into_inner());
        let written = info.buffer_mut().and_then(|buffer| {
            // Rows of a frame of this width are not padded: it is a multiple of 4.
            let mut map = buffer.make_mut().map_writable().ok()?;
            barcode::write(&mut map, WIDTH, *number);
            Some(())
        });
        if written.is_none() {
            *missed.lock().unwrap_or_else(|e| e.into_inner()) += 1;
        }
        *number = number.wrapping_add(1);
        gst::PadProbeReturn::Ok
    });
    to_end(&pipeline).with_context(|| format!("making {}", to.display()))?;
    let missed = *unburnt.lock().unwrap_or_else(|e| e.into_inner());
    ensure!(missed == 0, "{missed} frames could not be numbered");
    std::fs::rename(&partial, to).with_context(|| to.display().to_string())
}

/// Plays a pipeline to its end.
fn to_end(pipeline: &gst::Element) -> Result<()> {
    let bus = pipeline.bus().context("a pipeline without a bus")?;
    pipeline.set_state(gst::State::Playing)?;
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(600), &wanted);
    pipeline.set_state(gst::State::Null)?;
    match message.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Eos(_)) => Ok(()),
        Some(gst::MessageView::Error(e)) => bail!("{} ({:?})", e.error(), e.debug()),
        _ => bail!("it did not end within ten minutes"),
    }
}

/// Reads the encoded frames.
///
/// # Errors
/// If it is no recording of [`make`].
pub fn read(path: &Path) -> Result<Vec<Unit>> {
    gst::init()?;
    let pipeline = gst::parse::launch(&format!(
        "filesrc location={path:?} ! qtdemux ! h264parse \
         ! video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=sink sync=false"
    ))?;
    let sink = pipeline
        .downcast_ref::<gst::Bin>()
        .and_then(|bin| bin.by_name("sink"))
        .and_then(|sink| sink.downcast::<gst_app::AppSink>().ok())
        .context("no appsink")?;
    pipeline.set_state(gst::State::Playing)?;
    let mut units = Vec::new();
    while let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_seconds(10)) {
        let Some(buffer) = sample.buffer() else {
            continue;
        };
        let map = buffer.map_readable()?;
        units.push(Unit {
            bytes: Arc::from(map.as_slice()),
            key: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
        });
    }
    pipeline.set_state(gst::State::Null)?;
    ensure!(
        units.first().is_some_and(|u| u.key) && u16::try_from(units.len()).is_ok(),
        "{}: not a recording of the bench ({} frames)",
        path.display(),
        units.len()
    );
    Ok(units)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_survive_the_codec() {
        gst::init().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a.mp4"), dir.path().join("b.mp4"));
        let source = format!(
            "videotestsrc num-buffers=25 pattern=ball ! video/x-raw,width=768,height=576,framerate=10/1 ! videoconvert ! openh264enc ! h264parse ! mp4mux ! filesink location={from:?}"
        );
        to_end(&gst::parse::launch(&source).unwrap()).unwrap();
        make(&from, &to).unwrap();
        let units = read(&to).unwrap();
        assert_eq!(units.len(), 25);
        let keys: Vec<usize> = (0..25).filter(|&i| units[i].key).collect();
        assert_eq!(keys, [0, 10, 20]);
        let pipeline = gst::parse::launch(&format!(
            "filesrc location={to:?} ! decodebin ! videoconvert ! video/x-raw,format=GRAY8 ! appsink name=sink sync=false"
        ))
        .unwrap();
        let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
        let sink: gst_app::AppSink = bin.by_name("sink").unwrap().downcast().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let mut numbers = Vec::new();
        while let Ok(sample) = sink.pull_sample() {
            let map = sample.buffer().unwrap().map_readable().unwrap();
            numbers.push(barcode::read(&map, WIDTH));
        }
        pipeline.set_state(gst::State::Null).unwrap();
        assert_eq!(numbers, (0..25).map(Some).collect::<Vec<_>>());
    }
}
