//! What one lane has with its connection: what waits to be read, who waits for it, and how much either side may send.

use std::task::Waker;

use super::frame::WINDOW_MAX;
use super::limits::STREAM_WINDOW_BYTES;
use crate::error::Reason;
use crate::peer::frame::{Frame, Kind};
use crate::peer::inbox::Inbox;
use crate::turns::Turn;

/// What one lane has with the connection.
#[derive(Debug)]
pub(super) struct Half {
    /// What was not read yet: heads in neutral form, bytes, trailers.
    pub(super) inbox: Inbox,
    pub(super) unread_head_bytes: usize,
    /// The task that reads and writes. There is one for both.
    pub(super) owner: Option<Waker>,
    /// Whether the owner waits until what is queued was sent, or until the connection's window opens.
    pub(super) turn: Turn,
    /// What we may still send; less than nothing when the other side changed its mind (RFC 9113 section 6.9.2).
    pub(super) send_window: i64,
    /// What the other side may still send.
    pub(super) receive_window: usize,
    /// DATA that was not consumed: the connection's window is smaller by it.
    pub(super) unread: usize,
    /// What was consumed and the other side was not told of.
    pub(super) untold: usize,
    /// What is still to come of a body whose length was said.
    pub(super) left: Option<u64>,
    /// The final head of the response has not come.
    pub(super) awaits_head: bool,
    /// The response has no body, whatever length its head says.
    pub(super) is_lengthless: bool,
    pub(super) receive_ended: bool,
    pub(super) send_ended: bool,
    pub(super) reset: Option<Reset>,
    /// It was taken from those that are under way.
    pub(super) is_counted_out: bool,
}

/// How a lane was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reset {
    pub(super) reason: Reason,
    pub(super) by_us: bool,
}

impl Half {
    pub(super) fn new(send_window: u32) -> Self {
        Self {
            inbox: Inbox::default(),
            unread_head_bytes: 0,
            owner: None,
            turn: Turn::None,
            send_window: i64::from(send_window),
            receive_window: STREAM_WINDOW_BYTES as usize,
            unread: 0,
            untold: 0,
            left: None,
            awaits_head: false,
            is_lengthless: false,
            receive_ended: false,
            send_ended: false,
            reset: None,
            is_counted_out: false,
        }
    }

    /// Whether neither side sends any more.
    pub(super) fn is_over(&self) -> bool {
        self.reset.is_some() || self.receive_ended && self.send_ended
    }

    /// Whether the other side may send more.
    pub(super) fn is_receiving(&self) -> bool {
        self.reset.is_none() && !self.receive_ended
    }

    pub(super) fn wake(&mut self) {
        if let Some(owner) = self.owner.take() {
            owner.wake();
        }
    }

    /// Remembers whom to wake.
    pub(super) fn wait(&mut self, owner: &Waker) {
        if !self
            .owner
            .as_ref()
            .is_some_and(|known| known.will_wake(owner))
        {
            self.owner = Some(owner.clone());
        }
    }

    /// The other side's window of this lane grows, or shrinks. False when it becomes larger than windows may be.
    pub(super) fn grow(&mut self, by: i64) -> bool {
        let was_closed = self.send_window <= 0;
        self.send_window += by;
        if was_closed && self.send_window > 0 {
            self.wake();
        }
        self.send_window <= i64::from(WINDOW_MAX)
    }

    /// By how much the other side's window is to grow, once that is worth a frame.
    pub(super) fn grant(&mut self) -> Option<u32> {
        let is_due = self.untold >= STREAM_WINDOW_BYTES as usize / 2;
        let more = u32::try_from(self.untold).ok();
        let more = more.filter(|_| is_due && self.is_receiving())?;
        self.receive_window += std::mem::take(&mut self.untold);
        Some(more)
    }

    /// So much of the body came. False when that does not agree with the length that was said.
    pub(super) fn takes(&mut self, bytes: usize, end: bool) -> bool {
        let Some(left) = self.left else {
            return true;
        };
        let left = left.checked_sub(bytes as u64);
        self.left = left;
        left.is_some_and(|left| left == 0 || !end)
    }

    pub(super) fn deliver(&mut self, kind: Kind, end: bool, payload: &[u8]) {
        self.receive_ended = end;
        self.inbox.push(&Frame {
            stream: 0,
            kind,
            end,
            payload,
        });
        self.wake();
    }
}
