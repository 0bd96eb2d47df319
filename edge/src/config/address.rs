//! An address of a camera on the network, taken apart before anybody prints it.

use super::expand::expand;

/// An address taken apart.
pub(super) struct Address {
    pub(super) scheme: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// With its port.
    pub(super) host: String,
    /// With its slash, and the query.
    pub(super) path: String,
}

impl Address {
    /// Nothing if it is no address of a server.
    pub(super) fn split(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        // In a pipeline it belongs to an element's property; a file has no host.
        if scheme.starts_with("pipeline:") || scheme == "file" {
            return None;
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        // The last @ ends the credentials: a careless password may hold one.
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((c, h)) => (Some(c), h),
            None => (None, authority),
        };
        let (user, password) = match credentials.map(|c| c.split_once(':')) {
            Some(Some((user, password))) => (Some(decode(user)), Some(decode(password))),
            Some(None) => (credentials.map(decode), None),
            None => (None, None),
        };
        Some(Address {
            scheme: scheme.to_owned(),
            user,
            password,
            host: host.to_owned(),
            path: path.to_owned(),
        })
    }

    /// With environment variables put in, each into the part where it stands.
    pub(super) fn expanded(mut self) -> Result<Self, String> {
        let parts = [&mut self.scheme, &mut self.host, &mut self.path];
        let credentials = self.user.iter_mut().chain(&mut self.password);
        for part in parts.into_iter().chain(credentials) {
            *part = expand(part)?;
        }
        Ok(self)
    }

    /// Refuses what is no host and port, such as a password that lost its @.
    pub(super) fn check_host(&self) -> Result<(), String> {
        let (host, port) = match self.host.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (self.host.as_str(), None),
        };
        let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        let good = match inner {
            Some(number) => number
                .split('%')
                .next()
                .is_some_and(|n| n.parse::<std::net::Ipv6Addr>().is_ok()),
            None => !host.is_empty() && host.chars().all(plain),
        };
        if !good {
            return Err("between :// and the next / stands no host: write SCHEME://USER:PASSWORD@HOST:PORT/PATH, and / or @ in a password as %2F or %40".into());
        }
        if port.is_some_and(|p| p.parse::<u16>().is_err()) {
            return Err("after the host's colon stands no port number: write SCHEME://USER:PASSWORD@HOST:PORT/PATH, and / or @ in a password as %2F or %40".into());
        }
        // A path that holds an @ is the end of a password with a slash in it more often than a path.
        if self.user.is_none() && self.path.split('?').next().is_some_and(|p| p.contains('@')) {
            return Err("an @ stands after the first /: write / in a password as %2F, and @ in a path as %40".into());
        }
        Ok(())
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
