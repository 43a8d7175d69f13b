//! Who is asked when there is a choice, and what a client notices of an endpoint that is not well: nothing, where a
//! request may be sent again.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, Version};
use nix::sys::signal::Signal;
use ringmail_tests::apps;
use ringmail_tests::bed::Bed;
use ringmail_tests::fault::{Fault, Link};
use ringmail_tests::load::{Client, Load, Pace, Reply, Running, fetch};
use ringmail_tests::mesh::{Sidecar, Workload, objects};
use ringmail_tests::netns::Pod;
use ringmail_tests::wait;

use crate::Scenario;
use crate::shop::{LIMIT, MARKER, Plan, Shop, WEB, play, refusal, service};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("balance::a_slow_endpoint_gets_less", slow_gets_less),
    (
        "balance::refusing_fast_does_not_attract_load",
        refusing_fast,
    ),
    ("balance::a_failing_endpoint_is_ejected", a_failing_endpoint),
    (
        "balance::an_endpoint_dies_and_comes_back",
        dies_and_comes_back,
    ),
    ("balance::what_was_not_processed_is_sent_again", sent_again),
    ("balance::nobody_left_is_said_at_once", nobody_left),
    ("balance::a_grpc_deadline_ends_in_time", grpc_deadline),
    ("balance::requests_stay_in_their_zone", stays_in_zone),
    ("balance::pods_get_what_they_weigh", by_weight),
];

const SECOND: &str = "second";
const RETRIES: &str = "ringmail_retries_total";
const EJECTIONS: &str = "ringmail_endpoint_ejections_total";
const RECOVERIES: &str = "ringmail_endpoint_recoveries_total";
/// Of which an endpoint that is not preferred gets few.
const REQUESTS: u64 = 400;

/// Another pod behind the shop's service.
struct Second {
    sidecar: Sidecar,
    pod: Pod,
    link: Link,
    workload: Workload,
}

/// Puts a second pod behind the service: `app` starts what listens on its port 8080.
fn second(shop: &Shop<'_>, app: impl FnOnce(&Pod) -> anyhow::Result<()>) -> anyhow::Result<Second> {
    let (pod, link) = shop.node.pod_on_faulty_link(SECOND)?;
    let workload = Workload::new("shop", SECOND);
    app(&pod)?;
    shop.mesh.put_workload(&pod, &workload)?;
    let sidecar = shop.mesh.sidecar(&pod, &workload)?;
    let first = Plan::default().server;
    shop.mesh
        .put_service(&service(), &[(&first, &shop.server), (&workload, &pod)])?;
    let second = Second {
        sidecar,
        pod,
        link,
        workload,
    };
    wait::until(LIMIT, || {
        let retries = || shop.client_metric(RETRIES, &[]);
        shop.get(WEB, "/").is_ok() && (asked(shop, SECOND) > 0.0 || retries() > 0.0)
    })
    .context("the second pod is not asked")?;
    Ok(second)
}

fn web(pod: &Pod) -> anyhow::Result<()> {
    apps::serve_web(&pod.namespace, SECOND, 8080)
}

/// Requests of the client that a pod answered, however.
fn asked(shop: &Shop<'_>, pod: &str) -> f64 {
    let peer = format!("spiffe://mesh.local/ns/shop/sa/{pod}");
    let labels = [("direction", "outbound"), ("peer", peer.as_str())];
    shop.client_metric("ringmail_requests_total", &labels)
}

/// What each of the two pods got of a load of requests.
fn shares(shop: &Shop<'_>, connections: u32) -> anyhow::Result<[f64; 2]> {
    let before = [asked(shop, "server"), asked(shop, SECOND)];
    let load = Load {
        client: Client::Http1(WEB, "/".to_owned()),
        connections,
        pace: Pace::Closed,
    };
    let running = Running::start(&shop.client.namespace, load);
    wait::until(LIMIT, || running.exchanges() >= REQUESTS).context("no load")?;
    running.finish(&shop.client.namespace)?;
    Ok([
        asked(shop, "server") - before[0],
        asked(shop, SECOND) - before[1],
    ])
}

