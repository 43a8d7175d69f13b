//! Spans and the audit, at a real OpenTelemetry collector (`tests/collector`), which writes what it takes to a file.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use ringmail_tests::bed::Bed;
use ringmail_tests::load::{Client, fetch};
use ringmail_tests::netns::NODE_V4;
use ringmail_tests::observe::board::Needs;
use ringmail_tests::process::Process;
use ringmail_tests::wait;
use serde_json::Value;

use super::{directory, plan};
use crate::observe;
use crate::shop::{LIMIT, Shop, WEB, play};
use crate::suites::tools;

/// What the collector is built as.
pub(crate) const COLLECTOR: &str = "otelcol";
/// A trace that somebody else has begun, and who asks.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const ASKING: &str = "b7ad6b7169203331";

/// A span, as far as it is looked at.
#[derive(Debug)]
struct Span {
    id: String,
    parent: String,
    /// 2 is a server's, 3 a client's.
    kind: u64,
    state: String,
    service: String,
    attributes: HashMap<String, Value>,
}

/// Everything the collector was told under a key of its file.
fn told(file: &Path, key: &str) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter_map(|mut line| line[key].as_array_mut().map(std::mem::take))
        .flatten()
        .collect()
}

fn attributes(of: &Value) -> HashMap<String, Value> {
    let all = of["attributes"].as_array().into_iter().flatten();
    let pair = |one: &Value| {
        let value = one["value"].as_object()?.values().next()?.clone();
        Some((one["key"].as_str()?.to_owned(), value))
    };
    all.filter_map(pair).collect()
}

/// The spans of a trace.
fn spans(file: &Path, trace: &str) -> Vec<Span> {
    let mut found = Vec::new();
    for resource in told(file, "resourceSpans") {
        let service = attributes(&resource["resource"]);
        let service = service.get("service.name").and_then(Value::as_str);
        let scopes = resource["scopeSpans"].as_array().into_iter().flatten();
        let all = scopes.flat_map(|scope| scope["spans"].as_array().into_iter().flatten());
        for span in all.filter(|span| span["traceId"] == trace) {
            let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
            found.push(Span {
                id: text("spanId"),
                parent: text("parentSpanId"),
                kind: span["kind"].as_u64().unwrap_or_default(),
                state: text("traceState"),
                service: service.unwrap_or_default().to_owned(),
                attributes: attributes(span),
            });
        }
    }
    found
}

/// Client's and server's, once both are there.
fn both(file: &Path, trace: &str) -> anyhow::Result<[Span; 2]> {
    wait::until(LIMIT, || spans(file, trace).len() >= 2)
        .with_context(|| format!("no two spans of {trace}"))?;
    let mut found = spans(file, trace);
    found.sort_by_key(|span| std::cmp::Reverse(span.kind));
    found
        .try_into()
        .map_err(|found| anyhow::anyhow!("{found:?}"))
}

/// Asks with these headers; the `traceparent` that the app was given.
fn ask(shop: &Shop<'_>, headers: &[(&str, &str)]) -> anyhow::Result<(Option<String>, String)> {
    let mut request = Request::get("/a?hidden").header("host", "server");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<Bytes>::default())?;
    let reply = shop.client.namespace.block_on(fetch(WEB, request))??;
    ensure!(reply.status == 200, "{reply:?}");
    let text = reply.text();
    let parent = text
        .lines()
        .find_map(|line| line.strip_prefix("traceparent: "));
    Ok((parent.map(str::to_owned), text.clone()))
}

fn start(shop: &Shop<'_>, directory: &Path, file: &Path) -> anyhow::Result<Process> {
    let config = directory.join("collector.yaml");
    let file = file.display();
    fs::write(
        &config,
        format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: \"{NODE_V4}:4317\"}}}}}}}}\n\
             exporters: {{file: {{path: \"{file}\", flush_interval: 100ms}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    \
             traces: {{receivers: [otlp], exporters: [file]}}\n    \
             logs: {{receivers: [otlp], exporters: [file]}}\n"
        ),
    )?;
    let mut command = tools::command(COLLECTOR)?;
    command.arg("--config").arg(&config);
    let log = shop.mesh.log("collector");
    shop.node.namespace.start(&command, 0, &log)
}

pub(crate) fn collected(bed: Bed) -> anyhow::Result<()> {
    let directory = directory()?;
    let file = directory.path().join("told.json");
    let endpoint = format!("http://{NODE_V4}:4317");
    let plan = plan(&[
        ("RINGMAIL_OTLP_ENDPOINT", &endpoint),
        ("RINGMAIL_TRACE_SAMPLE", "1"),
        ("RINGMAIL_AUDIT", "all"),
        ("RINGMAIL_AUDIT_OTLP", "on"),
    ]);
    play(bed, &plan, |shop| {
        // Nobody collects: traffic does not know it, and what is lost is counted.
        let load = shop.load(Client::Http1(WEB, "/".into()), 4)?;
        let lost = || shop.client_metric("ringmail_spans_total", &[("result", "lost")]);
        wait::until(LIMIT, || lost() > 0.0).context("nothing was lost")?;
        shop.assert_unhurt(load)?;

        let collector = start(shop, directory.path(), &file)?;
        // Each proxy learns by itself that somebody collects again.
        let exported = || {
            let (name, labels) = ("ringmail_spans_total", [("result", "exported")]);
            [
                shop.client_metric(name, &labels),
                shop.server_metric(name, &labels),
            ]
        };
        let more = |before: [f64; 2]| {
            let now = exported();
            now[0] > before[0] && now[1] > before[1]
        };
        wait::until(LIMIT, || ask(shop, &[]).is_ok() && more([0.0; 2]))
            .context("nothing was collected")?;

        one_goes_on(shop, &file)?;
        one_begins(shop, &file)?;
        one_is_not_recorded(shop, &file)?;
        audit(shop, directory.path(), &file)?;

        // The collector goes, and comes back.
        drop(collector);
        let before = lost();
        wait::until(LIMIT, || ask(shop, &[]).is_ok() && lost() > before)
            .context("nothing was lost again")?;
        let _collector = start(shop, directory.path(), &file)?;
        let before = exported();
        wait::until(LIMIT, || ask(shop, &[]).is_ok() && more(before))
            .context("nothing was collected again")?;
        observe::shown(shop, Needs::Collector, || ask(shop, &[]).is_ok())
    })
}

