//! What one [`Stream`](super::super::stream::Stream) does with its connection. Ids are of live streams.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::tcp::ReadHalf;

use super::{SEND_QUEUE_BYTES, Streams, WINDOW_BYTES, WINDOW_BYTES_MAX};
use crate::error::{DecisionId, Reason};
use crate::peer::frame::{self, Kind};
use crate::peer::inbox::Inbox;

/// What the queue keeps for a read that brought nothing.
const KEPT_ROOM_BYTES: usize = 32 * 1024;

impl Streams {
    /// How many bytes of DATA may be sent now; none: `waker` is woken when some may.
    pub(crate) fn sendable(&self, id: u32, waker: &Waker) -> Result<Option<usize>, Reason> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let half = state.by_id.get_mut(&id).ok_or(Reason::Internal)?;
        if let Some(reason) = half.reset {
            // What it waited for is another's.
            state.turns.done(id, &mut half.turn);
            state.give_turns();
            return Err(reason);
        }
        if half.send_credit == 0 {
            // Nobody waits for one that waits for its own credit.
            half.writer = Some(waker.clone());
            state.turns.done(id, &mut half.turn);
            state.give_turns();
            return Ok(None);
        }
        let room = SEND_QUEUE_BYTES.saturating_sub(state.out.len());
        if !state.turns.asks(id, &mut half.turn, room) {
            half.writer = Some(waker.clone());
            return Ok(None);
        }
        Ok(Some(half.send_credit.min(frame::DATA_BYTES_MAX)))
    }

    /// Queues a frame of the stream. After its end, or a reset, nothing more is sent. What is too long for a frame, which
    /// the limits on what we read do not let happen, ends the stream and not the connection.
    pub(crate) fn send(&self, id: u32, kind: Kind, end: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let Some(half) = state.by_id.get_mut(&id) else {
            return;
        };
        if half.send_ended || half.reset.is_some() {
            return;
        }
        half.send_ended = end;
        half.has_moved = true;
        let before = state.out.len();
        if frame::put(&mut state.out, id, kind, end, write).is_err() {
            half.reset = Some(Reason::Internal);
            half.wake();
            return state.reset(id, Reason::Internal, None);
        }
        if kind == Kind::Data {
            half.send_credit -= state.out.len() - before - frame::HEADER_BYTES;
            state.turns.done(id, &mut half.turn);
            state.give_turns();
        }
        state.wake_sender();
    }

    /// Queues what one read of `from` brings, at most `most` bytes, in a frame of DATA: read to where it is sent from.
    pub(crate) fn poll_send_from(
        &self,
        id: u32,
        most: usize,
        cx: &mut Context<'_>,
        from: &mut ReadHalf<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let half = state.by_id.get_mut(&id);
        let Some(half) = half.filter(|half| !half.send_ended) else {
            return Poll::Ready(Ok(0));
        };
        let before = state.out.len();
        let mut read = Poll::Pending;
        let put = frame::put(&mut state.out, id, Kind::Data, false, |out| {
            out.reserve(most);
            let mut from = from.take(most as u64);
            read = pin!(from.read_buf(out)).poll(cx);
        });
        // Whether it sends or has nothing to send: it is another's turn.
        state.turns.done(id, &mut half.turn);
        match &read {
            Poll::Ready(Ok(n)) if *n > 0 && put.is_ok() => {
                half.send_credit -= n;
                half.has_moved = true;
                state.wake_sender();
            }
            _ => {
                state.out.truncate(before);
                if before == 0 {
                    state.out.shrink_to(KEPT_ROOM_BYTES);
                }
            }
        }
        state.give_turns();
        read
    }

    /// Moves the unread frames to `inbox`, which was read. False: there are none yet, and `reader` is woken when there
    /// are.
    pub(crate) fn take_inbox(
        &self,
        id: u32,
        inbox: &mut Inbox,
        reader: &Waker,
    ) -> Result<bool, Reason> {
        let mut state = self.state.borrow_mut();
        let half = state.by_id.get_mut(&id).ok_or(Reason::Internal)?;
        if !half.inbox.is_empty() {
            inbox.refill(&mut half.inbox);
            half.unread_head_bytes = 0;
            return Ok(true);
        }
        match half.reset {
            Some(reason) => Err(reason),
            None => {
                inbox.lend(&mut half.inbox);
                half.reader = Some(reader.clone());
                Ok(false)
            }
        }
    }

    /// From now on the stream is reset when nothing moves on it for so long.
    pub(crate) fn limit_idle(&self, id: u32, limit: Duration, now: Instant) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if let Some(half) = state.by_id.get_mut(&id) {
            state.limited += usize::from(half.idle.is_none());
            half.idle = Some((limit, now));
        }
    }

    /// Whether all was sent on the stream that ever will be.
    pub(crate) fn has_ended(&self, id: u32) -> bool {
        let state = self.state.borrow();
        state.by_id.get(&id).is_none_or(|half| half.send_ended)
    }

    /// Whether the stream was reset.
    pub(crate) fn is_reset(&self, id: u32) -> bool {
        let state = self.state.borrow();
        state.by_id.get(&id).is_none_or(|half| half.reset.is_some())
    }

    /// Of the refusal that the stream's reset was.
    pub(crate) fn decision(&self, id: u32) -> Option<DecisionId> {
        self.state.borrow().by_id.get(&id)?.decision
    }

    /// Whether the stream was reset; if not, `reader` is woken when it is. For the task that also reads the stream.
    pub(crate) fn poll_reset(&self, id: u32, reader: &Waker) -> Poll<Reason> {
        let mut state = self.state.borrow_mut();
        let Some(half) = state.by_id.get_mut(&id) else {
            return Poll::Ready(Reason::Internal);
        };
        match half.reset {
            Some(reason) => Poll::Ready(reason),
            None => {
                half.reader = Some(reader.clone());
                Poll::Pending
            }
        }
    }

    /// The reader took `n` bytes of DATA: the peer is told once it is worth a frame.
    pub(crate) fn consumed(&self, id: u32, n: usize) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let Some(half) = state.by_id.get_mut(&id) else {
            return;
        };
        half.untold += n;
        if half.untold < half.window / 2 || half.receive_ended || half.reset.is_some() {
            return;
        }
        let mut grant = std::mem::take(&mut half.untold);
        // A reader that keeps up deserves a larger window: it was the window that held the sender back.
        if half.window < WINDOW_BYTES_MAX
            && half.receive_credit < half.window / 2
            && state.window_budget >= half.window
        {
            state.window_budget -= half.window;
            grant += half.window;
            half.window *= 2;
        }
        half.receive_credit += grant;
        let told = u32::try_from(grant).unwrap_or(u32::MAX);
        state.tell(id, Kind::Credit, &told.to_be_bytes());
    }

    /// The stream's owner is done with it. One that has not ended in both directions is reset.
    pub(crate) fn release(&self, id: u32, reason: Reason, decision: Option<DecisionId>) {
        let mut state = self.state.borrow_mut();
        let Some(mut half) = state.by_id.remove(&id) else {
            return;
        };
        state.turns.done(id, &mut half.turn);
        state.give_turns();
        state.window_budget += half.window - WINDOW_BYTES;
        state.limited -= usize::from(half.idle.is_some());
        let over = half.receive_ended && half.send_ended || half.reset.is_some();
        if !over && state.closed.is_none() {
            state.reset(id, reason, decision);
        }
        if state.by_id.is_empty() {
            state.wake_sender();
        }
    }
}
