//! Three pods share one limit: each of them is asked more than it may be alone.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use ringmail_tests::apps;
use ringmail_tests::load::fetch;

use crate::figures::sum;
use crate::stage::{Member, Stage};

/// Where each of them serves.
const PORT: u16 = 9080;
/// Requests a second, and at once.
const RATE: u32 = 60;
const BURST: u32 = 20;
/// How long they are asked.
const WINDOW: Duration = Duration::from_secs(3);
/// For the limit to be in force.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn is_shared(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    for member in stage.members() {
        apps::serve_web(&member.pod.namespace, "limited", PORT)?;
    }
    stage.mesh.put("limit", &format!("apiVersion: ringmail.io/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: shared, namespace: shop}}\nspec:\n  targetRefs: [{{kind: Namespace, port: {PORT}}}]\n  limits: [{{requests: {RATE}, per: second, burst: {BURST}}}]\n"))?;
    // Whoever asks, and whom.
    let pairs = [
        (&stage.mail, &stage.front),
        (&stage.front, &stage.cart),
        (&stage.front, &stage.mail),
    ];
    stage
        .interrupt
        .until(LIMIT, || pairs.iter().all(|pair| is_leasing(stage, *pair)))
        .context("the ledger is not asked")?;

    let begun = Instant::now();
    let (mut asked, mut admitted) = (0_u32, [0_u32; 3]);
    while begun.elapsed() < WINDOW {
        for (pair, admitted) in pairs.iter().zip(&mut admitted) {
            asked += 1;
            *admitted += u32::from(ask(*pair)? == 200);
        }
    }
    let window = begun.elapsed().as_secs_f64();
    let controller = ["--controller", "http://127.0.0.1:15014"];
    let table = stage
        .mesh
        .ringmail(&[&["limits"][..], &controller].concat())?;
    for line in table.lines().filter(|line| !line.is_empty()) {
        stage.teller.say(format_args!("ringmail limits: {line}"));
    }
    ensure!(table.contains("shop/shared/0"), "{table}");
    stage.mesh.remove("limit")?;

    let allowed = f64::from(RATE) * window;
    for ((_, member), admitted) in pairs.iter().zip(&admitted) {
        stage
            .teller
            .say(format_args!("{:9} admitted {admitted:5}", member.pod.name));
    }
    let all: u32 = admitted.iter().sum();
    stage.teller.say(format_args!(
        "together  admitted {all:5}, allowed {allowed:.0} in {window:.1} s and {BURST} at once, asked {asked}"
    ));
    let most = allowed + f64::from(BURST);
    ensure!(f64::from(all) <= most, "{all} are more than {most}");
    // What the machine could not ask for, no limit could admit.
    let least = (allowed * 0.9).min(f64::from(asked) * 0.9);
    ensure!(f64::from(all) >= least, "{all} are less than {least}");
    Ok(format!(
        "{RATE} a second for three pods together: {all} of {asked} admitted, {allowed:.0} + {BURST} allowed"
    ))
}

/// What is answered.
fn ask((client, server): (&Member, &Member)) -> anyhow::Result<u16> {
    let to = SocketAddr::new(server.pod.v4.into(), PORT);
    let request = Request::get("/")
        .header("host", to.to_string())
        .body(Full::<Bytes>::default())?;
    let reply = client.pod.namespace.block_on(fetch(to, request))??;
    Ok(reply.status.as_u16())
}

/// Whether the server's proxy leases, once it was asked.
fn is_leasing(stage: &Stage<'_>, pair: (&Member, &Member)) -> bool {
    let metrics = || pair.1.sidecar.metrics(stage.node).unwrap_or_default();
    ask(pair).is_ok() && sum(&metrics(), "ringmail_rate_limit_ledger_up", &[]) == 1
}
