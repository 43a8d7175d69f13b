//! What asks, and checks every answer. In an open loop a request is due at a fixed time and its latency counts from
//! then, so a stall is seen by all that it held up.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::server::SINK;

/// Timers have a resolution of a millisecond: being woken up to this late is their doing, later is a stall.
const TIMER_ERROR: Duration = Duration::from_millis(2);

/// A load.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// Keep-alive; closed loop, or open at a rate.
    Http1 {
        connections: usize,
        path: &'static str,
        per_second: Option<u32>,
    },
    /// Prior knowledge; closed loop.
    Http2 { connections: usize, streams: usize },
    /// A connection for every request.
    Connect { at_once: usize },
    /// Bytes as fast as they go; an exchange is a MiB.
    Bulk { connections: usize },
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) exchanges: f64,
    pub(crate) per_second: f64,
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
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
            latency: Histogram::new(3)?,
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
                let pace = per_second.map(|rate| Pace::new(begun, rate, connections, n));
                tasks.spawn(http1(address, path, pace, until));
            }
        }
        Shape::Http2 {
            connections,
            streams,
        } => {
            for _ in 0..connections {
                tasks.spawn(http2(address, streams, until));
            }
        }
        Shape::Connect { at_once } => {
            for _ in 0..at_once {
                tasks.spawn(connect(address, until));
            }
        }
        Shape::Bulk { connections } => {
            for _ in 0..connections {
                tasks.spawn(bulk(address, until));
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
        exchange(&mut socket, &request("/0", false), 0).await?;
        held.push(socket);
    }
    Ok(held)
}

/// When a connection's requests are due.
struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    /// Connection `n` of `connections` that share `rate`.
    fn new(begun: Instant, rate: u32, connections: usize, n: usize) -> Self {
        let between_any = Duration::from_secs(1) / rate;
        let connections = u32::try_from(connections).unwrap_or(u32::MAX);
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            next: begun + between_any * n,
            interval: between_any * connections,
        }
    }

    async fn due(&mut self) -> Instant {
        let due = self.next;
        self.next += self.interval;
        sleep_until(due).await;
        let woken = Instant::now();
        if woken - due < TIMER_ERROR {
            woken
        } else {
            due
        }
    }
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn request(path: &str, close: bool) -> Vec<u8> {
    let close = if close { "Connection: close\r\n" } else { "" };
    format!(
        "GET {path} HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench/1\r\nAccept: */*\r\n{close}\r\n"
    )
    .into_bytes()
}

async fn http1(
    address: SocketAddr,
    path: &str,
    mut pace: Option<Pace>,
    until: Instant,
) -> anyhow::Result<Count> {
    let mut count = Count::new()?;
    let mut socket = dial(address).await?;
    let request = request(path, false);
    let body = path[1..].parse()?;
    loop {
        let since = match &mut pace {
            Some(pace) => pace.due().await,
            None => Instant::now(),
        };
        if since >= until {
            return Ok(count);
        }
        let outcome = exchange(&mut socket, &request, body).await;
        count.exchange(since, &outcome);
        if outcome.is_err() {
            socket = dial(address).await?;
        }
    }
}

/// One request, and its whole answer, checked.
async fn exchange(socket: &mut TcpStream, request: &[u8], body: usize) -> io::Result<()> {
    socket.write_all(request).await?;
    let mut answer = Vec::with_capacity(512 + body);
    let mut whole = None;
    while whole.is_none_or(|whole| answer.len() < whole) {
        if socket.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if whole.is_none() {
            whole = answer
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
                .map(|end| end + 4 + body);
        }
    }
    if answer.starts_with(b"HTTP/1.1 200") && Some(answer.len()) == whole {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

async fn connect(address: SocketAddr, until: Instant) -> anyhow::Result<Count> {
    let mut count = Count::new()?;
    let request = request("/0", true);
    while Instant::now() < until {
        let since = Instant::now();
        let outcome = async { exchange(&mut dial(address).await?, &request, 0).await }.await;
        count.exchange(since, &outcome);
    }
    Ok(count)
}

async fn http2(address: SocketAddr, streams: usize, until: Instant) -> anyhow::Result<Count> {
    let socket = dial(address).await?;
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake::<_, Bytes>(socket)
        .await?;
    let driver = tokio::spawn(connection);
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let client = client.clone();
        tasks.spawn(async move {
            let mut count = Count::new()?;
            while Instant::now() < until {
                let since = Instant::now();
                count.exchange(since, &get(&client).await);
            }
            anyhow::Ok(count)
        });
    }
    let mut total = Count::new()?;
    while let Some(count) = tasks.join_next().await {
        let count = count??;
        total.latency.add(&count.latency)?;
        total.failed += count.failed;
    }
    driver.abort();
    Ok(total)
}

async fn get(client: &h2::client::SendRequest<Bytes>) -> io::Result<()> {
    let mut client = client.clone().ready().await.map_err(io::Error::other)?;
    let request = http::Request::get("http://bench/0")
        .header("user-agent", "bench/1")
        .body(());
    let request = request.map_err(io::Error::other)?;
    let (response, _) = client
        .send_request(request, true)
        .map_err(io::Error::other)?;
    let mut response = response.await.map_err(io::Error::other)?;
    while let Some(data) = response.body_mut().data().await {
        data.map_err(io::Error::other)?;
    }
    if response.status() == 200 {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

async fn bulk(address: SocketAddr, until: Instant) -> anyhow::Result<Count> {
    let mut count = Count::new()?;
    let mut socket = dial(address).await?;
    socket.write_all(SINK).await?;
    let block = vec![b'x'; 1 << 20];
    let mut sent = SINK.len() as u64;
    while Instant::now() < until {
        let since = Instant::now();
        socket.write_all(&block).await?;
        sent += block.len() as u64;
        count.exchange(since, &Ok(()));
    }
    socket.shutdown().await?;
    if socket.read_u64().await? == sent {
        Ok(count)
    } else {
        anyhow::bail!("bulk bytes were lost")
    }
}
