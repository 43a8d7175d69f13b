//! `cargo bench --bench limits`: how near global rate limits come to one bucket that every request asks, over fifty real
//! proxies in network namespaces with a real controller; beside other ways to limit, on the same traces; and what they
//! cost.
//!
//! Every run is judged by itself: one ideal bucket is fed with the requests as they really came. Proxies, apps, client and
//! controller share the machine's processors, so it should be otherwise idle. Without a `redis-server` the rows of Redis
//! are left out.

/// What was asked for.
mod arguments;

/// When requests come, and where.
mod trace;

/// What is over, and what is lost.
mod judge;

/// What answers.
#[path = "../load/server.rs"]
mod server;

/// Fifty proxies.
mod fleet;

/// What asks.
mod client;

/// Other ways to limit.
mod beside;

/// One of them.
mod redis;

/// What a limit adds.
mod latency;

/// How a lease client reaches a controller.
#[path = "../fleet/dial.rs"]
mod dial;

/// Who runs where.
#[path = "../load/processor.rs"]
mod processor;

/// How much one ledger gives.
mod grants;

/// What people and machines read.
mod report;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use ringmail_tests::bed::Bed;
use ringmail_tests::mesh::Binaries;
use ringmail_tests::netns::Node;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use arguments::Arguments;
use client::Run;
use fleet::Fleet;
use judge::{Asked, judge};
use redis::Redis;
use report::{Results, Row};
use trace::{RATES, Rate, SHAPES, Shape};

/// What this is about, in the table.
const RINGMAIL: &str = "Ringmail";

/// Traces that run together.
type Group = Vec<(Rate, Shape, &'static str)>;

fn main() -> ExitCode {
    let bed = match Bed::start() {
        Ok(bed) => bed,
        Err(reason) => {
            eprintln!("no pods, no bench: {}", reason.0);
            return ExitCode::FAILURE;
        }
    };
    match run(bed, &Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(bed: Bed, arguments: &Arguments) -> anyhow::Result<()> {
    let binaries = Binaries::build()?;
    let node = Node::new(bed)?;
    let mut results = Results::default();
    let wants_traces = arguments.wants("traces");
    if wants_traces || arguments.wants("latency") {
        let fleet = Fleet::start(&node, &binaries)?;
        if wants_traces {
            for group in groups(arguments) {
                ours(&fleet, &group, arguments, &mut results)?;
            }
        }
        if arguments.wants("latency") {
            progress("latency");
            results.latency = Some(latency::measure(&fleet, arguments)?);
        }
    }
    if arguments.wants("beside") {
        beside_us(arguments, &mut results)?;
    }
    if arguments.wants("grants") {
        progress("grants");
        // Last: from here on we have one processor.
        results.grants = grants::measure(&node, &binaries, arguments)?;
    }
    // One trace's contenders are read together.
    let place = |row: &Row| {
        let rate = RATES.iter().position(|rate| rate.name == row.limit);
        let shape = SHAPES.iter().position(|(_, name, _)| *name == row.trace);
        (rate, shape)
    };
    results.runs.sort_by_key(place);
    report::print(&results)?;
    report::write(&results, &arguments.json)
}

/// A run takes minutes.
fn progress(what: &str) {
    let mut error = std::io::stderr();
    // Nobody may be looking.
    let _ = writeln!(error, "{what}");
}

/// Each trace of a fast limit by itself, all of slow limits together.
fn groups(arguments: &Arguments) -> Vec<Group> {
    let rates = RATES
        .iter()
        .filter(|rate| arguments.large || !rate.is_large);
    let all = rates.flat_map(|rate| SHAPES.map(|(shape, name, _)| (*rate, shape, name)));
    let all = all.filter(|(.., name)| arguments.wants_shape(name));
    let (slow, fast): (Group, Group) = all.partition(|(rate, ..)| rate.is_slow());
    let fast = fast.into_iter().map(|one| vec![one]);
    fast.chain([slow]).collect()
}

fn ours(
    fleet: &Fleet<'_>,
    group: &Group,
    arguments: &Arguments,
    results: &mut Results,
) -> anyhow::Result<()> {
    for (rate, _, name) in group {
        progress(&format!("{RINGMAIL}, {}, {name}", rate.name));
    }
    let client = fleet.client.clone();
    let plays = group.iter().map(|(rate, shape, name)| {
        let run = Run {
            path: rate.path,
            name: format!("{}-{name}", rate.name),
        };
        let trace = shape.trace(rate, rate.seconds(arguments));
        let place = (*rate, *name);
        let played = client.clone().play(run, trace);
        async move { anyhow::Ok((place, played.await?)) }
    });
    let plays: JoinSet<_> = fleet.block_on({
        let plays: Vec<_> = plays.collect();
        async move { plays.into_iter().collect() }
    })?;
    let played = fleet.block_on(plays.join_all())?;
    for one in played {
        let ((rate, trace), all) = one?;
        results.runs.push(row(&rate, trace, RINGMAIL, &all));
    }
    Ok(())
}

/// The same traces for the others; they are in this process, so the fleet is gone by now.
fn beside_us(arguments: &Arguments, results: &mut Results) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let directory = tempfile::tempdir()?;
    let server = match runtime.block_on(redis::Server::start(directory.path())) {
        Ok(server) => Some(server),
        Err(reason) => {
            eprintln!("SKIPPED Redis: {reason:#}");
            None
        }
    };
    let address = server.as_ref().map(|server| server.address);
    for group in groups(arguments) {
        for (rate, _, name) in &group {
            progress(&format!("the others, {}, {name}", rate.name));
        }
        let plays = group.into_iter().map(|(rate, shape, name)| {
            let trace = shape.trace(&rate, rate.seconds(arguments));
            async move { anyhow::Ok(((rate, name), others((rate, name), trace, address).await?)) }
        });
        let plays: Vec<_> = plays.collect();
        let played = runtime.block_on(async move {
            let plays: JoinSet<_> = plays.into_iter().collect();
            plays.join_all().await
        });
        for one in played {
            let ((rate, trace), runs) = one?;
            let runs = beside::NAMES.iter().zip(runs);
            let runs = runs.filter(|(_, all)| !all.is_empty());
            let rows = runs.map(|(name, all)| row(&rate, trace, name, &all));
            results.runs.extend(rows);
        }
    }
    Ok(())
}

async fn others(
    (rate, name): (Rate, &'static str),
    trace: Vec<trace::Arrival>,
    address: Option<SocketAddr>,
) -> anyhow::Result<[Vec<Asked>; 3]> {
    let redis = match address {
        Some(address) => {
            let bucket = format!("{}-{name}", rate.name);
            Some(Redis::connect(address, &bucket, rate.pace).await?)
        }
        None => None,
    };
    beside::play(rate.pace, trace, redis).await
}

fn row(rate: &Rate, trace: &'static str, contender: &'static str, all: &[Asked]) -> Row {
    // In this process there is nothing that a request would have without a limit.
    let added_micros = match contender {
        RINGMAIL => latency::added(all),
        _ => latency::latency(all, true),
    };
    Row {
        limit: rate.name,
        trace,
        contender,
        verdict: judge(rate.pace, all),
        added_micros,
    }
}
