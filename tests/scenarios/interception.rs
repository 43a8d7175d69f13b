//! Who is taken in, and what never goes through a proxy.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ringmail_proxy::capture::{self, Plan as Rules, Settings};
use ringmail_tests::apps::{self, BANNER};
use ringmail_tests::bed::{Bed, Exemption, PROXY_IDENTITY};
use ringmail_tests::mesh::{Service, ServicePort, Workload};
use ringmail_tests::netns::{Node, Pod};
use ringmail_tests::wait;

use crate::Scenario;
use crate::raw::{Ending, dial, expect, read_head, read_rest};
use crate::shop::{LIMIT, Plan, Shop, WEB, get, play, refusal};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("interception::own_addresses", own_addresses),
    ("interception::strict_and_permissive", strict_and_permissive),
    ("interception::declared_probes_pass", declared_probes_pass),
    (
        "interception::strangers_hold_up_nobody_else",
        strangers_hold_up_nobody_else,
    ),
    (
        "interception::flushed_rules_end_readiness",
        flushed_rules_end_readiness,
    ),
];

/// A service whose only pod is the client itself.
const OWN_SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 30)), 80);

/// A pod without a sidecar, of which the mesh knows nothing, that speaks to a meshed one.
const INTRUDER: &str = "intruder";

fn own_addresses(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        apps::serve_web(&shop.client.namespace, "own", 8080)?;
        let service = Service {
            namespace: "shop".to_owned(),
            name: "own".to_owned(),
            cluster_ips: vec![OWN_SERVICE.ip()],
            ports: vec![ServicePort {
                name: "web".to_owned(),
                port: 80,
                target: 8080,
                app_protocol: None,
            }],
        };
        shop.announce(&service, &[(&Plan::default().client, &shop.client)])?;
        let connections = || shop.client_metric("ringmail_connections_total", &[]);
        let before = connections();
        let [v4, v6] = shop.client.addresses();
        for ip in [Ipv4Addr::LOCALHOST.into(), "::1".parse()?, v4, v6] {
            let reply = shop.get(SocketAddr::new(ip, 8080), "/")?;
            ensure!(
                reply.status == 200 && reply.headers["x-app"] == "own",
                "{ip}: {reply:?}"
            );
        }
        // Nobody is sent on who dials the proxy itself.
        for ip in [Ipv4Addr::LOCALHOST.into(), "::1".parse()?] {
            for port in [15001, 15006] {
                let mut client = dial(&shop.client, SocketAddr::new(ip, port))?;
                client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
                let (said, _) = read_rest(&mut client);
                ensure!(said.is_empty(), "{ip} {port}: {said}");
            }
        }
        // The scrape's own connections are not captured either.
        ensure!(
            connections() == before,
            "the proxy saw what was addressed to its own pod"
        );

        let reply = shop.get(OWN_SERVICE, "/")?;
        ensure!(
            reply.status == 200 && reply.headers["x-app"] == "own",
            "{reply:?}"
        );
        let outbound = [
            ("direction", "outbound"),
            ("tls", "none"),
            ("outcome", "success"),
        ];
        wait::until(LIMIT, || {
            shop.client_metric("ringmail_connections_total", &outbound) == 1.0
        })
        .context("the proxy did not balance")?;
        let inbound = [("direction", "inbound")];
        ensure!(
            shop.client_metric("ringmail_connections_total", &inbound) == 0.0
                && shop.client_metric("ringmail_handshakes_total", &inbound) == 0.0,
            "twice through the proxy"
        );
        let wire = shop.wire.report();
        let own = [v4, v6, OWN_SERVICE.ip()];
        let seen: Vec<_> = wire.between(&own, &own).map(ToString::to_string).collect();
        ensure!(seen.is_empty(), "it left the pod: {seen:?}");
        Ok(())
    })
}

