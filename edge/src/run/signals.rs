//! What the system tells a running program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Flags that signals set.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// SIGINT or SIGTERM: finish what is open and end.
    pub stop: Arc<AtomicBool>,
    /// SIGHUP: read the configuration again. Whoever does so clears it.
    pub reload: Arc<AtomicBool>,
}

impl Signals {
    /// Listens from now on; the second SIGINT or SIGTERM ends the program at once with code 130.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let signals = Signals::default();
        let told = signals.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let (mut interrupt, mut terminate, mut hangup) = {
            let _guard = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            )
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                runtime.block_on(async {
                    loop {
                        tokio::select! {
                            _ = interrupt.recv() => {}
                            _ = terminate.recv() => {}
                            _ = hangup.recv() => {
                                told.reload.store(true, Ordering::Relaxed);
                                continue;
                            }
                        }
                        if told.stop.swap(true, Ordering::Relaxed) {
                            std::process::exit(130);
                        }
                        tracing::info!(
                            "stopping: finishing what is open (once more to stop at once)"
                        );
                    }
                });
            })?;
        Ok(signals)
    }

    /// Whether the program is to end.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the configuration is to be read again; asked once for each time.
    pub fn reloading(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}
