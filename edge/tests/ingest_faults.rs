//! What cameras and networks do to us: servers that die, freeze, refuse, change, lie and come back. After each fault the
//! camera is found again, every frame is accounted for, and no thread and no open file is left behind.
#![allow(clippy::unwrap_used)]

mod servers;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reid_edge::clock::{Clock, TimeSource};
use reid_edge::ingest::{CameraState, Counts, LiveCameras};
use reid_edge::memory;
use servers::{
    Auth, BALL, Damage, HttpCamera, HttpStyle, Proxy, RtspServer, Watched, accounted, alone,
    back_to, config, make, resources, saw,
};

#[test]
#[ignore = "a server that the other tests start"]
fn serve() {
    servers::serve();
}

/// Watches one camera through `fault` and counts what is left afterwards. Whatever a process does only once (registries,
/// pools of threads) has been done before the counting starts.
fn watched(body: &str, fault: impl FnOnce(&Watched)) -> Counts {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &[body.to_owned()]);
    // Warm up with the same source; it need not answer.
    let first = Watched::start(&config);
    first.wait(20, "any state but connecting", |states, _| {
        states.iter().any(|(s, _)| *s != CameraState::Connecting)
    });
    first.end();
    std::thread::sleep(Duration::from_millis(200));
    let before = resources();
    let watched = Watched::start(&config);
    fault(&watched);
    let counts = watched.end();
    back_to(before);
    counts
}

fn states(watched: &Watched) -> Vec<CameraState> {
    watched.log().into_iter().map(|(s, _)| s).collect()
}

fn detail_of(watched: &Watched, state: CameraState) -> String {
    let log = watched.log();
    let found = log.iter().find(|(s, _)| *s == state);
    found.unwrap_or_else(|| panic!("{log:?}")).1.clone()
}

/// States that may follow one another.
fn check_order(states: &[CameraState]) {
    use CameraState::*;
    assert_eq!(states.first(), Some(&Connecting), "{states:?}");
    for pair in states.windows(2) {
        let legal = match pair[0] {
            Connecting => &[Live, Stalled, BackingOff, Failed, Ended][..],
            // Live again: another chain or another size.
            Live => &[Live, Stalled, BackingOff, Ended, Failed, Connecting],
            Stalled => &[BackingOff],
            // Backing off goes on while the old connection does not close.
            BackingOff => &[Connecting, BackingOff],
            Failed | Ended => &[],
        };
        assert!(legal.contains(&pair[1]), "{pair:?} in {states:?}");
    }
}

fn killed_and_restarted(cycles: usize) {
    let _alone = alone();
    let mut server = RtspServer::ball(0);
    let body = format!(
        "source = \"{}\"\nstall_secs = 2.0\nbackoff_max_secs = 0.5",
        server.url()
    );
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &[body]);
    let first = Watched::start(&config);
    first.wait(20, "frames", |_, frames| frames.len() > 2);
    first.end();
    std::thread::sleep(Duration::from_millis(300));
    let mut before = resources();
    // The pipe to the server's process is ours.
    before.1 += 1;
    let watched = Watched::start(&config);
    let mut recovered = Vec::new();
    let mut rss = Vec::new();
    for _ in 0..cycles {
        watched.wait(20, "frames", |_, frames| frames.len() >= 3);
        let port = server.kill();
        watched.wait_for(10, CameraState::BackingOff);
        check_order(&states(&watched));
        watched.forget();
        server = RtspServer::ball(port);
        let began = Instant::now();
        watched.wait(20, "recovery", |states, frames| {
            saw(states, CameraState::Live) && frames.len() >= 2
        });
        recovered.push(began.elapsed().as_secs_f64());
        watched
            .states
            .lock()
            .unwrap()
            .retain(|(s, _)| *s == CameraState::Live);
        watched
            .states
            .lock()
            .unwrap()
            .insert(0, (CameraState::Connecting, String::new()));
        rss.push(resources().2);
    }
    let counts = watched.end();
    assert!(counts.reconnects >= cycles as u64, "{counts:?}");
    assert!(counts.taken >= 5 * cycles as u64, "{counts:?}");
    back_to(before);
    recovered.sort_by(f64::total_cmp);
    println!(
        "{cycles} deaths: found again after {:.2} s (median), {:.2} s (longest); {counts:?}; resident KiB {rss:?}",
        recovered[cycles / 2],
        recovered[cycles - 1]
    );
}

