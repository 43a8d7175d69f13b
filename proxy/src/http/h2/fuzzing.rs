//! One end of a connection for a fuzzer to talk to, without a socket.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::frame;
use super::heads;
use super::lane::Lane;
use super::lanes::{Lanes, Side};
use crate::http::fields::Toward;
use crate::http::neutral::Fields;
use crate::peer::stream::Reader;

/// Requests that are left open.
const HELD: usize = 4;
/// What may wait to be sent: what lanes and answers may, and one frame more of each.
const OUT_BYTES_MAX: usize = 1024 * 1024;

/// Frames behind a byte that says who sends them: whatever they are, the end that hears them holds no more than it said.
pub(crate) fn frames(bytes: &[u8]) {
    let Some((side, mut rest)) = bytes.split_first() else {
        return;
    };
    let is_server = side % 2 == 0;
    let lanes = Lanes::new(if is_server {
        Side::Server
    } else {
        Side::Client
    });
    let mut open = VecDeque::new();
    if !is_server {
        for number in 0..HELD {
            let end = number % 2 == 0;
            let lane = lanes.open(end, number == 0, |block| {
                block.extend_from_slice(&[0x82, 0x86, 0x84, 0x01, 1, b'a']);
                Ok(())
            });
            open.push_back((lane.expect("room"), Reader::default()));
        }
    }
    let mut sent = Vec::new();
    while let Some((head, payload, after)) = frame::first(rest) {
        rest = after;
        let mut accept = |lane, request: heads::Request| {
            open.push_back((lane, Reader::new(request.bodyless)));
        };
        if lanes.receive(&head, payload, &mut accept).is_err() {
            break;
        }
        if open.len() > HELD
            && let Some((lane, mut reader)) = open.pop_front()
        {
            answer(&lane, &mut reader);
        }
        if !lanes.is_clogged() {
            sent.clear();
            lanes.take_out(&mut sent, Waker::noop());
            assert!(sent.len() <= OUT_BYTES_MAX, "it answers more than it hears");
        }
    }
    drop(open);
    assert_eq!(lanes.count().1, 0, "a lane outlives its owner");
}

/// Reads what is there, and answers.
fn answer(lane: &Lane, reader: &mut Reader) {
    let mut context = Context::from_waker(Waker::noop());
    while !reader.is_ended() {
        let bytes = match pin!(lane.receive(reader)).poll(&mut context) {
            Poll::Ready(Ok(received)) => received.payload.len(),
            Poll::Ready(Err(_)) | Poll::Pending => break,
        };
        lane.consumed(bytes);
    }
    // Unless it was reset, or has ended.
    let _ = lane.send_head(false, |out| {
        heads::put_status(200, out);
        let none = Fields::check(&[]).map_err(|_| crate::error::Reason::Internal)?;
        heads::put_fields(none, (Toward::App, None), out)
    });
    let _ = pin!(lane.send_all(&[0; 100], true)).poll(&mut context);
    let _ = pin!(poll_fn(|cx| lane.poll_reset(cx))).poll(&mut context);
}
