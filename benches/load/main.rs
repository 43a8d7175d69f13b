//! `cargo bench --bench load`: the same load sent directly and through a pair of sidecars, in turn, over several
//! rounds; prints medians. Pods are network namespaces with real capture; proxies have one worker each and share one
//! processor, client and server the other.

/// The pods: one pair in the mesh, one outside.
mod pods;

/// What answers.
mod server;

/// What asks.
mod client;

/// What a process used.
mod usage;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use ringmail_tests::bed::Bed;

use client::{Figures, Shape};
use pods::{Pair, Pods};

/// Rounds of every row; medians are over these.
const ROUNDS: usize = 3;
/// How long each load lasts.
const DURATION: Duration = Duration::from_secs(3);
/// Idle connections in the memory row.
const IDLE: usize = 1000;

const ROWS: &[(&str, Shape)] = &[
    (
        "HTTP/1.1 small, 64 connections",
        Shape::Http1 {
            connections: 64,
            path: "/0",
            per_second: None,
        },
    ),
    (
        "HTTP/1.1 10 KiB, 64 connections",
        Shape::Http1 {
            connections: 64,
            path: "/10240",
            per_second: None,
        },
    ),
    (
        "HTTP/1.1 small, 2 000/s",
        Shape::Http1 {
            connections: 64,
            path: "/0",
            per_second: Some(2000),
        },
    ),
    (
        "HTTP/2 small, 10 x 20 streams",
        Shape::Http2 {
            connections: 10,
            streams: 20,
        },
    ),
    (
        "new connection for each request",
        Shape::Connect { at_once: 16 },
    ),
    (
        "bulk TCP up, 4 connections, per MiB",
        Shape::Bulk { connections: 4 },
    ),
];

fn main() -> ExitCode {
    let bed = match Bed::start() {
        Ok(bed) => bed,
        Err(reason) => {
            eprintln!("no pods, no bench: {}", reason.0);
            return ExitCode::FAILURE;
        }
    };
    // `cargo bench -- NAME` runs the rows whose name contains NAME.
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    match run(bed, &wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(bed: Bed, wanted: &str) -> anyhow::Result<()> {
    Pods::with(bed, |pods| {
        let mut table = format!(
            "{:36} {:>10} {:>10} {:>8} {:>8} {:>8} {:>8}\n",
            "", "direct/s", "meshed/s", "CPU µs", "p50 +µs", "p99 +µs", "failed"
        );
        for (name, shape) in ROWS.iter().filter(|(name, _)| name.contains(wanted)) {
            let rounds = (0..ROUNDS).map(|_| {
                Ok((
                    measure(pods, pods.direct(), *shape)?,
                    measure(pods, pods.meshed(), *shape)?,
                ))
            });
            let rounds = rounds.collect::<anyhow::Result<Vec<_>>>()?;
            let median = |of: &dyn Fn(&(Row, Row)) -> f64| {
                let mut values: Vec<f64> = rounds.iter().map(of).collect();
                values.sort_by(f64::total_cmp);
                values[values.len() / 2]
            };
            writeln!(
                table,
                "{name:36} {:10.0} {:10.0} {:8.2} {:8.0} {:8.0} {:8.0}",
                median(&|(direct, _)| direct.figures.per_second),
                median(&|(_, meshed)| meshed.figures.per_second),
                median(&|(_, meshed)| meshed.cpu_micros),
                median(&|(direct, meshed)| meshed.figures.p50_micros - direct.figures.p50_micros),
                median(&|(direct, meshed)| meshed.figures.p99_micros - direct.figures.p99_micros),
                median(&|(direct, meshed)| direct.figures.failed + meshed.figures.failed),
            )?;
        }
        if wanted.is_empty() || "memory".contains(wanted) {
            table += &memory(pods)?;
        }
        writeln!(std::io::stdout(), "{table}")?;
        Ok(())
    })
}

/// One load on one pair.
struct Row {
    figures: Figures,
    /// Of both proxies, for one exchange.
    cpu_micros: f64,
}

fn measure(pods: &Pods<'_>, pair: Pair<'_>, shape: Shape) -> anyhow::Result<Row> {
    let address = pair.address;
    // Connections, certificates and caches first.
    pair.client
        .namespace
        .block_on(client::run(shape, address, Duration::from_millis(300)))??;
    let before = pods.proxies_cpu()?;
    let figures = pair
        .client
        .namespace
        .block_on(client::run(shape, address, DURATION))??;
    let used = pods.proxies_cpu()? - before;
    Ok(Row {
        cpu_micros: used.as_secs_f64() * 1e6 / figures.exchanges,
        figures,
    })
}

fn memory(pods: &Pods<'_>) -> anyhow::Result<String> {
    let text = |what: &str, [client, server]: [f64; 2]| {
        format!("RSS {what}: client's proxy {client:.1} MiB, server's proxy {server:.1} MiB\n")
    };
    let before = pods.proxies_rss()?;
    let address = pods.meshed().address;
    let held = pods
        .meshed()
        .client
        .namespace
        .block_on(client::hold(IDLE, address))??;
    let with = pods.proxies_rss()?;
    drop(held);
    Ok(text("after the rows above", before)
        + &text(&format!("with {IDLE} idle HTTP/1.1 connections"), with))
}
