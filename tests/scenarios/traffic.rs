//! Traffic between two meshed pods: every protocol arrives, and nothing of it is readable on the wire.

use std::net::SocketAddr;

use anyhow::ensure;
use ringmail_tests::bed::Bed;
use ringmail_tests::load::{Client, Load, Pace, Running};
use ringmail_tests::wait;

use crate::Scenario;
use crate::shop::{LIMIT, MARKER, Plan, SERVICE_V4, SERVICE_V6, Shop, play};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[(
    "traffic::every_protocol_crosses_unread",
    every_protocol_crosses_unread,
)];

fn every_protocol_crosses_unread(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        for ip in [
            SERVICE_V4.into(),
            SERVICE_V6.into(),
            shop.server.v4.into(),
            shop.server.v6.into(),
        ] {
            let port = |service: u16, pod: u16| {
                let is_service = ip == SERVICE_V4 || ip == SERVICE_V6;
                SocketAddr::new(ip, if is_service { service } else { pod })
            };
            exchange(shop, Client::Http1(port(80, 8080), format!("/{MARKER}")))?;
            exchange(shop, Client::Http2(port(80, 8080), format!("/{MARKER}")))?;
            exchange(shop, Client::Grpc(port(80, 8080), MARKER.to_owned()))?;
            exchange(shop, Client::Lines(port(7000, 7000), MARKER.to_owned()))?;
        }
        shop.assert_wire_unread()
    })
}

/// At least a few exchanges on one connection, none failed.
fn exchange(shop: &Shop<'_>, client: Client) -> anyhow::Result<()> {
    let what = format!("{client:?}");
    let load = Load {
        client,
        connections: 2,
        pace: Pace::Closed,
    };
    let running = Running::start(&shop.client.namespace, load);
    let progressed = wait::until(LIMIT, || running.exchanges() >= 20);
    let outcome = running.finish(&shop.client.namespace)?;
    ensure!(outcome.failures() == 0, "{what}: {:?}", outcome.failed);
    progressed.map_err(|error| error.context(what))
}
