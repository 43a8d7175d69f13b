//! What the lanes of one connection share, and what is done with it from more than one side.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::task::Waker;
use std::time::Instant;

use super::queue::Queue;
use super::{
    FAREWELL, FRAME_BYTES_MAX, SEND_QUEUE_BYTES, STREAMS_FIRST, Side, WINDOW_FIRST, receive,
};
use crate::error::Reason;
use crate::http::h2::budget::Budget;
use crate::http::h2::frame::{self, Code, Head, Kind, PREFACE, Violation, WINDOW_MAX, setting};
use crate::http::h2::half::{Half, Reset};
use crate::http::h2::heads::Blocks;
use crate::http::h2::hpack::encode::put_resize;
use crate::http::h2::limits::{
    CONNECTION_WINDOW_BYTES, HEADER_LIST_BYTES, STREAM_WINDOW_BYTES, STREAMS as STREAMS_MAX,
};
use crate::http::h2::past::{How, Past};
use crate::peer::streams::IdHasher;
use crate::turns::{Turn, Turns};

/// RFC 9113 section 6.5.2, as far as it concerns us: what the other side said.
#[derive(Debug)]
pub(super) struct Theirs {
    pub(super) initial_window: u32,
    pub(super) frame_bytes: usize,
    /// How many lanes we may open.
    pub(super) streams: u32,
    pub(super) takes_connect: bool,
}

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Not,
    /// The client was told, and is asked whether it knows.
    Told,
    /// It was told which lanes we still serve: those there are.
    Last,
}

/// A block of fields of which there is more to come.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) opening: receive::Opening,
    pub(super) bytes: Vec<u8>,
    pub(super) since: Instant,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) side: Side,
    pub(super) by_id: HashMap<u32, Half, BuildHasherDefault<IdHasher>>,
    /// How many of them are not over.
    pub(super) active: usize,
    pub(super) past: Past,
    pub(super) last_opened: u32,
    /// Ids below were never anybody's.
    pub(super) first_opened: u32,
    /// The client left out ids behind the first: one that is not known may be one of these.
    pub(super) has_skipped: bool,
    /// Frames to be sent, in order.
    pub(super) out: Vec<u8>,
    /// How much of `out` answers what the other side asked, but for DATA.
    pub(super) reply_bytes: usize,
    /// Wakes the task that sends them.
    pub(super) sender: Option<Waker>,
    /// Lanes that wait for the queue to be sent, or for the connection's window.
    pub(super) turns: Turns,
    pub(super) send_window: i64,
    pub(super) receive_window: usize,
    /// What was consumed and the other side was not told of.
    pub(super) untold: usize,
    pub(super) theirs: Theirs,
    /// Their settings have come.
    pub(super) is_settled: bool,
    /// Those who want to know them.
    pub(super) settling: Queue,
    /// The table of our encoder has to be said to be that small.
    pub(super) resize: Option<usize>,
    pub(super) blocks: Blocks,
    /// A head on its way from a block to an inbox.
    pub(super) neutral: Vec<u8>,
    pub(super) block: Option<Block>,
    pub(super) budget: Budget,
    /// How many resets we sent.
    pub(super) resets: u32,
    pub(super) queue: Queue,
    pub(super) ending: Ending,
    /// Set once the connection is gone; every lane learns it.
    pub(super) closed: Option<Reason>,
}

impl State {
    /// Of a connection that begins: what we say first waits to be sent.
    pub(super) fn new(side: Side) -> Self {
        let mut out = Vec::new();
        let common = [
            (setting::INITIAL_WINDOW, STREAM_WINDOW_BYTES),
            (setting::HEADER_LIST, HEADER_LIST_BYTES),
        ];
        match side {
            Side::Server => {
                let own = [
                    (setting::STREAMS, STREAMS_MAX),
                    (setting::CONNECT_PROTOCOL, 1),
                ];
                frame::put_settings(&mut out, &[own, common].concat());
            }
            Side::Client => {
                out.extend_from_slice(PREFACE);
                let own = [(setting::PUSH, 0)];
                frame::put_settings(&mut out, &[&own[..], &common].concat());
            }
        }
        let more = (CONNECTION_WINDOW_BYTES - WINDOW_FIRST).to_be_bytes();
        frame::put(&mut out, Kind::WindowUpdate, 0, 0, &more);
        Self {
            side,
            by_id: HashMap::default(),
            active: 0,
            past: Past::default(),
            last_opened: 0,
            first_opened: 0,
            has_skipped: false,
            out,
            reply_bytes: 0,
            sender: None,
            turns: Turns::new(FRAME_BYTES_MAX),
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
            settling: Queue::default(),
            resize: None,
            blocks: Blocks::default(),
            neutral: Vec::new(),
            block: None,
            budget: Budget::new(Instant::now()),
            resets: 0,
            queue: Queue::default(),
            ending: Ending::Not,
            closed: None,
        }
    }

