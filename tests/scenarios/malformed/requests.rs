//! Requests that break a rule, and the section that has the rule.

/// How far a request may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaches {
    /// Nobody hears of it.
    Nothing,
    /// Its head was right and went on; the app never hears an end of the body.
    Head,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) section: &'static str,
    pub(super) request: Vec<u8>,
    pub(super) status: u16,
    pub(super) reaches: Reaches,
}

/// All of them.
pub(super) fn all() -> Vec<Row> {
    let row = |what: &str, section, request: &[u8], status, reaches| Row {
        what: what.to_owned(),
        section,
        request: request.to_vec(),
        status,
        reaches,
    };
    let mut rows = Vec::new();
    for (section, what, line) in START_LINES {
        let request = [line, &b"\r\nHost: a\r\n\r\n"[..]].concat();
        rows.push(row(what, section, &request, 400, Reaches::Nothing));
    }
    for (section, what, version) in VERSIONS {
        let request = format!("GET / {version}\r\nHost: a\r\n\r\n");
        rows.push(row(
            what,
            section,
            request.as_bytes(),
            505,
            Reaches::Nothing,
        ));
    }
    for (section, what, fields) in FIELDS {
        let request = [b"POST / HTTP/1.1\r\n", *fields, b"\r\n0\r\n\r\n"].concat();
        rows.push(row(what, section, &request, 400, Reaches::Nothing));
    }
    for (section, what, request) in WHOLE {
        rows.push(row(what, section, request, 400, Reaches::Nothing));
    }
    for (section, what, body) in BODIES {
        let request = [CHUNKED, *body].concat();
        rows.push(row(what, section, &request, 400, Reaches::Head));
    }
    rows.extend(bytes());
    let many = "X: 1\r\n".repeat(128);
    let large = format!("X: {}\r\n", "x".repeat(64 * 1024));
    for (what, fields) in [("129 fields", many), ("a head of 64 KiB", large)] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let section = "RFC 6585 section 5";
        rows.push(row(
            what,
            section,
            request.as_bytes(),
            431,
            Reaches::Nothing,
        ));
    }
    let tripled = format!(
        "GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "{".repeat(30_000)
    );
    rows.push(row(
        "30 000 bytes that cross as three each",
        "RFC 9110 section 4.1",
        tripled.as_bytes(),
        431,
        Reaches::Nothing,
    ));
    let field = format!("X: {}\r\n", "x".repeat(1_000));
    let trailers = [CHUNKED, b"0\r\n", field.repeat(70).as_bytes(), b"\r\n"].concat();
    rows.push(row(
        "trailers of 70 kB",
        "RFC 9110 section 5.4",
        &trailers,
        400,
        Reaches::Head,
    ));
    rows
}

/// Bytes that must not be where they are.
fn bytes() -> impl Iterator<Item = Row> {
    let row = |what: String, section, request: Vec<u8>| Row {
        what,
        section,
        request,
        status: 400,
        reaches: Reaches::Nothing,
    };
    let controls = (0..=0x1f_u8).chain([0x7f]);
    let in_value = controls
        .clone()
        .filter(|byte| !b"\t\r\n".contains(byte))
        .map(move |byte| {
            let request = [
                b"GET / HTTP/1.1\r\nHost: a\r\nX: 1",
                &[byte][..],
                b"2\r\n\r\n",
            ];
            row(
                format!("byte {byte:#04x} in a value"),
                "RFC 9110 section 5.5",
                request.concat(),
            )
        });
    let in_name = b"\"(),/;<=>?@[\\]{} \t\0\x7f\x80\xff"
        .iter()
        .map(move |byte| {
            let request = [
                b"GET / HTTP/1.1\r\nHost: a\r\nX",
                &[*byte][..],
                b"Y: 1\r\n\r\n",
            ];
            row(
                format!("byte {byte:#04x} in a name"),
                "RFC 9110 section 5.6.2",
                request.concat(),
            )
        });
    let in_target = controls
        .chain([0x80, 0xff, b'#', b'\\'])
        .filter(|byte| *byte != b'\n')
        .map(move |byte| {
            let request = [b"GET /a", &[byte][..], b"b HTTP/1.1\r\nHost: a\r\n\r\n"];
            row(
                format!("byte {byte:#04x} in the target"),
                "RFC 9112 section 3.2",
                request.concat(),
            )
        });
    let in_host = b"\"(),/;<=>?@[\\]{}%!$&'*+^`|#\x80"
        .iter()
        .map(move |byte| {
            let request = [b"GET / HTTP/1.1\r\nHost: a", &[*byte][..], b"b\r\n\r\n"];
            row(
                format!("byte {byte:#04x} in the host"),
                "RFC 9110 section 7.2",
                request.concat(),
            )
        });
    in_value.chain(in_name).chain(in_target).chain(in_host)
}

