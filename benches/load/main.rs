//! `cargo bench --bench load`: what a pair of sidecars costs, beside pairs of other proxies and beside none.
//!
//! Pods are network namespaces with real capture. Every pair carries the same load to the same server with mutual TLS
//! 1.3 and one worker for each proxy; rows go from pair to pair, round after round, so that noise meets all of them.
//! Proxies share one processor, client and server the other. Says what it left out, and why.

/// What was asked for.
mod arguments;

/// The table of loads.
mod rows;

/// Two pods, and the proxies between them.
mod pair;

/// The pair that this is about.
mod ringmail;

/// The pairs it is compared with.
mod peers;

/// What answers.
mod server;

/// What asks.
mod client;

/// Who runs where.
mod processor;

/// What a process used.
mod usage;

/// Rows and rounds.
mod measure;

/// What people and machines read.
mod report;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use ringmail_tests::bed::Bed;
use ringmail_tests::netns::Node;

use arguments::Arguments;
use pair::Pair;

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
    let binaries = arguments.wants(ringmail::NAME).then(ringmail::build);
    let binaries = binaries.transpose()?;
    // Before any pod's thread starts: threads inherit it.
    processor::pin(0, processor::OTHERS).context("the bench needs two processors")?;
    let node = Node::new(bed)?;

    let mut pairs = Vec::new();
    if arguments.wants(pair::NOTHING) {
        pairs.push(Pair::direct(&node)?);
    }
    for kind in peers::KINDS
        .iter()
        .filter(|kind| arguments.wants(kind.name))
    {
        match peers::start(kind, &node) {
            Ok(pair) => pairs.push(pair),
            Err(reason) => eprintln!("SKIPPED {}: {reason:#}", kind.name),
        }
    }
    if let Some(binaries) = binaries {
        pairs.push(ringmail::start(&node, &binaries)?);
    }

    let results = measure::all(arguments, &pairs)?;
    report::print(&results)?;
    report::write(&results, &arguments.json)
}
