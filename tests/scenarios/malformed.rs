//! What is no HTTP goes no further, whoever said it, and what only looks odd arrives: tables, played through a pair of
//! sidecars on a port that is declared to speak HTTP.

/// Requests that break a rule.
mod requests;

/// Responses that break a rule.
mod responses;

/// Requests that look odd and break none.
mod oddities;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Context, ensure};
use ringmail_tests::bed::Bed;
use ringmail_tests::mesh::{Service, ServicePort};

use crate::Scenario;
use crate::raw::{App, Ending, dial, expect, read_rest, read_to};
use crate::shop::{Plan, Shop, play};
use requests::Reaches;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("malformed::requests_go_no_further", requests_go_no_further),
    ("malformed::answers_go_no_further", answers_go_no_further),
    ("malformed::odd_requests_arrive", odd_requests_arrive),
];

/// Where the scenario plays the app.
const PORT: u16 = 9000;
/// Where the client finds it.
const DECLARED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 40)), 80);
/// The table's size that was promised.
const REQUESTS_MIN: usize = 150;

/// A shop whose app is the scenario, behind a service that says it speaks HTTP/1.
fn declared(shop: &Shop<'_>) -> anyhow::Result<App> {
    let service = Service {
        namespace: "shop".to_owned(),
        name: "declared".to_owned(),
        cluster_ips: vec![DECLARED.ip()],
        ports: vec![ServicePort {
            name: "web".to_owned(),
            port: DECLARED.port(),
            target: PORT,
            app_protocol: Some("http".to_owned()),
        }],
    };
    shop.announce(&service, &[(&Plan::default().server, &shop.server)])?;
    App::listen(&shop.server, PORT)
}

fn requests_go_no_further(bed: Bed) -> anyhow::Result<()> {
    let rows = requests::all();
    ensure!(rows.len() >= REQUESTS_MIN, "only {} rows", rows.len());
    play(bed, &Plan::default(), |shop| {
        let app = declared(shop)?;
        let (to_nobody, heads): (Vec<_>, Vec<_>) =
            rows.iter().partition(|row| row.reaches == Reaches::Nothing);
        for row in to_nobody {
            refused(shop, row).with_context(|| format!("{} ({})", row.what, row.section))?;
        }
        // The first thing that the app hears of is this one.
        let (_client, served) = asked(shop, &app)?;
        drop(served);
        for row in heads {
            refused(shop, row).with_context(|| format!("{} ({})", row.what, row.section))?;
        }
        shop.wait_client_refusal("malformed_request")?;
        shop.wait_client_refusal("head_too_large")?;
        shop.wait_client_refusal("http_version")?;
        while let Some(mut reached) = app.try_accept() {
            reached.set_nonblocking(false)?;
            let (heard, _) = read_rest(&mut reached);
            let body = heard.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            ensure!(
                !body.starts_with("0\r\n") && !body.contains("\r\n0\r\n"),
                "the app heard an end: {heard:?}"
            );
        }
        Ok(())
    })
}

/// The client is told why, and the connection ends.
fn refused(shop: &Shop<'_>, row: &requests::Row) -> anyhow::Result<()> {
    let mut client = dial(&shop.client, DECLARED)?;
    client.write_all(&row.request)?;
    let (answer, ending) = read_rest(&mut client);
    let (status, reason) = match row.status {
        431 => ("HTTP/1.1 431 ", "head_too_large"),
        505 => ("HTTP/1.1 505 ", "http_version"),
        _ => ("HTTP/1.1 400 ", "malformed_request"),
    };
    ensure!(
        answer.starts_with(status)
            && answer.contains(&format!("\r\nx-ringmail-reason: {reason}\r\n"))
            && answer.contains("\r\nConnection: close\r\n"),
        "{answer:?}"
    );
    let rule = answer.split_once("\r\n\r\n").context("no body")?.1;
    ensure!(
        row.status != 400 || rule.contains(": ") && rule.contains("(RFC "),
        "it does not say which rule: {rule:?}"
    );
    ensure!(ending == Ending::Closed, "{ending:?}");
    Ok(())
}

const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn answers_go_no_further(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let app = declared(shop)?;
        for (section, what, answer) in responses::HEADS {
            let (mut client, mut served) = asked(shop, &app)?;
            served.write_all(answer)?;
            let (heard, _) = read_rest(&mut client);
            ensure!(
                heard.starts_with("HTTP/1.1 502 ")
                    && heard.contains("\r\nx-ringmail-reason: app_malformed\r\n"),
                "{what} ({section}): {heard:?}"
            );
        }
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (section, what, body) in responses::BODIES {
            let (mut client, mut served) = asked(shop, &app)?;
            served.write_all(head.as_bytes())?;
            let first = read_to(&mut client, "\r\n\r\n")?;
            ensure!(first == head, "{first:?}");
            served.write_all(body)?;
            drop(served);
            let (heard, _) = read_rest(&mut client);
            ensure!(
                !heard.starts_with("0\r\n") && !heard.contains("\r\n0\r\n"),
                "{what} ({section}): the client heard an end: {heard:?}"
            );
        }
        shop.wait_server_refusal("app_malformed")
    })
}

/// A client that asked, and the app that heard it.
fn asked(shop: &Shop<'_>, app: &App) -> anyhow::Result<(TcpStream, TcpStream)> {
    let mut client = dial(&shop.client, DECLARED)?;
    client.write_all(ASK)?;
    let mut served = app.accept_speaking()?;
    expect(&mut served, ASK)?;
    Ok((client, served))
}

fn odd_requests_arrive(bed: Bed) -> anyhow::Result<()> {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    play(bed, &Plan::default(), |shop| {
        let app = declared(shop)?;
        let mut client = dial(&shop.client, DECLARED)?;
        let mut served = None;
        for (what, sent, heard) in oddities::REQUESTS {
            client.write_all(sent)?;
            let served = match &mut served {
                Some(served) => served,
                None => served.insert(app.accept_speaking()?),
            };
            expect(served, heard).context(*what)?;
            served.write_all(answer)?;
            expect(&mut client, answer).context(*what)?;
        }
        shop.assert_wire_unread()
    })
}
