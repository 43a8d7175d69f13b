//! One stream, as the code that serves it sees it: frames to read and to send.
//!
//! Dropping a stream that has not ended in both directions resets it, with the reason it was given by
//! [`Stream::fail`], else "gone". Reading and sending may go on side by side through `&self` and [`Reader`].
//!
//! A request's stream is recorded until it is answered ([`Stream::forget`]), so that it can be taken from a connection
//! ([`Stream::detach`]) and placed on another ([`Stream::place`]): whoever sends the body does not notice, and waits
//! meanwhile. Limit: [`INFORMATIONAL_BYTES_MAX`].

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::io::ReadBuf;
use tokio::net::tcp::ReadHalf;

use super::frame::{DATA_BYTES_MAX, Frame, HEAD_BYTES_MAX, Kind};
use super::inbox::{Inbox, Received};
use super::open::{self, Open};
use super::record::Record;
use super::streams::Streams;
use crate::error::{DecisionId, Error, Reason};

/// Informational heads of one response, which may be any number: a final one fits beside them into what a peer holds unread.
const INFORMATIONAL_BYTES_MAX: usize = HEAD_BYTES_MAX;

/// The sending half, and the stream's owner.
#[derive(Debug)]
pub(crate) struct Stream {
    place: RefCell<Option<Place>>,
    record: RefCell<Option<Record>>,
    failed: Cell<Reason>,
    decision: Cell<Option<DecisionId>>,
    /// How much of informational heads was sent.
    informational_bytes: Cell<usize>,
}

/// A stream of one connection.
#[derive(Debug)]
struct Place {
    streams: Rc<Streams>,
    id: u32,
}

/// What arrives on a stream.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Taken from the shared inbox.
    inbox: Inbox,
    ended: bool,
    /// Trailers are an end and nothing else.
    drops_trailers: bool,
}

impl Stream {
    /// One that the peer opened.
    pub(super) fn accepted(streams: Rc<Streams>, id: u32) -> Self {
        Self {
            place: RefCell::new(Some(Place { streams, id })),
            record: RefCell::default(),
            failed: Cell::new(Reason::ClientGone),
            decision: Cell::default(),
            informational_bytes: Cell::new(0),
        }
    }

    /// An HTTP request that is yet to be placed; its head is in neutral form.
    pub(crate) fn request(head: Vec<u8>, ended: bool) -> Self {
        Self::repeated(Record::new(head, ended))
    }

    /// A request that was made before, and is yet to be placed.
    pub(crate) fn repeated(record: Record) -> Self {
        Self {
            place: RefCell::default(),
            record: RefCell::new(Some(record)),
            failed: Cell::new(Reason::ClientGone),
            decision: Cell::default(),
            informational_bytes: Cell::new(0),
        }
    }

    /// Opens a stream for an opaque connection to `port` of the pod behind the peer.
    pub(crate) fn tcp(streams: &Rc<Streams>, port: u16) -> Result<Self, Reason> {
        let open = Open {
            port,
            kind: open::Kind::Tcp,
            head: &[],
        };
        let id = streams.open(false, |out| open.encode(out))?;
        Ok(Self::accepted(streams.clone(), id))
    }

    /// Sends what was recorded to `port` of the pod behind the peer, and from now on what follows.
    pub(crate) fn place(&self, streams: &Rc<Streams>, port: u16) -> Result<(), Reason> {
        let mut record = self.record.borrow_mut();
        let record = record.as_mut().ok_or(Reason::Internal)?;
        let open = Open {
            port,
            kind: open::Kind::Http,
            head: &record.head,
        };
        let bodyless = record.body.is_empty() && record.trailers.is_none();
        let id = streams.open(record.ended && bodyless, |out| open.encode(out))?;
        let mut rest = record.body.chunks(DATA_BYTES_MAX).peekable();
        while let Some(data) = rest.next() {
            let end = record.ended && rest.peek().is_none() && record.trailers.is_none();
            streams.send(id, Kind::Data, end, |out| out.extend_from_slice(data));
        }
        if let Some(trailers) = &record.trailers {
            streams.send(id, Kind::Trailers, true, |out| {
                out.extend_from_slice(trailers)
            });
        }
        let streams = streams.clone();
        *self.place.borrow_mut() = Some(Place { streams, id });
        if let Some(sender) = record.sender.take() {
            sender.wake();
        }
        Ok(())
    }

