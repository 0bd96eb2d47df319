//! What several tests need: a recording with somebody in it, and a visitor of the page.
#![allow(clippy::unwrap_used, dead_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;

/// A person of stripes who walks over a patterned wall and back, 320 x 240, H.264, 10 frames a second.
pub fn walker(path: &Path, frames: u32) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(&format!(
        "videomixer name=m sink_0::zorder=0 sink_1::zorder=1 ! videoconvert ! openh264enc ! h264parse ! mp4mux ! filesink location={} \
         videotestsrc num-buffers={frames} pattern=pinwheel ! video/x-raw,width=320,height=240,framerate=10/1 ! m.sink_0 \
         videotestsrc num-buffers={frames} pattern=checkers-8 ! video/x-raw,width=36,height=90,framerate=10/1 ! m.sink_1",
        path.display()
    ))
    .unwrap();
    let bin = pipeline.clone().downcast::<gst::Bin>().unwrap();
    let pad = bin.by_name("m").unwrap().static_pad("sink_1").unwrap();
    pad.set_property("xpos", -40i32);
    pad.set_property("ypos", 100i32);
    let moving = pad.clone();
    let half = frames as i32 / 2;
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
            let frame = buffer.pts().map_or(0, |t| t.mseconds() / 100) as i32;
            let way = if frame < half {
                frame
            } else {
                2 * half - frame
            };
            moving.set_property("xpos", -40 + way * 6);
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let end = [gst::MessageType::Eos, gst::MessageType::Error];
    let bus = pipeline.bus().unwrap();
    let wait = gst::ClockTime::from_seconds(60);
    let message = bus.timed_pop_filtered(wait, &end).unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(
        matches!(message.view(), gst::MessageView::Eos(_)),
        "{message:?}"
    );
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Status and body of a request with a JSON body.
pub fn ask(at: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}
