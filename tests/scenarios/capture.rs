//! Interception as an app sees it: whom does it reach when it dials?

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, ensure};
use ringmail_proxy::capture::{
    self, Error, Network, Plan, Settings, TABLE,
    netlink::{Attributes, NLM_F_ACK, NLM_F_REQUEST, Socket, message},
    probe::{PROBE_ADDRESSES, PROBE_ANSWER, is_probe, probe_outbound},
};
use ringmail_tests::{
    apps,
    bed::{Bed, Exemption, PROXY_IDENTITY},
    netns::{Node, Pod},
    wait,
    wire::{Flow, Wire},
};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::Scenario;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("capture::outbound", outbound),
    ("capture::inbound", inbound),
    ("capture::loopback_is_left_alone", loopback_is_left_alone),
    ("capture::the_proxy_is_exempt", the_proxy_is_exempt),
    ("capture::skips", skips),
    (
        "capture::refused_before_the_proxy_listens",
        refused_before_the_proxy_listens,
    ),
    (
        "capture::twice_leaves_one_set_and_cleanup_none",
        twice_leaves_one_set_and_cleanup_none,
    ),
    (
        "capture::flushed_rules_are_noticed",
        flushed_rules_are_noticed,
    ),
    (
        "capture::stray_segments_reset_nothing",
        stray_segments_reset_nothing,
    ),
    ("capture::verify_proves_or_fails", verify_proves_or_fails),
];

const DIAL_LIMIT: Duration = Duration::from_secs(3);

/// What the app hears when it reaches the server itself.
const DIRECT: &str = "220 ringmail test";

/// Addresses of a Service: nobody has them.
const CLUSTER_IPS: [&str; 2] = ["10.96.0.10", "fd96::a"];

fn settings(node: &Node) -> Settings {
    match node.exemption {
        Exemption::Uid => Settings {
            exempt_uid: Some(PROXY_IDENTITY),
            ..Settings::default()
        },
        Exemption::Mark => Settings {
            exempt_mark: Some(PROXY_IDENTITY),
            ..Settings::default()
        },
    }
}

fn plan(settings: Settings) -> Plan {
    Plan::new(settings).expect("the scenario's settings are valid")
}

fn apply(pod: &Pod, settings: Settings) -> anyhow::Result<Plan> {
    let plan = plan(settings);
    pod.namespace.run(|| capture::apply(&plan))??;
    Ok(plan)
}

/// Stands in for the proxy: tells everyone where they were going.
fn stand_in(pod: &Pod, port: u16) -> anyhow::Result<()> {
    let bind = move || {
        let listener = std::net::TcpListener::bind(("::", port))?;
        listener.set_nonblocking(true)?;
        io::Result::Ok(listener)
    };
    let listener = pod.namespace.run(bind)??;
    pod.namespace.spawn(async move {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (mut stream, from) = listener.accept().await?;
            match capture::original_destination(&stream, from) {
                Ok(to) if is_probe(to) => stream.write_all(PROBE_ANSWER).await?,
                Ok(to) => {
                    stream
                        .write_all(format!("captured {to}\n").as_bytes())
                        .await?
                }
                Err(error) => stream.write_all(format!("{error}\n").as_bytes()).await?,
            }
        }
        #[allow(unreachable_code, reason = "gives the loop its error type")]
        io::Result::Ok(())
    });
    Ok(())
}

/// Who dials.
#[derive(Debug, Clone, Copy, PartialEq)]
enum As {
    App,
    ProxyByUid,
    ProxyByMark,
}

/// The first line that the dialled says, or how it ended.
fn hear(pod: &Pod, to: SocketAddr, who: As) -> anyhow::Result<String> {
    pod.namespace.run(|| match first_line(to, who) {
        Ok(line) => line,
        Err(error) => format!("{:?}", error.kind()),
    })
}

