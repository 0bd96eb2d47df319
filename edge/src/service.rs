//! The service manager's side of a long run: systemd hears when it is ready, what it does, and that it is alive.
//!
//! The protocol is sd_notify(3): lines of `KEY=value` in a datagram to the socket that `NOTIFY_SOCKET` names. A process
//! that hangs without dying is the failure that a restart by exit code never sees, so [`Watchdog`] speaks for the loops,
//! not for the process: its thread tells systemd "alive" only while every [`Pulse`] was beaten within the limit.
//!
//! Without a service manager everything here does nothing. (The crate `sd-notify` knows no abstract sockets, which
//! containers use, and reads the environment anew at every message.)

mod watchdog;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

pub use watchdog::{Pulse, Watchdog};

/// Longest status text that is sent, in characters: it is one line of `systemctl status`.
const STATUS_CHARS: usize = 200;

/// What the service manager's environment says and does not make sense.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The socket cannot be reached.
    #[error(
        "NOTIFY_SOCKET = {address:?}: {source}: the service manager cannot be told that reid-edge is ready; unset it to run without one"
    )]
    Socket {
        /// As the variable says.
        address: OsString,
        /// Why.
        source: io::Error,
    },
    /// The watchdog's interval or process is not a number.
    #[error("{variable} = {value:?}: must be a number above 0; unset it to run without a watchdog")]
    Number {
        /// `WATCHDOG_USEC` or `WATCHDOG_PID`.
        variable: &'static str,
        /// As the variable says.
        value: OsString,
    },
    /// The watchdog's thread does not start.
    #[error("the watchdog's thread does not start: {0}")]
    Thread(#[source] io::Error),
}

/// The service manager that started this process, or nobody.
#[derive(Clone, Debug, Default)]
pub struct Service {
    socket: Option<Arc<UnixDatagram>>,
    interval: Option<Duration>,
}

impl Service {
    /// Whoever `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` speak of.
    ///
    /// # Errors
    /// [`ServiceError::Socket`], [`ServiceError::Number`].
    pub fn from_env() -> Result<Service, ServiceError> {
        Self::from_variables(env::var_os)
    }

    fn from_variables(
        variable: impl Fn(&'static str) -> Option<OsString>,
    ) -> Result<Service, ServiceError> {
        let Some(address) = variable("NOTIFY_SOCKET").filter(|a| !a.is_empty()) else {
            return Ok(Service::default());
        };
        let number = |name| match variable(name) {
            None => Ok(None),
            Some(value) => match value.to_str().map(str::parse::<u64>) {
                Some(Ok(n)) if n > 0 => Ok(Some(n)),
                _ => Err(ServiceError::Number {
                    variable: name,
                    value,
                }),
            },
        };
        // A watchdog that watches another process (our parent, say) is not ours to feed.
        let ours = number("WATCHDOG_PID")?.is_none_or(|pid| pid == u64::from(std::process::id()));
        let interval = number("WATCHDOG_USEC")?
            .filter(|_| ours)
            .map(Duration::from_micros);
        match connect(&address) {
            Ok(socket) => Ok(Service {
                socket: Some(Arc::new(socket)),
                interval,
            }),
            Err(source) => Err(ServiceError::Socket { address, source }),
        }
    }

    /// Whether somebody listens.
    pub fn is_managed(&self) -> bool {
        self.socket.is_some()
    }

    /// How long systemd waits for a sign of life before it restarts the service (`WatchdogSec=`); `None`: for ever.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.interval
    }

    /// Start-up is over, or a reload is: what depends on this service may start.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is being read again; [`Service::ready`] says that it has been.
    pub fn reloading(&self) {
        self.send("RELOADING=1");
    }

    /// The end has begun: what is open is being finished.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`, of which the first 200 characters are shown.
    pub fn status(&self, text: &str) {
        let line = text.chars().take(STATUS_CHARS);
        // A line break would begin another message.
        let line: String = line.map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.send(&format!("STATUS={line}"));
    }

    /// Start-up or stopping takes longer than the unit allows (an engine is being built): `more` from now, then this has
    /// to be called again.
    pub fn extend(&self, more: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", more.as_micros()));
    }

    /// Starts to speak for the loops that will take a [`Pulse`]: systemd hears "alive" twice per interval as long as all of
    /// them beat at least every `limit`; `None` takes half the interval, so that a hang ends the process after one and a
    /// half. Does nothing where systemd watches nothing.
    ///
    /// # Errors
    /// [`ServiceError::Thread`].
    pub fn watchdog(&self, limit: Option<Duration>) -> Result<Watchdog, ServiceError> {
        Watchdog::start(self, limit).map_err(ServiceError::Thread)
    }

