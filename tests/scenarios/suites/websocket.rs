//! WebSocket: the websockets package as client and server over HTTP/1 (RFC 6455), and its frames on streams of the h2
//! package (RFC 8441), the app speaking either version.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, ensure};
use ringmail_tests::bed::Bed;

use super::{announce, play_at_desk, tools};

/// Where the apps listen.
const HTTP1_PORT: u16 = 8765;
const HTTP2_PORT: u16 = 8766;
/// Lines of each script that say that a case held.
const HTTP1_CASES: usize = 218;
const HTTP2_CASES: usize = 10;

pub(super) fn over_both(bed: Bed) -> anyhow::Result<()> {
    play_at_desk(bed, |shop, desk| {
        let mut servers = Vec::new();
        for (name, port) in [(HTTP1, HTTP1_PORT), (HTTP2, HTTP2_PORT)] {
            let server = script(name, "serve", &port.to_string())?;
            servers.push(desk.serve(&shop.server, &server, port)?);
        }
        let rows = [
            (HTTP1, HTTP1_CASES, HTTP1_PORT, None),
            (HTTP1, HTTP1_CASES, HTTP1_PORT, Some("http")),
            // An app of HTTP/1 hears an upgrade.
            (HTTP2, HTTP2_CASES, HTTP1_PORT, Some("http")),
            (HTTP2, HTTP2_CASES, HTTP2_PORT, None),
            (HTTP2, HTTP2_CASES, HTTP2_PORT, Some("kubernetes.io/h2c")),
        ];
        for ((name, cases, port, protocol), number) in rows.into_iter().zip(121..) {
            let to: SocketAddr = announce(shop, number, 80, port, protocol)?;
            let what = format!("{name} to port {port}, declared {protocol:?}");
            let client = script(name, "ask", &to.to_string())?;
            let text = desk
                .output(&shop.client, &client)
                .with_context(|| what.clone())?;
            let held = text.lines().filter(|line| line.starts_with("held")).count();
            ensure!(held == cases, "{what}: {held} of {cases} held:\n{text}");
        }
        Ok(())
    })
}

const HTTP1: &str = "websocket.py";
const HTTP2: &str = "websocket_h2.py";

fn script(name: &str, verb: &str, place: &str) -> anyhow::Result<Command> {
    let mut command = tools::command("python-tools")?;
    command.arg(tools::ours(name)).args([verb, place]);
    Ok(command)
}
