//! Bytes that mean nothing to the mesh: their ends, their resets, those who are slow, and very many who are idle.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ringmail_tests::apps::{self, BANNER};
use ringmail_tests::bed::Bed;
use ringmail_tests::fault::Fault;
use ringmail_tests::load::Client;
use ringmail_tests::mesh::{Sidecar, Workload};
use ringmail_tests::wait;

use crate::Scenario;
use crate::raw::{App, Ending, connected, dial, drain, expect, read_head, read_rest, reset};
use crate::shop::{LIMIT, MARKER, Plan, Shop, TALK, WEB, play};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "streams::halves_close_by_themselves",
        halves_close_by_themselves,
    ),
    ("streams::resets_are_passed_on", resets_are_passed_on),
    ("streams::first_bytes_and_banners", first_bytes_and_banners),
    (
        "streams::slow_ends_hold_up_nobody",
        slow_ends_hold_up_nobody,
    ),
    (
        "streams::a_thousand_idle_connections",
        a_thousand_idle_connections,
    ),
    ("streams::a_cut_link_is_given_up", a_cut_link_is_given_up),
];

/// Where the scenario plays the app.
const PORT: u16 = 9000;

fn halves_close_by_themselves(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let app = App::listen(&shop.server, PORT)?;
        for ip in shop.server.addresses() {
            let to = SocketAddr::new(ip, PORT);
            // The client ends first, and hears the rest.
            let (mut client, mut served) = connected(&shop.client, &app, to, MARKER.as_bytes())?;
            client.shutdown(Shutdown::Write)?;
            let heard = read_rest(&mut served);
            ensure!(heard == (String::new(), Ending::Closed), "{heard:?}");
            for part in ["still", " here"] {
                served.write_all(part.as_bytes())?;
                expect(&mut client, part.as_bytes())?;
            }
            drop(served);
            let rest = read_rest(&mut client);
            ensure!(rest == (String::new(), Ending::Closed), "{rest:?}");

            // The app ends first, and hears the rest.
            let (mut client, mut served) = connected(&shop.client, &app, to, MARKER.as_bytes())?;
            served.shutdown(Shutdown::Write)?;
            let heard = read_rest(&mut client);
            ensure!(heard == (String::new(), Ending::Closed), "{heard:?}");
            for part in ["still", " here"] {
                client.write_all(part.as_bytes())?;
                expect(&mut served, part.as_bytes())?;
            }
            drop(client);
            let rest = read_rest(&mut served);
            ensure!(rest == (String::new(), Ending::Closed), "{rest:?}");
        }
        let success = [("protocol", "tcp"), ("outcome", "broken")];
        ensure!(shop.client_metric("ringmail_connections_total", &success) == 0.0);
        shop.assert_wire_unread()
    })
}

fn resets_are_passed_on(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let app = App::listen(&shop.server, PORT)?;
        let to = shop.server_at(PORT);
        let (client, mut served) = connected(&shop.client, &app, to, b"hello\n")?;
        reset(client)?;
        let ended = read_rest(&mut served);
        ensure!(ended.1 == Ending::Reset, "to the app: {ended:?}");

        let (mut client, served) = connected(&shop.client, &app, to, b"hello\n")?;
        reset(served)?;
        let ended = read_rest(&mut client);
        ensure!(ended.1 == Ending::Reset, "to the client: {ended:?}");

        // After one half has closed in order, too.
        let (client, mut served) = connected(&shop.client, &app, to, b"hello\n")?;
        served.shutdown(Shutdown::Write)?;
        wait_for_end(&client)?;
        reset(client)?;
        let ended = read_rest(&mut served);
        ensure!(
            ended.1 == Ending::Reset,
            "to the app, half closed: {ended:?}"
        );

        // Nobody listens: as without the mesh, only later.
        let mut client = dial(&shop.client, shop.server_at(9999))?;
        client.write_all(b"hello\n")?;
        let ended = read_rest(&mut client);
        ensure!(ended.1 == Ending::Reset, "nobody listens: {ended:?}");
        shop.wait_server_refusal("app_unreachable")
    })
}

fn wait_for_end(mut stream: &TcpStream) -> anyhow::Result<()> {
    ensure!(stream.read(&mut [0])? == 0, "no end");
    Ok(())
}

