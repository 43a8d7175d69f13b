//! HTTP/2 connections to our own app: one for each port and worker, shared by the requests of all peers.
//!
//! One peer's cancelled requests must not bring an app to close the connection that all use: servers count the resets of
//! a connection (CVE-2023-44487). After [`RESETS_MAX`] of them it is given no more requests and ends with its last one.
//! Limits: that, and [`SETTINGS_TIMEOUT`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong};
use tokio::net::TcpStream;
use tokio::sync::{Notify, SetOnce};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::limits;
use super::metered::{Flood, Metered};
use crate::error::{Error, Reason};
use crate::http::h1::forward::connect;
use crate::metrics::Direction;
use crate::worker::Worker;

/// Requests that we cancel on one connection, fewer than servers bear (nghttp2: 1000).
const RESETS_MAX: u32 = 500;
/// For the app to say what it can do.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(2);

/// Kept connections to our app, by the address it listens on.
#[derive(Default)]
pub(crate) struct AppSessions {
    sessions: RefCell<HashMap<SocketAddr, Session>>,
}

/// A connection to our app.
#[derive(Clone)]
pub(super) struct Session {
    requests: SendRequest<Bytes>,
    shared: Rc<Shared>,
}

/// What those who use a connection share.
#[derive(Debug, Default)]
struct Shared {
    resets: Cell<u32>,
    /// Somebody wants to know the app's settings.
    asked: Notify,
    /// The app's settings have arrived.
    settled: SetOnce<()>,
}

impl AppSessions {
    /// A connection that takes another stream, and whether it had taken some before.
    pub(super) async fn session(
        worker: &Rc<Worker>,
        app: SocketAddr,
    ) -> Result<(Session, bool), Error> {
        let known = worker.app_sessions.sessions.borrow().get(&app).cloned();
        if let Some(known) = known
            && known.shared.resets.get() < RESETS_MAX
            && let Ok(requests) = known.requests.ready().await
        {
            let shared = known.shared;
            return Ok((Session { requests, shared }, true));
        }
        Ok((Self::dial(worker, app).await?, false))
    }

    /// A new connection, which takes the place of the one that was there.
    pub(super) async fn dial(worker: &Rc<Worker>, app: SocketAddr) -> Result<Session, Error> {
        let socket = Metered::of_server(connect(worker, app).await?);
        let flood = socket.flood();
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(limits::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
            .max_header_list_size(limits::HEADER_LIST_BYTES)
            .max_concurrent_reset_streams(limits::RESETS)
            .max_send_buffer_size(limits::SEND_BUFFER_BYTES)
            .enable_push(false)
            .handshake::<_, Bytes>(socket)
            .await
            .map_err(broken)?;
        let shared = Rc::<Shared>::default();
        let session = Session {
            requests: requests.clone(),
            shared: shared.clone(),
        };
        let sessions = &worker.app_sessions.sessions;
        sessions.borrow_mut().insert(app, session);
        let worker = worker.clone();
        let driven = shared.clone();
        spawn_local(async move {
            let ended = drive(connection, &flood, &driven).await;
            worker.app_sessions.forget(app, &driven);
            if let Err(error) = ended {
                tracing::debug!(%app, ?error, "HTTP/2 connection to the app ended");
                worker.metrics.refused(Direction::Inbound, error.reason);
            }
        });
        let requests = requests.ready().await.map_err(broken)?;
        Ok(Session { requests, shared })
    }

    fn forget(&self, app: SocketAddr, ended: &Rc<Shared>) {
        let mut sessions = self.sessions.borrow_mut();
        if sessions
            .get(&app)
            .is_some_and(|session| Rc::ptr_eq(&session.shared, ended))
        {
            sessions.remove(&app);
        }
    }
}

impl Session {
    pub(super) fn requests(&mut self) -> &mut SendRequest<Bytes> {
        &mut self.requests
    }

    /// We cancelled a request that the app was working on.
    pub(super) fn cancelled(&self) {
        let resets = &self.shared.resets;
        resets.set(resets.get().saturating_add(1));
    }

    /// Whether the app takes WebSocket (RFC 8441 section 3).
    pub(super) async fn takes_websocket(&self) -> bool {
        self.shared.asked.notify_one();
        let settled = timeout(SETTINGS_TIMEOUT, self.shared.settled.wait()).await;
        settled.is_ok() && self.requests.is_extended_connect_protocol_enabled()
    }
}

/// Moves the connection's frames to its end. One that floods us is cut off: h2 gives a client no GOAWAY to send.
async fn drive(
    mut connection: Connection<Metered<TcpStream>, Bytes>,
    flood: &Flood,
    shared: &Shared,
) -> Result<(), Error> {
    let ping = connection.ping_pong();
    let mut settling = pin!(settle(ping, shared));
    poll_fn(|cx| {
        let ended = Pin::new(&mut connection).poll(cx);
        match settling.as_mut().poll(cx) {
            Poll::Ready(never) => match never {},
            Poll::Pending => {}
        }
        match ended {
            Poll::Ready(ended) => Poll::Ready(ended.map_err(broken)),
            Poll::Pending if flood.is_on() => Poll::Ready(Err(Reason::AppFlood.into())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Once somebody asks, finds out when the app's settings have arrived: they come first, so before the answer to a ping.
async fn settle(ping: Option<PingPong>, shared: &Shared) -> Infallible {
    shared.asked.notified().await;
    if let Some(mut ping) = ping
        && ping.ping(Ping::opaque()).await.is_ok()
    {
        // Nobody else sets it.
        let _ = shared.settled.set(());
    }
    std::future::pending().await
}

/// What an error of the app's connection, or of one stream, means.
pub(super) fn broken(error: h2::Error) -> Error {
    let code = error.reason();
    match () {
        // RFC 9113 sections 6.8 and 8.7: it was not processed.
        () if error.is_remote()
            && (error.is_go_away() || code == Some(h2::Reason::REFUSED_STREAM)) =>
        {
            Reason::AppRefused.because(error)
        }
        () if error.is_library() && code == Some(h2::Reason::ENHANCE_YOUR_CALM) => {
            Reason::AppFlood.because(error)
        }
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
