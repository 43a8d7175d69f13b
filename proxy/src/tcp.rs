//! Bytes between a socket and a stream, or between two sockets: each direction on its own, half-close and all.
//!
//! Both upgraded HTTP connections and opaque ones end up here. There is no idle limit: databases keep connections for
//! days; TCP keepalive and the pings of the peer wire find ends that are gone.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::buffer::{Buffer, write_all};
use crate::error::{Blamed, Error, Reason};
use crate::metrics::Traffic;
use crate::metrics::sharded::Counter;
use crate::peer::frame::{DATA_BYTES_MAX, Kind};
use crate::peer::stream::{Reader, Stream};

/// What a read toward a stream takes at first; then twice what the last one brought.
const ROOM_BYTES_MIN: usize = 16 * 1024;

/// Bytes of one connection, counted with its peer's as they pass.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    sent: (&'a Counter, Cell<u64>),
    received: (&'a Counter, Cell<u64>),
}

impl<'a> Tally<'a> {
    pub(crate) fn new(traffic: &'a Traffic) -> Self {
        Self {
            sent: (&traffic.sent, Cell::new(0)),
            received: (&traffic.received, Cell::new(0)),
        }
    }

    /// Toward the peer and from it, so far.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.sent.1.get(), self.received.1.get())
    }
}

fn tell((counter, own): &(&Counter, Cell<u64>), bytes: usize) {
    let bytes = bytes as u64;
    counter.add(bytes);
    own.set(own.get() + bytes);
}

/// Moves bytes both ways between the app's socket and a stream until both directions have ended. What was read from
/// the socket already is in `input`; `gone` is the blame for the socket's errors.
pub(crate) async fn with_stream(
    (from, to): (&mut ReadHalf<'_>, &mut WriteHalf<'_>),
    input: &mut Buffer,
    stream: &Stream,
    reader: &mut Reader,
    tally: &Tally<'_>,
    gone: Reason,
) -> Result<(), Error> {
    let up = async {
        let early = input.data().len();
        stream.send_all(input.data(), false).await?;
        tell(&tally.sent, early);
        input.consume(early);
        // A conversation needs little room, bulk all it can get.
        let mut room = ROOM_BYTES_MIN;
        loop {
            let sent = poll_fn(|cx| stream.poll_send_from(cx, from, room)).await?;
            let sent = sent.blame(gone)?;
            if sent == 0 {
                break;
            }
            tell(&tally.sent, sent);
            room = (2 * sent).clamp(ROOM_BYTES_MIN, DATA_BYTES_MAX);
        }
        stream.end();
        Ok(())
    };
    let down = async {
        while !reader.is_ended() {
            let received = stream.receive(reader).await?;
            if received.kind != Kind::Data {
                return Err(Reason::PeerProtocol.into());
            }
            tell(&tally.received, received.payload.len());
            write_all(to, received.payload).await.blame(gone)?;
        }
        // The app may have closed for good; that shows when it is read from.
        let _ = to.shutdown().await;
        Ok(())
    };
    both(up, down).await
}

/// Moves bytes both ways between the app's socket and another until both directions have ended.
pub(crate) async fn with_socket(
    app: &mut TcpStream,
    input: &mut Buffer,
    other: &mut TcpStream,
    tally: &Tally<'_>,
    (gone, other_gone): (Reason, Reason),
) -> Result<(), Error> {
    let (from_app, to_app) = app.split();
    let (from_other, to_other) = other.split();
    let up = copy(from_app, input, to_other, &tally.sent, (gone, other_gone));
    let mut from_other_buffer = Buffer::default();
    let down = copy(
        from_other,
        &mut from_other_buffer,
        to_app,
        &tally.received,
        (other_gone, gone),
    );
    both(up, down).await
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    input: &mut Buffer,
    mut to: impl AsyncWrite + Unpin,
    tally: &(&Counter, Cell<u64>),
    (from_gone, to_gone): (Reason, Reason),
) -> Result<(), Error> {
    loop {
        if input.is_empty() && input.fill_large(&mut from).await.blame(from_gone)? == 0 {
            let _ = to.shutdown().await;
            return Ok(());
        }
        let bytes = input.data().len();
        write_all(&mut to, input.data()).await.blame(to_gone)?;
        tell(tally, bytes);
        input.consume(bytes);
    }
}

/// Both to their end, or the first error of either.
async fn both(
    up: impl Future<Output = Result<(), Error>>,
    down: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    let (mut up, mut down) = (pin!(up), pin!(down));
    let (mut up_over, mut down_over) = (false, false);
    poll_fn(|cx| {
        if !up_over && let Poll::Ready(result) = up.as_mut().poll(cx) {
            up_over = true;
            result?;
        }
        if !down_over && let Poll::Ready(result) = down.as_mut().poll(cx) {
            down_over = true;
            result?;
        }
        if up_over && down_over {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}
