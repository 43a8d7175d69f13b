//! Routes of the Gateway API as apps see them: where requests go, what changes on the way, and what is answered.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use ringmail_tests::apps;
use ringmail_tests::bed::Bed;
use ringmail_tests::load::{Client, Reply, fetch};
use ringmail_tests::mesh::{Service, ServicePort, Workload};
use ringmail_tests::netns::Pod;
use ringmail_tests::wait;

use crate::Scenario;
use crate::raw::{dial, read_rest};
use crate::shop::{LIMIT, Plan, Shop, WEB, get, play, refusal};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "routes::matches_filters_and_weights",
        matches_filters_and_weights,
    ),
    ("routes::timeouts_and_retries", timeouts_and_retries),
    ("routes::mirrors", mirrors),
    ("routes::pods_outside_the_mesh", pods_outside_the_mesh),
    ("routes::grpc", grpc),
    (
        "routes::what_is_not_http_is_refused",
        what_is_not_http_is_refused,
    ),
    (
        "routes::egress_is_the_namespaces_to_say",
        egress_is_the_namespaces_to_say,
    ),
    (
        "routes::many_large_ones_reach_the_proxy",
        many_large_ones_reach_the_proxy,
    ),
];

/// Another service, by which requests can go elsewhere; dialled nowhere in these scenarios.
const OTHER: &str = "other";

/// An HTTPRoute of the service's web port.
fn route(kind: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: web, namespace: shop}}\nspec:\n  parentRefs: [{{group: '', kind: Service, name: server, port: 80}}]\n  rules:\n{rules}"
    )
}

/// The same, as one of several.
fn named(name: &str, rules: &str) -> String {
    route("HTTPRoute", rules).replacen("name: web", &format!("name: {name}"), 1)
}

/// A shop with a second service, and the routes in force.
fn with_routes(
    bed: Bed,
    kind: &str,
    rules: &str,
    scenario: impl FnOnce(&Shop<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let pod = shop.node.pod(OTHER)?;
        let workload = Workload::new("shop", OTHER);
        apps::serve_web(&pod.namespace, OTHER, 8080)?;
        shop.mesh.put_workload(&pod, &workload)?;
        let _sidecar = shop.mesh.sidecar(&pod, &workload)?;
        shop.announce(&other(), &[(&workload, &pod)])?;
        shop.mesh.put("route", &route(kind, rules))?;
        let accepted = || -> anyhow::Result<bool> {
            let page = shop.mesh.controller_page("/status")?;
            let status: serde_json::Value = serde_json::from_slice(&page.body)?;
            let conditions = &status["routes"][0]["parents"][0]["conditions"];
            Ok(conditions[0]["reason"] == "Accepted" && conditions[1]["reason"] != "")
        };
        wait::until(LIMIT, || accepted().unwrap_or(false)).context("the route is not accepted")?;
        scenario(shop)
    })
}

fn other() -> Service {
    Service {
        namespace: "shop".to_owned(),
        name: OTHER.to_owned(),
        cluster_ips: vec![[10, 96, 0, 20].into()],
        ports: vec![ServicePort {
            name: "web".to_owned(),
            port: 80,
            target: 8080,
            app_protocol: None,
        }],
    }
}

fn ask(pod: &Pod, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Reply> {
    let mut request = Request::get(path).header("host", "server");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<Bytes>::default())?;
    Ok(pod.namespace.block_on(fetch(WEB, request))??)
}

fn served_by(reply: &Reply) -> &str {
    reply
        .headers
        .get("x-app")
        .and_then(|app| app.to_str().ok())
        .unwrap_or("nobody")
}

