//! One table for people, every figure for machines.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::grants::Grants;
use crate::judge::{DEFINITION, Verdict};
use crate::latency::{Added, Latency};
use crate::trace::SHAPES;

/// All that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    pub(crate) runs: Vec<Row>,
    pub(crate) latency: Option<Added>,
    pub(crate) grants: Vec<Grants>,
}

/// One contender on one trace.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) limit: &'static str,
    pub(crate) trace: &'static str,
    pub(crate) contender: &'static str,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
    pub(crate) added_micros: Option<Latency>,
}

/// Prints everything.
pub(crate) fn print(results: &Results) -> anyhow::Result<()> {
    let mut text = String::new();
    if !results.runs.is_empty() {
        writeln!(text, "\n{DEFINITION}")?;
        for (_, name, what) in SHAPES {
            writeln!(text, "{name}: {what}")?;
        }
        table(&mut text, &results.runs)?;
    }
    if let Some(added) = &results.latency {
        writeln!(
            text,
            "\na limit whose tokens are there adds {:.0} µs to p50 and {:.0} µs to p99; goal: 100 µs to p99: {}",
            added.added.p50,
            added.added.p99,
            said(added.is_met)
        )?;
    }
    for grants in &results.grants {
        writeln!(
            text,
            "\na ledger in {} grants {:.0} leases a second to {} clients with {} keys each, with {:.0} % of one processor, {:.2} µs each; goal: {}: {}",
            grants.home,
            grants.per_second,
            grants.clients,
            grants.keys_each,
            grants.processor_percent,
            grants.micros_each,
            grants.goal,
            said(grants.is_met)
        )?;
    }
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Writes everything as JSON.
pub(crate) fn write(results: &Results, path: &Path) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let text = serde_json::to_string_pretty(results)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn table(text: &mut String, rows: &[Row]) -> anyhow::Result<()> {
    writeln!(
        text,
        "\n{:7} {:9} {:14} {:>7} {:>7} {:>8} {:>7} {:>7} {:>8} {:>9} {:>9} {:>6}  goal",
        "limit",
        "trace",
        "contender",
        "asked",
        "ideal",
        "admitted",
        "over %",
        "lost %",
        "window",
        "+p50 µs",
        "+p99 µs",
        "failed"
    )?;
    for row in rows {
        let Verdict {
            asked,
            ideal,
            admitted,
            over_percent,
            lost_percent,
            window,
            failed,
            is_met,
        } = row.verdict;
        let micros = |of: fn(&Latency) -> f64| {
            let added = row.added_micros.as_ref();
            added.map_or("-".to_owned(), |added| format!("{:.0}", of(added)))
        };
        writeln!(
            text,
            "{:7} {:9} {:14} {asked:7} {ideal:7} {admitted:8} {over_percent:7.2} {lost_percent:7.2} {window:8.1} {:>9} {:>9} {failed:6}  {}",
            row.limit,
            row.trace,
            row.contender,
            micros(|added| added.p50),
            micros(|added| added.p99),
            said(is_met)
        )?;
    }
    Ok(())
}

fn said(is_met: bool) -> &'static str {
    if is_met { "met" } else { "missed" }
}
