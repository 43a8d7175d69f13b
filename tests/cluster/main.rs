//! The mesh on a real API server: a kube-apiserver and an etcd on loopback, the chart installed by Helm, controllers as
//! processes with the chart's service account and rights. Without the binaries the tier says so and passes, unless
//! `RINGMAIL_REQUIRE_CLUSTER` is set.
//!
//! Tests run one by one: there is one API server, and one mesh in a cluster.

use std::{
    env,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};
use ringmail_tests::{
    bed::{Bed, Unavailable},
    mesh::Binaries,
    netns::isolate,
};

/// etcd, the API server, and its administrator.
mod control_plane;

/// The installed chart, and controllers of it.
mod mesh;

/// Objects as users and the rest of a cluster make them.
mod objects;

/// A proxy's first call.
mod caller;

/// Watches, and what becomes of what they tell.
mod source;

/// Who gets a certificate.
mod attestation;

/// Roots and issuers in Secrets.
mod secrets;

/// One replica writes.
mod leader;

/// What the API server calls the controller for.
mod webhooks;

/// The chart is upgraded and uninstalled.
mod release;

/// What becomes of pods.
mod injection;

/// Pods that should have a sidecar.
mod coverage;

/// Proxies of injected pods.
mod sidecar;

/// What people ask.
mod cli;

/// What the authors of routes are told.
mod status;

/// What policies are taken, and what their authors are told.
mod policies;

/// What a Prometheus sees of it.
mod observe;

use control_plane::{ControlPlane, NETWORKS, Programs};

/// A test: passes when it returns without an error.
type Test = fn(&ControlPlane) -> anyhow::Result<()>;

/// Started by the first test that runs, and stopped after the last.
type Shared = Arc<Mutex<Option<ControlPlane>>>;

fn main() -> ExitCode {
    // As a launcher this does not return.
    let bed = Bed::start();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let ground = match arguments.list {
        true => Err(anyhow!("nothing runs")),
        false => Ground::prepare(bed),
    };
    if let Err(missing) = &ground
        && !arguments.list
    {
        eprintln!("TIER SKIPPED: the controller in a cluster: {missing:#}");
        if env::var_os("RINGMAIL_REQUIRE_CLUSTER").is_some() {
            return ExitCode::FAILURE;
        }
    }
    let shared = Shared::default();
    let all = source::TESTS
        .iter()
        .chain(attestation::TESTS)
        .chain(secrets::TESTS)
        .chain(leader::TESTS)
        .chain(webhooks::TESTS)
        .chain(release::TESTS)
        .chain(injection::TESTS)
        .chain(coverage::TESTS)
        .chain(sidecar::TESTS)
        .chain(cli::TESTS)
        .chain(status::TESTS)
        .chain(policies::TESTS);
    let trials = all.map(|(name, test)| trial(name, *test, ground.as_ref().ok(), &shared));
    let missing = observe::missing();
    if let Some(missing) = missing {
        eprintln!("TIER SKIPPED: what a Prometheus sees of a cluster: {missing}");
    }
    let seen = observe::TESTS.iter().map(|(name, test)| {
        let ground = ground.as_ref().ok().filter(|_| missing.is_none());
        trial(name, *test, ground, &shared)
    });
    let exit_code = libtest_mimic::run(&arguments, trials.chain(seen).collect()).exit_code();
    // Here, so that its directory goes too.
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    exit_code
}

/// What a control plane needs to start.
#[derive(Clone)]
struct Ground {
    programs: Programs,
    binaries: Binaries,
}

impl Ground {
    /// Builds what is ours where there may be a network, and leaves that: two of us never meet, and every address of a
    /// Service or a pod is free.
    fn prepare(bed: Result<Bed, Unavailable>) -> anyhow::Result<Self> {
        let bed = bed.map_err(|Unavailable(why)| anyhow!(why))?;
        let programs = Programs::find()?;
        let binaries = Binaries::build()?;
        isolate(bed, &NETWORKS)?;
        Ok(Self { programs, binaries })
    }
}

/// Without the binaries the test counts as ignored.
fn trial(name: &str, test: Test, ground: Option<&Ground>, shared: &Shared) -> Trial {
    let Some(ground) = ground.cloned() else {
        return Trial::test(name, || Ok(())).with_ignored_flag(true);
    };
    let shared = shared.clone();
    Trial::test(name, move || {
        let run = || {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if shared.is_none() {
                let started = ControlPlane::start(&ground.programs, ground.binaries.clone());
                *shared = Some(started.context("the control plane does not start")?);
            }
            let plane = shared.as_ref().context("it was started")?;
            test(plane)
        };
        run().map_err(|error| Failed::from(format!("{error:#}")))
    })
}
