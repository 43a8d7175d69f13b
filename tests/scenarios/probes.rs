//! Probes that the proxy makes for the kubelet, as the injector sends them to it.

use std::io::{Read, Write};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, ensure};
use rcgen::CertifiedKey;
use ringmail_tests::bed::Bed;
use ringmail_tests::mesh::Workload;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::Scenario;
use crate::raw::App;
use crate::shop::{Plan, get, play};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[("probes::the_app_is_asked", the_app_is_asked)];

/// What is asked, each with the status that the kubelet hears.
const PROBES: [(&str, u16); 8] = [
    (r#"{"tcpSocket": {"port": 7000}}"#, 200),
    (r#"{"tcpSocket": {"port": 7001}}"#, 503),
    (r#"{"grpc": {"port": 8080}}"#, 200),
    (r#"{"grpc": {"port": 8080, "service": "else"}}"#, 503),
    (r#"{"grpc": {"port": 7000}}"#, 503),
    (
        r#"{"httpGet": {"port": 8443, "path": "/ok", "scheme": "HTTPS"}}"#,
        200,
    ),
    (
        r#"{"httpGet": {"port": 8443, "path": "/bad", "scheme": "HTTPS"}}"#,
        503,
    ),
    (
        r#"{"httpGet": {"port": 8080, "path": "/status/200", "scheme": "HTTPS"}}"#,
        503,
    ),
];

fn the_app_is_asked(bed: Bed) -> anyhow::Result<()> {
    let written: Vec<_> = PROBES.iter().map(|(written, _)| *written).collect();
    let server = Workload::new("shop", "server");
    let server = server.set("RINGMAIL_PROBES", &format!("[{}]", written.join(",")));
    let plan = Plan {
        server,
        ..Plan::default()
    };
    play(bed, &plan, |shop| {
        let kubelet = shop.node.pod("kubelet")?;
        let app = App::listen(&shop.server, 8443)?;
        let config = Arc::new(https()?);
        thread::scope(|scope| {
            // One connection for each of the probes that find it.
            let serving = scope.spawn(|| (0..2).try_for_each(|_| serve(&app, &config)));
            for (number, (written, status)) in PROBES.into_iter().enumerate() {
                let path = format!("/probe/{number}");
                let reply = get(&kubelet, shop.server_at(15020), &path)?;
                ensure!(reply.status == status, "{written}: {}", reply.text());
            }
            let reply = get(&kubelet, shop.server_at(15020), "/probe/99")?;
            ensure!(reply.status == 503, "{reply:?}");
            serving.join().map_err(|_| anyhow::Error::msg("panicked"))?
        })
    })
}

/// A certificate that nobody vouches for, as pods often have.
fn https() -> anyhow::Result<ServerConfig> {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["app".to_owned()])?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    Ok(config)
}

/// Answers one request: 200 for `/ok`, else 500.
fn serve(app: &App, config: &Arc<ServerConfig>) -> anyhow::Result<()> {
    let session = ServerConnection::new(config.clone())?;
    let mut stream = StreamOwned::new(session, app.accept()?);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).context("no request")?;
        head.push(byte[0]);
    }
    let status = if head.starts_with(b"GET /ok ") {
        200
    } else {
        500
    };
    write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n")?;
    stream.conn.send_close_notify();
    Ok(stream.flush()?)
}
