//! Who may ask whom for what: policies as apps and operators see them.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Version};
use ringmail_tests::apps;
use ringmail_tests::bed::Bed;
use ringmail_tests::load::{Reply, fetch};
use ringmail_tests::mesh::Workload;
use ringmail_tests::wait;

use crate::Scenario;
use crate::raw::{Ending, dial, expect, read_rest};
use crate::shop::{LIMIT, Plan, Shop, TALK, WEB, get, play, refusal};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("authorization::by_rules", by_rules),
    (
        "authorization::the_example_does_what_it_says",
        the_example_does_what_it_says,
    ),
    (
        "authorization::refusals_explain_themselves",
        refusals_explain_themselves,
    ),
    (
        "authorization::what_is_under_way_is_cut",
        what_is_under_way_is_cut,
    ),
    (
        "authorization::bytes_where_rules_are_about_http",
        bytes_where_rules_are_about_http,
    ),
    ("authorization::shadow", shadow),
    (
        "authorization::what_is_not_understood_denies",
        what_is_not_understood_denies,
    ),
    ("authorization::postures", postures),
    ("authorization::revocation", revocation),
];

/// A policy for all of the namespace.
fn policy(name: &str, action: &str, rest: &str) -> String {
    targeted(name, "{kind: Namespace}", action, rest)
}

fn targeted(name: &str, target: &str, action: &str, rest: &str) -> String {
    format!(
        "apiVersion: ringmail.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  targetRefs: [{target}]\n  action: {action}\n  {rest}\n"
    )
}

/// What the client is answered for a GET.
fn status(shop: &Shop<'_>, path: &str) -> u16 {
    shop.get(WEB, path).map_or(0, |reply| reply.status.as_u16())
}

/// Waits until the client is answered so.
fn until_status(shop: &Shop<'_>, path: &str, expected: u16) -> anyhow::Result<()> {
    wait::until(LIMIT, || status(shop, path) == expected).with_context(|| {
        format!(
            "{path} is not answered {expected}, but {}",
            status(shop, path)
        )
    })
}

fn by_rules(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        until_status(shop, "/", 200)?;
        let from_client = "rules: [{from: [{serviceAccounts: [client]}], to: [{methods: [GET], paths: [{prefix: /open}]}]}]";
        shop.mesh.put("p", &policy("p", "allow", from_client))?;
        until_status(shop, "/", 403)?;
        ensure!(status(shop, "/open/x") == 200);
        ensure!(status(shop, "/opened") == 403);
        // What was decided on is what is forwarded.
        ensure!(status(shop, "/open/../x") == 403);
        ensure!(status(shop, "/%6Fpen/x") == 200);

        shop.mesh.put(
            "q",
            &policy(
                "q",
                "deny",
                "rules: [{to: [{paths: [{prefix: /open/secret}]}]}]",
            ),
        )?;
        until_status(shop, "/open/secret", 403)?;
        ensure!(status(shop, "/open/secret;v=1/x") == 403);
        ensure!(status(shop, "/open/secrets") == 200);

        shop.mesh.remove("q")?;
        until_status(shop, "/open/secret", 200)?;
        shop.mesh.remove("p")?;
        until_status(shop, "/", 200)
    })
}

/// The first policy in README.md.
fn example() -> anyhow::Result<&'static str> {
    let mut blocks = include_str!("../../README.md").split("```");
    let block = blocks.find(|one| one.starts_with("yaml\napiVersion: ringmail.io/"));
    let block = block.and_then(|one| one.strip_prefix("yaml\n"));
    block.context("no policy in README.md")
}

fn the_example_does_what_it_says(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        until_status(shop, "/", 200)?;
        shop.mesh.put("p", example()?)?;
        until_status(shop, "/", 403)?;
        for (path, expected) in [
            ("/orders/7", 200),
            ("/orders/7/items", 403),
            ("/orders/", 403),
            ("/catalog", 200),
            ("/catalog/shoes", 200),
            ("/catalogue", 403),
        ] {
            let found = status(shop, path);
            ensure!(found == expected, "{path}: {found}");
        }
        Ok(())
    })
}

