//! HTTP/2 on one connection: hyper with limits said out loud, and the services by path.

use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ringmail_proto::pb::certificate_service_server::CertificateServiceServer;
use ringmail_proto::pb::discovery_service_server::DiscoveryServiceServer;
use ringmail_proto::pb::lease_service_server::LeaseServiceServer;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::server::TlsStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;

use super::certify::Certificates;
use super::lease::Leases;
use super::watch::Discovery;
use super::{Caller, Peer, REQUESTS_MAX};
use crate::stop::Stop;

/// Bytes of one message of a proxy.
pub(crate) const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Of a request for leases: a session's keys may all change at once.
const LEASE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a request's headers.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// A quiet connection is asked whether it is alive, and how long it may take to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes in flight: proxies say little.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Bytes of responses held for one stream that does not read.
const SEND_BUFFER: usize = 256 * 1024;

/// The services, by path.
#[derive(Clone)]
pub(crate) struct Routes {
    certificates: CertificateServiceServer<Certificates>,
    discovery: DiscoveryServiceServer<Discovery>,
    leases: LeaseServiceServer<Leases>,
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").finish_non_exhaustive()
    }
}

impl Routes {
    pub(crate) fn new(certificates: Certificates, discovery: Discovery, leases: Leases) -> Self {
        Self {
            certificates: CertificateServiceServer::new(certificates)
                .max_decoding_message_size(REQUEST_BYTES_MAX),
            discovery: DiscoveryServiceServer::new(discovery)
                .max_decoding_message_size(REQUEST_BYTES_MAX),
            leases: LeaseServiceServer::new(leases).max_decoding_message_size(LEASE_BYTES_MAX),
        }
    }

    async fn call(mut self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path();
        if path.starts_with("/ringmail.v1.CertificateService/") {
            self.certificates.call(request).await
        } else if path.starts_with("/ringmail.v1.DiscoveryService/") {
            self.discovery.call(request).await
        } else if path.starts_with("/ringmail.v1.LeaseService/") {
            self.leases.call(request).await
        } else {
            Ok(Status::unimplemented("there is no such service").into_http())
        }
    }
}

/// Serves one connection until either side ends it. Told to stop, it finishes what is open.
pub(super) async fn run(
    stream: TlsStream<TcpStream>,
    (peer, caller): (Peer, Caller),
    routes: Routes,
    lifetime: Option<Duration>,
    mut stop: Stop,
) -> Result<(), hyper::Error> {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(caller);
        routes.clone().call(request)
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(REQUESTS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let over = async {
        match lifetime {
            Some(lifetime) => sleep(lifetime).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = over => return Ok(()),
        () = stop.stopped() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
