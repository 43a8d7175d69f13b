//! What people see of a mesh: dashboards for Grafana, and rules for Prometheus, made here and shipped by the chart.
//!
//! Everything is data first, boards and groups of rules, of which tests know every expression; then text. The
//! files in `charts/ringmail/files/{dashboards,rules}` are what this makes, and
//! `RINGMAIL_WRITE_DASHBOARDS=1 cargo test -p ringmail-tests --lib observe` writes them. Nothing here asks Grafana or
//! Prometheus; `scenarios::observe` does.

/// How long is long: as shipped, or short enough for a drill.
pub mod tempo;

/// What a dashboard is made of.
pub mod board;

/// The dashboards.
pub mod boards;

/// Recording rules and alerts.
pub mod rules;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use tempo::Tempo;

/// A file of the chart, as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChartFile {
    /// From the chart's `files`.
    pub path: String,
    /// All of it.
    pub text: String,
}

impl ChartFile {
    /// Where it is.
    #[must_use]
    pub fn place(&self) -> PathBuf {
        let files = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/ringmail/files");
        PathBuf::from(files).join(&self.path)
    }
}

/// Every file that is made here.
#[must_use]
pub fn files() -> Vec<ChartFile> {
    let boards = boards::all().into_iter().map(|board| ChartFile {
        path: format!("dashboards/{}.json", board.file()),
        text: board.json(),
    });
    let rules = [
        ("recording", rules::recording(Tempo::Shipped)),
        ("alerts", rules::alerts(Tempo::Shipped)),
    ];
    let rules = rules.into_iter().map(|(name, groups)| ChartFile {
        path: format!("rules/{name}.yaml"),
        text: rules::yaml(&groups),
    });
    boards.chain(rules).collect()
}
