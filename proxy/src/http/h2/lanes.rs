//! All that the lanes of one connection share: what is to be sent, what either side said about itself, and where what
//! arrives goes. A *lane* is a stream of HTTP/2, so called because it leads to or from a
//! [`Stream`](crate::peer::stream::Stream) of the wire.
//!
//! Lives on one worker, behind a `RefCell` that is never held across an `.await`. Limits: those of `limits` and of
//! `budget`; [`SEND_QUEUE_BYTES`] waiting to be sent before lanes have to wait, [`REPLY_QUEUE_BYTES_MAX`] before nothing
//! is read; [`STREAMS_UNNOTICED_MAX`]; [`STREAMS_FIRST`] requests to a server that has not said how many it takes.

/// What they share.
mod state;

/// Frames about the connection.
mod control;

/// Frames about lanes.
mod receive;

/// What one lane does with its connection.
mod own;

/// Requests that wait for a lane.
pub(super) mod queue;

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Waker;
use std::time::Instant;

use super::frame::{Code, Head, Kind, Violation};
use super::half::{Half, Reset};
use super::heads::Request;
use super::lane::Lane;
use super::limits::STREAMS as STREAMS_MAX;
use crate::error::Reason;
use state::{Ending, State};

/// Bytes waiting to be sent, above which lanes wait for their turn.
const SEND_QUEUE_BYTES: usize = 256 * 1024;
/// What is neither DATA nor a request and waits to be sent, above which nothing is read: the other side asks and takes no
/// answers.
const REPLY_QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Lanes that are over and whose tasks have not noticed, beyond those that are under way.
const STREAMS_UNNOTICED_MAX: usize = STREAMS_MAX as usize;
/// Requests under way at a server whose settings have not come.
const STREAMS_FIRST: u32 = 100;
/// RFC 9113 section 6.9.2: what both sides start with.
const WINDOW_FIRST: u32 = 65_535;
/// The largest DATA frame we make, where the other side takes it: so that lanes take turns.
const FRAME_BYTES_MAX: usize = 64 * 1024;
/// The payload of the ping by which a client says that it knows of our end.
const FAREWELL: &[u8; 8] = b"farewell";

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    Client,
}

impl Side {
    /// Who hangs up, for us.
    pub(super) fn gone(self) -> Reason {
        match self {
            Self::Server => Reason::ClientGone,
            Self::Client => Reason::AppGone,
        }
    }

    /// Who breaks rules, for us.
    fn malformed(self) -> Reason {
        match self {
            Self::Server => Reason::MalformedRequest,
            Self::Client => Reason::AppMalformed,
        }
    }

    /// Why a connection on which a rule was broken ends.
    pub(super) fn blame(self, violation: Violation) -> Reason {
        match (violation.code, self) {
            (Code::EnhanceYourCalm, Self::Server) => Reason::ClientFlood,
            (Code::EnhanceYourCalm, Self::Client) => Reason::AppFlood,
            (_, side) => side.malformed(),
        }
    }
}

/// The lanes of one connection.
#[derive(Debug)]
pub(crate) struct Lanes {
    state: RefCell<State>,
}

impl Lanes {
    /// Of a connection that begins: what we say first waits to be sent.
    pub(super) fn new(side: Side) -> Rc<Self> {
        Rc::new(Self {
            state: RefCell::new(State::new(side)),
        })
    }

    /// Settings that the client said before there were frames; they need no answer (RFC 7540 section 3.2.1).
    pub(super) fn assume(&self, settings: &[u8]) -> Result<(), Violation> {
        self.state.borrow_mut().apply_settings(settings)
    }

    /// The first lane of a client, whose request was not a frame, and is all there.
    pub(super) fn first(self: &Rc<Self>) -> Lane {
        let mut state = self.state.borrow_mut();
        let id = state.begin(1, None, true);
        state.last_opened = id;
        drop(state);
        Lane::new(self.clone(), id)
    }

    /// A frame arrived, whole. A request is handed to `accept`, with the lane it came on.
    pub(super) fn receive(
        self: &Rc<Self>,
        head: &Head,
        payload: &[u8],
        accept: &mut dyn FnMut(Lane, Request),
    ) -> Result<(), Violation> {
        let mut state = self.state.borrow_mut();
        state.budget.received(head, Instant::now);
        state.expect(head)?;
        let opened = match head.kind {
            Kind::Data => state.receive_data(head, payload).map(|()| None),
            Kind::Headers => state.receive_headers(head, payload),
            Kind::Continuation => state.receive_continuation(head, payload),
            Kind::RstStream => state.receive_reset(head, payload).map(|()| None),
            Kind::Priority => state.receive_priority(head, payload).map(|()| None),
            Kind::WindowUpdate => state.receive_window(head, payload).map(|()| None),
            Kind::Settings => state.receive_settings(head, payload).map(|()| None),
            Kind::Ping => {
                state.receive_ping(head, payload);
                Ok(None)
            }
            Kind::GoAway => {
                state.receive_goaway(payload);
                Ok(None)
            }
            Kind::PushPromise | Kind::Unknown => Ok(None),
        }?;
        if state.budget.is_spent() {
            let rule = "there are more frames than requests call for (RFC 9113 section 10.5)";
            return Err(Code::EnhanceYourCalm.rule(rule));
        }
        drop(state);
        if let Some((id, request)) = opened {
            accept(Lane::new(self.clone(), id), request);
        }
        Ok(())
    }

