//! HTTP as it was sent: what one side said is what the other side hears, and what is no HTTP goes no further.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Version};
use ringmail_tests::apps;
use ringmail_tests::bed::Bed;
use ringmail_tests::load::{Reply, fetch};
use ringmail_tests::mesh::{Service, ServicePort};

use crate::Scenario;
use crate::raw::{App, Ending, dial, expect, read_head, read_rest, read_to, reset};
use crate::shop::{MARKER, Plan, Shop, WEB, play, refusal};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "http::messages_cross_as_they_were",
        messages_cross_as_they_were,
    ),
    (
        "http::early_answers_and_upgrades",
        early_answers_and_upgrades,
    ),
    (
        "http::malformed_requests_go_no_further",
        malformed_requests_go_no_further,
    ),
    (
        "http::broken_answers_end_nothing",
        broken_answers_end_nothing,
    ),
    ("http::an_early_answer_is_heard", an_early_answer_is_heard),
    (
        "http::who_gives_up_and_who_only_stops_sending",
        who_gives_up_and_who_only_stops_sending,
    ),
    ("http::old_clients_and_tunnels", old_clients_and_tunnels),
    ("http::large_bodies", large_bodies),
    ("http::trailers_cross_versions", trailers_cross_versions),
];

/// Where the scenario plays the app.
const PORT: u16 = 9000;

/// What one side says, and what the other side must hear.
type Row = (&'static str, &'static str);

fn messages_cross_as_they_were(bed: Bed) -> anyhow::Result<()> {
    // Framing is each hop's own, target and host have one normal form; everything else keeps its bytes.
    let rows: &[(Row, Row)] = &[
        (
            (
                "GET /a//b/../c?d=%2F HTTP/1.1\r\nHost: Shop.Example\r\nX-FIRST: 1\r\nx-second:  two \r\nX-FIRST: 3\r\nx-RINGMAIL-peer: me\r\nX-Hop: 1\r\nConnection: x-hop\r\n\r\n",
                "GET /a/c?d=%2F HTTP/1.1\r\nHost: shop.example\r\nX-FIRST: 1\r\nx-second: two\r\nX-FIRST: 3\r\n\r\n",
            ),
            (
                "HTTP/1.1 299 As It Was\r\nSERVER: x\r\nset-cookie: a\r\nSet-Cookie: b\r\ncontent-LENGTH: 2\r\n\r\nok",
                "HTTP/1.1 299 As It Was\r\nSERVER: x\r\nset-cookie: a\r\nSet-Cookie: b\r\ncontent-LENGTH: 2\r\n\r\nok",
            ),
        ),
        (
            (
                "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
                "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
            ),
        ),
        (
            (
                "GET /none HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /none HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "HTTP/1.1 204 No Content\r\n\r\n",
                "HTTP/1.1 204 No Content\r\n\r\n",
            ),
        ),
        (
            (
                "GET /same HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /same HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"x\"\r\n\r\n",
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"x\"\r\n\r\n",
            ),
        ),
        (
            (
                "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
                "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            ),
        ),
        (
            (
                "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n4;ext=1\r\nbody\r\n0\r\nX-Sum: 7\r\n\r\n",
                "POST /chunks HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 7\r\n\r\n",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-TRAILER: v\r\n\r\n",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-TRAILER: v\r\n\r\n",
            ),
        ),
    ];
    play(bed, &Plan::default(), |shop| {
        let app = App::listen(&shop.server, PORT)?;
        let mut client = dial(&shop.client, shop.server_at(PORT))?;
        let mut served = None;
        for ((sent, heard), (answered, received)) in rows {
            client.write_all(sent.as_bytes())?;
            let served = match &mut served {
                Some(served) => served,
                None => served.insert(accept(&app, &mut client)?),
            };
            expect(served, heard.as_bytes())?;
            served.write_all(answered.as_bytes())?;
            expect(&mut client, received.as_bytes())?;
        }
        // Pipelined requests are answered in their order, and the last one ends the connection.
        let mut served = served.context("served")?;
        client.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        for path in ["/1", "/2"] {
            expect(
                &mut served,
                format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
            )?;
            served.write_all(
                format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{path}").as_bytes(),
            )?;
        }
        let (answers, _) = read_rest(&mut client);
        let expected = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n/1HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n/2";
        ensure!(answers == expected, "{answers:?}");
        one_byte_at_a_time(shop)?;
        shop.assert_wire_unread()
    })
}

fn one_byte_at_a_time(shop: &Shop<'_>) -> anyhow::Result<()> {
    let mut client = dial(&shop.client, WEB)?;
    let request = format!("GET /{MARKER} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    for byte in request.bytes() {
        client.write_all(&[byte])?;
        // So that each byte is a segment of its own and is looked at alone.
        thread::sleep(Duration::from_millis(1));
    }
    let (answer, _) = read_rest(&mut client);
    ensure!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(MARKER),
        "{answer:?}"
    );
    Ok(())
}

