//! Sources as they are met in the field: an RTSP server that comes and goes, files that are cut, odd picture widths.
#![allow(clippy::unwrap_used)]

mod servers;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reid_edge::config::EdgeConfig;
use reid_edge::ingest::{CameraState, IngestError, Pace, Pulled, Stream, open_files_in_step};
use reid_edge::types::Frame;
use servers::{Auth, BALL, RtspServer, Watched, config, make, saw};

#[test]
#[ignore = "a server that the other tests start"]
fn serve() {
    servers::serve();
}

fn source(path: &Path) -> String {
    format!("source = \"{}\"", path.display())
}

fn video(dir: &Path, name: &str, frames: u32, fps: u32, tail: &str) -> PathBuf {
    let path = dir.join(name);
    make(&format!(
        "videotestsrc num-buffers={frames} pattern=ball ! video/x-raw,width=160,height=120,framerate={fps}/1 ! {tail} ! filesink location={}",
        path.display()
    ));
    path
}

const MKV: &str = "jpegenc ! matroskamux";
const MP4: &str = "videoconvert ! openh264enc ! h264parse ! mp4mux";

fn all(stream: &mut Stream) -> Result<Vec<Frame>, IngestError> {
    let mut frames = Vec::new();
    loop {
        match stream.next(Duration::from_secs(10))? {
            Pulled::Frame(f) => frames.push(f),
            Pulled::End => return Ok(frames),
            Pulled::Nothing => panic!("nothing for 10 s"),
        }
    }
}

fn open(config: &EdgeConfig) -> Result<Stream, IngestError> {
    Stream::open(0, &config.cameras[0], Pace::Fast)
}

#[test]
fn frames_of_a_file_are_numbered_and_timed_and_fps_keeps_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let path = video(dir.path(), "a.mp4", 25, 10, MP4);
    let frames = all(&mut open(&config(dir.path(), &[source(&path)])).unwrap()).unwrap();
    assert_eq!(frames.len(), 25);
    for (i, f) in frames.iter().enumerate() {
        assert_eq!(f.number, i as u64 + 1);
        assert!(
            (f.time - 0.1 * i as f64).abs() < 2e-3,
            "frame {i} at {}",
            f.time
        );
        assert_eq!(f.picture.size(), (160, 120));
    }
    let body = format!("{}\nfps = 4.0", source(&path));
    let numbers: Vec<u64> = all(&mut open(&config(dir.path(), &[body])).unwrap())
        .unwrap()
        .iter()
        .map(|f| f.number)
        .collect();
    assert_eq!(numbers, [1, 4, 6, 9, 11, 14, 16, 19, 21, 24]);
}

#[test]
fn padded_rows_are_not_sheared() {
    let dir = tempfile::tempdir().unwrap();
    // 50 pixels are 150 bytes, and GStreamer pads rows to 152.
    let body = "source = \"pipeline:videotestsrc num-buffers=3 pattern=smpte ! video/x-raw,format=RGB,width=50,height=30,framerate=10/1\"";
    let frames = all(&mut open(&config(dir.path(), &[body.to_owned()])).unwrap()).unwrap();
    assert_eq!(frames.len(), 3);
    let picture = frames[0].picture.to_rgb();
    assert_eq!(picture.dimensions(), (50, 30));
    // The upper bars are vertical: every row equals the first one.
    for y in 1..15 {
        for x in 0..50 {
            assert_eq!(
                picture.get_pixel(x, y),
                picture.get_pixel(x, 0),
                "({x}, {y})"
            );
        }
    }
    let colours: std::collections::BTreeSet<_> =
        (0..50).map(|x| picture.get_pixel(x, 0).0).collect();
    assert!(colours.len() >= 7, "seven bars: {colours:?}");
}

