//! A request of a peer, forwarded to our own app as HTTP/2 server over one kept connection per worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{ResponseFuture, SendRequest};
use tokio::task::spawn_local;

use super::metered::Metered;
use super::{heads, limits, pump};
use crate::error::{Error, Reason};
use crate::http::exchange::{Exchange, both_ways, unless_reset};
use crate::http::h1::forward::connect;
use crate::http::neutral::{Fields, Request};
use crate::metrics::Direction;
use crate::peer::frame::Kind;
use crate::peer::stream::{Reader, Stream};
use crate::worker::Worker;

/// Kept connections to our app, by the port it listens on.
#[derive(Default)]
pub(crate) struct AppSessions {
    sessions: RefCell<HashMap<SocketAddr, SendRequest<Bytes>>>,
}

/// Forwards the request that opened `stream` and sends the response back on it.
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    app: SocketAddr,
    head: (Request<'_>, Fields<'_>),
    stream: &Stream,
    mut reader: Reader,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let request = heads::request(&head.0, head.1)?;
    let bodyless = reader.is_ended();
    let mut session = session(worker, app).await?;
    let sent = session.send_request(request, bodyless);
    let (response, mut to) = sent.map_err(|error| Reason::AppGone.because(error))?;
    let mut received = 0;
    let outcome = {
        let upload = pin!(pump::receive_body(
            stream,
            &mut reader,
            &mut to,
            Reason::AppGone,
            &mut received
        ));
        let answer = pin!(unless_reset(stream, answer(response, stream, exchange)));
        both_ways(bodyless, upload, answer).await
    };
    exchange.received(received);
    if outcome.is_err() {
        to.send_reset(h2::Reason::CANCEL);
    }
    outcome.map(|_| ())
}

/// The app's response, as it comes.
async fn answer(
    mut response: ResponseFuture,
    stream: &Stream,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let mut neutral = Vec::with_capacity(256);
    let response = loop {
        match poll_fn(|cx| poll_head(&mut response, cx))
            .await
            .map_err(broken)?
        {
            Head::Informational(head) => {
                neutral.clear();
                heads::put_response(head.status(), head.headers(), &mut neutral)
                    .map_err(|_| Reason::AppMalformed)?;
                stream.send_head(Kind::Head, false, |out| out.extend_from_slice(&neutral));
            }
            Head::Final(response) => break response,
        }
    };
    let (head, body): (_, RecvStream) = response.into_parts();
    neutral.clear();
    heads::put_response(head.status, &head.headers, &mut neutral)
        .map_err(|_| Reason::AppMalformed)?;
    let end = body.is_end_stream();
    exchange.answered(head.status.as_u16());
    stream.send_head(Kind::Head, end, |out| out.extend_from_slice(&neutral));
    if end {
        return Ok(());
    }
    let mut sent = 0;
    let outcome = pump::send_body(body, stream, Reason::AppGone, &mut sent).await;
    exchange.sent(sent);
    outcome
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

/// A connection to the app that takes another stream.
async fn session(worker: &Rc<Worker>, app: SocketAddr) -> Result<SendRequest<Bytes>, Error> {
    let known = worker.app_sessions.sessions.borrow().get(&app).cloned();
    if let Some(session) = known
        && let Ok(ready) = session.ready().await
    {
        return Ok(ready);
    }
    let socket = Metered::of_server(connect(worker, app).await?);
    let flood = socket.flood();
    let (session, connection) = h2::client::Builder::new()
        .initial_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits::HEADER_LIST_BYTES)
        .max_concurrent_reset_streams(limits::RESETS)
        .max_send_buffer_size(limits::SEND_BUFFER_BYTES)
        .enable_push(false)
        .handshake::<_, Bytes>(socket)
        .await
        .map_err(|error| Reason::AppGone.because(error))?;
    worker
        .app_sessions
        .sessions
        .borrow_mut()
        .insert(app, session.clone());
    let metrics = worker.metrics.clone();
    let mut connection = connection;
    spawn_local(async move {
        // Cut when the app floods us: h2 gives a client no GOAWAY of its own to send.
        let ended = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(ended.map_err(broken)),
            Poll::Pending if flood.is_on() => Poll::Ready(Err(Reason::AppFlood.into())),
            Poll::Pending => Poll::Pending,
        });
        if let Err(error) = ended.await {
            tracing::debug!(%app, ?error, "HTTP/2 connection to the app ended");
            metrics.refused(Direction::Inbound, error.reason);
        }
    });
    session
        .ready()
        .await
        .map_err(|error| Reason::AppGone.because(error))
}

/// Why a connection to the app ended.
fn broken(error: h2::Error) -> Error {
    let calm = error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
    match () {
        () if calm && error.is_library() => Reason::AppFlood.because(error),
        () if error.is_library() => Reason::AppMalformed.because(error),
        () => Reason::AppGone.because(error),
    }
}

impl std::fmt::Debug for AppSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppSessions")
            .field("count", &self.sessions.borrow().len())
            .finish()
    }
}
