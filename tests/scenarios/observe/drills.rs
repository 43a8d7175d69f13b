//! What goes wrong, and comes right again.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use nix::sys::signal::Signal;
use ringmail_proxy::capture;
use ringmail_tests::load::{Client, Load, Pace, Running};
use ringmail_tests::prometheus::Prometheus;
use ringmail_tests::wait;

use super::stage::{OPEN, Stage, authorization};
use crate::interception::rules;
use crate::raw::dial;
use crate::shop::{LIMIT, Shop, WEB};

/// More addresses than a proxy tells apart.
const STRANGERS: u8 = 80;

/// Everything that proxies and pods can have at the same time.
pub(super) fn proxies(
    shop: &Shop<'_>,
    stage: &Stage,
    prometheus: &mut Prometheus<'_>,
) -> anyhow::Result<()> {
    stage.idle_sidecar.process.signal(Signal::SIGSTOP)?;
    // No proxy understands it, and the one that sleeps does not answer.
    let odd = "action: deny\n  rules: [{when: {weather: fine}}]";
    shop.mesh.put(
        "odd",
        &authorization("odd", "{kind: Service, name: open}", odd),
    )?;
    // Before it is not captured any more.
    strangers(stage)?;
    stage.open.namespace.run(capture::cleanup)??;
    let denied = Load {
        client: Client::Http1(WEB, "/secret".into()),
        connections: 40,
        pace: Pace::Closed,
    };
    let denied = Running::start(&shop.client.namespace, denied);
    prometheus.until_firing(&[
        "RingmailProxiesOutOfSync",
        "RingmailProxiesMissing",
        "RingmailConfigurationRefused",
        "RingmailCaptureGone",
        "RingmailSeriesOverflow",
        "RingmailAuditLost",
    ])?;
    denied.finish(&shop.client.namespace)?;
    stage.idle_sidecar.process.signal(Signal::SIGCONT)?;
    shop.mesh.remove("odd")?;
    let rules = rules(shop)?;
    stage.open.namespace.run(|| capture::apply(&rules))??;
    prometheus.until_silent()
}

/// What nobody is told of, but dashboards show: an endpoint that is asked no more for a while, and a caller who speaks no TLS.
pub(super) fn quiet(shop: &Shop<'_>, stage: &Stage) -> anyhow::Result<()> {
    let recovered = || shop.client_metric("ringmail_endpoint_recoveries_total", &[]) > 0.0;
    let failing = || shop.get(WEB, "/status/503").map(drop);
    // As many in a row as eject it.
    for _ in 0..6 {
        failing()?;
    }
    wait::until(LIMIT, || shop.get(OPEN, "/").is_ok() && recovered())
        .context("nothing was ejected, or it did not come back")?;
    let mut stranger = dial(&stage.outside, shop.server_at(15_008))?;
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    let handshakes = |labels: &[_]| shop.server_metric("ringmail_handshakes_total", labels);
    wait::until(LIMIT, || handshakes(&[]) > handshakes(&[("result", "ok")]))
        .context("no handshake failed")
}

/// Plaintext of many addresses.
fn strangers(stage: &Stage) -> anyhow::Result<()> {
    let to = SocketAddr::new(stage.open.v4.into(), 8080);
    for number in 1..=STRANGERS {
        let from = Ipv4Addr::new(10, 77, 200, number);
        stage.outside.also_at(from)?;
        stage
            .outside
            .namespace
            .run(|| -> std::io::Result<()> {
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
                socket.bind(&SocketAddr::new(from.into(), 0).into())?;
                socket.connect_timeout(&to.into(), LIMIT)?;
                (&socket).write_all(b"GET / HTTP/1.0\r\n\r\n")
            })?
            .with_context(|| format!("from {from}"))?;
    }
    Ok(())
}

/// As after a crash; it stays away until certificates are old.
pub(super) fn controller(
    shop: &mut Shop<'_>,
    prometheus: &mut Prometheus<'_>,
) -> anyhow::Result<()> {
    let limited = Load {
        client: Client::Http1(WEB, "/limited".into()),
        connections: 1,
        pace: Pace::Open { per_second: 2 },
    };
    let limited = Running::start(&shop.client.namespace, limited);
    wait::until(LIMIT, || limited.exchanges() > 2)?;
    shop.mesh.kill_controller();
    prometheus.until_firing(&[
        "RingmailProxyDisconnected",
        "RingmailLimiterDegraded",
        "RingmailRenewalsFailing",
        "RingmailCertificateOld",
    ])?;
    shop.mesh.start_controller()?;
    prometheus.until_silent()?;
    limited.finish(&shop.client.namespace)?;
    Ok(())
}
