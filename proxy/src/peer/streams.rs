//! All that the streams of one connection share: what is to be sent, and where what arrives goes.
//!
//! Lives on one worker, behind a `RefCell` that is never held across an `.await`. Limits: [`STREAMS_MAX`] streams,
//! [`SEND_QUEUE_BYTES`] waiting to be sent before streams have to wait, a credit window of [`WINDOW_BYTES`] per stream
//! that grows to [`WINDOW_BYTES_MAX`] for readers that keep up, as long as the connection has budget for it.

/// What one stream does with its connection.
mod own;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::task::Waker;
use std::time::Instant;

use super::frame::{self, Frame, Kind};
use super::half::Half;
use super::stream::{Reader, Stream};
use crate::error::{DecisionId, Reason};
use crate::turns::{Turn, Turns};

/// Streams open at once on one connection.
pub(crate) const STREAMS_MAX: usize = 1024;
/// Streams that the peer has reset and nobody here has noticed yet, beyond those.
const RESETS_UNNOTICED_MAX: usize = STREAMS_MAX;
/// Bytes waiting to be sent, above which streams wait for their turn.
const SEND_QUEUE_BYTES: usize = 256 * 1024;
/// Answers to what the peer does (pongs, credit, resets) waiting to be sent, above which nothing is read: it asks and
/// never takes the answers.
const REPLY_QUEUE_BYTES_MAX: usize = 256 * 1024;
/// What a peer may send on a stream before its reader took anything.
pub(crate) const WINDOW_BYTES: usize = 64 * 1024;
/// What the window of a stream grows to.
pub(crate) const WINDOW_BYTES_MAX: usize = 1024 * 1024;
/// By how much all windows of one connection together may grow.
const WINDOW_BUDGET_BYTES: usize = 8 * 1024 * 1024;
/// Message heads that a stream may hold unread: a final one, and informational ones before it.
const UNREAD_HEAD_BYTES_MAX: usize = 2 * frame::HEAD_BYTES_MAX;

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// We dialled, and open streams.
    Dialer,
    /// We answered, and serve them.
    Acceptor,
}

/// The streams of one connection.
#[derive(Debug)]
pub(crate) struct Streams {
    state: RefCell<State>,
    /// Whether the peer said that it takes no more, or we are to replace the connection.
    retired: Cell<bool>,
    /// The former.
    dismissed: Cell<bool>,
}

#[derive(Debug)]
struct State {
    side: Side,
    by_id: HashMap<u32, Half, BuildHasherDefault<IdHasher>>,
    last_opened: u32,
    /// Frames to be sent, in order.
    out: Vec<u8>,
    /// Wakes the task that sends them.
    sender: Option<Waker>,
    /// Streams whose writers wait for the queue to be sent.
    turns: Turns,
    /// How much of `out` are answers to what the peer does.
    reply_bytes: usize,
    window_budget: usize,
    /// Streams that may not be idle for ever.
    limited: usize,
    /// Set once the connection is gone; every stream learns it.
    closed: Option<Reason>,
}

/// A frame that must not be: the connection ends.
#[derive(Debug, thiserror::Error)]
#[error("stream {stream}: {problem}")]
pub(crate) struct Violation {
    stream: u32,
    problem: &'static str,
}

impl Streams {
    pub(crate) fn new(side: Side) -> Rc<Self> {
        let state = State {
            side,
            by_id: HashMap::default(),
            last_opened: 0,
            out: Vec::new(),
            sender: None,
            turns: Turns::new(frame::DATA_BYTES_MAX),
            reply_bytes: 0,
            window_budget: WINDOW_BUDGET_BYTES,
            limited: 0,
            closed: None,
        };
        Rc::new(Self {
            state: RefCell::new(state),
            retired: Cell::new(false),
            dismissed: Cell::new(false),
        })
    }

    /// Opens a stream with its first frame, or says why not: a head may have become too large by what was changed in it,
    /// or by its normal form, which has three bytes for some. Dialling side only; whoever opens it releases it.
    pub(super) fn open(&self, end: bool, write: impl FnOnce(&mut Vec<u8>)) -> Result<u32, Reason> {
        let mut state = self.state.borrow_mut();
        if let Some(reason) = state.closed {
            return Err(reason);
        }
        let id = state.last_opened + 1;
        let put = frame::put(&mut state.out, id, Kind::Open, end, write);
        put.map_err(|_| Reason::HeadTooLarge)?;
        state.last_opened = id;
        let mut half = Half::new();
        half.send_ended = end;
        state.by_id.insert(id, half);
        state.wake_sender();
        Ok(id)
    }

