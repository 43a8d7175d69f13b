//! The command line for people: what a mesh is like, and files with sidecars in them.
//!
//! Tables for people, `-o json` for programs. Exit codes: 0 all is well, 1 something is not as it should be, 2 the
//! question could not be answered. Everything is read with the rights of whoever asks, through the API server; nothing
//! here changes a cluster.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::SidecarFlags;

/// What is printed, and how.
mod report;

/// Sidecars, asked through the API server.
mod fleet;

/// The controller's pages.
mod controller;

/// Sidecars that are asked.
mod asked;

/// Pages of metrics, line by line.
mod sample;

/// Who talks to whom.
mod edges;

/// `ringmail check`.
mod check;

/// `ringmail coverage`.
mod coverage;

/// `ringmail identity`.
mod identity;

/// `ringmail proxies`.
mod proxies;

/// `ringmail why`.
mod why;

/// `ringmail limits`.
mod limits;

/// `ringmail audit`.
mod audit;

/// `ringmail top`.
mod top;

/// `ringmail graph`.
mod graph;

/// `ringmail apis`.
mod apis;

/// `ringmail inject`.
mod inject;

use report::Format;

/// What a program is called that answers; `ringmail-controller` too, so that one file serves as both.
const NAME: &str = "ringmail";

/// Ringmail: what a mesh is like.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Cli {
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
    /// Would this be allowed, and by which rule? Or: what was this refusal?
    Why(Box<why::Question>),
    /// How much is used of each rate limit, by whom, and who is refused?
    Limits(limits::Question),
    /// The audit of proxies.
    #[command(subcommand)]
    Audit(audit::Question),
    /// Who talks to whom now, how much, how well and how fast?
    Top(top::Question),
    /// Who talks to whom, as a graph for Graphviz, or as JSON.
    Graph(graph::Question),
    /// Which routes do workloads serve, to whom, and what about that wants attention?
    Apis(apis::Question),
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

/// Whether a program that was called by this name (`argv[0]`) is the command line.
#[must_use]
pub fn is_called_by(name: Option<&OsString>) -> bool {
    name.and_then(|name| Path::new(name).file_name())
        .is_some_and(|name| name == NAME)
}

/// Answers the question that the arguments of this process ask, on standard output.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(Cli::parse())));
    match outcome {
        Ok(code) => code,
        Err(e) => {
            // Nobody may read it.
            let _ = writeln!(std::io::stderr(), "{NAME}: {e:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let (format, system) = (cli.output, cli.system_namespace.as_str());
    let is_well = match cli.command {
        Command::Check { pre } => check::run(format, system, pre).await?,
        Command::Coverage(asked) => coverage::run(format, system, asked.namespace).await?,
        Command::Identity { pod, namespace } => identity::run(format, &namespace, &pod).await?,
        Command::Proxies(asked) => proxies::run(format, asked.namespace).await?,
        Command::Why(question) => why::run(format, system, *question).await?,
        Command::Limits(question) => limits::run(format, system, &question).await?,
        Command::Audit(question) => audit::run(format, &question)?,
        Command::Top(question) => top::run(format, &question).await?,
        Command::Graph(question) => graph::run(format, &question).await?,
        Command::Apis(question) => apis::run(format, &question).await?,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_which_program_it_is() {
        let rows = [
            (Some("/ringmail"), true),
            (Some("ringmail"), true),
            (Some("bin/../ringmail"), true),
            (Some("/ringmail-controller"), false),
            (Some("/ringmail/ringmail-controller"), false),
            (Some(""), false),
            (None, false),
        ];
        for (name, wanted) in rows {
            let found = is_called_by(name.map(OsString::from).as_ref());
            assert_eq!(found, wanted, "{name:?}");
        }
    }
}