fn first_bytes_and_banners(bed: Bed) -> anyhow::Result<()> {
    /// The app's own TLS: a record with the beginning of a ClientHello. Nothing here is ours to understand.
    const HELLO: &[u8] = &[
        22, 3, 1, 0, 20, 1, 0, 0, 16, 3, 3, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4,
    ];
    const PROMPT: Duration = Duration::from_millis(100);
    play(bed, &Plan::default(), |shop| {
        // The connection to the peer is there already, as it is nearly always.
        ensure!(shop.get(WEB, "/")?.status == 200);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let begun = Instant::now();
            let mut silent = dial(&shop.client, TALK)?;
            expect(&mut silent, BANNER.as_bytes())?;
            waits.push(begun.elapsed());
        }
        waits.sort_unstable();
        ensure!(waits[4] < PROMPT, "a silent client waits: {waits:?}");

        let app = App::listen(&shop.server, PORT)?;
        let mut client = dial(&shop.client, shop.server_at(PORT))?;
        for byte in HELLO {
            client.write_all(&[*byte])?;
            // So that each is a segment of its own and is looked at alone.
            thread::sleep(Duration::from_millis(1));
        }
        let mut served = app.accept_speaking()?;
        expect(&mut served, HELLO)?;
        served.write_all(HELLO)?;
        expect(&mut client, HELLO)?;

        // Something that might become HTTP and never does is handed on as it is.
        let mut client = dial(&shop.client, shop.server_at(PORT))?;
        client.write_all(b"GET")?;
        let mut served = app.accept_speaking()?;
        expect(&mut served, b"GET")?;
        client.write_all(b" key\r\n")?;
        expect(&mut served, b" key\r\n")?;
        let opaque = [("protocol", "tcp"), ("by", "first_bytes")];
        ensure!(shop.client_metric("ringmail_detections_total", &opaque) == 2.0);
        Ok(())
    })
}

/// Resident memory of a proxy in KiB.
pub(crate) fn resident(sidecar: &Sidecar) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("no VmRSS")?.trim().parse()?)
}

pub(crate) fn assert_resident(shop: &Shop<'_>, when: &str, kib_max: u64) -> anyhow::Result<()> {
    for (whose, sidecar) in [
        ("client", &shop.client_sidecar),
        ("server", &shop.server_sidecar),
    ] {
        let kib = resident(sidecar)?;
        eprintln!("    {when}: the {whose}'s proxy has {kib} KiB resident");
        ensure!(kib < kib_max, "{when}: the {whose}'s proxy has {kib} KiB");
    }
    Ok(())
}

/// Writes until nobody takes any more, and says how much was taken.
fn fill(stream: &mut TcpStream) -> anyhow::Result<u64> {
    const FULL: Duration = Duration::from_millis(300);
    let chunk = [b'x'; 64 * 1024];
    let mut taken = 0;
    stream.set_write_timeout(Some(FULL))?;
    loop {
        match stream.write(&chunk) {
            Ok(n) => taken += n as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken),
            Err(error) => return Err(error.into()),
        }
    }
}

fn slow_ends_hold_up_nobody(bed: Bed) -> anyhow::Result<()> {
    const CONNECTIONS: usize = 12;
    /// Of a debug build, which has 19 MiB when idle.
    const KIB_MAX: u64 = 48 * 1024;
    const SLOW_MICROS: u64 = 100_000;
    play(bed, &Plan::default(), |shop| {
        let app = App::listen(&shop.server, PORT)?;
        let to = shop.server_at(PORT);
        let mut pairs = Vec::new();
        for n in 0..CONNECTIONS {
            let (client, served) = connected(&shop.client, &app, to, b"hello\n")?;
            // Half of them upward, half of them downward.
            pairs.push(if n % 2 == 0 {
                (client, served)
            } else {
                (served, client)
            });
        }
        let filling = pairs
            .into_iter()
            .map(|(mut from, to)| thread::spawn(move || anyhow::Ok((fill(&mut from)?, from, to))));
        let filled: Vec<_> = filling
            .collect::<Vec<_>>()
            .into_iter()
            .map(thread::JoinHandle::join)
            .collect();
        // And two responses that nobody reads.
        let mut unread = Vec::new();
        for _ in 0..2 {
            let mut client = dial(&shop.client, WEB)?;
            client.write_all(b"GET /bytes/100000000 HTTP/1.1\r\nHost: a\r\n\r\n")?;
            unread.push(client);
        }

        let load = shop.load(Client::Http1(WEB, "/".to_owned()), 4)?;
        wait::until(LIMIT, || load.exchanges() >= 400)?;
        assert_resident(shop, "with slow readers", KIB_MAX)?;
        let outcome = shop.assert_unhurt(load)?;
        let median = outcome.latency.value_at_quantile(0.5);
        eprintln!("    beside slow readers: {outcome}");
        ensure!(median < SLOW_MICROS, "others are held up: {outcome}");

        // Not a byte was lost on the way.
        for filled in filled {
            let (taken, from, mut to) =
                filled.map_err(|_| anyhow::anyhow!("the writer died"))??;
            from.shutdown(Shutdown::Write)?;
            let arrived = drain(&mut to)?;
            ensure!(arrived == taken, "{arrived} of {taken} bytes");
        }
        for client in &mut unread {
            ensure!(read_head(client)?.starts_with("HTTP/1.1 200 OK\r\n"));
            let mut body = vec![0; 100_000_000];
            client.read_exact(&mut body)?;
        }
        assert_resident(shop, "after slow readers", KIB_MAX)
    })
}

