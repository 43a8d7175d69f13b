//! How often apps may be asked: limits as apps and operators see them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use ringmail_tests::apps;
use ringmail_tests::bed::Bed;
use ringmail_tests::load::{Reply, fetch};
use ringmail_tests::mesh::Workload;
use ringmail_tests::wait;

/// With the ledger in Redis.
pub(crate) mod redis;

use crate::Scenario;
use crate::raw::dial;
use crate::shop::{LIMIT, Plan, Shop, TALK, WEB, play, refusal, service};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("limits::all_pods_together", all_pods_together),
    ("limits::a_bucket_for_each_key", a_bucket_for_each_key),
    (
        "limits::refusals_explain_themselves",
        refusals_explain_themselves,
    ),
    (
        "limits::what_a_header_says_it_costs",
        what_a_header_says_it_costs,
    ),
    ("limits::connections", connections),
    ("limits::at_once", at_once),
    ("limits::what_leaves", what_leaves),
    (
        "limits::who_has_no_more_is_refused_at_home",
        who_has_no_more_is_refused_at_home,
    ),
    ("limits::shadow", shadow),
    (
        "limits::the_command_line_says_what_is_used",
        the_command_line_says_what_is_used,
    ),
    ("limits::without_the_ledger", without_the_ledger),
];

const DECISIONS: &str = "ringmail_rate_limit_decisions_total";

/// A policy with one limit for all of the namespace.
fn policy(rest: &str, limit: &str) -> String {
    format!(
        "apiVersion: ringmail.io/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: calls, namespace: shop}}\nspec:\n  targetRefs: [{{kind: Namespace}}]\n{rest}  limits: [{limit}]\n"
    )
}

/// Puts it, and waits until every proxy has it.
fn limit(shop: &Shop<'_>, rest: &str, limit: &str) -> anyhow::Result<()> {
    shop.mesh.put("limit", &policy(rest, limit))?;
    wait::until(LIMIT, || is_applied(shop).unwrap_or(false)).context("it is not in force")
}

/// Whether every proxy has the policy.
fn is_applied(shop: &Shop<'_>) -> anyhow::Result<bool> {
    let page = shop.mesh.controller_page("/status")?;
    let status: serde_json::Value = serde_json::from_slice(&page.body)?;
    let policies = status["policies"].as_array().context("no policies")?;
    let conditions = policies.iter().flat_map(|one| one["conditions"].as_array());
    let mut applied = conditions.flatten().filter(|one| one["type"] == "Applied");
    Ok(applied.any(|one| one["status"] == "True"))
}

/// Waits until the server's proxy leases from the ledger.
fn until_leasing(shop: &Shop<'_>) -> anyhow::Result<()> {
    let is_up = || shop.server_metric("ringmail_rate_limit_ledger_up", &[]) == 1.0;
    wait::until(LIMIT, is_up).context("the ledger is not asked")
}

fn get(shop: &Shop<'_>, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Reply> {
    let mut request = Request::get(path).header("host", WEB.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<Bytes>::default())?;
    Ok(shop.client.namespace.block_on(fetch(WEB, request))??)
}

/// How many of so many requests are let through.
fn admitted(shop: &Shop<'_>, count: usize, headers: &[(&str, &str)]) -> anyhow::Result<usize> {
    let mut admitted = 0;
    for n in 0..count {
        let reply = get(shop, "/", headers)?;
        match reply.status.as_u16() {
            200 => admitted += 1,
            429 => {}
            status => anyhow::bail!("request {n} is answered {status}"),
        }
    }
    Ok(admitted)
}

fn all_pods_together(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let other = shop.node.pod("other")?;
        let workload = Workload::new("shop", "other");
        apps::serve_web(&other.namespace, "shop", 8080)?;
        shop.mesh.put_workload(&other, &workload)?;
        let _sidecar = shop.mesh.sidecar(&other, &workload)?;
        let backends = [
            (&Workload::new("shop", "server"), &shop.server),
            (&workload, &other),
        ];
        shop.mesh.put_service(&service(), &backends)?;
        limit(shop, "", "{requests: 20, per: minute}")?;
        let begun = Instant::now();
        // By then both proxies lease.
        let mut admitted = admitted(shop, 4, &[])?;
        until_leasing(shop)?;
        admitted += self::admitted(shop, 120, &[])?;
        let more = 1 + begun.elapsed().as_secs() / 3;
        let admitted = u64::try_from(admitted)?;
        ensure!(
            (18..=20 + more).contains(&admitted),
            "{admitted} of 20 and {more} more"
        );
        ensure!(shop.server_metric(DECISIONS, &[("outcome", "refused")]) > 0.0);
        Ok(())
    })
}

