//! A run as an integrator lives with it: cameras come and go, the configuration is read again, the clock is set, the disk
//! is full.
#![allow(clippy::unwrap_used)]

#[path = "detect/tiny_head.rs"]
#[allow(dead_code)]
mod tiny_head;

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reid_edge::clock::{Clock, TimeSource};
use reid_edge::config::EdgeConfig;
use reid_edge::run::{RunSummary, Signals, run_by};
use serde_json::Value;
use support::{ask, free_port, walker};

/// The machine's clock, set by some seconds.
struct Settable {
    began: Instant,
    set: AtomicI64,
}

impl TimeSource for Settable {
    fn steady(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
    fn wall(&self) -> f64 {
        1.79e9 + self.steady() + self.set.load(Ordering::Relaxed) as f64
    }
}

/// A site with one looped recording, and a run on it.
struct Site {
    dir: tempfile::TempDir,
    at: SocketAddr,
    signals: Signals,
    clock: Arc<Settable>,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        walker(&dir.path().join("a.mp4"), 100);
        Site {
            at: format!("127.0.0.1:{}", free_port()).parse().unwrap(),
            dir,
            signals: Signals::default(),
            clock: Arc::new(Settable {
                began: Instant::now(),
                set: AtomicI64::new(0),
            }),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the configuration: these cameras, a page, events to a file.
    fn write(&self, cameras: &str, more: &str) {
        let text = format!(
            "{cameras}[embedder]\nkind = \"histogram\"\n[serve]\nlisten = \"{}\"\n{}{more}",
            self.at,
            if more.contains("[events]") {
                ""
            } else {
                "[events]\nfile = \"events.jsonl\"\n"
            }
        );
        std::fs::write(self.path("edge.toml"), text).unwrap();
    }

    /// Runs while `visit` looks at it, then ends it as SIGTERM does.
    fn run(&self, visit: impl FnOnce(&Self)) -> RunSummary {
        let config = EdgeConfig::load(&self.path("edge.toml")).unwrap();
        let clock = Clock::new(self.clock.clone());
        std::thread::scope(|scope| {
            let run = scope.spawn(|| run_by(&config, Some(90.0), &self.signals, clock));
            let visited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| visit(self)));
            self.signals.stop.store(true, Ordering::Relaxed);
            let stopping = Instant::now();
            let summary = run.join().unwrap();
            // Stages that do not hear of the end are given up after ten seconds.
            assert!(stopping.elapsed() < Duration::from_secs(9));
            if let Err(panic) = visited {
                std::panic::resume_unwind(panic);
            }
            summary.unwrap()
        })
    }

    fn json(&self, path: &str) -> Value {
        let (_, body) = ask(self.at, "GET", path, "");
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"))
    }

    fn wait(&self, what: &str, mut until: impl FnMut() -> bool) {
        let began = Instant::now();
        while !until() {
            assert!(began.elapsed() < Duration::from_secs(40), "{what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn wait_for_page(&self) {
        self.wait("the page", || std::net::TcpStream::connect(self.at).is_ok());
    }

    fn live(&self, name: &str) -> bool {
        let state = self.json("/api/state");
        let cameras = state["cameras"].as_array().unwrap();
        cameras
            .iter()
            .any(|c| c["name"] == name && c["state"] == "live" && c["frames"].as_u64() > Some(5))
    }

    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("events.jsonl")).unwrap_or_default();
        text.lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }
}

fn camera(name: &str, source: &Path, more: &str) -> String {
    format!(
        "[[camera]]\nname = {name:?}\nsource = {:?}\nloop = true\n{more}",
        source.display().to_string()
    )
}

fn adds_up(s: &RunSummary) {
    assert_eq!(
        s.received,
        s.frames + s.skipped + s.replaced + s.discarded,
        "{s:?}"
    );
    assert!(s.replaced_at_start <= s.replaced, "{s:?}");
}

