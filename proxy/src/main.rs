//! `ringmail-proxy init | verify | run`: the only place that reads the environment.

use std::io::Write;
use std::process::ExitCode;

use ringmail_proxy::capture;
use ringmail_proxy::config::{Config, Lookup, capture_plan};

/// The system's allocator keeps what a burst needed; this one gives it back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const USAGE: &str = "usage: ringmail-proxy init [--verify | --cleanup] | verify | run | --version";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let variable = |name: &str| std::env::var(name).ok();
    let logging = log(variable("RINGMAIL_LOG").as_deref());
    let outcome = logging.and_then(|()| match arguments[..] {
        ["init"] => init(&variable),
        ["init", "--verify"] => init(&variable).and_then(|()| verify(&variable)),
        ["init", "--cleanup"] => capture::cleanup().map_err(Into::into),
        ["verify"] => verify(&variable),
        ["run"] => run(&variable),
        ["--version"] => version(),
        _ => Err(anyhow::anyhow!(USAGE)),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringmail-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Programs the redirect rules: before the app starts, with NET_ADMIN.
fn init(variable: Lookup<'_>) -> anyhow::Result<()> {
    Ok(capture::apply(&capture_plan(variable)?)?)
}

/// Proves that connections are captured, before the proxy runs.
fn verify(variable: Lookup<'_>) -> anyhow::Result<()> {
    let verified = capture::verify(&capture_plan(variable)?)?;
    tracing::info!(?verified, "connections are captured");
    Ok(())
}

fn version() -> anyhow::Result<()> {
    Ok(writeln!(
        std::io::stdout(),
        "ringmail-proxy {}",
        env!("CARGO_PKG_VERSION")
    )?)
}

fn run(variable: Lookup<'_>) -> anyhow::Result<()> {
    let config = Config::from_variables(variable)?;
    Ok(ringmail_proxy::start::run(config)?)
}

/// One JSON line per event on standard error.
fn log(level: Option<&str>) -> anyhow::Result<()> {
    let level = match level {
        None | Some("") => tracing::Level::INFO,
        Some(level) => {
            let parsed = level.parse();
            parsed.map_err(|_| anyhow::anyhow!("RINGMAIL_LOG: {level:?} is no level"))?
        }
    };
    tracing_subscriber::fmt()
        .json()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}
