//! Frames about lanes, as they arrive (RFC 9113 section 5.1): an error is one of the connection, and returned, or one of
//! its lane, and sent.
//!
//! Limits: [`BLOCK_BYTES_MAX`], [`UNREAD_HEAD_BYTES_MAX`].

use std::time::Instant;

use super::state::{Block, Ending, State};
use super::{STREAMS_UNNOTICED_MAX, Side};
use crate::error::Reason;
use crate::http::h2::frame::{self, Code, END_HEADERS, END_STREAM, Head, PRIORITY, Violation};
use crate::http::h2::half::{Half, Reset};
use crate::http::h2::heads::{self, Malformed, Request};
use crate::http::h2::hpack;
use crate::http::h2::limits::STREAMS;
use crate::http::h2::past::How;
use crate::peer::frame::{HEAD_BYTES_MAX, Kind};

/// A block in several frames: what no list of fields within its limit needs in any code.
const BLOCK_BYTES_MAX: usize = 256 * 1024;
/// Message heads that a lane may hold unread: a final one, and informational ones before it.
const UNREAD_HEAD_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;

/// What the frame said that began a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    pub(super) id: u32,
    end: bool,
    /// It depends on itself.
    is_own_parent: bool,
}

/// A request, and the lane it is on.
type Opened = Option<(u32, Request)>;

impl State {
    pub(super) fn receive_headers(
        &mut self,
        head: &Head,
        payload: &[u8],
    ) -> Result<Opened, Violation> {
        let mut block = head.unpadded(payload)?;
        let mut is_own_parent = false;
        if head.has(PRIORITY) {
            let rule = "a priority is not all there (RFC 9113 section 6.2)";
            let (parent, _) = block
                .split_at_checked(5)
                .ok_or(Code::FrameSizeError.rule(rule))?;
            is_own_parent = frame::number(parent) & frame::WINDOW_MAX == head.stream;
            block = &block[5..];
        }
        let opening = Opening {
            id: head.stream,
            end: head.has(END_STREAM),
            is_own_parent,
        };
        if head.has(END_HEADERS) {
            return self.receive_block(opening, block);
        }
        self.block = Some(Block {
            opening,
            bytes: block.to_vec(),
            since: Instant::now(),
        });
        Ok(None)
    }

    pub(super) fn receive_continuation(
        &mut self,
        head: &Head,
        payload: &[u8],
    ) -> Result<Opened, Violation> {
        let Some(block) = &mut self.block else {
            return Ok(None);
        };
        if block.bytes.len() + payload.len() > BLOCK_BYTES_MAX {
            let rule = "a block of fields is too large (RFC 9113 section 10.5.1)";
            return Err(Code::EnhanceYourCalm.rule(rule));
        }
        block.bytes.extend_from_slice(payload);
        if !head.has(END_HEADERS) {
            return Ok(None);
        }
        match self.block.take() {
            Some(block) => self.receive_block(block.opening, &block.bytes),
            None => Ok(None),
        }
    }

    fn receive_block(&mut self, opening: Opening, block: &[u8]) -> Result<Opened, Violation> {
        let id = opening.id;
        if self.side == Side::Server && id % 2 == 1 && id > self.last_opened {
            return self.receive_request(opening, block);
        }
        if self.by_id.get(&id).is_some_and(Half::is_receiving) {
            return self.receive_section(opening, block).map(|()| None);
        }
        self.blocks.skip(block).map_err(compression)?;
        self.late(id, Kind::Head).map(|()| None)
    }

    fn receive_request(&mut self, opening: Opening, block: &[u8]) -> Result<Opened, Violation> {
        let Opening {
            id,
            end,
            is_own_parent,
        } = opening;
        let is_next = self.last_opened == 0 || id == self.last_opened + 2;
        let request = self.blocks.request(block).map_err(compression)?;
        if self.ending == Ending::Last {
            // It was told that we do not look at it.
            self.budget.reset(Instant::now);
            return Ok(None);
        }
        if self.last_opened == 0 {
            self.first_opened = id;
        }
        self.has_skipped |= !is_next;
        self.last_opened = id;
        let request = match request {
            Ok(_) if is_own_parent => Err("a stream depends on itself (RFC 7540 section 5.3.1)"),
            Ok(request) if end && request.length.is_some_and(|length| length > 0) => Err(TOO_SHORT),
            request => request,
        };
        let mut request = match request {
            Ok(request) => request,
            Err(rule) => {
                self.reset_for(id, Code::ProtocolError, rule);
                return Ok(None);
            }
        };
        let is_full = self.by_id.len() >= STREAMS as usize + STREAMS_UNNOTICED_MAX;
        if self.active >= STREAMS as usize || is_full {
            self.reset(id, Code::RefusedStream, Reason::Overloaded);
            return Ok(None);
        }
        if request.refused.is_some() {
            self.budget.refused(Instant::now);
        }
        request.bodyless = end;
        self.begin(id, request.length, end);
        Ok(Some((id, request)))
    }

