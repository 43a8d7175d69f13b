//! Fetching the keys of a JWT issuer: one GET over a fresh connection, no redirects at all, a cap on bytes and time; and the
//! TLS of such clients.
//!
//! Where whoever writes an object says what is fetched, nothing that only this machine or its link reaches is dialled, nor
//! where clouds tell a machine its secrets: the addresses that a name has are looked at once, and one of these is dialled,
//! whatever the name means a moment later. Errors of kind `InvalidData` and `PermissionDenied` tell nothing of what else
//! can be reached from here; others are for the log.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
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
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use crate::files;

/// One fetch, from the name's resolution to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a key set.
pub(crate) const JWKS_BYTES_MAX: u64 = 256 * 1024;
/// Bytes of a file of roots.
const ROOTS_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where clouds tell a machine its own secrets, besides link-local addresses: AWS, Alibaba, Azure.
const METADATA: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// Fetches from one URL.
pub(crate) struct Client {
    url: Uri,
    reach: Reach,
    /// None for plain HTTP.
    tls: Option<TlsConnector>,
}

/// Which addresses are dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All.
    Anywhere,
    /// Those of other machines.
    Abroad,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.url)
    }
}

impl Client {
    pub(crate) fn new(url: Uri, root_cert: &Path, reach: Reach) -> io::Result<Self> {
        let tls = match url.scheme_str() {
            Some("https") => Some(connector(root_cert)?),
            _ => None,
        };
        Ok(Self { url, reach, tls })
    }

    pub(crate) async fn fetch(&self) -> io::Result<Vec<u8>> {
        tokio::time::timeout(FETCH_TIMEOUT, self.exchange())
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn exchange(&self) -> io::Result<Vec<u8>> {
        let host = self.url.host().unwrap_or_default();
        let bare = host.trim_matches(['[', ']']).to_owned();
        let default = if self.tls.is_some() { 443 } else { 80 };
        let port = self.url.port_u16().unwrap_or(default);
        let found = lookup_host((bare.as_str(), port)).await?;
        let may = |address: &SocketAddr| {
            let ip = address.ip();
            self.reach == Reach::Anywhere || !(is_local(ip) || is_own(ip))
        };
        let addresses: Vec<SocketAddr> = found.filter(may).collect();
        if addresses.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the host has no address but of this machine or its link, which are not dialled",
            ));
        }
        let socket = TcpStream::connect(addresses.as_slice()).await?;
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
                let problem = format!("server answered {status}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
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

/// Whether an address means this machine, its link, or nobody in particular; an IPv4 address also inside an IPv6 one.
fn is_local(ip: IpAddr) -> bool {
    if METADATA.contains(&ip) {
        return true;
    }
    match ip {
        IpAddr::V4(ip) => {
            let is_this_network = ip.octets()[0] == 0;
            // RFC 6890: of one network, with one host's own services.
            let is_protocol_assignment = ip.octets()[..3] == [192, 0, 0];
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_broadcast()
                || ip.is_multicast()
                || is_this_network
                || is_protocol_assignment
        }
        IpAddr::V6(ip) => {
            let inside = ip.to_ipv4().or_else(|| translated(ip));
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || inside.is_some_and(|ip| is_local(ip.into()))
        }
    }
}

/// The IPv4 address that an IPv6 address leads to: NAT64 (RFC 6052 section 2.1; RFC 8215, whose other prefixes end in it
/// as well), 6to4 (RFC 3056), and stateless translation (RFC 2765).
fn translated(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match ip.segments() {
        [0x64, 0xff9b, 0 | 1, .., high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some([a, b, c, d].into())
}

/// Whether it is an address of an interface of ours: then that is what we would call it from. Nothing is sent.
fn is_own(ip: IpAddr) -> bool {
    let unspecified: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let called_from = || {
        let socket = UdpSocket::bind((unspecified, 0))?;
        socket.connect((ip, 9))?;
        socket.local_addr()
    };
    called_from().is_ok_and(|address: SocketAddr| address.ip() == ip)
}

/// TLS of a client, by the roots in a file.
pub(crate) fn connector(root_cert: &Path) -> io::Result<TlsConnector> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_in_every_form() {
        let rows = [
            ("127.0.0.1", true),
            ("127.8.9.10", true),
            ("0.0.0.0", true),
            ("0.1.2.3", true),
            ("169.254.169.254", true),
            ("224.0.0.1", true),
            ("255.255.255.255", true),
            ("::1", true),
            ("::", true),
            ("::ffff:127.0.0.1", true),
            ("::127.0.0.1", true),
            ("::ffff:169.254.169.254", true),
            ("64:ff9b::a9fe:a9fe", true),
            ("fe80::1", true),
            ("ff02::1", true),
            ("fd00:ec2::254", true),
            ("100.100.100.200", true),
            ("168.63.129.16", true),
            ("::ffff:168.63.129.16", true),
            ("192.0.0.192", true),
            ("::ffff:0:127.0.0.1", true),
            ("64:ff9b:1::7f00:1", true),
            ("2002:7f00:1::5", true),
            ("2002:c000:201::5", false),
            ("10.0.0.1", false),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
            ("fd00::1", false),
            ("64:ff9b::c000:201", false),
        ];
        for (text, expected) in rows {
            assert_eq!(
                is_local(text.parse().expect("an address")),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn our_own_addresses() {
        for (text, expected) in [("127.0.0.1", true), ("192.0.2.1", false)] {
            let ip = text.parse().expect("an address");
            assert_eq!(is_own(ip), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_not_dialled() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bound");
        let port = listener.local_addr().expect("an address").port();
        for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"] {
            let url = format!("http://{host}:{port}/").parse().expect("a URL");
            let client = Client::new(url, Path::new(""), Reach::Abroad).expect("no roots needed");
            let error = client.fetch().await.expect_err("refused");
            assert!(error.to_string().contains("not dialled"), "{host}: {error}");
        }
    }
}