/// The section, what is wrong, and the bytes.
type Wrong = (&'static str, &'static str, &'static [u8]);

const START_LINES: &[Wrong] = &[
    ("RFC 9112 section 3", "no version", b"GET /"),
    ("RFC 9112 section 3", "no target", b"GET HTTP/1.1"),
    ("RFC 9112 section 3", "only a method", b"GET"),
    (
        "RFC 9112 section 3",
        "two spaces before the target",
        b"GET  / HTTP/1.1",
    ),
    (
        "RFC 9112 section 3",
        "two spaces behind the target",
        b"GET /  HTTP/1.1",
    ),
    (
        "RFC 9112 section 3",
        "a space at the end",
        b"GET / HTTP/1.1 ",
    ),
    (
        "RFC 9112 section 3",
        "a space at the start",
        b" GET / HTTP/1.1",
    ),
    (
        "RFC 9112 section 3",
        "a tab before the target",
        b"GET\t/ HTTP/1.1",
    ),
    (
        "RFC 9112 section 3",
        "a tab behind the target",
        b"GET /\tHTTP/1.1",
    ),
    ("RFC 9112 section 3", "a fourth part", b"GET / HTTP/1.1 x"),
    (
        "RFC 9112 section 3",
        "a space in the target",
        b"GET /a b HTTP/1.1",
    ),
    (
        "RFC 9112 section 2.2",
        "a bare CR at its end",
        b"GET / HTTP/1.1\r",
    ),
    (
        "RFC 9110 section 9.1",
        "a method with a colon",
        b"G:T / HTTP/1.1",
    ),
    (
        "RFC 9110 section 9.1",
        "a method in parentheses",
        b"(GET) / HTTP/1.1",
    ),
    (
        "RFC 9110 section 9.1",
        "a method with a control byte",
        b"G\x01T / HTTP/1.1",
    ),
    (
        "RFC 9110 section 9.1",
        "a method beyond ASCII",
        b"G\xc3\x84T / HTTP/1.1",
    ),
    ("RFC 9110 section 9.1", "an empty method", b"/ HTTP/1.1"),
    (
        "RFC 9112 section 2.3",
        "a version in lower case",
        b"GET / http/1.1",
    ),
    (
        "RFC 9112 section 2.3",
        "a version without a slash",
        b"GET / HTTP1.1",
    ),
    (
        "RFC 9112 section 2.3",
        "a version without a minor",
        b"GET / HTTP/1",
    ),
    (
        "RFC 9112 section 2.3",
        "a version with a comma",
        b"GET / HTTP/1,1",
    ),
    (
        "RFC 9112 section 2.3",
        "a version of three digits",
        b"GET / HTTP/1.10",
    ),
    (
        "RFC 9112 section 2.3",
        "a version with a leading zero",
        b"GET / HTTP/01.1",
    ),
    (
        "RFC 9112 section 2.3",
        "a version with a letter",
        b"GET / HTTP/1.x",
    ),
    (
        "RFC 9112 section 2.3",
        "a version with a sign",
        b"GET / HTTP/1.-1",
    ),
    ("RFC 9112 section 2.3", "another protocol", b"GET / ICY/1.1"),
    (
        "RFC 9112 section 2.3",
        "a version in two parts",
        b"GET / HTTP/ 1.1",
    ),
    (
        "RFC 9112 section 3.2",
        "a relative target",
        b"GET a HTTP/1.1",
    ),
    (
        "RFC 9112 section 3.2",
        "a query for a target",
        b"GET ?a HTTP/1.1",
    ),
    (
        "RFC 9112 section 3.2.4",
        "GET of an asterisk",
        b"GET * HTTP/1.1",
    ),
    (
        "RFC 9112 section 3.2.4",
        "POST to an asterisk",
        b"POST * HTTP/1.1",
    ),
    (
        "RFC 9112 section 3.2.4",
        "an asterisk and more",
        b"OPTIONS *a HTTP/1.1",
    ),
    ("RFC 9112 section 3.2.1", "a fragment", b"GET /a#b HTTP/1.1"),
    (
        "RFC 9112 section 3.2.1",
        "a fragment in the query",
        b"GET /?a#b HTTP/1.1",
    ),
    (
        "RFC 9112 section 3.2.2",
        "another scheme",
        b"GET ftp://a/ HTTP/1.1",
    ),
    (
        "RFC 9112 section 3.2.2",
        "a scheme without an authority",
        b"GET http:/a HTTP/1.1",
    ),
    (
        "RFC 9110 section 4.2.1",
        "an empty authority",
        b"GET http:/// HTTP/1.1",
    ),
    (
        "RFC 9110 section 4.2.4",
        "userinfo in the target",
        b"GET http://u@a/ HTTP/1.1",
    ),
    (
        "RFC 9110 section 4.2.4",
        "userinfo and a password",
        b"GET http://u:p@a/ HTTP/1.1",
    ),
    (
        "RFC 9112 section 3.2.2",
        "a fragment in a URI",
        b"GET http://a#b HTTP/1.1",
    ),
    (
        "RFC 9112 section 3.2.2",
        "a backslash in a URI",
        b"GET http://a\\b/ HTTP/1.1",
    ),
    (
        "RFC 3986 section 3.2.3",
        "a port that is none in a URI",
        b"GET http://a:b/ HTTP/1.1",
    ),
    (
        "RFC 9112 section 3.2.3",
        "CONNECT to a path",
        b"CONNECT / HTTP/1.1",
    ),
    (
        "RFC 9112 section 3.2.3",
        "CONNECT to a URI",
        b"CONNECT http://a:80/ HTTP/1.1",
    ),
    (
        "RFC 9110 section 9.3.6",
        "CONNECT without a port",
        b"CONNECT a HTTP/1.1",
    ),
    (
        "RFC 9110 section 9.3.6",
        "CONNECT with an empty port",
        b"CONNECT a: HTTP/1.1",
    ),
    (
        "RFC 9110 section 9.3.6",
        "CONNECT to port 0",
        b"CONNECT a:0 HTTP/1.1",
    ),
    (
        "RFC 9110 section 9.3.6",
        "CONNECT to port 65536",
        b"CONNECT a:65536 HTTP/1.1",
    ),
    (
        "RFC 3986 section 2.1",
        "half an escape",
        b"GET /%4 HTTP/1.1",
    ),
    (
        "RFC 3986 section 2.1",
        "an empty escape",
        b"GET /% HTTP/1.1",
    ),
    (
        "RFC 3986 section 2.1",
        "an escape that is none",
        b"GET /%zz HTTP/1.1",
    ),
    (
        "RFC 3986 section 2.1",
        "a signed escape",
        b"GET /%+1 HTTP/1.1",
    ),
    (
        "RFC 3986 section 2.1",
        "half an escape in the query",
        b"GET /?%4 HTTP/1.1",
    ),
    (
        "RFC 3986 section 2.1",
        "%u in the query",
        b"GET /?%u0041 HTTP/1.1",
    ),
    (
        "RFC 3986 section 2.2",
        "an encoded slash",
        b"GET /a%2Fb HTTP/1.1",
    ),
    (
        "RFC 3986 section 2.2",
        "an encoded slash in a URI",
        b"GET http://a/b%2fc HTTP/1.1",
    ),
    (
        "RFC 3986 section 2.2",
        "an encoded backslash",
        b"GET /a%5cb HTTP/1.1",
    ),
    (
        "RFC 3986 section 2.2",
        "an encoded NUL",
        b"GET /a%00 HTTP/1.1",
    ),
    (
        "RFC 3986 section 5.2.4",
        "above the root",
        b"GET /../etc HTTP/1.1",
    ),
    (
        "RFC 3986 section 5.2.4",
        "above the root at last",
        b"GET /a/../../etc HTTP/1.1",
    ),
    (
        "RFC 3986 section 5.2.4",
        "above the root, encoded",
        b"GET /%2e%2e/etc HTTP/1.1",
    ),
    (
        "RFC 3986 section 5.2.4",
        "above the root, half encoded",
        b"GET /.%2E/etc HTTP/1.1",
    ),
    (
        "RFC 3986 section 5.2.4",
        "above the root behind slashes",
        b"GET ///../etc HTTP/1.1",
    ),
    (
        "RFC 3986 section 3.3",
        "a dot segment with parameters",
        b"GET /a/..;/etc HTTP/1.1",
    ),
    (
        "RFC 3986 section 3.3",
        "an encoded one",
        b"GET /a/%2e%2e;x=1/etc HTTP/1.1",
    ),
];

const VERSIONS: &[(&str, &str, &str)] = &[
    ("RFC 9110 section 15.6.6", "version 0.9", "HTTP/0.9"),
    ("RFC 9110 section 15.6.6", "version 1.2", "HTTP/1.2"),
    ("RFC 9110 section 15.6.6", "version 2.0", "HTTP/2.0"),
    ("RFC 9110 section 15.6.6", "version 3.0", "HTTP/3.0"),
    ("RFC 9110 section 15.6.6", "version 9.9", "HTTP/9.9"),
];

const FIELDS: &[Wrong] = &[
    ("RFC 9112 section 3.2", "no Host", b""),
    (
        "RFC 9112 section 3.2",
        "no Host but others",
        b"X-Host: a\r\n",
    ),
    (
        "RFC 9112 section 3.2",
        "two Hosts alike",
        b"Host: a\r\nHost: a\r\n",
    ),
    (
        "RFC 9112 section 3.2",
        "two Hosts",
        b"Host: a\r\nhOST: b\r\n",
    ),
    ("RFC 9110 section 4.2.1", "an empty Host", b"Host:\r\n"),
    ("RFC 9110 section 4.2.1", "a blank Host", b"Host:  \t\r\n"),
    ("RFC 9110 section 4.2.4", "userinfo", b"Host: u@a\r\n"),
    (
        "RFC 9110 section 4.2.4",
        "userinfo and a password",
        b"Host: u:p@a:80\r\n",
    ),
    ("RFC 9110 section 7.2", "a path", b"Host: a/b\r\n"),
    ("RFC 9110 section 7.2", "a URI", b"Host: http://a\r\n"),
    ("RFC 9110 section 7.2", "a list", b"Host: a, b\r\n"),
    ("RFC 9110 section 7.2", "two words", b"Host: a b\r\n"),
    ("RFC 9110 section 7.2", "only a port", b"Host: :80\r\n"),
    (
        "RFC 3986 section 3.2.3",
        "a port that is none",
        b"Host: a:b\r\n",
    ),
    (
        "RFC 3986 section 3.2.3",
        "a signed port",
        b"Host: a:+80\r\n",
    ),
    ("RFC 3986 section 3.2.3", "port 65536", b"Host: a:65536\r\n"),
    ("RFC 3986 section 3.2.3", "two ports", b"Host: a:80:80\r\n"),
    (
        "RFC 3986 section 3.2.2",
        "an open bracket",
        b"Host: [::1\r\n",
    ),
    (
        "RFC 3986 section 3.2.2",
        "an address without brackets",
        b"Host: ::1\r\n",
    ),
    (
        "RFC 3986 section 3.2.2",
        "an address that is none",
        b"Host: [::g]\r\n",
    ),
    (
        "RFC 3986 section 3.2.2",
        "an address and more",
        b"Host: [::1]a\r\n",
    ),
    (
        "RFC 3986 section 3.2.2",
        "an address with a zone",
        b"Host: [fe80::1%25x]\r\n",
    ),
    (
        "RFC 3986 section 3.2.2",
        "half an IPv4 address",
        b"Host: 127.1\r\n",
    ),
    (
        "RFC 3986 section 3.2.2",
        "an IPv4 address in hexadecimal",
        b"Host: 0x7f.0x1\r\n",
    ),
    (
        "RFC 3986 section 3.2.2",
        "an IPv4 address too large",
        b"Host: 127.0.0.256\r\n",
    ),
    (
        "RFC 1035 section 2.3.1",
        "an empty label",
        b"Host: a..b\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "both framings",
        b"Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "both framings, turned",
        b"Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ),
    (
        "RFC 9112 section 6.3",
        "two lengths",
        b"Host: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
    ),
    (
        "RFC 9112 section 6.3",
        "two lengths alike",
        b"Host: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
    ),
    (
        "RFC 9110 section 8.6",
        "a list of lengths",
        b"Host: a\r\nContent-Length: 5, 5\r\n",
    ),
    (
        "RFC 9110 section 8.6",
        "a signed length",
        b"Host: a\r\nContent-Length: +5\r\n",
    ),
    (
        "RFC 9110 section 8.6",
        "a negative length",
        b"Host: a\r\nContent-Length: -5\r\n",
    ),
    (
        "RFC 9110 section 8.6",
        "an empty length",
        b"Host: a\r\nContent-Length:\r\n",
    ),
    (
        "RFC 9110 section 8.6",
        "a length in hexadecimal",
        b"Host: a\r\nContent-Length: 0x5\r\n",
    ),
    (
        "RFC 9110 section 8.6",
        "a length with a point",
        b"Host: a\r\nContent-Length: 5.0\r\n",
    ),
    (
        "RFC 9110 section 8.6",
        "a length with a space",
        b"Host: a\r\nContent-Length: 5 0\r\n",
    ),
    (
        "RFC 9110 section 8.6",
        "a length with an underscore",
        b"Host: a\r\nContent-Length: 1_0\r\n",
    ),
    (
        "RFC 9110 section 8.6",
        "a length beyond 64 bits",
        b"Host: a\r\nContent-Length: 18446744073709551616\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "an unknown coding",
        b"Host: a\r\nTransfer-Encoding: x\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "identity",
        b"Host: a\r\nTransfer-Encoding: identity\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "no coding",
        b"Host: a\r\nTransfer-Encoding:\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "two codings",
        b"Host: a\r\nTransfer-Encoding: gzip, chunked\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "chunked not last",
        b"Host: a\r\nTransfer-Encoding: chunked, gzip\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "chunked twice",
        b"Host: a\r\nTransfer-Encoding: chunked, chunked\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "chunked in two fields",
        b"Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "codings in two fields",
        b"Host: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "RFC 9112 section 7",
        "chunked in quotes",
        b"Host: a\r\nTransfer-Encoding: \"chunked\"\r\n",
    ),
    (
        "RFC 9112 section 7",
        "chunked with a parameter",
        b"Host: a\r\nTransfer-Encoding: chunked;q=1\r\n",
    ),
    (
        "RFC 9112 section 7",
        "chunked with a vertical tab",
        b"Host: a\r\nTransfer-Encoding: \x0bchunked\r\n",
    ),
    (
        "RFC 9112 section 5.2",
        "a folded field",
        b"Host: a\r\nX: 1\r\n 2\r\n",
    ),
    (
        "RFC 9112 section 5.2",
        "a field folded by a tab",
        b"Host: a\r\nX: 1\r\n\t2\r\n",
    ),
    ("RFC 9112 section 5.2", "a folded Host", b"Host:\r\n a\r\n"),
    (
        "RFC 9112 section 5.2",
        "a folded coding",
        b"Host: a\r\nTransfer-Encoding:\r\n chunked\r\n",
    ),
    (
        "RFC 9112 section 2.2",
        "white space before the first field",
        b" Host: a\r\n",
    ),
    (
        "RFC 9112 section 5.1",
        "a space before the colon",
        b"Host : a\r\n",
    ),
    (
        "RFC 9112 section 5.1",
        "a tab before the colon",
        b"Host: a\r\nTransfer-Encoding\t: chunked\r\n",
    ),
    ("RFC 9112 section 5", "no colon", b"Host: a\r\nX\r\n"),
    ("RFC 9112 section 5", "no name", b"Host: a\r\n: 1\r\n"),
    (
        "RFC 9112 section 2.2",
        "a bare LF behind a field",
        b"Host: a\nX: 1\r\n",
    ),
    (
        "RFC 9112 section 2.2",
        "a bare LF behind the last field",
        b"Host: a\r\nX: 1\n",
    ),
    (
        "RFC 9112 section 2.2",
        "a bare CR in a value",
        b"Host: a\r\nX: 1\rY: 2\r\n",
    ),
    ("RFC 9112 section 2.2", "two CRs", b"Host: a\r\nX: 1\r\r\n"),
    (
        "RFC 9112 section 2.2",
        "a bare CR in a name",
        b"Host: a\r\n\rX: 1\r\n",
    ),
];

const WHOLE: &[Wrong] = &[
    (
        "RFC 9112 section 2.2",
        "bare LFs",
        b"GET / HTTP/1.1\nHost: a\n\n",
    ),
    (
        "RFC 9112 section 2.2",
        "a bare LF behind the first line",
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    ),
    (
        "RFC 9112 section 2.2",
        "a bare LF for the empty line",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    ),
    (
        "RFC 9112 section 2.2",
        "a bare LF first",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "RFC 9112 section 2.2",
        "bare CRs",
        b"GET / HTTP/1.1\rHost: a\r\r",
    ),
    (
        "RFC 9112 section 6.1",
        "chunks in 1.0",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 6.1",
        "chunks in 1.0 without a Host",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "RFC 9110 section 9.3.6",
        "a CONNECT with a length",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "RFC 9110 section 9.3.6",
        "a CONNECT with chunks",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 3",
        "no HTTP at all",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ),
    (
        "RFC 9112 section 3",
        "a response",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "RFC 9112 section 3",
        "a line of another protocol",
        b"EHLO a\r\n",
    ),
    ("RFC 9112 section 3", "HTTP/0.9", b"GET /\r\n"),
];

const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

const BODIES: &[Wrong] = &[
    (
        "RFC 9112 section 7.1",
        "an empty size",
        b"\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a size that is none",
        b"x\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a negative size",
        b"-3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a signed size",
        b"+3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a size with 0x",
        b"0x3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a size with an underscore",
        b"0_3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a space before the size",
        b" 3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a space behind the size",
        b"3 \r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a comma behind the size",
        b"3,\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a size of 64 bits",
        b"ffffffffffffffff\r\nabc\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a size of 68 bits",
        b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a bare LF behind the size",
        b"3\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a bare CR behind the size",
        b"3\rabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a bare LF behind the chunk",
        b"3\r\nabc\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a chunk longer than its size",
        b"3\r\nabcd\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1",
        "a chunk shorter than its size",
        b"5\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.1",
        "an extension without a name",
        b"3;\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.1",
        "an extension without a value",
        b"3;a=\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.1",
        "an extension of two words",
        b"3;a b\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.1",
        "an extension without a semicolon",
        b"3 a\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.1",
        "an open quote",
        b"3;a=\"b\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.1",
        "a bare CR in an extension",
        b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.1",
        "a bare LF in an extension",
        b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.1",
        "a control byte in an extension",
        b"3;\x01\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.1",
        "an extension without an end",
        &[b';'; 300],
    ),
    (
        "RFC 9112 section 7.1.2",
        "a trailer with a space",
        b"0\r\nX Y: 1\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.2",
        "a trailer without a colon",
        b"0\r\nX\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.2",
        "a folded trailer",
        b"0\r\nX: 1\r\n 2\r\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.2",
        "a bare LF behind a trailer",
        b"0\r\nX: 1\n\r\n",
    ),
    (
        "RFC 9112 section 7.1.2",
        "a bare LF for the last line",
        b"0\r\nX: 1\r\n\n",
    ),
    (
        "RFC 9112 section 7.1.2",
        "a control byte in a trailer",
        b"0\r\nX: \x01\r\n\r\n",
    ),
    (
        "RFC 9110 section 6.5.1",
        "Content-Length as a trailer",
        b"0\r\nContent-Length: 3\r\n\r\n",
    ),
    (
        "RFC 9110 section 6.5.1",
        "Transfer-Encoding as a trailer",
        b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "RFC 9110 section 6.5.1",
        "Host as a trailer",
        b"0\r\nHost: b\r\n\r\n",
    ),
    (
        "RFC 9110 section 6.5.1",
        "Connection as a trailer",
        b"0\r\nConnection: close\r\n\r\n",
    ),
    (
        "RFC 9110 section 6.5.1",
        "TE as a trailer",
        b"0\r\nTE: trailers\r\n\r\n",
    ),
];