#[test]
fn bad_files_are_named_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("text.mp4"), "not a video, only text\n".repeat(100)).unwrap();
    std::fs::write(at("noise.mp4"), [7u8, 200, 31, 5].repeat(5000)).unwrap();
    std::fs::write(at("empty.mp4"), "").unwrap();
    let whole = video(dir.path(), "whole.mp4", 20, 10, MP4);
    let bytes = std::fs::read(&whole).unwrap();
    // The index of an MP4 stands at its end.
    std::fs::write(at("cut.mp4"), &bytes[..bytes.len() / 2]).unwrap();
    make(&format!(
        "audiotestsrc num-buffers=20 ! audioconvert ! wavenc ! filesink location={}",
        at("sound.wav").display()
    ));
    for (name, words) in [
        ("missing.mp4", "No such file"),
        ("", "folder"),
        ("empty.mp4", "empty"),
        ("text.mp4", "not a video"),
        ("noise.mp4", "not a video"),
        ("cut.mp4", "truncated"),
        ("sound.wav", "no video stream"),
    ] {
        let config = config(dir.path(), &[source(&at(name))]);
        let error = open(&config).and_then(|mut s| all(&mut s)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(words) && text.contains("camera c0") && text.contains(name),
            "{name}: {text}"
        );
        assert!(error.is_permanent(), "{name}");
    }
}

#[test]
fn a_cut_recording_gives_what_it_has_and_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let whole = video(dir.path(), "whole.mkv", 60, 10, MKV);
    let bytes = std::fs::read(&whole).unwrap();
    let cut = dir.path().join("cut.mkv");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let mut stream = open(&config(dir.path(), &[source(&cut)])).unwrap();
    let frames = all(&mut stream).unwrap();
    assert!((20..40).contains(&frames.len()), "{}", frames.len());
    let warning = stream.warning().expect("half of the recording is missing");
    assert!(
        warning.contains("truncated") || warning.contains("damaged"),
        "{warning}"
    );
    let mut stream = open(&config(dir.path(), &[source(&whole)])).unwrap();
    assert_eq!(all(&mut stream).unwrap().len(), 60);
    assert_eq!(stream.warning(), None);
}

#[test]
fn files_are_merged_by_time_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let fast = video(dir.path(), "fast.mkv", 20, 10, MKV);
    let slow = video(dir.path(), "slow.mkv", 12, 4, MKV);
    let config = config(dir.path(), &[source(&fast), source(&slow)]);
    let read = || -> Vec<Vec<(usize, u64)>> {
        open_files_in_step(&config)
            .unwrap()
            .map(|step| step.unwrap().iter().map(|f| (f.camera, f.number)).collect())
            .collect()
    };
    let steps = read();
    assert_eq!(steps, read(), "the same on every run");
    assert_eq!(steps.iter().map(Vec::len).sum::<usize>(), 32);
    assert_eq!(steps[0], [(0, 1), (1, 1)], "both at time 0");
    assert_eq!(steps[3], [(1, 2)], "alone at time 0.25");
    assert_eq!(steps[6], [(0, 6), (1, 3)], "both at time 0.5");
    assert_eq!(
        steps.last().unwrap(),
        &[(1, 12)],
        "the longer one goes on alone"
    );
    let live = self::config(
        dir.path(),
        &["source = \"rtsp://127.0.0.1:1/x\"".to_owned()],
    );
    assert!(matches!(
        open_files_in_step(&live),
        Err(IngestError::LiveInReplay { .. })
    ));
}

#[test]
fn an_rtsp_camera_is_watched_lost_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = RtspServer::start(BALL, Auth::Digest, 0);
    let url = format!("rtsp://viewer:secret@127.0.0.1:{}/ball", server.port);
    let body = format!("source = \"{url}\"\nstall_secs = 2.0\nbackoff_max_secs = 1.0");
    let watched = Watched::start(&config(dir.path(), &[body]));
    watched.wait(20, "frames with rising numbers and times", |_, frames| {
        let rising = frames
            .windows(2)
            .all(|w| w[0].number < w[1].number && w[0].time < w[1].time);
        frames.len() >= 15
            && rising
            && frames[0].picture.size() == (320, 240)
            && frames[0].time > 1.7e9
            && frames[0].clock_base.is_some()
    });
    let status = watched.cameras.statuses()[&0].clone();
    assert_eq!(status.state, CameraState::Live);
    assert_eq!(status.size, Some((320, 240)));
    assert_eq!(
        status.chain,
        "rtsp tcp, h264, avdec_h264 (software), I420 320x240, bt601, limited"
    );
    let port = server.kill();
    watched.wait_for(10, CameraState::BackingOff);
    let _again = RtspServer::start(BALL, Auth::Digest, port);
    watched.forget();
    watched.wait(20, "recovery", |states, frames| {
        saw(states, CameraState::Live) && frames.len() >= 5
    });
    let shown = format!("{:?}", watched.log());
    assert!(!shown.contains("secret"), "{shown}");
    let counts = watched.end();
    assert!(counts.reconnects >= 1 && counts.taken >= 20, "{counts:?}");
}

