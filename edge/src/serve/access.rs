//! Who may look.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, header};
use uuid::Uuid;

use super::ServeError;

const COOKIE: &str = "reid_session";
const MIN_TOKEN: usize = 16;
/// Visitors remembered; the oldest has to show the token again.
const MAX_SESSIONS: usize = 64;

/// Reads the secret: the file's first line.
pub(super) fn read_token(path: &Path) -> Result<String, ServeError> {
    let fail = |reason: String| ServeError::Token {
        path: path.to_path_buf(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let token = text.lines().next().unwrap_or_default().trim().to_owned();
    if token.len() < MIN_TOKEN {
        return Err(fail(format!(
            "its first line has {} characters, a secret needs at least {MIN_TOKEN}",
            token.len()
        )));
    }
    Ok(token)
}

/// The rules of one page.
pub(super) struct Access {
    token: Option<String>,
    sessions: Mutex<VecDeque<String>>,
}

impl Access {
    pub(super) fn new(token: Option<String>) -> Self {
        Access {
            token,
            sessions: Mutex::default(),
        }
    }

    /// Whether a token is wanted at all.
    pub(super) fn guarded(&self) -> bool {
        self.token.is_some()
    }

    /// Whether the request may pass.
    pub(super) fn allows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            // Without a token only this machine may look, also not through a page elsewhere whose name was pointed here.
            return names_this_machine(headers);
        };
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("Bearer "));
        if bearer.is_some_and(|b| equal(b.trim(), token)) {
            return true;
        }
        let Some(session) = cookie(headers) else {
            return false;
        };
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().any(|s| equal(s, session))
    }

    /// Opens a session for whoever shows the token; the value of `Set-Cookie`.
    pub(super) fn login(&self, shown: &str) -> Option<String> {
        let token = self.token.as_ref()?;
        if !equal(shown.trim(), token) {
            return None;
        }
        let session = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.push_back(session.clone());
        if sessions.len() > MAX_SESSIONS {
            sessions.pop_front();
        }
        Some(format!(
            "{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age=604800"
        ))
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|v| v.to_str().ok()) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let number = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || number.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Equality in a time that does not tell how much was right.
fn equal(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && a.bytes()
            .zip(b.bytes())
            .fold(0, |differences, (x, y)| differences | (x ^ y))
            == 0
}
