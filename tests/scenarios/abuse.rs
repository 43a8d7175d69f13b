//! HTTP/2 as it is abused: a proxy ends it, for little, and others on the same proxy notice nothing. By a client toward
//! its own proxy, and by an app toward the proxy that forwards to it.

/// What abuse costs.
mod watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ringmail_tests::bed::Bed;
use ringmail_tests::mesh::{Service, ServicePort};

use self::watch::{Cost, watch};
use crate::Scenario;
use crate::frames::*;
use crate::raw::{App, dial};
use crate::shop::{Plan, Shop, WEB, play};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "abuse::a_client_that_floods_is_sent_away",
        a_client_that_floods_is_sent_away,
    ),
    (
        "abuse::an_app_that_floods_is_cut_off",
        an_app_that_floods_is_cut_off,
    ),
    ("abuse::held_streams_are_bounded", held_streams_are_bounded),
];

/// A flood that was not ended by then would go on.
const FRAMES_MAX: u64 = 1_000_000;
/// Frames until the end, in most attempts: the budget, and what was on its way. Some are lucky with the scheduler: what
/// the proxy threw away unread behind its goodbye counts as well.
const FRAMES_ALLOWED: u64 = 50_000;
/// Attackers come again, for so long.
const PERSISTENCE: Duration = Duration::from_secs(1);
/// Of a proxy that was not built to be fast, for each second of abuse.
const CPU_ALLOWED: Duration = Duration::from_millis(1_500);
const MEMORY_ALLOWED_KIB: u64 = 32 * 1024;

/// One kind of abuse.
struct Probe {
    what: &'static str,
    /// Behind the preface and our settings.
    opening: Vec<u8>,
    /// How many frames, and which.
    next: Box<dyn Fn(u32) -> (u64, Vec<u8>)>,
}

fn probe(
    what: &'static str,
    opening: Vec<u8>,
    next: impl Fn(u32) -> (u64, Vec<u8>) + 'static,
) -> Probe {
    Probe {
        what,
        opening,
        next: Box::new(next),
    }
}

/// The id of a client's stream.
fn id(number: u32) -> u32 {
    2 * number + 1
}

/// Floods that either side can make; `stream` is open.
fn floods(stream: u32) -> Vec<Probe> {
    let always = |bytes: Vec<u8>| move |_| (1, bytes.clone());
    vec![
        probe(
            "SETTINGS",
            vec![],
            always(frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ),
        probe("empty SETTINGS", vec![], always(frame(SETTINGS, 0, 0, &[]))),
        probe("PING", vec![], always(frame(PING, 0, 0, &[7; 8]))),
        probe("PING ACK", vec![], always(frame(PING, ACK, 0, &[7; 8]))),
        probe(
            "PRIORITY",
            vec![],
            always(frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 7])),
        ),
        probe(
            "WINDOW_UPDATE",
            vec![],
            always(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ),
        probe(
            "frames of an unknown kind",
            vec![],
            always(frame(0xfa, 0, 0, &[])),
        ),
    ]
}

fn clients() -> Vec<Probe> {
    let get = |path| request_block("GET", path);
    let open = frame(HEADERS, END_HEADERS, 1, &request_block("POST", "/stream"));
    let mut probes = floods(1);
    probes.push(probe("empty DATA", open, |_| (1, frame(DATA, 0, 1, &[]))));
    probes.push(probe("rapid reset", vec![], move |n| {
        let open = frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            id(n),
            &get("/delay/1000"),
        );
        (
            2,
            [open, frame(RST_STREAM, 0, id(n), &[0, 0, 0, 8])].concat(),
        )
    }));
    probes.push(probe("made you reset", vec![], move |n| {
        let open = frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            id(n),
            &get("/delay/1000"),
        );
        // A window that overflows is an error of the stream (RFC 9113 section 6.9.1).
        (
            2,
            [
                open,
                frame(WINDOW_UPDATE, 0, id(n), &[0x7f, 0xff, 0xff, 0xff]),
            ]
            .concat(),
        )
    }));
    probes.push(probe(
        "CONTINUATION",
        frame(HEADERS, END_STREAM, 1, &get("/")),
        |_| (1, frame(CONTINUATION, 0, 1, &[])),
    ));
    probes.push(probe(
        "CONTINUATION with fields",
        frame(HEADERS, END_STREAM, 1, &get("/")),
        {
            // A literal without indexing: `x: y`.
            |_| (1, frame(CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'y']))
        },
    ));
    probes.push(probe("streams beyond the limit", vec![], move |n| {
        let open = frame(
            HEADERS,
            END_HEADERS,
            id(n),
            &request_block("POST", "/delay/20000"),
        );
        (1, open)
    }));
    probes.push(probe("HPACK bomb", vec![], move |n| {
        // An entry of 4000 bytes for the table, and 8000 times its index: 32 MB of fields in 12 KB (RFC 7541 section 7.3).
        let entry = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e], &[b'y'; 4000][..]].concat();
        let block = [get("/"), entry, vec![0xbe; 8000]].concat();
        (1, frame(HEADERS, END_HEADERS | END_STREAM, id(n), &block))
    }));
    probes
}

fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

