//! WebSocket over both versions of HTTP, and from one to the other (RFC 6455, RFC 8441).

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};

use anyhow::{Context, ensure};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ringmail_tests::bed::Bed;

use super::{CONNECT_PROTOCOL, HTTP1, HTTP2, accept_http2, one_worker};
use crate::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame, read_until,
    request_block,
};
use crate::raw::{App, dial, expect, read_head, read_rest};
use crate::shop::{Shop, play};

/// RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

pub(super) fn websocket_over_both(bed: Bed) -> anyhow::Result<()> {
    play(bed, &one_worker(), |shop| {
        let (http1, http2) = (HTTP1.announce(shop)?, HTTP2.announce(shop)?);
        from_http2_to_http1(shop, &http1).context("HTTP/2 to HTTP/1")?;
        from_http1_to_http2(shop, &http2).context("HTTP/1 to HTTP/2")?;
        from_http2_to_http2(shop, &http2).context("HTTP/2 to HTTP/2")?;
        shop.assert_wire_unread()
    })
}

/// A client of HTTP/2 that asked for a tunnel; it was told that it may.
fn extended_connect(shop: &Shop<'_>, to: SocketAddr, protocol: &str) -> anyhow::Result<TcpStream> {
    let mut client = dial(&shop.client, to)?;
    client.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())?;
    let settings = read_until(&client, SETTINGS)?;
    ensure!(
        settings
            .payload
            .chunks(6)
            .any(|one| one == CONNECT_PROTOCOL),
        "not offered: {settings:?}"
    );
    let mut block = request_block("CONNECT", "/chat");
    block.extend(literal(":protocol", protocol));
    block.extend(literal("sec-websocket-version", "13"));
    client.write_all(&frame(HEADERS, END_HEADERS, 1, &block))?;
    Ok(client)
}

/// A field without indexing (RFC 7541 section 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        bytes.push(u8::try_from(text.len()).unwrap_or(0));
        bytes.extend(text.as_bytes());
    }
    bytes
}

fn accept_of(key: &str) -> String {
    let magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = digest(
        &SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{magic}").as_bytes(),
    );
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: String = digest.as_ref().iter().map(|b| format!("{b:08b}")).collect();
    let padded = bits.clone() + "00";
    let sixes = padded.as_bytes().chunks_exact(6);
    let text: String = sixes
        .filter_map(|six| usize::from_str_radix(std::str::from_utf8(six).ok()?, 2).ok())
        .map(|six| char::from(DIGITS[six]))
        .collect();
    text + "="
}

fn from_http2_to_http1(shop: &Shop<'_>, app: &App) -> anyhow::Result<()> {
    let mut client = extended_connect(shop, HTTP1.at(), "websocket")?;
    let mut served = app.accept_speaking()?;
    let head = read_head(&mut served)?;
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .map(str::to_owned)
            .with_context(|| format!("no {name} in {head:?}"))
    };
    ensure!(
        head.starts_with("GET /chat HTTP/1.1\r\nhost: shop\r\n"),
        "{head:?}"
    );
    ensure!(field("upgrade")? == "websocket" && field("Connection")? == "upgrade");
    ensure!(field("sec-websocket-version")? == "13");
    let accept = accept_of(&field("sec-websocket-key")?);
    served.write_all(
        format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\npushed").as_bytes(),
    )?;
    let answer = read_until(&client, HEADERS)?;
    ensure!(answer.payload.first() == Some(&0x88), "not 200: {answer:?}");
    ensure!(read_until(&client, DATA)?.payload == b"pushed");
    client.write_all(&frame(DATA, 0, 1, b"\0\xffhello"))?;
    expect(&mut served, b"\0\xffhello")?;
    // Each direction ends on its own.
    served.shutdown(Shutdown::Write)?;
    let end = read_until(&client, DATA)?;
    ensure!(
        end.flags & END_STREAM != 0 && end.payload.is_empty(),
        "{end:?}"
    );
    client.write_all(&frame(DATA, END_STREAM, 1, b"last words"))?;
    let (rest, _) = read_rest(&mut served);
    ensure!(rest == "last words", "{rest:?}");

    // A server that answers another key is none.
    let client = extended_connect(shop, HTTP1.at(), "websocket")?;
    let mut served = app.accept_speaking()?;
    read_head(&mut served)?;
    served.write_all(
        format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n", accept_of(KEY)).as_bytes(),
    )?;
    let answer = read_until(&client, HEADERS)?;
    ensure!(answer.payload.first() != Some(&0x88), "{answer:?}");
    // Nor is there anything else to become.
    let client = extended_connect(shop, HTTP1.at(), "connect-udp")?;
    let answer = read_until(&client, HEADERS)?;
    ensure!(answer.payload.first() != Some(&0x88), "{answer:?}");
    Ok(())
}

