//! External authorizers: a real one, of the mesh, and what comes of its answers and of there being none.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Version};
use ringmail_proto::ext_authz::AttributeContext;
use ringmail_proto::ext_authz::attribute_context::HttpRequest;
use ringmail_proto::policy::external::CHECK_PATH;
use ringmail_tests::apps::{self, Authorizer};
use ringmail_tests::bed::Bed;
use ringmail_tests::load::{Client, Reply, fetch};
use ringmail_tests::mesh::{Service, ServicePort, Sidecar, Workload};
use ringmail_tests::netns::Pod;
use ringmail_tests::wait;

use crate::Scenario;
use crate::raw::{Ending, dial, expect, read_rest};
use crate::shop::{LIMIT, Plan, Shop, TALK, WEB, play, refusal};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("external::answers_are_acted_on", answers_are_acted_on),
    (
        "external::refusals_are_the_authorizers",
        refusals_are_the_authorizers,
    ),
    (
        "external::bodies_are_told_when_asked_for",
        bodies_are_told_when_asked_for,
    ),
    ("external::without_an_answer", without_an_answer),
    (
        "external::what_cannot_be_asked_about",
        what_cannot_be_asked_about,
    ),
    ("external::it_moves_under_load", it_moves_under_load),
];

/// Where the authorizer's service is dialled.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);
/// Where its pods listen.
const PORT: u16 = 9191;

/// A pod that is asked. Fields are dropped in order.
struct Asked {
    app: Authorizer,
    _sidecar: Sidecar,
    pod: Pod,
    workload: Workload,
}

fn service() -> Service {
    Service {
        namespace: "authz".to_owned(),
        name: "opa".to_owned(),
        cluster_ips: vec![IpAddr::V4(SERVICE)],
        ports: vec![ServicePort {
            name: "grpc".to_owned(),
            port: 80,
            target: PORT,
            app_protocol: None,
        }],
    }
}

fn pod(shop: &Shop<'_>, name: &str) -> anyhow::Result<Asked> {
    let pod = shop.node.pod(name)?;
    let workload = Workload::new("authz", name);
    let app = Authorizer::start(&pod.namespace, PORT)?;
    shop.mesh.put_namespace("authz", true)?;
    shop.mesh.put_workload(&pod, &workload)?;
    let sidecar = shop.mesh.sidecar(&pod, &workload)?;
    Ok(Asked {
        app,
        _sidecar: sidecar,
        pod,
        workload,
    })
}

/// An authorizer behind its service.
fn authorizer(shop: &Shop<'_>) -> anyhow::Result<Asked> {
    let asked = pod(shop, "opa")?;
    shop.announce(&service(), &[(&asked.workload, &asked.pod)])?;
    Ok(asked)
}

/// The policy that asks about everything of the server's; `more` of what it says of who is asked.
fn asking(more: &str) -> String {
    asking_of("{kind: Service, name: server}", more)
}

fn asking_of(target: &str, more: &str) -> String {
    format!(
        "apiVersion: ringmail.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: ask, namespace: shop}}\nspec:\n  targetRefs: [{target}]\n  action: external\n  external: {{service: {{namespace: authz, name: opa, port: 80}}{more}}}\n"
    )
}

/// Puts the policy in force, and waits until it is.
fn ask(shop: &Shop<'_>, asked: &Asked, more: &str) -> anyhow::Result<()> {
    shop.mesh.put(
        "ask",
        &asking(&format!(
            ", contextExtensions: {{round: '{}'}}{more}",
            more.len()
        )),
    )?;
    let round = more.len().to_string();
    let is_asked = || {
        let _ = shop.get(WEB, "/ready");
        let about = asked.app.asked("/ready");
        about.is_some_and(|about| about.context_extensions.get("round") == Some(&round))
    };
    wait::until(LIMIT, is_asked).context("the authorizer is not asked")
}

fn post(shop: &Shop<'_>, path: &str, fields: &[(&str, &str)], body: &str) -> anyhow::Result<Reply> {
    let mut request = Request::post(path).header("host", "server");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned())))?;
    Ok(shop.client.namespace.block_on(fetch(WEB, request))??)
}

fn http(about: AttributeContext) -> anyhow::Result<HttpRequest> {
    let request = about.request.context("no request")?;
    request.http.context("no HTTP")
}

fn is_refused(reply: &Reply, reason: &str) -> anyhow::Result<()> {
    ensure!(
        reply.status == 403 && refusal(reply) == Some(reason),
        "{reply:?}"
    );
    Ok(())
}