fn a_bucket_for_each_key(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let by_user = "{requests: 5, per: hour, key: [{by: Header, name: X-User}], match: [{to: {paths: [{prefix: /}]}}]}";
        limit(shop, "", by_user)?;
        get(shop, "/", &[("x-user", "zoe")])?;
        until_leasing(shop)?;
        for user in ["ada", "bob", "cyd"] {
            let admitted = admitted(shop, 12, &[("x-user", user)])?;
            ensure!((4..=5).contains(&admitted), "{user}: {admitted} of 5");
        }
        // The first of each, for what the ledger had not heard of before.
        let waits = "ringmail_rate_limit_wait_duration_seconds_count";
        ensure!(shop.server_metric(waits, &[]) > 0.0, "nobody waited");
        Ok(())
    })
}

fn refusals_explain_themselves(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        limit(shop, "", "{requests: 2, per: minute}")?;
        admitted(shop, 6, &[])?;
        let reply = get(shop, "/", &[])?;
        let header = |name: &str| -> anyhow::Result<&str> {
            let value = reply
                .headers
                .get(name)
                .with_context(|| format!("no {name}"))?;
            Ok(value.to_str()?)
        };
        ensure!(reply.status == 429 && refusal(&reply) == Some("rate_limited"));
        let after: u64 = header("retry-after")?.parse()?;
        ensure!((1..=75).contains(&after), "{after}");
        ensure!(header("ratelimit-policy")? == "\"shop/calls/0\";q=2;w=60");
        ensure!(header("ratelimit")?.starts_with("\"shop/calls/0\";r=0;t="));
        let decision = header("x-ringmail-decision")?.to_owned();
        // Whoever's proxy refused it.
        let proxies = ["server", "client"].map(|pod| Workload::new("shop", pod));
        let line = shop.audited(&proxies.each_ref(), &decision)?.to_string();
        ensure!(
            line.contains("shop/calls/0") && line.contains("limit"),
            "{line}"
        );

        let grpc = get(shop, "/pay.Pay/Do", &[("content-type", "application/grpc")])?;
        let field = |name: &str| grpc.headers.get(name).and_then(|value| value.to_str().ok());
        ensure!(
            grpc.status == 200 && field("grpc-status") == Some("8"),
            "{grpc:?}"
        );
        let pushback = field("grpc-retry-pushback-ms").context("no pushback")?;
        ensure!(pushback.parse::<u64>()? > 0);
        Ok(())
    })
}

fn what_a_header_says_it_costs(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let cost =
            "{requests: 20, per: hour, cost: {tokens: 1, header: x-cost}, key: [{by: Method}]}";
        limit(shop, "", cost)?;
        let warm = Request::head("/").header("host", WEB.to_string());
        let warm = warm.body(Full::<Bytes>::default())?;
        shop.client.namespace.block_on(fetch(WEB, warm))??;
        until_leasing(shop)?;
        let expensive = admitted(shop, 8, &[("x-cost", "6")])?;
        ensure!(expensive == 3, "{expensive} of 3");
        let cheap = admitted(shop, 6, &[])?;
        ensure!(cheap == 2, "{cheap} of the 2 that are left");
        Ok(())
    })
}

/// Whether the app that speaks first is heard.
fn talks(shop: &Shop<'_>) -> anyhow::Result<bool> {
    let mut socket = dial(&shop.client, TALK)?;
    let mut first = [0; 1];
    Ok(socket.read(&mut first).is_ok_and(|read| read > 0))
}

fn connections(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        limit(shop, "", "{connections: 3, per: hour}")?;
        let mut open = usize::from(talks(shop)?);
        until_leasing(shop)?;
        for _ in 0..8 {
            open += usize::from(talks(shop)?);
        }
        ensure!((2..=3).contains(&open), "{open} of 3 connections");
        ensure!(
            get(shop, "/", &[])?.status == 200,
            "requests are no connections"
        );
        Ok(())
    })
}

/// A request whose last byte is not sent; none if it is refused at once.
fn begun(shop: &Shop<'_>) -> anyhow::Result<Option<TcpStream>> {
    let mut socket = dial(&shop.client, WEB)?;
    write!(
        socket,
        "POST / HTTP/1.1\r\nhost: {WEB}\r\ncontent-length: 2\r\n\r\nx"
    )?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut head = [0; 12];
    match socket.read_exact(&mut head) {
        Err(_) => Ok(Some(socket)),
        Ok(()) => {
            ensure!(&head == b"HTTP/1.1 429", "{:?}", str::from_utf8(&head));
            Ok(None)
        }
    }
}

