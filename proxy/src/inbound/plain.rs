//! Plaintext that was captured on its way to our app: refused, unless it is one of the kubelet's probes as declared in
//! the pod, or the workload is permissive. Nobody has an identity here, whatever address they come from.
//!
//! Limits: [`FIRST_BYTE_TIMEOUT`], [`PROBE_TIMEOUT`] and one buffer for a probe's request, and a place among strangers.

/// Clients of a permissive workload.
mod permissive;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringmail_proto::workload::{InboundMode, Workload};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::buffer::{Buffer, write_all};
use crate::config::is_own_port;
use crate::detect::{Verdict, detect};
use crate::error::{Blamed, Error, Reason};
use crate::http::h1::forward::connect;
use crate::http::h1::parse;
use crate::http::h1::write::{self, Answer};
use crate::http::h2::serve::refuse_all;
use crate::http::neutral::{Fields, Request, Version};
use crate::listen::Party;
use crate::listen::original_destination;
use crate::metrics::{Between, Direction, Outcome, Protocol, Tls};
use crate::records::{Record, Seen};
use crate::tcp::Tally;
use crate::worker::Worker;

/// For a probe to begin: the kubelet has sent all it says before we accept.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(1);
/// For a probe to say what it wants, and for the refusal of what is none.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the app to answer a probe; the kubelet's own limit is what counts.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Serves one captured plaintext connection.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    socket: TcpStream,
    from: SocketAddr,
) -> Result<(), Error> {
    let _busy = worker.drain.enter();
    let app = original_destination(&socket, from)?;
    // One of ours as well: what came to us directly.
    if is_own_port(app.port()) {
        return Err(Reason::Loop.into());
    }
    let between = Between::inbound(Tls::None, Protocol::Tcp);
    let traffic = worker.metrics.traffic(&between);
    traffic.connection_started();
    let tally = Tally::new(&traffic);
    let mut record = worker.records.begin(|| {
        Some(Seen::<Fields<'_>> {
            direction: Direction::Inbound,
            protocol: Protocol::Tcp,
            begun: Instant::now(),
            source: from.ip().to_canonical(),
            destination: app,
            peer: None,
            request: None,
        })
    });
    let open = worker.metrics.connections_open(Direction::Inbound);
    open.inc();
    let outcome = admit(&worker, socket, app, (&tally, &mut record)).await;
    open.dec();
    if let Some(record) = &mut record {
        record.ended(tally.bytes(), &outcome);
    }
    match &outcome {
        Ok(()) => traffic.connection(Outcome::Success),
        Err(error) if error.reason == Reason::MtlsRequired => traffic.connection(Outcome::Refused),
        Err(error) => traffic.connection(Outcome::of_reason(error.reason)),
    }
    outcome.inspect_err(|error| worker.metrics.refused(Direction::Inbound, error.reason))
}

