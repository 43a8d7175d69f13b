//! `ringmail`: what people ask a mesh, and do to files.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use ringmail_controller::cli::{Cli, run};

fn main() -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(Cli::parse())));
    match outcome {
        Ok(code) => code,
        Err(e) => {
            // Nobody may read it.
            let _ = writeln!(std::io::stderr(), "ringmail: {e:#}");
            ExitCode::from(2)
        }
    }
}