/// Whoever asks records the trace: each proxy is the parent of what comes next.
fn one_goes_on(shop: &Shop<'_>, file: &Path) -> anyhow::Result<()> {
    let asking = format!("00-{TRACE}-{ASKING}-01");
    let (parent, text) = ask(shop, &[("traceparent", &asking), ("tracestate", "a=1")])?;
    let [client, server] = both(file, TRACE)?;
    ensure!(
        (client.kind, server.kind) == (3, 2),
        "{client:?} {server:?}"
    );
    ensure!(
        client.parent == ASKING && server.parent == client.id,
        "{client:?} {server:?}"
    );
    ensure!(
        client.state == "a=1" && server.state == "a=1",
        "{client:?} {server:?}"
    );
    let expected = format!("00-{TRACE}-{}-01", server.id);
    ensure!(parent.as_deref() == Some(&*expected), "{parent:?}");
    ensure!(text.contains("tracestate: a=1"), "{text}");
    ensure!(client.service == "client" && server.service == "server");
    let expected = [
        (&client, "url.full", "http://server/a"),
        (&client, "server.address", "server"),
        (&client, "ringmail.service", "shop/server"),
        (&server, "url.path", "/a"),
        (&server, "client.address", &shop.client.v4.to_string()),
        (&server, "http.request.method", "GET"),
        (&server, "http.response.status_code", "200"),
        (&server, "ringmail.client.identity", super::CLIENT),
        (&server, "ringmail.server.identity", super::SERVER),
    ];
    for (span, name, value) in expected {
        let found = span.attributes.get(name).and_then(Value::as_str);
        ensure!(found == Some(value), "{name}: {span:?}");
    }
    Ok(())
}

/// Of our own share.
fn one_begins(shop: &Shop<'_>, file: &Path) -> anyhow::Result<()> {
    // What cannot be understood is none, and its state goes with it.
    let nonsense = [("traceparent", "00-0-0-01"), ("tracestate", "a=1")];
    for headers in [&[][..], &nonsense] {
        let (parent, text) = ask(shop, headers)?;
        let parent = parent.context("no trace")?;
        let trace = parent.split('-').nth(1).context("no trace")?;
        let [client, server] = both(file, trace)?;
        ensure!(client.parent.is_empty() && server.parent == client.id);
        ensure!(!text.contains("tracestate"), "{text}");
    }
    Ok(())
}

/// Whoever asks does not record it: its context crosses as it came.
fn one_is_not_recorded(shop: &Shop<'_>, file: &Path) -> anyhow::Result<()> {
    let trace = "1".repeat(32);
    let asking = format!("00-{trace}-{ASKING}-00");
    let (parent, _) = ask(shop, &[("traceparent", &asking)])?;
    ensure!(parent == Some(asking), "{parent:?}");
    // What came later is there.
    let (later, _) = ask(shop, &[])?;
    let later = later.context("no trace")?;
    both(file, later.split('-').nth(1).context("no trace")?)?;
    ensure!(spans(file, &trace).is_empty());
    ensure!(!fs::read_to_string(file)?.contains("hidden"), "a query");
    Ok(())
}

/// Lines of the audit are there as they were written, and can be verified.
fn audit(shop: &Shop<'_>, directory: &Path, file: &Path) -> anyhow::Result<()> {
    shop.mesh.put("p", super::POLICY)?;
    let mut decision = String::new();
    wait::until(LIMIT, || {
        let reply = shop.get(WEB, "/secret");
        let id = reply.ok().and_then(|reply| {
            Some(
                reply
                    .headers
                    .get("x-ringmail-decision")?
                    .to_str()
                    .ok()?
                    .to_owned(),
            )
        });
        decision = id.unwrap_or_default();
        !decision.is_empty()
    })?;
    let lines = || -> Vec<String> {
        let resources = told(file, "resourceLogs");
        let scopes = resources
            .iter()
            .flat_map(|one| one["scopeLogs"].as_array().into_iter().flatten());
        let records = scopes.flat_map(|one| one["logRecords"].as_array().into_iter().flatten());
        records
            .filter_map(|one| Some(one["body"]["stringValue"].as_str()?.to_owned()))
            .collect()
    };
    wait::until(LIMIT, || {
        lines().iter().any(|line| line.contains(&decision))
    })
    .context("the refusal was not collected")?;
    let log = directory.join("audit.log");
    fs::write(&log, lines().join("\n"))?;
    let log = log.to_str().context("a path")?;
    let answer = shop
        .mesh
        .ringmail(&["audit", "verify", "--tail", "-o", "json", log])?;
    let answer: Value = serde_json::from_str(&answer)?;
    ensure!(answer[0]["whole"] == true, "{answer}");
    Ok(())
}
