//! Cameras for tests, on loopback: RTSP servers in processes of their own, which can be killed and frozen as a real one can;
//! an HTTP server of motion JPEG; a proxy that damages what passes. And eyes on what a test leaves behind.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;
use reid_edge::clock::Clock;
use reid_edge::config::EdgeConfig;
use reid_edge::ingest::{CameraState, Counts, LiveCameras};
use reid_edge::types::Frame;

/// One test of this program at a time: they count the threads and files of the whole process.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// A configuration with these `[[camera]]` bodies (without name).
pub fn config(dir: &Path, cameras: &[String]) -> EdgeConfig {
    let mut text = String::new();
    for (i, body) in cameras.iter().enumerate() {
        text.push_str(&format!("[[camera]]\nname = \"c{i}\"\n{body}\n"));
    }
    text.push_str("[embedder]\nkind = \"histogram\"\n");
    EdgeConfig::parse(&text, &dir.join("edge.toml")).unwrap()
}

/// Runs a GStreamer pipeline to its end.
pub fn make(pipeline: &str) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(pipeline).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let end = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus
        .timed_pop_filtered(gst::ClockTime::from_seconds(30), &end)
        .expect("the test file is made within 30 s");
    pipeline.set_state(gst::State::Null).unwrap();
    if let gst::MessageView::Error(e) = message.view() {
        panic!("{}: {:?}", e.error(), e.debug());
    }
}

/// A bouncing ball at 15 frames per second in H.264. `size` and `valve` can be changed by [`RtspServer::tell`].
pub const BALL: &str = "( videotestsrc is-live=true pattern=ball ! video/x-raw,framerate=15/1 ! videoscale ! capsfilter name=size caps=video/x-raw,width=320,height=240 ! videoconvert ! openh264enc gop-size=5 ! h264parse ! valve name=valve ! rtph264pay name=pay0 pt=96 config-interval=-1 )";

/// How an RTSP server wants to hear of user `viewer` and password `secret`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    None,
    Basic,
    Digest,
}

/// A real RTSP server in a process of its own: this test program, started again for its test `serve`.
pub struct RtspServer {
    child: Child,
    pub port: u16,
}

impl RtspServer {
    /// Port 0 takes a free one.
    pub fn start(launch: &str, auth: Auth, port: u16) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", "--exact", "--ignored", "--nocapture"])
            .env("REID_TEST_RTSP_LAUNCH", launch)
            .env("REID_TEST_RTSP_AUTH", format!("{auth:?}"))
            .env("REID_TEST_RTSP_PORT", port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("the server says its port").unwrap();
            if let Some((_, port)) = line.split_once("port=") {
                break port.trim().parse().unwrap();
            }
        };
        RtspServer { child, port }
    }

    /// A ball for everybody.
    pub fn ball(port: u16) -> Self {
        Self::start(BALL, Auth::None, port)
    }

    pub fn url(&self) -> String {
        format!("rtsp://127.0.0.1:{}/ball", self.port)
    }

    /// As when the plug is pulled, but that the kernel still says goodbye.
    pub fn kill(mut self) -> u16 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.port
    }

    /// Connections stay open, and nothing comes any more.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(done.success());
    }

    /// `size W H`, or `valve open|shut`.
    pub fn tell(&mut self, what: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
    }
}

impl Drop for RtspServer {
    fn drop(&mut self) {
        // Already dead after `kill`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's side; does nothing unless [`RtspServer::start`] asks for it.
pub fn serve() {
    let Ok(launch) = std::env::var("REID_TEST_RTSP_LAUNCH") else {
        return;
    };
    gst::init().unwrap();
    let server = rtsp::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(&std::env::var("REID_TEST_RTSP_PORT").unwrap());
    let factory = rtsp::RTSPMediaFactory::new();
    factory.set_launch(&launch);
    factory.set_shared(true);
    let auth = std::env::var("REID_TEST_RTSP_AUTH").unwrap();
    if auth != "None" {
        let token = rtsp::RTSPToken::builder()
            .field("media.factory.role", "viewer")
            .build();
        let guard = rtsp::RTSPAuth::new();
        if auth == "Basic" {
            guard.add_basic(&rtsp::RTSPAuth::make_basic("viewer", "secret"), &token);
        } else {
            guard.set_supported_methods(rtsp::gst_rtsp::RTSPAuthMethod::Digest);
            guard.add_digest("viewer", "secret", &token);
        }
        server.set_auth(Some(&guard));
        let role = gst::Structure::builder("viewer")
            .field("media.factory.access", true)
            .field("media.factory.construct", true)
            .build();
        factory.add_role_from_structure(&role);
    }
    let elements: Arc<Mutex<Vec<glib::WeakRef<gst::Element>>>> = Arc::default();
    let known = elements.clone();
    factory.connect_media_configure(move |_, media| {
        known.lock().unwrap().push(media.element().downgrade());
    });
    server.mount_points().unwrap().add_factory("/ball", factory);
    server.attach(None).unwrap();
    println!("port={}", server.bound_port());
    let main_loop = glib::MainLoop::new(None, false);
    let running = main_loop.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            let words: Vec<&str> = line.split_whitespace().collect();
            for media in elements.lock().unwrap().iter().filter_map(|e| e.upgrade()) {
                let media = media.downcast::<gst::Bin>().unwrap();
                match words[..] {
                    ["size", width, height] => {
                        let caps = gst::Caps::builder("video/x-raw")
                            .field("width", width.parse::<i32>().unwrap())
                            .field("height", height.parse::<i32>().unwrap())
                            .build();
                        media.by_name("size").unwrap().set_property("caps", caps);
                    }
                    ["valve", state] => media
                        .by_name("valve")
                        .unwrap()
                        .set_property("drop", state == "shut"),
                    _ => panic!("{line}"),
                }
            }
        }
        // The test is gone.
        running.quit();
    });
    main_loop.run();
    std::process::exit(0);
}

