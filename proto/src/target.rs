//! The one normal form of a request's target and host: it is made where a request enters the mesh, decided on, and
//! forwarded; what a peer sends must be in it, and so must paths and hosts of routes. Pure, and without an allocation for
//! what is normal already.
//!
//! What is normalised means the same to every reader before and after; what different readers take for different things
//! is refused, with the rule:
//!
//! | what | becomes | because |
//! | --- | --- | --- |
//! | `%7e`, `%41` (unreserved characters) | `~`, `A` | RFC 3986 section 6.2.2.2 |
//! | `%c3` (lower-case digits) | `%C3` | RFC 3986 section 6.2.2.1 |
//! | `"`, `<`, `>`, `[`, `]`, `^`, `` ` ``, `{`, `\|`, `}` in the path | percent-encoded | RFC 3986 sections 2.1 and 3.3 |
//! | `/./`, `/a/../`, also as `%2E` | removed | RFC 3986 section 6.2.2.3 |
//! | `//` | `/` | servers differ in whether empty segments count |
//! | host in capitals, `a.`, `a:`, `a:080`, `[2001:DB8::0:1]` | `a`, `a`, `a`, `a:80`, `[2001:db8::1]` | RFC 3986 sections 6.2.2.1, 3.2.2 and 6.2.3; RFC 5952 |
//! | `..` above the root | refused | RFC 3986 section 5.2.4 drops it, some servers do not |
//! | `..;x` | refused | RFC 3986 section 3.3 leaves parameters to the server; some drop them and then go up |
//! | `\`, `%5C`, `%2F`, `%00` in the path | refused | RFC 3986 section 2.2: not the delimiter, yet some servers take it for one |
//! | `%zz` | refused | RFC 3986 section 2.1 |
//! | `#`, bytes beyond ASCII | refused | RFC 9112 section 3.2: no target has them |
//! | userinfo, path, list, several parts in the host | refused | RFC 9110 sections 4.2.4 and 7.2 |
//!
//! The query keeps its bytes: it is checked for bytes and escapes that no target may have. A port stays as it was said:
//! which one is the default depends on a scheme that only the client knows.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest host: that of a name (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 255;

/// The rule that a request breaks.
pub type Rule = &'static str;

/// An origin-form target, path and query, in normal form.
///
/// # Errors
/// When readers could take it for different things, or it is no target: the rule.
pub fn origin(target: &str) -> Result<Cow<'_, str>, Rule> {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    check_query(query.as_bytes())?;
    if is_normal_path(path.as_bytes()) {
        return Ok(Cow::Borrowed(target));
    }
    let mut normal = path_segments(&decoded(path.as_bytes())?)?;
    normal.push_str(query);
    Ok(Cow::Owned(normal))
}

/// A host and an optional port, in normal form.
///
/// # Errors
/// When it is no host: the rule.
pub fn host(value: &[u8]) -> Result<Cow<'_, str>, Rule> {
    let value = std::str::from_utf8(value).map_err(|_| HOST_CHARACTER)?;
    let normal = normal_host(value)?;
    Ok(if normal == value {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(normal.into_owned())
    })
}

/// The authority of a CONNECT, in normal form: it has to name a port (RFC 9110 section 9.3.6).
///
/// # Errors
/// When it is no authority: the rule.
pub fn authority(target: &str) -> Result<Cow<'_, str>, Rule> {
    let normal = host(target.as_bytes())?;
    let (_, port) = split_port(&normal)?;
    match port {
        Some(_) => Ok(normal),
        None => Err("a CONNECT names no port (RFC 9110 section 9.3.6)"),
    }
}

/// Whether a request's target is what [`origin`] or [`authority`] would make of it.
#[must_use]
pub fn is_normal(method: &str, target: &str) -> bool {
    match (method, target) {
        ("CONNECT", _) => matches!(authority(target), Ok(Cow::Borrowed(_))),
        ("OPTIONS", "*") => true,
        _ => matches!(origin(target), Ok(Cow::Borrowed(_))),
    }
}

