//! The controller against a real API server: a kube-apiserver and an etcd on loopback, controllers as processes with
//! their own service account and rights. Without the binaries the tier says so and passes, unless
//! `RINGMAIL_REQUIRE_CLUSTER` is set.
//!
//! Tests run one by one: there is one API server, and one mesh in a cluster.

use std::{
    env,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use libtest_mimic::{Arguments, Failed, Trial};
use ringmail_tests::{bed::Bed, mesh::Binaries};

/// etcd, the API server, and its administrator.
mod control_plane;

/// Controllers, and what they may do.
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

/// What the authors of routes are told.
mod status;

use control_plane::{ControlPlane, Programs};

/// A test: passes when it returns without an error.
type Test = fn(&ControlPlane) -> anyhow::Result<()>;

/// Started by the first test that runs, and stopped after the last.
type Shared = Arc<Mutex<Option<ControlPlane>>>;

fn main() -> ExitCode {
    // As a launcher this does not return.
    let _ = Bed::start();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let programs = Programs::find();
    if let Err(missing) = &programs {
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
        .chain(status::TESTS);
    let trials = all.map(|(name, test)| trial(name, *test, programs.as_ref().ok(), &shared));
    let exit_code = libtest_mimic::run(&arguments, trials.collect()).exit_code();
    // Here, so that its directory goes too.
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    exit_code
}

/// Without the binaries the test counts as ignored.
fn trial(name: &str, test: Test, programs: Option<&Programs>, shared: &Shared) -> Trial {
    let Some(programs) = programs.cloned() else {
        return Trial::test(name, || Ok(())).with_ignored_flag(true);
    };
    let shared = shared.clone();
    Trial::test(name, move || {
        let run = || {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if shared.is_none() {
                let binaries = Binaries::build()?;
                let started = ControlPlane::start(&programs, binaries);
                *shared = Some(started.context("the control plane does not start")?);
            }
            let plane = shared.as_ref().context("it was started")?;
            test(plane)
        };
        run().map_err(|error| Failed::from(format!("{error:#}")))
    })
}
