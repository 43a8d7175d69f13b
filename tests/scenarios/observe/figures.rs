//! A load that is known, and what is to be seen of it.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use ringmail_tests::load::{Client, Load, Outcome, Pace, Running};
use ringmail_tests::netns::Pod;
use ringmail_tests::observe::boards;
use ringmail_tests::prometheus::Prometheus;
use ringmail_tests::wait;

use super::stage::{LIMITED, OPEN, Stage};
use crate::shop::{LIMIT, Shop, TALK, WEB};

/// How long the load lasts before it is looked at, in seconds: more than the range over which it is looked at.
const STEADY: u32 = 14;
const RANGE: &str = "10s";

/// Requests a second.
const HTTP1: u32 = 40;
const HTTP2: u32 = 20;
const GRPC: u32 = 20;
const LINES: u32 = 20;
const OVER_LIMIT: u32 = 20;
const DENIED: u32 = 10;
const FAILED: u32 = 10;
const MIRRORED: u32 = 5;
const PLAINTEXT: u32 = 5;
const AGAIN: u32 = 2;
const ASKED: u32 = 2;
/// Of a body, and of a line with its end.
const BODY: u32 = 1000;
const LINE: u32 = 102;

/// A load, where it comes from, and its name.
struct Part<'a> {
    name: &'static str,
    pod: &'a Pod,
    running: Running,
}

fn start<'a>(name: &'static str, pod: &'a Pod, client: Client, per_second: u32) -> Part<'a> {
    // One request at a time each, and some of these wait 20 ms after they failed.
    let connections = per_second.div_ceil(10);
    let load = Load {
        client,
        connections,
        pace: Pace::Open { per_second },
    };
    Part {
        name,
        pod,
        running: Running::start(&pod.namespace, load),
    }
}

pub(super) fn known_load(
    shop: &Shop<'_>,
    stage: &Stage,
    prometheus: &mut Prometheus<'_>,
) -> anyhow::Result<()> {
    let before = counted(prometheus)?;
    let (client, outside) = (&shop.client, &stage.outside);
    let http1 = |path: &str| Client::Http1(WEB, path.to_owned());
    let body = format!("/bytes/{BODY}");
    let line = "x".repeat(LINE as usize - 2);
    let plain = |pod: &Pod| Client::Http1(SocketAddr::new(pod.v4.into(), 8080), "/bytes/1".into());
    let parts = [
        start("http1", client, http1(&body), HTTP1),
        start("http2", client, Client::Http2(WEB, body.clone()), HTTP2),
        start("grpc", client, Client::Grpc(WEB, "hello".into()), GRPC),
        start("lines", client, Client::Lines(TALK, line), LINES),
        start("limited", client, http1("/limited"), OVER_LIMIT),
        start("denied", client, http1("/secret"), DENIED),
        start("failed", client, http1("/status/500"), FAILED),
        start("mirrored", client, http1("/mirrored"), MIRRORED),
        start("again", client, http1("/status/503"), AGAIN),
        start("asked", client, Client::Http1(OPEN, "/".into()), ASKED),
        start("refused", outside, plain(&shop.server), PLAINTEXT),
        start("taken", outside, plain(&stage.open), PLAINTEXT),
    ];
    let main = &parts[0].running;
    let steady = u64::from(HTTP1 * STEADY);
    wait::until(3 * LIMIT, || {
        // What is new is a spike only for a while.
        prometheus.look();
        main.exchanges() >= steady
    })
    .context("the load does not go on")?;
    rates(prometheus)?;
    prometheus.until_firing(&[
        "RingmailDenialSpike",
        "RingmailPlaintextAttempted",
        "RingmailPlaintextTaken",
        "RingmailErrorBudgetBurn 1h",
        "RingmailErrorBudgetBurn 6h",
        "RingmailErrorBudgetBurn 1d",
        "RingmailErrorBudgetBurn 3d",
    ])?;
    // What a strict workload refuses is not taken.
    let strict = "ALERTS{alertname='RingmailPlaintextTaken', workload!='open'}";
    ensure!(
        prometheus.query(strict)?.is_empty(),
        "who refuses plaintext is said to take it"
    );
    let mut answered = 0;
    for Part { name, pod, running } in parts {
        let outcome = running.finish(&pod.namespace)?;
        judge(name, &outcome)?;
        let is_success = ["http1", "http2", "grpc", "limited", "mirrored"].contains(&name);
        answered += if is_success { outcome.ok } else { 0 };
    }
    // Each that was answered counts once, whatever it went through.
    let expected = answered as f64;
    let is_counted = || counted(prometheus).is_ok_and(|now| now - before == expected);
    wait::until(LIMIT, is_counted).with_context(|| {
        format!(
            "{expected} were answered, and counted were {before} to {:?}",
            counted(prometheus)
        )
    })?;
    prometheus.until_silent()
}

fn judge(name: &str, outcome: &Outcome) -> anyhow::Result<()> {
    let expects_failures = ["limited", "denied", "failed", "again", "refused"].contains(&name);
    ensure!(
        (outcome.failures() > 0) == expects_failures,
        "{name}: {outcome}"
    );
    Ok(())
}

/// Successes of the server, so far.
fn counted(prometheus: &Prometheus<'_>) -> anyhow::Result<f64> {
    prometheus.figure("sum(ringmail_requests_total{direction='inbound', workload='server', outcome='success'}) or vector(0)")
}

