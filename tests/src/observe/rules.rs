//! Recording rules and alerts, as data and as a file of Prometheus'. Pure.
//!
//! Alerts rest on recording rules only where a range is long or asked for more than once; both files are loaded together.

use std::fmt::Write;

use super::tempo::Tempo;

/// What is worth waking somebody, or telling them in the morning.
mod alerts;

/// What alerts ask for often.
mod recording;

pub use alerts::alerts;
pub use recording::{OBJECTIVE_PERCENT, recording};

/// Rules that are evaluated one after another.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// What it has.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone)]
pub enum Rule {
    /// A series that is kept.
    Record {
        /// Its name, `level:metric:operation`.
        name: String,
        /// What it is.
        expression: String,
    },
    /// Something to tell.
    Alert(Alert),
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Now.
    Critical,
    /// Today.
    Warning,
}

/// Something to tell.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Its name.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Tells it from others of its name.
    pub window: Option<&'static str>,
    /// When it is so.
    pub expression: String,
    /// How long it must be so.
    pub wait: String,
    /// One line.
    pub summary: &'static str,
    /// What it means.
    pub description: &'static str,
    /// What to do.
    pub action: &'static str,
}

impl Severity {
    /// The label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

impl Rule {
    /// What it asks.
    #[must_use]
    pub fn expression(&self) -> &str {
        match self {
            Self::Record { expression, .. } | Self::Alert(Alert { expression, .. }) => expression,
        }
    }
}

/// As Prometheus reads it.
#[must_use]
pub fn yaml(groups: &[Group]) -> String {
    let mut text = String::from(
        "# Made by tests/src/observe; not edited by hand. For Prometheus' rule_files: load recording.yaml and alerts.yaml together.\n\
         groups:\n",
    );
    for group in groups {
        line(&mut text, format_args!("  - name: {}", group.name));
        line(&mut text, format_args!("    rules:"));
        for rule in &group.rules {
            write_rule(&mut text, rule);
        }
    }
    text
}

fn write_rule(text: &mut String, rule: &Rule) {
    match rule {
        Rule::Record { name, .. } => line(text, format_args!("      - record: {name}")),
        Rule::Alert(alert) => line(text, format_args!("      - alert: {}", alert.name)),
    }
    line(text, format_args!("        expr: |-"));
    for one in rule.expression().lines() {
        line(text, format_args!("          {}", one.trim_end()));
    }
    let Rule::Alert(alert) = rule else { return };
    line(text, format_args!("        for: {}", alert.wait));
    line(text, format_args!("        labels:"));
    let severity = alert.severity.label();
    line(text, format_args!("          severity: {severity}"));
    if let Some(window) = alert.window {
        line(text, format_args!("          window: {window}"));
    }
    line(text, format_args!("        annotations:"));
    for (name, said) in alert.annotations() {
        // A JSON string is one of YAML, too.
        let said = serde_json::Value::from(said);
        line(text, format_args!("          {name}: {said}"));
    }
}

impl Alert {
    /// What is told.
    #[must_use]
    pub fn annotations(&self) -> [(&'static str, &'static str); 3] {
        [
            ("summary", self.summary),
            ("description", self.description),
            ("action", self.action),
        ]
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String does not fail");
}

/// That `series`, a counter, grew of late: it has more than before, or has begun with something. A counter that Prometheus
/// sees for the first time has no increase.
fn grew(series: &str, range: &str) -> String {
    format!("(increase({series}[{range}]) > 0 or ({series} > 0 unless {series} offset {range}))")
}

/// A range of so many minutes.
fn minutes(tempo: Tempo, minutes: u64) -> String {
    tempo.range(minutes * 60)
}
