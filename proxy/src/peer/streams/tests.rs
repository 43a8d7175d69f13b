//! Both ends of a wire in memory: what one queues, the other receives.

use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::peer::frame::{DATA_BYTES_MAX, Decoder};

struct Wire {
    dialer: Rc<Streams>,
    acceptor: Rc<Streams>,
    decoders: [Decoder; 2],
}

impl Wire {
    fn new() -> Self {
        let (dialer, acceptor) = (Streams::new(Side::Dialer), Streams::new(Side::Acceptor));
        Self {
            dialer,
            acceptor,
            decoders: Default::default(),
        }
    }

    /// Carries everything that is queued, both ways; returns the streams that were opened.
    fn carry(&mut self) -> Vec<(Stream, Reader)> {
        let mut opened = Vec::new();
        let ends = [
            (&self.dialer, &self.acceptor),
            (&self.acceptor, &self.dialer),
        ];
        for ((from, to), decoder) in ends.into_iter().zip(&mut self.decoders) {
            let mut bytes = Vec::new();
            from.take_out(&mut bytes, Waker::noop());
            let mut accept = |stream, reader, _: &[u8]| opened.push((stream, reader));
            let decoded = decoder.decode(&bytes, &mut |frame| {
                to.receive(frame, &mut accept).expect("we keep the rules");
            });
            decoded.expect("we make frames");
        }
        opened
    }

