//! The binary: reads flags, starts the controller, stops it on SIGTERM or SIGINT. Called as `ringmail` it is the command
//! line, so that an image holds the code of both once.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use ringmail_controller::attest::join_token::JoinTokens;
use ringmail_controller::cli;
use ringmail_controller::config::{
    Cli, Command, Config, JoinTokenConfig, JoinTokenFlags, LogFormat, RunFlags,
};
use ringmail_controller::run;
use rustls::pki_types::UnixTime;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

fn main() -> ExitCode {
    if cli::is_called_by(std::env::args_os().next().as_ref()) {
        return cli::main();
    }
    let cli = Cli::parse();
    log_to_stderr(cli.log_format);
    let outcome = match cli.command {
        Command::Run(flags) => serve(*flags),
        Command::JoinToken(flags) => join_token(flags),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr(format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

fn serve(flags: RunFlags) -> anyhow::Result<()> {
    let config = Config::try_from(flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let running = run::start(config).await?;
        info!(address = %running.address, metrics = %running.metrics_address, "listening");
        if let Some(webhooks) = running.webhook_address {
            info!(%webhooks, "listening for the API server");
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping");
        running.stop().await;
        Ok(())
    });
    // A blocking read of a hung disk must not hold up the exit.
    runtime.shutdown_background();
    outcome
}

fn join_token(flags: JoinTokenFlags) -> anyhow::Result<()> {
    let config = JoinTokenConfig::try_from(flags)?;
    let tokens = JoinTokens::open(&config.state_dir).context("cannot open the state directory")?;
    let token = tokens
        .make(&config.identity, config.ttl, UnixTime::now())
        .context("cannot keep the token")?;
    writeln!(std::io::stdout(), "{token}").context("cannot print the token")
}