    /// A message that is lost harms nobody: systemd restarts what it does not hear, and the next one may arrive.
    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(e) = socket.send(message.as_bytes())
        {
            tracing::warn!("the service manager did not take {message:?}: {e}");
        }
    }
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match address.as_bytes() {
        [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        [b'/', ..] => socket.connect(address)?,
        _ => {
            let what = "is neither a path from the root nor an abstract socket (@NAME)";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
    }
    // A manager that does not read must not hold up the pipeline.
    socket.set_write_timeout(Some(Duration::from_secs(1)))?;
    Ok(socket)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use super::*;

    /// A manager that listens, and what it heard so far.
    pub(crate) struct Manager(UnixDatagram);

    impl Manager {
        pub(crate) fn at(address: &str) -> Manager {
            let socket = match address.strip_prefix('@') {
                Some(name) => {
                    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap())
                }
                None => UnixDatagram::bind(address),
            }
            .unwrap();
            Manager(socket)
        }

        /// The next message, if one comes within `patience`.
        pub(crate) fn hears(&self, patience: Duration) -> Option<String> {
            self.0.set_read_timeout(Some(patience)).unwrap();
            let mut bytes = [0; 4096];
            let length = self.0.recv(&mut bytes).ok()?;
            Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
        }
    }

    pub(crate) const SOON: Duration = Duration::from_secs(20);

    pub(crate) fn service(variables: &[(&'static str, &str)]) -> Result<Service, ServiceError> {
        Service::from_variables(|name| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn messages_arrive_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify").display().to_string();
        let name = format!("@reid-edge-test-{}", std::process::id());
        for address in [path, name] {
            let manager = Manager::at(&address);
            let service = service(&[("NOTIFY_SOCKET", &address)]).unwrap();
            assert!(service.is_managed());
            service.status("3 cameras live\nREADY=1");
            service.extend(Duration::from_secs(90));
            service.ready();
            service.reloading();
            service.stopping();
            let heard: Vec<_> = (0..5).map(|_| manager.hears(SOON).unwrap()).collect();
            assert_eq!(
                heard,
                [
                    // A line break cannot smuggle in another message.
                    "STATUS=3 cameras live READY=1",
                    "EXTEND_TIMEOUT_USEC=90000000",
                    "READY=1",
                    "RELOADING=1",
                    "STOPPING=1"
                ],
                "{address}"
            );
            service.status(&"ä".repeat(5000));
            let line = manager.hears(SOON).unwrap();
            assert_eq!(line.chars().count(), "STATUS=".len() + STATUS_CHARS);
        }
    }

    #[test]
    fn nobody_listens_and_nothing_happens() {
        let service = service(&[]).unwrap();
        service.ready();
        service.status("alone");
        assert!(!service.is_managed());
        let watchdog = service.watchdog(None).unwrap();
        watchdog.pulse("loop").beat();
    }

    #[test]
    fn a_manager_that_went_away_holds_nothing_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify").display().to_string();
        let manager = Manager::at(&path);
        let service = service(&[("NOTIFY_SOCKET", &path)]).unwrap();
        drop(manager);
        let began = Instant::now();
        service.ready();
        assert!(began.elapsed() < SOON);
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify").display().to_string();
        let _manager = Manager::at(&path);
        let me = std::process::id().to_string();
        let socket = ("NOTIFY_SOCKET", path.as_str());
        let usec = ("WATCHDOG_USEC", "1500000");
        let interval = |variables: &[_]| service(variables).unwrap().watchdog_interval();
        let expected = Some(Duration::from_millis(1500));
        assert_eq!(interval(&[socket, usec]), expected);
        assert_eq!(interval(&[socket, usec, ("WATCHDOG_PID", &me)]), expected);
        assert_eq!(interval(&[socket, usec, ("WATCHDOG_PID", "1")]), None);
        assert_eq!(interval(&[usec]), None, "nobody to tell");
        assert_eq!(interval(&[socket]), None);
    }

    #[test]
    fn nonsense_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify").display().to_string();
        let missing = service(&[("NOTIFY_SOCKET", &path)])
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("NOTIFY_SOCKET") && missing.contains(&path),
            "{missing}"
        );
        let relative = service(&[("NOTIFY_SOCKET", "notify")])
            .unwrap_err()
            .to_string();
        assert!(relative.contains("abstract"), "{relative}");
        let _manager = Manager::at(&path);
        for value in ["0", "-1", "soon", ""] {
            let variables = [("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", value)];
            let error = service(&variables).unwrap_err().to_string();
            assert!(error.contains("WATCHDOG_USEC"), "{error}");
        }
    }
}