fn early_answers_and_upgrades(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let app = App::listen(&shop.server, PORT)?;
        let mut client = dial(&shop.client, shop.server_at(PORT))?;
        let mut served = ask(&mut client, &app, "GET /early HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        served.write_all(early.as_bytes())?;
        // It comes at once: the final answer was not written yet.
        expect(&mut client, early.as_bytes())?;
        let fine = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        served.write_all(fine.as_bytes())?;
        expect(&mut client, fine.as_bytes())?;

        // A 100 is the app's to give, before it has seen any of the body.
        let head =
            "PUT /big HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
        client.write_all(head.as_bytes())?;
        expect(&mut served, head.as_bytes())?;
        let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
        served.write_all(go_on.as_bytes())?;
        expect(&mut client, go_on.as_bytes())?;
        client.write_all(b"body")?;
        expect(&mut served, b"body")?;
        served.write_all(fine.as_bytes())?;
        expect(&mut client, fine.as_bytes())?;

        // Refused, the body is not sent; the connection is over because nobody knows whether it comes.
        client.write_all(head.as_bytes())?;
        expect(&mut served, head.as_bytes())?;
        served.write_all(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")?;
        let answer = read_head(&mut client)?;
        ensure!(answer.starts_with("HTTP/1.1 417 "), "{answer:?}");

        upgrade(shop, &app)?;
        not_upgraded(shop, &app)?;
        shop.assert_wire_unread()
    })
}

/// Sends a request on a fresh connection and hands over the app's end once it has read the whole of it.
fn ask(client: &mut TcpStream, app: &App, request: &str) -> anyhow::Result<TcpStream> {
    client.write_all(request.as_bytes())?;
    let mut served = accept(app, client)?;
    expect(&mut served, request.as_bytes())?;
    Ok(served)
}

