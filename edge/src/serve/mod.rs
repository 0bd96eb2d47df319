//! The live page: cameras with boxes, people and where they were seen; and the same for machines.
//!
//! Loopback only, unless a token guards it. Nothing is loaded from elsewhere, nothing is stored in the browser but the
//! session of a visitor who showed the token.

mod access;
mod config;
pub mod control;
mod http;
mod hub;
pub mod paint;
mod view;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::Notify;

use access::Access;
pub use config::ServeConfig;
use control::Control;
pub use hub::{FrameView, Hub, short, state_name};

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// `serve.listen` is no address.
    #[error(
        "serve.listen = \"{value}\": not an address and port; write one like \"127.0.0.1:8080\""
    )]
    Address {
        /// The value found.
        value: String,
    },
    /// Anybody on the network could watch.
    #[error(
        "serve.listen = \"{value}\" can be reached by others: set serve.token_file to a file with a secret of at least 16 \
         characters, or listen on 127.0.0.1"
    )]
    Open {
        /// The value found.
        value: String,
    },
    /// The token cannot be read or is too weak.
    #[error("serve.token_file = {path}: {reason}")]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The port is taken, or not ours to take.
    #[error("serve.listen = \"{address}\": {source}; stop what uses the port or choose another")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// The system gives no thread or timer.
    #[error("cannot start the page: {0}")]
    Runtime(std::io::Error),
}

/// A running page; it stops when this is dropped.
pub struct ServerHandle {
    address: SocketAddr,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl ServerHandle {
    /// Where it listens; the real port if 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops it; visitors' connections are closed.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the page has been reported by then and must not take the cameras with it.
            let _ = thread.join();
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Starts the page on a thread of its own. A relative `token_file` is taken from `base`. With `control`, visitors may change the
/// cameras.
///
/// # Errors
/// [`ServeError`]: a bad address, one that others can reach without a token, an unusable token, a port in use.
pub fn spawn(
    config: &ServeConfig,
    base: &Path,
    hub: Hub,
    control: Option<Control>,
) -> Result<ServerHandle, ServeError> {
    let asked: SocketAddr = config.listen.parse().map_err(|_| ServeError::Address {
        value: config.listen.clone(),
    })?;
    let token = match &config.token_file {
        Some(file) => Some(access::read_token(&base.join(file))?),
        None if asked.ip().is_loopback() => None,
        None => {
            return Err(ServeError::Open {
                value: config.listen.clone(),
            });
        }
    };
    let bind = |source| ServeError::Bind {
        address: asked,
        source,
    };
    let listener = TcpListener::bind(asked).map_err(bind)?;
    listener.set_nonblocking(true).map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("serve")
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let router = http::router(hub, Arc::new(Access::new(token)), control);
    let thread = std::thread::Builder::new()
        .name("serve".into())
        .spawn(move || {
            runtime.block_on(async {
                let listener = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => {
                        tracing::error!(%error, "the page stopped");
                        return;
                    }
                };
                tokio::select! {
                    result = axum::serve(listener, router) => {
                        if let Err(error) = result {
                            tracing::error!(%error, "the page stopped");
                        }
                    }
                    () = stopped.notified() => {}
                }
            });
            // Visitors who wait for the next picture are not waited for.
            runtime.shutdown_background();
        })
        .map_err(ServeError::Runtime)?;
    Ok(ServerHandle {
        address,
        stop,
        thread: Some(thread),
    })
}
