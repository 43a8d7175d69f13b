//! A proxy's calls for a certificate: a token, a public key and perhaps the certificate before in, a certificate out, over
//! TLS that pins the controller by name.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::http::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use ringmail_proto::bundle::TrustBundle;
use ringmail_proto::identity::SpiffeId;
use ringmail_proto::pb;
use ringmail_proto::pb::certificate_service_client::CertificateServiceClient;
use ringmail_proto::pb::certify_request::Credential;
use ringmail_proto::svid::Svid;
use ringmail_proto::tls::{ALPN_H2, client_config};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::codegen::Service;

use super::mesh::{Mesh, Replica, TRUST_DOMAIN};

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Certified {
    /// Whom the certificate names.
    pub(crate) identity: String,
    /// How many roots came with it.
    pub(crate) roots: usize,
    /// To be shown at the next call.
    pub(crate) certificate: Arc<CertifiedKey>,
}

/// What a caller shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    pub(crate) certificate: Option<Arc<CertifiedKey>>,
    pub(crate) token: Option<String>,
}

/// Asks `replica` for a certificate as `pod` (`namespace/name`); the refusal as `Code: text`.
pub(crate) async fn certify(
    mesh: &Mesh<'_>,
    replica: &Replica,
    root: &str,
    pod: (&str, &str),
    token: &str,
) -> anyhow::Result<Result<Certified, String>> {
    let shown = Shown {
        token: Some(token.into()),
        ..Shown::default()
    };
    certify_by(mesh, replica, root, pod, shown).await
}

/// The same, whatever is shown.
pub(crate) async fn certify_by(
    mesh: &Mesh<'_>,
    replica: &Replica,
    root: &str,
    pod: (&str, &str),
    shown: Shown,
) -> anyhow::Result<Result<Certified, String>> {
    let roots: Vec<_> =
        CertificateDer::pem_slice_iter(root.as_bytes()).collect::<Result<_, _>>()?;
    let domain = TRUST_DOMAIN.parse()?;
    let expected = SpiffeId::new(&domain, &mesh.namespace, "ringmail-controller")?;
    let bundle = Arc::new(TrustBundle::single(domain.clone(), roots)?);
    let tls = client_config(bundle, expected, shown.certificate, ALPN_H2)?;
    let socket = TcpStream::connect(replica.address).await?;
    let name = ServerName::IpAddress(replica.address.ip().into());
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(name, socket)
        .await?;
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    let origin = Uri::from_static("https://controller");
    let answer = CertificateServiceClient::with_origin(Channel(sender), origin)
        .certify(pb::CertifyRequest {
            certificate_signing_request: request.der().to_vec(),
            workload: Some(pb::WorkloadRef {
                namespace: pod.0.into(),
                name: pod.1.into(),
            }),
            credential: shown.token.map(Credential::Jwt),
        })
        .await;
    driver.abort();
    let answer = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Ok(Err(format!("{:?}: {}", status.code(), status.message()))),
    };
    let chain = answer.certificate_chain.into_iter();
    let chain: Vec<_> = chain.map(CertificateDer::from).collect();
    let identity = Svid::read(&chain[0])?.id.to_string();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let bundle = TrustBundle::try_from(answer.trust_bundle.unwrap_or_default())?;
    Ok(Ok(Certified {
        identity,
        roots: bundle.certificates(&domain).len(),
        certificate: Arc::new(CertifiedKey::new(chain, any_ecdsa_type(&key)?)),
    }))
}

#[derive(Clone)]
struct Channel(SendRequest<Body>);

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