fn a_thousand_idle_connections(bed: Bed) -> anyhow::Result<()> {
    const OF_EACH: usize = 500;
    const KIB_MAX: u64 = 48 * 1024;
    play(bed, &Plan::default(), |shop| {
        assert_resident(shop, "before any connection", KIB_MAX)?;
        let mut web = Vec::new();
        let mut talk = Vec::new();
        for _ in 0..OF_EACH {
            let mut client = dial(&shop.client, WEB)?;
            ask(&mut client)?;
            web.push(client);
            let mut client = dial(&shop.client, TALK)?;
            expect(&mut client, BANNER.as_bytes())?;
            say(&mut client)?;
            talk.push(client);
        }
        let open = [("direction", "outbound")];
        ensure!(shop.client_metric("ringmail_connections_open", &open) == 2.0 * OF_EACH as f64);
        assert_resident(shop, "with 1000 idle connections", KIB_MAX)?;
        for (web, talk) in web.iter_mut().zip(&mut talk) {
            ask(web)?;
            say(talk)?;
        }
        drop((web, talk));
        wait::until(LIMIT, || {
            shop.client_metric("ringmail_connections_open", &[]) == 0.0
                && shop.server_metric("ringmail_connections_open", &[]) == 0.0
        })
        .context("connections are left")
    })
}

fn ask(client: &mut TcpStream) -> anyhow::Result<()> {
    client.write_all(b"GET /bytes/2 HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(read_head(client)?.starts_with("HTTP/1.1 200 OK\r\n"));
    expect(client, b"xx")
}

fn say(client: &mut TcpStream) -> anyhow::Result<()> {
    client.write_all(b"hello\r\n")?;
    expect(client, b"hello\r\n")
}

/// Neither side hears of the other any more, and no packet says so.
fn a_cut_link_is_given_up(bed: Bed) -> anyhow::Result<()> {
    /// 30 s of silence, found at most 10 s later.
    const GIVEN_UP: Duration = Duration::from_secs(45);
    play(bed, &Plan::default(), |shop| {
        let (far, link) = shop.node.pod_on_faulty_link("far")?;
        let workload = Workload::new("shop", "far");
        apps::serve_web(&far.namespace, "far", 8080)?;
        shop.mesh.put_workload(&far, &workload)?;
        let _sidecar = shop.mesh.sidecar(&far, &workload)?;
        let app = App::listen(&far, PORT)?;
        let (mut client, mut served) = connected(
            &shop.client,
            &app,
            SocketAddr::new(far.v4.into(), PORT),
            b"hello\n",
        )?;
        let mut asking = dial(&shop.client, SocketAddr::new(far.v4.into(), 8080))?;
        ask(&mut asking)?;

        link.set(Fault {
            is_cut: true,
            ..Fault::default()
        });
        let begun = Instant::now();
        asking.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        for stream in [&client, &served, &asking] {
            stream.set_read_timeout(Some(GIVEN_UP))?;
        }
        let ended = read_rest(&mut client);
        ensure!(
            ended.1 == Ending::Reset,
            "the client: {ended:?} after {:?}",
            begun.elapsed()
        );
        let ended = read_rest(&mut served);
        ensure!(
            ended.1 == Ending::Reset,
            "the app: {ended:?} after {:?}",
            begun.elapsed()
        );
        let (answer, _) = read_rest(&mut asking);
        ensure!(
            answer.starts_with("HTTP/1.1 502 ") && answer.contains("peer_gone"),
            "{answer:?}"
        );
        ensure!(begun.elapsed() < GIVEN_UP, "after {:?}", begun.elapsed());
        ensure!(shop.get(WEB, "/")?.status == 200, "others suffered");
        Ok(())
    })
}
