//! What a connection speaks, from its first bytes. Pure; whoever reads the bytes bounds how many and how long.

/// Reading them.
pub(crate) mod first;

/// Whom a client's TLS asks for.
pub(crate) mod client_hello;

/// Bytes after which a first line that may still become HTTP is taken for it: then a too large head is refused as such.
pub(crate) const DETECT_BYTES_MAX: usize = 16 * 1024;

/// RFC 9113 section 3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Requests that start like this are HTTP/1 whatever follows: what follows may be wrong, and is refused as such.
const HTTP1_STARTS: [&[u8]; 9] = [
    b"GET /",
    b"PUT /",
    b"HEAD /",
    b"POST /",
    b"PATCH /",
    b"TRACE /",
    b"DELETE /",
    b"OPTIONS /",
    b"OPTIONS * HTTP/",
];

/// What the first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Could still be one or the other.
    More,
    Http1,
    Http2,
    /// Anything else, the app's own TLS included.
    Opaque,
}

/// Looks at all bytes so far.
pub(crate) fn detect(bytes: &[u8]) -> Verdict {
    if bytes.starts_with(HTTP2_PREFACE) {
        return Verdict::Http2;
    }
    if HTTP2_PREFACE.starts_with(bytes) {
        return Verdict::More;
    }
    let bytes = without_empty_lines(bytes);
    if HTTP1_STARTS.iter().any(|start| bytes.starts_with(start)) {
        return Verdict::Http1;
    }
    if matches!(bytes, b"" | b"\r") {
        return Verdict::More;
    }
    let end = bytes.iter().position(|b| *b == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let method = line
        .iter()
        .take_while(|b| crate::http::neutral::is_token(**b))
        .count();
    let after_method = line.get(method);
    if method == 0
        || after_method.is_some_and(|b| *b != b' ')
        || line.iter().any(u8::is_ascii_control)
    {
        return Verdict::Opaque;
    }
    match end {
        Some(_) if line.len() > 9 && line[line.len() - 9..].starts_with(b" HTTP/1.") => {
            Verdict::Http1
        }
        Some(_) => Verdict::Opaque,
        None if bytes.len() >= DETECT_BYTES_MAX => Verdict::Http1,
        None => Verdict::More,
    }
}

/// Whether a server begins with an HTTP/2 SETTINGS frame: its preface, which need not wait for the client's (RFC 9113
/// section 3.4).
pub(crate) fn is_http2_server(bytes: &[u8]) -> bool {
    const SETTINGS: u8 = 4;
    match bytes {
        [l0, l1, l2, SETTINGS, 0, 0, 0, 0, 0, ..] => {
            u32::from_be_bytes([0, *l0, *l1, *l2]).is_multiple_of(6)
        }
        _ => false,
    }
}

/// RFC 9112 section 2.2: empty lines before a request are ignored.
fn without_empty_lines(mut bytes: &[u8]) -> &[u8] {
    while let [b'\r', b'\n', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_bytes_of_many_protocols() {
        let rows: &[(&[u8], Verdict)] = &[
            (b"", Verdict::More),
            (b"G", Verdict::More),
            (b"GET ", Verdict::More),
            (b"GET /", Verdict::Http1),
            (b"GET /\x01", Verdict::Http1),
            (b"GET /\r\n", Verdict::Http1),
            (b"get / HTTP/1.1\r\n", Verdict::Http1),
            (b"\r\n", Verdict::More),
            (b"\r\n\r", Verdict::More),
            (b"\r\nGET / HTTP/1.1\r\n", Verdict::Http1),
            (b"\r\n\r\n\0\r\nQUIT\n", Verdict::Opaque),
            (b"\rGET / HTTP/1.1\r\n", Verdict::Opaque),
            (b"OPTIONS rtsp://a RTSP/1.0\r\n", Verdict::Opaque),
            (b"GET a\r\n", Verdict::Opaque),
            (b"GET / HTTP/1.1\r\n", Verdict::Http1),
            (b"GET / HTTP/1.0\n", Verdict::Http1),
            (b"M-SEARCH * HTTP/1.1\r\n", Verdict::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", Verdict::Http2),
            (b"PRI * HTTP/2.0\r\n", Verdict::More),
            (b"PRI * HTTP/2.0\r\nHost: a", Verdict::Opaque),
            (b"\x16\x03\x01\x02\x00\x01", Verdict::Opaque),
            (b"\x16", Verdict::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Verdict::Opaque),
            (b"PING\r\n", Verdict::Opaque),
            (b"SET a b\r\n", Verdict::Opaque),
            (b"EHLO mail\r\n", Verdict::Opaque),
            (b"SSH-2.0-OpenSSH\r\n", Verdict::Opaque),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Verdict::Opaque),
            (b"GET / HTTP/3.0\r\n", Verdict::Http1),
            (b"GET a HTTP/3.0\r\n", Verdict::Opaque),
            (b" GET / HTTP/1.1\r\n", Verdict::Opaque),
        ];
        for (bytes, verdict) in rows {
            assert_eq!(
                detect(bytes),
                *verdict,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn servers_that_speak_first() {
        let rows: &[(&[u8], bool)] = &[
            (b"\0\0\0\x04\0\0\0\0\0", true),
            (b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\x40\0", true),
            (b"\0\0\x05\x04\0\0\0\0\0", false),
            (b"\0\0\0\x04\x01\0\0\0\0", false),
            (b"\0\0\0\x04\0\0\0\0\x01", false),
            (b"\0\0\0\x04\0\0\0\0", false),
            (b"J\0\0\0\n8.0.36\0", false),
            (b"220 mail\r\n", false),
        ];
        for (bytes, expected) in rows {
            assert_eq!(is_http2_server(bytes), *expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_verdict_stands_whatever_follows(bytes in "[A-Z*]{1,6} [ -~]{0,30}( HTTP/1.1)?\r\n", more in proptest::collection::vec(any::<u8>(), 0..40)) {
            let verdict = detect(bytes.as_bytes());
            let mut longer = bytes.clone().into_bytes();
            longer.extend(more);
            if verdict != Verdict::More {
                prop_assert_eq!(detect(&longer), verdict);
            }
        }

        #[test]
        fn byte_by_byte_ends_the_same(bytes in proptest::collection::vec(any::<u8>(), 1..60)) {
            let first = (1..=bytes.len()).map(|n| detect(&bytes[..n])).find(|verdict| *verdict != Verdict::More);
            if let Some(first) = first {
                prop_assert_eq!(detect(&bytes), first);
            }
        }
    }
}