/// The app's end of the client's connection; if there is none, what the client heard instead.
fn accept(app: &App, client: &mut TcpStream) -> anyhow::Result<TcpStream> {
    app.accept_speaking()
        .map_err(|error| match read_head(client) {
            Ok(head) => error.context(format!("the client heard {head:?}")),
            Err(heard) => error.context(heard),
        })
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nConnection: upgrade\r\n\r\n";

fn upgrade(shop: &Shop<'_>, app: &App) -> anyhow::Result<()> {
    let mut client = dial(&shop.client, shop.server_at(PORT))?;
    let mut served = ask(&mut client, app, UPGRADE)?;
    let switched =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    served.write_all(switched.as_bytes())?;
    expect(&mut client, switched.as_bytes())?;
    client.write_all(b"\0\xffGET / HTTP/1.1\r\n")?;
    expect(&mut served, b"\0\xffGET / HTTP/1.1\r\n")?;
    served.write_all(b"pushed")?;
    expect(&mut client, b"pushed")?;
    client.shutdown(std::net::Shutdown::Write)?;
    let ended = read_rest(&mut served);
    ensure!(ended.0.is_empty(), "{ended:?}");
    served.write_all(b"last words")?;
    drop(served);
    let (rest, _) = read_rest(&mut client);
    ensure!(rest == "last words", "{rest:?}");
    Ok(())
}

/// An app that does not switch keeps HTTP, and what follows is a request again.
fn not_upgraded(shop: &Shop<'_>, app: &App) -> anyhow::Result<()> {
    let mut client = dial(&shop.client, shop.server_at(PORT))?;
    let mut served = ask(&mut client, app, UPGRADE)?;
    let plain = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno";
    served.write_all(plain.as_bytes())?;
    expect(&mut client, plain.as_bytes())?;
    let next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write_all(next.as_bytes())?;
    // On the same connection to the app or on another: both are right.
    let mut again = app.try_accept().map_or_else(|| served.try_clone(), Ok)?;
    if expect(&mut again, next.as_bytes()).is_err() {
        again = app.accept_speaking()?;
        expect(&mut again, next.as_bytes())?;
    }
    again.write_all(plain.as_bytes())?;
    expect(&mut client, plain.as_bytes())
}

/// Where nothing is declared, what starts like a request is one; `malformed` has the tables.
fn malformed_requests_go_no_further(bed: Bed) -> anyhow::Result<()> {
    let rows = [
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("no version", "GET /\r\n\r\n"),
        ("not ASCII", "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("bare line feed", "GET / HTTP/1.1\nHost: a\n\n"),
    ];
    play(bed, &Plan::default(), |shop| {
        let app = App::listen(&shop.server, PORT)?;
        for (what, request) in rows {
            let mut client = dial(&shop.client, shop.server_at(PORT))?;
            client.write_all(request.as_bytes())?;
            let head = read_head(&mut client).context(what)?;
            ensure!(
                head.starts_with("HTTP/1.1 400 ")
                    && head.contains("\r\nx-ringmail-reason: malformed_request\r\n"),
                "{what}: {head:?}"
            );
        }
        // A head that does not end is bounded too.
        let mut client = dial(&shop.client, shop.server_at(PORT))?;
        client.write_all(
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(65_536)).as_bytes(),
        )?;
        let head = read_head(&mut client)?;
        ensure!(head.starts_with("HTTP/1.1 431 "), "{head:?}");
        // A broken chunk ends what had begun; the app must not take it for the end of the body.
        let mut client = dial(&shop.client, shop.server_at(PORT))?;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.write_all(format!("{head}3\r\nabc\r\n-1\r\n").as_bytes())?;
        let answer = read_head(&mut client)?;
        ensure!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
        // Whoever reached the app heard nothing but the beginning of that last one.
        while let Some(mut reached) = app.try_accept() {
            reached.set_nonblocking(false)?;
            let (heard, _) = read_rest(&mut reached);
            ensure!(
                heard.is_empty()
                    || heard.starts_with("POST / HTTP/1.1\r\nHost: a\r\n")
                        && !heard.contains("\r\n0\r\n"),
                "{heard:?}"
            );
        }
        Ok(())
    })
}

/// Answers that never come to an end.
fn broken_answers_end_nothing(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let app = App::listen(&shop.server, PORT)?;
        let mut client = dial(&shop.client, shop.server_at(PORT))?;
        drop(ask(&mut client, &app, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")?);
        let head = read_head(&mut client)?;
        ensure!(
            head.starts_with("HTTP/1.1 502 ")
                && head.contains("\r\nx-ringmail-reason: app_gone\r\n"),
            "{head:?}"
        );
        // Cut in the middle of a body, the client must not take it for the whole.
        let mut client = dial(&shop.client, shop.server_at(PORT))?;
        let mut served = ask(&mut client, &app, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        served.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")?;
        read_to(&mut client, "abc\r\n")?;
        drop(served);
        let (rest, _) = read_rest(&mut client);
        ensure!(!rest.contains('0'), "{rest:?}");
        // Nobody listens.
        let reply = shop.get(shop.server_at(9999), "/")?;
        ensure!(
            reply.status == 503 && refusal(&reply) == Some("app_unreachable"),
            "{reply:?}"
        );
        Ok(())
    })
}

/// HTTP/1.0, which keeps connections only when asked and knows no chunks, and CONNECT.
fn old_clients_and_tunnels(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let app = App::listen(&shop.server, PORT)?;
        let mut client = dial(&shop.client, shop.server_at(PORT))?;
        client.write_all(b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")?;
        let mut served = accept(&app, &mut client)?;
        expect(&mut served, b"GET /1 HTTP/1.0\r\n\r\n")?;
        // The app ends its answer as it likes; that its connection goes on is between it and its proxy.
        served.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        expect(
            &mut client,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
        )?;
        client.write_all(b"GET /2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")?;
        expect(&mut served, b"GET /2 HTTP/1.0\r\n\r\n")?;
        served.write_all(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        )?;
        let (answer, ending) = read_rest(&mut client);
        ensure!(
            answer == "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok" && ending == Ending::Closed,
            "{answer:?}, {ending:?}"
        );

        let mut client = dial(&shop.client, shop.server_at(PORT))?;
        let connect = "CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n";
        let mut served = ask(&mut client, &app, connect)?;
        served.write_all(b"HTTP/1.1 200 Fine\r\n\r\n")?;
        expect(&mut client, b"HTTP/1.1 200 Fine\r\n\r\n")?;
        client.write_all(b"\x16\x03\x01 through")?;
        expect(&mut served, b"\x16\x03\x01 through")?;
        served.write_all(b"and back")?;
        drop(served);
        let (rest, _) = read_rest(&mut client);
        ensure!(rest == "and back", "{rest:?}");

        // One that is refused is an answer like any other.
        let mut client = dial(&shop.client, shop.server_at(PORT))?;
        let mut served = ask(&mut client, &app, connect)?;
        let refused = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 2\r\n\r\nno";
        served.write_all(refused)?;
        expect(&mut client, refused)
    })
}

/// The app is silent meanwhile.
fn who_gives_up_and_who_only_stops_sending(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let app = App::listen(&shop.server, PORT)?;
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxx",
        ] {
            let mut client = dial(&shop.client, shop.server_at(PORT))?;
            let mut served = ask(&mut client, &app, request)?;
            reset(client)?;
            let (heard, ending) = read_rest(&mut served);
            ensure!(
                heard.is_empty() && ending != Ending::Open,
                "the app works for nobody: {heard:?}, {ending:?}"
            );

            let mut client = dial(&shop.client, shop.server_at(PORT))?;
            let mut served = ask(&mut client, &app, request)?;
            client.shutdown(std::net::Shutdown::Write)?;
            // Whatever the proxy makes of it has time to show.
            served.set_read_timeout(Some(Duration::from_millis(200)))?;
            let (heard, ending) = read_rest(&mut served);
            ensure!(
                heard.is_empty() && ending == Ending::Open,
                "{heard:?}, {ending:?}"
            );
            served.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            let (answer, _) = read_rest(&mut client);
            ensure!(answer.ends_with("\r\n\r\nok"), "{answer:?}");
        }
        // What is sent before the answer is a request for later.
        let mut client = dial(&shop.client, shop.server_at(PORT))?;
        let first = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut served = ask(&mut client, &app, first)?;
        client.write_all(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let fine = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        served.write_all(fine)?;
        expect(&mut client, fine)?;
        expect(&mut served, b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")?;
        served.write_all(fine)?;
        expect(&mut client, fine)
    })
}

