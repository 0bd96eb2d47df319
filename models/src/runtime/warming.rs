//! A session that serves at once on what there is, while what was asked for is built in the background.
//!
//! Building a TensorRT engine takes minutes. Both sessions hold the same weights, so their fingerprint is the same and
//! embeddings of both may lie in one gallery; in half precision they differ in the third decimal of a cosine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::output::Outputs;
use super::{Backend, Output, Provider, RuntimeError, Session, State, Status};

/// What the building thread and the session share.
enum Build {
    Going,
    Done(Box<dyn Session>, Duration),
    Failed(String, Duration),
    /// The session has taken it.
    Taken(Duration),
    /// The session is gone: nobody wants the result.
    Abandoned,
}

/// The session that serves now, and the one that is being built.
pub(super) struct Warming {
    current: Box<dyn Session>,
    model: PathBuf,
    wanted: Provider,
    asked: Vec<Provider>,
    begun: Instant,
    /// Whether the result, good or bad, has been taken note of.
    settled: bool,
    build: Arc<Mutex<Build>>,
}

impl Warming {
    /// Serves with `current` and runs `build` on a thread of its own.
    ///
    /// The thread is detached: a library that builds an engine cannot be interrupted, so dropping the session leaves it
    /// to finish (its engine then lies in the cache for the next start) and to throw the result away. A program that
    /// ends meanwhile ends it, too.
    pub(super) fn start(
        current: Box<dyn Session>,
        model: &Path,
        asked: Vec<Provider>,
        build: impl FnOnce() -> Result<Box<dyn Session>, RuntimeError> + Send + 'static,
    ) -> Self {
        let begun = Instant::now();
        let shared = Arc::new(Mutex::new(Build::Going));
        let name = model.to_path_buf();
        let theirs = Arc::clone(&shared);
        let work = move || {
            let built = catch_unwind(AssertUnwindSafe(build));
            let took = begun.elapsed();
            let outcome = match built {
                Ok(Ok(session)) => {
                    tracing::info!(model = %name.display(), engine = session.description(), seconds = took.as_secs_f64(), "built");
                    Build::Done(session, took)
                }
                Ok(Err(error)) => {
                    tracing::error!(model = %name.display(), %error, "building failed, the fallback serves on");
                    Build::Failed(error.to_string(), took)
                }
                Err(_) => {
                    tracing::error!(model = %name.display(), "building panicked, the fallback serves on");
                    Build::Failed("the engine panicked while it was built".into(), took)
                }
            };
            let mut slot = locked(&theirs);
            if !matches!(*slot, Build::Abandoned) {
                *slot = outcome;
            }
        };
        let started = thread::Builder::new().name("warming".into()).spawn(work);
        if let Err(error) = started {
            *locked(&shared) = Build::Failed(format!("no thread: {error}"), Duration::ZERO);
        }
        Warming {
            current,
            model: model.to_path_buf(),
            wanted: asked.first().copied().unwrap_or(Provider::Cpu),
            asked,
            begun,
            settled: false,
            build: shared,
        }
    }

    /// Changes over if what was asked for is ready.
    fn settle(&mut self) {
        if self.settled {
            return;
        }
        // Never waits: the thread holds the lock only to leave its result, and a run can change over as well next time.
        let Ok(mut slot) = self.build.try_lock() else {
            return;
        };
        let (next, took) = match std::mem::replace(&mut *slot, Build::Going) {
            Build::Done(session, took) => (Some(session), took),
            Build::Failed(reason, took) => {
                *slot = Build::Failed(reason, took);
                self.settled = true;
                return;
            }
            other => {
                *slot = other;
                return;
            }
        };
        *slot = Build::Taken(took);
        drop(slot);
        self.settled = true;
        if let Some(session) = next {
            tracing::info!(model = %self.model.display(), engine = session.description(), "changed over");
            self.current = session;
        }
    }
}

impl Drop for Warming {
    fn drop(&mut self) {
        *locked(&self.build) = Build::Abandoned;
    }
}

