//! The task that moves the frames of one connection.
//!
//! It is woken after the streams that were ready in this tick, takes all their frames at once and sends them in one
//! write. Limits: [`READS_PER_TURN`], [`PING_INTERVAL`], [`PEER_SILENCE_MAX`], and those of `streams`.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, timeout};

use super::frame::{Decoder, Kind};
use super::stream::{Reader, Stream};
use super::streams::{Streams, Violation};
use crate::error::{Error, Reason};
use crate::tls::stream::{Read, TlsStream};

/// Socket reads before other tasks get their turn.
const READS_PER_TURN: usize = 4;
/// How often a silent peer is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A peer that says nothing for so long, pings included, is gone.
const PEER_SILENCE_MAX: Duration = Duration::from_secs(30);
/// For the last bytes and the close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// What the send queue keeps allocated between bursts.
const KEPT_QUEUE_BYTES: usize = 64 * 1024;

/// Moves frames until the connection ends: by the peer, by an error, or because it was retired and its last stream is
/// over. Streams the peer opens go to `accept`. Every stream that is left learns how it ended.
pub(crate) async fn run(
    tls: TlsStream,
    streams: Rc<Streams>,
    accept: impl FnMut(Stream, Reader, &[u8]),
) -> Result<(), Error> {
    let mut connection = Connection {
        tls,
        streams,
        accept,
        decoder: Decoder::default(),
        sending: Vec::new(),
        sent: 0,
        clogged: false,
        heard: Instant::now(),
        ping: Box::pin(sleep(PING_INTERVAL)),
    };
    let outcome = poll_fn(|cx| connection.poll(cx)).await;
    let reason = outcome
        .as_ref()
        .err()
        .map_or(Reason::PeerGone, |error| error.reason);
    connection.streams.close(reason);
    if outcome.is_ok() {
        // A peer that does not take our goodbye is none the worse for it.
        let _ = timeout(CLOSE_TIMEOUT, poll_fn(|cx| connection.tls.poll_close(cx))).await;
    }
    outcome
}

struct Connection<Accept> {
    tls: TlsStream,
    streams: Rc<Streams>,
    accept: Accept,
    decoder: Decoder,
    /// Frames taken from the queue; encrypted up to `sent`.
    sending: Vec<u8>,
    sent: usize,
    /// Reading stopped because too many answers wait to be sent.
    clogged: bool,
    /// When the peer last said anything.
    heard: Instant,
    ping: Pin<Box<Sleep>>,
}

impl<Accept: FnMut(Stream, Reader, &[u8])> Connection<Accept> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.clogged = false;
        let read = self.poll_read(cx)?;
        let deserted = self.poll_ping(cx)?;
        let sent = self.poll_send(cx)?;
        if read.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if self.clogged && !self.streams.is_clogged() {
            // Not all was read for want of room; there is room now.
            cx.waker().wake_by_ref();
        }
        // Only the dialling side knows that no stream is on its way.
        let over = self.streams.is_over() || deserted;
        if over { sent.map(Ok) } else { Poll::Pending }
    }

    /// Ready when the peer has closed.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self {
            tls,
            streams,
            accept,
            decoder,
            heard,
            clogged,
            ..
        } = self;
        for _ in 0..READS_PER_TURN {
            if streams.is_clogged() {
                *clogged = true;
                return Poll::Pending;
            }
            let mut outcome = Ok(());
            let read = ready!(tls.poll_read(cx, &mut |plaintext| {
                if outcome.is_ok() {
                    outcome = receive(streams, decoder, plaintext, accept);
                }
            }))?;
            outcome?;
            if read == Read::End {
                return Poll::Ready(Ok(()));
            }
            *heard = Instant::now();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready when nothing is left to send.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let gone = |error| Reason::PeerGone.because(error);
        loop {
            if self.sent == self.sending.len() {
                self.sending.clear();
                self.sent = 0;
                self.sending.shrink_to(KEPT_QUEUE_BYTES);
                if !self.streams.take_out(&mut self.sending, cx.waker()) {
                    return self.tls.poll_flush(cx).map_err(gone);
                }
            }
            let n = self.tls.write(&self.sending[self.sent..])?;
            self.sent += n;
            if n == 0 || self.sent < self.sending.len() {
                ready!(self.tls.poll_flush(cx)).map_err(gone)?;
            }
        }
    }

    /// True when the peer was asked to leave, has no streams and did not go.
    fn poll_ping(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let mut deserted = false;
        while self.ping.as_mut().poll(cx).is_ready() {
            let silence = self.heard.elapsed();
            if silence >= PEER_SILENCE_MAX {
                return Err(Reason::PeerGone.into());
            }
            if silence >= PING_INTERVAL {
                self.streams.tell_peer(Kind::Ping);
                deserted = self.streams.is_retired() && self.streams.count() == 0;
            }
            self.streams.sweep();
            self.ping.as_mut().reset(Instant::now() + PING_INTERVAL);
        }
        Ok(deserted)
    }
}

impl<Accept> Drop for Connection<Accept> {
    /// Whatever ended the task, a panic included, no stream waits for ever.
    fn drop(&mut self) {
        self.streams.close(Reason::Internal);
    }
}

/// Frames out of plaintext, to their streams.
fn receive(
    streams: &Rc<Streams>,
    decoder: &mut Decoder,
    plaintext: &[u8],
    accept: &mut dyn FnMut(Stream, Reader, &[u8]),
) -> Result<(), Error> {
    let mut violation: Result<(), Violation> = Ok(());
    let decoded = decoder.decode(plaintext, &mut |frame| {
        if violation.is_ok() {
            violation = streams.receive(frame, accept);
        }
    });
    decoded.map_err(|error| Reason::PeerProtocol.because(error))?;
    violation.map_err(|error| Reason::PeerProtocol.because(error))
}

impl<Accept> std::fmt::Debug for Connection<Accept> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
