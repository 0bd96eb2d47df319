//! One file of a repository on a Hugging Face hub, into the cache, by `hf-hub`.
//!
//! hf-hub has no time limits, so it works on a thread of its own and this one watches what it reports: a network that does not
//! answer, or falls silent in the middle, ends the wait. A download that broke off is continued by the next one.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo};
use indicatif::{ProgressBar, ProgressStyle};

/// How long to wait for a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the hub's first answer.
    pub(super) answer: Duration,
    /// For more bytes of a file that has begun.
    pub(super) silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            answer: Duration::from_secs(10),
            silence: Duration::from_secs(60),
        }
    }
}

/// A hub and where its files go.
#[derive(Clone)]
pub(super) struct Download {
    /// huggingface_hub's cache.
    pub(super) cache: PathBuf,
    /// `https://HOST`, without a slash at its end.
    pub(super) endpoint: String,
    /// Shown to the hub, never to people.
    pub(super) token: Option<String>,
    pub(super) patience: Patience,
}

/// Why there is no file.
#[derive(Debug)]
pub(super) enum Failure {
    /// The repository has none of this name.
    Absent,
    /// Anything else, in a few words.
    Other(String),
}

enum Report {
    /// The hub has the file, of so many bytes.
    Size(usize),
    /// So many more have come.
    Bytes(usize),
    Done(Result<PathBuf, ApiError>),
}

struct Reporter(Sender<Report>);

// Nobody listens any more once the wait has been given up.
impl Progress for Reporter {
    fn init(&mut self, size: usize, _filename: &str) {
        let _ = self.0.send(Report::Size(size));
    }
    fn update(&mut self, size: usize) {
        let _ = self.0.send(Report::Bytes(size));
    }
    fn finish(&mut self) {}
}

impl Download {
    /// Downloads `file` of `repository` (OWNER/NAME, revision main) with a bar on a terminal; its place in the cache.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn file(&self, repository: &str, file: &str) -> Result<PathBuf, Failure> {
        let (sender, reports) = mpsc::channel();
        let (this, repo) = (self.clone(), Repo::model(repository.to_string()));
        let name = file.to_string();
        // Not joined: a thread that waits for a dead network ends with the program.
        thread::spawn(move || {
            let done = ApiBuilder::from_cache(Cache::new(this.cache))
                .with_endpoint(this.endpoint)
                .with_token(this.token)
                .build()
                .and_then(|api| {
                    let reporter = Reporter(sender.clone());
                    api.repo(repo).download_with_progress(&name, reporter)
                });
            let _ = sender.send(Report::Done(done));
        });
        let bar = bar(file);
        let (mut size, mut wait) = (None, self.patience.answer);
        let done = loop {
            match reports.recv_timeout(wait) {
                Ok(Report::Size(bytes)) => {
                    bar.set_length(bytes as u64);
                    bar.set_position(0);
                    (size, wait) = (Some(bytes), self.patience.silence);
                }
                Ok(Report::Bytes(bytes)) => bar.inc(bytes as u64),
                Ok(Report::Done(done)) => break done,
                Err(RecvTimeoutError::Timeout) => {
                    let silent = format!("no answer from {} for {wait:?}", self.host());
                    return Err(Failure::Other(silent));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let odd = format!("{} gave an answer that makes no sense", self.host());
                    return Err(Failure::Other(odd));
                }
            }
        };
        bar.finish_and_clear();
        let path = done.map_err(|e| self.failure(&e))?;
        check(&path, size).map_err(Failure::Other)?;
        Ok(path)
    }

    fn failure(&self, error: &ApiError) -> Failure {
        let host = self.host();
        let status = match error {
            ApiError::RequestError(e) => match **e {
                ureq::Error::StatusCode(code) => Some(code),
                _ => None,
            },
            _ => None,
        };
        let said = match status {
            Some(404) => return Failure::Absent,
            Some(code @ (401 | 403)) => format!(
                "{host} answers {code}: there is no such repository, or it asks for a token in HF_TOKEN"
            ),
            _ => {
                let said = error.to_string();
                let cause = said.strip_prefix("request error: ").unwrap_or(&said);
                format!("{host}: {cause}")
            }
        };
        Failure::Other(match &self.token {
            Some(token) => said.replace(token, "***"),
            None => said,
        })
    }

    /// Without what may stand before it: an endpoint may hold a password.
    fn host(&self) -> &str {
        let rest = self
            .endpoint
            .split_once("://")
            .map_or(self.endpoint.as_str(), |(_, rest)| rest);
        let host = rest.split('/').next().unwrap_or(rest);
        host.rsplit('@').next().unwrap_or(host)
    }
}

