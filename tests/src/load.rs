//! Clients that know nothing of the mesh, and load by many of them at once.
//!
//! In an open loop requests are due at fixed times, and a latency counts from when its request was due: a stall is seen
//! by every request that it held up. In a closed loop each client asks again as soon as it is answered.

use std::{collections::BTreeMap, fmt, io, net::SocketAddr, time::Duration};

use anyhow::Context;
use hdrhistogram::Histogram;
use tokio::{
    net::TcpStream,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use crate::netns::Namespace;

/// HTTP/1.1 and HTTP/2.
mod http;

/// gRPC over HTTP/2 without TLS.
mod grpc;

/// Lines, after the server's banner.
mod lines;

pub use grpc::{Grpc, GrpcChannel};
pub use http::{Http1, Http2, Reply, fetch};
pub use lines::Lines;

/// An exchange that takes longer has failed.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that failed waits so long before it connects again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// The most different reasons that are told apart.
const REASONS_MAX: usize = 100;

/// When requests are made.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// When the one before is answered.
    Closed,
    /// So many a second, of all clients together.
    Open {
        /// Requests a second.
        per_second: u32,
    },
}

/// A load: who asks, how many of them, how fast.
#[derive(Debug, Clone)]
pub struct Load {
    /// What each connection speaks and asks.
    pub client: Client,
    /// Connections, each with one request at a time.
    pub connections: u32,
    /// When to ask.
    pub pace: Pace,
}

/// What a client speaks, whom it asks and for what.
#[derive(Debug, Clone)]
pub enum Client {
    /// HTTP/1.1 with keep-alive: GET of a path.
    Http1(SocketAddr, String),
    /// HTTP/2 with prior knowledge: GET of a path.
    Http2(SocketAddr, String),
    /// `EchoService.Say`.
    Grpc(SocketAddr, String),
    /// A line to the server that speaks first.
    Lines(SocketAddr, String),
}

/// A connected client.
enum Connected {
    Http1(Http1),
    Http2(Http2),
    Grpc(Grpc),
    Lines(Lines),
}

impl Client {
    async fn connect(&self) -> io::Result<Connected> {
        Ok(match self {
            Self::Http1(address, path) => Connected::Http1(Http1::connect(*address, path).await?),
            Self::Http2(address, path) => Connected::Http2(Http2::connect(*address, path).await?),
            Self::Grpc(address, text) => Connected::Grpc(Grpc::connect(*address, text).await?),
            Self::Lines(address, text) => Connected::Lines(Lines::connect(*address, text).await?),
        })
    }
}

impl Connected {
    async fn exchange(&mut self) -> io::Result<()> {
        match self {
            Self::Http1(client) => client.exchange().await,
            Self::Http2(client) => client.exchange().await,
            Self::Grpc(client) => client.exchange().await,
            Self::Lines(client) => client.exchange().await,
        }
    }
}

/// What came of a load.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Exchanges that were answered as they should be.
    pub ok: u64,
    /// Exchanges that were not, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Of the exchanges that were answered, in microseconds.
    pub latency: Histogram<u64>,
}

impl Outcome {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            ok: 0,
            failed: BTreeMap::new(),
            latency: Histogram::new(3)?,
        })
    }

    /// All exchanges that failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    fn count(&mut self, due: Instant, result: io::Result<()>) {
        match result {
            Ok(()) => {
                self.ok += 1;
                let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
                // Saturating instead would stop at the 2 ms that an empty histogram has room for.
                let recorded = self.latency.record(micros);
                recorded.expect("a histogram without bounds grows");
            }
            Err(error) => {
                let reason = error.to_string();
                let is_known = self.failed.contains_key(&reason) || self.failed.len() < REASONS_MAX;
                *self
                    .failed
                    .entry(if is_known { reason } else { "other".into() })
                    .or_default() += 1;
            }
        }
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.ok += other.ok;
        for (reason, count) in &other.failed {
            *self.failed.entry(reason.clone()).or_default() += count;
        }
        Ok(self.latency.add(&other.latency)?)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quantile = |q| self.latency.value_at_quantile(q);
        write!(f, "{} ok, {} failed", self.ok, self.failures())?;
        write!(f, ", p50 {} µs, p99 {} µs", quantile(0.5), quantile(0.99))?;
        if self.failed.is_empty() {
            Ok(())
        } else {
            write!(f, ": {:?}", self.failed)
        }
    }
}

/// A load under way; dropped, it ends without an outcome.
#[derive(Debug)]
pub struct Running {
    stop: watch::Sender<bool>,
    progress: watch::Receiver<u64>,
    task: JoinHandle<anyhow::Result<Outcome>>,
}

impl Running {
    /// Starts a load in a pod.
    pub fn start(namespace: &Namespace, load: Load) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (answered, progress) = watch::channel(0);
        Self {
            stop,
            progress,
            task: namespace.spawn(run(load, stopped, answered)),
        }
    }

    /// How many exchanges have ended so far, well or not.
    pub fn exchanges(&self) -> u64 {
        *self.progress.borrow()
    }

    /// Stops the load: exchanges under way are finished and count.
    pub fn finish(self, namespace: &Namespace) -> anyhow::Result<Outcome> {
        let _ = self.stop.send(true);
        namespace.block_on(self.task)?.context("the load died")?
    }
}

async fn run(
    load: Load,
    stopped: watch::Receiver<bool>,
    answered: watch::Sender<u64>,
) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..load.connections {
        clients.spawn(one_client(
            load.clone(),
            number,
            start,
            stopped.clone(),
            answered.clone(),
        ));
    }
    let mut total = Outcome::new()?;
    while let Some(outcome) = clients.join_next().await {
        total.add(&outcome??)?;
    }
    Ok(total)
}

async fn one_client(
    load: Load,
    number: u32,
    start: Instant,
    mut stopped: watch::Receiver<bool>,
    answered: watch::Sender<u64>,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::new()?;
    let mut connected = None;
    for turn in 0.. {
        let due = match load.pace {
            Pace::Closed => Instant::now(),
            Pace::Open { per_second } => {
                let place = u64::from(number) + turn * u64::from(load.connections);
                start + Duration::from_secs_f64(place as f64 / f64::from(per_second))
            }
        };
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => break,
            () = sleep_until(due) => {}
        }
        let exchange = timeout(EXCHANGE_TIMEOUT, exchange(&load.client, &mut connected)).await;
        let result = exchange.unwrap_or_else(|_| Err(io::Error::other("timed out")));
        if result.is_err() {
            connected = None;
            sleep_until(Instant::now() + RECONNECT_PAUSE).await;
        }
        outcome.count(due, result);
        answered.send_modify(|count| *count += 1);
    }
    Ok(outcome)
}

async fn exchange(client: &Client, connected: &mut Option<Connected>) -> io::Result<()> {
    let connected = match connected {
        Some(connected) => connected,
        None => connected.insert(
            client
                .connect()
                .await
                .map_err(|error| prefixed("connect", &error))?,
        ),
    };
    connected.exchange().await
}

fn prefixed(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// A connection as all clients make it.
async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(EXCHANGE_TIMEOUT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