fn answers_are_acted_on(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let asked = authorizer(shop)?;
        ask(shop, &asked, "")?;
        // Policies of our own come first: nobody is asked about what they refuse.
        let deny = "apiVersion: ringmail.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: deny, namespace: shop}\nspec:\n  targetRefs: [{kind: Namespace}]\n  action: deny\n  rules: [{to: [{paths: [{exact: /no}]}]}]\n";
        shop.mesh.put("deny", deny)?;
        wait::until(LIMIT, || {
            shop.get(WEB, "/no")
                .is_ok_and(|reply| refusal(&reply) == Some("policy_denied"))
        })?;
        let before = asked.app.count();
        shop.get(WEB, "/no")?;
        ensure!(asked.app.count() == before);

        let sent = [
            ("x-secret", "s"),
            ("x-user", "mallory"),
            ("x_user", "mallory"),
        ];
        let reply = post(shop, "/edited?a=b", &sent, "")?;
        let text = reply.text();
        ensure!(
            reply.status == 200 && text.contains("x-user: alice\n"),
            "{text}"
        );
        ensure!(
            !text.contains("mallory") && !text.contains("x-secret"),
            "{text}"
        );
        ensure!(reply.headers["x-checked"] == "yes", "{reply:?}");

        let about = asked.app.asked("/edited").context("not asked")?;
        let principal = |peer: &Option<_>| -> anyhow::Result<String> {
            let peer: &ringmail_proto::ext_authz::attribute_context::Peer =
                peer.as_ref().context("no peer")?;
            Ok(peer.principal.clone())
        };
        ensure!(principal(&about.source)? == "spiffe://mesh.local/ns/shop/sa/client");
        ensure!(principal(&about.destination)? == "spiffe://mesh.local/ns/shop/sa/server");
        let http = http(about)?;
        ensure!(
            http.path == "/edited?a=b" && http.method == "POST",
            "{http:?}"
        );
        ensure!(
            http.headers["x-secret"] == "s" && http.headers[":authority"] == "server",
            "{http:?}"
        );

        let allowed = [("policy", "shop/ask"), ("verdict", "allow")];
        ensure!(shop.server_metric("ringmail_authorizations_total", &allowed) >= 2.0);
        let took = [("policy", "shop/ask"), ("result", "allowed")];
        ensure!(
            shop.server_metric("ringmail_authorization_check_duration_seconds_count", &took) >= 2.0
        );
        shop.assert_wire_unread()
    })
}

fn refusals_are_the_authorizers(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let asked = authorizer(shop)?;
        ask(shop, &asked, "")?;
        is_refused(&shop.get(WEB, "/denied")?, "authorizer_denied")?;
        let reply = shop.get(WEB, "/login")?;
        ensure!(
            reply.status == 401 && reply.text() == "who are you?",
            "{reply:?}"
        );
        ensure!(reply.headers["www-authenticate"] == "Basic", "{reply:?}");
        ensure!(refusal(&reply) == Some("authorizer_denied"), "{reply:?}");
        let decision = reply.headers["x-ringmail-decision"].to_str()?.to_owned();
        let line = shop.audited(&[&Plan::default().server], &decision)?;
        let fields = &line["fields"];
        ensure!(
            fields["policy"] == "shop/ask" && fields["by"] == "external",
            "{line}"
        );

        // Another request of the same connection is answered as well.
        let mut client = dial(&shop.client, WEB)?;
        client.write_all(b"GET /login HTTP/1.1\r\nHost: a\r\n\r\n")?;
        expect(&mut client, b"HTTP/1.1 401 Unauthorized\r\n")?;
        client.write_all(b"GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let (heard, _) = read_rest(&mut client);
        ensure!(heard.contains("who are you?HTTP/1.1 200 OK"), "{heard}");

        for (path, code) in [("/denied", "7"), ("/login", "16")] {
            let request = Request::post(format!("http://server{path}"))
                .version(Version::HTTP_2)
                .header("content-type", "application/grpc")
                .body(Full::<Bytes>::default())?;
            let reply: Reply = shop.client.namespace.block_on(fetch(WEB, request))??;
            let status = reply.headers.get("grpc-status").context("no grpc-status")?;
            ensure!(reply.status == 200 && status == code, "{reply:?}");
            ensure!(refusal(&reply) == Some("authorizer_denied"), "{reply:?}");
        }
        let denied = [("policy", "shop/ask"), ("verdict", "deny")];
        ensure!(shop.server_metric("ringmail_authorizations_total", &denied) >= 4.0);
        shop.wait_server_refusal("authorizer_denied")
    })
}