fn a_client_that_floods_is_sent_away(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let proxy = shop.client_sidecar.process.id();
        for probe in clients() {
            let opening = [hello(), probe.opening].concat();
            let abuse = || {
                let begun = Instant::now();
                let mut all = Vec::new();
                while begun.elapsed() < PERSISTENCE {
                    let stream = dial(&shop.client, WEB)?;
                    all.push(flood(&stream, &opening, FRAMES_MAX, &probe.next)?);
                }
                anyhow::Ok(all)
            };
            let (all, cost) = watch(proxy, &shop.client, WEB, abuse).context(probe.what)?;
            report(probe.what, &all, &cost);
            check(&all, &cost).context(probe.what)?;
            ensure!(
                all.iter().any(|one| one.goaway == Some(ENHANCE_YOUR_CALM)),
                "{}: it was not told why: {all:?}",
                probe.what
            );
        }
        shop.wait_client_refusal("client_flood")
    })
}

fn report(what: &str, all: &[Flooded], cost: &Cost) {
    let Cost {
        cpu,
        memory_kib,
        neighbour,
    } = cost;
    eprintln!(
        "  {what}: {} times, {} frames, processor {cpu:.1?}, memory +{memory_kib} KiB, neighbour {neighbour:.1?}",
        all.len(),
        median_frames(all),
    );
}

fn median_frames(all: &[Flooded]) -> u64 {
    let mut frames: Vec<_> = all.iter().map(|one| one.frames).collect();
    frames.sort_unstable();
    frames[frames.len() / 2]
}

fn check(all: &[Flooded], cost: &Cost) -> anyhow::Result<()> {
    for one in all {
        ensure!(one.ended && one.frames < FRAMES_MAX, "{one:?}");
    }
    let frames = median_frames(all);
    ensure!(frames <= FRAMES_ALLOWED, "{frames} frames");
    ensure!(cost.cpu < CPU_ALLOWED, "processor time {:?}", cost.cpu);
    ensure!(
        cost.memory_kib < MEMORY_ALLOWED_KIB,
        "memory grew by {} KiB",
        cost.memory_kib
    );
    cost.assert_unnoticed()
}

/// Where the scenario plays the app.
const PORT: u16 = 9000;
/// Where the client finds it, declared to speak HTTP/2.
const DECLARED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 41)), 80);

fn an_app_that_floods_is_cut_off(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let service = Service {
            namespace: "shop".to_owned(),
            name: "hostile".to_owned(),
            cluster_ips: vec![DECLARED.ip()],
            ports: vec![ServicePort {
                name: "web".to_owned(),
                port: DECLARED.port(),
                target: PORT,
                app_protocol: Some("kubernetes.io/h2c".to_owned()),
            }],
        };
        shop.announce(&service, &[(&Plan::default().server, &shop.server)])?;
        let app = App::listen(&shop.server, PORT)?;
        let proxy = shop.server_sidecar.process.id();
        // `:status 200` by its index.
        let open = frame(HEADERS, END_HEADERS, 1, &[0x88]);
        let mut probes = floods(1);
        probes.push(probe("empty DATA", open, |_| (1, frame(DATA, 0, 1, &[]))));
        probes.push(probe("CONTINUATION", frame(HEADERS, 0, 1, &[0x88]), |_| {
            (1, frame(CONTINUATION, 0, 1, &[]))
        }));
        for probe in probes {
            let opening = [frame(SETTINGS, 0, 0, &[]), probe.opening].concat();
            let abuse = || {
                let begun = Instant::now();
                let mut all = Vec::new();
                while begun.elapsed() < PERSISTENCE {
                    let (_client, served) = asked(shop, &app)?;
                    all.push(flood(&served, &opening, FRAMES_MAX, &probe.next)?);
                }
                anyhow::Ok(all)
            };
            let (all, cost) = watch(proxy, &shop.client, WEB, abuse).context(probe.what)?;
            report(probe.what, &all, &cost);
            check(&all, &cost).context(probe.what)?;
        }
        shop.wait_server_refusal("app_flood")
    })
}

/// A client that asked, and the app's end of the connection on which it will hear of it.
fn asked(shop: &Shop<'_>, app: &App) -> anyhow::Result<(TcpStream, TcpStream)> {
    use std::io::Write;
    let mut client = dial(&shop.client, DECLARED)?;
    let request = frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &request_block("GET", "/"),
    );
    client.write_all(&[hello(), request].concat())?;
    Ok((client, app.accept_speaking()?))
}

/// Many connections, each with as many open requests as it may have.
fn held_streams_are_bounded(bed: Bed) -> anyhow::Result<()> {
    const CONNECTIONS: u32 = 10;
    const STREAMS: u32 = 1_000;
    const ALLOWED_KIB: u64 = 64 * 1024;
    play(bed, &Plan::default(), |shop| {
        use std::io::Write;
        let hold = || {
            let mut held = Vec::new();
            for _ in 0..CONNECTIONS {
                let mut stream = dial(&shop.client, WEB)?;
                stream.write_all(&hello())?;
                let block = request_block("POST", "/stream");
                for number in 0..STREAMS {
                    stream.write_all(&frame(HEADERS, END_HEADERS, id(number), &block))?;
                }
                held.push(stream);
            }
            // Every one of them is under way, or was refused.
            std::thread::sleep(PERSISTENCE);
            anyhow::Ok(held)
        };
        for (whose, proxy) in [
            ("the client's", shop.client_sidecar.process.id()),
            ("the server's", shop.server_sidecar.process.id()),
        ] {
            let (held, cost) = watch(proxy, &shop.client, WEB, hold)?;
            eprintln!(
                "  {whose} proxy: memory +{} KiB, neighbour {:.1?}",
                cost.memory_kib, cost.neighbour
            );
            drop(held);
            ensure!(
                cost.memory_kib < ALLOWED_KIB,
                "{whose} proxy grew by {} KiB",
                cost.memory_kib
            );
            cost.assert_unnoticed().context(whose)?;
        }
        Ok(())
    })
}
