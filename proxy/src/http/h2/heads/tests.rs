//! Which heads are taken, and what becomes of them.

use super::*;
use crate::http::h2::hpack::encode::put_field as put_literal;
use crate::http::neutral::FIELDS_MAX;

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "shop"),
    (":path", "/"),
];
const CONNECT: [(&str, &str); 2] = [(":method", "CONNECT"), (":authority", "shop:80")];
const WEBSOCKET: [(&str, &str); 5] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":authority", "shop"),
    (":path", "/chat"),
];

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        // Names as they are: capitals too.
        block.extend([0, u8::try_from(name.len()).expect("short")]);
        block.extend(name.as_bytes());
        let start = block.len();
        put_literal(&mut block, b"x", value.as_bytes());
        block.drain(start..start + 3);
    }
    block
}

/// The outcome of a request: fields in neutral form, or what is wrong.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Taken(String),
    Malformed,
    Refused(Reason),
}

fn request(fields: &[(&str, &str)]) -> Found {
    let taken = Blocks::default().request(&block(fields));
    let Ok(request) = taken.expect("HPACK") else {
        return Found::Malformed;
    };
    if let Some(error) = request.refused {
        return Found::Refused(error.reason);
    }
    let (head, fields) = neutral::Request::decode(&request.neutral).expect("neutral form");
    assert_eq!(head.upgrade, request.tunnel != Tunnel::None);
    let line = format!("{} {}", head.method, head.target);
    let fields = fields
        .into_iter()
        .filter(|(name, _)| *name != b"sec-websocket-key");
    let text = |part| String::from_utf8_lossy(part).into_owned();
    let fields = fields.map(|(name, value)| format!("{}: {}", text(name), text(value)));
    Found::Taken(
        [line]
            .into_iter()
            .chain(fields)
            .collect::<Vec<_>>()
            .join("|"),
    )
}

fn check(base: &[(&str, &str)], more: &[(&str, &str)], expected: Found) {
    assert_eq!(
        request(&[base, more].concat()),
        expected,
        "{base:?} {more:?}"
    );
}

fn taken(text: &str) -> Found {
    Found::Taken(text.to_owned())
}

#[test]
fn requests_that_are_taken() {
    check(&GET, &[], taken("GET /|host: shop"));
    check(&GET, &[("host", "SHOP.")], taken("GET /|host: shop"));
    check(
        &GET[..2],
        &[(":path", "/a/../b"), ("host", "Shop")],
        taken("GET /b|host: shop"),
    );
    check(
        &GET,
        &[("te", "trailers")],
        taken("GET /|host: shop|te: trailers"),
    );
    check(
        &GET,
        &[
            ("cookie", "a=1"),
            ("accept", " x\t"),
            ("cookie", "b=2"),
            ("cookie", ""),
        ],
        taken("GET /|host: shop|accept: x|cookie: a=1; b=2"),
    );
    check(
        &GET,
        &[("x-ringmail-peer", "forged")],
        taken("GET /|host: shop"),
    );
    check(
        &GET,
        &[("content-length", "7")],
        taken("GET /|host: shop|content-length: 7"),
    );
    let options = [
        (":method", "OPTIONS"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "*"),
    ];
    check(&options, &[], taken("OPTIONS *|host: a"));
    check(
        &CONNECT,
        &[("content-length", "0")],
        taken("CONNECT shop:80|host: shop:80|content-length: 0"),
    );
    check(
        &WEBSOCKET,
        &[],
        taken("GET /chat|host: shop|upgrade: websocket"),
    );
}

