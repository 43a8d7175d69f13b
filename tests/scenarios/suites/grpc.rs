//! grpc's interoperability test: the client and the server of grpc-go, through the mesh. Two rounds, or
//! `RINGMAIL_INTEROP_ROUNDS` of them.

use std::env;

use anyhow::Context;
use ringmail_tests::bed::Bed;

use super::{announce, play_at_desk, tools};

const ROUNDS_VARIABLE: &str = "RINGMAIL_INTEROP_ROUNDS";
const ROUNDS: u32 = 2;
/// What a port of the pod was declared to speak holds for it whichever service it is dialled by: so there are two.
const DECLARED_PORT: u16 = 10_000;
const DETECTED_PORT: u16 = 10_001;

/// Those of grpc's list that need neither TLS nor credentials nor another server.
const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
];

pub(super) fn interop(bed: Bed) -> anyhow::Result<()> {
    let rounds = match env::var(ROUNDS_VARIABLE) {
        Ok(text) => text.parse().context(ROUNDS_VARIABLE)?,
        Err(_) => ROUNDS,
    };
    play_at_desk(bed, |shop, desk| {
        let mut servers = Vec::new();
        for port in [DECLARED_PORT, DETECTED_PORT] {
            let mut server = tools::command("grpc-interop-server")?;
            server.arg(format!("--port={port}"));
            servers.push(desk.serve(&shop.server, &server, port)?);
        }
        let declared = announce(shop, 111, 80, DECLARED_PORT, Some("grpc"))?;
        let detected = announce(shop, 112, 80, DETECTED_PORT, None)?;
        for round in 1..=rounds {
            for (to, case) in [declared, detected]
                .into_iter()
                .flat_map(|to| CASES.map(|case| (to, case)))
            {
                let mut client = tools::command("grpc-interop-client")?;
                client
                    .arg(format!("--server_host={}", to.ip()))
                    .arg(format!("--server_port={}", to.port()))
                    .arg(format!("--test_case={case}"));
                desk.output(&shop.client, &client)
                    .with_context(|| format!("{case} at {to}, round {round}"))?;
            }
        }
        Ok(())
    })
}
