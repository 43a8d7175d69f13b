//! Applications that know nothing of the mesh. They run in a pod for as long as it lives.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Socket, Type};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::netns::Namespace;

/// HTTP/1.1, HTTP/2 without TLS, and gRPC, on one port.
mod web;

/// Somebody who is asked who may.
mod authorizer;

/// TCP, the server speaking first; and servers that answer with given bytes.
mod tcp;

/// The gRPC service, generated from `proto/ringmail/test/v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::use_self,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto file is its documentation"
)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/ringmail.test.v1.rs"));
}

pub use authorizer::Authorizer;
pub use tcp::{BANNER, GOODBYE};

/// Serves HTTP on `port`, IPv4 and IPv6, as an app called `name`:
///
/// - `/bytes/N`: N bytes; `/delay/MS`: an empty answer after so many milliseconds; `/status/N`: that status.
/// - `/stream`: the request's body and trailers come back as they arrive. `/trailers`: a body with a trailer
///   `x-checksum: 7` for those who send `te: trailers`.
/// - Anything else: a text of the request line, headers and body. Every answer has `x-app: NAME`.
/// - gRPC: `ringmail.test.v1.EchoService`, and `grpc.health.v1.Health`, which serves as a whole and nothing in particular.
pub fn serve_web(namespace: &Namespace, name: &str, port: u16) -> anyhow::Result<()> {
    let WebApp { stop, .. } = WebApp::start(namespace, name, port)?;
    // Nobody stops it: it ends with its pod.
    namespace.spawn(async move { stop.closed().await });
    Ok(())
}

/// An app that can be stopped as Kubernetes stops one: [`serve_web`]'s, which closes its connections well and ends.
#[derive(Debug)]
pub struct WebApp {
    stop: watch::Sender<bool>,
    served: JoinHandle<io::Result<()>>,
}

impl WebApp {
    /// Starts to serve.
    pub fn start(namespace: &Namespace, name: &str, port: u16) -> anyhow::Result<Self> {
        let name = name.to_owned();
        let listener = namespace.run(|| listen(port))??;
        let (stop, stopped) = watch::channel(false);
        let served = namespace.spawn(async move {
            web::serve(TcpListener::from_std(listener)?, name, stopped).await
        });
        Ok(Self { stop, served })
    }

    /// Accepts nothing more, answers what was asked, and returns when the last connection is closed.
    pub fn stop(self, namespace: &Namespace) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        Ok(namespace.block_on(self.served)???)
    }
}

/// Serves lines on `port`: says [`BANNER`] at once, sends each line back, and at the client's end says [`GOODBYE`] and
/// closes.
pub fn serve_lines(namespace: &Namespace, port: u16) -> anyhow::Result<()> {
    let listener = namespace.run(|| listen(port))??;
    namespace.spawn(async move { tcp::serve_lines(TcpListener::from_std(listener)?).await });
    Ok(())
}

/// Answers every HTTP/1.1 request head on `port` with `answer` as it is: informational answers, odd framing.
pub fn serve_bytes(namespace: &Namespace, port: u16, answer: &'static [u8]) -> anyhow::Result<()> {
    let listener = namespace.run(|| listen(port))??;
    namespace
        .spawn(async move { tcp::serve_bytes(TcpListener::from_std(listener)?, answer).await });
    Ok(())
}

/// A listener for both IP versions, which does not wait. Backlog for storms of connections.
pub(crate) fn listen(port: u16) -> io::Result<std::net::TcpListener> {
    const BACKLOG: i32 = 4096;
    let socket = Socket::new(Domain::IPV6, Type::STREAM.nonblocking(), None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
