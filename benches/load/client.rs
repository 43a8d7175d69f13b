//! What asks, and checks every answer. In an open loop a request is due at a fixed time and its latency counts from
//! then, so a stall is seen by all that it held up.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::rows::Shape;

mod bulk;
mod http1;
mod http2;

/// Latencies above are taken for this.
const LATENCY_MICROS_MAX: u64 = 60_000_000;

/// What came of a load.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Figures {
    pub(crate) exchanges: f64,
    pub(crate) per_second: f64,
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
    pub(crate) p999_micros: f64,
    pub(crate) failed: f64,
}

/// Of one connection.
struct Count {
    latency: Histogram<u64>,
    failed: u64,
}

impl Count {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            latency: Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3)?,
            failed: 0,
        })
    }

    fn exchange(&mut self, since: Instant, outcome: &io::Result<()>) {
        match outcome {
            Ok(()) => self
                .latency
                .saturating_record(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)),
            Err(_) => self.failed += 1,
        }
    }
}

/// Loads `address` for a while.
pub(crate) async fn run(
    shape: Shape,
    address: SocketAddr,
    duration: Duration,
) -> anyhow::Result<Figures> {
    let begun = Instant::now();
    let until = begun + duration;
    let mut tasks = JoinSet::new();
    match shape {
        Shape::Http1 {
            connections,
            path,
            per_second,
        } => {
            for n in 0..connections {
                let pace = per_second.map(|rate| http1::Pace::new(begun, rate, connections, n));
                tasks.spawn(http1::keep_alive(address, path, pace, until));
            }
        }
        Shape::Http2 {
            connections,
            streams,
        } => {
            for _ in 0..connections {
                tasks.spawn(http2::streams(address, streams, until));
            }
        }
        Shape::Connect { at_once } => {
            for _ in 0..at_once {
                tasks.spawn(http1::connect(address, until));
            }
        }
        Shape::Up { connections } => {
            for _ in 0..connections {
                tasks.spawn(bulk::up(address, until));
            }
        }
        Shape::Down { connections } => {
            for _ in 0..connections {
                tasks.spawn(bulk::down(address, until));
            }
        }
    }
    let mut total = Count::new()?;
    while let Some(count) = tasks.join_next().await {
        let count = count??;
        total.latency.add(&count.latency)?;
        total.failed += count.failed;
    }
    let exchanges = total.latency.len() as f64;
    Ok(Figures {
        exchanges,
        per_second: exchanges / begun.elapsed().as_secs_f64(),
        p50_micros: total.latency.value_at_quantile(0.5) as f64,
        p99_micros: total.latency.value_at_quantile(0.99) as f64,
        p999_micros: total.latency.value_at_quantile(0.999) as f64,
        failed: total.failed as f64,
    })
}

/// Connections on which one request was made, and which stay open.
pub(crate) async fn hold(
    connections: usize,
    address: SocketAddr,
) -> anyhow::Result<Vec<TcpStream>> {
    let mut held = Vec::new();
    for _ in 0..connections {
        let mut socket = dial(address).await?;
        http1::exchange(&mut socket, &http1::request("/0", false), 0).await?;
        held.push(socket);
    }
    Ok(held)
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}
