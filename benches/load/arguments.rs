//! What is measured, how often and how long.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Seconds of each load, if not said otherwise; shorter when quick.
const SECONDS: f64 = 3.0;
const QUICK_SECONDS: f64 = 1.0;
/// Rounds of every row; medians are over these.
const ROUNDS: usize = 3;

/// What a pair of Ringmail's sidecars costs, beside pairs of other proxies and beside none.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Rows whose key contains one of these; all by default.
    pub(crate) rows: Vec<String>,
    /// One round of one second.
    #[arg(long)]
    quick: bool,
    /// Rounds of every row [default: 3].
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each load [default: 3].
    #[arg(long)]
    seconds: Option<f64>,
    /// What is measured, by the beginning of its name: nothing, haproxy, nginx, envoy, ringmail; all by default.
    #[arg(long, value_delimiter = ',')]
    between: Vec<String>,
    /// Where the figures of every round go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench/load.json"))]
    pub(crate) json: PathBuf,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    /// At least one.
    pub(crate) fn rounds(&self) -> usize {
        let default = if self.quick { 1 } else { ROUNDS };
        self.rounds.unwrap_or(default).max(1)
    }

    /// Of one load on one pair.
    pub(crate) fn duration(&self) -> Duration {
        let default = if self.quick { QUICK_SECONDS } else { SECONDS };
        Duration::from_secs_f64(self.seconds.unwrap_or(default).max(0.1))
    }

    /// Whether the row of this key was asked for.
    pub(crate) fn has_row(&self, key: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|row| key.contains(row.as_str()))
    }

    /// Whether the pair of this name was asked for.
    pub(crate) fn wants(&self, pair: &str) -> bool {
        let pair = pair.to_lowercase();
        let is_asked = |name: &String| pair.starts_with(&name.to_lowercase());
        self.between.is_empty() || self.between.iter().any(is_asked)
    }
}
