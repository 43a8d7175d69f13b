//! What one [`Lane`](super::super::lane::Lane) does with its connection. Ids are of live lanes.

use std::task::{Poll, Waker};

use super::state::State;
use super::{FRAME_BYTES_MAX, Lanes};
use crate::error::Reason;
use crate::http::h2::budget::USEFUL_BYTES;
use crate::http::h2::frame::{self, Code, Kind};
use crate::http::h2::half::Half;
use crate::http::h2::past::How;
use crate::peer::inbox::Inbox;

/// Room that a lane keeps while nothing comes.
const KEPT_INBOX_BYTES: usize = 64 * 1024;

impl Lanes {
    /// How many bytes of DATA may be sent now; none: `owner` is woken when some may.
    pub(in crate::http::h2) fn sendable(
        &self,
        id: u32,
        owner: &Waker,
    ) -> Result<Option<usize>, Reason> {
        let mut state = self.state.borrow_mut();
        let (room, state) = (state.room(), &mut *state);
        let half = state.by_id.get_mut(&id).ok_or(Reason::Internal)?;
        if let Some(reset) = half.reset {
            return Err(reset.reason);
        }
        let window = usize::try_from(half.send_window).unwrap_or(0);
        if window == 0 {
            // Nobody waits for one that waits for its own window.
            half.wait(owner);
            state.turns.done(id, &mut half.turn);
            state.give_turns();
            return Ok(None);
        }
        if !state.turns.asks(id, &mut half.turn, room) {
            half.wait(owner);
            return Ok(None);
        }
        let window = usize::try_from(state.send_window).map_or(0, |all| all.min(window));
        Ok(Some(window.min(FRAME_BYTES_MAX)))
    }

    /// Queues bytes, at most as many as [`Self::sendable`] said. After its end, or a reset, nothing more is sent.
    pub(in crate::http::h2) fn send_data(&self, id: u32, data: &[u8], end: bool) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let Some(half) = state.by_id.get_mut(&id) else {
            return;
        };
        if half.send_ended || half.reset.is_some() {
            return;
        }
        state.turns.done(id, &mut half.turn);
        half.send_ended = end;
        half.send_window -= data.len() as i64;
        state.send_window -= data.len() as i64;
        let is_shut = half.send_window <= 0 || state.send_window <= 0;
        let flags = if end { frame::END_STREAM } else { 0 };
        let mut pieces = data.chunks(state.theirs.frame_bytes).peekable();
        if data.is_empty() && end {
            frame::put(&mut state.out, Kind::Data, flags, id, &[]);
        }
        // Who opens the window by a few bytes at a time asks for frames, not for what is in them.
        let is_dribble = !end && data.len() < USEFUL_BYTES && is_shut;
        if !is_dribble {
            state.budget.data(pieces.len());
        }
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() { flags } else { 0 };
            frame::put(&mut state.out, Kind::Data, flags, id, piece);
        }
        state.wake_sender();
        state.give_turns();
        state.count_out(id);
    }

    /// Queues a head or trailers, whose block `write` makes.
    pub(in crate::http::h2) fn send_head(
        &self,
        id: u32,
        end: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let mut state = self.state.borrow_mut();
        let half = state.by_id.get(&id).ok_or(Reason::Internal)?;
        if let Some(reset) = half.reset {
            return Err(reset.reason);
        }
        if half.send_ended {
            return Err(Reason::Internal);
        }
        state.put_block(id, end, write)?;
        if end && let Some(half) = state.by_id.get_mut(&id) {
            half.send_ended = true;
            state.count_out(id);
        }
        Ok(())
    }

    /// Moves what was not read to `inbox`, which was. False: there is nothing yet, and `owner` is woken when there is.
    pub(in crate::http::h2) fn take_inbox(
        &self,
        id: u32,
        inbox: &mut Inbox,
        owner: &Waker,
    ) -> Result<bool, Reason> {
        let mut state = self.state.borrow_mut();
        let half = state.by_id.get_mut(&id).ok_or(Reason::Internal)?;
        if !half.inbox.is_empty() {
            inbox.refill(&mut half.inbox);
            half.unread_head_bytes = 0;
            return Ok(true);
        }
        match half.reset {
            Some(reset) => Err(reset.reason),
            None => {
                inbox.lend(&mut half.inbox);
                half.inbox.shrink_to(KEPT_INBOX_BYTES);
                half.wait(owner);
                Ok(false)
            }
        }
    }

    /// Whether the lane was reset.
    pub(in crate::http::h2) fn is_reset(&self, id: u32) -> bool {
        let state = self.state.borrow();
        state.by_id.get(&id).is_none_or(|half| half.reset.is_some())
    }

    /// Whether the lane was reset; if not, `owner` is woken when it is.
    pub(in crate::http::h2) fn poll_reset(&self, id: u32, owner: &Waker) -> Poll<Reason> {
        let mut state = self.state.borrow_mut();
        let Some(half) = state.by_id.get_mut(&id) else {
            return Poll::Ready(Reason::Internal);
        };
        match half.reset {
            Some(reset) => Poll::Ready(reset.reason),
            None => {
                half.wait(owner);
                Poll::Pending
            }
        }
    }

    /// `bytes` of DATA went on: the other side is told once it is worth a frame.
    pub(in crate::http::h2) fn consumed(&self, id: u32, bytes: usize) {
        let mut state = self.state.borrow_mut();
        let Some(half) = state.by_id.get_mut(&id) else {
            return;
        };
        half.unread = half.unread.saturating_sub(bytes);
        half.untold += bytes;
        if let Some(more) = half.grant() {
            state.put_reply(Kind::WindowUpdate, 0, id, &more.to_be_bytes());
        }
        state.give_back(bytes);
    }

    /// The lane's owner is done with it. One that is not over is reset.
    pub(in crate::http::h2) fn release(&self, id: u32, code: Code) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let Some(mut half) = state.by_id.remove(&id) else {
            return;
        };
        state.turns.done(id, &mut half.turn);
        state.give_turns();
        if !half.is_counted_out {
            state.active -= 1;
            state.admit();
        }
        if !half.is_over() && state.closed.is_none() {
            state.put_reset(id, code);
        }
        state.past.add(id, how(&half));
        state.give_back(half.unread);
        if state.by_id.is_empty() {
            state.wake_sender();
        }
    }
}

/// How a lane ends whose owner is done with it.
fn how(half: &Half) -> How {
    match half.reset {
        Some(reset) if reset.by_us => How::ResetByUs,
        Some(_) => How::ResetByThem,
        None if half.is_over() => How::Ended,
        None => How::ResetByUs,
    }
}

impl State {
    /// How a lane ended that is over or not there.
    pub(super) fn how(&self, id: u32) -> Option<How> {
        match self.by_id.get(&id) {
            Some(half) => half.is_over().then(|| how(half)),
            None => self.past.how(id),
        }
    }
}