#[test]
fn requests_that_are_malformed() {
    for more in [
        &[("Accept", "x")][..],
        &[("a b", "x")],
        &[("", "x")],
        &[("a", "\n")],
        &[("a", "\0")],
        &[(":status", "200")],
        &[(":unknown", "x")],
        &[(":path", "/")],
        &[("a", "x"), (":path", "/")],
        &[(":protocol", "websocket")],
        &[("connection", "close")],
        &[("keep-alive", "1")],
        &[("proxy-connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "h2c")],
        &[("te", "gzip")],
        &[("te", "trailers, deflate")],
    ] {
        check(&GET, more, Found::Malformed);
    }
    for missing in [0, 1, 3] {
        let mut fields = GET.to_vec();
        fields.remove(missing);
        check(&fields, &[], Found::Malformed);
    }
    check(&GET[..3], &[(":path", "")], Found::Malformed);
    check(&[(":method", "G T")], &GET[1..], Found::Malformed);
    check(
        &[(":scheme", "")],
        &[GET[0], GET[2], GET[3]],
        Found::Malformed,
    );
    check(&CONNECT, &[(":path", "/")], Found::Malformed);
    check(&CONNECT, &[(":scheme", "http")], Found::Malformed);
    check(&WEBSOCKET[..4], &[], Found::Malformed);
}

#[test]
fn requests_that_are_answered_why() {
    let malformed = || Found::Refused(Reason::MalformedRequest);
    for more in [
        &[("host", "other")][..],
        &[("host", "a b")],
        &[("content-length", "x")],
        &[("content-length", "1, 1")],
        &[("content-length", "1"), ("content-length", "1")],
    ] {
        check(&GET, more, malformed());
    }
    check(&[GET[0], GET[1], GET[3]], &[], malformed());
    check(
        &[GET[0], GET[1], GET[3]],
        &[("host", "a"), ("host", "a")],
        malformed(),
    );
    check(&GET[..3], &[(":path", "/%2F")], malformed());
    check(&GET[..3], &[(":path", "/a#b")], malformed());
    check(&GET[..3], &[(":path", "a")], malformed());
    check(&CONNECT[..1], &[(":authority", "shop")], malformed());
    check(&CONNECT[..1], &[], malformed());
    check(&CONNECT, &[("content-length", "1")], malformed());
    check(&WEBSOCKET, &[("sec-websocket-key", "x")], malformed());
    check(&WEBSOCKET, &[("content-length", "1")], malformed());
    let udp = [
        (":method", "CONNECT"),
        (":protocol", "connect-udp"),
        GET[1],
        GET[2],
        GET[3],
    ];
    check(&udp, &[], Found::Refused(Reason::NotImplemented));
    let long = "x".repeat(40_000);
    check(
        &GET,
        &[("a", &long), ("b", &long)],
        Found::Refused(Reason::HeadTooLarge),
    );
    let many = vec![("a", "b"); FIELDS_MAX];
    check(&GET, &many, Found::Refused(Reason::HeadTooLarge));
    check(
        &GET,
        &many[..FIELDS_MAX - 1],
        request(&[&GET[..], &many[..FIELDS_MAX - 1]].concat()),
    );
}

#[test]
fn whoever_speaks_grpc_is_answered_in_its_terms() {
    let fields = [
        &GET[..],
        &[
            ("host", "other"),
            ("content-type", "application/grpc+proto"),
        ],
    ]
    .concat();
    let refused = Blocks::default()
        .request(&block(&fields))
        .expect("HPACK")
        .expect("an answer");
    assert!(refused.is_grpc && refused.refused.is_some());
    let fields = [
        &GET[..],
        &[
            ("grpc-timeout", " 10S "),
            ("content-type", "application/grpc"),
        ],
    ]
    .concat();
    let taken = Blocks::default()
        .request(&block(&fields))
        .expect("HPACK")
        .expect("a request");
    assert_eq!(taken.grpc_timeout(), Some(&b"10S"[..]));
}

#[test]
fn responses() {
    let check = |fields: &[(&str, &str)], expected: Option<(u16, Option<u64>)>| {
        let mut out = Vec::new();
        let taken = Blocks::default()
            .response(&block(fields), &mut out)
            .expect("HPACK");
        let found = taken.ok().map(|answer| (answer.status, answer.length));
        assert_eq!(found, expected, "{fields:?}");
        if let Some((status, _)) = expected {
            let (head, _) = neutral::Response::decode(&out).expect("neutral form");
            assert_eq!((head.status, head.upgrade), (status, false));
        }
    };
    let ok = (":status", "200");
    check(&[ok], Some((200, None)));
    check(&[ok, ("content-length", "3")], Some((200, Some(3))));
    check(&[(":status", "103"), ("link", "x")], Some((103, None)));
    check(&[(":status", "999")], Some((999, None)));
    for fields in [
        &[][..],
        &[("server", "x")],
        &[("server", "x"), ok],
        &[ok, ok],
        &[ok, (":path", "/")],
        &[(":status", "20")],
        &[(":status", "2000")],
        &[(":status", "+20")],
        &[(":status", "099")],
        &[(":status", "101")],
        &[ok, ("connection", "close")],
        &[ok, ("content-length", "1"), ("content-length", "1")],
    ] {
        check(fields, None);
    }
}

#[test]
fn trailers() {
    let check = |fields: &[(&str, &str)]| {
        let taken = Blocks::default().trailers(&block(fields), &mut Vec::new());
        taken.expect("HPACK").is_ok()
    };
    assert!(check(&[("grpc-status", "0")]));
    assert!(!check(&[(":status", "200")]));
    assert!(!check(&[("connection", "close")]));
}

#[test]
fn statuses_survive() {
    for status in 100..1000 {
        let mut block = Vec::new();
        put_status(status, &mut block);
        let taken = Blocks::default()
            .response(&block, &mut Vec::new())
            .expect("HPACK");
        let found = taken.ok().map(|answer| answer.status);
        assert_eq!(found, Some(status).filter(|status| *status != 101));
    }
}
