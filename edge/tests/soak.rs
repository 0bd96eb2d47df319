//! An hour in the cupboard: a day by the clock, a thousand cameras that come and go, and nothing has grown.
//!
//! `REID_SOAK_SECONDS` shortens it for trying it out.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reid_edge::clock::{Clock, TimeSource};
use reid_edge::config::EdgeConfig;
use reid_edge::memory;
use reid_edge::metrics::Usage;
use reid_edge::run::{RunSummary, Signals, run_by};
use support::{ask, free_port, walker};

/// Hours that pass in one hour.
const HOURS: f64 = 24.0;
/// Cameras that come and go in an hour.
const CYCLES: u64 = 1_000;

/// A clock that runs faster, and that somebody sets now and then.
struct Fast {
    began: Instant,
    unix: f64,
    /// Seconds by which it was set.
    set: AtomicI64,
}

impl TimeSource for Fast {
    fn steady(&self) -> f64 {
        HOURS * self.began.elapsed().as_secs_f64()
    }
    fn wall(&self) -> f64 {
        self.unix + self.steady() + self.set.load(Ordering::Relaxed) as f64
    }
}

/// Least-squares slope of samples (seconds, value), per hour.
fn slope_per_hour(samples: &[(f64, f64)]) -> f64 {
    let n = samples.len() as f64;
    let (mx, my) = (
        samples.iter().map(|s| s.0).sum::<f64>() / n,
        samples.iter().map(|s| s.1).sum::<f64>() / n,
    );
    let (mut above, mut below) = (0.0, 0.0);
    for (x, y) in samples {
        above += (x - mx) * (y - my);
        below += (x - mx) * (x - mx);
    }
    3600.0 * above / below
}

struct Soaked {
    summary: RunSummary,
    samples: Vec<(f64, Usage, u64)>,
    cycles: u64,
    jumps: u32,
}

