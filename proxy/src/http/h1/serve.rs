//! One connection of our own app as client: requests in, responses out, one after the other.
//!
//! Each request crosses as a stream of its own; which pod serves it is decided per request. Limits:
//! [`HEAD_TIMEOUT`], a head of one buffer; those of `idle`
//! between requests.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::goodbye::{linger, refuse};
use super::parse::{self, RequestHead};
use super::pump::{Source, send_body};
use super::write::{self, Answer, Framing};
use crate::buffer::{Buffer, write_all};
use crate::drain::Drain;
use crate::error::{Blamed, Error, Reason};
use crate::http::exchange::{Exchange, both_ways};
use crate::http::neutral::{Fields, Response};
use crate::idle::{Seat, Told};
use crate::metrics::{Direction, Protocol};
use crate::peer::frame::Kind;
use crate::peer::stream::{Reader, Stream};
use crate::tcp;
use crate::upstream::call::{Call, Outgoing};
use crate::upstream::{Begun, Caller, begin_http};
use crate::worker::Worker;

/// From a request's first byte to the end of its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Response bytes that are gathered before they are written.
const WRITE_BYTES: usize = 64 * 1024;
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
struct Connection<'a, 'socket> {
    from: &'a mut ReadHalf<'socket>,
    to: &'a mut WriteHalf<'socket>,
    input: &'a mut Buffer,
    output: &'a mut Vec<u8>,
}

/// What comes after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
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

/// One request to the pod that serves it, and its response back. An error ends the client's connection.
async fn exchange(
    worker: &Rc<Worker>,
    caller: &Caller,
    head: &RequestHead,
    neutral: Vec<u8>,
    connection: &mut Connection<'_, '_>,
) -> Result<Next, Error> {
    connection.input.consume(head.bytes);
    let outgoing = Outgoing {
        head: neutral,
        end: head.body.is_over() && !head.upgrade,
        protocol: Protocol::Http1,
        patience: None,
    };
    let destination = caller.behind(worker).await;
    let begun = match &destination {
        Ok(destination) => begin_http(worker, caller, destination, outgoing).await,
        Err(error) => Err(error.reason.into()),
    };
    let (call, stream) = match begun {
        Ok(Begun::Sent(call, stream)) => (call, stream),
        Ok(Begun::Answered(neutral)) => return tell(worker, head, &neutral, connection).await,
        Err(error) => return refuse_request(worker, caller, head, &error, connection).await,
    };
    let mut exchange = Exchange::begin(call.traffic()?, call.begun());
    match carry(
        &call,
        &stream,
        head,
        &worker.drain,
        &mut exchange,
        connection,
    )
    .await
    {
        Ok(next) => {
            exchange.finish();
            Ok(next)
        }
        Err(error) => {
            if caller.local.is_none() {
                worker.metrics.refused(Direction::Outbound, error.reason);
            }
            stream.fail(error.reason);
            let unanswered = !exchange.is_answered();
            exchange.fail(error.reason);
            if unanswered {
                refuse(connection.from, connection.to, &error).await;
            }
            Err(error)
        }
    }
}

/// Tells the client why its request goes nowhere. Its connection may go on.
async fn refuse_request(
    worker: &Worker,
    caller: &Caller,
    head: &RequestHead,
    error: &Error,
    connection: &mut Connection<'_, '_>,
) -> Result<Next, Error> {
    worker.metrics.refused(caller.direction(), error.reason);
    tracing::debug!(destination = %caller.destination, ?error, "request refused");
    let answer = answer_unread(head, &worker.drain);
    write::refusal(error, answer, connection.output);
    end_unread(head, answer, connection).await
}

/// Gives the client an answer that a route made.
async fn tell(
    worker: &Worker,
    head: &RequestHead,
    neutral: &[u8],
    connection: &mut Connection<'_, '_>,
) -> Result<Next, Error> {
    let (response, fields) =
        Response::decode(neutral).map_err(|error| Reason::Internal.because(error))?;
    let answer = answer_unread(head, &worker.drain);
    write::response(&response, fields, false, answer, connection.output)?;
    end_unread(head, answer, connection).await
}

/// What a client can be told whose request's body stays unread.
fn answer_unread(head: &RequestHead, drain: &Drain) -> Answer {
    let answer = answer(head, drain);
    Answer {
        persistent: answer.persistent && head.body.is_over(),
        ..answer
    }
}

async fn end_unread(
    head: &RequestHead,
    answer: Answer,
    connection: &mut Connection<'_, '_>,
) -> Result<Next, Error> {
    write_all(connection.to, connection.output)
        .await
        .blame(Reason::ClientGone)?;
    Ok(match (answer.persistent, head.body.is_over()) {
        (true, _) => Next::Request,
        (false, true) => Next::Close,
        (false, false) => Next::Linger,
    })
}

