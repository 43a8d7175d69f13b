//! What proxies record of traffic: the access log.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Version};
use nix::sys::signal::Signal;
use ringmail_tests::bed::Bed;
use ringmail_tests::load::{Client, Lines, fetch};
use ringmail_tests::mesh::Workload;
use ringmail_tests::wait;
use serde_json::{Value, json};

use crate::Scenario;
use crate::shop::{LIMIT, Plan, Shop, TALK, WEB, play};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("records::access_log", access_log),
    ("records::access_log_as_text", access_log_as_text),
    (
        "records::nobody_waits_for_the_access_log",
        nobody_waits_for_the_access_log,
    ),
];

const CLIENT: &str = "spiffe://mesh.local/ns/shop/sa/client";
const SERVER: &str = "spiffe://mesh.local/ns/shop/sa/server";
/// Denies what is asked of `/secret`.
const POLICY: &str = "apiVersion: ringmail.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  targetRefs: [{kind: Namespace}]\n  action: deny\n  rules: [{to: [{paths: [{exact: /secret}]}]}]\n";

/// Both proxies are set so.
pub(crate) fn plan(settings: &[(&str, &str)]) -> Plan {
    let with = |workload: Workload| {
        let set = |workload: Workload, (name, value): &(&str, &str)| workload.set(name, value);
        settings.iter().fold(workload, set)
    };
    let plan = Plan::default();
    Plan {
        client: with(plan.client),
        server: with(plan.server),
        ..plan
    }
}

/// Lines of a proxy's output that are records of one direction and hold `word`.
fn records(shop: &Shop<'_>, workload: &Workload, word: &str) -> Vec<Value> {
    let log = shop.mesh.proxy_log(workload).unwrap_or_default();
    let lines = log.lines().filter(|line| line.contains(word));
    let records = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    records
        .filter(|line| line["ringmail.direction"].is_string())
        .collect()
}

/// The record that holds `word`, once it is there; with these members.
fn expect(shop: &Shop<'_>, workload: &Workload, word: &str, members: &Value) -> anyhow::Result<()> {
    let is_there = || !records(shop, workload, word).is_empty();
    wait::until(LIMIT, is_there).with_context(|| format!("no record of {word}"))?;
    let found = records(shop, workload, word);
    ensure!(found.len() == 1, "{found:?}");
    for (name, value) in members.as_object().context("an object")? {
        ensure!(found[0][name] == *value, "{name}: {}", found[0]);
    }
    Ok(())
}

