//! The same app, asked at the same rate directly and through both proxies, taking turns: what the mesh adds. Clients
//! are plain threads, whose sleep is fine enough to be on time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use hdrhistogram::Histogram;
use ringmail_tests::netns::Namespace;

use crate::stage::{Stage, WEB_PORT, cart_addresses};

/// Of all connections together.
const PER_SECOND: u32 = 1000;
const CONNECTIONS: u32 = 4;
/// Turns of each, and how long one is.
const TURNS: u32 = 4;
const TURN: Duration = Duration::from_secs(1);
/// For one answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes of an answer's body.
const BODY_BYTES: usize = 128;
/// The longest answer.
const ANSWER_BYTES_MAX: usize = 4096;

pub(super) fn compared(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let [bare_front, bare_cart] = &stage.bare;
    let direct = SocketAddr::new(bare_cart.v4.into(), WEB_PORT);
    let [meshed, _] = cart_addresses();
    let (mut without, mut with) = (Histogram::new(3)?, Histogram::new(3)?);
    for _ in 0..TURNS {
        without.add(turn(&bare_front.namespace, direct)?)?;
        stage.interrupt.check()?;
        with.add(turn(&stage.front.pod.namespace, meshed)?)?;
        stage.interrupt.check()?;
    }
    let quantiles = |histogram: &Histogram<u64>| {
        [0.5, 0.99].map(|quantile| histogram.value_at_quantile(quantile))
    };
    let ([direct50, direct99], [meshed50, meshed99]) = (quantiles(&without), quantiles(&with));
    for (name, histogram) in [("direct", &without), ("meshed", &with)] {
        let [p50, p99] = quantiles(histogram);
        let answers = histogram.len();
        stage.teller.say(format_args!(
            "{name}: {answers} answers at {PER_SECOND}/s, p50 {p50} µs, p99 {p99} µs"
        ));
    }
    Ok(format!(
        "p50 {direct50} -> {meshed50} µs, p99 {direct99} -> {meshed99} µs, HTTP/1.1 at {PER_SECOND}/s"
    ))
}

/// One turn of all connections: microseconds of each answer from when its request was due.
fn turn(namespace: &Namespace, address: SocketAddr) -> anyhow::Result<Histogram<u64>> {
    namespace.run(|| {
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CONNECTIONS)
                .map(|number| scope.spawn(move || one_client(address, number)))
                .collect();
            let mut total = Histogram::new(3)?;
            for client in clients {
                total.add(client.join().map_err(|_| anyhow!("a client died"))??)?;
            }
            anyhow::Ok(total)
        })
    })?
}

fn one_client(address: SocketAddr, number: u32) -> anyhow::Result<Histogram<u64>> {
    let mut socket = TcpStream::connect_timeout(&address, LIMIT)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(LIMIT))?;
    let mut latency = Histogram::new(3)?;
    // Connecting is not what is measured, nor is the first request's new connection between the proxies.
    exchange(&mut socket)?;
    let begin = Instant::now();
    for place in (number..).step_by(CONNECTIONS as usize) {
        let due = begin + Duration::from_secs(1) * place / PER_SECOND;
        if due >= begin + TURN {
            return Ok(latency);
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        exchange(&mut socket)?;
        latency.record(u64::try_from(due.elapsed().as_micros())?)?;
    }
    Ok(latency)
}

/// One request on a connection with keep-alive, whose answer must be a whole 200.
fn exchange(socket: &mut TcpStream) -> anyhow::Result<()> {
    socket
        .write_all(format!("GET /bytes/{BODY_BYTES} HTTP/1.1\r\nhost: cart\r\n\r\n").as_bytes())?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    let mut length = 0;
    loop {
        let read = socket.read(&mut answer[length..])?;
        ensure!(read > 0, "the answer ended early");
        length += read;
        let head = answer[..length]
            .windows(4)
            .position(|end| end == b"\r\n\r\n");
        if head.is_some_and(|head| length >= head + 4 + BODY_BYTES) {
            break;
        }
    }
    let status = answer.get(..12).context("a status line")?;
    ensure!(
        status == b"HTTP/1.1 200",
        "{}",
        String::from_utf8_lossy(status)
    );
    Ok(())
}