/// Whether a host is what [`host`] would make of it.
#[must_use]
pub fn is_normal_host(value: &[u8]) -> bool {
    matches!(host(value), Ok(Cow::Borrowed(_)))
}

const CHARACTER: Rule = "the target holds a byte that no target may have (RFC 9112 section 3.2)";
const ESCAPE: Rule = "the target holds a percent sign without two digits (RFC 3986 section 2.1)";
const HOST_CHARACTER: Rule = "the host is no name and no address (RFC 9110 section 7.2)";

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// RFC 3986 section 3.3, but for the percent sign.
fn is_path_character(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@".contains(&byte)
}

fn check_query(query: &[u8]) -> Result<(), Rule> {
    let mut rest = query;
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'%' => rest = escape(after)?.1,
            b'#' => return Err("the target has a fragment (RFC 9112 section 3.2)"),
            byte if byte.is_ascii_graphic() => {}
            _ => return Err(CHARACTER),
        }
    }
    Ok(())
}

/// The byte that two digits behind a percent sign stand for, and what follows them.
fn escape(digits: &[u8]) -> Result<(u8, &[u8]), Rule> {
    let (&[high, low], rest) = digits.split_first_chunk().ok_or(ESCAPE)?;
    let value = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    match (value(high), value(low)) {
        (Some(high), Some(low)) => Ok((high << 4 | low, rest)),
        _ => Err(ESCAPE),
    }
}

/// Whether nothing has to be changed and nothing to be refused: the way of nearly every request.
fn is_normal_path(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') {
        return false;
    }
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'/', [b'/', ..]) => return false,
            // Could be a dot segment: the slow way knows.
            (b'/', [b'.', ..]) if starts_with_dots(after) => return false,
            (b'%', [high, low, rest_after @ ..]) => {
                let stays = |byte| !is_unreserved(byte) && !is_delimiter(byte);
                let upper = !high.is_ascii_lowercase() && !low.is_ascii_lowercase();
                if !upper || !escape(after).is_ok_and(|(byte, _)| stays(byte)) {
                    return false;
                }
                rest = rest_after;
            }
            (b'/', _) => {}
            (byte, _) if is_path_character(*byte) => {}
            _ => return false,
        }
    }
    true
}

/// Whether the first segment is `.` or `..`, with or without parameters.
fn starts_with_dots(segments: &[u8]) -> bool {
    let end = segments.iter().position(|b| b"/;".contains(b));
    matches!(&segments[..end.unwrap_or(segments.len())], b"." | b"..")
}

/// What some servers take for the end of a segment, or of a string.
fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\' | 0)
}

/// The path with every character that may stand for itself standing for itself, and every other one percent-encoded.
fn decoded(path: &[u8]) -> Result<Vec<u8>, Rule> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'%' => {
                let (byte, after) = escape(after)?;
                rest = after;
                match byte {
                    b'/' => return Err("the path holds an encoded slash (RFC 3986 section 2.2)"),
                    b'\\' => return Err("the path holds a backslash (RFC 3986 section 2.2)"),
                    0 => return Err("the path holds an encoded NUL (RFC 3986 section 2.2)"),
                    byte if is_unreserved(byte) => out.push(byte),
                    byte => encode(byte, &mut out),
                }
            }
            b'\\' => return Err("the path holds a backslash (RFC 3986 section 2.2)"),
            b'#' => return Err("the target has a fragment (RFC 9112 section 3.2)"),
            b'/' => out.push(b'/'),
            byte if is_path_character(*byte) => out.push(*byte),
            byte if byte.is_ascii_graphic() => encode(*byte, &mut out),
            _ => return Err(CHARACTER),
        }
    }
    Ok(out)
}

/// RFC 3986 section 2.1, with the digits of section 6.2.2.1.
fn encode(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[
        b'%',
        DIGITS[usize::from(byte >> 4)],
        DIGITS[usize::from(byte & 15)],
    ]);
}

