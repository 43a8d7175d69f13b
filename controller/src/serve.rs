//! The gRPC services on our own TLS: accept, handshake, then HTTP/2 with limits of our own around tonic's services.
//!
//! Limits: `CONNECTIONS_MAX`, `HANDSHAKES_MAX` at a time of `HANDSHAKE_TIMEOUT` each, after `TURN_TIMEOUT` at most,
//! `REQUESTS_MAX` a connection, `ANONYMOUS_LIFETIME` for a caller without a certificate, `ANONYMOUS_PER_SOURCE_MAX` of
//! them an address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ringmail_proto::svid::Svid;
use ringmail_proto::tls::svid_error;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use crate::metrics::{HandshakeLabels, HandshakeOutcome, Metrics};
use crate::stop::Stop;

/// The certificate we answer with.
pub(crate) mod identity;

/// HTTP/2 on one connection.
mod http2;

/// How many callers without a certificate.
mod strangers;

/// How many watch streams, how fast.
mod admission;

/// `Certify`.
pub(crate) mod certify;

/// What one proxy knows and is to be told; pure.
mod session;

/// Which of them are behind.
mod slowness;

/// Which pod's proxy calls.
mod pod;

/// `Watch`.
pub(crate) mod watch;

/// `Lease`.
pub(crate) mod lease;

pub(crate) use http2::Routes;
pub(crate) use strangers::Strangers;

/// Open connections.
pub const CONNECTIONS_MAX: usize = 25_000;
/// Handshakes at a time. Further callers are accepted and wait: those that find the listen queue full ask again after
/// one second, then two, four and so on, so that the last of a fleet that comes back at once took minutes.
pub const HANDSHAKES_MAX: usize = 512;
/// How long a caller waits for its handshake; proxies do not wait longer.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// From accept to the end of the TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// HTTP/2 streams of one connection.
pub const REQUESTS_MAX: u32 = 16;
/// A caller without a certificate gets one within this time, or leaves.
pub const ANONYMOUS_LIFETIME: Duration = Duration::from_secs(30);
/// Callers without a certificate from one address: the pods of a node that is behind one, as they start.
pub const ANONYMOUS_PER_SOURCE_MAX: usize = 128;
/// After accept failed (no file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection; none for a caller without a certificate.
#[derive(Debug, Clone)]
pub(crate) struct Peer(pub(crate) Option<Arc<Svid>>);

/// Where the other end is. It proves nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller(pub(crate) IpAddr);

/// What every connection shares.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) tls: Arc<ArcSwap<ServerConfig>>,
    pub(crate) routes: Routes,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain_timeout: Duration,
    pub(crate) strangers: Arc<Strangers>,
}

/// Accepts until told to stop, then lets open connections finish.
pub(crate) async fn serve(listener: TcpListener, front: Arc<Front>, mut stop: Stop) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let admitted = async {
            // The semaphore is never closed.
            let place = places.clone().acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let accepted = tokio::select! {
            () = stop.stopped() => break,
            Some(_) = connections.join_next() => continue,
            accepted = admitted => accepted,
        };
        match accepted {
            Some((place, Ok((socket, address)))) => {
                let (front, stop, handshakes) = (front.clone(), stop.clone(), handshakes.clone());
                connections.spawn(async move {
                    let mut stopping = stop.clone();
                    let turn = tokio::select! {
                        () = stopping.stopped() => return,
                        turn = timeout(TURN_TIMEOUT, handshakes.acquire_owned()) => turn,
                    };
                    if let Ok(Ok(handshake)) = turn {
                        front.connection(socket, address, handshake, stop).await;
                    }
                    drop(place);
                });
            }
            Some((_, Err(e))) => {
                warn!("cannot accept: {e}");
                sleep(ACCEPT_PAUSE).await;
            }
            None => break,
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if timeout(front.drain_timeout, finish).await.is_err() {
        connections.shutdown().await;
    }
}

impl Front {
    async fn connection(
        &self,
        socket: TcpStream,
        address: SocketAddr,
        permit: OwnedSemaphorePermit,
        stop: Stop,
    ) {
        let _ = socket.set_nodelay(true);
        let acceptor = TlsAcceptor::from(self.tls.load_full());
        let shaken = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await;
        drop(permit);
        let (outcome, stream) = match shaken {
            Err(_) => (HandshakeOutcome::TimedOut, None),
            Ok(Err(e)) => (refused(&e, address), None),
            Ok(Ok(stream)) => match peer(&stream) {
                Ok(peer @ Peer(Some(_))) => (HandshakeOutcome::Identified, Some((stream, peer))),
                Ok(peer @ Peer(None)) => (HandshakeOutcome::Anonymous, Some((stream, peer))),
                Err(()) => (HandshakeOutcome::Refused, None),
            },
        };
        self.metrics
            .handshakes
            .get_or_create(&HandshakeLabels { outcome })
            .inc();
        let Some((stream, peer)) = stream else {
            return;
        };
        self.metrics.connections.inc();
        let _open = Open(&self.metrics);
        let caller = Caller(address.ip().to_canonical());
        let (lifetime, _stranger) = match &peer {
            Peer(Some(_)) => (None, None),
            Peer(None) => match self.strangers.admit(caller.0) {
                Some(stranger) => (Some(ANONYMOUS_LIFETIME), Some(stranger)),
                None => {
                    debug!(%address, "too many callers without a certificate from this address");
                    return;
                }
            },
        };
        let ended = http2::run(stream, (peer, caller), self.routes.clone(), lifetime, stop).await;
        if let Err(e) = ended {
            debug!(%address, "connection ended: {e}");
        }
    }
}

/// Counts an open connection; its drop counts it closed.
struct Open<'a>(&'a Metrics);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// The verifier has accepted the chain already; this reads whose it is.
fn peer(stream: &TlsStream<TcpStream>) -> Result<Peer, ()> {
    match stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
    {
        None => Ok(Peer(None)),
        Some(leaf) => match Svid::read(leaf) {
            Ok(svid) => Ok(Peer(Some(Arc::new(svid)))),
            Err(e) => {
                warn!("a verified certificate cannot be read: {e}");
                Err(())
            }
        },
    }
}

fn refused(error: &std::io::Error, address: SocketAddr) -> HandshakeOutcome {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls.and_then(svid_error) {
        Some(refusal) => {
            warn!(%address, "certificate of a caller refused: {refusal}");
            HandshakeOutcome::Refused
        }
        None => {
            debug!(%address, "handshake failed: {error}");
            HandshakeOutcome::Failed
        }
    }
}

#[cfg(test)]
mod tests;
