//! Where a camera's pictures come from.

use std::fmt;
use std::path::{Path, PathBuf};

use super::address::Address;
use super::expand::expand;
use super::redact;

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
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// A recorded file.
    File(PathBuf),
    /// An RTSP server.
    Rtsp {
        /// `rtsp://` or `rtsps://` address without user and password.
        location: String,
        /// User.
        user: Option<String>,
        /// Password.
        password: Option<Secret>,
    },
    /// Motion JPEG or any other stream over HTTP.
    Http {
        /// `http://` or `https://` address without user and password.
        location: String,
        /// User.
        user: Option<String>,
        /// Password.
        password: Option<Secret>,
    },
    /// A Video4Linux device.
    V4l2(PathBuf),
    /// A camera on a Jetson's CSI connector, by its sensor number.
    Csi(u32),
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
            Source::Rtsp { location, .. } | Source::Http { location, .. } => {
                f.write_str(&redact::location(location))
            }
            Source::V4l2(device) => write!(f, "v4l2:{}", device.display()),
            Source::Csi(sensor) => write!(f, "csi:{sensor}"),
            // An element's property may be a password, so only the first element is shown.
            Source::Pipeline(text) => {
                let first = text.reveal().split_whitespace().next().unwrap_or("");
                let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
                let first = if first.chars().all(plain) { first } else { "" };
                write!(f, "pipeline:{first} ...")
            }
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
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

/// What a source may be, for messages.
const KNOWN: &str = "use rtsp://, rtsps://, http://, https://, file:PATH, a path, v4l2:/dev/video0, csi:0 or pipeline:ELEMENTS";

impl Source {
    /// Parses `rtsp://...`, `rtsps://...`, `http://...`, `https://...`, `file:PATH`, a plain path, `v4l2:DEVICE`,
    /// `csi:SENSOR` or `pipeline:ELEMENTS`. `${NAME}` stands for an environment variable; within the credentials of an
    /// address it may hold any character, elsewhere they are percent-decoded. `user` and `password` win over those in the
    /// address.
    ///
    /// # Errors
    /// [`BadSource`] for an unknown scheme, an unset variable, an address without a host, or an empty source.
    pub fn parse(
        text: &str,
        base: &Path,
        user: Option<String>,
        password: Option<Secret>,
    ) -> Result<Self, BadSource> {
        let credentials = user.is_some() || password.is_some();
        let source = understand(text, base, user, password).map_err(|remedy| BadSource {
            value: redact::source(text),
            remedy,
        })?;
        let takes_them = matches!(source, Source::Rtsp { .. } | Source::Http { .. });
        if credentials && !takes_them {
            return Err(BadSource {
                value: redact::source(text),
                remedy: "user and password_file belong to an rtsp:// or http:// source".into(),
            });
        }
        Ok(source)
    }
}

/// [`Source::parse`] with the remedy alone as error.
fn understand(
    text: &str,
    base: &Path,
    user: Option<String>,
    password: Option<Secret>,
) -> Result<Source, String> {
    // Taken apart before the variables are put in: a password from the environment may hold @ and /.
    let address = match Address::split(text) {
        Some(address) => address.expanded()?,
        None => {
            let text = expand(text)?;
            match Address::split(&text) {
                Some(address) => address,
                None => return without_address(&text, base),
            }
        }
    };
    let scheme = address.scheme.to_ascii_lowercase();
    if !["rtsp", "rtsps", "http", "https"].contains(&scheme.as_str()) {
        return Err(format!("{} is not known: {KNOWN}", redact::scheme(&scheme)));
    }
    address.check_host()?;
    let location = format!("{scheme}://{}{}", address.host, address.path);
    let user = user.or(address.user);
    let password = password.or(address.password.map(Secret::new));
    Ok(if scheme.starts_with("rtsp") {
        Source::Rtsp {
            location,
            user,
            password,
        }
    } else {
        Source::Http {
            location,
            user,
            password,
        }
    })
}