    /// Whether so much waits to be sent that a new stream would wait behind it.
    pub(crate) fn is_behind(&self) -> bool {
        self.state.borrow().out.len() >= SEND_QUEUE_BYTES
    }

    /// Whether a new stream fits. Ids are used once; a connection that ran out of them is replaced.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.state.borrow();
        !self.retired.get()
            && state.closed.is_none()
            && state.by_id.len() < STREAMS_MAX
            && state.last_opened < u32::MAX
    }

    /// No new streams here; the connection ends after its last one.
    pub(crate) fn retire(&self) {
        self.retired.set(true);
        self.state.borrow_mut().wake_sender();
    }

    /// Whether the peer said that it takes no more.
    pub(crate) fn is_dismissed(&self) -> bool {
        self.dismissed.get()
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// Whether the connection has served its time: ours to open streams on, retired, and without any.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.state.borrow();
        self.retired.get() && state.side == Side::Dialer && state.by_id.is_empty()
    }

    pub(crate) fn count(&self) -> usize {
        self.state.borrow().by_id.len()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.borrow().closed.is_some()
    }

    /// The connection is gone: every stream learns why.
    pub(crate) fn close(&self, reason: Reason) {
        let mut state = self.state.borrow_mut();
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(reason);
        state.wake_sender();
        for half in state.by_id.values_mut() {
            half.reset.get_or_insert(reason);
            half.wake();
        }
    }

    /// A frame arrived. A new stream is handed to `accept`, with the payload that opened it.
    pub(crate) fn receive(
        self: &Rc<Self>,
        frame: Frame<'_>,
        accept: &mut dyn FnMut(Stream, Reader, &[u8]),
    ) -> Result<(), Violation> {
        match frame.kind {
            Kind::Open => {
                if let Some(stream) = self.receive_open(&frame)? {
                    accept(stream, Reader::new(frame.end), frame.payload);
                }
                Ok(())
            }
            Kind::Ping => {
                self.state.borrow_mut().tell(0, Kind::Pong, &[]);
                Ok(())
            }
            Kind::Pong => Ok(()),
            Kind::GoAway => {
                self.dismissed.set(true);
                self.retire();
                Ok(())
            }
            Kind::Head | Kind::Data | Kind::Trailers | Kind::Reset | Kind::Credit => {
                self.state.borrow_mut().receive_on_stream(&frame)
            }
        }
    }

    fn receive_open(self: &Rc<Self>, frame: &Frame<'_>) -> Result<Option<Stream>, Violation> {
        let mut state = self.state.borrow_mut();
        let violation = |problem| {
            Err(Violation {
                stream: frame.stream,
                problem,
            })
        };
        if state.side == Side::Dialer {
            return violation("only the dialling side opens streams");
        }
        if state.last_opened.checked_add(1) != Some(frame.stream) {
            return violation("streams are not opened in order");
        }
        state.last_opened = frame.stream;
        if state.is_full() {
            state.reset(frame.stream, Reason::Overloaded, None);
            return Ok(None);
        }
        let mut half = Half::new();
        half.receive_ended = frame.end;
        state.by_id.insert(frame.stream, half);
        drop(state);
        Ok(Some(Stream::accepted(self.clone(), frame.stream)))
    }

    /// Queues a frame about the connection itself.
    pub(crate) fn tell_peer(&self, kind: Kind) {
        self.state.borrow_mut().tell(0, kind, &[]);
    }

    /// Whether so much waits to be sent that nothing should be read.
    pub(crate) fn is_clogged(&self) -> bool {
        self.state.borrow().reply_bytes >= REPLY_QUEUE_BYTES_MAX
    }

    /// Swaps what waits to be sent into the empty `taken`; when nothing does, `sender` is woken once something does.
    pub(crate) fn take_out(&self, taken: &mut Vec<u8>, sender: &Waker) -> bool {
        let mut state = self.state.borrow_mut();
        if state.out.is_empty() {
            state.sender = Some(sender.clone());
            return false;
        }
        std::mem::swap(&mut state.out, taken);
        state.reply_bytes = 0;
        state.give_turns();
        true
    }

    /// Resets streams on which nothing has moved for longer than they may.
    pub(crate) fn cut_idle(&self, now: Instant) {
        let mut state = self.state.borrow_mut();
        if state.limited == 0 || state.closed.is_some() {
            return;
        }
        let open = state
            .by_id
            .iter_mut()
            .filter(|(_, half)| half.reset.is_none());
        let idle = open.filter_map(|(id, half)| half.is_idle(now).then_some(*id));
        for id in idle.collect::<Vec<_>>() {
            if let Some(half) = state.by_id.get_mut(&id) {
                half.reset = Some(Reason::IdleTimeout);
                half.wake();
            }
            state.reset(id, Reason::IdleTimeout, None);
        }
    }

    /// Wakes whoever waits on a stream: what was decided about it may not hold any more.
    pub(crate) fn wake_all(&self) {
        for half in self.state.borrow_mut().by_id.values_mut() {
            half.wake();
        }
    }

    /// Frees what no stream has used since it was last asked to: room that bulk needed and idle streams do not.
    pub(crate) fn sweep(&self) {
        for half in self.state.borrow_mut().by_id.values_mut() {
            half.inbox.sweep();
        }
    }
}