fn refusals_explain_themselves(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        shop.mesh.put(
            "p",
            &policy("p", "deny", "rules: [{to: [{paths: [{exact: /secret}]}]}]"),
        )?;
        until_status(shop, "/secret?token=hidden", 403)?;
        let reply = shop.get(WEB, "/secret?token=hidden")?;
        ensure!(refusal(&reply) == Some("policy_denied"), "{reply:?}");
        let decision = reply
            .headers
            .get("x-ringmail-decision")
            .context("no decision id")?;
        let decision = decision.to_str()?.to_owned();
        let line = shop.audited(&[&Plan::default().server], &decision)?;
        let log = shop.mesh.proxy_log(&Plan::default().server)?;
        let fields = &line["fields"];
        let expected = serde_json::json!({
            "policy": "shop/p", "rule": 0, "by": "rule", "verdict": "deny", "method": "GET", "path": "/secret", "port": 8080,
            "client": "spiffe://mesh.local/ns/shop/sa/client", "server": "spiffe://mesh.local/ns/shop/sa/server",
        });
        for (name, value) in expected.as_object().context("an object")? {
            ensure!(fields[name] == *value, "{name}: {line}");
        }
        ensure!(
            fields["serial"]
                .as_str()
                .is_some_and(|serial| serial.len() >= 32),
            "{line}"
        );
        ensure!(!log.contains("hidden"), "a query in the audit");

        // In gRPC's terms, and in those of HTTP/2.
        for (content_type, expected) in [("application/grpc", 200), ("text/plain", 403)] {
            let request = Request::post("http://server/secret")
                .version(Version::HTTP_2)
                .header("content-type", content_type)
                .body(Full::<Bytes>::default())?;
            let reply: Reply = shop.client.namespace.block_on(fetch(WEB, request))??;
            ensure!(reply.status == expected, "{reply:?}");
            ensure!(refusal(&reply) == Some("policy_denied"), "{reply:?}");
            let grpc = reply
                .headers
                .get("grpc-status")
                .map(|status| status.as_bytes());
            ensure!((grpc == Some(b"7")) == (expected == 200), "{reply:?}");
        }
        let denied = [
            ("policy", "shop/p"),
            ("verdict", "deny"),
            ("shadow", "false"),
        ];
        ensure!(shop.server_metric("ringmail_authorizations_total", &denied) >= 3.0);
        shop.wait_server_refusal("policy_denied")
    })
}

fn what_is_under_way_is_cut(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let mut opaque = dial(&shop.client, TALK)?;
        expect(&mut opaque, apps::BANNER.as_bytes())?;
        let mut upload = dial(&shop.client, WEB)?;
        upload.write_all(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nsome of it",
        )?;
        wait::until(LIMIT, || {
            shop.server_metric("ringmail_authorizations_total", &[("verdict", "allow")]) >= 2.0
        })?;
        shop.mesh.put("p", &policy("p", "deny", ""))?;
        let (_, ending) = read_rest(&mut opaque);
        ensure!(ending != Ending::Open, "bytes still flow");
        let (heard, ending) = read_rest(&mut upload);
        ensure!(heard.is_empty() || heard.contains("403"), "{heard}");
        ensure!(ending != Ending::Open, "the upload still flows: {heard}");
        let cut = || shop.server_metric(crate::shop::REFUSALS, &[("reason", "policy_cut")]);
        wait::until(LIMIT, || cut() == 2.0).with_context(|| format!("{} were cut", cut()))
    })
}

fn bytes_where_rules_are_about_http(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let target = "{kind: Service, name: server, port: 7000}";
        let rule = "rules: [{to: [{paths: [{exact: /x}]}]}]";
        shop.mesh.put("p", &targeted("p", target, "deny", rule))?;
        wait::until(LIMIT, || {
            let Ok(mut opaque) = dial(&shop.client, TALK) else {
                return false;
            };
            read_rest(&mut opaque).0.is_empty()
        })
        .context("an opaque connection passes a rule about paths")?;
        shop.wait_server_refusal("not_http")?;
        ensure!(status(shop, "/x") == 200, "another port is no target");
        Ok(())
    })
}

