//! The bed itself, without a mesh: what it says must be so, or nothing that rests on it means anything.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use ringmail_tests::{
    apps,
    bed::{Bed, Exemption, PROXY_IDENTITY},
    fault::Fault,
    load::{Client, Lines, Load, Pace, Running, fetch},
    netns::{Node, Pod},
    wait,
    wire::Wire,
};

use crate::Scenario;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "bed::apps_answer_on_both_versions",
        apps_answer_on_both_versions,
    ),
    ("bed::web_app", web_app),
    ("bed::load_counts", load_counts),
    ("bed::wire_sees_plaintext", wire_sees_plaintext),
    (
        "bed::links_are_cut_slow_and_lossy",
        links_are_cut_slow_and_lossy,
    ),
    (
        "bed::processes_have_their_user_and_end_with_the_pod",
        processes_have_their_user_and_end_with_the_pod,
    ),
    ("bed::addresses_are_used_again", addresses_are_used_again),
];

const LIMIT: Duration = Duration::from_secs(10);

/// One exchange of lines, first byte to last.
fn lines(pod: &Pod, ip: IpAddr, text: &'static str) -> anyhow::Result<()> {
    pod.namespace.block_on(async move {
        let mut client = Lines::connect(SocketAddr::new(ip, 7000), text).await?;
        client.exchange().await?;
        client.finish().await?;
        Ok(())
    })?
}

fn apps_answer_on_both_versions(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let (client, server) = (node.pod("client")?, node.pod("server")?);
    apps::serve_lines(&server.namespace, 7000)?;
    for ip in server.addresses() {
        lines(&client, ip, "hello")?;
        lines(&server, ip, "myself")?;
    }
    Ok(())
}

fn web_app(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let (client, server) = (node.pod("client")?, node.pod("server")?);
    apps::serve_web(&server.namespace, "shop", 8080)?;
    let early = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    apps::serve_bytes(&server.namespace, 8081, early)?;
    let get = |port, path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::get(path).header("host", "shop");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::<Bytes>::default());
        let address = SocketAddr::new(server.v4.into(), port);
        client
            .namespace
            .block_on(async move { anyhow::Ok(fetch(address, request?).await?) })?
    };
    ensure!(get(8080, "/a?b", &[("x-y", "z")])?.text() == "GET /a?b\nhost: shop\nx-y: z\n\n");
    ensure!(get(8080, "/bytes/100000", &[])?.body.len() == 100_000);
    ensure!(get(8080, "/status/418", &[])?.status == 418);
    ensure!(get(8080, "/", &[])?.headers["x-app"] == "shop");
    let trailers = get(8080, "/trailers", &[("te", "trailers")])?;
    ensure!(
        trailers.trailers.clone().context("no trailers")?["x-checksum"] == "7"
            && trailers.text() == "one,two"
    );
    ensure!(get(8081, "/", &[])?.text() == "ok");
    Ok(())
}

fn load_counts(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let (client, server) = (node.pod("client")?, node.pod("server")?);
    apps::serve_web(&server.namespace, "shop", 8080)?;
    apps::serve_lines(&server.namespace, 7000)?;
    let web = SocketAddr::new(server.v6.into(), 8080);
    let rows = [
        Client::Http1(web, "/".into()),
        Client::Http2(web, "/".into()),
        Client::Grpc(web, "hello".into()),
        Client::Lines(SocketAddr::new(server.v4.into(), 7000), "hello".into()),
    ];
    for kind in rows {
        for pace in [Pace::Closed, Pace::Open { per_second: 500 }] {
            let load = Load {
                client: kind.clone(),
                connections: 4,
                pace,
            };
            let running = Running::start(&client.namespace, load);
            wait::until(LIMIT, || running.exchanges() >= 100)?;
            let outcome = running.finish(&client.namespace)?;
            ensure!(
                outcome.ok >= 100 && outcome.failures() == 0,
                "{kind:?} {pace:?}: {outcome}"
            );
        }
    }
    let nobody = Client::Http1(SocketAddr::new(server.v4.into(), 1), "/".into());
    let running = Running::start(
        &client.namespace,
        Load {
            client: nobody,
            connections: 1,
            pace: Pace::Closed,
        },
    );
    wait::until(LIMIT, || running.exchanges() >= 3)?;
    let outcome = running.finish(&client.namespace)?;
    ensure!(
        outcome.ok == 0 && outcome.failures() >= 3,
        "nobody listens: {outcome}"
    );
    Ok(())
}

