//! Probes of the kubelet that only make sense at the app itself: the injector sends them to us, and we ask the app as
//! the kubelet would have. A connection that we accept says nothing of the app's; gRPC and TLS in plaintext would not
//! be let through to it.
//!
//! Limits: [`PROBES_MAX`], [`TIMEOUT_MAX`] for one, [`HEAD_BYTES_MAX`] of an answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use ringmail_proto::health::health_check_response::ServingStatus;
use ringmail_proto::health::{HealthCheckRequest, health_client::HealthClient};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;

use crate::listen::{Party, connect};
use crate::tls::anyone;

/// Probes of one pod.
const PROBES_MAX: usize = 64;
/// The longest that a probe may take.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Bytes of an answer that are read for its status.
const HEAD_BYTES_MAX: u64 = 16 * 1024;

/// The probes of our pod, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Probes(Vec<Probe>);

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Probe {
    port: u16,
    asks: Asks,
    timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Asks {
    /// Does it listen?
    Connection,
    /// Is that gRPC service serving?
    Grpc(String),
    /// A GET over TLS, whoever answers: the request's head.
    Https(String),
}

impl Probes {
    /// As the injector writes them: a JSON list of Kubernetes probes, with ports by number.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let all: Vec<Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if all.len() > PROBES_MAX {
            return Err(format!("lists more than {PROBES_MAX}"));
        }
        let probes = all.iter().enumerate().map(|(number, written)| {
            let probe = Probe::read(written);
            probe.ok_or_else(|| format!("number {number} is no probe"))
        });
        probes.collect::<Result<_, _>>().map(Self)
    }

    /// Asks the app on `own`, an address of the pod, by the number of the probe.
    pub(crate) async fn ask(
        &self,
        number: &str,
        own: IpAddr,
        mark: Option<u32>,
    ) -> Result<(), String> {
        let index: usize = number.parse().map_err(|_| "no such probe")?;
        let probe = self.0.get(index).ok_or("no such probe")?;
        let asked = probe.ask(SocketAddr::new(own, probe.port), mark);
        timeout(probe.timeout, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {:?}", probe.timeout)))
    }
}

impl FromStr for Probes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text)
    }
}

impl Probe {
    fn read(written: &Value) -> Option<Self> {
        let kind = |name| written.get(name).filter(|kind| kind.is_object());
        let (of, asks) = if let Some(tcp) = kind("tcpSocket") {
            (tcp, Asks::Connection)
        } else if let Some(grpc) = kind("grpc") {
            let service = grpc["service"].as_str().unwrap_or_default();
            (grpc, Asks::Grpc(service.to_owned()))
        } else {
            let get = kind("httpGet")?;
            (get, Asks::Https(request(get)?))
        };
        let seconds = written["timeoutSeconds"].as_u64().unwrap_or(1).max(1);
        Some(Self {
            port: u16::try_from(of["port"].as_u64()?).ok()?,
            asks,
            timeout: Duration::from_secs(seconds).min(TIMEOUT_MAX),
        })
    }

    async fn ask(&self, app: SocketAddr, mark: Option<u32>) -> Result<(), String> {
        let socket = connect(app, Party::App, mark)
            .await
            .map_err(|error| format!("{app}: {error}"))?;
        match &self.asks {
            Asks::Connection => Ok(()),
            Asks::Grpc(service) => is_serving(socket, service).await,
            Asks::Https(request) => answers(socket, request)
                .await
                .map_err(|error| error.to_string())
                .and_then(|status| match status {
                    200..400 => Ok(()),
                    other => Err(format!("status {other}")),
                }),
        }
    }
}

/// The head of a GET; none where a header would not be one.
fn request(get: &Value) -> Option<String> {
    let path = get["path"].as_str().unwrap_or("/");
    let mut head = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n");
    let headers = get["httpHeaders"].as_array().into_iter().flatten();
    let mut has_host = false;
    for header in headers {
        let (name, value) = (header["name"].as_str()?, header["value"].as_str()?);
        has_host |= name.eq_ignore_ascii_case("host");
        head += &format!("{name}: {value}\r\n");
    }
    if !has_host {
        head += "Host: localhost\r\n";
    }
    let lines = head.matches("\r\n").count();
    let is_text = head
        .chars()
        .all(|c| !c.is_control() || c == '\r' || c == '\n');
    let is_whole =
        head.split("\r\n").count() == lines + 1 && !head.replace("\r\n", "").contains(['\r', '\n']);
    (is_text && is_whole && path.starts_with('/') && !path.contains(' ')).then(|| head + "\r\n")
}

async fn is_serving(socket: TcpStream, service: &str) -> Result<(), String> {
    let mut socket = Some(TokioIo::new(socket));
    let connect = tower::service_fn(move |_| {
        let socket = socket.take().ok_or(io::ErrorKind::NotConnected);
        async move { socket.map_err(io::Error::from) }
    });
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(connect)
        .await
        .map_err(|error| error.to_string())?;
    let asked = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(channel).check(asked).await;
    match answer.map(|answer| answer.into_inner().status()) {
        Ok(ServingStatus::Serving) => Ok(()),
        Ok(other) => Err(format!("{other:?}")),
        Err(status) => Err(status.to_string()),
    }
}

/// The status of the answer. Like the kubelet we ask no certificate: it is our own pod that we talk to.
async fn answers(socket: TcpStream, request: &str) -> io::Result<u16> {
    let config: Arc<ClientConfig> = anyone().map_err(io::Error::other)?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut stream = TlsConnector::from(config).connect(name, socket).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut limited = stream.take(HEAD_BYTES_MAX);
    while !answer.contains(&b'\n') && limited.read_buf(&mut answer).await? > 0 {}
    let line = String::from_utf8_lossy(&answer);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    status
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| io::Error::other("the answer is no HTTP/1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_those_of_kubernetes() {
        let probes = Probes::read(
            r#"[{"tcpSocket":{"port":7000},"timeoutSeconds":3},{"grpc":{"port":9000,"service":"s"}},
                {"httpGet":{"port":8443,"path":"/ok","scheme":"HTTPS","httpHeaders":[{"name":"A","value":"b"}]}}]"#,
        )
        .expect("valid");
        let asks: Vec<_> = probes
            .0
            .iter()
            .map(|one| (one.port, one.asks.clone()))
            .collect();
        let head = "GET /ok HTTP/1.1\r\nConnection: close\r\nA: b\r\nHost: localhost\r\n\r\n";
        let expected = [
            (7000, Asks::Connection),
            (9000, Asks::Grpc("s".into())),
            (8443, Asks::Https(head.into())),
        ];
        assert_eq!(asks, expected);
        assert_eq!(probes.0[0].timeout, Duration::from_secs(3));
        assert_eq!(probes.0[1].timeout, Duration::from_secs(1));
    }

    #[test]
    fn what_is_no_probe_is_refused() {
        for text in [
            "",
            "{}",
            "[1]",
            "[{}]",
            r#"[{"tcpSocket":{"port":70000}}]"#,
            r#"[{"tcpSocket":{"port":"http"}}]"#,
            r#"[{"httpGet":{"port":1,"path":"/a b"}}]"#,
            r#"[{"httpGet":{"port":1,"path":"/a\r\nX: y"}}]"#,
            r#"[{"httpGet":{"port":1,"httpHeaders":[{"name":"a","value":"b\nc"}]}}]"#,
        ] {
            assert!(Probes::read(text).is_err(), "{text}");
        }
    }
}