/// Sources without `://`.
fn without_address(text: &str, base: &Path) -> Result<Source, String> {
    let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
    match scheme {
        "pipeline" => match rest.trim() {
            "" => {
                Err("write GStreamer elements after pipeline:, for example pipeline:v4l2src".into())
            }
            elements => Ok(Source::Pipeline(Secret::new(elements.to_owned()))),
        },
        "v4l2" if rest.starts_with('/') => Ok(Source::V4l2(rest.into())),
        "v4l2" => Err("write a device after v4l2:, for example v4l2:/dev/video0".into()),
        "csi" => rest
            .parse()
            .map(Source::Csi)
            .map_err(|_| "write the sensor's number after csi:, for example csi:0".into()),
        "file" => match rest.strip_prefix("//").unwrap_or(rest) {
            "" => Err("write a path after file:".into()),
            path => Ok(Source::File(base.join(path))),
        },
        _ if rest.trim().is_empty() => Err(format!("it is empty: {KNOWN}")),
        "" if base.join(text).exists()
            || !(text.contains(['@', '=', '?']) || redact::looks_secret(text)) =>
        {
            Ok(Source::File(base.join(text)))
        }
        // A misspelt address must not pass for a file: its name would be printed, and with it a password.
        "" => Err(format!("there is no such file: {KNOWN}")),
        _ if base.join(text).exists() => Ok(Source::File(base.join(text))),
        scheme => Err(format!("{} is not known: {KNOWN}", redact::scheme(scheme))),
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
            ("file:a:b@c.mp4", "/site/a:b@c.mp4"),
            ("file:///v/a.mp4", "/v/a.mp4"),
            ("/v/a.mp4", "/v/a.mp4"),
        ] {
            assert_eq!(parse(text).unwrap(), Source::File(path.into()));
        }
        for text in [" ", "", "file:", "pipeline: "] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn devices_and_pipelines() {
        assert_eq!(
            parse("v4l2:/dev/video0").unwrap(),
            Source::V4l2("/dev/video0".into())
        );
        assert_eq!(parse("csi:1").unwrap(), Source::Csi(1));
        let words = "rtspsrc location=rtsp://u:p@cam ! decodebin";
        assert_eq!(
            parse(&format!("pipeline:{words}")).unwrap(),
            Source::Pipeline(Secret::new(words.into()))
        );
        for text in ["v4l2:video0", "csi:", "csi:front", "csi:-1"] {
            let bad = parse(text).unwrap_err();
            assert!(bad.remedy.contains("for example"), "{bad:?}");
        }
        let bad = Source::parse("csi:0", Path::new(""), Some("bob".into()), None).unwrap_err();
        assert!(bad.remedy.contains("rtsp://"), "{bad:?}");
    }

    #[test]
    fn credentials_leave_the_address_and_every_message() {
        for scheme in ["rtsp", "rtsps", "http", "https"] {
            let s = parse(&format!("{scheme}://bob:p%40ss@w@cam:554/s?x=1")).unwrap();
            let (Source::Rtsp {
                location,
                user,
                password,
            }
            | Source::Http {
                location,
                user,
                password,
            }) = &s
            else {
                panic!("{s:?}")
            };
            assert_eq!(*location, format!("{scheme}://cam:554/s?x=1"));
            assert_eq!(user.as_deref(), Some("bob"));
            assert_eq!(password.as_ref().unwrap().reveal(), "p@ss@w");
            assert!(!format!("{s:?}{s}").contains("p@ss"));
            assert_eq!(matches!(s, Source::Rtsp { .. }), scheme.starts_with("rtsp"));
        }
        let err = parse("ftp://bob:hunter2@cam/s").unwrap_err();
        assert_eq!(err.value, "ftp://***@cam/s");
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

    #[test]
    fn an_address_that_went_wrong_is_no_file_and_shows_no_password() {
        for text in [
            "rtsp:bob:hunter2@cam/s",
            "rtsp//bob:hunter2@cam/s",
            "rtsp/bob-hunter2@cam/s",
            "bob:hunter2@cam/s",
            "rtsp://bob:hunter2cam/s",
            "rtsp://bob:hun/ter2@cam/s",
            "rtsp://bob:hunter2@/s",
            "rtsp://bob:hunter2@cam:x/s",
            "rtsp://[bob:hunter2cam]/s",
            "rtspx://bob:hunter2@cam/s",
            "hunter2@://cam",
        ] {
            let bad = parse(text).unwrap_err();
            let shown = format!("{bad:?}");
            assert!(
                !shown.contains("hunter2") && !shown.contains("ter2"),
                "{text}: {shown}"
            );
        }
        assert!(parse("rtsp://[fe80::1%25eth0]:554/s").is_ok());
    }

    #[test]
    fn a_password_from_the_environment_may_hold_anything() {
        // The one variable that surely is set and holds slashes.
        let path = std::env::var("PATH").unwrap();
        let s = parse("rtsp://bob:${PATH}@cam/s").unwrap();
        let Source::Rtsp {
            location,
            password: Some(password),
            ..
        } = &s
        else {
            panic!("{s:?}")
        };
        assert_eq!(
            (location.as_str(), password.reveal()),
            ("rtsp://cam/s", path.as_str())
        );
        assert!(!format!("{s}{s:?}").contains(&path));
    }
}
