//! Conversations by hand, byte by byte: blocking sockets, made inside a pod and used by the scenario's own thread, which
//! plays the client, the app or both.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use ringmail_tests::netns::Pod;
use ringmail_tests::wait;
use socket2::SockRef;

use crate::shop::LIMIT;

/// The longest text that is waited for.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// A client in `pod`, connected as far as the kernel is concerned.
pub(crate) fn dial(pod: &Pod, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = pod
        .namespace
        .run(|| TcpStream::connect_timeout(&to, LIMIT))?
        .with_context(|| format!("{} dials {to}", pod.name))?;
    prepare(stream)
}

fn prepare(stream: TcpStream) -> anyhow::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// An app that the scenario plays.
#[derive(Debug)]
pub(crate) struct App(TcpListener);

impl App {
    /// Listens in `pod`, on both IP versions.
    pub(crate) fn listen(pod: &Pod, port: u16) -> anyhow::Result<Self> {
        let listener = pod.namespace.run(|| TcpListener::bind(("::", port)))??;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> anyhow::Result<TcpStream> {
        let mut accepted = None;
        wait::until(LIMIT, || {
            accepted = self.try_accept();
            accepted.is_some()
        })
        .context("nobody dialled the app")?;
        let stream = accepted.context("accepted")?;
        stream.set_nonblocking(false)?;
        prepare(stream)
    }

    /// The next connection on which a client says something. One that was made to hear whether the app speaks first
    /// ends without a byte.
    pub(crate) fn accept_speaking(&self) -> anyhow::Result<TcpStream> {
        loop {
            let stream = self.accept()?;
            if stream.peek(&mut [0]).is_ok_and(|n| n > 0) {
                return Ok(stream);
            }
        }
    }

    /// A connection, if one waits.
    pub(crate) fn try_accept(&self) -> Option<TcpStream> {
        self.0.accept().ok().map(|(stream, _)| stream)
    }
}

/// A client and the app it reached: at the pod's own address, where nothing is declared.
pub(crate) fn connected(
    client: &Pod,
    app: &App,
    to: SocketAddr,
    first: &[u8],
) -> anyhow::Result<(TcpStream, TcpStream)> {
    let mut near = dial(client, to)?;
    near.write_all(first)?;
    let mut far = app.accept_speaking()?;
    expect(&mut far, first)?;
    Ok((near, far))
}

/// Reads exactly these bytes, but for the id that the mesh gives a request without one.
pub(crate) fn expect(stream: &mut TcpStream, bytes: &[u8]) -> anyhow::Result<()> {
    let mut found = vec![0; bytes.len()];
    fill(stream, &mut found, bytes)?;
    if found != bytes && bytes.windows(6).any(|part| part == b" HTTP/") {
        let mut id = [0; ID_LINE_BYTES];
        fill(stream, &mut id, bytes)?;
        found.extend(id);
        let name = found
            .windows(ID_NAME.len())
            .position(|part| part == ID_NAME);
        if let Some(at) = name.filter(|at| at + ID_LINE_BYTES <= found.len()) {
            found.drain(at..at + ID_LINE_BYTES);
        }
    }
    ensure!(
        found == bytes,
        "read {:?}, not {:?}",
        text(&found),
        text(bytes)
    );
    Ok(())
}

/// The field that holds it, and its line: a UUID.
const ID_NAME: &[u8] = b"x-request-id: ";
const ID_LINE_BYTES: usize = ID_NAME.len() + 36 + 2;

fn fill(stream: &mut TcpStream, found: &mut [u8], bytes: &[u8]) -> anyhow::Result<()> {
    let mut filled = 0;
    while filled < found.len() {
        let n = stream.read(&mut found[filled..]);
        let n = n.with_context(|| format!("after {:?}", text(&found[..filled])))?;
        ensure!(
            n > 0,
            "ended after {:?}, not {:?}",
            text(&found[..filled]),
            text(bytes)
        );
        filled += n;
    }
    Ok(())
}

/// Reads up to and with `end`.
pub(crate) fn read_to(stream: &mut TcpStream, end: &str) -> anyhow::Result<String> {
    let mut found = Vec::new();
    let mut byte = [0];
    while !found.ends_with(end.as_bytes()) {
        match stream.read(&mut byte) {
            Ok(1..) if found.len() < TEXT_BYTES_MAX => found.extend_from_slice(&byte),
            Ok(_) => bail!("ended after {:?}, without {end:?}", text(&found)),
            Err(error) => bail!("{error} after {:?}, without {end:?}", text(&found)),
        }
    }
    Ok(text(&found))
}

/// The head of an HTTP/1 message, its empty line included.
pub(crate) fn read_head(stream: &mut TcpStream) -> anyhow::Result<String> {
    read_to(stream, "\r\n\r\n")
}

/// All that comes until the other end closes or resets.
pub(crate) fn read_rest(stream: &mut TcpStream) -> (String, Ending) {
    let mut found = Vec::new();
    let ended = stream.read_to_end(&mut found);
    (text(&found), Ending::of(ended))
}

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By a FIN.
    Closed,
    /// By an RST.
    Reset,
    /// Not while we waited.
    Open,
    /// Otherwise.
    Failed,
}

impl Ending {
    fn of(read: io::Result<usize>) -> Self {
        match read.map_err(|error| error.kind()) {
            Ok(_) => Self::Closed,
            Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Self::Reset,
            Err(ErrorKind::WouldBlock | ErrorKind::TimedOut) => Self::Open,
            Err(_) => Self::Failed,
        }
    }
}

/// Closes with an RST.
pub(crate) fn reset(stream: TcpStream) -> anyhow::Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

/// Reads all that comes and says how much that was; the end must be a FIN.
pub(crate) fn drain(stream: &mut TcpStream) -> anyhow::Result<u64> {
    Ok(io::copy(stream, &mut io::sink())?)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