/// Motion JPEG over HTTP, as cameras do it.
pub struct HttpCamera {
    pub port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Requests with wrong credentials.
    pub refused: Arc<AtomicU32>,
}

/// How an [`HttpCamera`] behaves.
#[derive(Clone, Debug)]
pub struct HttpStyle {
    /// Wants `viewer:secret`.
    pub auth: bool,
    /// Ends each connection after so many frames.
    pub frames: usize,
    /// With a blank line before the first boundary and no Content-Length.
    pub sloppy: bool,
}

impl HttpCamera {
    pub fn start(port: u16, style: HttpStyle) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicU32::new(0));
        let (stopped, count) = (stop.clone(), refused.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((socket, _)) => {
                        socket.set_nonblocking(false).unwrap();
                        // The client may hang up at any time.
                        let _ = answer(socket, &style, &stopped, &count);
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        HttpCamera {
            port,
            stop,
            thread: Some(thread),
            refused,
        }
    }

    pub fn kill(mut self) -> u16 {
        self.end();
        self.port
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for HttpCamera {
    fn drop(&mut self) {
        self.end();
    }
}

fn answer(
    mut socket: TcpStream,
    style: &HttpStyle,
    stopped: &AtomicBool,
    refused: &AtomicU32,
) -> std::io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut request = String::new();
    let mut reader = BufReader::new(socket.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        request.push_str(&line);
    }
    // viewer:secret
    let known = request.contains("Authorization: Basic dmlld2VyOnNlY3JldA==");
    if style.auth && !known {
        if request.contains("Authorization:") {
            refused.fetch_add(1, Ordering::Relaxed);
        }
        return socket.write_all(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"camera\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\nCache-Control: no-cache\r\nConnection: close\r\n\r\n")?;
    if style.sloppy {
        socket.write_all(b"\r\n")?;
    }
    for i in 0..style.frames {
        if stopped.load(Ordering::Relaxed) {
            break;
        }
        let jpeg = jpeg(i);
        let length = if style.sloppy {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", jpeg.len())
        };
        write!(
            socket,
            "--frame\r\nContent-Type: image/jpeg\r\n{length}\r\n"
        )?;
        socket.write_all(&jpeg)?;
        socket.write_all(b"\r\n")?;
        std::thread::sleep(Duration::from_millis(40));
    }
    Ok(())
}

/// A grey picture of 96 x 64 whose brightness follows `i`.
pub fn jpeg(i: usize) -> Vec<u8> {
    let level = (i * 10 % 200) as u8;
    let picture = image::RgbImage::from_pixel(96, 64, image::Rgb([level, level, level]));
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90)
        .encode_image(&picture)
        .unwrap();
    bytes
}

/// What a [`Proxy`] does to packets of pictures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Damage {
    /// Of 1,000 packets, so many get flipped bits, ...
    pub flipped: u32,
    /// ... so many are left out ...
    pub dropped: u32,
    /// ... and so many become random bytes.
    pub random: u32,
}