    /// Queues a request, whose block `write` makes.
    pub(super) fn open(
        self: &Rc<Self>,
        end: bool,
        is_lengthless: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Reason>,
    ) -> Result<Lane, Reason> {
        let mut state = self.state.borrow_mut();
        if let Some(reason) = state.closed {
            return Err(reason);
        }
        if !state.takes_more() {
            return Err(Reason::AppRefused);
        }
        let id = match state.last_opened {
            0 => 1,
            last => last + 2,
        };
        state.put_block(id, end, write)?;
        state.last_opened = id;
        let mut half = Half::new(state.theirs.initial_window);
        half.send_ended = end;
        half.awaits_head = true;
        half.is_lengthless = is_lengthless;
        state.by_id.insert(id, half);
        state.active += 1;
        drop(state);
        Ok(Lane::new(self.clone(), id))
    }

    /// Whether new lanes may be opened, now or after others.
    pub(super) fn takes_more(&self) -> bool {
        self.state.borrow().takes_more()
    }

    /// How many lanes we reset.
    pub(super) fn resets(&self) -> u32 {
        self.state.borrow().resets
    }

    /// How many lanes were opened, and how many there are.
    pub(super) fn count(&self) -> (u32, usize) {
        let state = self.state.borrow();
        (state.last_opened.div_ceil(2), state.by_id.len())
    }

    /// No new lanes; the connection ends after its last one.
    pub(super) fn retire(&self) {
        self.state.borrow_mut().retire();
    }

    /// Whether the connection has served its time.
    pub(super) fn is_over(&self) -> bool {
        let state = self.state.borrow();
        state.ending == Ending::Last && state.by_id.is_empty()
    }

    /// Tells the other side which rule it broke.
    pub(super) fn accuse(&self, violation: Violation) {
        let mut state = self.state.borrow_mut();
        let last = match state.side {
            Side::Server => state.last_opened,
            Side::Client => 0,
        };
        state.put_goaway(last, violation.code);
    }

    /// The connection is gone: every lane learns why.
    pub(super) fn close(&self, reason: Reason) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(reason);
        state.wake_sender();
        state.queue.wake_all();
        state.settling.wake_all();
        for half in state.by_id.values_mut() {
            if !half.is_over() {
                half.reset = Some(Reset {
                    reason,
                    by_us: false,
                });
            }
            half.wake();
        }
    }

    pub(super) fn side(&self) -> Side {
        self.state.borrow().side
    }

    /// Whether so much waits to be sent that nothing should be read.
    pub(super) fn is_clogged(&self) -> bool {
        self.state.borrow().reply_bytes >= REPLY_QUEUE_BYTES_MAX
    }

    /// Since when a block of fields has been coming, of which there is more to come.
    pub(super) fn block_since(&self) -> Option<Instant> {
        self.state.borrow().block.as_ref().map(|block| block.since)
    }

    /// Whether so much waits to be sent that DATA would wait behind it.
    pub(super) fn is_behind(&self) -> bool {
        self.state.borrow().out.len() >= SEND_QUEUE_BYTES
    }

    /// Swaps what waits to be sent into the empty `taken`; when nothing does, `sender` is woken once something does.
    pub(super) fn take_out(&self, taken: &mut Vec<u8>, sender: &Waker) -> bool {
        let mut state = self.state.borrow_mut();
        if state.out.is_empty() {
            if !state
                .sender
                .as_ref()
                .is_some_and(|known| known.will_wake(sender))
            {
                state.sender = Some(sender.clone());
            }
            return false;
        }
        std::mem::swap(&mut state.out, taken);
        state.reply_bytes = 0;
        state.give_turns();
        true
    }

    /// Frees what nobody needs until something happens.
    pub(super) fn rest(&self) {
        let mut state = self.state.borrow_mut();
        if state.out.is_empty() {
            state.out = Vec::new();
        }
        state.blocks.rest();
        state.neutral = Vec::new();
    }
}

#[cfg(test)]
mod tests;
