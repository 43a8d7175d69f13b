//! Clients and apps that speak different versions of HTTP: what is declared is what the app speaks, and the client speaks
//! what it likes.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};
use ringmail_tests::bed::Bed;
use ringmail_tests::mesh::{Service, ServicePort};

use crate::Scenario;
use crate::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
    read_until, request_block,
};
use crate::raw::{App, Ending, dial, expect, read_head, read_rest, read_to};
use crate::shop::{LIMIT, Plan, Shop, play};

/// WebSocket, which is a tunnel in either.
mod websocket;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "versions::websocket_over_both",
        websocket::websocket_over_both,
    ),
    (
        "versions::any_client_meets_any_app",
        any_client_meets_any_app,
    ),
    (
        "versions::an_offer_of_h2c_is_taken_up",
        an_offer_of_h2c_is_taken_up,
    ),
    ("versions::an_app_is_dialled_once", an_app_is_dialled_once),
    (
        "versions::settings_that_come_first",
        settings_that_come_first,
    ),
    (
        "versions::what_an_app_refused_is_asked_again",
        what_an_app_refused_is_asked_again,
    ),
    (
        "versions::an_answer_outlives_what_is_not_read",
        an_answer_outlives_what_is_not_read,
    ),
];

/// Where the scenario plays an app that speaks HTTP/1, and one that speaks HTTP/2.
pub(crate) const HTTP1: Place = Place {
    port: 9001,
    address: Ipv4Addr::new(10, 96, 0, 51),
    protocol: "http",
};
pub(crate) const HTTP2: Place = Place {
    port: 9002,
    address: Ipv4Addr::new(10, 96, 0, 52),
    protocol: "kubernetes.io/h2c",
};

/// Workers have connections of their own to an app: with one of them it is known which is used next.
pub(crate) fn one_worker() -> Plan {
    let Plan {
        settings,
        client,
        server,
    } = Plan::default();
    Plan {
        settings,
        client,
        server: server.set("RINGMAIL_WORKERS", "1"),
    }
}

pub(crate) struct Place {
    port: u16,
    address: Ipv4Addr,
    protocol: &'static str,
}

impl Place {
    pub(crate) fn at(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), 80)
    }

    pub(crate) fn announce(&self, shop: &Shop<'_>) -> anyhow::Result<App> {
        let service = Service {
            namespace: "shop".to_owned(),
            name: format!("declared-{}", self.port),
            cluster_ips: vec![self.address.into()],
            ports: vec![ServicePort {
                name: "web".to_owned(),
                port: 80,
                target: self.port,
                app_protocol: Some(self.protocol.to_owned()),
            }],
        };
        shop.announce(&service, &[(&Plan::default().server, &shop.server)])?;
        App::listen(&shop.server, self.port)
    }
}

/// `SETTINGS_ENABLE_CONNECT_PROTOCOL` (RFC 8441 section 3).
const CONNECT_PROTOCOL: &[u8] = &[0, 8, 0, 0, 0, 1];
/// The app's end of an HTTP/2 connection, which offers WebSocket.
pub(crate) fn accept_http2(app: &App) -> anyhow::Result<TcpStream> {
    let mut served = app.accept_speaking()?;
    expect(&mut served, PREFACE)?;
    served.write_all(&frame(SETTINGS, 0, 0, CONNECT_PROTOCOL))?;
    Ok(served)
}