const RULES: &str = "
  - matches: [{path: {value: /other}, headers: [{name: x-version, value: two}]}]
    filters:
    - type: URLRewrite
      urlRewrite: {hostname: other.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-set, value: route}], remove: [x-gone]}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {add: [{name: x-route, value: other}]}
    backendRefs: [{name: other, port: 80}]
  - matches: [{path: {value: /moved}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {scheme: https, hostname: shop.example, path: {type: ReplaceFullPath, replaceFullPath: /here}, statusCode: 301}
  - matches: [{path: {value: /split}}]
    backendRefs: [{name: server, port: 80, weight: 3}, {name: other, port: 80, weight: 1}]
  - matches: [{path: {value: /gone}}]
    backendRefs: [{name: nobody, port: 80}]
  - matches: [{path: {type: Exact, value: /}}]
    backendRefs: [{name: server, port: 80}]
";

const MIRRORED: &str = "
  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: other, port: 80}}}]
    backendRefs: [{name: server, port: 80}]
";

fn mirrors(bed: Bed) -> anyhow::Result<()> {
    with_routes(bed, "HTTPRoute", MIRRORED, |shop| {
        let load = shop.load(Client::Http1(WEB, "/".to_owned()), 4)?;
        let post = Request::post("/")
            .header("host", "server")
            .body(Full::<Bytes>::from("a body"))?;
        let reply = shop.client.namespace.block_on(fetch(WEB, post))??;
        ensure!(
            served_by(&reply) == "shop" && reply.text().ends_with("a body"),
            "{reply:?}"
        );
        let outcome = shop.assert_unhurt(load)?;
        let sent = || shop.client_metric("ringmail_mirrored_total", &[("result", "sent")]);
        wait::until(LIMIT, || sent() > outcome.ok as f64).context("not all was mirrored")?;
        let failed = shop.client_metric("ringmail_mirrored_total", &[("result", "failed")]);
        ensure!(failed == 0.0, "{failed} failed");
        Ok(())
    })
}

fn matches_filters_and_weights(bed: Bed) -> anyhow::Result<()> {
    with_routes(bed, "HTTPRoute", RULES, |shop| {
        let ask = |path: &str, headers: &[(&str, &str)]| ask(&shop.client, path, headers);
        let reply = ask(
            "/other/a?b",
            &[("X-Version", "two"), ("x-gone", "1"), ("x-set", "client")],
        )?;
        let text = reply.text();
        ensure!(
            served_by(&reply) == OTHER && reply.headers["x-route"] == "other",
            "{reply:?}"
        );
        ensure!(text.starts_with("GET /new/a?b\n"), "{text}");
        ensure!(
            text.contains("host: other.example\n") && text.contains("x-set: route\n"),
            "{text}"
        );
        ensure!(
            !text.contains("x-gone") && !text.contains("client"),
            "{text}"
        );
        let reply = ask("/moved/x?y", &[])?;
        ensure!(reply.status == 301, "{reply:?}");
        ensure!(
            reply.headers["location"] == "https://shop.example/here?y",
            "{reply:?}"
        );
        let reply = ask("/", &[])?;
        ensure!(served_by(&reply) == "shop", "{reply:?}");
        for (path, status, reason) in [("/unknown", 404, "no_route"), ("/gone", 500, "no_backend")]
        {
            let reply = ask(path, &[])?;
            ensure!(
                reply.status == status && refusal(&reply) == Some(reason),
                "{reply:?}"
            );
        }
        // A quarter, by chance: of 200 requests fewer than 20 or more than 90 would be one in a million.
        let mut others = 0;
        for _ in 0..200 {
            others += u32::from(served_by(&ask("/split", &[])?) == OTHER);
        }
        ensure!((20..90).contains(&others), "{others} of 200");
        // What the client's proxy has learnt holds for connections that are open already, too.
        let load = shop.load(Client::Http1(WEB, "/split".to_owned()), 4)?;
        shop.mesh.put("route", &route("HTTPRoute", "  - matches: [{path: {value: /split}}]\n    backendRefs: [{name: other, port: 80}]\n"))?;
        wait::until(LIMIT, || {
            (0..20).all(|_| ask("/split", &[]).is_ok_and(|reply| served_by(&reply) == OTHER))
        })
        .context("the change is not heard")?;
        shop.assert_unhurt(load)?;
        shop.assert_wire_unread()
    })
}

