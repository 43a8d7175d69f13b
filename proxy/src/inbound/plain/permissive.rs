//! Plaintext for a permissive workload: the same engine as for peers, by a local pair. HTTP is checked, brought into
//! normal form, decided on and counted request by request; anything else goes to the app byte by byte.
//!
//! Limit: [`CLIENT_FIRST_GRACE`].

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringmail_proto::workload::{Protocol as Declared, Workload};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::app::Session;
use crate::buffer::{Buffer, write_all};
use crate::detect::Verdict;
use crate::detect::first::{first_bytes, in_time};
use crate::error::{Blamed, Error, Reason};
use crate::http::h1::forward::connect;
use crate::http::{h1, h2};
use crate::listen::Party;
use crate::peer::local;
use crate::peer::streams::{Side, Streams};
use crate::policy::{Client, Ground, Wanted};
use crate::records::Record;
use crate::tcp::{self, Tally};
use crate::upstream::Caller;
use crate::upstream::local::Local;
use crate::worker::Worker;

/// How long a client may be silent before we ask the app whether it speaks first.
const CLIENT_FIRST_GRACE: Duration = Duration::from_millis(5);

/// What the client speaks.
enum Spoken {
    Http1,
    Http2,
    /// Nothing, and it will not.
    Nothing,
    /// Bytes; with a connection to the app, if one was needed to find out.
    Tcp(Option<TcpStream>),
}

/// Serves one connection to `app`.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    workload: &Workload,
    mut socket: TcpStream,
    app: SocketAddr,
    (tally, record): (&Tally<'_>, &mut Option<Record>),
) -> Result<(), Error> {
    let mut input = Buffer::default();
    let declared = workload.protocol(app.port());
    let is_http = worker.policies.requires_http(app.port(), declared);
    let declared = match declared {
        Declared::Detect if is_http => Declared::Http1,
        Declared::Tcp if is_http => {
            return Err(Reason::NotHttp.into());
        }
        declared => declared,
    };
    let to_app = match spoken(worker, declared, &mut socket, &mut input, app).await? {
        Spoken::Http1 => {
            *record = None;
            let caller = caller(worker, &socket, app)?;
            let served = Box::pin(h1::serve::serve(worker, &caller, &mut socket, input)).await;
            return counted(served);
        }
        Spoken::Http2 => {
            *record = None;
            let caller = caller(worker, &socket, app)?;
            let served = Box::pin(h2::serve::serve(worker, caller, &mut socket, input)).await;
            return counted(served);
        }
        Spoken::Nothing => return Ok(()),
        Spoken::Tcp(to_app) => to_app,
    };
    let client = client(&socket)?;
    let wanted = Wanted {
        client: &client,
        port: app.port(),
        request: None,
        came: None,
        token: None,
        asking: &[],
    };
    worker.policies.judge(&wanted)?;
    let subject = (&wanted).into();
    let admitted = worker.limits.admit(&subject, Instant::now()).await;
    let _admitted = admitted.map_err(|exceeded| {
        worker
            .policies
            .exceeds(&wanted, Ground::Limit(&exceeded.limit))
    })?;
    let mut to_app = match to_app {
        Some(to_app) => to_app,
        None => connect(worker, app, Party::App).await?,
    };
    write_all(&mut to_app, input.data())
        .await
        .blame(Reason::AppGone)?;
    // Seen from the app: what it sends goes to the client.
    let blame = (Reason::AppGone, Reason::ClientGone);
    let mut from_app = Buffer::default();
    let pumped = tcp::with_socket(&mut to_app, &mut from_app, &mut socket, tally, blame);
    tokio::select! {
        pumped = pumped => pumped,
        cut = worker.policies.until_denied(&wanted) => Err(cut),
    }
}

/// Nobody that is known.
fn client(socket: &TcpStream) -> Result<Client, Error> {
    let source = socket.peer_addr().blame(Reason::ClientGone)?;
    Ok(Client {
        svid: None,
        address: source.ip().to_canonical(),
    })
}

/// The end of a connection whose requests were counted one by one, and refusals where they were.
#[expect(
    clippy::unnecessary_wraps,
    reason = "it is the outcome of the connection"
)]
fn counted(served: Result<(), Error>) -> Result<(), Error> {
    if let Err(error) = served {
        tracing::debug!(?error, "plaintext connection ended");
    }
    Ok(())
}

/// Declared beats detected; an app that speaks first is heard.
async fn spoken(
    worker: &Worker,
    declared: Declared,
    socket: &mut TcpStream,
    input: &mut Buffer,
    app: SocketAddr,
) -> Result<Spoken, Error> {
    let of_verdict = |verdict, otherwise| match verdict {
        Verdict::Http1 => Spoken::Http1,
        Verdict::Http2 => Spoken::Http2,
        Verdict::Opaque | Verdict::More => otherwise,
    };
    // Bytes that are neither are for the engine to refuse, and so are those that leave it open.
    let engine = match declared {
        Declared::Tcp => return Ok(Spoken::Tcp(None)),
        Declared::Http1 => Some(Spoken::Http1),
        Declared::Http2 => Some(Spoken::Http2),
        Declared::Detect => None,
    };
    if let Some(engine) = engine {
        if !h1::serve::first_byte(worker, socket, input).await? {
            return Ok(Spoken::Nothing);
        }
        return Ok(of_verdict(in_time(socket, input).await?, engine));
    }
    if let Ok(verdict) = timeout(CLIENT_FIRST_GRACE, first_bytes(socket, input)).await {
        return Ok(of_verdict(verdict?, Spoken::Tcp(None)));
    }
    if !input.is_empty() {
        return Ok(of_verdict(in_time(socket, input).await?, Spoken::Tcp(None)));
    }
    let to_app = connect(worker, app, Party::App).await?;
    let client_first = tokio::select! {
        biased;
        heard = to_app.readable() => { heard.blame(Reason::AppGone)?; false }
        filled = input.fill(socket) => { filled.blame(Reason::ClientGone)?; true }
    };
    let otherwise = Spoken::Tcp(Some(to_app));
    if !client_first {
        return Ok(otherwise);
    }
    Ok(of_verdict(in_time(socket, input).await?, otherwise))
}

/// A client whose requests go to the app as those of a peer do.
fn caller(worker: &Rc<Worker>, socket: &TcpStream, app: SocketAddr) -> Result<Caller, Error> {
    let client = client(socket)?;
    let source = client.address;
    let session = Session::of_client(client, app.ip());
    let acceptor = Streams::new(Side::Acceptor);
    worker.policies.watch(&acceptor);
    let worker = worker.clone();
    let streams = local::pair(acceptor, move |stream, reader, head| {
        session.accept(&worker, stream, reader, head);
    });
    Ok(Caller {
        source,
        destination: app,
        local: Some(Rc::new(Local::new(streams, app))),
    })
}