fn strict_and_permissive(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let intruder = shop.node.pod(INTRUDER)?;
        for ip in shop.server.addresses() {
            let reply = get(&intruder, SocketAddr::new(ip, 8080), "/")?;
            ensure!(
                reply.status == 403 && refusal(&reply) == Some("mtls_required"),
                "{ip}: {reply:?}"
            );
        }
        let request = hyper::Request::get("http://shop/").version(hyper::Version::HTTP_2);
        let request = request.body(http_body_util::Full::<bytes::Bytes>::default())?;
        let to = shop.server_at(8080);
        let asked = intruder
            .namespace
            .block_on(async move { ringmail_tests::load::fetch(to, request).await });
        let reply = asked??;
        ensure!(
            reply.status == 403 && refusal(&reply) == Some("mtls_required"),
            "HTTP/2: {reply:?}"
        );
        let mut opaque = dial(&intruder, shop.server_at(7000))?;
        opaque.write_all(b"hello\r\n")?;
        let (heard, ending) = read_rest(&mut opaque);
        ensure!(
            heard.is_empty() && ending != Ending::Open,
            "{heard:?}, {ending:?}"
        );
        shop.wait_server_refusal("mtls_required")?;

        // The mesh's own traffic goes on beside it, whatever the annotation says.
        let server = Plan::default().server;
        let permissive = server
            .clone()
            .annotated("ringmail.io/inbound", "permissive");
        for (workload, status) in [(&permissive, 200), (&server, 403), (&permissive, 200)] {
            shop.mesh.put_workload(&shop.server, workload)?;
            wait::until(LIMIT, || {
                get(&intruder, shop.server_at(8080), "/").is_ok_and(|reply| reply.status == status)
            })
            .with_context(|| format!("the annotation {:?} does not bite", workload.annotations))?;
            ensure!(shop.get(WEB, "/")?.status == 200, "meshed");
        }
        permissive_http(shop, &intruder)?;
        let mut opaque = dial(&intruder, shop.server_at(7000))?;
        expect(&mut opaque, BANNER.as_bytes())?;
        opaque.write_all(b"hello\r\n")?;
        expect(&mut opaque, b"hello\r\n")?;
        let plain = [
            ("direction", "inbound"),
            ("tls", "none"),
            ("peer", "none"),
            ("outcome", "success"),
        ];
        drop(opaque);
        wait::until(LIMIT, || {
            shop.server_metric("ringmail_connections_total", &plain) >= 2.0
        })
        .context("plaintext is not counted")
    })
}

