//! `cargo bench --bench micro`: how many instructions the proxy's decisions and codecs take, counted by valgrind, so
//! that a machine that is busy or slow gives the same figures. Compares them with `baseline.json` and says what got
//! worse; `-- --write` writes them there. Skips where there is no valgrind.
//!
//! What is counted is private to the proxy, and shown only with the feature `micro`: without it this builds itself
//! again with it, so that no other build has it.

/// What is counted.
#[cfg(feature = "micro")]
mod cases;

/// Heads, bodies and a service to count with.
#[cfg(feature = "micro")]
mod material;

/// One case under valgrind.
#[cfg(feature = "micro")]
mod callgrind;

/// Figures of before.
#[cfg(feature = "micro")]
mod baseline;

use std::process::ExitCode;

#[cfg(not(feature = "micro"))]
fn main() -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = std::process::Command::new(cargo)
        .args(["bench", "-p", env!("CARGO_PKG_NAME"), "--features", "micro"])
        .args(["--bench", "micro", "--"])
        .args(std::env::args_os().skip(1).filter(|one| one != "--bench"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot run cargo: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "micro")]
fn main() -> ExitCode {
    use clap::Parser;
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Instructions of the proxy's decisions and codecs.
#[cfg(feature = "micro")]
#[derive(Debug, clap::Parser)]
struct Arguments {
    /// Cases whose name contains this; all by default.
    filter: Option<String>,
    /// Make what is counted now the baseline.
    #[arg(long)]
    write: bool,
    /// How long each takes here instead, in nanoseconds.
    #[arg(long)]
    time: bool,
    /// Under valgrind: run this one.
    #[arg(long, hide = true)]
    one: Option<String>,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// False when something got worse.
#[cfg(feature = "micro")]
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    use std::io::Write as _;
    if let Some(name) = &arguments.one {
        cases::run(name)?;
        return Ok(true);
    }
    let filter = arguments.filter.as_deref().unwrap_or_default();
    if arguments.time {
        for name in cases::names().filter(|name| name.contains(filter)) {
            writeln!(
                std::io::stdout(),
                "{:10.0} ns  {name}",
                cases::nanoseconds(name)?
            )?;
        }
        return Ok(true);
    }
    if let Some(reason) = callgrind::missing() {
        eprintln!("SKIPPED: {reason}");
        return Ok(true);
    }
    let mut counts = baseline::Counts::new();
    for name in cases::names().filter(|name| name.contains(filter)) {
        counts.insert(name.to_owned(), callgrind::count(name)?);
    }
    let before = baseline::read()?;
    let mut out = std::io::stdout();
    let worse = baseline::table(&counts, &before, &mut out)?;
    if arguments.write {
        baseline::write(before, counts)?;
        writeln!(out, "\nthat is the baseline now")?;
        return Ok(true);
    }
    for (name, change) in &worse {
        writeln!(out, "WORSE: {name} by {change:.1} %")?;
    }
    Ok(worse.is_empty())
}