#[test]
fn a_server_that_dies_five_times_is_found_again_five_times() {
    killed_and_restarted(5);
}

#[test]
#[ignore = "over a minute: ./reid test --long"]
fn a_server_that_dies_fifty_times_is_found_again_fifty_times() {
    killed_and_restarted(50);
}

#[test]
fn a_frozen_server_is_stalled_and_left_and_found_again() {
    let _alone = alone();
    let server = RtspServer::ball(0);
    let body = format!(
        "source = \"{}\"\nstall_secs = 1.0\nbackoff_max_secs = 0.5",
        server.url()
    );
    watched(&body, |w| {
        w.wait(20, "frames", |_, frames| frames.len() >= 5);
        server.freeze();
        w.wait_for(10, CameraState::Stalled);
        let detail = detail_of(w, CameraState::Stalled);
        assert!(
            detail.contains("no frame for") && detail.contains("limit 1.0 s"),
            "{detail}"
        );
        w.wait_for(10, CameraState::BackingOff);
        // Even now it can be closed at once.
        server.thaw();
        w.forget();
        w.wait(30, "recovery", |states, frames| {
            saw(states, CameraState::Live) && frames.len() >= 5
        });
    });
    // Frozen for good, and the camera is removed in the middle of an attempt.
    let cameras = Watched::start(&config(tempfile::tempdir().unwrap().path(), &[body]));
    cameras.wait(20, "frames", |_, frames| frames.len() >= 2);
    server.freeze();
    cameras.wait(20, "an attempt", |states, _| {
        saw(states, CameraState::BackingOff)
            && states
                .last()
                .is_some_and(|(s, _)| *s == CameraState::Connecting)
    });
    let began = Instant::now();
    cameras.end();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    server.thaw();
}

#[test]
fn a_camera_that_stops_sending_is_stalled_and_found_again() {
    let _alone = alone();
    let mut server = RtspServer::ball(0);
    let body = format!(
        "source = \"{}\"\nstall_secs = 1.0\nbackoff_max_secs = 0.5",
        server.url()
    );
    watched(&body, |w| {
        w.wait(20, "frames", |_, frames| frames.len() >= 5);
        // RTSP and RTCP go on, pictures do not: 0 frames per second.
        server.tell("valve shut");
        w.wait_for(10, CameraState::Stalled);
        w.wait_for(20, CameraState::BackingOff);
        w.forget();
        server.tell("valve open");
        w.wait(30, "recovery", |states, frames| {
            saw(states, CameraState::Live) && frames.len() >= 5
        });
    });
}

#[test]
fn a_port_that_accepts_and_says_nothing_is_stalled() {
    let _alone = alone();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let body =
        format!("source = \"rtsp://127.0.0.1:{port}/x\"\nstall_secs = 0.6\nbackoff_max_secs = 0.5");
    let counts = watched(&body, |w| {
        w.wait(20, "three attempts", |states, _| {
            let lost = states.iter().filter(|(s, _)| *s == CameraState::BackingOff);
            lost.count() >= 3
        });
        check_order(&states(w));
    });
    assert_eq!(counts.received, 0);
    assert!(counts.reconnects >= 2, "{counts:?}");
}

#[test]
fn a_wrong_password_is_named_and_not_tried_often() {
    let _alone = alone();
    for auth in [Auth::Basic, Auth::Digest] {
        let server = RtspServer::start(BALL, auth, 0);
        let body = |password: &str| {
            format!(
                "source = \"rtsp://viewer:{password}@127.0.0.1:{}/ball\"\nstall_secs = 2.0\nbackoff_max_secs = 0.5",
                server.port
            )
        };
        watched(&body("wrong-one"), |w| {
            w.wait_for(20, CameraState::BackingOff);
            let detail = detail_of(w, CameraState::BackingOff);
            assert!(
                detail.contains("the camera refuses user and password"),
                "{detail}"
            );
            assert!(!detail.contains("wrong-one"), "{detail}");
            w.forget();
            std::thread::sleep(Duration::from_secs(3));
            assert_eq!(w.log(), [], "the next attempt is far off");
            // The password is mended.
            let mended = config(tempfile::tempdir().unwrap().path(), &[body("secret")]);
            w.cameras.add(0, &mended.cameras[0]).unwrap();
            w.wait(20, "frames", |_, frames| frames.len() >= 3);
        });
    }
}

