//! What either side may not do, and what becomes of it: tables.

use super::*;

#[test]
fn what_a_client_may_not_do() {
    for (what, bytes, expected) in [
        ("no settings first", None, Code::ProtocolError),
        (
            "DATA of nobody's",
            Some(data(0, 1, b"x")),
            Code::ProtocolError,
        ),
        (
            "RST of nobody's",
            Some(of(Kind::RstStream, 0, 1, &[0; 4])),
            Code::ProtocolError,
        ),
        (
            "a window of nobody's",
            Some(window(1, 1)),
            Code::ProtocolError,
        ),
        ("an even id", Some(get(2)), Code::ProtocolError),
        (
            "an id of before",
            Some([get(5), get(3)].concat()),
            Code::ProtocolError,
        ),
        (
            "a push",
            Some(of(Kind::PushPromise, 0, 1, &[0; 4])),
            Code::ProtocolError,
        ),
        (
            "CONTINUATION of nothing",
            Some(of(Kind::Continuation, 0, 1, &[])),
            Code::ProtocolError,
        ),
        (
            "a block that is interrupted",
            Some([of(Kind::Headers, 0, 1, GET), data(0, 1, b"")].concat()),
            Code::ProtocolError,
        ),
        (
            "a block that another goes on",
            Some(
                [
                    of(Kind::Headers, 0, 1, GET),
                    of(Kind::Continuation, 0, 3, &[]),
                ]
                .concat(),
            ),
            Code::ProtocolError,
        ),
        (
            "too much padding",
            Some([post(1), data(PADDED, 1, &[9, 0])].concat()),
            Code::ProtocolError,
        ),
        (
            "half a priority",
            Some(of(Kind::Headers, END_HEADERS | PRIORITY, 1, &[0; 4])),
            Code::FrameSizeError,
        ),
        (
            "no block",
            Some(of(Kind::Headers, END_HEADERS, 1, &[0xff])),
            Code::CompressionError,
        ),
        (
            "a frame too large",
            Some(data(0, 1, &[0; frame::PAYLOAD_BYTES_MAX + 1])),
            Code::FrameSizeError,
        ),
    ] {
        let mut server = if bytes.is_some() {
            End::begun(Side::Server)
        } else {
            End::new(Side::Server)
        };
        let bytes = bytes.unwrap_or_else(|| get(1));
        assert_eq!(server.hears(&bytes), Err(expected), "{what}");
    }
}

#[test]
fn what_a_client_may_not_say_of_itself() {
    let under_way = [get(1), post(3)].concat();
    for (what, bytes, expected) in [
        ("no more window", window(0, 0), Code::ProtocolError),
        (
            "too large a window",
            window(0, WINDOW_MAX),
            Code::FlowControlError,
        ),
        (
            "too large a first window",
            setting(4, WINDOW_MAX + 1),
            Code::FlowControlError,
        ),
        (
            "a first window that makes others too large",
            [
                &under_way[..],
                &window(3, WINDOW_MAX - WINDOW_FIRST),
                &setting(4, WINDOW_FIRST + 1),
            ]
            .concat(),
            Code::FlowControlError,
        ),
        ("frames too small", setting(5, 0x3fff), Code::ProtocolError),
        (
            "a wish to be pushed to that is none",
            setting(2, 2),
            Code::ProtocolError,
        ),
        (
            "a stream that depends on itself",
            of(Kind::Priority, 0, 1, &[0, 0, 0, 1, 0]),
            Code::ProtocolError,
        ),
    ] {
        let mut server = End::begun(Side::Server);
        assert_eq!(server.hears(&bytes), Err(expected), "{what}");
    }
}

