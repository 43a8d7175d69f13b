//! Figures of before, in `baseline.json`, and what changed. They belong to one compiler: another one is reason enough to
//! write them anew.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use anyhow::Context;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/micro/baseline.json");
/// Changes up to this many percent are none.
const TOLERANCE_PERCENT: f64 = 3.0;

/// Instructions of one run of each case.
pub(crate) type Counts = BTreeMap<String, f64>;

/// Empty when there are none.
pub(crate) fn read() -> anyhow::Result<Counts> {
    match fs::read(PATH) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| PATH.to_owned()),
        Err(_) => Ok(Counts::new()),
    }
}

/// What is counted now, in place of what was for the same cases.
pub(crate) fn write(mut before: Counts, counts: Counts) -> anyhow::Result<()> {
    before.extend(counts);
    let text = serde_json::to_string_pretty(&before)? + "\n";
    fs::write(PATH, text).with_context(|| PATH.to_owned())
}

/// Prints all; returns what got worse, and by how many percent.
pub(crate) fn table<'a>(
    counts: &'a Counts,
    before: &Counts,
    out: &mut impl Write,
) -> anyhow::Result<Vec<(&'a str, f64)>> {
    writeln!(
        out,
        "{:52} {:>12} {:>12} {:>8}",
        "instructions of one run", "before", "now", "%"
    )?;
    let mut worse = Vec::new();
    for (name, now) in counts {
        let Some(then) = before.get(name) else {
            writeln!(out, "{name:52} {:>12} {now:12.0}", "-")?;
            continue;
        };
        let change = (now / then - 1.0) * 100.0;
        writeln!(out, "{name:52} {then:12.0} {now:12.0} {change:+8.1}")?;
        if change > TOLERANCE_PERCENT {
            worse.push((name.as_str(), change));
        }
    }
    Ok(worse)
}