    /// Takes the stream from its connection, where it is reset for `reason` unless it is over. What is sent meanwhile
    /// is recorded.
    pub(crate) fn detach(&self, reason: Reason) {
        if let Some(Place { streams, id }) = self.place.borrow_mut().take() {
            streams.release(id, reason, self.decision.get());
        }
    }

    /// Looks at the recorded head; none when not all that was sent is recorded.
    pub(crate) fn recorded<T>(&self, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.record
            .borrow()
            .as_ref()
            .map(|record| look(&record.head))
    }

    /// The stream stays where it is: nothing is recorded any more. Returns what was, unless it was too much.
    pub(crate) fn forget(&self) -> Option<Record> {
        self.record.take()
    }

    /// Why the peer is told that the stream is reset, if it has to be.
    pub(crate) fn fail(&self, reason: Reason) {
        self.failed.set(reason);
    }

    /// The same, with the refusal it may be.
    pub(crate) fn fail_as(&self, error: &Error) {
        self.failed.set(error.reason);
        self.decision.set(error.decision);
    }

    /// Of the refusal that the stream's reset was.
    pub(crate) fn decision(&self) -> Option<DecisionId> {
        let place = self.place.borrow();
        place
            .as_ref()
            .and_then(|place| place.streams.decision(place.id))
    }

    /// Sends a head or trailers, made by `write`.
    pub(crate) fn send_head(&self, kind: Kind, end: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let mut record = self.record.borrow_mut();
        let Some(record) = record.as_mut() else {
            return self.send(kind, end, write);
        };
        let mut section = Vec::new();
        write(&mut section);
        self.send(kind, end, |out| out.extend_from_slice(&section));
        record.trailers = Some(section);
        record.ended = end;
    }

    /// Sends a head that is not the final one, which nobody needs: those beyond [`INFORMATIONAL_BYTES_MAX`] are left out.
    pub(crate) fn send_informational(&self, head: &[u8]) {
        let bytes = self.informational_bytes.get() + head.len();
        if bytes <= INFORMATIONAL_BYTES_MAX {
            self.informational_bytes.set(bytes);
            self.send_head(Kind::Head, false, |out| out.extend_from_slice(head));
        }
    }

    /// How many bytes [`Self::send_data`] takes now; waits until it takes some.
    pub(crate) fn poll_sendable(&self, cx: &Context<'_>) -> Poll<Result<usize, Reason>> {
        let place = self.place.borrow();
        let sendable = place.as_ref().map_or(Err(Reason::PeerGone), |place| {
            place.streams.sendable(place.id, cx.waker())
        });
        match sendable {
            Ok(Some(n)) => Poll::Ready(Ok(n)),
            Ok(None) => Poll::Pending,
            Err(reason) => self.poll_lost(reason, cx.waker()),
        }
    }

    /// A stream that can be placed anew may be: whoever reads it decides.
    fn poll_lost(&self, reason: Reason, sender: &Waker) -> Poll<Result<usize, Reason>> {
        match self.record.borrow_mut().as_mut() {
            Some(record) => {
                record.sender = Some(sender.clone());
                Poll::Pending
            }
            None => Poll::Ready(Err(reason)),
        }
    }

    /// Sends bytes, at most as many as [`Self::poll_sendable`] said.
    pub(crate) fn send_data(&self, data: &[u8], end: bool) {
        self.record
            .borrow_mut()
            .take_if(|record| !record.data(data, end));
        self.send(Kind::Data, end, |out| out.extend_from_slice(data));
    }