fn slow_gets_less(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let second = second(shop, web)?;
        let [first, other] = shares(shop, 4)?;
        ensure!(other > first / 5.0, "equals: {first} and {other}");
        second.link.set(Fault {
            delay: Duration::from_millis(30),
            ..Fault::default()
        });
        let [first, slow] = shares(shop, 4)?;
        ensure!(slow < first / 5.0, "the slow one got {slow}, not {first}");
        Ok(())
    })
}

fn refusing_fast(bed: Bed) -> anyhow::Result<()> {
    const LIMITED: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n";
    play(bed, &Plan::default(), |shop| {
        let _second = second(shop, |pod| apps::serve_bytes(&pod.namespace, 8080, LIMITED))?;
        let [first, refusing] = shares(shop, 4)?;
        ensure!(
            refusing < first / 5.0,
            "the refusing one got {refusing}, not {first}"
        );
        // It is not ejected for that.
        ensure!(shop.client_metric(EJECTIONS, &[]) == 0.0, "ejected");
        Ok(())
    })
}

fn a_failing_endpoint(bed: Bed) -> anyhow::Result<()> {
    const FAILING: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    play(bed, &Plan::default(), |shop| {
        let _second = second(shop, |pod| apps::serve_bytes(&pod.namespace, 8080, FAILING))?;
        // Ten at a time, so that the failing one is asked although it costs more.
        let is_ejected = || {
            shares(shop, 10).is_ok() && shop.client_metric(EJECTIONS, &[("cause", "status")]) > 0.0
        };
        wait::until(LIMIT, is_ejected).context("not ejected")?;
        let [first, failing] = shares(shop, 10)?;
        ensure!(
            failing < first / 20.0,
            "the failing one got {failing}, not {first}"
        );
        Ok(())
    })
}

fn dies_and_comes_back(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let Second {
            sidecar,
            pod,
            link: _link,
            workload,
        } = second(shop, web)?;
        let loads = [
            shop.load(Client::Http1(WEB, format!("/{MARKER}")), 4)?,
            shop.load(Client::Http1(WEB, "/delay/50".to_owned()), 16)?,
            shop.load(Client::Http2(WEB, "/delay/50".to_owned()), 8)?,
        ];
        // As a crash does it, with requests under way.
        drop(sidecar);
        let peer = [("peer", "spiffe://mesh.local/ns/shop/sa/second")];
        wait::until(LIMIT, || shop.client_metric(EJECTIONS, &peer) > 0.0).context("not ejected")?;
        ensure!(
            shop.client_metric(RETRIES, &[("result", "sent")]) > 0.0,
            "nothing was under way"
        );
        let _again = shop.mesh.sidecar(&pod, &workload)?;
        wait::until(LIMIT, || shop.client_metric(RECOVERIES, &peer) > 0.0)
            .context("not taken back")?;
        for load in loads {
            shop.assert_unhurt(load)?;
        }
        shop.assert_wire_unread()
    })
}

/// An app that does not listen: its proxy refuses before anything is processed.
fn sent_again(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let second = second(shop, |_| Ok(()))?;
        let body = MARKER.repeat(2000);
        for number in 0..30 {
            let request = Request::post(format!("/{number}"))
                .header("host", WEB.to_string())
                .body(Full::<Bytes>::from(body.clone()))?;
            let reply = shop.client.namespace.block_on(fetch(WEB, request))??;
            ensure!(
                reply.status == StatusCode::OK && reply.text().ends_with(&body),
                "{number}: {} {:?}",
                reply.status,
                refusal(&reply)
            );
        }
        let refused = [("cause", "refused"), ("result", "sent")];
        ensure!(
            shop.client_metric(RETRIES, &refused) > 0.0,
            "the second pod was not asked"
        );
        drop(second);
        shop.assert_wire_unread()
    })
}

