//! Who may speak to whom: only pods that prove who they are, to pods that are who they should be.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use ringmail_proto::svid::Svid;
use ringmail_tests::apps;
use ringmail_tests::bed::Bed;
use ringmail_tests::mesh::{Service, ServicePort, Workload};
use ringmail_tests::wait;

use crate::Scenario;
use crate::forge::{By, PONG, Valid, answer, forge, knock};
use crate::raw::{App, Ending, dial, read_rest};
use crate::shop::{LIMIT, MARKER, Plan, WEB, play, refusal};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "identity::only_valid_certificates_are_let_in",
        only_valid_certificates_are_let_in,
    ),
    ("identity::tls_1_2_is_refused", tls_1_2_is_refused),
    (
        "identity::certificates_and_key_exchange",
        certificates_and_key_exchange,
    ),
    (
        "identity::what_is_no_tls_is_refused",
        what_is_no_tls_is_refused,
    ),
    (
        "identity::a_reused_address_gets_nothing",
        a_reused_address_gets_nothing,
    ),
];

/// Where proxies meet.
const PEER_PORT: u16 = 15008;

/// The client's own identity, which an intruder would like to have.
const CLIENT: &str = "spiffe://mesh.local/ns/shop/sa/client";

/// Once such bytes were read again after they had been refused.
fn what_is_no_tls_is_refused(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let intruder = shop.node.pod("intruder")?;
        let handshakes = |labels: &[_]| shop.server_metric("ringmail_handshakes_total", labels);
        let failed = || handshakes(&[]) - handshakes(&[("result", "ok")]);
        for (number, bytes) in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0x16, 3, 3, 0, 4, 99, 0, 0, 0],
        ]
        .iter()
        .enumerate()
        {
            let mut socket = dial(&intruder, shop.server_at(PEER_PORT))?;
            socket.write_all(bytes)?;
            let (answer, ending) = read_rest(&mut socket);
            // A fatal alert (RFC 8446 section 6), and the end.
            ensure!(
                matches!(answer.as_bytes(), [21, _, _, _, _, 2, _]),
                "{answer:?}"
            );
            ensure!(ending != Ending::Open, "{bytes:?}: left open");
            wait::until(LIMIT, || failed() == (number + 1) as f64)
                .with_context(|| format!("{} failed handshakes", failed()))?;
        }
        Ok(())
    })
}

fn only_valid_certificates_are_let_in(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let intruder = shop.node.pod("intruder")?;
        let peer_port = shop.server_at(PEER_PORT);
        let refused = || {
            let labels = [("direction", "inbound"), ("result", "peer_identity")];
            shop.server_metric("ringmail_handshakes_total", &labels)
        };
        let rows = [
            (
                "signed by a stranger",
                Some((By::Stranger, vec![CLIENT], Valid::Now)),
            ),
            ("no certificate", None),
            (
                "another trust domain",
                Some((
                    By::Mesh,
                    vec!["spiffe://other.local/ns/shop/sa/client"],
                    Valid::Now,
                )),
            ),
            ("expired", Some((By::Mesh, vec![CLIENT], Valid::Formerly))),
            (
                "issued by a clock 6 minutes ahead: not valid yet",
                Some((By::Mesh, vec![CLIENT], Valid::Skewed(360))),
            ),
            (
                "issued for a minute by a clock 2 minutes behind: over",
                Some((By::Mesh, vec![CLIENT], Valid::Skewed(-120))),
            ),
            ("no name", Some((By::Mesh, vec![], Valid::Now))),
            (
                "two names",
                Some((By::Mesh, vec![CLIENT, CLIENT], Valid::Now)),
            ),
            (
                "no SPIFFE name",
                Some((
                    By::Mesh,
                    vec!["https://mesh.local/ns/shop/sa/client"],
                    Valid::Now,
                )),
            ),
            (
                "the trust domain itself",
                Some((By::Mesh, vec!["spiffe://mesh.local"], Valid::Now)),
            ),
        ];
        for (n, (what, certificate)) in rows.into_iter().enumerate() {
            let certificate = certificate
                .map(|(by, names, valid)| forge(&shop.mesh, by, &names, valid))
                .transpose()?;
            let found = knock(&intruder, peer_port, certificate)?;
            ensure!(found.answer.is_err(), "{what}: it was let in");
            let counted = (n + 1) as f64;
            wait::until(LIMIT, || refused() == counted).with_context(|| {
                format!("{what}: not counted; the intruder saw {:?}", found.answer)
            })?;
        }
        shop.wait_server_refusal("peer_identity")?;
        // What all of them lacked: with it, the same hands get in.
        // So do certificates of a clock that differs by less than the back-dating.
        for valid in [Valid::Now, Valid::Skewed(240), Valid::Skewed(-30)] {
            let good = forge(&shop.mesh, By::Mesh, &[CLIENT], valid)?;
            let found = knock(&intruder, peer_port, Some(good))?;
            ensure!(found.answer == Ok(PONG), "{valid:?}: {found:?}");
        }
        ensure!(
            shop.get(WEB, "/")?.status == 200,
            "the mesh's own traffic suffered"
        );
        Ok(())
    })
}

