//! Everything that meshed pods sent each other, and the controller, was TLS 1.3 from first byte to last. The judge is
//! shown plaintext of the same apps too: one that sees nothing there proves nothing here.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use ringmail_tests::load::{Lines, fetch};
use ringmail_tests::mesh::CONTROLLER_PORT;
use ringmail_tests::netns::NODE_V4;
use ringmail_tests::wire::{Flow, Report};

use crate::stage::{MAIL_PORT, MARKER, Stage, WEB_PORT};

/// For frames on their way to the judge.
const LIMIT: Duration = Duration::from_secs(3);

pub(super) fn nothing_is_readable(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let readable = show_plaintext(stage)?;
    let meshed = stage.meshed_addresses();
    // The last bytes may still be on their way; what is then not proven never will be.
    let _ = stage.interrupt.until(LIMIT, || {
        let report = stage.wire.report();
        judged(&report, &meshed).iter().all(|flow| is_proven(flow))
    });
    let report = stage.wire.report();
    let flows = judged(&report, &meshed);
    let between = flows.iter().filter(|flow| !is_control(flow)).count();
    ensure!(between > 0, "nothing was on the wire");
    ensure!(
        report.lost_flows == 0,
        "{} connections were not looked at",
        report.lost_flows
    );
    let bad: Vec<_> = flows.iter().filter(|flow| !is_proven(flow)).collect();
    if let Some(worst) = bad.first() {
        anyhow::bail!(
            "{} of {} flows are not proven to be TLS 1.3: {worst}, {} bytes unseen",
            bad.len(),
            flows.len(),
            worst.missed_bytes
        );
    }
    // Whoever it went to, under a Service's address too.
    let marked = report.with_marker().count();
    ensure!(
        marked == readable,
        "the marker was in {} more flows than unmeshed pods made",
        marked - readable
    );
    let bytes: u64 = flows.iter().map(|flow| flow.bytes).sum();
    let records: u64 = flows.iter().map(|flow| flow.opaque_records).sum();
    stage.teller.say(format_args!(
        "between meshed pods, and to the controller: {} flows, {bytes} bytes, {records} records",
        flows.len()
    ));
    Ok(format!(
        "{bytes} bytes in {records} records, all TLS 1.3, marker never; in plaintext of unmeshed pods the \
         same judge saw it in {readable} flows"
    ))
}

/// Lets unmeshed pods exchange the marker, and returns in how many flows it was seen, the intruder's included.
fn show_plaintext(stage: &Stage<'_>) -> anyhow::Result<usize> {
    let [client, server] = &stage.bare;
    let ip = IpAddr::from(server.v4);
    let request = Request::get(format!("/{MARKER}"))
        .header("host", "cart")
        .body(Full::<Bytes>::default())?;
    client.namespace.block_on(async move {
        fetch(SocketAddr::new(ip, WEB_PORT), request).await?;
        Lines::connect(SocketAddr::new(ip, MAIL_PORT), MARKER)
            .await?
            .exchange()
            .await
    })??;
    let ours = [client.addresses(), server.addresses()].concat();
    let seen = |report: &Report| {
        let flows = report.between(&ours, &ours);
        flows.filter(|flow| !flow.markers.is_empty()).count()
    };
    // HTTP and lines, there and back: each carries it.
    stage
        .interrupt
        .until(LIMIT, || seen(&stage.wire.report()) == 4)
        .context("the judge does not see plaintext where there is some")?;
    let report = stage.wire.report();
    let intruders = report.with_marker().filter(|flow| {
        let intruder = stage.intruder.addresses();
        intruder.contains(&flow.from.ip())
    });
    let intruders = intruders.count();
    ensure!(
        intruders == 2,
        "the judge saw {intruders} of the intruder's 2 plaintexts"
    );
    stage.teller.say(format_args!(
        "the judge sees the marker: in {} flows of unmeshed pods, and in the intruder's {intruders}",
        seen(&report)
    ));
    Ok(seen(&report) + intruders)
}

/// All flows that the mesh answers for: between meshed pods, whatever the port, and between them and the controller.
fn judged<'a>(report: &'a Report, meshed: &[IpAddr]) -> Vec<&'a Flow> {
    let is_ours = |flow: &&Flow| {
        let ends = [flow.from.ip(), flow.to.ip()];
        let meshed_ends = ends.iter().filter(|ip| meshed.contains(ip)).count();
        meshed_ends == 2 || meshed_ends == 1 && is_control(flow)
    };
    report.flows.iter().filter(is_ours).collect()
}

fn is_control(flow: &Flow) -> bool {
    let controller = SocketAddr::new(NODE_V4.into(), CONTROLLER_PORT);
    flow.from == controller || flow.to == controller
}

fn is_proven(flow: &Flow) -> bool {
    flow.not_tls.is_none() && flow.from_start && flow.missed_bytes == 0 && flow.markers.is_empty()
}