    /// A stream, seen from both ends.
    fn open(&mut self) -> (Stream, (Stream, Reader)) {
        let ours = Stream::tcp(&self.dialer, 80).expect("open");
        (ours, self.carry().pop().expect("opened"))
    }
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Sends as much as is allowed now.
fn send_all_now(stream: &Stream, byte: u8) -> usize {
    let mut sent = 0;
    while let Poll::Ready(Ok(n)) = stream.poll_sendable(&context()) {
        stream.send_data(&vec![byte; n.min(DATA_BYTES_MAX)], false);
        sent += n;
    }
    sent
}

/// Reads what is there.
fn read_now(stream: &Stream, reader: &mut Reader) -> usize {
    let mut read = 0;
    while stream.poll_receivable(&context(), reader) == Poll::Ready(Ok(())) {
        let received = std::pin::pin!(stream.receive(reader)).poll(&mut context());
        let Poll::Ready(Ok(received)) = received else {
            break;
        };
        read += received.payload.len();
    }
    read
}

#[test]
fn a_reader_that_does_not_read_holds_one_window_and_nobody_else() {
    let mut wire = Wire::new();
    let (slow, (_slow_end, _)) = wire.open();
    let (quick, (quick_end, mut quick_reader)) = wire.open();
    let mut sent = 0;
    for _ in 0..100 {
        sent += send_all_now(&slow, b's');
        wire.carry();
    }
    assert_eq!(sent, WINDOW_BYTES);
    quick.send_data(b"hello", true);
    wire.carry();
    assert_eq!(read_now(&quick_end, &mut quick_reader), 5);
}

#[test]
fn windows_grow_for_readers_that_keep_up_and_stay_in_the_budget() {
    let mut wire = Wire::new();
    let mut streams: Vec<_> = (0..20).map(|_| wire.open()).collect();
    for _ in 0..200 {
        for (stream, _) in &streams {
            send_all_now(stream, b'x');
        }
        wire.carry();
        for (_, (end, reader)) in &mut streams {
            read_now(end, reader);
        }
        wire.carry();
    }
    let state = wire.acceptor.state.borrow();
    let windows: Vec<usize> = state.by_id.values().map(|half| half.window).collect();
    let grown: usize = windows.iter().map(|window| window - WINDOW_BYTES).sum();
    assert_eq!(grown + state.window_budget, WINDOW_BUDGET_BYTES);
    assert!(grown > 0 && windows.iter().all(|window| *window <= WINDOW_BYTES_MAX));
}

#[test]
fn what_is_too_long_for_a_frame_ends_no_connection() {
    let mut wire = Wire::new();
    let (_other, (_other_end, _)) = wire.open();
    let request = Stream::request(vec![b'x'; frame::HEAD_BYTES_MAX], false);
    assert_eq!(request.place(&wire.dialer, 80), Err(Reason::HeadTooLarge));
    assert!(wire.carry().is_empty());
    let (ours, (theirs, mut reader)) = wire.open();
    let large = vec![b'x'; frame::HEAD_BYTES_MAX + 1];
    theirs.send_head(Kind::Head, false, |out| out.extend_from_slice(&large));
    wire.carry();
    for (stream, reader) in [(&ours, &mut Reader::default()), (&theirs, &mut reader)] {
        let outcome = stream.poll_receivable(&context(), reader);
        assert_eq!(outcome, Poll::Ready(Err(Reason::Internal)));
    }
    assert_eq!(wire.dialer.count(), 2);
}

#[test]
fn a_peer_that_takes_nothing_lets_no_list_grow() {
    let mut wire = Wire::new();
    let streams: Vec<_> = (0..=SEND_QUEUE_BYTES / WINDOW_BYTES)
        .map(|_| wire.open())
        .collect();
    for (stream, _) in &streams {
        send_all_now(stream, b'x');
    }
    for _ in 0..100 {
        for (stream, _) in &streams {
            assert!(stream.poll_sendable(&context()).is_pending());
        }
    }
    // All but the last one wait for credit of their own.
    assert_eq!(wire.dialer.state.borrow().turns.waiting(), 1);
    wire.carry();
    let (last, _) = streams.last().expect("several");
    assert!(send_all_now(last, b'x') > 0);
    assert_eq!(wire.dialer.state.borrow().turns.waiting(), 0);
}

#[test]
fn streams_with_much_to_send_take_turns() {
    let mut wire = Wire::new();
    let mut streams: Vec<_> = (0..12).map(|_| wire.open()).collect();
    let mut sent = vec![0; streams.len()];
    // Whoever is asked first would always have enough to fill the queue.
    for _ in 0..200 {
        for ((stream, _), sent) in streams.iter().zip(&mut sent) {
            *sent += send_all_now(stream, b'x');
        }
        wire.carry();
        for (_, (end, reader)) in &mut streams {
            read_now(end, reader);
        }
        wire.carry();
    }
    let (least, most) = (sent.iter().min(), sent.iter().max());
    assert!(
        least > Some(&0) && most < least.map(|n| n * 3).as_ref(),
        "{sent:?}"
    );
}

#[test]
fn a_dropped_stream_is_reset_with_its_reason_and_late_frames_are_ignored() {
    let mut wire = Wire::new();
    let (ours, (theirs, mut reader)) = wire.open();
    theirs.send_data(b"on its way", false);
    ours.fail(Reason::MalformedRequest);
    drop(ours);
    wire.carry();
    let received = theirs.poll_receivable(&context(), &mut reader);
    assert_eq!(received, Poll::Ready(Err(Reason::MalformedRequest)));
    drop((theirs, reader));
    wire.carry();
    assert_eq!((wire.dialer.count(), wire.acceptor.count()), (0, 0));
}

#[test]
fn streams_end_in_both_directions_without_a_reset() {
    let mut wire = Wire::new();
    let (ours, (theirs, mut reader)) = wire.open();
    ours.end();
    theirs.end();
    wire.carry();
    assert_eq!(read_now(&theirs, &mut reader), 0);
    assert!(reader.is_ended());
    drop((ours, theirs));
    assert!(wire.dialer.state.borrow().out.is_empty());
    assert!(wire.acceptor.state.borrow().out.is_empty());
}

#[test]
fn the_last_stream_of_a_retired_connection_ends_it_on_the_dialing_side_only() {
    let mut wire = Wire::new();
    let (ours, theirs) = wire.open();
    wire.acceptor.tell_peer(Kind::GoAway);
    wire.acceptor.retire();
    wire.carry();
    assert!(!wire.dialer.has_room() && !wire.dialer.is_over());
    drop((ours, theirs));
    assert!(wire.dialer.is_over() && !wire.acceptor.is_over());
}

#[test]
fn a_peer_that_breaks_the_rules_is_found_out() {
    let frame = |stream, kind, payload| Frame {
        stream,
        kind,
        end: false,
        payload,
    };
    let large = vec![0; WINDOW_BYTES + 1];
    let rows: &[(&str, Frame<'_>)] = &[
        ("opens out of order", frame(7, Kind::Open, b"")),
        ("opens again", frame(1, Kind::Open, b"")),
        ("sends on what was never opened", frame(9, Kind::Data, b"x")),
        ("sends without credit", frame(1, Kind::Data, &large)),
        ("credit of no number", frame(1, Kind::Credit, b"x")),
        ("resets the connection", frame(0, Kind::Reset, b"")),
    ];
    for (what, frame) in rows {
        let mut wire = Wire::new();
        let (_ours, _theirs) = wire.open();
        let outcome = wire.acceptor.receive(
            Frame {
                payload: frame.payload,
                ..*frame
            },
            &mut |_, _, _| {},
        );
        assert!(outcome.is_err(), "{what}");
    }
    let wire = Wire::new();
    let opened = wire
        .dialer
        .receive(frame(1, Kind::Open, b""), &mut |_, _, _| {});
    assert!(opened.is_err(), "the answering side opens nothing");
}

#[test]
fn streams_beyond_the_limit_are_refused_not_the_connection() {
    let mut wire = Wire::new();
    let mut open = Vec::new();
    for _ in 0..STREAMS_MAX {
        open.push(wire.open());
    }
    assert!(
        !wire.dialer.has_room(),
        "a dialer of ours turns to another connection"
    );
    let refused = Stream::tcp(&wire.dialer, 80).expect("a hostile one does not");
    assert!(wire.carry().is_empty());
    let outcome = refused.poll_receivable(&context(), &mut Reader::default());
    assert_eq!(outcome, Poll::Ready(Err(Reason::Overloaded)));
}

#[test]
fn streams_that_were_reset_do_not_count_as_open() {
    let mut wire = Wire::new();
    let mut served = Vec::new();
    for _ in 0..STREAMS_MAX {
        let (ours, theirs) = wire.open();
        drop(ours);
        served.push(theirs);
    }
    // Nobody has noticed the resets yet; others are served all the same.
    let (_ours, _theirs) = wire.open();
}

/// What arrived on a stream, as text: frames with their payload, and where it ended.
fn told(stream: &Stream, reader: &mut Reader) -> String {
    let mut text = String::new();
    while stream.poll_receivable(&context(), reader) == Poll::Ready(Ok(())) {
        let received = std::pin::pin!(stream.receive(reader)).poll(&mut context());
        let Poll::Ready(Ok(received)) = received else {
            break;
        };
        let payload = String::from_utf8_lossy(received.payload);
        text += &format!(
            "{:?} {payload}{} ",
            received.kind,
            if received.end { "." } else { "" }
        );
    }
    text
}

#[test]
fn a_request_is_sent_again_on_another_connection_as_far_as_it_got() {
    let (mut old, mut new) = (Wire::new(), Wire::new());
    let request = Stream::request(b"head".to_vec(), false);
    request.place(&old.dialer, 80).expect("placed");
    request.send_data(b"one,", false);
    let (at_old, mut old_reader) = old.carry().pop().expect("opened");
    assert_eq!(told(&at_old, &mut old_reader), "Data one, ");

    // The old place is gone: nobody is told, and what is sent meanwhile is kept.
    old.dialer.close(Reason::PeerGone);
    assert!(request.poll_sendable(&context()).is_pending());
    request.detach(Reason::PeerGone);
    request.send_data(b"two", false);
    request.send_head(Kind::Trailers, true, |out| out.extend_from_slice(b"three"));

    request.place(&new.dialer, 80).expect("placed");
    let (at_new, mut new_reader) = new.carry().pop().expect("opened");
    let expected = "Data one,two Trailers three. ";
    assert_eq!(told(&at_new, &mut new_reader), expected);
    at_new.send_head(Kind::Head, true, |_| {});
    new.carry();
    let answered = request.poll_receivable(&context(), &mut Reader::default());
    assert_eq!(answered, Poll::Ready(Ok(())));
}

#[test]
fn what_is_too_long_or_answered_is_not_sent_again() {
    let (old, mut new) = (Wire::new(), Wire::new());
    let request = Stream::request(Vec::new(), false);
    request.place(&old.dialer, 80).expect("placed");
    assert_eq!(send_all_now(&request, b'x'), WINDOW_BYTES);
    assert!(request.recorded(|_| ()).is_some(), "just fits");
    request.detach(Reason::ClientGone);
    request
        .place(&new.dialer, 80)
        .expect("one window never waits");
    let (at_new, mut reader) = new.carry().pop().expect("opened");
    assert_eq!(read_now(&at_new, &mut reader), WINDOW_BYTES);
    new.carry();
    // The other end gave more credit, and one byte more is sent.
    request.send_data(b"x", false);
    assert!(request.recorded(|_| ()).is_none(), "too long");
    new.dialer.close(Reason::PeerGone);
    let sendable = request.poll_sendable(&context());
    assert_eq!(sendable, Poll::Ready(Err(Reason::PeerGone)));

    let answered = Stream::request(Vec::new(), true);
    answered.forget();
    assert_eq!(answered.place(&old.dialer, 80), Err(Reason::Internal));
}

#[test]
fn a_reset_gives_its_turn_to_the_next() {
    let mut wire = Wire::new();
    let full = SEND_QUEUE_BYTES / WINDOW_BYTES;
    let mut streams: Vec<_> = (0..full).map(|_| wire.open()).collect();
    let (waits, end) = wire.open();
    for (stream, _) in &streams {
        send_all_now(stream, b'x');
    }
    assert!(
        waits.poll_sendable(&context()).is_pending(),
        "there is room"
    );
    drop(end);
    wire.carry();
    assert_eq!(
        waits.poll_sendable(&context()),
        Poll::Ready(Err(Reason::ClientGone))
    );
    let (other, (end, reader)) = &mut streams[0];
    read_now(end, reader);
    wire.carry();
    assert!(
        other.poll_sendable(&context()).is_ready(),
        "nobody else waits"
    );
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.expect("connected"), accepted.expect("accepted").0)
}

#[test]
fn what_a_socket_brings_is_sent_as_it_is_read() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (mut app, mut socket) = sockets().await;
        let mut from = socket.split().0;
        let mut wire = Wire::new();
        let (stream, (end, mut reader)) = wire.open();
        let (other, _other_end) = wire.open();

