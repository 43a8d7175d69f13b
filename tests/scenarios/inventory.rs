//! What the mesh is seen to be: the command line's answers, and that no request makes them, or the metrics, grow.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ringmail_tests::bed::Bed;
use ringmail_tests::load::Client;
use ringmail_tests::wait;
use serde_json::Value;

use crate::raw::dial;
use crate::shop::{LIMIT, Plan, SERVICE_V4, Shop, play};
use crate::streams::resident;

/// The scenarios of this file.
pub(crate) const SCENARIOS: &[(&str, crate::Scenario)] = &[
    ("inventory::an_api_is_seen", an_api_is_seen),
    ("inventory::edges_are_told", edges_are_told),
    (
        "inventory::no_request_makes_it_grow",
        no_request_makes_it_grow,
    ),
    ("inventory::scrapes_disturb_nobody", scrapes_disturb_nobody),
];

const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(SERVICE_V4), 80);
/// Requests that are sent in one go, and then answered.
const AT_ONCE: u32 = 100;

/// What the command line says of both sidecars.
fn asked(shop: &Shop<'_>, arguments: &[&str]) -> anyhow::Result<String> {
    let proxies = [&shop.client, &shop.server].map(|pod| format!("http://{}:15020", pod.v4));
    let mut all = arguments.to_vec();
    for proxy in &proxies {
        all.extend(["--proxy", proxy]);
    }
    shop.mesh.ringmail(&all)
}

fn json(shop: &Shop<'_>, arguments: &[&str]) -> anyhow::Result<Value> {
    let all = [arguments, &["-o", "json"]].concat();
    Ok(serde_json::from_str(&asked(shop, &all)?)?)
}

/// Requests of one connection, all of which are answered with 200.
fn send(shop: &Shop<'_>, requests: &[String]) -> anyhow::Result<()> {
    let mut socket = dial(&shop.client, SERVICE)?;
    let (mut answered, mut text) = (0, Vec::new());
    for some in requests.chunks(AT_ONCE as usize) {
        socket.write_all(some.concat().as_bytes())?;
        answered += some.len();
        let mut buffer = [0; 65536];
        let count = |text: &[u8]| {
            text.windows(15)
                .filter(|at| *at == b"HTTP/1.1 200 OK")
                .count()
        };
        while count(&text) < answered {
            let n = socket.read(&mut buffer)?;
            ensure!(n > 0, "closed after {} answers", count(&text));
            text.extend_from_slice(&buffer[..n]);
        }
        answered = 0;
        text.clear();
    }
    Ok(())
}

fn request(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: shop\r\n{fields}\r\n")
}

fn an_api_is_seen(bed: Bed) -> anyhow::Result<()> {
    const SECRET: &str = "hunter2-hunter2";
    play(bed, &Plan::default(), |shop| {
        let requests = [
            request("/orders/17", ""),
            request(
                "/orders/18?page=2",
                &format!("authorization: Bearer {SECRET}\r\n"),
            ),
            request("/orders/19", &format!("x-api-key: {SECRET}\r\n")),
            request(&format!("/search?token={SECRET}"), ""),
        ];
        send(shop, &requests)?;
        let seen = || {
            json(shop, &["apis"])
                .ok()
                .filter(|page| page[1].is_object())
        };
        let mut page = Value::Null;
        wait::until(LIMIT, || {
            seen().is_some_and(|now| {
                page = now;
                page[0]["requests"] == 3
            })
        })
        .with_context(|| format!("{page:#}"))?;
        let orders = &page[0];
        ensure!(
            orders["route"] == "/orders/{}" && orders["workload"] == "shop/server",
            "{page:#}"
        );
        ensure!(
            orders["covered"] == false,
            "no policy speaks of it: {page:#}"
        );
        let caller = &orders["callers"][0];
        ensure!(
            caller["identity"] == "spiffe://mesh.local/ns/shop/sa/client",
            "{page:#}"
        );
        let kinds = ["api_key_header", "bearer", "mtls"]
            .map(Value::from)
            .to_vec();
        ensure!(orders["authentication"] == Value::from(kinds), "{page:#}");
        ensure!(
            page[1]["callers"][0]["credentials"][0]["static"] == true,
            "{page:#}"
        );
        ensure!(!page.to_string().contains(SECRET), "a credential is shown");

        let table = asked(shop, &["apis"])?;
        let expected = "no policy; static api key header from shop/client";
        ensure!(table.contains(expected), "{table}");

        let all = "apiVersion: ringmail.io/v1alpha1\nkind: AuthorizationPolicy\n\
                   metadata: {name: all, namespace: shop}\n\
                   spec: {targetRefs: [{kind: Namespace}], action: allow, rules: [{}]}\n";
        shop.mesh.put("all", all)?;
        let is_covered = || {
            let _ = send(shop, &[request("/orders/20", "")]);
            seen().is_some_and(|page| page[0]["covered"] == true)
        };
        wait::until(LIMIT, is_covered).context("a policy speaks of it now")
    })
}