    /// Whether the frame may come now, and be as it is.
    pub(super) fn expect(&self, head: &Head) -> Result<(), Violation> {
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

    pub(super) fn takes_more(&self) -> bool {
        let has_ids = self.last_opened < WINDOW_MAX - 1;
        self.ending == Ending::Not && self.closed.is_none() && has_ids
    }

    /// Whether another request may be under way at the server.
    pub(super) fn has_slot(&self) -> bool {
        self.active < self.theirs.streams as usize
    }

    pub(super) fn retire(&mut self) {
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
    pub(super) fn put_block(
        &mut self,
        id: u32,
        end: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let before = self.out.len();
        let resize = self.resize;
        frame::put_block(&mut self.out, id, end, self.theirs.frame_bytes, |out| {
            if let Some(size) = resize {
                put_resize(out, size);
            }
            write(out)
        })?;
        self.resize = None;
        // Requests ask for no answers that are not taken: as many as the server takes are under way.
        if self.side == Side::Server {
            self.reply_bytes += self.out.len() - before;
        }
        self.budget.head();
        self.wake_sender();
        Ok(())
    }

    /// Queues a frame that is neither DATA nor a block.
    pub(super) fn put_reply(&mut self, kind: Kind, flags: u8, id: u32, payload: &[u8]) {
        let before = self.out.len();
        frame::put(&mut self.out, kind, flags, id, payload);
        self.reply_bytes += self.out.len() - before;
        self.wake_sender();
    }

    pub(super) fn put_goaway(&mut self, last: u32, code: Code) {
        let [l0, l1, l2, l3] = last.to_be_bytes();
        self.put_reply(Kind::GoAway, 0, 0, &[l0, l1, l2, l3, 0, 0, 0, code as u8]);
    }

    /// The other side learns that a lane is over, and why.
    pub(super) fn put_reset(&mut self, id: u32, code: Code) {
        self.resets = self.resets.saturating_add(1);
        self.put_reply(Kind::RstStream, 0, id, &[0, 0, 0, code as u8]);
    }

    /// An error of one lane: it is over, for both sides, and counts against the other.
    pub(super) fn reset(&mut self, id: u32, code: Code, reason: Reason) {
        self.budget.reset(Instant::now);
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
    pub(super) fn count_out(&mut self, id: u32) {
        if let Some(half) = self.by_id.get_mut(&id)
            && half.is_over()
            && !std::mem::replace(&mut half.is_counted_out, true)
        {
            self.active -= 1;
            self.turns.done(id, &mut half.turn);
            self.give_turns();
            self.admit();
        }
    }

    /// How many bytes of DATA may be queued now, on all lanes together.
    pub(super) fn room(&self) -> usize {
        let window = usize::try_from(self.send_window).unwrap_or(0);
        SEND_QUEUE_BYTES.saturating_sub(self.out.len()).min(window)
    }

    /// Wakes those whose turn it is to send.
    pub(super) fn give_turns(&mut self) {
        let room = self.room();
        while let Some(id) = self.turns.next(room) {
            if let Some(half) = self.by_id.get_mut(&id) {
                half.turn = Turn::Has;
                half.wake();
            }
        }
    }

    /// Lets those go on that wait for a lane, as many as there is room for.
    pub(super) fn admit(&mut self) {
        if !self.queue.is_empty() {
            let room = (self.theirs.streams as usize).saturating_sub(self.active);
            self.queue.wake(room);
        }
    }

    /// So much of what was received needs no room any more.
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.untold += bytes;
        if self.untold >= CONNECTION_WINDOW_BYTES as usize / 2 {
            let more = std::mem::take(&mut self.untold);
            self.receive_window += more;
            let more = u32::try_from(more).unwrap_or(WINDOW_MAX).to_be_bytes();
            self.put_reply(Kind::WindowUpdate, 0, 0, &more);
        }
    }

    pub(super) fn wake_sender(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.wake();
        }
    }
}