/// What is under way holds its place until it is over.
fn at_once(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        limit(shop, "", "{concurrentRequests: 3}")?;
        get(shop, "/", &[])?;
        until_leasing(shop)?;
        for round in 0..2 {
            let mut held = Vec::new();
            // A token may take longer to come than a request waits for it.
            for _ in 0..50 {
                if held.len() < 3 {
                    held.extend(begun(shop)?);
                }
            }
            ensure!(held.len() == 3, "{round}: {} of 3", held.len());
            for _ in 0..4 {
                ensure!(begun(shop)?.is_none(), "{round}: a fourth");
            }
            let reply = get(shop, "/", &[])?;
            ensure!(reply.status == 429 && !reply.headers.contains_key("ratelimit"));
            for mut socket in held {
                socket.write_all(b"y")?;
                socket.set_read_timeout(Some(LIMIT))?;
                let mut head = [0; 12];
                socket.read_exact(&mut head)?;
                ensure!(&head == b"HTTP/1.1 200", "{round}: {head:?}");
            }
        }
        Ok(())
    })
}

/// The proxy of whoever asks counts, and answers.
fn what_leaves(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let own = "  direction: outbound\n";
        let by_user = "{requests: 5, per: hour, key: [{by: Header, name: X-User}, {by: Route}]}";
        limit(
            shop,
            own,
            &format!("{by_user}, {{connections: 3, per: hour}}"),
        )?;
        get(shop, "/", &[("x-user", "zoe")])?;
        let mut open = usize::from(talks(shop)?);
        let is_up = || shop.client_metric("ringmail_rate_limit_ledger_up", &[]) == 1.0;
        wait::until(LIMIT, is_up)?;
        let few = admitted(shop, 12, &[("x-user", "ada")])?;
        ensure!((4..=5).contains(&few), "{few} of 5");
        let reply = get(shop, "/", &[("x-user", "ada")])?;
        ensure!(reply.status == 429 && refusal(&reply) == Some("rate_limited"));
        ensure!(reply.headers.contains_key("retry-after") && reply.body.is_empty());
        let decision = reply.headers.get("x-ringmail-decision");
        let decision = decision.context("no decision")?.to_str()?;
        shop.audited(&[&Workload::new("shop", "client")], decision)?;
        ensure!(
            shop.server_metric(DECISIONS, &[]) == 0.0,
            "the server counted"
        );

        for _ in 0..8 {
            open += usize::from(talks(shop)?);
        }
        ensure!((2..=3).contains(&open), "{open} of 3 connections");
        Ok(())
    })
}

/// Of a limit for each caller, the caller's own proxy is told how long it is exhausted.
fn who_has_no_more_is_refused_at_home(bed: Bed) -> anyhow::Result<()> {
    const ASKED: usize = 300;
    play(bed, &Plan::default(), |shop| {
        limit(shop, "", "{requests: 2, per: hour, key: [{by: Identity}]}")?;
        get(shop, "/", &[])?;
        until_leasing(shop)?;
        let after = |reply: &Reply| -> Option<u64> {
            let after = reply.headers.get("retry-after")?;
            after.to_str().ok()?.parse().ok()
        };
        // Before that, another token may come any moment.
        let is_over = || get(shop, "/", &[]).is_ok_and(|reply| after(&reply) > Some(60));
        wait::until(LIMIT, is_over)?;
        let at_server = || shop.server_metric(DECISIONS, &[("outcome", "refused")]);
        let before = at_server();
        for n in 0..ASKED {
            let reply = get(shop, "/", &[])?;
            ensure!(reply.status == 429, "{n}: {reply:?}");
            ensure!(refusal(&reply) == Some("rate_limited"));
            ensure!(reply.headers.get("x-ringmail-exhausted").is_none());
            ensure!(after(&reply) > Some(60), "{n}: {reply:?}");
            ensure!(reply.headers["ratelimit-policy"] == "\"shop/calls/0\";q=2;w=3600");
        }
        let asked = at_server() - before;
        ensure!(
            asked < 100.0,
            "the server refused {asked} of {ASKED} itself"
        );
        let shed = shop.client_metric("ringmail_refusals_total", &[("reason", "rate_limited")]);
        ensure!(shed >= 200.0, "{shed} refused at home");
        // Every second it is asked again: the limit may be another by then.
        wait::until(LIMIT, || {
            let reply = get(shop, "/", &[]);
            reply.is_ok_and(|reply| reply.status == 429) && at_server() > before + asked
        })
    })
}

fn shadow(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        limit(shop, "  mode: shadow\n", "{requests: 2, per: hour}")?;
        let would = [("outcome", "refused"), ("shadow", "true")];
        wait::until(LIMIT, || {
            let admitted = admitted(shop, 5, &[]);
            admitted.is_ok_and(|all| all == 5) && shop.server_metric(DECISIONS, &would) > 0.0
        })
        .context("nothing would be refused")
    })
}