const IMPATIENT: &str = "
  - matches: [{path: {value: /delay}}]
    timeouts: {request: 200ms}
    backendRefs: [{name: server, port: 80}]
  - matches: [{path: {value: /status}}]
    retry: {codes: [503], attempts: 2, backoff: 1ms}
    backendRefs: [{name: server, port: 80}]
";

fn timeouts_and_retries(bed: Bed) -> anyhow::Result<()> {
    with_routes(bed, "HTTPRoute", IMPATIENT, |shop| {
        let begun = std::time::Instant::now();
        let reply = ask(&shop.client, "/delay/5000", &[])?;
        ensure!(
            reply.status == 504 && refusal(&reply) == Some("request_timeout"),
            "{reply:?}"
        );
        ensure!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        ensure!(ask(&shop.client, "/delay/1", &[])?.status == 200);
        let reply = ask(&shop.client, "/status/503", &[])?;
        ensure!(reply.status == 503, "{reply:?}");
        let sent = shop.client_metric(
            "ringmail_retries_total",
            &[("cause", "status"), ("result", "sent")],
        );
        ensure!((sent - 2.0).abs() < 0.1, "{sent} retries");
        Ok(())
    })
}

const OUTSIDE: &str = "
  - matches: [{path: {value: /out}}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: route}]}}]
    backendRefs: [{name: outside, port: 80}]
";

/// A service whose pods have no sidecar: the engine is the same, only the wire is plain.
fn pods_outside_the_mesh(bed: Bed) -> anyhow::Result<()> {
    with_routes(bed, "HTTPRoute", OUTSIDE, |shop| {
        let pod = shop.node.pod("outside")?;
        let workload = Workload::new("shop", "outside").annotated("ringmail.io/inject", "disabled");
        apps::serve_web(&pod.namespace, "outside", 8080)?;
        apps::serve_lines(&pod.namespace, 7000)?;
        shop.mesh.put_workload(&pod, &workload)?;
        let mut service = other();
        service.name = "outside".to_owned();
        service.cluster_ips = vec![[10, 96, 0, 30].into()];
        service.ports.push(ServicePort {
            name: "talk".to_owned(),
            port: 7000,
            target: 7000,
            app_protocol: None,
        });
        shop.announce(&service, &[(&workload, &pod)])?;
        let outside = |port: u16| std::net::SocketAddr::from(([10, 96, 0, 30], port));
        let route = || ask(&shop.client, "/out", &[]);
        wait::until(LIMIT, || {
            route().is_ok_and(|reply| served_by(&reply) == "outside")
        })
        .context("the route does not lead there")?;
        ensure!(route()?.text().contains("x-set: route\n"));
        for client in [
            Client::Http1(outside(80), "/".to_owned()),
            Client::Http2(outside(80), "/".to_owned()),
            Client::Grpc(outside(80), "hello".to_owned()),
            Client::Lines(outside(7000), "hello".to_owned()),
        ] {
            let load = shop.load(client, 2)?;
            shop.assert_unhurt(load)?;
        }
        let request = Request::get("/%2f")
            .header("host", "a")
            .body(Full::<Bytes>::default())?;
        let reply = shop
            .client
            .namespace
            .block_on(fetch(outside(80), request))??;
        ensure!(reply.status == 400, "{reply:?}");
        let labels = [
            ("direction", "outbound"),
            ("tls", "none"),
            ("outcome", "success"),
        ];
        for (name, least) in [
            ("ringmail_requests_total", 60.0),
            ("ringmail_connections_total", 1.0),
        ] {
            let counted = shop.client_metric(name, &labels);
            ensure!(counted >= least, "{name}: {counted}");
        }
        Ok(())
    })
}

const GRPC: &str = "
  - matches: [{method: {service: ringmail.test.v1.EchoService, method: Say}}]
    backendRefs: [{name: other, port: 80}]
";