/// The path without empty segments and dot segments.
fn path_segments(path: &[u8]) -> Result<String, Rule> {
    let text = std::str::from_utf8(path).map_err(|_| CHARACTER)?;
    let relative = text
        .strip_prefix('/')
        .ok_or("the target is neither a path nor a URI (RFC 9112 section 3.2)")?;
    let mut kept: Vec<&str> = Vec::new();
    let mut is_directory = true;
    for segment in relative.split('/') {
        is_directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." if kept.pop().is_none() => {
                return Err("the path leads above its root (RFC 3986 section 5.2.4)");
            }
            ".." => {}
            segment if starts_with_dots(segment.as_bytes()) => {
                return Err("the path has a dot segment with parameters (RFC 3986 section 3.3)");
            }
            segment => kept.push(segment),
        }
    }
    let mut normal = String::with_capacity(text.len());
    for segment in &kept {
        normal.push('/');
        normal.push_str(segment);
    }
    if is_directory {
        normal.push('/');
    }
    Ok(normal)
}

fn normal_host(value: &str) -> Result<Cow<'_, str>, Rule> {
    let (name, port) = split_port(value)?;
    let name = if name.starts_with('[') {
        normal_v6(name)?
    } else {
        normal_name(name)?
    };
    Ok(match port {
        Some(port) if is_normal_port(value, port) && matches!(name, Cow::Borrowed(_)) => {
            Cow::Borrowed(value)
        }
        Some(port) => Cow::Owned(format!("{name}:{port}")),
        None => name,
    })
}

/// Whether a value ends in the port as we write it, right behind a name without a trailing dot.
fn is_normal_port(value: &str, port: u16) -> bool {
    let digits = value.rsplit(':').next().unwrap_or_default();
    !digits.starts_with('0')
        && digits.parse() == Ok(port)
        && !value[..value.len() - digits.len() - 1].ends_with('.')
}

/// The host, and its port if there is one: not behind the brackets of an address, and not empty (RFC 3986 section 6.2.3).
fn split_port(value: &str) -> Result<(&str, Option<u16>), Rule> {
    let name_end = value.find(']').map_or(0, |bracket| bracket + 1);
    let Some(colon) = value[name_end..].find(':') else {
        return Ok((value, None));
    };
    let (name, port) = value.split_at(name_end + colon);
    match &port[1..] {
        "" => Ok((name, None)),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
            Ok(port @ 1..) => Ok((name, Some(port))),
            _ => Err("the host's port is none (RFC 3986 section 3.2.3)"),
        },
        _ => Err("the host's port is none (RFC 3986 section 3.2.3)"),
    }
}

fn normal_v6(name: &str) -> Result<Cow<'_, str>, Rule> {
    let inner = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let address: Ipv6Addr = inner
        .and_then(|inner| inner.parse().ok())
        .ok_or("the host is no IPv6 address in brackets (RFC 3986 section 3.2.2)")?;
    let normal = format!("[{address}]");
    Ok(if normal == name {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(normal)
    })
}

/// A name of labels, or an IPv4 address.
fn normal_name(name: &str) -> Result<Cow<'_, str>, Rule> {
    if name.contains('@') {
        return Err("the host has userinfo (RFC 9110 section 4.2.4)");
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > HOST_BYTES_MAX {
        return Err("the host is empty or longer than 255 bytes (RFC 9110 section 4.2.1)");
    }
    if !name.bytes().all(is_unreserved) {
        return Err(HOST_CHARACTER);
    }
    if name.split('.').any(str::is_empty) {
        return Err("the host has an empty label (RFC 1035 section 2.3.1)");
    }
    // What ends in a number is an address to some readers: then it must be one to all.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|b| b.is_ascii_digit())
        || last.starts_with("0x")
        || last.starts_with("0X");
    if is_number && name.parse::<Ipv4Addr>().is_err() {
        return Err("the host looks like an IPv4 address and is none (RFC 3986 section 3.2.2)");
    }
    Ok(if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

#[cfg(test)]
mod tests;