/// Body up and response down at the same time.
async fn carry(
    call: &Call<'_>,
    stream: &Stream,
    head: &RequestHead,
    drain: &Drain,
    exchange: &mut Exchange,
    connection: &mut Connection<'_, '_>,
) -> Result<Next, Error> {
    let Connection {
        from,
        to,
        input,
        output,
    } = connection;
    let mut reader = Reader::default();
    let mut uploaded = 0;
    let source = Source {
        gone: Reason::ClientGone,
        malformed: Reason::MalformedRequest,
    };
    let uploaded_all = Cell::new(head.body.is_over());
    let (done, _) = {
        let upload = pin!(async {
            if !head.body.is_over() {
                send_body(head.body, source, from, input, stream, &mut uploaded).await?;
                uploaded_all.set(true);
            }
            watch(from, input).await
        });
        let answered = pin!(respond(
            (call, stream),
            &mut reader,
            head,
            drain,
            to,
            output,
            exchange
        ));
        let both = pin!(both_ways(false, |_| stream.is_reset(), upload, answered));
        call.in_time(both).await?
    };
    exchange.sent(uploaded);
    match done {
        Responded::Switched => {
            let traffic = exchange.traffic();
            tcp::with_stream(
                (*from, *to),
                input,
                stream,
                &mut reader,
                traffic,
                Reason::ClientGone,
            )
            .await?;
            Ok(Next::Close)
        }
        Responded::Over { .. } if !uploaded_all.get() => Ok(Next::Linger),
        Responded::Over { persistent } => {
            if head.upgrade {
                stream.end();
            }
            Ok(if persistent {
                Next::Request
            } else {
                Next::Close
            })
        }
    }
}

/// Ends only when the client has reset its connection: nobody waits for the answer. What it sends meanwhile is for later.
/// A client that only ended its sending may wait; one that closed looks the same until the kernel, which keeps asking
/// ([`crate::listen`]), hears that there is none: about a minute.
async fn watch(from: &mut ReadHalf<'_>, input: &mut Buffer) -> Result<(), Error> {
    while !input.is_full() {
        if input.fill(from).await.blame(Reason::ClientGone)? == 0 {
            break;
        }
    }
    // Readiness also comes without an error: then there is no more to learn.
    let ready = from.ready(Interest::ERROR).await;
    if ready.blame(Reason::ClientGone)?.is_error() {
        return Err(Reason::ClientGone.into());
    }
    std::future::pending().await
}

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Responded {
    /// The connection became something else.
    Switched,
    Over {
        persistent: bool,
    },
}

/// Writes the response as it comes; what is there at once is written at once.
async fn respond(
    (call, stream): (&Call<'_>, &Stream),
    reader: &mut Reader,
    asked: &RequestHead,
    drain: &Drain,
    to: &mut WriteHalf<'_>,
    output: &mut Vec<u8>,
    exchange: &mut Exchange,
) -> Result<Responded, Error> {
    let mut framing = None;
    let mut persistent = false;
    let mut heard = call.begun();
    loop {
        if framing.is_none() {
            heard = call.head(stream, reader, exchange).await?;
        }
        let received = stream.receive(reader).await?;
        let end = received.end;
        let mut switched = false;
        match received.kind {
            Kind::Head if framing.is_none() => {
                let payload = call.edited(received.payload);
                let (head, fields) = Response::decode(&payload)
                    .map_err(|error| Reason::PeerProtocol.because(error))?;
                // A head that is not the last one says nothing of a body.
                let has_body = !end && head.status >= 200;
                let answer = answer(asked, drain);
                let written = write::response(&head, fields, has_body, answer, output)?;
                persistent = answer.persistent && written != Framing::Raw;
                exchange.answered(head.status, heard);
                if head.upgrade != asked.is_answered_by_upgrade(head.status) {
                    return Err(Reason::PeerProtocol.into());
                }
                if head.upgrade {
                    switched = true;
                } else if head.status >= 200 {
                    framing = Some(written);
                } else if end {
                    return Err(Reason::PeerProtocol.into());
                }
            }
            Kind::Data => {
                exchange.received(received.payload.len());
                framing
                    .as_mut()
                    .ok_or(Reason::PeerProtocol)?
                    .put(received.payload, output)?;
            }
            Kind::Trailers if framing.is_some() && end => {
                let trailers = Fields::check(received.payload)
                    .map_err(|error| Reason::PeerProtocol.because(error))?;
                framing
                    .ok_or(Reason::PeerProtocol)?
                    .end(Some(trailers), output)?;
            }
            _ => return Err(Reason::PeerProtocol.into()),
        }
        if end
            && received.kind != Kind::Trailers
            && let Some(framing) = framing
        {
            framing.end(None, output)?;
        }
        if end || switched || output.len() >= WRITE_BYTES || !reader.has_unread() {
            write_all(to, output).await.blame(Reason::ClientGone)?;
            output.clear();
        }
        match (switched, end) {
            (true, _) => return Ok(Responded::Switched),
            (false, true) => return Ok(Responded::Over { persistent }),
            (false, false) => {}
        }
    }
}

/// What the client can be told now. Whether more requests are welcome is asked anew for each head.
fn answer(head: &RequestHead, drain: &Drain) -> Answer {
    Answer {
        version: head.version,
        is_head: head.is_head,
        persistent: head.persistent && !drain.is_draining(),
    }
}