/// What `ringmail limits` answers.
fn shown(shop: &Shop<'_>, output: &str) -> anyhow::Result<String> {
    let controller = "http://127.0.0.1:15014";
    let asked = ["limits", "--controller", controller, "--output", output];
    shop.mesh.ringmail(&asked)
}

fn the_command_line_says_what_is_used(bed: Bed) -> anyhow::Result<()> {
    const SECRET: &str = "token-of-ada-5e1f";
    play(bed, &Plan::default(), |shop| {
        let by_user =
            "{requests: 20, per: second, key: [{by: Identity}, {by: Header, name: X-User}]}";
        let own = "{requests: 1000, per: second, scope: local}";
        limit(shop, "", &format!("{by_user}, {own}"))?;
        let mut last = String::new();
        let is_shown = || -> anyhow::Result<bool> {
            // More than there is of it, all the time.
            admitted(shop, 30, &[("x-user", SECRET)])?;
            last = shown(shop, "json")?;
            let answer: serde_json::Value = serde_json::from_str(&last)?;
            let limit = &answer[0]["limits"][0];
            let (used, top) = (&limit["used"], &limit["top"][0]);
            let share = used["share"].as_f64().unwrap_or_default();
            let refused = used["refused"].as_f64().unwrap_or_default();
            let tokens = top["used"]["tokens"].as_f64().unwrap_or_default();
            ensure!(share < 1.5 && tokens < 30.0, "more than 20 a second");
            Ok(share > 0.7 && refused > 1.0 && tokens > 14.0)
        };
        let mut is_shown = is_shown;
        let found = wait::until(LIMIT, || is_shown().unwrap_or(false));
        found.with_context(|| format!("what is used is not shown: {last}"))?;
        let answer: serde_json::Value = serde_json::from_str(&last)?;
        let (limits, limit) = (&answer[0]["limits"], &answer[0]["limits"][0]);
        ensure!(limit["rate"] == "20/second" && limit["keys"] == 1, "{last}");
        let key = limit["top"][0]["key"].as_str().context("no key")?;
        ensure!(key.starts_with("spiffe://") && key.contains(" #"), "{key}");
        ensure!(!last.contains(SECRET), "a header's value is shown");
        ensure!(
            limits[1]["scope"] == "local" && limits[1]["used"].is_null(),
            "{last}"
        );
        ensure!(answer[0]["fallback_active"] == false, "{last}");
        let table = shown(shop, "table")?;
        ensure!(
            table.contains("in memory of http://127.0.0.1:15014"),
            "{table}"
        );
        ensure!(shop.server_metric("ringmail_rate_limit_fallback_active", &[]) == 0.0);
        let answers = "ringmail_rate_limit_ledger_duration_seconds_count";
        ensure!(shop.server_metric(answers, &[]) > 0.0);
        let share = "ringmail_controller_ledger_share_used{limit=\"shop/calls/0\"}";
        let is_counted = || {
            let page = shop.mesh.controller_page("/metrics");
            page.is_ok_and(|page| String::from_utf8_lossy(&page.body).contains(share))
        };
        ensure!(is_counted(), "no share among the metrics");
        shop.mesh.remove("limit")?;
        wait::until(LIMIT, || !is_counted()).context("the share of a limit that is gone")
    })
}

fn without_the_ledger(bed: Bed) -> anyhow::Result<()> {
    // A share of two proxies is a request a second, from when the ledger is away.
    let cases = [("allow", 20..=20), ("deny", 0..=0), ("localShare", 0..=5)];
    play(bed, &Plan::default(), |shop| {
        for (does, expected) in cases {
            let one = format!("{{requests: 120, per: minute, burst: 5, onUnavailable: {does}}}");
            limit(shop, "", &one)?;
            get(shop, "/", &[])?;
            until_leasing(shop)?;
            shop.mesh.kill_controller();
            // Two lease times, and what is held is over.
            let away = Instant::now() + Duration::from_secs(2);
            wait::until(LIMIT, || Instant::now() > away)?;
            if does == "localShare" {
                let is_admitted = || get(shop, "/", &[]).is_ok_and(|reply| reply.status == 200);
                wait::until(LIMIT, is_admitted)?;
            }
            ensure!(shop.server_metric("ringmail_rate_limit_fallback_active", &[]) == 1.0);
            let admitted = admitted(shop, 20, &[])?;
            ensure!(expected.contains(&admitted), "{does}: {admitted} of 20");
            shop.mesh.start_controller()?;
            shop.mesh.remove("limit")?;
            wait::until(LIMIT, || {
                let replies = (0..10).map(|_| get(shop, "/", &[]));
                replies
                    .into_iter()
                    .all(|reply| reply.is_ok_and(|reply| reply.status == 200))
            })
            .with_context(|| format!("{does}: not back"))?;
        }
        Ok(())
    })
}
