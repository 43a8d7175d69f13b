//! What one stream has with its connection: what waits to be read, who waits for it, and how much either side may send.

use std::task::Waker;
use std::time::{Duration, Instant};

use super::frame::Frame;
use super::inbox::Inbox;
use super::streams::WINDOW_BYTES;
use crate::error::{DecisionId, Reason};
use crate::turns::Turn;

/// What one stream has with the connection.
#[derive(Debug)]
pub(super) struct Half {
    /// Frames not read yet.
    pub(super) inbox: Inbox,
    pub(super) unread_head_bytes: usize,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// Of what the connection has room for.
    pub(super) turn: Turn,
    /// What we may still send.
    pub(super) send_credit: usize,
    /// What the peer may still send.
    pub(super) receive_credit: usize,
    /// What our reader took and the peer was not told of.
    pub(super) untold: usize,
    pub(super) window: usize,
    pub(super) receive_ended: bool,
    pub(super) send_ended: bool,
    pub(super) reset: Option<Reason>,
    /// Of the refusal that the reset is.
    pub(super) decision: Option<DecisionId>,
    /// Something came or went since it was last looked at.
    pub(super) has_moved: bool,
    /// How long nothing may move, and since when nothing has.
    pub(super) idle: Option<(Duration, Instant)>,
}

impl Half {
    pub(super) fn new() -> Self {
        Self {
            inbox: Inbox::default(),
            unread_head_bytes: 0,
            reader: None,
            writer: None,
            turn: Turn::None,
            send_credit: WINDOW_BYTES,
            receive_credit: WINDOW_BYTES,
            untold: 0,
            window: WINDOW_BYTES,
            receive_ended: false,
            send_ended: false,
            reset: None,
            decision: None,
            has_moved: false,
            idle: None,
        }
    }

    /// Whether nothing has moved for longer than may be.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        let has_moved = std::mem::take(&mut self.has_moved);
        let Some((limit, since)) = &mut self.idle else {
            return false;
        };
        if has_moved {
            *since = now;
        }
        now.saturating_duration_since(*since) >= *limit
    }

    pub(super) fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }

    /// It may send.
    pub(super) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    pub(super) fn deliver(&mut self, frame: &Frame<'_>) {
        self.has_moved = true;
        self.inbox.push(frame);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}
