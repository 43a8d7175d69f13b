//! The client of the API server: kube's requests and credentials over our own TLS, version 1.3 only.
//!
//! kube's own TLS would turn TLS 1.2 on in every program of the workspace, and bring a second way to verify servers. What
//! is left out with it: proxies to reach the API server by, and servers that nobody vouches for. A connection over which
//! nothing comes back is noticed by the kernel: while it is silent within `ALIVE_AFTER` and `ALIVE_EVERY`, while bytes are
//! on their way within `UNHEARD_MAX`. So neither a watch nor a write waits for a dead server, and `ANSWER_TIMEOUT` bounds
//! what waits for a living one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::ByteString;
use kube::Config;
use kube::client::{Body, Client, ConfigExt};
use kube::config::AuthInfo;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::{BoxError, ServiceBuilder, service_fn};
use zeroize::Zeroizing;

use crate::files;

/// From the name to the end of the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent connection is probed after this time, and then so often, three times.
const ALIVE_AFTER: Duration = Duration::from_secs(15);
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Bytes on their way that nobody has confirmed for so long end the connection: it is not silent, so nothing probes it.
const UNHEARD_MAX: Duration = Duration::from_secs(30);
/// From a request to the head of its answer, the begin of a watch included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a certificate or key that a kubeconfig refers to.
const PEM_BYTES_MAX: u64 = 256 * 1024;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither in a cluster nor a kubeconfig.
    #[error("there is neither a cluster around us nor a kubeconfig")]
    NoConfig(#[from] kube::config::InferConfigError),
    /// A setting that this client does not have.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A credential that cannot be used.
    #[error("{0}")]
    Credential(String),
    /// The library refused.
    #[error("cannot use the credentials of the kubeconfig")]
    Kube(#[from] kube::Error),
    /// TLS refused.
    #[error("cannot use the certificates of the kubeconfig")]
    Tls(#[from] rustls::Error),
}

/// The cluster around us, or the kubeconfig that `KUBECONFIG` names.
///
/// # Errors
/// When there is none, or it cannot be used.
pub async fn infer() -> Result<Client, ClientError> {
    connect(&Config::infer().await?)
}

/// A client; it connects when it is first used.
///
/// # Errors
/// When the configuration cannot be used.
pub fn connect(config: &Config) -> Result<Client, ClientError> {
    if config.proxy_url.is_some() {
        return Err(ClientError::Unsupported("a proxy-url is not supported"));
    }
    let target = Arc::new(Target::new(config)?);
    let connector = service_fn(move |uri: Uri| {
        let target = target.clone();
        // The client wants a future that can be moved.
        Box::pin(async move { target.dial(&uri).await })
    });
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(connector);
    let answered = service_fn(move |request| {
        let answer = timeout(ANSWER_TIMEOUT, http.request(request));
        async move { Ok::<_, BoxError>(answer.await??) }
    });
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .service(answered);
    Ok(Client::new(service, config.default_namespace.clone()))
}

/// All that the library has, unlike between our own: an API server may be bound to the curves of a standard.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Whom to dial, and how to know it.
struct Target {
    tls: TlsConnector,
    /// In place of the URL's host.
    name: Option<String>,
}

impl Target {
    fn new(config: &Config) -> Result<Self, ClientError> {
        if config.cluster_url.scheme_str() != Some("https") {
            return Err(ClientError::Unsupported("the server's URL is not https"));
        }
        if config.accept_invalid_certs {
            return Err(ClientError::Unsupported(
                "insecure-skip-tls-verify is not supported",
            ));
        }
        let mut roots = RootCertStore::empty();
        for der in config.root_cert.iter().flatten() {
            roots.add(CertificateDer::from(der.clone()))?;
        }
        if roots.is_empty() {
            return Err(ClientError::Unsupported(
                "the kubeconfig names no certificate-authority",
            ));
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let tls = match certificate(&config.auth_info)? {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        Ok(Self {
            tls: TlsConnector::from(Arc::new(tls)),
            name: config.tls_server_name.clone(),
        })
    }

    async fn dial(&self, uri: &Uri) -> io::Result<TokioIo<Stream>> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(443);
        let name = self.name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let dial = async {
            let socket = TcpStream::connect((host, port)).await?;
            socket.set_nodelay(true)?;
            let alive = TcpKeepalive::new()
                .with_time(ALIVE_AFTER)
                .with_interval(ALIVE_EVERY)
                .with_retries(3);
            let options = SockRef::from(&socket);
            options.set_tcp_keepalive(&alive)?;
            options.set_tcp_user_timeout(Some(UNHEARD_MAX))?;
            self.tls.connect(name, socket).await
        };
        let stream = timeout(CONNECT_TIMEOUT, dial).await;
        let stream = stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(TokioIo::new(Stream(stream)))
    }
}

type Certificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The client certificate of a kubeconfig: in it, or in files that it names.
fn certificate(auth: &AuthInfo) -> Result<Option<Certificate>, ClientError> {
    let secret =
        |text: &secrecy::SecretString| secrecy::ExposeSecret::expose_secret(text).to_owned();
    let key_data = auth
        .client_key_data
        .as_ref()
        .map(secret)
        .map(Zeroizing::new);
    let cert = pem(
        "client-certificate",
        auth.client_certificate_data.as_deref(),
        auth.client_certificate.as_deref(),
    )?;
    let key = pem(
        "client-key",
        key_data.as_ref().map(|data| data.as_str()),
        auth.client_key.as_deref(),
    )?;
    let (Some(cert), Some(key)) = (cert, key) else {
        return Ok(None);
    };
    let bad = |e: rustls::pki_types::pem::Error| {
        ClientError::Credential(format!("client-certificate or client-key is not PEM: {e}"))
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&cert).collect();
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(bad)?;
    Ok(Some((chain.map_err(bad)?, key)))
}

/// What a kubeconfig holds in base64, or in a file.
fn pem(
    field: &str,
    data: Option<&str>,
    path: Option<&str>,
) -> Result<Option<Zeroizing<Vec<u8>>>, ClientError> {
    if let Some(data) = data {
        let bytes: ByteString = serde_json::from_value(data.into())
            .map_err(|_| ClientError::Credential(format!("{field}-data is not base64")))?;
        return Ok(Some(Zeroizing::new(bytes.0)));
    }
    let Some(path) = path else {
        return Ok(None);
    };
    let bytes = files::read(path.as_ref(), PEM_BYTES_MAX)
        .map_err(|e| ClientError::Credential(format!("{field} {path}: {e}")))?;
    Ok(Some(Zeroizing::new(bytes)))
}

/// TLS as hyper's client takes a connection.
struct Stream(TlsStream<TcpStream>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