/// A file that is shorter or longer than the hub said is taken out of the cache again: nothing would ever repair it there.
fn check(path: &Path, size: Option<usize>) -> Result<(), String> {
    let found = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let Some(size) = size.filter(|s| *s as u64 != found.len()) else {
        return Ok(());
    };
    if let Ok(blob) = path.canonicalize() {
        let _ = std::fs::remove_file(blob);
    }
    let _ = std::fs::remove_file(path);
    Err(format!("{} of {size} bytes came", found.len()))
}

fn bar(file: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} [{wide_bar}] {bytes}/{total_bytes} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    ProgressBar::new(0)
        .with_style(style)
        .with_prefix(file.to_string())
}

#[cfg(test)]
pub(super) mod server;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::server::{Answer, Server};
    use super::*;
    use std::time::Instant;

    const FILE: &str = "/timm/net/resolve/main/model.safetensors";

    fn download(cache: &Path, endpoint: String) -> Download {
        Download {
            cache: cache.to_path_buf(),
            endpoint,
            token: Some("hf_verysecret".into()),
            patience: Patience::default(),
        }
    }

    fn other(done: Result<PathBuf, Failure>) -> String {
        match done {
            Err(Failure::Other(cause)) => cause,
            done => panic!("{done:?}"),
        }
    }

    fn fetch(download: &Download) -> Result<PathBuf, Failure> {
        download.file("timm/net", "model.safetensors")
    }

    #[test]
    fn the_token_goes_to_the_hub_and_nowhere_else() {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(&[(FILE, b"weights")]);
        let path = fetch(&download(cache.path(), server.endpoint())).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"weights");
        let asked = server.requests();
        assert!(
            asked.iter().all(|r| r.contains("Bearer hf_verysecret")),
            "{asked:?}"
        );
        server.answer(Answer::Status("401 Unauthorized"));
        let place = server.endpoint().replace("http://", "http://me:pass@");
        let other_cache = tempfile::tempdir().unwrap();
        let said = other(fetch(&download(other_cache.path(), place)));
        assert!(said.contains("401") && said.contains("HF_TOKEN"), "{said}");
        assert!(!said.contains("secret") && !said.contains("pass"), "{said}");
        server.answer(Answer::Status("404 Not Found"));
        let absent = fetch(&download(other_cache.path(), server.endpoint()));
        assert!(matches!(absent, Err(Failure::Absent)), "{absent:?}");
    }

    #[test]
    fn a_network_that_does_not_answer_ends_the_wait() {
        let cache = tempfile::tempdir().unwrap();
        // A port that was free a moment ago: refused at once.
        let refused = Server::start(&[]).endpoint();
        let started = Instant::now();
        let said = other(fetch(&download(cache.path(), refused)));
        assert!(said.contains("127.0.0.1"), "{said}");
        let server = Server::start(&[(FILE, &vec![1; 100_000])]);
        server.answer(Answer::Silence);
        let mut download = download(cache.path(), server.endpoint());
        download.patience.answer = Duration::from_millis(300);
        let said = other(fetch(&download));
        assert!(said.contains("no answer from 127.0.0.1"), "{said}");
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_download_that_breaks_off_is_continued() {
        let cache = tempfile::tempdir().unwrap();
        let weights: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let server = Server::start(&[(FILE, &weights)]);
        server.answer(Answer::Half);
        let download = download(cache.path(), server.endpoint());
        let said = other(fetch(&download));
        let snapshots = cache.path().join("models--timm--net/snapshots");
        assert!(!snapshots.exists(), "half a file must not be found: {said}");
        server.answer(Answer::Whole);
        let path = fetch(&download).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), weights);
        let last = server.requests().pop().unwrap();
        assert!(
            !last.contains("bytes=0-"),
            "continued, not begun anew: {last}"
        );
    }
}
