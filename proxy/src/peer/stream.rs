//! One stream, as the code that serves it sees it: frames to read and to send.
//!
//! Dropping a stream that has not ended in both directions resets it, with the reason it was given by
//! [`Stream::fail`], else "gone". Reading and sending may go on side by side through `&self` and [`Reader`].

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::frame::Kind;
use super::inbox::{Inbox, Received};
use super::streams::Streams;
use crate::error::Reason;

/// The sending half, and the stream's owner.
#[derive(Debug)]
pub(crate) struct Stream {
    streams: Rc<Streams>,
    id: u32,
    failed: Cell<Reason>,
}

/// What arrives on a stream.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Taken from the shared inbox.
    inbox: Inbox,
    ended: bool,
}

impl Stream {
    pub(crate) fn new(streams: Rc<Streams>, id: u32) -> Self {
        Self {
            streams,
            id,
            failed: Cell::new(Reason::ClientGone),
        }
    }

    /// Why the peer is told that the stream is reset, if it has to be.
    pub(crate) fn fail(&self, reason: Reason) {
        self.failed.set(reason);
    }

    /// Sends a head or trailers, made by `write`.
    pub(crate) fn send_head(&self, kind: Kind, end: bool, write: impl FnOnce(&mut Vec<u8>)) {
        self.streams.send(self.id, kind, end, write);
    }

    /// How many bytes [`Self::send_data`] takes now; waits until it takes some.
    pub(crate) fn poll_sendable(&self, cx: &Context<'_>) -> Poll<Result<usize, Reason>> {
        match self.streams.sendable(self.id, cx.waker()) {
            Ok(Some(n)) => Poll::Ready(Ok(n)),
            Ok(None) => Poll::Pending,
            Err(reason) => Poll::Ready(Err(reason)),
        }
    }

    /// Sends bytes, at most as many as [`Self::poll_sendable`] said.
    pub(crate) fn send_data(&self, data: &[u8], end: bool) {
        self.streams
            .send(self.id, Kind::Data, end, |out| out.extend_from_slice(data));
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

    /// We send no more.
    pub(crate) fn end(&self) {
        self.send_data(&[], true);
    }

    /// Ready when the stream was reset, or its connection is gone.
    pub(crate) fn poll_reset(&self, cx: &Context<'_>) -> Poll<Reason> {
        self.streams.poll_reset(self.id, cx.waker())
    }

    /// The next frame. Dropping the future loses nothing.
    pub(crate) async fn receive<'a>(&self, reader: &'a mut Reader) -> Result<Received<'a>, Reason> {
        poll_fn(|cx| self.poll_receivable(cx, reader)).await?;
        let received = reader.next().ok_or(Reason::Internal)?;
        if received.kind == Kind::Data {
            self.streams.consumed(self.id, received.payload.len());
        }
        Ok(received)
    }

    /// Ready when [`Self::receive`] has a frame to give.
    pub(crate) fn poll_receivable(
        &self,
        cx: &Context<'_>,
        reader: &mut Reader,
    ) -> Poll<Result<(), Reason>> {
        if reader.has_unread() {
            return Poll::Ready(Ok(()));
        }
        if reader.ended {
            return Poll::Ready(Err(Reason::PeerProtocol));
        }
        match self
            .streams
            .take_inbox(self.id, &mut reader.inbox, cx.waker())
        {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(reason) => Poll::Ready(Err(reason)),
        }
    }
}

impl Drop for Stream {
    /// Resets the stream unless both directions have ended.
    fn drop(&mut self) {
        self.streams.release(self.id, self.failed.get());
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

    /// Whether everything was read.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended && self.inbox.is_empty()
    }

    /// Whether a frame is at hand without waiting.
    pub(crate) fn has_unread(&self) -> bool {
        !self.inbox.is_empty()
    }

    fn next(&mut self) -> Option<Received<'_>> {
        let received = self.inbox.next()?;
        self.ended = received.end;
        Some(received)
    }
}
