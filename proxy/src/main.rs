//! `ringmail-proxy init | verify | run`: the only place that reads the environment.

use std::process::ExitCode;

use ringmail_proxy::config::Config;

/// The system's allocator keeps what a burst needed; this one gives it back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const USAGE: &str = "usage: ringmail-proxy run";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let variable = |name: &str| std::env::var(name).ok();
    log(variable("RINGMAIL_LOG").as_deref());
    let outcome = match arguments[..] {
        ["run"] => run(&variable),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringmail-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(variable: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    let config = Config::from_variables(variable)?;
    Ok(ringmail_proxy::start::run(config)?)
}

/// One JSON line per event on standard error.
fn log(level: Option<&str>) {
    let level = level
        .and_then(|level| level.parse().ok())
        .unwrap_or(tracing::Level::INFO);
    tracing_subscriber::fmt()
        .json()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .init();
}
