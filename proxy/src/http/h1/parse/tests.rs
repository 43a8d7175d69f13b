//! What is refused, what is taken, and what crosses.

use super::*;

fn parse(text: &str) -> Result<Option<RequestHead>, Reason> {
    request(text.as_bytes(), &mut Vec::new()).map_err(|error| error.reason)
}

/// As the other side would see it.
fn crossing(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    request(text.as_bytes(), &mut out)
        .expect("valid")
        .expect("complete");
    let (_, fields) = neutral::Request::decode(&out).expect("what we make is neutral form");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    fields
        .into_iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

#[test]
fn refuses_what_others_could_read_differently() {
    let rows = [
        ("no Host", "GET / HTTP/1.1\r\n\r\n"),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        ("userinfo in Host", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        ("path in Host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        ("list in Host", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
        ("empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        (
            "length and chunks",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        ),
        (
            "list of lengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
        ),
        (
            "signed length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
        ),
        (
            "huge length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        ),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "gzip coding",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ),
        (
            "chunks in 1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "folded line",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        ),
        ("space before colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("bare line feed", "GET / HTTP/1.1\nHost: a\n\n"),
        (
            "one bare line feed",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: w\r\n\r\n",
        ),
        (
            "control byte",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
        ),
        ("NUL", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        (
            "non-ASCII target",
            "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        ("fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("asterisk", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("relative target", "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("other scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "userinfo in target",
            "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "body of CONNECT",
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
        ),
        (
            "CONNECT without a port",
            "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        ("lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n"),
    ];
    for (what, text) in rows {
        assert_eq!(parse(text), Err(Reason::MalformedRequest), "{what}");
    }
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2"] {
        let text = format!("GET / {version}\r\nHost: a\r\n\r\n");
        assert_eq!(parse(&text), Err(Reason::HttpVersion), "{version}");
    }
}

#[test]
fn a_head_that_came_behind_a_body_is_no_larger_than_others() {
    let head = |bytes: usize| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4))
    };
    assert!(matches!(parse(&head(HEAD_BYTES)), Ok(Some(_))));
    assert_eq!(parse(&head(HEAD_BYTES + 1)), Err(Reason::HeadTooLarge));
}

#[test]
fn takes_what_is_right() {
    let head = |text| parse(text).expect("valid").expect("complete");
    let get = head("GET /a?b HTTP/1.1\r\nHost: a:80\r\n\r\nrest");
    assert_eq!(
        (get.bytes, get.body, get.persistent),
        (33, Body::None, true)
    );
    assert!(!head("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n").persistent);
    assert!(!head("GET / HTTP/1.0\r\n\r\n").persistent);
    assert!(head("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").persistent);
    assert_eq!(
        head("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n").body,
        Body::length(7)
    );
    assert_eq!(
        head("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n").body,
        Body::chunked()
    );
    assert!(
        head("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            .upgrade
    );
    assert_eq!(parse("GET / HTTP/1.1\r\nHost"), Ok(None));
}

#[test]
fn what_crosses() {
    let fields = crossing(
        "GET http://real/ HTTP/1.1\r\nX-A: 1\r\nhOsT: fake\r\nConnection: x-b, keep-alive\r\nX-B: 2\r\nKeep-Alive: 5\r\n\
         TE: gzip, trailers\r\nX-Ringmail-Peer: me\r\nUpgrade: h2c\r\nx-a: 3\r\n\r\n",
    );
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        fields,
        [
            ("X-A", "1"),
            ("hOsT", "real"),
            ("TE", "trailers"),
            ("x-a", "3")
        ]
    );
}

#[test]
fn responses() {
    let asked = Asked {
        is_head: false,
        is_connect: false,
        upgrade: false,
    };
    let body = |text: &str, asked| {
        response(text.as_bytes(), asked, &mut Vec::new())
            .map(|head| head.map(|h| h.body))
            .map_err(|error| error.reason)
    };
    assert_eq!(
        body("HTTP/1.1 200 OK\r\n\r\n", asked),
        Ok(Some(Body::UntilClose))
    );
    assert_eq!(
        body("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", asked),
        Ok(Some(Body::length(3)))
    );
    assert_eq!(
        body(
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
            asked
        ),
        Ok(Some(Body::None))
    );
    assert_eq!(
        body(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
            Asked {
                is_head: true,
                ..asked
            }
        ),
        Ok(Some(Body::None))
    );
    assert_eq!(
        body("HTTP/1.1 101 X\r\n\r\n", asked),
        Err(Reason::AppMalformed),
        "nobody asked"
    );
    assert_eq!(
        body("HTTP/1.1 099 X\r\n\r\n", asked),
        Err(Reason::AppMalformed)
    );
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(body(both, asked), Err(Reason::AppMalformed));
}
