//! A socket of HTTP/2, with what was read from it already in front, and its frames counted against the budget.
//!
//! Once the budget is spent nothing more is read, and [`Flood`] says so to whoever drives the connection, which is the
//! task that reads: nobody has to be woken.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::budget::Budget;
use crate::buffer::Buffer;

/// Whether the connection's budget is spent.
#[derive(Debug, Clone, Default)]
pub(super) struct Flood(Rc<Cell<bool>>);

impl Flood {
    pub(super) fn is_on(&self) -> bool {
        self.0.get()
    }
}

/// The socket.
#[derive(Debug)]
pub(super) struct Metered<Socket> {
    socket: Socket,
    /// Read before anyone knew that it is HTTP/2.
    input: Buffer,
    budget: Budget,
    flood: Flood,
}

impl<Socket> Metered<Socket> {
    /// A connection of a client, whose first bytes are `input`.
    pub(super) fn of_client(socket: Socket, input: Buffer) -> Self {
        Self {
            socket,
            input,
            budget: Budget::of_client(Instant::now()),
            flood: Flood::default(),
        }
    }

    /// A connection to a server.
    pub(super) fn of_server(socket: Socket) -> Self {
        Self {
            socket,
            input: Buffer::default(),
            budget: Budget::of_server(Instant::now()),
            flood: Flood::default(),
        }
    }

    /// Says when the budget is spent.
    pub(super) fn flood(&self) -> Flood {
        self.flood.clone()
    }
}

impl<Socket: AsyncRead + Unpin> AsyncRead for Metered<Socket> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.flood.is_on() {
            return Poll::Pending;
        }
        let before = out.filled().len();
        if self.input.is_empty() {
            ready!(Pin::new(&mut self.socket).poll_read(cx, out))?;
        } else {
            let n = self.input.data().len().min(out.remaining());
            out.put_slice(&self.input.data()[..n]);
            self.input.consume(n);
        }
        let spent = self.budget.received(&out.filled()[before..], Instant::now);
        if spent.is_err() {
            self.flood.0.set(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl<Socket: AsyncWrite + Unpin> AsyncWrite for Metered<Socket> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.socket).poll_write(cx, data))?;
        if self.budget.sent(&data[..n], Instant::now).is_err() {
            self.flood.0.set(true);
        }
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, slices))?;
        let mut left = n;
        for slice in slices {
            let written = &slice[..left.min(slice.len())];
            left -= written.len();
            if self.budget.sent(written, Instant::now).is_err() {
                self.flood.0.set(true);
            }
        }
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
