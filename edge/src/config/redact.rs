//! What of a configuration may be shown: never a password, wherever a slip of the hand has put it.

/// Names of query parameters and properties that may hold credentials.
const CREDENTIALS: [&str; 9] = [
    "pass", "pwd", "pw", "user", "usr", "login", "token", "auth", "secret",
];

/// Words that give away what stands beside them.
const GIVEAWAYS: [&str; 4] = ["pass", "pwd", "token", "secret"];

/// An address without credentials in front of its host; parameters are shown if they can't be any.
pub(super) fn location(address: &str) -> String {
    let mut out = String::with_capacity(address.len());
    let mut query = false;
    for part in address.split_inclusive(['/', '?', '&', ';', '#']) {
        let end = part.len() - part.ends_with(['/', '?', '&', ';', '#']) as usize;
        let (body, separator) = part.split_at(end);
        match body.split_once('=') {
            Some((name, value)) if holds_credentials(name) || !is_number(value) => {
                out.push_str(if name.len() <= 16 { name } else { "***" });
                out.push_str("=***");
            }
            None if (query && body.len() > 8) || GIVEAWAYS.iter().any(|w| body.contains(w)) => {
                out.push_str("***");
            }
            _ => out.push_str(body),
        }
        out.push_str(separator);
        query |= separator == "?";
    }
    out
}

/// A number, a size or the like: what tells one stream of a camera from another. Anything else may be a password under a
/// name that nobody knows.
fn is_number(value: &str) -> bool {
    value.len() <= 8 && value.starts_with(|c: char| c.is_ascii_digit())
}

fn holds_credentials(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    CREDENTIALS.iter().any(|word| name.contains(word)) || name.ends_with("key")
}

/// A `source` as written: its scheme, and what stands behind the last @.
pub(super) fn source(text: &str) -> String {
    let tail = text.rsplit_once('@').map(|(_, tail)| location(tail));
    match (text.split_once("://"), tail) {
        (Some((head, _)), Some(tail)) => format!("{}***@{tail}", scheme(head)),
        (Some((head, _)), None) => format!("{}***", scheme(head)),
        (None, _) => value(text),
    }
}

/// `NAME://` if it may be one.
pub(super) fn scheme(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    if name.len() <= 12 && name.chars().all(plain) {
        format!("{name}://")
    } else {
        "***://".into()
    }
}

/// A value in quotes if nothing in it looks like an address, credentials or the elements of a pipeline.
pub(super) fn value(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || " _-./${}".contains(c);
    if text.chars().count() <= 80 && !text.contains("//") && text.chars().all(plain) {
        format!("\"{text}\"")
    } else {
        "\"***\"".into()
    }
}

/// Whether text where a path should be is a camera's address or a pipeline instead, perhaps misspelt: as a path it would end
/// up in messages.
pub(super) fn looks_secret(text: &str) -> bool {
    let credentials = text
        .split_once(':')
        .is_some_and(|(_, rest)| rest.contains('@'));
    let schemes = ["rtsp:", "rtsps:", "http:", "https:", "pipeline:"];
    let misspelt = text.contains("//") && (text.starts_with("rtsp") || text.starts_with("http"));
    credentials
        || misspelt
        || text.contains("://")
        || text.contains(" ! ")
        || schemes.iter().any(|scheme| text.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_parameters_are_hidden() {
        for (address, shown) in [
            ("rtsp://cam:554/s?x=1", "rtsp://cam:554/s?x=1"),
            (
                "rtsp://cam/user=bob&password=hunter2&channel=1&stream=0.sdp",
                "rtsp://cam/user=***&password=***&channel=1&stream=0.sdp",
            ),
            (
                "http://cam/cgi?loginuse=bob&loginpas=x&api_key=hunter2",
                "http://cam/cgi?loginuse=***&loginpas=***&api_key=***",
            ),
            ("http://cam/?pwd=", "http://cam/?pwd=***"),
            (
                "http://cam/?size=640x480&p=hunter2",
                "http://cam/?size=640x480&p=***",
            ),
        ] {
            assert_eq!(location(address), shown);
        }
    }

    #[test]
    fn only_plain_values_are_shown() {
        assert_eq!(value("küche-2"), "\"küche-2\"");
        assert_eq!(value("${DIR}/a.onnx"), "\"${DIR}/a.onnx\"");
        for hidden in [
            "bob:hunter2",
            "rtsp//bob.hunter2",
            "user-pw=hunter2",
            "a@b",
            &"x".repeat(81),
        ] {
            assert_eq!(value(hidden), "\"***\"");
        }
        assert_eq!(
            source("rtsp://bob:p@w@cam/x?token=y"),
            "rtsp://***@cam/x?token=***"
        );
        assert_eq!(source("bob:hunter2://cam"), "***://***");
        for secret in ["rtsp:/x", "rtsp//bob:hunter2@cam", "a=b ! c"] {
            assert!(looks_secret(secret), "{secret}");
        }
        for path in [":memory:", "/run/credentials/reid@1/door", "a b.db"] {
            assert!(!looks_secret(path), "{path}");
        }
    }
}
