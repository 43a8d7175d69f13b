//! One lane, as the code that serves it sees it: heads, bytes and trailers to read and to send.
//!
//! Dropping a lane that is not over resets it, with the code it was given by [`Lane::fail`]. Reading and sending may go
//! on side by side, in one task.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::frame::Code;
use super::lanes::{Lanes, Side};
use crate::error::Reason;
use crate::peer::inbox::Received;
use crate::peer::stream::Reader;

/// A stream of HTTP/2.
#[derive(Debug)]
pub(crate) struct Lane {
    lanes: Rc<Lanes>,
    id: u32,
    failed: Cell<Code>,
}

impl Lane {
    pub(super) fn new(lanes: Rc<Lanes>, id: u32) -> Self {
        let failed = match lanes.side() {
            // RFC 9113 section 8.1: of a request that was answered before it was all there.
            Side::Server => Code::NoError,
            Side::Client => Code::Cancel,
        };
        Self {
            lanes,
            id,
            failed: Cell::new(failed),
        }
    }

    /// With which code the lane is reset, if it has to be.
    pub(super) fn fail(&self, code: Code) {
        self.failed.set(code);
    }

    /// Sends a head or trailers, whose block `write` makes.
    pub(super) fn send_head(
        &self,
        end: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        self.lanes.send_head(self.id, end, write)
    }

    /// Whether so much waits to be sent on the connection that what may be left out should be.
    pub(super) fn is_behind(&self) -> bool {
        self.lanes.is_behind()
    }

    /// Sends all of `data`, as the windows allow. Dropping the future sends the rest never: fail the lane then.
    pub(super) async fn send_all(&self, mut data: &[u8], end: bool) -> Result<(), Reason> {
        while !data.is_empty() {
            let n = poll_fn(|cx| self.poll_sendable(cx)).await?.min(data.len());
            let (now, later) = data.split_at(n);
            self.lanes.send_data(self.id, now, end && later.is_empty());
            data = later;
        }
        Ok(())
    }

    fn poll_sendable(&self, cx: &Context<'_>) -> Poll<Result<usize, Reason>> {
        match self.lanes.sendable(self.id, cx.waker()) {
            Ok(Some(n)) => Poll::Ready(Ok(n)),
            Ok(None) => Poll::Pending,
            Err(reason) => Poll::Ready(Err(reason)),
        }
    }

    /// We send no more.
    pub(super) fn end(&self) {
        self.lanes.send_data(self.id, &[], true);
    }

    /// Whether it was reset.
    pub(super) fn is_reset(&self) -> bool {
        self.lanes.is_reset(self.id)
    }

    /// Ready when the lane was reset, or its connection is gone.
    pub(super) fn poll_reset(&self, cx: &Context<'_>) -> Poll<Reason> {
        self.lanes.poll_reset(self.id, cx.waker())
    }

    /// What comes next. Dropping the future loses nothing. Whoever passed DATA on says so by [`Self::consumed`].
    pub(super) async fn receive<'a>(&self, reader: &'a mut Reader) -> Result<Received<'a>, Reason> {
        poll_fn(|cx| reader.poll_fill(|inbox| self.lanes.take_inbox(self.id, inbox, cx.waker())))
            .await?;
        reader.next().ok_or(Reason::Internal)
    }

    /// So much DATA went on: the other side may send as much more.
    pub(super) fn consumed(&self, bytes: usize) {
        self.lanes.consumed(self.id, bytes);
    }
}

impl Drop for Lane {
    /// Resets the lane unless it is over.
    fn drop(&mut self) {
        self.lanes.release(self.id, self.failed.get());
    }
}
