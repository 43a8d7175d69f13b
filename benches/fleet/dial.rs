//! How a simulated proxy reaches a controller: a real certificate by a real token, and real TLS that pins the controller
//! by name, from an address of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Polling, Poll};
use std::time::Duration;

use anyhow::Context;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::http::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use ringmail_proto::bundle::TrustBundle;
use ringmail_proto::identity::{SpiffeId, TrustDomain};
use ringmail_proto::pb;
use ringmail_proto::pb::certificate_service_client::CertificateServiceClient;
use ringmail_proto::pb::certify_request::Credential;
use ringmail_proto::tls::{ALPN_H2, client_config};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::codegen::Service;

/// Of every simulated proxy's pod.
pub(crate) const NAMESPACE: &str = "fleet";
/// For a connection, and for that with TLS; as a proxy has it.
const DIAL_TIMEOUT: Duration = Duration::from_secs(4);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the controller is, and who.
pub(crate) struct Controller {
    pub(crate) address: SocketAddr,
    pub(crate) domain: TrustDomain,
    pub(crate) root: CertificateDer<'static>,
}

/// Who a proxy is.
pub(crate) type Identity = Arc<CertifiedKey>;

/// Whose proxy it is.
pub(crate) struct Pod {
    name: String,
    /// All of 127.0.0.0/8 is this machine.
    address: Ipv4Addr,
}

impl Pod {
    pub(crate) fn new(number: usize) -> Self {
        let [.., high, low] = number.to_be_bytes();
        Self {
            name: format!("pod-{number}"),
            address: [127, 1, high, low].into(),
        }
    }

    pub(crate) fn workload(&self) -> pb::WorkloadRef {
        pb::WorkloadRef {
            namespace: NAMESPACE.into(),
            name: self.name.clone(),
        }
    }
}

/// A certificate for what proves who asks.
pub(crate) async fn certify(
    controller: &Controller,
    pod: &Pod,
    credential: Credential,
) -> anyhow::Result<Identity> {
    let channel = connect(controller, pod, None).await?;
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    let answer = CertificateServiceClient::with_origin(channel, origin())
        .certify(pb::CertifyRequest {
            certificate_signing_request: request.der().to_vec(),
            workload: Some(pod.workload()),
            credential: Some(credential),
        })
        .await?
        .into_inner();
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let chain = answer.certificate_chain.into_iter();
    let chain = chain.map(CertificateDer::from).collect();
    Ok(Arc::new(CertifiedKey::new(chain, any_ecdsa_type(&der)?)))
}

/// What calls say they go to; the connection is there already.
pub(crate) fn origin() -> Uri {
    Uri::from_static("https://controller")
}

/// A connection, with the pod's certificate if it has one.
pub(crate) async fn connect(
    controller: &Controller,
    pod: &Pod,
    by: Option<&Identity>,
) -> anyhow::Result<Channel> {
    let Controller {
        address,
        domain,
        root,
    } = controller;
    let bundle = TrustBundle::single(domain.clone(), vec![root.clone()])?;
    let expected = SpiffeId::new(domain, "ringmail-system", "ringmail-controller")?;
    let tls = client_config(Arc::new(bundle), expected, by.cloned(), ALPN_H2)?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(pod.address.into(), 0))?;
    let socket = timeout(DIAL_TIMEOUT, socket.connect(*address)).await??;
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, socket);
    let stream = timeout(CALL_TIMEOUT, stream).await?.context("TLS")?;
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(Channel(sender))
}

/// A connection that calls go on.
#[derive(Clone)]
pub(crate) struct Channel(SendRequest<Body>);

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Polling<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