fn bodies_are_told_when_asked_for(bed: Bed) -> anyhow::Result<()> {
    const LONG: usize = 20 * 1024;
    play(bed, &Plan::default(), |shop| {
        let asked = authorizer(shop)?;
        ask(shop, &asked, "")?;
        let body = "x".repeat(LONG);
        let told = |path: &str| -> anyhow::Result<String> {
            let about = asked.app.asked(path).context("not asked")?;
            Ok(http(about)?.body)
        };
        let reply = post(shop, "/stream", &[], &body)?;
        ensure!(reply.body.len() == LONG && told("/stream")?.is_empty());

        ask(shop, &asked, ", includeBody: {maxBytes: 32768}")?;
        let reply = post(shop, "/stream", &[], &body)?;
        ensure!(reply.body.len() == LONG && told("/stream")? == body);
        let mut client = dial(&shop.client, WEB)?;
        client.write_all(b"POST /waits HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n")?;
        expect(&mut client, b"HTTP/1.1 100 Continue\r\n\r\n")?;
        client.write_all(b"abc")?;
        let (heard, _) = read_rest(&mut client);
        ensure!(
            heard.contains("200 OK") && told("/waits")? == "abc",
            "{heard}"
        );

        // Whether it says how long it is or not.
        let long = "x".repeat(32 * 1024 + 1);
        let reply = post(shop, "/long", &[], &long)?;
        ensure!(
            reply.status == 413 && refusal(&reply) == Some("body_too_large"),
            "{reply:?}"
        );
        let mut client = dial(&shop.client, WEB)?;
        let head = "POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.write_all(format!("{head}8001\r\n{long}\r\n").as_bytes())?;
        expect(&mut client, b"HTTP/1.1 413 ")?;
        ensure!(asked.app.asked("/long").is_none() && asked.app.asked("/chunked").is_none());
        Ok(())
    })
}

fn without_an_answer(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let asked = authorizer(shop)?;
        ask(shop, &asked, "")?;
        let begun = Instant::now();
        is_refused(&shop.get(WEB, "/slow")?, "authorizer_failed")?;
        ensure!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        for path in ["/broken", "/odd"] {
            is_refused(&shop.get(WEB, path)?, "authorizer_failed")?;
        }
        let failed = [("policy", "shop/ask"), ("result", "failed")];
        ensure!(
            shop.server_metric(
                "ringmail_authorization_check_duration_seconds_count",
                &failed
            ) >= 3.0
        );

        ask(shop, &asked, ", onFailure: allow")?;
        for path in ["/slow", "/broken", "/odd"] {
            let reply = shop.get(WEB, path)?;
            ensure!(reply.status == 200, "{path}: {reply:?}");
        }
        is_refused(&shop.get(WEB, "/denied")?, "authorizer_denied")?;
        let told = "let through without an answer";
        shop.audited(&[&Plan::default().server], told)?;

        asked.app.kill();
        ensure!(shop.get(WEB, "/denied")?.status == 200);
        shop.mesh.put("ask", &asking(""))?;
        wait::until(LIMIT, || {
            shop.get(WEB, "/")
                .is_ok_and(|reply| is_refused(&reply, "authorizer_failed").is_ok())
        })
        .context("it is not refused while nobody answers")?;
        // Nor is anybody asked who is not there, and the policy says so.
        let nowhere = asking("").replace("name: opa", "name: nobody");
        shop.mesh.put("ask", &nowhere)?;
        wait::until(LIMIT, || {
            let page = shop.mesh.controller_page("/status");
            page.is_ok_and(|page| page.text().contains("there is no Service authz/nobody:80"))
        })?;
        is_refused(&shop.get(WEB, "/")?, "authorizer_failed")
    })
}

fn what_cannot_be_asked_about(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let asked = authorizer(shop)?;
        // A stream that begins before the policy, and would have been asked about, ends with it.
        let mut upload = dial(&shop.client, WEB)?;
        upload.write_all(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nsome")?;
        let mut opaque = dial(&shop.client, TALK)?;
        expect(&mut opaque, apps::BANNER.as_bytes())?;
        wait::until(LIMIT, || {
            shop.server_metric("ringmail_authorizations_total", &[("verdict", "allow")]) >= 2.0
        })?;
        ask(shop, &asked, "")?;
        for stream in [&mut upload, &mut opaque] {
            let (heard, ending) = read_rest(stream);
            ensure!(heard.is_empty() || heard.contains("policy_cut"), "{heard}");
            ensure!(ending != Ending::Open, "it is not cut: {heard}");
        }
        // Bytes are nothing to ask about.
        let mut opaque = dial(&shop.client, TALK)?;
        let (heard, _) = read_rest(&mut opaque);
        ensure!(heard.is_empty(), "{heard}");
        // Nor is the call that asks.
        is_refused(&shop.get(WEB, CHECK_PATH)?, "authorizer_failed")?;
        ensure!(asked.app.asked(CHECK_PATH).is_none() && asked.app.asked("/early").is_none());

        let ringmail = shop.mesh.controller_page("/status")?.text();
        ensure!(ringmail.contains("\"Accepted\""), "{ringmail}");
        Ok(())
    })
}

fn it_moves_under_load(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let asked = authorizer(shop)?;
        let next = pod(shop, "next")?;
        ask(shop, &asked, ", timeout: 5s")?;
        let load = shop.load(Client::Http1(WEB, "/load".to_owned()), 4)?;
        shop.mesh
            .put_service(&service(), &[(&next.workload, &next.pod)])?;
        wait::until(LIMIT, || next.app.asked("/load").is_some()).context("it did not move")?;
        let before = load.exchanges();
        wait::until(LIMIT, || load.exchanges() > before + 100)?;
        asked.app.kill();
        let before = load.exchanges();
        wait::until(LIMIT, || load.exchanges() > before + 100)?;
        shop.assert_unhurt(load)?;
        Ok(())
    })
}
