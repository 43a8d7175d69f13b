//! Both ends of a connection, without a socket between them.

/// What either side may not do.
mod rules;

/// Lanes that want to send more than there is room for.
mod turns;

use super::*;
use crate::http::h2::frame::{self, PREFACE, WINDOW_MAX};
use crate::http::h2::limits::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use crate::peer::frame::Kind as Said;
use crate::peer::stream::Reader;
use frame::{ACK, END_HEADERS, END_STREAM, PADDED, PRIORITY};
use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Poll};

/// `GET http://a/` and `POST http://a/`.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x01, 1, b'a'];
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x01, 1, b'a'];
/// `:status 200`.
const OK: &[u8] = &[0x88];

/// One end, and the lanes that were opened there.
struct End {
    lanes: Rc<Lanes>,
    accepted: BTreeMap<u32, Lane>,
}

impl End {
    fn new(side: Side) -> Self {
        Self {
            lanes: Lanes::new(side),
            accepted: BTreeMap::new(),
        }
    }

    /// One whose other side has said what it has to say first.
    fn begun(side: Side) -> Self {
        let mut end = Self::new(side);
        end.hears(&of(Kind::Settings, 0, 0, &[])).expect("settings");
        end.says();
        end
    }

    fn hears(&mut self, mut bytes: &[u8]) -> Result<(), Code> {
        while let Some((head, payload, rest)) = frame::first(bytes) {
            let accepted = &mut self.accepted;
            let mut id = head.stream;
            let mut accept = |lane: Lane, _: Request| {
                accepted.insert(std::mem::take(&mut id), lane);
            };
            let heard = self.lanes.receive(&head, payload, &mut accept);
            heard.map_err(|violation| violation.code)?;
            bytes = rest;
        }
        assert!(bytes.is_empty(), "not a whole frame");
        Ok(())
    }

    /// What it has to say.
    fn says(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.lanes.take_out(&mut out, Waker::noop());
        let begin = if out.starts_with(PREFACE) {
            PREFACE.len()
        } else {
            0
        };
        out.split_off(begin)
    }

    /// The frames that it has to say.
    fn frames(&self) -> Vec<(Kind, u8, u32, Vec<u8>)> {
        let bytes = self.says();
        let (mut rest, mut frames) = (&bytes[..], Vec::new());
        while let Some((head, payload, after)) = frame::first(rest) {
            frames.push((head.kind, head.flags, head.stream, payload.to_vec()));
            rest = after;
        }
        frames
    }

    /// With which code it resets which lane, if it does.
    fn resets(&self) -> Option<(u32, u8)> {
        let mut frames = self.frames().into_iter();
        let reset = frames.find(|(kind, ..)| *kind == Kind::RstStream);
        reset.map(|(_, _, id, payload)| (id, payload[3]))
    }
}

fn of(kind: Kind, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put(&mut out, kind, flags, id, payload);
    out
}

fn get(id: u32) -> Vec<u8> {
    of(Kind::Headers, END_HEADERS | END_STREAM, id, GET)
}

fn post(id: u32) -> Vec<u8> {
    of(Kind::Headers, END_HEADERS, id, POST)
}

fn data(flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    of(Kind::Data, flags, id, payload)
}

fn window(id: u32, more: u32) -> Vec<u8> {
    of(Kind::WindowUpdate, 0, id, &more.to_be_bytes())
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_settings(&mut out, &[(id, value)]);
    out
}

fn block(bytes: &'static [u8]) -> impl FnOnce(&mut Vec<u8>) -> Result<(), Reason> {
    |out| {
        out.extend_from_slice(bytes);
        Ok(())
    }
}

/// The outcome, if it is ready.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

/// A request of `client` that is under way.
fn asked(client: &End, end: bool) -> Lane {
    client
        .lanes
        .open(end, false, block(if end { GET } else { POST }))
        .expect("room")
}

