//! Answers as tables or as JSON: each row is one object, whose fields are the columns.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

/// How answers look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Prints rows; `columns` are fields of them, in order. Empty tables say `nothing`.
pub(super) fn print<Row: Serialize>(
    format: Format,
    rows: &[Row],
    columns: &[&str],
    nothing: &str,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        serde_json::to_writer_pretty(&mut out, rows)?;
        return Ok(writeln!(out)?);
    }
    if rows.is_empty() {
        return Ok(writeln!(out, "{nothing}")?);
    }
    let rows: Vec<Value> = rows
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?;
    Ok(out.write_all(table(&rows, columns).as_bytes())?)
}

/// Prints a line for people.
pub(super) fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// Says on standard error who did not answer.
pub(super) fn warn(silent: &[String]) -> anyhow::Result<()> {
    let mut out = io::stderr().lock();
    for one in silent {
        writeln!(out, "no answer from {one}")?;
    }
    Ok(())
}

fn table(rows: &[Value], columns: &[&str]) -> String {
    let head = columns
        .iter()
        .map(|name| name.to_uppercase().replace('_', " "));
    let mut lines: Vec<Vec<String>> = vec![head.collect()];
    for row in rows {
        lines.push(columns.iter().map(|name| cell(&row[*name])).collect());
    }
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = String::new();
    for line in lines {
        let padded = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let joined = padded.collect::<Vec<_>>().join("  ");
        text += joined.trim_end();
        text += "\n";
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        // What others wrote does not move the cursor.
        Value::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        Value::Array(all) => all.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// `2d3h`, `5m10s`, `-3s`.
pub(super) fn span(seconds: i64) -> String {
    let sign = if seconds < 0 { "-" } else { "" };
    let left = seconds.unsigned_abs();
    let (days, hours, minutes, rest) = (left / 86_400, left / 3600 % 24, left / 60 % 60, left % 60);
    let text = match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m{rest}s"),
        (0, _, _) => format!("{hours}h{minutes}m"),
        (_, _, _) => format!("{days}d{hours}h"),
    };
    format!("{sign}{text}")
}

/// Seconds since the Unix epoch.
pub(super) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    let elapsed = elapsed.unwrap_or(Duration::ZERO);
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_aligned_and_hold_one_line() {
        let rows = [
            json!({"pod": "a", "ready": true, "note": null}),
            json!({"pod": "longer", "ready": false, "note": "x\n\u{1b}[31my"}),
        ];
        let expected = "POD     READY  NOTE\na       yes    -\nlonger  no     x[31my\n";
        assert_eq!(table(&rows, &["pod", "ready", "note"]), expected);
    }

    #[test]
    fn spans_have_two_units() {
        let rows = [
            (0, "0s"),
            (59, "59s"),
            (310, "5m10s"),
            (3_660, "1h1m"),
            (180_000, "2d2h"),
            (-3, "-3s"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(span(seconds), expected);
        }
    }
}