#[test]
fn datagrams_are_received_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let server = RtspServer::ball(0);
    let body = format!(
        "source = \"{}\"\ntransport = \"udp\"\nfps = 5.0",
        server.url()
    );
    let watched = Watched::start(&config(dir.path(), &[body]));
    watched.wait(20, "frames", |_, frames| frames.len() >= 8);
    let chain = watched.cameras.statuses()[&0].chain.clone();
    assert!(chain.starts_with("rtsp udp, h264, "), "{chain}");
    let counts = watched.end();
    // 15 per second are sent, 5 wanted.
    assert!(
        counts.skipped as f64 > 1.5 * (counts.received - counts.skipped) as f64,
        "{counts:?}"
    );
}

#[test]
fn a_refused_port_backs_off_and_a_silent_one_is_stalled() {
    let dir = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    // Accepts connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let body = |port: u16| {
        format!(
            "source = \"rtsp://u:secret@127.0.0.1:{port}/x\"\nstall_secs = 1.0\nbackoff_max_secs = 1.0"
        )
    };
    let cameras = [body(free), body(silent.local_addr().unwrap().port())];
    let refused = Watched::start(&config(dir.path(), &cameras[..1]));
    refused.wait(10, "back-off", |states, _| {
        states
            .iter()
            .filter(|(s, _)| *s == CameraState::BackingOff)
            .count()
            >= 2
    });
    let states = refused.states.lock().unwrap().clone();
    let (_, detail) = states
        .iter()
        .find(|(s, _)| *s == CameraState::BackingOff)
        .unwrap();
    assert!(
        detail.contains(&format!("127.0.0.1:{free}"))
            && detail.contains("next attempt")
            && !detail.contains("secret"),
        "{detail}"
    );
    refused.cameras.stop();
    let quiet = Watched::start(&config(dir.path(), &cameras[1..]));
    quiet.wait(15, "stall", |states, _| {
        saw(states, CameraState::Stalled) || saw(states, CameraState::BackingOff)
    });
    let began = Instant::now();
    quiet.cameras.stop();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "a frozen server must not hold us"
    );
}

#[test]
fn looped_files_go_on_and_missing_ones_fail_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = video(dir.path(), "a.mkv", 8, 10, MKV);
    let body = format!("{}\nloop = true\nreal_time = false", source(&path));
    let watched = Watched::start(&config(dir.path(), &[body]));
    watched.wait(20, "a third pass", |states, frames| {
        // Beginning again is nothing to tell anybody.
        let told: Vec<CameraState> = states.iter().map(|(state, _)| *state).collect();
        assert!(told.len() <= 2, "{told:?}");
        frames
            .windows(2)
            .all(|w| w[0].number < w[1].number && w[0].time < w[1].time)
            && frames.last().is_some_and(|f| f.number > 16)
    });
    watched.cameras.stop();
    let gone = Watched::start(&config(dir.path(), &[source(&dir.path().join("gone.mp4"))]));
    gone.wait(10, "failure", |states, _| saw(states, CameraState::Failed));
    assert!(gone.cameras.is_over());
    let once = Watched::start(&config(dir.path(), &[source(&path)]));
    once.wait(10, "end", |states, _| saw(states, CameraState::Ended));
}