/// A panel's figures: of those with these labels, the sum; as it should be, and how far off it may be.
struct Expected {
    board: &'static str,
    panel: &'static str,
    workload: &'static str,
    labels: &'static [(&'static str, &'static str)],
    figure: f64,
}

/// How far off a figure may be, as a part of it.
const TOLERANCE: f64 = 0.1;

fn rates(prometheus: &Prometheus<'_>) -> anyhow::Result<()> {
    let mut off = Vec::new();
    // A machine that is busy with something else is late for a moment: what it owes comes right after.
    let all = wait::until(LIMIT, || {
        off = EXPECTED
            .iter()
            .filter_map(|row| row.problem(prometheus))
            .collect();
        off.is_empty()
    });
    all.with_context(|| format!("figures: {off:#?}"))
}

const fn row(
    (board, panel): (&'static str, &'static str),
    workload: &'static str,
    labels: &'static [(&'static str, &'static str)],
    figure: f64,
) -> Expected {
    Expected {
        board,
        panel,
        workload,
        labels,
        figure,
    }
}

const SUCCESS: f64 = (HTTP1 + HTTP2 + GRPC + MIRRORED) as f64 + LIMITED;
/// Of what who takes plaintext was asked: copies of the mirror, retries and questions came over mutual TLS.
const SHARE: f64 = PLAINTEXT as f64 / (PLAINTEXT + MIRRORED + 3 * AGAIN + ASKED) as f64;
const ASKED_SERVER: f64 = (FAILED + DENIED + OVER_LIMIT) as f64 + SUCCESS - LIMITED;
const TCP: f64 = (LINES * LINE) as f64;
const INBOUND: (&str, &str) = ("workload", "Requests by how they ended");
const OUTBOUND: (&str, &str) = ("workload", "Its requests by how they ended");
const BY_LIMIT: (&str, &str) = ("limits", "By limit");
const CLIENT: &str = "spiffe://mesh.local/ns/shop/sa/client";

const EXPECTED: [Expected; 17] = [
    row(INBOUND, "server", &[("outcome", "success")], SUCCESS),
    row(
        INBOUND,
        "server",
        &[("outcome", "server_error")],
        FAILED as f64,
    ),
    row(
        OUTBOUND,
        "client",
        &[("outcome", "success")],
        SUCCESS + ASKED as f64,
    ),
    row(
        ("workload", "gRPC calls by status"),
        "server",
        &[("grpc_status", "0")],
        GRPC as f64,
    ),
    row(
        ("workload", "Responses by status"),
        "server",
        &[("code", "500")],
        FAILED as f64,
    ),
    row(
        ("security", "Denials by pair and policy"),
        "server",
        &[("peer", CLIENT), ("policy", "shop/secret")],
        DENIED as f64,
    ),
    row(
        ("security", "Plaintext refused"),
        "server",
        &[],
        PLAINTEXT as f64,
    ),
    row(("security", "Plaintext share"), "open", &[], SHARE),
    row(("security", "Post-quantum"), ".*", &[], 1.0),
    row(
        ("security", "As it would be"),
        "server",
        &[("policy", "shop/would-deny"), ("verdict", "deny")],
        (HTTP1 + HTTP2) as f64,
    ),
    row(
        BY_LIMIT,
        "server",
        &[("limit", "shop/limited/0"), ("outcome", "admitted")],
        LIMITED,
    ),
    row(
        BY_LIMIT,
        "server",
        &[("limit", "shop/limited/0"), ("outcome", "refused")],
        OVER_LIMIT as f64 - LIMITED,
    ),
    row(
        ("route", "Requests"),
        ".*",
        &[("service", "shop/server")],
        ASKED_SERVER + AGAIN as f64,
    ),
    row(
        ("tcp", "By workload"),
        "server",
        &[("flow", "received")],
        TCP,
    ),
    row(("tcp", "By workload"), "server", &[("flow", "sent")], TCP),
    row(("tcp", "By service"), "client", &[("flow", "sent")], TCP),
    row(("control", "Proxies connected"), ".*", &[], 5.0),
];

impl Expected {
    fn problem(&self, prometheus: &Prometheus<'_>) -> Option<String> {
        let Self {
            board,
            panel,
            labels,
            figure,
            ..
        } = self;
        let found = match self.found(prometheus) {
            Ok(found) if (found - figure).abs() <= figure * TOLERANCE => return None,
            Ok(found) => found.to_string(),
            Err(error) => format!("{error:#}"),
        };
        Some(format!(
            "{board}, {panel} {labels:?}: {found}, not {figure}"
        ))
    }

    fn found(&self, prometheus: &Prometheus<'_>) -> anyhow::Result<f64> {
        let boards = boards::all();
        let mut boards = boards.iter().filter(|one| one.name == self.board);
        let board = boards.next().context("no such board")?;
        let mut panels = board.panels().filter(|one| one.title == self.panel);
        let query = &panels.next().context("no such panel")?.queries[0];
        let chosen = [("namespace", "shop"), ("workload", self.workload)];
        let found = prometheus.panel(&query.expression, &chosen, RANGE)?;
        let is_meant = |labels: &std::collections::BTreeMap<String, String>| {
            let mut wanted = self.labels.iter();
            wanted.all(|(label, value)| labels.get(*label).is_some_and(|one| one == value))
        };
        let found = found.iter().filter(|sample| is_meant(&sample.labels));
        found
            .map(|sample| sample.value)
            .reduce(|sum, one| sum + one)
            .context("nothing")
    }
}
