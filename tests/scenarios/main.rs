//! Scenarios in the test bed. Arguments and output are those of `cargo test`; they run one by one unless
//! `--test-threads` says otherwise: each has a node of its own, but all share the machine's processors.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use ringmail_tests::bed::{Bed, Exemption};

/// The bed itself: what later scenarios rest on.
mod bed;

/// Interception in real kernels.
mod capture;

/// The mesh of most scenarios.
mod shop;

/// Conversations byte by byte.
mod raw;

/// Every protocol between two meshed pods.
mod traffic;

/// Who is taken in, and what never goes through a proxy.
mod interception;

/// Certificates that should not be.
mod forge;

/// Who may speak to whom.
mod identity;

/// Certificates and configuration while the controller is away.
mod outage;

/// Bytes: ends, resets, slowness, many idle connections.
mod streams;

/// Clients of HTTP/2 that take little.
mod slow_clients;

/// HTTP as it was sent.
mod http;

/// What is no HTTP, and what only looks like none.
mod malformed;

/// HTTP/2 frames by hand.
mod frames;

/// WebSocket, and other meetings of versions.
mod versions;

/// HTTP/2 as it is abused.
mod abuse;

/// What the controller is told while it runs.
mod configuration;

/// The end of a proxy under load.
mod drain;

/// Who may ask whom for what.
mod authorization;

/// Who else is asked.
mod external;

/// How often they may.
mod limits;

/// Whose tokens are good.
mod authentication;

/// Routes.
mod routes;

/// Probes that the proxy makes.
mod probes;

/// The apps' own TLS, by server name.
mod tls_routes;

/// How long is waited.
mod waiting;

/// What the mesh is seen to be.
mod inventory;

/// Rolling restarts of everything.
mod rollouts;

/// What is seen of a mesh.
mod observe;

/// Suites of others.
mod suites;

/// What is recorded of traffic.
mod records;

/// Choices among endpoints, and what becomes of requests to those that fail.
mod balance;

/// A scenario: passes when it returns without an error.
type Scenario = fn(Bed) -> anyhow::Result<()>;

fn main() -> ExitCode {
    let bed = Bed::start();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    match &bed {
        Ok(Bed {
            exemption: Exemption::Uid,
        }) => eprintln!("bed: pods as root; proxies are exempt by user"),
        Ok(Bed {
            exemption: Exemption::Mark,
        }) => eprintln!(
            "bed: pods in a user namespace; proxies are exempt by mark\n\
             TIER SKIPPED: exemption by user; enable by running as root"
        ),
        Err(reason) => eprintln!("TIER SKIPPED: all scenarios in pods: {}", reason.0),
    }
    let scenarios = bed::SCENARIOS
        .iter()
        .chain(capture::SCENARIOS)
        .chain(traffic::SCENARIOS)
        .chain(interception::SCENARIOS)
        .chain(identity::SCENARIOS)
        .chain(outage::SCENARIOS)
        .chain(streams::SCENARIOS)
        .chain(slow_clients::SCENARIOS)
        .chain(http::SCENARIOS)
        .chain(malformed::SCENARIOS)
        .chain(versions::SCENARIOS)
        .chain(abuse::SCENARIOS)
        .chain(configuration::SCENARIOS)
        .chain(drain::SCENARIOS)
        .chain(balance::SCENARIOS)
        .chain(routes::SCENARIOS)
        .chain(authorization::SCENARIOS)
        .chain(external::SCENARIOS)
        .chain(records::SCENARIOS)
        .chain(limits::SCENARIOS)
        .chain(authentication::SCENARIOS)
        .chain(probes::SCENARIOS)
        .chain(tls_routes::SCENARIOS)
        .chain(waiting::SCENARIOS)
        .chain(inventory::SCENARIOS)
        .chain(rollouts::SCENARIOS);
    let bed = bed.ok();
    let trials = scenarios.map(|(name, scenario)| trial(name, *scenario, bed));
    let suites = suites::SUITES.iter().map(|suite| suite_trial(suite, bed));
    libtest_mimic::run(&arguments, trials.chain(suites).collect()).exit_code()
}

/// Without its programs a suite counts as ignored.
fn suite_trial(suite: &suites::Suite, bed: Option<Bed>) -> Trial {
    let missing = bed.and_then(|bed| suite.missing(bed));
    if let Some(missing) = &missing {
        eprintln!("TIER SKIPPED: {}: {missing}", suite.name);
    }
    trial(
        suite.name,
        suite.scenario,
        bed.filter(|_| missing.is_none()),
    )
}

/// Without a bed the scenario counts as ignored.
fn trial(name: &str, scenario: Scenario, bed: Option<Bed>) -> Trial {
    let Some(bed) = bed else {
        return Trial::test(name, || Ok(())).with_ignored_flag(true);
    };
    Trial::test(name, move || {
        scenario(bed).map_err(|error| Failed::from(format!("{error:#}")))
    })
}