/// The slot is replaced whole or not at all, so a panic elsewhere leaves nothing half done.
fn locked(slot: &Mutex<Build>) -> MutexGuard<'_, Build> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session for Warming {
    fn run(&mut self, batch: usize, input: &[f32]) -> Result<Outputs, RuntimeError> {
        self.settle();
        self.current.run(batch, input)
    }

    fn run_with(
        &mut self,
        batch: usize,
        input: &[f32],
        visit: &mut dyn FnMut(&[Output]),
    ) -> Result<(), RuntimeError> {
        self.settle();
        self.current.run_with(batch, input, visit)
    }

    fn description(&self) -> String {
        let current = self.current.description();
        match *locked(&self.build) {
            Build::Going => format!("{current}, while {} is being built", self.wanted),
            Build::Failed(..) => format!("{current}, because {} failed", self.wanted),
            _ => current,
        }
    }

    fn backend(&self) -> Backend {
        self.current.backend()
    }

    fn status(&self) -> Status {
        let serving = self.current.status();
        let seconds = |d: Duration| Some(d.as_secs_f64());
        match &*locked(&self.build) {
            Build::Going | Build::Abandoned => Status {
                providers_asked: self.asked.clone(),
                fallback: true,
                reason: Some(format!("{} is being built", self.wanted)),
                state: State::Building,
                building_seconds: seconds(self.begun.elapsed()),
                ..serving
            },
            Build::Failed(reason, took) => Status {
                providers_asked: self.asked.clone(),
                fallback: true,
                reason: Some(reason.clone()),
                state: State::Failed,
                building_seconds: seconds(*took),
                ..serving
            },
            // Ready, and the next run changes over.
            Build::Done(session, took) => Status {
                building_seconds: seconds(*took),
                ..session.status()
            },
            Build::Taken(took) => Status {
                building_seconds: seconds(*took),
                ..serving
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    use super::*;
    use crate::runtime::Tensor;

    /// Gives its number back, and notes that it is gone.
    struct Fake(Provider, f32, Option<Arc<AtomicBool>>);

    impl Session for Fake {
        fn run(&mut self, batch: usize, _: &[f32]) -> Result<Outputs, RuntimeError> {
            let tensor = Tensor {
                shape: vec![batch],
                data: vec![self.1; batch],
            };
            Ok(vec![("y".into(), tensor)])
        }

        fn description(&self) -> String {
            format!("fake on {}", self.0)
        }

        fn backend(&self) -> Backend {
            Backend::OnnxRuntime
        }

        fn status(&self) -> Status {
            Status {
                provider_running: self.0,
                ..Status::on_processor(Backend::OnnxRuntime, ASKED.to_vec())
            }
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            if let Some(gone) = &self.2 {
                gone.store(true, Ordering::SeqCst);
            }
        }
    }

    const ASKED: [Provider; 2] = [Provider::TensorRt, Provider::Cpu];

    fn fake(provider: Provider, number: f32) -> Box<dyn Session> {
        Box::new(Fake(provider, number, None))
    }

    fn start(
        build: impl FnOnce() -> Result<Box<dyn Session>, RuntimeError> + Send + 'static,
    ) -> Warming {
        Warming::start(
            fake(Provider::Cpu, 1.0),
            Path::new("m.onnx"),
            ASKED.to_vec(),
            build,
        )
    }

    fn answer(session: &mut dyn Session) -> f32 {
        let mut seen = 0.0;
        session
            .run_with(1, &[], &mut |outputs| seen = outputs[0].data[0])
            .unwrap();
        assert_eq!(session.run(1, &[]).unwrap()[0].1.data[0], seen);
        seen
    }

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_fallback_serves_until_the_engine_is_built() {
        let (go, wait) = mpsc::channel::<()>();
        let mut session = start(move || {
            wait.recv().unwrap();
            Ok(fake(Provider::TensorRt, 2.0))
        });
        for _ in 0..3 {
            assert_eq!(answer(&mut session), 1.0);
        }
        let status = session.status();
        assert_eq!(status.state, State::Building);
        assert_eq!(status.provider_running, Provider::Cpu);
        assert!(status.fallback && status.building_seconds.unwrap() >= 0.0);
        assert!(
            session
                .description()
                .contains("while tensorrt is being built")
        );
        go.send(()).unwrap();
        // Nobody needs to run anything for health checks to see it.
        until("built", || session.status().state == State::Ready);
        assert_eq!(session.status().provider_running, Provider::TensorRt);
        assert!(!session.status().fallback);
        assert_eq!(answer(&mut session), 2.0);
        let status = session.status();
        assert_eq!((status.state, status.fallback), (State::Ready, false));
        assert!(status.building_seconds.is_some());
        assert_eq!(session.description(), "fake on tensorrt");
    }

    #[test]
    fn a_failed_or_panicking_build_leaves_the_fallback_and_says_why() {
        let failing: [fn() -> Result<Box<dyn Session>, RuntimeError>; 2] = [
            || {
                Err(RuntimeError::Load {
                    path: "m.onnx".into(),
                    backend: Backend::OnnxRuntime,
                    reason: "no memory".into(),
                })
            },
            || panic!("on purpose"),
        ];
        for (build, reason) in failing.into_iter().zip(["no memory", "panicked"]) {
            let mut session = start(build);
            until("failed", || session.status().state == State::Failed);
            for _ in 0..2 {
                assert_eq!(answer(&mut session), 1.0);
                let status = session.status();
                assert_eq!(status.state, State::Failed);
                assert!(status.fallback && status.reason.unwrap().contains(reason));
            }
            assert!(session.description().contains("because tensorrt failed"));
        }
    }

    #[test]
    fn dropping_it_waits_for_nobody_and_the_result_is_thrown_away() {
        let (go, wait) = mpsc::channel::<()>();
        let gone = Arc::new(AtomicBool::new(false));
        let built = Arc::clone(&gone);
        let session = start(move || {
            wait.recv().unwrap();
            Ok(Box::new(Fake(Provider::TensorRt, 2.0, Some(built))))
        });
        let begun = Instant::now();
        drop(session);
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(!gone.load(Ordering::SeqCst));
        go.send(()).unwrap();
        until("thrown away", || gone.load(Ordering::SeqCst));
    }
}