    /// A client's lane.
    pub(super) fn begin(&mut self, id: u32, length: Option<u64>, end: bool) -> u32 {
        let mut half = Half::new(self.theirs.initial_window);
        half.receive_ended = end;
        half.left = length;
        self.by_id.insert(id, half);
        self.active += 1;
        id
    }

    /// A response's head, or trailers.
    fn receive_section(&mut self, opening: Opening, block: &[u8]) -> Result<(), Violation> {
        let Self {
            by_id,
            blocks,
            neutral,
            ..
        } = self;
        let Opening {
            id,
            end,
            is_own_parent,
        } = opening;
        let Some(half) = by_id.get_mut(&id) else {
            return Ok(());
        };
        neutral.clear();
        let (kind, taken) = if half.awaits_head {
            let answer = blocks.response(block, neutral).map_err(compression)?;
            let answered = answer.and_then(|answer| answered(half, answer, end));
            (Kind::Head, answered)
        } else {
            let trailers = blocks.trailers(block, neutral).map_err(compression)?;
            (Kind::Trailers, trailers.and_then(|()| trailed(half, end)))
        };
        half.unread_head_bytes += neutral.len();
        let broken = match taken {
            Err(rule) => Some((Code::ProtocolError, rule)),
            Ok(()) if is_own_parent => Some((Code::ProtocolError, "it depends on itself")),
            Ok(()) if half.unread_head_bytes > UNREAD_HEAD_BYTES_MAX => Some((
                Code::EnhanceYourCalm,
                "there are more heads than anyone reads",
            )),
            Ok(()) => None,
        };
        if let Some((code, rule)) = broken {
            self.reset_for(id, code, rule);
            return Ok(());
        }
        half.deliver(kind, end, neutral);
        if end {
            self.count_out(id);
        }
        Ok(())
    }

    pub(super) fn receive_data(&mut self, head: &Head, payload: &[u8]) -> Result<(), Violation> {
        let (id, end) = (head.stream, head.has(END_STREAM));
        let data = head.unpadded(payload)?;
        let rule = "there is more DATA than the window lets pass (RFC 9113 section 6.9.1)";
        self.receive_window = self
            .receive_window
            .checked_sub(payload.len())
            .ok_or(Code::FlowControlError.rule(rule))?;
        let Some(half) = self.by_id.get_mut(&id).filter(|half| half.is_receiving()) else {
            self.give_back(payload.len());
            return self.late(id, Kind::Data);
        };
        let window = half.receive_window.checked_sub(payload.len());
        half.receive_window = window.unwrap_or(0);
        let broken = match window {
            None => Some((Code::FlowControlError, rule)),
            Some(_) if half.awaits_head => Some((
                Code::ProtocolError,
                "DATA comes before a head (RFC 9113 section 8.1)",
            )),
            Some(_) if !half.takes(data.len(), end) => Some((Code::ProtocolError, TOO_SHORT)),
            Some(_) => None,
        };
        if let Some((code, rule)) = broken {
            self.give_back(payload.len());
            self.reset_for(id, code, rule);
            return Ok(());
        }
        let padding = payload.len() - data.len();
        half.unread += data.len();
        half.untold += padding;
        let more = half.grant().filter(|_| !end);
        // An empty frame that ends nothing is nothing.
        if !data.is_empty() || end {
            half.deliver(Kind::Data, end, data);
        }
        self.give_back(padding);
        if let Some(more) = more {
            self.put_reply(frame::Kind::WindowUpdate, 0, id, &more.to_be_bytes());
        }
        if end {
            self.count_out(id);
        }
        Ok(())
    }

