//! HTTP/1.1 by hand: a request, and its whole answer.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::{Count, dial};

/// Timers have a resolution of a millisecond: being woken up to this late is their doing, later is a stall.
const TIMER_ERROR: Duration = Duration::from_millis(2);

/// When a connection's requests are due.
pub(super) struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    /// Connection `n` of `connections` that share `rate`.
    pub(super) fn new(begun: Instant, rate: u32, connections: usize, n: usize) -> Self {
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

/// As much of a wrong answer is shown.
const SHOWN_BYTES: usize = 500;

/// Keep-alive, at a pace or as fast as answers come.
pub(super) async fn keep_alive(
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

/// A connection for every request.
pub(super) async fn connect(address: SocketAddr, until: Instant) -> anyhow::Result<Count> {
    let mut count = Count::new()?;
    let request = request("/0", true);
    while Instant::now() < until {
        let since = Instant::now();
        let outcome = async { exchange(&mut dial(address).await?, &request, 0).await }.await;
        count.exchange(since, &outcome);
    }
    Ok(count)
}

pub(super) fn request(path: &str, close: bool) -> Vec<u8> {
    let close = if close { "Connection: close\r\n" } else { "" };
    format!(
        "GET {path} HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench/1\r\nAccept: */*\r\n{close}\r\n"
    )
    .into_bytes()
}

/// One request, and its whole answer, checked.
pub(super) async fn exchange(
    socket: &mut TcpStream,
    request: &[u8],
    body: usize,
) -> io::Result<()> {
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
        let answer = String::from_utf8_lossy(&answer[..answer.len().min(SHOWN_BYTES)]);
        Err(io::Error::other(format!(
            "not what was asked for: {answer:?}"
        )))
    }
}
