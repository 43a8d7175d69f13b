//! The task that moves the frames of one connection, whichever side we are.
//!
//! It is woken after the lanes that were ready in this tick, takes all their frames at once and sends them in one write;
//! what one read brought is taken apart where it lies. Limits: [`READS_PER_TURN`], [`BLOCK_TIMEOUT`],
//! [`GOODBYE_TIMEOUT`], and those of `lanes`; a client's connection without requests ends as `idle` says.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::frame::{self, Code, Violation};
use super::heads::Request;
use super::lane::Lane;
use super::lanes::Lanes;
use crate::buffer::Buffer;
use crate::drain::Drain;
use crate::error::{Error, Reason};
use crate::idle::{Seat, Told};

/// Socket reads before other tasks get their turn.
const READS_PER_TURN: usize = 4;
/// For a block of fields that comes in several frames.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// For our last frames.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// What the send queue keeps allocated between bursts.
const KEPT_QUEUE_BYTES: usize = 64 * 1024;

/// Moves frames until the connection ends: by the other side, by an error, or because it was retired and its last lane
/// is over. What was read already is in `input`. Requests go to `accept`. Every lane that is left learns how it ended.
pub(super) async fn run(
    socket: &mut TcpStream,
    lanes: &Rc<Lanes>,
    input: Buffer,
    place: Option<Place<'_>>,
    accept: impl FnMut(Lane, Request),
) -> Result<(), Error> {
    let mut connection = Connection {
        socket,
        lanes,
        accept,
        place,
        input,
        sending: Vec::new(),
        sent: 0,
        clogged: false,
        rests: false,
        patience: None,
    };
    let outcome = poll_fn(|cx| connection.poll(cx)).await;
    if let Err(Broken::Rule(violation)) = &outcome {
        lanes.accuse(*violation);
    }
    let side = lanes.side();
    let gone = side.gone();
    let error = match outcome {
        Ok(()) => None,
        Err(Broken::Rule(violation)) => Some(side.blame(violation).because(violation)),
        Err(Broken::Socket(error)) => Some(gone.because(error)),
    };
    lanes.close(error.as_ref().map_or(gone, |error| error.reason));
    if error.as_ref().is_none_or(|error| error.reason != gone) {
        // Whoever does not take our goodbye is none the worse for it.
        let _ = timeout(GOODBYE_TIMEOUT, poll_fn(|cx| connection.poll_send(cx))).await;
    }
    error.map_or(Ok(()), Err)
}

/// Where a client's connection waits for requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) seat: &'a Seat,
    pub(super) drain: &'a Drain,
}

/// How a connection ends before its time.
enum Broken {
    Rule(Violation),
    Socket(std::io::Error),
}

struct Connection<'a, Accept> {
    socket: &'a mut TcpStream,
    lanes: &'a Rc<Lanes>,
    accept: Accept,
    place: Option<Place<'a>>,
    /// Read, and not a whole frame yet.
    input: Buffer,
    /// Frames taken from the queue, written up to `sent`.
    sending: Vec<u8>,
    sent: usize,
    /// Reading stopped because too many answers wait to be sent.
    clogged: bool,
    /// It was told to hold no more than it has to.
    rests: bool,
    /// How long the rest of a block of fields may take; there seldom is one to wait for.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<Accept: FnMut(Lane, Request)> Connection<'_, Accept> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.clogged = false;
        self.told(cx);
        let read = self.poll_read(cx)?;
        self.poll_patience(cx).map_err(Broken::Rule)?;
        let sent = self.poll_send(cx).map_err(Broken::Socket)?;
        if read.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if self.clogged && !self.lanes.is_clogged() {
            // Not all was read for want of room; there is room now.
            cx.waker().wake_by_ref();
        }
        if std::mem::take(&mut self.rests) {
            // Half a frame, perhaps, whose other half may never come.
            self.input.park();
        }
        if self.lanes.is_over() {
            sent.map(Ok)
        } else {
            Poll::Pending
        }
    }

    /// Ready when the other side has closed.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        // What was read before anyone knew that it is HTTP/2 comes first.
        self.take_frames(cx)?;
        for _ in 0..READS_PER_TURN {
            if self.lanes.is_clogged() {
                self.clogged = true;
                return Poll::Pending;
            }
            let filled = ready!(self.input.poll_fill_large(cx, self.socket));
            if filled.map_err(Broken::Socket)? == 0 {
                return Poll::Ready(Ok(()));
            }
            self.take_frames(cx)?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Looks whether a block of fields takes too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Result<(), Violation> {
        let Some(since) = self.lanes.block_since() else {
            self.patience = None;
            return Ok(());
        };
        let until = Instant::from_std(since + BLOCK_TIMEOUT);
        let patience = self
            .patience
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if patience.deadline() != until {
            patience.as_mut().reset(until);
        }
        match patience.as_mut().poll(cx) {
            Poll::Ready(()) => {
                let rule = "a block of fields is not all there in time (RFC 9113 section 10.5)";
                Err(Code::ProtocolError.rule(rule))
            }
            Poll::Pending => Ok(()),
        }
    }

    /// Takes whole frames from what was read, to their lanes.
    fn take_frames(&mut self, cx: &Context<'_>) -> Result<(), Broken> {
        let Self {
            input,
            lanes,
            accept,
            ..
        } = self;
        let mut accepted = false;
        let mut accept = |lane, request| {
            accepted = true;
            accept(lane, request);
        };
        let mut outcome = Ok(());
        let mut left = input.data();
        while let Some((head, payload, rest)) = frame::first(left) {
            left = rest;
            outcome = lanes.receive(&head, payload, &mut accept);
            if outcome.is_err() {
                break;
            }
        }
        let used = input.data().len() - left.len();
        input.consume(used);
        if accepted && let Some(place) = self.place {
            place.seat.rise();
            self.told(cx);
        }
        outcome.map_err(Broken::Rule)
    }

    /// Hears what whoever waits for requests is told.
    fn told(&mut self, cx: &Context<'_>) {
        let Some(Place { seat, drain }) = self.place else {
            return;
        };
        while let Poll::Ready(told) = seat.poll_told(cx) {
            match told {
                Told::Rest => {
                    self.rests = true;
                    self.lanes.rest();
                    if self.sent == self.sending.len() {
                        self.sending = Vec::new();
                    }
                }
                // No new request for long, and some that take as long.
                Told::Leave if self.lanes.count().1 > 0 && !drain.is_draining() => seat.rise(),
                Told::Leave => self.lanes.retire(),
            }
        }
    }

    /// Ready when nothing is left to send.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            if self.sent == self.sending.len() {
                self.sending.clear();
                self.sent = 0;
                self.sending.shrink_to(KEPT_QUEUE_BYTES);
                if !self.lanes.take_out(&mut self.sending, cx.waker()) {
                    return Poll::Ready(Ok(()));
                }
            }
            let rest = &self.sending[self.sent..];
            let n = ready!(Pin::new(&mut *self.socket).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
    }
}

impl<Accept> Drop for Connection<'_, Accept> {
    /// Whatever ended the task, a panic included, no lane waits for ever.
    fn drop(&mut self) {
        self.lanes.close(Reason::Internal);
    }
}

impl<Accept> std::fmt::Debug for Connection<'_, Accept> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("lanes", &self.lanes)
            .finish_non_exhaustive()
    }
}