fn from_http1_to_http2(shop: &Shop<'_>, app: &App) -> anyhow::Result<()> {
    let mut client = dial(&shop.client, HTTP2.at())?;
    client.write_all(format!("GET /chat HTTP/1.1\r\nHost: shop\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n").as_bytes())?;
    let mut served = accept_http2(app)?;
    let request = read_until(&served, HEADERS)?;
    ensure!(request.flags & END_STREAM == 0, "{request:?}");
    served.write_all(&frame(HEADERS, END_HEADERS, request.stream, &[0x88]))?;
    let head = read_head(&mut client)?;
    ensure!(
        head.starts_with("HTTP/1.1 101 ")
            && head.contains("\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
            && head.contains("\r\nupgrade: websocket\r\n"),
        "{head:?}"
    );
    client.write_all(b"\0\xffhello")?;
    ensure!(read_until(&served, DATA)?.payload == b"\0\xffhello");
    served.write_all(&frame(DATA, END_STREAM, request.stream, b"and bye"))?;
    expect(&mut client, b"and bye")?;
    client.write_all(b"you too")?;
    ensure!(read_until(&served, DATA)?.payload == b"you too");
    client.shutdown(Shutdown::Write)?;
    let end = read_until(&served, DATA)?;
    ensure!(end.flags & END_STREAM != 0, "{end:?}");

    // An app that does not open it answers like any other.
    let mut client = dial(&shop.client, HTTP2.at())?;
    client.write_all(format!("GET /chat HTTP/1.1\r\nHost: shop\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\r\n").as_bytes())?;
    let request = read_until(&served, HEADERS)?;
    // `:status 404` by its index.
    served.write_all(&frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        request.stream,
        &[0x8d],
    ))?;
    let head = read_head(&mut client)?;
    ensure!(head.starts_with("HTTP/1.1 404 "), "{head:?}");

    // One that opens it, ends it and wants no more of it in one go.
    let mut client = dial(&shop.client, HTTP2.at())?;
    client.write_all(format!("GET /chat HTTP/1.1\r\nHost: shop\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\r\n").as_bytes())?;
    let id = read_until(&served, HEADERS)?.stream;
    let all = [
        frame(HEADERS, END_HEADERS, id, &[0x88]),
        frame(DATA, END_STREAM, id, b"bye"),
        frame(RST_STREAM, 0, id, &[0; 4]),
    ];
    served.write_all(&all.concat())?;
    let head = read_head(&mut client)?;
    ensure!(head.starts_with("HTTP/1.1 101 "), "{head:?}");
    expect(&mut client, b"bye")?;
    drop(served);
    Ok(())
}

fn from_http2_to_http2(shop: &Shop<'_>, app: &App) -> anyhow::Result<()> {
    let mut client = extended_connect(shop, HTTP2.at(), "websocket")?;
    let mut served = accept_http2(app)?;
    let request = read_until(&served, HEADERS)?;
    served.write_all(&frame(HEADERS, END_HEADERS, request.stream, &[0x88]))?;
    let answer = read_until(&client, HEADERS)?;
    ensure!(answer.payload.first() == Some(&0x88), "{answer:?}");
    client.write_all(&frame(DATA, 0, 1, b"ping"))?;
    ensure!(read_until(&served, DATA)?.payload == b"ping");
    served.write_all(&frame(DATA, 0, request.stream, b"pong"))?;
    ensure!(read_until(&client, DATA)?.payload == b"pong");
    client.write_all(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]))?;
    read_until(&served, RST_STREAM)?;
    Ok(())
}
