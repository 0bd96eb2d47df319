//! The least of a hub that tests need: files at paths, ranges, entity tags, and answers that go wrong.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// How requests are answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// As a hub does.
    Whole,
    /// With the first half of what is asked for.
    Half,
    /// With this status.
    Status(&'static str),
    /// Not at all.
    Silence,
}

struct State {
    files: BTreeMap<String, Vec<u8>>,
    requests: Mutex<Vec<String>>,
    answer: Mutex<Answer>,
    over: AtomicBool,
}

/// Serves until dropped.
pub(crate) struct Server {
    port: u16,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// On a free port of this machine, with files by path.
    pub(crate) fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            files: files
                .iter()
                .map(|(path, bytes)| (path.to_string(), bytes.to_vec()))
                .collect(),
            requests: Mutex::default(),
            answer: Mutex::new(Answer::Whole),
            over: AtomicBool::new(false),
        });
        let shared = state.clone();
        let thread = thread::spawn(move || {
            // Kept open: silence is a connection without an answer, not one that is closed.
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                if shared.over.load(Ordering::Relaxed) {
                    return;
                }
                silent.extend(serve(&shared, stream.unwrap()));
            }
        });
        Server {
            port,
            state,
            thread: Some(thread),
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on.
    pub(crate) fn answer(&self, answer: Answer) {
        *self.state.answer.lock().unwrap() = answer;
    }

    /// Heads of the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers one request; the connection, if it shall stay open.
fn serve(state: &State, stream: TcpStream) -> Option<TcpStream> {
    let mut head = String::new();
    let mut reader = BufReader::new(&stream);
    while reader.read_line(&mut head).unwrap_or(0) > 2 {}
    let path = head
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_string();
    let range = head
        .lines()
        .find_map(|line| {
            line.to_lowercase()
                .strip_prefix("range: bytes=")
                .map(String::from)
        })
        .and_then(|range| {
            let (from, to) = range.trim().split_once('-')?;
            Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()))
        });
    state.requests.lock().unwrap().push(head);
    let answer = *state.answer.lock().unwrap();
    let (status, file) = match (answer, state.files.get(&path)) {
        (Answer::Silence, _) => return Some(stream),
        (Answer::Status(status), _) => (status, None),
        (_, None) => ("404 Not Found", None),
        (_, file) => ("206 Partial Content", file),
    };
    let mut out = format!("HTTP/1.1 {status}\r\nConnection: close\r\n").into_bytes();
    match (file, range) {
        (Some(file), Some((from, to))) => {
            let end = to.map_or(file.len(), |to| (to + 1).min(file.len()));
            let part = &file[from.min(end)..end];
            let head = format!(
                "ETag: \"e7a9\"\r\nX-Repo-Commit: c0ffee\r\nContent-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\n\r\n",
                end - 1,
                file.len(),
                part.len()
            );
            out.extend(head.into_bytes());
            let sent = match answer {
                Answer::Half => part.len().div_ceil(2),
                _ => part.len(),
            };
            out.extend(&part[..sent]);
        }
        _ => out.extend(b"Content-Length: 0\r\n\r\n"),
    }
    // A client that has gone away is no matter.
    let _ = (&stream).write_all(&out);
    None
}