    fn send(&self, kind: Kind, end: bool, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(place) = &*self.place.borrow() {
            place.streams.send(place.id, kind, end, write);
        }
    }

    /// Sends all of `data`, as credit allows. Dropping the future sends the rest never: fail the stream then.
    pub(crate) async fn send_all(&self, mut data: &[u8], end: bool) -> Result<(), Reason> {
        while !data.is_empty() {
            let n = poll_fn(|cx| self.poll_sendable(cx)).await?.min(data.len());
            let (now, later) = data.split_at(n);
            self.send_data(now, end && later.is_empty());
            data = later;
        }
        Ok(())
    }

    /// Sends what one read of `from` brings, at most `room` bytes, once there is credit; says how much. Nothing of it is
    /// recorded: for streams that stay where they are.
    pub(crate) fn poll_send_from(
        &self,
        cx: &mut Context<'_>,
        from: &mut ReadHalf<'_>,
        room: usize,
    ) -> Poll<Result<io::Result<usize>, Reason>> {
        let credit = match self.poll_sendable(cx) {
            Poll::Ready(Ok(credit)) => credit,
            // No room, or a reset: nothing is lost if the socket has nothing more to send, and what came before a reset may
            // still be read.
            blocked => {
                let mut byte = [0];
                let peeked = ready!(from.poll_peek(cx, &mut ReadBuf::new(&mut byte)));
                return match peeked {
                    Ok(0) | Err(_) => Poll::Ready(Ok(peeked)),
                    Ok(_) => blocked.map_ok(Ok),
                };
            }
        };
        match &*self.place.borrow() {
            Some(Place { streams, id }) => {
                let most = credit.min(room);
                streams.poll_send_from(*id, most, cx, from).map(Ok)
            }
            None => Poll::Ready(Err(Reason::PeerGone)),
        }
    }

    /// The stream is reset when nothing moves on it for so long. To be said anew where it is placed anew.
    pub(crate) fn limit_idle(&self, limit: Option<Duration>, now: Instant) {
        if let (Some(limit), Some(place)) = (limit, &*self.place.borrow()) {
            place.streams.limit_idle(place.id, limit, now);
        }
    }

    /// Whether all was sent that ever will be.
    pub(crate) fn has_ended(&self) -> bool {
        match (&*self.record.borrow(), &*self.place.borrow()) {
            (Some(record), _) => record.ended,
            (None, Some(place)) => place.streams.has_ended(place.id),
            (None, None) => true,
        }
    }

    /// We send no more.
    pub(crate) fn end(&self) {
        self.send_data(&[], true);
    }

    /// Whether the stream was reset, or its connection is gone.
    pub(crate) fn is_reset(&self) -> bool {
        let place = self.place.borrow();
        place
            .as_ref()
            .is_none_or(|place| place.streams.is_reset(place.id))
    }

    /// Ready when the stream was reset, or its connection is gone.
    pub(crate) fn poll_reset(&self, cx: &Context<'_>) -> Poll<Reason> {
        match &*self.place.borrow() {
            Some(place) => place.streams.poll_reset(place.id, cx.waker()),
            None => Poll::Ready(Reason::PeerGone),
        }
    }