    pub(super) fn receive_reset(&mut self, head: &Head, payload: &[u8]) -> Result<(), Violation> {
        let id = head.stream;
        self.expect_used(id)?;
        let refused = frame::number(payload) == Code::RefusedStream as u32;
        let reason = match self.side {
            // RFC 9113 section 8.7: it was not processed.
            Side::Client if refused => Reason::AppRefused,
            side => side.gone(),
        };
        if let Some(half) = self.by_id.get_mut(&id)
            && !half.is_over()
        {
            half.reset = Some(Reset {
                reason,
                by_us: false,
            });
            half.wake();
            self.count_out(id);
        }
        Ok(())
    }

    pub(super) fn receive_priority(
        &mut self,
        head: &Head,
        payload: &[u8],
    ) -> Result<(), Violation> {
        let is_own_parent = frame::number(payload) & frame::WINDOW_MAX == head.stream;
        let broken = match payload.len() {
            5 if is_own_parent => Code::ProtocolError,
            5 => return Ok(()),
            _ => Code::FrameSizeError,
        };
        let rule = "a priority is none (RFC 9113 section 6.3, RFC 7540 section 5.3.1)";
        if self.by_id.get(&head.stream).is_none_or(Half::is_over) {
            return Err(broken.rule(rule));
        }
        self.reset_for(head.stream, broken, rule);
        Ok(())
    }

    /// The other side broke a rule on a lane.
    pub(super) fn reset_for(&mut self, id: u32, code: Code, rule: Malformed) {
        tracing::debug!(id, rule, "stream of HTTP/2 reset");
        self.reset(id, code, self.side.malformed());
    }

    /// A lane of that id was opened before.
    pub(super) fn expect_used(&self, id: u32) -> Result<(), Violation> {
        // RFC 9113 section 6.8: what comes behind a last request may be of one that we do not look at.
        let is_ignored = self.ending == Ending::Last && self.side == Side::Server;
        if id % 2 == 1 && id >= self.first_opened && (id <= self.last_opened || is_ignored) {
            return Ok(());
        }
        let rule = "a frame is about a stream that nobody opened (RFC 9113 section 5.1)";
        Err(Code::ProtocolError.rule(rule))
    }

    /// DATA or a block on a lane that takes none.
    fn late(&mut self, id: u32, kind: Kind) -> Result<(), Violation> {
        self.expect_used(id)?;
        let rule = "a stream goes on behind its end (RFC 9113 section 5.1)";
        match self.how(id) {
            Some(How::ResetByUs) => {}
            // Both ends were said: nothing on its way can have been forgotten.
            Some(How::Ended) => return Err(Code::StreamClosed.rule(rule)),
            Some(How::ResetByThem) => {
                self.budget.reset(Instant::now);
                self.put_reset(id, Code::StreamClosed);
            }
            // Its sender said that it was done, and we are not.
            None if self.by_id.contains_key(&id) => self.reset_for(id, Code::StreamClosed, rule),
            None if self.has_skipped && kind == Kind::Head && id <= self.last_opened => {
                let rule = "a stream is opened behind a later one (RFC 9113 section 5.1.1)";
                return Err(Code::ProtocolError.rule(rule));
            }
            // It ended long ago. Whoever does not know it yet is slow, or a nuisance.
            None => self.budget.reset(Instant::now),
        }
        Ok(())
    }
}

const TOO_SHORT: Malformed =
    "a body has not the length that its head says (RFC 9113 section 8.1.1)";

fn compression(malformed: hpack::Malformed) -> Violation {
    match malformed {
        hpack::TOO_MUCH => Code::EnhanceYourCalm.rule(malformed.0),
        other => Code::CompressionError.rule(other.0),
    }
}

/// A head of a response came.
fn answered(half: &mut Half, answer: heads::Answer, end: bool) -> Result<(), Malformed> {
    if answer.status < 200 {
        return match end {
            true => Err("an informational response ends its stream (RFC 9113 section 8.1)"),
            false => Ok(()),
        };
    }
    half.awaits_head = false;
    let is_lengthless = half.is_lengthless || matches!(answer.status, 204 | 304);
    half.left = answer.length.filter(|_| !is_lengthless);
    if end { trailed(half, end) } else { Ok(()) }
}

/// The last block of a body, or of a message without one.
fn trailed(half: &mut Half, end: bool) -> Result<(), Malformed> {
    match (end, half.takes(0, end)) {
        (true, true) => Ok(()),
        (true, false) => Err(TOO_SHORT),
        (false, _) => Err("trailers do not end their stream (RFC 9113 section 8.1)"),
    }
}
