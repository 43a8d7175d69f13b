//! What asks: HTTP/2 through the proxy of its pod, each request when it is due, however many are not answered yet.

use std::collections::BTreeMap;
use std::io::Write as _;
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
/// In which a proxy says why it answered itself.
const REASON: &str = "x-ringmail-reason";
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
            let (asked, why) = ask(connection, request, Instant::now()).await;
            anyhow::ensure!(
                asked.outcome == Outcome::Admitted,
                "the first request to pod {pod} is {:?}: {why:?}",
                asked.outcome
            );
        }
        Ok(())
    }

    /// Asks as the trace says, and says what failed why.
    pub(crate) async fn play(self, run: Run, trace: Vec<Arrival>) -> anyhow::Result<Vec<Asked>> {
        let (mut tasks, mut all) = (JoinSet::new(), Vec::with_capacity(trace.len()));
        let begun = Instant::now();
        for (n, arrival) in trace.into_iter().enumerate() {
            if begun.elapsed() < arrival.at {
                sleep_until(begun + arrival.at).await;
            }
            let (connection, request) = self.request(arrival.pod, n, &run, arrival.is_limited)?;
            tasks.spawn(async move {
                let (asked, why) = ask(connection, request, begun).await;
                let is_limited = arrival.is_limited;
                let asked = Asked {
                    is_limited,
                    ..asked
                };
                (asked, why)
            });
        }
        let mut failures = BTreeMap::<_, usize>::new();
        while let Some(joined) = tasks.join_next().await {
            let (asked, why) = joined?;
            all.push(asked);
            if let Some(why) = why {
                *failures.entry(why).or_default() += 1;
            }
        }
        if !failures.is_empty() {
            // Nobody may be looking.
            let _ = writeln!(std::io::stderr(), "{}: failed {failures:?}", run.name);
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

/// One request and its answer, or why there is none. A limit is not for it unless the caller says so.
async fn ask(
    connection: SendRequest<Bytes>,
    request: Request<()>,
    begun: Instant,
) -> (Asked, Option<String>) {
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
        Ok::<_, h2::Error>(response)
    };
    let (outcome, why) = match timeout(PATIENCE, exchange).await {
        Ok(Ok(response)) => match response.status().as_u16() {
            200 => (Outcome::Admitted, None),
            429 => (Outcome::Refused, None),
            status => {
                let reason = response.headers().get(REASON);
                (Outcome::Failed, Some(format!("{status} {reason:?}")))
            }
        },
        Ok(Err(error)) => (Outcome::Failed, Some(error.to_string())),
        Err(_) => (Outcome::Failed, Some("no answer in time".to_owned())),
    };
    let asked = Asked {
        at,
        answered: begun.elapsed(),
        outcome,
        is_limited: false,
    };
    (asked, why)
}
