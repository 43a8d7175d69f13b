//! What asks: HTTP/2 through the proxy of its pod, each request when it is due, however many are not answered yet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::fleet::{FREE, RUN};
use crate::judge::{Asked, Outcome};
use crate::trace::Arrival;

/// Connections to each pod: one has a hundred streams, and a stall holds up more.
const CONNECTIONS: usize = 4;
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections to all pods.
#[derive(Debug, Clone)]
pub(crate) struct Client(Arc<Vec<Target>>);

#[derive(Debug)]
struct Target {
    address: SocketAddr,
    connections: Vec<SendRequest<Bytes>>,
}

/// What is asked: of which limit, and in which bucket of it.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) path: &'static str,
    pub(crate) name: String,
}

impl Client {
    /// Connects to each of these.
    pub(crate) async fn connect(addresses: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let mut targets = Vec::new();
        for address in addresses {
            let mut connections = Vec::new();
            for _ in 0..CONNECTIONS {
                connections.push(connect(address).await.context(address)?);
            }
            targets.push(Target {
                address,
                connections,
            });
        }
        Ok(Self(Arc::new(targets)))
    }

    /// Asks every pod once, on every connection.
    pub(crate) async fn warm(self, path: &'static str) -> anyhow::Result<()> {
        let run = Run {
            path,
            name: "warm".to_owned(),
        };
        for (pod, n) in (0..self.0.len()).flat_map(|pod| (0..CONNECTIONS).map(move |n| (pod, n))) {
            let (connection, request) = self.request(pod, n, &run, true)?;
            let outcome = ask(connection, request, Instant::now()).await;
            anyhow::ensure!(
                outcome.outcome == Outcome::Admitted,
                "the first request to pod {pod} is {:?}",
                outcome.outcome
            );
        }
        Ok(())
    }

    /// Asks as the trace says.
    pub(crate) async fn play(self, run: Run, trace: Vec<Arrival>) -> anyhow::Result<Vec<Asked>> {
        let (mut tasks, mut all) = (JoinSet::new(), Vec::with_capacity(trace.len()));
        let begun = Instant::now();
        for (n, arrival) in trace.into_iter().enumerate() {
            if begun.elapsed() < arrival.at {
                sleep_until(begun + arrival.at).await;
            }
            let (connection, request) = self.request(arrival.pod, n, &run, arrival.is_limited)?;
            tasks.spawn(async move {
                let asked = ask(connection, request, begun).await;
                Asked {
                    is_limited: arrival.is_limited,
                    ..asked
                }
            });
        }
        while let Some(asked) = tasks.join_next().await {
            all.push(asked?);
        }
        Ok(all)
    }

    fn request(
        &self,
        pod: usize,
        n: usize,
        run: &Run,
        is_limited: bool,
    ) -> anyhow::Result<(SendRequest<Bytes>, Request<()>)> {
        let target = self.0.get(pod).context("there is no such pod")?;
        let path = if is_limited { run.path } else { FREE };
        let request = Request::get(format!("http://{}{path}", target.address))
            .header(RUN, &run.name)
            .body(())?;
        Ok((target.connections[n % CONNECTIONS].clone(), request))
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Bytes>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake::<_, Bytes>(socket)
        .await?;
    tokio::spawn(connection);
    Ok(client)
}

/// One request and its answer. A limit is not for it unless the caller says so.
async fn ask(connection: SendRequest<Bytes>, request: Request<()>, begun: Instant) -> Asked {
    let mut at = begun.elapsed();
    let exchange = async {
        let mut connection = connection.ready().await?;
        at = begun.elapsed();
        let (response, _) = connection.send_request(request, true)?;
        let mut response = response.await?;
        // A body that is left would be a reset.
        while let Some(data) = response.body_mut().data().await {
            data?;
        }
        Ok::<_, h2::Error>(response.status().as_u16())
    };
    let status = timeout(PATIENCE, exchange).await;
    let outcome = match status {
        Ok(Ok(200)) => Outcome::Admitted,
        Ok(Ok(429)) => Outcome::Refused,
        Ok(Ok(_) | Err(_)) | Err(_) => Outcome::Failed,
    };
    Asked {
        at,
        answered: begun.elapsed(),
        outcome,
        is_limited: false,
    }
}