fn nobody_left(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let mut second = second(shop, web)?;
        second.sidecar.process.signal(Signal::SIGKILL)?;
        shop.server_sidecar.process.signal(Signal::SIGKILL)?;
        second.sidecar.process.wait(LIMIT)?;
        shop.server_sidecar.process.wait(LIMIT)?;
        let begun = Instant::now();
        for _ in 0..20 {
            let reply = shop.get(WEB, "/")?;
            ensure!(
                reply.status == StatusCode::SERVICE_UNAVAILABLE,
                "{} {:?}",
                reply.status,
                refusal(&reply)
            );
        }
        let took = begun.elapsed();
        ensure!(took < Duration::from_secs(2), "20 refusals took {took:?}");
        Ok(())
    })
}

fn grpc_deadline(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let ask = |path: &str, timeout: &str| -> anyhow::Result<Reply> {
            let request = Request::post(format!("http://{WEB}{path}"))
                .version(Version::HTTP_2)
                .header("content-type", "application/grpc")
                .header("grpc-timeout", timeout)
                .body(Full::<Bytes>::default())?;
            Ok(shop.client.namespace.block_on(fetch(WEB, request))??)
        };
        let begun = Instant::now();
        let reply = ask("/delay/8000", "200m")?;
        let took = begun.elapsed();
        ensure!(
            refusal(&reply) == Some("request_timeout") && reply.headers["grpc-status"] == "4",
            "{reply:?}"
        );
        ensure!(took < Duration::from_secs(4), "it took {took:?}");
        shop.wait_client_refusal("request_timeout")?;
        // Who has time is served.
        let reply = ask("/delay/1", "5S")?;
        ensure!(refusal(&reply).is_none(), "{reply:?}");
        Ok(())
    })
}

/// Only while every endpoint has a hint and one is for the client's zone.
fn by_weight(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let second = second(shop, web)?;
        let weighs = |weight: &str| {
            let workload =
                Workload::new("shop", SECOND).annotated("config.ringmail.io/weight", weight);
            shop.mesh.put_workload(&second.pod, &workload)
        };
        weighs("0")?;
        let gets_nothing =
            || shares(shop, 20).is_ok_and(|[first, second]| first > 0.0 && second == 0.0);
        wait::until(LIMIT, gets_nothing).context("who weighs nothing is asked")?;
        weighs("300")?;
        let gets_most = || {
            shares(shop, 40)
                .is_ok_and(|[first, second]| (0.6..0.9).contains(&(second / (first + second))))
        };
        wait::until(LIMIT, gets_most)
            .context("three quarters do not go to who weighs three times as much")
    })
}

fn stays_in_zone(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let second = second(shop, web)?;
        let plan = Plan::default();
        let client = objects::pod(&plan.client, &shop.client.addresses());
        let labels = "metadata:\n  labels: {topology.kubernetes.io/zone: near}\n";
        let client = client.replacen("metadata:\n", labels, 1);
        shop.mesh.put("pod-shop-client", &client)?;
        let backends = [
            (plan.server.name.as_str(), shop.server.addresses()),
            (SECOND, second.pod.addresses()),
        ];
        let hinted = |yaml: String, pod: &str, zone: &str| {
            let target = format!("name: \"{pod}\"}}\n");
            let hints = format!("{target}  hints: {{forZones: [{{name: {zone}}}]}}\n");
            yaml.replace(&target, &hints)
        };
        let one_hint = hinted(
            objects::endpoint_slices(&service(), &backends),
            SECOND,
            "near",
        );
        let both_hints = hinted(one_hint.clone(), &plan.server.name, "far");
        shop.mesh.put("endpoints-shop-server", &both_hints)?;
        let is_near = || shares(shop, 4).is_ok_and(|[far, near]| far == 0.0 && near > 0.0);
        wait::until(LIMIT, is_near).context("requests leave the zone")?;
        shop.mesh.put("endpoints-shop-server", &one_hint)?;
        let is_everywhere = || shares(shop, 4).is_ok_and(|[far, _]| far > 0.0);
        wait::until(LIMIT, is_everywhere).context("requests stay in the zone")
    })
}