#[test]
fn a_new_size_in_mid_stream_is_no_loss() {
    let _alone = alone();
    let mut server = RtspServer::ball(0);
    let body = format!(
        "source = \"{}\"\nstall_secs = 3.0\nbackoff_max_secs = 0.5",
        server.url()
    );
    let counts = watched(&body, |w| {
        w.wait(20, "frames", |_, frames| frames.len() >= 5);
        for (width, height) in [(640, 480), (176, 144), (322, 242)] {
            server.tell(&format!("size {width} {height}"));
            w.wait(20, "frames of the new size", |_, frames| {
                let new = |f: &&reid_edge::types::Frame| f.picture.size() == (width, height);
                frames.iter().filter(new).count() >= 3
            });
            let status = w.cameras.statuses()[&0].clone();
            assert_eq!(status.size, Some((width, height)));
            assert!(
                status.chain.contains(&format!("{width}x{height}")),
                "{}",
                status.chain
            );
        }
        check_order(&states(w));
        let lost = states(w)
            .iter()
            .filter(|s| **s == CameraState::Connecting)
            .count();
        assert_eq!(lost, 1, "{:?}", w.log());
    });
    assert_eq!(counts.reconnects, 0, "{counts:?}");
}

#[test]
fn damaged_packets_are_survived() {
    let _alone = alone();
    let server = RtspServer::ball(0);
    let proxy = Proxy::start(server.port, Damage::default());
    let body = format!(
        "source = \"rtsp://127.0.0.1:{}/ball\"\nstall_secs = 2.0\nbackoff_max_secs = 0.5",
        proxy.port
    );
    let counts = watched(&body, |w| {
        w.wait(20, "frames", |_, frames| frames.len() >= 5);
        for damage in [
            Damage {
                flipped: 200,
                ..Damage::default()
            },
            Damage {
                dropped: 200,
                ..Damage::default()
            },
            Damage {
                flipped: 300,
                dropped: 300,
                random: 300,
            },
            Damage {
                random: 1000,
                ..Damage::default()
            },
        ] {
            *proxy.damage.lock().unwrap() = damage;
            let until = Instant::now() + Duration::from_secs(4);
            let frames = w.wait(10, "time", |_, _| Instant::now() >= until);
            println!(
                "{damage:?}: {} frames, {:?}",
                frames.len(),
                w.cameras.total()
            );
        }
        *proxy.damage.lock().unwrap() = Damage::default();
        w.forget();
        let frames = w.wait(30, "whole frames", |_, frames| frames.len() >= 45);
        assert!(frames.iter().all(|f| f.picture.size() == (320, 240)));
    });
    println!("{counts:?}");
    proxy.end();
}