/// Plaintext of a permissive workload is HTTP that is looked at like any other.
fn permissive_http(shop: &Shop<'_>, intruder: &Pod) -> anyhow::Result<()> {
    let web = shop.server_at(8080);
    let reply = get(intruder, web, "/a/../b//c?d=%2F")?;
    ensure!(
        reply.status == 200 && reply.text().starts_with("GET /b/c?d=%2F\n"),
        "{}",
        reply.text()
    );
    let mut client = dial(intruder, web)?;
    client.write_all(b"GET /bytes/2 HTTP/1.1\r\nHost: a\r\n\r\nPOST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")?;
    ensure!(read_head(&mut client)?.starts_with("HTTP/1.1 200 "));
    expect(&mut client, b"xx")?;
    ensure!(read_head(&mut client)?.starts_with("HTTP/1.1 200 "));
    expect(&mut client, b"3\r\nabc\r\n0\r\n\r\n")?;
    client.write_all(b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let (refused, _) = read_rest(&mut client);
    ensure!(
        refused.starts_with("HTTP/1.1 400 ") && refused.contains("malformed_request"),
        "{refused:?}"
    );
    let request = hyper::Request::get("http://shop/a/./b").version(hyper::Version::HTTP_2);
    let request = request.body(http_body_util::Full::<bytes::Bytes>::default())?;
    let asked = intruder
        .namespace
        .block_on(async move { ringmail_tests::load::fetch(web, request).await });
    let reply = asked??;
    ensure!(reply.status == 200, "HTTP/2: {reply:?}");
    ensure!(reply.text().contains("/a/b\n"), "{}", reply.text());
    for protocol in ["http1", "http2"] {
        let labels = [
            ("direction", "inbound"),
            ("peer", "none"),
            ("tls", "none"),
            ("outcome", "success"),
            ("protocol", protocol),
        ];
        wait::until(LIMIT, || {
            shop.server_metric("ringmail_requests_total", &labels) >= 1.0
        })
        .with_context(|| format!("plaintext requests of {protocol} are not counted"))?;
    }
    shop.wait_server_refusal("malformed_request")
}

fn declared_probes_pass(bed: Bed) -> anyhow::Result<()> {
    let server = Workload::new("shop", "server")
        .containing("livenessProbe: {httpGet: {path: /status/200, port: 8080}}")
        .containing("readinessProbe: {tcpSocket: {port: 7000}}");
    let plan = Plan {
        server,
        ..Plan::default()
    };
    play(bed, &plan, |shop| {
        let kubelet = shop.node.pod(INTRUDER)?;
        for ip in shop.server.addresses() {
            let reply = get(&kubelet, SocketAddr::new(ip, 8080), "/status/200")?;
            ensure!(
                reply.status == 200 && reply.headers["x-app"] == "shop",
                "{reply:?}"
            );
        }
        let rows = [
            "GET /status/200?a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /status/200/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /bytes/1 HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /status/200 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "GET /status/200 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
            "GET /status/200 HTTP/1.1\r\nHost: a\r\n\r\nGET /bytes/1 HTTP/1.1\r\nHost: a\r\n\r\n",
        ];
        for request in rows {
            let mut stream = dial(&kubelet, shop.server_at(8080))?;
            stream.write_all(request.as_bytes())?;
            let head = read_head(&mut stream).context(request)?;
            ensure!(
                head.starts_with("HTTP/1.1 403 ") && head.contains("mtls_required"),
                "{request:?}: {head:?}"
            );
        }
        // One request is all that a probe gets through.
        let mut stream = dial(&kubelet, shop.server_at(8080))?;
        stream.write_all(b"GET /status/200 HTTP/1.1\r\nHost: a\r\n\r\n")?;
        ensure!(read_head(&mut stream)?.starts_with("HTTP/1.1 200 "));
        let _ = stream.write_all(b"GET /bytes/1 HTTP/1.1\r\nHost: a\r\n\r\n");
        let (rest, _) = read_rest(&mut stream);
        ensure!(!rest.contains("HTTP/1.1"), "{rest:?}");

        let refused = || {
            let labels = [("direction", "inbound"), ("reason", "mtls_required")];
            shop.server_metric(crate::shop::REFUSALS, &labels)
        };
        let before = refused();
        let mut connects = dial(&kubelet, shop.server_at(7000))?;
        connects.shutdown(Shutdown::Write)?;
        let ended = read_rest(&mut connects);
        ensure!(ended == (String::new(), Ending::Closed), "{ended:?}");
        ensure!(refused() == before, "a TCP probe was refused");
        let mut speaks = dial(&kubelet, shop.server_at(7000))?;
        speaks.write_all(b"hello\r\n")?;
        let (heard, ending) = read_rest(&mut speaks);
        ensure!(
            heard.is_empty() && ending != Ending::Open,
            "{heard:?}, {ending:?}"
        );
        wait::until(LIMIT, || refused() > before).context("not counted")
    })
}

/// Half a handshake on each of many connections, and as many that never say anything, all of one pod: they wait behind
/// each other. The kubelet is answered within its second, and a peer that comes for the first time gets in.
fn strangers_hold_up_nobody_else(bed: Bed) -> anyhow::Result<()> {
    /// More than a worker has places for.
    const STRANGERS: usize = 1_200;
    /// How long a kubelet waits by default.
    const PROBE_LIMIT: Duration = Duration::from_secs(1);
    let server = Workload::new("shop", "server")
        .containing("livenessProbe: {httpGet: {path: /status/200, port: 8080}}");
    let plan = Plan {
        server,
        ..Plan::default()
    };
    play(bed, &plan, |shop| {
        let intruder = shop.node.pod(INTRUDER)?;
        let kubelet = shop.node.pod("kubelet")?;
        // The head of a record of a handshake, of which nothing follows.
        let half = [0x16, 3, 1, 2, 0];
        let mut held = Vec::new();
        for _ in 0..STRANGERS {
            let mut stream = dial(&intruder, shop.server_at(15008))?;
            stream.write_all(&half)?;
            held.push(stream);
            held.push(dial(&intruder, shop.server_at(8080))?);
        }
        for _ in 0..3 {
            let begun = Instant::now();
            let reply = get(&kubelet, shop.server_at(8080), "/status/200")?;
            ensure!(reply.status == 200, "{reply:?}");
            ensure!(begun.elapsed() < PROBE_LIMIT, "{:?}", begun.elapsed());
        }
        let begun = Instant::now();
        let reply = shop.get(WEB, "/")?;
        ensure!(reply.status == 200, "{reply:?}");
        ensure!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
        drop(held);
        shop.assert_wire_unread()
    })
}

fn flushed_rules_end_readiness(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        shop.server.namespace.run(capture::cleanup)??;
        wait::until(Duration::from_secs(5), || {
            !shop.server_sidecar.is_ready(shop.node)
        })
        .context("ready without rules")?;
        ensure!(shop.server_metric("ringmail_capture_in_force", &[]) == 0.0);
        let rules = rules(shop)?;
        shop.server.namespace.run(|| capture::apply(&rules))??;
        wait::until(Duration::from_secs(5), || {
            shop.server_sidecar.is_ready(shop.node)
        })
        .context("not ready again")?;
        let reply = shop.get(WEB, "/")?;
        ensure!(reply.status == 200, "{reply:?}");
        shop.assert_wire_unread()
    })
}

/// What the bed's pods have.
pub(crate) fn rules(shop: &Shop<'_>) -> anyhow::Result<Rules> {
    let Node { exemption, .. } = shop.node;
    let exempt = |who| (*exemption == who).then_some(PROXY_IDENTITY);
    Ok(Rules::new(Settings {
        exempt_uid: exempt(Exemption::Uid),
        exempt_mark: exempt(Exemption::Mark),
        ..Settings::default()
    })?)
}
