//! Fetching the keys of a JWT issuer: one GET over a fresh connection, no redirects at all, a cap on bytes and time.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ringmail_proto::tls;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::jwks::JWKS_BYTES_MAX;
use crate::files;

/// One fetch, from the name's resolution to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a file of roots.
const ROOTS_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Fetches from one URL.
pub(super) struct Client {
    url: Uri,
    /// None for plain HTTP to a loopback address.
    tls: Option<TlsConnector>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.url)
    }
}

impl Client {
    pub(super) fn new(url: Uri, root_cert: &Path) -> io::Result<Self> {
        let tls = match url.scheme_str() {
            Some("https") => Some(connector(root_cert)?),
            _ => None,
        };
        Ok(Self { url, tls })
    }

    pub(super) async fn fetch(&self) -> io::Result<Vec<u8>> {
        tokio::time::timeout(FETCH_TIMEOUT, self.exchange())
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn exchange(&self) -> io::Result<Vec<u8>> {
        let host = self.url.host().unwrap_or_default();
        let bare = host.trim_matches(['[', ']']).to_owned();
        let default = if self.tls.is_some() { 443 } else { 80 };
        let port = self.url.port_u16().unwrap_or(default);
        let socket = TcpStream::connect((bare.as_str(), port)).await?;
        match &self.tls {
            None => self.ask(socket).await,
            Some(connector) => {
                let name = ServerName::try_from(bare).map_err(io::Error::other)?;
                self.ask(connector.connect(name, socket).await?).await
            }
        }
    }

    async fn ask(
        &self,
        socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> io::Result<Vec<u8>> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket))
            .await
            .map_err(io::Error::other)?;
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let host = self.url.host().unwrap_or_default();
        let authority = match self.url.port_u16() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let request = Request::get(path)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let exchange = async move {
            let response = sender
                .send_request(request)
                .await
                .map_err(io::Error::other)?;
            if response.status() != StatusCode::OK {
                let status = response.status().as_u16();
                return Err(io::Error::other(format!("server answered {status}")));
            }
            let limit = usize::try_from(JWKS_BYTES_MAX).unwrap_or(usize::MAX);
            let body = Limited::new(response.into_body(), limit);
            let body = body.collect().await.map_err(io::Error::other)?;
            Ok(body.to_bytes().to_vec())
        };
        // The connection is driven here and ends with the exchange: no task is left behind.
        tokio::pin!(exchange, connection);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            ended = &mut connection => {
                ended.map_err(io::Error::other)?;
                exchange.await
            }
        }
    }
}

fn connector(root_cert: &Path) -> io::Result<TlsConnector> {
    let pem = files::read(root_cert, ROOTS_BYTES_MAX)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", root_cert.display())))?;
    let mut roots = RootCertStore::empty();
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem).flatten().collect();
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        let problem = format!("{}: holds no certificate", root_cert.display());
        return Err(io::Error::other(problem));
    }
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
