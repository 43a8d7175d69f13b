//! One simulated proxy: a real certificate by a real token, real TLS that pins the controller by name, and the stream of
//! configuration, with the backoff of a real one. What it is told is acknowledged and thrown away.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Polling, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
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
use ringmail_proto::pb::discovery_service_client::DiscoveryServiceClient;
use ringmail_proto::pb::resource::Resource;
use ringmail_proto::pb::watch_request::Request as Message;
use ringmail_proto::tls::{ALPN_H2, client_config};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service;

/// Between attempts to reach the controller, as a proxy does it.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// For a connection, and for that with TLS; as a proxy has it.
const DIAL_TIMEOUT: Duration = Duration::from_secs(4);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the controller is, and who.
pub(crate) struct Controller {
    pub(crate) address: SocketAddr,
    pub(crate) domain: TrustDomain,
    pub(crate) root: CertificateDer<'static>,
}

/// What a proxy was told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// The Service that it calls.
    Destination,
    /// Who may do what with its own app.
    Authorization,
}

/// A proxy was told something.
pub(crate) struct Told {
    pub(crate) about: About,
    /// A whole picture, as after each connection, or a change of it.
    pub(crate) is_full: bool,
    pub(crate) at: Instant,
}

type Identity = Arc<CertifiedKey>;

/// Whose proxy it is.
struct Pod {
    name: String,
    /// All of 127.0.0.0/8 is this machine.
    address: Ipv4Addr,
}

impl Pod {
    fn new(number: usize) -> Self {
        let [.., high, low] = number.to_be_bytes();
        Self {
            name: format!("pod-{number}"),
            address: [127, 1, high, low].into(),
        }
    }

    fn workload(&self) -> pb::WorkloadRef {
        pb::WorkloadRef {
            namespace: "fleet".into(),
            name: self.name.clone(),
        }
    }
}

/// Gets a certificate with `token`, then follows `service` for ever, over as many connections as it takes.
pub(crate) async fn run(
    controller: Arc<Controller>,
    number: usize,
    token: String,
    service: &'static str,
    told: mpsc::Sender<Told>,
) {
    let mut wait = BACKOFF_MIN;
    let pod = Pod::new(number);
    let identity = loop {
        match certify(&controller, &pod, &token).await {
            Ok(identity) => break identity,
            Err(_) => backoff(&mut wait).await,
        }
    };
    wait = BACKOFF_MIN;
    loop {
        // It never ends but by a failure.
        let _ = watch(&controller, &identity, &pod, service, &told, &mut wait).await;
        backoff(&mut wait).await;
    }
}

async fn backoff(wait: &mut Duration) {
    sleep(wait.mul_f64(rand::random_range(0.0..1.0))).await;
    *wait = (*wait * 2).min(BACKOFF_MAX);
}

async fn certify(controller: &Controller, pod: &Pod, token: &str) -> anyhow::Result<Identity> {
    let channel = connect(controller, pod, None).await?;
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    let answer = CertificateServiceClient::with_origin(channel, origin())
        .certify(pb::CertifyRequest {
            certificate_signing_request: request.der().to_vec(),
            workload: Some(pod.workload()),
            credential: Some(Credential::Jwt(token.to_owned())),
        })
        .await?
        .into_inner();
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let chain = answer.certificate_chain.into_iter();
    let chain = chain.map(CertificateDer::from).collect();
    Ok(Arc::new(CertifiedKey::new(chain, any_ecdsa_type(&der)?)))
}

async fn watch(
    controller: &Controller,
    identity: &Identity,
    pod: &Pod,
    service: &str,
    told: &mpsc::Sender<Told>,
    wait: &mut Duration,
) -> anyhow::Result<()> {
    let channel = connect(controller, pod, Some(identity)).await?;
    let (requests, outbound) = mpsc::channel(8);
    let say = |message| {
        requests.send(pb::WatchRequest {
            request: Some(message),
        })
    };
    let mut responses = DiscoveryServiceClient::with_origin(channel, origin())
        .watch(ReceiverStream::new(outbound))
        .await?
        .into_inner();
    say(Message::Hello(pb::Hello {
        workload: Some(pod.workload()),
        proxy_version: env!("CARGO_PKG_VERSION").into(),
    }))
    .await?;
    say(Message::Subscribe(pb::Subscription {
        destinations: vec![service.to_owned()],
    }))
    .await?;
    while let Some(response) = responses.message().await? {
        let at = Instant::now();
        *wait = BACKOFF_MIN;
        let about = response
            .resources
            .iter()
            .filter_map(|one| match one.resource {
                Some(Resource::Destination(_)) => Some(About::Destination),
                Some(Resource::Authorization(_)) => Some(About::Authorization),
                _ => None,
            });
        let about: Vec<_> = about.collect();
        say(Message::Ack(pb::Ack {
            nonce: response.nonce,
        }))
        .await?;
        for about in about {
            let is_full = response.full;
            told.send(Told { about, is_full, at }).await?;
        }
    }
    bail!("the controller ended the stream")
}

fn origin() -> Uri {
    Uri::from_static("https://controller")
}

async fn connect(
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

#[derive(Clone)]
struct Channel(SendRequest<Body>);

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
