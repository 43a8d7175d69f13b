//! Every row on every pair, round after round, and what came of it.

use std::io::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::arguments::Arguments;
use crate::client;
use crate::pair::{Pair, Protocol};
use crate::rows::{IDLE, MEMORY, ROWS, Row, Shape};
use crate::usage;

/// Connections, certificates and caches come first.
const WARM_UP: Duration = Duration::from_millis(300);

/// All that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) pairs: Vec<String>,
    pub(crate) rows: Vec<RowResult>,
    pub(crate) memory: Vec<MemoryResult>,
}

/// One row; `samples` has the rounds of each pair, in the pairs' order.
#[derive(Debug, Serialize)]
pub(crate) struct RowResult {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) samples: Vec<Vec<Sample>>,
}

/// One load on one pair; what failed as a whole has no figures.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    /// Of both proxies, in the row's unit.
    pub(crate) cpu: f64,
    #[serde(flatten)]
    pub(crate) figures: client::Figures,
}

/// Resident memory of one pair: the client's proxy, then the server's.
#[derive(Debug, Serialize)]
pub(crate) struct MemoryResult {
    pub(crate) pair: String,
    pub(crate) idle: Vec<usage::Memory>,
    pub(crate) with_connections: Vec<usage::Memory>,
    pub(crate) at_end: Vec<usage::Memory>,
}

/// Measures what was asked for. A load that fails on one pair is said and does not end the others.
pub(crate) fn all(arguments: &Arguments, pairs: &[Pair<'_>]) -> anyhow::Result<Results> {
    let mut results = Results {
        rounds: arguments.rounds(),
        seconds: arguments.duration().as_secs_f64(),
        pairs: pairs.iter().map(|pair| pair.name.clone()).collect(),
        rows: Vec::new(),
        memory: Vec::new(),
    };
    // First, while the proxies have done nothing else.
    if arguments.has_row(MEMORY) {
        for pair in pairs {
            results.memory.push(memory(pair)?);
        }
    }
    for row in ROWS.iter().filter(|row| arguments.has_row(row.key)) {
        let mut samples = vec![Vec::new(); pairs.len()];
        for round in 1..=arguments.rounds() {
            progress(&format!(
                "{}, round {round} of {}",
                row.key,
                arguments.rounds()
            ));
            for (pair, samples) in pairs.iter().zip(&mut samples) {
                match measure(pair, row, arguments.duration()) {
                    Ok(sample) => samples.push(sample),
                    Err(error) => eprintln!("{} on {}: {error:#}", row.key, pair.name),
                }
            }
        }
        results.rows.push(RowResult {
            key: row.key,
            title: row.title,
            unit: row.cost.unit(),
            samples,
        });
    }
    for (result, pair) in results.memory.iter_mut().zip(pairs) {
        result.at_end = pair.memory()?;
    }
    Ok(results)
}

/// A run takes minutes.
fn progress(what: &str) {
    let mut error = std::io::stderr();
    // Nobody may be looking.
    let _ = writeln!(error, "{what}");
}

fn measure(pair: &Pair<'_>, row: &Row, duration: Duration) -> anyhow::Result<Sample> {
    load(pair, row.shape, WARM_UP)?;
    let before = pair.cpu()?;
    let figures = load(pair, row.shape, duration)?;
    let used = pair.cpu()? - before;
    Ok(Sample {
        cpu: row.cost.of(used.as_secs_f64() * 1e6 / figures.exchanges),
        figures,
    })
}

fn load(pair: &Pair<'_>, shape: Shape, duration: Duration) -> anyhow::Result<client::Figures> {
    let address = pair.address(shape.protocol());
    let work = client::run(shape, address, duration);
    pair.client.namespace.block_on(work)?
}

fn memory(pair: &Pair<'_>) -> anyhow::Result<MemoryResult> {
    progress(&format!("{MEMORY}: {}", pair.name));
    let idle = pair.memory()?;
    let address = pair.address(Protocol::Http1);
    let held = pair
        .client
        .namespace
        .block_on(client::hold(IDLE, address))??;
    let with_connections = pair.memory()?;
    drop(held);
    Ok(MemoryResult {
        pair: pair.name.clone(),
        idle,
        with_connections,
        at_end: Vec::new(),
    })
}
