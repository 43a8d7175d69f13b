//! A request of a peer, forwarded to an app as HTTP/2 server over one kept connection per worker.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use super::heads::Tunnel;
use super::lane::Lane;
use super::sessions::{AppSessions, Session};
use super::{heads, pump};
use crate::error::{Blame, Error, Reason};
use crate::http::exchange::{Exchange, both_ways, unless_reset};
use crate::http::neutral::{Fields, Request, Response};
use crate::listen::Party;
use crate::peer::frame::Kind;
use crate::peer::stream::{Reader, Stream};
use crate::worker::Worker;

/// Forwards the request that opened `stream` and sends the response back on it. What the app has certainly not processed
/// is sent once more, on a new connection.
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    (app, party): (SocketAddr, Party),
    head: (Request<'_>, Fields<'_>),
    stream: &Stream,
    mut reader: Reader,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let (session, reused) = AppSessions::session(worker, app, party);
    let tunnel = heads::tunnel_of(&head.0, head.1)?;
    if matches!(tunnel, Tunnel::WebSocket { .. }) && !session.takes_websocket().await {
        return Err(Reason::NotImplemented.into());
    }
    let mut forwarding = Forwarding {
        head,
        // An upgrade that the app cannot do is a request without a body.
        bodyless: reader.is_ended() || head.0.upgrade && tunnel == Tunnel::None,
        tunnel,
        stream,
        exchange,
        received: 0,
    };
    let outcome = forwarding.exchange(&session, &mut reader).await;
    let Err(error) = &outcome else {
        return outcome;
    };
    let untouched = forwarding.is_untouched(&reader);
    let repeatable = reused && forwarding.bodyless && head.0.is_idempotent();
    let may_repeat = match error.reason {
        Reason::AppRefused => untouched,
        Reason::AppGone => untouched && repeatable,
        _ => false,
    };
    if !may_repeat {
        return outcome;
    }
    let session = AppSessions::again(worker, app, party, &session);
    forwarding.exchange(&session, &mut reader).await
}

struct Forwarding<'a> {
    head: (Request<'a>, Fields<'a>),
    bodyless: bool,
    tunnel: Tunnel,
    stream: &'a Stream,
    exchange: &'a mut Exchange,
    /// Of the request's body, for the app.
    received: usize,
}

impl Forwarding<'_> {
    /// Whether nothing came of it, and all that was sent is still there to be sent again: an end and trailers that were
    /// read are not. Whoever sent us the request has it all.
    fn is_untouched(&self, reader: &Reader) -> bool {
        let is_unread = self.bodyless || self.received == 0 && !reader.is_ended();
        is_unread && !self.exchange.is_answered()
    }

    /// Request up and response down at the same time.
    async fn exchange(&mut self, session: &Session, reader: &mut Reader) -> Result<(), Error> {
        let (head, fields) = self.head;
        let is_head = head.method == "HEAD";
        let is_lengthless = is_head || self.tunnel != Tunnel::None;
        let write = |out: &mut Vec<u8>| heads::put_request(&head, fields, &self.tunnel, out);
        let opened = session.open(self.bodyless, is_lengthless, write);
        let lane = unless_reset(self.stream, opened).await?;
        let before = self.received;
        let outcome = {
            let received = &mut self.received;
            let upload = pump::receive_body(self.stream, reader, &lane, received);
            let mut upload = pin!(async { upload.await.map(drop) });
            let answer = answer(&lane, is_head, &self.tunnel, self.stream, self.exchange);
            let answer = pin!(unless_reset(self.stream, answer));
            let is_unwanted = |error: &Error| error.reason.row().blame == Blame::App;
            match both_ways(self.bodyless, is_unwanted, upload.as_mut(), answer).await {
                // Each direction of a tunnel ends on its own.
                Ok((true, None)) => upload.await,
                outcome => outcome.map(|_| ()),
            }
        };
        self.exchange.received(self.received - before);
        outcome
    }
}

/// The app's response, as it comes; says whether it opened the tunnel.
async fn answer(
    lane: &Lane,
    is_head: bool,
    tunnel: &Tunnel,
    stream: &Stream,
    exchange: &mut Exchange,
) -> Result<bool, Error> {
    let mut from = Reader::default();
    let (status, end) = loop {
        let received = lane.receive(&mut from).await?;
        let status = Response::status_of(received.payload).filter(|_| received.kind == Kind::Head);
        let status = status.ok_or(Reason::Internal)?;
        if status < 200 {
            stream.send_informational(received.payload);
            continue;
        }
        // Some apps end such a response with an empty frame, or send a body all the same: it is dropped.
        let never_has_body = is_head || matches!(status, 204 | 304);
        let end = never_has_body || received.end;
        exchange.answered(status, Instant::now());
        if received.end
            && let Ok((_, fields)) = Response::decode(received.payload)
        {
            exchange.ended_with(fields);
        }
        let head = match tunnel {
            Tunnel::None => received.payload.into(),
            tunnel => heads::opened(received.payload, tunnel)?,
        };
        let edited = exchange.edited(&head);
        stream.send_head(Kind::Head, end, |out| out.extend_from_slice(&edited));
        break (status, end);
    };
    let opens = *tunnel != Tunnel::None && (200..300).contains(&status);
    if end {
        return Ok(opens);
    }
    let mut sent = 0;
    let outcome = pump::send_body(lane, &mut from, stream, &mut sent).await;
    exchange.sent(sent);
    exchange.ended_as(outcome?);
    Ok(opens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::neutral::Version;
    use crate::metrics::Traffic;

    #[test]
    fn only_what_is_all_there_is_sent_again() {
        let request = Request {
            version: Version::Http2,
            upgrade: false,
            method: "POST",
            target: "/",
        };
        let stream = Stream::request(Vec::new(), false);
        let check = |bodyless, is_read, received, expected| {
            let mut exchange = Exchange::begin(Rc::new(Traffic::uncounted()), Instant::now());
            let forwarding = Forwarding {
                head: (request, Fields::check(b"").expect("none")),
                bodyless,
                tunnel: Tunnel::None,
                stream: &stream,
                exchange: &mut exchange,
                received,
            };
            let found = forwarding.is_untouched(&Reader::new(is_read));
            assert_eq!(found, expected, "{bodyless} {is_read} {received}");
        };
        check(true, true, 0, true);
        check(false, false, 0, true);
        check(false, false, 1, false);
        // An empty frame that ends the body, or trailers.
        check(false, true, 0, false);
    }
}
