//! Medians and ratios to Ringmail for people, every round for machines.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context;

use crate::measure::{MemoryResult, Results, RowResult, Sample};
use crate::ringmail;
use crate::rows::IDLE;
use crate::usage::Memory;

/// Prints all tables.
pub(crate) fn print(results: &Results) -> anyhow::Result<()> {
    let mut text = format!(
        "\nMedians of {} rounds of {} s; CPU is both proxies'; `x` is the median of the rounds' ratios to Ringmail.\n",
        results.rounds, results.seconds
    );
    for row in &results.rows {
        table(&mut text, row, &results.pairs)?;
    }
    if !results.memory.is_empty() {
        memory(&mut text, &results.memory)?;
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

fn table(text: &mut String, row: &RowResult, pairs: &[String]) -> anyhow::Result<()> {
    writeln!(
        text,
        "\n{:48} {:>9} {:>6} {:>9} {:>8} {:>6} {:>8} {:>8} {:>7}",
        row.title, row.unit, "x", "each/s", "p50 µs", "x", "p99", "p99.9", "failed"
    )?;
    let ours = pairs.iter().position(|name| name == ringmail::NAME);
    let ours = ours.map_or(&[][..], |n| &row.samples[n]);
    for (name, samples) in pairs.iter().zip(&row.samples) {
        let median_of = |of: fn(&Sample) -> f64| median(samples.iter().map(of));
        let ratio = |of: fn(&Sample) -> f64| {
            let ratios = samples.iter().zip(ours).map(|(one, our)| of(one) / of(our));
            match median(ratios) {
                // Ringmail was not asked for.
                nothing if nothing.is_nan() => "-".to_owned(),
                ratio => format!("{ratio:.2}"),
            }
        };
        writeln!(
            text,
            "  {name:46} {:9.2} {:>6} {:9.0} {:8.0} {:>6} {:8.0} {:8.0} {:7.0}",
            median_of(|sample| sample.cpu),
            ratio(|sample| sample.cpu),
            median_of(|sample| sample.figures.per_second),
            median_of(|sample| sample.figures.p50_micros),
            ratio(|sample| sample.figures.p50_micros),
            median_of(|sample| sample.figures.p99_micros),
            median_of(|sample| sample.figures.p999_micros),
            samples
                .iter()
                .map(|sample| sample.figures.failed)
                .sum::<f64>(),
        )?;
    }
    Ok(())
}

fn memory(text: &mut String, results: &[MemoryResult]) -> anyhow::Result<()> {
    writeln!(
        text,
        "\n{:48} {:>14} {:>14} {:>14}",
        "RSS MiB, client's proxy / server's proxy",
        "idle",
        format!("{IDLE} idle"),
        "at peak"
    )?;
    for result in results.iter().filter(|result| !result.idle.is_empty()) {
        let both = |memory: &[Memory], of: fn(&Memory) -> f64| {
            let values: Vec<_> = memory.iter().map(|one| format!("{:.1}", of(one))).collect();
            values.join(" / ")
        };
        writeln!(
            text,
            "  {:46} {:>14} {:>14} {:>14}",
            result.pair,
            both(&result.idle, |memory| memory.now),
            both(&result.with_connections, |memory| memory.now),
            both(&result.at_end, |memory| memory.peak),
        )?;
    }
    Ok(())
}

/// Of none it is not a number.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