fn large_bodies(bed: Bed) -> anyhow::Result<()> {
    const BYTES: usize = 10_000_000;
    play(bed, &Plan::default(), |shop| {
        // No two parts of it are the same.
        let body: Vec<u8> = (0..BYTES.div_ceil(4))
            .flat_map(|n| {
                n.wrapping_mul(2_654_435_761)
                    .to_le_bytes()
                    .into_iter()
                    .take(4)
            })
            .take(BYTES)
            .collect();
        let body = Bytes::from(body);
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let request = request("POST", "/stream", version).body(Full::new(body.clone()))?;
            let reply = exchange(shop, WEB, request)?;
            ensure!(reply.status == 200, "{version:?}: {}", reply.status);
            ensure!(reply.body == body, "{version:?}: another body came back");
        }
        Ok(())
    })
}

fn request(method: &str, path: &str, version: Version) -> hyper::http::request::Builder {
    let request = Request::builder().method(method).version(version);
    if version == Version::HTTP_2 {
        request.uri(format!("http://shop{path}"))
    } else {
        request.uri(path).header("host", "shop")
    }
}

fn exchange(
    shop: &Shop<'_>,
    to: SocketAddr,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Reply> {
    Ok(shop
        .client
        .namespace
        .block_on(async move { fetch(to, request).await })??)
}

/// One service declares what the pod's port speaks; by the other's address the client speaks what it likes.
fn trailers_cross_versions(bed: Bed) -> anyhow::Result<()> {
    let rows = [("kubernetes.io/h2c", 8081, 21), ("http", 8082, 23)];
    play(bed, &Plan::default(), |shop| {
        for (declared, port, number) in rows {
            apps::serve_web(&shop.server.namespace, "both", port)?;
            for (name, app_protocol, number) in [
                ("declares", Some(declared.to_owned()), number),
                ("silent", None, number + 1),
            ] {
                let address = IpAddr::from([10, 96, 0, number]);
                let service = Service {
                    namespace: "shop".to_owned(),
                    name: format!("{name}-{port}"),
                    cluster_ips: vec![address],
                    ports: vec![ServicePort {
                        name: "x".to_owned(),
                        port: 80,
                        target: port,
                        app_protocol,
                    }],
                };
                let workload = &Plan::default().server;
                shop.announce(&service, &[(workload, &shop.server)])?;
            }
        }
        let silent = |number: u8| SocketAddr::from(([10, 96, 0, number], 80));
        for (version, to) in [
            (Version::HTTP_11, silent(22)),
            (Version::HTTP_2, silent(22)),
            (Version::HTTP_11, silent(24)),
            (Version::HTTP_2, silent(24)),
        ] {
            let what = format!("{version:?} to {to}");
            let builder = request("GET", "/trailers", version).header("te", "trailers");
            let reply = exchange(shop, to, builder.body(Full::default())?).context(what.clone())?;
            ensure!(reply.text() == "one,two", "{what}: {reply:?}");
            let trailers = reply
                .trailers
                .with_context(|| format!("{what}: no trailers"))?;
            ensure!(
                trailers.get("x-checksum").is_some_and(|sum| sum == "7"),
                "{what}: {trailers:?}"
            );
        }
        // And up: the HTTP/2 app sends back the trailers that an HTTP/1.1 client sent.
        let mut client = dial(&shop.client, silent(22))?;
        client.write_all(b"POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Checksum: 7\r\n\r\n")?;
        let head = read_head(&mut client)?;
        ensure!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head:?}");
        expect(&mut client, b"3\r\nabc\r\n0\r\nx-checksum: 7\r\n\r\n")?;
        shop.assert_wire_unread()
    })
}

/// An app that answers before it has read the request's body, and never reads it: the answer arrives, whole.
fn an_early_answer_is_heard(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let answer = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 9\r\n\r\ntoo large";
        apps::serve_bytes(&shop.server.namespace, PORT, answer)?;
        let to = SocketAddr::new(shop.server.v4.into(), PORT);
        for _ in 0..5 {
            let mut client = dial(&shop.client, to)?;
            client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")?;
            // More than the wire lets pass before anyone reads; the rest is not wanted and need not go.
            client.set_write_timeout(Some(Duration::from_secs(1)))?;
            let _ = client.write_all(&[b'x'; 300_000]);
            let head = read_head(&mut client)?;
            ensure!(head.starts_with("HTTP/1.1 413 "), "{head}");
            expect(&mut client, b"too large")?;
        }
        Ok(())
    })
}
