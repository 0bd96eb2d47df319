//! Signs of life for systemd, for as long as the loops that matter go round.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Service;

/// Tells systemd "alive" for as long as it lives and every [`Pulse`] is fresh.
#[derive(Debug)]
pub struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub(super) fn start(service: &Service, limit: Option<Duration>) -> io::Result<Watchdog> {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            state: Mutex::default(),
            over: Condvar::new(),
        });
        let Some(interval) = service.watchdog_interval() else {
            return Ok(Watchdog {
                shared,
                thread: None,
            });
        };
        let limit = limit.unwrap_or(interval / 2);
        let (service, watched) = (service.clone(), shared.clone());
        let thread = std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || watched.watch(&service, interval / 2, limit))?;
        Ok(Watchdog {
            shared,
            thread: Some(thread),
        })
    }

    /// A heart to beat, fresh now: one for each loop whose standstill is a hang. Dropped, it is
    /// watched no longer, unless a panic drops it.
    pub fn pulse(&self, name: &str) -> Pulse {
        let heart = Arc::new(Heart {
            name: name.to_owned(),
            beaten_ms: AtomicU64::new(self.shared.now_ms()),
        });
        self.shared.lock().hearts.push(Arc::downgrade(&heart));
        Pulse {
            heart,
            shared: self.shared.clone(),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.over.notify_all();
        if let Some(thread) = self.thread.take() {
            // It neither panics nor waits for anything but the notice above.
            let _ = thread.join();
        }
    }
}

/// What a loop beats, at least once in the watchdog's limit; costs a look at the clock and an atomic store.
#[derive(Debug)]
pub struct Pulse {
    heart: Arc<Heart>,
    shared: Arc<Shared>,
}

impl Pulse {
    /// The loop is alive.
    pub fn beat(&self) {
        let now = self.shared.now_ms();
        self.heart.beaten_ms.store(now, Ordering::Relaxed);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A loop that crashed is not over: nothing beats its heart again, and nobody stops watching it.
            std::mem::forget(self.heart.clone());
        }
    }
}

#[derive(Debug)]
struct Heart {
    name: String,
    /// Milliseconds after `Shared::began`.
    beaten_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    hearts: Vec<Weak<Heart>>,
    over: bool,
}

impl State {
    /// The first heart that was not beaten for longer than `limit` at `now_ms`, and for how long.
    fn stopped(&mut self, now_ms: u64, limit: Duration) -> Option<(String, Duration)> {
        self.hearts.retain(|heart| heart.strong_count() > 0);
        let mut hearts = self.hearts.iter().filter_map(Weak::upgrade);
        hearts.find_map(|heart| {
            let age_ms = now_ms.saturating_sub(heart.beaten_ms.load(Ordering::Relaxed));
            let age = Duration::from_millis(age_ms);
            (age > limit).then(|| (heart.name.clone(), age))
        })
    }
}

#[derive(Debug)]
struct Shared {
    /// Monotonic, so that a jump of the wall clock neither kills nor saves.
    began: Instant,
    state: Mutex<State>,
    over: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn watch(&self, service: &Service, every: Duration, limit: Duration) {
        let mut told = false;
        let mut state = self.lock();
        while !state.over {
            match state.stopped(self.now_ms(), limit) {
                None => {
                    service.send("WATCHDOG=1");
                    told = false;
                }
                Some((name, age)) if !told => {
                    let text = format!(
                        "{name} makes no progress for {:.1} s (limit {:.1} s): the service manager will restart reid-edge",
                        age.as_secs_f64(),
                        limit.as_secs_f64()
                    );
                    tracing::error!("{text}");
                    service.status(&text);
                    told = true;
                }
                Some(_) => {}
            }
            // A spurious wake-up only sends a sign of life too many.
            state = self
                .over
                .wait_timeout(state, every)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{Manager, SOON, service};
    use super::*;

    fn watched(usec: &str, limit: Duration) -> (tempfile::TempDir, Manager, Watchdog) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify").display().to_string();
        let manager = Manager::at(&path);
        let variables = [("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", usec)];
        let watchdog = service(&variables).unwrap().watchdog(Some(limit)).unwrap();
        (dir, manager, watchdog)
    }

    #[test]
    fn signs_of_life_come_until_the_watchdog_is_dropped() {
        let (_dir, manager, watchdog) = watched("20000", Duration::from_secs(600));
        let pulse = watchdog.pulse("loop");
        let began = Instant::now();
        for _ in 0..20 {
            pulse.beat();
            assert_eq!(manager.hears(SOON).unwrap(), "WATCHDOG=1");
        }
        // Twice per interval, not as fast as it can.
        assert!(
            began.elapsed() > Duration::from_millis(100),
            "{:?}",
            began.elapsed()
        );
        drop(watchdog);
        while manager.hears(Duration::from_millis(1)).is_some() {}
        assert_eq!(manager.hears(Duration::from_millis(200)), None);
    }

    #[test]
    fn a_hang_is_named_once_and_silence_follows_until_it_is_over() {
        let limit = Duration::from_millis(100);
        let (_dir, manager, watchdog) = watched("20000", limit);
        let pulse = watchdog.pulse("embed");
        let last = loop {
            let message = manager.hears(SOON).unwrap();
            if message != "WATCHDOG=1" {
                break message;
            }
        };
        assert!(last.starts_with("STATUS=embed makes no progress"), "{last}");
        assert_eq!(manager.hears(3 * limit), None);
        // It comes back before systemd acted. On a busy machine a beat may grow old before it is seen.
        let began = Instant::now();
        let alive = loop {
            pulse.beat();
            let heard = manager.hears(Duration::from_millis(5));
            if heard.as_deref() == Some("WATCHDOG=1") || began.elapsed() > SOON {
                break heard;
            }
        };
        assert_eq!(alive.as_deref(), Some("WATCHDOG=1"));
    }

    #[test]
    fn every_pulse_counts_and_a_loop_that_is_over_does_not() {
        let watchdog = service(&[]).unwrap().watchdog(None).unwrap();
        let (detect, embed) = (watchdog.pulse("detect"), watchdog.pulse("embed"));
        let shared = &watchdog.shared;
        let stopped = |now_ms| {
            let limit = Duration::from_millis(500);
            shared
                .lock()
                .stopped(now_ms, limit)
                .map(|(name, age)| (name, age.as_millis()))
        };
        detect.heart.beaten_ms.store(1000, Ordering::Relaxed);
        embed.heart.beaten_ms.store(1200, Ordering::Relaxed);
        assert_eq!(stopped(900), None, "beaten while we looked");
        assert_eq!(stopped(1500), None);
        assert_eq!(stopped(1501), Some(("detect".into(), 501)));
        drop(detect);
        assert_eq!(stopped(1700), None);
        assert_eq!(stopped(1701), Some(("embed".into(), 501)));
        drop(embed);
        assert_eq!(stopped(99_999), None);
        assert!(shared.lock().hearts.is_empty());
        // A crash is no end.
        let associate = watchdog.pulse("associate");
        std::thread::spawn(move || {
            associate.beat();
            std::panic::resume_unwind(Box::new("a crash, told to nobody"));
        })
        .join()
        .unwrap_err();
        assert_eq!(
            stopped(99_999).map(|(name, _)| name),
            Some("associate".into())
        );
    }
}
