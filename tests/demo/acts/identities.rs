//! Every proxy has the certificate of its service account, and shakes hands with the hybrid key exchange only.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::figures::{certificate, sum};
use crate::stage::Stage;
use crate::traffic::Traffic;

const GROUP: &str = "X25519MLKEM768";
/// For the first requests of every protocol.
const LIMIT: Duration = Duration::from_secs(10);
const EXCHANGES: u64 = 20;

pub(super) fn issued(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    for member in stage.members() {
        let certificate = certificate(&member.pod)?;
        stage.teller.say(format_args!(
            "{:9} {} serial {}",
            member.pod.name, certificate.spiffe_id, certificate.serial
        ));
        let wanted = member.spiffe_id();
        ensure!(
            certificate.spiffe_id == wanted,
            "{} is {}, not {wanted}",
            member.pod.name,
            certificate.spiffe_id
        );
    }
    let traffic = Traffic::start(stage);
    let reached = stage
        .interrupt
        .until(LIMIT, || traffic.all_reached(EXCHANGES));
    let totals = traffic.finish(stage)?;
    reached.context("not every protocol gets answers")?;
    stage.teller.say(format_args!(
        "first load: HTTP/1.1, HTTP/2, gRPC, server-first TCP: {totals}"
    ));

    let mut handshakes = 0;
    for member in stage.members() {
        let metrics = member.sidecar.metrics(stage.node)?;
        let count = |labels: &[_]| sum(&metrics, "ringmail_handshakes_total", labels);
        let (all, hybrid) = (
            count(&[("result", "ok")]),
            count(&[("result", "ok"), ("group", GROUP)]),
        );
        ensure!(
            hybrid > 0 && hybrid == all,
            "{}: {hybrid} of {all} handshakes used {GROUP}",
            member.pod.name
        );
        handshakes += hybrid;
    }
    Ok(format!(
        "3 SPIFFE IDs as expected; {handshakes} handshakes counted, all {GROUP}"
    ))
}
