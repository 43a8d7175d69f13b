//! How long callers of a service wait, as its annotations say: for a response to begin, and for anything to move.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ringmail_tests::apps::BANNER;
use ringmail_tests::bed::Bed;
use ringmail_tests::mesh::objects;
use ringmail_tests::wait;

use crate::Scenario;
use crate::raw::{dial, expect, read_head};
use crate::shop::{LIMIT, MARKER, Plan, Shop, WEB, play, refusal, service};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("waiting::for_a_response_to_begin", for_a_response_to_begin),
    ("waiting::for_anything_to_move", for_anything_to_move),
];

/// The service with an annotation, once its callers have learnt of it: `bites` says so.
fn annotated(shop: &Shop<'_>, annotation: &str, bites: impl FnMut() -> bool) -> anyhow::Result<()> {
    let annotations = format!("metadata:\n  annotations: {{{annotation}}}\n");
    let yaml = objects::service(&service()).replacen("metadata:\n", &annotations, 1);
    shop.mesh.put("service-shop-server", &yaml)?;
    wait::until(LIMIT, bites).with_context(|| format!("{annotation} changes nothing"))
}

fn for_a_response_to_begin(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let reason = |path: &str| {
            let reply = shop.get(WEB, path);
            reply
                .ok()
                .and_then(|reply| Some(refusal(&reply)?.to_owned()))
        };
        let annotation = "config.ringmail.io/response-head-timeout: 300ms";
        let is_late = || reason("/delay/3000").as_deref() == Some("response_head_timeout");
        annotated(shop, annotation, is_late)?;
        let reply = shop.get(WEB, "/delay/5000")?;
        ensure!(reply.status == 504, "{reply:?}");
        ensure!(shop.get(WEB, "/delay/10")?.status == 200);

        // The time begins when the request is complete, and ends with the response's head.
        let mut slow = dial(&shop.client, WEB)?;
        slow.write_all(b"POST /stream HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab")?;
        let begun = Instant::now();
        wait::until(LIMIT, || begun.elapsed() > Duration::from_millis(900))?;
        slow.write_all(b"cd")?;
        let head = read_head(&mut slow)?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        expect(&mut slow, b"abcd")?;
        Ok(())
    })
}

fn for_anything_to_move(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let talk = std::net::SocketAddr::new(crate::shop::SERVICE_V4.into(), 7000);
        let is_cut = || -> anyhow::Result<bool> {
            let mut idle = dial(&shop.client, talk)?;
            expect(&mut idle, BANNER.as_bytes())?;
            idle.set_read_timeout(Some(Duration::from_secs(6)))?;
            let ended = idle.read(&mut [0]);
            Ok(ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset))
        };
        let annotation = "config.ringmail.io/idle-timeout: 2s";
        annotated(shop, annotation, || is_cut().unwrap_or(false))?;
        shop.wait_client_refusal("idle_timeout")?;

        // Whoever says something now and then stays.
        let mut busy = dial(&shop.client, talk)?;
        expect(&mut busy, BANNER.as_bytes())?;
        let line = format!("{MARKER}\n");
        for _ in 0..5 {
            let begun = Instant::now();
            wait::until(LIMIT, || begun.elapsed() > Duration::from_secs(1))?;
            busy.write_all(line.as_bytes())?;
            expect(&mut busy, line.as_bytes())?;
        }

        // A request that is not answered.
        let reply = shop.get(WEB, "/delay/15000")?;
        ensure!(
            reply.status == 504 && refusal(&reply) == Some("idle_timeout"),
            "{reply:?}"
        );
        shop.assert_wire_unread()
    })
}