    /// The next frame. Dropping the future loses nothing.
    pub(crate) async fn receive<'a>(&self, reader: &'a mut Reader) -> Result<Received<'a>, Reason> {
        poll_fn(|cx| self.poll_receivable(cx, reader)).await?;
        let received = reader.next().ok_or(Reason::Internal)?;
        if received.kind == Kind::Data
            && let Some(place) = &*self.place.borrow()
        {
            place.streams.consumed(place.id, received.payload.len());
        }
        Ok(received)
    }

    /// The whole body, which stays to be read; none if it is longer than `max`, and then it is of no more use. `max` is less
    /// than the credit that a stream opens with: what is ahead costs the sender some of that. So does a future that is
    /// dropped, after which the stream can only be reset.
    pub(crate) async fn look_ahead(
        &self,
        reader: &mut Reader,
        max: usize,
    ) -> Result<Option<Vec<u8>>, Reason> {
        let (mut body, mut ahead) = (Vec::new(), Inbox::default());
        while !reader.is_ended() {
            poll_fn(|cx| self.poll_receivable(cx, reader)).await?;
            // Not counted as consumed before the app's side takes it.
            let Received { kind, end, payload } = reader.next().ok_or(Reason::Internal)?;
            if kind == Kind::Data {
                body.extend_from_slice(payload);
            }
            if body.len() > max {
                return Ok(None);
            }
            let stream = 0;
            ahead.push(&Frame {
                stream,
                kind,
                end,
                payload,
            });
        }
        if !ahead.is_empty() {
            (reader.inbox, reader.ended) = (ahead, false);
        }
        Ok(Some(body))
    }

    /// Ready when [`Self::receive`] has a frame to give.
    pub(crate) fn poll_receivable(
        &self,
        cx: &Context<'_>,
        reader: &mut Reader,
    ) -> Poll<Result<(), Reason>> {
        reader.poll_fill(|inbox| match &*self.place.borrow() {
            Some(Place { streams, id }) => streams.take_inbox(*id, inbox, cx.waker()),
            None => Err(Reason::PeerGone),
        })
    }
}

impl Drop for Stream {
    /// Resets the stream unless both directions have ended.
    fn drop(&mut self) {
        self.detach(self.failed.get());
    }
}

impl Reader {
    /// For a stream whose opening frame was its last.
    pub(crate) fn new(ended: bool) -> Self {
        Self {
            ended,
            ..Self::default()
        }
    }

    /// From now on trailers are read as an end of the body.
    pub(crate) fn drop_trailers(&mut self) {
        self.drops_trailers = true;
    }

    /// Whether everything was read.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended && self.inbox.is_empty()
    }

    /// Whether a frame is at hand without waiting.
    pub(crate) fn has_unread(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// The frame that [`Stream::receive`] gives next, if it is at hand.
    pub(crate) fn peek(&self) -> Option<Received<'_>> {
        self.inbox.peek()
    }

    /// Ready when a frame is at hand; `take` gets more of them, and says whether there were any.
    pub(crate) fn poll_fill(
        &mut self,
        take: impl FnOnce(&mut Inbox) -> Result<bool, Reason>,
    ) -> Poll<Result<(), Reason>> {
        if self.has_unread() {
            return Poll::Ready(Ok(()));
        }
        if self.ended {
            return Poll::Ready(Err(Reason::PeerProtocol));
        }
        match take(&mut self.inbox) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(reason) => Poll::Ready(Err(reason)),
        }
    }

    /// The next frame, if it is at hand.
    pub(crate) fn next(&mut self) -> Option<Received<'_>> {
        let received = self.inbox.next()?;
        self.ended = received.end;
        Some(match received.kind {
            Kind::Trailers if self.drops_trailers => Received {
                kind: Kind::Data,
                end: true,
                payload: &[],
            },
            _ => received,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_that_are_dropped_are_an_end() {
        let frame = |kind, end, payload| Frame {
            stream: 1,
            kind,
            end,
            payload,
        };
        let mut reader = Reader::default();
        reader.drop_trailers();
        let filled = reader.poll_fill(|inbox| {
            inbox.push(&frame(Kind::Data, false, b"some"));
            inbox.push(&frame(Kind::Trailers, true, b"\x06x-user\x04root"));
            Ok(true)
        });
        assert_eq!(filled, Poll::Ready(Ok(())));
        let mut next = || {
            let received = reader.next().expect("a frame");
            (received.kind, received.end, received.payload.len())
        };
        assert_eq!(next(), (Kind::Data, false, 4));
        assert_eq!(next(), (Kind::Data, true, 0));
        assert!(reader.is_ended());
    }
}
