//! `ringmail audit verify`: is an audit whole? Reads files or standard input, in which lines of the audit may be among others.

use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};

use anyhow::Context;
use ringmail_proto::audit::{Summary, Verifier};
use serde::Serialize;

use super::report::{self, Format};

/// What is asked of an audit.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Question {
    /// Is it whole? Finds lines that are missing, were changed or stand elsewhere.
    Verify {
        /// Logs, in the order in which they were written; - for standard input.
        #[arg(default_value = "-")]
        files: Vec<PathBuf>,
        /// The beginning was thrown away, as logs are: the first line may be any.
        #[arg(long)]
        tail: bool,
    },
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Problem {
    file: String,
    line: usize,
    problem: String,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    whole: bool,
    records: u64,
    chains: usize,
    /// Chains whose last line is not there: their proxy runs, or was killed, or it was cut off.
    open: usize,
    /// What proxies say they could not tell.
    lost: u64,
    problems: Vec<Problem>,
}

pub(super) fn run(format: Format, question: &Question) -> anyhow::Result<bool> {
    let Question::Verify { files, tail } = question;
    let mut verifier = Verifier::new(*tail);
    let mut problems = Vec::new();
    for path in files {
        match path == Path::new("-") {
            true => verify(&mut verifier, "-", stdin().lock(), &mut problems)?,
            false => {
                let name = path.display().to_string();
                let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
                verify(&mut verifier, &name, BufReader::new(file), &mut problems)?;
            }
        }
    }
    let answer = answer(verifier.summary(), problems);
    show(format, &answer)?;
    Ok(answer.whole)
}

fn verify(
    verifier: &mut Verifier,
    file: &str,
    input: impl BufRead,
    problems: &mut Vec<Problem>,
) -> anyhow::Result<()> {
    for (before, line) in input.split(b'\n').enumerate() {
        let line = line.with_context(|| format!("cannot read {file}"))?;
        let found = verifier.line(&line).into_iter();
        problems.extend(found.map(|problem| Problem {
            file: file.to_owned(),
            line: before + 1,
            problem,
        }));
    }
    Ok(())
}

fn answer(summary: Summary, problems: Vec<Problem>) -> Answer {
    let Summary {
        records,
        chains,
        open,
        lost,
    } = summary;
    Answer {
        // Nothing at all is no audit.
        whole: problems.is_empty() && records > 0,
        records,
        chains,
        open,
        lost,
        problems,
    }
}

fn show(format: Format, answer: &Answer) -> anyhow::Result<()> {
    if format == Format::Json {
        return report::print(format, std::slice::from_ref(answer), &[], "");
    }
    let Answer {
        records,
        chains,
        open,
        lost,
        problems,
        ..
    } = answer;
    if *records == 0 {
        return report::say("No line of an audit is there.");
    }
    if !problems.is_empty() {
        report::print(format, problems, &["file", "line", "problem"], "")?;
    }
    report::say(&format!(
        "{records} records of {chains} chains, {} problems; {open} chains without a last line; {lost} records lost before they were written",
        problems.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmail_proto::audit::Chain;
    use std::time::UNIX_EPOCH;

    #[test]
    fn problems_have_their_line() {
        let mut chain = Chain::new(1, None);
        let mut log = String::from("{\"level\":\"INFO\"}\n");
        for event in ["begin", "refusal", "refusal", "end"] {
            let seal = chain.seal(UNIX_EPOCH, &format!("{{\"event\":\"{event}\"}}"));
            log += &format!("{}\n", seal.line);
            chain.keep(seal);
        }
        let check = |log: &str| {
            let (mut verifier, mut problems) = (Verifier::new(false), Vec::new());
            verify(&mut verifier, "log", log.as_bytes(), &mut problems).expect("text");
            answer(verifier.summary(), problems)
        };
        let whole = check(&log);
        assert!(whole.whole && whole.records == 4 && whole.open == 0);
        assert!(!check("nothing\n").whole);
        let missing: Vec<_> = log
            .lines()
            .filter(|line| !line.contains("\"sequence\":2"))
            .collect();
        let found = check(&missing.join("\n")).problems;
        assert_eq!((found.len(), found[0].line), (1, 4), "{found:?}");
    }
}