#[test]
fn cameras_come_change_and_go_while_others_run() {
    let site = Site::new();
    let video = site.path("a.mp4");
    site.write(&camera("door", &video, ""), "");
    let summary = site.run(|site| {
        site.wait_for_page();
        site.wait("door", || site.live("door"));
        let body = serde_json::json!({"name": "hall", "source": video, "loop": true}).to_string();
        let (status, text) = ask(site.at, "POST", "/api/cameras", &body);
        assert_eq!(status, 200, "{text}");
        site.wait("hall", || site.live("hall"));
        let listed = site.json("/api/cameras");
        assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
        // Changed: other rules for people need no new connection, another frame rate does.
        let frames = |name: &str| {
            let state = site.json("/api/state");
            let cameras = state["cameras"].as_array().unwrap().clone();
            let found = cameras.iter().find(|c| c["name"] == name).cloned();
            found.map_or(0, |c| c["frames"].as_u64().unwrap())
        };
        let before = frames("door");
        let masked = serde_json::json!({
            "name": "hall", "source": video, "loop": true,
            "masks": [[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]],
        });
        let (status, text) = ask(site.at, "POST", "/api/cameras", &masked.to_string());
        assert_eq!(status, 200, "{text}");
        site.wait("hall stays", || site.live("hall"));
        for (body, word) in [
            (r#"{"name": "../x", "source": "a.mp4"}"#, "name"),
            (r#"{"name": "x"}"#, "source"),
            (r#"{"name": "x", "source": "rtps://u:hunter2@h/s"}"#, "rtsp"),
            (r#"{"name": "x", "source": "a.mp4", "fsp": 3}"#, "fps"),
        ] {
            let (status, text) = ask(site.at, "POST", "/api/cameras", body);
            assert_eq!(status, 422, "{text}");
            assert!(text.contains(word) && !text.contains("hunter2"), "{text}");
        }
        let (status, text) = ask(site.at, "DELETE", "/api/cameras/hall", "");
        assert_eq!(status, 200, "{text}");
        assert_eq!(ask(site.at, "DELETE", "/api/cameras/hall", "").0, 404);
        assert!(!site.json("/api/state").to_string().contains("\"hall\",\"p"));
        assert!(!ask(site.at, "GET", "/metrics", "").1.contains("camera=\"hall\""));
        site.wait("door goes on", || frames("door") > before + 5);
        // A page elsewhere can make a browser send a form, but not JSON.
        let mut stream = std::net::TcpStream::connect(site.at).unwrap();
        use std::io::{Read, Write};
        write!(
            stream,
            "POST /api/reload HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}",
            site.at
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 415"), "{answer}");
    });
    adds_up(&summary);
    let events = site.events();
    assert_eq!(events.len() as u64, summary.events);
    assert!(
        events
            .iter()
            .any(|e| e["camera"] == "hall" && e["state"] == "live")
    );
}

#[test]
fn a_reload_takes_over_what_it_can_and_a_broken_file_changes_nothing() {
    let site = Site::new();
    let video = site.path("a.mp4");
    site.write(&camera("door", &video, ""), "");
    let summary = site.run(|site| {
        site.wait_for_page();
        assert_eq!(ask(site.at, "GET", "/healthz", "").0, 200);
        site.wait("ready", || ask(site.at, "GET", "/readyz", "").0 == 200);
        site.wait("door", || site.live("door"));
        // As SIGHUP does; the answer of the address says what came of it.
        let two = camera("door", &video, "fps = 5.0\n") + &camera("gate", &video, "");
        site.write(
            &two,
            "[tracker]\nlost_secs = 1.0\n[gallery]\nmax_prototypes = 4\n",
        );
        let (status, text) = ask(site.at, "POST", "/api/reload", "{}");
        assert_eq!(status, 200, "{text}");
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["added"], serde_json::json!(["gate"]), "{told}");
        assert_eq!(told["changed"], serde_json::json!(["door"]), "{told}");
        assert_eq!(told["live"], serde_json::json!(["tracker"]), "{told}");
        assert_eq!(told["restart"], serde_json::json!(["gallery"]), "{told}");
        site.wait("gate", || site.live("gate"));
        std::fs::write(site.path("edge.toml"), "[[camera]]\nname = \"x\"\n").unwrap();
        let (status, text) = ask(site.at, "POST", "/api/reload", "{}");
        assert_eq!(status, 422, "{text}");
        assert!(site.live("gate"), "nothing has changed");
        site.write(&camera("gate", &video, ""), "");
        site.signals.reload.store(true, Ordering::Relaxed);
        site.wait("door is gone", || !site.live("door"));
        assert!(site.live("gate"));
    });
    adds_up(&summary);
    assert!(
        summary.skipped > 0,
        "door was told to analyse half: {summary:?}"
    );
}

#[test]
fn the_clock_is_set_by_an_hour_both_ways_and_nobody_is_lost() {
    let site = Site::new();
    site.write(
        &camera("door", &site.path("a.mp4"), ""),
        "[tracker]\nlost_secs = 1.0\n",
    );
    let tracked = Mutex::new(Vec::new());
    site.run(|site| {
        site.wait_for_page();
        let tracklet = || {
            let state = site.json("/api/state");
            state["tracklets"].as_u64().unwrap()
        };
        for set in [3600, -7200] {
            let before = tracklet();
            site.wait("somebody walks in", || tracklet() > before);
            std::thread::sleep(Duration::from_millis(700));
            site.clock.set.fetch_add(set, Ordering::Relaxed);
            let now = tracklet();
            std::thread::sleep(Duration::from_millis(1500));
            tracked.lock().unwrap().push((now, tracklet()));
        }
        assert!(
            ask(site.at, "GET", "/metrics", "")
                .1
                .contains("reid_clock_jumps_total 2")
        );
    });
    for (before, after) in tracked.into_inner().unwrap() {
        assert_eq!(before, after, "whoever was walking is still the same");
    }
    let times: Vec<f64> = site
        .events()
        .iter()
        .map(|e| e["time"].as_f64().unwrap())
        .collect();
    let (low, high) = (
        times.iter().copied().fold(f64::INFINITY, f64::min),
        times.iter().copied().fold(0.0, f64::max),
    );
    assert!(
        high - low > 3500.0,
        "events bear the time that people see: {low} to {high}"
    );
}

#[test]
fn a_full_disk_costs_events_and_nothing_else() {
    let site = Site::new();
    // Writing to it always fails as on a full disk.
    site.write(
        &camera("door", &site.path("a.mp4"), ""),
        "[events]\nfile = \"full\"\n",
    );
    std::os::unix::fs::symlink("/dev/full", site.path("full")).unwrap();
    let summary = site.run(|site| {
        site.wait_for_page();
        site.wait("door", || site.live("door"));
        site.wait("it is told", || {
            let health = site.json("/healthz");
            health["status"] == "degraded" && health.to_string().contains("events are lost")
        });
        assert_eq!(
            ask(site.at, "GET", "/healthz", "").0,
            200,
            "degraded is alive"
        );
        assert!(site.live("door"));
    });
    assert!(summary.events_lost > 0 && summary.frames > 5, "{summary:?}");
    adds_up(&summary);
}

#[test]
fn a_gallery_that_cannot_be_written_costs_decisions_until_it_can() {
    let site = Site::new();
    site.write(
        &camera("door", &site.path("a.mp4"), ""),
        "[gallery]\npath = \"gallery.db\"\n[crops]\nburst = 20\n[associate]\nmin_crops = 2\n",
    );
    let summary = site.run(|site| {
        site.wait_for_page();
        site.wait("door", || site.live("door"));
        // Somebody else holds the database, as a backup or a full disk would.
        let lock = rusqlite::Connection::open(site.path("gallery.db")).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE;").unwrap();
        site.wait("it is told", || {
            site.json("/healthz")
                .to_string()
                .contains("decisions cannot be kept")
        });
        assert!(site.live("door"), "the cameras go on");
        lock.execute_batch("ROLLBACK;").unwrap();
        drop(lock);
        site.wait("it recovers", || site.json("/healthz")["status"] == "ok");
        site.wait("somebody is known", || {
            site.json("/api/state")["known"].as_u64() > Some(0)
        });
    });
    assert!(summary.identities > 0, "{summary:?}");
}

#[test]
fn a_model_replaced_under_our_feet_still_runs_and_is_told() {
    use reid_models::card::{Decode, Fit};
    let site = Site::new();
    let input = tiny_head::Input {
        size: (32, 32),
        batch: 1,
        bytes_nhwc: false,
    };
    // Somebody stands at the same place in every frame: left, top, right, bottom, score, class.
    let person = [8.0, 4.0, 20.0, 28.0, 0.9, 0.0];
    let head = tiny_head::Output::new("boxes", &[1, 1, 6], &person);
    let model = tiny_head::write(
        site.dir.path(),
        &input,
        &[head],
        Decode::EndToEnd,
        0,
        Fit::Stretch,
    );
    let detector = "[detector]\nkind = \"onnx\"\nmodel = \"tiny.onnx\"\nmin_height = 4.0\n";
    site.write(&camera("door", &site.path("a.mp4"), ""), detector);
    let told = |site: &Site, what: &str| {
        let health = site.json("/healthz");
        health["status"] == "degraded" && health["problems"].to_string().contains(what)
    };
    let goes_on = |site: &Site| {
        let frames = || {
            site.json("/api/state")["cameras"][0]["frames"]
                .as_u64()
                .unwrap()
        };
        let before = frames();
        site.wait("frames are still analysed", || frames() > before + 5);
    };
    let summary = site.run(|site| {
        site.wait_for_page();
        site.wait("door", || site.live("door"));
        assert_eq!(site.json("/healthz")["status"], "ok");
        // Cut short in place, as a copy that is still under way.
        let whole = std::fs::read(&model).unwrap();
        std::fs::write(&model, &whole[..whole.len() / 2]).unwrap();
        site.wait("it is told", || {
            told(site, "tiny.onnx has changed since the start")
        });
        goes_on(site);
        // Something else, renamed over it.
        std::fs::write(site.path("new.onnx"), b"<html>404 not found</html>").unwrap();
        std::fs::rename(site.path("new.onnx"), &model).unwrap();
        goes_on(site);
        std::fs::remove_file(&model).unwrap();
        site.wait("it is told", || {
            told(site, "tiny.onnx is gone since the start")
        });
        goes_on(site);
        std::fs::write(&model, b"<html>404 not found</html>").unwrap();
    });
    assert!(summary.frames > 15, "{summary:?}");
    adds_up(&summary);
    // What a restart would say.
    let config = EdgeConfig::load(&site.path("edge.toml")).unwrap();
    let clock = Clock::new(site.clock.clone());
    let error = run_by(&config, Some(5.0), &Signals::default(), clock)
        .unwrap_err()
        .to_string();
    assert!(error.contains("tiny.onnx"), "{error}");
}
