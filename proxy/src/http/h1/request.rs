//! One request of a client: to the pod that serves it, and its response back.
//!
//! Limit: [`WRITE_BYTES`].

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;

use tokio::io::Interest;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::goodbye::refuse;
use super::parse::RequestHead;
use super::pump::{Source, send_body};
use super::serve::{Connection, Next};
use super::write::{self, Answer, Framing};
use crate::buffer::{Buffer, write_all};
use crate::drain::Drain;
use crate::error::{Blamed, Error, Reason};
use crate::http::exchange::{Exchange, both_ways};
use crate::http::neutral::{Fields, Response};
use crate::metrics::{Direction, Protocol};
use crate::peer::frame::Kind;
use crate::peer::stream::{Reader, Stream};
use crate::tcp;
use crate::upstream::call::{Call, Outgoing};
use crate::upstream::{Begun, Caller, begin_http, follow};
use crate::worker::Worker;

/// Response bytes that are gathered before they are written.
const WRITE_BYTES: usize = 64 * 1024;

/// One request to the pod that serves it, and its response back. An error ends the client's connection.
pub(super) async fn exchange(
    worker: &Rc<Worker>,
    caller: &Caller,
    head: &RequestHead,
    mut neutral: Vec<u8>,
    connection: &mut Connection<'_, '_>,
) -> Result<Next, Error> {
    connection.input.consume(head.bytes);
    let mut record = follow(worker, caller, Protocol::Http1, &mut neutral);
    let outgoing = Outgoing {
        head: neutral,
        end: head.body.is_over() && !head.upgrade,
        protocol: Protocol::Http1,
        patience: None,
    };
    let destination = caller.behind(worker).await;
    let begun = match &destination {
        Ok(destination) => begin_http(worker, caller, destination, outgoing, &mut record).await,
        Err(error) => Err(error.reason.into()),
    };
    let (call, stream) = match begun {
        Ok(Begun::Sent(call, stream)) => (call, stream),
        Ok(Begun::Answered(neutral)) => return tell(worker, head, &neutral, connection).await,
        Err(error) => {
            if let Some(record) = &mut record {
                record.refused(&error);
            }
            return refuse_request(worker, caller, head, &error, connection).await;
        }
    };
    let mut exchange = Exchange::begin(call.traffic()?, call.begun()).recorded(record);
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
            exchange.fail(&error);
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
            let tally = tcp::Tally::new(exchange.traffic());
            let (ends, gone) = ((&mut **from, &mut **to), Reason::ClientGone);
            let pumped = tcp::with_stream(ends, input, stream, &mut reader, &tally, gone).await;
            let bytes = tally.bytes();
            exchange.tunnelled(bytes);
            pumped.map(|()| Next::Close)
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
                exchange.explained_by(fields);
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