fn any_client_meets_any_app(bed: Bed) -> anyhow::Result<()> {
    play(bed, &one_worker(), |shop| {
        let (http1, http2) = (HTTP1.announce(shop)?, HTTP2.announce(shop)?);
        let mut client = dial(&shop.client, HTTP2.at())?;
        client.write_all(b"GET /a HTTP/1.1\r\nHost: shop\r\n\r\n")?;
        let mut tunnelled = accept_http2(&http2)?;
        let request = read_until(&tunnelled, HEADERS)?;
        ensure!(request.flags & END_STREAM != 0, "{request:?}");
        tunnelled.write_all(&frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            request.stream,
            &[0x88],
        ))?;
        let head = read_head(&mut client)?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head:?}");

        let mut client = dial(&shop.client, HTTP1.at())?;
        let ask = frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &request_block("GET", "/a"),
        );
        client.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &ask].concat())?;
        let mut served = http1.accept_speaking()?;
        expect(&mut served, b"GET /a HTTP/1.1\r\nhost: shop\r\n\r\n")?;
        served.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        ensure!(read_until(&client, HEADERS)?.payload.first() == Some(&0x88));
        ensure!(read_until(&client, DATA)?.payload == b"ok");

        // A tunnel by CONNECT, whatever either side speaks.
        let mut client = dial(&shop.client, HTTP2.at())?;
        client.write_all(b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n")?;
        // On the connection that is there.
        let request = read_until(&tunnelled, HEADERS)?;
        tunnelled.write_all(&frame(HEADERS, END_HEADERS, request.stream, &[0x88]))?;
        read_to(&mut client, "\r\n\r\n")?;
        client.write_all(b"through")?;
        ensure!(read_until(&tunnelled, DATA)?.payload == b"through");
        Ok(())
    })
}

/// A client of HTTP/1 that would rather speak HTTP/2 does so where the app does (RFC 7540 section 3.2): what it asked first
/// is the first stream.
fn an_offer_of_h2c_is_taken_up(bed: Bed) -> anyhow::Result<()> {
    play(bed, &one_worker(), |shop| {
        let app = HTTP2.announce(shop)?;
        let mut client = dial(&shop.client, HTTP2.at())?;
        client.write_all(b"GET /a HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")?;
        let head = read_head(&mut client)?;
        ensure!(
            head.starts_with("HTTP/1.1 101 ") && head.contains("\r\nUpgrade: h2c\r\n"),
            "{head:?}"
        );
        let next = frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            3,
            &request_block("GET", "/b"),
        );
        client.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &next].concat())?;
        let served = accept_http2(&app)?;
        for stream in [1, 3] {
            let request = read_until(&served, HEADERS)?;
            ensure!(request.flags & END_STREAM != 0, "{request:?}");
            let answer = frame(HEADERS, END_HEADERS | END_STREAM, request.stream, &[0x88]);
            (&served).write_all(&answer)?;
            let heard = read_until(&client, HEADERS)?;
            ensure!(
                heard.stream == stream && heard.payload.first() == Some(&0x88),
                "{heard:?}"
            );
        }
        // Settings that are none are no offer.
        let mut client = dial(&shop.client, HTTP2.at())?;
        client.write_all(b"GET /a HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAAB\r\n\r\n")?;
        let request = read_until(&served, HEADERS)?;
        let answer = frame(HEADERS, END_HEADERS | END_STREAM, request.stream, &[0x88]);
        (&served).write_all(&answer)?;
        let head = read_head(&mut client)?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head:?}");
        Ok(())
    })
}

/// Requests that come before there is a connection to the app wait for the same one, and then share it.
fn an_app_is_dialled_once(bed: Bed) -> anyhow::Result<()> {
    const REQUESTS: u32 = 20;
    play(bed, &one_worker(), |shop| {
        let app = HTTP2.announce(shop)?;
        let mut client = dial(&shop.client, HTTP2.at())?;
        let mut said = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        let block = request_block("GET", "/a");
        for number in 0..REQUESTS {
            said.extend(frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                2 * number + 1,
                &block,
            ));
        }
        client.write_all(&said)?;
        let mut served = accept_http2(&app)?;
        for _ in 0..REQUESTS {
            let id = read_until(&served, HEADERS)?.stream;
            served.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, id, &[0x88]))?;
        }
        for _ in 0..REQUESTS {
            let heard = read_until(&client, HEADERS)?;
            ensure!(heard.payload.first() == Some(&0x88), "{heard:?}");
        }
        ensure!(app.try_accept().is_none(), "there is another connection");
        Ok(())
    })
}

