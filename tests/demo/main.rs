//! `cargo demo`: a whole mesh on this machine, which checks what it tells.
//!
//! Three meshed pods and an intruder, network namespaces all, with a real controller, real proxies and real capture.
//! Each act prints what it found; the table at the end and the exit code say whether every check held.

use std::process::ExitCode;
use std::time::Instant;

use ringmail_tests::bed::{Bed, Exemption, Unavailable};
use ringmail_tests::mesh::Binaries;
use ringmail_tests::netns::Node;

use crate::acts::ACTS;
use crate::interrupt::Interrupt;
use crate::stage::Stage;
use crate::tell::{Result as Told, Teller};

/// What is checked, in the order it is told.
mod acts;

/// Who plays: pods, apps, the mesh.
mod stage;

/// The load that runs meanwhile.
mod traffic;

/// What proxies say of themselves.
mod figures;

/// `--keep`: pages of the mesh on this machine's loopback.
mod windows;

/// Ctrl-C.
mod interrupt;

/// What is printed.
mod tell;

const USAGE: &str = "usage: cargo demo [--keep]

Starts a mesh of network namespaces on this machine, checks it under load, and prints what held.

  --keep    leave it running until Ctrl-C, and print the URLs to look at";

/// The exit code of a command line that makes no sense.
const USAGE_ERROR: u8 = 2;

fn main() -> ExitCode {
    // First of all, before any thread: this may enter a user namespace, or become another program.
    let bed = Bed::start();
    let teller = Teller::new();
    let keep = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => Keep::No,
        [flag] if flag == "--keep" => Keep::UntilInterrupted,
        [flag] if flag == "--help" || flag == "-h" => {
            teller.line(USAGE);
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(USAGE_ERROR);
        }
    };
    match bed
        .map_err(unavailable)
        .and_then(|bed| play(bed, keep, &teller))
    {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the mesh outlives the last check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    No,
    UntilInterrupted,
}

fn unavailable(Unavailable(reason): Unavailable) -> anyhow::Error {
    anyhow::anyhow!("this machine allows no network namespaces: {reason}")
}

/// Builds, plays every act, and says whether all checks held.
fn play(bed: Bed, keep: Keep, teller: &Teller) -> anyhow::Result<bool> {
    let interrupt = Interrupt::watch()?;
    teller.line("Building the controller and the proxy, if they are not built yet ...");
    let binaries = Binaries::build()?;
    let begun = Instant::now();
    teller.title("A mesh starts");
    teller.say(match bed.exemption {
        Exemption::Uid => {
            "as root: pods are network namespaces, proxies are exempt from capture by user"
        }
        Exemption::Mark => {
            "in a user namespace: nothing here needs root; proxies are exempt by mark"
        }
    });
    let node = Node::new(bed)?;
    let mut stage = Stage::open(&node, &binaries, interrupt, teller)?;

    let mut results = Vec::new();
    for (name, act) in ACTS {
        teller.title(name);
        let outcome = act(&mut stage);
        stage.interrupt.check()?;
        let result = Told::new(name, outcome);
        teller.result(&result);
        results.push(result);
    }
    let all_held = results.iter().all(|result| result.held);
    teller.table(&results, begun.elapsed());
    if !all_held {
        eprintln!("{:#}", stage.logs());
    }
    if keep == Keep::UntilInterrupted {
        windows::keep(&stage)?;
    }
    Ok(all_held)
}
