//! All that the lanes of one connection share: what is to be sent, what either side said about itself, and where what
//! arrives goes. A *lane* is a stream of HTTP/2, so called because it leads to or from a
//! [`Stream`](crate::peer::stream::Stream) of the wire.
//!
//! Lives on one worker, behind a `RefCell` that is never held across an `.await`. Limits: those of `limits` and of
//! `budget`; [`SEND_QUEUE_BYTES`] waiting to be sent before lanes have to wait, [`REPLY_QUEUE_BYTES_MAX`] before nothing
//! is read; [`STREAMS_UNNOTICED_MAX`]; [`STREAMS_FIRST`] requests to a server that has not said how many it takes.

/// Frames about the connection.
mod control;

/// Frames about lanes.
mod receive;

/// What one lane does with its connection.
mod own;

/// Requests that wait for a lane.
pub(super) mod queue;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::budget::Budget;
use super::frame::{self, Code, Head, Kind, PREFACE, Violation, WINDOW_MAX};
use super::half::{Half, Reset};
use super::heads::{Blocks, Request};
use super::lane::Lane;
use super::limits::{
    CONNECTION_WINDOW_BYTES, HEADER_LIST_BYTES, STREAM_WINDOW_BYTES, STREAMS as STREAMS_MAX,
};
use super::past::{How, Past};
use crate::error::Reason;
use crate::peer::streams::IdHasher;
use queue::Queue;

/// Bytes waiting to be sent, above which lanes wait for their turn.
const SEND_QUEUE_BYTES: usize = 256 * 1024;
/// What is not DATA and waits to be sent, above which nothing is read: the other side asks and takes no answers.
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

/// RFC 9113 section 6.5.2, as far as it concerns us: what the other side said.
#[derive(Debug)]
struct Theirs {
    initial_window: u32,
    frame_bytes: usize,
    /// How many lanes we may open.
    streams: u32,
    takes_connect: bool,
}

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Not,
    /// The client was told, and is asked whether it knows.
    Told,
    /// It was told which lanes we still serve: those there are.
    Last,
}

/// A block of fields of which there is more to come.
#[derive(Debug)]
struct Block {
    opening: receive::Opening,
    bytes: Vec<u8>,
}

/// The lanes of one connection.
#[derive(Debug)]
pub(crate) struct Lanes {
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    side: Side,
    by_id: HashMap<u32, Half, BuildHasherDefault<IdHasher>>,
    /// How many of them are not over.
    active: usize,
    past: Past,
    last_opened: u32,
    /// The client left out ids: one that is not known may be one of these.
    has_skipped: bool,
    /// Frames to be sent, in order.
    out: Vec<u8>,
    /// How much of `out` is not DATA.
    reply_bytes: usize,
    /// Wakes the task that sends them.
    sender: Option<Waker>,
    /// Lanes that wait for the queue to be sent, each once.
    waiting: Vec<u32>,
    /// Lanes that wait for the connection's window, each once.
    starving: Vec<u32>,
    send_window: i64,
    receive_window: usize,
    /// What was consumed and the other side was not told of.
    untold: usize,
    theirs: Theirs,
    /// Their settings have come.
    is_settled: bool,
    /// Those who want to know them.
    settling: Vec<Waker>,
    /// The table of our encoder has to be said to be that small.
    resize: Option<usize>,
    blocks: Blocks,
    /// A head on its way from a block to an inbox.
    neutral: Vec<u8>,
    block: Option<Block>,
    budget: Budget,
    queue: Queue,
    ending: Ending,
    /// Set once the connection is gone; every lane learns it.
    closed: Option<Reason>,
}

