//! One connection of our own app as client: requests in, responses out, one after the other.
//!
//! Each request crosses as a stream of its own; which pod serves it is decided per request. Limits:
//! [`HEAD_TIMEOUT`], a head of one buffer; those of `idle`
//! between requests.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use ringmail_proto::destination::DestinationKind;
use ringmail_proto::workload::Protocol as Declared;
use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::goodbye::{linger, refuse};
use super::parse::{self, RequestHead};
use super::request::exchange;
use crate::buffer::Buffer;
use crate::error::{Blamed, Error, Reason};
use crate::http::h2;
use crate::idle::{Seat, Told};
use crate::upstream::Caller;
use crate::worker::Worker;

/// From a request's first byte to the end of its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What a connection keeps of its write buffer between requests that follow each other.
const KEPT_WRITE_BYTES: usize = 64 * 1024;
/// Room for the head of most requests in neutral form.
const NEUTRAL_BYTES: usize = 512;

/// Serves the connection until the client closes it, an error ends it, or the proxy drains.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    caller: &Caller,
    socket: &mut TcpStream,
    mut input: Buffer,
) -> Result<(), Error> {
    let (mut from, mut to) = socket.split();
    let mut output = Vec::new();
    let seat = worker.idlers.seat();
    if input.is_empty() && worker.drain.is_draining() && !latecomer(&mut from, &mut input).await {
        return Ok(());
    }
    loop {
        if input.is_empty() {
            let came = next_bytes(worker, &seat, &mut from, &mut input, &mut output).await;
            if !came.blame(Reason::ClientGone)? {
                return Ok(());
            }
        }
        let mut neutral = Vec::with_capacity(NEUTRAL_BYTES);
        let head = match next_head(&mut from, &mut input, &mut neutral).await {
            Ok(head) => head,
            Err(error) => {
                worker.metrics.refused(caller.direction(), error.reason);
                refuse(&mut from, &mut to, &error).await;
                return Err(error);
            }
        };
        if let Some(settings) = head.h2c
            && let Some(offer) = h2::upgrade::offer(settings.of(input.data()))
            && is_http2(worker, caller).await
        {
            input.consume(head.bytes);
            let upgraded = h2::upgrade::Upgraded {
                neutral,
                lanes: offer,
            };
            return Box::pin(h2::serve::upgraded(worker, caller, socket, input, upgraded)).await;
        }
        let mut connection = Connection {
            from: &mut from,
            to: &mut to,
            input: &mut input,
            output: &mut output,
        };
        // A box for each request, so that a connection that waits holds no room for one.
        let next = Box::pin(exchange(worker, caller, &head, neutral, &mut connection)).await?;
        output.clear();
        output.shrink_to(KEPT_WRITE_BYTES);
        match next {
            Next::Request => {}
            // Where nothing more comes, closing says the same as ending our direction first, and costs a packet less.
            Next::Close if !may_say_more(worker, &mut from, &mut input).await => return Ok(()),
            Next::Close | Next::Linger => {
                linger(&mut from, &mut to).await;
                return Ok(());
            }
        }
    }
}

/// Whether the app at the other end was declared to speak HTTP/2.
async fn is_http2(worker: &Worker, caller: &Caller) -> bool {
    if caller.local.is_some() {
        let port = caller.destination.port();
        let workload = worker.snapshot.workload();
        return workload.is_ok_and(|workload| workload.protocol(port) == Declared::Http2);
    }
    match caller
        .behind(worker)
        .await
        .map(|behind| behind.kind.clone())
    {
        Ok(DestinationKind::Service(service)) => service.protocol == Declared::Http2,
        Ok(DestinationKind::External) | Err(_) => false,
    }
}

/// Whether the client may have sent something that we have not read, which would make of a close a reset: it did, or
/// was told only now that there is no other request for it.
async fn may_say_more(worker: &Worker, from: &mut ReadHalf<'_>, input: &mut Buffer) -> bool {
    if worker.drain.is_draining() || !input.is_empty() {
        return true;
    }
    poll_fn(|cx| {
        let filled = input.poll_fill(cx, from);
        Poll::Ready(matches!(filled, Poll::Ready(Ok(1..))))
    })
    .await
}

/// The client's connection during one exchange.
pub(super) struct Connection<'a, 'socket> {
    pub(super) from: &'a mut ReadHalf<'socket>,
    pub(super) to: &'a mut WriteHalf<'socket>,
    pub(super) input: &'a mut Buffer,
    pub(super) output: &'a mut Vec<u8>,
}

/// What comes after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Request,
    Close,
    /// Close, although the client has not sent all of its request.
    Linger,
}

/// Waits for the first bytes of a connection, which may be silent as long as one that is idle; false when there are none.
/// While it is, it holds no memory, and no drain.
pub(crate) async fn first_byte(
    worker: &Worker,
    from: &mut (impl AsyncRead + Unpin),
    input: &mut Buffer,
) -> Result<bool, Error> {
    if worker.drain.is_draining() {
        return Ok(latecomer(from, input).await);
    }
    let seat = worker.idlers.seat();
    let came = next_bytes(worker, &seat, from, input, &mut Vec::new()).await;
    came.blame(Reason::ClientGone)
}

/// Who comes although we drain has a first request to be served; who has been here long may be idle.
async fn latecomer(from: &mut (impl AsyncRead + Unpin), input: &mut Buffer) -> bool {
    let first = timeout(HEAD_TIMEOUT, input.fill(from)).await;
    first.is_ok_and(|filled| filled.is_ok_and(|bytes| bytes > 0))
}

/// Waits for the next request's first bytes; false when the client is done or we are.
async fn next_bytes(
    worker: &Worker,
    seat: &Seat,
    from: &mut (impl AsyncRead + Unpin),
    input: &mut Buffer,
    output: &mut Vec<u8>,
) -> std::io::Result<bool> {
    let came = poll_fn(|cx| {
        loop {
            if let Poll::Ready(filled) = input.poll_fill(cx, from) {
                return Poll::Ready(filled.map(|bytes| bytes > 0));
            }
            if worker.drain.is_draining() {
                return Poll::Ready(Ok(false));
            }
            match ready!(seat.poll_told(cx)) {
                Told::Rest => *output = Vec::new(),
                Told::Leave => return Poll::Ready(Ok(false)),
            }
        }
    });
    let came = came.await;
    seat.rise();
    came
}

/// The head of the request that has begun.
async fn next_head(
    from: &mut ReadHalf<'_>,
    input: &mut Buffer,
    neutral: &mut Vec<u8>,
) -> Result<RequestHead, Error> {
    if let Some(head) = parse::request(input.data(), neutral)? {
        return Ok(head);
    }
    let rest = async {
        loop {
            if input.is_full() {
                return Err(Reason::HeadTooLarge.into());
            }
            let before = input.data().len();
            if input.fill(from).await.blame(Reason::ClientGone)? == 0 {
                return Err(Error::from(Reason::ClientGone));
            }
            // A head ends in a line feed: without a new one there is nothing to parse again.
            if !input.data()[before..].contains(&b'\n') {
                continue;
            }
            neutral.clear();
            if let Some(head) = parse::request(input.data(), neutral)? {
                return Ok(head);
            }
        }
    };
    timeout(HEAD_TIMEOUT, rest)
        .await
        .unwrap_or_else(|_| Err(Reason::ClientTimeout.into()))
}