impl State {
    /// Whether the peer may open no more. Streams it has reset are over for it; that our own tasks have not noticed yet
    /// is held against it only when it resets faster than they can.
    fn is_full(&self) -> bool {
        if self.by_id.len() < STREAMS_MAX {
            return false;
        }
        let open = || self.by_id.values().filter(|half| half.reset.is_none());
        self.by_id.len() >= STREAMS_MAX + RESETS_UNNOTICED_MAX || open().count() >= STREAMS_MAX
    }

    /// Wakes those whose turn it is to send.
    fn give_turns(&mut self) {
        let room = SEND_QUEUE_BYTES.saturating_sub(self.out.len());
        while let Some(id) = self.turns.next(room) {
            if let Some(half) = self.by_id.get_mut(&id) {
                half.turn = Turn::Has;
                half.wake_writer();
            }
        }
    }

    /// The peer learns that a stream is over, and why.
    fn reset(&mut self, id: u32, reason: Reason, decision: Option<DecisionId>) {
        let mut payload = [reason as u8; 9];
        match decision {
            None => self.put_short(id, Kind::Reset, true, &payload[..1]),
            Some(decision) => {
                payload[1..].copy_from_slice(&decision.to_bytes());
                self.put_short(id, Kind::Reset, true, &payload);
            }
        }
    }

    /// Queues a frame of the connection, or about what its peer may send.
    fn tell(&mut self, id: u32, kind: Kind, payload: &[u8]) {
        self.put_short(id, kind, false, payload);
    }

    fn put_short(&mut self, id: u32, kind: Kind, end: bool, payload: &[u8]) {
        let before = self.out.len();
        let put = frame::put(&mut self.out, id, kind, end, |out| {
            out.extend_from_slice(payload)
        });
        debug_assert_eq!(put, Ok(()), "these have payloads of one size");
        if matches!(kind, Kind::Pong | Kind::Credit | Kind::Reset) {
            self.reply_bytes += self.out.len() - before;
        }
        self.wake_sender();
    }

    fn wake_sender(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.wake();
        }
    }

    fn receive_on_stream(&mut self, frame: &Frame<'_>) -> Result<(), Violation> {
        let violation = |problem| {
            Err(Violation {
                stream: frame.stream,
                problem,
            })
        };
        if frame.stream == 0 || frame.stream > self.last_opened {
            return violation("was never opened");
        }
        // Late frames of a stream that we reset.
        let Some(half) = self.by_id.get_mut(&frame.stream) else {
            return Ok(());
        };
        match frame.kind {
            Kind::Reset => {
                let (reason, decision) = match frame.payload {
                    [] => (Reason::PeerGone, None),
                    [code, rest @ ..] => (Reason::from_code(*code), DecisionId::from_bytes(rest)),
                };
                (half.reset, half.decision) = (Some(reason), decision);
                half.wake();
                return Ok(());
            }
            Kind::Credit => {
                let Ok(bytes) = frame.payload.try_into() else {
                    return violation("credit is not a u32");
                };
                half.has_moved = true;
                half.send_credit = half
                    .send_credit
                    .saturating_add(u32::from_be_bytes(bytes) as usize);
                half.wake();
                return Ok(());
            }
            _ => {}
        }
        if half.receive_ended {
            return violation("sends after its end");
        }
        if frame.kind == Kind::Head && self.side == Side::Acceptor {
            return violation("only the answering side sends heads");
        }
        if frame.kind == Kind::Trailers && !frame.end {
            return violation("trailers are not its end");
        }
        if frame.kind == Kind::Data {
            let Some(left) = half.receive_credit.checked_sub(frame.payload.len()) else {
                return violation("sends more than it has credit for");
            };
            half.receive_credit = left;
        } else {
            half.unread_head_bytes += frame.payload.len() + frame::HEADER_BYTES;
            if half.unread_head_bytes > UNREAD_HEAD_BYTES_MAX {
                return violation("sends more heads than anyone reads");
            }
        }
        half.receive_ended = frame.end;
        half.deliver(frame);
        Ok(())
    }
}

/// Stream ids count up and are checked to, so nobody can choose ones that collide: a multiplication spreads them.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[cfg(test)]
mod tests;