async fn admit(
    worker: &Rc<Worker>,
    mut socket: TcpStream,
    app: SocketAddr,
    told: (&Tally<'_>, &mut Option<Record>),
) -> Result<(), Error> {
    let workload = worker.snapshot.workload()?;
    let from = socket.peer_addr().blame(Reason::ClientGone)?.ip();
    if workload.inbound_mode == InboundMode::Permissive {
        worker.metrics.came_in_plaintext(from);
        return permissive::serve(worker, &workload, socket, app, told).await;
    }
    let mut input = Buffer::default();
    let stranger = worker.plaintext.place(from).await?;
    let probing = timeout(
        PROBE_TIMEOUT,
        is_probe(&workload, app.port(), &mut socket, &mut input),
    );
    if !probing.await.unwrap_or(Ok(false))? {
        worker.metrics.came_in_plaintext(from);
        explain(&mut socket, input).await;
        return Err(Reason::MtlsRequired.into());
    }
    drop(stranger);
    if input.is_empty() {
        // A probe that only connects learns whether the app listens.
        return connect(worker, app, Party::App).await.map(drop);
    }
    let mut to_app = connect(worker, app, Party::App).await?;
    one_exchange(&mut socket, &input, &mut to_app).await
}

/// Whether the connection is a declared probe: a GET of its path, or no byte at all on the port of a TCP probe.
async fn is_probe(
    workload: &Workload,
    port: u16,
    socket: &mut TcpStream,
    input: &mut Buffer,
) -> Result<bool, Error> {
    match timeout(FIRST_BYTE_TIMEOUT, socket.readable()).await {
        Ok(readable) => readable.blame(Reason::ClientGone)?,
        Err(_) => return Ok(false),
    }
    let mut declared = workload
        .probes
        .iter()
        .filter(|probe| probe.port.get() == port)
        .peekable();
    if declared.peek().is_none() {
        // Read a little all the same, to answer HTTP in HTTP.
        let _ = input.fill(socket).await;
        return Ok(false);
    }
    let connects = workload
        .probes
        .iter()
        .any(|probe| probe.port.get() == port && probe.path.is_none());
    let mut neutral = Vec::new();
    let head = loop {
        if input.fill(socket).await.blame(Reason::ClientGone)? == 0 {
            return Ok(connects && input.is_empty());
        }
        neutral.clear();
        match parse::request(input.data(), &mut neutral) {
            Ok(Some(head)) => break head,
            Ok(None) if !input.is_full() => {}
            Ok(None) | Err(_) => return Ok(false),
        }
    };
    let Ok((request, _)) = Request::decode(&neutral) else {
        return Ok(false);
    };
    let whole = head.bytes == input.data().len() && head.body.is_over() && !head.upgrade;
    let is_declared = declared.any(|probe| probe.path.as_deref() == Some(request.target));
    Ok(whole && request.method == "GET" && is_declared)
}

/// A probe's request to the app, and what the app answers until it closes; the client gets no second request through.
async fn one_exchange(
    client: &mut TcpStream,
    request: &Buffer,
    app: &mut TcpStream,
) -> Result<(), Error> {
    let mut neutral = Vec::new();
    let Ok(Some(_)) = parse::request(request.data(), &mut neutral) else {
        return Err(Reason::Internal.into());
    };
    let (head, fields) =
        Request::decode(&neutral).map_err(|error| Reason::Internal.because(error))?;
    let mut text = Vec::new();
    write::request(&head, fields, false, &mut text)?;
    // The end of the response is the end of the connection: nothing has to be parsed.
    let end_of_head = text.len() - 2;
    text.splice(end_of_head.., *b"Connection: close\r\n\r\n");
    write_all(app, &text).await.blame(Reason::AppGone)?;
    let mut response = Buffer::default();
    let exchange = async {
        while response.fill(app).await.blame(Reason::AppGone)? > 0 {
            write_all(client, response.data())
                .await
                .blame(Reason::ClientGone)?;
            response.consume(response.data().len());
        }
        let _ = client.shutdown().await;
        Ok(())
    };
    timeout(ANSWER_TIMEOUT, exchange)
        .await
        .unwrap_or_else(|elapsed| Err(Reason::AppGone.because(elapsed)))
}

/// Says why in HTTP, to a client that speaks it.
async fn explain(socket: &mut TcpStream, input: Buffer) {
    match detect(input.data()) {
        Verdict::Http1 => {}
        Verdict::Http2 => {
            let error = Reason::MtlsRequired.into();
            return Box::pin(refuse_all(socket, input, &error)).await;
        }
        Verdict::More | Verdict::Opaque => return,
    }
    let mut text = Vec::new();
    let answer = Answer {
        version: Version::Http11,
        is_head: false,
        persistent: false,
    };
    write::refusal(&Reason::MtlsRequired.into(), answer, &mut text);
    let _ = timeout(PROBE_TIMEOUT, async {
        write_all(socket, &text).await?;
        socket.shutdown().await
    })
    .await;
}