/// A client that offers TLS 1.2 and nothing newer, by hand: the libraries here do not know how.
fn tls_1_2_is_refused(bed: Bed) -> anyhow::Result<()> {
    const EXTENSIONS: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 29, // supported groups: X25519
        0, 13, 0, 4, 0, 2, 4, 3, // signatures: ECDSA with P-256 and SHA-256
        0, 11, 0, 2, 1, 0, // uncompressed points
    ];
    const PROTOCOL_VERSION: u8 = 70;
    play(bed, &Plan::default(), |shop| {
        let intruder = shop.node.pod("intruder")?;
        let mut hello = vec![3, 3];
        hello.extend([7; 32]);
        hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0]);
        hello.push(u8::try_from(EXTENSIONS.len())?);
        hello.extend(EXTENSIONS);
        let length = u8::try_from(hello.len())?;
        let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
        record.extend(hello);
        let mut stream = dial(&intruder, shop.server_at(PEER_PORT))?;
        stream.write_all(&record)?;
        let mut alert = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut alert);
        ensure!(alert == [21, 3, 3, 0, 2, 2, PROTOCOL_VERSION], "{alert:?}");
        shop.wait_server_refusal("peer_protocol")?;
        // Nor is anything else than TLS spoken to there.
        let mut stream = dial(&intruder, shop.server_at(PEER_PORT))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let (heard, _) = read_rest(&mut stream);
        ensure!(!heard.contains("HTTP"), "{heard:?}");
        Ok(())
    })
}

fn certificates_and_key_exchange(bed: Bed) -> anyhow::Result<()> {
    const BACKDATED: i64 = 300;
    play(bed, &Plan::default(), |shop| {
        ensure!(shop.get(WEB, "/")?.status == 200);
        let hybrid = [("result", "ok"), ("group", "X25519MLKEM768")];
        for (whose, hybrid, all) in [
            (
                "client",
                shop.client_metric("ringmail_handshakes_total", &hybrid),
                shop.client_metric("ringmail_handshakes_total", &[]),
            ),
            (
                "server",
                shop.server_metric("ringmail_handshakes_total", &hybrid),
                shop.server_metric("ringmail_handshakes_total", &[]),
            ),
        ] {
            ensure!(
                hybrid > 0.0 && hybrid == all,
                "{whose}: {hybrid} of {all} handshakes"
            );
        }
        let look = || -> anyhow::Result<Svid> {
            let shown = knock(
                &shop.client,
                SocketAddr::from(([127, 0, 0, 1], PEER_PORT)),
                None,
            )?
            .shown;
            Ok(Svid::read(&shown.context("no certificate shown")?)?)
        };
        let first = look()?;
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let lifetime = i64::try_from(Plan::default().settings.leaf_lifetime.as_secs())?;
        ensure!(first.id.as_str() == CLIENT, "{first:?}");
        // A clock that is five minutes behind takes it.
        ensure!(
            first.not_after - first.not_before == lifetime + BACKDATED
                && first.not_before <= now - BACKDATED
                && first.not_after > now,
            "{first:?} at {now}"
        );
        let mut next = first.clone();
        wait::until(LIMIT, || {
            next = look().unwrap_or(first.clone());
            next.serial != first.serial
        })
        .context("not renewed")?;
        ensure!(
            next.id == first.id && next.not_after > first.not_after,
            "{next:?}"
        );
        Ok(())
    })
}

/// A pod goes; another one, of another service account, gets its address before anybody heard of it.
fn a_reused_address_gets_nothing(bed: Bed) -> anyhow::Result<()> {
    const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 40)), 80);
    play(bed, &Plan::default(), |shop| {
        let victim = shop.node.pod("victim")?;
        let workload = Workload::new("shop", "victim");
        apps::serve_web(&victim.namespace, "victim", 8080)?;
        let service = Service {
            namespace: "shop".to_owned(),
            name: "victim".to_owned(),
            cluster_ips: vec![SERVICE.ip()],
            ports: vec![ServicePort {
                name: "web".to_owned(),
                port: 80,
                target: 8080,
                app_protocol: None,
            }],
        };
        shop.mesh.put_workload(&victim, &workload)?;
        shop.announce(&service, &[(&workload, &victim)])?;
        let sidecar = shop.mesh.sidecar(&victim, &workload)?;
        let reply = shop.get(SERVICE, &format!("/{MARKER}"))?;
        ensure!(
            reply.status == 200 && reply.headers["x-app"] == "victim",
            "{reply:?}"
        );

        let thief_certificate = forge(
            &shop.mesh,
            By::Mesh,
            &["spiffe://mesh.local/ns/shop/sa/thief"],
            Valid::Now,
        )?;
        shop.mesh.kill_controller();
        let number = victim.number;
        drop(sidecar);
        drop(victim);
        let thief = shop.node.pod_at("thief", number)?;
        apps::serve_web(&thief.namespace, "thief", 8080)?;
        let peers = App::listen(&thief, PEER_PORT)?;
        let caught = thread::spawn(move || answer(peers.accept()?, thief_certificate));
        wait::until(LIMIT, || {
            let reply = shop.get(SERVICE, &format!("/{MARKER}"));
            reply.is_ok_and(|reply| refusal(&reply) == Some("peer_identity"))
        })
        .context("not refused as another's identity")?;
        let heard = caught
            .join()
            .map_err(|_| anyhow::anyhow!("the thief died"))??;
        ensure!(heard.is_err(), "the thief heard {heard:?}");
        let labels = [("direction", "outbound"), ("result", "peer_identity")];
        ensure!(
            shop.client_metric("ringmail_handshakes_total", &labels) > 0.0,
            "not counted"
        );
        for reply in (0..5).filter_map(|_| shop.get(SERVICE, &format!("/{MARKER}")).ok()) {
            ensure!(reply.status == 503, "{reply:?}");
        }
        let report = shop.wire.report();
        let readable: Vec<_> = report.with_marker().map(ToString::to_string).collect();
        ensure!(readable.is_empty(), "readable: {readable:?}");
        Ok(())
    })
}