#[test]
fn what_a_server_did_not_look_at_is_known() {
    let refused = of(Kind::RstStream, 0, 3, &[0, 0, 0, Code::RefusedStream as u8]);
    let cancelled = of(Kind::RstStream, 0, 3, &[0, 0, 0, Code::Cancel as u8]);
    let goaway = of(Kind::GoAway, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    for (what, bytes, expected) in [
        ("REFUSED_STREAM", refused, Reason::AppRefused),
        ("CANCEL", cancelled, Reason::AppGone),
        ("GOAWAY", goaway, Reason::AppRefused),
    ] {
        let mut client = End::begun(Side::Client);
        let (first, second) = (asked(&client, true), asked(&client, true));
        client.hears(&bytes).expect(what);
        let heard =
            |lane: &Lane| now(lane.receive(&mut Reader::default())).map(|heard| heard.err());
        assert_eq!(heard(&second), Some(Some(expected)), "{what}");
        assert_eq!(heard(&first), None, "{what}");
        let is_over = what == "GOAWAY";
        assert_eq!(client.lanes.takes_more(), !is_over);
        drop((first, second));
        assert_eq!(client.lanes.is_over(), is_over);
    }
}

/// Moves what both have to say until neither says any more.
fn talk(client: &mut End, server: &mut End) {
    loop {
        let (up, down) = (client.says(), server.says());
        if up.is_empty() && down.is_empty() {
            return;
        }
        server.hears(&up).expect("what we say");
        client.hears(&down).expect("what we say");
    }
}

#[test]
fn bodies_cross_within_their_windows() {
    const BYTES: usize = 40 << 20;
    let (mut client, mut server) = (End::new(Side::Client), End::new(Side::Server));
    let lane = asked(&client, false);
    talk(&mut client, &mut server);
    let served = server.accepted.remove(&1).expect("a request");
    let body = vec![7; BYTES];
    let mut context = Context::from_waker(Waker::noop());
    let mut sending = Box::pin(lane.send_all(&body, true));
    let (mut reader, mut found) = (Reader::default(), 0);
    while !reader.is_ended() {
        let _ = sending.as_mut().poll(&mut context);
        talk(&mut client, &mut server);
        let half = server.lanes.state.borrow().by_id[&1].unread;
        assert!(half <= STREAM_WINDOW_BYTES as usize, "{half}");
        while let Some(received) = now(served.receive(&mut reader)) {
            let bytes = received.expect("no reset").payload.len();
            found += bytes;
            served.consumed(bytes);
            if reader.is_ended() {
                break;
            }
        }
    }
    assert_eq!(found, BYTES);
    served.send_head(false, block(OK)).expect("open");
    served.send_head(true, block(&[])).expect("open");
    talk(&mut client, &mut server);
    let mut reader = Reader::default();
    for (kind, end) in [(Said::Head, false), (Said::Trailers, true)] {
        let received = now(lane.receive(&mut reader))
            .expect("there")
            .expect("no reset");
        assert_eq!((received.kind, received.end), (kind, end));
    }
    drop(sending);
    drop((lane, served));
    for end in [&client, &server] {
        let state = end.lanes.state.borrow();
        assert!(state.by_id.is_empty() && state.active == 0);
    }
    assert_eq!(client.resets().or(server.resets()), None);
}

#[test]
fn what_nobody_reads_is_given_back() {
    let (mut client, mut server) = (End::new(Side::Client), End::new(Side::Server));
    for _ in 0..100 {
        let lane = asked(&client, false);
        talk(&mut client, &mut server);
        assert!(now(lane.send_all(&[7; 200 << 10], false)).is_some());
        talk(&mut client, &mut server);
        drop(lane);
        server.accepted.clear();
        talk(&mut client, &mut server);
    }
    let left = server.lanes.state.borrow().receive_window;
    assert!(left >= CONNECTION_WINDOW_BYTES as usize / 2, "{left}");
}

#[test]
fn no_more_than_the_server_takes() {
    let mut client = End::new(Side::Client);
    client.hears(&setting(3, 2)).expect("settings");
    let turn = |place: &mut queue::Place| {
        let context = Context::from_waker(Waker::noop());
        place.poll_turn(&context).is_ready()
    };
    let mut places: Vec<_> = (0..4).map(|_| queue::Place::new(&client.lanes)).collect();
    let mut lanes = Vec::new();
    for place in &mut places[..2] {
        assert!(turn(place));
        lanes.push(asked(&client, true));
    }
    assert!(!turn(&mut places[2]) && !turn(&mut places[3]));
    lanes.pop();
    // One that gives up leaves its turn to the next.
    drop(places.remove(2));
    assert!(turn(&mut places[2]));
    lanes.push(asked(&client, true));
    client.hears(&setting(3, 0)).expect("settings");
    lanes.clear();
    assert!(!turn(&mut queue::Place::new(&client.lanes)));
    client
        .hears(&of(Kind::GoAway, 0, 0, &[0; 8]))
        .expect("farewell");
    assert!(turn(&mut places[0]), "it learns that it waits for nothing");
}

#[test]
fn no_more_than_we_take() {
    let mut server = End::begun(Side::Server);
    let ids = || (0..=STREAMS_MAX).map(|number| 2 * number + 1);
    for id in ids() {
        server.hears(&post(id)).expect("a request");
    }
    assert_eq!(server.accepted.len(), STREAMS_MAX as usize);
    let last = 2 * STREAMS_MAX + 1;
    assert_eq!(server.resets(), Some((last, Code::RefusedStream as u8)));
}

#[test]
fn a_server_goes_when_its_client_knows() {
    let (mut client, mut server) = (End::new(Side::Client), End::new(Side::Server));
    let lane = asked(&client, true);
    talk(&mut client, &mut server);
    // A request that is on its way when we say that we go is served.
    let late = asked(&client, true);
    server.lanes.retire();
    let told = server.says();
    server.hears(&client.says()).expect("a request");
    client.hears(&told).expect("farewell");
    talk(&mut client, &mut server);
    assert_eq!(server.accepted.len(), 2);
    assert!(!server.lanes.is_over() && !client.lanes.takes_more());
    for served in server.accepted.values() {
        served.send_head(true, block(OK)).expect("open");
    }
    server.accepted.clear();
    assert!(server.lanes.is_over());
    talk(&mut client, &mut server);
    drop((lane, late));
    assert!(client.lanes.is_over());
}

#[test]
fn settings_change_what_was_opened_before() {
    let mut client = End::begun(Side::Client);
    let lane = asked(&client, false);
    assert!(now(lane.send_all(&[0; 60_000], false)).is_some());
    client.hears(&setting(4, 10_000)).expect("settings");
    assert!(
        now(lane.send_all(&[0; 1], false)).is_none(),
        "the window is less than nothing"
    );
    client.hears(&window(1, 50_000)).expect("a window");
    assert!(now(lane.send_all(&[0; 1], false)).is_none());
    client.hears(&window(1, 1)).expect("a window");
    assert!(now(lane.send_all(&[0; 1], false)).is_some());
    client.says();
    // A table that is to be smaller is said to be, once.
    client.hears(&setting(1, 100)).expect("settings");
    for expected in [0x3f, 0x82] {
        let lane = asked(&client, true);
        let frames = client.frames();
        let first = frames.iter().find(|(kind, ..)| *kind == Kind::Headers);
        assert_eq!(first.map(|(.., block)| block[0]), Some(expected));
        drop(lane);
    }
}

#[test]
fn only_answers_that_nobody_takes_keep_us_from_reading() {
    let head = |out: &mut Vec<u8>| {
        out.resize(out.len() + 60_000, 0x82);
        Ok(())
    };
    let client = End::begun(Side::Client);
    let open = || client.lanes.open(true, false, head);
    let asked: Vec<_> = (0..10).map(|_| open().expect("room")).collect();
    assert!(!client.lanes.is_clogged(), "an app may answer some first");
    drop(asked);
    let mut server = End::begun(Side::Server);
    for id in (1..20).step_by(2) {
        server.hears(&get(id)).expect("a request");
        server.accepted[&id].send_head(true, head).expect("open");
    }
    assert!(server.lanes.is_clogged());
}

#[test]
fn who_waits_for_settings_waits_once_and_not_longer() {
    let mut client = End::new(Side::Client);
    let context = Context::from_waker(Waker::noop());
    let places: Vec<_> = (0..3)
        .map(|_| queue::Settling::new(&client.lanes))
        .collect();
    let settled = || {
        let polled = places
            .iter()
            .map(|place| place.poll_takes_connect(&context));
        polled.collect::<Vec<_>>()
    };
    for _ in 0..10 {
        assert_eq!(settled(), [Poll::Pending; 3]);
    }
    let waiting = || client.lanes.state.borrow().settling.len();
    assert_eq!(waiting(), 3);
    let hasty = queue::Settling::new(&client.lanes);
    assert!(hasty.poll_takes_connect(&context).is_pending());
    drop(hasty);
    assert_eq!(waiting(), 3);
    client.hears(&setting(8, 1)).expect("settings");
    assert_eq!(settled(), [Poll::Ready(true); 3]);
    let late = queue::Settling::new(&client.lanes);
    assert_eq!(late.poll_takes_connect(&context), Poll::Ready(true));
}
