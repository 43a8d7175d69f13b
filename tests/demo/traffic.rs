//! The load: four protocols from `front`, over IPv4 and IPv6, by Service addresses. The apps know nothing of the mesh.

use std::fmt;

use anyhow::ensure;
use ringmail_tests::load::{Client, Load, Outcome, Pace, Running};

use crate::stage::{MARKER, Stage, cart_addresses, mail_addresses};

/// Requests a second of each protocol: enough that any gap is hit, little enough for a small machine.
const PER_SECOND: u32 = 100;
const CONNECTIONS: u32 = 4;

/// The load under way.
#[derive(Debug)]
pub(crate) struct Traffic(Vec<(&'static str, Running)>);

impl Traffic {
    /// Starts all four.
    pub(crate) fn start(stage: &Stage<'_>) -> Self {
        let ([cart_v4, cart_v6], [mail_v4, mail_v6]) = (cart_addresses(), mail_addresses());
        let path = format!("/{MARKER}");
        let text = MARKER.to_owned();
        let clients = [
            ("HTTP/1.1", Client::Http1(cart_v4, path.clone())),
            ("HTTP/2", Client::Http2(cart_v6, path)),
            ("gRPC", Client::Grpc(cart_v4, text.clone())),
            ("server-first TCP", Client::Lines(mail_v4, text.clone())),
            ("server-first TCP", Client::Lines(mail_v6, text)),
        ];
        let start = |client| {
            let load = Load {
                client,
                connections: CONNECTIONS,
                pace: Pace::Open {
                    per_second: PER_SECOND,
                },
            };
            Running::start(&stage.front.pod.namespace, load)
        };
        Self(clients.map(|(name, client)| (name, start(client))).into())
    }

    /// Has every protocol had so many exchanges?
    pub(crate) fn all_reached(&self, exchanges: u64) -> bool {
        self.0
            .iter()
            .all(|(_, running)| running.exchanges() >= exchanges)
    }

    /// Stops it; an error if any exchange failed.
    pub(crate) fn finish(self, stage: &Stage<'_>) -> anyhow::Result<Totals> {
        let mut totals = Totals::default();
        for (name, running) in self.0 {
            totals.add(name, &running.finish(&stage.front.pod.namespace)?);
        }
        ensure!(
            totals.failures.is_empty(),
            "{totals}: {}",
            totals.failures.join(", ")
        );
        Ok(totals)
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    ok: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Totals {
    fn add(&mut self, name: &str, outcome: &Outcome) {
        self.ok += outcome.ok;
        self.failed += outcome.failures();
        let failures = outcome.failed.iter();
        self.failures
            .extend(failures.map(|(reason, count)| format!("{name} {count} x {reason}")));
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, {} failed",
            self.ok + self.failed,
            self.failed
        )
    }
}
