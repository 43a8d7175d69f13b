//! Names of servers, as the client's TLS says them (RFC 6066 section 3) and as routes match them.

use std::fmt;

use crate::Invalid;

/// Bytes of a name (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 253;
/// Bytes of one label of it.
const LABEL_BYTES_MAX: usize = 63;

/// Which names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// This one.
    Exact(String),
    /// Every name that ends like this, which begins with a dot: at least one label comes before.
    Below(String),
}

impl ServerName {
    /// From `example.com` or `*.example.com`.
    ///
    /// # Errors
    /// When it is no name of RFC 1123 in lower case, or an address.
    pub fn new(field: &str, text: &str) -> Result<Self, Invalid> {
        let (name, is_wildcard) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        if !is_name(name) {
            let problem = "is no host name in lower case, with or without *. before it";
            return Err(Invalid::new(field, problem));
        }
        Ok(match is_wildcard {
            true => Self::Below(format!(".{name}")),
            false => Self::Exact(name.to_owned()),
        })
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Below(end) => name.len() > end.len() && name.ends_with(end.as_str()),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => f.write_str(exact),
            Self::Below(end) => write!(f, "*{end}"),
        }
    }
}

/// Whether it is a host name in lower case, and no address.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= NAME_BYTES_MAX
        && text.split('.').all(is_label)
        && text.parse::<std::net::Ipv4Addr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let long = "a".repeat(64);
        let rows = [
            ("example.com", true),
            ("*.example.com", true),
            ("localhost", true),
            ("xn--bcher-kva.example", true),
            ("1.example", true),
            ("", false),
            ("*", false),
            ("*.", false),
            ("a.*.b", false),
            ("*a.b", false),
            ("Example.com", false),
            ("example.com.", false),
            ("a..b", false),
            ("-a.b", false),
            ("a_b.c", false),
            ("10.0.0.1", false),
            ("::1", false),
            (long.as_str(), false),
        ];
        for (text, good) in rows {
            let name = ServerName::new("server_name", text);
            assert_eq!(name.is_ok(), good, "{text}");
            if let Ok(name) = name {
                assert_eq!(name.to_string(), text);
            }
        }
    }

    #[test]
    fn a_wildcard_is_every_name_below() {
        let rows = [
            ("a.example", "a.example", true),
            ("a.example", "b.a.example", false),
            ("*.a.example", "b.a.example", true),
            ("*.a.example", "c.b.a.example", true),
            ("*.a.example", "a.example", false),
            ("*.a.example", ".a.example", false),
            ("*.a.example", "ba.example", false),
        ];
        for (pattern, name, holds) in rows {
            let pattern = ServerName::new("server_name", pattern).expect("valid");
            assert_eq!(pattern.holds(name), holds, "{pattern} {name}");
        }
    }
}