#[test]
fn rubbish_instead_of_rtsp_is_no_camera() {
    let _alone = alone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    listener.set_nonblocking(true).unwrap();
    let talker = std::thread::spawn(move || {
        let mut round = 0u8;
        while !stopped.load(Ordering::Relaxed) {
            let Ok((mut socket, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            socket.set_nonblocking(false).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            // It may hang up first.
            let _ = socket.read(&mut [0; 2000]);
            round = round.wrapping_add(1);
            let text: Vec<u8> = match round % 4 {
                0 => (0..20_000u32)
                    .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
                    .collect(),
                1 => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
                2 => b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 999999999\r\n\r\n".to_vec(),
                _ => b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: DESCRIBE\r\n\r\n$\0\xff\xff".to_vec(),
            };
            let _ = socket.write_all(&text);
        }
    });
    let body =
        format!("source = \"rtsp://127.0.0.1:{port}/x\"\nstall_secs = 1.0\nbackoff_max_secs = 0.5");
    let counts = watched(&body, |w| {
        w.wait(40, "eight attempts", |states, _| {
            let lost = states.iter().filter(|(s, _)| *s == CameraState::BackingOff);
            lost.count() >= 8
        });
        check_order(&states(w));
        assert!(!saw(&w.log(), CameraState::Live));
    });
    assert_eq!(counts.received, 0);
    stop.store(true, Ordering::Relaxed);
    talker.join().unwrap();
}

#[test]
fn a_stream_of_rubbish_is_stalled_and_not_believed() {
    let _alone = alone();
    let server = RtspServer::ball(0);
    let proxy = Proxy::start(
        server.port,
        Damage {
            random: 1000,
            ..Damage::default()
        },
    );
    let body = format!(
        "source = \"rtsp://127.0.0.1:{}/ball\"\nstall_secs = 1.5\nbackoff_max_secs = 0.5",
        proxy.port
    );
    watched(&body, |w| {
        w.wait_for(20, CameraState::BackingOff);
        *proxy.damage.lock().unwrap() = Damage::default();
        w.forget();
        w.wait(30, "recovery", |states, frames| {
            saw(states, CameraState::Live) && frames.len() >= 10
        });
    });
    proxy.end();
}

#[test]
fn a_stream_that_names_no_frame_rate_runs() {
    let _alone = alone();
    let body = "source = \"pipeline:videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=20/1 ! capssetter caps=video/x-raw,framerate=(fraction)0/1\"\nfps = 5.0\nstall_secs = 1.0";
    let counts = watched(body, |w| {
        w.wait(20, "frames", |_, frames| frames.len() >= 10);
        assert_eq!(states(w), [CameraState::Connecting, CameraState::Live]);
    });
    let analysed = (counts.received - counts.skipped) as f64;
    let ratio = counts.received as f64 / analysed;
    assert!((3.3..4.7).contains(&ratio), "every fourth: {counts:?}");
}

fn http(style: HttpStyle) -> (HttpCamera, String) {
    let camera = HttpCamera::start(0, style);
    let body = format!(
        "source = \"http://viewer:secret@127.0.0.1:{}/video.mjpg\"\nstall_secs = 2.0\nbackoff_max_secs = 0.5",
        camera.port
    );
    (camera, body)
}

#[test]
fn motion_jpeg_over_http_is_watched_lost_and_found_again() {
    let _alone = alone();
    for (auth, sloppy) in [(false, false), (true, false), (true, true)] {
        let style = HttpStyle {
            auth,
            frames: usize::MAX,
            sloppy,
        };
        let (camera, body) = http(style.clone());
        let counts = watched(&body, |w| {
            let frames = w.wait(20, "frames", |_, frames| frames.len() >= 10);
            assert!(frames.iter().all(|f| f.picture.size() == (96, 64)));
            let chain = w.cameras.statuses()[&0].chain.clone();
            assert_eq!(
                chain,
                "http multipart, jpeg, jpegdec (software), I420 96x64, bt601, full"
            );
            let port = camera.kill();
            w.wait_for(20, CameraState::BackingOff);
            let _again = HttpCamera::start(port, style);
            w.forget();
            w.wait(20, "recovery", |states, frames| {
                saw(states, CameraState::Live) && frames.len() >= 5
            });
            let shown = format!("{:?}", w.log());
            assert!(!shown.contains("secret"), "{shown}");
        });
        assert!(counts.reconnects >= 1);
    }
}

#[test]
fn http_refuses_a_wrong_password_and_ends_and_starts_again() {
    let _alone = alone();
    let (camera, body) = http(HttpStyle {
        auth: true,
        frames: usize::MAX,
        sloppy: false,
    });
    watched(&body.replace("secret", "wrong-one"), |w| {
        w.wait_for(20, CameraState::BackingOff);
        let detail = detail_of(w, CameraState::BackingOff);
        assert!(
            detail.contains("the camera refuses user and password"),
            "{detail}"
        );
        assert!(!detail.contains("wrong-one"), "{detail}");
    });
    assert!(camera.refused.load(Ordering::Relaxed) >= 1);
    drop(camera);
    // Every connection ends after eight frames.
    let (_camera, body) = http(HttpStyle {
        auth: false,
        frames: 8,
        sloppy: false,
    });
    let counts = watched(&body, |w| {
        w.wait(20, "three rounds", |states, _| {
            states
                .iter()
                .filter(|(s, _)| *s == CameraState::Live)
                .count()
                >= 3
        });
        check_order(&states(w));
        let detail = detail_of(w, CameraState::BackingOff);
        assert!(detail.contains("the stream ended"), "{detail}");
    });
    assert!(
        counts.reconnects >= 2 && counts.received >= 16,
        "{counts:?}"
    );
}

/// A clock whose wall can be set.
struct Settable {
    start: Instant,
    set_by: Mutex<f64>,
}

impl TimeSource for Settable {
    fn steady(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
    fn wall(&self) -> f64 {
        reid_edge::clock::unix_now() + *self.set_by.lock().unwrap()
    }
}

#[test]
fn the_camera_s_clock_is_read_and_an_hour_either_way_is_survived() {
    let _alone = alone();
    let server = RtspServer::ball(0);
    let body = format!("source = \"{}\"", server.url());
    let hands = Arc::new(Settable {
        start: Instant::now(),
        set_by: Mutex::new(0.0),
    });
    let clock = Clock::new(hands.clone());
    let dir = tempfile::tempdir().unwrap();
    let w = Watched::start_by(&config(dir.path(), &[body]), clock.clone());
    // Sender reports come every few seconds.
    w.wait(40, "the camera's clock", |_, _| {
        w.cameras.statuses()[&0].clock.source == "camera"
    });
    let frames = w.wait(20, "frames", |_, frames| frames.len() >= 60);
    let health = w.cameras.statuses()[&0].clock;
    assert!(health.healthy, "{health:?}");
    // Server and camera are the same machine; what is left is the time under way.
    let offset = health.offset_secs.unwrap();
    assert!((-0.4..0.02).contains(&offset), "{offset}");
    for f in &frames {
        let captured = f.captured.unwrap();
        assert!((captured - reid_edge::clock::unix_now()).abs() < 30.0);
        assert!((f.time - captured).abs() < 0.5, "{} {captured}", f.time);
    }
    for (i, jump) in [3600.0, -3600.0, -3600.0, 3600.0].into_iter().enumerate() {
        *hands.set_by.lock().unwrap() += jump;
        w.wait(10, "frames before it is followed", |_, frames| {
            frames.len() >= 5
        });
        assert!((clock.follow().unwrap() - jump).abs() < 0.1);
        let frames = w.wait(20, "frames after", |_, frames| frames.len() >= 30);
        // One that was stamped before may still be there; from then on the base says how to compare.
        let even: Vec<f64> = frames
            .iter()
            .map(|f| f.time - f.clock_base.unwrap())
            .collect();
        for pair in even.windows(2) {
            assert!(pair[1] > pair[0] && pair[1] - pair[0] < 1.0, "{pair:?}");
        }
        let last = frames.last().unwrap();
        assert!(
            (last.time - clock.now()).abs() < 1.0,
            "{} {}",
            last.time,
            clock.now()
        );
        let health = w.cameras.statuses()[&0].clock;
        // Every second jump sets it right again.
        assert_eq!(health.healthy, i % 2 == 1, "{health:?}");
        assert_eq!(health.source, "camera");
    }
    assert_eq!(states(&w), [CameraState::Connecting, CameraState::Live]);
    w.end();
}

#[test]
fn cameras_come_and_go_five_hundred_times_and_leave_nothing() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.mkv");
    make(&format!(
        "videotestsrc num-buffers=30 ! video/x-raw,width=160,height=120,framerate=10/1 ! openh264enc ! h264parse ! matroskamux ! filesink location={}",
        file.display()
    ));
    let config = config(
        dir.path(),
        &[
            "source = \"pipeline:videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=100/1\"".to_owned(),
            format!("source = \"{}\"", file.display()),
        ],
    );
    let cameras = LiveCameras::new(Clock::system(), Arc::new(|_, _| {})).unwrap();
    let cycle = |i: usize| {
        cameras.add(0, &config.cameras[i % 2]).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while cameras.take(1, Duration::from_millis(100)).is_empty() {
            assert!(
                Instant::now() < deadline,
                "no frame in cycle {i}: {:?}",
                cameras.statuses()
            );
        }
        cameras.remove(0);
        assert!(
            cameras.take(1, Duration::ZERO).is_empty(),
            "not a frame more"
        );
    };
    for i in 0..40 {
        cycle(i);
    }
    std::thread::sleep(Duration::from_millis(500));
    let before = resources();
    // What is in use, not what the system sees: heaps in pieces grow by chance, and are looked at by the soak.
    let used_before = memory::in_use();
    let began = Instant::now();
    for i in 0..500 {
        cycle(i);
    }
    let took = began.elapsed().as_secs_f64();
    let counts = accounted(&cameras);
    back_to(before);
    println!(
        "500 cycles in {took:.1} s, {counts:?}; resident {} KiB before, {} after",
        before.2,
        resources().2
    );
    if let (Some(used_before), Some(used)) = (used_before, memory::in_use()) {
        println!("in use: {used_before} bytes before, {used} after");
        let kept = used.saturating_sub(used_before) / 500;
        assert!(kept < 1024, "every cycle leaves {kept} bytes behind");
    }
    cameras.stop();
}
