//! Where a rewritten or redirected request goes (Gateway API, `HTTPPathModifier` and `HTTPRequestRedirectFilter`).

use std::borrow::Cow;

use super::{PathEdit, PathMatch, Redirect};

impl PathEdit {
    /// The new path and query of a request to `target`, which `matched` was found for.
    #[must_use]
    pub fn apply(&self, target: &str, matched: &PathMatch) -> String {
        let query_at = target.find('?').unwrap_or(target.len());
        let (path, query) = target.split_at(query_at);
        let mut edited = match self {
            Self::Full(full) => full.clone(),
            Self::Prefix(prefix) => {
                let matched = match matched {
                    PathMatch::Prefix(matched) => matched.as_str(),
                    // The prefix that every path has; the other kinds are refused with this edit.
                    PathMatch::Any | PathMatch::Exact(_) | PathMatch::Regex(_) => "",
                };
                let rest = path.strip_prefix(matched).unwrap_or(path);
                prefix.trim_end_matches('/').to_owned() + rest
            }
        };
        if edited.is_empty() {
            edited.push('/');
        }
        edited + query
    }
}

impl Redirect {
    /// The `Location` for a request to `target` of `host`, dialled at `port`.
    #[must_use]
    pub fn location(&self, host: &str, port: u16, target: &str, matched: &PathMatch) -> String {
        let scheme = self.scheme.as_deref().unwrap_or("http");
        let known = if scheme == "https" { 443 } else { 80 };
        let (asked_host, _) = split_port(host);
        let host = self.host.as_deref().unwrap_or(asked_host);
        let port = match (self.port, &self.scheme) {
            (Some(port), _) => port,
            (None, Some(_)) => known,
            (None, None) => port,
        };
        let target = match &self.path {
            Some(edit) => Cow::Owned(edit.apply(target, matched)),
            None => Cow::Borrowed(target),
        };
        if port == known {
            format!("{scheme}://{host}{target}")
        } else {
            format!("{scheme}://{host}:{port}{target}")
        }
    }
}

/// A host, and the port behind it if there is one (RFC 3986 section 3.2).
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None),
    }
}

/// A query's name or value without its escapes, as forms write them; as it is where it has none, or broken ones.
pub(super) fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = after;
                }
                _ => return Cow::Borrowed(text),
            },
            (b'%', _) => return Cow::Borrowed(text),
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