fn wire_sees_plaintext(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let (client, server) = (node.pod("client")?, node.pod("server")?);
    apps::serve_lines(&server.namespace, 7000)?;
    let wire = Wire::watch(&node, &["a-secret-word", "another"])?;
    let whole = "it is a-secret-word indeed\r\n".len() as u64;
    for ip in server.addresses() {
        lines(&client, ip, "it is a-secret-word indeed")?;
    }
    let (ours, theirs) = (client.addresses(), server.addresses());
    wait::until(LIMIT, || {
        wire.report()
            .between(&ours, &theirs)
            .filter(|flow| flow.bytes >= whole)
            .count()
            == 4
    })?;
    let report = wire.report();
    let shown = || {
        report
            .flows
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    ensure!(
        report.with_marker().count() == 4,
        "both ways, both versions: {:?}",
        shown()
    );
    ensure!(report.not_proven_tls().count() == 4, "{:?}", shown());
    let sent = report
        .flows
        .iter()
        .filter(|flow| flow.to.port() == 7000)
        .map(|flow| (flow.bytes, flow.from_start));
    ensure!(
        sent.collect::<Vec<_>>() == [(whole, true); 2],
        "{:?}",
        shown()
    );
    ensure!(
        report
            .flows
            .iter()
            .all(|flow| flow.markers == ["a-secret-word"] && flow.missed_bytes == 0)
    );
    Ok(())
}

fn links_are_cut_slow_and_lossy(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let (server, link) = node.pod_on_faulty_link("server")?;
    let client = node.pod("client")?;
    apps::serve_web(&server.namespace, "shop", 8080)?;
    apps::serve_lines(&server.namespace, 7000)?;
    let address = SocketAddr::new(server.v4.into(), 8080);
    let bulk = || {
        let request = Request::get("/bytes/3000000")
            .header("host", "shop")
            .body(Full::<Bytes>::default());
        client
            .namespace
            .block_on(async move { anyhow::Ok(fetch(address, request?).await?.body.len()) })?
    };
    for ip in server.addresses() {
        lines(&client, ip, "whole")?;
    }
    ensure!(bulk()? == 3_000_000);

    let delay = Duration::from_millis(30);
    link.set(Fault {
        delay,
        ..Fault::default()
    });
    let start = Instant::now();
    lines(&client, server.v6.into(), "slow")?;
    // Handshake, line, end: three round trips of two delays each, at the least.
    ensure!(
        start.elapsed() >= delay * 6,
        "not slow: {:?}",
        start.elapsed()
    );

    link.set(Fault {
        loss_per_mille: 20,
        ..Fault::default()
    });
    ensure!(bulk()? == 3_000_000, "lost for good");

    link.set(Fault {
        is_cut: true,
        ..Fault::default()
    });
    let load = Load {
        client: Client::Http1(address, "/".into()),
        connections: 1,
        pace: Pace::Closed,
    };
    let running = Running::start(&client.namespace, load);
    link.set(Fault::default());
    wait::until(LIMIT, || running.exchanges() >= 10)?;
    ensure!(running.finish(&client.namespace)?.failures() == 0);
    Ok(())
}

fn processes_have_their_user_and_end_with_the_pod(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let pod = node.pod("pod")?;
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("log");
    let uid = if node.exemption == Exemption::Uid {
        PROXY_IDENTITY
    } else {
        0
    };
    let mut command = Command::new("/bin/sh");
    command
        .args([
            "-c",
            "id -u; echo $WORD; cat /proc/net/dev | grep -c eth0; exec sleep 1000",
        ])
        .env("WORD", "a-word");
    let process = pod.namespace.start(&command, uid, &log)?;
    let wanted = format!("{uid}\na-word\n1\n");
    let log_text = || std::fs::read_to_string(&log).unwrap_or_default();
    wait::until(LIMIT, || log_text() == wanted).with_context(log_text)?;
    let alive = format!("/proc/{}/stat", process.id());
    // Its thread's end alone must kill it: the handle is kept.
    drop(pod);
    wait::until(LIMIT, || {
        std::fs::read_to_string(&alive).is_ok_and(|stat| stat.contains(") Z "))
    })
    .context("the process outlived its pod")?;
    let failing = node.namespace.start(
        Command::new("/bin/sh").args(["-c", "echo why; exit 3"]),
        0,
        &log,
    )?;
    let error = failing
        .success(LIMIT)
        .err()
        .context("exit 3 passed for success")?
        .to_string();
    ensure!(error.contains("why") && error.contains('3'), "{error}");
    Ok(())
}

fn addresses_are_used_again(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let client = node.pod("client")?;
    for name in ["first", "second", "third"] {
        let server = node.pod_at(name, 500)?;
        apps::serve_lines(&server.namespace, 7000)?;
        for ip in server.addresses() {
            lines(&client, ip, name)?;
        }
    }
    Ok(())
}