fn edges_are_told(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let load = shop.load(Client::Http1(SERVICE, "/".to_owned()), 2)?;
        let rows = json(shop, &["top", "--once", "--interval", "1"])?;
        let row = &rows[0];
        ensure!(
            row["from"] == "shop/client" && row["to"] == "shop/server",
            "{rows:#}"
        );
        ensure!(
            row["tls"] == "mutual" && row["success"] == 100.0,
            "{rows:#}"
        );
        let rate = row["requests_per_second"].as_f64().unwrap_or_default();
        ensure!((100.0..400.0).contains(&rate), "of 200 a second: {rows:#}");
        ensure!(row["p50_ms"].as_f64() <= row["p99_ms"].as_f64(), "{rows:#}");
        shop.assert_unhurt(load)?;
        let dot = asked(shop, &["graph"])?;
        ensure!(dot.starts_with("digraph mesh {"), "{dot}");
        ensure!(dot.contains("\"shop/client\" -> \"shop/server\""), "{dot}");
        let edges = json(shop, &["graph"])?;
        ensure!(edges.as_array().map(Vec::len) == Some(1), "{edges:#}");
        Ok(())
    })
}

/// Lines of both proxies' metrics.
fn series(shop: &Shop<'_>) -> anyhow::Result<[usize; 2]> {
    let sidecars = [
        (&shop.client_sidecar, &shop.client),
        (&shop.server_sidecar, &shop.server),
    ];
    let mut counts = [0; 2];
    for ((sidecar, _), count) in sidecars.iter().zip(&mut counts) {
        *count = sidecar.metrics(shop.node)?.lines().count();
    }
    Ok(counts)
}

/// Hosts, paths and values of fields that differ in each request; a million of them with `RINGMAIL_DISTINCT=1000000`.
fn no_request_makes_it_grow(bed: Bed) -> anyhow::Result<()> {
    const KIB_MAX: u64 = 4096;
    /// Series of what may happen for the first time meanwhile, such as a certificate's renewal.
    const WORDS_MAX: usize = 16;
    let distinct = std::env::var("RINGMAIL_DISTINCT").ok();
    let distinct: u32 = distinct.map_or(Ok(20_000), |text| text.parse())?;
    play(bed, &Plan::default(), |shop| {
        let batch = |from: u32| -> Vec<String> {
            let one = |n: u32| {
                format!(
                    "GET /{n:x}-path/item{n}?q={n} HTTP/1.1\r\nhost: h{n}.example\r\nx-tenant: t{n}\r\n\
                     authorization: Bearer {n}\r\nuser-agent: agent/{n}\r\n\r\n"
                )
            };
            (from..from + 1000).map(one).collect()
        };
        let kib = |shop: &Shop<'_>| -> anyhow::Result<[u64; 2]> {
            Ok([
                resident(&shop.client_sidecar)?,
                resident(&shop.server_sidecar)?,
            ])
        };
        for from in (0..5000).step_by(1000) {
            send(shop, &batch(from))?;
        }
        let page = format!("http://{}:15020", shop.server.v4);
        let apis = || -> anyhow::Result<usize> {
            Ok(shop
                .mesh
                .ringmail(&["apis", "-o", "json", "--proxy", &page])?
                .len())
        };
        let (series_before, kib_before) = (series(shop)?, kib(shop)?);
        for from in (5000..distinct).step_by(1000) {
            send(shop, &batch(from))?;
        }
        let (series_after, kib_after) = (series(shop)?, kib(shop)?);
        eprintln!(
            "    {distinct} requests: series {series_before:?} -> {series_after:?}, KiB {kib_before:?} -> {kib_after:?}, \
             inventory {} bytes",
            apis()?
        );
        for (before, after) in series_before.iter().zip(series_after) {
            ensure!(
                after <= before + WORDS_MAX,
                "{series_before:?} -> {series_after:?}"
            );
        }
        for (before, after) in kib_before.iter().zip(kib_after) {
            ensure!(after < before + KIB_MAX, "{before} -> {after} KiB");
        }
        ensure!(apis()? < 2 << 20, "the inventory is large");
        let counted = shop.server_metric("ringmail_requests_total", &[("outcome", "success")]);
        wait::until(Duration::from_secs(1), || counted >= f64::from(distinct))
            .with_context(|| format!("{counted} of {distinct} were counted"))
    })
}

/// The slowest of a hundred requests, in microseconds, by turns with and without somebody who scrapes a hundred times as
/// often as a Prometheus does.
fn scrapes_disturb_nobody(bed: Bed) -> anyhow::Result<()> {
    const ROUNDS: usize = 5;
    const ROUND: Duration = Duration::from_secs(2);
    const BETWEEN_SCRAPES: Duration = Duration::from_millis(100);
    /// What a busy machine may add.
    const NOISE_MICROS: u64 = 5_000;
    play(bed, &Plan::default(), |shop| {
        let mut p99 = [[0; ROUNDS]; 2];
        let mut scrapes = 0;
        for round in 0..ROUNDS {
            for (is_scraped, p99) in [false, true].into_iter().zip(&mut p99) {
                let load = shop.load(Client::Http1(SERVICE, "/".to_owned()), 8)?;
                let end = Instant::now() + ROUND;
                while is_scraped && Instant::now() < end {
                    let next = Instant::now() + BETWEEN_SCRAPES;
                    series(shop)?;
                    scrapes += 1;
                    wait::until(LIMIT, || Instant::now() > next)?;
                }
                wait::until(LIMIT, || Instant::now() > end)?;
                let outcome = shop.assert_unhurt(load)?;
                p99[round] = outcome.latency.value_at_quantile(0.99);
            }
        }
        let [without, with] = p99.map(|mut all| {
            all.sort_unstable();
            all[ROUNDS / 2]
        });
        eprintln!(
            "    p99 {without} µs, with {scrapes} scrapes of both {with} µs (medians of {ROUNDS})"
        );
        ensure!(with < 2 * without + NOISE_MICROS, "{without} -> {with} µs");
        Ok(())
    })
}
