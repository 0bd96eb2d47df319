//! Where a camera's pictures come from.

use std::fmt;
use std::path::{Path, PathBuf};

/// A string that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: String) -> Self {
        Secret(text)
    }

    /// The text, for the one place that must send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A parsed `source`. `Display` and `Debug` never show credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A recorded file.
    File(PathBuf),
    /// An RTSP server.
    Rtsp {
        /// URL without user and password.
        location: String,
        /// User.
        user: Option<String>,
        /// Password.
        password: Option<Secret>,
    },
    /// GStreamer elements whose last one makes raw video.
    Pipeline(Secret),
}

impl Default for Source {
    fn default() -> Self {
        Source::File(PathBuf::new())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => path.display().fmt(f),
            Source::Rtsp { location, .. } => f.write_str(location),
            // An element's property may be a password, so only the first element is shown.
            Source::Pipeline(text) => write!(
                f,
                "pipeline:{} ...",
                text.reveal().split_whitespace().next().unwrap_or("")
            ),
        }
    }
}

/// Why a source cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub struct BadSource {
    /// What was given, without credentials.
    pub value: String,
    /// What to write.
    pub remedy: String,
}

impl Source {
    /// Parses `rtsp://...`, `rtsps://...`, `file:PATH`, a plain path, or `pipeline:ELEMENTS`.
    /// `${NAME}` stands for an environment variable. `user` and `password` win over those in the URL.
    ///
    /// # Errors
    /// [`BadSource`] for an unknown scheme, an unset variable, or an empty source.
    pub fn parse(
        text: &str,
        base: &Path,
        user: Option<String>,
        password: Option<Secret>,
    ) -> Result<Self, BadSource> {
        let bad = |remedy: String| BadSource {
            value: redacted(text),
            remedy,
        };
        let text = &expand(text).map_err(|name| {
            bad(format!(
                "the environment variable {name} is not set: set it, or use password_file"
            ))
        })?;
        if let Some(elements) = text.strip_prefix("pipeline:") {
            return match elements.trim() {
                "" => Err(bad(
                    "write GStreamer elements after pipeline:, for example pipeline:v4l2src".into(),
                )),
                elements => Ok(Source::Pipeline(Secret::new(elements.to_owned()))),
            };
        }
        if text.starts_with("rtsp://") || text.starts_with("rtsps://") {
            return Ok(rtsp(text, user, password));
        }
        if user.is_some() || password.is_some() {
            return Err(bad(
                "user and password_file belong to an rtsp:// source".into()
            ));
        }
        let path = match text.strip_prefix("file:") {
            Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
            None => {
                if let Some((scheme, _)) = text.split_once("://") {
                    return Err(bad(format!(
                        "{scheme}:// is not known: use rtsp://, rtsps://, file:PATH, a path, or pipeline:ELEMENTS"
                    )));
                }
                text
            }
        };
        if path.trim().is_empty() {
            return Err(bad(
                "write a path, an rtsp:// address, or pipeline:ELEMENTS".into(),
            ));
        }
        Ok(Source::File(base.join(path)))
    }
}

fn rtsp(url: &str, user: Option<String>, password: Option<Secret>) -> Source {
    let (scheme, rest) = url.split_once("://").unwrap_or(("rtsp", url));
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // The last @ ends the credentials: a careless password may hold one.
    let (credentials, host) = match authority.rsplit_once('@') {
        Some((c, h)) => (Some(c), h),
        None => (None, authority),
    };
    let (url_user, url_password) = match credentials.map(|c| c.split_once(':').unwrap_or((c, ""))) {
        Some((u, p)) => (Some(decode(u)), Some(Secret::new(decode(p)))),
        None => (None, None),
    };
    Source::Rtsp {
        location: format!("{scheme}://{host}{path}"),
        user: user.or(url_user),
        password: password.or(url_password),
    }
}

/// Percent-decoding of URL credentials.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |b: u8| (b as char).to_digit(16);
        match (
            bytes[i],
            bytes.get(i + 1).copied().and_then(hex),
            bytes.get(i + 2).copied().and_then(hex),
        ) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                i += 3;
            }
            (b, ..) => {
                out.push(b);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Replaces `${NAME}`; the error is the name of a variable that is not set.
fn expand(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start..].find('}') else {
            break;
        };
        let name = &rest[start + 2..start + length];
        out.push_str(&rest[..start]);
        out.push_str(&std::env::var(name).map_err(|_| name.to_owned())?);
        rest = &rest[start + length + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// `scheme://user:password@host` without what stands before the last `@` of the authority.
fn redacted(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            match rest[..end].rfind('@') {
                Some(at) => format!("{scheme}://***{}", &rest[at..]),
                None => text.to_owned(),
            }
        }
        None if text.starts_with("pipeline:") => "pipeline:...".into(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<Source, BadSource> {
        Source::parse(text, Path::new("/site"), None, None)
    }

    #[test]
    fn files_are_relative_to_the_configuration() {
        for (text, path) in [
            ("a.mp4", "/site/a.mp4"),
            ("file:a.mp4", "/site/a.mp4"),
            ("file:///v/a.mp4", "/v/a.mp4"),
            ("/v/a.mp4", "/v/a.mp4"),
        ] {
            assert_eq!(parse(text).unwrap(), Source::File(path.into()));
        }
        assert!(parse(" ").is_err() && parse("pipeline: ").is_err());
    }

    #[test]
    fn credentials_leave_the_url_and_every_message() {
        let s = parse("rtsp://bob:p%40ss@w@cam:554/s?x=1").unwrap();
        let Source::Rtsp {
            location,
            user,
            password,
        } = &s
        else {
            panic!("{s:?}")
        };
        assert_eq!(location, "rtsp://cam:554/s?x=1");
        assert_eq!(user.as_deref(), Some("bob"));
        assert_eq!(password.as_ref().unwrap().reveal(), "p@ss@w");
        assert!(!format!("{s:?}{s}").contains("p@ss"));
        let err = parse("http://bob:hunter2@cam/s").unwrap_err();
        assert_eq!(err.value, "http://***@cam/s");
        let err = parse("rtsp://bob:${REID_TEST_UNSET_VARIABLE}@cam/s").unwrap_err();
        assert!(
            err.remedy.contains("REID_TEST_UNSET_VARIABLE"),
            "{}",
            err.remedy
        );
        let s = Source::parse(
            "rtsp://a:b@cam",
            Path::new(""),
            Some("u".into()),
            Some(Secret::new("p".into())),
        )
        .unwrap();
        assert!(matches!(s, Source::Rtsp { user: Some(u), .. } if u == "u"));
    }
}