impl Lanes {
    /// Of a connection that begins: what we say first waits to be sent.
    pub(super) fn new(side: Side) -> Rc<Self> {
        let mut out = Vec::new();
        let common = [
            (frame_setting::INITIAL_WINDOW, STREAM_WINDOW_BYTES),
            (frame_setting::HEADER_LIST, HEADER_LIST_BYTES),
        ];
        match side {
            Side::Server => {
                let own = [
                    (frame_setting::STREAMS, STREAMS_MAX),
                    (frame_setting::CONNECT_PROTOCOL, 1),
                ];
                frame::put_settings(&mut out, &[own, common].concat());
            }
            Side::Client => {
                out.extend_from_slice(PREFACE);
                let own = [(frame_setting::PUSH, 0)];
                frame::put_settings(&mut out, &[&own[..], &common].concat());
            }
        }
        let more = (CONNECTION_WINDOW_BYTES - WINDOW_FIRST).to_be_bytes();
        frame::put(&mut out, Kind::WindowUpdate, 0, 0, &more);
        let state = State {
            side,
            by_id: HashMap::default(),
            active: 0,
            past: Past::default(),
            last_opened: 0,
            has_skipped: false,
            out,
            reply_bytes: 0,
            sender: None,
            waiting: Vec::new(),
            starving: Vec::new(),
            send_window: i64::from(WINDOW_FIRST),
            receive_window: CONNECTION_WINDOW_BYTES as usize,
            untold: 0,
            theirs: Theirs {
                initial_window: WINDOW_FIRST,
                frame_bytes: frame::PAYLOAD_BYTES_MAX,
                streams: STREAMS_FIRST,
                takes_connect: false,
            },
            is_settled: false,
            settling: Vec::new(),
            resize: None,
            blocks: Blocks::default(),
            neutral: Vec::new(),
            block: None,
            budget: Budget::new(Instant::now()),
            queue: Queue::default(),
            ending: Ending::Not,
            closed: None,
        };
        Rc::new(Self {
            state: RefCell::new(state),
        })
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

    /// How many lanes were opened, and how many there are.
    pub(super) fn count(&self) -> (u32, usize) {
        let state = self.state.borrow();
        (state.last_opened.div_ceil(2), state.by_id.len())
    }

    /// Ready once the other side's settings have come, or nothing comes any more: whether it takes a CONNECT with a
    /// protocol (RFC 8441 section 3).
    pub(super) fn poll_takes_connect(&self, cx: &Context<'_>) -> Poll<bool> {
        let mut state = self.state.borrow_mut();
        if state.is_settled || state.closed.is_some() {
            return Poll::Ready(state.theirs.takes_connect);
        }
        state.settling.push(cx.waker().clone());
        Poll::Pending
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
        state.settling.drain(..).for_each(Waker::wake);
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
        let State { waiting, by_id, .. } = &mut *state;
        for id in waiting.drain(..) {
            if let Some(half) = by_id.get_mut(&id) {
                half.is_waiting = false;
                half.wake();
            }
        }
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

/// RFC 9113 section 6.5.2 and RFC 8441 section 3.
mod frame_setting {
    pub(super) const TABLE: u16 = 1;
    pub(super) const PUSH: u16 = 2;
    pub(super) const STREAMS: u16 = 3;
    pub(super) const INITIAL_WINDOW: u16 = 4;
    pub(super) const FRAME: u16 = 5;
    pub(super) const HEADER_LIST: u16 = 6;
    pub(super) const CONNECT_PROTOCOL: u16 = 8;
}

impl State {
    /// Whether the frame may come now, and be as it is.
    fn expect(&self, head: &Head) -> Result<(), Violation> {
        head.check()?;
        let is_first = !self.is_settled;
        if is_first && (head.kind != Kind::Settings || head.has(frame::ACK)) {
            let rule = "the first frame is none of settings (RFC 9113 section 3.4)";
            return Err(Code::ProtocolError.rule(rule));
        }
        let is_continued = match &self.block {
            Some(block) => head.kind == Kind::Continuation && head.stream == block.opening.id,
            None => head.kind != Kind::Continuation,
        };
        if !is_continued {
            let rule = "a block of fields is interrupted, or one that has not begun goes on (RFC 9113 section 6.10)";
            return Err(Code::ProtocolError.rule(rule));
        }
        Ok(())
    }

    fn takes_more(&self) -> bool {
        let has_ids = self.last_opened < WINDOW_MAX - 1;
        self.ending == Ending::Not && self.closed.is_none() && has_ids
    }

    /// Whether another request may be under way at the server.
    fn has_slot(&self) -> bool {
        self.active < self.theirs.streams as usize
    }

    fn retire(&mut self) {
        if self.ending != Ending::Not {
            return;
        }
        match self.side {
            Side::Server => {
                self.ending = Ending::Told;
                // RFC 9113 section 6.8: so that no request on its way is lost.
                self.put_goaway(WINDOW_MAX, Code::NoError);
                self.put_reply(Kind::Ping, 0, 0, FAREWELL);
            }
            Side::Client => {
                self.ending = Ending::Last;
                self.put_goaway(0, Code::NoError);
                self.queue.wake_all();
            }
        }
    }

    /// Queues a block of fields.
    fn put_block(
        &mut self,
        id: u32,
        end: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let before = self.out.len();
        let resize = self.resize;
        frame::put_block(&mut self.out, id, end, self.theirs.frame_bytes, |out| {
            if let Some(size) = resize {
                super::hpack::encode::put_resize(out, size);
            }
            write(out)
        })?;
        self.resize = None;
        self.reply_bytes += self.out.len() - before;
        self.budget.head();
        self.wake_sender();
        Ok(())
    }

    /// Queues a frame that is neither DATA nor a block.
    fn put_reply(&mut self, kind: Kind, flags: u8, id: u32, payload: &[u8]) {
        let before = self.out.len();
        frame::put(&mut self.out, kind, flags, id, payload);
        self.reply_bytes += self.out.len() - before;
        self.wake_sender();
    }

    fn put_goaway(&mut self, last: u32, code: Code) {
        let [l0, l1, l2, l3] = last.to_be_bytes();
        self.put_reply(Kind::GoAway, 0, 0, &[l0, l1, l2, l3, 0, 0, 0, code as u8]);
    }

    /// The other side learns that a lane is over, and why.
    fn put_reset(&mut self, id: u32, code: Code) {
        self.budget.reset(Instant::now);
        self.put_reply(Kind::RstStream, 0, id, &[0, 0, 0, code as u8]);
    }

    /// An error of one lane: it is over, for both sides.
    fn reset(&mut self, id: u32, code: Code, reason: Reason) {
        self.put_reset(id, code);
        if let Some(half) = self.by_id.get_mut(&id) {
            half.reset = Some(Reset {
                reason,
                by_us: true,
            });
            half.wake();
            self.count_out(id);
        } else {
            self.past.add(id, How::ResetByUs);
        }
    }

    /// A lane that is over makes room for another.
    fn count_out(&mut self, id: u32) {
        if let Some(half) = self.by_id.get_mut(&id)
            && half.is_over()
            && !std::mem::replace(&mut half.is_counted_out, true)
        {
            self.active -= 1;
            self.admit();
        }
    }

    /// Lets those go on that wait for a lane, as many as there is room for.
    fn admit(&mut self) {
        if !self.queue.is_empty() {
            let room = (self.theirs.streams as usize).saturating_sub(self.active);
            self.queue.wake(room);
        }
    }

    /// So much of what was received needs no room any more.
    fn give_back(&mut self, bytes: usize) {
        self.untold += bytes;
        if self.untold >= CONNECTION_WINDOW_BYTES as usize / 2 {
            let more = std::mem::take(&mut self.untold);
            self.receive_window += more;
            let more = u32::try_from(more).unwrap_or(WINDOW_MAX).to_be_bytes();
            self.put_reply(Kind::WindowUpdate, 0, 0, &more);
        }
    }

    fn wake_sender(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.wake();
        }
    }
}

#[cfg(test)]
mod tests;