fn grpc(bed: Bed) -> anyhow::Result<()> {
    with_routes(bed, "GRPCRoute", GRPC, |shop| {
        let load = shop.load(Client::Grpc(WEB, "hello".to_owned()), 2)?;
        shop.assert_unhurt(load)?;
        let labels = [
            ("direction", "outbound"),
            ("peer", "spiffe://mesh.local/ns/shop/sa/other"),
        ];
        ensure!(
            shop.client_metric("ringmail_requests_total", &labels) > 0.0,
            "they went elsewhere"
        );
        let reply = get(&shop.client, WEB, "/ringmail.test.v1.EchoService/Other")?;
        ensure!(
            reply.status == 404 && refusal(&reply) == Some("no_route"),
            "{reply:?}"
        );
        Ok(())
    })
}

fn what_is_not_http_is_refused(bed: Bed) -> anyhow::Result<()> {
    with_routes(bed, "HTTPRoute", RULES, |shop| {
        let mut client = dial(&shop.client, WEB)?;
        std::io::Write::write_all(&mut client, b"\x16\x03\x01 no http\r\n")?;
        read_rest(&mut client);
        shop.wait_client_refusal("not_http")
    })
}

/// Nobody in the mesh has this address: it is the node's own.
fn egress_is_the_namespaces_to_say(bed: Bed) -> anyhow::Result<()> {
    let client = |mode| Workload::new("shop", "client").annotated("ringmail.io/egress", mode);
    let play = |mode, scenario: &dyn Fn(&Shop<'_>, std::net::SocketAddr) -> anyhow::Result<()>| {
        let plan = Plan {
            client: client(mode),
            ..Plan::default()
        };
        play(bed, &plan, |shop| {
            apps::serve_web(&shop.node.namespace, "outside", 8080)?;
            scenario(shop, (ringmail_tests::netns::NODE_V4, 8080).into())
        })
    };
    play("deny", &|shop, outside| {
        let reply = get(&shop.client, outside, "/")?;
        ensure!(
            reply.status == 403 && refusal(&reply) == Some("egress_denied"),
            "{reply:?}"
        );
        ensure!(
            get(&shop.client, WEB, "/")?.status == 200,
            "what is in the mesh is reached"
        );
        Ok(())
    })?;
    play("audit", &|shop, outside| {
        ensure!(served_by(&get(&shop.client, outside, "/")?) == "outside");
        ensure!(shop.client_metric("ringmail_egress_audited_total", &[]) > 0.0);
        Ok(())
    })
}

/// Broken before: what a proxy is told of one address was cut off at 4 MiB, and with it all that it is told.
fn many_large_ones_reach_the_proxy(bed: Bed) -> anyhow::Result<()> {
    let to_other = |path: &str| {
        format!(
            "  - matches: [{{path: {{value: {path}}}}}]\n    backendRefs: [{{name: other, port: 80}}]\n"
        )
    };
    with_routes(bed, "HTTPRoute", &to_other("/first"), |shop| {
        let goes = |path: &str| {
            let reply = ask(&shop.client, path, &[]);
            reply.is_ok_and(|reply| served_by(&reply) == OTHER)
        };
        wait::until(LIMIT, || goes("/first")).context("before")?;
        // Almost a file's limit each, 5.4 MiB together.
        let headers: Vec<_> = (0..55)
            .map(|n| format!("{{name: x-{n}, value: {}}}", "v".repeat(4096)))
            .collect();
        let headers = headers.join(", ");
        let edits = format!(
            "    filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{headers}]}}}}]\n"
        );
        for n in 0..6 {
            let rules: String = (0..4)
                .map(|rule| to_other(&format!("/large/{n}/{rule}")) + &edits)
                .collect();
            let name = format!("large-{n}");
            shop.mesh.put(&name, &named(&name, &rules))?;
        }
        shop.mesh.put("last", &named("last", &to_other("/last")))?;
        wait::until(LIMIT, || goes("/last")).context("after")
    })
}
