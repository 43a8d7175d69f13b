//! What is measured, and how long.

use std::path::PathBuf;

use clap::Parser;

/// How near to one bucket global limits are over fifty real proxies, beside other ways to do it; and what they cost.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Parts whose name contains one of these: traces, beside, latency, grants; all by default.
    parts: Vec<String>,
    /// Short traces, and one round of everything.
    #[arg(long)]
    pub(crate) quick: bool,
    /// The limit of 5000/s as well: up to 50 000 requests a second.
    #[arg(long)]
    pub(crate) large: bool,
    /// Only traces of this shape: steady, overload, moving, flash.
    #[arg(long)]
    shape: Option<String>,
    /// Where all figures go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench/limits.json"))]
    pub(crate) json: PathBuf,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    /// Whether the part of this name was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|part| name.contains(part.as_str()))
    }

    /// Whether a trace of this shape was.
    pub(crate) fn wants_shape(&self, name: &str) -> bool {
        self.shape.as_ref().is_none_or(|shape| shape == name)
    }
}