fn first_line(to: SocketAddr, who: As) -> io::Result<String> {
    let socket = || {
        socket2::Socket::new(
            socket2::Domain::for_address(to),
            socket2::Type::STREAM,
            None,
        )
    };
    let socket = match who {
        As::App => socket()?,
        As::ProxyByUid => {
            let uid = rustix::thread::Uid::from_raw(PROXY_IDENTITY);
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
            socket()?
        }
        As::ProxyByMark => {
            let socket = socket()?;
            socket.set_mark(PROXY_IDENTITY)?;
            socket
        }
    };
    socket.connect_timeout(&to.into(), DIAL_LIMIT)?;
    let mut stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(DIAL_LIMIT))?;
    // Servers that wait for the client answer this.
    stream.write_all(b"hello\r\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn expect(pod: &Pod, to: SocketAddr, who: As, expected: &str) -> anyhow::Result<()> {
    let heard = hear(pod, to, who)?;
    ensure!(
        heard == expected,
        "{who:?} dials {to} and hears {heard:?}, not {expected:?}"
    );
    Ok(())
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

fn outbound(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let (pod, other) = (node.pod("pod")?, node.pod("other")?);
    apps::serve_lines(&other.namespace, 80)?;
    for ip in other.addresses() {
        expect(&pod, SocketAddr::new(ip, 80), As::App, DIRECT)?;
    }
    stand_in(&pod, 15001)?;
    apply(&pod, settings(&node))?;
    let others = other.addresses().map(|ip| ip.to_string());
    for ip in CLUSTER_IPS
        .into_iter()
        .chain(others.each_ref().map(String::as_str))
    {
        for port in [80, 443, 15008, 65535] {
            let to = address(ip, port);
            expect(&pod, to, As::App, &format!("captured {to}"))?;
        }
    }
    Ok(())
}

fn inbound(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let (pod, peer) = (node.pod("pod")?, node.pod("peer")?);
    for port in [80, 15008, 15020] {
        apps::serve_lines(&pod.namespace, port)?;
    }
    stand_in(&pod, 15006)?;
    apply(&pod, settings(&node))?;
    for ip in pod.addresses() {
        for port in [80, 81, 15001] {
            let to = SocketAddr::new(ip, port);
            expect(&peer, to, As::App, &format!("captured {to}"))?;
        }
        for port in [15008, 15020] {
            expect(&peer, SocketAddr::new(ip, port), As::App, DIRECT)?;
        }
    }
    Ok(())
}

fn loopback_is_left_alone(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let pod = node.pod("pod")?;
    apps::serve_lines(&pod.namespace, 80)?;
    stand_in(&pod, 15001)?;
    stand_in(&pod, 15006)?;
    apply(&pod, settings(&node))?;
    let [v4, v6] = pod.addresses();
    for ip in [
        address("127.0.0.1", 80).ip(),
        address("::1", 80).ip(),
        v4,
        v6,
    ] {
        expect(&pod, SocketAddr::new(ip, 80), As::App, DIRECT)?;
    }
    Ok(())
}

fn the_proxy_is_exempt(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let (pod, other) = (node.pod("pod")?, node.pod("other")?);
    apps::serve_lines(&other.namespace, 80)?;
    stand_in(&pod, 15001)?;
    let both = Settings {
        exempt_uid: Some(PROXY_IDENTITY),
        exempt_mark: Some(PROXY_IDENTITY),
        ..Settings::default()
    };
    apply(&pod, both)?;
    // But it may see whether its rules hold.
    let probe_answer = String::from_utf8_lossy(PROBE_ANSWER);
    for ip in PROBE_ADDRESSES {
        expect(
            &pod,
            SocketAddr::new(ip, 15001),
            As::ProxyByMark,
            probe_answer.trim_end(),
        )?;
        if node.exemption == Exemption::Uid {
            expect(
                &pod,
                SocketAddr::new(ip, 15001),
                As::ProxyByUid,
                probe_answer.trim_end(),
            )?;
        }
    }
    for ip in other.addresses() {
        let to = SocketAddr::new(ip, 80);
        expect(&pod, to, As::App, &format!("captured {to}"))?;
        expect(&pod, to, As::ProxyByMark, DIRECT)?;
        if node.exemption == Exemption::Uid {
            expect(&pod, to, As::ProxyByUid, DIRECT)?;
        }
    }
    Ok(())
}

fn skips(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let (pod, other, third) = (node.pod("pod")?, node.pod("other")?, node.pod("third")?);
    for app in [&pod, &other, &third] {
        apps::serve_lines(&app.namespace, 80)?;
        apps::serve_lines(&app.namespace, 81)?;
    }
    stand_in(&pod, 15001)?;
    stand_in(&pod, 15006)?;
    let alone = |pod: &Pod| {
        pod.addresses()
            .map(|ip| ip.to_string().parse::<Network>().expect("an address"))
            .to_vec()
    };
    apply(
        &pod,
        Settings {
            outbound_skip_ports: vec![81],
            outbound_skip_networks: alone(&third),
            inbound_skip_ports: vec![81],
            inbound_skip_networks: alone(&third),
            ..settings(&node)
        },
    )?;
    let captured = |ip: IpAddr, port| format!("captured {}", SocketAddr::new(ip, port));
    for (ip, (theirs, thirds)) in pod
        .addresses()
        .into_iter()
        .zip(other.addresses().into_iter().zip(third.addresses()))
    {
        expect(
            &pod,
            SocketAddr::new(theirs, 80),
            As::App,
            &captured(theirs, 80),
        )?;
        expect(&pod, SocketAddr::new(theirs, 81), As::App, DIRECT)?;
        expect(&pod, SocketAddr::new(thirds, 80), As::App, DIRECT)?;
        expect(&other, SocketAddr::new(ip, 80), As::App, &captured(ip, 80))?;
        expect(&other, SocketAddr::new(ip, 81), As::App, DIRECT)?;
        expect(&third, SocketAddr::new(ip, 80), As::App, DIRECT)?;
    }
    Ok(())
}

/// BEHAVIOURS, Interception 7.
fn refused_before_the_proxy_listens(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let (pod, other) = (node.pod("pod")?, node.pod("other")?);
    apps::serve_lines(&other.namespace, 80)?;
    apply(&pod, settings(&node))?;
    for ip in other.addresses() {
        expect(&pod, SocketAddr::new(ip, 80), As::App, "ConnectionRefused")?;
    }
    Ok(())
}

fn twice_leaves_one_set_and_cleanup_none(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let pod = node.pod("pod")?;
    let (first, second) = (
        plan(settings(&node)),
        plan(Settings {
            outbound_skip_ports: vec![25],
            ..settings(&node)
        }),
    );
    pod.namespace.run(|| {
        capture::cleanup().context("nothing to clean up")?;
        for current in [&first, &first, &second, &first] {
            capture::apply(current)?;
            capture::in_force(current)?;
        }
        ensure!(
            matches!(capture::in_force(&second), Err(Error::NotInForce(_))),
            "another plan counts as in force"
        );
        for _ in 0..2 {
            capture::cleanup()?;
            ensure!(
                matches!(capture::in_force(&first), Err(Error::NotInForce(_))),
                "in force after cleanup"
            );
        }
        Ok(())
    })?
}

/// Removes the rules of one chain, as `nft flush chain` does.
fn flush(chain: &str) -> anyhow::Result<()> {
    const BEGIN: u16 = 0x10;
    const END: u16 = 0x11;
    const DELETE_RULE: u16 = (10 << 8) | 8;
    let subsystem = Attributes::after(&[0, 0, 0, 10]);
    let all_rules = Attributes::after(&[1, 0, 0, 0])
        .text(1, TABLE)
        .text(2, chain);
    let batch = [
        message(BEGIN, NLM_F_REQUEST, 0, &subsystem),
        message(DELETE_RULE, NLM_F_REQUEST | NLM_F_ACK, 1, &all_rules),
        message(END, NLM_F_REQUEST, 2, &subsystem),
    ];
    let socket = Socket::open(Some(rustix::net::netlink::NETFILTER))?;
    socket
        .execute(&batch.concat(), 1)
        .map_err(|refusal| refusal.error)?;
    Ok(())
}

fn flushed_rules_are_noticed(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let pod = node.pod("pod")?;
    stand_in(&pod, 15001)?;
    let plan = apply(&pod, settings(&node))?;
    let probe = || {
        let plan = plan.clone();
        pod.namespace
            .block_on(async move { probe_outbound(&plan).await })
    };
    for chain in ["output", "prerouting", "input"] {
        probe()??;
        pod.namespace.run(|| flush(chain))??;
        let found = pod.namespace.run(|| capture::in_force(&plan))?;
        ensure!(
            matches!(&found, Err(Error::NotInForce(what)) if what.contains(chain)),
            "{chain} flushed: {found:?}"
        );
        ensure!(
            probe()?.is_err() == (chain == "output"),
            "{chain} flushed, as the probe sees it: {:?}",
            probe()?
        );
        pod.namespace.run(|| capture::apply(&plan))??;
    }
    Ok(())
}

/// BEHAVIOURS, Interception 6: a segment outside the window is nobody's connection to the kernel, as it is not translated
/// back; a reset in answer would end the upload it came from.
fn stray_segments_reset_nothing(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let (pod, peer) = (node.pod("pod")?, node.pod("peer")?);
    apps::serve_lines(&pod.namespace, 15006)?;
    apply(&pod, settings(&node))?;
    let wire = Wire::watch(&node, &[])?;
    let conversation = || {
        peer.namespace.run(|| {
            let mut stream = TcpStream::connect((pod.v4, 80))?;
            stream.set_read_timeout(Some(DIAL_LIMIT))?;
            // Whatever the connection's numbers, one of these is beyond its window.
            for sequence in [0x3000_0000, 0xb000_0000] {
                stray_segment(peer.v4, pod.v4, stream.local_addr()?.port(), sequence)?;
            }
            stream.write_all(b"still here\r\n")?;
            stream.shutdown(Shutdown::Write)?;
            let mut heard = String::new();
            stream.read_to_string(&mut heard)?;
            anyhow::Ok(heard)
        })?
    };
    let whole = format!("{}still here\r\n{}", apps::BANNER, apps::GOODBYE);
    ensure!(conversation()? == whole, "an incomplete conversation");
    // The wire is seen in order: with the last words, a reset before them would have been seen.
    let seen = |flow: &Flow| flow.from.port() == 80 && flow.bytes >= whole.len() as u64;
    wait::until(DIAL_LIMIT, || wire.report().flows.iter().any(seen))?;
    ensure!(wire.report().resets == 0, "the stray was answered");
    pod.namespace.run(|| flush("input"))??;
    // However it ends.
    let _ = conversation();
    wait::until(DIAL_LIMIT, || wire.report().resets > 0)
        .context("strays go unanswered even without the rule")
}

/// Sends a bare acknowledgement, of nothing, from a port that is connected.
fn stray_segment(
    from: Ipv4Addr,
    to: Ipv4Addr,
    from_port: u16,
    sequence: u32,
) -> anyhow::Result<()> {
    let mut segment = [0_u8; 20];
    segment[..2].copy_from_slice(&from_port.to_be_bytes());
    segment[2..4].copy_from_slice(&80_u16.to_be_bytes());
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[12..16].copy_from_slice(&[5 << 4, 0x10, 1, 0]);
    let pseudo_header = [from.octets(), to.octets(), [0, 6, 0, 20]].concat();
    let words = pseudo_header
        .chunks(2)
        .chain(segment.chunks(2))
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).context("folded twice")?;
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    let socket = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::RAW,
        Some(socket2::Protocol::TCP),
    )?;
    socket.send_to(&segment, &SocketAddr::from((to, 0)).into())?;
    Ok(())
}

fn verify_proves_or_fails(bed: Bed) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let pod = node.pod("pod")?;
    let plan = plan(settings(&node));
    let verify = || pod.namespace.run(|| capture::verify(&plan));
    ensure!(
        matches!(verify()?, Err(Error::NotInForce(_))),
        "verified without rules"
    );
    apply(&pod, settings(&node))?;
    let verified = verify()??;
    ensure!(
        verified.captured.len() == 2,
        "both IP versions: {verified:?}"
    );
    ensure!(
        verified.exempt.len() == 1,
        "the exemption was tried: {verified:?}"
    );
    pod.namespace.run(|| flush("prerouting"))??;
    ensure!(
        matches!(verify()?, Err(Error::NotInForce(_))),
        "verified without inbound rules"
    );
    apply(&pod, settings(&node))?;
    stand_in(&pod, 15001)?;
    ensure!(
        matches!(verify()?, Err(Error::PortTaken { port: 15001, .. })),
        "verified beside a listener"
    );
    Ok(())
}