fn access_log(bed: Bed) -> anyhow::Result<()> {
    let plan = plan(&[
        ("RINGMAIL_ACCESS_LOG", "json"),
        ("RINGMAIL_ACCESS_LOG_HEADERS", "x-tenant"),
    ]);
    play(bed, &plan, |shop| {
        shop.mesh.put("p", POLICY)?;
        wait::until(LIMIT, || {
            shop.get(WEB, "/secret")
                .is_ok_and(|reply| reply.status == 403)
        })?;
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let word = format!("word{version:?}").replace(['/', '.'], "");
            let request = Request::post(format!("http://server/{word}?token=hidden"))
                .version(version)
                .header("host", "server")
                .header("x-tenant", "blue")
                .header("authorization", "Bearer hidden")
                .body(Full::<Bytes>::from("12345"))?;
            let reply = shop.client.namespace.block_on(fetch(WEB, request))??;
            ensure!(reply.status == 200, "{reply:?}");
            let number = if version == Version::HTTP_2 {
                "2"
            } else {
                "1.1"
            };
            let both = json!({
                "ringmail.client.identity": CLIENT, "ringmail.server.identity": SERVER,
                "network.protocol.name": "http", "network.protocol.version": number,
                "http.request.method": "POST", "url.path": format!("/{word}"), "http.request.header.x-tenant": "blue",
                "http.response.status_code": 200, "http.request.body.size": 5,
                "http.response.body.size": reply.body.len(), "server.address": "server",
            });
            expect(shop, &plan.client, &word, &both)?;
            expect(shop, &plan.server, &word, &both)?;
            let (outbound, inbound) = (
                records(shop, &plan.client, &word).remove(0),
                records(shop, &plan.server, &word).remove(0),
            );
            ensure!(outbound["ringmail.service"] == "shop/server", "{outbound}");
            ensure!(outbound["server.port"] == 80 && inbound["server.port"] == 8080);
            let id = &outbound["http.request.id"];
            ensure!(id.is_string() && *id == inbound["http.request.id"], "{id}");
        }

        let reply = shop.get(WEB, "/secret?refused")?;
        let decision = reply.headers["x-ringmail-decision"].to_str()?.to_owned();
        let refused = json!({
            "url.path": "/secret", "http.response.status_code": 403, "ringmail.reason": "policy_denied",
        });
        expect(shop, &plan.client, &decision, &refused)?;
        expect(shop, &plan.server, &decision, &refused)?;

        // Bytes might be what is denied.
        shop.mesh.remove("p")?;
        wait::until(LIMIT, || {
            shop.get(WEB, "/secret")
                .is_ok_and(|reply| reply.status == 200)
        })?;
        shop.client.namespace.block_on(async {
            let mut lines = Lines::connect(TALK, "hello").await?;
            lines.exchange().await?;
            lines.finish().await?;
            anyhow::Ok(())
        })??;
        let opaque = json!({
            "network.protocol.name": "tcp", "ringmail.client.identity": CLIENT, "ringmail.server.identity": SERVER,
            "http.request.method": null, "http.response.status_code": null,
        });
        let mut bytes = Vec::new();
        for (workload, port) in [(&plan.client, ":7000"), (&plan.server, ":7000")] {
            let word = format!("\"server.port\"{port}");
            expect(shop, workload, &word, &opaque)?;
            let found = records(shop, workload, &word).remove(0);
            let size = |name: &str| found[name].as_u64().unwrap_or_default();
            bytes.push((size("ringmail.sent.size"), size("ringmail.received.size")));
        }
        let [(up, down), (back, forth)] = bytes[..] else {
            anyhow::bail!("{bytes:?}");
        };
        ensure!(
            up > 0 && down > 0 && (up, down) == (forth, back),
            "{bytes:?}"
        );

        let logs = shop.mesh.proxy_log(&plan.client)? + &shop.mesh.proxy_log(&plan.server)?;
        ensure!(!logs.contains("hidden"), "a query or a credential");
        shop.assert_wire_unread()
    })
}

fn access_log_as_text(bed: Bed) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777))?;
    let file = directory.path().join("access.log");
    let path = file.to_str().context("a path")?;
    let mut plan = plan(&[("RINGMAIL_ACCESS_LOG", "text")]);
    plan.server = plan.server.set("RINGMAIL_ACCESS_LOG_FILE", path);
    play(bed, &plan, |shop| {
        shop.get(WEB, "/status/404?hidden")?;
        // What is there when the proxy ends is written as well.
        shop.server_sidecar.process.signal(Signal::SIGTERM)?;
        let line = || std::fs::read_to_string(&file).unwrap_or_default();
        wait::until(LIMIT, || line().ends_with('\n')).context("no line")?;
        let line = line();
        let begin = format!("{} - {CLIENT} [", shop.client.v4);
        ensure!(line.starts_with(&begin), "{line}");
        ensure!(
            line.contains("] \"GET /status/404 HTTP/1.1\" 404 "),
            "{line}"
        );
        Ok(())
    })
}

fn nobody_waits_for_the_access_log(bed: Bed) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
    let pipe = directory.path().join("pipe");
    ensure!(Command::new("mkfifo").arg(&pipe).status()?.success());
    std::fs::set_permissions(&pipe, PermissionsExt::from_mode(0o666))?;
    // Somebody holds the other end, and never reads.
    let _reader = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)?;
    for to in [pipe.to_str().context("a path")?, "/dev/full"] {
        let plan = plan(&[
            ("RINGMAIL_ACCESS_LOG", "json"),
            ("RINGMAIL_ACCESS_LOG_FILE", to),
        ]);
        play(bed, &plan, |shop| {
            let load = shop.load(Client::Http1(WEB, "/".into()), 4)?;
            let until = load.exchanges() + 1000;
            wait::until(LIMIT, || load.exchanges() >= until).context("held up")?;
            shop.assert_unhurt(load)?;
            Ok(())
        })
        .with_context(|| to.to_owned())?;
    }
    Ok(())
}
