//! What proxies record of traffic: the access log, and the audit.

/// Spans, and the audit, at a collector.
pub(crate) mod traces;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Version};
use nix::sys::signal::Signal;
use ringmail_tests::bed::Bed;
use ringmail_tests::load::{Client, Lines, Load, Pace, Running, fetch};
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
    ("records::audit", audit),
    (
        "records::audit_tells_what_it_lost",
        audit_tells_what_it_lost,
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
                "http.request.method": "POST", "url.path": format!("/{word}"), "http.request.header.x-tenant": ["blue"],
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
            let id = &outbound["http.request.header.x-request-id"];
            ensure!(
                id.is_array() && *id == inbound["http.request.header.x-request-id"],
                "{id}"
            );
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
            let lost = || shop.client_metric("ringmail_access_log_lost_total", &[]);
            wait::until(LIMIT, || lost() > 0.0).context("nothing was lost")?;
            shop.assert_unhurt(load)?;
            Ok(())
        })
        .with_context(|| to.to_owned())?;
    }
    Ok(())
}

/// A directory that proxies may write to.
fn directory() -> anyhow::Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777))?;
    Ok(directory)
}

/// What `ringmail audit verify` answers.
fn verify(shop: &Shop<'_>, file: &Path) -> anyhow::Result<Value> {
    let file = file.to_str().context("a path")?;
    let answer = shop
        .mesh
        .ringmail(&["audit", "verify", "-o", "json", file])?;
    let answer: Value = serde_json::from_str(&answer)?;
    Ok(answer[0].clone())
}

fn status(shop: &Shop<'_>, path: &str) -> u16 {
    shop.get(WEB, path).map_or(0, |reply| reply.status.as_u16())
}

fn audit(bed: Bed) -> anyhow::Result<()> {
    let directory = directory()?;
    let file = directory.path().join("audit.log");
    let path = file.to_str().context("a path")?;
    let mut plan = Plan::default();
    plan.server = plan.server.set("RINGMAIL_AUDIT", "all");
    plan.server = plan.server.set("RINGMAIL_AUDIT_FILE", path);
    play(bed, &plan, |shop| {
        shop.mesh.put("p", POLICY)?;
        wait::until(LIMIT, || status(shop, "/secret") == 403)?;
        ensure!(status(shop, "/used?hidden") == 200);
        let text = || std::fs::read_to_string(&file).unwrap_or_default();
        wait::until(LIMIT, || text().contains("/used")).context("no use")?;
        let text = text();
        let line = text.lines().find(|line| line.contains("/used"));
        let line: Value = serde_json::from_str(line.context("a line")?)?;
        let expected = json!({
            "event": "use", "verdict": "allow", "client": CLIENT, "server": SERVER, "method": "GET", "path": "/used",
        });
        for (name, value) in expected.as_object().context("an object")? {
            ensure!(line["fields"][name] == *value, "{name}: {line}");
        }
        for name in ["serial", "decision", "version", "by"] {
            ensure!(line["fields"][name].is_string(), "{name}: {line}");
        }
        ensure!(!text.contains("hidden"), "a query");

        // One chain ends with its proxy, and the next one continues it.
        let running = verify(shop, &file)?;
        ensure!(
            running["whole"] == true && running["open"] == 1,
            "{running}"
        );
        shop.server_sidecar.process.signal(Signal::SIGTERM)?;
        shop.server_sidecar.process.wait(LIMIT)?;
        let over = verify(shop, &file)?;
        ensure!(over["whole"] == true && over["open"] == 0, "{over}");
        shop.server_sidecar = shop.mesh.sidecar(&shop.server, &plan.server)?;
        wait::until(LIMIT, || {
            verify(shop, &file).is_ok_and(|answer| answer["chains"] == 2)
        })?;
        wait::until(LIMIT, || status(shop, "/again") == 200)?;
        let whole = verify(shop, &file)?;
        ensure!(
            whole["whole"] == true && whole["problems"] == json!([]),
            "{whole}"
        );

        // Somebody changes what he did, and somebody takes it out.
        let text = std::fs::read_to_string(&file)?;
        let place = text.lines().position(|line| line.contains("/used"));
        let place = place.context("a line")?;
        let changed = directory.path().join("changed.log");
        std::fs::write(&changed, text.replace("/used", "/ok"))?;
        let found = verify(shop, &changed)?;
        let problem = &found["problems"][0];
        ensure!(
            found["whole"] == false && problem["line"] == place + 1,
            "{found}"
        );
        let without = text.lines().filter(|line| !line.contains("/used"));
        std::fs::write(&changed, without.collect::<Vec<_>>().join("\n"))?;
        let found = verify(shop, &changed)?;
        let problem = &found["problems"][0];
        ensure!(problem["line"] == place + 1, "{found}");
        let said = problem["problem"].as_str().unwrap_or_default();
        ensure!(said.contains("missing before it"), "{found}");
        Ok(())
    })
}

fn audit_tells_what_it_lost(bed: Bed) -> anyhow::Result<()> {
    let directory = directory()?;
    let file = directory.path().join("audit.log");
    let mut plan = Plan::default();
    let path = file.to_str().context("a path")?;
    plan.server = plan.server.set("RINGMAIL_AUDIT_FILE", path);
    // More than one worker may tell in a second, however slow the machine is.
    plan.server = plan.server.set("RINGMAIL_WORKERS", "1");
    play(bed, &plan, |shop| {
        shop.mesh.put("p", POLICY)?;
        wait::until(LIMIT, || {
            shop.get(WEB, "/secret")
                .is_ok_and(|reply| reply.status == 403)
        })?;
        let refused = Load {
            client: Client::Http1(WEB, "/secret".into()),
            connections: 64,
            pace: Pace::Closed,
        };
        let running = Running::start(&shop.client.namespace, refused);
        let lost = || shop.server_metric("ringmail_audit_lost_total", &[]);
        let waited = wait::until(LIMIT, || lost() > 0.0);
        running.finish(&shop.client.namespace)?;
        waited.context("nothing was lost")?;
        let whole =
            |answer: &Value| answer["whole"] == true && answer["lost"].as_f64() == Some(lost());
        wait::until(LIMIT, || {
            verify(shop, &file).is_ok_and(|answer| whole(&answer))
        })
        .context("what was lost is not told")
    })
}
