//! A request of a peer, forwarded to our own app as HTTP/2 server over one kept connection per worker.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use h2::RecvStream;
use h2::client::ResponseFuture;

use super::heads::Tunnel;
use super::sessions::{AppSessions, Session, broken};
use super::{heads, pump};
use crate::error::{Blame, Error, Reason};
use crate::http::exchange::{Exchange, both_ways, unless_reset};
use crate::http::neutral::{Fields, Request};
use crate::peer::frame::Kind;
use crate::peer::stream::{Reader, Stream};
use crate::worker::Worker;

/// Forwards the request that opened `stream` and sends the response back on it. What the app has certainly not processed
/// is sent once more, on a new connection.
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    app: SocketAddr,
    head: (Request<'_>, Fields<'_>),
    stream: &Stream,
    mut reader: Reader,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let (session, reused) = AppSessions::session(worker, app).await?;
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
    let outcome = forwarding.exchange(session, &mut reader).await;
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
    let session = AppSessions::dial(worker, app).await?;
    forwarding.exchange(session, &mut reader).await
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
    async fn exchange(&mut self, mut session: Session, reader: &mut Reader) -> Result<(), Error> {
        let request = heads::request(&self.head.0, self.head.1, &self.tunnel)?;
        let sent = session.requests().send_request(request, self.bodyless);
        let (response, mut to) = sent.map_err(broken)?;
        let before = self.received;
        let outcome = {
            let mut upload = pin!(pump::receive_body(
                self.stream,
                reader,
                &mut to,
                Reason::AppGone,
                &mut self.received
            ));
            let is_head = self.head.0.method == "HEAD";
            let answer = answer(response, is_head, &self.tunnel, self.stream, self.exchange);
            let answer = pin!(unless_reset(self.stream, answer));
            let is_unwanted = |error: &Error| error.reason == Reason::AppGone;
            match both_ways(self.bodyless, is_unwanted, upload.as_mut(), answer).await {
                // Each direction of a tunnel ends on its own.
                Ok((true, None)) => upload.await,
                outcome => outcome.map(|_| ()),
            }
        };
        self.exchange.received(self.received - before);
        if let Err(error) = &outcome {
            to.send_reset(h2::Reason::CANCEL);
            if error.reason.row().blame != Blame::App {
                session.cancelled();
            }
        }
        outcome
    }
}

/// The app's response, as it comes; says whether it opened the tunnel.
async fn answer(
    mut response: ResponseFuture,
    is_head: bool,
    tunnel: &Tunnel,
    stream: &Stream,
    exchange: &mut Exchange,
) -> Result<bool, Error> {
    let mut neutral = Vec::with_capacity(256);
    let response = loop {
        match poll_fn(|cx| poll_head(&mut response, cx))
            .await
            .map_err(broken)?
        {
            Head::Informational(head) => {
                neutral.clear();
                heads::put_response(head.status(), head.headers(), &Tunnel::None, &mut neutral)
                    .map_err(|_| Reason::AppMalformed)?;
                stream.send_head(Kind::Head, false, |out| out.extend_from_slice(&neutral));
            }
            Head::Final(response) => break response,
        }
    };
    let (head, body): (_, RecvStream) = response.into_parts();
    neutral.clear();
    let opens = heads::put_response(head.status, &head.headers, tunnel, &mut neutral)
        .map_err(|_| Reason::AppMalformed)?;
    // Some apps end such a response with an empty frame, or send a body all the same: it is dropped.
    let never_has_body = is_head || matches!(head.status.as_u16(), 204 | 304);
    let end = never_has_body || body.is_end_stream();
    exchange.answered(head.status.as_u16(), Instant::now());
    stream.send_head(Kind::Head, end, |out| out.extend_from_slice(&neutral));
    if end {
        return Ok(opens);
    }
    let mut sent = 0;
    let outcome = pump::send_body(body, stream, Reason::AppGone, &mut sent).await;
    exchange.sent(sent);
    outcome.map(|()| opens)
}

enum Head {
    Informational(http::Response<()>),
    Final(http::Response<RecvStream>),
}

fn poll_head(response: &mut ResponseFuture, cx: &mut Context<'_>) -> Poll<Result<Head, h2::Error>> {
    if let Poll::Ready(Some(head)) = response.poll_informational(cx) {
        return Poll::Ready(head.map(Head::Informational));
    }
    Pin::new(response)
        .poll(cx)
        .map(|response| response.map(Head::Final))
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