/// Passes RTSP over TCP on, except that RTP packets of video are damaged.
pub struct Proxy {
    pub port: u16,
    pub damage: Arc<Mutex<Damage>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn start(target: u16, damage: Damage) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let damage = Arc::new(Mutex::new(damage));
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, shared) = (stop.clone(), damage.clone());
        let thread = std::thread::spawn(move || {
            let mut threads = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let Ok((client, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                client.set_nonblocking(false).unwrap();
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else {
                    continue;
                };
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                threads.push(std::thread::spawn(move || {
                    // Either side may close.
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                }));
                let shared = shared.clone();
                threads.push(std::thread::spawn(move || {
                    let _ = pass(&server, &client, &shared);
                    let _ = client.shutdown(std::net::Shutdown::Both);
                    let _ = server.shutdown(std::net::Shutdown::Both);
                }));
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
        Proxy {
            port,
            damage,
            stop,
            thread: Some(thread),
        }
    }

    /// After the camera has let go of it.
    pub fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Passes what the server says to the client: answers (text) as they are, packets (`$`, channel, length) as damaged.
fn pass(server: &TcpStream, client: &TcpStream, damage: &Mutex<Damage>) -> std::io::Result<()> {
    let (mut from, mut to) = (BufReader::new(server), client);
    let mut random = 12_345u32;
    let mut next = move || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        random >> 8
    };
    loop {
        let mut first = [0];
        from.read_exact(&mut first)?;
        if first[0] != b'$' {
            let mut text = vec![first[0]];
            while !text.ends_with(b"\r\n\r\n") {
                from.read_until(b'\n', &mut text)?;
            }
            let head = String::from_utf8_lossy(&text).to_lowercase();
            let length = head
                .split_once("content-length:")
                .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
                .unwrap_or(0);
            let mut body = vec![0; length];
            from.read_exact(&mut body)?;
            to.write_all(&text)?;
            to.write_all(&body)?;
            continue;
        }
        let mut head = [0; 3];
        from.read_exact(&mut head)?;
        let mut packet = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        from.read_exact(&mut packet)?;
        // Channel 1 is RTCP.
        if head[0] == 0 && packet.len() > 20 {
            let damage = *damage.lock().unwrap();
            let what = next() % 1000;
            let payload = &mut packet[12..];
            if what < damage.flipped {
                for _ in 0..1 + payload.len() / 50 {
                    let at = next() as usize % payload.len();
                    payload[at] ^= 1 << (next() % 8);
                }
            } else if what < damage.flipped + damage.dropped {
                continue;
            } else if what < damage.flipped + damage.dropped + damage.random {
                payload.fill_with(|| next() as u8);
            }
        }
        to.write_all(&[b'$', head[0], head[1], head[2]])?;
        to.write_all(&packet)?;
    }
}

/// Live cameras that remember the states they went through.
pub struct Watched {
    pub cameras: LiveCameras,
    pub states: Arc<Mutex<Vec<(CameraState, String)>>>,
}

impl Watched {
    /// With all cameras of a configuration.
    pub fn start(config: &EdgeConfig) -> Self {
        Self::start_by(config, Clock::system())
    }

    pub fn start_by(config: &EdgeConfig, clock: Clock) -> Self {
        let states: Arc<Mutex<Vec<_>>> = Arc::default();
        let log = states.clone();
        let on_state = move |_, status: &reid_edge::ingest::Status| {
            log.lock()
                .unwrap()
                .push((status.state, status.detail.clone()));
        };
        let cameras = LiveCameras::new(clock, Arc::new(on_state)).unwrap();
        for (index, camera) in config.cameras.iter().enumerate() {
            cameras.add(index, camera).unwrap();
        }
        Watched { cameras, states }
    }

    /// Takes frames until `done` says so, at most for `secs`. Gives the frames of this wait.
    pub fn wait(
        &self,
        secs: u64,
        what: &str,
        mut done: impl FnMut(&[(CameraState, String)], &[Frame]) -> bool,
    ) -> Vec<Frame> {
        let deadline = Instant::now() + Duration::from_secs(secs);
        let mut frames = Vec::new();
        loop {
            frames.extend(self.cameras.take(usize::MAX, Duration::from_millis(50)));
            if done(&self.states.lock().unwrap(), &frames) {
                return frames;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: not within {secs} s; {} frames, {:?}, states {:?}",
                frames.len(),
                self.cameras.total(),
                self.states.lock().unwrap()
            );
        }
    }

    /// Waits until `wanted` is among the states since the last [`Watched::forget`].
    pub fn wait_for(&self, secs: u64, wanted: CameraState) -> Vec<Frame> {
        self.wait(secs, wanted.as_str(), |states, _| saw(states, wanted))
    }

    pub fn forget(&self) {
        self.states.lock().unwrap().clear();
    }

    /// Each state with what it was said to be, in words for assertions.
    pub fn log(&self) -> Vec<(CameraState, String)> {
        self.states.lock().unwrap().clone()
    }

    /// Removes camera 0 and checks that every frame is accounted for.
    pub fn end(self) -> Counts {
        self.cameras.remove(0);
        let total = accounted(&self.cameras);
        self.cameras.stop();
        total
    }
}

/// Waits until the books are balanced: threads of removed cameras may hold a frame a little longer.
pub fn accounted(cameras: &LiveCameras) -> Counts {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let c = cameras.total();
        let known = c.skipped + c.replaced + c.discarded + c.taken;
        if c.received == known {
            return c;
        }
        assert!(Instant::now() < deadline, "frames are missing: {c:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn saw(states: &[(CameraState, String)], wanted: CameraState) -> bool {
    states.iter().any(|(s, _)| *s == wanted)
}

/// Threads, open files and resident kibibytes of this process.
pub fn resources() -> (usize, usize, usize) {
    let count = |dir: &str| std::fs::read_dir(dir).unwrap().count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let rss = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap();
    (count("/proc/self/task"), count("/proc/self/fd"), rss)
}

/// Waits until no more threads and files are open than `before`; idle threads of GLib's pools are ended first.
pub fn back_to(before: (usize, usize, usize)) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        glib::ThreadPool::stop_unused_threads();
        let now = resources();
        if now.0 <= before.0 && now.1 <= before.1 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "left behind: {before:?} became {now:?} (threads, files, KiB): {:?}",
            threads()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Names of the threads that run.
pub fn threads() -> Vec<String> {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}
