//! What is printed: for people, in 100 columns, coloured only on a terminal. Output that nobody reads is no error.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

const BOLD: &str = "1";
const GREEN: &str = "32";
const RED: &str = "31";

/// Columns of the table's first two parts, and of its third.
const NAME_COLUMNS: usize = 28;
const EVIDENCE_COLUMNS: usize = 62;

/// What came of one check.
#[derive(Debug)]
pub(crate) struct Result {
    name: &'static str,
    /// Did it hold?
    pub(crate) held: bool,
    evidence: String,
}

impl Result {
    /// The act's evidence, or why it failed.
    pub(crate) fn new(name: &'static str, outcome: anyhow::Result<String>) -> Self {
        let held = outcome.is_ok();
        let evidence = outcome.unwrap_or_else(|error| format!("{error:#}"));
        Self {
            name,
            held,
            evidence,
        }
    }
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Teller {
    colours: bool,
}

impl Teller {
    /// Colours on a terminal, unless `NO_COLOR` says otherwise (no-color.org).
    pub(crate) fn new() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colours: io::stdout().is_terminal() && !unwanted,
        }
    }

    /// A line as it is.
    pub(crate) fn line(&self, text: impl Display) {
        let _ = writeln!(io::stdout(), "{text}");
    }

    /// What an act is about.
    pub(crate) fn title(&self, text: &str) {
        self.line(format_args!("\n{}", self.painted(BOLD, text)));
    }

    /// A detail of an act.
    pub(crate) fn say(&self, text: impl Display) {
        self.line(format_args!("  {text}"));
    }

    /// What came of an act.
    pub(crate) fn result(&self, result: &Result) {
        self.say(format_args!(
            "{}: {}",
            self.verdict(result),
            result.evidence
        ));
    }

    /// All results.
    pub(crate) fn table(&self, results: &[Result], took: Duration) {
        let rule = "-".repeat(NAME_COLUMNS + EVIDENCE_COLUMNS + 8);
        self.line(format_args!(
            "\n{:NAME_COLUMNS$}  {:4}  evidence\n{rule}",
            "check", ""
        ));
        for result in results {
            let mut name = result.name;
            let mut verdict = self.verdict(result);
            for line in wrapped(&result.evidence, EVIDENCE_COLUMNS) {
                self.line(format_args!("{name:NAME_COLUMNS$}  {verdict}  {line}"));
                (name, verdict) = ("", "    ".to_owned());
            }
        }
        let held = results.iter().filter(|result| result.held).count();
        self.line(format_args!(
            "{rule}\n{held} of {} checks held, in {} s",
            results.len(),
            took.as_secs()
        ));
    }

    fn verdict(&self, result: &Result) -> String {
        if result.held {
            self.painted(GREEN, "ok  ")
        } else {
            self.painted(RED, "FAIL")
        }
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Lines of at most `columns`, broken at spaces; a longer word stays whole. At least one.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