/// A server of HTTP/2 that sends its settings before it hears anything is none of those that speak first: where nothing is
/// declared, a client that takes its time is still understood.
fn settings_that_come_first(bed: Bed) -> anyhow::Result<()> {
    const PORT: u16 = 9003;
    play(bed, &Plan::default(), |shop| {
        let app = App::listen(&shop.server, PORT)?;
        let mut client = dial(&shop.client, shop.server_at(PORT))?;
        let mut asked = app.accept()?;
        asked.write_all(&frame(SETTINGS, 0, 0, &[]))?;
        // What the proxy would pass on has time to show.
        client.set_read_timeout(Some(Duration::from_millis(200)))?;
        let (heard, ending) = read_rest(&mut client);
        ensure!(heard.is_empty() && ending == Ending::Open, "{heard:?}");
        client.set_read_timeout(Some(LIMIT))?;
        let ask = frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &request_block("GET", "/a"),
        );
        client.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &ask].concat())?;
        let mut served = accept_http2(&app)?;
        let request = read_until(&served, HEADERS)?;
        let answer = frame(HEADERS, END_HEADERS | END_STREAM, request.stream, &[0x88]);
        served.write_all(&answer)?;
        ensure!(read_until(&client, HEADERS)?.payload.first() == Some(&0x88));
        let labels = [("protocol", "http2"), ("by", "first_bytes")];
        ensure!(shop.client_metric("ringmail_detections_total", &labels) > 0.0);
        Ok(())
    })
}

/// An app that goes away says which requests it has not looked at; they are made again on another connection.
fn what_an_app_refused_is_asked_again(bed: Bed) -> anyhow::Result<()> {
    play(bed, &one_worker(), |shop| {
        let app = HTTP2.announce(shop)?;
        // Last stream 0, NO_ERROR; and REFUSED_STREAM (RFC 9113 sections 6.8 and 8.7).
        let goaway = frame(7, 0, 0, &[0; 8]);
        let refused = frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]);
        for (what, answer) in [("GOAWAY", goaway), ("REFUSED_STREAM", refused)] {
            let mut client = dial(&shop.client, HTTP2.at())?;
            client.write_all(b"POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n")?;
            let mut first = accept_http2(&app)?;
            ensure!(read_until(&first, HEADERS)?.stream == 1);
            first.write_all(&answer)?;
            let mut second = accept_http2(&app).context(what)?;
            let request = read_until(&second, HEADERS)?;
            second.write_all(&frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                request.stream,
                &[0x88],
            ))?;
            let head = read_head(&mut client)?;
            ensure!(head.starts_with("HTTP/1.1 200 "), "{what}: {head:?}");
            // The next round starts with a new connection.
            drop((first, second));
        }
        Ok(())
    })
}

/// An app answers and wants no more of the request (RFC 9113 section 8.1): its answer arrives, however slow the client is.
fn an_answer_outlives_what_is_not_read(bed: Bed) -> anyhow::Result<()> {
    /// What a client takes before it says more.
    const WINDOW_BYTES: usize = 65_535;
    const FRAMES: usize = 20;
    const FRAME_BYTES: usize = 16 * 1024;
    play(bed, &one_worker(), |shop| {
        let app = HTTP2.announce(shop)?;
        let mut client = dial(&shop.client, HTTP2.at())?;
        let request = frame(HEADERS, END_HEADERS, 1, &request_block("POST", "/"));
        client.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &request].concat())?;
        let mut served = accept_http2(&app)?;
        let id = read_until(&served, HEADERS)?.stream;
        let mut answer = frame(HEADERS, END_HEADERS, id, &[0x88]);
        for number in 1..=FRAMES {
            let end = if number == FRAMES { END_STREAM } else { 0 };
            answer.extend(frame(DATA, end, id, &[b'x'; FRAME_BYTES]));
        }
        answer.extend(frame(RST_STREAM, 0, id, &[0; 4]));
        served.write_all(&answer)?;
        let (mut found, mut ended) = (0, false);
        while !ended {
            let data = read_until(&client, DATA)?;
            found += data.payload.len();
            ended = data.flags & END_STREAM != 0;
            if found == WINDOW_BYTES {
                // The app's reset has long arrived where the rest waits.
                client.write_all(&frame(DATA, 0, 1, b"more"))?;
                let more = (1_u32 << 20).to_be_bytes();
                let windows = [0, 1].map(|stream| frame(WINDOW_UPDATE, 0, stream, &more));
                client.write_all(&windows.concat())?;
            }
        }
        ensure!(found == FRAMES * FRAME_BYTES, "{found}");
        Ok(())
    })
}
