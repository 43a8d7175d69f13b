//! Responses of an app that break a rule, and the section that has the rule.

/// The section, what is wrong, and the response.
type Wrong = (&'static str, &'static str, &'static [u8]);

/// Heads that never get as far as the client.
pub(super) const HEADS: &[Wrong] = &[
    ("RFC 9112 section 4", "no HTTP", b"220 ready\r\n\r\n"),
    (
        "RFC 9112 section 4",
        "a request",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    ("RFC 9112 section 4", "no status", b"HTTP/1.1\r\n\r\n"),
    (
        "RFC 9112 section 4",
        "two digits",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "RFC 9112 section 4",
        "four digits",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "RFC 9112 section 4",
        "a signed status",
        b"HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "RFC 9112 section 4",
        "a status of letters",
        b"HTTP/1.1 two OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "RFC 9110 section 15",
        "status 099",
        b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "RFC 9112 section 4",
        "a control byte in the phrase",
        b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "RFC 9112 section 2.3",
        "version 2.0",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "RFC 9112 section 2.3",
        "a version in lower case",
        b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "RFC 9112 section 2.2",
        "bare LFs",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    ),
    (
        "RFC 9112 section 2.2",
        "a bare LF behind a field",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\nX: 1\r\n\r\n",
    ),
    (
        "RFC 9112 section 2.2",
        "a bare CR in a value",
        b"HTTP/1.1 200 OK\r\nX: 1\rContent-Length: 0\r\n\r\n",
    ),
    (
        "RFC 9112 section 5.1",
        "a space before the colon",
        b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    ),
    (
        "RFC 9112 section 5.2",
        "a folded field",
        b"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "RFC 9112 section 5",
        "no colon",
        b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "RFC 9110 section 5.5",
        "a NUL in a value",
        b"HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "RFC 9110 section 5.6.2",
        "a name in parentheses",
        b"HTTP/1.1 200 OK\r\n(X): 1\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "RFC 9112 section 6.3",
        "two lengths",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    ),
    (
        "RFC 9112 section 6.3",
        "two lengths alike",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    ),
    (
        "RFC 9110 section 8.6",
        "a list of lengths",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\nx",
    ),
    (
        "RFC 9110 section 8.6",
        "a signed length",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
    ),
    (
        "RFC 9110 section 8.6",
        "an empty length",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "both framings",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "another coding",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
    ),
    (
        "RFC 9112 section 6.1",
        "chunked twice",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "chunked in 1.0",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "chunks of a 204",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "chunks of a 103",
        b"HTTP/1.1 103 Early\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "RFC 9110 section 8.6",
        "a length of a 204",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "RFC 9110 section 8.6",
        "a length of a 100",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "RFC 9110 section 15.2.2",
        "a switch nobody asked for",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ),
];

/// Bodies that never come to an end for the client, behind a head that says they are chunked.
pub(super) const BODIES: &[Wrong] = &[
    (
        "RFC 9112 section 7.1",
        "a size that is none",
        b"x\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a negative size",
        b"-1\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a chunk longer than its size",
        b"3\r\nabcd\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a bare LF behind the size",
        b"3\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.1",
        "an open quote",
        b"3;a=\"\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.2",
        "a trailer with a space",
        b"0\r\nX Y: 1\r\n\r\n",
    ),
    (
        "RFC 9110 section 6.5.1",
        "Content-Length as a trailer",
        b"0\r\nContent-Length: 3\r\n\r\n",
    ),
    ("RFC 9112 section 8", "an end in the middle", b"3\r\nab"),
];