#[test]
fn what_costs_a_client_a_stream() {
    let priority = [&[0, 0, 0, 1, 0], POST].concat();
    // `content-length: 3`.
    let three = [POST, &[0x0f, 0x0d, 1, b'3']].concat();
    let three = |flags| of(Kind::Headers, END_HEADERS | flags, 1, &three);
    for (what, bytes, expected) in [
        (
            "DATA behind its end",
            [get(1), data(0, 1, b"x")].concat(),
            Code::StreamClosed,
        ),
        (
            "a head behind its end",
            [get(1), get(1)].concat(),
            Code::StreamClosed,
        ),
        (
            "trailers that are no end",
            [post(1), of(Kind::Headers, END_HEADERS, 1, &[])].concat(),
            Code::ProtocolError,
        ),
        (
            "a malformed head",
            of(Kind::Headers, END_HEADERS, 1, OK),
            Code::ProtocolError,
        ),
        (
            "a head that depends on itself",
            of(Kind::Headers, END_HEADERS | PRIORITY, 1, &priority),
            Code::ProtocolError,
        ),
        (
            "a window that grows by nothing",
            [post(1), window(1, 0)].concat(),
            Code::ProtocolError,
        ),
        (
            "a window too large",
            [post(1), window(1, WINDOW_MAX)].concat(),
            Code::FlowControlError,
        ),
        ("no body", three(END_STREAM), Code::ProtocolError),
        (
            "a body too short",
            [three(0), data(END_STREAM, 1, b"ab")].concat(),
            Code::ProtocolError,
        ),
        (
            "a body too long",
            [three(0), data(0, 1, b"abcd")].concat(),
            Code::ProtocolError,
        ),
        (
            "DATA behind its reset",
            [
                post(1),
                of(Kind::RstStream, 0, 1, &[0; 4]),
                data(0, 1, b"x"),
            ]
            .concat(),
            Code::StreamClosed,
        ),
        (
            "a priority of four bytes",
            [post(1), of(Kind::Priority, 0, 1, &[0; 4])].concat(),
            Code::FrameSizeError,
        ),
    ] {
        let mut server = End::begun(Side::Server);
        assert_eq!(server.hears(&bytes), Ok(()), "{what}");
        assert_eq!(server.resets(), Some((1, expected as u8)), "{what}");
    }
}

#[test]
fn what_is_no_error() {
    let ended = [get(1), of(Kind::RstStream, 0, 1, &[0; 4]), window(1, 1)].concat();
    let half = of(Kind::Priority, 0, 9, &[0, 0, 0, 1, 0]);
    for (what, bytes) in [
        (
            "frames of an unknown kind",
            of(Kind::Unknown, 0xff, 1, b"x"),
        ),
        ("unknown flags", of(Kind::Settings, 0xfe, 0, &[])),
        ("unknown settings", setting(0x99, 7)),
        ("a window behind its end", ended),
        ("an answer to no ping", of(Kind::Ping, ACK, 0, &[0; 8])),
        ("a priority of nobody's", half),
        ("farewell", of(Kind::GoAway, 0, 0, &[0xff; 8])),
        (
            "padding",
            [post(1), data(PADDED | END_STREAM, 1, &[1, b'x', 0])].concat(),
        ),
    ] {
        let mut server = End::begun(Side::Server);
        assert_eq!(server.hears(&bytes), Ok(()), "{what}");
        assert_eq!(server.resets(), None, "{what}");
    }
}

#[test]
fn what_a_server_may_not_do() {
    let head = |flags| of(Kind::Headers, END_HEADERS | flags, 1, OK);
    let closed = Err(Code::StreamClosed);
    for (what, bytes, expected) in [
        (
            "DATA behind both ends",
            [head(END_STREAM), data(0, 1, b"x")].concat(),
            closed,
        ),
        (
            "a head behind both ends",
            [head(END_STREAM), head(0)].concat(),
            closed,
        ),
        (
            "a stream of its own",
            of(Kind::Headers, END_HEADERS, 2, OK),
            Err(Code::ProtocolError),
        ),
        (
            "one that we did not open",
            of(Kind::Headers, END_HEADERS, 3, OK),
            Err(Code::ProtocolError),
        ),
        ("that it pushes", setting(2, 1), Err(Code::ProtocolError)),
        (
            "DATA before a head",
            data(0, 1, b"x"),
            Ok(Code::ProtocolError),
        ),
        (
            "no status",
            of(Kind::Headers, END_HEADERS, 1, &[]),
            Ok(Code::ProtocolError),
        ),
        (
            "an informational end",
            of(
                Kind::Headers,
                END_HEADERS | END_STREAM,
                1,
                &[0x08, 3, b'1', b'0', b'3'],
            ),
            Ok(Code::ProtocolError),
        ),
        (
            "windows too large, though we send no more",
            window(1, WINDOW_MAX),
            Ok(Code::FlowControlError),
        ),
    ] {
        let mut client = End::begun(Side::Client);
        let lane = asked(&client, true);
        client.says();
        let heard = client.hears(&bytes);
        match expected {
            Err(code) => assert_eq!(heard, Err(code), "{what}"),
            Ok(code) => {
                assert_eq!(heard, Ok(()), "{what}");
                assert_eq!(client.resets(), Some((1, code as u8)), "{what}");
                let reason =
                    now(lane.receive(&mut Reader::default())).map(|received| received.err());
                assert_eq!(reason, Some(Some(Reason::AppMalformed)), "{what}");
            }
        }
    }
}
