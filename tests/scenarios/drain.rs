//! The end of a proxy under load: told to, it takes its time for what is under way, and nobody else notices.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use ringmail_tests::apps;
use ringmail_tests::bed::Bed;
use ringmail_tests::load::Client;
use ringmail_tests::mesh::{Sidecar, Workload};
use ringmail_tests::netns::Node;
use ringmail_tests::wait;

use crate::Scenario;
use crate::raw::{App, Ending, dial, expect, read_rest};
use crate::shop::{LIMIT, MARKER, Plan, Shop, WEB, get, play, service};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("drain::the_clients_proxy", the_clients_proxy),
    ("drain::the_servers_proxy", the_servers_proxy),
    (
        "drain::who_says_nothing_holds_nothing",
        who_says_nothing_holds_nothing,
    ),
    (
        "drain::a_limit_ends_what_does_not",
        a_limit_ends_what_does_not,
    ),
    (
        "drain::rolling_restart_under_load",
        rolling_restart_under_load,
    ),
];

/// Where the scenario plays the app.
const PORT: u16 = 9000;
/// Readiness falls at once; this is for the asking.
const AT_ONCE: Duration = Duration::from_secs(1);

fn tell_to_end(node: &Node, sidecar: &Sidecar) -> anyhow::Result<()> {
    sidecar.process.signal(Signal::SIGTERM)?;
    wait::until(AT_ONCE, || !sidecar.is_ready(node)).context("still ready after SIGTERM")
}

fn ends_well(sidecar: &mut Sidecar) -> anyhow::Result<()> {
    let status = sidecar.process.wait(LIMIT)?;
    ensure!(
        status.success(),
        "it ended with {status}; {}",
        sidecar.process.tail()
    );
    Ok(())
}

/// A request that the app has heard and not answered.
fn under_way(shop: &Shop<'_>, app: &App) -> anyhow::Result<(TcpStream, TcpStream)> {
    let mut client = dial(&shop.client, shop.server_at(PORT))?;
    let request = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write_all(request)?;
    let mut served = app.accept_speaking()?;
    expect(&mut served, request)?;
    Ok((client, served))
}

/// The app answers, and the client hears all of it.
fn finish((mut client, mut served): (TcpStream, TcpStream)) -> anyhow::Result<String> {
    served.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer")?;
    client.shutdown(std::net::Shutdown::Write)?;
    let (heard, ending) = read_rest(&mut client);
    ensure!(
        heard.starts_with("HTTP/1.1 200 OK\r\n") && heard.ends_with("answer"),
        "{heard:?}"
    );
    ensure!(ending == Ending::Closed, "{ending:?}");
    Ok(heard)
}

fn the_clients_proxy(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let app = App::listen(&shop.server, PORT)?;
        let mut slow = under_way(shop, &app)?;
        let mut idle = dial(&shop.client, WEB)?;
        idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        expect(&mut idle, b"HTTP/1.1 200 OK\r\n")?;
        tell_to_end(shop.node, &shop.client_sidecar)?;
        // What is idle is closed; what comes now is served, and told to go elsewhere.
        read_rest(&mut idle);
        let reply = shop.get(WEB, "/")?;
        ensure!(
            reply.status == 200 && reply.headers["connection"] == "close",
            "{reply:?}"
        );
        let mut patient = dial(&shop.client, WEB)?;
        // Time in which it must not be closed: there is nothing to wait for.
        std::thread::sleep(Duration::from_millis(200));
        patient.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        expect(&mut patient, b"HTTP/1.1 200 OK\r\n")?;
        // The client has more to say, beyond what is read ahead, and learns too late that nobody will hear it.
        slow.0.write_all(&[b'x'; 200_000])?;
        let heard = finish(slow)?;
        ensure!(heard.contains("Connection: close\r\n"), "{heard:?}");
        ends_well(&mut shop.client_sidecar)?;
        // Its rules stay: the app is refused rather than sent out unprotected.
        ensure!(
            shop.get(WEB, &format!("/{MARKER}")).is_err(),
            "somebody forwards"
        );
        shop.assert_wire_unread()
    })
}

fn the_servers_proxy(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let app = App::listen(&shop.server, PORT)?;
        let slow = under_way(shop, &app)?;
        tell_to_end(shop.node, &shop.server_sidecar)?;
        // Endpoints take their time to change: who comes meanwhile is served.
        for _ in 0..50 {
            let reply = shop.get(WEB, "/")?;
            ensure!(reply.status == 200, "{reply:?}");
        }
        finish(slow)?;
        ends_well(&mut shop.server_sidecar)?;
        shop.assert_wire_unread()
    })
}

