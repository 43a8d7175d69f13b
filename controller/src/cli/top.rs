//! `ringmail top`: who talks to whom now, how much, how well and how fast.

use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::asked::{self, Which};
use super::edges::{Edges, Ends, Passed, edges};
use super::report::{self, Format};

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Question {
    #[command(flatten)]
    which: Which,
    /// Seconds between two looks, over which rates are taken.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// One look; otherwise, on a terminal, again and again.
    #[arg(long)]
    once: bool,
}

/// One edge.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    from: String,
    to: String,
    tls: &'static str,
    requests_per_second: f64,
    /// In percent.
    success: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    connections_per_second: f64,
}

pub(super) async fn run(format: Format, question: &Question) -> anyhow::Result<bool> {
    let is_repeated = !question.once && format == Format::Table && stdout().is_terminal();
    let interval = Duration::from_secs(question.interval);
    let (mut before, _) = look(&question.which).await?;
    let mut at = Instant::now();
    loop {
        tokio::time::sleep(interval).await;
        let (now, silent) = look(&question.which).await?;
        let rows = rows(&before, &now, at.elapsed());
        (before, at) = (now, Instant::now());
        if is_repeated {
            // From the upper left, on an empty screen.
            stdout().write_all(b"\x1b[H\x1b[2J")?;
        }
        show(format, &rows, &silent)?;
        if !is_repeated {
            return Ok(silent.is_empty());
        }
    }
}

async fn look(which: &Which) -> anyhow::Result<(Edges, Vec<String>)> {
    let (told, silent) = asked::answered(which.pages("metrics").await?);
    Ok((edges(&told), silent))
}

/// What passed between two looks, the busiest first.
fn rows(before: &Edges, now: &Edges, took: Duration) -> Vec<Row> {
    let row = |(ends, passed): (&Ends, &Passed)| {
        let passed = passed.since(before.get(ends));
        let rate = |count: f64| round(count / took.as_secs_f64());
        let milliseconds = |part| passed.quantile(part).map(|seconds| round(seconds * 1000.0));
        Row {
            from: ends.from.clone(),
            to: ends.to.clone(),
            tls: if ends.is_mutual { "mutual" } else { "none" },
            requests_per_second: rate(passed.requests),
            success: passed.success().map(round),
            p50_ms: milliseconds(0.5),
            p99_ms: milliseconds(0.99),
            connections_per_second: rate(passed.connections),
        }
    };
    let mut rows: Vec<Row> = now.iter().map(row).collect();
    rows.retain(|row| row.requests_per_second > 0.0 || row.connections_per_second > 0.0);
    rows.sort_by(|one, other| {
        let busy = |row: &Row| row.requests_per_second + row.connections_per_second;
        busy(other).total_cmp(&busy(one))
    });
    rows
}

fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

fn show(format: Format, rows: &[Row], silent: &[String]) -> anyhow::Result<()> {
    let columns = [
        "from",
        "to",
        "tls",
        "requests_per_second",
        "success",
        "p50_ms",
        "p99_ms",
        "connections_per_second",
    ];
    report::print(format, rows, &columns, "nobody talks to anybody")?;
    report::warn(silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_what_passed_meanwhile() {
        let ends = |from: &str| Ends {
            from: from.to_owned(),
            to: "shop/cart".to_owned(),
            is_mutual: true,
        };
        let passed = |requests: f64, failures: f64| Passed {
            requests,
            failures,
            connections: 0.0,
            buckets: vec![(0.001, requests), (f64::INFINITY, requests)],
        };
        let before = Edges::from([
            (ends("a"), passed(100.0, 0.0)),
            (ends("b"), passed(5.0, 0.0)),
        ]);
        let now = Edges::from([
            (ends("a"), passed(120.0, 10.0)),
            (ends("b"), passed(5.0, 0.0)),
            (ends("c"), passed(40.0, 0.0)),
        ]);
        let rows = rows(&before, &now, Duration::from_secs(2));
        let told: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row.from.as_str(),
                    row.requests_per_second,
                    row.success,
                    row.p50_ms,
                )
            })
            .collect();
        let expected = [
            ("c", 20.0, Some(100.0), Some(0.5)),
            ("a", 10.0, Some(50.0), Some(0.5)),
        ];
        assert_eq!(told, expected);
    }
}