fn shadow(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        shop.mesh.put(
            "p",
            &policy(
                "p",
                "deny",
                "mode: shadow\n  rules: [{to: [{paths: [{exact: /x}]}]}]",
            ),
        )?;
        let would = [
            ("policy", "shop/p"),
            ("verdict", "deny"),
            ("shadow", "true"),
        ];
        wait::until(LIMIT, || {
            status(shop, "/x") == 200
                && shop.server_metric("ringmail_authorizations_total", &would) > 0.0
        })?;
        shop.mesh.put(
            "p",
            &policy(
                "p",
                "deny",
                "mode: enforce\n  rules: [{to: [{paths: [{exact: /x}]}]}]",
            ),
        )?;
        until_status(shop, "/x", 403)
    })
}

fn what_is_not_understood_denies(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        until_status(shop, "/", 200)?;
        shop.mesh.put(
            "p",
            &policy("p", "allow", "rules: [{when: {weather: fine}}]"),
        )?;
        until_status(shop, "/", 403)?;
        shop.mesh.put("p", &policy("p", "allow", "rules: [{}]"))?;
        until_status(shop, "/", 200)
    })
}

fn postures(bed: Bed) -> anyhow::Result<()> {
    let plan = Plan {
        server: Workload::new("shop", "server").annotated("ringmail.io/default-policy", "deny"),
        ..Plan::default()
    };
    play(bed, &plan, |shop| {
        until_status(shop, "/", 403)?;
        let allow = "rules: [{from: [{unauthenticated: false}]}]";
        shop.mesh.put("p", &policy("p", "allow", allow))?;
        until_status(shop, "/", 200)?;

        // Plaintext that is let in is judged like all else.
        let lenient = plan
            .server
            .clone()
            .annotated("ringmail.io/inbound", "permissive");
        shop.mesh.put_workload(&shop.server, &lenient)?;
        let outside = shop.node.pod("outside")?;
        let to: SocketAddr = shop.server_at(8080);
        let asked = || -> anyhow::Result<Reply> { get(&outside, to, "/") };
        wait::until(LIMIT, || {
            asked().is_ok_and(|reply| refusal(&reply) == Some("policy_denied"))
        })?;
        shop.mesh.put(
            "p",
            &policy("p", "allow", "rules: [{from: [{networks: [0.0.0.0/0]}]}]"),
        )?;
        wait::until(LIMIT, || asked().is_ok_and(|reply| reply.status == 200))?;
        shop.mesh.put(
            "p",
            &policy(
                "p",
                "allow",
                "rules: [{from: [{networks: [192.0.2.0/24]}]}]",
            ),
        )?;
        wait::until(LIMIT, || {
            asked().is_ok_and(|reply| refusal(&reply) == Some("policy_denied"))
        })?;
        Ok(())
    })
}

/// Nobody trusts them until then.
fn revoked(identities: &str, until: &str) -> String {
    format!(
        "apiVersion: ringmail.io/v1alpha1\nkind: IdentityRevocation\nmetadata: {{name: stolen}}\nspec:\n  identities: [{identities}]\n  until: \"{until}\"\n"
    )
}

fn revocation(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        const CLIENT: &str = "'spiffe://mesh.local/ns/shop/sa/client'";
        const SERVER: &str = "'spiffe://mesh.local/ns/shop/sa/server'";
        let mut opaque = dial(&shop.client, TALK)?;
        expect(&mut opaque, apps::BANNER.as_bytes())?;
        shop.mesh
            .put("r", &revoked(CLIENT, "2999-01-01T00:00:00Z"))?;
        let (_, ending) = read_rest(&mut opaque);
        ensure!(ending != Ending::Open, "bytes still flow");
        let reply = shop.get(WEB, "/")?;
        ensure!(refusal(&reply) == Some("identity_revoked"), "{reply:?}");
        shop.wait_server_refusal("identity_revoked")?;

        // What has ended is none, and neither is what is gone.
        shop.mesh
            .put("r", &revoked(CLIENT, "2001-01-01T00:00:00Z"))?;
        until_status(shop, "/", 200)?;
        shop.mesh
            .put("r", &revoked(SERVER, "2999-01-01T00:00:00Z"))?;
        wait::until(LIMIT, || {
            shop.get(WEB, "/")
                .is_ok_and(|reply| refusal(&reply) == Some("peer_identity"))
        })
        .context("a revoked server is still asked")?;
        shop.mesh.remove("r")?;
        until_status(shop, "/", 200)
    })
}
