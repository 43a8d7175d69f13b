//! The command line for people: what a mesh is like, and files with sidecars in them.
//!
//! Tables for people, `-o json` for programs. Exit codes: 0 all is well, 1 something is not as it should be, 2 the
//! question could not be answered. Everything is read with the rights of whoever asks, through the API server; nothing
//! here changes a cluster.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::SidecarFlags;

/// What is printed, and how.
mod report;

/// Sidecars, asked through the API server.
mod fleet;

/// `ringmail check`.
mod check;

/// `ringmail coverage`.
mod coverage;

/// `ringmail identity`.
mod identity;

/// `ringmail proxies`.
mod proxies;

/// `ringmail inject`.
mod inject;

use report::Format;

/// Ringmail: what a mesh is like.
#[derive(Debug, Parser)]
#[command(name = "ringmail", version)]
pub struct Cli {
    /// How answers look.
    #[arg(long, short, global = true, default_value = "table")]
    output: Format,
    /// The namespace of the controller.
    #[arg(
        long,
        global = true,
        env = "RINGMAIL_NAMESPACE",
        default_value = "ringmail-system"
    )]
    system_namespace: String,
    /// What is asked.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Is all well, and what is to be done if not?
    Check {
        /// Only what has to be right before the mesh is installed.
        #[arg(long)]
        pre: bool,
    },
    /// Which pods are in the mesh, and which should be?
    Coverage(Where),
    /// Which certificate does a pod show?
    Identity {
        /// The pod.
        pod: String,
        /// Its namespace.
        #[arg(long, short, default_value = "default")]
        namespace: String,
    },
    /// Every sidecar: version, state of its control stream, certificate, memory.
    Proxies(Where),
    /// Put sidecars into files, as the webhook would.
    Inject {
        /// A file of YAML, or - for standard input.
        #[arg(long, short)]
        filename: String,
        /// The mesh's trust domain.
        #[arg(long, env = "RINGMAIL_TRUST_DOMAIN", default_value = "cluster.local")]
        trust_domain: ringmail_proto::identity::TrustDomain,
        /// What every pod is given.
        #[command(flatten)]
        sidecar: Box<SidecarFlags>,
    },
}

/// Which namespaces.
#[derive(Debug, clap::Args)]
struct Where {
    /// One namespace; all, if none is said.
    #[arg(long, short)]
    namespace: Option<String>,
}

/// Answers one question on standard output.
///
/// # Errors
/// When it cannot be answered.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let (format, system) = (cli.output, cli.system_namespace.as_str());
    let is_well = match cli.command {
        Command::Check { pre } => check::run(format, system, pre).await?,
        Command::Coverage(asked) => coverage::run(format, system, asked.namespace).await?,
        Command::Identity { pod, namespace } => identity::run(format, &namespace, &pod).await?,
        Command::Proxies(asked) => proxies::run(format, asked.namespace).await?,
        Command::Inject {
            filename,
            trust_domain,
            sidecar,
        } => inject::run(&filename, system, &trust_domain, &sidecar)?,
    };
    Ok(match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