        // Nothing to send keeps no turn from others.
        let read = stream.poll_send_from(&mut context(), &mut from, 100);
        assert!(read.is_pending() && wire.dialer.state.borrow().out.is_empty());
        assert!(other.poll_sendable(&context()).is_ready());

        app.write_all(b"hello, mesh").await.expect("written");
        for expected in [5, 5, 1] {
            let read = poll_fn(|cx| stream.poll_send_from(cx, &mut from, 5)).await;
            assert_eq!(read.expect("open").expect("no error"), expected);
        }
        wire.carry();
        assert_eq!(read_now(&end, &mut reader), 11);

        // The peer takes no more: that matters once there is more, and not if there never is.
        let (silent, silent_end) = wire.open();
        drop((end, silent_end));
        wire.carry();
        let read = stream.poll_send_from(&mut context(), &mut from, 5);
        assert!(read.is_pending());
        app.write_all(b"more").await.expect("written");
        let read = poll_fn(|cx| stream.poll_send_from(cx, &mut from, 5)).await;
        assert_eq!(read.expect_err("reset"), Reason::ClientGone);
        let (app, mut socket) = sockets().await;
        // Without credit, its end is seen all the same.
        send_all_now(&other, b'x');
        let read = other.poll_send_from(&mut context(), &mut socket.split().0, 5);
        assert!(read.is_pending());
        drop(app);
        let ended = poll_fn(|cx| other.poll_send_from(cx, &mut socket.split().0, 5)).await;
        assert_eq!(ended.expect("open").expect("no error"), 0);
        let mut from = socket.split().0;
        let ended = poll_fn(|cx| silent.poll_send_from(cx, &mut from, 5)).await;
        assert_eq!(ended.expect("nothing is lost").expect("no error"), 0);
    });
}