/// Two cameras stay, one comes and goes; the clock is set forward and back by an hour.
fn soak(seconds: f64) -> Soaked {
    let dir = tempfile::tempdir().unwrap();
    walker(&dir.path().join("a.mp4"), 120);
    let port = free_port();
    let config = format!(
        "[[camera]]\nname = \"door\"\nsource = \"a.mp4\"\nloop = true\n\
         [[camera]]\nname = \"hall\"\nsource = \"a.mp4\"\nloop = true\nfps = 5.0\n\
         [embedder]\nkind = \"histogram\"\n[tracker]\nlost_secs = 30.0\n[crops]\nburst_per_sec = 0.4\nevery_secs = 10.0\n\
         [associate]\nmin_crops = 1\n\
         [events]\nfile = \"events.jsonl\"\n[serve]\nlisten = \"127.0.0.1:{port}\"\n"
    );
    let config = EdgeConfig::parse(&config, &dir.path().join("edge.toml")).unwrap();
    let fast = Arc::new(Fast {
        began: Instant::now(),
        unix: 1_790_000_000.0,
        set: AtomicI64::new(0),
    });
    let signals = Signals::default();
    let samples = Mutex::new(Vec::new());
    let at: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    let began = Instant::now();
    let cycles = (CYCLES as f64 * seconds / 3600.0).ceil() as u64;
    std::thread::scope(|scope| {
        let run =
            scope.spawn(|| run_by(&config, Some(seconds), &signals, Clock::new(fast.clone())));
        scope.spawn(|| {
            while began.elapsed().as_secs_f64() < seconds - 2.0 {
                std::thread::sleep(Duration::from_secs_f64((seconds / 360.0).min(10.0)));
                let used = memory::in_use().unwrap_or(0);
                let sample = (began.elapsed().as_secs_f64(), Usage::now(), used);
                samples.lock().unwrap().push(sample);
            }
        });
        std::thread::sleep(Duration::from_secs(3));
        let every = Duration::from_secs_f64((seconds - 10.0) / cycles as f64);
        let source = dir.path().join("a.mp4").display().to_string();
        let mut jumps = 0;
        for cycle in 0..cycles {
            let due = Instant::now() + every;
            // A few names again and again, as cameras that a person plugs in and out.
            let name = format!("visitor-{}", cycle % 5);
            let body =
                serde_json::json!({"name": name, "source": source, "loop": true}).to_string();
            let (status, text) = ask(at, "POST", "/api/cameras", &body);
            assert_eq!(status, 200, "{text}");
            std::thread::sleep(every / 2);
            let (status, text) = ask(at, "DELETE", &format!("/api/cameras/{name}"), "");
            assert_eq!(status, 200, "{text}");
            if cycle % 100 == 50 {
                jumps += 1;
                let set = if jumps % 2 == 1 { 3600 } else { -3600 };
                fast.set.fetch_add(set, Ordering::Relaxed);
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let (status, metrics) = ask(at, "GET", "/metrics", "");
        assert_eq!(status, 200);
        assert!(
            !metrics.contains("visitor-"),
            "series of cameras that are gone:\n{metrics}"
        );
        assert!(
            metrics.contains(&format!("reid_clock_jumps_total {jumps}")),
            "{metrics}"
        );
        let (status, health) = ask(at, "GET", "/healthz", "");
        assert_eq!(status, 200, "{health}");
        assert!(health.contains("\"status\":\"ok\""), "{health}");
        let summary = run.join().unwrap().unwrap();
        let events = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
        assert_eq!(events.lines().count() as u64, summary.events);
        Soaked {
            summary,
            samples: std::mem::take(&mut samples.lock().unwrap()),
            cycles,
            jumps,
        }
    })
}

/// What must hold after any length.
fn nothing_is_lost(soaked: &Soaked) {
    let s = &soaked.summary;
    assert_eq!(
        s.received,
        s.frames + s.skipped + s.replaced + s.discarded,
        "every frame is analysed or counted: {s:?}"
    );
    assert_eq!(s.events_lost, 0);
    assert!(s.frames > 0 && s.tracklets > 0 && s.skipped > 0, "{s:?}");
    assert!(s.identities > 0, "nobody was recognised: {s:?}");
}

#[test]
fn a_short_soak_accounts_for_every_frame() {
    let soaked = soak(25.0);
    nothing_is_lost(&soaked);
    assert!(soaked.cycles >= 6, "{}", soaked.cycles);
}

#[test]
#[ignore = "an hour: ./reid test --long"]
fn an_hour_leaves_no_trace() {
    let seconds = std::env::var("REID_SOAK_SECONDS").map_or(3600.0, |v| v.parse().unwrap());
    let soaked = soak(seconds);
    nothing_is_lost(&soaked);
    // The first half fills what is bounded: visits on the page, the gallery, the heaps.
    let late: Vec<&(f64, Usage, u64)> = soaked
        .samples
        .iter()
        .filter(|(t, ..)| *t > seconds / 2.0)
        .collect();
    let series = |value: fn(&(f64, Usage, u64)) -> u64| -> f64 {
        let points: Vec<_> = late.iter().map(|s| (s.0, value(s) as f64)).collect();
        slope_per_hour(&points)
    };
    let memory = series(|s| s.1.resident_bytes >> 10);
    let used = series(|s| s.2 >> 10);
    let threads = series(|s| s.1.threads);
    let files = series(|s| s.1.files);
    println!(
        "{seconds:.0} s, {:.0} h by the clock, {} cameras came and went, {} clock jumps: {:?}",
        seconds * HOURS / 3600.0,
        soaked.cycles,
        soaked.jumps,
        soaked.summary
    );
    let last = late.last().unwrap().1;
    println!(
        "at the end {} MiB of which {} in use, {} threads, {} files; per hour {memory:+.0} KiB, {used:+.0} in use, {threads:+.2} threads, {files:+.2} files",
        last.resident_bytes >> 20,
        late.last().unwrap().2 >> 20,
        last.threads,
        last.files
    );
    // Twelve means over time.
    for (twelfth, samples) in soaked.samples.chunks(30).enumerate() {
        let mean = |of: fn(&(f64, Usage, u64)) -> u64| {
            (samples.iter().map(of).sum::<u64>() / samples.len() as u64) >> 10
        };
        println!(
            "twelfth {twelfth}: {} KiB, {} in use",
            mean(|s| s.1.resident_bytes),
            mean(|s| s.2)
        );
    }
    // A thousand cameras and whoever was seen leave records behind (gallery, presence, visits): a leak would be more.
    assert!(
        used < 8192.0,
        "what is in use grows by {used:.0} KiB an hour"
    );
    assert!(memory < 4096.0, "memory grows by {memory:.0} KiB an hour");
    assert!(threads.abs() < 1.0, "threads grow by {threads:.2} an hour");
    assert!(files.abs() < 1.0, "files grow by {files:.2} an hour");
}