/// Clients outside the mesh, of a port that is declared to speak HTTP: they may come early, and are let go at the end.
fn who_says_nothing_holds_nothing(bed: Bed) -> anyhow::Result<()> {
    let server = Plan::default().server;
    let plan = Plan {
        server: server.annotated("ringmail.io/inbound", "permissive"),
        ..Plan::default()
    };
    play(bed, &plan, |shop| {
        let mut declared = service();
        declared.name = "declared".to_owned();
        declared.cluster_ips = vec![[10, 96, 0, 41].into()];
        declared.ports.truncate(1);
        for port in &mut declared.ports {
            port.target = PORT;
            port.app_protocol = Some("http".to_owned());
        }
        shop.announce(&declared, &[(&plan.server, &shop.server)])?;
        let app = App::listen(&shop.server, PORT)?;
        let outsider = shop.node.pod("outsider")?;
        let mut early = dial(&outsider, shop.server_at(PORT))?;
        // Time in which it must not be closed.
        std::thread::sleep(Duration::from_millis(200));
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        early.write_all(request)?;
        let mut served = app.accept_speaking()?;
        expect(&mut served, request)?;
        let mut silent = dial(&outsider, shop.server_at(PORT))?;
        let open = || shop.server_metric("ringmail_connections_open", &[("direction", "inbound")]);
        wait::until(LIMIT, || open() >= 2.0).context("nobody hears the silent one")?;
        tell_to_end(shop.node, &shop.server_sidecar)?;
        finish((early, served))?;
        ends_well(&mut shop.server_sidecar)?;
        ensure!(read_rest(&mut silent).0.is_empty(), "it was answered");
        Ok(())
    })
}

fn a_limit_ends_what_does_not(bed: Bed) -> anyhow::Result<()> {
    let plan = Plan {
        server: Workload::new("shop", "server").set("RINGMAIL_DRAIN_SECONDS", "1"),
        ..Plan::default()
    };
    play(bed, &plan, |shop| {
        let app = App::listen(&shop.server, PORT)?;
        let (mut client, _served) = under_way(shop, &app)?;
        tell_to_end(shop.node, &shop.server_sidecar)?;
        let status = shop.server_sidecar.process.wait(Duration::from_secs(3))?;
        ensure!(status.success(), "{status}");
        let (heard, _) = read_rest(&mut client);
        ensure!(
            heard.starts_with("HTTP/1.1 502 ") && heard.contains("peer_gone"),
            "{heard:?}"
        );
        Ok(())
    })
}

/// Two pods behind the service; the sidecar of each is replaced in turn.
fn rolling_restart_under_load(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let first = Plan::default().server;
        let second_pod = shop.node.pod("second")?;
        let second = Workload::new("shop", "second");
        apps::serve_web(&second_pod.namespace, "second", 8080)?;
        shop.mesh.put_workload(&second_pod, &second)?;
        let mut second_sidecar = shop.mesh.sidecar(&second_pod, &second)?;
        shop.mesh.put_service(
            &service(),
            &[(&first, &shop.server), (&second, &second_pod)],
        )?;
        let loads = [
            shop.load(Client::Http1(WEB, format!("/{MARKER}")), 4)?,
            shop.load(Client::Http1(WEB, "/delay/100".to_owned()), 8)?,
            shop.load(Client::Http2(WEB, format!("/{MARKER}")), 2)?,
            shop.load(Client::Grpc(WEB, MARKER.to_owned()), 2)?,
        ];
        let is_served_by = |name: &str| {
            let reply = get(&shop.client, WEB, "/");
            reply.is_ok_and(|reply| reply.headers.get("x-app").is_some_and(|app| app == name))
        };
        wait::until(LIMIT, || is_served_by("second")).context("the second pod is not asked")?;
        // Others are told that a pod ends when it does, not before.
        let both = [(&first, &shop.server), (&second, &second_pod)];
        tell_to_end(shop.node, &shop.server_sidecar)?;
        shop.mesh.put_service(&service(), &both[1..])?;
        ends_well(&mut shop.server_sidecar)?;
        shop.server_sidecar = shop.mesh.sidecar(&shop.server, &first)?;
        shop.mesh.put_service(&service(), &both)?;
        wait::until(LIMIT, || is_served_by("shop")).context("the first pod is not asked again")?;
        tell_to_end(shop.node, &second_sidecar)?;
        shop.mesh.put_service(&service(), &both[..1])?;
        ends_well(&mut second_sidecar)?;
        for load in loads {
            shop.assert_unhurt(load)?;
        }
        shop.assert_wire_unread()
    })
}
