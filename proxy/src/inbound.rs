//! What comes in: mutual TLS from other proxies on 15008, and on 15006 the plaintext of clients outside the mesh.

/// Plaintext that was captured: refused, unless a probe or a permissive workload.
pub(crate) mod plain;

use std::rc::Rc;
use std::time::{Duration, Instant};

use ringmail_proto::tls::ALPN_RINGMAIL;
use tokio::net::TcpStream;

use crate::app::Session;
use crate::error::{Blamed, Error, Reason};
use crate::metrics::Direction;
use crate::peer::connection;
use crate::peer::frame;
use crate::peer::streams::{Side, Streams};
use crate::policy::Client;
use crate::tls::identity::unix_now;
use crate::tls::stream::TlsStream;
use crate::worker::Worker;

/// Serves one connection of a peer: handshake, identity, then its streams until it ends.
pub(crate) async fn serve(worker: Rc<Worker>, socket: TcpStream) -> Result<(), Error> {
    let busy = worker.drain.enter();
    let address = socket.peer_addr();
    let address = address.map_err(|error| Reason::PeerGone.because(error))?;
    let pod = socket
        .local_addr()
        .map_err(|error| Reason::PeerGone.because(error))?
        .ip()
        .to_canonical();
    let tls = handshake(&worker, socket).await?;
    let peer = tls
        .peer()
        .map_err(|error| Reason::PeerIdentity.because(error))?;
    let left = u64::try_from(peer.not_after - unix_now()).unwrap_or(0);
    let client = Client {
        svid: Some(peer),
        address: address.ip().to_canonical(),
    };
    let session = Session::of_client(client, pod);
    let streams = Streams::new(Side::Acceptor);
    worker.policies.watch(&streams);
    let accept = |stream, reader, payload: &[u8]| session.accept(&worker, stream, reader, payload);
    let run = connection::run(tls, streams.clone(), accept);
    let ending = say_goodbye(&worker, &session, &streams, left);
    tokio::pin!(run, ending);
    let outcome = tokio::select! {
        outcome = &mut run => outcome,
        () = &mut ending => run.await,
    };
    drop(busy);
    outcome
}

async fn handshake(worker: &Worker, socket: TcpStream) -> Result<TlsStream, Error> {
    let ourselves = worker.snapshot.identity()?;
    let from = socket.peer_addr().blame(Reason::PeerGone)?.ip();
    let stranger = worker.handshakes.place(from).await?;
    let begun = Instant::now();
    let tls = Box::pin(TlsStream::accept(socket, ourselves.server.clone())).await;
    drop(stranger);
    let outcome = tls
        .as_ref()
        .map(|tls| (tls.key_exchange(), begun.elapsed()))
        .map_err(|error| error.reason);
    worker.metrics.handshake(Direction::Inbound, outcome);
    let tls = tls.inspect_err(|error| worker.metrics.refused(Direction::Inbound, error.reason))?;
    if tls.alpn() == Some(ALPN_RINGMAIL) {
        Ok(tls)
    } else {
        Err(Reason::PeerProtocol.into())
    }
}

/// Asks the peer to move to another connection when its certificate ends or we drain. Streams that are open go on.
async fn say_goodbye(worker: &Worker, session: &Session, streams: &Streams, left: u64) {
    tokio::select! {
        () = worker.drain.begun() => {}
        () = tokio::time::sleep(Duration::from_secs(left)) => session.expire(),
    }
    streams.tell_peer(frame::Kind::GoAway);
    streams.retire();
}
