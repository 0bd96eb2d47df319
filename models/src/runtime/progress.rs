//! Saying that a long opening goes on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::Provider;

/// How often it is said.
const EVERY: Duration = Duration::from_secs(5);

/// A long opening that goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Model.
    pub model: PathBuf,
    /// What is being waited for.
    pub provider: Provider,
    /// Seconds since it began.
    pub seconds: f64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress {
            model,
            provider,
            seconds,
        } = self;
        match provider {
            Provider::TensorRt => write!(
                f,
                "building the TensorRT engine of {}: {seconds:.0} s; it takes minutes, once per device",
                model.display()
            ),
            _ => write!(
                f,
                "opening {} on {provider}: {seconds:.0} s",
                model.display()
            ),
        }
    }
}

/// Does `work` on this thread; every `every`, another one reports how long it has been at it.
fn reporting<T>(
    every: Duration,
    report: &(dyn Fn(Duration) + Sync),
    work: impl FnOnce() -> T,
) -> T {
    let (done, waiting) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let begun = Instant::now();
        let ticker = move || {
            while waiting.recv_timeout(every) == Err(mpsc::RecvTimeoutError::Timeout) {
                report(begun.elapsed());
            }
        };
        // Without the thread nothing is reported, and the work is done all the same.
        let _ = thread::Builder::new()
            .name("progress".into())
            .spawn_scoped(scope, ticker);
        let result = work();
        drop(done);
        result
    })
}

/// As [`reporting`], in the form that the users of this crate see.
pub(super) fn reporting_progress<T>(
    model: &Path,
    provider: Provider,
    report: &(dyn Fn(&Progress) + Sync),
    work: impl FnOnce() -> T,
) -> T {
    let tell = |elapsed: Duration| {
        report(&Progress {
            model: model.to_path_buf(),
            provider,
            seconds: elapsed.as_secs_f64(),
        });
    };
    reporting(EVERY, &tell, work)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn long_work_reports_and_short_work_does_not() {
        let reports = AtomicUsize::new(0);
        let every = Duration::from_millis(20);
        let report = |_: Duration| {
            reports.fetch_add(1, Ordering::SeqCst);
        };
        let value = reporting(every, &report, || {
            let begun = Instant::now();
            while reports.load(Ordering::SeqCst) < 3 {
                assert!(begun.elapsed() < Duration::from_secs(20));
                thread::sleep(Duration::from_millis(1));
            }
            7
        });
        assert_eq!(value, 7);
        reports.store(0, Ordering::SeqCst);
        reporting(Duration::from_secs(600), &report, || ());
        assert_eq!(reports.load(Ordering::SeqCst), 0);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            reporting(every, &|_| (), || panic!("on purpose"))
        }));
        assert!(panicked.is_err());
    }

    #[test]
    fn progress_is_said_in_words() {
        let progress = |provider| Progress {
            model: "m.onnx".into(),
            provider,
            seconds: 40.2,
        };
        assert_eq!(
            progress(Provider::TensorRt).to_string(),
            "building the TensorRT engine of m.onnx: 40 s; it takes minutes, once per device"
        );
        assert_eq!(
            progress(Provider::Cuda).to_string(),
            "opening m.onnx on cuda: 40 s"
        );
    }
}
